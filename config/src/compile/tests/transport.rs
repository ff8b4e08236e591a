//! TLS, PROXY protocol and redirects to https: what is taken in, and what is refused where.

use super::*;
use crate::revision::{Authorities, Protocol};
use crate::settings::{Audience, UnknownName};

/// The problems of a listener with these keys.
#[track_caller]
fn listener_refused(keys: &str) -> Vec<String> {
    refused(&format!(
        "gateway:\n  listeners:\n  - {{ address: '127.0.0.1:1', {keys} }}"
    ))
}

/// That exactly one problem is told, and that it says this.
#[track_caller]
fn only(problems: &[String], says: &str) {
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].contains(says), "{problems:?}");
}

#[test]
fn a_listener_says_how_its_connections_begin() {
    let compiled = compiled(
        "
gateway:
  listeners:
    - address: '127.0.0.1:443'
      audience: internal
      proxyProtocol: v1v2
      trustedProxies: [10.0.0.0/8, '::1']
      tls:
        certificates:
          - { cert: a.pem, key: /keys/a.pem }
          - { cert: b.pem, key: b.key, hosts: [B.example., '*.b.example'] }
        clientCa: ca.pem
        clientAuth: optional
        ticketKeys: [new.key, /keys/old.key]
        unknownName: reject
    - { address: '127.0.0.1:80', httpsRedirect: 8443, proxyProtocol: off }
    - { address: '127.0.0.1:81', tls: { certificates: [{ cert: a, key: a }], clientCa: a } }
  limits: { http2Idle: 1m, http2Streams: 1000, handshake: 2s }
",
    );
    let settings = compiled.settings;
    let [tls, plain, required] = settings.listeners.as_slice() else {
        panic!("{:?}", settings.listeners)
    };
    assert_eq!(tls.audience, Audience::Internal);
    let networks = tls.proxy_protocol.as_deref().expect("it is on");
    let shown: Vec<_> = networks.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["10.0.0.0/8", "::1/128"]);
    let of = tls.tls.as_ref().expect("it has tls");
    let [first, second] = of.certificates.as_slice() else {
        panic!("{:?}", of.certificates)
    };
    assert_eq!(first.cert.path.to_str(), Some("a.pem"));
    assert_eq!(first.key.path.to_str(), Some("/keys/a.pem"));
    assert!(first.hosts.is_empty());
    let hosts: Vec<&str> = second.hosts.iter().map(|host| &**host).collect();
    assert_eq!(hosts, ["b.example", "*.b.example"]);
    let ca = of.client_ca.as_ref().expect("it has authorities");
    assert!(!ca.required);
    assert_eq!(
        ca.file.at.problem("is empty", "fill it").to_string(),
        "f.yaml:12:19: gateway.listeners[0].tls.clientCa: is empty (ca.pem); fill it"
    );
    let tickets = of.ticket_keys.iter().map(|file| file.path.to_str());
    let tickets: Vec<_> = tickets.flatten().collect();
    assert_eq!(tickets, ["new.key", "/keys/old.key"]);
    assert_eq!(of.unknown_name, UnknownName::Reject);
    assert_eq!(plain.https_redirect, Some(8443));
    assert_eq!((&plain.tls, &plain.proxy_protocol), (&None, &None));
    let ca = required.tls.as_ref().and_then(|tls| tls.client_ca.as_ref());
    assert!(ca.expect("it has authorities").required);
    let bare = required.tls.as_ref().expect("it has tls");
    assert!(bare.ticket_keys.is_empty());
    assert_eq!(bare.unknown_name, UnknownName::Default);
    let limits = settings.limits;
    assert_eq!(limits.http2_idle, Duration::from_secs(60));
    assert_eq!(limits.http2_streams, 1000);
    assert_eq!(limits.handshake, Duration::from_secs(2));
}

#[test]
fn paths_of_certificates_are_relative_to_the_file_they_stand_in() {
    let text = "
gateway: { listeners: [{ address: '127.0.0.1:1', tls: { certificates: [{ cert: a.pem, key: a.key }] } }] }
revisions:
  - { name: a, tls: { ca: ca.pem } }
";
    let fragment = fragment("/etc/tidegate/f.yaml", text);
    let compiled = Compiler::default().apply(vec![fragment]);
    let compiled = compiled.expect("it is valid");
    let tls = compiled.settings.listeners[0].tls.as_ref();
    let cert = &tls.expect("it has tls").certificates[0].cert;
    assert_eq!(cert.path.to_str(), Some("/etc/tidegate/a.pem"));
    let revision = compiled.snapshot.revisions().next();
    let tls = revision.and_then(|revision| revision.tls.as_ref());
    let ca = tls.and_then(|tls| tls.ca.as_ref());
    let Some(Authorities::File(ca)) = ca else {
        panic!("no file of authorities: {ca:?}");
    };
    assert_eq!(ca.path.to_str(), Some("/etc/tidegate/ca.pem"));
}

