//! The harness's HTTP/2, gRPC and TLS: that they do what the tests take for granted.

use std::sync::Arc;

use bytes::Bytes;
use h2::Reason;
use hyper::Response;
use hyper::body::Frame;
use tests::body::{self, fingerprint, pattern};
use tests::client::{carrying, with};
use tests::frames::{self, Frames, Outcome};
use tests::grpc::{Caller, DETAILS, GrpcBackend, Piece, asking};
use tests::http2::{Http2, Http2Backend, Terms, code, drain, pull, push};
use tests::python::{GrpcioBackend, call_everything, interpreter};
use tests::{Backend, Client, PATIENCE, RawBackend, Wire, eventually, request, within};
use tonic::{Code, Request};

/// Waits for a condition that is soon true.
async fn until(what: &str, condition: impl Fn() -> bool) {
    eventually(PATIENCE, what, async || condition().then_some(())).await;
}

#[tokio::test]
async fn backend_speaks_both_protocols_on_one_port() {
    let backend = Backend::start("one");
    for (wire, version) in [(Wire::Http1, "HTTP/1.1"), (Wire::Http2, "HTTP/2.0")] {
        let mut client = Client::speaking(wire, backend.address).await;
        let upload = carrying(request("POST", "some.host", "/a?b"), body::full("hello"));
        let report = client.send(upload).await.expect(200).json();
        assert_eq!(report["version"], version);
        assert_eq!(report["target"], "/a?b");
        assert_eq!(report["authority"], "some.host");
        assert_eq!(report["fingerprint"], fingerprint(b"hello"));
    }
}

#[tokio::test]
async fn http2_client_sees_trailers_streams_and_cancels() {
    let backend = Backend::start("one");
    let mut client = Client::speaking(Wire::Http2, backend.address).await;
    let asked = with(request("GET", "h", "/?trailers&size=10"), "te", "trailers");
    let answer = client.send(asked).await.expect(200);
    assert_eq!(answer.trailers["x-end"], "yes");

    let (sender, stream) = body::channel();
    let upload = carrying(request("POST", "h", "/?mirror"), stream);
    let mut echo = client.open(upload).await.unwrap().into_body();
    sender.send(Frame::data(Bytes::from("ping"))).await.unwrap();
    let frame = http_body_util::BodyExt::frame(&mut echo).await;
    assert_eq!(frame.unwrap().unwrap().into_data().unwrap(), "ping");

    let mut sibling = client.sibling();
    let held = tokio::spawn(async move { sibling.try_send(request("GET", "h", "/?hold")).await });
    until("it is held", || backend.running() == 1).await;
    held.abort();
    until("it is cancelled", || backend.running() == 0).await;
    client.get("h", "/").await.expect(200);
}

#[tokio::test]
async fn scripts_of_streams_answer_early_late_and_never() {
    let backend = Http2Backend::scripted(|mut stream| async move {
        match stream.path() {
            "/hints" => {
                let hints = Response::builder().status(103).header("link", "</a>");
                stream
                    .respond
                    .send_informational(hints.body(()).unwrap())
                    .unwrap();
                stream.status(204);
            }
            "/refused" => stream.reset(Reason::REFUSED_STREAM),
            "/never" => assert_eq!(stream.cancelled().await, Reason::CANCEL),
            _ => {
                let body = stream.body().await;
                push(&mut stream.begin(), body).await.unwrap();
            }
        }
    });
    let mut client = Http2::connect(backend.address).await;
    let mut call = client.open(request("GET", "h", "/hints"), true).await;
    assert_eq!(
        call.informational().await.unwrap().headers()["link"],
        "</a>"
    );
    assert_eq!(call.head().await.status(), 204);

    let mut refused = client.open(request("GET", "h", "/refused"), true).await;
    let error = refused.try_head().await.unwrap_err();
    assert_eq!(code(&error), Some(Reason::REFUSED_STREAM));

    let mut never = client.open(request("GET", "h", "/never"), true).await;
    until("it is held", || backend.running() == 1).await;
    never.upload.send_reset(Reason::CANCEL);
    until("it is cancelled", || backend.running() == 0).await;

    let mut echo = client.open(request("POST", "h", "/"), false).await;
    let content = pattern(300_000, 1);
    echo.send(content.clone()).await;
    echo.finish();
    let mut body = echo.head().await.into_body();
    // The script ends without the last flag, which is a reset.
    let mut read = 0;
    while let Ok(Some(data)) = pull(&mut body).await {
        read += data.len();
    }
    assert!(read <= content.len());
    assert_eq!(
        (backend.connections(), backend.streams(), backend.peak()),
        (1, 4, 1)
    );
}

