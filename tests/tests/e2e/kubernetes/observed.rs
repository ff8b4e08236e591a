//! What can be seen of Knative's revisions: metrics under Knative's names, cold starts, the request log,
//! trace headers. And what ConfigMaps switch while the gateway runs.

use serde_json::{Value, json};
use tests::client::with;
use tests::kubernetes::kind::{CONFIG_MAP, REVISION};
use tests::kubernetes::objects::{Pods, Revision, Route, Traffic, config_map};
use tests::kubernetes::{Api, Autoscaler, QueueProxy};
use tests::{Gateway, PATIENCE, eventually, request};

use super::set::{SYSTEM, launch_with, listener, probe, until_ready};

const HOST: &str = "hello.default.example.com";

/// A service whose activator is in the path, with one pod.
struct World {
    api: Api,
    autoscaler: Autoscaler,
    revision: Revision,
    pod: QueueProxy,
    gateway: Gateway,
}

impl World {
    async fn at_zero() -> World {
        let (api, autoscaler) = (Api::start(), Autoscaler::start());
        let revision = Revision::new("default", "hello-00001");
        api.create_revision(&revision).await;
        let proxy = [tests_activator()];
        api.scale(&revision, &Pods::default(), Traffic::Proxy(&proxy))
            .await;
        let route = Route::new("default", "hello").to(&revision.name, 100);
        api.create(&route.ingress()).await;
        let gateway = launch_with(&api, &autoscaler.url()).start().await;
        until_ready(&api, "hello").await;
        autoscaler.until_clients(1).await;
        World {
            api,
            autoscaler,
            revision,
            pod: QueueProxy::start("one").ready(),
            gateway,
        }
    }

    async fn start_pod(&self) {
        let pods = [self.pod.address];
        let proxy = [tests_activator()];
        let traffic = Traffic::Proxy(&proxy);
        self.api
            .scale(&self.revision, &Pods::ready(&pods), traffic)
            .await;
    }

    async fn with_pod() -> World {
        let world = World::at_zero().await;
        world.start_pod().await;
        world.gateway.get(HOST, "/").await.expect(200);
        world
    }

