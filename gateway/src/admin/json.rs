//! The JSON that the admin address speaks; nothing else sees these shapes.

use serde::Serialize;

use crate::observe::world::{Explanation, Readiness, RevisionView, RouteView, TargetView};

#[derive(Serialize)]
struct Problem {
    problem: &'static str,
}

#[derive(Serialize)]
struct Ready<'a> {
    ready: bool,
    draining: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    incomplete: bool,
    version: u64,
    problems: &'a [serde_json::Value],
    memory: Memory,
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
    tag: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Revision {
    namespace: String,
    name: String,
    limit: u32,
    in_flight: u64,
    waiting: u64,
    average: Average,
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
}

#[derive(Serialize)]
struct Start {
    /// RFC 3339.
    at: String,
    phases: Phases,
}

/// Seconds; null for a step its scaler does not tell.
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

pub(super) fn problem(problem: &'static str) -> String {
    text(&Problem { problem })
}

pub(super) fn readiness(readiness: &Readiness) -> String {
    text(&Ready {
        ready: readiness.ready(),
        draining: readiness.draining,
        incomplete: readiness.incomplete,
        version: readiness.version,
        problems: &readiness.problems,
        memory: Memory {
            bytes: readiness.memory.used,
            limit: readiness.memory.limit,
            level: readiness.memory.level.word(),
        },
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
            tag: view.tag,
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
            waiting: view.waiting,
            average: Average {
                one: view.average.one,
                six: view.average.six,
                sixty: view.average.sixty,
            },
            endpoints: view
                .endpoints
                .into_iter()
                .map(|endpoint| Endpoint {
                    address: endpoint.address.to_string(),
                    state: endpoint.state.word(),
                    in_flight: endpoint.in_flight,
                })
                .collect(),
            cold_starts: view.cold_starts,
            last_start: view.last_start.map(Start::from),
        }
    }
}

impl From<crate::observe::facts::Start> for Start {
    fn from(start: crate::observe::facts::Start) -> Start {
        let [nudge, act, endpoint, probe, wire, first_byte] = start
            .phases
            .named()
            .map(|(_, length)| length.map(|length| length.as_secs_f64()));
        Start {
            at: humantime::format_rfc3339_millis(start.at.max(std::time::UNIX_EPOCH)).to_string(),
            phases: Phases {
                nudge,
                act,
                endpoint,
                probe,
                wire,
                first_byte,
            },
        }
    }
}
