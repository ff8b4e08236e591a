//! Revisions of Knative: from zero to one and back, who counts what, and what the loss of other parts
//! costs.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tests::client::with;
use tests::kubernetes::autoscaler::scale_to_zero_probe;
use tests::kubernetes::kind::REVISION;
use tests::kubernetes::objects::{Pods, Revision, Route, Traffic};
use tests::kubernetes::{Api, Autoscaler, QueueProxy};
use tests::{Answer, Client, Gateway, PATIENCE, eventually, request, sized};
use tokio::time::Instant;

use super::set::{inside, launch_with, listener, until_ready};

const HOST: &str = "hello.default.example.com";

/// Where activators are, in `activator-service`: ours, by its address.
fn activators() -> [SocketAddr; 1] {
    ["127.0.0.1:8012".parse().unwrap()]
}

/// A service at zero, its activator in the path, and a gateway that knows it.
struct World {
    api: Api,
    autoscaler: Autoscaler,
    revision: Revision,
    gateway: Arc<Gateway>,
}

impl World {
    async fn at_zero(revision: Revision) -> World {
        let (api, autoscaler) = (Api::start(), Autoscaler::start());
        api.create_revision(&revision).await;
        api.scale(&revision, &Pods::default(), Traffic::Proxy(&activators()))
            .await;
        api.create(
            &Route::new("default", "hello")
                .to(&revision.name, 100)
                .ingress(),
        )
        .await;
        let gateway = launch_with(&api, &autoscaler.url()).start().await;
        until_ready(&api, "hello").await;
        autoscaler.until_clients(1).await;
        World {
            api,
            autoscaler,
            revision,
            gateway: Arc::new(gateway),
        }
    }

    async fn pods(&self, pods: &Pods<'_>, traffic: Traffic<'_>) {
        self.api.scale(&self.revision, pods, traffic).await;
    }

    /// The same with a pod that serves, the activator still in the path.
    async fn at_one(revision: Revision) -> (World, QueueProxy) {
        let world = World::at_zero(revision).await;
        let pod = QueueProxy::start("one").ready();
        world
            .pods(&Pods::ready(&[pod.address]), Traffic::Proxy(&activators()))
            .await;
        (world, pod)
    }

    /// All traffic goes to another revision from now on, whose pod this is.
    async fn moves_on(&self) -> QueueProxy {
        let other = Revision::new("default", "hello-00002");
        self.api.create_revision(&other).await;
        let pod = QueueProxy::start("two").ready();
        let pods = [pod.address];
        self.api
            .scale(&other, &Pods::ready(&pods), Traffic::Serve(&pods))
            .await;
        let route = Route::new("default", "hello").to("hello-00002", 100);
        self.api.apply(&route.ingress()).await;
        until_ready(&self.api, "hello").await;
        pod
    }

    /// A request that is being held.
    fn held(&self, path: &'static str) -> tokio::task::JoinHandle<Answer> {
        let gateway = self.gateway.clone();
        tokio::spawn(async move { gateway.get(HOST, path).await })
    }

    /// Waits until the autoscaler was told that nothing is asked any more. Before that comes what was told
    /// at once, and a report that leaves it out and may be zero for it.
    async fn until_idle(&self) {
        let name = &self.revision.name;
        self.autoscaler
            .until("nothing is asked any more", |stats| {
                let ours = stats.iter().filter(|stat| stat.revision == *name);
                ours.skip(2).last().is_some_and(|stat| stat.average == 0.0)
            })
            .await;
    }

    async fn until_stat(&self, what: &str, wanted: impl Fn(f64, f64) -> bool) {
        let name = self.revision.name.clone();
        self.autoscaler
            .until(what, |stats| {
                let mut ours = stats.iter().filter(|stat| stat.revision == name);
                ours.any(|stat| wanted(stat.average, stat.count))
            })
            .await;
    }
}

fn revision() -> Revision {
    Revision::new("default", "hello-00001")
}

#[tokio::test]
async fn a_request_wakes_its_revision_and_goes_to_the_first_pod_that_answers() {
    let world = World::at_zero(revision()).await;
    let pod = QueueProxy::start("one");
    let held = world.held("/first?a=b");
    // The first message says one request, and does not wait for its second.
    world
        .until_stat("the first request is told", |average, count| {
            (average, count) == (1.0, 1.0)
        })
        .await;
    let first = &world.autoscaler.stats_of("default", "hello-00001")[0];
    assert_eq!((&*first.pod, &*first.namespace), ("tidegate-0", "default"));
    // The kubelet has not looked yet, and need not.
    world
        .pods(
            &Pods::unready(&[pod.address]),
            Traffic::Proxy(&activators()),
        )
        .await;
    pod.until_probed("Knative-Activator-Probe").await;
    assert!(pod.requests().is_empty());
    pod.set_ready(true);
    let answer = held.await.unwrap().expect(200);
    assert_eq!(answer.seen("host"), HOST, "{}", answer.text());
    let seen = &pod.requests()[0];
    assert!(seen.proxied);
    assert_eq!(seen.path, "/first?a=b");
    assert_eq!(seen.host, pod.address.to_string());
    assert_eq!(seen.headers["k-original-host"], HOST);
    assert!(!seen.headers.contains_key("knative-serving-revision"));
    // Its end is told.
    world.until_idle().await;
}

