//! `warmBeforeShift`: a target that is new to a route gets no traffic before it can serve.

use std::sync::Arc;

use serde_json::json;
use tests::client::with;
use tests::{Backend, Gateway, PATIENCE, eventually, request};
use tokio::sync::watch;

use crate::{SERVICE, Switch};

const HOST: &str = "shop.default.example.com";

/// A route to `to`; `old` is there, `new` is a process that starts like that.
fn shop(old: &Backend, environment: (&str, &str), to: &str) -> String {
    let (name, value) = environment;
    format!(
        "
routes:
  - {{ name: shop, warmBeforeShift: true, {to} }}
revisions:
  - {{ name: old, endpoints: ['{}'] }}
  - name: new
    process: {{ command: ['{SERVICE}'], env: {{ TARGET: new, {name}: '{value}' }} }}
",
        old.address
    )
}

const TO_OLD: &str = "traffic: [{ revision: old }]";
const TO_NEW: &str = "traffic: [{ revision: new, tag: next }]";

/// Asks all the time, one request after the other, on one connection.
struct Probe {
    stop: watch::Sender<bool>,
    asking: tokio::task::JoinHandle<Vec<String>>,
}

impl Probe {
    fn start(gateway: &Arc<Gateway>) -> Probe {
        let (stop, stopped) = watch::channel(false);
        let gateway = gateway.clone();
        let asking = tokio::spawn(async move {
            let mut client = gateway.connect().await;
            let mut backends = Vec::new();
            while !*stopped.borrow() {
                let answer = client.get(HOST, "/").await.expect(200);
                backends.push(answer.backend().to_owned());
            }
            backends
        });
        Probe { stop, asking }
    }

    async fn stop(self) -> Vec<String> {
        self.stop.send_replace(true);
        self.asking.await.unwrap()
    }
}

async fn until_served_by(gateway: &Gateway, backend: &str) {
    eventually(PATIENCE, "the other one serves", async || {
        (gateway.get(HOST, "/").await.expect(200).backend() == backend).then_some(())
    })
    .await;
}

async fn until_warming(gateway: &Gateway, count: usize) -> serde_json::Value {
    eventually(PATIENCE, "targets are warmed", async || {
        let warming = gateway.ask("/readyz").await.expect(200).json()["warming"].take();
        (warming.as_array().map_or(0, Vec::len) == count).then_some(warming)
    })
    .await
}

#[tokio::test]
async fn no_request_waits_for_a_target_that_starts_slowly() {
    let (old, gate) = (Backend::start("old"), Switch::new());
    let path = gate.path();
    let gateway = Gateway::start(&shop(&old, ("GATE", &path), TO_OLD)).await;
    let gateway = Arc::new(gateway);
    let probe = Probe::start(&gateway);
    gateway.apply(&shop(&old, ("GATE", &path), TO_NEW)).await;
    until_warming(&gateway, 1).await;
    let routes = gateway.ask("/api/routes").await.expect(200).json();
    let targets = json!([
        {"revision": "new", "percent": 0, "asked": 100, "warming": true, "tag": "next"},
        {"revision": "old", "percent": 100, "asked": 0, "tag": null},
    ]);
    assert_eq!(routes[0]["rules"][0]["targets"], targets);
    eventually(PATIENCE, "it is started without a request", async || {
        (gateway.endpoints("new", "starting").await == 1).then_some(())
    })
    .await;
    // Its tag leads to it as always: who asks for it waits for it.
    let tagged = {
        let gateway = gateway.clone();
        let asked = with(request("GET", HOST, "/"), "knative-serving-tag", "next");
        tokio::spawn(async move { gateway.send(asked).await })
    };
    gateway.until_waiting("new", 1).await;
    for _ in 0..20 {
        assert_eq!(gateway.get(HOST, "/").await.expect(200).backend(), "old");
    }
    gate.turn_on();
    assert_eq!(tagged.await.unwrap().expect(200).backend(), "new");
    until_served_by(&gateway, "new").await;
    until_warming(&gateway, 0).await;
    let backends = probe.stop().await;
    let shift = backends.iter().position(|backend| backend == "new");
    let shift = shift.unwrap_or(backends.len());
    assert!(backends[..shift].iter().all(|backend| backend == "old"));
    assert!(backends[shift..].iter().all(|backend| backend == "new"));
    // Nobody but the one with the tag.
    let waits = [("revision", "new")];
    let waited = gateway
        .metric("tidegate_queue_wait_seconds_count", &waits)
        .await;
    assert_eq!(waited, 1.0);
}

