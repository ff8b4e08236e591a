//! What the admin address and scrapes see of everything that runs.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use activator::admission::{EndpointState as State, Holding, Throttle};
use activator::scaler::knative::Knative;
use activator::scaler::local::Local;
use config::problem::Problem;
use config::revision::{Backend, Key, Revision};
use config::route::Fields;
use config::snapshot::{PathMatch, Route, Snapshot, Target, Visibility};

use super::shift::{self, Warming};
use crate::live::{Live, Published};
use crate::observe::averages::Averages;
use crate::observe::facts::Names;
use crate::observe::metrics::Registry;
use crate::observe::world as view;
use crate::refusal::Reason;

/// How often demand is read for averages.
const SAMPLE: Duration = Duration::from_secs(1);

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
    /// Targets that get their shares once they are warm.
    warming: Mutex<Vec<Warming>>,
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
            warming: Mutex::default(),
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

    /// What a source said is in force.
    pub fn swapped(&self, version: u64) {
        self.shifted(version);
        self.accepted();
    }

    /// There is a new version, though no source said anything new.
    pub fn shifted(&self, version: u64) {
        self.registry.set_version(version);
        let live = self.published.load();
        self.registry.retire(|names| is_gone(&live, names));
    }

    /// Targets that get their shares once they are warm, of what is published or is about to be.
    pub fn warming(&self, now: Vec<Warming>, tables: &Snapshot) {
        let mut known = self.warming.lock().unwrap_or_else(PoisonError::into_inner);
        shift::log(&known, &now, tables);
        self.registry.set_warming(now.len());
        *known = now;
    }

    /// Those of a version.
    fn warming_views(&self, of: &Snapshot) -> Vec<view::WarmingView> {
        let warming = self.warming.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = |one: &&Warming| {
            let route = of.route_by_key(&one.route);
            route.is_some_and(|route| route.warming().any(|key| *key == one.revision))
        };
        let views = warming.iter().filter(waits).map(|one| view::WarmingView {
            route: one.route.to_string(),
            revision: one.revision.to_string(),
            why: one.why.as_deref().map(str::to_owned),
        });
        views.collect()
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
    /// Of waiting requests alone.
    pub averages_waiting: Averages,
    pub registry: Arc<Registry>,
    pub local: Arc<Local>,
    /// Who looks after revisions of Knative, if there may be any.
    pub knative: Option<Arc<Knative>>,
    pub holding: Arc<Holding>,
}

impl Running {
    /// Ends suspicions, reads demand; for ever.
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
                let demand = throttle.demand(now);
                let waiting = seconds(demand.waiting_integral);
                Some((&revision.key, seconds(demand.running_integral), waiting))
            })
            .collect();
        let of_all = readings
            .iter()
            .map(|(key, running, waiting)| (*key, running + waiting));
        self.averages.sample(now, of_all);
        let of_waiting = readings.iter().map(|(key, _, waiting)| (*key, *waiting));
        self.averages_waiting.sample(now, of_waiting);
    }

    fn revision_view(&self, revision: &Revision, throttle: &Throttle) -> view::RevisionView {
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
                window: endpoint.window,
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
            idle: reading.resting.into(),
            waiting: throttle.waiting().into(),
            queue_wait: throttle.starts().wait(revision, revision.timeout),
            average: self.averages.of(&revision.key),
            average_waiting: self.averages_waiting.of(&revision.key),
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
        window: None,
    }
}

/// Seconds of an integral in nanoseconds.
fn seconds(nanos: u64) -> f64 {
    Duration::from_nanos(nanos).as_secs_f64()
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
        let live = self.published.load();
        view::Readiness {
            version: live.version,
            draining: self.status.draining.load(Ordering::Acquire),
            incomplete: !self.status.complete.load(Ordering::Acquire),
            problems: self
                .status
                .problems
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
            memory: self.registry.memory(),
            warming: self.status.warming_views(&live.snapshot),
        }
    }

    fn prewarm(&self, asked: &view::Prewarm) -> Result<Vec<view::Prewarmed>, view::NotPrewarmed> {
        self.set_in_motion(asked)
    }

    fn look_at(&self, prewarmed: &mut [view::Prewarmed]) {
        self.bring_up_to_date(prewarmed);
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
                    asked: target.asked,
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
        asked: target.asked,
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

#[cfg(test)]
mod tests {
    use config::{Compiler, Fragment, Origin};

    use super::*;

    fn key(name: &str) -> Key {
        Key {
            namespace: "default".into(),
            name: name.into(),
        }
    }

    #[test]
    fn only_what_waits_in_the_version_in_force_is_told_to_be_warming() {
        let mut compiler = Compiler::default();
        let mut version = |traffic: &str| {
            let text = format!(
                "revisions: [{{name: old}}, {{name: new}}]
routes: [{{name: shop, warmBeforeShift: true, traffic: [{traffic}]}}]"
            );
            let content = config::parse("f.yaml", &text);
            let origin = Origin::File("f.yaml".into());
            let fragments = vec![Fragment { origin, content }];
            let compiled = compiler.apply_once_warm(fragments, &|_| false);
            compiled.unwrap().snapshot
        };
        let before = version("{revision: old}");
        let shifts = version("{revision: old, percent: 50}, {revision: new, percent: 50}");
        let after = version("{revision: old}");

        let status = Status::new(Registry::new(1, Vec::new()), Arc::default());
        status.warming(vec![Warming::new(&key("shop"), &key("new"), None)], &shifts);
        assert_eq!(status.warming_views(&before), []);
        assert_eq!(status.warming_views(&after), []);
        let told = status.warming_views(&shifts);
        let [one] = &told[..] else {
            panic!("{told:?}");
        };
        assert_eq!(
            (&*one.route, &*one.revision),
            ("default/shop", "default/new")
        );
    }
}
