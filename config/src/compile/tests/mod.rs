mod clusters;
mod incremental;
mod queue;
mod transport;

use std::time::Duration;

use super::*;
use crate::fragment::{Content, Origin};
use crate::revision::{Address, Backend, Readiness};
use crate::snapshot::{Route, Snapshot};
use crate::{document, parse};

fn fragment(file: &str, text: &str) -> Fragment {
    Fragment {
        origin: Origin::File(file.into()),
        content: parse(file, text),
    }
}

fn compile(text: &str) -> Result<Compiled, Vec<Problem>> {
    Compiler::default().apply(vec![fragment("f.yaml", text)])
}

#[track_caller]
fn compiled(text: &str) -> Compiled {
    match compile(text) {
        Ok(compiled) => compiled,
        Err(problems) => panic!("{}", lines(&problems)),
    }
}

fn lines(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

/// The problems of a text, as the lines that are logged.
#[track_caller]
fn refused(text: &str) -> Vec<String> {
    let problems = compile(text).expect_err("it should be refused");
    problems.iter().map(ToString::to_string).collect()
}

const REVISION: &str = "
revisions:
  - {name: r1, endpoints: ['10.0.0.5:8080']}
  - {name: r2, endpoints: ['10.0.0.6:8080']}
";

/// The problems of a route that goes on after `- name: a`.
#[track_caller]
fn route_refused(rest: &str) -> Vec<String> {
    refused(&format!("{REVISION}routes:\n  - name: a\n{rest}"))
}

/// The problems of a revision that goes on after `- name: a`.
#[track_caller]
fn revision_refused(rest: &str) -> Vec<String> {
    refused(&format!("revisions:\n  - name: a\n{rest}"))
}

#[track_caller]
fn route(compiled: &Compiled, name: &str) -> Arc<Route> {
    let found = compiled
        .snapshot
        .routes()
        .find(|route| &*route.key.name == name);
    Arc::clone(found.expect("the route is there"))
}

#[test]
fn percents_must_sum_to_100() {
    assert_eq!(
        route_refused("    traffic: [{revision: r1, percent: 70}, {revision: r2, percent: 20}]\n"),
        [
            "f.yaml:7:14: routes[0].traffic: the percents sum to 90, not 100 (70 + 20); \
             add 10 to one of them"
        ]
    );
    assert_eq!(
        route_refused("    traffic: [{revision: r1, percent: 70}]\n"),
        [
            "f.yaml:7:14: routes[0].traffic: the percents sum to 70, not 100 (70); \
             add 30 to one of them"
        ]
    );
}

#[test]
fn a_percent_is_between_0_and_100() {
    assert_eq!(
        route_refused("    traffic: [{revision: r1, percent: 101}, {revision: r2, percent: -1}]\n"),
        [
            "f.yaml:7:39: routes[0].traffic[0].percent: the percent is out of range (101); \
             write an integer of 0 to 100",
            "f.yaml:7:69: routes[0].traffic[1].percent: the percent is out of range (-1); \
             write an integer of 0 to 100",
        ]
    );
}

#[test]
fn several_targets_need_percents_and_a_lone_one_needs_none() {
    let missing = route_refused("    traffic: [{revision: r1, percent: 100}, {revision: r2}]\n");
    assert_eq!(
        missing,
        [
            "f.yaml:7:45: routes[0].traffic[1]: the percent is missing (r2); \
             add `percent: ...`; 0 lets only requests with its tag through"
        ]
    );
    let lone = compiled(&format!(
        "{REVISION}routes: [{{name: a, traffic: [{{revision: r1}}]}}]"
    ));
    assert_eq!(route(&lone, "a").split.targets[0].percent, 100);
}

#[test]
fn an_unknown_revision_is_told_with_the_nearest_name() {
    assert_eq!(
        route_refused("    traffic: [{revision: r3}]\n"),
        [
            "f.yaml:7:26: routes[0].traffic[0].revision: unknown revision (r3); \
             one of: r1, r2"
        ]
    );
    let near = "revisions: [{name: coffee-00001}]\nroutes: [{name: a, traffic: [{revision: cofee-00001}]}]";
    assert_eq!(
        refused(near),
        [
            "f.yaml:2:41: routes[0].traffic[0].revision: unknown revision (cofee-00001); \
             did you mean `coffee-00001`?"
        ]
    );
}

#[test]
fn a_revision_is_looked_up_in_the_namespace_of_the_route() {
    let text = "
revisions: [{name: r, namespace: one}]
routes: [{name: a, namespace: two, traffic: [{revision: r}]}]";
    assert_eq!(
        refused(text),
        [
            "f.yaml:3:57: routes[0].traffic[0].revision: unknown revision (r); \
             there is no revision in namespace `two`"
        ]
    );
}

#[test]
fn the_same_requests_on_one_host_are_told_at_both_places() {
    let text = format!(
        "{REVISION}routes:
  - {{name: a, hosts: [x.example.com], traffic: [{{revision: r1}}]}}
  - {{name: b, hosts: [X.example.com.], traffic: [{{revision: r1}}]}}
"
    );
    assert_eq!(
        refused(&text),
        [
            "f.yaml:6:23: routes[0].hosts[0]: route default/b has a rule for the same requests on \
             `x.example.com` (x.example.com); change or remove one; the other route is at f.yaml:7",
            "f.yaml:7:23: routes[1].hosts[0]: route default/a has a rule for the same requests on \
             `x.example.com` (X.example.com.); change or remove one; the other route is at f.yaml:6",
        ]
    );
}

#[test]
fn routes_may_share_a_host_when_their_rules_differ() {
    let text = format!(
        "{REVISION}routes:
  - name: a
    hosts: ['*']
    rules: [{{path: /a, traffic: [{{revision: r1}}]}}, {{path: /b, methods: [GET], traffic: [{{revision: r1}}]}}]
  - name: b
    hosts: ['*']
    rules: [{{path: /b, methods: [POST], traffic: [{{revision: r2}}]}}, {{pathExact: /a, traffic: [{{revision: r2}}]}}]
"
    );
    compiled(&text);
}

#[test]
fn the_same_rule_twice_in_a_route_is_told_at_both_places() {
    let rules = "    rules:
      - {path: /x, methods: [GET, POST], traffic: [{revision: r1}]}
      - {path: /x, methods: [POST, GET], traffic: [{revision: r2}]}
";
    assert_eq!(
        route_refused(rules),
        [
            "f.yaml:8:16: routes[0].rules[0].path: two rules match the same requests (/x); \
             merge it with rule 2 at line 9",
            "f.yaml:9:16: routes[0].rules[1].path: two rules match the same requests (/x); \
             merge it with rule 1 at line 8",
        ]
    );
}

#[test]
fn bad_host_patterns_are_refused() {
    for (host, hint) in [
        (
            "*bot.example.com",
            "`*` stands alone or as the first label: *.example.com",
        ),
        (
            "a.*.example.com",
            "`*` stands alone or as the first label: *.example.com",
        ),
        (
            "a.example.com:8080",
            "write it without the port: ports are not compared",
        ),
        (
            "https://a.example.com",
            "write the host alone, without scheme and path",
        ),
        (
            "bücher.example.com",
            "write international names in their ASCII form (xn--...)",
        ),
        (
            "a..b",
            "use labels of 1 to 63 letters, digits and `-`, parted by dots",
        ),
        (
            "-a.b",
            "use labels of 1 to 63 letters, digits and `-`, parted by dots",
        ),
        ("[::1", "write an IPv6 address in brackets: [::1]"),
    ] {
        let problems = route_refused(&format!(
            "    traffic: [{{revision: r1}}]\n    hosts: ['{host}']\n"
        ));
        let wanted = format!("f.yaml:8:13: routes[0].hosts[0]: bad host pattern ({host}); {hint}");
        assert_eq!(problems, [wanted]);
    }
}

#[test]
fn names_are_dns_labels() {
    let text = format!(
        "{REVISION}routes:
  - {{name: Chat, traffic: [{{revision: r1}}]}}
  - {{name: a, namespace: a_b, traffic: [{{revision: r1}}]}}
"
    );
    let problems = refused(&text);
    assert_eq!(
        problems[0],
        "f.yaml:6:12: routes[0].name: the name is not a DNS label (Chat); write `chat`"
    );
    assert!(
        problems[1].starts_with(
            "f.yaml:7:26: routes[1].namespace: the namespace is not a DNS label (a_b); use 1 to 63"
        ),
        "{problems:?}"
    );
    let long = "x".repeat(64);
    let problems = revision_refused(&format!("  - name: {long}\n"));
    assert!(problems[0].contains("revisions[1].name: the name is not a DNS label"));
}

#[test]
fn tags_are_labels_and_unique_in_a_split() {
    let problems = route_refused(
        "    traffic: [{revision: r1, percent: 50, tag: x}, {revision: r2, percent: 50, tag: x}]\n",
    );
    assert_eq!(
        problems,
        [
            "f.yaml:7:85: routes[0].traffic[1].tag: tag used twice in a split (x); \
             give every target of a split a tag of its own"
        ]
    );
    let problems = route_refused("    traffic: [{revision: r1, tag: a.b}]\n");
    assert!(problems[0].contains("traffic[0].tag: the tag is not a DNS label (a.b)"));
    let tag = "t".repeat(62);
    let problems = route_refused(&format!("    traffic: [{{revision: r1, tag: {tag}}}]\n"));
    assert!(
        problems[0].contains("is longer than 63 characters"),
        "{problems:?}"
    );
    assert!(
        problems[0].ends_with("shorten it by 1 characters"),
        "{problems:?}"
    );
}

#[test]
fn a_revision_has_endpoints_or_a_process() {
    let both = "    endpoints: ['10.0.0.5:80']\n    process: {command: [x]}\n";
    assert_eq!(
        revision_refused(both),
        [
            "f.yaml:4:14: revisions[0].process: both `endpoints` and `process` ({…}); \
             keep `endpoints` for fixed addresses, or `process` to start it on demand"
        ]
    );
    let neither = compiled("revisions: [{name: a}, {name: b, endpoints: []}]");
    assert!(
        neither
            .snapshot
            .revisions()
            .all(|r| r.backend == Backend::None)
    );
}

#[test]
fn scale_needs_a_process_and_health_needs_endpoints() {
    assert_eq!(
        revision_refused("    scale: {min: 1}\n    health: {path: /}\n"),
        [
            "f.yaml:3:18: revisions[0].scale.min: `min` without `process` (1); \
             only processes are scaled: add `process`, or remove `min`",
            "f.yaml:4:13: revisions[0].health: `health` without `endpoints` ({…}); \
             only fixed endpoints are checked: add `endpoints`, or remove `health`",
        ]
    );
}

#[test]
fn bad_endpoint_addresses_are_refused() {
    const FORM: &str = "write host and port: 10.0.0.5:8080, [::1]:8080 or svc.internal:8080";
    const PORT: &str = "write a port of 1 to 65535";
    for (address, hint) in [
        ("10.0.0.5", FORM),
        ("10.0.0.300:80", FORM),
        ("::1:80", FORM),
        (":80", FORM),
        ("http://a:80", FORM),
        ("svc.internal:0", PORT),
        ("10.0.0.5:0", PORT),
        ("svc:65536", PORT),
    ] {
        let wanted = format!(
            "f.yaml:3:17: revisions[0].endpoints[0]: bad endpoint address ({address}); {hint}"
        );
        assert_eq!(
            revision_refused(&format!("    endpoints: ['{address}']\n")),
            [wanted]
        );
    }
    let twice = revision_refused("    endpoints: ['a:80', 'A.:80']\n");
    assert!(
        twice[0].contains("endpoints[1]: endpoint given twice"),
        "{twice:?}"
    );
}

#[test]
fn endpoints_are_addresses_or_names() {
    let compiled = compiled(
        "revisions: [{name: a, endpoints: ['10.0.0.5:80', '[::1]:81', 'SVC.internal:82']}]",
    );
    let revision = compiled.snapshot.revisions().next().expect("it is there");
    let Backend::Fixed { endpoints, .. } = &revision.backend else {
        panic!("{revision:?}");
    };
    assert_eq!(endpoints[0], Address::Ip(([10, 0, 0, 5], 80).into()));
    assert!(matches!(&endpoints[1], Address::Ip(ip) if ip.is_ipv6()));
    assert!(matches!(&endpoints[2], Address::Name { host, port: 82 } if &**host == "svc.internal"));
}

#[test]
fn headers_that_cannot_be_are_refused() {
    let rule = |keys: &str| {
        route_refused(&format!(
            "    rules:\n      - traffic: [{{revision: r1}}]\n{keys}"
        ))
    };
    let split = rule("        setHeaders: { x-a: \"a\\r\\nevil: 1\" }\n");
    assert_eq!(
        split,
        [
            "f.yaml:9:28: routes[0].rules[0].setHeaders.x-a: bad header value (a\\r\\nevil: 1); \
             line breaks would end the field: remove them"
        ]
    );
    let name = rule("        setResponseHeaders: { \"x a\": b }\n");
    assert!(
        name[0].contains("setResponseHeaders.x a: bad header name (x a)"),
        "{name:?}"
    );
    let twice = rule("        headers: { x-a: b, X-A: c }\n");
    assert!(
        twice[0].contains("headers.X-A: header given twice (X-A)"),
        "{twice:?}"
    );
    let host = rule("        setHeaders: { Host: b }\n");
    assert!(
        host[0].ends_with("this header cannot be set (Host); use `rewriteHost`"),
        "{host:?}"
    );
    for framing in [
        "Content-Length",
        "transfer-encoding",
        "connection",
        "upgrade",
    ] {
        let problems = rule(&format!("        setHeaders: {{ {framing}: b }}\n"));
        assert!(
            problems[0].contains("this header cannot be set"),
            "{problems:?}"
        );
    }
}

#[test]
fn paths_begin_with_a_slash_and_have_no_query() {
    let path = |path: &str| {
        route_refused(&format!(
            "    rules:\n      - {{path: '{path}', traffic: [{{revision: r1}}]}}\n"
        ))
    };
    assert_eq!(
        path("api"),
        ["f.yaml:8:16: routes[0].rules[0].path: bad path (api); begin it with `/`"]
    );
    assert!(path("/a?b")[0].contains("without the query"));
    assert!(path("/a b")[0].contains("percent-encode"));
    assert!(path("/ä")[0].contains("percent-encode"));
}

#[test]
fn a_rule_has_one_path_and_one_action() {
    let problems = route_refused(
        "    rules:
      - {path: /a, pathExact: /b, respond: {}}
      - {path: /b}
      - {path: /c, respond: {}, redirect: {scheme: https}}
",
    );
    assert_eq!(
        problems,
        [
            "f.yaml:8:31: routes[0].rules[0].pathExact: both `path` and `pathExact` (/b); \
             keep one of them",
            "f.yaml:9:9: routes[0].rules[1]: the rule does nothing ({…}); \
             add one of `traffic`, `redirect`, `respond` and `reroute`",
            "f.yaml:10:29: routes[0].rules[2].respond: both `redirect` and `respond` ({…}); \
             keep one of them",
        ]
    );
}

#[test]
fn what_needs_traffic_is_refused_without_it() {
    let problems = route_refused(
        "    rules: [{respond: {}, setHeaders: {a: b}, rewriteHost: a, rewritePath: /, timeout: 1s, priority: 1, deadline: {header: a}}]\n",
    );
    let without = |key: &str| {
        problems
            .iter()
            .any(|p| p.contains(&format!("`{key}` without")))
    };
    assert!(
        [
            "setHeaders",
            "rewriteHost",
            "rewritePath",
            "timeout",
            "priority",
            "deadline"
        ]
        .iter()
        .all(|k| without(k))
    );
    assert_eq!(problems.len(), 6);
}

#[test]
fn a_route_needs_traffic_or_rules() {
    let problems = route_refused("    hosts: [b.example.com]\n");
    assert_eq!(
        problems,
        [
            "f.yaml:6:11: routes[0]: neither `traffic` nor `rules` (a); \
             add `traffic: [{revision: NAME}]`, or `rules`"
        ]
    );
    let problems = route_refused("    traffic: []\n");
    assert!(
        problems[0].contains("routes[0].traffic: there is no target"),
        "{problems:?}"
    );
}

#[test]
fn sticky_is_by_header_or_by_cookie() {
    let sticky = |sticky: &str| {
        route_refused(&format!(
            "    traffic: [{{revision: r1}}]\n    sticky: {sticky}\n"
        ))
    };
    assert!(sticky("{}")[0].contains("routes[0].sticky: neither `header` nor `cookie`"));
    assert!(sticky("{header: a, cookie: b}")[0].contains("both `header` and `cookie`"));
    assert!(sticky("{header: a, ttl: 1h}")[0].contains("sticky.ttl: `ttl` without `cookie` (1h)"));
    assert!(sticky("{header: 'a b'}")[0].contains("sticky.header: bad header name"));
    assert!(sticky("{cookie: 'a=b'}")[0].contains("sticky.cookie: bad cookie name"));
    assert!(sticky("{cookie: a, ttl: 0s}")[0].contains("the duration is shorter than 1s (0s)"));
    assert!(sticky("{cookie: a, ttl: soon}")[0].contains("this is not a duration (soon)"));
}

#[test]
fn durations_that_mean_nothing_are_refused() {
    let problems = revision_refused(
        "    timeout: 5
    queue: {wait: 0s}
    endpoints: ['a:1']
    health: {path: healthz, interval: 0s}
",
    );
    assert_eq!(
        problems,
        [
            "f.yaml:3:14: revisions[0].timeout: the duration has no unit (5); \
             write 5s for seconds, or 5ms for milliseconds",
            "f.yaml:4:19: revisions[0].queue.wait: the duration must not be zero (0s); \
             write at least 1ms, for instance 300s",
            "f.yaml:6:20: revisions[0].health.path: bad path (healthz); begin it with `/`",
            "f.yaml:6:39: revisions[0].health.interval: the duration must not be zero (0s); \
             write at least 1ms, for instance 5s",
        ]
    );
}

#[test]
fn a_default_or_tag_host_that_another_route_claims_is_told_at_both_places() {
    let text = format!(
        "{REVISION}routes:
  - {{name: a, traffic: [{{revision: r1, tag: new}}]}}
  - {{name: b, hosts: [a.default.example.com], traffic: [{{revision: r1}}]}}
  - {{name: new-a, traffic: [{{revision: r1}}]}}
"
    );
    assert_eq!(
        refused(&text),
        [
            "f.yaml:6:12: routes[0].name: host `a.default.example.com` is listed by route \
             default/b (a); rename the route, or change the claim at f.yaml:7",
            "f.yaml:6:45: routes[0].traffic[0].tag: host `new-a.default.example.com` is the \
             default host of route default/new-a (new); rename the tag, or change the claim at \
             f.yaml:8",
            "f.yaml:7:23: routes[1].hosts[0]: host `a.default.example.com` is the default host of \
             route default/a (a.default.example.com); remove this host, or change the claim at \
             f.yaml:6",
            "f.yaml:8:12: routes[2].name: host `new-a.default.example.com` is a tag host of route \
             default/a (new-a); rename the route, or change the claim at f.yaml:6",
        ]
    );
}

#[test]
fn two_routes_with_one_tag_host_are_refused() {
    let text = format!(
        "{REVISION}routes:
  - {{name: b-c, traffic: [{{revision: r1, tag: a}}]}}
  - {{name: c, traffic: [{{revision: r1, tag: a-b}}]}}
"
    );
    let problems = refused(&text);
    assert_eq!(problems.len(), 2);
    assert!(problems[0].contains("routes[0].traffic[0].tag: host `a-b-c.default.example.com`"));
    assert!(problems[1].contains("routes[1].traffic[0].tag: host `a-b-c.default.example.com`"));
}

#[test]
fn a_route_may_list_its_default_host_but_not_its_tag_host() {
    let listed = |host: &str| {
        let text = format!(
            "{REVISION}routes: [{{name: a, hosts: [{host}], traffic: [{{revision: r1, tag: t}}]}}]"
        );
        compile(&text)
    };
    assert!(listed("a.default.example.com").is_ok());
    assert_eq!(
        listed("t-a.default.example.com")
            .expect_err("it is taken")
            .len(),
        2
    );
}

#[test]
fn processes_are_checked() {
    let problems = revision_refused(
        "    process:
      command: ['']
      env: { PORT: '1', 'a=b': c }
      readiness: { path: ready }
    scale: { min: 3, max: 2, target: 0.5, window: 10ms }
",
    );
    let has = |part: &str| problems.iter().any(|problem| problem.contains(part));
    assert!(
        has("f.yaml:4:17: revisions[0].process.command: the command is empty"),
        "{problems:?}"
    );
    assert!(
        has("process.env.PORT: this variable cannot be set (PORT)"),
        "{problems:?}"
    );
    assert!(
        has("process.env.a=b: bad variable name (a=b)"),
        "{problems:?}"
    );
    assert!(
        has("process.readiness.path: bad path (ready)"),
        "{problems:?}"
    );
    assert!(has(
        "f.yaml:7:19: revisions[0].scale.min: `min` is greater than `max` (3)"
    ));
    assert!(
        has("scale.target: the target is below 1 (0.5)"),
        "{problems:?}"
    );
    assert!(
        has("scale.window: the duration is shorter than 1s (10ms)"),
        "{problems:?}"
    );
    assert_eq!(problems.len(), 7);
    for target in [".nan", ".inf", "-1"] {
        let scale = format!("    process: {{command: [x]}}\n    scale: {{target: {target}}}\n");
        assert_eq!(revision_refused(&scale).len(), 1, "{target}");
    }
}

#[test]
fn redirects_and_responses_are_checked() {
    let problems = route_refused(
        "    rules:
      - {path: /a, redirect: {scheme: ftp, host: 'a/b', path: x, status: 200}}
      - {path: /b, redirect: {status: 302}}
      - {path: /c, respond: {status: 100, contentType: \"a\\nb\"}}
      - {path: /d, respond: {status: 204, body: x}}
",
    );
    let has = |part: &str| problems.iter().any(|problem| problem.contains(part));
    assert!(has(
        "rules[0].redirect.scheme: bad scheme (ftp); write http or https"
    ));
    assert!(has("rules[0].redirect.host: bad host (a/b)"));
    assert!(has("rules[0].redirect.path: bad path (x)"));
    assert!(has(
        "rules[0].redirect.status: this status does not redirect (200)"
    ));
    assert!(has(
        "rules[1].redirect: the redirect leads to where it comes from"
    ));
    assert!(has(
        "rules[2].respond.status: the number is out of range (100)"
    ));
    assert!(
        has("rules[2].respond.contentType: bad header value (a\\nb)"),
        "{problems:?}"
    );
    assert!(has(
        "rules[3].respond.body: an answer with status 204 has no body (x)"
    ));
    assert_eq!(problems.len(), 8, "{problems:?}");
}

#[test]
fn methods_are_tokens_in_upper_case() {
    let methods = "    rules: [{methods: [get, 'A B'], traffic: [{revision: r1}]}]\n";
    assert_eq!(
        route_refused(methods),
        [
            "f.yaml:7:24: routes[0].rules[0].methods[0]: bad method (get); \
             methods know case: write `GET`",
            "f.yaml:7:29: routes[0].rules[0].methods[1]: bad method (A B); \
             write a method like GET",
        ]
    );
}

#[test]
fn a_name_given_twice_is_told_at_both_places_even_in_two_files() {
    let text = "revisions: [{name: r}]\n";
    let problems = Compiler::default()
        .apply(vec![fragment("a.yaml", text), fragment("b.yaml", text)])
        .expect_err("it is given twice");
    assert_eq!(
        lines(&problems),
        "a.yaml:1:20: revisions[0].name: the revision default/r is given twice (r); \
         rename or remove one; the other is at b.yaml:1\n\
         b.yaml:1:20: revisions[0].name: the revision default/r is given twice (r); \
         rename or remove one; the other is at a.yaml:1"
    );
}

#[test]
fn what_is_given_twice_is_checked_twice() {
    let problems = refused("revisions: [{name: r}, {name: r, concurrency: -1}]");
    assert!(
        problems
            .iter()
            .any(|p| p.contains("revisions[1].concurrency")),
        "{problems:?}"
    );
}

#[test]
fn two_different_domains_are_refused_and_two_gateways_too() {
    let problems = Compiler::default()
        .apply(vec![
            fragment("a.yaml", "domain: a.example\ngateway: {}"),
            fragment("b.yaml", "domain: b.example\ngateway: {}"),
        ])
        .expect_err("they disagree");
    assert_eq!(
        lines(&problems),
        "a.yaml:1:9: domain: two different domains (a.example); keep one; the other is at b.yaml:1\n\
         a.yaml:2:10: gateway: `gateway` is given more than once ({…}); merge it with the one at b.yaml:2\n\
         b.yaml:1:9: domain: two different domains (b.example); keep one; the other is at a.yaml:1\n\
         b.yaml:2:10: gateway: `gateway` is given more than once ({…}); merge it with the one at a.yaml:2"
    );
}

#[test]
fn the_domain_is_checked() {
    assert!(refused("domain: '*.x'")[0].contains("domain: bad domain (*.x)"));
}

#[test]
fn memory_is_a_number_of_bytes_one_can_live_with() {
    let memory = |bytes: &str| format!("gateway: {{ limits: {{ memory: {bytes} }} }}");
    let limit = |bytes: &str| compiled(&memory(bytes)).settings.limits.memory;
    assert_eq!(limit("0"), None);
    assert_eq!(limit("268435456"), Some(268_435_456));
    for bytes in ["1", "16777215", "-1", "9000000000000000000"] {
        let problems = refused(&memory(bytes));
        assert!(problems[0].starts_with("f.yaml:1:30: gateway.limits.memory: "));
        assert_eq!(problems.len(), 1, "{bytes}");
    }
}

#[test]
fn bounds_on_connections_are_numbers_and_zero_is_none() {
    let limits = |connections: i64, per_address: i64, listener: i64| {
        compiled(&format!(
            "gateway: {{ listeners: [ {{ address: '127.0.0.1:1', connections: {listener} }} ],
              limits: {{ connections: {connections}, connectionsPerAddress: {per_address} }} }}"
        ))
        .settings
    };
    let none = limits(0, 0, 0);
    assert_eq!(none.limits.connections, None);
    assert_eq!(none.limits.connections_per_address, None);
    assert_eq!(none.listeners[0].connections, None);
    let some = limits(7, 8, 9);
    assert_eq!(some.limits.connections, Some(7));
    assert_eq!(some.limits.connections_per_address, Some(8));
    assert_eq!(some.listeners[0].connections, Some(9));
    let problems = refused(
        "gateway: { listeners: [ { address: '127.0.0.1:1', connections: -1 } ],
           limits: { connections: -1, connectionsPerAddress: -1 } }",
    );
    assert_eq!(problems.len(), 3, "{problems:?}");
    assert!(
        problems
            .iter()
            .all(|problem| problem.contains("out of range"))
    );
}

