//! `find`: which route, rule and tag a request head means. Pure; no allocation on the way.

mod explain;
mod split;
mod sticky;

use std::sync::Arc;

pub use explain::{ExplainedTarget, Explanation, explain};

use crate::snapshot::{Route, Rule, Snapshot, Target};

/// What routing looks at.
#[derive(Clone, Copy)]
pub struct Query<'a> {
    /// As received: any case, perhaps with a port and one trailing dot. Never allocated upon:
    /// longer than 255 bytes matches nothing but `*`.
    pub host: &'a [u8],
    /// Raw path, without the query string.
    pub path: &'a [u8],
    pub method: &'a [u8],
    pub fields: &'a dyn Fields,
    /// The listener's audience is `internal`: cluster-local routes are served too.
    pub internal: bool,
}

/// Header fields of a request.
pub trait Fields {
    /// The first value of the field with this (lower-case) name, without surrounding spaces.
    fn first(&self, name: &str) -> Option<&[u8]>;
    /// The value of the field's occurrence number `index`, counted from 0, without surrounding
    /// spaces.
    fn nth(&self, name: &str, index: usize) -> Option<&[u8]> {
        (index == 0).then(|| self.first(name)).flatten()
    }
    /// Whether any value of that field equals `value` byte for byte.
    fn any_equals(&self, name: &str, value: &[u8]) -> bool {
        self.first(name) == Some(value)
    }
}

/// Fields as a list of names (any case) and values: for `explain` and tests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldList(pub Vec<(String, String)>);

impl Fields for FieldList {
    fn first(&self, name: &str) -> Option<&[u8]> {
        self.nth(name, 0)
    }

    fn nth(&self, name: &str, index: usize) -> Option<&[u8]> {
        let named = |field: &&(String, String)| field.0.eq_ignore_ascii_case(name);
        let (_, value) = self.0.iter().filter(named).nth(index)?;
        Some(value.trim().as_bytes())
    }

    fn any_equals(&self, name: &str, value: &[u8]) -> bool {
        let named = |field: &&(String, String)| field.0.eq_ignore_ascii_case(name);
        self.0
            .iter()
            .filter(named)
            .any(|(_, v)| v.trim().as_bytes() == value)
    }
}

impl std::fmt::Debug for Query<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Query")
            .field("host", &String::from_utf8_lossy(self.host))
            .field("path", &String::from_utf8_lossy(self.path))
            .field("method", &String::from_utf8_lossy(self.method))
            .field("internal", &self.internal)
            .finish_non_exhaustive()
    }
}

/// The rule that matched.
#[derive(Debug, Clone, Copy)]
pub struct Found<'a> {
    pub route: &'a Arc<Route>,
    /// Index into `route.rules`.
    pub rule: usize,
    /// The tagged target the request asked for: by tag host or by `Knative-Serving-Tag`.
    pub tagged: Option<&'a Target>,
}

impl<'a> Found<'a> {
    pub fn rule(&self) -> &'a Rule {
        &self.route.rules[self.rule]
    }
}

/// Exact host beats wildcard, longer wildcard beats shorter, `*` last; per host the longest path
/// wins, header rules before plain ones at equal length. `None` is `no_route`.
pub fn find<'a>(snapshot: &'a Snapshot, query: &Query<'_>) -> Option<Found<'a>> {
    let _ = (snapshot, query);
    None
}
