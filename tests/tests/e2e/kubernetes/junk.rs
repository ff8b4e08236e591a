//! What is of no use, comes in crowds or says nothing: Secrets, events, a leader, an autoscaler.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustix::process::Signal;
use serde_json::{Value, json};
use tests::kubernetes::kind::{INGRESS, LEASE};
use tests::kubernetes::objects::{Pods, Revision, Route, Service, Traffic, config_map, tls_secret};
use tests::kubernetes::{Api, Autoscaler, QueueProxy};
use tests::tls::Authority;
use tests::{Backend, Client, Gateway, PATIENCE, Wire, eventually};
use tokio::net::TcpListener;

use super::breaking::{replica, say_replicas};
use super::ingress::simple;
use super::set::{SYSTEM, launch, launch_with, listener, secure, service, until_ready};

/// Asks over TLS for the ingress of that name; what its Service says.
async fn over_tls(gateway: &Gateway, authority: &Authority, name: &str) -> Option<String> {
    let host = format!("{name}.example.com");
    let client = Arc::new(authority.client(&["http/1.1"]));
    let stream = tests::tls::connect(&client, secure(gateway), &host).await;
    let mut client = Client::over(Wire::Http1, stream.ok()?).await.ok()?;
    Some(client.get(&host, "/").await.backend().to_owned())
}

fn with_secret(name: &str) -> Value {
    let host = format!("{name}.example.com");
    let mut ingress = simple(name, &host, "one");
    ingress["spec"]["tls"] =
        json!([{"hosts": [host], "secretName": name, "secretNamespace": "default"}]);
    ingress
}

#[tokio::test]
async fn a_secret_of_no_use_harms_its_ingress_alone_until_it_is_mended() {
    let backend = Backend::start("one");
    let (api, authority) = (Api::start(), Authority::new());
    service(&api, "one", "http", &[&backend]).await;
    let good = |name: &str| {
        let pem = authority.issue(&[&format!("{name}.example.com")]);
        tls_secret("default", name, &pem)
    };
    let part = |name: &str, key: &str, value: Option<&[u8]>| {
        let mut secret = good(name);
        match value {
            Some(value) => secret["data"][key] = BASE64_STANDARD.encode(value).into(),
            None => drop(secret["data"].as_object_mut().unwrap().remove(key)),
        }
        secret
    };
    let other = authority.issue(&["other.example.com"]);
    let junk = [
        part("no-key", "tls.key", None),
        part("no-certificate", "tls.crt", None),
        part("no-pem", "tls.crt", Some(b"\x00\xff hello")),
        part("cut-short", "tls.crt", Some(&other.cert.as_bytes()[..200])),
        part("key-of-another", "tls.key", Some(other.key.as_bytes())),
        part("empty", "tls.key", Some(b"")),
        part("a-mebibyte", "tls.crt", Some(&vec![b'A'; 1 << 20])),
    ];
    for secret in junk.iter().chain([&good("good")]) {
        api.create(secret).await;
        let name = secret["metadata"]["name"].as_str().unwrap();
        api.create(&with_secret(name)).await;
    }
    let gateway = launch(&api).start().await;
    until_ready(&api, "good").await;
    assert_eq!(
        over_tls(&gateway, &authority, "good").await.as_deref(),
        Some("one")
    );
    for secret in &junk {
        let name = secret["metadata"]["name"].as_str().unwrap();
        let told = |one: &Value| {
            let conditions = one["status"]["conditions"].as_array();
            let mut conditions = conditions.into_iter().flatten();
            conditions.any(|one| {
                one["reason"] == "ReconcileIngressFailed" && one["message"] != Value::Null
            })
        };
        api.until(INGRESS, "default", name, "it is said why", told)
            .await;
        api.apply(&good(name)).await;
        until_ready(&api, name).await;
        let answer = over_tls(&gateway, &authority, name).await;
        assert_eq!(answer.as_deref(), Some("one"), "{name}");
    }
}

#[tokio::test]
async fn thousands_of_events_at_once_end_in_what_the_last_of_them_says() {
    let api = Api::start();
    let (old, new) = (Backend::start("old"), Backend::start("new"));
    service(&api, "web", "http", &[&old]).await;
    api.create(&simple("web", "web.example.com", "web")).await;
    let gateway = launch(&api).start().await;
    until_ready(&api, "web").await;
    let version = gateway.version().await;
    let web = Service::new("default", "web", "http");
    let mut slice = web.slices(&Pods::ready(&[old.address])).remove(0);
    // Nobody reads while they come.
    api.silence(true);
    for number in 0..tests::sized(1_000, 5_000) {
        let ip = format!("10.{}.{}.1", number / 250, number % 250);
        slice["endpoints"][0]["addresses"] = json!([ip]);
        api.apply(&slice).await;
    }
    api.place("default", "web", &web.slices(&Pods::ready(&[new.address])))
        .await;
    api.silence(false);
    eventually(PATIENCE, "the last endpoint serves", async || {
        let answer = gateway.get("web.example.com", "/").await;
        (answer.status == 200 && answer.backend() == "new").then_some(())
    })
    .await;
    assert_eq!(
        gateway.version().await,
        version,
        "no table was made for that"
    );
}

