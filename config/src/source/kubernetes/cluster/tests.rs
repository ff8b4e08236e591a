use serde_json::{Value, json};

use super::*;

fn cluster() -> Cluster {
    let key = |name: &str| Key {
        namespace: "sys".into(),
        name: name.into(),
    };
    Cluster::new(Landmarks {
        activator: key("activator"),
        internal: key("internal"),
        pod: None,
    })
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("an object of its kind")
}

fn unready_pods(spec: &Value) -> bool {
    let object = json!({"metadata": {"namespace": "ns", "name": "r"}, "spec": spec});
    let mut cluster = cluster();
    cluster.put_revision(&read(object));
    let key = cluster.key("ns", "r");
    cluster
        .revision(&key)
        .expect("a revision")
        .knative
        .unready_pods
}

#[test]
fn pods_count_before_they_are_ready_unless_their_queue_proxy_cannot_know() {
    let tcp = json!({"tcpSocket": {"port": 0}});
    let exec = json!({"exec": {"command": ["true"]}});
    assert!(unready_pods(
        &json!({"containers": [{"readinessProbe": tcp}]})
    ));
    assert!(!unready_pods(
        &json!({"containers": [{"readinessProbe": exec}]})
    ));
    assert!(!unready_pods(
        &json!({"containers": [{"startupProbe": tcp}]})
    ));
    let sidecar = json!([{"readinessProbe": exec}, {"ports": [{"containerPort": 80}]}]);
    assert!(
        unready_pods(&json!({"containers": sidecar})),
        "it is not the one that serves"
    );
    let slow_sidecar = json!([{"startupProbe": tcp}, {"ports": [{"containerPort": 80}]}]);
    assert!(!unready_pods(&json!({"containers": slow_sidecar})));
    assert!(!unready_pods(&json!({"containers": 7})), "who knows");
}

#[test]
fn limits_that_are_not_given_are_knatives() {
    let mut cluster = cluster();
    cluster.put_revision(&read(json!({"metadata": {"namespace": "ns", "name": "r"}})));
    let key = cluster.key("ns", "r");
    let limits = cluster.revision(&key).expect("a revision").limits;
    assert_eq!(
        limits,
        Limits {
            concurrency: 0,
            timeout: 300,
            response_start: 0,
            idle: 0
        }
    );
}

#[test]
fn a_slice_that_moves_to_another_service_leaves_the_first() {
    let slice = |service: &str| {
        read::<EndpointSlice>(json!({
            "metadata": {"namespace": "ns", "name": "s", "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4", "ports": [{"port": 80}], "endpoints": [{"addresses": ["10.0.0.1"]}],
        }))
    };
    let mut cluster = cluster();
    let (one, two) = (cluster.key("ns", "one"), cluster.key("ns", "two"));
    assert_eq!(
        cluster.put_slice(&slice("one")),
        Change::Endpoints(one.clone())
    );
    assert_eq!(cluster.put_slice(&slice("one")), Change::Nothing);
    assert_eq!(cluster.addresses(&one, "").ready.len(), 1);
    cluster.put_slice(&slice("two"));
    assert_eq!(cluster.addresses(&one, "").ready.len(), 0);
    let name = cluster.key("ns", "s");
    assert_eq!(cluster.remove_slice(&name), Change::Endpoints(two.clone()));
    assert_eq!(cluster.addresses(&two, ""), Addresses::default());
    assert!(cluster.endpoints.is_empty() && cluster.slices.is_empty());
}

#[test]
fn an_address_in_two_slices_is_what_the_better_one_says() {
    let slice = |name: &str, ready: bool| {
        read::<EndpointSlice>(json!({
            "metadata": {"namespace": "ns", "name": name, "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4", "ports": [{"port": 80}],
            "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": ready}}],
        }))
    };
    let mut cluster = cluster();
    cluster.put_slice(&slice("a", true));
    cluster.put_slice(&slice("b", false));
    let key = cluster.key("ns", "web");
    let addresses = cluster.addresses(&key, "");
    assert_eq!((addresses.ready.len(), addresses.unready.len()), (1, 0));
}

#[test]
fn secrets_do_not_show_what_they_hold() {
    let mut cluster = cluster();
    let secret =
        json!({"metadata": {"namespace": "ns", "name": "s"}, "data": {"tls.key": "c2VjcmV0"}});
    cluster.put_secret(&read(secret));
    let key = cluster.key("ns", "s");
    let secret = cluster.secret(&key).expect("a secret");
    assert_eq!(&*secret.key, b"secret");
    assert_eq!(format!("{secret:?}"), "Secret(..)");
}
