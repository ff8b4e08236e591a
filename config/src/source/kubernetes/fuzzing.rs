//! What a fuzzer gives a cluster: objects, as JSON, a line each.

use super::Options;
use super::cluster::RevisionObject;
use super::ingress::Ingress;
use super::state::{Object, State};
use crate::source::{Fragment, Verdict};
use crate::{Compiler, Content};

/// Lines that are looked at.
const LINES_MAX: usize = 64;
/// Offers until everything has settled.
const OFFERS_MAX: usize = 4 * LINES_MAX;

/// Takes in what reads as an object of its kind, and lets everything follow.
///
/// # Panics
/// When a status, a route or the number of offers grows beyond what the objects account for.
pub fn objects(bytes: &[u8]) {
    let options = Options {
        class: super::CLASS.to_owned(),
        pod_name: "tidegate-0".to_owned(),
        pod_ip: None,
        namespace: "knative-serving".to_owned(),
        system_namespace: "knative-serving".to_owned(),
        domain: "cluster.local".to_owned(),
    };
    let mut state = State::new(options.identity(), |_| Ok(()));
    let lines = bytes.split(|byte| *byte == b'\n').take(LINES_MAX);
    let objects: Vec<Object> = lines.filter_map(object).collect();
    for object in &objects {
        state.put(object);
    }
    state.sync();
    let mut compiler = Compiler::default();
    settle(&mut state, &mut compiler, bytes.len());
    // Once more, from what is there by now.
    for object in objects.iter().rev() {
        state.put(object);
    }
    settle(&mut state, &mut compiler, bytes.len());
}

fn object(line: &[u8]) -> Option<Object> {
    let value: serde_json::Value = serde_json::from_slice(line).ok()?;
    fn read<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> Option<Box<T>> {
        serde_json::from_value(value).ok().map(Box::new)
    }
    let kind = value.get("kind")?.as_str()?.to_owned();
    Some(match &*kind {
        "Ingress" => Object::Ingress(read::<Ingress>(value)?),
        "Service" => Object::Service(read(value)?),
        "EndpointSlice" => Object::Slice(read(value)?),
        "Endpoints" => Object::Endpoints(read(value)?),
        "Revision" => Object::Revision(read::<RevisionObject>(value)?),
        "Secret" => Object::Secret(read(value)?),
        "ConfigMap" => Object::ConfigMap(read(value)?),
        _ => return None,
    })
}

fn settle(state: &mut State, compiler: &mut Compiler, bytes: usize) {
    let mut offers = 0;
    state.take_certificates();
    while let Some((batch, fragments)) = state.take_batch() {
        offers += 1;
        assert!(offers <= OFFERS_MAX, "it never ends");
        is_bounded(&fragments, bytes);
        let verdict = match compiler.apply(fragments) {
            Ok(_) => Verdict::Accepted {
                version: offers as u64,
            },
            Err(problems) => Verdict::Rejected(problems),
        };
        state.heard(batch, &verdict);
    }
    state.take_addresses();
    state.take_settings();
    for ask in state.take_asks() {
        for probe in ask.probes.iter() {
            let uri = hyper::Uri::try_from(&*probe.path);
            assert!(uri.is_ok(), "nobody can be asked for {:?}", probe.path);
        }
        state.passed(&ask.ingress, &ask.hash);
    }
    for key in state.take_unsaid() {
        let Some(write) = state.unsaid(&key, "2026-01-01T00:00:00Z") else {
            continue;
        };
        let status = serde_json::to_vec(&write.status).unwrap_or_default();
        // What it says is said in up to three conditions, perhaps escaped.
        assert!(
            status.len() <= 4096 + 32 * bytes,
            "{} bytes of status",
            status.len()
        );
    }
}

/// A rule takes some bytes to say, and makes at most two for each of its hosts.
fn is_bounded(fragments: &[Fragment], bytes: usize) {
    let documents = fragments.iter().filter_map(|one| match &one.content {
        Content::Documents { documents, .. } => Some(documents),
        Content::Broken { .. } | Content::Gone => None,
    });
    let routes = documents
        .flatten()
        .flat_map(|one| one.routes.iter().flatten());
    let rules = routes.map(|route| route.value.rules.iter().flatten().count());
    let rules: usize = rules.sum();
    assert!(rules <= bytes * bytes, "{rules} rules from {bytes} bytes");
}
