//! gRPC of real clients and endpoints goes through as if nobody stood between.

use std::time::Duration;

use futures_util::stream;
use tests::body::pattern;
use tests::client::with;
use tests::grpc::{Caller, DETAILS, GrpcBackend, Piece, UNARY, asking};
use tests::http2::Http2;
use tests::python::{GrpcioBackend, call_everything, interpreter};
use tests::raw::field;
use tests::{Gateway, PATIENCE, Raw, eventually, request, within};
use tokio::sync::mpsc;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request};

use crate::{COLD, HELLO, Switch, cold, hello_h2c};

async fn through(backend: &impl std::fmt::Display) -> (Gateway, Caller) {
    let gateway = Gateway::start(&hello_h2c(backend)).await;
    let caller = Caller::new(gateway.public(), HELLO);
    (gateway, caller)
}

#[tokio::test]
async fn unary_calls_pass_with_their_metadata() {
    let backend = GrpcBackend::start();
    let (gateway, mut caller) = through(&backend).await;
    for number in 0..20 {
        let mut request = asking(Piece::new("a", number), "x-echo", "text");
        let binary = MetadataValue::from_bytes(b"\x00\x01\xff");
        request
            .metadata_mut()
            .insert_bin("x-echo-bin", binary.clone());
        let answer = caller.unary(request).await.unwrap();
        assert_eq!(answer.metadata().get("x-echo").unwrap(), "text");
        assert_eq!(answer.metadata().get_bin("x-echo-bin").unwrap(), &binary);
        assert_eq!(answer.into_inner(), Piece::new("a", number));
    }
    let answered = [("code", "200"), ("reason", "")];
    // The last may be counted after it was answered.
    gateway
        .until_metric("tidegate_requests_total", &answered, |n| n == 20.0)
        .await;
}

#[tokio::test]
async fn messages_pass_however_large() {
    let backend = GrpcBackend::start();
    let (_gateway, mut caller) = through(&backend).await;
    for size in [0, 1, 16_379, 16_384, 65_536, 4 << 20] {
        let piece = Piece::new(pattern(size, 1), 1);
        let answer = caller.unary(Request::new(piece.clone())).await.unwrap();
        assert!(
            answer.into_inner() == piece,
            "{size} bytes came back changed"
        );
    }
}

#[tokio::test]
async fn clients_and_endpoints_stream() {
    let backend = GrpcBackend::start();
    let (_gateway, mut caller) = through(&backend).await;
    let pieces = stream::iter((0..1000).map(|number| Piece::new(number.to_string(), number)));
    let sum = caller
        .collect(Request::new(pieces))
        .await
        .unwrap()
        .into_inner();
    let together: String = (0..1000).map(|number| number.to_string()).collect();
    assert_eq!(sum, Piece::new(together, 1000));

    let asked = Request::new(Piece::new("x", 1000));
    let mut counted = caller.count(asked).await.unwrap().into_inner();
    for number in 0..1000 {
        let piece = counted.message().await.unwrap().unwrap();
        assert_eq!(piece, Piece::new("x", number));
    }
    assert!(counted.message().await.unwrap().is_none());
}

#[tokio::test]
async fn conversations_move_message_by_message_and_end_in_any_order() {
    let backend = GrpcBackend::start();
    let (gateway, mut caller) = through(&backend).await;
    for client_ends_first in [true, false] {
        let (sender, mut receiver) = mpsc::channel(1);
        let pieces = stream::poll_fn(move |context| receiver.poll_recv(context));
        let mut answers = caller
            .chat(Request::new(pieces))
            .await
            .unwrap()
            .into_inner();
        for number in 0..50 {
            let piece = Piece::new("turn", number);
            sender.send(piece.clone()).await.unwrap();
            let answer = within("an answer", answers.message()).await.unwrap();
            assert_eq!(answer, Some(piece));
        }
        assert_eq!(backend.held(), 1);
        if client_ends_first {
            drop(sender);
            let end = within("the end", answers.message()).await.unwrap();
            assert_eq!(end, None);
        } else {
            drop(answers);
            drop(sender);
        }
        eventually(PATIENCE, "the endpoint sees the end", async || {
            (backend.held() == 0).then_some(())
        })
        .await;
    }
    gateway.until_idle().await;
}

