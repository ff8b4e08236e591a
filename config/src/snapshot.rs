//! The compiled tables: what every request is routed by. Immutable, cheap to clone (sharded, each
//! shard behind an `Arc`), so that changing one route among many copies one shard.

use std::sync::Arc;
use std::time::Duration;

use crate::fragment::Origin;
use crate::revision::{Key, Revision, RevisionId};

/// Dense index of a route; reused after its route has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteId(pub u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visibility {
    Public,
    ClusterLocal,
}

/// One compiled route.
#[derive(Debug, PartialEq)]
pub struct Route {
    pub id: RouteId,
    pub key: Key,
    /// `NAME.NAMESPACE.DOMAIN`, lower case (for cluster-local: `NAME.NAMESPACE.svc.cluster.local`).
    pub default_host: Box<str>,
    /// Every host it answers on without a tag, the default host first, lower case.
    pub hosts: Vec<Box<str>>,
    pub visibility: Visibility,
    pub origin: Origin,
    pub sticky: Option<Sticky>,
    /// In order of precedence, most specific first.
    pub rules: Vec<Rule>,
    /// The route-level `traffic`: where a tag is looked for when the rule that matched lacks it.
    /// Empty when the route has none.
    pub split: Split,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sticky {
    Header(Box<str>),
    /// Set by us on the response when the request lacks it.
    Cookie {
        name: Box<str>,
        ttl: Duration,
    },
}

/// What must hold, and what then happens.
#[derive(Debug, PartialEq)]
pub struct Rule {
    /// Position in the file, counted from 1 within the route; what `explain` prints.
    pub number: u32,
    pub path: PathMatch,
    /// Upper case; empty = any.
    pub methods: Vec<Box<str>>,
    pub headers: Vec<HeaderMatch>,
    pub action: Action,
    /// Overwritten on the response.
    pub set_response_headers: Vec<(Box<str>, Box<str>)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatch {
    /// Raw bytes the path begins with; "" or "/" matches everything.
    Prefix(Box<str>),
    Exact(Box<str>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderMatch {
    /// Lower case.
    pub name: Box<str>,
    /// `None` = present with any value.
    pub value: Option<Box<str>>,
}

#[derive(Debug, PartialEq)]
pub enum Action {
    Forward(Forward),
    Redirect(Redirect),
    Respond(Respond),
}

#[derive(Debug, PartialEq)]
pub struct Forward {
    pub split: Split,
    /// Overwritten on the request; a target's own come after and win.
    pub set_headers: Vec<(Box<str>, Box<str>)>,
    pub rewrite_host: Option<Box<str>>,
    /// Takes the place of the matched prefix (or of the whole path of an exact match).
    pub rewrite_path: Option<Box<str>>,
    /// Takes the place of the targets' timeout.
    pub timeout: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    pub scheme: Option<Box<str>>,
    pub host: Option<Box<str>>,
    pub path: Option<Box<str>>,
    pub status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Respond {
    pub status: u16,
    pub body: Box<str>,
    pub content_type: Box<str>,
}

/// Weighted and tagged targets; percents sum to 100 unless empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Split {
    pub targets: Vec<Target>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    pub revision: RevisionId,
    pub revision_key: Key,
    pub percent: u8,
    pub tag: Option<Box<str>>,
    pub set_headers: Vec<(Box<str>, Box<str>)>,
}

/// The validated whole.
///
/// Design notes for the implementation: the fields are private; shards are `Arc`s so that `clone`
/// is a few thousand reference counts at most and an edit clones one shard.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    // shards of hosts, routes by id, revisions by id (see ARCHITECTURE)
}

impl Snapshot {
    /// All routes, in no particular order.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        std::iter::empty()
    }

    /// All revisions, in no particular order.
    pub fn revisions(&self) -> impl Iterator<Item = &Arc<Revision>> {
        std::iter::empty()
    }

    pub fn route(&self, id: RouteId) -> Option<&Arc<Route>> {
        let _ = id;
        None
    }

    pub fn revision(&self, id: RevisionId) -> Option<&Arc<Revision>> {
        let _ = id;
        None
    }

    pub fn route_by_key(&self, key: &Key) -> Option<&Arc<Route>> {
        let _ = key;
        None
    }

    pub fn revision_by_key(&self, key: &Key) -> Option<&Arc<Revision>> {
        let _ = key;
        None
    }
}
