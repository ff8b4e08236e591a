//! The certificates of an ingress, and which listeners get them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::revision::Key;
use crate::settings::Audience;
use crate::source::feed::Certificate;
use crate::source::kubernetes::cluster::Cluster;
use crate::source::kubernetes::ingress::{Rule, Spec, Tls};

/// The Secret of an entry.
pub(in super::super) fn secret_key(tls: &Tls) -> Key {
    Key {
        namespace: Arc::from(tls.secret_namespace.as_str()),
        name: tls.secret_name.as_str().into(),
    }
}

/// Of each audience, the entries that cover all hosts of one of its rules. Entries of the same
/// Secret come as one. Not checked: whoever takes them does.
///
/// # Errors
///
/// A Secret that is not there.
pub(in super::super) fn certificates(
    spec: &Spec,
    cluster: &Cluster,
) -> Result<Vec<Certificate>, Key> {
    let mut found = BTreeMap::<(bool, Key), Vec<Box<str>>>::new();
    for internal in [false, true] {
        let of_audience = |rule: &&Rule| rule.is_external() != internal;
        for rule in spec.rules.iter().filter(of_audience) {
            if rule.hosts.is_empty() {
                break;
            }
            let covers = |tls: &&Tls| rule.hosts.iter().all(|host| tls.hosts.contains(host));
            for tls in spec.tls.iter().filter(covers) {
                let hosts = found.entry((internal, secret_key(tls))).or_default();
                hosts.extend(
                    tls.hosts
                        .iter()
                        .map(|host| host.to_ascii_lowercase().into()),
                );
            }
        }
    }
    let certificate = |((internal, key), mut hosts): ((bool, Key), Vec<Box<str>>)| {
        hosts.sort_unstable();
        hosts.dedup();
        let secret = cluster.secret(&key).ok_or(key)?.clone();
        let (chain, key) = (secret.chain, secret.key);
        Ok(Certificate {
            hosts,
            audience: match internal {
                true => Audience::Internal,
                false => Audience::Public,
            },
            chain,
            key,
        })
    };
    found.into_iter().map(certificate).collect()
}