#[test]
fn what_may_be_held_can_be_said_of_a_namespace_and_of_a_revision() {
    let text = |per_namespace: &str, queue: &str| {
        format!(
            "gateway: {{ limits: {{ {per_namespace} }} }}
revisions: [ {{ name: a, queue: {{ {queue} }} }} ]"
        )
    };
    let bounds = |per_namespace: &str, queue: &str| {
        let compiled = compiled(&text(per_namespace, queue));
        let revision = compiled.snapshot.revisions().next().unwrap().clone();
        let limits = compiled.settings.limits;
        (limits.held_per_namespace, revision.queue.bytes)
    };
    assert_eq!(bounds("", ""), (None, None));
    assert_eq!(bounds("heldPerNamespace: 0", "bytes: 0"), (None, Some(0)));
    assert_eq!(
        bounds("heldPerNamespace: 7", "bytes: 8"),
        (Some(7), Some(8))
    );
    let problems = refused(&text("heldPerNamespace: -1", "bytes: -1"));
    assert_eq!(problems.len(), 2, "{problems:?}");
}

#[test]
fn process_options_are_checked() {
    let problems = refused(
        "
gateway:
  listeners:
    - { address: ':8080' }
    - { address: '127.0.0.1:9901' }
    - { address: '127.0.0.1:9901' }
  admin: 127.0.0.1:9901
  workers: -1
  trustedProxies: [10.0.0.0/33]
  accessLog: { perSecond: 0 }
  limits: { headBytes: 10, headFields: 0, attempts: 0, headTimeout: 0s, connect: forever }
",
    );
    let has = |part: &str| problems.iter().any(|problem| problem.contains(part));
    assert!(
        has("f.yaml:4:18: gateway.listeners[0].address: bad address (:8080)"),
        "{problems:?}"
    );
    assert!(has(
        "f.yaml:5:18: gateway.listeners[1].address: two listeners have the same address"
    ));
    assert!(has(
        "f.yaml:6:18: gateway.listeners[2].address: two listeners have the same address"
    ));
    assert!(
        has("gateway.admin: a listener has the same address"),
        "{problems:?}"
    );
    assert!(
        has("gateway.workers: the number is out of range (-1)"),
        "{problems:?}"
    );
    assert!(
        has("gateway.trustedProxies[0]: bad network (10.0.0.0/33)"),
        "{problems:?}"
    );
    assert!(has(
        "gateway.accessLog.perSecond: the number is out of range (0)"
    ));
    assert!(has(
        "gateway.limits.headBytes: the number is out of range (10)"
    ));
    assert!(has(
        "gateway.limits.headFields: the number is out of range (0)"
    ));
    assert!(has(
        "gateway.limits.attempts: the number is out of range (0)"
    ));
    assert!(has(
        "gateway.limits.headTimeout: the duration must not be zero (0s)"
    ));
    assert!(has(
        "gateway.limits.connect: this is not a duration (forever)"
    ));
    assert!(
        has("gateway.limits.targetBytes") || problems.len() == 12,
        "{problems:?}"
    );
}

