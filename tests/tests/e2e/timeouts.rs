//! Every limit on time fires. That it fires on time is tested beside the code, with a clock of its
//! own; here limits are short, and a test only waits.

use std::time::Duration;

use hyper::body::Frame;
use tests::body::channel;
use tests::client::carrying;
use tests::frames::{self, Frames, Outcome};
use tests::websocket::WebSocket;
use tests::{Backend, Gateway, Raw, RawBackend, eventually, request, within};

use crate::{HELLO, Switch, cold, hello};

fn limits(limits: &str) -> String {
    format!("gateway: {{ limits: {{ {limits} }} }}\n")
}

/// Sends a byte now and then until there is an answer.
async fn drip(client: &mut Raw, pause: Duration) {
    within("an end of the dripping", async {
        while client.silent_for(pause).await {
            client.send("x").await;
        }
    })
    .await;
}

#[tokio::test]
async fn head_must_come_in_time_however_it_drips() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&(limits("headTimeout: 1s") + &hello(&backend))).await;
    let mut client = gateway.raw().await;
    client
        .send(format!("GET / HTTP/1.1\r\nHost: {HELLO}\r\nX: "))
        .await;
    drip(&mut client, Duration::from_millis(20)).await;
    let answer = client.answer().await;
    assert_eq!((answer.status(), answer.reason()), (408, "header_timeout"));
    client.rest().await;
}

#[tokio::test]
async fn connection_that_says_nothing_is_closed() {
    let gateway = Gateway::start(&limits("headTimeout: 200ms, keepAlive: 200ms")).await;
    let mut client = gateway.raw().await;
    let said = String::from_utf8(client.rest().await).unwrap();
    assert!(
        said.is_empty() || said.starts_with("HTTP/1.1 408 "),
        "{said}"
    );
}

#[tokio::test]
async fn idle_connection_is_closed_without_a_word() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&(limits("keepAlive: 200ms") + &hello(&backend))).await;
    let mut client = gateway.raw().await;
    client
        .send(format!("GET / HTTP/1.1\r\nHost: {HELLO}\r\n\r\n"))
        .await;
    assert_eq!(client.answer().await.status(), 200);
    assert_eq!(client.rest().await, b"");
}

#[tokio::test]
async fn half_a_preface_is_answered_as_a_late_head() {
    let gateway = Gateway::start(&limits("headTimeout: 1s")).await;
    let mut client = gateway.raw().await;
    client.send("PRI * HTTP/2.0\r\n\r\nSM").await;
    let answer = client.answer().await;
    assert_eq!((answer.status(), answer.reason()), (408, "header_timeout"));
    client.rest().await;
}

#[tokio::test]
async fn old_connections_are_asked_to_end() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&(limits("connectionAge: 1s") + &hello(&backend))).await;
    let mut client = gateway.raw().await;
    within("a last answer", async {
        loop {
            client
                .send(format!("GET / HTTP/1.1\r\nHost: {HELLO}\r\n\r\n"))
                .await;
            let answer = client.answer().await;
            assert_eq!(answer.status(), 200);
            if answer.head.contains("connection: close") {
                return;
            }
        }
    })
    .await;
    assert_eq!(client.rest().await, b"");
    // Over HTTP/2 by GOAWAY, and what runs finishes.
    let mut client = Frames::connect(gateway.public()).await;
    client.get(1, HELLO, "/?hold").await;
    assert_eq!(client.goaway().await.1, frames::NO_ERROR);
    backend.open_gate();
    assert_eq!(client.outcome(1).await, Outcome::Status(200));
    within("the end", client.end()).await;
}

#[tokio::test]
async fn stalled_upload_is_ended() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&(limits("bodyIdle: 200ms") + &hello(&backend))).await;
    let mut client = gateway.raw().await;
    client
        .send(format!(
            "POST / HTTP/1.1\r\nHost: {HELLO}\r\nContent-Length: 10\r\n\r\nhalf"
        ))
        .await;
    let answer = client.answer().await;
    assert_eq!((answer.status(), answer.reason()), (408, "body_timeout"));
    client.rest().await;
    gateway.until_idle().await;
}

#[tokio::test]
async fn upload_that_drips_below_the_minimum_rate_is_ended() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&(limits("bodyMinRate: 100000") + &hello(&backend))).await;
    let mut client = gateway.raw().await;
    client
        .send(format!(
            "POST / HTTP/1.1\r\nHost: {HELLO}\r\nContent-Length: 9999\r\n\r\n"
        ))
        .await;
    drip(&mut client, Duration::from_millis(50)).await;
    let answer = client.answer().await;
    assert_eq!((answer.status(), answer.reason()), (408, "body_timeout"));
}

