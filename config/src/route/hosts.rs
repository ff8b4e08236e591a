//! Hosts and the routes that claim them.
//!
//! A host is found by an exact hash, then by the longest wildcard suffix, then `*`. The host is
//! chosen first: when none of its rules matches, no wildcard is tried (as nginx chooses a server
//! and the Gateway API a listener). A host that only cluster-local routes claim does not exist for
//! public listeners.

use std::sync::Arc;

use smallvec::SmallVec;

use super::rank::{PathIndex, matches_everything, precedence};
use crate::snapshot::{HeaderMatch, PathMatch, Route, RouteId, Rule, Visibility};
use crate::table::{Entry, Table, hash};

/// Hosts up to this long are kept inside their table entry.
const NAME_INLINE: usize = 40;

#[derive(Clone, Debug, Default)]
pub(crate) struct Hosts {
    exact: Table<Host>,
    /// By what follows `*.`.
    wildcards: Table<Host>,
    any: Option<Host>,
}

/// A host, or the suffix of a wildcard, with whoever claims it. The name sits inside the entry, so
/// that a lookup touches little memory.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub(super) name: SmallVec<[u8; NAME_INLINE]>,
    pub(super) claim: Claim,
}

const _: () = assert!(size_of::<Host>() == 64, "an entry is one cache line");

impl Entry for Host {
    fn hash(&self) -> u64 {
        hash(&self.name)
    }
}

#[derive(Clone, Debug)]
pub(super) enum Claim {
    One {
        route: Arc<Route>,
        public: bool,
        /// Its first rule matches everything: known without a look at the route.
        plain: bool,
    },
    /// The first `bytes` of the name are a tag of the route.
    Tag {
        route: Arc<Route>,
        public: bool,
        bytes: u8,
    },
    Shared(Arc<Shared>),
}

/// A host that several routes list.
#[derive(Debug)]
pub(super) struct Shared {
    /// In the order of the files.
    pub(super) members: Vec<Arc<Route>>,
    public: bool,
    /// Rules of all members in order of precedence.
    pub(super) ranked: Vec<Ranked>,
    pub(super) index: Option<PathIndex>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Ranked {
    pub(super) member: u32,
    pub(super) rule: u32,
}

/// What kind of claim a route has on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The default host, in one of its forms.
    Own,
    Listed,
    /// A tag of so many bytes, `-`, and the default host in one of its forms.
    Tag {
        bytes: u8,
    },
}

/// A route's claim on one host.
#[derive(Clone, Debug)]
pub(crate) struct Claimant {
    pub(crate) route: Arc<Route>,
    pub(crate) kind: Kind,
}

/// What changes about one host.
#[derive(Debug, Default)]
pub(crate) struct Edit {
    pub(crate) leave: Vec<RouteId>,
    pub(crate) join: Vec<Claimant>,
}

/// Why an edit cannot be.
#[derive(Debug)]
pub(crate) enum Conflict {
    /// Several claims of which at least one is a default or tag host.
    Taken(Vec<Claimant>),
    /// Rules that match the same requests: routes and positions within their `rules`.
    SameRule(Box<[(Arc<Route>, usize); 2]>),
}

/// Every host a route claims, and how.
pub(crate) fn claims_of(route: &Route) -> Vec<(String, Kind)> {
    let own = route.own_hosts();
    let mut claims: Vec<(String, Kind)> = Vec::new();
    for (position, host) in route.hosts.iter().enumerate() {
        let kind = if position < own {
            Kind::Own
        } else {
            Kind::Listed
        };
        claims.push((host.to_string(), kind));
    }
    for tag in route.tags() {
        let bytes = u8::try_from(tag.len()).unwrap_or(u8::MAX);
        for host in &route.hosts[..own] {
            claims.push((format!("{tag}-{host}"), Kind::Tag { bytes }));
        }
    }
    claims
}