#[test]
fn a_connection_s_age_of_zero_is_no_bound() {
    for (written, wanted) in [
        ("", None),
        ("connectionAge: 0s", None),
        ("connectionAge: 1h", Some(Duration::from_secs(3600))),
    ] {
        let compiled = compiled(&format!("gateway: {{ limits: {{ {written} }} }}"));
        assert_eq!(compiled.settings.limits.connection_age, wanted, "{written}");
    }
    let problems = refused("gateway: {limits: {connectionAge: old}}");
    assert!(
        problems[0].contains("gateway.limits.connectionAge: this is not a duration (old)"),
        "{problems:?}"
    );
}

#[test]
fn a_target_longer_than_the_head_is_refused() {
    let problems = refused("gateway: {limits: {headBytes: 4096}}");
    assert!(
        problems[0].contains("`targetBytes` is greater than `headBytes`"),
        "{problems:?}"
    );
}

#[test]
fn process_options_are_read() {
    let compiled = compiled(
        "
gateway:
  listeners:
    - { address: '127.0.0.1:8080', audience: internal }
  admin: '[::1]:9901'
  workers: 3
  drain: { wait: 1s, timeout: 2s }
  trustedProxies: [10.0.0.0/8, '::1']
  accessLog: { mode: off, perSecond: 5, format: json, file: logs/access.log }
  limits: { headTimeout: 100ms, bodyBytes: 10, dotSegments: keep, underscores: drop, attempts: 1, held: 5 }
",
    );
    let settings = &compiled.settings;
    assert!(compiled.settings_changed);
    assert_eq!(
        settings.listeners[0].audience,
        crate::settings::Audience::Internal
    );
    assert_eq!(settings.workers, 3);
    assert_eq!(settings.drain.wait, Duration::from_secs(1));
    assert_eq!(settings.trusted_proxies.len(), 2);
    assert_eq!(
        settings.access_log.mode,
        crate::settings::AccessLogMode::Off
    );
    assert_eq!(
        settings.access_log.output,
        crate::settings::LogOutput::File("logs/access.log".into())
    );
    assert_eq!(settings.limits.head_timeout, Duration::from_millis(100));
    assert_eq!(settings.limits.body_bytes, Some(10));
    assert_eq!((settings.limits.attempts, settings.limits.held), (1, 5));
    assert_eq!(settings.limits.keep_alive, Duration::from_secs(75));
    assert_eq!(
        settings.limits.underscores,
        crate::settings::Underscores::Drop
    );
    let overrides = crate::settings::Overrides {
        listen: vec![([127, 0, 0, 1], 0).into()],
        admin: None,
        workers: Some(1),
    };
    let merged = settings.clone().with(&overrides);
    assert_eq!(merged.listeners.len(), 1);
    assert_eq!(
        merged.listeners[0].audience,
        crate::settings::Audience::Public
    );
    assert_eq!((merged.workers, merged.admin), (1, settings.admin));
}

