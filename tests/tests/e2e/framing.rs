//! Where a request begins and ends is never in doubt: what could be read in two ways is refused,
//! and nothing of it reaches an endpoint.

use tests::raw::{field, fields};
use tests::{Backend, Gateway, RawBackend};

use crate::{HELLO, hello};

/// Requests that are refused with 400 and a closed connection. `H` is the right host field.
const MALFORMED: &[&str] = &[
    // Two lengths.
    "POST / HTTP/1.1\r\nH\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nH\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nH\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "POST / HTTP/1.1\r\nH\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "POST / HTTP/1.1\r\nH\r\nContent-Length: 5, 5\r\n\r\nhello",
    // No length.
    "POST / HTTP/1.1\r\nH\r\nContent-Length: +5\r\n\r\nhello",
    "POST / HTTP/1.1\r\nH\r\nContent-Length: -5\r\n\r\nhello",
    "POST / HTTP/1.1\r\nH\r\nContent-Length: 0x5\r\n\r\nhello",
    "POST / HTTP/1.1\r\nH\r\nContent-Length: 5 5\r\n\r\nhello",
    "POST / HTTP/1.1\r\nH\r\nContent-Length: \r\n\r\nhello",
    "POST / HTTP/1.1\r\nH\r\nContent-Length: 99999999999999999999\r\n\r\nhello",
    // No coding that frames.
    "POST / HTTP/1.1\r\nH\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nH\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nH\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nH\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nH\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nH\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.0\r\nH\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    // Lines.
    "GET / HTTP/1.1\nH\n\n",
    "GET / HTTP/1.1\r\nH\nX-A: 1\r\n\r\n",
    "GET / HTTP/1.1\r\nH\r\nX-A: 1\n\r\n",
    "GET / HTTP/1.1\r\nH\r\nX-A: 1\rX-B: 2\r\n\r\n",
    "GET / HTTP/1.1\r\nH\r\nX-A: 1\r\n folded\r\n\r\n",
    "GET / HTTP/1.1\r\nH\r\nX-A: 1\r\n\tfolded\r\n\r\n",
    "GET / HTTP/1.1\r\n X-A: 1\r\nH\r\n\r\n",
    "GET / HTTP/1.1\r\nH\r\nX-A : 1\r\n\r\n",
    "GET / HTTP/1.1\r\nH\r\nX-A\r\n\r\n",
    "GET / HTTP/1.1\r\nH\r\n: 1\r\n\r\n",
    "GET / HTTP/1.1\r\nH\r\nX-A: a\0b\r\n\r\n",
    "GET / HTTP/1.1\r\nH\r\nX-A: a\x01b\r\n\r\n",
    "GET / HTTP/1.1\r\nH\r\nX-A: a\x7fb\r\n\r\n",
    "GET / HTTP/1.1\r\nH\r\nX(A): 1\r\n\r\n",
    // The request line.
    "GET  / HTTP/1.1\r\nH\r\n\r\n",
    "GET /a b HTTP/1.1\r\nH\r\n\r\n",
    "GET / HTTP/1.1 \r\nH\r\n\r\n",
    "GET /\tHTTP/1.1\r\nH\r\n\r\n",
    "GET / http/1.1\r\nH\r\n\r\n",
    "GET / HTTP/11\r\nH\r\n\r\n",
    "GET / HTTP/1.1x\r\nH\r\n\r\n",
    "GET / FTP/1.1\r\nH\r\n\r\n",
    "GET /\r\n\r\n",
    "G@T / HTTP/1.1\r\nH\r\n\r\n",
    "GET a HTTP/1.1\r\nH\r\n\r\n",
    "GET * HTTP/1.1\r\nH\r\n\r\n",
    "GET /a\x01b HTTP/1.1\r\nH\r\n\r\n",
    "GET /\u{e9} HTTP/1.1\r\nH\r\n\r\n",
    "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n",
    // The host.
    "GET / HTTP/1.1\r\n\r\n",
    "GET / HTTP/1.1\r\nH\r\nH\r\n\r\n",
    "GET / HTTP/1.1\r\nH\r\nHost: other\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: user@hello.default.example.com\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: hello.default.example.com:port\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: hello.default.example.com/x\r\n\r\n",
    "GET http://other.example.org/ HTTP/1.1\r\nH\r\n\r\n",
];

#[tokio::test]
async fn ambiguous_heads_are_refused_and_the_connection_closes() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&hello(&backend)).await;
    for request in MALFORMED {
        let mut client = gateway.raw().await;
        let bytes = request.replace("H\r\n", &format!("Host: {HELLO}\r\n"));
        let bytes = bytes.replace("H\n", &format!("Host: {HELLO}\n"));
        // Whatever it takes for the next request would be answered too.
        client
            .send(bytes + "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n")
            .await;
        let said = String::from_utf8_lossy(&client.rest().await).into_owned();
        assert!(
            said.starts_with("HTTP/1.1 400 "),
            "{request:?} got {said:?}"
        );
        assert_eq!(
            field(&said, "tidegate-reason"),
            Some("bad_request"),
            "{request:?}"
        );
        assert_eq!(field(&said, "connection"), Some("close"), "{request:?}");
        assert_eq!(
            said.matches("HTTP/1.1 ").count(),
            1,
            "{request:?} got {said:?}"
        );
    }
    assert_eq!(backend.total(), 0);
}

