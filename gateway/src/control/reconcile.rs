//! From a compiled snapshot to what runs: throttles that live on across versions, and who brings
//! their endpoints.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use activator::admission::{Holding, Limits, Supply, Throttle};
use activator::scaler::local::Local;
use config::problem::Problem;
use config::revision::{Address, Backend, Key, Revision};
use config::settings::{Listener, Settings};
use config::snapshot::{Route, Snapshot};
use config::source::Fragment;
use config::{Compiled, Compiler};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::credentials;
use super::endpoints::{self, Outlet};
use super::feeds::Feeds;
use super::shift::{self, Warming};
use super::starts::Reporter;
use crate::live::{Credentials, Live};
use crate::observe::metrics::Registry;
use crate::serve::tls::endpoint::Hosts;

/// Targets that are warmed are asked for so often, so that they stay until their shares are theirs.
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// What revisions run on.
#[derive(Debug)]
pub struct Means {
    pub holding: Arc<Holding>,
    pub workers: usize,
    pub local: Arc<Local>,
    pub feeds: Arc<Feeds>,
    /// Where starts are counted.
    pub registry: Arc<Registry>,
    /// For tasks that keep endpoints.
    pub runtime: Handle,
}

/// Brings what runs in line with what is written.
#[derive(Debug)]
pub struct Reconciler {
    compiler: Compiler,
    means: Means,
    running: HashMap<Key, Running>,
    /// Removed, but perhaps still in use: a revision that comes back finds its slots counted.
    retired: HashMap<Key, Weak<Throttle>>,
    /// What the process was started with.
    settings: Option<Settings>,
    /// When targets that are warmed were last asked for.
    asked: Option<Instant>,
    /// Listeners of the files that run; `None` if others do.
    listeners: Option<Vec<Listener>>,
}

/// The next version, not yet published.
#[derive(Debug)]
pub struct Next {
    pub live: Live,
    /// Revisions to retire once it is.
    pub removed: Vec<Key>,
}

/// The running side of one revision.
#[derive(Debug)]
struct Running {
    throttle: Arc<Throttle>,
    backend: Backend,
    hosts: Option<Arc<Hosts>>,
    /// Keeps fixed endpoints resolved and checked, where they need it.
    _keeper: Option<Keeper>,
}

/// A task that keeps fixed endpoints; stopped on drop.
#[derive(Debug)]
struct Keeper {
    outlet: Arc<Outlet>,
    task: JoinHandle<()>,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // The task may be at work just now, and ends only where it waits.
        self.outlet.close();
        self.task.abort();
    }
}

impl Reconciler {
    #[must_use]
    pub fn new(compiler: Compiler, means: Means, listeners: Option<Vec<Listener>>) -> Reconciler {
        Reconciler {
            compiler,
            means,
            running: HashMap::new(),
            retired: HashMap::new(),
            settings: None,
            asked: None,
            listeners,
        }
    }

    /// The way of what changes too often for fragments.
    pub(super) fn feeds(&self) -> &Feeds {
        &self.means.feeds
    }

    /// Makes the next version out of what has changed. Blocks; takes long for large changes. Once
    /// it is published, [`retire`](Reconciler::retire) what is named beside it.
    ///
    /// # Errors
    /// The problems; then nothing has changed.
    pub fn apply(&mut self, fragments: Vec<Fragment>, old: &Live) -> Result<Next, Vec<Problem>> {
        let before = self.compiler.clone();
        let running = &self.running;
        let compiled = self
            .compiler
            .apply_once_warm(fragments, &|key| is_warm(running, key))?;
        let (listeners, store) = (self.listeners.as_deref(), self.means.feeds.store());
        match credentials::read(&compiled, listeners, store, old) {
            Ok(credentials) => Ok(self.bring_in_line(compiled, credentials, old)),
            Err(problems) => {
                self.compiler = before;
                Err(problems)
            }
        }
    }

