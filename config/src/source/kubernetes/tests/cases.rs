//! Translation as data: `config/tests/kubernetes/cases/*.yaml`. Ingresses and the world in; routes,
//! revisions, addresses, answers to requests and statuses out. `UPDATE=1` writes what comes out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::{accepted, identity, object, render};
use crate::route::{FieldList, Query, find};
use crate::snapshot::Action;
use crate::source::kubernetes::state::{Kind, State};
use crate::{Compiler, Content, Fragment, Snapshot};

/// Parts what is given from what comes of it.
const COMES: &str = "\n---\n# What comes of it:\n";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// Put in this order, before everything is listed.
    objects: Vec<Value>,
    /// Put one by one afterwards.
    #[serde(default)]
    then: Vec<Step>,
    /// `LISTENER HOST/PATH [NAME=VALUE]...`
    #[serde(default)]
    requests: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
enum Step {
    Put(Value),
    /// `KIND NAMESPACE/NAME`
    Remove(String),
}

/// What the rest of the program would know.
#[derive(Default)]
struct World {
    compiler: Compiler,
    snapshot: Snapshot,
    said: BTreeMap<String, Fragment>,
    addresses: BTreeMap<String, String>,
    certificates: BTreeMap<String, String>,
    /// Ingresses as the API server has them.
    objects: BTreeMap<String, Value>,
    statuses: BTreeMap<String, String>,
}

impl World {
    fn put(&mut self, state: &mut State, mut value: Value) {
        let key = format!(
            "{}/{}",
            value["metadata"]["namespace"]
                .as_str()
                .expect("a namespace"),
            value["metadata"]["name"].as_str().expect("a name"),
        );
        if value["kind"] == "Ingress" {
            if let Some(before) = self
                .objects
                .get(&key)
                .and_then(|before| before.get("status"))
            {
                value["status"] = before.clone();
            }
            self.objects.insert(key, value.clone());
        }
        state.put(&object(value));
    }

    /// Lets everything happen that follows.
    fn settle(&mut self, state: &mut State) {
        for _ in 0..20 {
            self.certify(state);
            self.offer(state);
            self.certify(state);
            let (fed, forgotten) = state.take_addresses();
            for (key, now) in fed {
                let proxied = if now.proxied { ", proxied" } else { "" };
                let shown = format!("ready {:?}, unready {:?}{proxied}", now.ready, now.unready);
                self.addresses.insert(key.to_string(), shown);
            }
            for key in forgotten {
                self.addresses.remove(&key.to_string());
            }
            for ask in state.take_asks() {
                self.try_probes(&ask.probes, &ask.hash);
                state.passed(&ask.ingress, &ask.hash);
            }
            if !self.write(state) {
                return;
            }
        }
    }

    fn certify(&mut self, state: &mut State) {
        if let Some((secret, certificates)) = state.take_certificate_inside() {
            let name = format!("secret {secret}");
            match certificates.first() {
                Some(first) => self.certificates.insert(name, format!("{first:?}")),
                None => self.certificates.remove(&name),
            };
        }
        for (key, certificates) in state.take_certificates() {
            if certificates
                .iter()
                .any(|certificate| certificate.key.is_empty())
            {
                state.refuse(&key, "there is no key".to_owned());
                continue;
            }
            let shown = certificates
                .iter()
                .map(|certificate| format!("{certificate:?}"));
            let shown = shown.collect::<Vec<_>>().join(", ");
            match shown.is_empty() {
                true => self.certificates.remove(&key.to_string()),
                false => self.certificates.insert(key.to_string(), shown),
            };
        }
    }

    fn offer(&mut self, state: &mut State) {
        while let Some((batch, fragments)) = state.take_batch() {
            match self.compiler.apply(fragments.clone()) {
                Ok(compiled) => {
                    for fragment in fragments {
                        self.said
                            .insert(fragment.origin.name().to_string(), fragment);
                    }
                    self.snapshot = compiled.snapshot;
                    state.heard(batch, &accepted());
                }
                Err(problems) => {
                    state.heard(batch, &crate::source::Verdict::Rejected(problems));
                }
            }
        }
    }

    /// Writes statuses, which come back as every change does; whether there were any.
    fn write(&mut self, state: &mut State) -> bool {
        let mut wrote = false;
        for key in state.take_unsaid() {
            let Some(write) = state.unsaid(&key, "T") else {
                continue;
            };
            wrote = true;
            let mut shown = format!("  generation: {}\n", write.status.observed_generation);
            for condition in &write.status.conditions {
                let parts = [&condition.kind, &condition.reason, &condition.message];
                let parts = parts
                    .into_iter()
                    .filter(|part| !part.is_empty())
                    .map(String::as_str);
                let parts = parts.collect::<Vec<_>>().join(", ");
                shown.push_str(&format!("  {} {parts}\n", condition.status));
            }
            let status = &write.status;
            for balancer in [&status.public_load_balancer, &status.private_load_balancer] {
                for entry in balancer.iter().flat_map(|balancer| &balancer.ingress) {
                    shown.push_str(&format!("  at: {}\n", entry.domain_internal));
                }
            }
            self.statuses.insert(key.to_string(), shown);
            let written = self.objects.get_mut(&key.to_string()).expect("it is there");
            written["status"] = serde_json::to_value(status).expect("JSON");
            state.put(&object(written.clone()));
        }
        wrote
    }

