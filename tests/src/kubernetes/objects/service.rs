//! Services, and the addresses behind them as EndpointSlices and Endpoints.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::{Value, json};

use super::members;

/// A Service, less what an API server adds.
#[derive(Clone, Debug)]
pub struct Service {
    namespace: String,
    name: String,
    labels: Vec<(String, String)>,
    ports: Vec<Value>,
    /// The name of the port by which pods are told apart.
    port: String,
    external_name: Option<String>,
}

/// The pods of a Service.
#[derive(Clone, Debug, Default)]
pub struct Pods<'a> {
    pub ready: &'a [SocketAddr],
    /// Not said to be ready yet.
    pub unready: &'a [SocketAddr],
    /// About to end: they may still serve.
    pub terminating: &'a [SocketAddr],
}

impl<'a> Pods<'a> {
    #[must_use]
    pub fn ready(ready: &'a [SocketAddr]) -> Pods<'a> {
        Pods {
            ready,
            ..Pods::default()
        }
    }

    #[must_use]
    pub fn unready(unready: &'a [SocketAddr]) -> Pods<'a> {
        Pods {
            unready,
            ..Pods::default()
        }
    }

    /// With the conditions of an EndpointSlice.
    fn conditions(&self) -> impl Iterator<Item = (SocketAddr, Value)> {
        let condition = |ready: bool, serving: bool, terminating: bool| json!({"ready": ready, "serving": serving, "terminating": terminating});
        let ready = self
            .ready
            .iter()
            .map(move |pod| (*pod, condition(true, true, false)));
        let unready = self
            .unready
            .iter()
            .map(move |pod| (*pod, condition(false, false, false)));
        let terminating = self
            .terminating
            .iter()
            .map(move |pod| (*pod, condition(false, true, true)));
        ready.chain(unready).chain(terminating)
    }
}

impl Service {
    /// With port 80 of that name: `http`, or `http2` for what speaks HTTP/2.
    #[must_use]
    pub fn new(namespace: &str, name: &str, port: &str) -> Service {
        Service {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            labels: Vec::new(),
            ports: vec![json!({"name": port, "port": 80, "protocol": "TCP", "targetPort": 8080})],
            port: port.to_owned(),
            external_name: None,
        }
    }

    /// A name for another name, with port 80 named `http2`, as Knative's placeholders have it.
    #[must_use]
    pub fn external(namespace: &str, name: &str, target: &str) -> Service {
        let mut service = Service::new(namespace, name, "http2");
        service.ports[0]["targetPort"] = 80.into();
        service.ports[0]["appProtocol"] = "kubernetes.io/h2c".into();
        service.external_name = Some(target.to_owned());
        service
    }

    #[must_use]
    pub fn label(mut self, name: &str, value: &str) -> Service {
        self.labels.push((name.to_owned(), value.to_owned()));
        self
    }

    /// In place of its ports: `{"name", "port", "targetPort"}`; the first is the one by which pods
    /// are told apart.
    #[must_use]
    pub fn ports(mut self, ports: Vec<Value>) -> Service {
        ports[0]["name"]
            .as_str()
            .unwrap_or_default()
            .clone_into(&mut self.port);
        self.ports = ports;
        self
    }

    #[must_use]
    pub fn object(&self) -> Value {
        let mut spec = json!({"ports": self.ports});
        match &self.external_name {
            Some(target) => {
                spec["type"] = "ExternalName".into();
                spec["externalName"] = target.clone().into();
            }
            None => spec["type"] = "ClusterIP".into(),
        }
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "namespace": self.namespace,
                "name": self.name,
                "labels": self.all_labels(&[]),
            },
            "spec": spec,
        })
    }

    /// What Kubernetes writes: all pods of one port share a slice, and every port has one. Without
    /// pods it is one slice without addresses. See [`Cluster::place`](crate::kubernetes::Cluster::place).
    #[must_use]
    pub fn slices(&self, pods: &Pods<'_>) -> Vec<Value> {
        let mut ports: BTreeMap<Option<u16>, Vec<Value>> = BTreeMap::new();
        for (pod, conditions) in pods.conditions() {
            let name = format!(
                "pod-{}-{}",
                pod.ip().to_string().replace('.', "-"),
                pod.port()
            );
            let target = json!({"kind": "Pod", "namespace": self.namespace, "name": name});
            let addresses = [pod.ip().to_string()];
            ports.entry(Some(pod.port())).or_default().push(json!({
                "addresses": addresses,
                "conditions": conditions,
                "targetRef": target,
            }));
        }
        if ports.is_empty() {
            ports.insert(None, Vec::new());
        }
        let slices = ports.into_iter();
        slices
            .map(|(port, endpoints)| self.slice(port, &endpoints))
            .collect()
    }

    fn slice(&self, port: Option<u16>, endpoints: &[Value]) -> Value {
        let ports = port.map_or_else(Vec::new, |port| self.target_ports(port));
        let suffix = port.map_or_else(|| "none".to_owned(), |port| port.to_string());
        let labels = self.all_labels(&[
            (
                "endpointslice.kubernetes.io/managed-by",
                "endpointslice-controller.k8s.io",
            ),
            ("kubernetes.io/service-name", &self.name),
        ]);
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "namespace": self.namespace,
                "name": format!("{}-{suffix}", self.name),
                "labels": labels,
            },
            "addressType": "IPv4",
            "ports": ports,
            "endpoints": endpoints,
        })
    }

    /// The same as an object of Endpoints, which knows no terminating ones.
    #[must_use]
    pub fn endpoints(&self, pods: &Pods<'_>) -> Value {
        let mut ports: BTreeMap<u16, (Vec<Value>, Vec<Value>)> = BTreeMap::new();
        let address = |pod: &SocketAddr| json!({"ip": pod.ip().to_string()});
        for pod in pods.ready {
            ports.entry(pod.port()).or_default().0.push(address(pod));
        }
        for pod in pods.unready {
            ports.entry(pod.port()).or_default().1.push(address(pod));
        }
        let subsets = ports.into_iter().map(|(port, (ready, unready))| {
            let mut subset = json!({"ports": self.target_ports(port)});
            if !ready.is_empty() {
                subset["addresses"] = ready.into();
            }
            if !unready.is_empty() {
                subset["notReadyAddresses"] = unready.into();
            }
            subset
        });
        let subsets: Vec<Value> = subsets.collect();
        json!({
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": {
                "namespace": self.namespace,
                "name": self.name,
                "labels": self.all_labels(&[]),
            },
            "subsets": subsets,
        })
    }

    /// The ports of pods: `port` for the one that serves and others for the same, and those that a
    /// pod of the Service has anyway.
    fn target_ports(&self, port: u16) -> Vec<Value> {
        let ports = self.ports.iter();
        let ports = ports.map(|one| {
            let name = one["name"].as_str().unwrap_or_default();
            let serves = name == self.port || name == format!("{}-istio", self.port);
            let number = if serves {
                port.into()
            } else {
                one["targetPort"].clone()
            };
            let mut target = json!({"name": name, "port": number, "protocol": "TCP"});
            if let Some(protocol) = one.get("appProtocol") {
                target["appProtocol"] = protocol.clone();
            }
            target
        });
        ports.collect()
    }

    fn all_labels(&self, more: &[(&str, &str)]) -> Value {
        let own = self.labels.iter();
        let own = own.map(|(name, value)| (name.as_str(), value.as_str()));
        members(&own.chain(more.iter().copied()).collect::<Vec<_>>())
    }
}
