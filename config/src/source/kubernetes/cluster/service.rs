//! What we keep of a Service.

use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::endpoints::Family;
use crate::revision::Key;

/// Says what a Service of a Knative revision is for.
const SERVICE_TYPE: &str = "networking.internal.knative.dev/serviceType";
/// The revision that it is of.
const REVISION: &str = "serving.knative.dev/revision";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Service {
    pub(in super::super) kind: Kind,
    pub(in super::super) ports: Box<[Port]>,
    /// Of its addresses, which comes first.
    pub(super) family: Family,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Kind {
    /// Its addresses stand in its slices.
    Pods,
    /// Another name, in lower case and without a trailing dot.
    External(Arc<str>),
    /// What routes to a Knative revision name: it leads to pods or to activators.
    Public { revision: Key },
    /// Leads to the pods of a Knative revision.
    Private { revision: Key },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Port {
    pub(in super::super) name: Box<str>,
    pub(in super::super) number: u16,
    /// It speaks HTTP/2 from the first byte.
    pub(in super::super) h2c: bool,
}

impl Service {
    pub(super) fn of(object: &core::Service, key: &Key) -> Service {
        let spec = object.spec.as_ref();
        let ports = spec.and_then(|spec| spec.ports.as_deref());
        let ports = ports.unwrap_or_default().iter().filter_map(Port::of);
        Service {
            kind: Kind::of(object, key),
            ports: ports.collect(),
            family: spec.map_or(Family::default(), family_of),
        }
    }

    /// The port that an ingress means by its number or name.
    pub(in super::super) fn port(&self, wanted: &IntOrString) -> Option<&Port> {
        self.ports.iter().find(|port| match wanted {
            IntOrString::Int(number) => i32::from(port.number) == *number,
            IntOrString::String(name) => *port.name == **name,
        })
    }
}

/// The first of its families, or of its addresses where they are not said.
fn family_of(spec: &core::ServiceSpec) -> Family {
    let named = spec.ip_families.iter().flatten().next();
    let ips = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
    let first = || ips.filter_map(|ip| ip.parse().ok()).map(Family::of).next();
    match named.map(String::as_str) {
        Some("IPv6") => Family::V6,
        Some(_) => Family::V4,
        None => first().unwrap_or_default(),
    }
}

impl Kind {
    fn of(object: &core::Service, key: &Key) -> Kind {
        let spec = object.spec.as_ref();
        if spec.is_some_and(|spec| spec.type_.as_deref() == Some("ExternalName")) {
            let name = spec.and_then(|spec| spec.external_name.as_deref());
            let name = name.unwrap_or_default().to_ascii_lowercase();
            return Kind::External(name.strip_suffix('.').unwrap_or(&name).into());
        }
        let labels = object.metadata.labels.as_ref();
        let label = |name: &str| labels.and_then(|labels| labels.get(name));
        let revision = |default: &str| Key {
            namespace: Arc::clone(&key.namespace),
            name: label(REVISION).map_or(default, String::as_str).into(),
        };
        match label(SERVICE_TYPE).map(String::as_str) {
            Some("Public") => Kind::Public {
                revision: revision(&key.name),
            },
            Some("Private") => {
                let default = key.name.strip_suffix("-private").unwrap_or(&key.name);
                Kind::Private {
                    revision: revision(default),
                }
            }
            _ => Kind::Pods,
        }
    }
}

impl Port {
    fn of(port: &core::ServicePort) -> Option<Port> {
        let name = port.name.as_deref().unwrap_or_default();
        let protocol = port.app_protocol.as_deref();
        Some(Port {
            name: name.into(),
            number: u16::try_from(port.port).ok()?,
            h2c: matches!(name, "http2" | "h2c") || protocol == Some("kubernetes.io/h2c"),
        })
    }
}
