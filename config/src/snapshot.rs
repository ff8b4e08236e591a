//! The compiled tables: what every request is routed by. Immutable, cheap to clone (sharded, each
//! shard behind an `Arc`), so that changing one route among many copies one shard.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use thin_vec::ThinVec;

use crate::fragment::Origin;
use crate::revision::{Key, Priority, Revision, RevisionId};
use crate::route::{Hosts, PathIndex};
use crate::table::{Entry, Slots, Table, hash_parts};

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
    /// Every host it answers on without a tag, the default host first, lower case.
    pub hosts: Box<[Box<str>]>,
    /// How many of them are the route's own: its default host in all its forms.
    pub(crate) own_hosts: u8,
    pub visibility: Visibility,
    pub origin: Origin,
    pub sticky: Option<Sticky>,
    /// In order of precedence, most specific first. All routes without rules of their own share one
    /// that matches everything.
    pub rules: Arc<[Rule]>,
    /// The route-level `traffic`: where a tag is looked for when the rule that matched lacks it,
    /// and where rules without a split forward to. Empty when the route has none.
    pub split: Split,
    /// Finds rules by path where there are many.
    pub(crate) index: Option<Box<PathIndex>>,
    /// Of requests whose rule says nothing of it; `None` = nothing is said.
    pub urgency: Option<Box<Urgency>>,
    /// A target whose percent rises from 0 is warmed before it gets its share.
    pub warm_before_shift: bool,
    /// What `K-Network-Hash: override` stands for.
    pub network_hash: Option<Box<str>>,
}

/// How urgent requests are, and how long they wait.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Urgency {
    /// `None` = `queue.priority` of the revision.
    pub priority: Option<PriorityFrom>,
    /// Request header with the client's own deadline (lower case).
    pub deadline: Option<Box<str>>,
}

/// Who says the class of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PriorityFrom {
    Class(Priority),
    /// A request header with one digit (lower case); else `queue.priority` of the revision.
    Header(Box<str>),
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

/// Names, in lower case, and values. Most are empty, and then take no more than a pointer.
pub type SetHeaders = ThinVec<(Box<str>, Box<str>)>;

/// What must hold, and what then happens.
#[derive(Debug, PartialEq)]
pub struct Rule {
    /// Position in the file, counted from 1 within the route; what `explain` prints. Of rules in
    /// order, their place among those of their host.
    pub number: u32,
    /// Between paths of equal length, `number` decides and nothing else.
    pub in_order: bool,
    /// Plain requests at public listeners are sent to `https`.
    pub https_only: bool,
    pub path: PathMatch,
    /// As on the wire (methods know case), sorted; empty = any.
    pub methods: ThinVec<Box<str>>,
    /// Sorted.
    pub headers: ThinVec<HeaderMatch>,
    pub action: Action,
    /// Overwritten on the response.
    pub set_response_headers: SetHeaders,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PathMatch {
    /// Raw bytes the path begins with; "" or "/" matches everything.
    Prefix(Box<str>),
    Exact(Box<str>),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
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
    Reroute(Reroute),
}

/// The request is routed again, by this host, cluster-local routes included.
#[derive(Debug, PartialEq)]
pub struct Reroute {
    pub host: Box<str>,
    /// Overwritten on the request; those of the route that is found then come after and win.
    pub set_headers: SetHeaders,
}

#[derive(Debug, Default, PartialEq)]
pub struct Forward {
    /// Empty: the route's own ([`Route::split_of`]).
    pub split: Split,
    /// Overwritten on the request; a target's own come after and win.
    pub set_headers: SetHeaders,
    pub rewrite_host: Option<Box<str>>,
    /// Takes the place of the matched prefix (or of the whole path of an exact match).
    pub rewrite_path: Option<Box<str>>,
    /// Takes the place of the targets' timeout.
    pub timeout: Option<Duration>,
    /// Takes the place of the route's.
    pub urgency: Option<Box<Urgency>>,
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
    pub targets: Box<[Target]>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    pub revision: RevisionId,
    pub revision_key: Key,
    /// What it gets.
    pub percent: u8,
    /// What is written: another number while a target of its split waits until it is warm.
    pub asked: u8,
    pub tag: Option<Box<str>>,
    pub set_headers: SetHeaders,
}

/// The validated whole. A clone costs a few reference counts; an edit copies the shards it touches.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub(crate) hosts: Hosts,
    pub(crate) routes: Slots<Arc<Route>>,
    pub(crate) routes_by_key: Table<Arc<Route>>,
    pub(crate) revisions: Slots<Arc<Revision>>,
    pub(crate) revisions_by_key: Table<Known>,
}

