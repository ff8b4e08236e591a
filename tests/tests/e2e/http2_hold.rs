//! Waiting on HTTP/2: many calls of one connection wait together, each for itself.

use bytes::Bytes;
use h2::Reason;
use hyper::Request;
use tests::body::pattern;
use tests::client::with;
use tests::grpc::{Caller, Piece, UNARY};
use tests::http2::{Call, Http2, code, drain, push};
use tests::{Backend, Body, Gateway, PATIENCE, eventually, request, within};
use tokio::task::JoinSet;
use tonic::Code;

use crate::{COLD, Switch, cold};

const LIVE: &str = "live.default.example.com";

fn cold_h2c(environment: &[(&str, &str)]) -> String {
    cold(environment) + "    protocol: h2c\n"
}

/// A unary call's head as it is on the wire.
fn call(host: &str) -> Request<Body> {
    let asked = with(
        request("POST", host, UNARY),
        "content-type",
        "application/grpc",
    );
    with(asked, "te", "trailers")
}

#[tokio::test]
async fn hundred_calls_on_one_connection_wake_their_revision_and_succeed() {
    for keys in ["", "    concurrency: 10\n    scale: { max: 2 }\n"] {
        let gateway = Gateway::start(&(cold_h2c(&[]) + keys)).await;
        let caller = Caller::new(gateway.public(), COLD);
        let mut calls = JoinSet::new();
        for number in 0..100 {
            let mut caller = caller.clone();
            let piece = Piece::new(pattern(1000, 1), number);
            calls.spawn(async move {
                let answer = caller.unary(tonic::Request::new(piece.clone())).await?;
                assert_eq!(answer.into_inner(), piece);
                Ok::<_, tonic::Status>(())
            });
        }
        for outcome in calls.join_all().await {
            outcome.unwrap();
        }
        let starts = gateway.metric("tidegate_cold_starts_total", &[]).await;
        assert_eq!(starts, 1.0);
        gateway.until_idle().await;
    }
}

#[tokio::test]
async fn plain_requests_wait_on_one_connection_too() {
    let switch = Switch::new();
    let gateway = Gateway::start(&cold(&[("GATE", &switch.path())])).await;
    let mut client = Http2::connect(gateway.public()).await;
    let mut calls = Vec::new();
    for number in 0..100 {
        let mut call = client.open(request("POST", COLD, "/?mirror"), false).await;
        call.send(format!("number {number}")).await;
        call.finish();
        calls.push(call);
    }
    gateway.until_waiting("cold-1", 100).await;
    switch.turn_on();
    for (number, call) in calls.into_iter().enumerate() {
        assert_eq!(
            call.answer().await,
            (200, format!("number {number}").into())
        );
    }
    gateway.until_idle().await;
}

#[tokio::test]
async fn full_queue_is_a_status_of_grpc_and_an_answer_of_trailers_only() {
    let switch = Switch::new();
    let config = cold_h2c(&[("GATE", &switch.path())]) + "    queue: { depth: 1 }\n";
    let gateway = Gateway::start(&config).await;
    let mut client = Http2::connect(gateway.public()).await;
    let _held = client.open(call(COLD), false).await;
    gateway.until_waiting("cold-1", 1).await;
    let mut caller = Caller::new(gateway.public(), COLD);
    let status = caller
        .unary(tonic::Request::new(Piece::default()))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(
        status.metadata().get("tidegate-reason").unwrap(),
        "queue_full"
    );
    assert!(!status.message().is_empty());
    // On the wire it is one head, with everything in it.
    let mut refused = client.open(call(COLD), true).await;
    let answer = refused.head().await;
    assert_eq!(
        (answer.status().as_u16(), answer.body().is_end_stream()),
        (200, true)
    );
    assert_eq!(answer.headers()["grpc-status"], "14");
    assert_eq!(answer.headers()["content-type"], "application/grpc");
}

