//! The JSON that the admin address speaks; nothing else sees these shapes.

use std::time::{Duration, SystemTime};

use activator::starts::{self, Outcome};
use serde::Serialize;

use crate::observe::averages;
use crate::observe::cold::ColdStart;
use crate::observe::world::{
    Explanation, Prewarmed, Readiness, RevisionView, RouteView, TargetView,
};

#[derive(Serialize)]
struct Problem<'a> {
    problem: &'a str,
}

#[derive(Serialize)]
struct Ready<'a> {
    ready: bool,
    draining: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    incomplete: bool,
    version: u64,
    problems: &'a [serde_json::Value],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warming: Vec<Warming<'a>>,
    memory: Memory,
}

/// A target that gets its share once it is warm.
#[derive(Serialize)]
struct Warming<'a> {
    route: &'a str,
    revision: &'a str,
    /// Null unless it is known that it cannot start.
    why: Option<&'a str>,
}

#[derive(Serialize)]
struct Warmed {
    ready: bool,
    revisions: Vec<WarmedRevision>,
}

#[derive(Serialize)]
struct WarmedRevision {
    namespace: String,
    name: String,
    scaler: &'static str,
    endpoints: u32,
    ready: u32,
    why: Option<String>,
}

#[derive(Serialize)]
struct Memory {
    bytes: u64,
    limit: u64,
    level: &'static str,
}

#[derive(Serialize)]
struct Route {
    namespace: String,
    name: String,
    hosts: Vec<String>,
    visibility: &'static str,
    source: String,
    rules: Vec<Rule>,
}

#[derive(Serialize)]
struct Rule {
    path: String,
    targets: Vec<Target>,
}

