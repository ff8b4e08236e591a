//! Endpoints are not trusted either: what they say wrongly harms one exchange at most.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tests::raw::fields;
use tests::{Gateway, Launch, RawBackend};

use crate::{HELLO, hello};

/// Answers that are refused as a whole.
const INVALID: &[&str] = &[
    "what?\r\n\r\n",
    "HTTP/2.0 200 OK\r\n\r\n",
    "HTTP/1.1 20 OK\r\n\r\n",
    "HTTP/1.1 2000 OK\r\n\r\n",
    "HTTP/1.1 abc OK\r\n\r\n",
    "http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: 1\r\n folded\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A : 1\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: a\0b\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: a\rb\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nno colon\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n: empty\r\n\r\nok",
];

#[tokio::test]
async fn malformed_answers_are_not_passed_on() {
    for bytes in INVALID {
        let backend = RawBackend::answering(*bytes);
        let gateway = Gateway::start(&hello(&backend)).await;
        let answer = gateway.get(HELLO, "/").await;
        let got = (answer.status, answer.reason());
        assert_eq!(got, (502, "upstream_invalid"), "{bytes:?}");
        // It was sent once: an answer, however bad, is no reason to repeat.
        assert_eq!(backend.heads().len(), 1, "{bytes:?}");
        gateway.until_idle().await;
    }
}

#[tokio::test]
async fn answer_head_without_end_is_refused() {
    let backend = RawBackend::scripted(|_, mut connection| async move {
        connection.head().await;
        connection.send("HTTP/1.1 200 OK\r\n").await;
        while connection
            .try_send("X-More: and more, and more, and more\r\n")
            .await
            .is_ok()
        {}
    });
    let gateway = Gateway::start(&hello(&backend)).await;
    gateway
        .get(HELLO, "/")
        .await
        .refused(502, "upstream_invalid");
    gateway.until_idle().await;
}

#[tokio::test]
async fn answer_with_two_lengths_is_refused_or_read_in_the_one_safe_way() {
    let backend = RawBackend::answering(
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    );
    let gateway = Gateway::start(&hello(&backend)).await;
    let mut client = gateway.raw().await;
    client
        .send(format!("GET / HTTP/1.1\r\nHost: {HELLO}\r\n\r\n"))
        .await;
    let answer = client.answer().await;
    if answer.status() == 200 {
        assert_eq!(answer.text(), "ok");
        let lengths = fields(&answer.head, "content-length").len();
        assert_eq!(
            lengths + fields(&answer.head, "transfer-encoding").len(),
            1,
            "{}",
            answer.head
        );
    } else {
        assert_eq!(answer.reason(), "upstream_invalid");
    }
}

#[tokio::test]
async fn what_follows_an_answer_is_nobodys_answer() {
    // A response of the endpoint's own making lies behind the real one.
    let backend = RawBackend::answering(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
    );
    let gateway = Gateway::start(&hello(&backend)).await;
    let mut client = gateway.connect().await;
    for _ in 0..50 {
        assert_eq!(client.get(HELLO, "/").await.expect(200).text(), "ok");
    }
}

#[tokio::test]
async fn bad_chunks_of_an_endpoint_end_the_answer_early() {
    for chunks in [
        "5\r\nhelloX",
        "zz\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "fffffffffffffffff\r\n",
    ] {
        let backend = RawBackend::answering(format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n{chunks}"
        ));
        let gateway = Gateway::start(&hello(&backend)).await;
        let mut client = gateway.raw().await;
        client
            .send(format!("GET / HTTP/1.1\r\nHost: {HELLO}\r\n\r\n"))
            .await;
        let said = String::from_utf8_lossy(&client.rest().await).into_owned();
        assert!(
            !said.ends_with("0\r\n\r\n"),
            "{chunks:?} was completed: {said}"
        );
        gateway.until_idle().await;
    }
}

#[tokio::test]
async fn interim_answers_do_not_end_the_exchange() {
    let backend = RawBackend::answering(
        "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    );
    let gateway = Gateway::start(&hello(&backend)).await;
    let mut client = gateway.raw().await;
    for _ in 0..3 {
        client
            .send(format!("GET / HTTP/1.1\r\nHost: {HELLO}\r\n\r\n"))
            .await;
        let mut answer = client.answer().await;
        while answer.status() == 103 {
            answer = client.answer().await;
        }
        assert_eq!((answer.status(), answer.text()), (200, "ok".to_owned()));
    }
}

#[tokio::test]
async fn endless_interim_answers_are_refused() {
    let backend = RawBackend::scripted(|_, mut connection| async move {
        connection.head().await;
        while connection
            .try_send("HTTP/1.1 102 Processing\r\n\r\n")
            .await
            .is_ok()
        {}
    });
    let gateway = Gateway::start(&(hello(&backend) + "    timeout: 2s\n")).await;
    let mut client = gateway.raw().await;
    client
        .send(format!(
            "GET / HTTP/1.1\r\nHost: {HELLO}\r\nConnection: close\r\n\r\n"
        ))
        .await;
    let said = String::from_utf8_lossy(&client.rest().await).into_owned();
    let last = said.rfind("HTTP/1.1 ").unwrap();
    assert!(
        matches!(&said[last + 9..last + 12], "502" | "504"),
        "{}",
        &said[last..]
    );
    gateway.until_idle().await;
}

/// A gateway with one worker, an endpoint that counts its connections, and that count.
async fn counted(answer: &'static str, requests: usize) -> usize {
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = connections.clone();
    let backend = RawBackend::scripted(move |_, mut connection| {
        counter.fetch_add(1, Ordering::SeqCst);
        async move {
            while connection.next_head().await.is_some() {
                connection.send(answer).await;
            }
        }
    });
    let one = ["--workers", "1"];
    let gateway = Launch::new(&hello(&backend)).arguments(one).start().await;
    let mut client = gateway.connect().await;
    for _ in 0..requests {
        assert_eq!(client.get(HELLO, "/").await.expect(200).text(), "ok");
    }
    connections.load(Ordering::SeqCst)
}

#[tokio::test]
async fn connections_to_endpoints_are_used_again_where_that_is_safe() {
    let plain = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    assert_eq!(counted(plain, 20).await, 1);
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    assert_eq!(counted(chunked, 20).await, 1);
    let closing = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
    assert_eq!(counted(closing, 5).await, 5);
    let oldest = "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok";
    assert_eq!(counted(oldest, 5).await, 5);
}
