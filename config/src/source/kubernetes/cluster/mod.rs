//! What we keep of a cluster beside its ingresses: of each object only what translation and feeding
//! need, never the object itself.

mod endpoints;
mod internal_tls;
mod revision;
mod service;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use self::endpoints::{Endpoints, Family};
use self::internal_tls::InternalTls;
use crate::revision::Key;
use crate::source::feed::Addresses;

pub(super) use internal_tls::{BUNDLE, Trust};
pub(super) use revision::{Limits, Object as RevisionObject, Revision};
pub(super) use service::{Kind as ServiceKind, Port, Service};

/// Names of ours and of Knative's that have a meaning of their own.
#[derive(Clone, Debug)]
pub(super) struct Landmarks {
    /// Whose addresses are those of activators.
    pub(super) activator: Key,
    /// Whose addresses are those of all replicas.
    pub(super) internal: Key,
    /// Our own address.
    pub(super) pod: Option<IpAddr>,
}

/// What an object's change may have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Nothing,
    /// What the Service of this name is.
    Service(Key),
    /// The addresses behind the Service of this name.
    Endpoints(Key),
    Revision(Key),
    /// Whether it is known that this revision cannot start.
    Failure(Key),
    Secret(Key),
    /// How pods of Knative's revisions are spoken to.
    Trust,
}

/// A certificate and its key, as PEM texts.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret {
    pub(super) chain: Arc<[u8]>,
    pub(super) key: Arc<[u8]>,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The state of everything that is watched but ingresses.
#[derive(Debug)]
pub(super) struct Cluster {
    landmarks: Landmarks,
    namespaces: HashSet<Arc<str>>,
    services: HashMap<Key, Service>,
    /// By Service.
    endpoints: HashMap<Key, Endpoints>,
    /// Slices, and the Service that each belongs to.
    slices: HashMap<Key, Key>,
    revisions: HashMap<Key, Revision>,
    /// Why revisions cannot start that are known not to.
    failures: HashMap<Key, Arc<str>>,
    /// Of a revision, the Service of its pods.
    private: HashMap<Key, Key>,
    secrets: HashMap<Key, Secret>,
    internal_tls: InternalTls,
}

impl Secret {
    fn of(object: &core::Secret) -> Secret {
        let part = |name: &str| {
            let part = object.data.as_ref().and_then(|data| data.get(name));
            part.map_or(Arc::default(), |bytes| bytes.0.as_slice().into())
        };
        Secret {
            chain: part("tls.crt"),
            key: part("tls.key"),
        }
    }
}

impl Cluster {
    pub(super) fn new(landmarks: Landmarks) -> Cluster {
        Cluster {
            landmarks,
            namespaces: HashSet::new(),
            services: HashMap::new(),
            endpoints: HashMap::new(),
            slices: HashMap::new(),
            revisions: HashMap::new(),
            failures: HashMap::new(),
            private: HashMap::new(),
            secrets: HashMap::new(),
            internal_tls: InternalTls::default(),
        }
    }

    /// The name of an object; all of a namespace share one copy of its name.
    pub(super) fn key(&mut self, namespace: &str, name: &str) -> Key {
        let namespace = match self.namespaces.get(namespace) {
            Some(known) => Arc::clone(known),
            None => {
                let new: Arc<str> = namespace.into();
                self.namespaces.insert(Arc::clone(&new));
                new
            }
        };
        let name = name.into();
        Key { namespace, name }
    }

    pub(super) fn key_of(&mut self, metadata: &ObjectMeta) -> Key {
        let namespace = metadata.namespace.as_deref().unwrap_or_default();
        self.key(namespace, metadata.name.as_deref().unwrap_or_default())
    }

    pub(super) fn put_service(&mut self, object: &core::Service) -> Change {
        let key = self.key_of(&object.metadata);
        let service = Service::of(object, &key);
        if self.services.get(&key) == Some(&service) {
            return Change::Nothing;
        }
        self.drop_private(&key);
        if let ServiceKind::Private { revision } = &service.kind {
            self.private.insert(revision.clone(), key.clone());
        }
        self.services.insert(key.clone(), service);
        Change::Service(key)
    }

    pub(super) fn remove_service(&mut self, key: &Key) -> Change {
        self.drop_private(key);
        match self.services.remove(key) {
            Some(_) => Change::Service(key.clone()),
            None => Change::Nothing,
        }
    }

    fn drop_private(&mut self, service: &Key) {
        if let Some(ServiceKind::Private { revision }) = self.services.get(service).map(|s| &s.kind)
            && self.private.get(revision) == Some(service)
        {
            self.private.remove(revision);
        }
    }

