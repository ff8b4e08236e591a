//! The backend and the copier, from outside: what they answer, and what they count.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use loadtest::backend::Stats;
use rustix::process::{Pid, Signal, kill_process};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_tungstenite::tungstenite::Message;

/// A `loadtest` that listens.
struct Server {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
    addresses: Vec<SocketAddr>,
}

impl Server {
    fn start(args: &[&str]) -> Server {
        let mut child = Command::new(env!("CARGO_BIN_EXE_loadtest"))
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let addresses = line.strip_prefix("listening on ").expect("it says where");
        let addresses = addresses.split_whitespace().map(|at| at.parse().unwrap());
        Server {
            addresses: addresses.collect(),
            child,
            out,
        }
    }

    fn backend(args: &[&str]) -> Server {
        Server::start(&[&["backend", "--listen=127.0.0.1:0"], args].concat())
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addresses[0]).unwrap()
    }

    /// Sends all of this, says that nothing follows, and reads to the end.
    fn ask(&self, request: &str) -> String {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Ends it with SIGTERM; its last line.
    fn counts(mut self) -> Stats {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).unwrap();
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        assert!(self.child.wait().unwrap().success());
        serde_json::from_str(&line).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        self.child.wait().unwrap();
    }
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap().1
}

/// Reads until this many bytes have come behind the head of an answer.
fn read_answer(stream: &mut TcpStream, body: usize) -> String {
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    let mut rest = vec![0; body];
    stream.read_exact(&mut rest).unwrap();
    answer.extend(rest);
    String::from_utf8(answer).unwrap()
}

#[test]
fn requests_sent_at_once_are_answered_in_turn_and_counted() {
    let server = Server::backend(&["--body=5B"]);
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
    let chunked = "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let answers = server.ask(&format!("{GET}{post}{chunked}{GET}"));
    assert_eq!(answers.matches("HTTP/1.1 200 OK\r\n").count(), 4);
    assert_eq!(answers.matches("Content-Length: 5\r\n\r\nxxxxx").count(), 4);
    let counts = server.counts();
    assert_eq!(counts.total.requests, 4);
    assert_eq!(counts.total.answers, 4);
    assert_eq!(counts.total.bytes_up, 6);
    assert_eq!((counts.total.connections, counts.total.open), (1, 0));
}

#[test]
fn each_address_has_counts_of_its_own() {
    let server = Server::backend(&["--listen=127.0.0.1:0"]);
    server.ask(GET);
    let addresses = server.addresses.clone();
    let counts = server.counts();
    let by_address: Vec<(SocketAddr, u64)> = counts
        .addresses
        .iter()
        .map(|(address, counts)| (*address, counts.requests))
        .collect();
    assert_eq!(by_address, [(addresses[0], 1), (addresses[1], 0)]);
}

#[test]
fn a_head_request_gets_no_body() {
    let server = Server::backend(&["--body=5B"]);
    let answer = server.ask("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(answer.contains("Content-Length: 5\r\n"));
    assert_eq!(body(&answer), "");
}

#[test]
fn bodies_are_chunked_where_asked_for() {
    let server = Server::backend(&["--body=5B", "--chunked=3B"]);
    assert_eq!(body(&server.ask(GET)), "3\r\nxxx\r\n2\r\nxx\r\n0\r\n\r\n");
}

#[test]
fn a_client_that_expects_100_is_told_to_continue() {
    let server = Server::backend(&["--echo"]);
    let mut stream = server.connect();
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    assert!(read_answer(&mut stream, 0).starts_with("HTTP/1.1 100 "));
    stream.write_all(b"abc").unwrap();
    assert!(read_answer(&mut stream, 3).ends_with("\r\n\r\nabc"));
}

#[test]
fn an_echo_has_its_bound_to_the_byte() {
    let server = Server::backend(&["--echo"]);
    for (length, status) in [
        (16 << 20, "200 OK"),
        ((16 << 20) + 1, "413 Content Too Large"),
    ] {
        let body = "x".repeat(length);
        let answer = server.ask(&format!(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}"
        ));
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")));
    }
}

#[test]
fn an_echo_is_what_was_sent() {
    let server = Server::backend(&["--echo"]);
    let chunked =
        "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    assert_eq!(body(&server.ask(chunked)), "abcde");
}

#[test]
fn a_body_larger_than_every_buffer_arrives_whole() {
    let server = Server::backend(&[]);
    let mut stream = server.connect();
    let length = 3_000_000;
    write!(
        stream,
        "POST / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n"
    )
    .unwrap();
    stream.write_all(&vec![b'y'; length]).unwrap();
    assert!(read_answer(&mut stream, 128).starts_with("HTTP/1.1 200 "));
    assert_eq!(server.counts().total.bytes_up, length as u64);
}

#[test]
fn connections_close_after_an_answer_where_asked_for() {
    let server = Server::backend(&["--close"]);
    let mut stream = server.connect();
    stream.write_all(GET.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("Connection: close\r\n"));
}

#[test]
fn a_client_that_wants_to_close_is_obeyed() {
    let server = Server::backend(&[]);
    let mut stream = server.connect();
    let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("Connection: close\r\n"));
}

#[test]
fn every_nth_answer_is_a_reset() {
    let server = Server::backend(&["--reset-every=2"]);
    for round in 0..3 {
        let mut stream = server.connect();
        stream.write_all(GET.as_bytes()).unwrap();
        read_answer(&mut stream, 128);
        stream.write_all(GET.as_bytes()).unwrap();
        let error = stream.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{round}");
    }
    let total = server.counts().total;
    assert_eq!((total.requests, total.answers, total.resets), (6, 3, 3));
}

