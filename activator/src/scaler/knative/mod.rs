//! Knative's scaler: its autoscaler decides how many pods there are, its reconcilers start them. We
//! tell the autoscaler of the requests that nobody else sees, and find out which pods can serve.
//!
//! Three tasks, none of which waits for another. `reporter` hears nudges and reads demand; what it
//! says is decided by `report` and goes through `outbox` to `socket`, the one that sends. `prober`
//! hears addresses and asks pods; `pods` decides which and when, `shares` how many requests this
//! replica may send to each.

mod failing;
mod followed;
mod outbox;
mod pods;
mod probe;
mod prober;
mod report;
mod reporter;
mod shares;
mod socket;
mod stat;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use config::revision::{Backend, Key, Revision};
use config::source::feed::Addresses;
use tokio::task::AbortHandle;

use self::followed::{Adopted, Followed, Terms};
use self::outbox::Outbox;
use self::pods::Manner;
use self::prober::{Inbox, Prober};
use self::reporter::{Heard, Hearing, Reporter};
use self::socket::{Health, Socket, Target};
use crate::admission::{Supply, Throttle};
use crate::scaler::autoscale::Floor;

/// How a Knative revision's pods are reached: `mesh-compatibility-mode` and
/// `enable-mesh-pod-addressability` of config-network. There is no mode that goes through the
/// cluster address of a revision's Service (`enabled`, and what `auto` falls back to).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mesh {
    /// A pod serves once its queue-proxy has answered. `passthrough`: probes name the private
    /// Service and ask the mesh to leave the address alone.
    Probe { passthrough: bool },
    /// A pod serves as Kubernetes says.
    Believe,
}

/// What the scaler is told at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The autoscaler's statistics: `ws://HOST[:PORT][/PATH]`.
    pub autoscaler: String,
    /// Who we say that we are.
    pub pod_name: String,
    /// Our address among the replicas.
    pub pod_ip: IpAddr,
    /// `PROBE_TIMEOUT`: a probe waits so long, and longer where connections are seen to take longer.
    pub probe_timeout: Duration,
    /// `PROBE_FREQUENCY`: between two probes of a pod that is not proven.
    pub probe_frequency: Duration,
    pub mesh: Mesh,
}

/// The autoscaler's address is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadAutoscaler(Box<str>);

/// What is known of the connection to the autoscaler. Serving needs none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KnativeStatus {
    /// The connection stands.
    pub reachable: bool,
    /// How often it was made.
    pub connections: u64,
    /// How often it could not be made, or was lost without being closed by the autoscaler.
    pub errors: u64,
    /// Messages that found no room while it was down.
    pub dropped: u64,
}

/// The scaler of all revisions of Knative. Dropping it ends its work; endpoints stay as they are.
#[derive(Debug)]
pub struct Knative {
    hearing: Arc<Hearing>,
    inbox: Arc<Inbox>,
    outbox: Arc<Outbox>,
    health: Arc<Health>,
    adopted: Arc<Adopted>,
    ids: AtomicU64,
    tasks: [AbortHandle; 3],
}

impl Options {
    /// The usual times, and probes.
    pub fn new(autoscaler: String, pod_name: String, pod_ip: IpAddr) -> Options {
        Options {
            autoscaler,
            pod_name,
            pod_ip,
            probe_timeout: Duration::from_millis(300),
            probe_frequency: Duration::from_millis(200),
            mesh: Mesh::Probe { passthrough: false },
        }
    }
}

