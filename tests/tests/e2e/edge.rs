//! Who the client is: what proxies in front say of it, what nobody outside may say, and by what
//! scheme it comes.

use std::net::SocketAddr;

use serde_json::Value;
use tests::client::with;
use tests::raw::{field, fields};
use tests::{Client, Gateway, Launch, PATIENCE, RawBackend, eventually, request};

use crate::{HELLO, hello};

const DONE: &str = "HTTP/1.1 204 No Content\r\n\r\n";

/// A gateway with listeners of these keys, in flow style, in front of the backend.
async fn listening(keys: &[&str], more: &str, backend: &RawBackend) -> Gateway {
    let listeners: String = keys
        .iter()
        .map(|keys| format!("\n    - {{ address: '127.0.0.1:0', {keys} }}"))
        .collect();
    let config = format!(
        "gateway:\n  listeners:{listeners}\n{more}{}",
        hello(backend)
    );
    Launch::new(&config).own_listeners().start().await
}

const PROXIED: &str = "proxyProtocol: v1v2, trustedProxies: [127.0.0.1/32]";

/// A header of version 2 for a TCP connection from there, with an extension behind the addresses.
fn v2(source: SocketAddr) -> Vec<u8> {
    let SocketAddr::V4(source) = source else {
        panic!("IPv4 is enough here")
    };
    let mut said = source.ip().octets().to_vec();
    said.extend([192, 0, 2, 200]);
    said.extend(source.port().to_be_bytes());
    said.extend(443_u16.to_be_bytes());
    said.extend([4, 0, 3, 0, 0, 0]);
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11".to_vec();
    header.extend(u16::try_from(said.len()).unwrap().to_be_bytes());
    header.extend(said);
    header
}

fn get() -> String {
    format!("GET / HTTP/1.1\r\nHost: {HELLO}\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n")
}

/// The first line of the access log that has this text.
async fn log_line(gateway: &Gateway, text: &str) -> Value {
    let path = gateway.directory().join("access.log");
    let what = format!("the access log says {text:?}");
    eventually(PATIENCE, &what, async || {
        let log = std::fs::read_to_string(&path).unwrap_or_default();
        let line = log.lines().find(|line| line.contains(text))?;
        serde_json::from_str(line).ok()
    })
    .await
}

#[tokio::test]
async fn the_client_is_who_the_proxy_protocol_names() {
    let backend = RawBackend::answering(DONE);
    let log = "  accessLog: { mode: all, format: json, file: access.log }\n";
    let gateway = listening(&[PROXIED], log, &backend).await;
    let one = b"PROXY TCP4 192.0.2.1 192.0.2.200 56324 443\r\n".to_vec();
    let two = v2("192.0.2.2:56324".parse().unwrap());
    for (header, client) in [(one, "192.0.2.1"), (two, "192.0.2.2")] {
        let before = backend.heads().len();
        let mut raw = gateway.raw().await;
        // Two requests: the header is for all of the connection.
        raw.send([&header, get().as_bytes()].concat()).await;
        assert_eq!(raw.answer().await.status(), 204);
        raw.send(get()).await;
        assert_eq!(raw.answer().await.status(), 204);
        for head in &backend.heads()[before..] {
            assert_eq!(fields(head, "x-forwarded-for"), [client], "{head}");
        }
        // Byte by byte, with nothing of what follows lost.
        let mut raw = gateway.raw().await;
        for byte in header.iter().chain(get().as_bytes()) {
            raw.send([*byte]).await;
        }
        assert_eq!(raw.answer().await.status(), 204);
        let head = backend.heads().pop().unwrap();
        assert_eq!(fields(&head, "x-forwarded-for"), [client], "{head}");
        let line = log_line(&gateway, client).await;
        assert_eq!(line["client"], client, "{line}");
    }
}

#[tokio::test]
async fn what_is_no_proxy_header_is_closed_and_the_next_connection_served() {
    let backend = RawBackend::answering(DONE);
    let gateway = listening(&[PROXIED], "", &backend).await;
    let mut bad = vec![get().into_bytes(), b"PROXY TCP4 x\r\n".to_vec()];
    let mut version = v2("192.0.2.2:1".parse().unwrap());
    version[12] = 0x31;
    bad.push(version);
    for begin in bad {
        let mut raw = gateway.raw().await;
        raw.send(begin).await;
        assert_eq!(raw.rest().await, b"");
    }
    assert!(backend.heads().is_empty());
    let mut raw = gateway.raw().await;
    raw.send(format!("PROXY UNKNOWN\r\n{}", get())).await;
    assert_eq!(raw.answer().await.status(), 204);
    let head = backend.heads().remove(0);
    assert_eq!(fields(&head, "x-forwarded-for"), ["127.0.0.1"], "{head}");
}

