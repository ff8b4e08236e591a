//! What is true right now, as scrapes and the admin address ask for it.
//!
//! The border to the data path: whoever owns the live tables implements [`World`]; nothing here
//! knows a throttle or a snapshot.

use std::net::SocketAddr;
use std::time::Duration;

use crate::memory::Level;
use crate::refusal::Reason;

use super::averages::Average;
use super::facts::Start;

/// The live tables, asked from outside the data path.
pub trait World: Send + Sync + 'static {
    /// Every configured revision. May take long: called on
    /// blocking threads only.
    fn revisions(&self) -> Vec<RevisionView>;

    /// Every configured route. May take long: called on blocking threads only.
    fn routes(&self) -> Vec<RouteView>;

    /// Cheap and without waiting: called on the control runtime.
    fn readiness(&self) -> Readiness;

    /// What would happen to this request. Called on blocking threads only.
    fn explain(&self, request: &Request) -> Explanation;

    /// Asks whoever brings them for endpoints, and says how far they are. Cheap and without waiting.
    ///
    /// # Errors
    /// Why there is nobody to ask; then nobody was asked.
    fn prewarm(&self, asked: &Prewarm) -> Result<Vec<Prewarmed>, NotPrewarmed>;

    /// Brings up to date how far they are. Cheap and without waiting.
    fn look_at(&self, prewarmed: &mut [Prewarmed]);
}

/// One revision and its throttle.
#[derive(Clone, Debug)]
pub struct RevisionView {
    pub namespace: String,
    pub name: String,
    /// Most requests in flight per endpoint; 0 = no limit.
    pub limit: u32,
    pub in_flight: u64,
    /// Of those: streams at rest.
    pub idle: u64,
    pub waiting: u64,
    /// How long its requests may wait, where no rule says otherwise.
    pub queue_wait: Duration,
    /// Running and waiting requests.
    pub average: Average,
    /// Of these, the waiting ones.
    pub average_waiting: Average,
    pub endpoints: Vec<EndpointView>,
    pub cold_starts: u64,
    pub last_start: Option<Start>,
    /// Time integral of the requests in flight since this revision's throttle exists.
    pub concurrency_seconds: f64,
    /// If it is a revision of Knative.
    pub knative: Option<KnativeView>,
}

/// Labels of a revision of Knative; empty = none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnativeView {
    pub service: String,
    pub configuration: String,
}

/// The connection to Knative's autoscaler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AutoscalerView {
    pub reachable: bool,
    /// How often it could not be made, or was lost.
    pub errors: u64,
}

/// One endpoint of a revision.
#[derive(Clone, Copy, Debug)]
pub struct EndpointView {
    pub address: SocketAddr,
    pub state: EndpointState,
    pub in_flight: u64,
    /// Most in flight for the time being, where it has not proved yet that it bears more.
    pub window: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointState {
    Starting,
    Ready,
    Suspect,
    Lingering,
    Draining,
}

impl EndpointState {
    pub const ALL: [EndpointState; 5] = [
        EndpointState::Starting,
        EndpointState::Ready,
        EndpointState::Suspect,
        EndpointState::Lingering,
        EndpointState::Draining,
    ];

    /// The word of metrics and the admin API.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            EndpointState::Starting => "starting",
            EndpointState::Ready => "ready",
            EndpointState::Suspect => "suspect",
            EndpointState::Lingering => "lingering",
            EndpointState::Draining => "draining",
        }
    }
}

/// One configured route.
#[derive(Clone, Debug)]
pub struct RouteView {
    pub namespace: String,
    pub name: String,
    /// The default host first.
    pub hosts: Vec<String>,
    pub cluster_local: bool,
    /// Which source said so, for people: `file routes.yaml`.
    pub source: String,
    pub rules: Vec<RuleView>,
}

#[derive(Clone, Debug)]
pub struct RuleView {
    /// The prefix, or the exact path.
    pub path: String,
    /// None for a rule that redirects or answers itself.
    pub targets: Vec<TargetView>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetView {
    pub revision: String,
    /// What it gets.
    pub percent: u8,
    /// What is written: another number while a target waits until it is warm.
    pub asked: u8,
    pub tag: Option<String>,
}

/// Memory that counts against the limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryView {
    /// Bytes.
    pub used: u64,
    /// Bytes; 0 = none is known.
    pub limit: u64,
    /// What is given up for want of it.
    pub level: Level,
}

/// Whether new traffic should come here.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    /// Version of the snapshot in force; 0 before the first one.
    pub version: u64,
    pub draining: bool,
    /// Some source has not yet said what it knew at the start.
    pub incomplete: bool,
    /// Of the last change, when it was rejected; each as `validate --format json` prints it.
    pub problems: Vec<serde_json::Value>,
    pub memory: MemoryView,
    /// Targets that get their shares once they are warm; they do not make us unready.
    pub warming: Vec<WarmingView>,
}

/// A target that gets its share of a route once it is warm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WarmingView {
    /// `NAMESPACE/NAME`.
    pub route: String,
    /// `NAMESPACE/NAME`.
    pub revision: String,
    /// Why it cannot start, if that is known.
    pub why: Option<String>,
}

impl Readiness {
    /// A rejected change leaves the old snapshot in force, so problems do not make us unready.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.version > 0 && !self.draining && !self.incomplete
    }
}

/// A request somebody asks about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    /// As in the URL, perhaps with a port.
    pub host: String,
    /// Raw path, without the query string; at least `/`.
    pub path: String,
    /// In the order given; names as given.
    pub headers: Vec<(String, String)>,
    /// On an internal listener.
    pub internal: bool,
}

/// Endpoints that somebody wants to have before requests come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prewarm {
    pub wanted: Wanted,
    /// Of each revision that is meant.
    pub endpoints: u32,
    /// For how long they are to stay, or are to be asked for.
    pub time: Duration,
}

/// Whose endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    Revision {
        namespace: String,
        name: String,
    },
    /// Every target of the rule that a GET of this falls under.
    Route {
        host: String,
        path: String,
    },
}

/// How far the endpoints of a revision are that somebody wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prewarmed {
    pub namespace: String,
    pub name: String,
    /// Who brings them: `process`, `knative` or `fixed`.
    pub scaler: &'static str,
    /// What was asked for, within the bounds of the revision.
    pub endpoints: u32,
    pub ready: u32,
    /// Why it cannot start, if that is known.
    pub why: Option<String>,
}

impl Prewarmed {
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready >= self.endpoints
    }

    /// It has none, and there is a reason why it gets none.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.ready == 0 && self.why.is_some()
    }
}

/// Why there is nothing to prewarm. The texts are for whoever asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotPrewarmed {
    /// There is no such revision or route, as this says.
    Unknown(String),
    /// Nobody brings endpoints of this revision.
    NoScaler(String),
}

/// What would happen to a request, and why.
#[derive(Clone, Debug)]
pub enum Explanation {
    Routed {
        namespace: String,
        route: String,
        /// Position in the file, counted from 1.
        rule: u32,
        targets: Vec<TargetView>,
        /// The host it matched, as the route has it.
        host: String,
        /// What matched and what was passed over, a line each.
        why: Vec<String>,
    },
    Refused {
        reason: Reason,
        why: Vec<String>,
    },
}
