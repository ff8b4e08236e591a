//! Objects as Knative's controllers and Kubernetes' own write them, as JSON.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::tls::Pem;

mod ingress;
mod revision;
mod service;

pub use ingress::{Route, domain_mapping, ingress, path, rule, split};
pub use revision::{Revision, Traffic};
pub use service::{Pods, Service};

/// Of the ingresses that are the gateway's.
pub const CLASS: &str = "tidegate.ingress.networking.knative.dev";

pub const CLUSTER_DOMAIN: &str = "cluster.local";

/// A pod's address where nobody ever connects: of a network that is for documentation. A real API
/// server takes it, and no address of the loopback network.
pub const NOWHERE: std::net::Ipv4Addr = std::net::Ipv4Addr::new(192, 0, 2, 1);

/// The Secret of a certificate.
#[must_use]
pub fn tls_secret(namespace: &str, name: &str, pem: &Pem) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"namespace": namespace, "name": name},
        "type": "kubernetes.io/tls",
        "data": {
            "tls.crt": BASE64_STANDARD.encode(&pem.cert),
            "tls.key": BASE64_STANDARD.encode(&pem.key),
        },
    })
}

#[must_use]
pub fn config_map(namespace: &str, name: &str, data: &[(&str, &str)]) -> Value {
    let data: serde_json::Map<_, _> = data
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).into()))
        .collect();
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"namespace": namespace, "name": name},
        "data": data,
    })
}

#[must_use]
pub fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

/// Puts members into an object's object: labels, annotations, headers.
fn members(pairs: &[(&str, &str)]) -> Value {
    let pairs = pairs.iter();
    let members = pairs.map(|(name, value)| ((*name).to_owned(), (*value).into()));
    Value::Object(members.collect())
}
