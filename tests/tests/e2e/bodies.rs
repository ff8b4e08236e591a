//! Bodies pass both ways, whole, in time, and with their trailers.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::Frame;
use tests::body::{channel, chunks, fingerprint, full, pattern};
use tests::client::{carrying, with};
use tests::raw::{field, length};
use tests::{Backend, Gateway, Raw, RawBackend, request, settled, sized, within};

use crate::{HELLO, hello};

#[tokio::test]
async fn bodies_of_all_sizes_arrive_unchanged_both_ways() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&hello(&backend)).await;
    let mut client = gateway.connect().await;
    for size in [
        0,
        1,
        1023,
        16_384,
        65_535,
        65_536,
        65_537,
        1_000_003,
        sized(6_000_000, 60_000_000),
    ] {
        let content = pattern(size, 5);
        let upload = carrying(request("POST", HELLO, "/"), full(content.clone()));
        let report = client.send(upload).await.expect(200).json();
        assert_eq!(report["length"], size);
        assert_eq!(report["fingerprint"], fingerprint(&content));
        let answer = client
            .get(HELLO, &format!("/?size={size}&seed=5"))
            .await
            .expect(200);
        assert_eq!(answer.header("content-length"), size.to_string());
        assert!(answer.body == content, "{size} bytes came back changed");
    }
}

#[tokio::test]
async fn chunked_bodies_arrive_unchanged_whatever_the_chunks() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&hello(&backend)).await;
    let mut client = gateway.connect().await;
    for size in [1, 7, 4096, 100_000] {
        let content = pattern(size * 23 + 1, 6);
        let pieces = (0..content.len()).step_by(size);
        let pieces = pieces.map(|start| content.slice(start..content.len().min(start + size)));
        let upload = chunks(pieces.collect(), None);
        let answer = client
            .send(carrying(request("POST", HELLO, "/"), upload))
            .await
            .expect(200);
        assert_eq!(answer.json()["fingerprint"], fingerprint(&content));
        let path = format!("/?size={}&seed=6&pieces=23", content.len());
        let answer = client.get(HELLO, &path).await.expect(200);
        assert_eq!(answer.header("transfer-encoding"), "chunked");
        assert!(answer.body == content, "chunks of {size} came back changed");
    }
}

#[tokio::test]
async fn both_directions_move_at_the_same_time() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&hello(&backend)).await;
    let mut client = gateway.connect().await;
    let (sender, stream) = channel();
    let upload = carrying(request("POST", HELLO, "/?mirror"), stream);
    sender.send(Frame::data(Bytes::from("0"))).await.unwrap();
    let mut answer = client.open(upload).await.unwrap().into_body();
    for number in 1..50 {
        let echo = within("an echo", answer.frame()).await.unwrap().unwrap();
        assert_eq!(echo.into_data().unwrap(), (number - 1).to_string());
        sender
            .send(Frame::data(number.to_string().into()))
            .await
            .unwrap();
    }
    drop(sender);
    assert_eq!(answer.collect().await.unwrap().to_bytes(), "49");
}

#[tokio::test]
async fn events_are_not_held_back() {
    let (events, stream) = channel();
    let stream = Arc::new(Mutex::new(Some(stream)));
    let backend = Backend::with(move |_| {
        let stream = stream.lock().unwrap().take().unwrap();
        let response = Response::builder().header("content-type", "text/event-stream");
        std::future::ready(response.body(stream).unwrap())
    });
    let gateway = Gateway::start(&hello(&backend)).await;
    let mut client = gateway.connect().await;
    // The head comes before there is any event, each event before there is the next.
    let answer = within("the head", client.open(request("GET", HELLO, "/")))
        .await
        .unwrap();
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let mut body = answer.into_body();
    for number in 0..20 {
        let event = Bytes::from(format!("data: {number}\n\n"));
        events.send(Frame::data(event.clone())).await.unwrap();
        let frame = within("an event", body.frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), event);
    }
    drop(events);
    assert!(within("the end", body.frame()).await.is_none());
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&hello(&backend)).await;
    let mut client = gateway.connect().await;
    let trailers = [("x-sum".parse().unwrap(), "42".parse().unwrap())]
        .into_iter()
        .collect();
    let upload = chunks(vec![Bytes::from("abc")], Some(trailers));
    let asked = with(
        with(request("POST", HELLO, "/?trailers"), "te", "trailers"),
        "trailer",
        "x-sum",
    );
    let answer = client
        .send(carrying(with(asked, "connection", "te"), upload))
        .await
        .expect(200);
    assert_eq!(answer.json()["trailers"]["x-sum"], "42");
    assert_eq!(answer.trailers["x-sum"], fingerprint(&answer.body));
    assert_eq!(answer.trailers["x-end"], "yes");
    // The connection goes on behind them.
    client.get(HELLO, "/").await.expect(200);
}

