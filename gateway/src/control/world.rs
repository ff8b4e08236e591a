//! What the admin address and scrapes see of everything that runs.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use activator::admission::{EndpointState as State, Holding, Throttle};
use activator::scaler::knative::{self, Knative};
use activator::scaler::local::{self, Local};
use config::problem::Problem;
use config::revision::{Backend, Key, Revision};
use config::route::Fields;
use config::snapshot::{PathMatch, Route, Target, Visibility};

use crate::live::{Live, Published};
use crate::observe::averages::Averages;
use crate::observe::cold::FirstAnswers;
use crate::observe::facts::{Names, Phases, Start};
use crate::observe::metrics::Registry;
use crate::observe::world as view;
use crate::refusal::Reason;

/// How often demand is read for averages.
const SAMPLE: Duration = Duration::from_secs(1);

/// How long the record of a cold start waits for its first answer.
const FIRST_ANSWER_WAIT: Duration = Duration::from_secs(10);

/// How often suspicions are ended.
const SWEEP: Duration = Duration::from_millis(100);

/// What the writer has to say for itself.
#[derive(Debug)]
pub struct Status {
    registry: Arc<Registry>,
    published: Arc<Published>,
    draining: AtomicBool,
    /// Every source has said what it knows.
    complete: AtomicBool,
    /// Of the last change, if it was rejected.
    problems: Mutex<Vec<serde_json::Value>>,
}

impl Status {
    #[must_use]
    pub fn new(registry: Arc<Registry>, published: Arc<Published>) -> Arc<Status> {
        let draining = AtomicBool::new(false);
        Arc::new(Status {
            registry,
            published,
            draining,
            complete: AtomicBool::new(false),
            problems: Mutex::default(),
        })
    }

    pub fn accepted(&self) {
        self.problems
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    pub fn rejected(&self, kinds: &[&str], problems: &[Problem]) {
        for kind in kinds {
            self.registry.rejected(kind);
        }
        let shown = problems
            .iter()
            .filter_map(|problem| serde_json::to_value(problem).ok());
        *self.problems.lock().unwrap_or_else(PoisonError::into_inner) = shown.collect();
    }

    pub fn swapped(&self, version: u64) {
        self.registry.set_version(version);
        let live = self.published.load();
        self.registry.retire(|names| is_gone(&live, names));
        self.accepted();
    }

    /// From now on nothing is missing that some source knew at the start.
    pub fn complete(&self) {
        self.complete.store(true, Ordering::Release);
    }

    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }
}

fn is_gone(live: &Live, names: Names<'_>) -> bool {
    let key = |name: &str| Key {
        namespace: names.namespace.into(),
        name: name.into(),
    };
    let gone_revision = !names.revision.is_empty()
        && live
            .snapshot
            .revision_by_key(&key(names.revision))
            .is_none();
    let gone_route =
        !names.route.is_empty() && live.snapshot.route_by_key(&key(names.route)).is_none();
    gone_revision || gone_route
}

/// Everything that runs, as seen from outside the data path.
#[derive(Debug)]
pub struct Running {
    pub published: Arc<Published>,
    pub status: Arc<Status>,
    pub averages: Averages,
    pub registry: Arc<Registry>,
    pub local: Arc<Local>,
    /// Who looks after revisions of Knative, if there may be any.
    pub knative: Option<Arc<Knative>>,
    pub holding: Arc<Holding>,
    pub first_answers: Arc<FirstAnswers>,
    pub noting: Mutex<()>,
}

impl Running {
    /// Ends suspicions, reads demand, notes cold starts; for ever.
    pub async fn observe(self: Arc<Self>) {
        let mut sweeps = tokio::time::interval(SWEEP);
        let mut samples = tokio::time::interval(SAMPLE);
        loop {
            tokio::select! {
                _ = sweeps.tick() => self.holding.sweep(Instant::now()),
                _ = samples.tick() => {
                    let this = self.clone();
                    let sampled = tokio::task::spawn_blocking(move || this.sample());
                    if let Err(error) = sampled.await {
                        tracing::error!(%error, "cannot read demand");
                    }
                }
            }
        }
    }