#[tokio::test]
async fn strangers_are_served_as_they_come_and_may_not_speak_for_others() {
    let backend = RawBackend::answering(DONE);
    let keys = "proxyProtocol: v1v2, trustedProxies: [192.0.2.0/24]";
    let gateway = listening(&[keys], "", &backend).await;
    let mut raw = gateway.raw().await;
    raw.send(get()).await;
    assert_eq!(raw.answer().await.status(), 204);
    let head = backend.heads().remove(0);
    assert_eq!(fields(&head, "x-forwarded-for"), ["127.0.0.1"], "{head}");
    let mut raw = gateway.raw().await;
    let header = "PROXY TCP4 192.0.2.1 192.0.2.200 56324 443\r\n";
    raw.send(format!("{header}{}", get())).await;
    assert_eq!(raw.answer().await.status(), 400);
    let mut raw = gateway.raw().await;
    // At once, since it may be closed behind the header.
    let header = v2("192.0.2.2:1".parse().unwrap());
    raw.send([&header, get().as_bytes()].concat()).await;
    assert!(raw.rest().await.starts_with(b"HTTP/1.1 400 "));
    assert_eq!(backend.heads().len(), 1);
}

const CONTROL: [&str; 8] = [
    "K-Kubelet-Probe",
    "K-Network-Hash",
    "K-Network-Probe",
    "K-Original-Host",
    "K-Passthrough-Lb",
    "K-Proxy-Request",
    "Knative-Serving-Namespace",
    "Knative-Serving-Revision",
];

#[tokio::test]
async fn control_headers_come_in_at_internal_listeners_only() {
    let backend = RawBackend::answering(DONE);
    let gateway = listening(&["audience: public", "audience: internal"], "", &backend).await;
    for ((address, _), passes) in gateway.listeners.iter().zip([false, true]) {
        let mut asked = with(request("GET", HELLO, "/"), "knative-serving-tag", "none");
        asked = with(asked, "x-forwarded-client-cert", "Subject=\"CN=root\"");
        for name in CONTROL {
            asked = with(asked, name, "x");
        }
        let answer = Client::connect(*address).await.send(asked).await;
        answer.expect(204);
        let head = backend.heads().pop().unwrap();
        for name in CONTROL {
            assert_eq!(field(&head, name).is_some(), passes, "{name}: {head}");
        }
        assert_eq!(field(&head, "knative-serving-tag"), Some("none"));
        assert_eq!(field(&head, "x-forwarded-client-cert"), None, "{head}");
    }
}

#[tokio::test]
async fn a_trusted_proxy_s_forwarded_is_gone_on_with() {
    let backend = RawBackend::answering(DONE);
    for (trusted, wanted) in [
        ("10.0.0.0/8", &[][..]),
        (
            "127.0.0.0/8",
            &[
                "for=1.2.3.4",
                "for=127.0.0.1;host=\"hello.default.example.com\";proto=http",
            ],
        ),
    ] {
        let more = format!("  trustedProxies: [{trusted}]\n");
        let gateway = listening(&["audience: public"], &more, &backend).await;
        let asked = with(request("GET", HELLO, "/"), "forwarded", "for=1.2.3.4");
        gateway.send(asked).await.expect(204);
        let head = backend.heads().pop().unwrap();
        assert_eq!(fields(&head, "forwarded"), wanted, "{head}");
    }
}

#[tokio::test]
async fn the_request_id_is_one_for_the_endpoint_and_the_log() {
    let backend = RawBackend::answering(DONE);
    let log = "  trustedProxies: [127.0.0.0/8]\n  accessLog: { mode: all, format: json, file: access.log }\n";
    let gateway = listening(&["audience: public"], log, &backend).await;
    gateway.get(HELLO, "/").await.expect(204);
    let asked = with(request("GET", HELLO, "/"), "x-request-id", "theirs");
    gateway.send(asked).await.expect(204);
    for head in backend.heads() {
        let ids = fields(&head, "x-request-id");
        assert_eq!(ids.len(), 1, "{head}");
        let line = log_line(&gateway, ids[0]).await;
        assert_eq!(line["requestId"], ids[0], "{line}");
    }
}

#[tokio::test]
async fn a_listener_sends_plain_requests_to_https() {
    let backend = RawBackend::answering(DONE);
    let keys = ["httpsRedirect: 443", "httpsRedirect: 8443"];
    let gateway = listening(&keys, "", &backend).await;
    for ((address, _), host) in gateway.listeners.iter().zip(["x.test", "x.test:8443"]) {
        let mut client = Client::connect(*address).await;
        for (method, status) in [("GET", 301), ("HEAD", 301), ("POST", 308), ("DELETE", 308)] {
            let asked = request(method, "x.test:8080", "/a%20b?c=d");
            let answer = client.send(asked).await.expect(status);
            assert_eq!(
                answer.header("location"),
                format!("https://{host}/a%20b?c=d")
            );
        }
        let asked = with(request("GET", HELLO, "/"), "x-forwarded-proto", "https");
        client.send(asked).await.expect(301);
    }
    assert!(backend.heads().is_empty());
}

#[tokio::test]
async fn who_came_by_https_to_a_trusted_proxy_is_served() {
    let backend = RawBackend::answering(DONE);
    let more = "  trustedProxies: [127.0.0.0/8]\n";
    let gateway = listening(&["httpsRedirect: 443"], more, &backend).await;
    gateway.get(HELLO, "/").await.expect(301);
    let asked = with(request("GET", HELLO, "/"), "x-forwarded-proto", "https");
    gateway.send(asked).await.expect(204);
    let head = backend.heads().remove(0);
    assert_eq!(fields(&head, "x-forwarded-proto"), ["https"], "{head}");
}
