//! A listener with `tls` shows each client the certificate for the name it asks for, and serves it
//! as one in clear does.

use std::sync::Arc;
use std::time::Duration;

use rustls::HandshakeKind;
use tests::body::{fingerprint, pattern};
use tests::client::carrying;
use tests::process::resident;
use tests::tls::{Authority, connect};
use tests::{
    Backend, Client, Gateway, Launch, PATIENCE, Raw, Wire, body, eventually, request, sized, within,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{HELLO, hello};

/// A listener with these certificates, and further keys of its `tls`.
pub(crate) fn listener(certificates: &[&str], more: &str) -> String {
    let certificates: Vec<_> = certificates
        .iter()
        .map(|name| format!("{{ cert: {name}.pem, key: {name}.key }}"))
        .collect();
    format!(
        "gateway:
  listeners:
    - address: '127.0.0.1:0'
      tls: {{ certificates: [ {} ]{more} }}
",
        certificates.join(", ")
    )
}

/// A gateway that serves HELLO over TLS, and who signed its certificate.
async fn secure(backend: &Backend, more: &str) -> (Gateway, Authority) {
    let authority = Authority::new();
    let config = listener(&["own"], "") + more + &hello(backend);
    let launch = Launch::new(&config).own_listeners();
    let launch = launch.certificate("own", &authority.issue(&[HELLO]));
    (launch.start().await, authority)
}

#[tokio::test]
async fn certificate_is_chosen_by_name_exact_then_wildcard_then_the_first() {
    let authority = Authority::new();
    let names: [&[&str]; 4] = [
        &["default.test", "lost.wild.test"],
        &["exact.wild.test"],
        &["*.wild.test"],
        &["*.deep.wild.test"],
    ];
    let certificates = ["default", "exact", "wild", "deep"];
    let config = listener(&certificates, "") + &hello(&"127.0.0.1:9");
    let mut launch = Launch::new(&config).own_listeners();
    for (name, hosts) in certificates.iter().zip(names) {
        launch = launch.certificate(name, &authority.issue(hosts));
    }
    let gateway = launch.start().await;
    let address = gateway.public();
    assert!(
        gateway
            .stdout()
            .contains(&format!("listening https://{address} public\n"))
    );
    for (asked, valid) in [
        ("default.test", true),
        ("exact.wild.test", true),
        ("other.wild.test", true),
        ("one.deep.wild.test", true),
        ("lost.wild.test", true),
        ("elsewhere.test", false),
        ("one.two.wild.test", false),
    ] {
        let client = Arc::new(authority.client(&[]));
        match connect(&client, address, asked).await {
            Ok(_) if valid => {}
            Err(error) if !valid => assert!(error.to_string().contains("not valid for name")),
            other => panic!("{asked}: {other:?}"),
        }
    }
    // Without a name, the first one.
    let client = Arc::new(authority.client(&[]));
    let nameless = connect(&client, address, "127.0.0.1").await.unwrap_err();
    assert!(nameless.to_string().contains("default.test"), "{nameless}");
}

/// A client's first words in that version, the newest it knows.
fn old_hello(version: [u8; 2]) -> Vec<u8> {
    // No session, one suite (ECDHE with AES-CBC), no compression; RSA with SHA-256 for signatures.
    let rest = [0, 0, 2, 0xc0, 0x13, 1, 0, 0, 8, 0, 13, 0, 4, 0, 2, 4, 1];
    let hello = [&version[..], &[7; 32], &rest].concat();
    let length = u8::try_from(hello.len()).unwrap();
    let head = [22, 3, 1, 0, length + 4, 1, 0, 0, length];
    [&head[..], &hello].concat()
}

#[tokio::test]
async fn versions_before_1_2_are_not_spoken() {
    let backend = Backend::start("one");
    let (gateway, _authority) = secure(&backend, "").await;
    for version in [[3, 0], [3, 1], [3, 2]] {
        let mut client = gateway.raw().await;
        client.send(old_hello(version)).await;
        let told = client.rest().await;
        // A fatal alert: `protocol_version`.
        assert_eq!(told.first(), Some(&21), "{told:?}");
        assert_eq!(told[5..], [2, 70], "{version:?}");
    }
}

#[tokio::test]
async fn name_that_nobody_knows_is_turned_away_where_that_is_asked_for() {
    let authority = Authority::new();
    let config = listener(&["own"], ", unknownName: reject") + &hello(&"127.0.0.1:9");
    let launch = Launch::new(&config).own_listeners();
    let launch = launch.certificate("own", &authority.issue(&[HELLO]));
    let gateway = launch.start().await;
    let client = Arc::new(authority.client(&[]));
    connect(&client, gateway.public(), HELLO).await.unwrap();
    let error = connect(&client, gateway.public(), "elsewhere.test").await;
    let told = error.unwrap_err().to_string();
    assert!(told.to_lowercase().contains("unrecogni"), "{told}");
    until_failed(&gateway, 1.0).await;
    // Who asks for none is shown the first certificate.
    let nameless = connect(&client, gateway.public(), "127.0.0.1").await;
    let told = nameless.unwrap_err().to_string();
    assert!(told.contains(HELLO), "{told}");
}

#[tokio::test]
async fn clients_come_back_with_less_work() {
    let backend = Backend::start("one");
    let (gateway, authority) = secure(&backend, "").await;
    let client = Arc::new(authority.client(&["http/1.1"]));
    let mut kinds = Vec::new();
    for _ in 0..4 {
        let stream = connect(&client, gateway.public(), HELLO).await.unwrap();
        kinds.push(stream.get_ref().1.handshake_kind().unwrap());
        let mut client = Client::over(Wire::Http1, stream).await.unwrap();
        client.get(HELLO, "/").await.expect(200);
    }
    assert_ne!(kinds[0], HandshakeKind::Resumed);
    // Whichever worker they come to.
    assert_eq!(kinds[1..], [HandshakeKind::Resumed; 3]);
}

#[tokio::test]
async fn bodies_arrive_byte_for_byte_and_endpoints_hear_of_https() {
    let backend = Backend::start("one");
    let (gateway, authority) = secure(&backend, "").await;
    let stream = authority.connect(gateway.public(), HELLO, &[]).await;
    let mut client = Client::over(Wire::Http1, stream).await.unwrap();
    for size in [0, 1, 16_383, 16_384, 16_385, 70_000, 3_000_000] {
        let content = pattern(size, 3);
        let upload = carrying(request("POST", HELLO, "/"), body::full(content.clone()));
        let answer = client.send(upload).await.expect(200);
        assert_eq!(answer.json()["fingerprint"], fingerprint(&content));
        assert_eq!(answer.seen("x-forwarded-proto"), "https");
        let answer = client.get(HELLO, &format!("/?size={size}&seed=5")).await;
        assert!(answer.expect(200).body == pattern(size, 5), "{size}");
    }
    gateway.until_idle().await;
}

#[tokio::test]
async fn body_that_ends_with_the_connection_ends_in_good_order() {
    let backend = Backend::start("one");
    let (gateway, authority) = secure(&backend, "").await;
    for path in ["/?chunked&size=100000", "/?size=10"] {
        let mut stream = authority.connect(gateway.public(), HELLO, &[]).await;
        let asked = format!("GET {path} HTTP/1.0\r\nHost: {HELLO}\r\n\r\n");
        stream.write_all(asked.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // An end without a farewell would be an error here.
        let read = within("the end", stream.read_to_end(&mut answer)).await;
        assert!(read.unwrap() > 10, "{path}");
        assert!(answer.starts_with(b"HTTP/1.1 200"));
    }
}

/// Waits until so many handshakes were counted as failed: a client hears of it before.
async fn until_failed(gateway: &Gateway, count: f64) {
    let listener = gateway.public().to_string();
    let name = "tidegate_tls_handshakes_failed_total";
    gateway
        .until_metric(name, &[("listener", &listener)], |n| n == count)
        .await;
}

#[tokio::test]
async fn handshake_that_takes_too_long_is_ended_and_counted() {
    let backend = Backend::start("one");
    let (gateway, authority) = secure(&backend, "  limits: { handshake: 200ms }\n").await;
    let mut silent = Raw::connect(gateway.public()).await;
    let mut slow = Raw::connect(gateway.public()).await;
    // A handshake record of 512 bytes that never comes whole.
    slow.send(b"\x16\x03\x01\x02\x00\x01\x00").await;
    assert_eq!(silent.rest().await, b"");
    assert_eq!(slow.rest().await, b"");
    until_failed(&gateway, 2.0).await;
    // The limit is the handshake's: what comes after it may take its time.
    let client = Arc::new(authority.client(&[]));
    let mut stream = eventually(PATIENCE, "a handshake is in time", async || {
        connect(&client, gateway.public(), HELLO).await.ok()
    })
    .await;
    let begun = tokio::time::Instant::now();
    let asked = format!("GET / HTTP/1.1\r\nHost: {HELLO}\r\n");
    stream.write_all(asked.as_bytes()).await.unwrap();
    let mut other = Raw::connect(gateway.public()).await;
    assert_eq!(other.rest().await, b"");
    assert!(begun.elapsed() >= Duration::from_millis(200));
    stream
        .write_all(b"Connection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"));
}

#[tokio::test]
async fn what_is_no_tls_is_refused_and_counted_and_a_look_is_not() {
    let backend = Backend::start("one");
    let (gateway, authority) = secure(&backend, "").await;
    drop(Raw::connect(gateway.public()).await);
    let mut plain = Raw::connect(gateway.public()).await;
    plain
        .send(format!("GET / HTTP/1.1\r\nHost: {HELLO}\r\n\r\n"))
        .await;
    let answer = plain.rest().await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    // Who does not trust the certificate says so.
    let stranger = Arc::new(Authority::new().client(&[]));
    connect(&stranger, gateway.public(), HELLO)
        .await
        .unwrap_err();
    let listener = gateway.public().to_string();
    let name = "tidegate_tls_handshakes_failed_total";
    gateway
        .until_metric(name, &[("listener", &listener)], |count| count == 2.0)
        .await;
    let stream = authority.connect(gateway.public(), HELLO, &[]).await;
    let mut client = Client::over(Wire::Http1, stream).await.unwrap();
    client.get(HELLO, "/").await.expect(200);
    until_failed(&gateway, 2.0).await;
    assert_eq!(backend.total(), 1);
}

/// The promise, for a connection between requests.
const IDLE_BYTES: u64 = 24 * 1024;

#[tokio::test]
async fn idle_connection_costs_little_also_after_a_large_request() {
    let _alone = tests::heavy().await;
    let backend = Backend::start("one");
    let (gateway, authority) = secure(&backend, "").await;
    let config = Arc::new(authority.client(&[]));
    let visit = async || {
        let stream = connect(&config, gateway.public(), HELLO).await.unwrap();
        let mut client = Client::over(Wire::Http1, stream).await.unwrap();
        let upload = carrying(request("POST", HELLO, "/"), body::full(pattern(100_000, 1)));
        client.send(upload).await.expect(200);
        client
    };
    let mut clients = Vec::new();
    for _ in 0..100 {
        clients.push(visit().await);
    }
    let before = resident(gateway.pid());
    let count = sized(500, 5000);
    for _ in 0..count {
        clients.push(visit().await);
    }
    let grown = resident(gateway.pid()).saturating_sub(before);
    assert!(grown < IDLE_BYTES * count, "{} bytes each", grown / count);
}
