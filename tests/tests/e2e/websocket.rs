//! WebSockets go through as if nobody stood between.

use tests::body::pattern;
use tests::client::with;
use tests::raw::field;
use tests::websocket::WebSocket;
use tests::{Backend, Gateway, PATIENCE, RawBackend, eventually, request, sized};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::{HELLO, hello};

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[tokio::test]
async fn messages_of_all_sizes_and_kinds_are_echoed() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&hello(&backend)).await;
    let mut socket = WebSocket::open(gateway.public(), HELLO, "/ws?x=y").await;
    socket.echo("hello").await;
    for size in [0, 1, 125, 126, 65_535, 65_536, 1_000_000] {
        let message = Message::binary(pattern(size, 3));
        socket.send(message.clone()).await;
        assert!(
            socket.receive().await == message,
            "{size} bytes came back changed"
        );
    }
    socket.send(Message::Ping("are you there".into())).await;
    assert_eq!(
        socket.receive().await,
        Message::Pong("are you there".into())
    );
    // It is in flight for as long as it is open.
    assert_eq!(
        gateway
            .metric("tidegate_inflight", &[("revision", "hello-1")])
            .await,
        1.0
    );
    socket.close().await;
    gateway.until_idle().await;
}

#[tokio::test]
async fn many_messages_in_flight_arrive_in_order() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&hello(&backend)).await;
    let mut socket = WebSocket::open(gateway.public(), HELLO, "/ws").await;
    for round in 0..20 {
        for number in 0..50 {
            socket
                .send(Message::text(format!("{round} {number}")))
                .await;
        }
        for number in 0..50 {
            assert_eq!(
                socket.receive().await,
                Message::text(format!("{round} {number}"))
            );
        }
    }
}

#[tokio::test]
async fn endpoint_may_speak_in_the_same_packet_as_its_101() {
    let backend = RawBackend::answering(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello",
    );
    let gateway = Gateway::start(&hello(&backend)).await;
    for _ in 0..sized(200, 10_000) {
        let mut client = gateway.raw().await;
        client
            .send(format!(
                "GET /ws HTTP/1.1\r\nHost: {HELLO}\r\n{UPGRADE}\r\n"
            ))
            .await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert_eq!(field(&head, "upgrade"), Some("websocket"));
        assert!(
            field(&head, "connection").is_some_and(|value| value.eq_ignore_ascii_case("upgrade"))
        );
        assert_eq!(client.exactly(5).await, b"hello");
    }
    let head = &backend.heads()[0];
    assert_eq!(field(head, "upgrade"), Some("websocket"));
    assert_eq!(
        field(head, "connection").map(str::to_lowercase).as_deref(),
        Some("upgrade")
    );
    assert_eq!(
        field(head, "sec-websocket-key"),
        Some("dGhlIHNhbXBsZSBub25jZQ==")
    );
}

#[tokio::test]
async fn nothing_passes_before_the_endpoint_has_switched() {
    // RFC 9931: what an impatient client sends behind the head might be a request to an endpoint
    // that does not switch.
    let backend = RawBackend::scripted(|_, mut connection| async move {
        connection.head().await;
        let early = !connection
            .silent_for(std::time::Duration::from_millis(200))
            .await;
        assert!(!early, "bytes passed before the 101");
        connection
            .send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            .await;
        assert_eq!(connection.exactly(9).await, b"impatient");
        connection.send("patient").await;
    });
    let gateway = Gateway::start(&hello(&backend)).await;
    let mut client = gateway.raw().await;
    client
        .send(format!(
            "GET /ws HTTP/1.1\r\nHost: {HELLO}\r\n{UPGRADE}\r\nimpatient"
        ))
        .await;
    assert!(client.head().await.starts_with("HTTP/1.1 101 "));
    assert_eq!(client.exactly(7).await, b"patient");
}

#[tokio::test]
async fn refused_upgrade_is_an_answer_like_others() {
    let backend = RawBackend::answering("HTTP/1.1 403 No\r\nContent-Length: 4\r\n\r\nnope");
    let gateway = Gateway::start(&hello(&backend)).await;
    let mut client = gateway.raw().await;
    client
        .send(format!(
            "GET /ws HTTP/1.1\r\nHost: {HELLO}\r\n{UPGRADE}\r\n"
        ))
        .await;
    let answer = client.answer().await;
    assert_eq!((answer.status(), answer.text()), (403, "nope".to_owned()));
    let error = WebSocket::try_open(gateway.public(), HELLO, "/")
        .await
        .unwrap_err();
    assert!(matches!(*error, Error::Http(response) if response.status() == 403));
    gateway.until_idle().await;
}

#[tokio::test]
async fn other_protocols_are_not_switched_to() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&hello(&backend)).await;
    for protocol in ["h2c", "TLS/1.0", "foo"] {
        let asked = with(request("GET", HELLO, "/"), "connection", "upgrade");
        let answer = gateway
            .send(with(asked, "upgrade", protocol))
            .await
            .expect(200);
        assert_eq!(answer.seen("upgrade"), "");
    }
    // Nor does an endpoint switch that was not asked to.
    let backend = RawBackend::answering(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    );
    let gateway = Gateway::start(&hello(&backend)).await;
    gateway
        .get(HELLO, "/")
        .await
        .refused(502, "upstream_invalid");
}

#[tokio::test]
async fn end_of_one_side_is_the_end_of_the_other() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&hello(&backend)).await;
    let mut socket = WebSocket::open(gateway.public(), HELLO, "/ws").await;
    socket.echo("a").await;
    drop(socket);
    gateway.until_idle().await;
    let ended = async || (backend.running() == 0).then_some(());
    eventually(PATIENCE, "the endpoint sees the end", ended).await;

    let mut socket = WebSocket::open(gateway.public(), HELLO, "/ws").await;
    socket.echo("b").await;
    backend.kill().await;
    socket.gone().await;
    drop(socket);
    gateway.until_idle().await;
}
