//! Ingresses as they come, change and go: what they name, and which hosts are theirs.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use super::entry::{Entry, Live, Removed, Wish};
use super::{Standing, State};
use crate::revision::Key;
use crate::source::kubernetes::conflict::Arrival;
use crate::source::kubernetes::ingress::Ingress;
use crate::source::kubernetes::status::Status;

/// Most ingresses that change places at once.
const RING_MAX: usize = 64;

impl State {
    pub(super) fn put_ingress(&mut self, object: &Ingress) {
        let key = self.cluster.key_of(&object.metadata);
        self.finalizers.remove(&key);
        if !object.is_of(&self.identity.class) {
            match self.is_to_stay(&key, object) {
                true => self.hand_over(&key),
                false => self.remove_ingress(&key),
            }
            return;
        }
        if object.metadata.deletion_timestamp.is_some() {
            if object.has_finalizer() {
                self.finalizers.insert(key.clone());
            }
            self.remove_ingress(&key);
            return;
        }
        let generation = object.metadata.generation.unwrap_or_default();
        let status = object.status.0.clone().unwrap_or_default();
        let version = version_of(object);
        let wish = Wish::of(object, &key);
        let unchanged = |entry: &Entry| {
            entry.generation == generation
                && entry.wish == wish
                && entry.standing != Standing::HandedOver
        };
        if let Some(entry) = self
            .ingresses
            .get_mut(&key)
            .filter(|entry| unchanged(entry))
        {
            (entry.status, entry.version) = (status, version);
            if entry.standing != Standing::Asking {
                self.unsaid.insert(key);
            }
            return;
        }
        let created = object.metadata.creation_timestamp.as_ref();
        let arrival = Arrival {
            refused: status.is_conflict(),
            created: created.map_or(i64::MAX, |time| time.0.as_second()),
            ingress: key.clone(),
        };
        let (live, owned) = match self.unlist(&key) {
            Some(before) => (before.live, before.owned),
            None => {
                let before = self.removed.remove(&key).unwrap_or_default();
                (before.live, before.hosts)
            }
        };
        self.list(&key, &wish);
        let standing = Standing::Asking;
        let entry = Entry {
            arrival,
            generation,
            wish,
            status,
            standing,
            live,
            owned,
            version,
        };
        self.ingresses.insert(key.clone(), entry);
        if self.synced {
            self.claim(&key);
        }
    }

    /// Whether an ingress that is not of our class is in the table and, as far as is known, nowhere
    /// else: who takes it over needs a moment.
    fn is_to_stay(&self, key: &Key, object: &Ingress) -> bool {
        let is_served = |entry: &Entry| entry.live.is_some();
        let generation = object.metadata.generation.unwrap_or_default();
        let balancers = &self.identity.balancers;
        let ready = |status: &Status| status.is_ready_elsewhere(generation, balancers);
        object.metadata.deletion_timestamp.is_none()
            && self.ingresses.get(key).is_some_and(is_served)
            && !object.status.0.as_ref().is_ok_and(ready)
    }

    /// An ingress stays as it is in the table, with its endpoints, and is not touched any more.
    fn hand_over(&mut self, key: &Key) {
        let Some(entry) = self.ingresses.get_mut(key) else {
            return;
        };
        if entry.standing == Standing::HandedOver {
            return;
        }
        entry.standing = Standing::HandedOver;
        let live = entry.live.as_ref().map(|live| Arc::clone(&live.hosts));
        self.hosts
            .stop_waiting(&entry.arrival, entry.wish.hosts.iter());
        self.dirty.remove(key);
        self.unsaid.remove(key);
        self.unasked.remove(key);
        if !self.offered.contains(key) {
            self.keep_hosts(key, &live.unwrap_or_default());
        }
    }

    /// A status was written that had been worked out when the object had the version `before`. The
    /// answer may be older than what the watch has told since: an ingress that has changed or gone
    /// stays as it is, and of the others only what was written is new.
    pub(in super::super) fn wrote(&mut self, key: &Key, before: &str, object: &Ingress) {
        let known = self.ingresses.get_mut(key);
        let Some(entry) = known.filter(|entry| *entry.version == *before) else {
            return;
        };
        entry.status = object.status.0.clone().unwrap_or_default();
        entry.version = version_of(object);
        if entry.standing != Standing::Asking {
            self.unsaid.insert(key.clone());
        }
    }

    /// Enters what an ingress names into the indexes.
    fn list(&mut self, key: &Key, wish: &Wish) {
        for service in &wish.services {
            self.by_service
                .entry(service.clone())
                .or_default()
                .insert(key.clone());
        }
        for secret in &wish.secrets {
            self.by_secret
                .entry(secret.clone())
                .or_default()
                .insert(key.clone());
        }
    }

    /// Takes an ingress out of the indexes; its hosts and what is live stay its own.
    fn unlist(&mut self, key: &Key) -> Option<Entry> {
        let entry = self.ingresses.remove(key)?;
        let named = [
            (&mut self.by_service, &entry.wish.services),
            (&mut self.by_secret, &entry.wish.secrets),
        ];
        for (index, names) in named {
            for name in names {
                let Some(users) = index.get_mut(name) else {
                    continue;
                };
                users.remove(key);
                if users.is_empty() {
                    index.remove(name);
                }
            }
        }
        self.hosts
            .stop_waiting(&entry.arrival, entry.wish.hosts.iter());
        Some(entry)
    }