/// A probe period is some milliseconds: that few of them pass is seen by what the pod was asked, how
/// long they took is printed.
#[tokio::test]
async fn the_first_request_follows_the_first_probe_that_a_pod_answers_well() {
    let (mut waits, mut probes) = (Vec::new(), Vec::new());
    for _ in 0..sized(3, 20) {
        let world = World::at_zero(revision()).await;
        let pod = QueueProxy::start("one");
        let held = world.held("/");
        world
            .pods(
                &Pods::unready(&[pod.address]),
                Traffic::Proxy(&activators()),
            )
            .await;
        pod.until_probed("Knative-Activator-Probe").await;
        pod.set_ready(true);
        let ready = Instant::now();
        held.await.unwrap().expect(200);
        let first = &pod.requests()[0];
        waits.push(first.at.saturating_duration_since(ready));
        let well = pod.probes().into_iter();
        let well = well.filter(|probe| probe.status == 200 && probe.at <= first.at);
        probes.push(well.count());
    }
    // One that was answered to nobody, because the pod stood still, was made again.
    let least = probes.iter().min();
    assert_eq!(least, Some(&1), "it waits for another one: {probes:?}");
    waits.sort_unstable();
    let (median, most) = (waits[waits.len() / 2], waits[waits.len() - 1]);
    println!("pod ready to first request: {median:?} in the median, {most:?} at most");
}

#[tokio::test]
async fn a_prewarmed_revision_is_told_of_until_it_has_a_pod() {
    let world = World::at_zero(revision()).await;
    let gateway = world.gateway.clone();
    let asked = tokio::spawn(async move {
        let asked = request(
            "POST",
            "admin",
            "/api/prewarm?revision=hello-00001&wait=60s",
        );
        let asked = with(asked, "authorization", "Bearer secret");
        Client::connect(gateway.admin()).await.send(asked).await
    });
    world
        .until_stat("one request is told, and again", |average, count| {
            (average, count) == (1.0, 1.0)
        })
        .await;
    let pod = QueueProxy::start("one").ready();
    world
        .pods(&Pods::ready(&[pod.address]), Traffic::Proxy(&activators()))
        .await;
    let answer = asked.await.unwrap().expect(200).json();
    assert_eq!(answer["revisions"][0]["scaler"], "knative");
    assert_eq!(answer["revisions"][0]["ready"], 1);
    // Nobody made a request.
    assert!(pod.requests().is_empty());
    world
        .until_stat("nothing more is told", |average, _| average == 0.0)
        .await;
}

#[tokio::test]
async fn who_is_not_in_the_path_neither_marks_nor_reports() {
    let world = World::at_zero(revision()).await;
    let pod = QueueProxy::start("one").ready();
    let pods = [pod.address];
    world.pods(&Pods::ready(&pods), Traffic::Serve(&pods)).await;
    eventually(PATIENCE, "requests go straight to the pod", async || {
        let answer = world.gateway.get(HOST, "/").await.expect(200);
        (answer.seen("k-proxy-request").is_empty()).then_some(())
    })
    .await;
    world.autoscaler.forget();
    let before = pod.direct().2;
    for _ in 0..20 {
        world.gateway.get(HOST, "/").await.expect(200);
    }
    assert_eq!(pod.direct().2, before + 20);
    // What comes later comes after anything that would have been said of these.
    world
        .pods(&Pods::ready(&pods), Traffic::Proxy(&activators()))
        .await;
    eventually(PATIENCE, "requests are marked", async || {
        let answer = world.gateway.get(HOST, "/").await.expect(200);
        (answer.seen("k-proxy-request") == "activator").then_some(())
    })
    .await;
    world
        .until_stat("marked requests are told", |_, count| count >= 1.0)
        .await;
    let stats = world.autoscaler.stats_of("default", "hello-00001");
    let told: f64 = stats.iter().map(|stat| stat.count).sum();
    #[allow(clippy::cast_precision_loss, reason = "a few requests")]
    let marked = pod.proxied().2 as f64;
    assert!(told <= marked, "{told} told, {marked} marked");
}

