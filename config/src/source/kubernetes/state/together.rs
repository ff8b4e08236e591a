//! Ingresses that take hosts from each other: who is offered together, and who has to wait.

use std::collections::{BTreeMap, BTreeSet};

use super::batch::Change;
use super::entry::Entry;
use super::{Standing, State};
use crate::revision::Key;

impl State {
    /// Who is to get a host that somebody else has in the table comes together with that one.
    pub(super) fn take_along(&mut self, keys: &mut BTreeSet<Key>) {
        let mut looked_at = keys.clone();
        while let Some(key) = looked_at.pop_first() {
            let hosts = self.ingresses.get(&key).map(|entry| &entry.wish.hosts);
            let before = hosts.into_iter().flat_map(|hosts| hosts.iter());
            for before in before.filter_map(|host| self.hosts.leaving(host)) {
                let entry = self.ingresses.get(before);
                let failed = |entry: &Entry| {
                    matches!(entry.standing, Standing::Failed(_) | Standing::Overruled)
                };
                if entry.is_some_and(failed) || !keys.insert(before.clone()) {
                    continue;
                }
                self.dirty.remove(before);
                self.alone.remove(before);
                looked_at.insert(before.clone());
            }
        }
    }

    /// Who cannot have a host yet waits for whoever has it in the table and does not leave it now.
    pub(super) fn leave_behind(&mut self, changes: &mut BTreeMap<Key, Change>) {
        loop {
            let stays = |before: &Key, host: &str| {
                let change = changes.get(before).map(|change| change.live.as_ref());
                change.is_none_or(|live| live.is_some_and(|live| live.hosts.contains(host)))
            };
            let blocked = changes.iter().filter_map(|(key, change)| {
                let mut hosts = change.live.iter().flat_map(|live| live.hosts.iter());
                hosts.find_map(|host| {
                    let before = self.hosts.leaving(host).filter(|before| *before != key)?;
                    let blocks = stays(before, host);
                    blocks.then(|| (key.clone(), host.clone(), before.clone()))
                })
            });
            let blocked: Vec<_> = blocked.collect();
            if blocked.is_empty() {
                return;
            }
            for (key, host, before) in blocked {
                changes.remove(&key);
                let why = format!("{host} is still served for {before}");
                self.waits(&key, Standing::NotYet(why.into()));
                // What keeps that one may be who waits for it.
                let is_stuck = |entry: &Entry| entry.standing == Standing::Conflict;
                if self.ingresses.get(&before).is_some_and(is_stuck) {
                    self.change_places(&before);
                }
            }
        }
    }
}
