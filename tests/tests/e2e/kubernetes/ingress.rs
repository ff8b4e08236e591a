//! What the conformance tests of Knative's ingresses ask, in their order (basics, dispatch, headers,
//! hosts, httpoption, ingressclass, tls, update, visibility, websocket, grpc, host-rewrite).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tests::client::with;
use tests::kubernetes::Api;
use tests::kubernetes::kind::{ENDPOINT_SLICE, INGRESS, SERVICE};
use tests::kubernetes::objects::{self, Pods, Service, path, rule, split, tls_secret};
use tests::tls::Authority;
use tests::{Backend, Client, Gateway, Wire, eventually, request};

use super::set::{
    inside, is_ready, launch, listener, probe, secure, service, until_ready, until_reason,
};

/// One host that leads to that Service's port 80.
pub(super) fn simple(name: &str, host: &str, service: &str) -> Value {
    let paths = [path("", &[], &[split("default", service, 80, 100, &[])])];
    objects::ingress("default", name, &[rule(&[host], "ExternalIP", &paths)])
}

async fn world(services: &[(&str, &Backend)]) -> (Api, Gateway) {
    let api = Api::start();
    for (name, backend) in services {
        service(&api, name, "http", &[backend]).await;
    }
    let gateway = launch(&api).start().await;
    (api, gateway)
}

