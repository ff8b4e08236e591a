//! The stage itself: what an API server does, in the test's process or a real one. Other
//! tests may trust the fake in what passes here on both.

use serde_json::{Value, json};
use tests::kubernetes::kind::{ENDPOINT_SLICE, ENDPOINTS, INGRESS, LEASE, REVISION, SERVICE};
use tests::kubernetes::objects::{
    NOWHERE, Pods, Revision, Route, Service, Traffic, ingress, tls_secret,
};
use tests::kubernetes::{Cluster, Stage};
use tests::on_both_stages;
use tests::tls::Authority;

const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";

on_both_stages!(
    objects_are_made_once_and_changed_only_by_who_knows_their_latest_version,
    status_is_changed_by_its_subresource_only_and_generation_by_the_rest_only,
    what_changes_nothing_makes_no_new_version,
    a_deleted_object_stays_until_its_last_finalizer_has_gone,
    errors_have_their_codes_and_reasons,
    a_revision_moves_between_its_modes_in_endpoints_and_slices,
    what_builders_make_is_taken,
);

fn reason(answer: &(u16, Value)) -> (u16, &str) {
    let (code, status) = answer;
    assert_eq!(
        (&status["kind"], &status["code"]),
        (&json!("Status"), &json!(code))
    );
    (*code, status["reason"].as_str().unwrap_or_default())
}

async fn put(cluster: &Cluster, path: &str, object: &Value) -> (u16, Value) {
    cluster.ask("PUT", path, JSON, object).await
}

async fn objects_are_made_once_and_changed_only_by_who_knows_their_latest_version(stage: Stage) {
    let mut lease = json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"namespace": "default", "name": "leader"},
        "spec": {"holderIdentity": "a"},
    });
    let made = stage.create(&lease).await;
    let metadata = &made["metadata"];
    assert_eq!(metadata["uid"].as_str().unwrap().len(), 36);
    assert!(
        metadata["creationTimestamp"]
            .as_str()
            .unwrap()
            .ends_with('Z')
    );
    let again = stage
        .ask("POST", &LEASE.collection("default"), JSON, &lease)
        .await;
    assert_eq!(reason(&again), (409, "AlreadyExists"));

    let path = LEASE.path("default", "leader");
    let mut renewed = made.clone();
    renewed["spec"]["holderIdentity"] = "b".into();
    assert_eq!(put(&stage, &path, &renewed).await.0, 200);
    assert_eq!(
        reason(&put(&stage, &path, &renewed).await),
        (409, "Conflict")
    );
    lease["spec"]["holderIdentity"] = "c".into();
    assert_eq!(reason(&put(&stage, &path, &lease).await), (422, "Invalid"));
    let version = &made["metadata"]["resourceVersion"];
    let late = json!({"metadata": {"resourceVersion": version}, "spec": {"holderIdentity": "c"}});
    let late = stage.ask("PATCH", &path, MERGE, &late).await;
    assert_eq!(reason(&late), (409, "Conflict"));
    let lease = stage.get(LEASE, "default", "leader").await.unwrap();
    assert_eq!(lease["spec"]["holderIdentity"], "b");
}

