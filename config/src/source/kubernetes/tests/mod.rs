mod api;
mod cases;
mod hosts;
mod render;
mod shell;
mod state;

use std::sync::Arc;

use serde_json::{Value, json};

use super::cluster::Landmarks;
use super::state::{Identity, Object, State};
use super::status::Balancers;
use super::translate::Names;
use crate::revision::Key;

pub(super) const CLASS: &str = "tidegate.ingress.networking.knative.dev";

pub(super) fn key(namespace: &str, name: &str) -> Key {
    Key {
        namespace: namespace.into(),
        name: name.into(),
    }
}

pub(super) fn identity() -> Identity {
    let internal = "tidegate-internal.tidegate-system.svc.cluster.local";
    Identity {
        class: CLASS.into(),
        names: Names {
            internal: internal.into(),
        },
        balancers: Balancers {
            public: "tidegate.tidegate-system.svc.cluster.local".into(),
            private: internal.into(),
        },
        landmarks: Landmarks {
            activator: key("knative-serving", "activator-service"),
            internal: key("tidegate-system", "tidegate-internal"),
            pod: "10.0.9.1".parse().ok(),
        },
    }
}

/// An object of the API as our types read it.
pub(super) fn object(value: Value) -> Object {
    fn read<T: serde::de::DeserializeOwned>(value: Value) -> Box<T> {
        Box::new(serde_json::from_value(value).expect("an object of its kind"))
    }
    let kind = value["kind"].as_str().expect("a kind").to_owned();
    match &*kind {
        "Ingress" => Object::Ingress(read(value)),
        "Service" => Object::Service(read(value)),
        "EndpointSlice" => Object::Slice(read(value)),
        "Endpoints" => Object::Endpoints(read(value)),
        "Revision" => Object::Revision(read(value)),
        "Secret" if value["metadata"]["name"] == "routing-serving-certs" => {
            Object::InternalSecret(read(value))
        }
        "Secret" => Object::Secret(read(value)),
        "ConfigMap" => Object::ConfigMap(read(value)),
        _ => panic!("unknown kind {kind}"),
    }
}

/// Everything is listed.
pub(super) fn synced(objects: Vec<Value>) -> State {
    let mut state = State::new(identity(), |_| Ok(()));
    for value in objects {
        state.put(&object(value));
    }
    state.sync();
    state
}

pub(super) fn service(name: &str, port: &str) -> Value {
    json!({
        "kind": "Service",
        "metadata": {"namespace": "ns", "name": name},
        "spec": {"ports": [{"name": port, "port": 80, "targetPort": 8000}]},
    })
}

/// A slice `SERVICE-NUMBER` of a Service whose port is called `http`.
pub(super) fn slice(service: &str, number: usize, ready: &[&str]) -> Value {
    let endpoints: Vec<Value> = ready.iter().map(|ip| json!({"addresses": [ip]})).collect();
    json!({
        "kind": "EndpointSlice",
        "metadata": {
            "namespace": "ns",
            "name": format!("{service}-{number}"),
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8000}],
        "endpoints": endpoints,
    })
}

/// An ingress of our class whose hosts lead to port 80 of a Service.
pub(super) fn ingress(name: &str, generation: i64, hosts: &[&str], service: &str) -> Value {
    json!({
        "kind": "Ingress",
        "metadata": {
            "namespace": "ns",
            "name": name,
            "generation": generation,
            "resourceVersion": format!("{generation}"),
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "annotations": {"networking.knative.dev/ingress.class": CLASS},
        },
        "spec": {"rules": [{"hosts": hosts, "http": {"paths": [{"splits": [
            {"serviceNamespace": "ns", "serviceName": service, "servicePort": 80, "percent": 100},
        ]}]}}]},
    })
}

pub(super) fn accepted() -> crate::source::Verdict {
    crate::source::Verdict::Accepted { version: 1 }
}

/// What refuses an origin.
pub(super) fn refused(file: &str) -> crate::source::Verdict {
    let problem = crate::Problem {
        file: file.to_owned(),
        line: 0,
        column: 0,
        path: "routes[0]".to_owned(),
        value: "x".to_owned(),
        problem: "it is bad".to_owned(),
        hint: "mend it".to_owned(),
    };
    crate::source::Verdict::Rejected(vec![problem])
}

/// The origins of a batch.
pub(super) fn origins(fragments: &[crate::Fragment]) -> Vec<String> {
    let shown = |fragment: &crate::Fragment| {
        let gone = matches!(fragment.content, crate::Content::Gone);
        let name: &Arc<str> = fragment.origin.name();
        format!("{}{name}", if gone { "-" } else { "" })
    };
    fragments.iter().map(shown).collect()
}
