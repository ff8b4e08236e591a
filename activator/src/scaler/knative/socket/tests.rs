use config::revision::Key;
use prost::Message as _;
use tokio::io::{DuplexStream, duplex};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::super::report::Measured;
use super::super::stat::WireStatMessages;
use super::*;

fn key(name: &str) -> Key {
    Key {
        namespace: "default".into(),
        name: name.into(),
    }
}

fn socket(url: &str) -> Socket {
    Socket::new(
        Target::parse(url).unwrap(),
        "tidegate-0".into(),
        Arc::default(),
        Arc::default(),
        Arc::default(),
    )
}

/// The next message: names and averages of revisions.
async fn message<S>(server: &mut WebSocketStream<S>) -> Vec<(String, f64)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        match server.next().await.unwrap().unwrap() {
            Message::Binary(bytes) => return decode(&bytes),
            Message::Ping(payload) => assert!(payload.is_empty()),
            other => panic!("{other:?}"),
        }
    }
}

fn decode(bytes: &[u8]) -> Vec<(String, f64)> {
    let read = WireStatMessages::decode(bytes).unwrap();
    let messages = read.messages.into_iter().map(|message| {
        let stat = message.stat.unwrap();
        assert_eq!(stat.pod_name, "tidegate-0");
        assert_eq!(message.namespace, "default");
        (message.name, stat.average_concurrent_requests)
    });
    messages.collect()
}

fn report(name: &str, average: f64) -> Vec<(Key, Measured)> {
    let count = 0.0;
    vec![(key(name), Measured { average, count })]
}

fn names(names: &[(&str, f64)]) -> Vec<(String, f64)> {
    names
        .iter()
        .map(|(name, average)| ((*name).to_owned(), *average))
        .collect()
}

/// A connection in memory, for a paused clock.
async fn connected(outbox: &Arc<Outbox>) -> (JoinHandle<Ended>, WebSocketStream<DuplexStream>) {
    let (client, server) = duplex(1 << 16);
    let accepting = tokio::spawn(async { accept_async(server).await.unwrap() });
    let (client, _) = client_async_with_config("ws://a/", client, None)
        .await
        .unwrap();
    let mut socket = socket("ws://a/");
    socket.outbox = Arc::clone(outbox);
    let serving = tokio::spawn(async move { socket.serve(client).await });
    (serving, accepting.await.unwrap())
}