async fn status_is_changed_by_its_subresource_only_and_generation_by_the_rest_only(stage: Stage) {
    let mut object = ingress("default", "hello", &[]);
    object["status"] = json!({"observedGeneration": 1});
    let collection = INGRESS.collection("default");
    let (code, made) = stage.ask("POST", &collection, JSON, &object).await;
    assert_eq!((code, made.get("status")), (201, None));
    assert_eq!(made["metadata"]["generation"], 1);

    let mut new = made.clone();
    new["status"] = json!({"observedGeneration": 7});
    new["spec"]["httpOption"] = "Redirected".into();
    let (path, status) = (
        format!("{collection}/hello"),
        format!("{collection}/hello/status"),
    );
    let (code, stored) = put(&stage, &status, &new).await;
    assert_eq!(
        (code, &stored["status"]["observedGeneration"]),
        (200, &json!(7))
    );
    assert_eq!(stored["spec"]["httpOption"], "Enabled");
    assert_eq!(stored["metadata"]["generation"], 1);

    new["metadata"]["resourceVersion"] = stored["metadata"]["resourceVersion"].clone();
    new["metadata"]["labels"] = json!({"a": "b"});
    new["status"] = json!({"observedGeneration": 9});
    let (code, stored) = put(&stage, &path, &new).await;
    assert_eq!(
        (code, &stored["status"]["observedGeneration"]),
        (200, &json!(7))
    );
    assert_eq!(stored["metadata"]["generation"], 2);

    let changes = json!({"metadata": {"labels": {"a": "c"}}, "status": {"observedGeneration": 8}});
    let stored = stage.patch(INGRESS, "default", "hello", &changes).await;
    assert_eq!(stored["status"]["observedGeneration"], 7);
    assert_eq!(stored["metadata"]["labels"]["a"], "c");
    assert_eq!(stored["metadata"]["generation"], 2);
    let status = json!({"observedGeneration": 8});
    let stored = stage
        .patch_status(INGRESS, "default", "hello", status)
        .await;
    assert_eq!(stored["status"]["observedGeneration"], 8);
    assert_eq!(stored["metadata"]["generation"], 2);
}

async fn what_changes_nothing_makes_no_new_version(stage: Stage) {
    let made = stage.create(&ingress("default", "hello", &[])).await;
    let path = INGRESS.path("default", "hello");
    let (code, same) = put(&stage, &path, &made).await;
    assert_eq!(code, 200);
    let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
    assert_eq!(version(&same), version(&made));
    let patched = stage.patch_spec(
        INGRESS,
        "default",
        "hello",
        json!({"httpOption": "Enabled"}),
    );
    assert_eq!(version(&patched.await), version(&made));
}

