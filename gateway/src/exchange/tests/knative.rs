//! What a route of Knative answers by itself, what its endpoints hear, and what an activator is asked.

use config::document::{Fed, Knative};

use super::*;
use crate::observe::access_log::template::Template;

const ROUTES: &str = "
routes:
  - name: a
    networkHash: 0af3
    hosts: [a.test]
    traffic: [{revision: a, setHeaders: {Knative-Serving-Revision: a, Knative-Serving-Namespace: default}}]
  - name: mapped
    networkHash: beef
    hosts: [www.test]
    rules: [{reroute: {host: a.test}, setHeaders: {K-Original-Host: www.test}}]
  - {name: round, hosts: [round.test], rules: [{reroute: {host: round.test}}]}
  - {name: lost, hosts: [lost.test], networkHash: dead, rules: [{reroute: {host: nowhere.test}}]}
  - name: strict
    hosts: [strict.test]
    networkHash: cafe
    rules: [{httpsOnly: true, traffic: [{revision: a}]}, {path: /open, traffic: [{revision: a}]}]
  - name: shy
    visibility: cluster-local
    hosts: [shy.test]
    traffic: [{revision: a}]
  - {name: led, hosts: [led.test], rules: [{reroute: {host: shy.test}}]}
revisions:
  - {name: a}
";

/// A world whose revision is one of Knative.
fn world() -> World {
    World::saying(content(), "127.0.0.1:1".parse().unwrap())
}

fn content() -> Content {
    let mut content = config::parse("test.yaml", ROUTES);
    if let Content::Documents { documents, .. } = &mut content {
        let revision = &mut documents[0].revisions.as_mut().unwrap()[0].value;
        let knative = Some(Knative {
            service: "a-service".into(),
            ..Knative::default()
        });
        revision.fed = Some(Box::new(Fed { knative }));
    }
    content
}

/// What comes back for a request with these fields.
async fn told(world: &World, host: &str, fields: &str, audience: Audience) -> String {
    let mut client = world.client_as(|client| client.audience = audience);
    let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{fields}\r\n");
    say(&mut client, request).await;
    read_all(&mut client).await
}

/// What the endpoint hears of it.
async fn heard(world: &World, host: &str, fields: &str, audience: Audience) -> String {
    let mut client = world.client_as(|client| client.audience = audience);
    let mut endpoint = world.endpoint();
    say(
        &mut client,
        format!("GET / HTTP/1.1\r\nhost: {host}\r\n{fields}\r\n"),
    )
    .await;
    let head = read_head(&mut endpoint).await;
    say(
        &mut endpoint,
        "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n",
    )
    .await;
    read_head(&mut client).await;
    head.to_ascii_lowercase()
}

fn lines<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    let named = head.lines().filter_map(|line| line.split_once(": "));
    let named = named.filter(|(known, _)| known.eq_ignore_ascii_case(name));
    named.map(|(_, value)| value).collect()
}

const ASKS: &str = "K-Network-Probe: probe\r\nK-Network-Hash: override\r\n";

#[test]
fn the_hash_of_a_route_is_told_once_its_targets_can_be_reached() {
    run(async {
        let world = world();
        let answer = told(&world, "a.test", ASKS, Audience::Public).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert_eq!(lines(&answer, "k-network-hash"), ["0af3"]);
        world.throttle.set_endpoints(&[]);
        let answer = told(&world, "a.test", ASKS, Audience::Public).await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(lines(&answer, "k-network-hash").is_empty());
        // An activator is in the path: it brings what is missing.
        world.throttle.set_proxied(true);
        let answer = told(&world, "a.test", ASKS, Audience::Internal).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    });
}

#[test]
fn the_hash_of_a_route_that_leads_to_another_is_its_own() {
    run(async {
        let world = world();
        let answer = told(&world, "www.test", ASKS, Audience::Public).await;
        assert_eq!(lines(&answer, "k-network-hash"), ["beef"], "{answer}");
        let answer = told(&world, "lost.test", ASKS, Audience::Public).await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    });
}

#[test]
fn other_hashes_and_probes_pass_to_the_endpoint() {
    run(async {
        let world = world();
        let fields = "K-Network-Probe: probe\r\nK-Network-Hash: 1234\r\n";
        let head = heard(&world, "a.test", fields, Audience::Public).await;
        assert_eq!(lines(&head, "k-network-hash"), ["1234"], "{head}");
        assert_eq!(lines(&head, "k-network-probe"), ["probe"]);
        let head = heard(
            &world,
            "a.test",
            "K-Network-Hash: override\r\n",
            Audience::Public,
        )
        .await;
        assert_eq!(lines(&head, "k-network-hash"), ["0af3"], "{head}");
    });
}

