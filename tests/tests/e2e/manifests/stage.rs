//! The Deployment as it is written, in a cluster of the tests.

use serde_json::Value;
use tests::kubernetes::Api;
use tests::kubernetes::kind::INGRESS;
use tests::kubernetes::objects::{self, Pods, Service, path, rule, split};
use tests::{Backend, Launch};

use super::overlay::{Overlay, texts};
use super::{NAMESPACE, container, files};

/// Where the component `beside-kourier` looks for it.
pub(super) const KOURIER: &str = "kourier.kourier-system.svc.cluster.local:80";

/// The container's command line and environment, on free ports and without the wait of a drain.
/// `kourier` is where Kourier is.
pub(super) fn launch(overlay: &Overlay, api: &Api, kourier: &str) -> Launch {
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
        let text = text.replace(KOURIER, if kourier.is_empty() { KOURIER } else { kourier });
        let text = ["8080", "8081", "8443", "8444", "8012", "8013", "8112"]
            .iter()
            .fold(text, |text, port| {
                text.replace(&format!("0.0.0.0:{port}"), "127.0.0.1:0")
            });
        launch = launch.file(&format!("etc/{name}"), &text);
    }
    launch
}

/// A Service of that name with one pod.
pub(super) async fn serve(api: &Api, name: &str, pod: &Backend) {
    let service = Service::new("default", name, "http");
    api.create(&service.object()).await;
    let slices = service.slices(&Pods::ready(&[pod.address]));
    api.place("default", name, &slices).await;
}

/// An ingress of our class: that host leads to that Service.
pub(super) fn ingress(name: &str, host: &str, service: &str) -> Value {
    let paths = [path("", &[], &[split("default", service, 80, 100, &[])])];
    objects::ingress("default", name, &[rule(&[host], "ExternalIP", &paths)])
}

/// Waits until we say that an ingress is ready.
pub(super) async fn until_ready(api: &Api, name: &str) -> Value {
    let ready = |ingress: &Value| {
        let status = &ingress["status"];
        let by = &status["publicLoadBalancer"]["ingress"][0]["domainInternal"];
        let ours = format!("tidegate.{NAMESPACE}.svc.cluster.local");
        status["conditions"][2]["status"] == "True" && *by == *ours
    };
    api.until(INGRESS, "default", name, "it is ready", ready)
        .await
}