#[tokio::test]
async fn known_codings_that_we_do_not_speak_are_not_implemented() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&hello(&backend)).await;
    for coding in ["gzip, chunked", "deflate", "gzip"] {
        let mut client = gateway.raw().await;
        let head =
            format!("POST / HTTP/1.1\r\nHost: {HELLO}\r\nTransfer-Encoding: {coding}\r\n\r\n");
        client.send(head).await;
        let answer = client.answer().await;
        assert_eq!(
            (answer.status(), answer.reason()),
            (501, "not_implemented"),
            "{coding}"
        );
        assert_eq!(client.rest().await, b"");
    }
    assert_eq!(backend.total(), 0);
}

/// Bodies behind a chunked head. `400` may come, or nothing but the end, never a second answer.
const BAD_CHUNKS: &[&str] = &[
    "5\nhello\r\n0\r\n\r\n",
    "5\r\nhello0\r\n\r\n",
    "5\r\nhelloXX0\r\n\r\n",
    "5 \r\nhello\r\n0\r\n\r\n",
    " 5\r\nhello\r\n0\r\n\r\n",
    "+5\r\nhello\r\n0\r\n\r\n",
    "-5\r\nhello\r\n0\r\n\r\n",
    "0x5\r\nhello\r\n0\r\n\r\n",
    "5_0\r\nhello\r\n0\r\n\r\n",
    "g\r\nhello\r\n0\r\n\r\n",
    "\r\nhello\r\n0\r\n\r\n",
    "10000000000000005\r\nhello\r\n0\r\n\r\n",
    "ffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    "5;a\nb\r\nhello\r\n0\r\n\r\n",
    "5\rhello\r\n0\r\n\r\n",
    "0\r\nX-A: 1\n\r\n\r\n",
    "0\r\nX-A\r\n\r\n",
];

#[tokio::test]
async fn bad_chunks_end_the_connection_and_never_a_request() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&hello(&backend)).await;
    for chunks in BAD_CHUNKS {
        let mut client = gateway.raw().await;
        let head =
            format!("POST / HTTP/1.1\r\nHost: {HELLO}\r\nTransfer-Encoding: chunked\r\n\r\n");
        let next = format!("GET /smuggled HTTP/1.1\r\nHost: {HELLO}\r\n\r\n");
        client.send(head + chunks + &next).await;
        client.finish().await;
        let said = String::from_utf8_lossy(&client.rest().await).into_owned();
        assert!(
            said.is_empty() || said.starts_with("HTTP/1.1 400 "),
            "{chunks:?} got {said:?}"
        );
        assert_eq!(
            said.matches("HTTP/1.1 ").count(),
            usize::from(!said.is_empty()),
            "{said:?}"
        );
        assert!(!said.contains("smuggled"), "{chunks:?} got {said:?}");
    }
    // Upper case, leading zeros and extensions are good chunks.
    for chunks in [
        "A\r\nhellohello\r\n0\r\n\r\n",
        "005;a=b;c\r\nhello\r\n000\r\n\r\n",
    ] {
        let mut client = gateway.raw().await;
        let head =
            format!("POST / HTTP/1.1\r\nHost: {HELLO}\r\nTransfer-Encoding: Chunked\r\n\r\n");
        client.send(head + chunks).await;
        let answer = client.answer().await;
        assert_eq!(answer.status(), 200, "{chunks:?}");
        assert!(answer.text().contains("hello"));
    }
}

#[tokio::test]
async fn endpoint_gets_one_framing_only() {
    let backend = RawBackend::scripted(|_, mut connection| async move {
        while let Some(head) = connection.next_head().await {
            let (codings, lengths) = (
                fields(&head, "transfer-encoding"),
                fields(&head, "content-length"),
            );
            assert_eq!(codings.len() + lengths.len(), 1, "{head}");
            if codings.is_empty() {
                connection.exactly(lengths[0].parse().unwrap()).await;
            } else {
                assert_eq!(codings, ["chunked"]);
                assert_eq!(connection.chunked().await.0, b"hello");
            }
            connection.send("HTTP/1.1 204 No Content\r\n\r\n").await;
        }
    });
    let gateway = Gateway::start(&hello(&backend)).await;
    let mut client = gateway.raw().await;
    for framing in [
        "content-LENGTH: 5\r\n\r\nhello",
        "transfer-ENCODING: CHUNKED\r\n\r\n5;x=\"y\"\r\nhello\r\n0\r\n\r\n",
    ] {
        client
            .send(format!("POST / HTTP/1.1\r\nHost: {HELLO}\r\n{framing}"))
            .await;
        assert_eq!(client.answer().await.status(), 204);
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&hello(&backend)).await;
    let mut client = gateway.raw().await;
    let mut bytes = String::new();
    for number in 0..50 {
        // Slow ones first, and bodies of both kinds in between.
        let pause = 50 - number;
        bytes += &format!("GET /{number}?sleep={pause} HTTP/1.1\r\nHost: {HELLO}\r\n\r\n");
        bytes +=
            &format!("POST /{number}b HTTP/1.1\r\nHost: {HELLO}\r\nContent-Length: 2\r\n\r\nhi");
        bytes += &format!(
            "POST /{number}c HTTP/1.1\r\nHost: {HELLO}\r\nTransfer-Encoding: chunked\r\n\r\n\
             2\r\nhi\r\n0\r\n\r\n"
        );
    }
    client.send(bytes).await;
    for number in 0..50 {
        for kind in ["?", "b", "c"] {
            let answer = client.answer().await;
            let target =
                serde_json::from_slice::<serde_json::Value>(&answer.body).unwrap()["target"]
                    .to_string();
            assert!(
                target.starts_with(&format!("\"/{number}{kind}")),
                "{target}"
            );
        }
    }
}