#[test]
fn a_revision_has_its_defaults() {
    let compiled = compiled("revisions: [{name: a, process: {command: [x, $PORT]}}]");
    let revision = compiled.snapshot.revisions().next().expect("it is there");
    assert_eq!(revision.concurrency, 0);
    assert_eq!(revision.timeout, Some(Duration::from_secs(300)));
    assert_eq!((revision.max_duration, revision.idle), (None, None));
    let Backend::Process(process) = &revision.backend else {
        panic!("{revision:?}");
    };
    assert_eq!(process.readiness, Readiness::Tcp);
    assert_eq!((process.scale.min, process.scale.max), (0, 10));
    assert!((process.scale.target - 100.0).abs() < 1e-9);
    assert_eq!(process.directory, None);
}

#[test]
fn the_target_follows_the_concurrency_and_directories_the_file() {
    let text = "revisions: [{name: a, concurrency: 10, process: {command: [x], directory: ./app}}, {name: b, concurrency: 1, process: {command: [x], directory: /abs}}]";
    let compiled = Compiler::default()
        .apply(vec![fragment("/etc/tidegate/f.yaml", text)])
        .expect("it is valid");
    let mut found: Vec<_> = compiled.snapshot.revisions().collect();
    found.sort_by_key(|revision| revision.key.clone());
    let process = |at: usize| match &found[at].backend {
        Backend::Process(process) => (**process).clone(),
        other => panic!("{other:?}"),
    };
    assert!((process(0).scale.target - 7.0).abs() < 1e-9);
    assert!((process(1).scale.target - 1.0).abs() < 1e-9);
    assert_eq!(process(0).directory, Some("/etc/tidegate/./app".into()));
    assert_eq!(process(1).directory, Some("/abs".into()));
}