    /// The part of [`apply`](Reconciler::apply) behind the compiler and the files that are referred
    /// to; cannot fail.
    pub fn bring_in_line(
        &mut self,
        compiled: Compiled,
        credentials: Arc<Credentials>,
        old: &Live,
    ) -> Next {
        let started_with = self
            .settings
            .get_or_insert_with(|| compiled.settings.clone());
        if !started_with.may_become(&compiled.settings) {
            tracing::warn!("`gateway` options have changed: they take effect at the next start");
        }
        let mut live = Live {
            version: old.version + 1,
            snapshot: compiled.snapshot,
            throttles: old.throttles.clone(),
            credentials,
        };
        for key in &compiled.removed_revisions {
            if let Some(revision) = old.snapshot.revision_by_key(key) {
                live.throttles.set(revision.id, None);
            }
        }
        for key in &compiled.changed_revisions {
            if let Some(revision) = live.snapshot.revision_by_key(key).cloned() {
                let hosts = live.dialer(&revision).map(|dialer| dialer.hosts().clone());
                let throttle = self.run(&revision, hosts);
                live.throttles.set(revision.id, Some(throttle));
            }
        }
        // What is new may have been there before, or need no start.
        let running = &self.running;
        if let Some(shifted) = self.compiler.shift(&|key| is_warm(running, key)) {
            live.snapshot = shifted.clone();
        }
        self.asked = None;
        self.keep_warming(Instant::now());
        Next {
            live,
            removed: compiled.removed_revisions,
        }
    }

    /// Whether some target waits until it is warm, or what it waited for has not been let go.
    #[must_use]
    pub fn is_shifting(&self) -> bool {
        self.compiler.shifting().next().is_some() || self.compiler.has_leftovers()
    }

    /// Whether some target that waited is warm: applying nothing gives it its share, and lets go of
    /// what was kept for that.
    #[must_use]
    pub fn may_shift(&self) -> bool {
        if self.compiler.has_leftovers() {
            return true;
        }
        let mut routes = self.compiler.shifting();
        routes.any(|route| route.warming().any(|key| is_warm(&self.running, key)))
    }

    /// Asks for what is to be warmed, once more if it was long ago.
    pub fn keep_warming(&mut self, now: Instant) {
        let recent = |asked: Instant| now.saturating_duration_since(asked) < ASK_AGAIN;
        if self.asked.is_some_and(recent) {
            return;
        }
        self.asked = Some(now);
        let Means { local, feeds, .. } = &self.means;
        for route in self.compiler.shifting() {
            for key in route.warming() {
                if let Some(revision) = self.compiler.snapshot().revision_by_key(key) {
                    shift::expect(local, feeds.knative(), revision, shift::floor(now));
                }
            }
        }
    }

    /// The tables as of what was taken in last.
    pub(super) fn tables(&self) -> &Snapshot {
        self.compiler.snapshot()
    }

    /// Every target that waits until it is warm.
    #[must_use]
    pub fn warming(&self) -> Vec<Warming> {
        let of = |route: &Arc<Route>| {
            let waiting = route.warming().map(|key| {
                let running = self.running.get(key);
                Warming::new(&route.key, key, running.map(|running| &running.throttle))
            });
            let mut waiting: Vec<_> = waiting.collect();
            // Under several rules, perhaps.
            waiting.sort_by(|one, other| one.revision.cmp(&other.revision));
            waiting.dedup();
            waiting
        };
        self.compiler.shifting().flat_map(of).collect()
    }

    /// `hosts`: where to say which addresses have a host name, if anybody must know.
    fn run(&mut self, revision: &Arc<Revision>, hosts: Option<Arc<Hosts>>) -> Arc<Throttle> {
        let limits = Limits {
            concurrency: revision.concurrency,
            queue_depth: revision.queue.depth,
            queue_bytes: revision.queue.bytes,
            per_client: revision.queue.per_client,
            ramp_up: revision.ramp_up,
        };
        let known = self.running.remove(&revision.key);
        let throttle = known.as_ref().map(|running| running.throttle.clone());
        let retired = self.retired.remove(&revision.key);
        let throttle = match throttle.or_else(|| retired?.upgrade()) {
            Some(throttle) => {
                throttle.configure(limits);
                throttle
            }
            None => {
                let namespace = self.means.holding.namespace(&revision.key.namespace);
                let throttle = Throttle::new(limits, Supply::None, &namespace, self.means.workers);
                let registry = Arc::clone(&self.means.registry);
                let reporter = Reporter::new(revision.key.clone(), registry);
                throttle.starts().set_witness(reporter);
                throttle
            }
        };
        let same = known
            .as_ref()
            .is_some_and(|running| running.backend == revision.backend && running.hosts == hosts);
        let running = match known {
            Some(running) if same => {
                // Bounds of the revision may have changed that its scaler goes by.
                self.adopt(revision, &throttle);
                running
            }
            known => self.supply(revision, &throttle, known, hosts),
        };
        self.running.insert(revision.key.clone(), running);
        throttle
    }

