//! The cluster behind `run --kubernetes`: who we are in it, and what runs because of it.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use activator::scaler::knative::{self, BadAutoscaler, Knative};
use config::settings::Settings;
use config::source::Sink;
use config::source::kubernetes::{self, Kubernetes};
use tokio::runtime::Runtime;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::RunError;
use super::heed::{self, Logs};
use crate::control::feeds::Feeds;

/// Who we are in a cluster, and where its parts are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// What leases and statistics call us.
    pub pod_name: String,
    /// Our address among the replicas.
    pub pod_ip: IpAddr,
    /// Where our own Services and the lease are.
    pub namespace: String,
    /// Where Knative's parts are.
    pub system_namespace: String,
    /// What names of Services end in, behind `.svc.`.
    pub domain: String,
    /// The autoscaler's statistics: `ws://HOST[:PORT]`.
    pub autoscaler: String,
}

/// A variable holds what it cannot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} is {value:?}: {hint}")]
pub struct BadVariable {
    name: &'static str,
    value: String,
    hint: &'static str,
}

const SYSTEM_NAMESPACE: &str = "knative-serving";
const DOMAIN: &str = "cluster.local";

impl Cluster {
    /// As the environment says, with what holds where it says nothing. `autoscaler` takes the place
    /// of the usual address; `resolv_conf` is the text of that file.
    ///
    /// # Errors
    /// A variable that holds what it cannot.
    pub fn of(
        variable: impl Fn(&str) -> Option<String>,
        autoscaler: Option<String>,
        resolv_conf: &str,
    ) -> Result<Cluster, BadVariable> {
        let given = |name| variable(name).filter(|value| !value.is_empty());
        let pod_ip = match given("POD_IP") {
            None => IpAddr::V4(Ipv4Addr::LOCALHOST),
            Some(value) => value.parse().map_err(|_no_address| BadVariable {
                name: "POD_IP",
                value,
                hint: "write an IP address, or leave it out",
            })?,
        };
        let system_namespace =
            given("SYSTEM_NAMESPACE").unwrap_or_else(|| SYSTEM_NAMESPACE.to_owned());
        let domain = given("CLUSTER_DOMAIN").or_else(|| search_domain(resolv_conf));
        let domain = domain.unwrap_or_else(|| DOMAIN.to_owned());
        let usual = || format!("ws://autoscaler.{system_namespace}.svc.{domain}:8080");
        Ok(Cluster {
            pod_name: given("POD_NAME")
                .or_else(|| given("HOSTNAME"))
                .unwrap_or_else(|| format!("tidegate-{:08x}", fastrand::u32(..))),
            pod_ip,
            // To be its activator, we run beside Knative's parts.
            namespace: given("POD_NAMESPACE").unwrap_or_else(|| system_namespace.clone()),
            autoscaler: autoscaler.unwrap_or_else(usual),
            system_namespace,
            domain,
        })
    }
}

/// How long it may take to give the lease back once nobody is served any more.
const END_WITHIN: Duration = Duration::from_millis(500);

/// What holds where files say nothing.
pub(super) fn defaults(cluster: Option<&Cluster>) -> Settings {
    match cluster {
        Some(cluster) => Settings::of_cluster(&cluster.domain),
        None => Settings::default(),
    }
}

/// Starts what looks after revisions of Knative, in a cluster.
pub(super) fn start_knative(
    cluster: Option<&Cluster>,
    runtime: &Runtime,
) -> Result<Option<Arc<Knative>>, BadAutoscaler> {
    let Some(cluster) = cluster else {
        return Ok(None);
    };
    let _context = runtime.enter();
    let (autoscaler, pod_name) = (cluster.autoscaler.clone(), cluster.pod_name.clone());
    let options = knative::Options::new(autoscaler, pod_name, cluster.pod_ip);
    Knative::start(&options).map(|knative| Some(Arc::new(knative)))
}

