//! A Kubernetes cluster as a source: Knative's ingresses, and what they lead to.
//!
//! Everything that decides is pure: an ingress is read (`ingress`), hashed (`hash`) and translated
//! (`translate`) against what is known of the cluster (`cluster`); `state` holds all of it, says what
//! follows from a change and what a status ought to say (`status`, `conflict`). The loop (`shell`)
//! brings events in (`watch`), hands fragments, addresses and certificates out, and where we hold the
//! lease (`leader`) asks the other replicas (`peers`) and writes (`write`).

mod cluster;
pub mod config_maps;
mod conflict;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod hash;
mod ingress;
mod leader;
mod peers;
mod shell;
mod state;
mod status;
mod translate;
mod watch;
mod write;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::sync::watch as signal;

use self::cluster::Landmarks;
use self::config_maps::{CheckTemplate, Settings};
use self::shell::Shell;
use self::state::Identity;
use self::status::Balancers;
use self::translate::Names;
use super::Sink;
use super::feed::Feed;
use crate::revision::Key;

/// The class of ingresses that are ours, by the annotation `networking.knative.dev/ingress.class`.
pub const CLASS: &str = "tidegate.ingress.networking.knative.dev";
/// Our Service for everybody.
const PUBLIC: &str = "tidegate";
/// Our Service for those within the cluster.
const INTERNAL: &str = "tidegate-internal";
/// Knative's Service of whoever is its activator: us.
const ACTIVATOR: &str = "activator-service";

/// To be connected to an API server.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// For an answer to begin or to go on: longer than a watch may be silent. Without it, what a lost
/// API server or a load balancer has swallowed would be waited for as long as TCP does, or for ever.
const ANSWER_WITHIN: Duration = Duration::from_secs(watch::WATCH_SECONDS as u64 + 10);

/// Who we are in the cluster.
#[derive(Clone, Debug)]
pub struct Options {
    /// The class of ingresses that are ours ([`CLASS`]).
    pub class: String,
    /// What the lease calls us.
    pub pod_name: String,
    /// Our address among the replicas; `None`: we are none of them.
    pub pod_ip: Option<IpAddr>,
    /// Where our own Services and the lease are.
    pub namespace: String,
    /// Where Knative's Services are.
    pub system_namespace: String,
    /// What names of Services end in, behind `.svc.`.
    pub domain: String,
}

/// There is no cluster to talk to.
#[derive(Debug)]
pub struct Unconnected(String);

impl std::fmt::Display for Unconnected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "no cluster to talk to: {}", self.0)
    }
}

impl std::error::Error for Unconnected {}

/// A cluster, watched.
pub struct Kubernetes {
    client: Client,
    options: Options,
    sink: Sink,
    feed: Arc<dyn Feed>,
    synced: signal::Sender<bool>,
    settings: signal::Sender<Arc<Settings>>,
    check_template: CheckTemplate,
}

impl std::fmt::Debug for Kubernetes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kubernetes")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Kubernetes {
    /// The cluster that `KUBECONFIG` names, else the one that we run in. Nothing is asked of it yet.
    ///
    /// # Errors
    ///
    /// There is neither, or what says so cannot be read.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub async fn connect(
        options: Options,
        sink: Sink,
        feed: Arc<dyn Feed>,
    ) -> Result<Kubernetes, Unconnected> {
        let told = |error: &dyn std::error::Error| Unconnected(watch::text_of(error));
        let mut config = kube::Config::infer().await.map_err(|error| told(&error))?;
        config.connect_timeout = Some(CONNECT_WITHIN);
        config.read_timeout = Some(ANSWER_WITHIN);
        // How long a connection has rested before a question does not count.
        config.reset_reader_on_write = true;
        let client = Client::try_from(config).map_err(|error| told(&error))?;
        Ok(Kubernetes::new(client, options, sink, feed))
    }

    /// The cluster behind a client.
    #[must_use]
    pub fn new(client: Client, options: Options, sink: Sink, feed: Arc<dyn Feed>) -> Kubernetes {
        let synced = signal::Sender::new(false);
        Kubernetes {
            client,
            options,
            sink,
            feed,
            synced,
            settings: signal::Sender::default(),
            check_template: |_| Ok(()),
        }
    }

    /// Lets `check` have the last word on the template of the request log that a ConfigMap gives.
    #[must_use]
    pub fn with_template_check(self, check: CheckTemplate) -> Kubernetes {
        Kubernetes {
            check_template: check,
            ..self
        }
    }

    /// What Knative's ConfigMaps say, each as it was when it was last good. All have been read once
    /// [`Kubernetes::synced`] is true.
    #[must_use]
    pub fn config_maps(&self) -> signal::Receiver<Arc<Settings>> {
        self.settings.subscribe()
    }

    /// Becomes true once everything has been listed and the table has what follows from it.
    #[must_use]
    pub fn synced(&self) -> signal::Receiver<bool> {
        self.synced.subscribe()
    }

    /// Watches the cluster until `shutdown` completes or nobody listens to the sink any more. What
    /// has been offered holds however long the API server is away.
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any point; the lease is then not let go, and others wait for its end.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) {
        let identity = self.options.identity();
        Shell::new(self, identity).run(shutdown).await;
    }
}

impl Options {
    fn identity(&self) -> Identity {
        let name = |service: &str| -> Box<str> {
            format!("{service}.{}.svc.{}", self.namespace, self.domain)
                .to_ascii_lowercase()
                .into()
        };
        let key = |namespace: &str, name: &str| Key {
            namespace: namespace.into(),
            name: name.into(),
        };
        Identity {
            class: self.class.as_str().into(),
            names: Names {
                internal: name(INTERNAL),
            },
            balancers: Balancers {
                public: name(PUBLIC),
                private: name(INTERNAL),
            },
            landmarks: Landmarks {
                activator: key(&self.system_namespace, ACTIVATOR),
                internal: key(&self.namespace, INTERNAL),
                pod: self.pod_ip,
            },
        }
    }
}

#[cfg(test)]
mod tests;
