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

/// A Service and its slices, one of each family, of the same pods.
fn dual_stack(spec: &Value, ready: [bool; 2]) -> (Cluster, Key) {
    let slice = |family: &str, address: &str, ready: bool| {
        read::<EndpointSlice>(json!({
            "metadata": {"namespace": "ns", "name": family, "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": family, "ports": [{"port": 80}],
            "endpoints": [{
                "addresses": [address],
                "conditions": {"ready": ready},
                "targetRef": {"kind": "Pod", "name": "web-1", "uid": "u-1"},
            }],
        }))
    };
    let mut cluster = cluster();
    cluster.put_service(&read(
        json!({"metadata": {"namespace": "ns", "name": "web"}, "spec": spec}),
    ));
    cluster.put_slice(&slice("IPv4", "10.0.0.1", ready[0]));
    cluster.put_slice(&slice("IPv6", "fd00::1", ready[1]));
    let key = cluster.key("ns", "web");
    (cluster, key)
}

#[test]
fn a_pod_with_addresses_of_both_families_counts_once_by_the_first_of_its_service() {
    let used = |spec: Value, ready: [bool; 2]| {
        let (cluster, key) = dual_stack(&spec, ready);
        let addresses = cluster.addresses(&key, "");
        assert!(addresses.unready.is_empty());
        let ready: Vec<_> = addresses.ready.iter().map(ToString::to_string).collect();
        ready.join(" ")
    };
    let (four, six) = ("10.0.0.1:80", "[fd00::1]:80");
    let both = json!({"ipFamilies": ["IPv6", "IPv4"], "clusterIPs": ["10.1.0.1"]});
    assert_eq!(used(both.clone(), [true, true]), six);
    assert_eq!(
        used(json!({"ipFamilies": ["IPv4", "IPv6"]}), [true, true]),
        four
    );
    assert_eq!(used(json!({"clusterIP": "fd00::7"}), [true, true]), six);
    assert_eq!(
        used(json!({"clusterIPs": ["10.1.0.1", "fd00::7"]}), [true, true]),
        four
    );
    assert_eq!(used(json!({"clusterIP": "None"}), [true, true]), four);
    assert_eq!(used(both, [true, false]), four, "what is ready goes first");
}

#[test]
fn who_is_no_pod_counts_by_each_address() {
    let (mut cluster, key) = dual_stack(&json!({}), [true, true]);
    for (family, address) in [("IPv4", "10.0.0.1"), ("IPv6", "fd00::1")] {
        cluster.put_slice(&read(json!({
            "metadata": {"namespace": "ns", "name": family, "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": family, "ports": [{"port": 80}], "endpoints": [{"addresses": [address]}],
        })));
    }
    assert_eq!(cluster.addresses(&key, "").ready.len(), 2);
}

fn revision_saying(conditions: &Value) -> RevisionObject {
    read(json!({
        "metadata": {"namespace": "ns", "name": "rev"},
        "status": {"conditions": conditions},
    }))
}

#[test]
fn why_a_revision_cannot_start_is_known_with_its_pods() {
    let mut cluster = cluster();
    let key = cluster.key("ns", "rev");
    let ready = revision_saying(&json!([{"type": "Ready", "status": "True"}]));
    assert_eq!(cluster.put_revision(&ready), Change::Revision(key.clone()));
    assert_eq!(cluster.pods(&key).failure, None);
    let failed = revision_saying(&json!([
        {"type": "Ready", "status": "False", "reason": "Other"},
        {"type": "ResourcesAvailable", "status": "False", "reason": "ImagePullBackOff",
         "message": "Back-off pulling \"app\"\nsecond line"},
    ]));
    assert_eq!(cluster.put_revision(&failed), Change::Failure(key.clone()));
    assert_eq!(cluster.put_revision(&failed), Change::Nothing);
    let why = "ImagePullBackOff: Back-off pulling \"app\"";
    assert_eq!(cluster.pods(&key).failure.as_deref(), Some(why));
    assert_eq!(cluster.put_revision(&ready), Change::Failure(key.clone()));
    assert_eq!(cluster.pods(&key).failure, None);
    cluster.put_revision(&failed);
    cluster.remove_revision(&key);
    assert_eq!(cluster.pods(&key).failure, None);
}

#[test]
fn only_what_keeps_pods_from_starting_is_a_cause_and_no_cause_is_long() {
    let mut cluster = cluster();
    let key = cluster.key("ns", "rev");
    let mut failure = |conditions| {
        cluster.put_revision(&revision_saying(&conditions));
        cluster.pods(&key).failure
    };
    let of = |kind: &str, status: &str| json!({"type": kind, "status": status, "reason": "Why"});
    let not_ready = of("Ready", "False");
    assert_eq!(failure(json!([not_ready, of("Active", "False")])), None);
    assert_eq!(
        failure(json!([not_ready, of("ContainerHealthy", "Unknown")])),
        None
    );
    let unhealthy = of("ContainerHealthy", "False");
    assert_eq!(failure(json!([of("Ready", "Unknown"), unhealthy])), None);
    assert_eq!(
        failure(json!([not_ready, unhealthy])).as_deref(),
        Some("Why")
    );
    assert_eq!(failure(json!("not a list")), None);
    let long =
        json!({"type": "ContainerHealthy", "status": "False", "message": "é\u{7}".repeat(500)});
    let why = failure(json!([not_ready, long])).expect("a cause");
    assert!(why.len() <= 200 && why.starts_with("é é "), "{why}");
    let silent = json!({"type": "ContainerHealthy", "status": "False"});
    let why = failure(json!([not_ready, silent]));
    assert_eq!(why.as_deref(), Some("its pods do not become ready"));
}
