//! The loop, against a server over real sockets.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::api::Api;
use super::{ingress, origins, service, slice};
use crate::revision::Key;
use crate::source::feed::{Addresses, Certificate, Feed};
use crate::source::kubernetes::{CLASS, Kubernetes, Options};
use crate::source::{Offer, Origin, Sink, Verdict};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, Default)]
struct Fed(Mutex<Vec<String>>);

impl Fed {
    fn say(&self, line: String) {
        self.0.lock().expect("not poisoned").push(line);
    }

    fn said(&self) -> Vec<String> {
        self.0.lock().expect("not poisoned").clone()
    }
}

impl Feed for Fed {
    fn addresses(&self, revision: &Key, now: Addresses) {
        self.say(format!("{revision} {:?}", now.ready));
    }

    fn forget(&self, revision: &Key) {
        self.say(format!("-{revision}"));
    }

    fn replicas(&self, now: &[IpAddr]) {
        self.say(format!("replicas {now:?}"));
    }

    fn take_overruled(&self) -> BTreeSet<Origin> {
        BTreeSet::new()
    }

    fn certificates(&self, origin: &Origin, now: &[Certificate]) -> Result<(), String> {
        self.say(format!("{} {now:?}", origin.name()));
        match now.iter().any(|certificate| certificate.key.is_empty()) {
            true => Err("there is no key".to_owned()),
            false => Ok(()),
        }
    }
}

struct Stage {
    api: Arc<Api>,
    client: kube::Client,
    feed: Arc<Fed>,
    offers: mpsc::Receiver<Offer>,
    synced: tokio::sync::watch::Receiver<bool>,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<()>,
}

fn start(api: &Arc<Api>, client: &kube::Client, name: &str) -> Stage {
    let (sink, offers) = Sink::channel();
    let feed = Arc::new(Fed::default());
    let options = Options {
        class: CLASS.to_owned(),
        pod_name: name.to_owned(),
        pod_ip: "10.0.9.1".parse().ok(),
        namespace: "tidegate-system".to_owned(),
        system_namespace: "knative-serving".to_owned(),
        domain: "cluster.local".to_owned(),
    };
    let source = Kubernetes::new(
        client.clone(),
        options,
        sink,
        Arc::clone(&feed) as Arc<dyn Feed>,
    );
    let synced = source.synced();
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(source.run(async { drop(stopped.await) }));
    let (api, client) = (Arc::clone(api), client.clone());
    Stage {
        api,
        client,
        feed,
        offers,
        synced,
        stop: Some(stop),
        running,
    }
}

impl Stage {
    async fn of(objects: &[Value]) -> Stage {
        let (api, client) = Api::start().await;
        for object in objects {
            api.put(object);
        }
        start(&api, &client, "pod-1")
    }

    /// The next offer's origins; it hears `verdict`.
    async fn offered(&mut self, verdict: Verdict) -> Vec<String> {
        let offer = tokio::time::timeout(PATIENCE, self.offers.recv()).await;
        let offer = offer.expect("an offer in time").expect("an offer");
        let origins = origins(&offer.fragments);
        offer.reply.send(verdict).expect("somebody hears it");
        origins
    }

    fn ready(&self, name: &str) -> Option<String> {
        let object = self.api.get("ingresses", name)?;
        let conditions = object["status"]["conditions"].as_array()?;
        let ready = conditions
            .iter()
            .find(|condition| condition["type"] == "Ready")?;
        Some(format!(
            "{} {}",
            ready["status"].as_str()?,
            ready["reason"].as_str().unwrap_or_default()
        ))
    }
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, waiting).await;
    in_time.unwrap_or_else(|_| panic!("not in time: {what}"));
}

fn accepted() -> Verdict {
    Verdict::Accepted { version: 1 }
}

fn world() -> Vec<Value> {
    let mut other = ingress("other", 1, &["o"], "web");
    other["metadata"]["annotations"] = json!({});
    vec![
        service("web", "http"),
        slice("web", 1, &["10.0.0.1"]),
        ingress("a", 1, &["a"], "web"),
        ingress("b", 1, &["b"], "web"),
        other,
    ]
}

#[tokio::test]
async fn everything_is_offered_at_once_and_ready_once_it_is_accepted() {
    let mut stage = Stage::of(&world()).await;
    assert!(!*stage.synced.borrow());
    let offered = stage.offered(accepted()).await;
    assert_eq!(
        offered,
        ["ingress ns/a", "ingress ns/b", "revision ns/web:80"]
    );
    stage
        .synced
        .wait_for(|synced| *synced)
        .await
        .expect("it lives");
    eventually("both ready", || {
        ["a", "b"]
            .iter()
            .all(|name| stage.ready(name).as_deref() == Some("True "))
    })
    .await;
    let status = stage.api.get("ingresses", "a").expect("it is there")["status"].clone();
    assert_eq!(status["observedGeneration"], 1);
    let public = json!([{"domainInternal": "tidegate.tidegate-system.svc.cluster.local"}]);
    assert_eq!(status["publicLoadBalancer"]["ingress"], public);
    assert!(
        stage
            .api
            .get("ingresses", "other")
            .expect("it is there")
            .get("status")
            .is_none()
    );
    let writes = stage.api.requests();
    let writes: Vec<_> = writes
        .iter()
        .filter(|line| line.contains("/status"))
        .collect();
    assert_eq!(writes.len(), 2, "one write each: {writes:?}");
    let fed = stage.feed.said();
    assert!(
        fed.contains(&"ns/web:80 [10.0.0.1:8000]".to_owned()),
        "{fed:?}"
    );
}