/// In a cluster where a leader is given up after three seconds.
#[tokio::test]
async fn a_leader_that_stalls_is_replaced_and_writes_no_more_when_it_wakes() {
    // The first lease is taken before the times of the cluster are known, and renewed ten seconds
    // later.
    if !tests::long() {
        return;
    }
    let api = Api::start();
    let backend = Backend::start("one");
    service(&api, "one", "http", &[&backend]).await;
    let times = [
        ("lease-duration", "3s"),
        ("renew-deadline", "2s"),
        ("retry-period", "500ms"),
    ];
    api.create(&config_map(SYSTEM, "config-leader-election", &times))
        .await;
    let holder = async |who: &str| {
        api.until(
            LEASE,
            SYSTEM,
            "tidegate-status",
            "it has changed hands",
            |lease| {
                let spec = &lease["spec"];
                spec["holderIdentity"] == who && spec["leaseDurationSeconds"] == 3
            },
        )
        .await
    };
    let first = replica(&api, 0, "ws://127.0.0.1:9").start().await;
    holder("tidegate-0").await;
    let second = replica(&api, 1, "ws://127.0.0.1:9").start().await;
    say_replicas(&api, &[listener(&second, "internal")]).await;
    first.signal(Signal::STOP);
    holder("tidegate-1").await;
    api.create(&simple("web", "web.example.com", "one")).await;
    until_ready(&api, "web").await;
    let renewals = || {
        let leases = api.writes().into_iter();
        leases.filter(|seen| seen.resource == "leases").count()
    };
    first.signal(Signal::CONT);
    eventually(PATIENCE, "it has seen what there is to write", async || {
        let answer = first.get("web.example.com", "/").await;
        (answer.status == 200).then_some(())
    })
    .await;
    api.forget_requests();
    api.create(&simple("more", "more.example.com", "one")).await;
    until_ready(&api, "more").await;
    eventually(PATIENCE, "the lease is renewed", async || {
        (renewals() >= 2).then_some(())
    })
    .await;
    let statuses = api.writes().into_iter();
    let statuses: Vec<_> = statuses
        .filter(|seen| seen.resource == "ingresses/status")
        .collect();
    assert_eq!(statuses.len(), 1, "one of them writes: {statuses:#?}");
    holder("tidegate-1").await;
    eventually(PATIENCE, "it serves what the other has said", async || {
        let answer = first.get("more.example.com", "/").await;
        (answer.status == 200).then_some(())
    })
    .await;
}

/// A revision with a pod, behind which the activator is in the path.
async fn revision_with(autoscaler: &str) -> (Api, Gateway, QueueProxy) {
    let api = Api::start();
    let revision = Revision::new("default", "hello-00001");
    api.create_revision(&revision).await;
    let pod = QueueProxy::start("one").ready();
    let activators = ["127.0.0.1:8012".parse().unwrap()];
    api.scale(
        &revision,
        &Pods::ready(&[pod.address]),
        Traffic::Proxy(&activators),
    )
    .await;
    let route = Route::new("default", "hello").to("hello-00001", 100);
    api.create(&route.ingress()).await;
    let gateway = launch_with(&api, autoscaler).start().await;
    until_ready(&api, "hello").await;
    (api, gateway, pod)
}

const HELLO: &str = "hello.default.example.com";

#[tokio::test]
async fn an_autoscaler_that_accepts_and_answers_nothing_delays_nobody_and_is_tried_again() {
    let deaf = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", deaf.local_addr().unwrap());
    let (_api, gateway, _pod) = revision_with(&url).await;
    let (_kept, _) = deaf.accept().await.unwrap();
    for _ in 0..50 {
        gateway.get(HELLO, "/").await.expect(200);
    }
    // The handshake has its time, and then there is another.
    let again = tokio::time::timeout(PATIENCE, deaf.accept()).await;
    again.expect("it tries again").unwrap();
    gateway.get(HELLO, "/").await.expect(200);
}

#[tokio::test]
async fn an_autoscaler_that_reads_nothing_is_left_and_hears_the_rest_later() {
    // It is given up after ten seconds without a pong.
    if !tests::long() {
        return;
    }
    let autoscaler = Autoscaler::start();
    let (_api, gateway, _pod) = revision_with(&autoscaler.url()).await;
    autoscaler.until_clients(1).await;
    autoscaler.silence(true);
    let before = autoscaler.accepted();
    eventually(Duration::from_secs(40), "it comes anew", async || {
        gateway.get(HELLO, "/").await.expect(200);
        (autoscaler.accepted() > before).then_some(())
    })
    .await;
    autoscaler.silence(false);
    autoscaler.forget();
    gateway.get(HELLO, "/").await.expect(200);
    autoscaler
        .until("it hears of requests again", |stats| {
            stats.iter().any(|stat| stat.revision == "hello-00001")
        })
        .await;
}
