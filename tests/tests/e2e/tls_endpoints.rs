//! A revision with `tls` is spoken to over TLS, by who it should be, or not at all.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tests::tls::Authority;
use tests::{Backend, Front, Gateway, Launch, PATIENCE, eventually, request};

use crate::{HELLO, hello};

/// HELLO over TLS to that endpoint, with these keys.
fn over_tls(endpoint: &impl std::fmt::Display, keys: &str) -> String {
    hello(endpoint) + &format!("    tls: {{ {keys} }}\n")
}

async fn start(endpoint: &impl std::fmt::Display, keys: &str, ca: &Authority) -> Gateway {
    let launch = Launch::new(&over_tls(endpoint, keys));
    launch.file("ca.pem", &ca.pem()).start().await
}

#[tokio::test]
async fn requests_go_over_few_connections_and_those_that_follow_cost_less() {
    let (backend, authority) = (Backend::start("one"), Authority::new());
    let front = Front::start(backend.address, &authority.issue(&["127.0.0.1"]), None);
    let gateway = start(&front, "ca: ca.pem", &authority).await;
    let mut client = gateway.connect().await;
    for _ in 0..20 {
        assert_eq!(client.get(HELLO, "/").await.expect(200).backend(), "one");
    }
    let visits = front.visits();
    assert_eq!(visits.len(), 1, "an idle connection was not used again");
    assert_eq!(
        (visits[0].name.as_str(), visits[0].protocol.as_str()),
        ("", "http/1.1")
    );
    assert!(!visits[0].resumed);
    // Some at the same time need some more.
    let asks = (0..8).map(|_| gateway.get(HELLO, "/?sleep=100"));
    for answer in futures_util::future::join_all(asks).await {
        answer.expect(200);
    }
    let visits = front.visits();
    assert!(visits[1..].iter().any(|visit| visit.resumed), "{visits:?}");
}

#[tokio::test]
async fn endpoint_that_is_not_who_it_should_be_gets_nothing() {
    let (backend, authority) = (Backend::start("one"), Authority::new());
    let named = Front::start(backend.address, &authority.issue(&["up.test"]), None);
    for (keys, ca) in [
        // Another name, another authority, one that the system does not know.
        ("ca: ca.pem", &authority),
        ("ca: ca.pem, serverName: other.test", &authority),
        ("ca: ca.pem, serverName: up.test", &Authority::new()),
        ("serverName: up.test", &authority),
    ] {
        let gateway = start(&named, keys, ca).await;
        let answer = gateway.get(HELLO, "/").await;
        answer.refused(502, "connect_failed");
    }
    // Nor one that speaks no TLS.
    let gateway = start(&backend, "ca: ca.pem", &authority).await;
    gateway.get(HELLO, "/").await.refused(502, "connect_failed");
    assert_eq!(backend.total(), 0);

    let gateway = start(&named, "ca: ca.pem, serverName: up.test", &authority).await;
    gateway.get(HELLO, "/").await.expect(200);
    assert_eq!(named.visits().last().unwrap().name, "up.test");
}

#[tokio::test]
async fn host_name_of_an_endpoint_is_the_name_it_must_have() {
    let (backend, authority) = (Backend::start("one"), Authority::new());
    let front = Front::start(backend.address, &authority.issue(&["localhost"]), None);
    let endpoint = format!("localhost:{}", front.address.port());
    let gateway = start(&endpoint, "ca: ca.pem", &authority).await;
    gateway.get(HELLO, "/").await.expect(200);
    assert_eq!(front.visits()[0].name, "localhost");
}

