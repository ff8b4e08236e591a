//! New certificates are taken up without a connection being lost; bad ones change nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::Value;
use tests::tls::{Authority, Pem, connect};
use tests::{Backend, Client, Gateway, Launch, PATIENCE, Wire, eventually, request, sized};

use crate::tls::listener;
use crate::{HELLO, hello};

fn launch(backend: &Backend, pem: &Pem) -> Launch {
    let config = listener(&["own"], "") + &hello(backend);
    let launch = Launch::new(&config).own_listeners();
    launch.certificate("own", pem)
}

/// Puts another certificate in place, as tools do: one file, then the other.
fn renew(gateway: &Gateway, pem: &Pem) {
    for (name, text) in [("own.pem", &pem.cert), ("own.key", &pem.key)] {
        let fresh = gateway.directory().join(".fresh");
        std::fs::write(&fresh, text).unwrap();
        std::fs::rename(fresh, gateway.directory().join(name)).unwrap();
    }
}

/// Waits until new connections are shown that certificate.
async fn until_shown(gateway: &Gateway, authority: &Authority, pem: &Pem) {
    let expected = CertificateDer::from_pem_slice(pem.cert.as_bytes()).unwrap();
    eventually(PATIENCE, "the new certificate is shown", async || {
        let stream = authority.connect(gateway.public(), HELLO, &[]).await;
        let shown = stream.get_ref().1.peer_certificates().unwrap();
        (shown[0] == expected).then_some(())
    })
    .await;
}

/// Requests on connections that stay, and on one that is new each time, until told to stop.
async fn visit(gateway: &Gateway, authority: &Authority, stop: &AtomicBool) -> u64 {
    let config = Arc::new(authority.client(&[]));
    let client = async || {
        let stream = connect(&config, gateway.public(), HELLO).await.unwrap();
        Client::over(Wire::Http1, stream).await.unwrap()
    };
    let mut stays = client().await;
    let mut count = 0;
    loop {
        stays.get(HELLO, "/?size=20000").await.expect(200);
        client().await.get(HELLO, "/").await.expect(200);
        count += 2;
        if stop.load(Ordering::SeqCst) {
            return count;
        }
    }
}

#[tokio::test]
async fn renewed_certificates_are_shown_and_no_connection_is_lost() {
    let (backend, authority) = (Backend::start("one"), Authority::new());
    let pem = authority.issue(&[HELLO]);
    let gateway = launch(&backend, &pem).start().await;
    until_shown(&gateway, &authority, &pem).await;
    let stop = AtomicBool::new(false);
    let visits = async {
        futures_util::future::join_all((0..4).map(|_| visit(&gateway, &authority, &stop))).await
    };
    let renewals = async {
        for _ in 0..sized(5, 50) {
            let pem = authority.issue(&[HELLO]);
            renew(&gateway, &pem);
            until_shown(&gateway, &authority, &pem).await;
        }
        stop.store(true, Ordering::SeqCst);
    };
    let (visits, ()) = tokio::join!(visits, renewals);
    assert!(visits.iter().all(|count| *count > 0), "{visits:?}");
    gateway.until_idle().await;
}

#[tokio::test]
async fn bad_new_certificate_leaves_the_old_one_in_place_and_says_why() {
    let (backend, authority) = (Backend::start("one"), Authority::new());
    let pem = authority.issue(&[HELLO]);
    let gateway = launch(&backend, &pem).start().await;
    let before = gateway.version().await;
    // One of two files only.
    std::fs::write(
        gateway.directory().join("own.key"),
        authority.issue(&["x"]).key,
    )
    .unwrap();
    let problem = gateway.until_problems(1).await.remove(0);
    gateway
        .until_logged("does not belong to the certificate")
        .await;
    let rejected = gateway.metric("tidegate_config_rejected_total", &[]).await;
    assert!(rejected > 0.0);
    assert_eq!(
        problem["path"],
        "gateway.listeners[0].tls.certificates[0].key"
    );
    assert_eq!(
        (problem["line"].as_u64(), problem["value"].as_str()),
        (Some(4), Some("own.key"))
    );
    until_shown(&gateway, &authority, &pem).await;
    assert_eq!(gateway.version().await, before);

    let good = authority.issue(&[HELLO]);
    renew(&gateway, &good);
    until_shown(&gateway, &authority, &good).await;
    gateway.until_problems(0).await;
    assert!(
        !gateway.stderr().contains("next start"),
        "{}",
        gateway.stderr()
    );
}

