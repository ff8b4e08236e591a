//! The Deployment as it is written runs in a cluster, and its roles allow what it asks there, and
//! no write that it never makes.

use std::collections::BTreeSet;

use rustix::process::Signal;
use serde_json::{Value, json};
use tests::kubernetes::Api;
use tests::kubernetes::api::Seen;
use tests::kubernetes::kind::INGRESS;
use tests::kubernetes::objects::{self, Pods, Service, path, rule, split};
use tests::{Backend, Launch, PATIENCE};

use super::overlay::{Overlay, texts};
use super::{NAMESPACE, container, files, overlays, writes};

/// What Kourier leaves on ingresses.
const FINALIZER: &str = "ingresses.networking.internal.knative.dev";

/// The container's command line and environment, on free ports and without the wait of a drain.
fn launch(overlay: &Overlay, api: &Api) -> Launch {
    let container = container(overlay);
    let directory = container["volumeMounts"][0]["mountPath"].as_str().unwrap();
    let arguments = texts(&container["args"]).map(|word| match word == directory {
        true => "etc",
        false => word,
    });
    let mut launch = Launch::without_file()
        .command(arguments)
        .own_listeners()
        .environment("KUBECONFIG", api.kubeconfig())
        .environment("TIDEGATE_AUTOSCALER", "ws://127.0.0.1:9")
        .environment("CLUSTER_DOMAIN", "cluster.local");
    for variable in container["env"].as_array().unwrap() {
        let field = &variable["valueFrom"]["fieldRef"]["fieldPath"];
        let value = match field.as_str() {
            Some("metadata.name") => "tidegate-0",
            Some("metadata.namespace") => NAMESPACE,
            Some("status.podIP") => "127.0.0.1",
            Some(other) => panic!("{other}"),
            None => variable["value"].as_str().unwrap(),
        };
        launch = launch.environment(variable["name"].as_str().unwrap(), value);
    }
    for (name, text) in files(overlay) {
        let text = text.replace("wait: 45s", "wait: 0s");
        let text = ["8080", "8081", "8443", "8444", "8012", "8013"]
            .iter()
            .fold(text, |text, port| {
                text.replace(&format!("0.0.0.0:{port}"), "127.0.0.1:0")
            });
        launch = launch.file(&format!("etc/{name}"), &text);
    }
    launch
}

fn ingress(name: &str, host: &str) -> Value {
    let paths = [path("", &[], &[split("default", "hello", 80, 100, &[])])];
    objects::ingress("default", name, &[rule(&[host], "ExternalIP", &paths)])
}

#[tokio::test]
async fn roles_allow_what_the_gateway_asks_and_no_write_that_it_never_makes() {
    let overlay = overlays().remove("beside-kourier").unwrap();
    let (api, backend) = (Api::start(), Backend::start("hello"));
    let service = Service::new("default", "hello", "http");
    api.create(&service.object()).await;
    let slices = service.slices(&Pods::ready(&[backend.address]));
    api.place("default", "hello", &slices).await;
    api.create(&ingress("stays", "a.example.com")).await;
    let mut leaves = ingress("leaves", "b.example.com");
    leaves["metadata"]["finalizers"] = json!([FINALIZER]);
    api.create(&leaves).await;

    let mut gateway = launch(&overlay, &api).start().await;
    for name in ["stays", "leaves"] {
        let ready = |ingress: &Value| ingress["status"]["conditions"][2]["status"] == "True";
        api.until(INGRESS, "default", name, "it is ready", ready)
            .await;
    }
    assert_eq!(gateway.get("a.example.com", "/").await.backend(), "hello");
    api.delete(INGRESS, "default", "leaves").await;
    api.until_gone(INGRESS, "default", "leaves").await;
    gateway.signal(Signal::TERM);
    gateway.exit(PATIENCE).await.expect(0);

    let requests = api.requests();
    let mut written = BTreeSet::new();
    for seen in requests.iter().filter(|seen| !seen.verb.is_empty()) {
        assert!(is_allowed(&overlay, seen), "{seen:?}");
        if seen.writes() {
            written.insert(format!("{} {}", seen.resource, seen.verb));
        }
    }
    assert_eq!(written, writes(&overlay));
    // Keys of certificates, and nothing else that is secret.
    let secrets = requests.iter().filter(|seen| seen.resource == "secrets");
    let queries: Vec<_> = secrets.map(|seen| &seen.query).collect();
    let only = |query: &&String| query.contains("fieldSelector=type%3Dkubernetes.io%2Ftls");
    assert!(
        !queries.is_empty() && queries.iter().all(only),
        "{queries:?}"
    );
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