    /// Lines of the request log: what is no line of the start.
    fn logged(&self) -> Vec<Value> {
        let stdout = self.gateway.stdout();
        let lines = stdout.lines().filter(|line| line.starts_with('{'));
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Sends requests until the log has one of them, and forgets none of what it has.
    async fn until_logged(&self, path: &str) -> Value {
        eventually(PATIENCE, "the request is logged", async || {
            self.gateway.get(HOST, path).await.expect(200);
            let url = |line: &Value| line["httpRequest"]["requestUrl"] == *path;
            self.logged().into_iter().find(url)
        })
        .await
    }
}

/// Where activators are, in `activator-service`: ours, by its address.
fn tests_activator() -> std::net::SocketAddr {
    "127.0.0.1:8012".parse().unwrap()
}

#[tokio::test]
async fn a_revision_is_counted_under_the_names_that_knative_knows_it_by() {
    let world = World::with_pod().await;
    let head = request("HEAD", HOST, "/");
    world.gateway.send(head).await.expect(200);
    // Named by its fields, at the activator's own port.
    let direct = with(
        request("BREW", "nobody", "/"),
        "knative-serving-namespace",
        "default",
    );
    let direct = with(direct, "knative-serving-revision", "hello-00001");
    let mut client = tests::Client::connect(listener(&world.gateway, "activator")).await;
    client.send(direct).await.expect(200);
    // Probes are no requests.
    probe(world.gateway.public(), HOST).await.expect(200);

    let classic = [
        ("namespace_name", "default"),
        ("service_name", "hello"),
        ("configuration_name", "hello"),
        ("revision_name", "hello-00001"),
        ("response_code", "200"),
        ("response_code_class", "2xx"),
    ];
    world
        .gateway
        .until_metric("activator_request_count", &classic, |n| n == 3.0)
        .await;
    let metrics = world.gateway.metrics().await;
    let count = |name: &str, labels: &[(&str, &str)]| metrics.sum(name, labels);
    assert_eq!(
        count("activator_request_latencies_count", &classic),
        Some(3.0)
    );
    let named = [
        ("kn_service_name", "hello"),
        ("kn_configuration_name", "hello"),
        ("kn_revision_name", "hello-00001"),
        ("k8s_namespace_name", "default"),
    ];
    assert!(count("kn_revision_request_concurrency", &named).is_some());
    for name in ["kn_revision_request_queued", "kn_revision_request_active"] {
        assert_eq!(count(name, &named[2..]), Some(0.0), "{name}");
    }
    for method in ["GET", "HEAD", "_OTHER"] {
        let asked = [
            ("http_request_method", method),
            ("http_response_status_code", "200"),
        ];
        let labels = [&asked[..], &named[..]].concat();
        let name = "http_server_request_duration_seconds_count";
        assert_eq!(count(name, &labels), Some(1.0), "{method}");
    }
    let peer = [("peer", "autoscaler")];
    world
        .gateway
        .until_metric("kn_activator_stats_conn_reachable", &peer, |n| n == 1.0)
        .await;
    world.autoscaler.stop().await;
    world
        .gateway
        .until_metric("kn_activator_stats_conn_reachable", &peer, |n| n == 0.0)
        .await;
    let errors = "kn_activator_stats_conn_errors_total";
    world
        .gateway
        .until_metric(errors, &peer, |n| n >= 1.0)
        .await;
}

#[tokio::test]
async fn a_start_from_zero_is_told_with_its_phases() {
    let world = World::at_zero().await;
    let told = world.gateway.revision("hello-00001").await;
    assert_eq!(
        (&told["coldStarts"], &told["lastStart"]),
        (&json!(0), &Value::Null)
    );
    let mut client = world.gateway.connect().await;
    let held = tokio::spawn(async move { client.get(HOST, "/").await });
    let heard = |stats: &[_]| !stats.is_empty();
    world.autoscaler.until("the first request", heard).await;
    world.start_pod().await;
    held.await.unwrap().expect(200);
    let told = world.gateway.revision("hello-00001").await;
    assert_eq!(told["coldStarts"], 1, "{told}");
    let phases = told["lastStart"]["phases"].as_object().unwrap();
    for phase in ["nudge", "endpoint", "probe", "wire", "firstByte"] {
        assert!(phases[phase].is_f64(), "{phase}: {told}");
    }
    // Who starts pods does not say when it begins to.
    assert_eq!(phases["act"], Value::Null);
    let revision = [("namespace", "default"), ("revision", "hello-00001")];
    let metrics = world.gateway.metrics().await;
    let starts = metrics.sum("tidegate_cold_starts_total", &revision);
    assert_eq!(starts, Some(1.0));
    let probe = [&revision[..], &[("phase", "probe")]].concat();
    let probes = metrics.sum("tidegate_cold_start_seconds_count", &probe);
    assert_eq!(probes, Some(1.0));
}

#[tokio::test]
async fn a_config_map_switches_the_request_log_and_a_bad_one_changes_nothing() {
    let world = World::with_pod().await;
    let map = |data: &[(&str, &str)]| config_map(SYSTEM, "config-observability", data);
    let on = ("logging.enable-request-log", "true");
    world.api.create(&map(&[on, ("_example", "{{")])).await;
    let line = world.until_logged("/one?a='b'").await;
    let http = &line["httpRequest"];
    assert_eq!(http["requestMethod"], "GET");
    assert_eq!(http["status"], 200);
    assert_eq!(http["protocol"], "HTTP/1.1");
    assert_eq!(http["serverIp"], world.pod.address.ip().to_string());
    assert_eq!(http["requestSize"], "0");
    let size: u64 = http["responseSize"].as_str().unwrap().parse().unwrap();
    assert!(size > 0, "{line}");
    let latency = http["latency"].as_str().unwrap();
    assert!(latency.strip_suffix('s').unwrap().parse::<f64>().unwrap() > 0.0);
    assert_eq!(line["traceId"], "");

    let template = "logging.request-log-template";
    let bad = map(&[on, (template, "{{range .Request.Header}}x{{end}}")]);
    world.api.apply(&bad).await;
    world.gateway.until_logged("config-observability").await;
    world.gateway.until_logged("range").await;
    world.until_logged("/two").await;

    let own = r#"{"httpRequest": {"requestUrl": "{{js .Request.RequestURI}}"},
 "who": "{{js (.Request.Header.Get "X-Who")}}", "of": "{{.Revision.Service}}"}"#;
    let own = own.replace('\n', "");
    world.api.apply(&map(&[on, (template, &own)])).await;
    eventually(PATIENCE, "the new template is used", async || {
        let asked = with(request("GET", HOST, "/three"), "x-who", "me");
        world.gateway.send(asked).await.expect(200);
        let line = json!({"httpRequest": {"requestUrl": "/three"}, "who": "me", "of": "hello"});
        world.logged().contains(&line).then_some(())
    })
    .await;
    // Gone: off again, as without it.
    world
        .api
        .delete(CONFIG_MAP, SYSTEM, "config-observability")
        .await;
    eventually(PATIENCE, "nothing is logged any more", async || {
        let before = world.logged().len();
        for _ in 0..3 {
            world.gateway.get(HOST, "/four").await.expect(200);
        }
        // What comes later in the other log was written later.
        let line = "\"GET hello.default.example.com /four HTTP/1.1\" 200";
        world.gateway.until_logged(line).await;
        (world.logged().len() == before).then_some(())
    })
    .await;
}