#[tokio::test]
async fn errors_arrive_with_everything_they_say() {
    let backend = GrpcBackend::start();
    let (_gateway, mut caller) = through(&backend).await;
    // An answer of trailers only; every code there is.
    for code in 1..=16 {
        let request = asking(Piece::default(), "x-fail", &code.to_string());
        let status = caller.unary(request).await.unwrap_err();
        assert_eq!(status.code(), Code::from(code));
        assert_eq!(status.message(), "as asked: 100 % \u{e9}");
        assert_eq!(status.details(), DETAILS);
    }
    // Trailers after messages.
    let request = asking(Piece::new("x", 3), "x-late", "8");
    let mut pieces = caller.count(request).await.unwrap().into_inner();
    for _ in 0..3 {
        assert!(pieces.message().await.unwrap().is_some());
    }
    let status = pieces.message().await.unwrap_err();
    assert_eq!(
        (status.code(), status.details()),
        (Code::ResourceExhausted, DETAILS)
    );
}

#[tokio::test]
async fn deadline_and_cancellation_reach_the_endpoint() {
    let backend = GrpcBackend::start();
    let (gateway, caller) = through(&backend).await;
    let held = |count| {
        let backend = &backend;
        async move || (backend.held() == count).then_some(())
    };
    let mut first = caller.clone();
    let call =
        tokio::spawn(async move { first.unary(asking(Piece::default(), "x-hold", "")).await });
    eventually(PATIENCE, "it is held", held(1)).await;
    call.abort();
    eventually(PATIENCE, "it is cancelled", held(0)).await;

    let mut request = asking(Piece::default(), "x-hold", "");
    request.set_timeout(Duration::from_millis(300));
    let status = caller.clone().unary(request).await.unwrap_err();
    // tonic's own clock says so in another word.
    let over = [Code::DeadlineExceeded, Code::Cancelled];
    assert!(over.contains(&status.code()), "{status:?}");
    eventually(PATIENCE, "it is over", held(0)).await;
    gateway.until_idle().await;
}

#[tokio::test]
async fn refusals_and_failures_are_told_in_words_of_grpc() {
    let backend = GrpcBackend::start();
    let (gateway, _) = through(&backend).await;
    let mut lost = Caller::new(gateway.public(), "nobody.example.com");
    let status = lost
        .unary(Request::new(Piece::default()))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert_eq!(
        status.metadata().get("tidegate-reason").unwrap(),
        "no_route"
    );

    let (_socket, refusing) = tests::backend::refusing();
    let (_gateway, mut caller) = through(&refusing).await;
    let status = caller
        .unary(Request::new(Piece::default()))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(
        status.metadata().get("tidegate-reason").unwrap(),
        "connect_failed"
    );
}

/// A call over HTTP/1.1, with more fields.
fn call(host: &str, fields: &str) -> String {
    format!(
        "POST {UNARY} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/grpc\r\nTE: trailers\r\n\
         {fields}Content-Length: 0\r\n\r\n"
    )
}

/// An answer of trailers only over HTTP/1.1: all that can be said is in the head.
async fn trailers_only(client: &mut Raw) -> String {
    let answer = client.answer().await;
    assert_eq!((answer.status(), &answer.body[..]), (200, &b""[..]));
    assert_eq!(field(&answer.head, "retry-after"), None, "{}", answer.head);
    answer.head
}

const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// The call is refused for that reason and may be made again, after a second or more.
fn is_told_when<'a>(told: impl Fn(&'a str) -> Option<&'a str>, reason: &str) {
    assert_eq!(
        (told("grpc-status"), told("tidegate-reason")),
        (Some("14"), Some(reason))
    );
    let pushback: u32 = told(PUSHBACK).expect("a time").parse().unwrap();
    assert!(
        pushback >= 1000 && pushback.is_multiple_of(1000),
        "{pushback}"
    );
}