#[tokio::test]
async fn an_ingress_with_a_host_and_a_split_is_served_and_said_to_be_ready() {
    let backend = Backend::start("one");
    let (api, gateway) = world(&[("one", &backend)]).await;
    api.create(&simple("basic", "basic.example.com", "one"))
        .await;
    let ready = until_ready(&api, "basic").await;
    let answer = gateway.get("basic.example.com", "/").await.expect(200);
    assert_eq!(answer.backend(), "one");
    assert_eq!(
        inside(&gateway, "basic.example.com:80", "/").await.status,
        200
    );
    let status = &ready["status"];
    let names: Vec<_> = status["conditions"].as_array().unwrap().iter().collect();
    let kinds: Vec<_> = names
        .iter()
        .map(|one| one["type"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["LoadBalancerReady", "NetworkConfigured", "Ready"]);
    let system = super::set::SYSTEM;
    let lists = [
        ("publicLoadBalancer", "tidegate"),
        ("privateLoadBalancer", "tidegate-internal"),
    ];
    for (list, name) in lists {
        let entry = json!([{"domainInternal": format!("{name}.{system}.svc.cluster.local")}]);
        assert_eq!(status[list]["ingress"], entry);
    }
}

#[tokio::test]
async fn http2_is_spoken_where_the_port_says_so() {
    let backend = Backend::start("two");
    let api = Api::start();
    service(&api, "two", "http2", &[&backend]).await;
    api.create(&simple("http2", "h2.example.com", "two")).await;
    let gateway = launch(&api).start().await;
    until_ready(&api, "http2").await;
    let answer = gateway.get("h2.example.com", "/").await.expect(200);
    assert_eq!(answer.json()["version"], "HTTP/2.0", "{}", answer.text());
}

#[tokio::test]
async fn paths_and_rules_lead_where_they_say() {
    let backends = ["foo", "bar", "rest", "other"].map(Backend::start);
    let [foo, bar, rest, other] = &backends;
    let (api, gateway) =
        world(&[("foo", foo), ("bar", bar), ("rest", rest), ("other", other)]).await;
    let to = |prefix: &str, name: &str| path(prefix, &[], &[split("default", name, 80, 100, &[])]);
    let first = rule(
        &["a.example.com", "b.example.com"],
        "ExternalIP",
        &[to("", "rest"), to("/foo", "foo"), to("/bar", "bar")],
    );
    let second = rule(&["c.example.com"], "ExternalIP", &[to("", "other")]);
    api.create(&objects::ingress("default", "paths", &[first, second]))
        .await;
    until_ready(&api, "paths").await;
    for host in ["a.example.com", "b.example.com", "A.Example.COM:8080"] {
        for (asked, name) in [
            ("/foo", "foo"),
            ("/foobar", "foo"),
            ("/bar/x", "bar"),
            ("/", "rest"),
            ("/asdf", "rest"),
        ] {
            let answer = gateway.get(host, asked).await.expect(200);
            assert_eq!(answer.backend(), name, "{host}{asked}");
        }
    }
    assert_eq!(
        gateway.get("c.example.com", "/foo").await.backend(),
        "other"
    );
    gateway
        .get("d.example.com", "/")
        .await
        .refused(404, "no_route");
}

#[tokio::test]
async fn requests_are_drawn_by_percent_and_never_to_zero() {
    let names = ["p50", "p30", "p20", "p0"];
    let backends = names.map(Backend::start);
    let services: Vec<_> = names.into_iter().zip(&backends).collect();
    let (api, gateway) = world(&services).await;
    let splits: Vec<_> = [50, 30, 20, 0]
        .into_iter()
        .zip(names)
        .map(|(percent, name)| split("default", name, 80, percent, &[("Foo-From", name)]))
        .collect();
    let paths = [path("", &[], &splits)];
    api.create(&objects::ingress(
        "default",
        "split",
        &[rule(&["s.example.com"], "ExternalIP", &paths)],
    ))
    .await;
    until_ready(&api, "split").await;
    let mut counts = BTreeMap::<String, u32>::new();
    let mut client = gateway.connect().await;
    for _ in 0..1000 {
        let request = with(request("GET", "s.example.com", "/"), "foo-from", "bogus");
        let answer = client.send(request).await.expect(200);
        assert_eq!(answer.seen("foo-from"), answer.backend());
        *counts.entry(answer.backend().to_owned()).or_default() += 1;
    }
    for (name, percent) in names.into_iter().zip([50, 30, 20, 0]) {
        let count = counts.get(name).copied().unwrap_or_default();
        assert!(
            count.abs_diff(percent * 10) <= 100 && (percent > 0 || count == 0),
            "{counts:?}"
        );
    }
}

#[tokio::test]
async fn headers_are_set_over_those_that_come_and_tags_choose_paths() {
    let (plain, tagged) = (Backend::start("plain"), Backend::start("tagged"));
    let (api, gateway) = world(&[("plain", &plain), ("tagged", &tagged)]).await;
    let mut by_tag = path(
        "",
        &[("Foo", "tag")],
        &[split("default", "tagged", 80, 100, &[])],
    );
    by_tag["headers"] = json!({"Knative-Serving-Tag": {"exact": "the-tag"}});
    let default = path(
        "",
        &[("Foo", "default")],
        &[split("default", "plain", 80, 100, &[])],
    );
    let rules = [rule(&["t.example.com"], "ExternalIP", &[by_tag, default])];
    api.create(&objects::ingress("default", "tags", &rules))
        .await;
    until_ready(&api, "tags").await;
    for (tag, name, foo) in [
        (Some("the-tag"), "tagged", "tag"),
        (Some("other"), "plain", "default"),
        (Some(""), "plain", "default"),
        (None, "plain", "default"),
    ] {
        let request = with(request("GET", "t.example.com", "/"), "foo", "bogus");
        let request = match tag {
            Some(tag) => with(request, "knative-serving-tag", tag),
            None => request,
        };
        let answer = gateway.send(request).await.expect(200);
        assert_eq!(
            (answer.backend(), &*answer.seen("foo")),
            (name, foo),
            "{tag:?}"
        );
    }
}

#[tokio::test]
async fn a_probe_is_answered_with_the_hash_of_what_is_live() {
    let backend = Backend::start("one");
    let (api, gateway) = world(&[("one", &backend)]).await;
    api.create(&simple("hash", "hash.example.com", "one")).await;
    until_ready(&api, "hash").await;
    let first = probe(gateway.public(), "hash.example.com")
        .await
        .expect(200);
    let first = first.header("k-network-hash").to_owned();
    assert_eq!(first.len(), 64, "{first}");
    let rules = simple("hash", "hash2.example.com", "one")["spec"]["rules"].take();
    api.patch_spec(INGRESS, "default", "hash", json!({"rules": rules}))
        .await;
    until_ready(&api, "hash").await;
    let second = probe(gateway.public(), "hash2.example.com")
        .await
        .expect(200);
    assert_ne!(second.header("k-network-hash"), first);
    assert_eq!(
        probe(gateway.public(), "hash.example.com").await.status,
        404
    );
    // Another hash goes to the endpoint.
    let asks = with(
        request("GET", "hash2.example.com", "/"),
        "k-network-probe",
        "probe",
    );
    let other = "1".repeat(64);
    let answer = gateway
        .send(with(asks, "k-network-hash", &other))
        .await
        .expect(200);
    assert_eq!(answer.seen("k-network-hash"), other);
}

#[tokio::test]
async fn only_ingresses_of_our_class_are_touched() {
    let backend = Backend::start("one");
    let (api, _gateway) = world(&[("one", &backend)]).await;
    let class = "networking.knative.dev/ingress.class";
    let mut left = Vec::new();
    for (name, value) in [
        ("nil", None),
        ("empty", Some("")),
        ("kourier", Some("kourier.ingress.networking.knative.dev")),
    ] {
        let mut ingress = simple(name, &format!("{name}.example.com"), "one");
        match value {
            Some(value) => ingress["metadata"]["annotations"][class] = value.into(),
            None => ingress["metadata"]["annotations"] = json!({}),
        }
        left.push(api.create(&ingress).await);
    }
    api.create(&simple("ours", "ours.example.com", "one")).await;
    until_ready(&api, "ours").await;
    for before in left {
        let name = before["metadata"]["name"].as_str().unwrap();
        let now = api.get(INGRESS, "default", name).await.unwrap();
        assert_eq!(before, now);
    }
}

#[tokio::test]
async fn cluster_local_hosts_are_served_inside_alone() {
    let backend = Backend::start("one");
    let (api, gateway) = world(&[("one", &backend)]).await;
    let hosts = ["v.default", "v.default.svc", "v.default.svc.cluster.local"];
    let paths = [path("", &[], &[split("default", "one", 80, 100, &[])])];
    api.create(&objects::ingress(
        "default",
        "local",
        &[rule(&hosts, "ClusterLocal", &paths)],
    ))
    .await;
    until_ready(&api, "local").await;
    for host in hosts {
        gateway.get(host, "/").await.refused(404, "no_route");
        assert_eq!(
            inside(&gateway, host, "/").await.expect(200).backend(),
            "one"
        );
    }
}

#[tokio::test]
async fn tls_is_spoken_with_the_certificate_of_a_secret() {
    let backend = Backend::start("one");
    let (api, gateway) = world(&[("one", &backend)]).await;
    let authority = Authority::new();
    api.create(&tls_secret(
        "default",
        "first",
        &authority.issue(&["tls.example.com"]),
    ))
    .await;
    let mut ingress = simple("tls", "tls.example.com", "one");
    ingress["spec"]["tls"] = json!([
        {"hosts": ["tls.example.com"], "secretName": "first", "secretNamespace": "default"},
    ]);
    ingress["spec"]["httpOption"] = "Enabled".into();
    api.create(&ingress).await;
    until_ready(&api, "tls").await;
    for protocols in [["h2"], ["http/1.1"]] {
        let client = Arc::new(authority.client(&protocols));
        let stream = tests::tls::connect(&client, secure(&gateway), "tls.example.com").await;
        let stream = stream.unwrap();
        let wire = match tests::tls::protocol(&stream) {
            "h2" => Wire::Http2,
            _ => Wire::Http1,
        };
        let mut client = Client::over(wire, stream).await.unwrap();
        assert_eq!(
            client
                .get("tls.example.com", "/")
                .await
                .expect(200)
                .backend(),
            "one"
        );
    }
    assert_eq!(gateway.get("tls.example.com", "/").await.status, 200);
    api.patch_spec(
        INGRESS,
        "default",
        "tls",
        json!({"httpOption": "Redirected"}),
    )
    .await;
    until_ready(&api, "tls").await;
    let answer = gateway.get("tls.example.com", "/a?b").await.expect(301);
    assert_eq!(answer.header("location"), "https://tls.example.com/a?b");
    // A renewed Secret is taken up.
    let renewed = Authority::new();
    let pem = renewed.issue(&["tls.example.com"]);
    api.apply(&tls_secret("default", "first", &pem)).await;
    eventually(tests::PATIENCE, "the new certificate is used", async || {
        let client = Arc::new(renewed.client(&["http/1.1"]));
        let stream = tests::tls::connect(&client, secure(&gateway), "tls.example.com").await;
        stream.ok()
    })
    .await;
}

/// The heart of the conformance tests: no request fails, and none sees what was before `Ready`.
#[tokio::test]
async fn twenty_updates_fail_no_request_and_are_live_once_ready() {
    let api = Api::start();
    let mut backend = Backend::start("b0");
    service(&api, "b0", "http", &[&backend]).await;
    let headed = |number: u32, service: &str| {
        let mark = format!("h{number}");
        let paths = [path(
            "",
            &[("Mark", &mark)],
            &[split("default", service, 80, 100, &[])],
        )];
        objects::ingress(
            "default",
            "update",
            &[rule(&["u.example.com"], "ExternalIP", &paths)],
        )
    };
    api.create(&headed(0, "b0")).await;
    let gateway = Arc::new(launch(&api).start().await);
    until_ready(&api, "update").await;
    let over = Arc::new(AtomicBool::new(false));
    let probing = {
        let (gateway, over) = (gateway.clone(), over.clone());
        tokio::spawn(async move {
            let mut count = 0;
            // However slow they are beside the updates.
            while !over.load(Ordering::Relaxed) || count <= 100 {
                gateway.get("u.example.com", "/").await.expect(200);
                count += 1;
            }
        })
    };
    for number in 1..=20 {
        let update = if number <= 10 {
            headed(number, "b0")
        } else {
            let name = format!("b{number}");
            let next = Backend::start(&name);
            service(&api, &name, "http", &[&next]).await;
            let update = headed(number, &name);
            api.apply(&update).await;
            until_ready(&api, "update").await;
            let old = format!("b{}", if number == 11 { 0 } else { number - 1 });
            api.delete(SERVICE, "default", &old).await;
            api.place("default", &old, &[]).await;
            backend = next;
            update
        };
        api.apply(&update).await;
        until_ready(&api, "update").await;
        let answer = gateway.get("u.example.com", "/").await.expect(200);
        assert_eq!(answer.seen("mark"), format!("h{number}"));
    }
    over.store(true, Ordering::Relaxed);
    probing.await.unwrap();
    drop(backend);
}

#[tokio::test]
async fn a_request_whose_pods_are_gone_goes_where_its_ingress_leads_now() {
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let (api, gateway) = world(&[("one", &one), ("two", &two)]).await;
    let host = "moved.example.com";
    api.create(&simple("moved", host, "one")).await;
    until_ready(&api, "moved").await;
    // Nobody says that it is gone.
    let _port = one.kill_for_now().await;
    let mut client = gateway.raw().await;
    client
        .send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"))
        .await;
    // It is tried there again and again.
    eventually(tests::PATIENCE, "it has failed there", async || {
        (gateway.endpoints("one:80", "suspect").await == 1).then_some(())
    })
    .await;
    api.apply(&simple("moved", host, "two")).await;
    let answer = client.answer().await;
    assert_eq!(
        (answer.status(), answer.field("x-backend")),
        (200, Some("two"))
    );
}

#[tokio::test]
async fn an_ingress_is_not_ready_before_its_services_can_be_reached() {
    let (api, gateway) = world(&[]).await;
    api.create(&simple("early", "early.example.com", "late"))
        .await;
    eventually(tests::PATIENCE, "it is said to be observed", async || {
        let ingress = api.get(INGRESS, "default", "early").await?;
        (ingress["status"]["observedGeneration"] == ingress["metadata"]["generation"]).then_some(())
    })
    .await;
    assert!(!is_ready(
        &api.get(INGRESS, "default", "early").await.unwrap()
    ));
    let backend = Backend::start("late");
    service(&api, "late", "http", &[&backend]).await;
    until_ready(&api, "early").await;
    assert_eq!(
        gateway.get("early.example.com", "/").await.backend(),
        "late"
    );
    // What it had stays while its Service is gone.
    api.delete(SERVICE, "default", "late").await;
    assert_eq!(
        gateway.get("early.example.com", "/").await.backend(),
        "late"
    );
}

#[tokio::test]
async fn a_host_belongs_to_who_came_first_until_that_is_gone() {
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let (api, gateway) = world(&[("one", &one), ("two", &two)]).await;
    api.create(&simple("first", "host.example.com", "one"))
        .await;
    until_ready(&api, "first").await;
    api.create(&simple("second", "host.example.com", "two"))
        .await;
    let second = until_reason(&api, "second", "DomainConflict").await;
    let text = second["status"].to_string();
    assert!(
        text.contains("Ingress rejected: ingress has a conflicting domain with another ingress"),
        "{text}"
    );
    assert_eq!(gateway.get("host.example.com", "/").await.backend(), "one");
    api.delete(INGRESS, "default", "first").await;
    until_ready(&api, "second").await;
    assert_eq!(gateway.get("host.example.com", "/").await.backend(), "two");
}

#[tokio::test]
async fn endpoints_come_and_go_without_a_new_version() {
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let (api, gateway) = world(&[("web", &one)]).await;
    api.create(&simple("web", "web.example.com", "web")).await;
    until_ready(&api, "web").await;
    let version = gateway.version().await;
    let slices = Service::new("default", "web", "http").slices(&Pods::ready(&[two.address]));
    api.place("default", "web", &slices).await;
    eventually(tests::PATIENCE, "the new endpoint answers", async || {
        let answer = gateway.get("web.example.com", "/").await.expect(200);
        (answer.backend() == "two").then_some(())
    })
    .await;
    assert_eq!(gateway.version().await, version);
    assert!(!api.list(ENDPOINT_SLICE, "default").await.is_empty());
}

#[tokio::test]
async fn a_name_that_leads_to_us_is_looked_up_again_inside() {
    let backend = Backend::start("one");
    let (api, gateway) = world(&[("one", &backend)]).await;
    let local = "own.default.svc.cluster.local";
    let paths = [path("", &[], &[split("default", "one", 80, 100, &[])])];
    let inner = objects::ingress("default", "own", &[rule(&[local], "ClusterLocal", &paths)]);
    api.create(&inner).await;
    let ours = format!("tidegate-internal.{}.svc.cluster.local", super::set::SYSTEM);
    api.create(&Service::external("default", "own", &ours).object())
        .await;
    let mut vanity = path(
        "",
        &[("K-Original-Host", "vanity.test")],
        &[split("default", "own", 80, 100, &[])],
    );
    vanity["rewriteHost"] = local.into();
    let outer = rule(&["vanity.test"], "ExternalIP", &[vanity]);
    api.create(&objects::ingress("default", "vanity.test", &[outer]))
        .await;
    until_ready(&api, "vanity.test").await;
    let answer = gateway.get("vanity.test", "/").await.expect(200);
    assert_eq!(answer.seen("host"), local);
    assert_eq!(answer.seen("k-original-host"), "vanity.test");
}

#[tokio::test]
async fn a_restarted_gateway_is_ready_only_with_all_it_served_before() {
    let backend = Backend::start("one");
    let api = Api::start();
    service(&api, "one", "http", &[&backend]).await;
    for number in 0..50 {
        let name = format!("many-{number}");
        api.create(&simple(&name, &format!("{name}.example.com"), "one"))
            .await;
    }
    api.delay(Duration::from_millis(50));
    let gateway = launch(&api).start().await;
    for number in 0..50 {
        let host = format!("many-{number}.example.com");
        assert_eq!(gateway.get(&host, "/").await.expect(200).backend(), "one");
    }
    assert_eq!(listener(&gateway, "public"), gateway.public());
}

#[tokio::test]
async fn what_cannot_be_seen_is_done_without() {
    let backend = Backend::start("one");
    let api = Api::start();
    service(&api, "one", "http", &[&backend]).await;
    api.create(&simple("some", "some.example.com", "one")).await;
    // No right to read Secrets, no Knative Serving, and nothing is chosen for us.
    api.fail(1000, 403, |seen| seen.resource == "secrets");
    api.fail(1000, 404, |seen| seen.resource == "revisions");
    api.fail(2, 400, |seen| seen.resource == "endpoints");
    let gateway = launch(&api).start().await;
    until_ready(&api, "some").await;
    assert_eq!(gateway.get("some.example.com", "/").await.backend(), "one");
}
