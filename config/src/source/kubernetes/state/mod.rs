//! Everything that is known, and what follows from a change of it. Pure: the shell hands events in,
//! takes offers, addresses and statuses out, and says what became of them.
//!
//! A change touches what depends on it alone: indexes lead from Services and revisions to the
//! ingresses that name them, and from Services to the revisions whose endpoints they have.

mod arrival;
mod batch;
mod certificates;
mod entry;
mod maps;
mod together;
mod uses;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use self::entry::{Entry, Wish};
use self::uses::Uses;
use super::cluster::{Change, Cluster, Landmarks, RevisionObject, ServiceKind, missing};
use super::config_maps::{CheckTemplate, Settings};
use super::conflict::{Arrival, Hosts};
use super::ingress::Ingress;
use super::status::{Balancers, Standing, Status};
use super::translate::{Names, Probe};
use crate::revision::Key;
use crate::source::feed::{Addresses, Certificate};

pub(super) use self::batch::Batch;

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Kind {
    Ingress,
    Service,
    Slice,
    Endpoints,
    Revision,
    Secret,
    ConfigMap,
    /// The one Secret of Knative's own activator, of whatever type.
    InternalSecret,
}

/// An object as it is now.
#[derive(Debug)]
pub(super) enum Object {
    Ingress(Box<Ingress>),
    Service(Box<core::Service>),
    Slice(Box<EndpointSlice>),
    Endpoints(Box<core::Endpoints>),
    Revision(Box<RevisionObject>),
    Secret(Box<core::Secret>),
    ConfigMap(Box<core::ConfigMap>),
    InternalSecret(Box<core::Secret>),
}

/// Who we are.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) class: Box<str>,
    pub(super) names: Names,
    pub(super) balancers: Balancers,
    pub(super) landmarks: Landmarks,
}

/// A status to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Write {
    pub(super) ingress: Key,
    /// Of the specification that it is about.
    pub(super) generation: i64,
    /// The same: one that is deleted and made anew begins with the same generation.
    pub(super) hash: Box<str>,
    /// Of the object that it was worked out for.
    pub(super) version: Box<str>,
    pub(super) standing: Standing,
    pub(super) status: Status,
}

impl Write {
    /// Whether it is about what this object says.
    pub(super) fn is_about(&self, object: &Ingress) -> bool {
        object.metadata.generation.unwrap_or_default() == self.generation
            && Wish::of(object, &self.ingress).hash == self.hash
    }
}

/// What to ask all other replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) ingress: Key,
    pub(super) hash: Box<str>,
    pub(super) probes: Arc<[Probe]>,
}

#[derive(Debug)]
pub(super) struct State {
    identity: Identity,
    cluster: Cluster,
    ingresses: HashMap<Key, Entry>,
    /// Ingresses of our class on their way out that Kourier left its finalizer on.
    finalizers: BTreeSet<Key>,
    hosts: Hosts,
    uses: Uses,
    /// Ingresses by what they name.
    by_service: HashMap<Key, BTreeSet<Key>>,
    by_secret: HashMap<Key, BTreeSet<Key>>,
    /// Ingresses to translate (again), and hosts to claim before.
    dirty: BTreeSet<Key>,
    /// Those of them that have to be offered each by itself.
    alone: BTreeSet<Key>,
    /// Those whose verdict has not been heard.
    offered: BTreeSet<Key>,
    /// What was handed out for ingresses that have certificates, and those for which it may have
    /// to be something else.
    certified: HashMap<Key, Vec<Certificate>>,
    /// What was handed out for the listeners of activators.
    certified_inside: Option<Certificate>,
    uncertified: BTreeSet<Key>,
    /// Revisions that may have come, gone or changed.
    unplaced: BTreeSet<Key>,
    /// Ingresses that are in the table, or on their way there, and not in the cluster.
    removed: BTreeMap<Key, entry::Removed>,
    /// Revisions whose addresses may be others now.
    unfed: BTreeSet<Key>,
    forgotten: Vec<Key>,
    /// Ingresses that may have to be asked about, and those whose status may have to be written.
    unasked: BTreeSet<Key>,
    unsaid: BTreeSet<Key>,
    /// The ConfigMaps that say something to us, and what they say.
    maps: BTreeSet<Key>,
    settings: Settings,
    settings_changed: bool,
    /// Everything has been listed once.
    synced: bool,
    replicas_changed: bool,
}

impl State {
    pub(super) fn new(identity: Identity, check_template: CheckTemplate) -> State {
        State {
            cluster: Cluster::new(identity.landmarks.clone()),
            identity,
            ingresses: HashMap::new(),
            finalizers: BTreeSet::new(),
            hosts: Hosts::default(),
            uses: Uses::default(),
            by_service: HashMap::new(),
            by_secret: HashMap::new(),
            dirty: BTreeSet::new(),
            alone: BTreeSet::new(),
            offered: BTreeSet::new(),
            certified: HashMap::new(),
            certified_inside: None,
            uncertified: BTreeSet::new(),
            unplaced: BTreeSet::new(),
            removed: BTreeMap::new(),
            unfed: BTreeSet::new(),
            forgotten: Vec::new(),
            unasked: BTreeSet::new(),
            unsaid: BTreeSet::new(),
            maps: BTreeSet::new(),
            settings: Settings::new(check_template),
            settings_changed: false,
            synced: false,
            replicas_changed: true,
        }
    }

