//! A revision of Knative with its two Services, as the revision, autoscaling and
//! ServerlessService controllers write them.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::service::{Pods, Service};

/// What stands for a revision in a cluster.
#[derive(Clone, Debug)]
pub struct Revision {
    pub namespace: String,
    pub name: String,
    /// The name of its service and its configuration.
    service: String,
    spec: Value,
    annotations: Value,
    h2c: bool,
}

/// What the public Service points to: the mode of the ServerlessService.
#[derive(Clone, Copy, Debug)]
pub enum Traffic<'a> {
    /// The revision's pods.
    Serve(&'a [SocketAddr]),
    /// Activators, by the addresses they have in `activator-service`.
    Proxy(&'a [SocketAddr]),
}

impl Revision {
    /// Of a service whose name is the revision's up to its last `-`.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Revision {
        let service = name.rsplit_once('-').map_or(name, |(service, _)| service);
        Revision {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            service: service.to_owned(),
            spec: json!({
                "containerConcurrency": 0,
                "timeoutSeconds": 300,
                "enableServiceLinks": false,
                "containers": [{
                    "name": "user-container",
                    "image": "example.com/hello@sha256:0",
                    "readinessProbe": {"successThreshold": 1, "tcpSocket": {"port": 0}},
                }],
            }),
            annotations: json!({"serving.knative.dev/creator": "somebody@example.com"}),
            h2c: false,
        }
    }

    /// `containerConcurrency`.
    #[must_use]
    pub fn concurrency(self, limit: u32) -> Revision {
        self.with("containerConcurrency", limit)
    }

    /// One more field of its `spec`, as `timeoutSeconds`.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Revision {
        self.spec[name] = value.into();
        self
    }

    #[must_use]
    pub fn annotation(mut self, name: &str, value: &str) -> Revision {
        self.annotations[name] = value.into();
        self
    }

    /// Its readiness is asked for by a command, which only the kubelet can run.
    #[must_use]
    pub fn exec_probe(mut self) -> Revision {
        let probe = json!({"successThreshold": 1, "exec": {"command": ["true"]}});
        self.spec["containers"][0]["readinessProbe"] = probe;
        self
    }

    /// It speaks HTTP/2.
    #[must_use]
    pub fn h2c(mut self) -> Revision {
        self.h2c = true;
        self.spec["containers"][0]["ports"] = json!([{"name": "h2c", "containerPort": 8080}]);
        self
    }

    #[must_use]
    pub fn object(&self) -> Value {
        let mut labels = json!({
            "serving.knative.dev/configuration": self.service,
            "serving.knative.dev/configurationGeneration": "1",
            "serving.knative.dev/service": self.service,
        });
        labels["serving.knative.dev/routingState"] = "active".into();
        json!({
            "apiVersion": "serving.knative.dev/v1",
            "kind": "Revision",
            "metadata": {
                "namespace": self.namespace,
                "name": self.name,
                "labels": labels,
                "annotations": self.annotations,
            },
            "spec": self.spec,
        })
    }

    /// The Service that ingresses name.
    #[must_use]
    pub fn public(&self) -> Service {
        self.service(&self.name, "Public", self.ports())
    }

    /// The Service of the pods.
    #[must_use]
    pub fn private(&self) -> Service {
        let mut ports = self.ports();
        let istio = if self.h2c {
            ("http2-istio", 8013)
        } else {
            ("http-istio", 8012)
        };
        // The two in the middle have names for targets, which are these numbers in the pods.
        for (name, number) in [("http-autometric", 9090), ("http-usermetric", 9091), istio] {
            ports.push(
                json!({"name": name, "port": number, "protocol": "TCP", "targetPort": number}),
            );
        }
        self.service(&format!("{}-private", self.name), "Private", ports)
            .label("app", &self.name)
    }

    fn ports(&self) -> Vec<Value> {
        let mut port = json!({"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8012});
        if self.h2c {
            port = json!({
                "name": "http2",
                "port": 81,
                "protocol": "TCP",
                "targetPort": 8013,
                "appProtocol": "kubernetes.io/h2c",
            });
        }
        let https = json!({"name": "https", "port": 443, "protocol": "TCP", "targetPort": 8112});
        vec![port, https]
    }

    fn service(&self, name: &str, kind: &str, ports: Vec<Value>) -> Service {
        let uid = "00000000-0000-4000-8000-000000000001";
        Service::new(&self.namespace, name, "http")
            .ports(ports)
            .label(
                "networking.internal.knative.dev/serverlessservice",
                &self.name,
            )
            .label("networking.internal.knative.dev/serviceType", kind)
            .label("serving.knative.dev/configuration", &self.service)
            .label("serving.knative.dev/revision", &self.name)
            .label("serving.knative.dev/revisionUID", uid)
            .label("serving.knative.dev/service", &self.service)
    }

    /// What stands in the public Service's Endpoints.
    #[must_use]
    pub fn public_endpoints(&self, traffic: Traffic<'_>) -> Value {
        let (Traffic::Serve(addresses) | Traffic::Proxy(addresses)) = traffic;
        self.public().endpoints(&Pods::ready(addresses))
    }

    /// What Kubernetes makes slices of from the public Service's Endpoints.
    #[must_use]
    pub fn public_slices(&self, traffic: Traffic<'_>) -> Vec<Value> {
        let (Traffic::Serve(addresses) | Traffic::Proxy(addresses)) = traffic;
        let mut slices = self.public().slices(&Pods::ready(addresses));
        for slice in &mut slices {
            let labels = &mut slice["metadata"]["labels"];
            let mirroring = "endpointslicemirroring-controller.k8s.io";
            labels["endpointslice.kubernetes.io/managed-by"] = mirroring.into();
        }
        slices
    }
}