/// A revision and how many targets name it.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) revision: Arc<Revision>,
    pub(crate) uses: u32,
}

impl Key {
    pub(crate) fn hash(&self) -> u64 {
        hash_parts(&[&self.namespace, &self.name])
    }
}

impl Entry for Known {
    fn hash(&self) -> u64 {
        self.revision.key.hash()
    }
}

impl Entry for Arc<Route> {
    fn hash(&self) -> u64 {
        self.key.hash()
    }
}

impl Snapshot {
    /// All routes, in no particular order.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.routes.iter()
    }

    /// All revisions, in no particular order.
    pub fn revisions(&self) -> impl Iterator<Item = &Arc<Revision>> {
        self.revisions.iter()
    }

    #[must_use]
    pub fn route(&self, id: RouteId) -> Option<&Arc<Route>> {
        self.routes.get(id.0)
    }

    #[must_use]
    pub fn route_by_key(&self, key: &Key) -> Option<&Arc<Route>> {
        self.routes_by_key
            .get(key.hash(), |route| route.key == *key)
    }

    #[must_use]
    pub fn revision(&self, id: RevisionId) -> Option<&Arc<Revision>> {
        self.revisions.get(id.0)
    }

    #[must_use]
    pub fn revision_by_key(&self, key: &Key) -> Option<&Arc<Revision>> {
        self.known(key).map(|known| &known.revision)
    }

    /// The revision of this namespace and name.
    #[must_use]
    pub fn revision_named(&self, namespace: &str, name: &str) -> Option<&Arc<Revision>> {
        let is = |key: &Key| *key.namespace == *namespace && *key.name == *name;
        let hash = hash_parts(&[namespace, name]);
        let known = self
            .revisions_by_key
            .get(hash, |known| is(&known.revision.key));
        known.map(|known| &known.revision)
    }

    pub(crate) fn known(&self, key: &Key) -> Option<&Known> {
        self.revisions_by_key
            .get(key.hash(), |known| known.revision.key == *key)
    }
}

impl Route {
    /// What leads to one revision alone, for requests that name it themselves. It is in no snapshot.
    #[must_use]
    pub fn to(revision: &Revision) -> Route {
        let target = Target {
            revision: revision.id,
            revision_key: revision.key.clone(),
            percent: 100,
            asked: 100,
            tag: None,
            set_headers: ThinVec::new(),
        };
        Route {
            id: RouteId(u32::MAX),
            key: Key {
                namespace: Arc::clone(&revision.key.namespace),
                name: "".into(),
            },
            hosts: Box::default(),
            own_hosts: 0,
            visibility: Visibility::ClusterLocal,
            origin: Origin::Kubernetes("activator".into()),
            sticky: None,
            rules: Rule::implicit(),
            split: Split {
                targets: Box::new([target]),
            },
            index: None,
            urgency: None,
            warm_before_shift: false,
            network_hash: None,
        }
    }

    /// Whether a listener of this audience serves it.
    pub(crate) fn serves(&self, internal: bool) -> bool {
        internal || self.visibility == Visibility::Public
    }