impl Hosts {
    /// The host or pattern that a request for `host` (lower case, no port, no trailing dot) falls
    /// under, and which of its labels a wildcard covered.
    #[inline]
    pub(super) fn look_up(&self, host: &[u8], internal: bool) -> Option<(&Host, Pattern)> {
        let exact = self.exact.get(hash(host), |entry| *entry.name == *host);
        if let Some(entry) = exact.filter(|entry| entry.serves(internal)) {
            return Some((entry, Pattern::Exact));
        }
        if !self.wildcards.is_empty() {
            for (dot, _) in host.iter().enumerate().filter(|(_, byte)| **byte == b'.') {
                let suffix = &host[dot + 1..];
                // A wildcard covers at least one label, and a label is not empty.
                let found = self.wildcards.get(hash(suffix), |e| *e.name == *suffix);
                if let Some(entry) = found.filter(|entry| dot > 0 && entry.serves(internal)) {
                    return Some((entry, Pattern::Wildcard));
                }
            }
        }
        self.look_up_any(internal)
    }

    /// Where a host too long for any name falls under.
    pub(super) fn look_up_any(&self, internal: bool) -> Option<(&Host, Pattern)> {
        let any = self.any.as_ref().filter(|entry| entry.serves(internal));
        any.map(|entry| (entry, Pattern::Any))
    }

    pub(crate) fn is_shared(&self, pattern: &str) -> bool {
        let entry = self.entry(pattern);
        entry.is_some_and(|entry| matches!(entry.claim, Claim::Shared(_)))
    }

    fn entry(&self, pattern: &str) -> Option<&Host> {
        match Key::of(pattern) {
            Key::Any => self.any.as_ref(),
            Key::Wildcard(name) => self.wildcards.get(hash(name), |e| *e.name == *name),
            Key::Exact(name) => self.exact.get(hash(name), |e| *e.name == *name),
        }
    }

    /// Applies all changes about one host together. `order` compares routes that list the same
    /// host by where they are written.
    ///
    /// # Errors
    ///
    /// Everything that speaks against it; the host is then as before.
    pub(crate) fn edit(
        &mut self,
        pattern: &str,
        edit: Edit,
        order: impl Fn(&Route, &Route) -> std::cmp::Ordering,
    ) -> Result<(), Vec<Conflict>> {
        let mut claimants = self
            .entry(pattern)
            .map_or(Vec::new(), |entry| entry.claimants(pattern));
        claimants.retain(|claimant| !edit.leave.contains(&claimant.route.id));
        claimants.extend(edit.join);
        claimants.sort_by(|a, b| order(&a.route, &b.route));
        let reserved = |claimant: &Claimant| claimant.kind != Kind::Listed;
        if claimants.len() > 1 && claimants.iter().any(reserved) {
            return Err(vec![Conflict::Taken(claimants)]);
        }
        let Some(first) = claimants.first() else {
            self.remove(pattern);
            return Ok(());
        };
        let public = first.route.visibility == Visibility::Public;
        let route = Arc::clone(&first.route);
        let claim = match first.kind {
            Kind::Tag { bytes } => Claim::Tag {
                route,
                public,
                bytes,
            },
            Kind::Own | Kind::Listed if claimants.len() == 1 => Claim::One {
                plain: route.rules.first().is_some_and(matches_everything),
                route,
                public,
            },
            Kind::Own | Kind::Listed => {
                let members = claimants
                    .into_iter()
                    .map(|claimant| claimant.route)
                    .collect();
                Claim::Shared(Arc::new(Shared::of(members)?))
            }
        };
        self.put(pattern, claim);
        Ok(())
    }

    fn put(&mut self, pattern: &str, claim: Claim) {
        let key = Key::of(pattern);
        let entry = Host {
            name: SmallVec::from_slice(key.name()),
            claim,
        };
        let name = entry.name.clone();
        match key {
            Key::Any => self.any = Some(entry),
            Key::Wildcard(_) => drop(self.wildcards.put(entry, |present| present.name == name)),
            Key::Exact(_) => drop(self.exact.put(entry, |present| present.name == name)),
        }
    }

    fn remove(&mut self, pattern: &str) {
        match Key::of(pattern) {
            Key::Any => self.any = None,
            Key::Wildcard(name) => drop(self.wildcards.remove(hash(name), |e| *e.name == *name)),
            Key::Exact(name) => drop(self.exact.remove(hash(name), |e| *e.name == *name)),
        }
    }
}

/// How a host was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pattern {
    Exact,
    Wildcard,
    Any,
}