    pub(super) fn remove_ingress(&mut self, key: &Key) {
        let Some(entry) = self.unlist(key) else {
            return;
        };
        self.dirty.remove(key);
        self.unsaid.remove(key);
        self.unasked.remove(key);
        if entry.live.is_none() && !self.offered.contains(key) {
            self.release(key, &entry.owned, &BTreeSet::new());
            return;
        }
        // Its hosts are free once its routes are.
        let removed = Removed {
            live: entry.live,
            hosts: entry.owned,
        };
        self.removed.insert(key.clone(), removed);
        self.dirty.insert(key.clone());
    }

    /// Tries to get the hosts that an ingress asks for.
    pub(super) fn claim(&mut self, key: &Key) {
        let Some(entry) = self.ingresses.get(key) else {
            return;
        };
        let is_offered = |ingress: &Key| self.offered.contains(ingress);
        match self
            .hosts
            .claim(&entry.arrival, &entry.wish.hosts, is_offered)
        {
            Ok(lost) => {
                self.has_hosts(key);
                for other in &lost {
                    self.claim(other);
                }
            }
            Err(()) => {
                self.has_to_wait(key);
                self.change_places(key);
            }
        }
    }

    /// All hosts that an ingress asks for are its own.
    fn has_hosts(&mut self, key: &Key) {
        let Some(entry) = self.ingresses.get_mut(key) else {
            return;
        };
        entry.standing = Standing::Asking;
        let owned = entry.owned.union(&entry.wish.hosts);
        entry.owned = Arc::new(owned.cloned().collect());
        self.dirty.insert(key.clone());
    }

    /// Some host that an ingress asks for is not its own: it has those of its routes and no other.
    fn has_to_wait(&mut self, key: &Key) {
        let Some(entry) = self.ingresses.get_mut(key) else {
            return;
        };
        entry.standing = Standing::Conflict;
        let live = entry.live.as_ref().map(|live| Arc::clone(&live.hosts));
        self.dirty.remove(key);
        self.unsaid.insert(key.clone());
        // What is offered may become its routes.
        if !self.offered.contains(key) {
            self.keep_hosts(key, &live.unwrap_or_default());
        }
    }

    /// Ingresses that stand in each other's way by what is in the table for them alone, and not by
    /// what they ask for, get what they ask for, all at once.
    pub(super) fn change_places(&mut self, key: &Key) {
        for key in self.ring(key).unwrap_or_default() {
            if let Some(entry) = self.ingresses.get(&key) {
                self.hosts.hand_over(&entry.arrival, &entry.wish.hosts);
                self.has_hosts(&key);
            }
        }
    }

    /// Those who have to move together with an ingress, and it; `None` if one of them cannot.
    fn ring(&self, key: &Key) -> Option<Vec<Key>> {
        let mut ring = vec![key.clone()];
        let mut wanted = HashSet::new();
        let mut at = 0;
        while let Some(next) = ring.get(at).cloned() {
            at += 1;
            for host in self.ingresses.get(&next)?.wish.hosts.iter() {
                if !wanted.insert(host) {
                    return None;
                }
                let others = [self.hosts.owner(host), self.hosts.leaving(host)];
                for other in others.into_iter().flatten() {
                    if ring.contains(other) {
                        continue;
                    }
                    // Others let go by themselves, or not at all.
                    if !self.is_stuck(other) || ring.len() == RING_MAX {
                        return None;
                    }
                    ring.push(other.clone());
                }
            }
        }
        Some(ring)
    }

    /// Whether an ingress cannot move before somebody else does.
    fn is_stuck(&self, key: &Key) -> bool {
        let Some(entry) = self.ingresses.get(key) else {
            return false;
        };
        let in_the_way = |host: &str| self.hosts.leaving(host).is_some_and(|by| by != key);
        entry.standing == Standing::Conflict || entry.wish.hosts.iter().any(|host| in_the_way(host))
    }

    /// The table has these hosts for an ingress now, in place of what it had `before`.
    pub(super) fn serve(&mut self, key: &Key, before: Option<&Live>, hosts: &BTreeSet<Box<str>>) {
        let had = before.map(|live| Arc::clone(&live.hosts));
        for next in self.hosts.serve(key, &had.unwrap_or_default(), hosts) {
            let waits = |entry: &Entry| matches!(entry.standing, Standing::NotYet(_));
            if self.ingresses.get(&next).is_some_and(waits) {
                self.dirty.insert(next);
            }
        }
    }

    /// An ingress keeps only these hosts.
    pub(super) fn keep_hosts(&mut self, key: &Key, keeps: &Arc<BTreeSet<Box<str>>>) {
        let Some(entry) = self.ingresses.get_mut(key) else {
            return;
        };
        let had = std::mem::replace(&mut entry.owned, Arc::clone(keeps));
        self.release(key, &had, keeps);
    }

    /// An ingress lets go of those hosts it `had` that are not in `keeps`.
    pub(super) fn release(
        &mut self,
        key: &Key,
        had: &BTreeSet<Box<str>>,
        keeps: &BTreeSet<Box<str>>,
    ) {
        for next in self.hosts.keep_only(key, had.iter(), keeps) {
            let Some(entry) = self.ingresses.get(&next.ingress) else {
                continue;
            };
            let hosts = Arc::clone(&entry.wish.hosts);
            self.hosts.stop_waiting(&next, hosts.iter());
            self.claim(&next.ingress);
        }
    }
}

fn version_of(object: &Ingress) -> Box<str> {
    let version = object.metadata.resource_version.as_deref();
    version.unwrap_or_default().into()
}