#[test]
fn a_listener_without_certificates_is_refused() {
    let says = "listeners[0].tls.certificates: there is no certificate ([])";
    only(&listener_refused("tls: { certificates: [] }"), says);
    let problems = listener_refused("tls: {}");
    only(&problems, "certificates");
    let problems = listener_refused("tls: { certificates: [{ cert: '', key: a }] }");
    only(&problems, "tls.certificates[0].cert: bad file name");
}

#[test]
fn the_hosts_of_certificates_are_checked() {
    let refused = |hosts: &str| {
        let certificates = format!("[{{ cert: a, key: a, hosts: {hosts} }}]");
        listener_refused(&format!("tls: {{ certificates: {certificates} }}"))
    };
    only(&refused("[]"), "certificates[0].hosts: there is no host");
    only(&refused("['a.*.b']"), "hosts[0]: bad host pattern (a.*.b)");
    only(&refused("['*']"), "hosts[0]: no host is named (*)");
    only(&refused("['a:443']"), "hosts[0]: bad host pattern (a:443)");
    only(&refused("[10.0.0.1]"), "hosts[0]: not a host name");
    only(&refused("['[::1]']"), "hosts[0]: not a host name");
    only(
        &refused("[a.example, A.example]"),
        "hosts[1]: the host is given to two certificates (A.example)",
    );
}

#[test]
fn a_host_has_one_certificate_per_listener() {
    let problems = listener_refused(
        "tls: { certificates: [{ cert: a, key: a, hosts: [x.example] }, { cert: b, key: b, hosts: [x.example] }] }",
    );
    only(
        &problems,
        "certificates[1].hosts[0]: the host is given to two certificates (x.example); keep one of them; the other is at line 3",
    );
    let one = "tls: { certificates: [{ cert: a, key: a, hosts: [x.example] }] }";
    compiled(&format!(
        "gateway: {{ listeners: [{{ address: '127.0.0.1:1', {one} }}, {{ address: '127.0.0.1:2', {one} }}] }}"
    ));
}

#[test]
fn how_clients_show_certificates_needs_authorities() {
    let problems =
        listener_refused("tls: { certificates: [{ cert: a, key: a }], clientAuth: optional }");
    only(
        &problems,
        "tls.clientAuth: `clientAuth` without `clientCa` (optional)",
    );
}

#[test]
fn ticket_keys_are_some_files() {
    let listener = |keys: &str| {
        listener_refused(&format!(
            "tls: {{ certificates: [{{ cert: a, key: a }}], ticketKeys: [{keys}] }}"
        ))
    };
    only(&listener(""), "tls.ticketKeys: there is no ticket key ([])");
    only(&listener("''"), "tls.ticketKeys[0]: bad file name");
    only(
        &listener("a, b, c, d, e, f, g, h, i"),
        "tls.ticketKeys: more than 8 entries (9)",
    );
}

#[test]
fn networks_and_proxy_protocol_come_together() {
    only(
        &listener_refused("trustedProxies: [10.0.0.0/8]"),
        "trustedProxies: `trustedProxies` without `proxyProtocol`",
    );
    only(
        &listener_refused("proxyProtocol: off, trustedProxies: [10.0.0.0/8]"),
        "trustedProxies: `trustedProxies` without `proxyProtocol`",
    );
    only(
        &listener_refused("proxyProtocol: v1v2"),
        "proxyProtocol: `proxyProtocol` without `trustedProxies`",
    );
    only(
        &listener_refused("proxyProtocol: v1v2, trustedProxies: []"),
        "trustedProxies: there is no network ([])",
    );
    only(
        &listener_refused("proxyProtocol: v1v2, trustedProxies: [nowhere]"),
        "trustedProxies[0]: bad network (nowhere)",
    );
}

#[test]
fn a_redirect_to_https_stands_at_a_plain_listener() {
    only(
        &listener_refused("httpsRedirect: 443, tls: { certificates: [{ cert: a, key: a }] }"),
        "httpsRedirect: `httpsRedirect` together with `tls` (443)",
    );
    for port in [0, 65_536] {
        only(
            &listener_refused(&format!("httpsRedirect: {port}")),
            "httpsRedirect: the number is out of range",
        );
    }
}

#[test]
fn bounds_of_http2_and_tls_are_checked() {
    let problems =
        refused("gateway: { limits: { http2Idle: 0s, http2Streams: 0, handshake: 0s } }");
    for (problem, key) in problems
        .iter()
        .zip(["http2Idle", "http2Streams", "handshake"])
    {
        assert!(problem.contains(key), "{problems:?}");
    }
    assert_eq!(problems.len(), 3);
    only(
        &refused("gateway: { limits: { http2Streams: 1001 } }"),
        "write an integer of 1 to 1000",
    );
}