#[tokio::test]
async fn endpoints_learn_who_the_gateway_is() {
    let (backend, authority) = (Backend::start("one"), Authority::new());
    let shown = authority.issue(&["127.0.0.1"]);
    let front = Front::start(backend.address, &shown, Some(&authority));
    let ours = authority.issue(&["gateway.test"]);
    let launch = |keys: &str| {
        let launch = Launch::new(&over_tls(&front, keys));
        let launch = launch.file("ca.pem", &authority.pem());
        launch.certificate("ours", &ours)
    };
    let nobody = launch("ca: ca.pem").start().await;
    assert_eq!(nobody.get(HELLO, "/").await.status, 502);
    let keys = "ca: ca.pem, clientCert: { cert: ours.pem, key: ours.key }";
    let gateway = launch(keys).start().await;
    gateway.get(HELLO, "/").await.expect(200);
    let ours = CertificateDer::from_pem_slice(ours.cert.as_bytes()).unwrap();
    assert_eq!(front.visits().last().unwrap().certificate, Some(ours));
}

#[tokio::test]
async fn http_2_is_agreed_on_where_it_is_asked_for() {
    let (backend, authority) = (Backend::start("one"), Authority::new());
    let front = Front::start(backend.address, &authority.issue(&["127.0.0.1"]), None);
    let config = over_tls(&front, "ca: ca.pem") + "    protocol: h2c\n";
    let launch = Launch::new(&config).file("ca.pem", &authority.pem());
    let gateway = launch.start().await;
    let report = gateway.get(HELLO, "/").await.expect(200).json();
    assert_eq!(report["version"], "HTTP/2.0");
    assert_eq!(front.visits()[0].protocol, "h2");
}

#[tokio::test]
async fn changed_files_and_keys_count_for_the_next_connection_and_no_old_one_is_used() {
    let (backend, authority) = (Backend::start("one"), Authority::new());
    let front = Front::start(backend.address, &authority.issue(&["127.0.0.1"]), None);
    let gateway = start(&front, "ca: ca.pem", &authority).await;
    gateway.get(HELLO, "/").await.expect(200);
    let ca = gateway.directory().join("ca.pem");
    std::fs::write(&ca, Authority::new().pem()).unwrap();
    eventually(PATIENCE, "it is trusted no longer", async || {
        (gateway.get(HELLO, "/").await.status == 502).then_some(())
    })
    .await;
    // What cannot be read changes nothing.
    std::fs::write(&ca, "nothing").unwrap();
    let problem = gateway.until_problems(1).await.remove(0);
    assert_eq!(problem["path"], "revisions[0].tls.ca");
    let said = problem["problem"].as_str().unwrap();
    assert!(said.starts_with("there is no certificate in"), "{said}");
    let rejected = gateway.metric("tidegate_config_rejected_total", &[]).await;
    assert!(rejected > 0.0);
    gateway.get(HELLO, "/").await.refused(502, "connect_failed");
    std::fs::write(&ca, authority.pem()).unwrap();
    eventually(PATIENCE, "it is trusted again", async || {
        (gateway.get(HELLO, "/").await.status == 200).then_some(())
    })
    .await;
    gateway.until_problems(0).await;
    // From TLS to clear and back, the idle connection of before is not used.
    gateway.apply(&hello(&backend)).await;
    gateway.get(HELLO, "/").await.expect(200);
    let visits = front.visits().len();
    gateway.apply(&over_tls(&front, "ca: ca.pem")).await;
    gateway.get(HELLO, "/").await.expect(200);
    assert!(front.visits().len() > visits);
}

#[tokio::test]
async fn endpoint_is_never_spoken_to_in_clear_while_that_changes() {
    let backend = Backend::start("one");
    let authority = Authority::new();
    let front = Front::start(backend.address, &authority.issue(&["127.0.0.1"]), None);
    // In clear it is nothing but an address: what comes there in clear is no TLS and ends.
    let launch = Launch::new(&hello(&front)).file("ca.pem", &authority.pem());
    let gateway = Arc::new(launch.start().await);
    assert_eq!(gateway.get(HELLO, "/").await.status, 502);
    gateway.apply(&over_tls(&front, "ca: ca.pem")).await;
    let mut client = gateway.connect().await;
    for _ in 0..50 {
        client.send(request("GET", HELLO, "/")).await.expect(200);
    }
    assert_eq!(backend.total(), 50);
}
