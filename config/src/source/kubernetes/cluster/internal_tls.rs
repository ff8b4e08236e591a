//! TLS between Knative's parts (`system-internal-tls`): what the activator shows, and whom it trusts.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;

use super::Secret;

/// The Secret of whoever is Knative's activator, in Knative's own namespace.
pub(super) const SECRET: &str = "routing-serving-certs";
/// ConfigMaps with this label, whatever its value, hold authorities.
pub(in super::super) const BUNDLE: &str = "networking.knative.dev/trust-bundle";

/// What a text in PEM has if there is a certificate in it.
const MARK: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// How pods of Knative's revisions are spoken to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) enum Trust {
    #[default]
    Clear,
    /// Over TLS, and there is no authority to trust.
    Nobody,
    /// Over TLS; PEM of the authorities.
    Authorities(Arc<[u8]>),
}

#[derive(Debug, Default)]
pub(super) struct InternalTls {
    enabled: bool,
    secret: Option<Secret>,
    /// Of the Secret.
    ca: Vec<u8>,
    /// By the name of the ConfigMap.
    bundles: BTreeMap<Box<str>, Vec<u8>>,
    trust: Trust,
}

impl InternalTls {
    pub(super) fn trust(&self) -> &Trust {
        &self.trust
    }

    /// What activators show, if they are to speak TLS and it is there.
    pub(super) fn shown(&self) -> Option<&Secret> {
        let secret = self.secret.as_ref().filter(|_| self.enabled);
        // Knative makes it empty, and fills it when it is needed.
        secret.filter(|secret| !secret.chain.is_empty() && !secret.key.is_empty())
    }

    pub(super) fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Whether pods are spoken to in another way from now on.
    pub(super) fn enable(&mut self, enabled: bool) -> bool {
        self.enabled = enabled;
        self.settle()
    }

    pub(super) fn put_secret(&mut self, secret: Secret, ca: &[u8]) -> bool {
        self.secret = Some(secret);
        self.ca = ca.to_vec();
        self.settle()
    }

    pub(super) fn remove_secret(&mut self) -> bool {
        self.secret = None;
        self.ca = Vec::new();
        self.settle()
    }

    pub(super) fn put_bundle(&mut self, name: &str, object: &core::ConfigMap) -> bool {
        let texts = object.data.iter().flatten();
        let texts = texts.map(|(_, text)| text.as_bytes());
        let bytes = object.binary_data.iter().flatten();
        let bytes = bytes.map(|(_, bytes)| bytes.0.as_slice());
        let mut bundle = Vec::new();
        texts.chain(bytes).for_each(|pem| append(&mut bundle, pem));
        self.bundles.insert(name.into(), bundle);
        self.settle()
    }

    pub(super) fn remove_bundle(&mut self, name: &str) -> bool {
        self.bundles.remove(name).is_some() && self.settle()
    }

    pub(super) fn has_secret(&self) -> bool {
        self.secret.is_some()
    }

    fn settle(&mut self) -> bool {
        let mut all = Vec::new();
        if self.enabled {
            append(&mut all, &self.ca);
            for bundle in self.bundles.values() {
                append(&mut all, bundle);
            }
        }
        let trust = match (self.enabled, all.is_empty()) {
            (false, _) => Trust::Clear,
            (true, true) => Trust::Nobody,
            (true, false) => Trust::Authorities(all.into()),
        };
        if self.trust == trust {
            return false;
        }
        self.trust = trust;
        true
    }
}

/// Adds a text on lines of its own, if there is a certificate in it.
fn append(all: &mut Vec<u8>, pem: &[u8]) {
    if pem.windows(MARK.len()).any(|part| part == MARK) {
        all.extend_from_slice(pem);
        if !pem.ends_with(b"\n") {
            all.push(b'\n');
        }
    }
}
