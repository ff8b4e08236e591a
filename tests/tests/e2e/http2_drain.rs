//! The end on HTTP/2: clients are told to go, and those that do lose nothing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tests::frames::{self, Frames, Outcome};
use tests::http2::Http2;
use tests::{Backend, Gateway, PATIENCE, eventually, request, sized};
use tokio::task::JoinSet;

use crate::{COLD, HELLO, Switch, cold, hello, hello_h2c};

/// A drain that goes on for longer than any test waits: what ends has come to its end by itself.
const LONG: &str = "gateway: { drain: { timeout: 1h } }\n";

/// So long after its last answer a client that is told to go may find its connection closed.
const SILENT: Duration = Duration::from_millis(500);

/// The last stream of a GOAWAY that only asks for no more.
const ANY: u32 = (1 << 31) - 1;

#[tokio::test]
async fn goaway_lets_everything_finish_that_was_begun() {
    let backend = Backend::start("one");
    let mut gateway = Gateway::start(&(LONG.to_owned() + &hello(&backend))).await;
    let mut client = Frames::connect(gateway.public()).await;
    client.get(1, HELLO, "/?hold").await;
    eventually(PATIENCE, "it arrives", async || {
        (backend.running() == 1).then_some(())
    })
    .await;
    gateway.signal(Signal::TERM);
    // First a warning, in case a request is on its way, then what was the last.
    assert_eq!(client.goaway().await, (ANY, frames::NO_ERROR));
    assert_eq!(client.goaway().await, (1, frames::NO_ERROR));
    assert!(gateway.lives());
    backend.open_gate();
    assert_eq!(client.outcome(1).await, Outcome::Status(200));
    client.end().await;
    gateway.exit(PATIENCE).await.expect(0);
}

#[tokio::test]
async fn idle_connections_and_silent_clients_do_not_keep_it_up() {
    let backend = Backend::start("one");
    let mut gateway = Gateway::start(&(LONG.to_owned() + &hello(&backend))).await;
    let mut idle = Frames::connect(gateway.public()).await;
    idle.get(1, HELLO, "/").await;
    assert_eq!(idle.outcome(1).await, Outcome::Status(200));
    // One that never answers the PING by which we would know that it has heard us.
    let mut deaf = tests::Raw::connect(gateway.public()).await;
    deaf.send(frames::PREFACE).await;
    deaf.send(frames::encode(frames::SETTINGS, 0, 0, &[])).await;
    gateway.signal(Signal::TERM);
    assert_eq!(idle.goaway().await.1, frames::NO_ERROR);
    gateway.exit(PATIENCE).await.expect(0);
    idle.end().await;
}

#[tokio::test]
async fn held_requests_may_still_be_served() {
    let switch = Switch::new();
    let config = LONG.to_owned() + &cold(&[("GATE", &switch.path())]);
    let mut gateway = Gateway::start(&config).await;
    let mut client = Frames::connect(gateway.public()).await;
    client.get(1, COLD, "/").await;
    gateway.until_waiting("cold-1", 1).await;
    gateway.signal(Signal::TERM);
    client.goaway().await;
    switch.turn_on();
    assert_eq!(client.outcome(1).await, Outcome::Status(200));
    gateway.exit(PATIENCE).await.expect(0);
}

#[tokio::test]
async fn held_requests_are_told_when_the_time_is_over() {
    let switch = Switch::new();
    let drain = "gateway: { drain: { timeout: 500ms } }\n".to_owned();
    let mut gateway = Gateway::start(&(drain + &cold(&[("GATE", &switch.path())]))).await;
    let mut client = Frames::connect(gateway.public()).await;
    client.get(1, COLD, "/").await;
    gateway.until_waiting("cold-1", 1).await;
    gateway.signal(Signal::TERM);
    assert_eq!(client.outcome(1).await, Outcome::Status(503));
    gateway.exit(PATIENCE).await.expect(0);
}

/// One client that goes on until it is told to go, a few requests at a time, and what became of
/// each: a status, `turned away`, `late` or `lost`.
async fn obey(gateway: SocketAddr, seed: u64) -> BTreeMap<String, usize> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut client = Http2::connect(gateway).await;
    let mut tally = BTreeMap::new();
    let mut asked = Instant::now();
    loop {
        let before = std::mem::replace(&mut asked, Instant::now());
        let mut calls = Vec::new();
        for _ in 0..random.usize(1..10) {
            let path = format!("/?sleep={}", random.usize(..10));
            match client.try_open(request("GET", HELLO, &path), true).await {
                Ok(call) => calls.push(call),
                Err(_) => break,
            }
        }
        if calls.is_empty() {
            return tally;
        }
        for mut call in calls {
            let outcome = match call.try_head().await {
                Ok(answer) => answer.status().as_u16().to_string(),
                // Beyond the last stream that was taken: nothing was done, it may be sent again.
                Err(error) if error.is_remote() && error.is_go_away() => "turned away".to_owned(),
                // The machine has paused: it was taken for one that has nothing more to ask.
                Err(_) if before.elapsed() >= SILENT => "late".to_owned(),
                Err(error) => format!("lost: {error}"),
            };
            *tally.entry(outcome).or_default() += 1;
        }
    }
}

#[tokio::test]
async fn clients_that_obey_lose_no_request() {
    let _alone = tests::heavy().await;
    for seed in 0..sized(2, 20) {
        let backend = Backend::start("one");
        let config = if seed % 2 == 0 { hello } else { hello_h2c };
        let mut gateway = Gateway::start(&(LONG.to_owned() + &config(&backend))).await;
        let address = gateway.public();
        let clients = (0..20).map(|number| obey(address, seed * 100 + number));
        let clients: JoinSet<_> = clients.collect();
        eventually(PATIENCE, "the load is on", async || {
            (backend.total() > 500).then_some(())
        })
        .await;
        gateway.signal(Signal::TERM);
        let mut answered = 0;
        for (outcome, count) in clients.join_all().await.into_iter().flatten() {
            match outcome.as_str() {
                "200" => answered += count as u64,
                "turned away" | "late" => {}
                other => panic!("{count} × {other}"),
            }
        }
        // What was turned away or came too late was not begun either.
        assert_eq!(answered, backend.total());
        gateway.exit(PATIENCE).await.expect(0);
    }
}