#[tokio::test]
async fn held_upload_may_take_its_time() {
    let switch = Switch::new();
    let backend = Backend::start("clock");
    let clock = hello(&backend);
    let config = limits("bodyIdle: 2s") + &cold(&[("GATE", &switch.path())]) + "---\n" + &clock;
    let gateway = Gateway::start(&config).await;
    let mut client = gateway.raw().await;
    let host = crate::COLD;
    // More than is read ahead, so that it is the client who is waited for.
    client
        .send(format!(
            "POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 100000\r\n\r\n"
        ))
        .await;
    client.send(vec![b'a'; 30_000]).await;
    gateway.until_waiting("cold-1", 1).await;
    gateway.get(HELLO, "/?sleep=4000").await.expect(200);
    switch.turn_on();
    client.send(vec![b'a'; 70_000]).await;
    let answer = client.answer().await;
    assert_eq!(answer.status(), 200, "{}", answer.head);
    assert!(answer.text().contains("\"length\":100000"));
}

#[tokio::test]
async fn client_that_stops_reading_is_cut_off() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&(limits("writeStall: 300ms") + &hello(&backend))).await;
    let mut client = gateway.raw().await;
    client
        .send(format!(
            "GET /?size=60000000 HTTP/1.1\r\nHost: {HELLO}\r\n\r\n"
        ))
        .await;
    client.head().await;
    gateway.until_idle().await;
    assert!(client.rest().await.len() < 60_000_000);
}

