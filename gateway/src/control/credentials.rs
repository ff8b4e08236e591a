//! Files that the configuration refers to: certificates, keys and authorities, read before anything
//! that needs them is published.

use std::sync::Arc;

use config::Compiled;
use config::problem::Problem;
use config::settings::Listener;

use crate::live::{Credentials, Live};
use crate::serve::tls::endpoint::Dialer;
use crate::serve::tls::names::FromRoutes;
use crate::serve::tls::server::Acceptor;
use crate::serve::tls::store::Store;

/// Reads what a batch of changes refers to. `running` are the listeners that are served, `None` if
/// flags took the place of those in the files; `store` has the certificates that come with routes;
/// `old` is what is published. Blocks.
///
/// # Errors
/// Everything that is wrong with any of the files, in the order of where they are named.
pub fn read(
    compiled: &Compiled,
    running: Option<&[Listener]>,
    store: &Arc<Store>,
    old: &Live,
) -> Result<Arc<Credentials>, Vec<Problem>> {
    let mut reading = Reading {
        compiled,
        store,
        old,
        problems: Vec::new(),
    };
    let acceptors = running.map(|running| reading.acceptors(running));
    let dialers = reading.dialers();
    let mut problems = reading.problems;
    if !problems.is_empty() {
        problems.sort();
        return Err(problems);
    }
    let mut credentials = old.credentials.clone();
    if let Some(Some(acceptors)) = acceptors {
        Arc::make_mut(&mut credentials).acceptors = acceptors;
    }
    if !dialers.is_empty() {
        let all = &mut Arc::make_mut(&mut credentials).dialers;
        for (id, dialer) in dialers {
            match dialer {
                Some(dialer) => all.insert(id, dialer),
                None => all.remove(&id),
            };
        }
    }
    Ok(credentials)
}

struct Reading<'a> {
    compiled: &'a Compiled,
    store: &'a Arc<Store>,
    old: &'a Live,
    problems: Vec<Problem>,
}

impl Reading<'_> {
    /// For each running listener; `None` if nothing can have changed.
    fn acceptors(&mut self, running: &[Listener]) -> Option<Vec<Option<Arc<Acceptor>>>> {
        if !self.compiled.settings_changed && self.old.version > 0 {
            return None;
        }
        let known = &self.old.credentials.acceptors;
        let written = &self.compiled.settings.listeners;
        // A listener that does not run yet is checked too: the next start needs it.
        let read: Vec<_> = written
            .iter()
            .enumerate()
            .map(|(index, listener)| {
                let tls = listener.tls.as_ref()?;
                let before = place(running, index, listener);
                let before = before.and_then(|place| known.get(place)?.as_ref());
                let from_routes = FromRoutes {
                    store: self.store.clone(),
                    audience: listener.audience,
                };
                let read = Acceptor::read(tls, before, from_routes);
                read.map_err(|problems| self.problems.extend(problems)).ok()
            })
            .collect();
        let acceptors = running.iter().enumerate().map(|(index, listener)| {
            listener.tls.as_ref()?;
            let now = place(written, index, listener);
            let now = now.and_then(|place| read[place].as_ref());
            // One that is no longer written, or without TLS, goes on as it is until it stops.
            now.or_else(|| known.get(index)?.as_ref()).cloned()
        });
        Some(acceptors.collect())
    }

    /// For each revision that may have changed; `None` = in clear, or gone.
    fn dialers(&mut self) -> Vec<(config::revision::RevisionId, Option<Arc<Dialer>>)> {
        let (old, new) = (&self.old, &self.compiled.snapshot);
        let mut dialers = Vec::new();
        for key in &self.compiled.removed_revisions {
            if let Some(gone) = old.snapshot.revision_by_key(key)
                && gone.tls.is_some()
            {
                dialers.push((gone.id, None));
            }
        }
        for key in &self.compiled.changed_revisions {
            let before = old.snapshot.revision_by_key(key);
            let before = before.and_then(|revision| old.dialer(revision));
            let Some(revision) = new.revision_by_key(key) else {
                continue;
            };
            match &revision.tls {
                Some(tls) => match Dialer::read(key, revision.protocol, tls, before) {
                    Ok(dialer) => dialers.push((revision.id, Some(dialer))),
                    Err(problems) => self.problems.extend(problems),
                },
                None if before.is_some() => dialers.push((revision.id, None)),
                None => {}
            }
        }
        dialers
    }
}

/// Where a listener stands among others: at the same place, else wherever its address is.
fn place(among: &[Listener], index: usize, listener: &Listener) -> Option<usize> {
    let same = |other: &Listener| other.address == listener.address;
    if among.get(index).is_some_and(same) {
        return Some(index);
    }
    among.iter().position(same)
}
