//! Ingresses as they come, change and go: what they name, and which hosts are theirs.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::entry::{Entry, Wish};
use super::{Standing, State};
use crate::revision::Key;
use crate::source::kubernetes::conflict::Arrival;
use crate::source::kubernetes::ingress::Ingress;

impl State {
    pub(super) fn put_ingress(&mut self, object: &Ingress) {
        let key = self.cluster.key_of(&object.metadata);
        self.finalizers.remove(&key);
        if !object.is_of(&self.identity.class) {
            self.remove_ingress(&key);
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
        let unchanged = |entry: &Entry| entry.generation == generation && entry.wish == wish;
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
                let live = self.removed.remove(&key);
                let owned = live.as_ref().map(|live| Arc::clone(&live.hosts));
                (live, owned.unwrap_or_default())
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
        match entry.live {
            // Its hosts are free once its routes are.
            Some(mut live) => {
                live.hosts = entry.owned;
                self.removed.insert(key.clone(), live);
                self.dirty.insert(key.clone());
            }
            None => self.release(key, &entry.owned, &BTreeSet::new()),
        }
    }

    /// Tries to get the hosts that an ingress asks for.
    pub(super) fn claim(&mut self, key: &Key) {
        let Some(entry) = self.ingresses.get_mut(key) else {
            return;
        };
        if self.hosts.claim(&entry.arrival, &entry.wish.hosts) {
            entry.standing = Standing::Asking;
            let owned = entry.owned.union(&entry.wish.hosts);
            entry.owned = Arc::new(owned.cloned().collect());
            self.dirty.insert(key.clone());
        } else {
            entry.standing = Standing::Conflict;
            self.dirty.remove(key);
            self.unsaid.insert(key.clone());
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