    /// Takes in an object that is new or has changed; hands back its name.
    pub(super) fn put(&mut self, object: &Object) -> Key {
        let change = match object {
            Object::Ingress(object) => {
                self.put_ingress(object);
                Change::Nothing
            }
            Object::Service(object) => self.cluster.put_service(object),
            Object::Slice(object) => self.cluster.put_slice(object),
            Object::Endpoints(object) => self.cluster.put_endpoints(object),
            Object::Revision(object) => self.cluster.put_revision(object),
            Object::Secret(object) => self.cluster.put_secret(object),
            Object::ConfigMap(object) => {
                self.put_map(object);
                Change::Nothing
            }
            Object::InternalSecret(object) => self.cluster.put_internal_secret(object),
        };
        self.follow(change);
        self.cluster.key_of(object.metadata())
    }

    /// An object is gone.
    pub(super) fn remove(&mut self, kind: Kind, key: &Key) {
        let change = match kind {
            Kind::Ingress => {
                self.remove_ingress(key);
                self.finalizers.remove(key);
                Change::Nothing
            }
            Kind::Service => self.cluster.remove_service(key),
            Kind::Slice => self.cluster.remove_slice(key),
            Kind::Endpoints => self.cluster.remove_endpoints(key),
            Kind::Revision => self.cluster.remove_revision(key),
            Kind::Secret => self.cluster.remove_secret(key),
            Kind::ConfigMap => {
                self.remove_map(key);
                Change::Nothing
            }
            Kind::InternalSecret => self.cluster.remove_internal_secret(key),
        };
        self.follow(change);
    }

    /// A list has been read to its end: what is not in it is gone.
    pub(super) fn listed(&mut self, kind: Kind, listed: &HashSet<Key>) {
        let gone = match kind {
            Kind::Ingress => missing(self.ingresses.keys().chain(&self.finalizers), listed),
            Kind::Service => missing(self.cluster.service_keys(), listed),
            Kind::Slice => missing(self.cluster.slice_keys(), listed),
            Kind::Endpoints => missing(self.cluster.endpoints_keys(), listed),
            Kind::Revision => missing(self.cluster.revision_keys(), listed),
            Kind::Secret => missing(self.cluster.secret_keys(), listed),
            Kind::ConfigMap => missing(self.maps.iter(), listed),
            Kind::InternalSecret => {
                let (key, is_there) = self.cluster.internal_secret();
                missing(is_there.then_some(&key).into_iter(), listed)
            }
        };
        for key in gone {
            self.remove(kind, &key);
        }
    }

    /// Everything has been listed: from now on there is something to offer. Those who were there
    /// first claim their hosts first.
    pub(super) fn sync(&mut self) {
        self.synced = true;
        let mut arrivals: Vec<Arrival> = self
            .ingresses
            .values()
            .map(|entry| entry.arrival.clone())
            .collect();
        arrivals.sort_unstable();
        for arrival in arrivals {
            self.claim(&arrival.ingress);
        }
    }

    fn follow(&mut self, change: Change) {
        match change {
            Change::Nothing => {}
            Change::Service(service) => {
                self.touch_users_of(&service);
                // Where the pods of a revision are may have changed with it.
                self.unfed.extend(self.uses.fed_by(&service));
                self.unplaced.insert(service.clone());
                if let Some(ServiceKind::Private { revision }) =
                    self.cluster.service(&service).map(|service| &service.kind)
                {
                    let ingresses = self.uses.users(revision).cloned();
                    self.dirty.extend(ingresses);
                    self.unplaced.insert(revision.clone());
                }
            }
            // The Service that leads to a revision has its name.
            Change::Revision(revision) => {
                self.touch_users_of(&revision);
                self.unfed.insert(revision.clone());
                self.unplaced.insert(revision);
            }
            Change::Failure(revision) => drop(self.unfed.insert(revision)),
            Change::Endpoints(service) => self.follow_endpoints(&service),
            Change::Secret(secret) => {
                let users = self.by_secret.get(&secret);
                self.uncertified
                    .extend(users.into_iter().flatten().cloned());
            }
            Change::Trust => self.follow_trust(),
        }
    }

    fn touch_users_of(&mut self, service: &Key) {
        let users = self.by_service.get(service);
        self.dirty.extend(users.into_iter().flatten().cloned());
    }

    fn follow_endpoints(&mut self, service: &Key) {
        self.unfed.extend(self.uses.fed_by(service));
        if self.cluster.is_activator(service) {
            self.unfed.extend(self.uses.of_knative());
        }
        if self.cluster.is_internal(service) {
            self.replicas_changed = true;
        }
        // Those that wait for an endpoint, and those that may be asked about now.
        for ingress in self.by_service.get(service).into_iter().flatten() {
            let Some(entry) = self.ingresses.get(ingress) else {
                continue;
            };
            match entry.standing {
                Standing::NotYet(_) => drop(self.dirty.insert(ingress.clone())),
                Standing::Asking => drop(self.unasked.insert(ingress.clone())),
                Standing::Ready
                | Standing::Conflict
                | Standing::Overruled
                | Standing::Failed(_)
                | Standing::HandedOver => {}
            }
        }
    }

