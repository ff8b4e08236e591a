//! HTTP/2, TLS and WebSocket.

use std::io::Write;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use tempfile::NamedTempFile;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::Message;

use super::support::{run, status};

/// A server that echoes; it ends with the test.
struct Echo {
    port: u16,
    connections: Arc<AtomicU64>,
    requests: Arc<AtomicU64>,
    /// The certificate to trust.
    ca: NamedTempFile,
    runtime: Runtime,
}

#[derive(Clone, Copy, PartialEq)]
enum Speaks {
    Http2,
    Http2Tls,
    Http1Tls,
    /// Answers no stream.
    Resets,
    /// Ends the connection after each answer.
    GoesAway,
    WebSocket,
    /// Echoes something else.
    Parrot,
}

impl Echo {
    fn start(speaks: Speaks) -> Self {
        let runtime = Runtime::new().unwrap();
        let (acceptor, ca) = certificate();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let echo = Self {
            port: listener.local_addr().unwrap().port(),
            connections: Arc::default(),
            requests: Arc::default(),
            ca,
            runtime,
        };
        let (connections, requests) = (echo.connections.clone(), echo.requests.clone());
        echo.runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(speaks, stream, acceptor.clone(), requests.clone()));
            }
        });
        echo
    }

    fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }

    fn connections(&self) -> u64 {
        self.connections.load(Ordering::SeqCst)
    }

    fn url(&self, scheme: &str) -> String {
        format!("{scheme}://localhost:{}/path", self.port)
    }

    fn trusting(&self, options: &str) -> String {
        format!("{options} --ca {}", self.ca.path().display())
    }
}

fn certificate() -> (TlsAcceptor, NamedTempFile) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let mut ca = NamedTempFile::new().unwrap();
    ca.write_all(cert.pem().as_bytes()).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let mut config = ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    (TlsAcceptor::from(Arc::new(config)), ca)
}

async fn serve(speaks: Speaks, stream: TcpStream, tls: TlsAcceptor, requests: Arc<AtomicU64>) {
    match speaks {
        Speaks::Http2 | Speaks::Resets | Speaks::GoesAway => http(speaks, stream, requests).await,
        Speaks::Http2Tls | Speaks::Http1Tls => {
            if let Ok(stream) = tls.accept(stream).await {
                http(speaks, stream, requests).await;
            }
        }
        Speaks::WebSocket | Speaks::Parrot => websocket(speaks, stream, requests).await,
    }
}

async fn http<S>(speaks: Speaks, stream: S, requests: Arc<AtomicU64>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let answered = Arc::new(Notify::new());
    let answering = answered.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let number = requests.fetch_add(1, Ordering::SeqCst);
        let answering = answering.clone();
        async move {
            answering.notify_one();
            assert_eq!(request.uri().path(), "/path");
            let http2 = request.version() == Version::HTTP_2;
            assert_eq!(http2, speaks != Speaks::Http1Tls);
            let body = request.into_body().collect().await.unwrap().to_bytes();
            if speaks == Speaks::Resets && number % 2 == 1 {
                return Err("no answer");
            }
            Ok(Response::new(Full::new(body)))
        }
    });
    let stream = TokioIo::new(stream);
    if speaks == Speaks::GoesAway {
        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let mut connection = pin!(builder.serve_connection(stream, service));
        tokio::select! {
            done = &mut connection => return drop(done),
            () = answered.notified() => connection.as_mut().graceful_shutdown(),
        }
        return drop(connection.await);
    }
    let done = if speaks == Speaks::Http1Tls {
        let builder = hyper::server::conn::http1::Builder::new();
        builder.serve_connection(stream, service).await
    } else {
        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        builder.serve_connection(stream, service).await
    };
    drop(done);
}

async fn websocket(speaks: Speaks, stream: TcpStream, requests: Arc<AtomicU64>) {
    let mut socket = accept_async(stream).await.unwrap();
    while let Some(Ok(message)) = socket.next().await {
        if let Message::Binary(bytes) = message {
            requests.fetch_add(1, Ordering::SeqCst);
            let echo = match speaks {
                Speaks::Parrot => Bytes::from_static(b"hello"),
                _ => bytes,
            };
            socket.send(Message::Ping(Bytes::new())).await.unwrap();
            socket.send(Message::Binary(echo)).await.unwrap();
        }
    }
}

#[test]
fn http2_carries_streams_side_by_side() {
    let echo = Echo::start(Speaks::Http2);
    let report = run(&echo.url("http"), "--http2 -n 200 -c 2 --streams 10").report;
    assert_eq!((report.answers, echo.requests()), (200, 200));
    assert_eq!((report.statuses, report.streams), (status(200, 200), 10));
    assert_eq!((report.protocol.as_str(), echo.connections()), ("h2c", 2));
}