    fn sample(&self) {
        let live = self.published.load();
        let now = Instant::now();
        let readings: Vec<_> = live
            .snapshot
            .revisions()
            .filter_map(|revision| {
                let throttle = live.throttles.get(revision.id)?;
                self.note_starts(revision);
                Some((&revision.key, request_seconds(throttle, now)))
            })
            .collect();
        self.averages.sample(now, readings);
        self.first_answers
            .retain(|key| live.snapshot.revision_by_key(key).is_some());
    }

    /// The scaler counts cold starts; the registry keeps them for scrapes.
    fn note_starts(&self, revision: &Revision) {
        let Some((count, start)) = self.told_start(&revision.key) else {
            return;
        };
        let Key { namespace, name } = &revision.key;
        // The sampler and every scrape come here: each start is told once.
        let _one_at_a_time = self.noting.lock().unwrap_or_else(PoisonError::into_inner);
        let (noted, _) = self.registry.starts(namespace, name);
        if noted >= count {
            return;
        }
        // The first request may still be under way: the count waits for it a little.
        let first = self.first_answers.take(&revision.key, Instant::now());
        let age = start.at.elapsed().unwrap_or_default();
        let steps = start.phases.named().into_iter();
        let length: Duration = steps.filter_map(|(_, length)| length).sum();
        if first.is_none() && age < length + FIRST_ANSWER_WAIT {
            return;
        }
        for _ in noted..count {
            let phases = Phases {
                wire: first.map(|first| first.wire),
                first_byte: first.map(|first| first.first_byte),
                ..start.phases
            };
            self.registry.cold_start(namespace, name, start.at, phases);
        }
    }

    /// How many cold starts the revision's scaler has seen, and what it knows of the last.
    fn told_start(&self, key: &Key) -> Option<(u64, Start)> {
        let local = self.local.status(key).and_then(|status| {
            let last = status.last_start?;
            let local::Phases {
                nudge,
                act,
                endpoint,
                probe,
            } = last.phases;
            let phases = Phases {
                nudge: Some(nudge),
                act: Some(act),
                endpoint: Some(endpoint),
                probe: Some(probe),
                ..Phases::default()
            };
            Some((
                status.cold_starts,
                Start {
                    at: last.at,
                    phases,
                },
            ))
        });
        local.or_else(|| {
            let told = self.knative.as_ref()?.cold_starts(key);
            let last = told.last?;
            let knative::Phases {
                nudge,
                endpoint,
                probe,
            } = last.phases;
            let phases = Phases {
                nudge,
                endpoint: Some(endpoint),
                probe: Some(probe),
                ..Phases::default()
            };
            Some((
                told.count,
                Start {
                    at: last.at,
                    phases,
                },
            ))
        })
    }

    fn revision_view(&self, revision: &Revision, throttle: &Throttle) -> view::RevisionView {
        self.note_starts(revision);
        let Key { namespace, name } = &revision.key;
        let mut endpoints: Vec<_> = throttle
            .endpoints()
            .into_iter()
            .map(|endpoint| view::EndpointView {
                address: endpoint.address,
                state: match endpoint.state {
                    State::Ready => view::EndpointState::Ready,
                    State::Suspect => view::EndpointState::Suspect,
                    State::Lingering => view::EndpointState::Lingering,
                    State::Draining => view::EndpointState::Draining,
                },
                in_flight: endpoint.in_flight.into(),
            })
            .collect();
        let starting = self
            .local
            .status(&revision.key)
            .map(|status| status.starting);
        endpoints.extend(starting.into_iter().flatten().map(starting_view));
        let (cold_starts, last_start) = self.registry.starts(namespace, name);
        let reading = throttle.demand(Instant::now());
        view::RevisionView {
            namespace: namespace.to_string(),
            name: name.to_string(),
            limit: revision.concurrency,
            in_flight: throttle.in_flight().into(),
            waiting: throttle.waiting().into(),
            average: self.averages.of(&revision.key),
            endpoints,
            cold_starts,
            last_start,
            concurrency_seconds: seconds(reading.running_integral),
            knative: knative_view(revision),
        }
    }

    /// How we get along with the autoscaler, for scrapes.
    fn note_autoscaler(&self) {
        if let Some(knative) = &self.knative {
            let status = knative.status();
            self.registry.set_autoscaler(view::AutoscalerView {
                reachable: status.reachable,
                errors: status.errors,
            });
        }
    }
}

