//! Files and directories as a source.
//!
//! Directories are watched, never files: editors put a new file in the old one's place, and
//! Kubernetes swaps the symbolic link `..data` above the files. What changed is offered together
//! with everything that is not accepted yet, so that the running snapshot is always one state of
//! all files. A document is also offered again, unchanged, when a file has changed that it refers to
//! (certificates, keys, authorities). What the watcher misses (network file systems, a directory made anew), a slow round
//! finds.

mod refer;
mod scan;
mod watch;

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use self::scan::Scan;
use self::watch::{Noticed, Watch};
use super::{Fragment, Sink, Verdict};
use crate::problem::Problem;

/// A change is read when nothing has moved for so long.
const QUIET: Duration = Duration::from_millis(50);
/// The same while a writer has the file open.
const QUIET_WRITING: Duration = Duration::from_millis(500);
/// Where files never come to rest, they are read after this anyway.
const RESTLESS: Duration = Duration::from_secs(2);
/// How often everything is looked at without a reason.
const ROUND: Duration = Duration::from_secs(10);

/// Watches files and directories and offers what has changed.
#[derive(Debug)]
pub struct FileSource {
    scan: Scan,
    /// What was logged last, so that a round does not repeat it.
    told: Vec<Problem>,
}

impl FileSource {
    /// Files, or directories of which every `*.yaml` and `*.yml` counts that is not hidden.
    #[must_use]
    pub fn new(paths: Vec<PathBuf>) -> FileSource {
        FileSource {
            scan: Scan::of(paths),
            told: Vec::new(),
        }
    }

    /// Reads everything, on the calling thread, and counts it as taken in: the next one tells only
    /// what has changed since. A path that does not exist comes as broken content.
    pub fn load_once(&mut self) -> Vec<Fragment> {
        self.scan.run(true);
        let fragments = self.scan.pending();
        self.scan.taken_in();
        fragments
    }

    /// Watches until nobody listens to `sink` any more. Every message of `reread` (SIGHUP) reads
    /// all files again, changed or not, and offers again what refers to other files. Problems are logged once each time they change.
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any point; a change that was being offered may or may not have been
    /// taken in.
    pub async fn run(mut self, sink: Sink, mut reread: mpsc::Receiver<()>) {
        let (mut watch, mut noticed) = Watch::new();
        let mut asked = false;
        loop {
            let unheard;
            (self, unheard) = self.look(asked, &mut watch).await;
            if unheard {
                (self, _) = self.look(false, &mut watch).await;
            }
            self.offer(&sink).await;
            asked = tokio::select! {
                () = sink.closed() => return,
                Some(()) = reread.recv() => true,
                Some(first) = noticed.recv() => {
                    settle(first, &mut noticed).await;
                    false
                }
                () = sleep(ROUND) => false,
            };
        }
    }

    /// Looks at all files on a blocking thread; whether a change may have gone unheard since.
    async fn look(mut self, all: bool, watch: &mut Watch) -> (FileSource, bool) {
        let looking = tokio::task::spawn_blocking(move || {
            self.scan.run(all);
            let directories = self.scan.directories();
            (self, directories)
        });
        match looking.await {
            Ok((source, directories)) => {
                let unheard = watch.set(directories);
                (source, unheard)
            }
            // The task is never cancelled: it panicked, and so do we.
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    async fn offer(&mut self, sink: &Sink) {
        let fragments = self.scan.pending();
        if fragments.is_empty() {
            return;
        }
        let count = fragments.len();
        match sink.offer(fragments).await {
            Some(Verdict::Accepted { version }) => {
                tracing::info!(version, changed = count, "configuration taken in");
                self.scan.taken_in();
                self.told.clear();
            }
            Some(Verdict::Rejected(problems)) => {
                if problems != self.told {
                    for problem in &problems {
                        tracing::error!(target: "config", "{problem}");
                    }
                    self.told = problems;
                }
                self.scan.refused();
            }
            // Nobody else says anything about files: this cannot be, and would not matter.
            Some(Verdict::Superseded) | None => {}
        }
    }
}

/// Waits until files have come to rest.
async fn settle(first: Noticed, noticed: &mut mpsc::Receiver<Noticed>) {
    let end = Instant::now() + RESTLESS;
    let mut last = first;
    loop {
        let quiet = match last {
            Noticed::Settled => QUIET,
            Noticed::Writing => QUIET_WRITING,
        };
        match timeout_at(end, timeout(quiet, noticed.recv())).await {
            Ok(Ok(Some(next))) => last = next,
            Ok(Ok(None) | Err(_)) | Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests;