#[tokio::test]
async fn another_change_of_the_file_is_refused_with_a_bad_certificate_and_taken_with_a_good_one() {
    let (backend, authority) = (Backend::start("one"), Authority::new());
    let gateway = launch(&backend, &authority.issue(&[HELLO])).start().await;
    let stream = authority.connect(gateway.public(), HELLO, &[]).await;
    let mut client = Client::over(Wire::Http1, stream).await.unwrap();
    let config = listener(&["own", "more"], "")
        + "routes: [{ name: hello, rules: [{ respond: { status: 200, body: new } }] }]\n";
    gateway.replace(&config);
    gateway.until_logged("there is no file").await;
    assert_eq!(client.get(HELLO, "/").await.expect(200).backend(), "one");
    let more = authority.issue(&["more.test"]);
    for (name, text) in [("more.pem", &more.cert), ("more.key", &more.key)] {
        std::fs::write(gateway.directory().join(name), text).unwrap();
    }
    eventually(PATIENCE, "the change is taken up", async || {
        let answer = client.get(HELLO, "/").await.expect(200);
        (answer.text() == "new").then_some(())
    })
    .await;
    authority.connect(gateway.public(), "more.test", &[]).await;
}

#[tokio::test]
async fn asked_to_read_again_it_does() {
    let (backend, authority) = (Backend::start("one"), Authority::new());
    let gateway = launch(&backend, &authority.issue(&[HELLO])).start().await;
    let before = gateway.version().await;
    gateway.signal(Signal::HUP);
    gateway
        .until_metric("tidegate_config_version", &[], |version| version > before)
        .await;
}

const BROKEN: &str = "gateway:
  listeners:
    - address: '127.0.0.1:0'
      tls:
        certificates:
          - cert: own.pem
            key: other.key
          - cert: nowhere.pem
            key: own.key
          - cert: own.pem
            key: own.key
            hosts: [elsewhere.test]
        clientCa: own.key
revisions:
  - name: a
    endpoints: ['127.0.0.1:9']
    tls:
      ca: nothing.pem
";

/// Where problems must be, and a word of each.
const PROBLEMS: [(u64, &str); 4] = [
    (8, "there is no file"),
    (13, "there is no certificate"),
    (18, "there is no file"),
    (0, ""),
];

fn broken(launch: Launch) -> Launch {
    let authority = Authority::new();
    let launch = launch.certificate("own", &authority.issue(&[HELLO]));
    launch.certificate("other", &authority.issue(&[HELLO]))
}

#[tokio::test]
async fn validate_tells_of_files_that_are_referred_to() {
    let validate = ["validate", "-f", "tidegate.yaml"];
    let text = broken(Launch::new(BROKEN)).command(validate).run().await;
    let text = text.expect(1).stdout;
    let json = broken(Launch::new(BROKEN)).command(validate);
    let json = json
        .arguments(["--format", "json"])
        .run()
        .await
        .expect(1)
        .stdout;
    let problems: Vec<Value> = serde_json::from_str(&json).unwrap();
    for (problem, (line, word)) in problems.iter().zip(PROBLEMS) {
        assert_eq!(problem["line"], line, "{json}");
        let said = problem["problem"].as_str().unwrap();
        assert!(said.contains(word), "{json}");
        assert!(!problem["hint"].as_str().unwrap().is_empty());
    }
    assert_eq!(problems.len(), 3, "{json}");
    assert!(
        text.contains("tidegate.yaml:8:19") && text.contains("3 problems"),
        "{text}"
    );

    // With files that are there, what is in them.
    let readable = BROKEN
        .replace("nowhere.pem", "other.pem")
        .replace("clientCa: own.key", "");
    let readable = readable.replace("ca: nothing.pem", "ca: own.pem");
    let second = broken(Launch::new(&readable)).command(validate);
    let json = second
        .arguments(["--format", "json"])
        .run()
        .await
        .expect(1)
        .stdout;
    let problems: Vec<Value> = serde_json::from_str(&json).unwrap();
    let lines: Vec<_> = problems.iter().map(|problem| &problem["line"]).collect();
    assert_eq!(lines, [7, 9, 10], "{json}");

    let good = listener(&["own"], ", clientCa: own.pem");
    let good = broken(Launch::new(&good)).command(validate).run().await;
    assert!(good.expect(0).stdout.starts_with("OK"));
}

#[tokio::test]
async fn gateway_does_not_start_with_a_bad_certificate() {
    let exit = broken(Launch::new(BROKEN))
        .own_listeners()
        .run()
        .await
        .expect(1);
    assert!(exit.stderr.contains("nowhere.pem") && exit.stderr.contains("not started: 3 problems"));
    assert_eq!(exit.stdout, "");
    // Flags take the place of listeners: what those refer to is not needed.
    let config = listener(&["nowhere"], "") + &hello(&"127.0.0.1:9");
    let gateway = Gateway::start(&config).await;
    assert!(gateway.stdout().contains("listening http://"));
    let client = gateway
        .connect()
        .await
        .send(request("GET", "nowhere", "/"))
        .await;
    client.refused(404, "no_route");
}