fn starting_view(address: SocketAddr) -> view::EndpointView {
    view::EndpointView {
        address,
        state: view::EndpointState::Starting,
        in_flight: 0,
    }
}

/// Seconds of an integral in nanoseconds.
fn seconds(nanos: u64) -> f64 {
    Duration::from_nanos(nanos).as_secs_f64()
}

/// Running and waiting requests, added up over time.
fn request_seconds(throttle: &Throttle, now: Instant) -> f64 {
    let reading = throttle.demand(now);
    seconds(reading.running_integral) + seconds(reading.waiting_integral)
}

fn knative_view(revision: &Revision) -> Option<view::KnativeView> {
    let Backend::Fed(fed) = &revision.backend else {
        return None;
    };
    let knative = fed.knative.as_ref()?;
    Some(view::KnativeView {
        service: knative.service.to_string(),
        configuration: knative.configuration.to_string(),
    })
}

impl view::World for Running {
    fn revisions(&self) -> Vec<view::RevisionView> {
        self.note_autoscaler();
        let live = self.published.load();
        let mut views: Vec<_> = live
            .snapshot
            .revisions()
            .filter_map(|revision| {
                let throttle = live.throttles.get(revision.id)?;
                Some(self.revision_view(revision, throttle))
            })
            .collect();
        views.sort_by(|one, other| {
            (&one.namespace, &one.name).cmp(&(&other.namespace, &other.name))
        });
        views
    }

    fn routes(&self) -> Vec<view::RouteView> {
        let live = self.published.load();
        let mut views: Vec<_> = live
            .snapshot
            .routes()
            .map(|route| route_view(route))
            .collect();
        views.sort_by(|one, other| {
            (&one.namespace, &one.name).cmp(&(&other.namespace, &other.name))
        });
        views
    }

    fn readiness(&self) -> view::Readiness {
        view::Readiness {
            version: self.published.version(),
            draining: self.status.draining.load(Ordering::Acquire),
            incomplete: !self.status.complete.load(Ordering::Acquire),
            problems: self
                .status
                .problems
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
            memory: self.registry.memory(),
        }
    }

    fn explain(&self, request: &view::Request) -> view::Explanation {
        let live = self.published.load();
        let fields = Asked(&request.headers);
        let query = config::route::Query {
            host: request.host.as_bytes(),
            path: request.path.as_bytes(),
            method: request.method.as_bytes(),
            fields: &fields,
            internal: request.internal,
        };
        let explained = config::route::explain(&live.snapshot, &query);
        let key = explained
            .route
            .as_deref()
            .and_then(|route| route.split_once('/'));
        let (Some((namespace, route)), Some(rule)) = (key, explained.rule) else {
            return view::Explanation::Refused {
                reason: Reason::NoRoute,
                why: explained.why,
            };
        };
        view::Explanation::Routed {
            namespace: namespace.to_owned(),
            route: route.to_owned(),
            rule,
            targets: explained
                .targets
                .into_iter()
                .map(|target| view::TargetView {
                    revision: target.revision,
                    percent: target.percent,
                    tag: target.tag,
                })
                .collect(),
            host: explained.host.unwrap_or_default(),
            why: explained.why,
        }
    }
}

fn route_view(route: &Route) -> view::RouteView {
    let target = |target: &Target| view::TargetView {
        revision: target.revision_key.name.to_string(),
        percent: target.percent,
        tag: target.tag.as_deref().map(str::to_owned),
    };
    let rules = route.rules.iter().map(|rule| view::RuleView {
        path: match &rule.path {
            PathMatch::Prefix(path) | PathMatch::Exact(path) => path.to_string(),
        },
        targets: match route.split_of(rule) {
            Some(split) => split.targets.iter().map(target).collect(),
            None => Vec::new(),
        },
    });
    view::RouteView {
        namespace: route.key.namespace.to_string(),
        name: route.key.name.to_string(),
        hosts: route.hosts.iter().map(ToString::to_string).collect(),
        cluster_local: route.visibility == Visibility::ClusterLocal,
        source: route.origin.to_string(),
        rules: rules.collect(),
    }
}

/// Header fields somebody asks about.
struct Asked<'a>(&'a [(String, String)]);

impl Fields for Asked<'_> {
    fn first(&self, name: &str) -> Option<&[u8]> {
        let found = self
            .0
            .iter()
            .find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.trim().as_bytes())
    }
}
