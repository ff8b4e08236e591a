//! Hearing of changes in directories.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use super::scan::{Directories, is_configuration};

/// Notices that wait. One alone causes a look at everything, so what finds no room may go.
const NOTICES_QUEUED: usize = 64;

/// Something has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Noticed {
    /// More may come: a file was written and is still open.
    Writing,
    Settled,
}

pub(super) struct Watch {
    /// `None` where the system has no watch left; slow rounds still go.
    watcher: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
    /// Names that matter beside those that look like configuration.
    names: Arc<Mutex<BTreeSet<OsString>>>,
}

impl Watch {
    pub(super) fn new() -> (Watch, mpsc::Receiver<Noticed>) {
        let (sender, receiver) = mpsc::channel(NOTICES_QUEUED);
        let names = Arc::new(Mutex::new(BTreeSet::new()));
        let interesting = Arc::clone(&names);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let noticed = match event {
                Ok(event) => classify(&event, &interesting),
                Err(_lost) => Some(Noticed::Settled),
            };
            if noticed.is_some_and(|noticed| sender.try_send(noticed).is_err()) {
                tracing::trace!("the queue is full and says as much already");
            }
        });
        let watcher = watcher
            .inspect_err(|error| tracing::warn!(%error, "files are not watched, only looked at"))
            .ok();
        let watch = Watch {
            watcher,
            watched: BTreeSet::new(),
            names,
        };
        (watch, receiver)
    }

    /// Watches these from now on; whether some of it was not watched before: what changed there
    /// since it was looked at went unheard.
    #[must_use]
    pub(super) fn set(&mut self, directories: Directories) -> bool {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let more_names = !directories.names.is_subset(&names);
        *names = directories.names;
        drop(names);
        let Some(watcher) = &mut self.watcher else {
            return false;
        };
        let more_paths = !directories.paths.is_subset(&self.watched);
        for gone in self.watched.difference(&directories.paths) {
            // It may have gone by itself.
            drop(watcher.unwatch(gone));
        }
        for path in &directories.paths {
            // Again each time: a directory made anew needs a new watch, an old one keeps its own.
            if let Err(error) = watcher.watch(path, RecursiveMode::NonRecursive) {
                tracing::debug!(path = %path.display(), %error, "cannot watch");
            }
        }
        self.watched = directories.paths;
        more_names || more_paths
    }
}

fn classify(event: &notify::Event, names: &Mutex<BTreeSet<OsString>>) -> Option<Noticed> {
    let names = names.lock().unwrap_or_else(PoisonError::into_inner);
    let listed = |name: &OsStr| names.contains(name);
    // Kubernetes swaps `..data`.
    let swap = |name: &OsStr| name.as_encoded_bytes().starts_with(b"..");
    let of_interest = |path: &PathBuf| {
        let name = path.file_name();
        name.is_none_or(|name| listed(name) || swap(name) || is_configuration(Path::new(name)))
    };
    if !event.paths.is_empty() && !event.need_rescan() && !event.paths.iter().any(of_interest) {
        return None;
    }
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Some(Noticed::Settled),
        // Our own reading among them.
        EventKind::Access(_) => None,
        EventKind::Modify(ModifyKind::Data(_)) => Some(Noticed::Writing),
        _ => Some(Noticed::Settled),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_not_watched_before_may_have_changed_unheard() {
        let here = tempfile::tempdir().unwrap();
        let directories = |names: &[&str]| Directories {
            paths: BTreeSet::from([here.path().to_owned()]),
            names: names.iter().map(OsString::from).collect(),
        };
        let (mut watch, _noticed) = Watch::new();
        assert!(watch.set(directories(&[])));
        assert!(!watch.set(directories(&[])));
        assert!(watch.set(directories(&["own.pem"])));
        assert!(!watch.set(directories(&["own.pem"])));
        assert!(!watch.set(directories(&[])));
    }
}