#[tokio::test]
async fn endpoint_must_answer_in_time() {
    let backend = Backend::start("one");
    for key in ["timeout: 200ms", "maxDuration: 200ms"] {
        let gateway = Gateway::start(&format!("{}    {key}\n", hello(&backend))).await;
        gateway
            .get(HELLO, "/?hold")
            .await
            .refused(504, "response_timeout");
        gateway.until_idle().await;
        // It does on a machine that does not stand still meanwhile.
        eventually(tests::PATIENCE, "it answers in time", async || {
            (gateway.get(HELLO, "/").await.status == 200).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn answer_that_stalls_or_takes_too_long_is_cut() {
    for key in ["idle: 200ms", "maxDuration: 400ms"] {
        let open = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let backend = Backend::with(move |_| {
            let (events, stream) = channel();
            events.try_send(Frame::data("some".into())).unwrap();
            open.lock().unwrap().push(events);
            std::future::ready(hyper::Response::new(stream))
        });
        let gateway = Gateway::start(&format!("{}    {key}\n", hello(&backend))).await;
        eventually(tests::PATIENCE, "an answer begins in time", async || {
            let mut client = gateway.connect().await;
            let outcome = client.try_send(request("GET", HELLO, "/"));
            match within("the end", outcome).await {
                Ok(answer) => {
                    answer.refused(504, "response_timeout");
                    None
                }
                Err(_) => Some(()),
            }
        })
        .await;
        let labels = [("reason", "stream_timeout")];
        gateway
            .until_metric("tidegate_requests_total", &labels, |n| n == 1.0)
            .await;
        gateway.until_logged("stream_timeout").await;
        gateway.until_idle().await;
    }
}

#[tokio::test]
async fn idle_limit_counts_bytes_of_both_directions() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&format!("{}    idle: 2s\n", hello(&backend))).await;
    let mut client = gateway.connect().await;
    // Longer in all than the limit, never a tenth as long without a byte.
    let answer = client
        .get(HELLO, "/?size=60&pieces=20&every=150")
        .await
        .expect(200);
    assert_eq!(answer.body.len(), 60);
    let (sender, stream) = channel();
    sender.send(Frame::data("x".into())).await.unwrap();
    let upload = carrying(request("POST", HELLO, "/?mirror"), stream);
    let answer = client.open(upload).await.unwrap();
    let pieces = tokio::spawn(async move {
        let mut pause = tokio::time::interval(Duration::from_millis(150));
        for _ in 0..20 {
            pause.tick().await;
            sender.send(Frame::data("x".into())).await.unwrap();
        }
    });
    let answer = within("the mirror", tests::Answer::read(answer))
        .await
        .unwrap();
    assert_eq!(answer.text().len(), 21);
    pieces.await.unwrap();
}

#[tokio::test]
async fn quiet_tunnel_is_closed() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&(limits("tunnelIdle: 2s") + &hello(&backend))).await;
    let mut socket = WebSocket::open(gateway.public(), HELLO, "/").await;
    socket.echo("a").await;
    socket.gone().await;
    gateway.until_idle().await;
    eventually(tests::PATIENCE, "it ends", async || {
        (backend.running() == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn tunnel_whose_client_stops_reading_is_closed() {
    let backend = RawBackend::scripted(|_, mut connection| async move {
        connection.head().await;
        let answer =
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
        connection.send(answer).await;
        // More than all buffers between us: it is cut.
        let _cut = connection.try_send(vec![b'x'; 60_000_000]).await;
    });
    let gateway = Gateway::start(&(limits("writeStall: 300ms") + &hello(&backend))).await;
    let mut client = gateway.raw().await;
    client
        .send(format!(
            "GET / HTTP/1.1\r\nHost: {HELLO}\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        ))
        .await;
    client.head().await;
    gateway.until_idle().await;
    assert!(client.rest().await.len() < 60_000_000);
}

#[tokio::test]
async fn endpoint_that_does_not_take_connections_is_given_up() {
    // A full backlog: the kernel answers no further connection.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut kept = Vec::new();
    while let Ok(Ok(stream)) = tokio::time::timeout(
        Duration::from_millis(500),
        tokio::net::TcpStream::connect(address),
    )
    .await
    {
        kept.push(stream);
    }
    let config = limits("connect: 200ms, attempts: 2") + &hello(&address);
    let gateway = Gateway::start(&config).await;
    gateway.get(HELLO, "/").await.refused(502, "connect_failed");
    gateway.until_idle().await;
}

#[tokio::test]
async fn waiting_for_a_slot_has_an_end() {
    let backend = Backend::start("one");
    let keys = "    concurrency: 1\n    queue: { wait: 300ms }\n";
    let gateway = Gateway::start(&(hello(&backend) + keys)).await;
    let mut first = gateway.raw().await;
    first
        .send(format!("GET /?hold HTTP/1.1\r\nHost: {HELLO}\r\n\r\n"))
        .await;
    eventually(tests::PATIENCE, "it arrives", async || {
        (backend.running() == 1).then_some(())
    })
    .await;
    let answer = gateway.get(HELLO, "/").await;
    assert_ne!(answer.header("retry-after"), "");
    answer.refused(504, "start_timeout");
    backend.open_gate();
    assert_eq!(first.answer().await.status(), 200);
    gateway.until_idle().await;
}

#[tokio::test]
async fn max_duration_counts_from_arrival() {
    let switch = Switch::new();
    let config = cold(&[("GATE", &switch.path())]) + "    maxDuration: 300ms\n";
    let gateway = Gateway::start(&config).await;
    gateway.get(crate::COLD, "/").await.expect(504);
    gateway.until_idle().await;
}

#[tokio::test]
async fn abandoned_work_at_a_limited_endpoint_is_not_waited_for_for_ever() {
    let backend = Backend::stubborn("one");
    let config = limits("abortLinger: 300ms") + &hello(&backend) + "    concurrency: 1\n";
    let gateway = Gateway::start(&config).await;
    let mut client = gateway.raw().await;
    client
        .send(format!("GET /?hold HTTP/1.1\r\nHost: {HELLO}\r\n\r\n"))
        .await;
    eventually(tests::PATIENCE, "it arrives", async || {
        (backend.running() == 1).then_some(())
    })
    .await;
    client.reset();
    gateway.get(HELLO, "/").await.expect(200);
    backend.open_gate();
}

#[tokio::test]
async fn idle_connections_to_endpoints_are_closed() {
    let closed = std::sync::Arc::new(tokio::sync::Notify::new());
    let notify = closed.clone();
    let backend = RawBackend::scripted(move |_, mut connection| {
        let notify = notify.clone();
        async move {
            connection.head().await;
            connection.send("HTTP/1.1 204 No Content\r\n\r\n").await;
            assert_eq!(connection.rest().await, b"");
            notify.notify_one();
        }
    });
    let gateway = Gateway::start(&(limits("upstreamIdle: 200ms") + &hello(&backend))).await;
    gateway.get(HELLO, "/").await.expect(204);
    within("the idle connection to be closed", closed.notified()).await;
}