#[tokio::test]
async fn endpoint_that_leaves_finishes_what_it_began() {
    let terms = Terms {
        streams: 3,
        ..Terms::default()
    };
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let opened = gate.clone();
    let backend = Http2Backend::on_terms(terms, move |mut stream| {
        let gate = gate.clone();
        async move {
            gate.acquire().await.unwrap().forget();
            stream.status(200);
        }
    });
    let mut client = Http2::connect(backend.address).await;
    let call = client.open(request("GET", "h", "/"), true).await;
    until("it is held", || backend.running() == 1).await;
    until("the terms are known", || client.streams() == 3).await;
    backend.leave();
    opened.add_permits(1);
    assert_eq!(call.answer().await.0, 200);
    client.ended().await.unwrap();
    until("it is closed", || backend.open() == 0).await;
}

#[tokio::test]
async fn frames_are_read_and_written_by_hand() {
    let backend = Backend::start("one");
    let mut client = Frames::connect(backend.address).await;
    client.settled().await;
    assert!(client.set(frames::MAX_CONCURRENT_STREAMS).is_some());
    for (stream, status) in [(1, 200), (3, 405), (5, 503), (7, 431), (9, 299)] {
        let path = format!("/?status={status}&size=100000");
        client.get(stream, "h", &path).await;
        assert_eq!(client.outcome(stream).await, Outcome::Status(status));
    }
    let long = "x".repeat(20_000);
    let mut fields = frames::get("h", "/").to_vec();
    fields.push(("x-long", &long));
    client.head(11, &fields, true).await;
    // hyper takes heads of 16 KiB.
    assert_eq!(client.outcome(11).await, Outcome::Status(431));
    client.head(13, &[(":method", "GET")], true).await;
    assert_eq!(
        client.outcome(13).await,
        Outcome::Reset(frames::PROTOCOL_ERROR)
    );
    client.get(2, "h", "/").await;
    assert_eq!(client.goaway().await.1, frames::PROTOCOL_ERROR);
    client.end().await;
}

#[tokio::test]
async fn frames_make_a_server_too() {
    let backend = RawBackend::scripted(|_, raw| async move {
        let mut server = Frames::accept(raw).await;
        let head = server.next().await.unwrap();
        assert_eq!((head.kind, head.stream), (frames::HEADERS, 1));
        let last = [0_u32.to_be_bytes(), frames::NO_ERROR.to_be_bytes()].concat();
        server.send(frames::GOAWAY, 0, 0, &last).await;
    });
    let mut client = Http2::connect(backend.address).await;
    let mut call = client.open(request("GET", "h", "/"), true).await;
    assert!(call.try_head().await.is_err());
}

#[tokio::test]
async fn tonic_calls_tonic() {
    let backend = GrpcBackend::start();
    let mut caller = Caller::new(backend.address, "h");
    let answer = caller
        .unary(asking(Piece::new("a", 7), "x-echo", "b"))
        .await
        .unwrap();
    assert_eq!(answer.metadata().get("x-echo").unwrap(), "b");
    assert_eq!(answer.into_inner(), Piece::new("a", 7));
    let pieces = futures_util::stream::iter((0..10).map(|number| Piece::new("x", number)));
    let sum = caller
        .collect(Request::new(pieces))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(sum, Piece::new("x".repeat(10), 10));
    let mut counted = caller
        .count(asking(Piece::new("", 3), "x-late", "8"))
        .await
        .unwrap()
        .into_inner();
    for number in 0..3 {
        assert_eq!(counted.message().await.unwrap().unwrap().number, number);
    }
    let error = counted.message().await.unwrap_err();
    assert_eq!(
        (error.code(), error.details()),
        (Code::ResourceExhausted, DETAILS)
    );
}

#[tokio::test]
async fn python_and_tonic_understand_each_other() {
    let Some(python) = interpreter() else { return };
    let tonic = GrpcBackend::start();
    call_everything(python, tonic.address, "h", None).await;
    until("nothing is held", || tonic.held() == 0).await;
    let grpcio = GrpcioBackend::start(python);
    let mut caller = Caller::new(grpcio.address, "h");
    let answer = caller
        .unary(Request::new(Piece::new("a", 7)))
        .await
        .unwrap();
    assert_eq!(answer.into_inner(), Piece::new("a", 7));
    let error = caller
        .unary(asking(Piece::default(), "x-fail", "5"))
        .await
        .unwrap_err();
    assert_eq!((error.code(), error.details()), (Code::NotFound, DETAILS));
}

#[tokio::test]
async fn trailers_are_read_stream_by_stream() {
    let backend = Http2Backend::scripted(|mut stream| async move {
        let mut body = stream.begin();
        push(&mut body, "abc".into()).await.unwrap();
        let trailers = [("x-end".parse().unwrap(), "1".parse().unwrap())];
        body.send_trailers(trailers.into_iter().collect()).unwrap();
    });
    let mut client = Http2::connect(backend.address).await;
    let mut call = client.open(request("GET", "h", "/"), true).await;
    let mut body = call.head().await.into_body();
    let (content, trailers) = within("a body", drain(&mut body)).await.unwrap();
    assert_eq!(
        (&content[..], &trailers["x-end"]),
        (&b"abc"[..], &"1".parse().unwrap())
    );
}
