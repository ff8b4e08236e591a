//! The harness itself: that what stands around the gateway does what the tests take for granted.

use std::time::Duration;

use bytes::Bytes;
use hyper::body::Frame;
use tests::body::{self, fingerprint, pattern};
use tests::client::{carrying, with};
use tests::load::Reconnect;
use tests::metrics::Metrics;
use tests::process::{Program, living, open_descriptors, resident};
use tests::websocket::WebSocket;
use tests::{Backend, Client, Load, PATIENCE, Raw, RawBackend, eventually, request};
use tokio_tungstenite::tungstenite::Message;

use crate::SERVICE;

#[tokio::test]
async fn backend_reports_what_it_saw() {
    let backend = Backend::start("one");
    let mut client = Client::connect(backend.address).await;
    let request = with(request("PUT", "some.host", "/a/b?c=d"), "x-more", "1");
    let answer = client
        .send(carrying(request, body::full("hello")))
        .await
        .expect(200);
    assert_eq!(answer.backend(), "one");
    assert_eq!(answer.seen("host"), "some.host");
    assert_eq!(answer.seen("x-more"), "1");
    let report = answer.json();
    assert_eq!(report["target"], "/a/b?c=d");
    assert_eq!(report["body"], "hello");
    assert_eq!(report["fingerprint"], fingerprint(b"hello"));
    assert_eq!(
        (backend.total(), backend.running(), backend.peak()),
        (1, 0, 1)
    );
}

#[tokio::test]
async fn backend_sends_patterns_pieces_and_trailers() {
    let backend = Backend::start("one");
    let mut client = Client::connect(backend.address).await;
    let asked = "/?size=1000&seed=7&pieces=3&trailers&status=201&header=x-a:b";
    let answer = client
        .send(with(request("GET", "h", asked), "te", "trailers"))
        .await;
    assert_eq!((answer.status, answer.header("x-a")), (201, "b"));
    assert_eq!(answer.body, pattern(1000, 7));
    assert_eq!(answer.trailers["x-sum"], fingerprint(&answer.body));
}

#[tokio::test]
async fn backend_reports_trailers_and_mirrors_streams() {
    let backend = Backend::start("one");
    let mut client = Client::connect(backend.address).await;
    let trailers = [("x-end".parse().unwrap(), "1".parse().unwrap())]
        .into_iter()
        .collect();
    let chunks = body::chunks(vec![Bytes::from("ab"), Bytes::from("cd")], Some(trailers));
    let upload = with(request("POST", "h", "/"), "trailer", "x-end");
    let answer = client.send(carrying(upload, chunks)).await;
    assert_eq!(answer.json()["trailers"]["x-end"], "1");

    let (sender, stream) = body::channel();
    let upload = carrying(request("POST", "h", "/?mirror"), stream);
    let (answer, ()) = tokio::join!(client.send(upload), async {
        sender.send(Frame::data(Bytes::from("ping"))).await.unwrap();
        drop(sender);
    });
    assert_eq!(answer.text(), "ping");
}

#[tokio::test]
async fn gate_holds_requests_and_the_peak_is_counted() {
    let backend = Backend::start("one");
    let load = Load::start(backend.address, 3, Reconnect::Always, || {
        request("GET", "h", "/?hold")
    });
    eventually(PATIENCE, "three are held", async || {
        (backend.running() == 3).then_some(())
    })
    .await;
    assert_eq!(load.answered(), 0);
    backend.open_gate();
    load.more(10).await;
    tests::load::assert_only_200(&load.stop().await);
    assert_eq!(backend.peak(), 3);
}

#[tokio::test]
async fn only_a_stubborn_backend_works_on_when_its_client_leaves() {
    for (backend, left) in [(Backend::start("soft"), 0), (Backend::stubborn("hard"), 1)] {
        let mut client = Raw::connect(backend.address).await;
        client.send("GET /?hold HTTP/1.1\r\nhost: h\r\n\r\n").await;
        eventually(PATIENCE, "it is held", async || {
            (backend.running() == 1).then_some(())
        })
        .await;
        client.finish().await;
        if left == 0 {
            eventually(PATIENCE, "it ends", async || {
                (backend.running() == 0).then_some(())
            })
            .await;
        } else {
            assert!(client.silent_for(Duration::from_millis(50)).await);
            assert_eq!(backend.running(), 1);
            backend.open_gate();
            assert_eq!(client.answer().await.status(), 200);
        }
    }
}