#[tokio::test]
async fn trailers_cannot_bring_what_belongs_into_a_head() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&hello(&backend)).await;
    let mut client = gateway.raw().await;
    client
        .send(format!(
            "POST / HTTP/1.1\r\nHost: {HELLO}\r\nTransfer-Encoding: chunked\r\n\
             Trailer: x-good\r\n\r\n2\r\nhi\r\n0\r\nX-Good: 1\r\nHost: evil\r\n\
             Content-Length: 5\r\nTransfer-Encoding: chunked\r\nAuthorization: me\r\n\r\n"
        ))
        .await;
    let answer = client.answer().await;
    if answer.status() == 200 {
        let report: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(report["trailers"], serde_json::json!({ "x-good": "1" }));
    } else {
        assert_eq!(answer.reason(), "bad_request");
    }
}

#[tokio::test]
async fn head_and_bodiless_statuses_keep_their_framing() {
    let cases = [
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n",
            200,
            Some("1000"),
        ),
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            200,
            None,
        ),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", 204, None),
        (
            "GET",
            "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nContent-Length: 50\r\n\r\n",
            304,
            Some("50"),
        ),
        ("GET", "HTTP/1.1 304 Not Modified\r\n\r\n", 304, None),
    ];
    for (method, bytes, status, length) in cases {
        let backend = RawBackend::answering(bytes);
        let gateway = Gateway::start(&hello(&backend)).await;
        let mut client = gateway.raw().await;
        // The second answer begins right behind the first head.
        for _ in 0..2 {
            client
                .send(format!("{method} / HTTP/1.1\r\nHost: {HELLO}\r\n\r\n"))
                .await;
            let head = client.head().await;
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
            assert_eq!(field(&head, "content-length"), length, "{head}");
        }
        assert!(client.silent_for(Duration::from_millis(50)).await);
    }
}

#[tokio::test]
async fn body_that_ends_with_its_connection_arrives_whole() {
    let backend = RawBackend::scripted(|_, mut connection| async move {
        connection.head().await;
        connection
            .send("HTTP/1.1 200 OK\r\nX-Until: close\r\n\r\n")
            .await;
        connection.send(pattern(300_000, 9)).await;
    });
    let gateway = Gateway::start(&hello(&backend)).await;
    let answer = gateway.get(HELLO, "/").await.expect(200);
    assert!(answer.body == pattern(300_000, 9), "changed");
}

#[tokio::test]
async fn expectation_is_answered_when_somebody_will_read() {
    let backend = RawBackend::scripted(|_, mut connection| async move {
        let head = connection.head().await;
        assert_eq!(field(&head, "expect"), None, "{head}");
        let body = connection.exactly(length(&head)).await;
        // What the endpoint says of continuing is not for the client, who was told already.
        connection.send("HTTP/1.1 100 Continue\r\n\r\n").await;
        connection
            .send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
                body.len()
            ))
            .await;
        connection.send(body).await;
    });
    let gateway = Gateway::start(&hello(&backend)).await;
    let mut client = gateway.raw().await;
    client
        .send(format!(
            "POST / HTTP/1.1\r\nHost: {HELLO}\r\nExpect: 100-Continue\r\nContent-Length: 5\r\n\r\n"
        ))
        .await;
    assert_eq!(client.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("hello").await;
    let answer = client.answer().await;
    assert_eq!((answer.status(), answer.text()), (200, "hello".to_owned()));
}

#[tokio::test]
async fn expectation_is_not_answered_when_the_request_is_refused() {
    let gateway = Gateway::start("routes: []\n").await;
    let mut client = gateway.raw().await;
    client
        .send(
            "POST / HTTP/1.1\r\nHost: nobody\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
        )
        .await;
    let answer = client.answer().await;
    assert_eq!((answer.status(), answer.reason()), (404, "no_route"));
    // Whether the client sends the body or not, it is not taken for a request.
    let _gone_is_fine = client.try_send("GET /").await;
    client.finish().await;
    let rest = String::from_utf8(client.rest().await).unwrap();
    assert!(!rest.contains("HTTP/1.1 4"), "{rest}");
}