impl Knative {
    /// A scaler whose tasks run on the current runtime.
    ///
    /// # Errors
    /// `autoscaler` is not the address of a WebSocket without TLS.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(options: &Options) -> Result<Knative, BadAutoscaler> {
        let target = Target::parse(&options.autoscaler).map_err(BadAutoscaler)?;
        let (hearing, inbox) = (Arc::<Hearing>::default(), Arc::<Inbox>::default());
        let (outbox, health) = (Arc::<Outbox>::default(), Arc::<Health>::default());
        let adopted = Arc::<Adopted>::default();
        let manner = Manner {
            probes: options.mesh != Mesh::Believe,
            period: options.probe_frequency,
            patience: options.probe_timeout,
        };
        let passthrough = options.mesh == Mesh::Probe { passthrough: true };
        let socket = Socket::new(
            target,
            options.pod_name.as_str().into(),
            Arc::clone(&outbox),
            Arc::clone(&health),
            Arc::clone(&adopted),
        );
        let reporter = Reporter::new(Arc::clone(&hearing), Arc::clone(&outbox));
        let prober = Prober::new(Arc::clone(&inbox), manner, passthrough, options.pod_ip);
        Ok(Knative {
            hearing,
            inbox,
            outbox,
            health,
            adopted,
            ids: AtomicU64::new(1),
            tasks: [
                tokio::spawn(socket.run()).abort_handle(),
                tokio::spawn(reporter.run()).abort_handle(),
                tokio::spawn(prober.run()).abort_handle(),
            ],
        })
    }

    /// Looks after this revision from now on, and brings endpoints to this throttle, whose supply it
    /// becomes. Adopted again, changed terms take effect in place.
    ///
    /// A revision that is not Knative's is released instead.
    pub fn adopt(&self, revision: &Revision, throttle: &Arc<Throttle>) {
        let Some(unready_pods) = unready_pods(revision) else {
            self.release(&revision.key);
            return;
        };
        let key = &revision.key;
        let mut adopted = self.adopted.lock();
        if let Some(followed) = adopted.get(key).filter(|known| known.is_of(throttle)) {
            followed.set_terms(revision.concurrency, unready_pods);
            throttle.set_supply(Supply::Scaled(Arc::clone(followed) as _));
            self.inbox.owner(key, Some(Arc::clone(followed)));
            return;
        }
        let followed = Arc::new(Followed::new(
            self.ids.fetch_add(1, Ordering::Relaxed),
            key.clone(),
            throttle,
            Arc::clone(&self.hearing),
            &self.inbox,
            Terms::new(revision.concurrency, unready_pods),
        ));
        // Before it listens, so that it hears.
        throttle.set_supply(Supply::Scaled(Arc::clone(&followed) as _));
        if let Some(before) = adopted.insert(key.clone(), Arc::clone(&followed)) {
            self.close(&before);
        }
        self.hearing.say(Heard::Follow(Arc::clone(&followed)));
        self.inbox.owner(key, Some(followed));
    }

    /// Takes the revision's endpoints away at once, and says nothing more of it. The supply of the
    /// throttle is the caller's to change, before or after. Without effect for a revision that was
    /// not adopted.
    pub fn release(&self, key: &Key) {
        let mut adopted = self.adopted.lock();
        if let Some(followed) = adopted.remove(key) {
            self.close(&followed);
            self.inbox.owner(key, None);
        }
    }

    /// Requests are expected: the autoscaler is told of as many as make it want so many pods, at once
    /// and in every window, until they are there or the time is over. How many it starts, and how long
    /// they stay, it decides itself. Without effect for a revision that was not adopted.
    pub fn expect(&self, key: &Key, floor: Floor) {
        if let Some(followed) = self.adopted.lock().get(key) {
            self.hearing.say(Heard::Expect(followed.id, floor));
        }
    }

    /// What Kubernetes knows of a revision's pods: the whole set, in place of the one before. It may
    /// come before the revision is adopted.
    pub fn addresses(&self, key: &Key, now: Addresses) {
        self.inbox.addresses(key, Some(now));
    }

    /// Nothing more is known of this revision's pods: there are none.
    pub fn forget(&self, key: &Key) {
        self.inbox.addresses(key, None);
    }

    /// The replicas of the gateway that get requests now; whether this one is among them makes no
    /// difference.
    pub fn replicas(&self, replicas: &[IpAddr]) {
        self.inbox.replicas(replicas.into());
    }

    pub fn status(&self) -> KnativeStatus {
        KnativeStatus {
            reachable: self.health.reachable.load(Ordering::Relaxed),
            connections: self.health.connections.load(Ordering::Relaxed),
            errors: self.health.errors.load(Ordering::Relaxed),
            dropped: self.outbox.dropped(),
        }
    }

    fn close(&self, followed: &Followed) {
        followed.close();
        self.hearing.say(Heard::Forget(followed.id));
    }
}

impl Drop for Knative {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// `None`: the revision is not Knative's.
fn unready_pods(revision: &Revision) -> Option<bool> {
    match &revision.backend {
        Backend::Fed(fed) => Some(fed.knative.as_ref()?.unready_pods),
        Backend::None | Backend::Fixed { .. } | Backend::Process(_) => None,
    }
}

#[cfg(test)]
mod tests;
