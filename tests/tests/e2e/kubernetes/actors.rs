//! The stage itself: the queue-proxy and the autoscaler in the test's process do what Knative's do.

use futures_util::{SinkExt, StreamExt};
use tests::client::with;
use tests::kubernetes::autoscaler::scale_to_zero_probe;
use tests::kubernetes::objects::Revision;
use tests::kubernetes::{Autoscaler, QueueProxy};
use tests::load::{Load, Reconnect};
use tests::{Answer, Client, PATIENCE, Wire, eventually, request, within};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

type Socket = WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>;

async fn probe(pod: &QueueProxy, agent: &str, value: &str) -> Answer {
    let mut probe = with(request("GET", "pod", "/healthz"), "user-agent", agent);
    if !value.is_empty() {
        probe = with(probe, "k-network-probe", value);
    }
    Client::connect(pod.address).await.send(probe).await
}

#[tokio::test]
async fn a_queue_proxy_answers_probes_by_their_agent_and_is_ready_when_told() {
    let pod = QueueProxy::start("hello");
    let activator = "Knative-Activator-Probe";
    assert_eq!(probe(&pod, activator, "queue").await.status, 503);
    pod.set_ready(true);
    let answer = probe(&pod, activator, "queue").await.expect(200);
    assert_eq!(answer.text(), "queue");
    probe(&pod, "kube-probe/1.35", "queue").await.expect(200);
    // Whoever means an activator has come to the wrong one.
    let revision = Revision::new("default", "hello-00001");
    let answer = scale_to_zero_probe(pod.address, &revision)
        .await
        .expect(400);
    assert_eq!(answer.text(), "unexpected probe header value: activator\n");
    pod.drain();
    let answer = probe(&pod, activator, "queue").await.expect(503);
    assert_eq!(answer.text(), "shutting down\n");

    let seen = pod.probes();
    let statuses: Vec<_> = seen.iter().map(|probe| probe.status).collect();
    assert_eq!(statuses, [503, 200, 200, 400, 503]);
    assert_eq!(
        (&*seen[3].path, &*seen[3].value),
        ("//healthz", "activator")
    );
    assert_eq!(pod.total(), 0);
}

#[tokio::test]
async fn a_queue_proxy_echoes_hashes_and_passes_other_probes_on() {
    let pod = QueueProxy::start("hello").ready();
    let mut client = Client::connect(pod.address).await;
    let asked = with(request("GET", "hello", "/"), "k-network-probe", "probe");
    client.send(asked).await.expect(400);
    let asked = with(request("GET", "hello", "/"), "k-network-probe", "probe");
    let answer = client
        .send(with(asked, "k-network-hash", "abc"))
        .await
        .expect(200);
    assert_eq!(
        (answer.header("k-network-hash"), answer.text()),
        ("abc", String::new())
    );
    // `curl` is nobody who asks for health.
    let passed = probe(&pod, "curl", "queue").await.expect(200);
    assert_eq!(passed.backend(), "hello");
}

#[tokio::test]
async fn a_queue_proxy_gives_the_container_the_clients_host_and_tells_marked_requests_apart() {
    let pod = QueueProxy::start("hello").ready();
    for wire in [Wire::Http1, Wire::Http2] {
        let mut client = Client::speaking(wire, pod.address).await;
        let plain = client.get("plain.example.com", "/").await.expect(200);
        assert_eq!(plain.json()["authority"], "plain.example.com");
        let marked = with(
            request("GET", "10.0.0.1:8012", "/a?b"),
            "k-proxy-request",
            "activator",
        );
        let marked = with(marked, "k-original-host", "hello.example.com");
        let marked = with(marked, "knative-serving-revision", "hello-00001");
        let answer = client.send(marked).await.expect(200);
        assert_eq!(answer.json()["authority"], "hello.example.com");
        assert_eq!(answer.seen("k-proxy-request"), "activator");
        assert_eq!(answer.seen("knative-serving-revision"), "");
        assert_eq!(answer.seen("k-original-host"), "");
    }
    assert_eq!((pod.proxied().2, pod.direct().2), (2, 2));
    let [_, marked, ..] = &*pod.requests() else {
        panic!("four requests")
    };
    assert!(marked.proxied);
    assert_eq!((&*marked.host, &*marked.path), ("10.0.0.1:8012", "/a?b"));
    assert_eq!(marked.headers["knative-serving-revision"], "hello-00001");
}

#[tokio::test]
async fn a_queue_proxy_lets_in_what_the_limit_allows_and_queues_ten_times_that() {
    let pod = QueueProxy::at("127.0.0.1:0".parse().unwrap(), "one", 1).ready();
    let load = Load::start(pod.address, 11, Reconnect::Always, || {
        with(
            request("GET", "h", "/?hold"),
            "k-proxy-request",
            "activator",
        )
    });
    eventually(PATIENCE, "eleven are there", async || {
        (pod.proxied().0 == 11).then_some(())
    })
    .await;
    assert_eq!(pod.running(), 1);
    let over = Client::connect(pod.address)
        .await
        .get("h", "/")
        .await
        .expect(503);
    assert_eq!(over.text(), "pending request queue full\n");
    assert_eq!((pod.direct().1, pod.peak()), (1, 1));
    pod.open_gate();
    load.stop().await;
    eventually(PATIENCE, "nothing runs", async || {
        (pod.proxied().0 == 0 && pod.direct().0 == 0).then_some(())
    })
    .await;
    assert_eq!(pod.peak(), 1);
}