#[test]
fn a_zero_timeout_is_no_bound() {
    let compiled = compiled("revisions: [{name: a, timeout: 0s, idle: 1s, maxDuration: 2s}]");
    let revision = compiled.snapshot.revisions().next().expect("it is there");
    assert_eq!(revision.timeout, None);
    assert_eq!(revision.idle, Some(Duration::from_secs(1)));
    assert_eq!(revision.max_duration, Some(Duration::from_secs(2)));
}

#[test]
fn hosts_come_with_the_default_host_first() {
    let text = format!(
        "domain: Gate.Test.\n{REVISION}routes:
  - {{name: a, hosts: [B.example.com, '*.c'], traffic: [{{revision: r1}}]}}
  - {{name: i, visibility: cluster-local, hosts: [i.corp], traffic: [{{revision: r1}}]}}
"
    );
    let compiled = compiled(&text);
    let hosts = |name: &str| route(&compiled, name).hosts.join(" ");
    assert_eq!(hosts("a"), "a.default.gate.test b.example.com *.c");
    assert_eq!(
        hosts("i"),
        "i.default.svc.cluster.local i.default.svc i.default i.corp"
    );
}

#[test]
fn shape_and_meaning_are_told_together() {
    let text = "routes: 5\n---\nrevisions: [{name: A}]\n---\nroutes: [{name: a, traffic: [{revision: may-be-in-the-first}]}]";
    let problems = refused(text);
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].starts_with("f.yaml:1:9: routes: expected a list"));
    assert!(problems[1].starts_with("f.yaml:3:20: revisions[0].name: the name is not"));
}

