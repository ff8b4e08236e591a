//! When a backend that is started on demand had got how far.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use crate::system::{monotonic_nanos, tell};

/// Between two looks whether a file is there.
const LOOK: Duration = Duration::from_millis(1);

/// What `--times` writes: nanoseconds of the kernel's monotonic clock, which all processes share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// The process ran.
    pub started: u64,
    /// It accepted connections.
    pub listening: u64,
    /// The head of its first request was read.
    pub request: u64,
}

/// Notes the first request.
#[derive(Debug)]
pub(super) struct Watch {
    file: PathBuf,
    times: Cell<Times>,
}

impl Watch {
    /// To be made as the backend begins to listen.
    pub(super) fn new(file: &Path, started: u64) -> Watch {
        Watch {
            file: file.to_owned(),
            times: Cell::new(Times {
                started,
                listening: monotonic_nanos(),
                request: 0,
            }),
        }
    }

    /// A request is here; the first one is written down.
    pub(super) fn request(&self) {
        let mut times = self.times.get();
        if times.request != 0 {
            return;
        }
        times.request = monotonic_nanos();
        self.times.set(times);
        if let Err(error) = self.write(&times) {
            let file = self.file.display();
            tell(&format!("loadtest: cannot write {file}: {error}"));
        }
    }

    /// Whoever looks sees all of it or nothing.
    fn write(&self, times: &Times) -> io::Result<()> {
        let unfinished = self.file.with_extension("unfinished");
        fs::write(&unfinished, serde_json::to_string(times)? + "\n")?;
        fs::rename(unfinished, &self.file)
    }
}

/// Waits until there is such a file.
pub(super) async fn until_there(file: &Path) {
    while !file.exists() {
        sleep(LOOK).await;
    }
}
