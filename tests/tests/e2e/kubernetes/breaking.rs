//! What goes wrong in clusters that are not well, and with objects that nobody meant.

use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tests::client::with;
use tests::kubernetes::autoscaler::Stat;
use tests::kubernetes::kind::{INGRESS, LEASE, REVISION, SERVICE};
use tests::kubernetes::objects::{
    self, Pods, Revision, Route, Service, Traffic, path, rule, split,
};
use tests::kubernetes::{Api, Autoscaler, QueueProxy};
use tests::load::{Load, Reconnect, assert_only_200};
use tests::{Backend, Gateway, PATIENCE, eventually, request};

use super::ingress::simple;
use super::set::{is_ready, launch, launch_with, listener, service, until_ready, until_reason};

async fn two_services() -> (Api, [Backend; 2]) {
    let api = Api::start();
    let backends = [Backend::start("one"), Backend::start("two")];
    service(&api, "one", "http", &[&backends[0]]).await;
    service(&api, "two", "http", &[&backends[1]]).await;
    (api, backends)
}

/// The writer's own view of an object is older than what the watch has told by then.
#[tokio::test]
async fn a_late_answer_to_a_status_write_takes_no_newer_specification_back() {
    let (api, _backends) = two_services().await;
    let gateway = launch(&api).start().await;
    let late = Duration::from_millis(1500);
    api.answer_late(1, late, |seen| seen.resource == "ingresses/status");
    api.create(&simple("web", "web.example.com", "one")).await;
    until_ready(&api, "web").await;
    // The first write is done, and its answer on the way.
    let rules = simple("web", "web.example.com", "two")["spec"]["rules"].take();
    api.patch_spec(INGRESS, "default", "web", json!({"rules": rules}))
        .await;
    eventually(PATIENCE, "the change is served", async || {
        let answer = gateway.get("web.example.com", "/").await.expect(200);
        (answer.backend() == "two").then_some(())
    })
    .await;
    // That is said only once the answer to the first write has come.
    until_ready(&api, "web").await;
    for _ in 0..20 {
        let answer = gateway.get("web.example.com", "/").await.expect(200);
        assert_eq!(answer.backend(), "two", "the old specification is back");
    }
}

#[tokio::test]
async fn a_late_answer_to_a_status_write_brings_no_deleted_ingress_back() {
    let (api, _backends) = two_services().await;
    let gateway = launch(&api).start().await;
    let late = Duration::from_millis(1000);
    api.answer_late(1, late, |seen| seen.resource == "ingresses/status");
    api.create(&simple("web", "web.example.com", "one")).await;
    until_ready(&api, "web").await;
    api.delete(INGRESS, "default", "web").await;
    eventually(PATIENCE, "it is not served any more", async || {
        let answer = gateway.get("web.example.com", "/").await;
        (answer.status == 404).then_some(())
    })
    .await;
    api.until_nothing_is_late().await;
    api.create(&simple("next", "web.example.com", "two")).await;
    until_ready(&api, "next").await;
    let answer = gateway.get("web.example.com", "/").await.expect(200);
    assert_eq!(answer.backend(), "two");
}

/// A load balancer before API servers that has lost one of them.
#[tokio::test]
async fn a_list_that_is_never_answered_is_asked_for_again() {
    if !tests::long() {
        return;
    }
    let (api, _backends) = two_services().await;
    api.create(&simple("web", "web.example.com", "one")).await;
    api.swallow(1, |seen| seen.resource == "services");
    let gateway = launch(&api).start().await;
    gateway.get("web.example.com", "/").await.expect(200);
}

