//! What routes of clusters need beside others: hosts of their own only, names that others chose,
//! another look at the table, the hash of what they were made of.

use super::{REVISION, compiled, route, route_refused};
use crate::compile::Compiler;
use crate::fragment::{Content, Fragment, Origin};
use crate::parse;
use crate::route::{FieldList, Query, explain, find};
use crate::snapshot::Action;

fn query<'a>(host: &'a str, path: &'a str, fields: &'a FieldList, internal: bool) -> Query<'a> {
    Query {
        host: host.as_bytes(),
        path: path.as_bytes(),
        method: b"GET",
        fields,
        internal,
    }
}

#[test]
fn a_route_without_default_host_answers_on_listed_hosts_only() {
    let compiled = compiled(&format!(
        "{REVISION}routes:
  - {{name: a, defaultHost: false, hosts: [a.test], traffic: [{{revision: r1, tag: t}}]}}
  - {{name: b, defaultHost: false, visibility: cluster-local, hosts: [b.default], traffic: [{{revision: r1}}]}}
"
    ));
    let none = FieldList::default();
    let finds =
        |host, internal| find(&compiled.snapshot, &query(host, "/", &none, internal)).is_some();
    assert!(finds("a.test", false) && finds("a.test", true));
    assert!(finds("b.default", true) && !finds("b.default", false));
    for host in [
        "a.default.example.com",
        "t-a.default.example.com",
        "b.default.svc",
    ] {
        assert!(!finds(host, true), "{host}");
    }
    let tagged = FieldList(vec![("Knative-Serving-Tag".into(), "t".into())]);
    let found = find(&compiled.snapshot, &query("a.test", "/", &tagged, false));
    assert!(found.unwrap().tagged.is_some());
}

#[test]
fn a_route_has_some_host() {
    assert_eq!(
        route_refused("    defaultHost: false\n    traffic: [{revision: r1}]\n"),
        [
            "f.yaml:7:18: routes[0].defaultHost: the route has no host (false); \
             list `hosts`, or remove `defaultHost: false`"
        ]
    );
}

#[test]
fn the_hash_is_kept_as_it_is_written_and_must_fit_into_a_field() {
    let hashed = compiled(&format!(
        "{REVISION}routes: [{{name: a, networkHash: 0af3, traffic: [{{revision: r1}}]}}]\n"
    ));
    assert_eq!(route(&hashed, "a").network_hash.as_deref(), Some("0af3"));
    let refused = route_refused("    networkHash: \"a\\nb\"\n    traffic: [{revision: r1}]\n");
    assert!(
        refused[0].contains("routes[0].networkHash: bad header value"),
        "{refused:?}"
    );
}

#[test]
fn a_rule_may_look_the_request_up_again() {
    let compiled = compiled(
        "routes: [{name: a, rules: [{reroute: {host: b.default.svc}, setHeaders: {K-Original-Host: a.test}}]}]\n",
    );
    let a = route(&compiled, "a");
    let Action::Reroute(reroute) = &a.rules[0].action else {
        panic!("{:?}", a.rules[0].action);
    };
    assert_eq!(&*reroute.host, "b.default.svc");
    assert_eq!(&*reroute.set_headers[0].0, "k-original-host");
    let none = FieldList::default();
    let told = explain(
        &compiled.snapshot,
        &query("a.default.example.com", "/", &none, false),
    );
    let why = told.why.join("\n");
    assert!(
        why.contains("as for host b.default.svc at an internal listener"),
        "{why}"
    );
}

#[test]
fn looking_up_again_leaves_nothing_to_forward() {
    let refused = route_refused(
        "    rules: [{reroute: {host: b}, timeout: 3s, traffic: [{revision: r1}]}]\n",
    );
    assert_eq!(refused.len(), 2, "{refused:?}");
    assert!(
        refused
            .iter()
            .any(|line| line.contains("both `traffic` and `reroute`"))
    );
    assert!(
        refused
            .iter()
            .any(|line| line.contains("`timeout` without `traffic`"))
    );
    let refused = route_refused("    rules: [{reroute: {host: 'a b'}}]\n");
    assert!(
        refused[0].contains("routes[0].rules[0].reroute.host: bad host"),
        "{refused:?}"
    );
}

#[test]
fn names_that_a_cluster_gives_need_not_be_labels() {
    let text = "
routes: [{name: 'shop.example.com#2', defaultHost: false, hosts: [shop.example.com], traffic: [{revision: 'web:80'}]}]
revisions: [{name: 'web:80'}]
";
    let said_by = |origin: Origin| {
        let content = parse("x", text);
        Compiler::default().apply(vec![Fragment { origin, content }])
    };
    said_by(Origin::Kubernetes(
        "ingress default/shop.example.com".into(),
    ))
    .unwrap();
    let problems = said_by(Origin::File("x".into())).unwrap_err();
    assert_eq!(problems.len(), 2, "{problems:?}");
    let text_with_space = text.replace("web:80", "web 80");
    let content: Content = parse("x", &text_with_space);
    let origin = Origin::Kubernetes("revision default/web".into());
    let problems = Compiler::default().apply(vec![Fragment { origin, content }]);
    assert!(problems.unwrap_err()[0].to_string().contains("bad name"));
}