#[test]
fn problems_are_serialised_as_promised() {
    let problems = compile("routes: [{name: a, traffic: [{revision: x}]}]").expect_err("unknown");
    assert_eq!(
        serde_json::to_value(&problems).expect("it can be written"),
        serde_json::json!([{
            "file": "f.yaml", "line": 1, "column": 41,
            "path": "routes[0].traffic[0].revision", "value": "x",
            "problem": "unknown revision",
            "hint": "there is no revision in namespace `default`",
        }])
    );
}

#[test]
fn problems_are_shown_to_people_with_their_line() {
    let text = "domain: a\nroutes:\n  - name: ä\n    traffic: [{revision: x}]\n";
    let problems = compile(text).expect_err("unknown");
    let sources = [("f.yaml".to_owned(), Arc::from(text))].into();
    let shown = crate::problem::render_for_people(&problems, &sources);
    assert!(
        shown.contains("routes[0].traffic[0].revision: unknown revision"),
        "{shown}"
    );
    assert!(shown.contains("[f.yaml:4:26]"), "{shown}");
    assert!(shown.contains("traffic: [{revision: x}]"), "{shown}");
    assert!(shown.contains("help: there is no revision"), "{shown}");
    assert!(
        !shown.contains('\u{1b}'),
        "no colour without a terminal: {shown}"
    );
    let bare = crate::problem::render_for_people(&problems, &crate::problem::Sources::new());
    assert!(
        bare.contains("f.yaml:4:26: routes[0].traffic[0].revision"),
        "{bare}"
    );
}