/// The route and nothing but the process it leads to.
fn only(name: &str, gate: &str) -> String {
    format!(
        "
routes: [{{ name: shop, warmBeforeShift: true, traffic: [{{ revision: {name} }}] }}]
revisions:
  - name: {name}
    process: {{ command: ['{SERVICE}'], env: {{ TARGET: {name}, GATE: '{gate}' }} }}
"
    )
}

#[tokio::test]
async fn process_that_is_replaced_in_one_edit_goes_on_until_the_new_one_is_warm() {
    let (open, gate) = (Switch::new(), Switch::new());
    open.turn_on();
    let gateway = Arc::new(Gateway::start(&only("one", &open.path())).await);
    until_served_by(&gateway, "one").await;
    let probe = Probe::start(&gateway);
    gateway.apply(&only("two", &gate.path())).await;
    until_warming(&gateway, 1).await;
    assert_eq!(gateway.get(HOST, "/").await.expect(200).backend(), "one");
    gate.turn_on();
    until_served_by(&gateway, "two").await;
    let backends = probe.stop().await;
    let shift = backends.iter().position(|backend| backend == "two");
    let shift = shift.unwrap_or(backends.len());
    assert!(backends[..shift].iter().all(|backend| backend == "one"));
    assert!(backends[shift..].iter().all(|backend| backend == "two"));
    gateway
        .until_logged("a target is warm and gets its share")
        .await;
    assert_eq!(gateway.metric("tidegate_warming_targets", &[]).await, 0.0);
    // Then nobody knows of it any more.
    eventually(PATIENCE, "it is gone", async || {
        let revisions = gateway.ask("/api/revisions").await.expect(200).json();
        (revisions.as_array().map_or(0, Vec::len) == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn target_that_cannot_start_gets_nothing_and_is_told_of() {
    let old = Backend::start("old");
    let gateway = Gateway::start(&shop(&old, ("EXIT", "3"), TO_OLD)).await;
    gateway.apply(&shop(&old, ("EXIT", "3"), TO_NEW)).await;
    let warming = eventually(PATIENCE, "it is told why", async || {
        let warming = until_warming(&gateway, 1).await;
        warming[0]["why"].is_string().then_some(warming)
    })
    .await;
    assert_eq!(warming[0]["route"], "default/shop");
    assert_eq!(warming[0]["revision"], "default/new");
    gateway.until_logged("cannot be warmed").await;
    assert_eq!(gateway.metric("tidegate_warming_targets", &[]).await, 1.0);
    for _ in 0..10 {
        assert_eq!(gateway.get(HOST, "/").await.expect(200).backend(), "old");
    }
    // A program that can start takes over without another change of the route.
    let better = shop(&old, ("SAYS", "hello"), TO_NEW);
    gateway.apply(&better).await;
    until_served_by(&gateway, "new").await;
    assert_eq!(old.running(), 0);
}

#[tokio::test]
async fn sticky_clients_stay_until_the_target_is_warm() {
    let (old, gate) = (Backend::start("old"), Switch::new());
    let path = gate.path();
    let sticky = |to: &str| {
        shop(
            &old,
            ("GATE", &path),
            &format!("sticky: {{ header: x-user }}, {to}"),
        )
    };
    let gateway = Gateway::start(&sticky(TO_OLD)).await;
    let half = "traffic: [{ revision: old, percent: 50 }, { revision: new, percent: 50 }]";
    gateway.apply(&sticky(half)).await;
    let backends = async || {
        let mut client = gateway.connect().await;
        let mut all = Vec::new();
        for user in 0..40 {
            let asked = with(request("GET", HOST, "/"), "x-user", &user.to_string());
            all.push(client.send(asked).await.expect(200).backend().to_owned());
        }
        all
    };
    assert!(backends().await.iter().all(|backend| backend == "old"));
    gate.turn_on();
    until_warming(&gateway, 0).await;
    let once = backends().await;
    assert!(once.iter().any(|backend| backend == "new"));
    assert_eq!(backends().await, once);
}

#[tokio::test]
async fn route_that_is_new_waits_for_nothing() {
    let (old, gate) = (Backend::start("old"), Switch::new());
    let gateway = Gateway::start(&shop(&old, ("GATE", &gate.path()), TO_NEW)).await;
    let gateway = Arc::new(gateway);
    let held = {
        let gateway = gateway.clone();
        tokio::spawn(async move { gateway.get(HOST, "/").await })
    };
    gateway.until_waiting("new", 1).await;
    until_warming(&gateway, 0).await;
    gate.turn_on();
    assert_eq!(held.await.unwrap().expect(200).backend(), "new");
}
