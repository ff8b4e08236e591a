//! `find`: which route, rule and tag a request head means. Pure; no allocation on the way.

mod explain;
mod hosts;
mod rank;
mod split;
mod sticky;

use std::sync::Arc;

pub use explain::{ExplainedTarget, Explanation, explain};

pub(crate) use hosts::{Claimant, Conflict, Edit, Hosts, Kind, claims_of, same_rules};
pub(crate) use rank::{PathIndex, precedence};

use self::hosts::{Claim, Host, Pattern};
use self::rank::first_match;
use crate::snapshot::{Route, Rule, Snapshot, Target};

/// Longest host looked at; a longer one falls under `*` alone. DNS allows 253 characters (RFC 1035
/// §2.3.4).
const HOST_BYTES_MAX: usize = 255;
/// Chooses a tagged target on a route's own hosts.
const TAG_FIELD: &str = "knative-serving-tag";

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
/// wins, header rules before plain ones at equal length. The host is chosen first: when none of
/// its rules matches, no other host is tried. `None` is `no_route`.
///
/// Does not allocate.
#[must_use]
pub fn find<'a>(snapshot: &'a Snapshot, query: &Query<'_>) -> Option<Found<'a>> {
    let (host, _) = find_host(snapshot, query)?;
    let (route, rule) = host.find_rule(query)?;
    let tagged = match host.tag_for(|| &route.rules[rule], route, query) {
        Tagged::Target(target) => Some(target),
        Tagged::No => None,
        Tagged::Missing => return None,
    };
    Some(Found {
        route,
        rule,
        tagged,
    })
}

/// The host a query falls under.
fn find_host<'a>(snapshot: &'a Snapshot, query: &Query<'_>) -> Option<(&'a Host, Pattern)> {
    let mut buffer = [0; HOST_BYTES_MAX];
    match normalise(query.host, &mut buffer) {
        Some(host) => snapshot.hosts.look_up(host, query.internal),
        None => snapshot.hosts.look_up_any(query.internal),
    }
}

/// Lower case, without port and one trailing dot; `None` when too long.
fn normalise<'b>(host: &[u8], buffer: &'b mut [u8; HOST_BYTES_MAX]) -> Option<&'b [u8]> {
    let end = match host.first() {
        // An IPv6 literal keeps its brackets (RFC 3986 §3.2.2).
        Some(b'[') => memchr::memchr(b']', host).map(|at| at + 1),
        _ => memchr::memchr(b':', host),
    };
    let host = &host[..end.unwrap_or(host.len())];
    let host = host.strip_suffix(b".").unwrap_or(host);
    let lower = buffer.get_mut(..host.len())?;
    lower.copy_from_slice(host);
    lower.make_ascii_lowercase();
    Some(lower)
}

/// What a tag asks for.
enum Tagged<'a> {
    /// This target.
    Target(&'a Target),
    /// None is asked for, or one that is ignored.
    No,
    /// A tag host whose tag names nothing under the rule that matched.
    Missing,
}

impl Host {
    /// The first matching rule, by its position in the route.
    #[inline]
    fn find_rule(&self, query: &Query<'_>) -> Option<(&Arc<Route>, usize)> {
        match &self.claim {
            Claim::One {
                route, plain: true, ..
            } => Some((route, 0)),
            Claim::One { route, .. } | Claim::Tag { route, .. } => {
                let rules = &route.rules;
                let index = route.index.as_deref();
                let rule = first_match(rules.len(), index, query, |rank| rules.get(rank))?;
                Some((route, rule))
            }
            Claim::Shared(shared) => {
                let rule_at = |rank: usize| {
                    let ranked = shared.ranked.get(rank)?;
                    let route = &shared.members[ranked.member as usize];
                    route
                        .serves(query.internal)
                        .then(|| ranked.rule_in(&shared.members))
                };
                let count = shared.ranked.len();
                let rank = first_match(count, shared.index.as_ref(), query, rule_at)?;
                let ranked = shared.ranked[rank];
                Some((
                    &shared.members[ranked.member as usize],
                    ranked.rule as usize,
                ))
            }
        }
    }

    /// A tag names a target of the rule that matched, else of the route. The rule is looked at
    /// only when there is a tag.
    #[inline]
    fn tag_for<'a>(
        &self,
        rule: impl FnOnce() -> &'a Rule,
        route: &'a Route,
        query: &Query<'_>,
    ) -> Tagged<'a> {
        let of_host = match self.claim {
            Claim::Tag { bytes, .. } => Some(&self.name[..usize::from(bytes)]),
            Claim::One { .. } | Claim::Shared(_) => None,
        };
        let Some(tag) = of_host.or_else(|| query.fields.first(TAG_FIELD)) else {
            return Tagged::No;
        };
        let Some(split) = route.split_of(rule()) else {
            return Tagged::No;
        };
        let target = split.tagged(tag).or_else(|| route.split.tagged(tag));
        match target {
            Some(target) => Tagged::Target(target),
            None if of_host.is_some() => Tagged::Missing,
            None => Tagged::No,
        }
    }
}

#[cfg(test)]
mod tests;