#[test]
fn an_activator_in_the_path_answers_probes_by_itself() {
    run(async {
        let world = world();
        world.throttle.set_endpoints(&[]);
        world.throttle.set_proxied(true);
        let fields = "K-Network-Probe: probe\r\nK-Network-Hash: 1234\r\n";
        for (host, audience) in [
            ("a.test", Audience::Public),
            ("127.0.0.1:8012", Audience::Activator),
        ] {
            let answer = told(&world, host, fields, audience).await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            assert_eq!(lines(&answer, "k-network-hash"), ["1234"]);
            let answer = told(&world, host, "K-Network-Probe: activator\r\n", audience).await;
            assert!(
                answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nactivator"),
                "{answer}"
            );
            let answer = told(&world, host, "K-Network-Probe: probe\r\n", audience).await;
            assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
            assert!(
                answer.ends_with(
                    "a probe request must contain a non-empty \"K-Network-Hash\" header\n"
                )
            );
            let answer = told(&world, host, "K-Network-Probe: <queue>\r\n", audience).await;
            assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
            assert!(
                answer.ends_with("unexpected probe header value: &lt;queue&gt;\n"),
                "{answer}"
            );
        }
    });
}

#[test]
fn requests_that_count_with_us_are_marked() {
    run(async {
        let world = world();
        let head = heard(&world, "a.test", "", Audience::Public).await;
        assert!(lines(&head, "k-proxy-request").is_empty(), "{head}");
        assert_eq!(lines(&head, "host"), ["a.test"]);
        world.throttle.set_proxied(true);
        let forged = "K-Original-Host: evil.test\r\nK-Proxy-Request: x\r\nK-Network-Hash: 1\r\n";
        let head = heard(&world, "a.test:80", forged, Audience::Public).await;
        assert_eq!(lines(&head, "k-proxy-request"), ["activator"], "{head}");
        assert_eq!(lines(&head, "k-original-host"), ["a.test:80"]);
        assert_eq!(lines(&head, "host"), ["127.0.0.1:1"]);
        for gone in [
            "knative-serving-revision",
            "knative-serving-namespace",
            "k-network-hash",
        ] {
            assert!(lines(&head, gone).is_empty(), "{gone}: {head}");
        }
    });
}

#[test]
fn a_mapped_domain_is_what_the_application_is_to_see() {
    run(async {
        let world = world();
        let head = heard(&world, "www.test", "", Audience::Public).await;
        assert_eq!(lines(&head, "host"), ["a.test"], "{head}");
        assert_eq!(lines(&head, "k-original-host"), ["www.test"]);
        world.throttle.set_proxied(true);
        let head = heard(&world, "www.test", "", Audience::Public).await;
        assert_eq!(lines(&head, "host"), ["127.0.0.1:1"], "{head}");
        assert_eq!(lines(&head, "k-original-host"), ["www.test"]);
    });
}

#[test]
fn another_look_up_is_an_internal_one_and_ends() {
    run(async {
        let world = world();
        let answer = told(&world, "shy.test", "", Audience::Public).await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
        let head = heard(&world, "led.test", "", Audience::Public).await;
        assert_eq!(lines(&head, "host"), ["shy.test"], "{head}");
        let answer = told(&world, "round.test", "", Audience::Public).await;
        assert!(answer.starts_with("HTTP/1.1 508 "), "{answer}");
    });
}

#[test]
fn an_activator_finds_revisions_by_name() {
    run(async {
        let world = world();
        let named = "Knative-Serving-Namespace: default\r\nKnative-Serving-Revision: a\r\n";
        for (host, fields) in [
            ("whatever.test", named),
            ("a.default.svc.cluster.local", ""),
            (
                "a.default.svc.cluster.local:80",
                "Knative-Serving-Revision: other\r\n",
            ),
        ] {
            let head = heard(&world, host, fields, Audience::Activator).await;
            assert_eq!(lines(&head, "host"), [host], "{head}");
        }
        for (host, fields) in [
            ("a.test", ""),
            ("a.default.svc.elsewhere", ""),
            ("x.default.svc.cluster.local", ""),
        ] {
            let answer = told(&world, host, fields, Audience::Activator).await;
            assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
            assert!(
                answer.contains("\r\ntidegate-reason: no_route\r\n"),
                "{answer}"
            );
            let (_, said) = answer.split_once("\r\n\r\n").unwrap();
            let name = if host.starts_with('x') { "x" } else { "" };
            assert_eq!(
                said,
                format!(
                    "Error getting active endpoint: revision.serving.knative.dev \"{name}\" not found\n"
                )
            );
        }
    });
}