    /// How many of `hosts` are the route's own: its default host in all its forms.
    pub(crate) fn own_hosts(&self) -> usize {
        usize::from(self.own_hosts)
    }

    /// `NAME.NAMESPACE.DOMAIN`, lower case (for cluster-local: `NAME.NAMESPACE.svc.cluster.local`).
    #[must_use]
    pub fn default_host(&self) -> &str {
        self.hosts.first().map_or("", |host| host)
    }

    /// Where one of its rules forwards to, if it does.
    #[must_use]
    pub fn split_of<'a>(&'a self, rule: &'a Rule) -> Option<&'a Split> {
        match &rule.action {
            Action::Forward(forward) if forward.split.targets.is_empty() => Some(&self.split),
            Action::Forward(forward) => Some(&forward.split),
            Action::Redirect(_) | Action::Respond(_) | Action::Reroute(_) => None,
        }
    }

    /// What is said of how urgent the requests of one of its rules are.
    #[must_use]
    pub fn urgency_of<'a>(&'a self, rule: &'a Rule) -> Option<&'a Urgency> {
        let own = match &rule.action {
            Action::Forward(forward) => forward.urgency.as_deref(),
            Action::Redirect(_) | Action::Respond(_) | Action::Reroute(_) => None,
        };
        own.or(self.urgency.as_deref())
    }

    /// Every tag of every split, each once.
    #[must_use]
    pub fn tags(&self) -> Vec<&str> {
        let tags = self.targets().filter_map(|target| target.tag.as_deref());
        let mut tags: Vec<&str> = tags.collect();
        tags.sort_unstable();
        tags.dedup();
        tags
    }

    /// Revisions that get their shares once they are warm.
    pub fn warming(&self) -> impl Iterator<Item = &Key> {
        let waits = |target: &&Target| target.is_warming();
        let targets = self.targets().filter(waits);
        targets.map(|target| &target.revision_key)
    }

    /// Whether it gives this revision a share of some requests.
    #[must_use]
    pub fn gives(&self, revision: &Key) -> bool {
        let mut targets = self.targets();
        targets.any(|target| target.percent > 0 && target.revision_key == *revision)
    }

    /// Every target of every split, those of `split` last.
    pub(crate) fn targets(&self) -> impl Iterator<Item = &Target> {
        let splits = self.rules.iter().filter_map(Rule::split);
        splits.chain([&self.split]).flat_map(|split| &split.targets)
    }
}

/// What follows `NAME.NAMESPACE` on internal listeners, the default host's first.
pub(crate) const CLUSTER_LOCAL_FORMS: [&str; 3] = [".svc.cluster.local", ".svc", ""];

impl Rule {
    /// The rules of a route that has none: everything goes by the route's own split.
    pub(crate) fn implicit() -> Arc<[Rule]> {
        static IMPLICIT: LazyLock<Arc<[Rule]>> = LazyLock::new(|| {
            Arc::from([Rule {
                number: 1,
                in_order: false,
                https_only: false,
                path: PathMatch::Prefix("".into()),
                methods: ThinVec::new(),
                headers: ThinVec::new(),
                action: Action::Forward(Forward::default()),
                set_response_headers: ThinVec::new(),
            }])
        });
        Arc::clone(&IMPLICIT)
    }

    /// The split that is its own.
    fn split(&self) -> Option<&Split> {
        match &self.action {
            Action::Forward(forward) => Some(&forward.split),
            Action::Redirect(_) | Action::Respond(_) | Action::Reroute(_) => None,
        }
    }
}

impl Target {
    /// Its share goes to others until it is warm.
    #[must_use]
    pub fn is_warming(&self) -> bool {
        self.percent == 0 && self.asked > 0
    }

    /// It has a share only until others are warm.
    pub(crate) fn is_kept(&self) -> bool {
        self.percent > 0 && self.asked == 0
    }
}

impl PathMatch {
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            PathMatch::Prefix(text) | PathMatch::Exact(text) => text,
        }
    }
}
