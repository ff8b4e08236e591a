//! HTTP/1.1 and HTTP/2 with prior knowledge come to the same port.

use tests::frames::{Frames, Outcome, PREFACE};
use tests::raw::Raw;
use tests::{Backend, Client, Gateway, Launch, Wire};

use crate::{HELLO, hello};

/// Bytes as single packets.
async fn drip(client: &mut Raw, bytes: &[u8]) {
    for byte in bytes {
        client.send([*byte]).await;
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn both_protocols_are_served_on_every_listener() {
    let backend = Backend::start("one");
    let listeners = "gateway: { listeners: [ { address: '127.0.0.1:0' }, \
                     { address: '127.0.0.1:0', audience: internal } ] }\n";
    let launch = Launch::new(&(listeners.to_owned() + &hello(&backend)));
    let gateway = launch.own_listeners().start().await;
    for (address, audience) in &gateway.listeners {
        for wire in [Wire::Http2, Wire::Http1, Wire::Http2] {
            let mut client = Client::speaking(wire, *address).await;
            for _ in 0..2 {
                let answer = client.get(HELLO, "/").await;
                assert_eq!(answer.expect(200).backend(), "one", "{wire:?} {audience}");
            }
        }
    }
}

#[tokio::test]
async fn preface_may_come_in_crumbs() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&hello(&backend)).await;
    for whole in [0, 1, 3, 14, 23] {
        let mut raw = gateway.raw().await;
        raw.send(&PREFACE[..whole]).await;
        drip(&mut raw, &PREFACE[whole..]).await;
        let mut client = Frames::begun(raw).await;
        client.get(1, HELLO, "/").await;
        assert_eq!(client.outcome(1).await, Outcome::Status(200));
    }
}

#[tokio::test]
async fn methods_that_begin_like_the_preface_are_http1() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&hello(&backend)).await;
    for method in ["P", "PR", "PRI", "PRIO", "PUT", "PROPFIND"] {
        let mut client = gateway.raw().await;
        let head = format!("{method} / HTTP/1.1\r\nHost: {HELLO}\r\n\r\n");
        drip(&mut client, head.as_bytes()).await;
        let answer = client.answer().await;
        // PRI is nobody's method (RFC 9113, section 11.6), and may be refused.
        let fine = answer.status() == 200 || (method == "PRI" && answer.status() < 500);
        assert!(fine, "{method}: {}", answer.head);
    }
}

#[tokio::test]
async fn shortest_request_is_answered_though_a_preface_is_longer() {
    let gateway = Gateway::start("routes: []\n").await;
    let mut client = gateway.raw().await;
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1."), "{head:?}");
    client.rest().await;
}

#[tokio::test]
async fn half_a_preface_is_waited_for_no_longer_than_a_head() {
    let config = "gateway: { limits: { headTimeout: 200ms } }\n";
    let gateway = Gateway::start(config).await;
    for length in [1, 3, 14, 18, 23] {
        let mut client = gateway.raw().await;
        client.send(&PREFACE[..length]).await;
        client.rest().await;
    }
}

#[tokio::test]
async fn preface_that_goes_wrong_ends_the_connection() {
    let gateway = Gateway::start("routes: []\n").await;
    for bytes in [
        "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        "PRI * HTTP/2.0\r\nHost: a\r\n\r\n",
    ] {
        let mut client = gateway.raw().await;
        client.send(bytes).await;
        client.finish().await;
        let said = String::from_utf8_lossy(&client.rest().await).into_owned();
        assert!(!said.contains("HTTP/1.1 2"), "{said}");
    }
    // Nor does silence after it last.
    let config = "gateway: { limits: { headTimeout: 200ms, http2Idle: 200ms } }\n";
    let gateway = Gateway::start(config).await;
    let mut client = gateway.raw().await;
    client.send(PREFACE).await;
    client.rest().await;
}