#[test]
fn a_revision_says_what_its_endpoints_speak() {
    let compiled = compiled(
        "
revisions:
  - { name: a, protocol: h2c, endpoints: ['a:1'] }
  - name: b
    endpoints: ['b:1']
    tls: { serverName: B.example., ca: ca.pem, clientCert: { cert: c.pem, key: c.key } }
  - { name: c, endpoints: ['c:1'], tls: {} }
  - { name: d, endpoints: ['d:1'], tls: { serverName: '::1' } }
  - { name: e, protocol: h2c, endpoints: ['e:1'], health: { path: / } }
  - { name: f, protocol: h2c, process: { command: [f], readiness: { path: / } } }
",
    );
    let revision = |name: &str| {
        let mut all = compiled.snapshot.revisions();
        all.find(|revision| &*revision.key.name == name)
            .expect("it is there")
            .clone()
    };
    assert_eq!(revision("a").protocol, Protocol::H2c);
    assert_eq!(revision("a").tls, None);
    let e = revision("e");
    let Backend::Fixed { health, .. } = &e.backend else {
        panic!("its endpoints are fixed")
    };
    assert_eq!(
        health.as_ref().expect("it is checked").protocol,
        Protocol::H2c
    );
    let f = revision("f");
    let Backend::Process(process) = &f.backend else {
        panic!("it has a process")
    };
    let path = "/".to_owned();
    let protocol = Protocol::H2c;
    assert_eq!(process.readiness, Readiness::Http { path, protocol });
    let b = revision("b");
    assert_eq!(b.protocol, Protocol::Http1);
    let tls = b.tls.as_ref().expect("it has tls");
    assert_eq!(tls.server_name.as_deref(), Some("b.example"));
    let (cert, key) = &**tls.client_cert.as_ref().expect("it has a certificate");
    assert_eq!(cert.path.to_str(), Some("c.pem"));
    assert_eq!(key.path.to_str(), Some("c.key"));
    assert_eq!(
        key.at.problem("no key", "").to_string(),
        "f.yaml:6:80: revisions[1].tls.clientCert.key: no key (c.key)"
    );
    let c = revision("c");
    let tls = c.tls.as_ref().expect("it has tls");
    assert!(tls.server_name.is_none() && tls.ca.is_none() && tls.client_cert.is_none());
    let d = revision("d");
    let name = d.tls.as_ref().and_then(|tls| tls.server_name.as_deref());
    assert_eq!(name, Some("::1"));
}

#[test]
fn the_name_of_an_endpoint_is_checked() {
    for name in ["'a b'", "'*.example'", "'a.example:443'", "'[::1]'", "''"] {
        only(
            &revision_refused(&format!("    tls: {{ serverName: {name} }}")),
            "revisions[0].tls.serverName: bad server name",
        );
    }
    only(
        &revision_refused("    tls: { clientCert: { cert: a } }"),
        "key",
    );
}

#[test]
fn what_is_probed_without_tls_cannot_have_tls() {
    only(
        &revision_refused("    tls: {}\n    endpoints: ['a:1']\n    health: { path: / }"),
        "revisions[0].health: `health` together with `tls`",
    );
    only(
        &revision_refused("    tls: {}\n    process: { command: [a], readiness: { path: / } }"),
        "revisions[0].process.readiness.path: `readiness` together with `tls`",
    );
    compiled("revisions: [{ name: a, tls: {}, process: { command: [a] } }]");
}

#[test]
fn certificates_are_taken_up_live_and_nothing_else() {
    let settings = |listener: &str, rest: &str| {
        let text =
            format!("gateway: {{ listeners: [{{ address: '127.0.0.1:1', {listener} }}], {rest} }}");
        compiled(&text).settings
    };
    let tls = |cert: &str| format!("tls: {{ certificates: [{{ cert: {cert}, key: k }}] }}");
    let one = settings(&tls("a"), "workers: 1");
    assert!(one.may_become(&one));
    assert!(one.may_become(&settings(&tls("b"), "workers: 1")));
    assert!(!one.may_become(&settings(&tls("a"), "workers: 2")));
    assert!(!one.may_become(&settings("audience: public", "workers: 1")));
    assert!(!settings("audience: public", "workers: 1").may_become(&one));
    let internal = format!("audience: internal, {}", tls("a"));
    assert!(!one.may_become(&settings(&internal, "workers: 1")));
    assert!(!one.may_become(&compiled("gateway: { workers: 1, listeners: [{ address: '127.0.0.1:1', tls: { certificates: [{ cert: a, key: k }] } }, { address: '127.0.0.1:2' }] }").settings));
}

#[test]
fn what_refers_to_files_counts_as_changed_when_it_is_said_again() {
    let text = "
gateway: { listeners: [{ address: '127.0.0.1:1', tls: { certificates: [{ cert: a, key: a }] } }] }
revisions: [{ name: a, tls: {} }, { name: b }]
";
    let mut compiler = Compiler::default();
    let mut say = |file, text| compiler.apply(vec![fragment(file, text)]);
    say("a.yaml", text).expect("it is valid");
    let again = say("a.yaml", text).expect("it is valid");
    assert!(again.settings_changed);
    let names: Vec<_> = again
        .changed_revisions
        .iter()
        .map(|key| &*key.name)
        .collect();
    assert_eq!(names, ["a"]);
    let other = say("b.yaml", "revisions: [{ name: c }]").expect("it is valid");
    assert!(!other.settings_changed);
    assert_eq!(other.changed_revisions.len(), 1);
}