#[tokio::test]
async fn who_may_call_again_is_told_when_over_http1_and_http2() {
    let switch = Switch::new();
    let full = cold(&[("GATE", &switch.path())]) + "    queue: { depth: 1 }\n";
    let gateway = Gateway::start(&full).await;
    let mut held = gateway.raw().await;
    held.send(call(COLD, "")).await;
    gateway.until_waiting("cold-1", 1).await;
    let broken = Gateway::start(&cold(&[("EXIT", "3")])).await;
    for (gateway, reason) in [(&gateway, "queue_full"), (&broken, "start_failed")] {
        let mut client = gateway.raw().await;
        client.send(call(COLD, "")).await;
        let head = trailers_only(&mut client).await;
        let told = |name| field(&head, name);
        is_told_when(told, reason);

        let mut client = Http2::connect(gateway.public()).await;
        let asked = with(
            request("POST", COLD, UNARY),
            "content-type",
            "application/grpc",
        );
        let mut refused = client.open(asked, true).await;
        let answer = refused.head().await;
        assert!(
            answer.body().is_end_stream(),
            "one head, and nothing behind it"
        );
        let told = |name| {
            answer
                .headers()
                .get(name)
                .map(|value| value.to_str().unwrap())
        };
        is_told_when(told, reason);
        assert_eq!(told("retry-after"), None);
    }
}

#[tokio::test]
async fn nobody_is_asked_to_make_a_call_again_that_may_be_under_way_or_can_never_succeed() {
    let backend = GrpcBackend::start();
    let (gateway, _) = through(&backend).await;
    let (_socket, refusing) = tests::backend::refusing();
    let (unreachable, _) = through(&refusing).await;
    for (gateway, host, code) in [
        (&gateway, "nobody.example.com", "12"),
        (&unreachable, HELLO, "14"),
    ] {
        let mut client = gateway.raw().await;
        client.send(call(host, "")).await;
        let head = trailers_only(&mut client).await;
        assert_eq!(
            (field(&head, "grpc-status"), field(&head, PUSHBACK)),
            (Some(code), None)
        );
    }
}

#[tokio::test]
async fn a_call_whose_time_is_over_while_it_waits_gives_up_its_place() {
    let switch = Switch::new();
    let one = cold(&[("GATE", &switch.path())]) + "    queue: { depth: 1 }\n";
    let gateway = Gateway::start(&one).await;
    // There is one place: each finds it free.
    for timeout in ["300m", "200000u", "1S"] {
        let mut client = gateway.raw().await;
        client
            .send(call(COLD, &format!("grpc-timeout: {timeout}\r\n")))
            .await;
        let head = trailers_only(&mut client).await;
        let told = |name| field(&head, name);
        assert_eq!(
            (told("grpc-status"), told("tidegate-reason")),
            (Some("4"), Some("start_timeout")),
            "{timeout}"
        );
    }
    gateway.until_waiting("cold-1", 0).await;
}

#[tokio::test]
async fn grpcio_and_tonic_do_not_notice_the_gateway() {
    let Some(python) = interpreter() else { return };
    let tonic = GrpcBackend::start();
    let (gateway, _) = through(&tonic).await;
    call_everything(python, gateway.public(), HELLO, None).await;
    gateway.until_idle().await;
    let grpcio = GrpcioBackend::start(python);
    let (gateway, mut caller) = through(&grpcio).await;
    call_everything(python, gateway.public(), HELLO, None).await;
    let pieces = stream::iter((0..100).map(|number| Piece::new("x", number)));
    let sum = caller
        .collect(Request::new(pieces))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(sum, Piece::new("x".repeat(100), 100));
    let request = asking(Piece::default(), "x-fail", "9");
    let status = caller.unary(request).await.unwrap_err();
    assert_eq!(
        (status.code(), status.details()),
        (Code::FailedPrecondition, DETAILS)
    );
    gateway.until_idle().await;
}