#[tokio::test]
async fn the_scale_to_zero_probe_is_answered_once_we_are_in_the_path() {
    let world = World::at_zero(revision()).await;
    let activator = listener(&world.gateway, "activator");
    let answer = scale_to_zero_probe(activator, &world.revision)
        .await
        .expect(200);
    assert_eq!(answer.text(), "activator");
    // Nobody was woken for it.
    assert!(world.autoscaler.stats().is_empty());
    let pod = QueueProxy::start("one").ready();
    let held = world.held("/");
    world
        .pods(&Pods::ready(&[pod.address]), Traffic::Proxy(&activators()))
        .await;
    held.await.unwrap().expect(200);
    // And down again: what comes then is held and told anew.
    world
        .pods(&Pods::default(), Traffic::Proxy(&activators()))
        .await;
    eventually(PATIENCE, "the pod is gone", async || {
        (world.gateway.endpoints("hello-00001", "ready").await == 0).then_some(())
    })
    .await;
    world.until_idle().await;
    world.autoscaler.forget();
    let held = world.held("/again");
    world
        .until_stat("the next first request is told", |average, count| {
            (average, count) == (1.0, 1.0)
        })
        .await;
    world
        .pods(&Pods::ready(&[pod.address]), Traffic::Proxy(&activators()))
        .await;
    held.await.unwrap().expect(200);
}

#[tokio::test]
async fn activator_ports_serve_revisions_by_name() {
    let (world, _pod) = World::at_one(revision()).await;
    let activator = listener(&world.gateway, "activator");
    let mut client = Client::connect(activator).await;
    let named = with(
        request("GET", "whatever", "/"),
        "knative-serving-namespace",
        "default",
    );
    let named = with(named, "knative-serving-revision", "hello-00001");
    let named = with(named, "k-original-host", "app.example.com");
    let answer = client.send(named).await.expect(200);
    assert_eq!(answer.seen("host"), "app.example.com");
    let host = "hello-00001.default.svc.cluster.local";
    client.get(host, "/").await.expect(200);
    let missing = client
        .get("other.default.svc.cluster.local", "/")
        .await
        .expect(404);
    assert_eq!(
        missing.text(),
        "Error getting active endpoint: revision.serving.knative.dev \"other\" not found\n"
    );
    let health = with(
        request("GET", "10.0.0.1", "/"),
        "user-agent",
        "kube-probe/1.31",
    );
    client.send(health).await.expect(200);
}

#[tokio::test]
async fn limits_and_times_are_the_revisions() {
    let world = World::at_zero(revision().concurrency(1)).await;
    let pod = QueueProxy::at("127.0.0.1:0".parse().unwrap(), "one", 1).ready();
    world
        .pods(&Pods::ready(&[pod.address]), Traffic::Proxy(&activators()))
        .await;
    let all: Vec<_> = (0..8).map(|_| world.held("/?sleep=20")).collect();
    for one in all {
        one.await.unwrap().expect(200);
    }
    assert_eq!(pod.proxied().1, 1, "never more than one at once");

    let (world, _pod) = World::at_one(revision().with("timeoutSeconds", 1)).await;
    eventually(PATIENCE, "the pod answers in time", async || {
        (world.gateway.get(HOST, "/").await.status == 200).then_some(())
    })
    .await;
    let late = world.gateway.get(HOST, "/?hold").await;
    assert_eq!(late.status, 504, "{}", late.text());
}

#[tokio::test]
async fn the_loss_of_api_server_and_autoscaler_costs_no_request() {
    let (world, _pod) = World::at_one(revision()).await;
    world.gateway.get(HOST, "/").await.expect(200);
    let over = Arc::new(AtomicBool::new(false));
    let probing = {
        let (gateway, over) = (world.gateway.clone(), over.clone());
        tokio::spawn(async move {
            while !over.load(Ordering::Relaxed) {
                gateway.get(HOST, "/").await.expect(200);
            }
        })
    };
    let watched = || -> BTreeSet<String> {
        let watches = world.api.requests().into_iter();
        let watches = watches.filter(|seen| seen.verb == "watch");
        watches.map(|seen| seen.resource).collect()
    };
    let before = watched();
    world.api.stop().await;
    world.api.forget_requests();
    world.autoscaler.stop().await;
    for _ in 0..100 {
        world.gateway.get(HOST, "/").await.expect(200);
    }
    assert_eq!(world.gateway.ask("/readyz").await.status, 200);
    world.api.restart();
    world.autoscaler.restart();
    world.autoscaler.until_clients(1).await;
    world.autoscaler.forget();
    world
        .until_stat("requests are told again", |_, count| count >= 1.0)
        .await;
    over.store(true, Ordering::Relaxed);
    probing.await.unwrap();
    // The table follows again. The longer a server was away, the less often it is looked for: half a
    // minute may pass, and more.
    eventually(4 * PATIENCE, "it watches again", async || {
        watched().is_superset(&before).then_some(())
    })
    .await;
    let second = world.moves_on().await;
    world.gateway.get(HOST, "/").await.expect(200);
    assert_eq!(second.requests().len(), 1);
}