async fn a_deleted_object_stays_until_its_last_finalizer_has_gone(stage: Stage) {
    let mut object = ingress("default", "held", &[]);
    object["metadata"]["finalizers"] = json!(["example.com/a", "example.com/b"]);
    stage.create(&object).await;
    stage.delete(INGRESS, "default", "held").await;
    let leaving = stage.get(INGRESS, "default", "held").await.unwrap();
    assert!(leaving["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(leaving["metadata"]["generation"], 2);
    let more = json!({"metadata": {"finalizers": ["example.com/b", "example.com/c"]}});
    let path = INGRESS.path("default", "held");
    let refused = stage.ask("PATCH", &path, MERGE, &more).await;
    assert_eq!(reason(&refused), (422, "Invalid"));
    let one = json!({"metadata": {"finalizers": ["example.com/b"]}});
    stage.patch(INGRESS, "default", "held", &one).await;
    assert!(stage.get(INGRESS, "default", "held").await.is_some());
    let none = json!({"metadata": {"finalizers": null}});
    stage.patch(INGRESS, "default", "held", &none).await;
    stage.until_gone(INGRESS, "default", "held").await;
}

async fn errors_have_their_codes_and_reasons(stage: Stage) {
    let ask = async |method: &str, path: &str| stage.ask(method, path, JSON, &Value::Null).await;
    let missing = ask("GET", &SERVICE.path("default", "missing")).await;
    assert_eq!(reason(&missing), (404, "NotFound"));
    assert_eq!(missing.1["message"], "services \"missing\" not found");
    let missing = ask("DELETE", &INGRESS.path("default", "missing")).await;
    let message = "ingresses.networking.internal.knative.dev \"missing\" not found";
    assert_eq!((missing.0, &missing.1["message"]), (404, &json!(message)));
    let nameless = ingress("default", "", &[]);
    let refused = stage
        .ask("POST", &INGRESS.collection("default"), JSON, &nameless)
        .await;
    assert_eq!(reason(&refused), (422, "Invalid"));
    let elsewhere = ingress("other", "hello", &[]);
    let refused = stage
        .ask("POST", &INGRESS.collection("default"), JSON, &elsewhere)
        .await;
    assert_eq!(reason(&refused), (400, "BadRequest"));
}

fn names(objects: &[Value]) -> Vec<&str> {
    let names = objects.iter();
    names
        .map(|object| object["metadata"]["name"].as_str().unwrap())
        .collect()
}

async fn a_revision_moves_between_its_modes_in_endpoints_and_slices(stage: Stage) {
    let slices = ENDPOINT_SLICE.collection("");
    let (code, _) = stage.ask("GET", &slices, JSON, &Value::Null).await;
    if code == 404 {
        eprintln!("skipped: an API server of before 1.21 has no such slices");
        return;
    }
    let revision = Revision::new("modes", "hello-00001").concurrency(1);
    stage.create_revision(&revision).await;
    let pods = [(NOWHERE, 8012).into(), (NOWHERE, 9012).into()];
    let activator = [(NOWHERE, 8012).into()];
    stage
        .scale(&revision, &Pods::unready(&pods), Traffic::Proxy(&activator))
        .await;
    let slices = stage.list(ENDPOINT_SLICE, "modes").await;
    assert_eq!(
        names(&slices),
        [
            "hello-00001-8012",
            "hello-00001-private-8012",
            "hello-00001-private-9012"
        ]
    );
    stage
        .scale(
            &revision,
            &Pods::ready(&pods[..1]),
            Traffic::Serve(&pods[..1]),
        )
        .await;
    let slices = stage.list(ENDPOINT_SLICE, "modes").await;
    assert_eq!(
        names(&slices),
        ["hello-00001-8012", "hello-00001-private-8012"]
    );
    assert_eq!(slices[1]["endpoints"][0]["conditions"]["ready"], true);
    let ports = slices[1]["ports"].as_array().unwrap();
    let http = json!({"name": "http", "port": 8012, "protocol": "TCP"});
    assert!(ports.contains(&http), "{ports:#?}");
    let endpoints = stage.get(ENDPOINTS, "modes", "hello-00001").await.unwrap();
    assert_eq!(
        endpoints["subsets"][0]["addresses"][0]["ip"],
        NOWHERE.to_string()
    );
    let stored = stage.get(REVISION, "modes", "hello-00001").await.unwrap();
    assert_eq!(stored["spec"]["containerConcurrency"], 1);
}

async fn what_builders_make_is_taken(stage: Stage) {
    let route = Route::new("built", "hello")
        .to("hello-00001", 90)
        .to("hello-00002", 10);
    stage
        .create(
            &route
                .tag("new", "hello-00002")
                .by_header()
                .tls("cert")
                .ingress(),
        )
        .await;
    stage
        .create(
            &Route::new("built", "inner")
                .to("inner-1", 100)
                .h2c()
                .cluster_local()
                .ingress(),
        )
        .await;
    let target = "tidegate-internal.tidegate-system.svc.cluster.local";
    stage
        .create(&Service::external("built", "hello", target).object())
        .await;
    stage
        .create(&Service::new("built", "plain", "http").object())
        .await;
    stage
        .create(&tls_secret(
            "built",
            "cert",
            &Authority::new().issue(&["a.example.com"]),
        ))
        .await;
    assert_eq!(stage.list(SERVICE, "built").await.len(), 2);
    let rules = stage.get(INGRESS, "built", "hello").await.unwrap()["spec"]["rules"].take();
    let hosts: Vec<_> = rules
        .as_array()
        .unwrap()
        .iter()
        .map(|rule| &rule["hosts"][0])
        .collect();
    assert_eq!(
        hosts,
        [
            "hello.built",
            "hello.built.example.com",
            "new-hello.built",
            "new-hello.built.example.com"
        ]
    );
    let paths = &rules[0]["http"]["paths"];
    assert_eq!(paths[0]["headers"]["Knative-Serving-Tag"]["exact"], "new");
    assert_eq!(paths[1]["splits"][1]["percent"], 10);
}
