//! Thousands of requests at once and an endpoint that bears few: it gets what it bears, and everybody
//! an answer. One that fails is passed over until it is well.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tests::backend::{accept_few, listen};
use tests::process::{descriptors, raise_descriptor_limit};
use tests::wait::takes;
use tests::{
    Backend, Gateway, Load, PATIENCE, Raw, RawBackend, Turnstile, body, eventually, load, request,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::{COLD, HELLO, Switch, cold, hello};

/// Connections that the endpoint bears.
const MOST: usize = 64;

/// The first client may wait for the last to have come before any of them says something.
const PATIENT: &str = "limits: { headTimeout: 1h }";

/// Either side of the gateway takes a descriptor per client in its process.
fn five_thousand() -> usize {
    raise_descriptor_limit();
    5_000.min(descriptors() / 3)
}

/// Connected clients that have sent nothing yet.
async fn clients(gateway: &Gateway, count: usize) -> Vec<Raw> {
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(gateway.raw().await);
    }
    clients
}

/// Reads every client's answer, which must be 200. The more there are, the longer the last may wait.
async fn all_are_answered(clients: Vec<Raw>) {
    let limit = PATIENCE + Duration::from_millis(10) * u32::try_from(clients.len()).unwrap();
    let mut reading = JoinSet::new();
    for mut client in clients {
        reading.spawn(async move {
            assert!(client.begins().await, "closed without an answer");
            let answer = client.answer().await;
            assert_eq!(answer.status(), 200, "{}", answer.head);
        });
    }
    let all = async {
        while let Some(read) = reading.join_next().await {
            read.unwrap();
        }
    };
    let read = timeout(limit, all).await;
    read.expect("all are answered in time");
}

/// The window of the revision's only endpoint, if it has one.
async fn window(gateway: &Gateway, revision: &str) -> Option<u64> {
    let revision = gateway.revision(revision).await;
    revision["endpoints"][0]["window"].as_u64()
}

/// Windows as they were seen until all is answered.
async fn windows_meanwhile(gateway: &Gateway, revision: &str, clients: Vec<Raw>) -> Vec<u64> {
    let mut seen = Vec::new();
    let mut answering = tokio::spawn(all_are_answered(clients));
    loop {
        tokio::select! {
            answered = &mut answering => {
                answered.unwrap();
                return seen;
            }
            window = window(gateway, revision) => seen.extend(window),
        }
    }
}