    /// What a replica is asked leads to the route that it is about.
    fn try_probes(&self, probes: &[crate::source::kubernetes::translate::Probe], hash: &str) {
        for probe in probes {
            let fields = probe.headers.iter();
            let fields = fields.map(|(name, value)| (name.to_string(), value.to_string()));
            let fields = FieldList(fields.collect());
            let query = Query {
                host: probe.host.as_bytes(),
                path: probe.path.as_bytes(),
                method: b"GET",
                fields: &fields,
                internal: true,
            };
            let found = find(&self.snapshot, &query);
            let found = found.and_then(|found| found.route.network_hash.clone());
            assert_eq!(found.as_deref(), Some(hash), "{probe:?}");
        }
    }

    fn answer(&self, request: &str) -> String {
        let mut parts = request.split(' ');
        let internal = parts.next() == Some("internal");
        let target = parts.next().expect("HOST/PATH");
        let (host, path) = target.split_at(target.find('/').expect("a path"));
        let fields = parts.map(|field| field.split_once('=').expect("NAME=VALUE"));
        let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let fields = FieldList(fields.collect());
        let query = Query {
            host: host.as_bytes(),
            path: path.as_bytes(),
            method: b"GET",
            fields: &fields,
            internal,
        };
        let Some(found) = find(&self.snapshot, &query) else {
            return "404".to_owned();
        };
        let headers = |headers: &[(Box<str>, Box<str>)]| {
            let shown = headers
                .iter()
                .map(|(name, value)| format!(" {name}={value}"));
            shown.collect::<String>()
        };
        match &found.rule().action {
            Action::Forward(forward) => {
                let targets = forward.split.targets.iter().map(|target| {
                    let name = &target.revision_key.name;
                    format!("{}% {name}{}", target.percent, headers(&target.set_headers))
                });
                let targets = targets.collect::<Vec<_>>().join(", ");
                let host = forward
                    .rewrite_host
                    .as_ref()
                    .map(|host| format!(" as {host}"));
                let common = headers(&forward.set_headers);
                format!(
                    "{targets}{}{}",
                    host.unwrap_or_default(),
                    if common.is_empty() {
                        common
                    } else {
                        format!(" all{common}")
                    }
                )
            }
            Action::Reroute(reroute) => {
                format!("again as {}{}", reroute.host, headers(&reroute.set_headers))
            }
            Action::Redirect(_) | Action::Respond(_) => "?".to_owned(),
        }
    }
}

fn comes_of(given: &str) -> String {
    let case: Case = serde_saphyr::from_str(given).expect("a case");
    let mut state = State::new(identity(), |_| Ok(()));
    let mut world = World::default();
    for value in case.objects {
        world.put(&mut state, value);
    }
    state.sync();
    world.settle(&mut state);
    for step in case.then {
        match step {
            Step::Put(value) => world.put(&mut state, value),
            Step::Remove(what) => remove(&mut state, &what),
        }
        world.settle(&mut state);
    }
    let documents: Vec<_> = world
        .said
        .values()
        .filter_map(|fragment| match &fragment.content {
            Content::Documents { documents, .. } => Some(documents),
            Content::Broken { .. } | Content::Gone => None,
        })
        .flatten()
        .collect();
    let mut out = render::documents(&documents);
    reads_as_written(&out);
    out.push_str("# addresses\n");
    for (key, addresses) in &world.addresses {
        out.push_str(&format!("#   {key}: {addresses}\n"));
    }
    if !world.certificates.is_empty() {
        out.push_str("# certificates\n");
    }
    for (key, certificates) in &world.certificates {
        out.push_str(&format!("#   {key}: {certificates}\n"));
    }
    out.push_str("# requests\n");
    for request in &case.requests {
        out.push_str(&format!("#   {request} -> {}\n", world.answer(request)));
    }
    out.push_str("# statuses\n");
    for (key, status) in &world.statuses {
        out.push_str(&format!("#   {key}\n"));
        for line in status.lines() {
            out.push_str(&format!("#   {line}\n"));
        }
    }
    out
}

fn remove(state: &mut State, what: &str) {
    let (kind, key) = what.split_once(' ').expect("KIND NAMESPACE/NAME");
    let (namespace, name) = key.split_once('/').expect("NAMESPACE/NAME");
    let kind = match kind {
        "Ingress" => Kind::Ingress,
        "Service" => Kind::Service,
        "EndpointSlice" => Kind::Slice,
        "Revision" => Kind::Revision,
        "ConfigMap" => Kind::ConfigMap,
        _ => panic!("unknown kind {kind}"),
    };
    state.remove(kind, &super::key(namespace, name));
}

/// The text is what people could write: it reads as documents that are written the same.
fn reads_as_written(text: &str) {
    let Content::Documents { documents, .. } = crate::parse("case.yaml", text) else {
        panic!("not a document: {text}");
    };
    let read = render::documents(&documents.iter().collect::<Vec<_>>());
    let told = |line: &&str| !line.trim_start().starts_with('#');
    let lines = |text: &str| {
        text.lines()
            .filter(told)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(lines(&read), lines(text));
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kubernetes/cases")
}

#[test]
fn every_case_comes_out_as_it_says() {
    let update = std::env::var_os("UPDATE").is_some();
    let mut count = 0;
    let mut wrong = Vec::new();
    let files = std::fs::read_dir(directory()).expect("the directory of cases");
    for file in files {
        let path = file.expect("an entry").path();
        let text = std::fs::read_to_string(&path).expect("a text");
        let (given, expected) = text.split_once(COMES).unwrap_or((&text, ""));
        let given = given.trim_end();
        let came = comes_of(given);
        count += 1;
        if came == expected {
            continue;
        }
        if update {
            std::fs::write(
                &path,
                format!("{given}\n{COMES}{came}").replace("\n\n---", "\n---"),
            )
            .expect("written");
        } else {
            wrong.push(format!("{}: came out as\n{came}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count >= 20, "{count} cases were found");
}
