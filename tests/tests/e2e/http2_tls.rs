//! HTTP/2 over TLS is HTTP/2, whatever the endpoint speaks.

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Frame;
use rustix::process::Signal;
use tests::body::{channel, chunks, fingerprint, pattern};
use tests::client::{carrying, with};
use tests::grpc::GrpcBackend;
use tests::http2::Http2;
use tests::python::{call_everything, interpreter};
use tests::tls::{Authority, protocol};
use tests::websocket::WebSocket;
use tests::{Backend, Client, Gateway, Launch, PATIENCE, Wire, request, sized, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{HELLO, hello, hello_h2c};

const LISTENER: &str = "gateway: { listeners: [ { address: '127.0.0.1:0', \
                        tls: { certificates: [ { cert: own.pem, key: own.key } ] } } ] }\n";

/// A gateway of that configuration behind TLS, and who signed its certificate.
async fn behind_tls(yaml: &str) -> (Gateway, Authority) {
    let authority = Authority::new();
    let launch = Launch::new(&(LISTENER.to_owned() + yaml)).own_listeners();
    let launch = launch.certificate("own", &authority.issue(&[HELLO]));
    (launch.start().await, authority)
}

async fn client(gateway: &Gateway, authority: &Authority) -> Client {
    let stream = authority.connect(gateway.public(), HELLO, &["h2"]).await;
    Client::over(Wire::Http2, stream).await.unwrap()
}

#[tokio::test]
async fn protocol_is_agreed_on_in_the_handshake() {
    let backend = Backend::start("one");
    let (gateway, authority) = behind_tls(&hello(&backend)).await;
    for (offered, agreed, wire) in [
        (&["h2", "http/1.1"][..], "h2", Wire::Http2),
        (&["http/1.1", "h2"], "h2", Wire::Http2),
        (&["http/1.1"], "http/1.1", Wire::Http1),
        (&["h2"], "h2", Wire::Http2),
        (&[], "", Wire::Http1),
    ] {
        let stream = authority.connect(gateway.public(), HELLO, offered).await;
        assert_eq!(protocol(&stream), agreed, "{offered:?}");
        let mut client = Client::over(wire, stream).await.unwrap();
        for _ in 0..2 {
            let answer = client.get(HELLO, "/").await.expect(200);
            assert_eq!(answer.seen("x-forwarded-proto"), "https");
        }
    }
}

#[tokio::test]
async fn what_was_agreed_on_is_spoken() {
    let backend = Backend::start("one");
    let (gateway, authority) = behind_tls(&hello(&backend)).await;
    for said in [
        "GET / HTTP/1.1\r\nhost: h\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nNO\r\n\r\n",
    ] {
        let mut stream = authority.connect(gateway.public(), HELLO, &["h2"]).await;
        stream.write_all(said.as_bytes()).await.unwrap();
        let mut heard = Vec::new();
        // However it is ended.
        drop(within("the end", stream.read_to_end(&mut heard)).await);
        assert_eq!(String::from_utf8_lossy(&heard), "");
    }
    assert_eq!(backend.total(), 0);
}

#[tokio::test]
async fn bodies_arrive_byte_for_byte_with_their_trailers() {
    for config in [hello, hello_h2c] {
        let backend = Backend::start("one");
        let (gateway, authority) = behind_tls(&config(&backend)).await;
        let mut client = client(&gateway, &authority).await;
        for size in [0, 1, 16_384, 65_536, sized(2_000_000, 64 << 20)] {
            let content = pattern(size, 7);
            let asked = request("POST", HELLO, "/?mirror");
            let upload = chunks(vec![content.clone()], None);
            let answer = client.send(carrying(asked, upload)).await.expect(200);
            assert!(answer.body == content, "{size} bytes came back changed");
        }
        let asked = with(request("GET", HELLO, "/?trailers"), "te", "trailers");
        let answer = client.send(asked).await.expect(200);
        assert_eq!(answer.trailers["x-sum"], fingerprint(&answer.body));
    }
}

#[tokio::test]
async fn nothing_is_held_back_in_a_record() {
    for config in [hello, hello_h2c] {
        let backend = Backend::start("one");
        let (gateway, authority) = behind_tls(&config(&backend)).await;
        let mut client = client(&gateway, &authority).await;
        let (sender, stream) = channel();
        let upload = carrying(request("POST", HELLO, "/?mirror"), stream);
        sender.send(Frame::data(Bytes::from("0"))).await.unwrap();
        let opened = within("a head", client.open(upload)).await;
        let mut answer = opened.unwrap().into_body();
        for number in 1..50 {
            let echo = within("an echo", answer.frame()).await.unwrap().unwrap();
            assert_eq!(echo.into_data().unwrap(), (number - 1).to_string());
            let next = Frame::data(number.to_string().into());
            sender.send(next).await.unwrap();
        }
        drop(sender);
        let rest = within("the end", answer.collect()).await.unwrap();
        assert_eq!(rest.to_bytes(), "49");
    }
}

#[tokio::test]
async fn many_streams_and_sockets_share_a_connection() {
    let backend = Backend::start("one");
    let (gateway, authority) = behind_tls(&hello(&backend)).await;
    let stream = authority.connect(gateway.public(), HELLO, &["h2"]).await;
    let mut client = Http2::over(stream).await;
    let socket = WebSocket::on_stream(&mut client, HELLO, "/ws").await;
    let mut socket = socket.unwrap();
    let mut calls = Vec::new();
    for number in 0..50 {
        let path = format!("/?size={}&seed={number}", 300 * number);
        calls.push(client.open(request("GET", HELLO, &path), true).await);
    }
    for (number, call) in calls.into_iter().enumerate() {
        socket.echo("still here").await;
        let (status, body) = call.answer().await;
        assert!(status == 200 && body == pattern(300 * number, number as u64));
    }
    socket.close().await;
    gateway.until_idle().await;
}

#[tokio::test]
async fn grpc_is_called_over_tls() {
    let Some(python) = interpreter() else { return };
    let backend = GrpcBackend::start();
    let (gateway, authority) = behind_tls(&hello_h2c(&backend)).await;
    let believed = gateway.directory().join("ca.pem");
    std::fs::write(&believed, authority.pem()).unwrap();
    call_everything(python, gateway.public(), HELLO, Some(&believed)).await;
    gateway.until_idle().await;
}

#[tokio::test]
async fn drain_is_told_and_what_was_begun_is_finished() {
    let backend = Backend::start("one");
    let (mut gateway, authority) = behind_tls(&hello(&backend)).await;
    let stream = authority.connect(gateway.public(), HELLO, &["h2"]).await;
    let mut client = Http2::over(stream).await;
    let call = client.open(request("GET", HELLO, "/?hold"), true).await;
    tests::eventually(PATIENCE, "it arrives", async || {
        (backend.running() == 1).then_some(())
    })
    .await;
    gateway.signal(Signal::TERM);
    tests::eventually(PATIENCE, "it takes no more streams", async || {
        let more = client.try_open(request("GET", HELLO, "/"), true);
        more.await.is_err().then_some(())
    })
    .await;
    backend.open_gate();
    assert_eq!(call.answer().await.0, 200);
    client.ended().await.unwrap();
    gateway.exit(PATIENCE).await.expect(0);
}