#[tokio::test]
async fn head_may_come_byte_by_byte_and_empty_lines_before_it() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&hello(&backend)).await;
    let mut client = gateway.raw().await;
    for byte in format!("\r\nGET /slow HTTP/1.1\r\nHost: {HELLO}\r\n\r\n").bytes() {
        client.send([byte]).await;
    }
    assert_eq!(client.answer().await.status(), 200);
}

#[tokio::test]
async fn old_clients_get_what_they_understand() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&hello(&backend)).await;
    for (fields, keeps) in [("", false), ("Connection: keep-alive\r\n", true)] {
        let mut client = gateway.raw().await;
        client
            .send(format!(
                "GET /?size=1000&pieces=4 HTTP/1.0\r\nHost: {HELLO}\r\n{fields}\r\n"
            ))
            .await;
        let head = client.head().await;
        assert!(
            head.starts_with("HTTP/1.1 200 ") || head.starts_with("HTTP/1.0 200 "),
            "{head}"
        );
        assert_eq!(field(&head, "transfer-encoding"), None, "{head}");
        // Without a length, the end of the connection is the end of the body.
        if let Some(length) = field(&head, "content-length") {
            assert_eq!(length, "1000");
            assert_eq!(client.exactly(1000).await.len(), 1000);
            assert!(keeps || client.rest().await.is_empty());
        } else {
            assert_eq!(client.rest().await.len(), 1000);
        }
    }
    // With a length from the endpoint and keep-alive asked for, the connection stays.
    let mut client = gateway.raw().await;
    for _ in 0..2 {
        client
            .send(format!(
                "GET /?size=10 HTTP/1.0\r\nHost: {HELLO}\r\nConnection: keep-alive\r\n\r\n"
            ))
            .await;
        let head = client.head().await;
        assert_eq!(field(&head, "content-length"), Some("10"), "{head}");
        assert_eq!(client.exactly(10).await.len(), 10);
    }
}

#[tokio::test]
async fn old_client_without_host_gets_the_default_route_or_an_error() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&hello(&backend)).await;
    let mut client = gateway.raw().await;
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    let said = String::from_utf8_lossy(&client.rest().await).into_owned();
    let status = said.split(' ').nth(1);
    assert!(matches!(status, Some("400" | "404")), "{said}");
    assert_eq!(backend.total(), 0);
}

#[tokio::test]
async fn connection_closes_when_asked_and_after_its_number_of_requests() {
    let backend = Backend::start("one");
    let limits = "gateway: { limits: { requestsPerConnection: 3 } }\n".to_owned();
    let gateway = Gateway::start(&(limits + &hello(&backend))).await;
    let mut client = gateway.raw().await;
    for number in 1..=3 {
        client
            .send(format!("GET / HTTP/1.1\r\nHost: {HELLO}\r\n\r\n"))
            .await;
        let closes = client.answer().await.field("connection") == Some("close");
        assert_eq!(closes, number == 3);
    }
    assert_eq!(client.rest().await, b"");

    let mut client = gateway.raw().await;
    client
        .send(format!(
            "GET / HTTP/1.1\r\nHost: {HELLO}\r\nConnection: close\r\n\r\n"
        ))
        .await;
    assert_eq!(client.answer().await.field("connection"), Some("close"));
    assert_eq!(client.rest().await, b"");
}

#[tokio::test]
async fn options_of_the_whole_server_is_a_request_like_others() {
    let backend = RawBackend::answering("HTTP/1.1 204 No Content\r\n\r\n");
    let gateway = Gateway::start(&hello(&backend)).await;
    let mut client = gateway.raw().await;
    client
        .send(format!("OPTIONS * HTTP/1.1\r\nHost: {HELLO}\r\n\r\n"))
        .await;
    assert_eq!(client.answer().await.status(), 204);
    assert!(
        backend.heads()[0].starts_with("OPTIONS * HTTP/1.1\r\n"),
        "{:?}",
        backend.heads()
    );
}
