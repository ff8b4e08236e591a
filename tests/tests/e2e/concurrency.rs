//! A limit of requests in flight is never exceeded, as the endpoint itself counts.

use std::sync::Arc;
use std::time::Duration;

use tests::wait::eventually_seen;
use tests::{
    Backend, Client, Gateway, PATIENCE, Raw, RawBackend, eventually, request, sized, within,
};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::{HELLO, hello};

/// Sends requests until `goal` are answered by `backend`, leaving in the middle of every third.
async fn restless(gateway: std::net::SocketAddr, seed: u64, rounds: usize) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut client = None;
    for _ in 0..rounds {
        let mut connection = match client.take() {
            Some(connection) => connection,
            None => Client::connect(gateway).await,
        };
        let path = format!("/?sleep={}", random.u64(0..4));
        let answer = connection.try_send(request("GET", HELLO, &path));
        if random.u32(0..3) == 0 {
            // Leaves early or late, before or after its turn has come.
            if timeout(Duration::from_millis(random.u64(0..30)), answer)
                .await
                .is_err()
            {
                continue;
            }
        } else {
            assert_eq!(answer.await.unwrap().status, 200);
        }
        client = Some(connection);
    }
}

#[tokio::test]
async fn limit_of_one_is_kept_under_two_hundred_connections_and_aborts() {
    let _alone = tests::heavy().await;
    for backend in [Backend::start("soft"), Backend::stubborn("hard")] {
        let keys = "    concurrency: 1\n    queue: { depth: 1000 }\n";
        let gateway = Gateway::start(&(hello(&backend) + keys)).await;
        let (connections, rounds) = (200, sized(10, 200));
        let clients = (0..connections).map(|seed| restless(gateway.public(), seed, rounds));
        clients.collect::<JoinSet<_>>().join_all().await;
        gateway.until_idle().await;
        assert_eq!(backend.peak(), 1, "{}", backend.name);
        // Aborts cost nobody a slot: it is still there.
        gateway.get(HELLO, "/").await.expect(200);
        eventually(PATIENCE, "it is idle", async || {
            (backend.running() == 0).then_some(())
        })
        .await;
        // The last answer is out before its slot is given back.
        eventually_seen(PATIENCE, "no slot is taken", async || {
            let revision = gateway.revision("hello-1").await;
            let counts = [
                &revision["inFlight"],
                &revision["waiting"],
                &revision["endpoints"][0]["inFlight"],
            ];
            let free = counts.into_iter().all(|count| *count == 0);
            if free { Ok(()) } else { Err(revision) }
        })
        .await;
    }
}

#[tokio::test]
async fn limit_is_per_endpoint_and_is_used_up() {
    let backends = [Backend::start("a"), Backend::start("b")];
    let [a, b] = &backends;
    let gateway = Gateway::start(&(hello(&format!("{a}', '{b}")) + "    concurrency: 3\n")).await;
    let clients = hold(&gateway, 10).await;
    gateway.until_waiting("hello-1", 4).await;
    // The last to get a slot may still be on its way there.
    let full = async || ((a.running(), b.running()) == (3, 3)).then_some(());
    eventually(PATIENCE, "both are full", full).await;
    a.open_gate();
    b.open_gate();
    answered(clients).await;
    assert_eq!((a.peak(), b.peak()), (3, 3));
    gateway.until_idle().await;
}

#[tokio::test]
async fn without_a_limit_nobody_waits() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&hello(&backend)).await;
    let clients = hold(&gateway, 300).await;
    let all = async || (backend.running() == 300).then_some(());
    eventually(PATIENCE, "all of them are at the endpoint", all).await;
    let labels = [("revision", "hello-1")];
    assert_eq!(gateway.metric("tidegate_inflight", &labels).await, 300.0);
    assert_eq!(gateway.metric("tidegate_waiting", &labels).await, 0.0);
    backend.open_gate();
    answered(clients).await;
    gateway.until_idle().await;
}

#[tokio::test]
async fn lowered_limit_cuts_nobody_and_holds_for_the_next() {
    let backend = Backend::start("one");
    let config = |limit| format!("{}    concurrency: {limit}\n", hello(&backend));
    let gateway = Gateway::start(&config(4)).await;
    let mut clients = hold(&gateway, 4).await;
    eventually(PATIENCE, "four are in", async || {
        (backend.running() == 4).then_some(())
    })
    .await;
    gateway.apply(&config(2)).await;
    clients.extend(hold(&gateway, 4).await);
    gateway.until_waiting("hello-1", 4).await;
    assert_eq!(backend.running(), 4);
    // Two that leave make no room yet.
    drop(clients.drain(..2));
    eventually(PATIENCE, "two have left", async || {
        (backend.running() == 2).then_some(())
    })
    .await;
    gateway.until_waiting("hello-1", 4).await;
    gateway.apply(&config(3)).await;
    gateway.until_waiting("hello-1", 3).await;
    eventually(PATIENCE, "a third is in", async || {
        (backend.running() == 3).then_some(())
    })
    .await;
    backend.open_gate();
    answered(clients).await;
}

#[tokio::test]
async fn websocket_keeps_its_slot_to_its_end() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&(hello(&backend) + "    concurrency: 1\n")).await;
    let mut socket = tests::websocket::WebSocket::open(gateway.public(), HELLO, "/").await;
    socket.echo("a").await;
    let mut waiting = gateway.raw().await;
    waiting
        .send(format!("GET / HTTP/1.1\r\nHost: {HELLO}\r\n\r\n"))
        .await;
    gateway.until_waiting("hello-1", 1).await;
    socket.echo("b").await;
    socket.close().await;
    assert_eq!(waiting.answer().await.status(), 200);
}

#[tokio::test]
async fn slot_of_a_client_that_left_is_free_once_its_head_request_is_answered() {
    let (arrived, answer) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (arrives, answers) = (arrived.clone(), answer.clone());
    let backend = RawBackend::scripted(move |number, mut connection| {
        let (arrives, answers) = (arrives.clone(), answers.clone());
        async move {
            connection.head().await;
            if number > 0 {
                return connection.send("HTTP/1.1 204 No Content\r\n\r\n").await;
            }
            arrives.notify_one();
            answers.notified().await;
            let head = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
            connection.send(head).await;
            // It keeps its connection whatever we do with ours.
            std::future::pending().await
        }
    });
    let linger = "gateway:\n  limits:\n    abortLinger: 1h\n";
    let config = linger.to_owned() + &hello(&backend) + "    concurrency: 1\n";
    let gateway = Gateway::start(&config).await;
    let mut client = gateway.raw().await;
    client
        .send(format!("HEAD / HTTP/1.1\r\nHost: {HELLO}\r\n\r\n"))
        .await;
    within("the request to arrive", arrived.notified()).await;
    client.reset();
    answer.notify_one();
    gateway.get(HELLO, "/").await.expect(204);
}

async fn hold(gateway: &Gateway, count: usize) -> Vec<Raw> {
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut client = gateway.raw().await;
        client
            .send(format!("GET /?hold HTTP/1.1\r\nHost: {HELLO}\r\n\r\n"))
            .await;
        clients.push(client);
    }
    clients
}

async fn answered(clients: Vec<Raw>) {
    for mut client in clients {
        assert_eq!(client.answer().await.status(), 200);
    }
}
