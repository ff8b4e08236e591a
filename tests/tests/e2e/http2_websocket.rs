//! WebSockets of HTTP/2 clients (RFC 8441) go to endpoints as WebSockets of HTTP/1.1.

use h2::Reason;
use hyper::Request;
use tests::body::pattern;
use tests::frames::{self, Frames};
use tests::http2::Http2;
use tests::raw::field;
use tests::websocket::WebSocket;
use tests::{Backend, Gateway, PATIENCE, RawBackend, eventually, request};
use tokio_tungstenite::tungstenite::Message;

use crate::{COLD, HELLO, cold, hello};

#[tokio::test]
async fn extended_connect_is_offered() {
    let gateway = Gateway::start("routes: []\n").await;
    let mut client = Frames::connect(gateway.public()).await;
    client.settled().await;
    assert_eq!(client.set(frames::ENABLE_CONNECT_PROTOCOL), Some(1));
}

#[tokio::test]
async fn messages_of_all_sizes_and_kinds_are_echoed() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&hello(&backend)).await;
    let mut client = Http2::connect(gateway.public()).await;
    let mut socket = WebSocket::on_stream(&mut client, HELLO, "/ws?x=y")
        .await
        .unwrap();
    socket.echo("hello").await;
    for size in [0, 1, 125, 126, 65_535, 65_536, 1_000_000] {
        let message = Message::binary(pattern(size, 3));
        socket.send(message.clone()).await;
        assert!(
            socket.receive().await == message,
            "{size} bytes came back changed"
        );
    }
    // Others use the connection meanwhile, and it is in flight for as long as it is open.
    let call = client.open(request("GET", HELLO, "/"), true).await;
    assert_eq!(call.answer().await.0, 200);
    gateway
        .until_metric("tidegate_inflight", &[("revision", "hello-1")], |n| {
            n == 1.0
        })
        .await;
    socket.close().await;
    gateway.until_idle().await;
}

#[tokio::test]
async fn many_sockets_share_a_connection() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&hello(&backend)).await;
    let mut client = Http2::connect(gateway.public()).await;
    let mut sockets = Vec::new();
    for _ in 0..20 {
        sockets.push(
            WebSocket::on_stream(&mut client, HELLO, "/ws")
                .await
                .unwrap(),
        );
    }
    for round in 0..5 {
        for (number, socket) in sockets.iter_mut().enumerate() {
            socket.echo(&format!("{round} {number}")).await;
        }
    }
    for socket in sockets {
        socket.close().await;
    }
    gateway.until_idle().await;
}

#[tokio::test]
async fn endpoint_is_asked_as_by_any_client() {
    let backend = RawBackend::answering("HTTP/1.1 403 Not You\r\nContent-Length: 4\r\n\r\nno.\n");
    let gateway = Gateway::start(&hello(&backend)).await;
    let mut client = Http2::connect(gateway.public()).await;
    let refused = WebSocket::on_stream(&mut client, HELLO, "/ws?x=y").await;
    assert_eq!(refused.unwrap_err(), 403);
    let head = backend.heads().remove(0);
    assert!(head.starts_with("GET /ws?x=y HTTP/1.1\r\n"), "{head}");
    for (name, value) in [
        ("host", HELLO),
        ("upgrade", "websocket"),
        ("connection", "upgrade"),
        ("sec-websocket-version", "13"),
    ] {
        let found = field(&head, name).unwrap_or_default().to_lowercase();
        assert_eq!(found, value, "{head}");
    }
    // Sixteen bytes in Base64, which HTTP/2 clients do not send.
    assert_eq!(
        field(&head, "sec-websocket-key").unwrap().len(),
        24,
        "{head}"
    );
    gateway.until_idle().await;
}

