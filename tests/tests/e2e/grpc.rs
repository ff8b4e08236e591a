//! gRPC of real clients and endpoints goes through as if nobody stood between.

use std::time::Duration;

use futures_util::stream;
use tests::body::pattern;
use tests::grpc::{Caller, DETAILS, GrpcBackend, Piece, asking};
use tests::python::{GrpcioBackend, call_everything, interpreter};
use tests::{Gateway, PATIENCE, eventually, within};
use tokio::sync::mpsc;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request};

use crate::{HELLO, hello_h2c};

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
    assert_eq!(
        gateway.metric("tidegate_requests_total", &answered).await,
        20.0
    );
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