#[tokio::test]
async fn changes_go_out_as_they_come_and_endpoints_to_their_revision_alone() {
    let mut stage = Stage::of(&world()).await;
    stage.offered(accepted()).await;
    stage.api.put(&slice("web", 2, &["10.0.0.2"]));
    eventually("the new endpoint", || {
        stage
            .feed
            .said()
            .contains(&"ns/web:80 [10.0.0.1:8000, 10.0.0.2:8000]".to_owned())
    })
    .await;
    stage.api.put(&ingress("a", 2, &["a2"], "web"));
    assert_eq!(stage.offered(accepted()).await, ["ingress ns/a"]);
    stage.api.delete(&ingress("b", 1, &[], ""));
    assert_eq!(stage.offered(accepted()).await, ["-ingress ns/b"]);
    eventually("ready again", || {
        let object = stage.api.get("ingresses", "a").expect("it is there");
        object["status"]["observedGeneration"] == 2 && stage.ready("a").as_deref() == Some("True ")
    })
    .await;
}

#[tokio::test]
async fn a_refused_ingress_says_why_and_the_others_are_served() {
    let mut stage = Stage::of(&world()).await;
    stage.offered(super::refused("ingress ns/a")).await;
    assert_eq!(
        stage.offered(accepted()).await,
        ["ingress ns/b", "revision ns/web:80"]
    );
    eventually("both statuses", || {
        stage.ready("a").as_deref() == Some("Unknown ReconcileIngressFailed")
            && stage.ready("b").as_deref() == Some("True ")
    })
    .await;
}

#[tokio::test]
async fn an_api_server_that_goes_takes_nothing_with_it() {
    let mut stage = Stage::of(&world()).await;
    stage.offered(accepted()).await;
    stage.api.down(true);
    let before = stage.api.requests().len();
    stage.api.put(&slice("web", 1, &["10.0.0.7"]));
    stage.api.lose(&ingress("b", 1, &[], ""));
    stage.api.down(false);
    // What was lost from history is found out by a list.
    eventually("it is asked again", || stage.api.requests().len() > before).await;
    stage.api.expire();
    let offered = tokio::time::timeout(PATIENCE, async {
        loop {
            stage.api.expire();
            tokio::select! {
                offer = stage.offers.recv() => return offer,
                () = tokio::time::sleep(Duration::from_millis(50)) => {}
            }
        }
    });
    let offer = offered.await.expect("an offer in time").expect("an offer");
    assert_eq!(origins(&offer.fragments), ["-ingress ns/b"]);
    eventually("the endpoint from while it was away", || {
        stage
            .feed
            .said()
            .contains(&"ns/web:80 [10.0.0.7:8000]".to_owned())
    })
    .await;
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_told_and_goes_in_once_it_is_mended() {
    let secret = |key: &str| {
        json!({"kind": "Secret", "metadata": {"namespace": "ns", "name": "cert"},
               "data": {"tls.crt": "Y2VydA==", "tls.key": key}})
    };
    let mut with_tls = ingress("a", 1, &["a"], "web");
    with_tls["spec"]["tls"] =
        json!([{"hosts": ["a"], "secretName": "cert", "secretNamespace": "ns"}]);
    let mut objects = world();
    objects[2] = with_tls;
    objects.push(secret(""));
    let mut stage = Stage::of(&objects).await;
    assert_eq!(
        stage.offered(accepted()).await,
        ["ingress ns/b", "revision ns/web:80"]
    );
    eventually("it is told", || {
        stage.ready("a").as_deref() == Some("Unknown ReconcileIngressFailed")
    })
    .await;
    stage.api.put(&secret("a2V5"));
    assert_eq!(stage.offered(accepted()).await, ["ingress ns/a"]);
    eventually("it is ready", || {
        stage.ready("a").as_deref() == Some("True ")
    })
    .await;
}

#[tokio::test]
async fn a_replica_that_stops_lets_go_of_the_lease() {
    let mut first = Stage::of(&world()).await;
    first.offered(accepted()).await;
    eventually("the first leads", || first.ready("a").is_some()).await;
    let mut second = start(&first.api, &first.client, "pod-2");
    assert_eq!(second.offered(accepted()).await.len(), 3);
    let holder = || {
        let lease = first.api.get("leases", "tidegate-status");
        lease.map(|lease| lease["spec"]["holderIdentity"].clone())
    };
    assert_eq!(holder(), Some(json!("pod-1")));
    drop(first.stop.take());
    (&mut first.running).await.expect("it ends");
    assert_eq!(holder(), Some(json!("")), "it lets go");
    drop(second.stop.take());
    second.running.await.expect("it ends");
}

#[tokio::test]
async fn a_finalizer_that_was_left_behind_is_taken_from_what_goes() {
    let mut leaving = ingress("a", 1, &["a"], "web");
    leaving["metadata"]["finalizers"] =
        json!(["other", "ingresses.networking.internal.knative.dev"]);
    let staying = leaving.clone();
    leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let mut objects = world();
    objects[2] = staying;
    let mut stage = Stage::of(&objects).await;
    stage.offered(accepted()).await;
    let finalizers = |stage: &Stage| {
        let object = stage.api.get("ingresses", "a").expect("it is there");
        object["metadata"]["finalizers"].as_array().map(Vec::len)
    };
    eventually("it is ready", || stage.ready("a").is_some()).await;
    assert_eq!(finalizers(&stage), Some(2));
    stage.api.put(&leaving);
    assert_eq!(stage.offered(accepted()).await, ["-ingress ns/a"]);
    eventually("one is left", || finalizers(&stage) == Some(1)).await;
}
