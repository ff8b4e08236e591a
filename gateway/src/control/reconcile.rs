//! From a compiled snapshot to what runs: throttles that live on across versions, and who brings
//! their endpoints.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use activator::admission::{Holding, Limits, Supply, Throttle};
use activator::scaler::local::Local;
use config::problem::Problem;
use config::revision::{Address, Backend, Key, Revision};
use config::settings::{Listener, Settings};
use config::source::Fragment;
use config::{Compiled, Compiler};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::credentials;
use super::endpoints::{self, Outlet};
use super::feeds::Feeds;
use crate::live::{Credentials, Live};
use crate::serve::tls::endpoint::Hosts;

/// What revisions run on.
#[derive(Debug)]
pub struct Means {
    pub holding: Arc<Holding>,
    pub workers: usize,
    pub local: Arc<Local>,
    pub feeds: Arc<Feeds>,
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
            listeners,
        }
    }

    /// Makes the next version out of what has changed. Blocks; takes long for large changes. Once
    /// it is published, [`retire`](Reconciler::retire) what is named beside it.
    ///
    /// # Errors
    /// The problems; then nothing has changed.
    pub fn apply(&mut self, fragments: Vec<Fragment>, old: &Live) -> Result<Next, Vec<Problem>> {
        let before = self.compiler.clone();
        let compiled = self.compiler.apply(fragments)?;
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
        Next {
            live,
            removed: compiled.removed_revisions,
        }
    }

    /// `hosts`: where to say which addresses have a host name, if anybody must know.
    fn run(&mut self, revision: &Arc<Revision>, hosts: Option<Arc<Hosts>>) -> Arc<Throttle> {
        let limits = Limits {
            concurrency: revision.concurrency,
            queue_depth: revision.queue_depth,
            queue_bytes: revision.queue_bytes,
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
                Throttle::new(limits, Supply::None, &namespace, self.means.workers)
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
                    Some(addresses) if health.is_none() => throttle.set_endpoints(&addresses),
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