/// It is near what the endpoint bears, but for what is learnt anew now and then.
fn assert_hovers(windows: &[u64]) {
    let most = u64::try_from(MOST).unwrap();
    let mut sorted = windows.to_vec();
    sorted.sort_unstable();
    let median = sorted.get(sorted.len() / 2).copied().expect("a window");
    assert!((most / 2..=most * 3 / 2).contains(&median), "{windows:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_held_gets_meet_an_endpoint_that_resets_beyond_64_connections() {
    let _alone = tests::heavy().await;
    let count = five_thousand();
    let switch = Switch::new();
    let most = MOST.to_string();
    let environment = [("GATE", &switch.path()[..]), ("CONNECTIONS", &most)];
    let more = format!("    queue: {{ depth: {count} }}\n    scale: {{ max: 1 }}\n");
    // Idle connections of another worker would count there as well.
    let one = format!("gateway: {{ workers: 1, {PATIENT} }}\n");
    let gateway = Gateway::start(&(one + &cold(&environment) + &more)).await;
    let mut clients = clients(&gateway, count).await;
    for client in &mut clients {
        let get = format!("GET /?sleep=10 HTTP/1.1\r\nHost: {COLD}\r\n\r\n");
        client.send(get).await;
    }
    gateway.until_waiting("cold-1", count).await;
    switch.turn_on();
    let windows = windows_meanwhile(&gateway, "cold-1", clients).await;
    assert_hovers(&windows);
    gateway.until_idle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_gets_at_once_meet_a_fixed_endpoint_that_resets_beyond_64_connections() {
    let _alone = tests::heavy().await;
    let count = five_thousand();
    let listener = listen();
    let address = listener.local_addr().unwrap();
    let endpoint = tokio::spawn(accept_few(listener, MOST, false, async |_| {
        takes(Duration::from_millis(10)).await;
        anyhow::Ok(hyper::Response::new(body::empty()))
    }));
    let more = format!("    queue: {{ depth: {count} }}\n");
    let patient = format!("gateway: {{ {PATIENT} }}\n");
    let gateway = Gateway::start(&(patient + &hello(&address) + &more)).await;
    let mut clients = clients(&gateway, count).await;
    for client in &mut clients {
        let get = format!("GET / HTTP/1.1\r\nHost: {HELLO}\r\n\r\n");
        client.send(get).await;
    }
    all_are_answered(clients).await;
    gateway.until_idle().await;
    endpoint.abort();
}

/// Clients whose requests wait for a fixed endpoint that nobody knew of before; it answers when told.
async fn late_for(count: usize, pace: &str) -> (Gateway, Vec<Raw>, Turnstile) {
    let endpoint = Turnstile::start();
    let pace = format!("    scale: {{ rampUp: {{ initial: 1, {pace} }} }}\n");
    let gateway = Gateway::start(&(hello(&"nowhere.invalid:80") + &pace)).await;
    let mut clients = clients(&gateway, count).await;
    for client in &mut clients {
        let get = format!("GET / HTTP/1.1\r\nHost: {HELLO}\r\n\r\n");
        client.send(get).await;
    }
    gateway.until_waiting("hello-1", count).await;
    gateway.apply(&(hello(&endpoint) + &pace)).await;
    (gateway, clients, endpoint)
}

#[tokio::test]
async fn the_first_fixed_endpoint_that_requests_waited_for_does_not_get_them_all_at_once() {
    let (gateway, clients, endpoint) = late_for(50, "interval: 1h").await;
    gateway.until_waiting("hello-1", 49).await;
    assert_eq!(window(&gateway, "hello-1").await, Some(1));
    assert!(endpoint.order().len() <= 1);
    endpoint.pass(50);
    all_are_answered(clients).await;
    gateway.until_idle().await;
}

#[tokio::test]
async fn an_endpoint_that_answers_nothing_gets_all_who_wait_as_short_intervals_pass() {
    for interval in ["10ms", "50ms", "100ms"] {
        let (gateway, clients, endpoint) = late_for(200, &format!("interval: {interval}")).await;
        gateway.until_waiting("hello-1", 0).await;
        endpoint.pass(200);
        all_are_answered(clients).await;
        gateway.until_idle().await;
    }
}

/// An endpoint that hangs up on every request, but answers checks while it is well.
struct Moody {
    backend: RawBackend,
    well: Arc<AtomicBool>,
    requests: Arc<AtomicUsize>,
}

impl Moody {
    fn start() -> Moody {
        let (well, requests) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (state, counter) = (well.clone(), requests.clone());
        let backend = RawBackend::scripted(move |_, mut connection| {
            let (state, counter) = (state.clone(), counter.clone());
            async move {
                while let Some(head) = connection.next_head().await {
                    let check = head.starts_with("GET /health ");
                    if !check {
                        counter.fetch_add(1, Ordering::SeqCst);
                    }
                    if !state.load(Ordering::SeqCst) {
                        return;
                    }
                    let answer = "HTTP/1.1 200 OK\r\nX-Backend: moody\r\nContent-Length: 0\r\n\r\n";
                    if connection.try_send(answer).await.is_err() || check {
                        return;
                    }
                }
            }
        });
        Moody {
            backend,
            well,
            requests,
        }
    }
}

#[tokio::test]
async fn a_suspect_is_used_again_once_a_check_finds_it_well_and_not_before() {
    let (moody, other) = (Moody::start(), Backend::start("other"));
    let address = moody.backend.address;
    let gateway = Gateway::start(
        &(hello(&format!("{address}', '{other}"))
            + "    health: { path: /health, interval: 200ms }\n"),
    )
    .await;
    // Checks take it out, so it is brought back before it is suspect. They are waited for for as long
    // as lies between them: long enough that the other one always answers in time.
    moody.well.store(true, Ordering::SeqCst);
    eventually(PATIENCE, "both endpoints are ready", async || {
        (gateway.endpoints("hello-1", "ready").await == 2).then_some(())
    })
    .await;
    eventually(PATIENCE, "the moody one has answered", async || {
        (gateway.get(HELLO, "/").await.expect(200).backend() == "moody").then_some(())
    })
    .await;
    moody.well.store(false, Ordering::SeqCst);
    let before = moody.requests.load(Ordering::SeqCst);
    for _ in 0..50 {
        let backend = gateway
            .get(HELLO, "/")
            .await
            .expect(200)
            .backend()
            .to_owned();
        assert_eq!(backend, "other");
    }
    let tried = moody.requests.load(Ordering::SeqCst) - before;
    assert!(tried <= 10, "{tried} of 50 requests were sent to a suspect");
    moody.well.store(true, Ordering::SeqCst);
    eventually(PATIENCE, "the moody one answers again", async || {
        (gateway.get(HELLO, "/").await.expect(200).backend() == "moody").then_some(())
    })
    .await;
}

/// Passes bytes on both ways, each after that time.
fn far_away(delay: Duration, near: SocketAddr) -> SocketAddr {
    let listener = listen();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let endpoint = TcpStream::connect(near).await.unwrap();
            let (from_client, to_client) = client.into_split();
            let (from_endpoint, to_endpoint) = endpoint.into_split();
            tokio::spawn(pass(from_client, to_endpoint, delay));
            tokio::spawn(pass(from_endpoint, to_client, delay));
        }
    });
    address
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        takes(delay).await;
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn an_endpoint_a_long_way_off_is_well_though_its_checks_take_longer_than_their_interval() {
    let near = Backend::start("far");
    let far = far_away(Duration::from_millis(100), near.address);
    let health = "    health: { path: /, interval: 20ms }\n";
    let gateway = Gateway::start(&(hello(&far) + health)).await;
    // Two checks that are waited for for too short a time take it out; a longer one brings it back.
    eventually(PATIENCE, "a check is answered", async || {
        (near.total() >= 12).then_some(())
    })
    .await;
    eventually(PATIENCE, "the endpoint stays ready", async || {
        let mut always = true;
        for _ in 0..20 {
            always &= gateway.endpoints("hello-1", "ready").await == 1;
        }
        always.then_some(())
    })
    .await;
    let load = Load::start(gateway.public(), 20, load::Reconnect::Always, || {
        request("GET", HELLO, "/")
    });
    load.more(100).await;
    load::assert_only_200(&load.stop().await);
}