#[tokio::test]
async fn a_first_question_that_is_never_answered_is_asked_again() {
    let (api, _backends) = two_services().await;
    api.create(&simple("web", "web.example.com", "one")).await;
    api.swallow(1, |seen| seen.path == "/version");
    let gateway = launch(&api).start().await;
    gateway.get("web.example.com", "/").await.expect(200);
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn hostile() -> Vec<(&'static str, Value)> {
    let plain = || vec![split("default", "one", 80, 100, &[])];
    let one = |host: &str, paths: &[Value]| rule(&[host], "ExternalIP", paths);
    let all = |host: &str, path: Value| vec![one(host, &[path])];
    let appended = |name: &str, value: &str| path("", &[(name, value)], &plain());
    let huge = "h".repeat(70_000);
    let long = format!("{}.example.com", vec!["a".repeat(60); 4].join("."));
    let label = format!("{}.example.com", "a".repeat(64));
    let matching = |name: &str, value: &str| {
        let mut path = path("", &[], &plain());
        path["headers"] = json!({name: {"exact": value}});
        path
    };
    let rewriting = |host: &str| {
        let mut path = path("", &[], &plain());
        path["rewriteHost"] = host.into();
        path
    };
    let ported = |port: Value| path("", &[], &[split("default", "one", port, 100, &[])]);
    let many: Vec<_> = (0..500)
        .map(|at| split("default", "one", 80, u32::from(at < 100), &[]))
        .collect();
    let halves = [
        split("default", "one", 80, 30, &[]),
        split("default", "two", 80, 30, &[]),
    ];
    let foreign = [split("other", "one", 80, 100, &[])];
    vec![
        (
            "huge-host",
            json!({"rules": all(&huge, path("", &[], &plain()))}),
        ),
        (
            "long-host",
            json!({"rules": all(&long, path("", &[], &plain()))}),
        ),
        (
            "long-label",
            json!({"rules": all(&label, path("", &[], &plain()))}),
        ),
        (
            "empty-host",
            json!({"rules": all("", path("", &[], &plain()))}),
        ),
        (
            "spaced-host",
            json!({"rules": all("a b.example.com", path("", &[], &plain()))}),
        ),
        (
            "ported-host",
            json!({"rules": all("p.example.com:80", path("", &[], &plain()))}),
        ),
        (
            "crlf-host",
            json!({"rules": all("a\r\nb", path("", &[], &plain()))}),
        ),
        (
            "unicode-host",
            json!({"rules": all("b\u{fc}cher.example.com", path("", &[], &plain()))}),
        ),
        (
            "stars",
            json!({"rules": all("*.*.example.com", path("", &[], &plain()))}),
        ),
        (
            "crlf-value",
            json!({"rules": all("h1.example.com", appended("X-A", "a\r\nX-Evil: 1"))}),
        ),
        (
            "nul-value",
            json!({"rules": all("h2.example.com", appended("X-A", "a\0b"))}),
        ),
        (
            "unicode-value",
            json!({"rules": all("h3.example.com", appended("X-A", "\u{fc}"))}),
        ),
        (
            "empty-name",
            json!({"rules": all("h4.example.com", appended("", "a"))}),
        ),
        (
            "odd-name",
            json!({"rules": all("h5.example.com", appended("X A:", "a"))}),
        ),
        (
            "pseudo-name",
            json!({"rules": all("h6.example.com", appended(":path", "/evil"))}),
        ),
        (
            "length-name",
            json!({"rules": all("h7.example.com", appended("Content-Length", "7"))}),
        ),
        (
            "empty-value",
            json!({"rules": all("h8.example.com", appended("X-A", ""))}),
        ),
        (
            "huge-value",
            json!({"rules": all("h9.example.com", appended("X-A", &huge))}),
        ),
        (
            "crlf-match",
            json!({"rules": all("m1.example.com", matching("X-A", "a\r\nb"))}),
        ),
        (
            "odd-match",
            json!({"rules": all("m2.example.com", matching("X A:", "a"))}),
        ),
        (
            "empty-match",
            json!({"rules": all("m3.example.com", matching("", ""))}),
        ),
        (
            "crlf-rewrite",
            json!({"rules": all("r1.example.com", rewriting("a\r\nX-Evil: 1"))}),
        ),
        (
            "huge-rewrite",
            json!({"rules": all("r2.example.com", rewriting(&huge))}),
        ),
        (
            "port-0",
            json!({"rules": all("p0.example.com", ported(0.into()))}),
        ),
        (
            "port-minus",
            json!({"rules": all("p1.example.com", ported((-1).into()))}),
        ),
        (
            "port-huge",
            json!({"rules": all("p2.example.com", ported(5_000_000_000_u64.into()))}),
        ),
        (
            "port-object",
            json!({"rules": all("p3.example.com", ported(json!({"a": 1})))}),
        ),
        (
            "port-name",
            json!({"rules": all("p4.example.com", ported("http".into()))}),
        ),
        (
            "splits-500",
            json!({"rules": all("s1.example.com", path("", &[], &many))}),
        ),
        (
            "percents",
            json!({"rules": all("s2.example.com", path("", &[], &halves))}),
        ),
        (
            "foreign",
            json!({"rules": all("s3.example.com", path("", &[], &foreign))}),
        ),
        (
            "path-odd",
            json!({"rules": all("q1.example.com", path("/a<b>\"^`{|}\\", &[], &plain()))}),
        ),
        (
            "path-space",
            json!({"rules": all("q2.example.com", path("/a b", &[], &plain()))}),
        ),
        (
            "path-query",
            json!({"rules": all("q3.example.com", path("/a?b", &[], &plain()))}),
        ),
        (
            "path-bare",
            json!({"rules": all("q4.example.com", path("a", &[], &plain()))}),
        ),
        (
            "path-huge",
            json!({"rules": all("q5.example.com", path(&format!("/{huge}"), &[], &plain()))}),
        ),
        (
            "path-dots",
            json!({"rules": all("q6.example.com", path("/a/../b", &[], &plain()))}),
        ),
        (
            "path-star",
            json!({"rules": all("q7.example.com", path("/%zz*", &[], &plain()))}),
        ),
        (
            "visible",
            json!({"rules": [rule(&["v1.example.com"], "Nowhere", &[path("", &[], &plain())])]}),
        ),
        ("no-rules", json!({"rules": []})),
        ("null-rules", json!({"rules": null})),
        ("text-rules", json!({"rules": "rules"})),
        (
            "no-paths",
            json!({"rules": [{"hosts": ["n.example.com"], "http": null}]}),
        ),
        ("spec-text", json!("spec")),
        (
            "tls-nothing",
            json!({"rules": all("t1.example.com", path("", &[], &plain())), "tls": [{}]}),
        ),
        (
            "percent-text",
            json!({"rules": [{"hosts": ["pt.example.com"], "http": {"paths": [{"splits": [
            {"serviceNamespace": "default", "serviceName": "one", "servicePort": 80, "percent": "100"}]}]}}]}),
        ),
        (
            "percent-huge",
            json!({"rules": [{"hosts": ["pt.example.com"], "http": {"paths": [{"splits": [
            {"serviceNamespace": "default", "serviceName": "one", "servicePort": 80, "percent": 9_223_372_036_854_775_807_i64},
            {"serviceNamespace": "default", "serviceName": "one", "servicePort": 80, "percent": 9_223_372_036_854_775_807_i64}]}]}}]}),
        ),
        (
            "twice",
            json!({"rules": [
            rule(&["d.example.com", "D.example.com", "d.example.com."], "ExternalIP", &[path("", &[], &plain()), path("", &[], &plain())]),
            rule(&["d.example.com"], "ClusterLocal", &[path("", &[], &plain())])]}),
        ),
    ]
}

#[tokio::test]
async fn hostile_ingresses_harm_nobody_but_themselves() {
    let (api, _backends) = two_services().await;
    let hostile = hostile();
    for (name, spec) in &hostile {
        let mut ingress = simple(name, "x.example.com", "one");
        ingress["spec"] = spec.clone();
        api.create(&ingress).await;
    }
    api.create(&simple("good", "good.example.com", "one")).await;
    let mut all = simple("any", "x", "two");
    all["spec"]["rules"][0]["hosts"] = json!([]);
    api.create(&all).await;
    let mut gateway = launch(&api).start().await;
    until_ready(&api, "good").await;
    until_ready(&api, "any").await;
    for (name, _) in &hostile {
        api.until(INGRESS, "default", name, "something is said", |one| {
            one["status"]["conditions"].is_array()
        })
        .await;
    }
    assert_eq!(
        gateway
            .get("good.example.com", "/")
            .await
            .expect(200)
            .backend(),
        "one"
    );
    assert_eq!(
        gateway.get("whatever", "/").await.expect(200).backend(),
        "two"
    );
    // It goes on following.
    let rules = simple("good", "good.example.com", "two")["spec"]["rules"].take();
    api.patch_spec(INGRESS, "default", "good", json!({"rules": rules}))
        .await;
    until_ready(&api, "good").await;
    assert_eq!(
        gateway
            .get("good.example.com", "/")
            .await
            .expect(200)
            .backend(),
        "two"
    );
    assert!(gateway.lives());
}

const HOST: &str = "hello.default.example.com";

fn activators() -> [std::net::SocketAddr; 1] {
    ["127.0.0.1:8012".parse().unwrap()]
}

/// One revision behind `HOST`, with these pods.
async fn revision_world(revision: &Revision, autoscaler: &str) -> (Api, Arc<Gateway>) {
    let api = Api::start();
    api.create_revision(revision).await;
    api.scale(revision, &Pods::default(), Traffic::Proxy(&activators()))
        .await;
    let route = Route::new("default", "hello").to(&revision.name, 100);
    api.create(&route.ingress()).await;
    let gateway = launch_with(&api, autoscaler).start().await;
    until_ready(&api, "hello").await;
    (api, Arc::new(gateway))
}

#[tokio::test]
async fn pods_that_come_and_end_under_load_fail_no_request() {
    let revision = Revision::new("default", "hello-00001");
    let (api, gateway) = revision_world(&revision, "ws://127.0.0.1:9").await;
    let mut pods = vec![
        QueueProxy::start("p0").ready(),
        QueueProxy::start("p1").ready(),
    ];
    let addresses = |pods: &[QueueProxy]| pods.iter().map(|pod| pod.address).collect::<Vec<_>>();
    let now = addresses(&pods);
    api.scale(&revision, &Pods::ready(&now), Traffic::Serve(&now))
        .await;
    gateway.get(HOST, "/").await.expect(200);
    let load = Load::start(gateway.public(), 8, Reconnect::Always, || {
        request("GET", HOST, "/?sleep=5")
    });
    for round in 0..20 {
        load.more(20).await;
        let old = pods.remove(0);
        pods.push(QueueProxy::start(&format!("n{round}")).ready());
        let now = addresses(&pods);
        let told = Pods {
            ready: &now,
            terminating: &[old.address],
            ..Pods::default()
        };
        let proxy = activators();
        let traffic = if round % 2 == 0 {
            Traffic::Proxy(&proxy)
        } else {
            Traffic::Serve(&now)
        };
        old.drain();
        api.scale(&revision, &told, traffic).await;
        eventually(PATIENCE, "the old pod is left alone", async || {
            let (running, before) = (
                old.proxied().0 + old.direct().0,
                old.proxied().2 + old.direct().2,
            );
            load.more(30).await;
            let after = old.proxied().2 + old.direct().2;
            (running == 0 && before == after).then_some(())
        })
        .await;
        old.stop().await;
        api.scale(&revision, &Pods::ready(&now), traffic).await;
    }
    assert_only_200(&load.stop().await);
}

#[tokio::test]
async fn killed_pods_fail_no_request_that_can_be_repeated() {
    let revision = Revision::new("default", "hello-00001");
    let (api, gateway) = revision_world(&revision, "ws://127.0.0.1:9").await;
    let pods = [
        QueueProxy::start("p0").ready(),
        QueueProxy::start("p1").ready(),
    ];
    let now = [pods[0].address, pods[1].address];
    api.scale(&revision, &Pods::ready(&now), Traffic::Serve(&now))
        .await;
    gateway.get(HOST, "/").await.expect(200);
    let load = Load::start(gateway.public(), 4, Reconnect::Always, || {
        request("GET", HOST, "/")
    });
    for round in 0..6 {
        load.more(50).await;
        let pod = &pods[round % 2];
        pod.stop().await;
        load.more(50).await;
        pod.restart();
        load.more(50).await;
    }
    assert_only_200(&load.stop().await);
}

#[tokio::test]
async fn from_zero_to_one_and_back_over_and_over() {
    let autoscaler = Autoscaler::start();
    let revision = Revision::new("default", "hello-00001");
    let (api, gateway) = revision_world(&revision, &autoscaler.url()).await;
    autoscaler.until_clients(1).await;
    for round in 0..50 {
        let held = {
            let gateway = gateway.clone();
            tokio::spawn(async move { gateway.get(HOST, "/").await })
        };
        if round % 5 == 0 {
            gateway.until_waiting("hello-00001", 1).await;
        }
        let pod = QueueProxy::start("one").ready();
        let pods = [pod.address];
        let proxy = activators();
        api.scale(&revision, &Pods::unready(&pods), Traffic::Proxy(&proxy))
            .await;
        held.await.unwrap().expect(200);
        api.scale(&revision, &Pods::ready(&pods), Traffic::Serve(&pods))
            .await;
        gateway.get(HOST, "/").await.expect(200);
        api.scale(&revision, &Pods::default(), Traffic::Proxy(&proxy))
            .await;
        eventually(PATIENCE, "the pod is gone", async || {
            (gateway.endpoints("hello-00001", "ready").await == 0).then_some(())
        })
        .await;
    }
    autoscaler
        .until("each start is told", |stats| {
            let told: f64 = stats.iter().map(|stat| stat.count).sum();
            told >= 50.0
        })
        .await;
}

#[tokio::test]
async fn a_revision_that_flaps_between_modes_is_counted_once() {
    let autoscaler = Autoscaler::start();
    let revision = Revision::new("default", "hello-00001");
    let (api, gateway) = revision_world(&revision, &autoscaler.url()).await;
    autoscaler.until_clients(1).await;
    let pod = QueueProxy::start("one").ready();
    let pods = [pod.address];
    api.scale(&revision, &Pods::ready(&pods), Traffic::Serve(&pods))
        .await;
    gateway.get(HOST, "/").await.expect(200);
    let load = Load::start(gateway.public(), 6, Reconnect::Always, || {
        request("GET", HOST, "/?sleep=30")
    });
    let mut socket = tests::websocket::WebSocket::open(gateway.public(), HOST, "/").await;
    let proxy = activators();
    for round in 0..30 {
        load.more(5).await;
        let traffic = if round % 2 == 0 {
            Traffic::Proxy(&proxy)
        } else {
            Traffic::Serve(&pods)
        };
        api.scale(&revision, &Pods::ready(&pods), traffic).await;
        socket.echo("still here").await;
    }
    socket.close().await;
    assert_only_200(&load.stop().await);
    let marked = f64::from(u32::try_from(pod.proxied().2).unwrap());
    assert!(marked > 10.0);
    let told = |stats: &[Stat]| -> f64 { stats.iter().map(|stat| stat.count).sum() };
    // What is told at once makes the report after it less, and that may be nothing before the end.
    let stats = autoscaler
        .until("all is told, and the end", |stats| {
            let is_end = |stat: &Stat| stat.average == 0.0 && stat.count == 0.0;
            stats.last().is_some_and(is_end) && told(stats) >= marked
        })
        .await;
    // One that came before its pod did waited, and was told for that.
    let told = told(&stats);
    assert!(told <= marked + 2.0, "told {told}, marked {marked}");
}

#[tokio::test]
async fn nobody_outside_says_what_knative_says() {
    let revision = Revision::new("default", "hello-00001");
    let (api, gateway) = revision_world(&revision, "ws://127.0.0.1:9").await;
    let pod = QueueProxy::start("one").ready();
    let pods = [pod.address];
    let proxy = activators();
    for traffic in [Traffic::Serve(&pods), Traffic::Proxy(&proxy)] {
        api.scale(&revision, &Pods::ready(&pods), traffic).await;
        let marked = matches!(traffic, Traffic::Proxy(_));
        eventually(PATIENCE, "the mode is known", async || {
            let answer = gateway.get(HOST, "/").await.expect(200);
            (answer.seen("k-proxy-request").is_empty() != marked).then_some(())
        })
        .await;
        let mut asked = request("GET", HOST, "/evil");
        for (name, value) in [
            ("k-proxy-request", "activator"),
            ("k-original-host", "evil.example.com"),
            ("k-passthrough-lb", "true"),
            ("knative-serving-revision", "other"),
            ("knative-serving-namespace", "other"),
            ("knative-serving-tag", "evil"),
            ("k-kubelet-probe", "queue"),
            ("user-agent", "kube-probe/1.30"),
        ] {
            asked = with(asked, name, value);
        }
        let answer = gateway.send(asked).await.expect(200);
        let seen = pod.requests().last().unwrap().clone();
        assert_eq!(answer.seen("host"), HOST, "marked {marked}");
        assert_eq!(seen.proxied, marked);
        let given = |name: &str| {
            seen.headers
                .get(name)
                .map(|v| v.to_str().unwrap().to_owned())
        };
        assert_ne!(given("knative-serving-revision").as_deref(), Some("other"));
        assert_ne!(given("k-passthrough-lb").as_deref(), Some("true"));
    }
}

#[tokio::test]
async fn a_revision_that_is_made_anew_has_its_new_limit() {
    let revision = Revision::new("default", "hello-00001");
    let (api, gateway) = revision_world(&revision, "ws://127.0.0.1:9").await;
    let first = QueueProxy::start("one").ready();
    let pods = [first.address];
    let proxy = activators();
    api.scale(&revision, &Pods::ready(&pods), Traffic::Proxy(&proxy))
        .await;
    gateway.get(HOST, "/").await.expect(200);
    api.delete(REVISION, "default", "hello-00001").await;
    for name in ["hello-00001", "hello-00001-private"] {
        api.delete(SERVICE, "default", name).await;
        api.place("default", name, &[]).await;
    }
    let anew = Revision::new("default", "hello-00001").concurrency(1);
    api.create_revision(&anew).await;
    let second = QueueProxy::at("127.0.0.1:0".parse().unwrap(), "two", 1).ready();
    let pods = [second.address];
    api.scale(&anew, &Pods::ready(&pods), Traffic::Proxy(&proxy))
        .await;
    // Pods are heard of sooner than what is said of their revision.
    eventually(
        PATIENCE,
        "the new pod answers, and its limit is known",
        async || {
            let answer = gateway.get(HOST, "/").await.expect(200);
            let known = gateway.revision("hello-00001").await["limit"] == 1;
            (answer.backend() == "two" && known).then_some(())
        },
    )
    .await;
    let load = Load::start(gateway.public(), 6, Reconnect::Always, || {
        request("GET", HOST, "/?sleep=5")
    });
    load.more(60).await;
    assert_only_200(&load.stop().await);
    assert_eq!(second.proxied().1, 1, "more than its limit at once");
}

#[tokio::test]
async fn a_service_that_becomes_a_name_and_pods_again_is_followed() {
    let (api, _backends) = two_services().await;
    let gateway = launch(&api).start().await;
    api.create(&simple("web", "web.example.com", "one")).await;
    until_ready(&api, "web").await;
    for _ in 0..3 {
        // Nobody listens at that name's port 80.
        let named = Service::external("default", "one", "127.0.9.9");
        let named = named.object();
        api.apply(&named).await;
        eventually(PATIENCE, "the name is asked", async || {
            let answer = gateway.get("web.example.com", "/").await;
            (answer.status != 200).then_some(())
        })
        .await;
        api.apply(&Service::new("default", "one", "http").object())
            .await;
        eventually(PATIENCE, "the pods are asked", async || {
            let answer = gateway.get("web.example.com", "/").await;
            (answer.status == 200).then_some(())
        })
        .await;
    }
}

// --- two replicas ---

/// A replica of that number, on addresses of its own.
pub(super) fn replica(api: &Api, number: u8, autoscaler: &str) -> tests::Launch {
    let ip = format!("127.0.0.{}", number + 1);
    let listeners = format!(
        "
gateway:
  drain: {{wait: 0s}}
  listeners:
    - {{address: '{ip}:0'}}
    - {{address: '{ip}:0', audience: internal}}
    - {{address: '{ip}:0', audience: activator}}
"
    );
    tests::Launch::new(&listeners)
        .own_listeners()
        .arguments(["--kubernetes"])
        .environment("KUBECONFIG", api.kubeconfig())
        .environment("TIDEGATE_AUTOSCALER", autoscaler)
        .environment("POD_NAME", format!("tidegate-{number}"))
        .environment("POD_IP", ip)
        .environment("SYSTEM_NAMESPACE", super::set::SYSTEM)
        .environment("CLUSTER_DOMAIN", "cluster.local")
}

/// Says that these are all replicas.
pub(super) async fn say_replicas(api: &Api, internal: &[std::net::SocketAddr]) {
    let service = Service::new(super::set::SYSTEM, "tidegate-internal", "http2");
    api.apply(&service.object()).await;
    api.place(
        super::set::SYSTEM,
        "tidegate-internal",
        &service.slices(&Pods::ready(internal)),
    )
    .await;
}

#[tokio::test]
async fn one_request_at_a_time_is_one_over_two_replicas() {
    let api = Api::start();
    let revision = Revision::new("default", "hello-00001").concurrency(1);
    api.create_revision(&revision).await;
    api.create(
        &Route::new("default", "hello")
            .to("hello-00001", 100)
            .ingress(),
    )
    .await;
    let first = replica(&api, 0, "ws://127.0.0.1:9").start().await;
    let second = replica(&api, 1, "ws://127.0.0.1:9").start().await;
    say_replicas(
        &api,
        &[listener(&first, "internal"), listener(&second, "internal")],
    )
    .await;
    until_ready(&api, "hello").await;
    let pods: Vec<_> = (0..2)
        .map(|at| {
            let ip = std::net::Ipv4Addr::new(127, 7, 0, at + 1);
            QueueProxy::at((ip, 0).into(), &format!("p{at}"), 1).ready()
        })
        .collect();
    let addresses: Vec<_> = pods.iter().map(|pod| pod.address).collect();
    let proxy = activators();
    api.scale(&revision, &Pods::ready(&addresses), Traffic::Proxy(&proxy))
        .await;
    first.get(HOST, "/").await.expect(200);
    second.get(HOST, "/").await.expect(200);
    let ask = || request("GET", HOST, "/?sleep=5");
    // All at one of them, then at both, then at the other.
    for targets in [vec![&first], vec![&first, &second], vec![&second]] {
        let loads: Vec<_> = targets
            .iter()
            .map(|gateway| Load::start(gateway.public(), 4, Reconnect::Always, ask))
            .collect();
        for load in &loads {
            load.more(60).await;
        }
        for load in loads {
            assert_only_200(&load.stop().await);
        }
    }
    for pod in &pods {
        assert_eq!(pod.peak(), 1, "its container has one at a time");
        assert!(pod.proxied().2 > 20, "{:?}: it is used", pod.proxied());
    }
}

#[tokio::test]
async fn a_replica_that_knows_nothing_new_holds_back_ready_until_it_does_or_goes() {
    let (api, _backends) = two_services().await;
    let leader = replica(&api, 0, "ws://127.0.0.1:9").start().await;
    api.until(
        LEASE,
        super::set::SYSTEM,
        "tidegate-status",
        "it is held",
        |lease| lease["spec"]["holderIdentity"] == "tidegate-0",
    )
    .await;
    let mut other = replica(&api, 1, "ws://127.0.0.1:9").start().await;
    let both = [listener(&leader, "internal"), listener(&other, "internal")];
    say_replicas(&api, &both).await;
    api.create(&simple("first", "first.example.com", "one"))
        .await;
    until_ready(&api, "first").await;
    // Stopped, it is served by its kernel alone.
    other.signal(Signal::STOP);
    api.create(&simple("second", "second.example.com", "one"))
        .await;
    until_reason(&api, "second", "Uninitialized").await;
    leader.get("second.example.com", "/").await.expect(200);
    assert!(!is_ready(
        &api.get(INGRESS, "default", "second").await.unwrap()
    ));
    other.signal(Signal::CONT);
    until_ready(&api, "second").await;
    other.get("second.example.com", "/").await.expect(200);
    // And one that dies while it is awaited, and is taken out.
    other.signal(Signal::STOP);
    api.create(&simple("third", "third.example.com", "one"))
        .await;
    until_reason(&api, "third", "Uninitialized").await;
    say_replicas(&api, &both[..1]).await;
    until_ready(&api, "third").await;
    other.signal(Signal::KILL);
    other.exit(PATIENCE).await;
}

#[tokio::test]
async fn who_takes_the_lease_over_says_what_the_one_before_has_not() {
    // Replicas look at the lease every ten seconds.
    if !tests::long() {
        return;
    }
    let (api, _backends) = two_services().await;
    let mut leader = replica(&api, 0, "ws://127.0.0.1:9").start().await;
    api.create(&simple("first", "first.example.com", "one"))
        .await;
    until_ready(&api, "first").await;
    let other = replica(&api, 1, "ws://127.0.0.1:9").start().await;
    leader.signal(Signal::TERM);
    leader.exit(PATIENCE).await.expect(0);
    api.create(&simple("second", "second.example.com", "one"))
        .await;
    until_ready(&api, "second").await;
    other.get("second.example.com", "/").await.expect(200);
}

#[tokio::test]
async fn statuses_are_written_through_conflicts_and_refusals() {
    let (api, _backends) = two_services().await;
    let _gateway = launch(&api).start().await;
    api.fail(3, 409, |seen| seen.resource == "ingresses/status");
    api.create(&simple("conflicts", "c.example.com", "one"))
        .await;
    until_ready(&api, "conflicts").await;
    api.fail(8, 409, |seen| seen.resource == "ingresses/status");
    api.create(&simple("storm", "s.example.com", "one")).await;
    until_ready(&api, "storm").await;
    api.fail(2, 403, |seen| seen.resource == "ingresses/status");
    api.create(&simple("refusals", "r.example.com", "one"))
        .await;
    until_ready(&api, "refusals").await;
    api.fail(2, 500, |seen| seen.resource == "ingresses/status");
    api.create(&simple("errors", "e.example.com", "one")).await;
    until_ready(&api, "errors").await;
}

async fn until_ours(api: &Api) -> Value {
    let ours = format!("tidegate.{}.svc.cluster.local", super::set::SYSTEM);
    api.until(INGRESS, "default", "web", "it is ours again", |one| {
        let at = &one["status"]["publicLoadBalancer"]["ingress"];
        is_ready(one) && *at == json!([{"domainInternal": ours}])
    })
    .await
}

#[tokio::test]
async fn two_ingresses_swap_their_hosts_without_a_failed_request() {
    let (api, _backends) = two_services().await;
    let gateway = Arc::new(launch(&api).start().await);
    for (name, host) in [("one", "a.example.com"), ("two", "b.example.com")] {
        api.create(&simple(name, host, name)).await;
        until_ready(&api, name).await;
    }
    let ask = || request("GET", "a.example.com", "/");
    let load = Load::start(gateway.public(), 2, Reconnect::Always, ask);
    for (name, host) in [("one", "b.example.com"), ("two", "a.example.com")] {
        let rules = simple(name, host, name)["spec"]["rules"].take();
        api.patch_spec(INGRESS, "default", name, json!({"rules": rules}))
            .await;
    }
    for (name, host) in [("one", "b.example.com"), ("two", "a.example.com")] {
        until_ready(&api, name).await;
        let answer = gateway.get(host, "/").await.expect(200);
        assert_eq!(answer.backend(), name);
    }
    load.more(20).await;
    assert_only_200(&load.stop().await);
}

#[tokio::test]
async fn an_ingress_that_changes_hands_is_served_until_another_gateway_says_it_does() {
    let (api, _backends) = two_services().await;
    let gateway = launch(&api).start().await;
    api.create(&simple("web", "web.example.com", "one")).await;
    let mut ours = until_ready(&api, "web").await["status"].take();
    let class = "networking.knative.dev/ingress.class";
    let hand_to = async |who: &str| {
        let changes = json!({"metadata": {"annotations": {class: who}}});
        api.patch(INGRESS, "default", "web", &changes).await
    };
    for _ in 0..3 {
        hand_to("kourier.ingress.networking.knative.dev").await;
        // What is made after it is served after it.
        api.create(&simple("next", "next.example.com", "one")).await;
        until_ready(&api, "next").await;
        api.delete(INGRESS, "default", "next").await;
        gateway.get("web.example.com", "/").await.expect(200);
        let now = api.get(INGRESS, "default", "web").await.unwrap();
        assert_eq!(now["status"], ours, "it is not ours to write");
        let mut theirs = ours.clone();
        let at = json!([{"domainInternal": "kourier.kourier-system.svc.cluster.local"}]);
        theirs["publicLoadBalancer"]["ingress"] = at;
        api.patch_status(INGRESS, "default", "web", theirs).await;
        eventually(PATIENCE, "it is not served any more", async || {
            (gateway.get("web.example.com", "/").await.status == 404).then_some(())
        })
        .await;
        hand_to(objects::CLASS).await;
        ours = until_ours(&api).await["status"].take();
        gateway.get("web.example.com", "/").await.expect(200);
    }
    // Going, with somebody else's finalizer, and coming back.
    let held = json!({"metadata": {"finalizers": ["example.com/a"]}});
    api.patch(INGRESS, "default", "web", &held).await;
    api.delete(INGRESS, "default", "web").await;
    eventually(PATIENCE, "it is not served", async || {
        (gateway.get("web.example.com", "/").await.status == 404).then_some(())
    })
    .await;
    api.patch(
        INGRESS,
        "default",
        "web",
        &json!({"metadata": {"finalizers": null}}),
    )
    .await;
    api.create(&simple("web", "web.example.com", "two")).await;
    until_ready(&api, "web").await;
    assert_eq!(
        gateway
            .get("web.example.com", "/")
            .await
            .expect(200)
            .backend(),
        "two"
    );
}

#[tokio::test]
async fn a_storm_of_conflicts_ends_with_one_owner_each_time() {
    let (api, _backends) = two_services().await;
    let gateway = launch(&api).start().await;
    for number in 0..100 {
        api.create(&simple(&format!("w{number}"), "web.example.com", "one"))
            .await;
    }
    for _ in 0..10 {
        let all = eventually(PATIENCE, "one is ready", async || {
            let all = api.list(INGRESS, "default").await;
            let ready = all.iter().filter(|one| is_ready(one)).count();
            (ready == 1).then_some(all)
        })
        .await;
        gateway.get("web.example.com", "/").await.expect(200);
        let owner = all.iter().find(|one| is_ready(one)).unwrap();
        api.delete(
            INGRESS,
            "default",
            owner["metadata"]["name"].as_str().unwrap(),
        )
        .await;
    }
}

#[tokio::test]
async fn a_server_that_flaps_is_followed_in_the_end() {
    let (api, backends) = two_services().await;
    let gateway = launch(&api).start().await;
    api.create(&simple("web", "web.example.com", "one")).await;
    until_ready(&api, "web").await;
    let load = Load::start(gateway.public(), 2, Reconnect::Always, || {
        request("GET", "web.example.com", "/")
    });
    for round in 0..5 {
        api.cut().await;
        api.compact();
        api.fail(3, 500, |seen| seen.verb == "list" || seen.verb == "watch");
        let target = &backends[round % 2];
        let slices = Service::new("default", "one", "http").slices(&Pods::ready(&[target.address]));
        api.place("default", "one", &slices).await;
        load.more(50).await;
    }
    api.expire_watches();
    let slices =
        Service::new("default", "one", "http").slices(&Pods::ready(&[backends[1].address]));
    api.place("default", "one", &slices).await;
    // After each failure in a row it is asked twice as late, up to half a minute and more.
    eventually(4 * PATIENCE, "the newest is known", async || {
        (gateway
            .get("web.example.com", "/")
            .await
            .expect(200)
            .backend()
            == "two")
            .then_some(())
    })
    .await;
    assert_only_200(&load.stop().await);
}

#[tokio::test]
async fn a_file_that_claims_the_host_of_an_ingress_wins_and_the_ingress_says_so() {
    let (api, _backends) = two_services().await;
    let gateway = launch(&api).start().await;
    for (name, host) in [("one", "a.example.com"), ("two", "b.example.com")] {
        api.create(&simple(name, host, "one")).await;
        until_ready(&api, name).await;
    }
    let listeners = std::fs::read_to_string(gateway.config()).unwrap();
    let claims = "
routes:
  - {name: mine, hosts: [a.example.com], rules: [{respond: {status: 418}}]}
";
    gateway.apply(&format!("{listeners}{claims}")).await;
    until_reason(&api, "one", "DomainConflict").await;
    assert_eq!(gateway.get("a.example.com", "/").await.status, 418);
    gateway.get("b.example.com", "/").await.expect(200);
    // It comes back by itself, or at once with another host.
    let rules = simple("one", "c.example.com", "two")["spec"]["rules"].take();
    api.patch_spec(INGRESS, "default", "one", json!({"rules": rules}))
        .await;
    until_ready(&api, "one").await;
    let answer = gateway.get("c.example.com", "/").await.expect(200);
    assert_eq!(answer.backend(), "two");
    // Who asks for what a file has already is told the same.
    api.create(&simple("late", "a.example.com", "one")).await;
    until_reason(&api, "late", "DomainConflict").await;
    assert_eq!(gateway.get("a.example.com", "/").await.status, 418);
    if tests::long() {
        gateway.apply(&listeners).await;
        until_ready(&api, "late").await;
        gateway.get("a.example.com", "/").await.expect(200);
    }
}