#[derive(Serialize)]
struct Target {
    revision: String,
    percent: u8,
    /// While a target waits until it is warm.
    #[serde(skip_serializing_if = "Option::is_none")]
    asked: Option<u8>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    warming: bool,
    tag: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Revision {
    namespace: String,
    name: String,
    limit: u32,
    in_flight: u64,
    idle: u64,
    waiting: u64,
    /// Seconds.
    queue_wait: f64,
    average: Average,
    average_waiting: Average,
    endpoints: Vec<Endpoint>,
    cold_starts: u64,
    last_start: Option<Start>,
}

#[derive(Serialize)]
struct Average {
    #[serde(rename = "1s")]
    one: f64,
    #[serde(rename = "6s")]
    six: f64,
    #[serde(rename = "60s")]
    sixty: f64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint {
    address: String,
    state: &'static str,
    in_flight: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<u32>,
}

#[derive(Serialize)]
struct Start {
    /// RFC 3339.
    at: String,
    /// Seconds, each from the end of the one before.
    phases: Phases,
}

/// Null for a step that nobody told of.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Phases {
    nudge: Option<f64>,
    act: Option<f64>,
    endpoint: Option<f64>,
    probe: Option<f64>,
    wire: Option<f64>,
    first_byte: Option<f64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LastStart<'a> {
    namespace: &'a str,
    revision: &'a str,
    /// RFC 3339.
    at: String,
    /// Null while it is under way.
    outcome: Option<&'static str>,
    cause: Option<&'a str>,
    /// Milliseconds from the beginning to the end of each.
    phases: Phases,
    held: u32,
    trigger: &'static str,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Explained<'a> {
    Routed {
        namespace: &'a str,
        route: &'a str,
        rule: u32,
        targets: Vec<Target>,
        host: &'a str,
        why: &'a [String],
    },
    Refused {
        reason: &'static str,
        why: &'a [String],
    },
}

pub(super) fn problem(problem: &str) -> String {
    text(&Problem { problem })
}

pub(super) fn readiness(readiness: &Readiness) -> String {
    text(&Ready {
        ready: readiness.ready(),
        draining: readiness.draining,
        incomplete: readiness.incomplete,
        version: readiness.version,
        problems: &readiness.problems,
        warming: readiness
            .warming
            .iter()
            .map(|one| Warming {
                route: &one.route,
                revision: &one.revision,
                why: one.why.as_deref(),
            })
            .collect(),
        memory: Memory {
            bytes: readiness.memory.used,
            limit: readiness.memory.limit,
            level: readiness.memory.level.word(),
        },
    })
}

pub(super) fn prewarmed(prewarmed: Vec<Prewarmed>) -> String {
    let ready = prewarmed.iter().all(Prewarmed::is_ready);
    let revisions = prewarmed.into_iter().map(|one| WarmedRevision {
        namespace: one.namespace,
        name: one.name,
        scaler: one.scaler,
        endpoints: one.endpoints,
        ready: one.ready,
        why: one.why,
    });
    text(&Warmed {
        ready,
        revisions: revisions.collect(),
    })
}

/// Sorted by namespace and name.
pub(super) fn routes(mut views: Vec<RouteView>) -> String {
    views.sort_unstable_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    text(&views.into_iter().map(Route::from).collect::<Vec<_>>())
}

/// Sorted by namespace and name.
pub(super) fn revisions(mut views: Vec<RevisionView>) -> String {
    views.sort_unstable_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    text(&views.into_iter().map(Revision::from).collect::<Vec<_>>())
}

/// In the order given.
pub(super) fn cold_starts(starts: &[ColdStart]) -> String {
    text(&starts.iter().map(LastStart::from).collect::<Vec<_>>())
}

pub(super) fn explanation(explanation: &Explanation) -> String {
    text(&match explanation {
        Explanation::Routed {
            namespace,
            route,
            rule,
            targets,
            host,
            why,
        } => Explained::Routed {
            namespace,
            route,
            rule: *rule,
            targets: targets.iter().cloned().map(Target::from).collect(),
            host,
            why,
        },
        Explanation::Refused { reason, why } => Explained::Refused {
            reason: reason.word(),
            why,
        },
    })
}

fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("strings, numbers and lists are JSON")
}

impl From<RouteView> for Route {
    fn from(view: RouteView) -> Route {
        Route {
            namespace: view.namespace,
            name: view.name,
            hosts: view.hosts,
            visibility: if view.cluster_local {
                "cluster-local"
            } else {
                "public"
            },
            source: view.source,
            rules: view
                .rules
                .into_iter()
                .map(|rule| Rule {
                    path: rule.path,
                    targets: rule.targets.into_iter().map(Target::from).collect(),
                })
                .collect(),
        }
    }
}

impl From<TargetView> for Target {
    fn from(view: TargetView) -> Target {
        Target {
            revision: view.revision,
            percent: view.percent,
            asked: (view.asked != view.percent).then_some(view.asked),
            warming: view.percent == 0 && view.asked > 0,
            tag: view.tag,
        }
    }
}

impl From<averages::Average> for Average {
    fn from(average: averages::Average) -> Average {
        Average {
            one: thousandths(average.one),
            six: thousandths(average.six),
            sixty: thousandths(average.sixty),
        }
    }
}

impl From<RevisionView> for Revision {
    fn from(view: RevisionView) -> Revision {
        Revision {
            namespace: view.namespace,
            name: view.name,
            limit: view.limit,
            in_flight: view.in_flight,
            idle: view.idle,
            waiting: view.waiting,
            queue_wait: seconds(view.queue_wait),
            average: view.average.into(),
            average_waiting: view.average_waiting.into(),
            endpoints: view
                .endpoints
                .into_iter()
                .map(|endpoint| Endpoint {
                    address: endpoint.address.to_string(),
                    state: endpoint.state.word(),
                    in_flight: endpoint.in_flight,
                    window: endpoint.window,
                })
                .collect(),
            cold_starts: view.cold_starts,
            last_start: view.last_start.map(Start::from),
        }
    }
}

impl From<crate::observe::facts::Start> for Start {
    fn from(start: crate::observe::facts::Start) -> Start {
        Start {
            at: time(start.at),
            phases: phases(&start.phases, seconds),
        }
    }
}

impl<'a> From<&'a ColdStart> for LastStart<'a> {
    fn from(cold: &'a ColdStart) -> LastStart<'a> {
        let start = &cold.start;
        LastStart {
            namespace: &cold.revision.namespace,
            revision: &cold.revision.name,
            at: time(start.at),
            outcome: start.outcome.map(Outcome::word),
            cause: start.cause.as_deref(),
            phases: phases(&start.phases().offsets(), |end| seconds(end * 1000)),
            held: start.held,
            trigger: start.trigger.word(),
        }
    }
}

/// To the microsecond: what binary fractions add behind it is noise.
fn seconds(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e6
}

fn thousandths(number: f64) -> f64 {
    (number * 1e3).round() / 1e3
}

fn time(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at.max(SystemTime::UNIX_EPOCH)).to_string()
}

fn phases(phases: &starts::Phases, number: impl Fn(Duration) -> f64) -> Phases {
    let named = phases.named();
    let [nudge, act, endpoint, probe, wire, first_byte] =
        named.map(|(_, length)| length.map(&number));
    Phases {
        nudge,
        act,
        endpoint,
        probe,
        wire,
        first_byte,
    }
}