#[tokio::test]
async fn deadline_of_a_call_ends_its_waiting() {
    let switch = Switch::new();
    let config = cold_h2c(&[("GATE", &switch.path())]) + "    queue: { depth: 1 }\n";
    let gateway = Gateway::start(&config).await;
    let mut client = Http2::connect(gateway.public()).await;
    // There is one place: each finds it free.
    for timeout in ["300m", "200000u", "1S"] {
        let asked = with(call(COLD), "grpc-timeout", timeout);
        let mut call = client.open(asked, true).await;
        let answer = call.head().await;
        assert_eq!(answer.headers()["grpc-status"], "4", "{timeout}");
        assert_eq!(answer.headers()["tidegate-reason"], "start_timeout");
    }
    gateway.until_waiting("cold-1", 0).await;
}

#[tokio::test]
async fn cancelled_call_frees_its_place() {
    let switch = Switch::new();
    let gateway = Gateway::start(&cold_h2c(&[("GATE", &switch.path())])).await;
    let mut client = Http2::connect(gateway.public()).await;
    let mut calls = Vec::new();
    for number in 0..50 {
        let mut call = client.open(call(COLD), false).await;
        call.send(vec![0; number * 100]).await;
        calls.push(call);
    }
    gateway.until_waiting("cold-1", 50).await;
    for call in &mut calls {
        call.upload.send_reset(Reason::CANCEL);
    }
    // Nothing else can end their waiting: nobody is let in, and their time is far from over.
    eventually(PATIENCE, "nobody waits", async || {
        (gateway.metric("tidegate_waiting", &[]).await == 0.0).then_some(())
    })
    .await;
    // Leaving without a word is no different.
    let _held = client.open(call(COLD), false).await;
    gateway.until_waiting("cold-1", 1).await;
    drop(client);
    gateway.until_waiting("cold-1", 0).await;
}

#[tokio::test]
async fn held_uploads_do_not_stall_other_streams_of_their_connection() {
    let switch = Switch::new();
    let backend = Backend::start("one");
    let live = format!(
        "---
routes: [{{ name: live, traffic: [{{ revision: live-1 }}] }}]
revisions: [{{ name: live-1, endpoints: ['{backend}'] }}]
"
    );
    let config = cold(&[("GATE", &switch.path())]) + &live;
    let gateway = Gateway::start(&config).await;
    let mut client = Http2::connect(gateway.public()).await;
    // Together twice as much as the connection's window.
    let content = pattern(65_535, 1);
    let mut uploads = JoinSet::new();
    for number in 0..30 {
        let upload = client.open(request("POST", COLD, "/?mirror"), false).await;
        uploads.spawn(finish(number, upload, content.clone()));
    }
    let mut refused = Vec::new();
    while refused.is_empty() {
        let (number, outcome) = within("a refusal", uploads.join_next())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(outcome, Err(Some(Reason::REFUSED_STREAM)));
        refused.push(number);
    }
    let mut other = client.open(request("POST", LIVE, "/?mirror"), false).await;
    other.send(pattern(300_000, 2)).await;
    other.finish();
    let (status, echo) = other.answer().await;
    assert!(status == 200 && echo == pattern(300_000, 2));

    switch.turn_on();
    let mut answered = Vec::new();
    while let Some(ended) = within("the others", uploads.join_next()).await {
        match ended.unwrap() {
            (number, Ok((200, echo))) if echo == content => answered.push(number),
            (number, Err(Some(Reason::REFUSED_STREAM))) => refused.push(number),
            other => panic!("{other:?}"),
        }
    }
    // The newest had to go, and no more of them than needed.
    assert!(answered.contains(&0), "{answered:?} {refused:?}");
    assert!(answered.len() >= 5, "{answered:?} {refused:?}");
    gateway.until_idle().await;
}

type Ended = Result<(u16, Bytes), Option<Reason>>;

/// Sends the body and reads the whole answer, or why there is none.
async fn finish(number: usize, mut call: Call, content: Bytes) -> (usize, Ended) {
    let ended = async {
        // Whoever resets the stream says why when the answer is awaited.
        if push(&mut call.upload, content).await.is_ok() {
            call.finish();
        }
        let (head, mut body) = call.response().await?.into_parts();
        let (body, _) = drain(&mut body).await?;
        Ok((head.status.as_u16(), body))
    };
    (number, ended.await.map_err(|error: h2::Error| code(&error)))
}
