//! Many requests at once and an endpoint of HTTP/2 that takes few of them, on a connection or at a
//! time: whatever it says of the others, they are asked again until they are answered.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use h2::Reason;
use tests::http2::Http2Backend;
use tests::wait::takes;
use tests::{Gateway, request};
use tokio::task::JoinSet;

use crate::HELLO;
use crate::hello_h2c;

/// Requests at once.
const CROWD: usize = 300;

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