#[tokio::test]
async fn kouriers_switch_turns_the_access_log_off_and_on() {
    let world = World::with_pod().await;
    let map = |value| {
        let data = [("enable-service-access-logging", value)];
        config_map(SYSTEM, "config-kourier", &data)
    };
    let is_logged = async |path: &str| {
        world.gateway.get(HOST, path).await.expect(200);
        let line = format!("GET {HOST} {path} HTTP/1.1");
        // A record is written within 50 ms; a request that is held does not come so late.
        tokio::time::timeout(std::time::Duration::from_millis(500), async {
            world.gateway.until_logged(&line).await;
        })
        .await
        .is_ok()
    };
    world.gateway.get(HOST, "/first").await.expect(200);
    let first = format!("GET {HOST} /first HTTP/1.1");
    world.gateway.until_logged(&first).await;
    world.api.create(&map("false")).await;
    let mut n = 0;
    eventually(PATIENCE, "the access log is off", async || {
        n += 1;
        (!is_logged(&format!("/off-{n}")).await).then_some(())
    })
    .await;
    world.api.apply(&map("true")).await;
    eventually(PATIENCE, "the access log is on", async || {
        n += 1;
        is_logged(&format!("/on-{n}")).await.then_some(())
    })
    .await;
}

#[tokio::test]
async fn trace_headers_pass_on_unchanged_both_ways() {
    let world = World::with_pod().await;
    let fields = [
        (
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ),
        ("tracestate", "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"),
        ("baggage", "userId=alice,serverNode=DF%2028"),
        ("b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1"),
        ("x-b3-traceid", "463ac35c9f6413ad48485a3953bb6124"),
        ("x-b3-spanid", "a2fb4a1d1a96d312"),
        ("x-b3-parentspanid", "0020000000000001"),
        ("x-b3-sampled", "1"),
        ("x-b3-flags", "1"),
    ];
    let back = "00-4bf92f3577b34da6a3ce929d0e0e4736-b7ad6b7169203331-00";
    let mut asked = request("GET", HOST, &format!("/?header=traceparent:{back}"));
    for (name, value) in fields {
        asked = with(asked, name, value);
    }
    let answer = world.gateway.send(asked).await.expect(200);
    for (name, value) in fields {
        assert_eq!(answer.seen(name), value, "{name}");
    }
    assert_eq!(answer.header("traceparent"), back);
}

#[tokio::test]
async fn a_revision_that_cannot_start_is_refused_with_the_cause_that_its_status_has() {
    let world = World::at_zero().await;
    let mut client = world.gateway.connect().await;
    let held = tokio::spawn(async move { client.get(HOST, "/").await });
    world.gateway.until_waiting("hello-00001", 1).await;
    let says = async |ready: &str, image: &str| {
        let status = json!({"conditions": [
            {"type": "Ready", "status": ready, "reason": "ImagePullBackOff"},
            {"type": "ResourcesAvailable", "status": image, "reason": "ImagePullBackOff",
             "message": "Back-off pulling image\nat the registry"},
        ]});
        let Revision {
            namespace, name, ..
        } = &world.revision;
        world
            .api
            .patch_status(REVISION, namespace, name, status)
            .await;
    };
    says("False", "False").await;
    let cause = "ImagePullBackOff: Back-off pulling image";
    let answer = held.await.unwrap().refused(503, "start_failed");
    assert_eq!(
        answer.text(),
        format!("The service could not be started: {cause}\n")
    );
    // So is whoever comes now.
    let next = world.gateway.get(HOST, "/").await;
    next.refused(503, "start_failed");
    let told = world
        .gateway
        .ask("/api/cold-starts")
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&told[0]["outcome"], &told[0]["cause"]),
        (&json!("failed"), &json!(cause))
    );

    says("Unknown", "Unknown").await;
    let waits = eventually(PATIENCE, "requests are held again", async || {
        let mut client = world.gateway.connect().await;
        let mut held = tokio::spawn(async move { client.get(HOST, "/").await });
        tokio::select! {
            _refused = &mut held => None,
            () = world.gateway.until_waiting("hello-00001", 1) => Some(held),
        }
    })
    .await;
    says("False", "False").await;
    waits.await.unwrap().refused(503, "start_failed");
    // A pod that serves is proof enough.
    world.start_pod().await;
    eventually(PATIENCE, "the pod serves", async || {
        (world.gateway.get(HOST, "/").await.status == 200).then_some(())
    })
    .await;
}
