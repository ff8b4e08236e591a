//! When one side breaks off, the other learns it, and nothing broken looks whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use h2::Reason;
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use hyper::{Request, Response};
use tests::body::{channel, full, pattern};
use tests::client::carrying;
use tests::http2::{Http2, Http2Backend, push};
use tests::raw::length;
use tests::{Answer, Backend, Gateway, PATIENCE, RawBackend, Wire, eventually, request, within};
use tokio::sync::Semaphore;

use super::{Way, on_every_way};
use crate::HELLO;

on_every_way! {
    client_that_leaves_is_seen_at_the_endpoint
    upload_that_breaks_off_is_never_complete
    endpoint_that_breaks_before_its_head_is_a_bad_gateway
    answer_that_breaks_off_is_seen_to_be_broken
    endpoint_that_is_not_there_is_a_bad_gateway
}

/// Asks `path` and leaves once `arrived`: its connection with HTTP/1.1, its stream with HTTP/2,
/// whose connection goes on.
async fn ask_and_leave(way: Way, gateway: &Gateway, path: &str, arrived: impl AsyncFnOnce()) {
    if way.client == Wire::Http1 {
        let mut client = gateway.raw().await;
        let head = format!("GET {path} HTTP/1.1\r\nHost: {HELLO}\r\n\r\n");
        client.send(head).await;
        arrived().await;
        return;
    }
    let mut client = Http2::connect(gateway.public()).await;
    let mut call = client.open(request("GET", HELLO, path), true).await;
    arrived().await;
    call.upload.send_reset(Reason::CANCEL);
    let call = client.open(request("GET", HELLO, "/"), true).await;
    assert_eq!(call.answer().await.0, 200);
}

async fn client_that_leaves_is_seen_at_the_endpoint(way: Way) {
    let backend = Backend::start("one");
    let gateway = way.gateway(&backend).await;
    let running = |count| {
        let backend = &backend;
        async move || (backend.running() == count).then_some(())
    };
    let arrived = async || eventually(PATIENCE, "it arrives", running(1)).await;
    ask_and_leave(way, &gateway, "/?hold", arrived).await;
    eventually(PATIENCE, "the endpoint sees it leave", running(0)).await;
    let gone = [("reason", "client_gone")];
    gateway
        .until_metric("tidegate_requests_total", &gone, |n| n == 1.0)
        .await;
    gateway.until_idle().await;
}

async fn upload_that_breaks_off_is_never_complete(way: Way) {
    let (broken, whole) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let arrived = Arc::new(AtomicUsize::new(0));
    let seen = (broken.clone(), whole.clone(), arrived.clone());
    let backend = Backend::with(move |request: Request<Incoming>| {
        let (broken, whole, arrived) = seen.clone();
        arrived.fetch_add(1, Ordering::SeqCst);
        async move {
            // In a task of its own, since a server stops a handler whose client has gone.
            let reading = tokio::spawn(async move {
                let read = request.into_body().collect().await;
                let count = if read.is_ok() { whole } else { broken };
                count.fetch_add(1, Ordering::SeqCst);
            });
            drop(reading.await);
            Response::new(full("read"))
        }
    });
    let gateway = way.gateway(&backend).await;
    let mut client = way.client(&gateway).await;
    let (sender, stream) = channel();
    let asked = carrying(request("POST", HELLO, "/"), stream);
    let sending = tokio::spawn(async move { client.try_send(asked).await.map(drop) });
    for _ in 0..3 {
        sender.send(Frame::data(pattern(1000, 1))).await.unwrap();
    }
    // At the endpoint, not only on its way there.
    let begun = async || (arrived.load(Ordering::SeqCst) == 1).then_some(());
    eventually(PATIENCE, "it arrives", begun).await;
    sending.abort();
    gateway.until_idle().await;
    let ended = async || (broken.load(Ordering::SeqCst) == 1).then_some(());
    eventually(PATIENCE, "the endpoint sees it break", ended).await;
    assert_eq!(whole.load(Ordering::SeqCst), 0);
}

async fn endpoint_that_breaks_before_its_head_is_a_bad_gateway(way: Way) {
    let raw = RawBackend::scripted(|_, mut connection| async move {
        let head = connection.head().await;
        connection.exactly(length(&head)).await;
    });
    let scripted = Http2Backend::scripted(|mut stream| async move {
        stream.body().await;
        stream.reset(Reason::INTERNAL_ERROR);
    });
    let gateway = match way.endpoint {
        Wire::Http1 => way.gateway(&raw).await,
        Wire::Http2 => way.gateway(&scripted).await,
    };
    let mut client = way.client(&gateway).await;
    for _ in 0..2 {
        let asked = carrying(request("POST", HELLO, "/"), full("x"));
        client.send(asked).await.refused(502, "upstream_closed");
    }
    // It was a POST, and may have done something.
    assert!(way.endpoint == Wire::Http1 || scripted.streams() == 2);
}

async fn answer_that_breaks_off_is_seen_to_be_broken(way: Way) {
    let gate = Arc::new(Semaphore::new(0));
    let (opened, other) = (gate.clone(), gate.clone());
    let raw = RawBackend::scripted(move |_, mut connection| {
        let gate = gate.clone();
        async move {
            connection.head().await;
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n";
            connection.send(head).await;
            gate.acquire().await.unwrap().forget();
        }
    });
    let scripted = Http2Backend::scripted(move |mut stream| {
        let gate = other.clone();
        async move {
            let mut body = stream.begin();
            push(&mut body, "half".into()).await.unwrap();
            gate.acquire().await.unwrap().forget();
            body.send_reset(Reason::INTERNAL_ERROR);
        }
    });
    let gateway = match way.endpoint {
        Wire::Http1 => way.gateway(&raw).await,
        Wire::Http2 => way.gateway(&scripted).await,
    };
    let mut client = way.client(&gateway).await;
    let asked = client.open(request("GET", HELLO, "/"));
    let head = within("a head", asked).await.unwrap();
    assert_eq!(head.status(), 200);
    opened.add_permits(1);
    let outcome = within("the end", Answer::read(head)).await;
    assert!(outcome.is_err(), "{outcome:?}");
    let gone = [("reason", "endpoint_gone")];
    gateway
        .until_metric("tidegate_requests_total", &gone, |n| n == 1.0)
        .await;
    gateway.until_idle().await;
}

async fn endpoint_that_is_not_there_is_a_bad_gateway(way: Way) {
    let (_socket, refusing) = tests::backend::refusing();
    let gateway = way.gateway(&refusing).await;
    let mut client = way.client(&gateway).await;
    for method in ["GET", "POST"] {
        let asked = request(method, HELLO, "/");
        client.send(asked).await.refused(502, "connect_failed");
    }
}

#[tokio::test]
async fn endpoint_that_sends_a_body_to_head_is_answered_for() {
    // With HTTP/2 its stream is in error, maybe before its head was passed on.
    let backend = Http2Backend::scripted(|mut stream| async move {
        let mut body = stream.begin();
        drop(push(&mut body, "hello".into()).await);
        drop(body.send_data("".into(), true));
    });
    for client in [Wire::Http1, Wire::Http2] {
        let endpoint = Wire::Http2;
        let way = Way { client, endpoint };
        let gateway = way.gateway(&backend).await;
        let mut client = way.client(&gateway).await;
        for _ in 0..5 {
            let answer = client.send(request("HEAD", HELLO, "/")).await;
            assert!([200, 502].contains(&answer.status), "{answer:?}");
            assert_eq!(answer.text(), "");
        }
    }
}
