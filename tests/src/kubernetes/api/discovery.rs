//! What an API server says of itself.

use serde_json::{Value, json};

use super::store::Store;
use crate::kubernetes::Kind;

/// The answer to a GET of that path, where it is one of these.
pub(super) fn page(path: &str, store: &Store) -> Option<Value> {
    let path = path.trim_end_matches('/');
    let page = match path {
        "/version" => json!({
            "major": "1",
            "minor": "35",
            "gitVersion": "v1.35.0",
            "gitCommit": "",
            "gitTreeState": "clean",
            "buildDate": "2026-01-01T00:00:00Z",
            "goVersion": "go1.25",
            "compiler": "gc",
            "platform": "linux/amd64",
        }),
        "/healthz" | "/livez" | "/readyz" => json!("ok"),
        "/api" => json!({"kind": "APIVersions", "versions": ["v1"]}),
        "/apis" => groups(store),
        _ => return resources(path, store),
    };
    Some(page)
}

fn groups(store: &Store) -> Value {
    let named = store.kinds().filter(|kind| !kind.group.is_empty());
    let mut groups: Vec<Value> = named
        .map(|kind| {
            let version = json!({"groupVersion": kind.api_version(), "version": kind.version});
            json!({"name": kind.group, "versions": [version], "preferredVersion": version})
        })
        .collect();
    groups.dedup();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

fn resources(path: &str, store: &Store) -> Option<Value> {
    let version = path
        .strip_prefix("/apis/")
        .or_else(|| path.strip_prefix("/api/"))?;
    let of_version = store.kinds().filter(|kind| kind.api_version() == version);
    let resources: Vec<Value> = of_version.flat_map(resource).collect();
    (!resources.is_empty()).then(|| {
        json!({
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": version,
            "resources": resources,
        })
    })
}

/// With its status, where that is a subresource.
fn resource(kind: &Kind) -> Vec<Value> {
    let entry = |name: String, verbs: &[&str]| {
        json!({
            "name": name,
            "singularName": kind.name.to_lowercase(),
            "namespaced": kind.namespaced,
            "kind": kind.name,
            "verbs": verbs,
        })
    };
    let all = [
        "create", "delete", "get", "list", "patch", "update", "watch",
    ];
    let mut entries = vec![entry(kind.plural.to_owned(), &all)];
    if kind.status {
        let name = format!("{}/status", kind.plural);
        entries.push(entry(name, &["patch", "update"]));
    }
    entries
}