#[tokio::test]
async fn endpoint_may_speak_in_the_same_packet_as_its_101() {
    // No one of those that check what the answer is derived from.
    let accept =
        |key: &str| tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes());
    let backend = RawBackend::scripted(move |_, mut connection| async move {
        let head = connection.head().await;
        let accept = accept(field(&head, "sec-websocket-key").unwrap());
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        let hello = [head.as_bytes(), b"\x81\x05hello"].concat();
        connection.send(hello).await;
        connection.rest().await;
    });
    let gateway = Gateway::start(&hello(&backend)).await;
    let mut client = Http2::connect(gateway.public()).await;
    for _ in 0..50 {
        let mut socket = WebSocket::on_stream(&mut client, HELLO, "/ws")
            .await
            .unwrap();
        assert_eq!(socket.receive().await, Message::text("hello"));
    }
}

#[tokio::test]
async fn end_of_one_side_is_the_end_of_the_other() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&hello(&backend)).await;
    let mut client = Http2::connect(gateway.public()).await;
    let ended = async || (backend.running() == 0).then_some(());

    // The client ends its stream, or leaves with its connection.
    let mut socket = WebSocket::on_stream(&mut client, HELLO, "/ws")
        .await
        .unwrap();
    socket.echo("a").await;
    drop(socket);
    eventually(PATIENCE, "the endpoint sees the end of the stream", ended).await;
    let mut socket = WebSocket::on_stream(&mut client, HELLO, "/ws")
        .await
        .unwrap();
    socket.echo("b").await;
    drop(client);
    eventually(
        PATIENCE,
        "the endpoint sees the end of the connection",
        ended,
    )
    .await;

    let mut client = Http2::connect(gateway.public()).await;
    let mut socket = WebSocket::on_stream(&mut client, HELLO, "/ws")
        .await
        .unwrap();
    socket.echo("c").await;
    backend.kill().await;
    socket.gone().await;
    gateway.until_idle().await;
}

#[tokio::test]
async fn reset_stream_is_the_end_at_the_endpoint() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&hello(&backend)).await;
    let mut client = Http2::connect(gateway.public()).await;
    let connect = async || client.connects().then_some(());
    eventually(PATIENCE, "extended CONNECT is offered", connect).await;
    let uri = format!("http://{HELLO}/ws");
    let mut asked = Request::connect(uri).body(()).unwrap();
    let protocol = h2::ext::Protocol::from_static("websocket");
    asked.extensions_mut().insert(protocol);
    let mut call = client.open(asked, false).await;
    assert_eq!(call.head().await.status(), 200);
    assert_eq!(backend.running(), 1);
    call.upload.send_reset(Reason::CANCEL);
    let ended = async || (backend.running() == 0).then_some(());
    eventually(PATIENCE, "the endpoint sees the end", ended).await;
    gateway.until_idle().await;
}

#[tokio::test]
async fn other_protocols_are_not_connected_to() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&hello(&backend)).await;
    let mut client = Frames::connect(gateway.public()).await;
    for (stream, protocol) in [(1, "connect-udp"), (3, "h2c"), (5, "")] {
        let mut fields = vec![(":method", "CONNECT"), (":protocol", protocol)];
        fields.extend(&frames::get(HELLO, "/")[1..]);
        client.head(stream, &fields, false).await;
        let outcome = client.outcome(stream).await;
        let refused = match outcome {
            frames::Outcome::Status(status) => (400..=501).contains(&status),
            frames::Outcome::Reset(_) => true,
            _ => false,
        };
        assert!(refused, "{protocol}: {outcome:?}");
    }
    assert_eq!(backend.total(), 0);
}

#[tokio::test]
async fn socket_waits_for_a_revision_at_zero() {
    let gateway = Gateway::start(&cold(&[])).await;
    let mut client = Http2::connect(gateway.public()).await;
    let mut socket = WebSocket::on_stream(&mut client, COLD, "/ws")
        .await
        .unwrap();
    socket.echo("good morning").await;
    socket.close().await;
    gateway.until_idle().await;
}
