//! Files and directories as a source.

use std::path::PathBuf;

use tokio::sync::mpsc;

use super::{Fragment, Sink};

/// Watches files and directories and offers what has changed.
#[derive(Debug)]
pub struct FileSource {
    paths: Vec<PathBuf>,
}

impl FileSource {
    #[must_use]
    pub fn new(paths: Vec<PathBuf>) -> FileSource {
        FileSource { paths }
    }

    /// Reads everything once, on the calling thread.
    pub fn load_once(&mut self) -> Vec<Fragment> {
        let _ = &self.paths;
        Vec::new()
    }

    /// Watches until nobody listens any more; every message of `reread` (SIGHUP) reads again.
    #[allow(clippy::unused_async, reason = "filled in next")]
    pub async fn run(self, sink: Sink, reread: mpsc::Receiver<()>) {
        let _ = (sink, reread);
    }
}