#[tokio::test]
async fn a_queue_proxy_that_was_stopped_refuses_and_comes_back_at_its_address() {
    let (pod, other) = (QueueProxy::start("one").ready(), QueueProxy::start("two"));
    assert_ne!(pod.address.ip(), other.address.ip());
    let mut client = Client::connect(pod.address).await;
    client.get("h", "/").await.expect(200);
    pod.stop().await;
    eventually(PATIENCE, "the connection is gone", async || {
        client.is_closed().then_some(())
    })
    .await;
    assert!(Client::try_connect(pod.address).await.is_err());
    pod.restart();
    Client::connect(pod.address)
        .await
        .get("h", "/")
        .await
        .expect(200);
}

/// What a gateway sends: a revision, its average and its count.
fn report(stats: &[(&str, f64, f64)]) -> Message {
    // By hand, so that the messages are not checked against themselves.
    let mut message = Vec::new();
    let field = |message: &mut Vec<u8>, key: u8, content: &[u8]| {
        message.push(key);
        message.push(content.len().try_into().unwrap());
        message.extend_from_slice(content);
    };
    for (name, average, count) in stats {
        let mut stat = Vec::new();
        field(&mut stat, 0x0a, b"tidegate-0");
        stat.push(0x11);
        stat.extend_from_slice(&average.to_le_bytes());
        stat.push(0x21);
        stat.extend_from_slice(&count.to_le_bytes());
        let mut one = Vec::new();
        field(&mut one, 0x0a, b"default");
        field(&mut one, 0x12, name.as_bytes());
        field(&mut one, 0x1a, &stat);
        field(&mut message, 0x0a, &one);
    }
    Message::binary(message)
}

async fn join(autoscaler: &Autoscaler) -> Socket {
    let (socket, _) = within("a handshake", connect_async(autoscaler.url()))
        .await
        .unwrap();
    socket
}

#[tokio::test]
async fn an_autoscaler_reads_statistics_and_answers_pings() {
    let autoscaler = Autoscaler::start();
    let mut socket = join(&autoscaler).await;
    socket
        .send(report(&[("a-1", 1.0, 1.0), ("b-1", 0.25, 3.0)]))
        .await
        .unwrap();
    socket.send(report(&[("a-1", 0.0, 0.0)])).await.unwrap();
    socket.send(Message::text("no statistics")).await.unwrap();
    socket.send(Message::Ping("hello".into())).await.unwrap();
    assert_eq!(
        within("a pong", socket.next()).await.unwrap().unwrap(),
        Message::Pong("hello".into())
    );
    let stats = autoscaler.stats();
    let told = stats
        .iter()
        .map(|stat| (&*stat.revision, stat.average, stat.count, stat.message));
    assert_eq!(
        told.collect::<Vec<_>>(),
        [
            ("a-1", 1.0, 1.0, 0),
            ("b-1", 0.25, 3.0, 0),
            ("a-1", 0.0, 0.0, 1)
        ]
    );
    assert_eq!(
        (&*stats[0].namespace, &*stats[0].pod),
        ("default", "tidegate-0")
    );
    assert_eq!(
        (
            autoscaler.bad(),
            autoscaler.pings().len(),
            autoscaler.clients()
        ),
        (1, 1, 1)
    );
    assert_eq!(autoscaler.stats_of("default", "a-1").len(), 2);
}

#[tokio::test]
async fn an_autoscaler_sends_away_refuses_stops_and_comes_back() {
    let autoscaler = Autoscaler::start();
    let mut socket = join(&autoscaler).await;
    autoscaler.until_clients(1).await;
    autoscaler.close();
    let Message::Close(Some(frame)) = within("a close", socket.next()).await.unwrap().unwrap()
    else {
        panic!("no close frame")
    };
    assert_eq!(frame.code, CloseCode::Restart);
    autoscaler.until_clients(0).await;

    autoscaler.refuse(true);
    let refused = connect_async(autoscaler.url()).await;
    assert!(matches!(refused, Err(Error::Http(answer)) if answer.status() == 503));
    autoscaler.refuse(false);
    let mut socket = join(&autoscaler).await;
    autoscaler.until_clients(1).await;
    autoscaler.stop().await;
    within("the end", async {
        while let Some(Ok(_)) = socket.next().await {}
    })
    .await;
    assert!(connect_async(autoscaler.url()).await.is_err());
    autoscaler.restart();
    let mut socket = join(&autoscaler).await;
    socket.send(report(&[("a-1", 1.0, 1.0)])).await.unwrap();
    let stats = autoscaler
        .until("a report", |stats| !stats.is_empty())
        .await;
    assert_eq!(stats[0].connection, 2);
    assert_eq!((autoscaler.accepted(), autoscaler.refused()), (3, 1));
}

#[tokio::test]
async fn a_silent_autoscaler_answers_no_ping_and_then_all() {
    let autoscaler = Autoscaler::start();
    let mut socket = join(&autoscaler).await;
    autoscaler.until_clients(1).await;
    autoscaler.silence(true);
    // A second client's handshake shows that the server runs on.
    let second = join(&autoscaler).await;
    socket.send(Message::Ping("hello".into())).await.unwrap();
    autoscaler.until_clients(2).await;
    assert!(autoscaler.pings().is_empty());
    drop(second);
    autoscaler.silence(false);
    assert!(
        within("a pong", socket.next())
            .await
            .unwrap()
            .unwrap()
            .is_pong()
    );
}
