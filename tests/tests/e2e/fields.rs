//! Which fields reach the endpoint and which reach the client.

use tests::client::with;
use tests::raw::{field, fields};
use tests::{Backend, Client, Gateway, RawBackend, Wire, request};

use crate::{HELLO, hello};

const DONE: &str = "HTTP/1.1 204 No Content\r\n\r\n";

/// Sends that head and gives the head that the endpoint got.
async fn forwarded(head: &str) -> String {
    let backend = RawBackend::answering(DONE);
    let gateway = Gateway::start(&hello(&backend)).await;
    let mut client = gateway.raw().await;
    client.send(head).await;
    assert_eq!(client.answer().await.status(), 204);
    backend.heads().remove(0)
}

#[tokio::test]
async fn host_order_and_case_are_kept() {
    let head = forwarded(
        "GET /a?b HTTP/1.1\r\nX-Zebra: 1\r\nhOST: Hello.Default.Example.com:8080\r\n\
         aCCept: */*\r\nX-Alpha:2\r\nX-zebra:   3\t \r\nX-Empty:\r\nX-Bytes: \u{e9}\r\n\r\n",
    )
    .await;
    assert!(head.starts_with("GET /a?b HTTP/1.1\r\n"), "{head}");
    let sent = [
        ("X-Zebra", "1"),
        ("hOST", "Hello.Default.Example.com:8080"),
        ("aCCept", "*/*"),
        ("X-Alpha", "2"),
        ("X-zebra", "3"),
        ("X-Empty", ""),
        ("X-Bytes", "\u{e9}"),
    ];
    // What the gateway adds comes after what it got.
    let kept: Vec<_> = head
        .lines()
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name, value.trim()))
        .take(sent.len())
        .collect();
    assert_eq!(kept, sent, "{head}");
}

#[tokio::test]
async fn hop_by_hop_fields_and_what_connection_names_are_removed() {
    let head = forwarded(&format!(
        "GET / HTTP/1.1\r\nHost: {HELLO}\r\nConnection: keep-alive, X-Secret , x-Other\r\n\
         X-Secret: 1\r\nx-other: 2\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\n\
         TE: gzip\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\nConnection: HTTP2-Settings\r\nX-Kept: 3\r\n\r\n"
    ))
    .await;
    for gone in [
        "x-secret",
        "x-other",
        "keep-alive",
        "proxy-connection",
        "upgrade",
        "http2-settings",
    ] {
        assert_eq!(field(&head, gone), None, "{head}");
    }
    assert!(
        !field(&head, "te").unwrap_or_default().contains("gzip"),
        "{head}"
    );
    assert!(!head.to_lowercase().contains("x-secret"), "{head}");
    assert_eq!(field(&head, "x-kept"), Some("3"));
}

#[tokio::test]
async fn connection_cannot_name_what_the_gateway_answers_for() {
    for name in ["Host", "X-Forwarded-For", "Content-Length", "Authorization"] {
        let backend = RawBackend::answering(DONE);
        let gateway = Gateway::start(&hello(&backend)).await;
        let mut client = gateway.raw().await;
        client
            .send(format!(
                "POST / HTTP/1.1\r\nHost: {HELLO}\r\nContent-Length: 2\r\n\
                 Authorization: me\r\nConnection: {name}\r\n\r\nhi"
            ))
            .await;
        let status = client.answer().await.status();
        // Refusing the request and ignoring the name are both safe; obeying is not.
        if status != 400 {
            let head = backend.heads().remove(0);
            assert!(field(&head, name).is_some(), "{name} was removed: {head}");
        }
    }
}

#[tokio::test]
async fn forwarded_fields_tell_the_client_and_are_not_believed() {
    let head = forwarded(&format!(
        "GET / HTTP/1.1\r\nHost: {HELLO}\r\nX-Forwarded-For: 6.6.6.6\r\nx-forwarded-for: 7.7.7.7\r\n\
         X-Forwarded-Proto: https\r\nX-Forwarded-Host: evil.example.org\r\nX-Request-Id: mine\r\n\r\n"
    ))
    .await;
    assert_eq!(fields(&head, "x-forwarded-for"), ["127.0.0.1"], "{head}");
    assert_eq!(fields(&head, "x-forwarded-proto"), ["http"], "{head}");
    assert_eq!(fields(&head, "x-forwarded-host"), [HELLO], "{head}");
    let ids = fields(&head, "x-request-id");
    assert!(
        ids.len() == 1 && ids[0].len() >= 16 && ids[0] != "mine",
        "{head}"
    );
}

#[tokio::test]
async fn forwarded_fields_of_trusted_proxies_are_kept() {
    let backend = Backend::start("one");
    let trust = "gateway: { trustedProxies: [127.0.0.0/8] }\n".to_owned();
    let gateway = Gateway::start(&(trust + &hello(&backend))).await;
    let mut asked = request("GET", HELLO, "/");
    for (name, value) in [
        ("x-forwarded-for", "1.2.3.4"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "front.example.org"),
        ("x-request-id", "given"),
    ] {
        asked = with(asked, name, value);
    }
    let answer = gateway.send(asked).await.expect(200);
    assert_eq!(answer.seen("x-forwarded-for"), "1.2.3.4, 127.0.0.1");
    assert_eq!(answer.seen("x-forwarded-proto"), "https");
    assert_eq!(answer.seen("x-forwarded-host"), "front.example.org");
    assert_eq!(answer.seen("x-request-id"), "given");
}

