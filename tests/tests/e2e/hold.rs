//! Requests that wait: in order, without cost to others, and gone when their clients are.

use std::time::Duration;

use tests::body::pattern;
use tests::client::carrying;
use tests::raw::field;
use tests::{Backend, Gateway, PATIENCE, Raw, Turnstile, eventually, request};

use crate::{COLD, HELLO, Switch, cold, hello};

#[tokio::test]
async fn waiting_requests_get_their_slots_in_order_of_arrival() {
    let backend = Turnstile::start();
    let gateway = Gateway::start(&(hello(&backend) + "    concurrency: 1\n")).await;
    let mut clients = Vec::new();
    for number in 0..20 {
        let mut client = gateway.raw().await;
        client
            .send(format!("GET /{number} HTTP/1.1\r\nHost: {HELLO}\r\n\r\n"))
            .await;
        clients.push(client);
        match number {
            0 => backend.begun().await,
            number => gateway.until_waiting("hello-1", number).await,
        }
    }
    backend.pass(20);
    for client in &mut clients {
        assert_eq!(client.answer().await.status(), 200);
    }
    let expected: Vec<_> = (0..20).map(|number| format!("/{number}")).collect();
    assert_eq!(backend.order(), expected);
}

/// A gateway whose only slot is taken, what takes it, and a way to end that.
async fn full() -> (Gateway, Raw, Backend) {
    let backend = Backend::start("one");
    let keys = "    concurrency: 1\n    queue: { depth: 5000 }\n";
    let gateway = Gateway::start(&(hello(&backend) + keys)).await;
    let mut first = gateway.raw().await;
    first
        .send(format!("GET /?hold HTTP/1.1\r\nHost: {HELLO}\r\n\r\n"))
        .await;
    eventually(PATIENCE, "it arrives", async || {
        (backend.running() == 1).then_some(())
    })
    .await;
    (gateway, first, backend)
}

#[tokio::test]
async fn client_that_leaves_frees_its_place_however_it_leaves() {
    let (gateway, _first, _backend) = full().await;
    let heads = [
        "GET / HTTP/1.1\r\nHost: H\r\n\r\n".to_owned(),
        format!(
            "POST / HTTP/1.1\r\nHost: H\r\nContent-Length: 32768\r\n\r\n{}",
            "x".repeat(32_768)
        ),
        format!(
            "POST / HTTP/1.1\r\nHost: H\r\nContent-Length: 32768\r\n\r\n{}",
            "x".repeat(100)
        ),
        format!(
            "POST / HTTP/1.1\r\nHost: H\r\nTransfer-Encoding: chunked\r\n\r\n100\r\n{}",
            "x".repeat(256)
        ),
        "POST / HTTP/1.1\r\nHost: H\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n"
            .to_owned(),
    ];
    for how in ["closing", "resetting", "closing its side"] {
        for head in &heads {
            let mut client = gateway.raw().await;
            client
                .send(head.replace("Host: H", &format!("Host: {HELLO}")))
                .await;
            gateway.until_waiting("hello-1", 1).await;
            let _half_open = leave(client, how).await;
            let what = format!("the queue is empty after {how}");
            // Nothing else can end its waiting: the slot is held, and its time is far from over.
            eventually(PATIENCE, &what, async || {
                (gateway.metric("tidegate_waiting", &[]).await == 0.0).then_some(())
            })
            .await;
        }
    }
}

async fn leave(mut client: Raw, how: &str) -> Option<Raw> {
    match how {
        "closing" => drop(client),
        "resetting" => client.reset(),
        _ => {
            client.finish().await;
            return Some(client);
        }
    }
    None
}

#[tokio::test]
async fn request_of_a_client_that_left_never_reaches_the_endpoint() {
    let (gateway, mut first, backend) = full().await;
    for _ in 0..20 {
        let mut client = gateway.raw().await;
        client
            .send(format!("GET / HTTP/1.1\r\nHost: {HELLO}\r\n\r\n"))
            .await;
        gateway.until_waiting("hello-1", 1).await;
        drop(client);
        gateway.until_waiting("hello-1", 0).await;
    }
    backend.open_gate();
    assert_eq!(first.answer().await.status(), 200);
    gateway.until_idle().await;
    assert_eq!(backend.total(), 1);
}