#[test]
fn the_kubelet_hears_of_an_activator_until_it_ends() {
    run(async {
        let world = world();
        for asks in ["User-Agent: kube-probe/1.30\r\n", "K-Kubelet-Probe: x\r\n"] {
            let answer = told(&world, "10.0.0.1:8012", asks, Audience::Activator).await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        }
        world.worker.phase.set(Phase::Announced);
        let asks = "User-Agent: kube-probe/1.30\r\n";
        let answer = told(&world, "10.0.0.1:8012", asks, Audience::Activator).await;
        assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
        assert!(
            answer.ends_with("received SIGTERM from kubelet\n"),
            "{answer}"
        );
        // From outside it is a request like any other, which a queue-proxy must not take for a probe.
        let head = heard(&world, "a.test", asks, Audience::Public).await;
        assert!(lines(&head, "user-agent").is_empty(), "{head}");
    });
}

#[test]
fn plain_requests_of_the_public_are_sent_to_https_where_a_rule_wants_it() {
    run(async {
        let world = world();
        let answer = told(&world, "strict.test:80", "", Audience::Public).await;
        assert!(answer.starts_with("HTTP/1.1 301 "), "{answer}");
        assert_eq!(lines(&answer, "location"), ["https://strict.test/"]);
        // As its controller takes for an answer.
        let answer = told(&world, "strict.test", ASKS, Audience::Public).await;
        assert!(answer.starts_with("HTTP/1.1 301 "), "{answer}");
        heard(&world, "strict.test", "", Audience::Internal).await;
        let mut client = world.client_as(|client| client.secure = true);
        let mut endpoint = world.endpoint();
        say(&mut client, "GET / HTTP/1.1\r\nhost: strict.test\r\n\r\n").await;
        read_head(&mut endpoint).await;
    });
}

#[test]
fn requests_to_revisions_are_logged_as_the_template_says_and_probes_never() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("requests.log");
    let log = access_log::Config {
        mode: access_log::Mode::Off,
        per_second: 0,
        format: access_log::Format::Text,
        file: access_log::Target::Stderr,
        requests: Some(access_log::Target::Path(path.clone())),
    };
    run(async {
        let world = World::logging(content(), "127.0.0.1:1".parse().unwrap(), &log);
        // Before there is a template nothing is kept.
        heard(&world, "a.test", "", Audience::Public).await;
        let template = "{{.Revision.Namespace}}/{{.Revision.Name}} of {{.Revision.Service}}: \
                        {{.Request.Method}} {{.Request.Host}} {{.Request.ContentLength}} \
                        {{.Response.Code}} {{.Response.Size}} {{.Request.Header.Get \"X-Who\"}} \
                        {{.TraceID}}";
        let template = Template::parse(template).unwrap();
        world.log.switches().set_request_log(Some(template));
        let mut client = world.client();
        let mut endpoint = world.endpoint();
        say(
            &mut client,
            "POST /x HTTP/1.1\r\nhost: a.test\r\nx-who: me\r\ntraceparent: 00-ab12-cd-01\r\n\
             content-length: 3\r\n\r\nabc",
        )
        .await;
        read_head(&mut endpoint).await;
        say(
            &mut endpoint,
            "HTTP/1.1 201 Created\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n\
             5\r\nhello\r\n0\r\n\r\n",
        )
        .await;
        read_head(&mut client).await;
        drop(client);
        // None of these is a request to a revision.
        told(&world, "a.test", ASKS, Audience::Public).await;
        told(&world, "nobody.test", "", Audience::Public).await;
        let asks = "K-Network-Probe: queue\r\nx-who: probe\r\n";
        heard(&world, "a.test", asks, Audience::Internal).await;
        world.throttle.retire();
        world.log.shutdown();
    });
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(
        text,
        "default/a of a-service: POST a.test 3 201 5 me ab12\n"
    );
}