    /// Addresses that are others than before, and revisions that are no more.
    pub(super) fn take_addresses(&mut self) -> (Vec<(Key, Addresses)>, Vec<Key>) {
        let unfed = std::mem::take(&mut self.unfed);
        let fed = unfed.into_iter().filter_map(|key| {
            let addresses = self.uses.feed(&key, &self.cluster)?;
            Some((key, addresses))
        });
        (fed.collect(), std::mem::take(&mut self.forgotten))
    }

    /// All replicas that are ready, on the port of the internal listener, if they are others than
    /// before.
    pub(super) fn take_replicas(&mut self) -> Option<BTreeSet<std::net::SocketAddr>> {
        std::mem::take(&mut self.replicas_changed).then(|| self.cluster.replicas())
    }

    pub(super) fn is_synced(&self) -> bool {
        self.synced
    }

    /// Whether it is still to be found out who serves this of an ingress.
    pub(super) fn is_asking(&self, ingress: &Key, hash: &str) -> bool {
        self.ingresses.get(ingress).is_some_and(|entry| {
            entry.standing == Standing::Asking && entry.is_live() && *entry.wish.hash == *hash
        })
    }

    /// Ingresses that are served here and, as far as is known, not yet everywhere.
    pub(super) fn take_asks(&mut self) -> Vec<Ask> {
        let unasked = std::mem::take(&mut self.unasked);
        let asks = unasked.into_iter().filter_map(|key| {
            let entry = self.ingresses.get(&key)?;
            let live = entry.live.as_ref().filter(|_| entry.is_live())?;
            let usable = |revision| self.uses.is_usable(revision, &self.cluster);
            if entry.standing != Standing::Asking || !live.revisions.iter().all(usable) {
                self.unsaid.insert(key);
                return None;
            }
            let (hash, probes) = (live.hash.clone(), Arc::clone(&live.probes));
            Some(Ask {
                ingress: key,
                hash,
                probes,
            })
        });
        asks.collect()
    }

    /// All other replicas have answered with this hash.
    pub(super) fn passed(&mut self, ingress: &Key, hash: &str) {
        let Some(entry) = self.ingresses.get_mut(ingress) else {
            return;
        };
        if entry.is_live() && *entry.wish.hash == *hash && entry.standing == Standing::Asking {
            entry.standing = Standing::Ready;
            self.unsaid.insert(ingress.clone());
        }
    }

    /// It takes its time to ask the others: that may be said.
    pub(super) fn is_slow(&mut self, ingress: &Key) {
        self.unsaid.insert(ingress.clone());
    }

    /// We are the one who writes: everything has to be looked at once.
    pub(super) fn lead(&mut self) {
        for (key, entry) in &self.ingresses {
            match entry.standing {
                Standing::Asking => self.unasked.insert(key.clone()),
                _ => self.unsaid.insert(key.clone()),
            };
        }
    }

    /// Ingresses whose status is to be written.
    pub(super) fn take_unsaid(&mut self) -> BTreeSet<Key> {
        std::mem::take(&mut self.unsaid)
    }

    /// What is to be said of an ingress now, if it is not what its status says; `now` in RFC 3339.
    pub(super) fn unsaid(&self, ingress: &Key, now: &str) -> Option<Write> {
        let entry = self.ingresses.get(ingress)?;
        let status = entry.unsaid(&self.identity.balancers, now)?;
        Some(Write {
            ingress: ingress.clone(),
            generation: entry.generation,
            hash: entry.wish.hash.clone(),
            version: entry.version.clone(),
            standing: entry.standing.clone(),
            status,
        })
    }

    /// A write did not come through: it is tried again.
    pub(super) fn say_again(&mut self, ingress: &Key) {
        self.unsaid.insert(ingress.clone());
    }

    /// What was refused is offered once more.
    pub(super) fn retry(&mut self) {
        let refused = |entry: &&Entry| {
            let refused = matches!(entry.standing, Standing::Failed(_) | Standing::Overruled);
            refused && entry.wish.spec().is_ok()
        };
        let refused = self.ingresses.values().filter(refused);
        self.dirty
            .extend(refused.map(|entry| entry.arrival.ingress.clone()));
    }

    /// Objects that hang on a finalizer which nobody else will take away.
    pub(super) fn finalizers(&self) -> &BTreeSet<Key> {
        &self.finalizers
    }
}

impl Object {
    fn metadata(&self) -> &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
        match self {
            Object::Ingress(object) => &object.metadata,
            Object::Service(object) => &object.metadata,
            Object::Slice(object) => &object.metadata,
            Object::Endpoints(object) => &object.metadata,
            Object::Revision(object) => &object.metadata,
            Object::Secret(object) => &object.metadata,
            Object::ConfigMap(object) => &object.metadata,
            Object::InternalSecret(object) => &object.metadata,
        }
    }
}