    /// Says who brings the endpoints from now on.
    fn supply(
        &self,
        revision: &Arc<Revision>,
        throttle: &Arc<Throttle>,
        known: Option<Running>,
        hosts: Option<Arc<Hosts>>,
    ) -> Running {
        let before = known.map(|running| running.backend.clone());
        // Whoever brought endpoints has no say from here on.
        if let Some(before) = before
            .as_ref()
            .filter(|one| scaler(one) != scaler(&revision.backend))
        {
            self.release(before, &revision.key);
        }
        let mut keeper = None;
        match &revision.backend {
            Backend::None => {
                throttle.set_supply(Supply::None);
                throttle.set_endpoints(&[]);
            }
            Backend::Fixed { endpoints, health } => {
                throttle.set_supply(Supply::Fixed);
                match literal(endpoints) {
                    Some(addresses) if health.is_none() => endpoints::declare(throttle, &addresses),
                    _ => {
                        let outlet = Outlet::new(throttle.clone());
                        let keep = endpoints::keep(
                            revision.key.clone(),
                            endpoints.to_vec(),
                            health.as_deref().cloned(),
                            outlet.clone(),
                            hosts.clone(),
                        );
                        let task = self.means.runtime.spawn(keep);
                        keeper = Some(Keeper { outlet, task });
                    }
                }
            }
            Backend::Process(_) | Backend::Fed(_) => {
                if before.as_ref().map(scaler) != Some(scaler(&revision.backend)) {
                    // Fixed endpoints, or those of a revision that comes back: not the scaler's.
                    throttle.set_endpoints(&[]);
                }
                self.adopt(revision, throttle);
            }
        }
        Running {
            throttle: throttle.clone(),
            backend: revision.backend.clone(),
            hosts,
            _keeper: keeper,
        }
    }

    /// Says to whoever brings endpoints, if anybody does, that this revision is theirs.
    fn adopt(&self, revision: &Arc<Revision>, throttle: &Arc<Throttle>) {
        let Means { local, feeds, .. } = &self.means;
        match scaler(&revision.backend) {
            Scaler::None => {}
            Scaler::Local => local.adopt(revision.clone(), throttle.clone()),
            Scaler::Feed => {
                throttle.set_supply(Supply::Fixed);
                feeds.connect(&revision.key, throttle.clone());
            }
            Scaler::Knative => feeds.adopt(revision, throttle),
        }
    }

    /// Says that it is theirs no longer.
    fn release(&self, before: &Backend, key: &Key) {
        let Means { local, feeds, .. } = &self.means;
        match scaler(before) {
            Scaler::None => {}
            Scaler::Local => local.release(key),
            Scaler::Feed | Scaler::Knative => feeds.release(key),
        }
    }

    /// Lets revisions go that no published version has any more: whoever waits at one without an
    /// endpoint is routed again, by the new tables.
    pub fn retire(&mut self, removed: &[Key]) {
        self.retired
            .retain(|_, throttle| throttle.strong_count() > 0);
        for key in removed {
            let Some(running) = self.running.remove(key) else {
                continue;
            };
            let throttle = Arc::downgrade(&running.throttle);
            self.retired.insert(key.clone(), throttle);
            // Fixed endpoints stay until the last waiter has had its turn; a scaler's go.
            running.throttle.retire();
            self.release(&running.backend, key);
        }
    }
}

/// Whether it has an endpoint that can serve.
fn is_warm(running: &HashMap<Key, Running>, key: &Key) -> bool {
    let running = running.get(key);
    running.is_some_and(|running| running.throttle.ready() > 0)
}

/// Who brings endpoints, if they are not written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scaler {
    None,
    /// Processes of this machine.
    Local,
    /// Whoever is behind a feed: they are used as they come.
    Feed,
    /// Knative: they are asked first.
    Knative,
}

fn scaler(backend: &Backend) -> Scaler {
    match backend {
        Backend::None | Backend::Fixed { .. } => Scaler::None,
        Backend::Process(_) => Scaler::Local,
        Backend::Fed(fed) if fed.knative.is_some() => Scaler::Knative,
        Backend::Fed(_) => Scaler::Feed,
    }
}

/// The addresses, if none is a name.
fn literal(endpoints: &[Address]) -> Option<Vec<SocketAddr>> {
    endpoints
        .iter()
        .map(|endpoint| match endpoint {
            Address::Ip(address) => Some(*address),
            Address::Name { .. } => None,
        })
        .collect()
}