// --- incremental ---

const COFFEE: &str = "
routes: [{name: coffee, traffic: [{revision: c1}]}]
revisions: [{name: c1, endpoints: ['a:1']}]
";

fn names(keys: &[Key]) -> Vec<String> {
    keys.iter().map(|key| key.name.to_string()).collect()
}

fn gone(file: &str) -> Fragment {
    Fragment {
        origin: Origin::File(file.into()),
        content: Content::Gone,
    }
}

#[test]
fn a_refused_batch_changes_nothing() {
    let mut compiler = Compiler::default();
    compiler
        .apply(vec![fragment("f.yaml", COFFEE)])
        .expect("valid");
    let before = dump(compiler.snapshot());
    let bad = fragment("f.yaml", "routes: [{name: tea, traffic: [{revision: c1}]}]");
    compiler.apply(vec![bad]).expect_err("the revision is gone");
    assert_eq!(dump(compiler.snapshot()), before);
    let broken = fragment("f.yaml", "routes: [");
    compiler.apply(vec![broken]).expect_err("it is broken");
    assert_eq!(dump(compiler.snapshot()), before);
    let again = compiler
        .apply(vec![fragment("f.yaml", COFFEE)])
        .expect("valid");
    assert!(again.changed_revisions.is_empty() && again.removed_revisions.is_empty());
}

#[test]
fn only_changed_revisions_are_named() {
    let mut compiler = Compiler::default();
    let one = "revisions: [{name: a}, {name: b}, {name: c}]";
    let two = "# moved down\n\nrevisions: [{name: a}, {name: c, concurrency: 1}, {name: d}]";
    let first = compiler
        .apply(vec![fragment("f.yaml", one)])
        .expect("valid");
    assert_eq!(names(&first.changed_revisions), ["a", "b", "c"]);
    let second = compiler
        .apply(vec![fragment("f.yaml", two)])
        .expect("valid");
    assert_eq!(names(&second.changed_revisions), ["c", "d"]);
    assert_eq!(names(&second.removed_revisions), ["b"]);
    assert!(!second.settings_changed);
}