    pub(super) fn put_slice(&mut self, object: &EndpointSlice) -> Change {
        let slice = self.key_of(&object.metadata);
        let Some(service) = endpoints::service_of(object) else {
            return self.remove_slice(&slice);
        };
        let service = self.key(&slice.namespace, service);
        let before = self.slices.insert(slice.clone(), service.clone());
        if let Some(before) = before.filter(|before| *before != service) {
            // Labels do not move from one Service to another, but nothing forbids it.
            self.drop_slice(&before, &slice.name);
        }
        let entry = self.endpoints.entry(service.clone()).or_default();
        match entry.put_slice(&slice.name, endpoints::Slice::of(object)) {
            true => Change::Endpoints(service),
            false => Change::Nothing,
        }
    }

    pub(super) fn remove_slice(&mut self, slice: &Key) -> Change {
        let Some(service) = self.slices.remove(slice) else {
            return Change::Nothing;
        };
        self.drop_slice(&service, &slice.name);
        Change::Endpoints(service)
    }

    fn drop_slice(&mut self, service: &Key, slice: &str) {
        self.edit_endpoints(service, |endpoints| endpoints.remove_slice(slice));
    }

    pub(super) fn put_endpoints(&mut self, object: &core::Endpoints) -> Change {
        let key = self.key_of(&object.metadata);
        let entry = self.endpoints.entry(key.clone()).or_default();
        match entry.put_whole(endpoints::Slice::all_of(object)) {
            true => Change::Endpoints(key),
            false => Change::Nothing,
        }
    }

    pub(super) fn remove_endpoints(&mut self, key: &Key) -> Change {
        match self.edit_endpoints(key, Endpoints::remove_whole) {
            true => Change::Endpoints(key.clone()),
            false => Change::Nothing,
        }
    }

    fn edit_endpoints(&mut self, key: &Key, edit: impl FnOnce(&mut Endpoints) -> bool) -> bool {
        let Some(endpoints) = self.endpoints.get_mut(key) else {
            return false;
        };
        let changed = edit(endpoints);
        if endpoints.is_empty() {
            self.endpoints.remove(key);
        }
        changed
    }

    pub(super) fn put_revision(&mut self, object: &RevisionObject) -> Change {
        let key = self.key_of(&object.metadata);
        let revision = Revision::of(object);
        let failed = match revision::failure_of(object) {
            Some(why) => self.failures.insert(key.clone(), Arc::clone(&why)) != Some(why),
            None => self.failures.remove(&key).is_some(),
        };
        match self.revisions.insert(key.clone(), revision.clone()) {
            Some(before) if before == revision && failed => Change::Failure(key),
            Some(before) if before == revision => Change::Nothing,
            Some(_) | None => Change::Revision(key),
        }
    }

    pub(super) fn remove_revision(&mut self, key: &Key) -> Change {
        self.failures.remove(key);
        match self.revisions.remove(key) {
            Some(_) => Change::Revision(key.clone()),
            None => Change::Nothing,
        }
    }

    pub(super) fn put_secret(&mut self, object: &core::Secret) -> Change {
        let key = self.key_of(&object.metadata);
        let secret = Secret::of(object);
        match self.secrets.insert(key.clone(), secret.clone()) {
            Some(before) if before == secret => Change::Nothing,
            Some(_) | None => Change::Secret(key),
        }
    }

    pub(super) fn remove_secret(&mut self, key: &Key) -> Change {
        match self.secrets.remove(key) {
            Some(_) => Change::Secret(key.clone()),
            None => Change::Nothing,
        }
    }

    /// Whether Knative's parts speak TLS among themselves.
    pub(super) fn enable_internal_tls(&mut self, enabled: bool) -> Change {
        of_trust(self.internal_tls.enable(enabled))
    }

    /// The Secret that Knative's activator has for that; any other is passed over.
    pub(super) fn put_internal_secret(&mut self, object: &core::Secret) -> Change {
        let key = self.key_of(&object.metadata);
        if !self.is_internal_secret(&key) {
            return Change::Nothing;
        }
        let ca = object.data.as_ref().and_then(|data| data.get("ca.crt"));
        let ca = ca.map_or(&[][..], |ca| &ca.0);
        of_trust(self.internal_tls.put_secret(Secret::of(object), ca))
    }

    pub(super) fn remove_internal_secret(&mut self, key: &Key) -> Change {
        of_trust(self.is_internal_secret(key) && self.internal_tls.remove_secret())
    }

    fn is_internal_secret(&self, key: &Key) -> bool {
        key.namespace == self.landmarks.activator.namespace && *key.name == *internal_tls::SECRET
    }

    /// Its name, and whether it is there.
    pub(super) fn internal_secret(&self) -> (Key, bool) {
        let key = Key {
            namespace: Arc::clone(&self.landmarks.activator.namespace),
            name: internal_tls::SECRET.into(),
        };
        (key, self.internal_tls.has_secret())
    }