#[tokio::test]
async fn a_watch_that_is_too_old_is_made_anew() {
    let (world, _pod) = World::at_one(revision()).await;
    world.gateway.get(HOST, "/").await.expect(200);
    world.api.expire_watches();
    world.api.compact();
    let next = QueueProxy::start("two").ready();
    world
        .pods(&Pods::ready(&[next.address]), Traffic::Proxy(&activators()))
        .await;
    eventually(PATIENCE, "the new pod is known", async || {
        world.gateway.get(HOST, "/").await.expect(200);
        (next.proxied().2 > 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_revision_that_goes_takes_nobody_with_it() {
    let (world, pod) = World::at_one(revision()).await;
    let running = world.held("/?hold");
    pod_has(&pod, 1).await;
    let _second = world.moves_on().await;
    world.api.delete(REVISION, "default", "hello-00001").await;
    pod.open_gate();
    running.await.unwrap().expect(200);
    inside(&world.gateway, "hello.default", "/")
        .await
        .expect(200);
}

#[tokio::test]
async fn who_calls_itself_a_prober_is_served_as_everybody_is() {
    let (world, pod) = World::at_one(revision()).await;
    world.gateway.get(HOST, "/").await.expect(200);
    let serving = [pod.address];
    for traffic in [Traffic::Proxy(&activators()), Traffic::Serve(&serving)] {
        let marks = matches!(traffic, Traffic::Proxy(_));
        world.pods(&Pods::ready(&[pod.address]), traffic).await;
        eventually(PATIENCE, "the mode is known", async || {
            let answer = world.gateway.get(HOST, "/").await.expect(200);
            (answer.seen("k-proxy-request").is_empty() != marks).then_some(())
        })
        .await;
        for agent in ["kube-probe/1.30", "Knative-Activator-Probe"] {
            for listener in [listener(&world.gateway, "internal"), world.gateway.public()] {
                let asks = with(request("GET", HOST, "/x"), "user-agent", agent);
                let answer = Client::connect(listener).await.send(asks).await.expect(200);
                assert_eq!(answer.backend(), "one", "{agent}");
                assert_eq!(answer.seen("user-agent"), "");
            }
        }
    }
}

#[tokio::test]
async fn a_pod_with_two_addresses_has_its_limit_once() {
    let world = World::at_zero(revision().concurrency(1)).await;
    // One pod, and a port that it has at addresses of both families.
    let (four, six) = eventually(PATIENCE, "a port of both families", async || {
        let four = QueueProxy::at(([127, 0, 0, 1], 0).into(), "four", 1).ready();
        let six = SocketAddr::new(std::net::Ipv6Addr::LOCALHOST.into(), four.address.port());
        let is_free = std::net::TcpListener::bind(six).is_ok();
        is_free.then(|| (four, QueueProxy::at(six, "six", 1).ready()))
    })
    .await;
    let service = world.revision.private();
    let mut slices = service.slices(&Pods::ready(&[four.address]));
    let mut other = slices[0].clone();
    other["metadata"]["name"] = "second-family".into();
    other["addressType"] = "IPv6".into();
    other["endpoints"][0]["addresses"] = serde_json::json!(["::1"]);
    slices.push(other);
    world
        .api
        .place(
            "default",
            &format!("{}-private", world.revision.name),
            &slices,
        )
        .await;
    world.gateway.get(HOST, "/").await.expect(200);
    let first = world.held("/?hold");
    pod_has(&four, 1).await;
    let second = world.held("/");
    world.gateway.until_waiting("hello-00001", 1).await;
    four.open_gate();
    let (first, second) = (first.await.unwrap(), second.await.unwrap());
    assert_eq!(
        (first.expect(200).backend(), second.expect(200).backend()),
        ("four", "four")
    );
    assert_eq!(six.requests().len(), 0, "it is the same pod");
    assert_eq!(four.peak(), 1);
}

async fn pod_has(pod: &QueueProxy, running: usize) {
    eventually(PATIENCE, "the pod works", async || {
        (pod.proxied().0 + pod.direct().0 >= running).then_some(())
    })
    .await;
}