#[test]
fn ids_are_kept_while_a_name_exists_and_used_again_afterwards() {
    let mut compiler = Compiler::default();
    let mut apply = |text: &str| {
        let compiled = compiler
            .apply(vec![fragment("f.yaml", text)])
            .expect("valid");
        let id = |name: &str| {
            let found = compiled.snapshot.revisions().find(|r| &*r.key.name == name);
            found.map(|revision| revision.id.0)
        };
        ["a", "b", "c"].map(id)
    };
    assert_eq!(
        apply("revisions: [{name: a}, {name: b}]"),
        [Some(0), Some(1), None]
    );
    assert_eq!(
        apply("revisions: [{name: b, concurrency: 1}]"),
        [None, Some(1), None]
    );
    assert_eq!(
        apply("revisions: [{name: b}, {name: c}]"),
        [None, Some(1), Some(0)]
    );
}

#[test]
fn a_revision_may_move_to_another_file_but_not_vanish_from_under_a_route() {
    let mut compiler = Compiler::default();
    let route = fragment(
        "route.yaml",
        "routes: [{name: a, traffic: [{revision: r}]}]",
    );
    let revision = "revisions: [{name: r}]";
    compiler
        .apply(vec![route, fragment("one.yaml", revision)])
        .expect("valid");
    let problems = compiler
        .apply(vec![gone("one.yaml")])
        .expect_err("it is used");
    assert_eq!(
        lines(&problems),
        "route.yaml:1:41: routes[0].traffic[0].revision: unknown revision (r); \
         the revision default/r was removed: add it again or name another"
    );
    let moved = compiler
        .apply(vec![gone("one.yaml"), fragment("two.yaml", revision)])
        .expect("valid");
    assert!(moved.removed_revisions.is_empty() && moved.changed_revisions.is_empty());
    compiler
        .apply(vec![gone("two.yaml"), gone("route.yaml")])
        .expect("nobody uses it");
    assert_eq!(compiler.snapshot().routes().count(), 0);
    assert_eq!(compiler.snapshot().revisions().count(), 0);
}

#[test]
fn hosts_may_change_hands_in_one_batch() {
    let mut compiler = Compiler::default();
    let text = |first: &str, second: &str| {
        format!(
            "{REVISION}routes:
  - {{name: a, hosts: [{first}], traffic: [{{revision: r1}}]}}
  - {{name: b, hosts: [{second}], traffic: [{{revision: r1}}]}}"
        )
    };
    compiler
        .apply(vec![fragment("f", &text("x.test", "y.test"))])
        .expect("valid");
    let swapped = compiler
        .apply(vec![fragment("f", &text("y.test", "x.test"))])
        .expect("valid");
    assert_eq!(route(&swapped, "a").hosts[1].as_ref(), "y.test");
}

#[test]
fn another_domain_moves_every_default_host() {
    let mut compiler = Compiler::default();
    compiler
        .apply(vec![fragment("f.yaml", COFFEE)])
        .expect("valid");
    let moved = compiler
        .apply(vec![fragment("domain.yaml", "domain: new.test")])
        .expect("valid");
    assert_eq!(
        route(&moved, "coffee").default_host(),
        "coffee.default.new.test"
    );
    let back = compiler.apply(vec![gone("domain.yaml")]).expect("valid");
    assert_eq!(
        route(&back, "coffee").default_host(),
        "coffee.default.example.com"
    );
}

#[test]
fn the_last_fragment_of_an_origin_counts() {
    let mut compiler = Compiler::default();
    let compiled = compiler
        .apply(vec![
            fragment("f.yaml", "revisions: [{name: old}]"),
            fragment("f.yaml", "revisions: [{name: new}]"),
        ])
        .expect("valid");
    assert_eq!(names(&compiled.changed_revisions), ["new"]);
}

/// Everything a snapshot says, without ids.
fn dump(snapshot: &Snapshot) -> Vec<String> {
    let mut lines = Vec::new();
    for route in snapshot.routes() {
        lines.push(format!(
            "{} {:?} {:?}",
            route.key, route.hosts, route.sticky
        ));
        for rule in route.rules.iter() {
            lines.push(format!(
                "{} {:?} {:?} {:?}",
                route.key, rule.path, rule.methods, rule.headers
            ));
            if let Some(split) = route.split_of(rule) {
                for target in &split.targets {
                    let named = snapshot.revision(target.revision).expect("it exists");
                    assert_eq!(named.key, target.revision_key);
                    lines.push(format!(
                        "{} {} {}",
                        route.key, target.revision_key, target.percent
                    ));
                }
            }
        }
        assert_eq!(snapshot.route(route.id).map(|r| &r.key), Some(&route.key));
        assert_eq!(
            snapshot.route_by_key(&route.key).map(|r| r.id),
            Some(route.id)
        );
    }
    for revision in snapshot.revisions() {
        lines.push(format!("{} {:?}", revision.key, revision.backend));
        let by_key = snapshot.revision_by_key(&revision.key);
        assert_eq!(by_key.map(|r| r.id), Some(revision.id));
    }
    lines.sort();
    lines
}

#[test]
fn documents_made_by_hand_have_no_place() {
    let document = document::Document {
        domain: Some(document::At::nowhere("..".into())),
        ..document::Document::default()
    };
    let content = Content::Documents {
        documents: vec![document],
        text: "".into(),
    };
    let origin = Origin::File("made".into());
    let problems = Compiler::default().apply(vec![Fragment { origin, content }]);
    let problems = problems.expect_err("the domain is bad");
    assert!(
        problems[0]
            .to_string()
            .starts_with("made: domain: bad domain (..)")
    );
}
