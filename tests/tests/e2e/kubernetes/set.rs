//! A gateway in a cluster: the API server it watches, and where its listeners are.

use std::net::SocketAddr;

use serde_json::Value;
use tests::client::with;
use tests::kubernetes::Api;
use tests::kubernetes::kind::INGRESS;
use tests::kubernetes::objects::{Pods, Service};
use tests::{Answer, Backend, Client, Gateway, Launch, request};

/// Where the cluster's parts and the gateway's own objects are.
pub(super) const SYSTEM: &str = "knative-serving";

const LISTENERS: &str = "
gateway:
  adminTokenFile: token
  drain: {wait: 0s}
  listeners:
    - {address: '127.0.0.1:0'}
    - {address: '127.0.0.1:0', audience: internal}
    - {address: '127.0.0.1:0', audience: activator}
    - {address: '127.0.0.1:0', audience: activator, tls: {fromRoutes: true}}
    - {address: '127.0.0.1:0', tls: {fromRoutes: true}}
";

/// A gateway about to be started for this API server; statistics go nowhere.
pub(super) fn launch(api: &Api) -> Launch {
    launch_with(api, "ws://127.0.0.1:9")
}

pub(super) fn launch_with(api: &Api, autoscaler: &str) -> Launch {
    Launch::new(LISTENERS)
        .file("token", "secret")
        .own_listeners()
        .arguments(["--kubernetes"])
        .environment("KUBECONFIG", api.kubeconfig())
        .environment("TIDEGATE_AUTOSCALER", autoscaler)
        .environment("POD_NAME", "tidegate-0")
        .environment("POD_IP", "127.0.0.1")
        .environment("SYSTEM_NAMESPACE", SYSTEM)
        .environment("CLUSTER_DOMAIN", "cluster.local")
}

/// Where a listener for that audience is.
pub(super) fn listener(gateway: &Gateway, audience: &str) -> SocketAddr {
    let mut all = gateway.listeners.iter();
    let found = all.find(|(_, known)| known == audience);
    found.expect("a listener for that audience").0
}

/// The last of the listeners: it speaks TLS.
pub(super) fn secure(gateway: &Gateway) -> SocketAddr {
    gateway.listeners.last().expect("a listener").0
}

/// The answer of an internal listener.
pub(super) async fn inside(gateway: &Gateway, host: &str, path: &str) -> Answer {
    let mut client = Client::connect(listener(gateway, "internal")).await;
    client.get(host, path).await
}

/// What an ingress's controller asks.
pub(super) async fn probe(address: SocketAddr, host: &str) -> Answer {
    let asks = with(request("GET", host, "/healthz"), "k-network-probe", "probe");
    let asks = with(asks, "k-network-hash", "override");
    Client::connect(address).await.send(asks).await
}

/// A plain Service with these pods.
pub(super) async fn service(api: &Api, name: &str, port: &str, pods: &[&Backend]) {
    let addresses: Vec<_> = pods.iter().map(|pod| pod.address).collect();
    let service = Service::new("default", name, port);
    api.create(&service.object()).await;
    api.place("default", name, &service.slices(&Pods::ready(&addresses)))
        .await;
}

fn condition<'a>(ingress: &'a Value, kind: &str) -> &'a Value {
    let conditions = ingress["status"]["conditions"].as_array();
    let mut conditions = conditions.map_or(&[][..], Vec::as_slice).iter();
    conditions
        .find(|one| one["type"] == kind)
        .unwrap_or(&Value::Null)
}

fn is_observed(ingress: &Value) -> bool {
    ingress["status"]["observedGeneration"] == ingress["metadata"]["generation"]
}

pub(super) fn is_ready(ingress: &Value) -> bool {
    is_observed(ingress) && condition(ingress, "Ready")["status"] == "True"
}

/// Waits until what the ingress says now is said to be live.
pub(super) async fn until_ready(api: &Api, name: &str) -> Value {
    api.until(INGRESS, "default", name, "it is ready", is_ready)
        .await
}

/// Waits until it is said why the ingress is not live.
pub(super) async fn until_reason(api: &Api, name: &str, reason: &str) -> Value {
    let what = format!("its reason is {reason}");
    api.until(INGRESS, "default", name, &what, |ingress| {
        is_observed(ingress) && condition(ingress, "Ready")["reason"] == reason
    })
    .await
}