#[tokio::test(start_paused = true)]
async fn pings_go_out_every_three_seconds_and_a_third_and_pongs_keep_the_connection() {
    let outbox = Arc::default();
    let (serving, mut server) = connected(&outbox).await;
    let start = Instant::now();
    for number in 1..=10_u32 {
        let received = server.next().await.unwrap().unwrap();
        assert_eq!(received, Message::Ping(Bytes::new()));
        let expected = PING_EVERY * number;
        assert!(start.elapsed() - expected < Duration::from_millis(10));
        server.flush().await.unwrap();
    }
    assert!(!serving.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_pongs_is_given_up_after_ten_seconds() {
    let outbox = Arc::default();
    let (serving, _silent) = connected(&outbox).await;
    let start = Instant::now();
    assert!(matches!(serving.await.unwrap(), Ended::Silent));
    assert!(start.elapsed() - PONG_WITHIN < Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn a_first_request_goes_out_at_once_and_ahead_of_reports() {
    let outbox: Arc<Outbox> = Arc::default();
    let (_serving, mut server) = connected(&outbox).await;
    let start = Instant::now();
    outbox.first(&key("a"));
    assert_eq!(message(&mut server).await, names(&[("a", 1.0)]));
    outbox.report(report("a", 0.5));
    outbox.first(&key("b"));
    assert_eq!(message(&mut server).await, names(&[("b", 1.0)]));
    assert_eq!(message(&mut server).await, names(&[("a", 0.5)]));
    assert!(start.elapsed() < Duration::from_millis(1));
}

#[tokio::test(start_paused = true)]
async fn a_first_request_that_no_pong_covers_goes_out_on_the_next_connection() {
    let outbox: Arc<Outbox> = Arc::default();
    let (serving, mut server) = connected(&outbox).await;
    outbox.first(&key("read"));
    message(&mut server).await;
    // The pong to the ping that came after it goes out with the next flush.
    assert!(server.next().await.unwrap().unwrap().is_ping());
    server.flush().await.unwrap();
    sleep(Duration::from_millis(100)).await;
    outbox.first(&key("swallowed"));
    message(&mut server).await;
    drop(server);
    serving.await.unwrap();

    outbox.first(&key("later"));
    let (_serving, mut server) = connected(&outbox).await;
    let expected = names(&[("swallowed", 1.0), ("later", 1.0)]);
    assert_eq!(message(&mut server).await, expected);
}

#[tokio::test(start_paused = true)]
async fn an_autoscaler_that_reads_nothing_is_given_up() {
    let outbox: Arc<Outbox> = Arc::default();
    let (serving, _server) = connected(&outbox).await;
    let many = |average| {
        let count = 0.0;
        let measured = Measured { average, count };
        (0..2_000)
            .map(move |n| (key(&format!("r{n}")), measured))
            .collect()
    };
    outbox.report(many(1.0));
    assert!(matches!(serving.await.unwrap(), Ended::Stuck));
    outbox.report(report("r0", 2.0));
    let kept = outbox.take().reports;
    assert_eq!(kept.len(), 2_000, "what was not sent is kept");
    assert!(kept.contains(&report("r0", 2.0)[0]));
}

/// A restarting autoscaler, over real sockets: it says so, is away, and comes back.
#[tokio::test]
async fn a_restarting_autoscaler_hears_of_what_came_meanwhile() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let socket = socket(&format!("ws://localhost:{}/", address.port()));
    let (outbox, health) = (Arc::clone(&socket.outbox), Arc::clone(&socket.health));
    let running = tokio::spawn(async move { socket.run().await }).abort_handle();

    let (stream, _) = listener.accept().await.unwrap();
    let mut server = accept_async(stream).await.unwrap();
    outbox.first(&key("before"));
    assert_eq!(message(&mut server).await, names(&[("before", 1.0)]));
    assert!(health.reachable.load(Ordering::Relaxed));
    let restarting = CloseFrame {
        code: CloseCode::Restart,
        reason: "Restarting".into(),
    };
    server.close(Some(restarting)).await.unwrap();
    while server.next().await.is_some_and(|frame| frame.is_ok()) {}
    drop((server, listener));
    while health.reachable.load(Ordering::Relaxed) {
        tokio::task::yield_now().await;
    }

    outbox.first(&key("meanwhile"));
    for average in [1.0, 2.0, 3.0] {
        outbox.report(report("meanwhile", average));
    }
    let listener = TcpListener::bind(address).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let mut server = accept_async(stream).await.unwrap();
    let expected = names(&[("before", 1.0), ("meanwhile", 1.0)]);
    assert_eq!(message(&mut server).await, expected);
    let expected = names(&[("meanwhile", 3.0)]);
    assert_eq!(message(&mut server).await, expected);
    assert_eq!(health.connections.load(Ordering::Relaxed), 2);
    running.abort();
}

#[tokio::test]
async fn an_answer_that_is_no_handshake_is_tried_again() {
    use tokio::io::AsyncWriteExt;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let socket = socket(&format!("ws://{}", listener.local_addr().unwrap()));
    let health = Arc::clone(&socket.health);
    let running = tokio::spawn(async move { socket.run().await }).abort_handle();
    let (mut stream, _) = listener.accept().await.unwrap();
    let refusal = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
    stream.write_all(refusal).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    assert!(health.errors.load(Ordering::Relaxed) == 1);
    accept_async(stream).await.unwrap();
    running.abort();
}

#[test]
fn pauses_grow_by_a_third_up_to_two_seconds() {
    let mut pauses = Pauses::new();
    let first: Vec<_> = (0..4).map(|_| pauses.next(0.0).as_millis()).collect();
    assert_eq!(first, [100, 130, 169, 219]);
    for _ in 0..50 {
        assert!(pauses.next(1.0) <= PAUSE_MOST.mul_f64(1.0 + PAUSE_JITTER));
    }
    assert_eq!(pauses.next(0.0), PAUSE_MOST);
    assert_eq!(Pauses::new().next(1.0).as_millis(), 150);
}

#[test]
fn an_address_is_a_websocket_without_tls() {
    let target = |url: &str| Target::parse(url).map(|target| (target.host, target.port));
    let host = "autoscaler.knative-serving.svc.cluster.local";
    assert_eq!(
        target(&format!("ws://{host}:8080")),
        Ok((host.into(), 8080))
    );
    assert_eq!(target("ws://[::1]:9/a"), Ok(("::1".into(), 9)));
    assert_eq!(target("ws://a"), Ok(("a".into(), 80)));
    for wrong in ["wss://a", "http://a", "a:80", "", "ws://", "ws://:80"] {
        assert!(Target::parse(wrong).is_err(), "{wrong}");
    }
}
