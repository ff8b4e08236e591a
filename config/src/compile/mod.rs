//! Fragments → snapshot, or the problems with their place and a hint.
//!
//! Incremental and transactional: a batch works on a clone of the persistent state, recompiles
//! only what the changed fragments name, checks what depends on it, and either becomes the state
//! or is dropped.

mod batch;
mod check;
mod conflict;
mod gateway;
mod queue;
pub(crate) mod report;
mod revision;
mod route;
mod shift;
mod tls;

use std::collections::BTreeSet;
use std::sync::Arc;

use self::batch::Batch;
use crate::fragment::Fragment;
use crate::merge::Merged;
use crate::problem::Problem;
use crate::revision::Key;
use crate::settings::Settings;
use crate::snapshot::{Route, Snapshot};

const DOMAIN: &str = "example.com";

/// Holds what every origin says and the tables made of it. Cheap to clone, to go back to where a
/// batch turns out to refer to what is not there.
#[derive(Clone, Debug, Default)]
pub struct Compiler {
    state: State,
}

/// Cheap to clone.
#[derive(Clone, Debug)]
struct State {
    merged: Merged,
    snapshot: Snapshot,
    domain: Arc<str>,
    /// What holds where nothing is written.
    defaults: Arc<Settings>,
    settings: Arc<Settings>,
    /// Routes of which some target waits until it is warm.
    shifting: Arc<BTreeSet<Key>>,
    /// Revisions that are written no longer, and have traffic until a target is warm.
    kept: Arc<BTreeSet<Key>>,
}

impl Default for State {
    fn default() -> Self {
        State {
            merged: Merged::default(),
            snapshot: Snapshot::default(),
            domain: DOMAIN.into(),
            defaults: Arc::default(),
            settings: Arc::default(),
            shifting: Arc::default(),
            kept: Arc::default(),
        }
    }
}

/// What a batch of changes made of the whole.
#[derive(Clone, Debug)]
pub struct Compiled {
    pub snapshot: Snapshot,
    /// Added or changed, or said again and referring to files: these may hold something else now.
    pub changed_revisions: Vec<Key>,
    pub removed_revisions: Vec<Key>,
    /// What the files say about the process, or the defaults; without overrides.
    pub settings: Settings,
    /// Whether this batch changed them, or said them again and they refer to files.
    pub settings_changed: bool,
}

impl Compiler {
    /// One that takes these settings where files say nothing.
    #[must_use]
    pub fn with_defaults(defaults: Settings) -> Compiler {
        let defaults = Arc::new(defaults);
        let state = State {
            settings: Arc::clone(&defaults),
            defaults,
            ..State::default()
        };
        Compiler { state }
    }

    /// Takes in a batch of changes, all or none. A fragment takes the place of what its origin
    /// said before; of several by one origin, the last counts.
    ///
    /// # Errors
    ///
    /// Every problem found, in the order of files and lines; then nothing has changed.
    pub fn apply(&mut self, changes: Vec<Fragment>) -> Result<Compiled, Vec<Problem>> {
        self.apply_once_warm(changes, &|_| true)
    }

    /// The same, where revisions that are not warm get no share of a route that would warm them
    /// before.
    ///
    /// # Errors
    ///
    /// As [`Compiler::apply`].
    pub fn apply_once_warm(
        &mut self,
        changes: Vec<Fragment>,
        warm: &dyn Fn(&Key) -> bool,
    ) -> Result<Compiled, Vec<Problem>> {
        let batch = Batch::of(self.state.clone(), changes, warm);
        let said = batch.says_settings();
        let (state, changed_revisions, removed_revisions) = batch.finish()?;
        let settings_changed = state.settings != self.state.settings
            || said && state.settings.listeners.iter().any(|one| one.tls.is_some());
        self.state = state;
        Ok(Compiled {
            snapshot: self.state.snapshot.clone(),
            changed_revisions,
            removed_revisions,
            settings: Settings::clone(&self.state.settings),
            settings_changed,
        })
    }

    /// Routes of which some target waits until it is warm, each with those it waits for.
    pub fn shifting(&self) -> impl Iterator<Item = &Arc<Route>> {
        let routes = self.state.shifting.iter();
        routes.filter_map(|key| self.state.snapshot.route_by_key(key))
    }

    /// Whether a revision that was kept for them is needed no longer: applying nothing removes it.
    #[must_use]
    pub fn has_leftovers(&self) -> bool {
        let mut kept = self.state.kept.iter();
        let known = |key| self.state.snapshot.known(key);
        kept.any(|key| known(key).is_none_or(|known| known.uses == 0))
    }

    /// Gives those of them their shares that are warm by now. `None`: nobody was waiting for that.
    pub fn shift(&mut self, warm: &dyn Fn(&Key) -> bool) -> Option<&Snapshot> {
        let due = self.shifting().filter(|route| route.warming().any(warm));
        let due: Vec<Key> = due.map(|route| route.key.clone()).collect();
        if due.is_empty() {
            return None;
        }
        // What was without a problem before is so again.
        let (state, _, _) = Batch::again(self.state.clone(), due, warm).finish().ok()?;
        self.state = state;
        Some(&self.state.snapshot)
    }

    /// The tables as of the last batch that was taken in.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.state.snapshot
    }
}

#[cfg(test)]
mod tests;
