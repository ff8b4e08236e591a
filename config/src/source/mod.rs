//! The one door in: what a source says (`Fragment`), where it says it (`Sink`), what it hears back
//! (`Verdict`).

use std::sync::Arc;

/// Who said it. Orders sources: file wins over kubernetes over xds.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Origin {
    /// A file's path as given or found.
    File(Arc<str>),
    // Kubernetes and xDS join here with their own issues.
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::File(path) => write!(f, "file {path}"),
        }
    }
}
