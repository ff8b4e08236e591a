//! The splits of an ingress → revisions.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Untranslated, Work, not_yet, text};
use crate::document::{self, At, DurationText, Protocol, Queue, WaitText};
use crate::revision::{Authorities, EndpointTls, Fed, Inside, Key, Knative};
use crate::source::feed::Addresses;
use crate::source::kubernetes::cluster::{
    Cluster, Limits, Port, Revision, Service, ServiceKind, Trust,
};
use crate::source::kubernetes::ingress::{Split, port_text};

/// The port of an `ExternalName` Service that does not list what is asked for by name.
const EXTERNAL_PORT: u16 = 80;
/// How long requests to a Service without endpoints wait for one.
const PLAIN_WAIT: &str = "5s";
/// Knative's activator keeps so many requests waiting for a revision.
const KNATIVE_DEPTH: i64 = 10_000;
/// What the servers of Knative's data plane are asked for by name.
const DATA_PLANE: &str = "data-plane.knative.dev";
/// Where queue-proxies speak TLS, whatever they speak.
const TLS_PORT: u16 = 8112;
const NO_AUTHORITY: &str = "system-internal-tls is enabled and there is no authority to trust: neither `ca.crt` \
     in the Secret routing-serving-certs nor a certificate in a ConfigMap labelled networking.knative.dev/trust-bundle";

/// A revision as an ingress asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Backend {
    pub(in super::super) source: Source,
    /// Its endpoints speak HTTP/2 from the first byte.
    pub(in super::super) h2c: bool,
}

/// Where its endpoints come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Source {
    /// The pods of a Knative revision of the same name.
    Knative {
        limits: Limits,
        knative: Knative,
        /// PEM of the authorities of its pods; `None` = they are spoken to in clear.
        authorities: Option<Arc<[u8]>>,
    },
    /// A port of a Service, by the name that slices use.
    Plain { service: Key, port: Box<str> },
    /// A name outside of what Kubernetes watches.
    External { host: Arc<str>, port: u16 },
}

impl Work<'_> {
    /// The name of the revision that gets a split's requests.
    pub(super) fn backend(&mut self, split: &Split) -> Result<String, Untranslated> {
        let name = service_key(split);
        let Some(service) = self.cluster.service(&name) else {
            return not_yet(format!("Service {name} is missing"));
        };
        let port = service.port(&split.service_port);
        let h2c = port.is_some_and(|port| port.h2c);
        let named = |source| {
            let port = port_text(&split.service_port);
            let namespace = Arc::clone(&name.namespace);
            (
                Key {
                    namespace,
                    name: format!("{}:{port}", name.name).into(),
                },
                source,
            )
        };
        let (key, source) = match &service.kind {
            ServiceKind::External(host) => named(Source::External {
                host: Arc::clone(host),
                port: external_port(port, &split.service_port),
            }),
            ServiceKind::Public { revision } => {
                let backend = Backend::of_revision(revision, service, self.cluster)?;
                let name = revision.name.to_string();
                self.done.backends.insert(revision.clone(), backend);
                return Ok(name);
            }
            ServiceKind::Pods | ServiceKind::Private { .. } => match port {
                Some(port) => named(Source::Plain {
                    service: name.clone(),
                    port: port.name.clone(),
                }),
                None => {
                    let port = port_text(&split.service_port);
                    return not_yet(format!("Service {name} has no port {port}"));
                }
            },
        };
        let revision = key.name.to_string();
        self.done.backends.insert(key, Backend { source, h2c });
        Ok(revision)
    }

    /// Whether a split leads back to our own internal listener.
    pub(super) fn is_ourselves(&self, split: &Split) -> bool {
        let service = self.cluster.service(&service_key(split));
        service.is_some_and(|service| match &service.kind {
            ServiceKind::External(host) => **host == *self.names.internal,
            ServiceKind::Pods | ServiceKind::Public { .. } | ServiceKind::Private { .. } => false,
        })
    }
}

/// The Service that a split names.
pub(in super::super) fn service_key(split: &Split) -> Key {
    Key {
        namespace: split.service_namespace.as_str().into(),
        name: split.service_name.as_str().into(),
    }
}

fn external_port(known: Option<&Port>, wanted: &IntOrString) -> u16 {
    match (known, wanted) {
        (Some(port), _) => port.number,
        (None, IntOrString::Int(number)) => u16::try_from(*number).unwrap_or(EXTERNAL_PORT),
        (None, IntOrString::String(_)) => EXTERNAL_PORT,
    }
}

