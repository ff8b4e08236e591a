//! Many requests at once and an endpoint of HTTP/2 that takes few of them, on a connection or at a
//! time: whatever it says of the others, they are asked again until they are answered.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use h2::Reason;
use tests::frames::{self, Frames};
use tests::http2::Http2Backend;
use tests::wait::takes;
use tests::{Gateway, RawBackend, request};
use tokio::task::JoinSet;

use crate::http2_endpoints::leaving_once;
use crate::{HELLO, hello_h2c};

/// Requests at once.
const CROWD: usize = 300;

/// Streams that a connection of the gateway's carries at a time.
const TOGETHER: usize = 100;

/// With one worker, whose connections are its own.
fn one_worker(endpoint: &impl Display) -> String {
    "gateway: { workers: 1 }\n".to_owned() + &hello_h2c(endpoint)
}

/// Asks that often at once, each time from a client of its own; how often each status came.
async fn crowd(gateway: &Gateway, method: &'static str, count: usize) -> BTreeMap<u16, usize> {
    let mut crowd = JoinSet::new();
    for _ in 0..count {
        let mut client = gateway.connect().await;
        crowd.spawn(async move { client.send(request(method, HELLO, "/")).await.status });
    }
    let mut statuses = BTreeMap::new();
    while let Some(status) = crowd.join_next().await {
        *statuses.entry(status.unwrap()).or_default() += 1;
    }
    statuses
}

/// Says GOAWAY when so many streams of a connection have come, answers these and ignores all others.
/// How many streams have come in all.
fn leaving_after(most: u32) -> (RawBackend, Arc<AtomicUsize>) {
    let streams = Arc::new(AtomicUsize::new(0));
    let count = streams.clone();
    let backend = RawBackend::scripted(move |_, raw| {
        let count = count.clone();
        async move {
            let mut server = Frames::accept(raw).await;
            for number in 1_u32.. {
                let Some(stream) = server.asked().await else {
                    return;
                };
                count.fetch_add(1, Ordering::SeqCst);
                if number == most.max(1) {
                    let last = if most == 0 { 0 } else { stream };
                    let last = [last.to_be_bytes(), frames::NO_ERROR.to_be_bytes()].concat();
                    server.send(frames::GOAWAY, 0, 0, &last).await;
                }
                if number <= most {
                    server.respond(stream, &[(":status", "200")]).await;
                }
            }
        }
    });
    (backend, streams)
}

#[tokio::test]
async fn crowd_is_answered_by_an_endpoint_that_leaves_after_few_streams_of_each_connection() {
    for (most, method) in [
        (20, "GET"),
        (20, "POST"),
        (5, "GET"),
        (5, "POST"),
        (1, "POST"),
    ] {
        let (backend, streams) = leaving_after(most);
        let gateway = Gateway::start(&one_worker(&backend)).await;
        let statuses = crowd(&gateway, method, CROWD).await;
        assert_eq!(statuses, BTreeMap::from([(200, CROWD)]), "{method}, {most}");
        // Connections that were filled before it was known were left by all their streams but a few.
        let streams = streams.load(Ordering::SeqCst);
        assert!(streams <= CROWD + 4 * TOGETHER, "{most}: {streams} streams");
        gateway.until_idle().await;
    }
}

#[tokio::test]
async fn crowd_at_an_endpoint_that_leaves_whatever_comes_is_not_asked_again_without_end() {
    let (backend, streams) = leaving_after(0);
    let gateway = Gateway::start(&one_worker(&backend)).await;
    let statuses = crowd(&gateway, "POST", 50).await;
    assert_eq!(statuses, BTreeMap::from([(502, 50)]));
    // Three attempts, and five that do not count.
    let streams = streams.load(Ordering::SeqCst);
    assert!(streams <= 50 * 8, "{streams} streams");
}

#[tokio::test]
async fn endpoint_that_left_one_connection_early_gets_as_many_streams_on_others_as_before() {
    let (backend, connections) = leaving_once();
    let gateway = Gateway::start(&one_worker(&backend)).await;
    let statuses = crowd(&gateway, "POST", 5).await;
    assert_eq!(statuses, BTreeMap::from([(200, 5)]));
    for _ in 0..30 {
        gateway.get(HELLO, "/").await.expect(200);
    }
    // One for each of the four that were left out, at most.
    let connections = connections.load(Ordering::SeqCst);
    assert!(connections <= 5, "{connections} connections");
}

/// Resets streams beyond so many at a time, of all connections.
fn bearing(most: usize, reason: Reason) -> Http2Backend {
    let running = Arc::new(AtomicUsize::new(0));
    Http2Backend::scripted(move |mut stream| {
        let running = running.clone();
        async move {
            if running.fetch_add(1, Ordering::SeqCst) < most {
                takes(Duration::from_millis(10)).await;
                stream.status(200);
            } else {
                stream.reset(reason);
            }
            running.fetch_sub(1, Ordering::SeqCst);
        }
    })
}

#[tokio::test]
async fn crowd_is_answered_by_an_endpoint_that_resets_beyond_ten_streams() {
    for reason in [
        Reason::REFUSED_STREAM,
        Reason::INTERNAL_ERROR,
        Reason::CANCEL,
    ] {
        let backend = bearing(10, reason);
        let gateway = Gateway::start(&one_worker(&backend)).await;
        let statuses = crowd(&gateway, "GET", CROWD).await;
        assert_eq!(statuses, BTreeMap::from([(200, CROWD)]), "{reason}");
        gateway.until_idle().await;
    }
}