#[test]
fn http2_carries_bodies_both_ways() {
    let echo = Echo::start(Speaks::Http2);
    let options = "--http2 -n 20 -c 1 --streams 4 --body 300KiB";
    let report = run(&echo.url("http"), options).report;
    assert_eq!(report.answers, 20);
    assert_eq!(
        (report.bytes_up, report.bytes_down),
        (20 * 307_200, 20 * 307_200)
    );
}

#[test]
fn http2_sends_at_a_rate() {
    let echo = Echo::start(Speaks::Http2);
    let options = "--http2 --rate 200 -d 200ms -c 2 --streams 3";
    let report = run(&echo.url("http"), options).report;
    assert_eq!(
        (report.answers, report.missed, echo.requests()),
        (40, 0, 40)
    );
}

#[test]
fn a_connection_that_goes_away_is_made_anew_without_an_error() {
    let echo = Echo::start(Speaks::GoesAway);
    for options in ["-c 1", "-c 1 --streams 3", "-c 1 --streams 3 --rate 100"] {
        let report = run(&echo.url("http"), &format!("{options} -n 12 --http2")).report;
        assert_eq!(report.answers, 12, "{options}: {:?}", report.first_error);
    }
    assert!(echo.connections() >= 12, "{}", echo.connections());
}

#[test]
fn a_stream_that_is_reset_is_counted_as_closed() {
    let echo = Echo::start(Speaks::Resets);
    let report = run(&echo.url("http"), "--http2 -n 20 -c 1").report;
    assert_eq!((report.answers, report.errors.closed), (10, 10));
    assert_eq!(echo.connections(), 1);
}

#[test]
fn http2_over_tls_is_agreed_on_in_the_handshake() {
    let echo = Echo::start(Speaks::Http2Tls);
    let options = echo.trusting("--http2 -n 50 -c 2 --streams 5");
    let report = run(&echo.url("https"), &options).report;
    assert_eq!((report.answers, report.protocol.as_str()), (50, "h2"));
}

#[test]
fn http1_over_tls_is_what_https_means_without_http2() {
    let echo = Echo::start(Speaks::Http1Tls);
    let options = echo.trusting("-n 50 -c 2 --body 100KiB");
    let report = run(&echo.url("https"), &options).report;
    assert_eq!((report.answers, report.bytes_down), (50, 50 * 102_400));
    assert_eq!(report.protocol, "http1");
}

#[test]
fn each_request_may_have_a_handshake_of_its_own() {
    let echo = Echo::start(Speaks::Http1Tls);
    let options = "-n 10 -c 2 --new-connection --insecure";
    let report = run(&echo.url("https"), options).report;
    assert_eq!((report.answers, echo.connections()), (10, 10));
    let echo = Echo::start(Speaks::Http2Tls);
    let report = run(&echo.url("https"), &format!("{options} --http2")).report;
    assert_eq!((report.answers, echo.connections()), (10, 10));
}

#[test]
fn a_certificate_nobody_vouches_for_is_an_error() {
    let (echo, other) = (Echo::start(Speaks::Http1Tls), Echo::start(Speaks::Http1Tls));
    let ran = run(&echo.url("https"), &other.trusting("-n 1 -c 1"));
    assert!(!ran.success);
    assert_eq!(ran.report.errors.connect, 1);
    assert!(ran.stderr.contains("TLS"), "{}", ran.stderr);
}

#[test]
fn an_echo_answers_a_message() {
    let echo = Echo::start(Speaks::WebSocket);
    let report = run(&echo.url("ws"), "-n 100 -c 4 --body 1KiB").report;
    assert_eq!((report.answers, echo.requests()), (100, 100));
    assert_eq!((report.bytes_up, report.bytes_down), (102_400, 102_400));
    assert_eq!(
        (report.protocol.as_str(), echo.connections()),
        ("websocket", 4)
    );
}

#[test]
fn an_echo_of_something_else_is_invalid() {
    let echo = Echo::start(Speaks::Parrot);
    let report = run(&echo.url("ws"), "-n 4 -c 1").report;
    assert_eq!(report.errors.invalid, 4);
}

#[test]
fn a_server_of_another_protocol_is_told() {
    let echo = Echo::start(Speaks::Http2);
    let ran = run(&echo.url("ws"), "-n 2 -c 1");
    assert_eq!((ran.report.answers, ran.report.sent), (0, 2));
    assert!(!ran.success);
}

#[test]
fn connections_of_every_protocol_are_held() {
    let echo = Echo::start(Speaks::Http2Tls);
    let options = echo.trusting("--http2 -c 5 --hold -d 50ms");
    assert_eq!(run(&echo.url("https"), &options).report.held, Some(5));
    let echo = Echo::start(Speaks::GoesAway);
    let options = "--http2 -c 5 --hold -d 200ms";
    assert_eq!(run(&echo.url("http"), options).report.held, Some(0));
    let echo = Echo::start(Speaks::WebSocket);
    let report = run(&echo.url("ws"), "-c 5 --hold -d 50ms").report;
    assert_eq!(report.held, Some(5));
}
