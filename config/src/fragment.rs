//! What one source says: the words between sources and the compiler.

use std::sync::Arc;

use crate::document::Document;
use crate::problem::Problem;

/// Who said it. Orders sources: file wins over kubernetes over xds.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Origin {
    /// A file's path as given or found.
    File(Arc<str>),
    /// An object of a cluster: `ingress NAMESPACE/NAME`, `revision NAMESPACE/NAME`.
    Kubernetes(Arc<str>),
    // xDS joins here.
}

impl Origin {
    /// What problems call it.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        match self {
            Origin::File(name) | Origin::Kubernetes(name) => name,
        }
    }

    /// The kind of source, for metrics.
    #[must_use]
    pub fn source(&self) -> &'static str {
        match self {
            Origin::File(_) => "file",
            Origin::Kubernetes(_) => "kubernetes",
        }
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.source(), self.name())
    }
}

/// What one origin says now; it takes the place of everything that origin said before.
#[derive(Clone, Debug)]
pub struct Fragment {
    pub origin: Origin,
    pub content: Content,
}

#[derive(Clone, Debug)]
pub enum Content {
    Documents {
        documents: Vec<Document>,
        /// The text they were read from, for showing problems to people; the compiler drops it.
        text: Arc<str>,
    },
    /// It could not be read, or not in full. A compiler refuses it, and with it everything that
    /// comes in the same batch; what it said before stays.
    Broken {
        problems: Vec<Problem>,
        /// Those documents of a stream that could be read: their errors of meaning are told too.
        readable: Vec<Document>,
        /// Empty when nothing could be read.
        text: Arc<str>,
    },
    /// It says nothing any more.
    Gone,
}

impl Content {
    /// The text it was read from, where there is one.
    #[must_use]
    pub fn text(&self) -> Option<&Arc<str>> {
        match self {
            Content::Documents { text, .. } | Content::Broken { text, .. } => Some(text),
            Content::Gone => None,
        }
    }
}