impl Backend {
    /// A revision of Knative and the Service that leads to it.
    pub(in super::super) fn of_revision(
        revision: &Key,
        service: &Service,
        cluster: &Cluster,
    ) -> Result<Backend, Untranslated> {
        let Some(Revision { limits, knative }) = cluster.revision(revision).cloned() else {
            return not_yet(format!("Revision {revision} is missing"));
        };
        let authorities = match cluster.trust() {
            Trust::Clear => None,
            Trust::Nobody => return Err(Untranslated::Failed(NO_AUTHORITY.into())),
            Trust::Authorities(pem) => Some(Arc::clone(pem)),
        };
        let h2c = service.ports.iter().any(|port| port.h2c);
        Ok(Backend {
            source: Source::Knative {
                limits,
                knative,
                authorities,
            },
            h2c,
        })
    }

    pub(in super::super) fn is_knative(&self) -> bool {
        matches!(self.source, Source::Knative { .. })
    }

    /// The revision as documents say it. `http1`: some ingress wants no HTTP/2 to it.
    pub(in super::super) fn document(&self, key: &Key, http1: bool) -> document::Revision {
        let protocol = match self.h2c && !http1 {
            true => Protocol::H2c,
            false => Protocol::Http1,
        };
        let none = || Some(seconds(0));
        let mut revision = document::Revision {
            name: text(&key.name),
            namespace: Some(text(&key.namespace)),
            protocol: Some(At::nowhere(protocol)),
            tls: None,
            concurrency: None,
            timeout: none(),
            max_duration: none(),
            idle: none(),
            queue: None,
            endpoints: None,
            health: None,
            process: None,
            scale: None,
            fed: None,
            fed_tls: None,
        };
        let wait = |wait: &str| Some(At::nowhere(WaitText(wait.into())));
        let plain_queue = Queue {
            wait: wait(PLAIN_WAIT),
            ..Queue::default()
        };
        match &self.source {
            Source::Knative {
                limits,
                knative,
                authorities,
            } => {
                revision.concurrency = Some(At::nowhere(i64::from(limits.concurrency)));
                revision.timeout = Some(seconds(limits.response_start));
                revision.max_duration = Some(seconds(limits.timeout));
                revision.idle = Some(seconds(limits.idle));
                revision.queue = Some(Box::new(Queue {
                    depth: Some(At::nowhere(KNATIVE_DEPTH)),
                    wait: wait(&seconds(limits.timeout).value.0),
                    ..Queue::default()
                }));
                revision.fed = Some(Box::new(Fed {
                    knative: Some(knative.clone()),
                }));
                let tls = authorities.as_ref();
                revision.fed_tls = tls.map(|pem| Box::new(inside(pem, &key.namespace)));
            }
            Source::Plain { .. } => {
                revision.queue = Some(Box::new(plain_queue));
                revision.fed = Some(Box::new(Fed { knative: None }));
            }
            Source::External { host, port } => {
                revision.queue = Some(Box::new(plain_queue));
                let address = match host.parse::<std::net::IpAddr>() {
                    Ok(ip) => std::net::SocketAddr::new(ip, *port).to_string(),
                    Err(_) => format!("{host}:{port}"),
                };
                revision.endpoints = Some(At::nowhere(vec![text(&address)]));
            }
        }
        revision
    }

    /// The Services whose endpoints decide about its addresses.
    pub(in super::super) fn services(&self, key: &Key, cluster: &Cluster) -> Vec<Key> {
        match &self.source {
            Source::Knative { .. } => vec![key.clone(), cluster.private_service(key)],
            Source::Plain { service, .. } => vec![service.clone()],
            Source::External { .. } => Vec::new(),
        }
    }

    /// Its addresses now; `None` where they do not come from the cluster.
    pub(in super::super) fn addresses(&self, key: &Key, cluster: &Cluster) -> Option<Addresses> {
        match &self.source {
            Source::Knative { .. } => Some(cluster.pods(key)),
            Source::Plain { service, port } => Some(cluster.addresses(service, port)),
            Source::External { .. } => None,
        }
    }

    /// Whether requests may be sent there: pods of Knative come as they are wanted, others have to
    /// be there.
    pub(in super::super) fn is_usable(&self, cluster: &Cluster) -> bool {
        match &self.source {
            Source::Knative { .. } | Source::External { .. } => true,
            Source::Plain { service, port } => !cluster.addresses(service, port).ready.is_empty(),
        }
    }
}

/// How queue-proxies of a namespace are spoken to: their certificates name it, and all have the
/// name that is asked for.
fn inside(authorities: &Arc<[u8]>, namespace: &str) -> EndpointTls {
    EndpointTls {
        server_name: Some(DATA_PLANE.into()),
        ca: Some(Authorities::Pem(Arc::clone(authorities))),
        client_cert: None,
        inside: Some(Box::new(Inside {
            identity: format!("kn-user-{namespace}").into(),
            port: TLS_PORT,
        })),
    }
}

fn seconds(seconds: u32) -> At<DurationText> {
    At::nowhere(DurationText(format!("{seconds}s").into()))
}