#[tokio::test]
async fn bodies_of_all_sizes_survive_the_wait() {
    let (gateway, mut first, backend) = full().await;
    let mut uploads = tokio::task::JoinSet::new();
    let sizes = [1, 16_383, 16_384, 16_385, 65_536, 500_000, 3_000_000];
    for size in sizes {
        let mut client = gateway.connect().await;
        uploads.spawn(async move {
            let post = request("POST", HELLO, "/");
            let content = pattern(size, 8);
            let report = client
                .send(carrying(post, tests::body::full(content.clone())))
                .await;
            assert_eq!(
                report.json()["fingerprint"],
                tests::body::fingerprint(&content),
                "{size}"
            );
        });
    }
    gateway.until_waiting("hello-1", sizes.len()).await;
    backend.open_gate();
    assert_eq!(first.answer().await.status(), 200);
    uploads.join_all().await;
}

#[tokio::test]
async fn held_client_is_told_to_continue_when_there_is_room() {
    let switch = Switch::new();
    let gateway = Gateway::start(&cold(&[("GATE", &switch.path())])).await;
    let mut client = gateway.raw().await;
    client
        .send(format!(
            "POST / HTTP/1.1\r\nHost: {COLD}\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
        ))
        .await;
    gateway.until_waiting("cold-1", 1).await;
    assert!(
        client.silent_for(Duration::from_millis(100)).await,
        "it spoke too early"
    );
    switch.turn_on();
    assert!(client.head().await.starts_with("HTTP/1.1 100 "));
    client.send("hello").await;
    let answer = client.answer().await;
    assert_eq!(answer.status(), 200, "{}", answer.head);
    let report: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(report["body"], "hello");
    assert_eq!(report["headers"]["expect"], serde_json::Value::Null);
}

#[tokio::test]
async fn pipelined_request_behind_a_held_one_is_answered_after_it() {
    let switch = Switch::new();
    let gateway = Gateway::start(&cold(&[("GATE", &switch.path())])).await;
    let mut client = gateway.raw().await;
    let one = format!("GET /one HTTP/1.1\r\nHost: {COLD}\r\n\r\n");
    let two = format!("GET /two HTTP/1.1\r\nHost: {COLD}\r\n\r\n");
    client.send(one + &two).await;
    gateway.until_waiting("cold-1", 1).await;
    switch.turn_on();
    for path in ["/one", "/two"] {
        let answer = client.answer().await;
        assert_eq!(answer.status(), 200);
        assert!(
            answer.text().contains(&format!("\"{path}\"")),
            "{}",
            answer.text()
        );
    }
}

#[tokio::test]
async fn held_requests_of_one_revision_do_not_slow_another() {
    let (gateway, first, backend) = full().await;
    let other = Backend::start("other");
    let config = format!(
        "{}    concurrency: 1\n---
routes: [{{ name: other, traffic: [{{ revision: other-1 }}] }}]
revisions: [{{ name: other-1, endpoints: ['{other}'], concurrency: 1 }}]
",
        hello(&backend)
    );
    gateway.apply(&config).await;
    let mut held = Vec::new();
    for _ in 0..100 {
        let mut client = gateway.raw().await;
        client
            .send(format!("GET / HTTP/1.1\r\nHost: {HELLO}\r\n\r\n"))
            .await;
        held.push(client);
    }
    gateway.until_waiting("hello-1", 100).await;
    let mut client = gateway.connect().await;
    for _ in 0..100 {
        client
            .get("other.default.example.com", "/")
            .await
            .expect(200);
    }
    assert_eq!(gateway.metric("tidegate_waiting", &[]).await, 100.0);
    backend.open_gate();
    for mut client in [first].into_iter().chain(held) {
        let answer = client.answer().await;
        assert_eq!(answer.status(), 200);
        assert_eq!(field(&answer.head, "x-backend"), Some("one"));
    }
}