/// Where a pattern is kept.
enum Key<'a> {
    Any,
    Wildcard(&'a [u8]),
    Exact(&'a [u8]),
}

impl<'a> Key<'a> {
    fn of(pattern: &'a str) -> Key<'a> {
        match pattern.strip_prefix("*.") {
            Some(suffix) => Key::Wildcard(suffix.as_bytes()),
            None if pattern == "*" => Key::Any,
            None => Key::Exact(pattern.as_bytes()),
        }
    }

    fn name(&self) -> &'a [u8] {
        match self {
            Key::Any => b"",
            Key::Wildcard(name) | Key::Exact(name) => name,
        }
    }
}

impl Host {
    fn serves(&self, internal: bool) -> bool {
        internal
            || match &self.claim {
                Claim::One { public, .. } | Claim::Tag { public, .. } => *public,
                Claim::Shared(shared) => shared.public,
            }
    }

    fn claimants(&self, pattern: &str) -> Vec<Claimant> {
        match &self.claim {
            Claim::One { route, .. } => {
                let own = &route.hosts[..route.own_hosts()];
                let kind = match own.iter().any(|host| **host == *pattern) {
                    true => Kind::Own,
                    false => Kind::Listed,
                };
                let route = Arc::clone(route);
                vec![Claimant { route, kind }]
            }
            Claim::Tag { route, bytes, .. } => vec![Claimant {
                route: Arc::clone(route),
                kind: Kind::Tag { bytes: *bytes },
            }],
            Claim::Shared(shared) => {
                let listed = |route: &Arc<Route>| Claimant {
                    route: Arc::clone(route),
                    kind: Kind::Listed,
                };
                shared.members.iter().map(listed).collect()
            }
        }
    }
}

/// What makes two rules the same.
type Sameness<'a> = (&'a PathMatch, &'a [Box<str>], &'a [HeaderMatch]);

/// The first rule of those that mean the same requests as an earlier one, with that. Where both are
/// in order, it is plain which goes first.
pub(crate) fn same_rules<'r>(rules: impl Iterator<Item = &'r Rule>) -> Vec<(usize, usize)> {
    let mut seen = std::collections::HashMap::<Sameness<'r>, (usize, bool)>::new();
    let mut same = Vec::new();
    for (position, rule) in rules.enumerate() {
        let sameness = (&rule.path, &*rule.methods, &*rule.headers);
        match seen.entry(sameness) {
            std::collections::hash_map::Entry::Occupied(first) => {
                let (first, in_order) = *first.get();
                if !(in_order && rule.in_order) {
                    same.push((first, position));
                }
            }
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert((position, rule.in_order));
            }
        }
    }
    same
}

impl Shared {
    fn of(members: Vec<Arc<Route>>) -> Result<Shared, Vec<Conflict>> {
        let mut ranked = Vec::new();
        for (member, route) in members.iter().enumerate() {
            for rule in 0..route.rules.len() {
                // Bounded by the number of routes and of rules per route.
                let narrow = |index: usize| u32::try_from(index).unwrap_or(u32::MAX);
                ranked.push(Ranked {
                    member: narrow(member),
                    rule: narrow(rule),
                });
            }
        }
        let rule_of = |ranked: &Ranked| ranked.rule_in(&members);
        let conflict = |(a, b): (usize, usize)| {
            let side = |at: usize| {
                let Ranked { member, rule } = ranked[at];
                (Arc::clone(&members[member as usize]), rule as usize)
            };
            Conflict::SameRule(Box::new([side(a), side(b)]))
        };
        let same = same_rules(ranked.iter().map(rule_of));
        if !same.is_empty() {
            return Err(same.into_iter().map(conflict).collect());
        }
        // Stable: members stand in the order of the files, rules of equal precedence in that of
        // their route.
        ranked.sort_by(|a, b| precedence(rule_of(a), rule_of(b)));
        let index = PathIndex::build(ranked.len(), |rank| rule_of(&ranked[rank]).path.text());
        let public = members
            .iter()
            .any(|route| route.visibility == Visibility::Public);
        Ok(Shared {
            members,
            public,
            ranked,
            index,
        })
    }
}

impl Ranked {
    pub(super) fn rule_in(self, members: &[Arc<Route>]) -> &Rule {
        &members[self.member as usize].rules[self.rule as usize]
    }
}