#[test]
fn what_is_over_the_limit_is_refused_and_counted() {
    let server = Server::backend(&["--concurrency=2", "--delay=500ms"]);
    let mut streams: Vec<TcpStream> = (0..3).map(|_| server.connect()).collect();
    for stream in &mut streams {
        stream.write_all(GET.as_bytes()).unwrap();
    }
    let mut answers: Vec<String> = streams
        .iter_mut()
        .map(|stream| read_answer(stream, 0).lines().next().unwrap().to_owned())
        .collect();
    answers.sort();
    let refused = "HTTP/1.1 503 Service Unavailable";
    assert_eq!(answers, ["HTTP/1.1 200 OK", "HTTP/1.1 200 OK", refused]);
    let total = server.counts().total;
    assert_eq!((total.answers, total.refused, total.peak), (2, 1, 3));
}

#[test]
fn nonsense_is_answered_with_400() {
    let server = Server::backend(&[]);
    assert!(server.ask("nonsense\r\n\r\n").starts_with("HTTP/1.1 400 "));
    let chunked = "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nnonsense";
    assert!(server.ask(chunked).starts_with("HTTP/1.1 400 "));
}

#[tokio::test]
async fn http2_with_prior_knowledge_is_answered() {
    let server = Server::backend(&["--echo"]);
    let stream = tokio::net::TcpStream::connect(server.addresses[0])
        .await
        .unwrap();
    assert_eq!(ask_http2(stream, "http").await, "hello");
    let total = server.counts().total;
    assert_eq!((total.requests, total.answers), (1, 1));
}

#[tokio::test]
async fn tls_speaks_what_was_chosen() {
    let directory = tempfile::tempdir().unwrap();
    let option = format!("--tls-self-signed={}", directory.path().display());
    let server = Server::backend(&["--echo", &option]);
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(directory.path().join("cert.pem")).unwrap();
    roots.add(certificate).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = tokio::net::TcpStream::connect(server.addresses[0])
        .await
        .unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = connector.connect(name, stream).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    assert_eq!(ask_http2(stream, "https").await, "hello");
}

async fn ask_http2<S>(stream: S, scheme: &str) -> Bytes
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::post(format!("{scheme}://localhost/"))
        .body(())
        .unwrap();
    let (answer, mut body) = client.send_request(request, false).unwrap();
    body.send_data("hello".into(), true).unwrap();
    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), 200);
    let mut all = Vec::new();
    let mut body = answer.into_body();
    while let Some(data) = body.data().await {
        all.extend_from_slice(&data.unwrap());
    }
    all.into()
}

#[tokio::test]
async fn messages_of_a_websocket_come_back() {
    let server = Server::backend(&[]);
    let url = format!("ws://{}/", server.addresses[0]);
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    for message in [Message::text("hello"), Message::binary(vec![1; 100_000])] {
        socket.send(message.clone()).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), message);
    }
    socket.close(None).await.unwrap();
    assert_eq!(server.counts().total.messages, 2);
}

#[tokio::test]
async fn counts_are_told_while_it_runs_and_peaks_begin_anew() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let stats = free.local_addr().unwrap();
    drop(free);
    let mut child = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args([
            "backend",
            "--listen=127.0.0.1:0",
            &format!("--stats={stats}"),
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let (mut first, mut second) = (String::new(), String::new());
    out.read_line(&mut first).unwrap();
    out.read_line(&mut second).unwrap();
    assert_eq!(first, format!("stats on {stats}\n"));
    let address = second.trim().strip_prefix("listening on ").unwrap();
    let server = Server {
        addresses: vec![address.parse().unwrap()],
        child,
        out,
    };
    server.ask(GET);
    let read = |anew| loadtest::backend::read_stats(stats, anew);
    assert_eq!(read(true).await.unwrap().total.peak, 1);
    let total = read(false).await.unwrap().total;
    assert_eq!((total.peak, total.answers), (0, 1));
}

#[test]
fn the_copier_passes_bytes_and_ends_both_ways() {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = free.local_addr().unwrap();
    drop(free);
    let to = format!("--to={}", upstream.local_addr().unwrap());
    let copier = Server::start(&["copy", &format!("--listen={listen}"), &to]);
    // More than fits into the sockets on the way, so that the copier has to wait for its reader.
    let length = 20_000_000;
    let client = copier.connect();
    let (mut server, _) = upstream.accept().unwrap();
    let mut writer = client.try_clone().unwrap();
    let sending = std::thread::spawn(move || {
        let pattern: Vec<u8> = (0..251).cycle().take(length).collect();
        writer.write_all(&pattern).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut received = Vec::new();
    server.read_to_end(&mut received).unwrap();
    sending.join().unwrap();
    assert_eq!(received.len(), length);
    assert!(
        received
            .iter()
            .enumerate()
            .all(|(at, byte)| *byte as usize == at % 251)
    );
    server.write_all(b"answer").unwrap();
    drop(server);
    let mut answer = String::new();
    (&client).read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "answer");
}

#[test]
fn a_body_no_memory_could_hold_is_refused() {
    let output = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args(["backend", "--listen=127.0.0.1:0", "--body=1TiB"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("1 GiB"));
}
