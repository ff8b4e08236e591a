//! An ingress moves from Kourier to us and back, and no request fails meanwhile.

use serde_json::{Value, json};
use tests::kubernetes::Api;
use tests::kubernetes::kind::INGRESS;
use tests::load::Reconnect;
use tests::{Backend, Load, PATIENCE, eventually, request};

use super::overlays;
use super::stage::{ingress, launch, serve, until_ready};

const HOST: &str = "hello.default.example.com";
const CLASS: &str = "networking.knative.dev/ingress.class";

/// Gives the ingress that class, as Knative's controller does: nothing else changes.
async fn move_to(api: &Api, class: &str) {
    let class = format!("{class}.ingress.networking.knative.dev");
    let changes = json!({"metadata": {"annotations": {CLASS: class}}});
    api.patch(INGRESS, "default", "hello", &changes).await;
}

/// What Kourier says of an ingress that it serves.
fn served_by_kourier() -> Value {
    let conditions = ["LoadBalancerReady", "NetworkConfigured", "Ready"].map(|kind| {
        json!({"type": kind, "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"})
    });
    let by = |name: &str| {
        let name = format!("{name}.kourier-system.svc.cluster.local");
        json!({"ingress": [{"domainInternal": name}]})
    };
    json!({
        "observedGeneration": 1,
        "conditions": conditions,
        "publicLoadBalancer": by("kourier"),
        "privateLoadBalancer": by("kourier-internal"),
    })
}

#[tokio::test]
async fn an_ingress_comes_from_kourier_and_goes_back_without_a_failed_request() {
    let overlay = overlays().remove("beside-kourier").unwrap();
    let (kourier, pod) = (Backend::start("kourier"), Backend::start("pod"));
    let api = Api::start();
    serve(&api, "hello", &pod).await;
    api.create(&ingress("hello", HOST, "hello")).await;
    move_to(&api, "kourier").await;
    let status = served_by_kourier();
    api.patch_status(INGRESS, "default", "hello", status).await;

    let launch = launch(&overlay, &api, &kourier.to_string());
    let gateway = launch.start().await;
    let answering = async |name: &str| {
        eventually(PATIENCE, "the other answers", async || {
            let answer = gateway.get(HOST, "/").await.expect(200);
            (answer.backend() == name).then_some(())
        })
        .await;
    };
    answering("kourier").await;
    assert_eq!(
        api.writes()
            .iter()
            .filter(|seen| seen.group.starts_with("networking"))
            .count(),
        0
    );
    let load = Load::start(gateway.public(), 4, Reconnect::Always, || {
        request("GET", HOST, "/")
    });
    move_to(&api, "tidegate").await;
    until_ready(&api, "hello").await;
    assert_eq!(gateway.get(HOST, "/").await.backend(), "pod");
    load.more(100).await;
    move_to(&api, "kourier").await;
    // It is served here until Kourier says that it serves it.
    load.more(100).await;
    assert_eq!(gateway.get(HOST, "/").await.backend(), "pod");
    let status = served_by_kourier();
    api.patch_status(INGRESS, "default", "hello", status).await;
    answering("kourier").await;
    load.more(100).await;
    let tally = load.stop().await;
    assert_eq!(tally.keys().collect::<Vec<_>>(), ["200"], "{tally:?}");

    // Knative's controller never saw it unready.
    for seen in api.writes() {
        if seen.resource == "ingresses/status" {
            assert_eq!(
                seen.body["status"]["conditions"][2]["status"], "True",
                "{seen:?}"
            );
        }
    }
}