impl Cluster {
    /// Starts to watch the cluster. It need not be there yet.
    pub(super) fn watch(
        self,
        runtime: &Runtime,
        sink: Sink,
        feeds: Arc<Feeds>,
        logs: Logs,
    ) -> Result<Watched, RunError> {
        let _context = runtime.enter();
        let options = kubernetes::Options {
            class: kubernetes::CLASS.to_owned(),
            pod_name: self.pod_name,
            pod_ip: Some(self.pod_ip),
            namespace: self.namespace,
            system_namespace: self.system_namespace,
            domain: self.domain,
        };
        let source = runtime.block_on(Kubernetes::connect(options, sink, feeds))?;
        let source = source.with_template_check(heed::check_template);
        let said = source.config_maps();
        let (leaving, leave) = oneshot::channel::<()>();
        let end = async {
            // Dropped, it ends too.
            let _left = leave.await;
        };
        Ok(Watched {
            synced: source.synced(),
            leaving: Some(leaving),
            task: tokio::spawn(source.run(end)),
            heeding: tokio::spawn(logs.heed(said)),
        })
    }
}

/// A cluster that is being watched.
#[derive(Debug)]
pub(super) struct Watched {
    synced: watch::Receiver<bool>,
    leaving: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
    /// Who watches ConfigMaps, and who does what they say.
    heeding: JoinHandle<()>,
}

impl Watched {
    /// Gives the lease back and watches no longer.
    pub(super) async fn end(mut self) {
        drop(self.leaving.take());
        self.heeding.abort();
        if tokio::time::timeout(END_WITHIN, &mut self.task)
            .await
            .is_err()
        {
            self.task.abort();
        }
    }
}

/// Until everything is known that was in the cluster at the start; at once without one.
pub(super) async fn synced(watched: Option<&Watched>) {
    if let Some(watched) = watched {
        let mut synced = watched.synced.clone();
        if synced.wait_for(|synced| *synced).await.is_err() {
            // Its task has failed, and said so.
            std::future::pending().await
        }
    }
}

/// What stands behind `svc.` in the names that a pod's resolver tries.
fn search_domain(resolv_conf: &str) -> Option<String> {
    let lines = resolv_conf.lines();
    let searched = lines.filter_map(|line| line.trim().strip_prefix("search"));
    let mut names = searched.flat_map(str::split_whitespace);
    let domain = names.find_map(|name| name.strip_prefix("svc."))?;
    let domain = domain.trim_end_matches('.');
    (!domain.is_empty()).then(|| domain.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_environment_leaves_out_is_as_usual() {
        let nothing = Cluster::of(|_| None, None, "").unwrap();
        assert_eq!(
            nothing.autoscaler,
            "ws://autoscaler.knative-serving.svc.cluster.local:8080"
        );
        assert_eq!(nothing.namespace, "knative-serving");
        let told = |name: &str| match name {
            "POD_NAME" => Some("tidegate-abc".to_owned()),
            "POD_IP" => Some("10.1.2.3".to_owned()),
            "SYSTEM_NAMESPACE" => Some("knative".to_owned()),
            "POD_NAMESPACE" => Some(String::new()),
            _ => None,
        };
        let resolv = "nameserver 10.0.0.10\nsearch ns.svc.corp.test svc.corp.test corp.test\n";
        let cluster = Cluster::of(told, None, resolv).unwrap();
        assert_eq!(cluster.pod_name, "tidegate-abc");
        assert_eq!(cluster.pod_ip, IpAddr::from([10, 1, 2, 3]));
        assert_eq!(
            cluster.autoscaler,
            "ws://autoscaler.knative.svc.corp.test:8080"
        );
        assert_eq!(cluster.namespace, "knative");
        let given = Cluster::of(|_| None, Some("ws://127.0.0.1:1".to_owned()), resolv).unwrap();
        assert_eq!(given.autoscaler, "ws://127.0.0.1:1");
    }

    #[test]
    fn an_address_that_is_none_is_told() {
        let told = |name: &str| (name == "POD_IP").then(|| "pod".to_owned());
        let error = Cluster::of(told, None, "").unwrap_err().to_string();
        assert_eq!(
            error,
            "POD_IP is \"pod\": write an IP address, or leave it out"
        );
    }
}
