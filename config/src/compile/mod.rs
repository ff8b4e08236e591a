//! Fragments → snapshot, or the problems with their place and a hint.

use crate::fragment::Fragment;
use crate::problem::Problem;
use crate::revision::Key;
use crate::settings::Settings;
use crate::snapshot::Snapshot;

/// Holds what every origin says and the tables made of it.
#[derive(Debug, Default)]
pub struct Compiler {
    snapshot: Snapshot,
}

/// What a batch of changes made of the whole.
#[derive(Clone, Debug)]
pub struct Compiled {
    pub snapshot: Snapshot,
    /// Added or changed.
    pub changed_revisions: Vec<Key>,
    pub removed_revisions: Vec<Key>,
    /// What the files say about the process, or the defaults; without overrides.
    pub settings: Settings,
    pub settings_changed: bool,
}

impl Compiler {
    /// Takes in a batch of changes, all or none. A fragment takes the place of what its origin
    /// said before; of several by one origin, the last counts.
    ///
    /// # Errors
    ///
    /// Every problem found; then nothing has changed.
    pub fn apply(&mut self, changes: Vec<Fragment>) -> Result<Compiled, Vec<Problem>> {
        drop(changes);
        Ok(Compiled {
            snapshot: self.snapshot.clone(),
            changed_revisions: Vec::new(),
            removed_revisions: Vec::new(),
            settings: Settings::default(),
            settings_changed: false,
        })
    }
}