#[tokio::test]
async fn killed_backend_closes_its_connections_and_refuses_new_ones() {
    let backend = Backend::start("one");
    let address = backend.address;
    let mut open = Raw::connect(address).await;
    open.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n").await;
    assert_eq!(open.answer().await.status(), 200);
    let _socket = backend.kill_for_now().await;
    assert_eq!(open.rest().await, b"");
    assert!(Client::try_connect(address).await.is_err());
    let (_socket, refusing) = tests::backend::refusing();
    assert!(Client::try_connect(refusing).await.is_err());
}

#[tokio::test]
async fn dropped_requests_are_lost_to_the_load() {
    let backend = Backend::start("one");
    let load = Load::start(backend.address, 2, Reconnect::Never, || {
        request("GET", "h", "/?drop")
    });
    let tally = load.end().await;
    assert!(
        tally.keys().all(|what| what.starts_with("lost: ")),
        "{tally:?}"
    );
    assert_eq!(tally.values().sum::<u64>(), 2);
}

#[tokio::test]
async fn raw_peers_exchange_bytes() {
    let backend = RawBackend::answering(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
                                         2\r\nok\r\n0\r\nx-t: 1\r\n\r\n",
    );
    let mut client = Raw::connect(backend.address).await;
    client
        .send("POST /a HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET /b HTTP/1.1\r\n\r\n")
        .await;
    let answers = [client.answer().await, client.answer().await];
    assert_eq!(answers[1].text(), "ok");
    assert_eq!(answers[1].trailers, "x-t: 1\r\n");
    let heads = backend.heads();
    assert_eq!(heads[0], "POST /a HTTP/1.1\r\nContent-Length: 3\r\n\r\n");
    assert_eq!(heads[1], "GET /b HTTP/1.1\r\n\r\n");
}

#[tokio::test]
async fn backend_echoes_websockets() {
    let backend = Backend::start("one");
    let mut socket = WebSocket::open(backend.address, "h", "/ws").await;
    socket.echo("hello").await;
    for size in [0, 126, 1_000_000] {
        socket.send(Message::binary(pattern(size, 3))).await;
        assert!(socket.receive().await == Message::binary(pattern(size, 3)));
    }
    socket.send(Message::Ping("ping".into())).await;
    assert_eq!(socket.receive().await, Message::Pong("ping".into()));
    assert_eq!(backend.running(), 1);
    socket.close().await;
    eventually(PATIENCE, "it ends", async || {
        (backend.running() == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn program_serves_and_its_processes_are_known() {
    let pids = tempfile::TempDir::new().unwrap();
    let mut program = Program::start(SERVICE, "two");
    let mut client = Client::connect(program.address).await;
    let answer = client.get("h", "/").await;
    assert_eq!(answer.backend(), "two");
    let pid = answer.json()["pid"].as_i64().unwrap();
    std::fs::write(pids.path().join(pid.to_string()), "").unwrap();
    assert_eq!(
        client.get("h", "/environment?name=TARGET").await.text(),
        "two"
    );
    assert_eq!(living(pids.path()).len(), 1);
    program.kill();
    assert!(living(pids.path()).is_empty());
    let own = rustix::process::getpid();
    assert!(resident(own) > 1 << 20 && open_descriptors(own) > 3);
}

#[test]
fn metrics_are_read_with_labels_and_escapes() {
    let metrics = Metrics::parse(
        "# HELP a_total Things.\n# TYPE a_total counter\n\
         a_total{x=\"1\",y=\"a \\\"b\\\" }\"} 2\na_total{x=\"1\",y=\"\"} 3\nb 0.5\n",
    );
    assert_eq!(metrics.sum("a_total", &[("x", "1")]), Some(5.0));
    assert_eq!(metrics.sum("a_total", &[("y", "a \"b\" }")]), Some(2.0));
    assert_eq!(metrics.sum("b", &[]), Some(0.5));
    assert_eq!(metrics.sum("c", &[]), None);
    assert_eq!(metrics.types["a_total"], "counter");
}