#[tokio::test]
async fn request_ids_differ() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&hello(&backend)).await;
    let mut client = gateway.connect().await;
    let mut ids = std::collections::BTreeSet::new();
    for _ in 0..200 {
        assert!(ids.insert(client.get(HELLO, "/").await.seen("x-request-id")));
    }
}

#[tokio::test]
async fn absolute_target_becomes_origin_form_with_its_host() {
    let head = forwarded(&format!(
        "GET http://{HELLO}/a?b HTTP/1.1\r\nHost: {HELLO}\r\n\r\n"
    ))
    .await;
    assert!(head.starts_with("GET /a?b HTTP/1.1\r\n"), "{head}");
    assert_eq!(fields(&head, "host"), [HELLO]);
}

#[tokio::test]
async fn answers_lose_hop_by_hop_fields_and_a_reason_that_is_not_ours() {
    let backend = RawBackend::answering(
        "HTTP/1.1 200 Fine By Me\r\nServer: Own/1\r\nX-B: 2\r\nx-A: 1\r\nX-B: 3\r\nSet-Cookie: a=1\r\n\
         Set-Cookie: b=2\r\nConnection: X-Inner\r\nX-Inner: 1\r\nKeep-Alive: timeout=5\r\n\
         Proxy-Connection: keep-alive\r\nTidegate-Reason: no_route\r\nContent-Length: 2\r\n\r\nok",
    );
    let gateway = Gateway::start(&hello(&backend)).await;
    let mut client = gateway.raw().await;
    for _ in 0..2 {
        client
            .send(format!("GET / HTTP/1.1\r\nHost: {HELLO}\r\n\r\n"))
            .await;
        let answer = client.answer().await;
        assert_eq!((answer.status(), answer.text()), (200, "ok".to_owned()));
        for gone in [
            "x-inner",
            "keep-alive",
            "proxy-connection",
            "tidegate-reason",
        ] {
            assert_eq!(answer.field(gone), None, "{}", answer.head);
        }
        assert_eq!(answer.field("server"), Some("Own/1"));
        assert_eq!(fields(&answer.head, "set-cookie"), ["a=1", "b=2"]);
        let order: Vec<_> = answer
            .head
            .lines()
            .filter(|l| l.to_lowercase().starts_with("x-"))
            .collect();
        assert_eq!(order, ["X-B: 2", "x-A: 1", "X-B: 3"]);
    }
}

#[tokio::test]
async fn settings_of_the_gateway_do_not_leak_into_answers_of_the_endpoint() {
    let backend =
        RawBackend::answering("HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n");
    let gateway = Gateway::start(&hello(&backend)).await;
    let answer = gateway.get(HELLO, "/").await.expect(503);
    assert_eq!((answer.reason(), answer.header("retry-after")), ("", "7"));
    // A status is never a reason to repeat.
    assert_eq!(backend.heads().len(), 1);
}

/// R-44, over both protocols.
#[tokio::test]
async fn names_with_underscores_are_let_in_dropped_or_refused_as_the_file_says() {
    for (policy, wanted) in [
        ("allow", Some("1")),
        ("drop", None),
        ("reject", Some("refused")),
    ] {
        let backend = RawBackend::answering(DONE);
        let limits = format!("gateway: {{ limits: {{ underscores: {policy} }} }}\n");
        let gateway = Gateway::start(&(limits + &hello(&backend))).await;
        for wire in [Wire::Http1, Wire::Http2] {
            let mut client = Client::speaking(wire, gateway.public()).await;
            let asked = with(request("GET", HELLO, "/"), "x_user", "1");
            let asked = with(asked, "X_Forwarded_For", "6.6.6.6");
            let answer = client.send(with(asked, "x-user", "2")).await;
            if wanted == Some("refused") {
                answer.refused(400, "bad_request");
                assert!(backend.heads().is_empty());
                continue;
            }
            answer.expect(204);
            let head = backend.heads().pop().unwrap();
            assert_eq!(field(&head, "x_user"), wanted, "{head}");
            assert_eq!(field(&head, "x-user"), Some("2"), "{head}");
            // Who speaks for the client is never left to spelling.
            assert_eq!(field(&head, "x_forwarded_for"), None, "{head}");
        }
    }
}

#[tokio::test]
async fn names_with_underscores_that_are_dropped_route_nothing() {
    let (one, other) = (RawBackend::answering(DONE), RawBackend::answering(DONE));
    let config = format!(
        "gateway: {{ limits: {{ underscores: drop }} }}
routes:
  - name: hello
    rules:
      - {{ path: /, headers: {{ x_user: '' }}, traffic: [ {{ revision: other }} ] }}
      - {{ path: /, traffic: [ {{ revision: one }} ] }}
revisions:
  - {{ name: one, endpoints: ['{one}'] }}
  - {{ name: other, endpoints: ['{other}'] }}
"
    );
    let gateway = Gateway::start(&config).await;
    let asked = with(request("GET", HELLO, "/"), "x_user", "1");
    gateway.send(asked).await.expect(204);
    assert_eq!((one.heads().len(), other.heads().len()), (1, 0));
}
