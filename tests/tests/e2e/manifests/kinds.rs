//! Every manifest is of its kind as the API has it, and no field is misspelt.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::overlay::{identity, read};
use super::{kubernetes, yaml_files};

/// Read as its kind and written again, what the kind does not know is missing.
fn through<K: DeserializeOwned + Serialize>(object: &Value) -> serde_json::Result<Value> {
    serde_json::to_value(serde_json::from_value::<K>(object.clone())?)
}

fn typed(object: &Value) -> serde_json::Result<Value> {
    let [version, kind, ..] = identity(object);
    match (version, kind) {
        ("v1", "ConfigMap") => through::<ConfigMap>(object),
        ("v1", "Secret") => through::<Secret>(object),
        ("v1", "Service") => through::<Service>(object),
        ("v1", "ServiceAccount") => through::<ServiceAccount>(object),
        ("apps/v1", "Deployment") => through::<Deployment>(object),
        ("autoscaling/v2", "HorizontalPodAutoscaler") => through::<HorizontalPodAutoscaler>(object),
        ("networking.k8s.io/v1", "NetworkPolicy") => through::<NetworkPolicy>(object),
        ("policy/v1", "PodDisruptionBudget") => through::<PodDisruptionBudget>(object),
        ("rbac.authorization.k8s.io/v1", "ClusterRole") => through::<ClusterRole>(object),
        ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding") => {
            through::<ClusterRoleBinding>(object)
        }
        ("rbac.authorization.k8s.io/v1", "Role") => through::<Role>(object),
        ("rbac.authorization.k8s.io/v1", "RoleBinding") => through::<RoleBinding>(object),
        other => panic!("no type for {other:?}"),
    }
}

#[test]
fn every_field_of_every_manifest_is_one_of_its_kind() {
    let mut files = Vec::new();
    yaml_files(&kubernetes(), &mut files);
    assert!(files.len() > 10, "{files:?}");
    for path in files {
        if path.ends_with("kustomization.yaml") {
            continue;
        }
        for object in read(&path) {
            let known = typed(&object).unwrap_or_else(|error| panic!("{path:?}: {error}"));
            // What a kind must have and a patch leaves out is written as empty.
            let lost = missing(&object, &known);
            assert!(lost.is_empty(), "{path:?}: {lost:?}");
        }
    }
}

/// The fields of `whole` that `part` does not have in the same way.
fn missing(whole: &Value, part: &Value) -> Vec<String> {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            let fields = whole.iter().flat_map(|(name, value)| {
                let nested = part
                    .get(name)
                    .map_or_else(|| vec![String::new()], |part| missing(value, part));
                nested
                    .into_iter()
                    .map(move |below| format!("{name}.{below}"))
            });
            fields.collect()
        }
        (Value::Array(whole), Value::Array(part)) if whole.len() == part.len() => {
            let pairs = whole.iter().zip(part);
            pairs
                .flat_map(|(whole, part)| missing(whole, part))
                .collect()
        }
        _ if whole == part => Vec::new(),
        _ => vec![format!("{whole} became {part}")],
    }
}

#[test]
fn a_misspelt_field_is_found() {
    let object = json!({"apiVersion": "v1", "kind": "Service", "spec": {"portz": []}});
    let known = typed(&object).unwrap();
    assert_eq!(missing(&object, &known), ["spec.portz."]);
}
