//! `find`: which route, rule and tag a request head means. Pure; no allocation on the way.

use std::sync::Arc;

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
    /// Whether any value of that field equals `value` byte for byte.
    fn any_equals(&self, name: &str, value: &[u8]) -> bool {
        self.first(name) == Some(value)
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
