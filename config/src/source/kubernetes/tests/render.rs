//! Documents as the text people would have written, for the expectations of cases.

use crate::document::{At, Document, Pairs, Protocol, Revision, Route, Rule, Target, Visibility};
use crate::revision::{Authorities, Fed};

/// What no plain YAML word needs: quotes.
fn word(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-./_".contains(&byte);
    let first = text
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'/');
    match first && text.bytes().all(plain) {
        true => text.to_owned(),
        false => format!("{text:?}"),
    }
}

fn list<T>(items: &[At<T>], show: impl Fn(&T) -> String) -> String {
    let items: Vec<String> = items.iter().map(|at| show(&at.value)).collect();
    format!("[{}]", items.join(", "))
}

fn pairs(pairs: &Pairs) -> String {
    let pairs = pairs.0.iter();
    let pairs: Vec<String> = pairs
        .map(|(name, value)| format!("{}: {}", word(&name.value), word(&value.value)))
        .collect();
    format!("{{{}}}", pairs.join(", "))
}

fn target(target: &Target) -> String {
    let percent = target.percent.as_ref().map_or(0, |at| at.value);
    let headers = target.set_headers.as_ref();
    let headers = headers.map(|headers| format!(", setHeaders: {}", pairs(headers)));
    let revision = word(&target.revision.value);
    format!(
        "{{revision: {revision}, percent: {percent}{}}}",
        headers.unwrap_or_default()
    )
}

fn rule(rule: &Rule) -> String {
    let mut parts = Vec::new();
    if let Some(path) = &rule.path {
        parts.push(format!("path: {}", word(&path.value)));
    }
    if let Some(https_only) = &rule.https_only {
        parts.push(format!("httpsOnly: {https_only}"));
    }
    if let Some(headers) = &rule.headers {
        parts.push(format!("headers: {}", pairs(headers)));
    }
    if let Some(headers) = &rule.set_headers {
        parts.push(format!("setHeaders: {}", pairs(headers)));
    }
    if let Some(host) = &rule.rewrite_host {
        parts.push(format!("rewriteHost: {}", word(&host.value)));
    }
    if let Some(traffic) = &rule.traffic {
        parts.push(format!("traffic: {}", list(&traffic.value, target)));
    }
    if let Some(reroute) = &rule.reroute {
        parts.push(format!(
            "reroute: {{host: {}}}",
            word(&reroute.value.host.value)
        ));
    }
    parts.join("\n      ")
}

pub(super) fn route(out: &mut String, route: &Route) {
    let text = |at: &At<Box<str>>| word(&at.value);
    let hosts = list(route.hosts.as_deref().unwrap_or_default(), |host| {
        word(host)
    });
    let visibility = match route.visibility {
        Some(Visibility::ClusterLocal) => "cluster-local",
        _ => "public",
    };
    let default_host = route.default_host.as_ref().is_none_or(|at| at.value);
    let namespace = route.namespace.as_ref().map(text).unwrap_or_default();
    out.push_str(&format!("  - name: {}\n    namespace: {namespace}\n    hosts: {hosts}\n    \
         defaultHost: {default_host}\n    visibility: {visibility}\n    networkHash: {}\n    rules:\n",
        text(&route.name),
        route
            .network_hash
            .as_ref()
            .map(|at| format!("{:?}", at.value))
            .unwrap_or_default(),));
    for at in route.rules.iter().flatten() {
        out.push_str(&format!("    - {}\n", rule(&at.value)));
    }
}

pub(super) fn revision(out: &mut String, revision: &Revision) {
    let name = word(&revision.name.value);
    let namespace = revision
        .namespace
        .as_ref()
        .map(|at| word(&at.value))
        .unwrap_or_default();
    let protocol = match revision.protocol.as_ref().map(|at| at.value) {
        Some(Protocol::H2c) => "h2c",
        _ => "http1",
    };
    out.push_str(&format!(
        "  - name: {name}\n    namespace: {namespace}\n    protocol: {protocol}\n"
    ));
    if let Some(at) = &revision.concurrency {
        out.push_str(&format!("    concurrency: {}\n", at.value));
    }
    let times = [
        ("timeout", &revision.timeout),
        ("maxDuration", &revision.max_duration),
        ("idle", &revision.idle),
    ];
    for (name, at) in times {
        if let Some(at) = at {
            out.push_str(&format!("    {name}: {}\n", at.value.0));
        }
    }
    if let Some(queue) = &revision.queue {
        let depth = queue
            .depth
            .as_ref()
            .map(|at| format!("depth: {}, ", at.value));
        let wait = queue
            .wait
            .as_ref()
            .map(|at| format!("wait: {}", at.value.0));
        out.push_str(&format!(
            "    queue: {{{}{}}}\n",
            depth.unwrap_or_default(),
            wait.unwrap_or_default()
        ));
    }
    if let Some(endpoints) = &revision.endpoints {
        out.push_str(&format!(
            "    endpoints: {}\n",
            list(&endpoints.value, |text| word(text))
        ));
    }
    match revision.fed.as_deref() {
        Some(Fed {
            knative: Some(knative),
        }) => {
            out.push_str(&format!(
                "    # fed: pods of configuration {:?} of service {:?}, unready ones {}\n",
                knative.configuration,
                knative.service,
                if knative.unready_pods { "too" } else { "never" },
            ));
        }
        Some(Fed { knative: None }) => out.push_str("    # fed: endpoints of a Service\n"),
        None => {}
    }
    over_tls(out, revision);
}

fn over_tls(out: &mut String, revision: &Revision) {
    if let Some(tls) = revision.fed_tls.as_deref()
        && let Some(inside) = &tls.inside
    {
        let asked = tls.server_name.as_deref().unwrap_or_default();
        let trusted = match &tls.ca {
            Some(Authorities::Pem(pem)) => String::from_utf8_lossy(pem.as_ref())
                .trim_end()
                .replace('\n', " "),
            _ => "those of the system".to_owned(),
        };
        let (identity, port) = (&inside.identity, inside.port);
        out.push_str(&format!(
            "    # over TLS at port {port}: asks for {asked}, expects {identity}, trusts {trusted}\n"
        ));
    }
}

/// What people would have to write for the same, and what of it only a source can say.
pub(super) fn documents(documents: &[&Document]) -> String {
    let mut out = String::from("routes:\n");
    for at in documents
        .iter()
        .flat_map(|document| document.routes.iter().flatten())
    {
        route(&mut out, &at.value);
    }
    out.push_str("revisions:\n");
    for at in documents
        .iter()
        .flat_map(|document| document.revisions.iter().flatten())
    {
        revision(&mut out, &at.value);
    }
    out
}
