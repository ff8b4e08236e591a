//! What heads say arrives, and what is said to the next hop only does not.

use http_body_util::BodyExt;
use hyper::{HeaderMap, Method, Request, Response};
use tests::body::{empty, full};
use tests::client::{carrying, with};
use tests::http2::{Http2, Http2Backend};
use tests::{Backend, RawBackend, Wire, request};

use super::{Way, on_every_way};
use crate::HELLO;

on_every_way! {
    requests_arrive_as_they_were_sent
    answers_arrive_as_they_were_sent
    hop_by_hop_fields_stay_on_their_hop
    cookies_are_one_field_at_the_endpoint
    answers_without_a_body_have_none
    hints_come_before_the_answer
    large_heads_arrive
}

async fn requests_arrive_as_they_were_sent(way: Way) {
    let backend = Backend::start("one");
    let gateway = way.gateway(&backend).await;
    let mut client = way.client(&gateway).await;
    let target = "/a%2fb//c;p=1/~%C3%A9/?x=%20&y=a+b&&z=%7E?";
    for method in ["GET", "POST", "DELETE", "PATCH", "REPORT"] {
        let asked = with(request(method, HELLO, target), "x-empty", "");
        let asked = with(with(asked, "x-two", "1"), "x-two", "b, c");
        let asked = with(asked, "accept-language", "de;q=0.5");
        let report = client.send(asked).await.expect(200).json();
        assert_eq!(report["method"], method);
        assert_eq!(report["target"], target);
        assert_eq!(report["authority"], HELLO);
        let fields = &report["headers"];
        assert_eq!(
            (&fields["x-empty"], &fields["x-two"]),
            (&"".into(), &"1, b, c".into())
        );
        assert_eq!(fields["accept-language"], "de;q=0.5");
        assert_eq!(fields["x-forwarded-for"], "127.0.0.1");
        assert_eq!(fields["x-forwarded-proto"], "http");
        assert_eq!(fields["x-forwarded-host"], HELLO);
        let version = match way.endpoint {
            Wire::Http1 => "HTTP/1.1",
            Wire::Http2 => "HTTP/2.0",
        };
        assert_eq!(report["version"], version);
    }
}

async fn answers_arrive_as_they_were_sent(way: Way) {
    let backend = Backend::with(|_| async {
        let answer = Response::builder()
            .status(418)
            .header("set-cookie", "a=1; Path=/");
        let answer = answer.header("set-cookie", "b=2").header("x-empty", "");
        let answer = answer
            .header("server", "Own/1")
            .header("tidegate-reason", "no_route");
        answer.body(full("short and stout")).unwrap()
    });
    let gateway = way.gateway(&backend).await;
    let answer = way.client(&gateway).await.get(HELLO, "/").await.expect(418);
    assert_eq!(answer.text(), "short and stout");
    let cookies: Vec<_> = answer.headers.get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["a=1; Path=/", "b=2"]);
    assert_eq!(
        (
            answer.headers["x-empty"].as_bytes(),
            answer.header("server")
        ),
        (&b""[..], "Own/1")
    );
    assert_eq!(
        (answer.header("content-length"), answer.reason()),
        ("15", "")
    );
}