#[tokio::test]
async fn early_answer_reaches_the_client_that_is_still_sending() {
    let backend = RawBackend::scripted(|_, mut connection| async move {
        connection.head().await;
        connection
            .send("HTTP/1.1 413 Too Much\r\nContent-Length: 4\r\n\r\nenough")
            .await;
        connection.rest().await;
    });
    let gateway = Gateway::start(&hello(&backend)).await;
    let mut client = gateway.raw().await;
    let size = 50_000_000;
    client
        .send(format!(
            "POST / HTTP/1.1\r\nHost: {HELLO}\r\nContent-Length: {size}\r\n\r\n"
        ))
        .await;
    client.send(vec![b'x'; 1000]).await;
    let answer = client.answer().await;
    assert_eq!((answer.status(), answer.text()), (413, "enou".to_owned()));
    // What is left of the body is never the next request, nor is what the endpoint added.
    let _gone_is_fine = client.try_send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.finish().await;
    assert_eq!(client.rest().await, b"");
}

#[tokio::test]
async fn slow_reader_holds_back_the_endpoint_not_the_gateway() {
    // Far more than sockets and gateway may buffer, and the endpoint sees how much left it.
    const SIZE: usize = 64 << 20;
    let sent = Arc::new(Mutex::new(0));
    let counter = sent.clone();
    let backend = RawBackend::scripted(move |_, mut connection| {
        let counter = counter.clone();
        async move {
            connection.head().await;
            connection
                .send(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n"))
                .await;
            let piece = pattern(1 << 16, 1);
            while *counter.lock().unwrap() < SIZE && connection.try_send(&piece).await.is_ok() {
                *counter.lock().unwrap() += piece.len();
            }
        }
    });
    let gateway = Gateway::start(&hello(&backend)).await;
    let mut client = gateway.raw().await;
    client
        .send(format!("GET / HTTP/1.1\r\nHost: {HELLO}\r\n\r\n"))
        .await;
    assert_eq!(length(&client.head().await), SIZE);
    let count = || *sent.lock().unwrap();
    let held = settled("the endpoint is held back", count).await;
    assert!(held < SIZE / 2, "the gateway swallowed the body");
    drain(&mut client, SIZE).await;
}

async fn drain(client: &mut Raw, size: usize) {
    let piece = pattern(1 << 16, 1);
    for _ in 0..size / piece.len() {
        assert!(client.exactly(piece.len()).await == piece, "changed");
    }
}

#[tokio::test]
async fn truncated_answer_is_seen_to_be_truncated() {
    for head in [
        "Content-Length: 100\r\n\r\nhalf",
        "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ] {
        let bytes = format!("HTTP/1.1 200 OK\r\n{head}");
        let backend = RawBackend::scripted(move |_, mut connection| {
            let bytes = bytes.clone();
            async move {
                connection.head().await;
                connection.send(bytes).await;
            }
        });
        let gateway = Gateway::start(&hello(&backend)).await;
        let mut client = gateway.connect().await;
        let outcome = within("the end", client.try_send(request("GET", HELLO, "/"))).await;
        assert!(outcome.is_err(), "{outcome:?}");
        gateway
            .until_metric(
                "tidegate_requests_total",
                &[("reason", "endpoint_gone")],
                |n| n == 1.0,
            )
            .await;
    }
}

#[tokio::test]
async fn truncated_upload_is_never_complete_at_the_endpoint() {
    let backend = RawBackend::scripted(|_, mut connection| async move {
        connection.head().await;
        let rest = connection.rest().await;
        assert!(
            !rest.ends_with(b"0\r\n\r\n"),
            "the gateway completed the body"
        );
    });
    let gateway = Gateway::start(&hello(&backend)).await;
    let mut client = gateway.raw().await;
    let head = format!("POST / HTTP/1.1\r\nHost: {HELLO}\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send(format!("{head}4\r\nhalf\r\n")).await;
    client.finish().await;
    gateway
        .until_metric(
            "tidegate_requests_total",
            &[("reason", "client_gone")],
            |n| n == 1.0,
        )
        .await;
    gateway.until_idle().await;
}
