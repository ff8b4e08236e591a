//! The cluster behind `run --kubernetes`: who we are in it, and what runs because of it.

use std::net::{IpAddr, Ipv4Addr};

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

const NAMESPACE: &str = "tidegate-system";
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
            Some(value) => value.parse().map_err(|_| BadVariable {
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
            namespace: given("POD_NAMESPACE").unwrap_or_else(|| NAMESPACE.to_owned()),
            autoscaler: autoscaler.unwrap_or_else(usual),
            system_namespace,
            domain,
        })
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
        assert_eq!(nothing.autoscaler, "ws://autoscaler.knative-serving.svc.cluster.local:8080");
        assert_eq!(nothing.namespace, "tidegate-system");
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
        assert_eq!(cluster.autoscaler, "ws://autoscaler.knative.svc.corp.test:8080");
        assert_eq!(cluster.namespace, "tidegate-system");
        let given = Cluster::of(|_| None, Some("ws://127.0.0.1:1".to_owned()), resolv).unwrap();
        assert_eq!(given.autoscaler, "ws://127.0.0.1:1");
    }

    #[test]
    fn an_address_that_is_none_is_told() {
        let told = |name: &str| (name == "POD_IP").then(|| "pod".to_owned());
        let error = Cluster::of(told, None, "").unwrap_err().to_string();
        assert_eq!(error, "POD_IP is \"pod\": write an IP address, or leave it out");
    }
}
