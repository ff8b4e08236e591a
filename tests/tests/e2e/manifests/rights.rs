//! The Deployment as it is written runs in a cluster, and its roles allow what it asks there, and
//! nothing that it never asks.

use std::collections::BTreeSet;

use rustix::process::Signal;
use serde_json::{Value, json};
use tests::kubernetes::Api;
use tests::kubernetes::api::Seen;
use tests::kubernetes::kind::INGRESS;
use tests::{Backend, PATIENCE, eventually};

use super::overlay::{Overlay, texts};
use super::stage::{ingress, launch, serve, until_ready};
use super::{overlays, rights};

/// What Kourier leaves on ingresses.
const FINALIZER: &str = "ingresses.networking.internal.knative.dev";

#[tokio::test]
async fn roles_allow_what_the_gateway_asks_and_nothing_else() {
    let overlay = overlays().remove("beside-kourier").unwrap();
    let (api, backend) = (Api::start(), Backend::start("hello"));
    serve(&api, "hello", &backend).await;
    api.create(&ingress("stays", "a.example.com", "hello"))
        .await;
    let mut leaves = ingress("leaves", "b.example.com", "hello");
    leaves["metadata"]["finalizers"] = json!([FINALIZER]);
    api.create(&leaves).await;
    // Where lists cannot be streamed, they are asked for.
    api.refuse_streaming_lists();
    // Somebody else writes the same object: it is read anew.
    api.fail(1, 409, |seen| seen.resource == "ingresses/status");

    let mut gateway = launch(&overlay, &api, "").start().await;
    for name in ["stays", "leaves"] {
        until_ready(&api, name).await;
    }
    assert_eq!(gateway.get("a.example.com", "/").await.backend(), "hello");
    api.delete(INGRESS, "default", "leaves").await;
    api.until_gone(INGRESS, "default", "leaves").await;
    // What nothing of that waits for, such as watches of options; a lease is let go at the end.
    eventually(PATIENCE, "all is asked for", async || {
        let requests = api.requests();
        let asked: BTreeSet<_> = requests.iter().map(right).collect();
        let missing = rights(&overlay).into_iter();
        let mut missing = missing.filter(|right| !asked.contains(right));
        missing
            .all(|right| right.starts_with("leases "))
            .then_some(())
    })
    .await;
    gateway.signal(Signal::TERM);
    gateway.exit(PATIENCE).await.expect(0);

    let requests = api.requests();
    let mut asked = BTreeSet::new();
    for seen in requests.iter().filter(|seen| !seen.verb.is_empty()) {
        assert!(is_allowed(&overlay, seen), "{seen:?}");
        asked.insert(right(seen));
    }
    assert_eq!(asked, rights(&overlay));
    // Keys of certificates, and nothing else that is secret.
    let secrets = requests.iter().filter(|seen| seen.resource == "secrets");
    let queries: Vec<_> = secrets.map(|seen| &seen.query).collect();
    let only = |query: &&String| {
        query.contains("fieldSelector=type%3Dkubernetes.io%2Ftls")
            || query.contains("fieldSelector=metadata.name%3Drouting-serving-certs")
    };
    assert!(
        !queries.is_empty() && queries.iter().all(only),
        "{queries:?}"
    );
}

/// What it needs, in the words of [`rights`].
fn right(seen: &Seen) -> String {
    format!("{} {}", seen.resource, seen.verb)
}

/// As the API server decides it.
fn is_allowed(overlay: &Overlay, seen: &Seen) -> bool {
    let roles = overlay.of_kind("Role");
    let roles = roles.filter(|role| role["metadata"]["namespace"] == *seen.namespace);
    let mut rules = overlay
        .of_kind("ClusterRole")
        .chain(roles)
        .flat_map(|role| role["rules"].as_array().unwrap());
    let has = |list: &Value, word: &str| texts(list).any(|one| one == word);
    rules.any(|rule| {
        let names = rule.get("resourceNames");
        has(&rule["apiGroups"], &seen.group)
            && has(&rule["resources"], &seen.resource)
            && has(&rule["verbs"], seen.verb)
            && names.is_none_or(|names| has(names, &seen.name))
    })
}