    /// A ConfigMap of Knative's namespace holds authorities, or not any more.
    pub(super) fn put_bundle(&mut self, name: &str, object: Option<&core::ConfigMap>) -> Change {
        of_trust(match object {
            Some(object) => self.internal_tls.put_bundle(name, object),
            None => self.internal_tls.remove_bundle(name),
        })
    }

    pub(super) fn trust(&self) -> &Trust {
        self.internal_tls.trust()
    }

    /// Whether activators speak TLS, and what they show, unless it is not there.
    pub(super) fn shown_inside(&self) -> (bool, Option<&Secret>) {
        (self.internal_tls.is_enabled(), self.internal_tls.shown())
    }

    pub(super) fn service(&self, key: &Key) -> Option<&Service> {
        self.services.get(key)
    }

    pub(super) fn revision(&self, key: &Key) -> Option<&Revision> {
        self.revisions.get(key)
    }

    pub(super) fn secret(&self, key: &Key) -> Option<&Secret> {
        self.secrets.get(key)
    }

    /// The Service of a revision's pods.
    pub(super) fn private_service(&self, revision: &Key) -> Key {
        let known = self.private.get(revision).cloned();
        known.unwrap_or_else(|| Key {
            namespace: Arc::clone(&revision.namespace),
            name: format!("{}-private", revision.name).into(),
        })
    }

    fn family(&self, service: &Key) -> Family {
        let service = self.services.get(service);
        service.map_or(Family::default(), |service| service.family)
    }

    /// The addresses behind a port of a plain Service. Those that are on their way out but still
    /// serve count while there are no others.
    pub(super) fn addresses(&self, service: &Key, port: &str) -> Addresses {
        self.endpoints
            .get(service)
            .map_or_else(Addresses::default, |endpoints| {
                endpoints.addresses(|name| name == port, true, self.family(service))
            })
    }

    /// The pods of a revision, and whether requests to them count with us.
    pub(super) fn pods(&self, revision: &Key) -> Addresses {
        let private = self.private_service(revision);
        let family = self.family(&private);
        let wanted = |name: &str| matches!(name, "http" | "http2");
        let pods = self.endpoints.get(&private);
        let pods = pods.map(|endpoints| endpoints.addresses(wanted, false, family));
        Addresses {
            proxied: self.is_proxied(revision),
            failure: self.failures.get(revision).cloned(),
            ..pods.unwrap_or_default()
        }
    }

    /// Whether an activator is in the path of a revision's requests: its public Service leads to
    /// one, which we count as, or nowhere at all.
    fn is_proxied(&self, revision: &Key) -> bool {
        let Some(public) = self.endpoints.get(revision) else {
            return true;
        };
        let activators = self.endpoints.get(&self.landmarks.activator);
        let is_activator = |ip: IpAddr| {
            self.landmarks.pod == Some(ip)
                || activators.is_some_and(|activators| activators.has(ip))
        };
        let mut ips = public.ips().peekable();
        ips.peek().is_none() || ips.any(is_activator)
    }

    /// The replicas that are ready, on the port of their internal listener.
    pub(super) fn replicas(&self) -> BTreeSet<SocketAddr> {
        let internal = &self.landmarks.internal;
        // By our own address we find ourselves among them.
        let family = match self.landmarks.pod {
            Some(ip) => Family::of(ip),
            None => self.family(internal),
        };
        let replicas = self.endpoints.get(internal);
        let ready =
            replicas.map(|endpoints| endpoints.addresses(|name| name == "http2", false, family));
        ready.unwrap_or_default().ready.into_iter().collect()
    }

    pub(super) fn is_activator(&self, service: &Key) -> bool {
        *service == self.landmarks.activator
    }

    pub(super) fn is_internal(&self, service: &Key) -> bool {
        *service == self.landmarks.internal
    }

    pub(super) fn service_keys(&self) -> impl Iterator<Item = &Key> {
        self.services.keys()
    }

    pub(super) fn slice_keys(&self) -> impl Iterator<Item = &Key> {
        self.slices.keys()
    }

    pub(super) fn endpoints_keys(&self) -> impl Iterator<Item = &Key> {
        let whole = self
            .endpoints
            .iter()
            .filter(|(_, endpoints)| endpoints.has_whole());
        whole.map(|(key, _)| key)
    }

    pub(super) fn revision_keys(&self) -> impl Iterator<Item = &Key> {
        self.revisions.keys()
    }

    pub(super) fn secret_keys(&self) -> impl Iterator<Item = &Key> {
        self.secrets.keys()
    }
}

fn of_trust(changed: bool) -> Change {
    match changed {
        true => Change::Trust,
        false => Change::Nothing,
    }
}

/// Those of `known` that are not in `listed`.
pub(super) fn missing<'a, K: Hash + Eq + Clone + 'a>(
    known: impl Iterator<Item = &'a K>,
    listed: &HashSet<K>,
) -> Vec<K> {
    known
        .filter(|key| !listed.contains(*key))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests;