async fn hop_by_hop_fields_stay_on_their_hop(way: Way) {
    // What belongs to a connection of HTTP/1.1 only that can say; `te` both may.
    let scripted = RawBackend::answering(
        "HTTP/1.1 200 OK\r\nConnection: X-Inner\r\nX-Inner: 1\r\nKeep-Alive: timeout=5\r\n\
         Proxy-Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    );
    let plain = Backend::start("one");
    let endpoint = match way.endpoint {
        Wire::Http1 => scripted.address,
        Wire::Http2 => plain.address,
    };
    let gateway = way.gateway(&endpoint).await;
    let mut client = way.client(&gateway).await;
    let mut asked = with(request("GET", HELLO, "/"), "te", "trailers");
    if way.client == Wire::Http1 {
        asked = with(asked, "connection", "x-outer, te, keep-alive");
        for (name, value) in [
            ("x-outer", "1"),
            ("keep-alive", "5"),
            ("proxy-connection", "a"),
        ] {
            asked = with(asked, name, value);
        }
    }
    let answer = client.send(asked).await.expect(200);
    for gone in ["x-inner", "keep-alive", "proxy-connection", "connection"] {
        assert_eq!(answer.header(gone), "", "{answer:?}");
    }
    if way.endpoint == Wire::Http1 {
        let head = scripted.heads().remove(0).to_lowercase();
        for gone in ["x-outer", "keep-alive", "proxy-connection"] {
            assert!(!head.contains(gone), "{head}");
        }
    } else {
        for gone in ["x-outer", "keep-alive", "proxy-connection", "connection"] {
            assert_eq!(answer.seen(gone), "", "{answer:?}");
        }
    }
    client.get(HELLO, "/").await.expect(200);
}

async fn cookies_are_one_field_at_the_endpoint(way: Way) {
    let backend = Backend::start("one");
    let gateway = way.gateway(&backend).await;
    let mut client = way.client(&gateway).await;
    let mut asked = request("GET", HELLO, "/");
    // HTTP/2 clients cut them so that they compress well.
    let crumbs = match way.client {
        Wire::Http1 => vec!["a=1; b=2; c=3"],
        Wire::Http2 => vec!["a=1", "b=2", "c=3"],
    };
    for crumb in crumbs {
        asked = with(asked, "cookie", crumb);
    }
    let answer = client.send(asked).await.expect(200);
    assert_eq!(answer.seen("cookie"), "a=1; b=2; c=3");
}

async fn answers_without_a_body_have_none(way: Way) {
    let backend = Backend::with(|request: Request<_>| async move {
        let answer = Response::builder().header("etag", "\"a\"");
        match (request.uri().path(), request.method()) {
            ("/204", _) => answer.status(204).body(empty()),
            ("/304", _) => answer.status(304).body(empty()),
            // hyper would send a body on HTTP/2.
            (_, &Method::HEAD) => answer.header("content-length", 1000).body(empty()),
            _ => answer.body(full("x".repeat(1000))),
        }
        .unwrap()
    });
    let gateway = way.gateway(&backend).await;
    let mut client = way.client(&gateway).await;
    // The connection goes on behind each.
    for (method, path, status, length) in [
        (Method::HEAD, "/", 200, "1000"),
        (Method::GET, "/204", 204, ""),
        (Method::GET, "/304", 304, ""),
        (Method::HEAD, "/204", 204, ""),
        (Method::GET, "/", 200, "1000"),
    ] {
        let answer = client
            .send(request(method.as_str(), HELLO, path))
            .await
            .expect(status);
        assert_eq!(answer.header("etag"), "\"a\"");
        assert_eq!(answer.header("content-length"), length, "{method} {path}");
        assert_eq!(
            answer.body.len(),
            if length.is_empty() || method == "HEAD" {
                0
            } else {
                1000
            }
        );
    }
}

async fn hints_come_before_the_answer(way: Way) {
    let raw = RawBackend::answering(
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </b>\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    );
    let scripted = Http2Backend::scripted(|mut stream| async move {
        for link in ["</a>", "</b>"] {
            let hints = Response::builder().status(103).header("link", link);
            stream
                .respond
                .send_informational(hints.body(()).unwrap())
                .unwrap();
        }
        stream.status(200);
    });
    let gateway = match way.endpoint {
        Wire::Http1 => way.gateway(&raw).await,
        Wire::Http2 => way.gateway(&scripted).await,
    };
    let mut links = Vec::new();
    match way.client {
        Wire::Http1 => {
            let mut client = gateway.raw().await;
            client
                .send(format!("GET / HTTP/1.1\r\nHost: {HELLO}\r\n\r\n"))
                .await;
            for _ in 0..2 {
                let head = client.head().await;
                assert!(head.starts_with("HTTP/1.1 103 "), "{head}");
                links.push(tests::raw::field(&head, "link").unwrap().to_owned());
            }
            assert_eq!(client.answer().await.status(), 200);
        }
        Wire::Http2 => {
            let mut client = Http2::connect(gateway.public()).await;
            let mut call = client.open(request("GET", HELLO, "/"), true).await;
            while let Some(hints) = call.informational().await {
                assert_eq!(hints.status(), 103);
                links.push(hints.headers()["link"].to_str().unwrap().to_owned());
            }
            assert_eq!(call.answer().await.0, 200);
        }
    }
    assert_eq!(links, ["</a>", "</b>"]);
}

async fn large_heads_arrive(way: Way) {
    // Larger than one frame, and than what a compressing table holds.
    let value = "x".repeat(12_000);
    let copy = value.clone();
    let backend = Backend::with(move |request: Request<hyper::body::Incoming>| {
        let copy = copy.clone();
        async move {
            let arrived = request.headers()["x-large"] == copy.as_str();
            drop(request.into_body().collect().await);
            let answer = Response::builder().status(if arrived { 200 } else { 500 });
            answer.header("x-large", copy).body(empty()).unwrap()
        }
    });
    let gateway = way.gateway(&backend).await;
    let mut client = way.client(&gateway).await;
    for _ in 0..3 {
        let asked = carrying(request("POST", HELLO, "/"), full("x"));
        let mut more = HeaderMap::new();
        more.insert("x-large", value.parse().unwrap());
        let (mut head, body) = asked.into_parts();
        head.headers.extend(more);
        let answer = client
            .send(Request::from_parts(head, body))
            .await
            .expect(200);
        assert_eq!(answer.header("x-large"), value);
    }
}

#[tokio::test]
async fn expectations_are_answered_by_the_gateway_before_http2() {
    let backend = Backend::start("one");
    let gateway = tests::Gateway::start(&crate::hello_h2c(&backend)).await;
    let mut client = gateway.raw().await;
    client
        .send(format!(
            "POST /?mirror HTTP/1.1\r\nHost: {HELLO}\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
        ))
        .await;
    assert_eq!(client.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("hello").await;
    let answer = client.answer().await;
    assert_eq!((answer.status(), answer.text()), (200, "hello".to_owned()));
}
