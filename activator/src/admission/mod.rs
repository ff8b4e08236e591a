//! Admission: who may run now, and at which endpoint; everybody else waits for their turn.
//!
//! A [`Throttle`] is the running side of one revision, shared by all workers. Each worker reaches it
//! through its own [`Gate`]: the warm path ([`Gate::try_acquire`]) takes a [`Slot`] with one
//! compare-and-swap at a limited endpoint, or one store and a fence at an unlimited one. When
//! somebody waits or nothing has room, [`Gate::wait`] joins the queue under its lock.
//!
//! No wake-up is lost because of one exchange of glances (Dekker's). Whoever frees a slot writes the
//! endpoint's count, passes a sequentially consistent fence, and reads how many wait. Whoever joins
//! an empty queue writes that number, passes such a fence, and looks at the endpoints. At least one
//! of them sees the other: either the newcomer finds the slot, or the one who freed it finds the
//! waiter and settles the queue. From then on, while anybody waits, every event that could let
//! somebody in settles the queue itself.
//!
//! Lock order: a throttle's queue, of several that at the lower address first, then its starts or
//! the holding's lists. Wakers and nudges run with none.

mod choice;
mod claim;
mod endpoint;
mod gate;
mod held_bytes;
mod holding;
mod lending;
mod outlook;
mod queue;
mod repeats;
mod standing;
mod throttle;
mod waiting;
mod wakers;

#[cfg(test)]
mod loom_models;
#[cfg(test)]
mod tests;

use std::fmt::Debug;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub use claim::{Claim, Flow};
pub use config::revision::{Priority, RampUp};
pub use gate::{Clock, Gate, Slot};
use held_bytes::HeldBytes;
pub use holding::{Bounds, Holding, Namespace};
pub use repeats::{Pause, Repeat};
pub use throttle::Throttle;
pub use waiting::Waiting;

/// How long an endpoint that failed a request is passed over while another is ready. Twice as long
/// each further time that it fails without an answer in between.
pub const SUSPICION: Duration = Duration::from_secs(1);

/// The longest.
pub const SUSPICION_MAX: Duration = Duration::from_secs(30);

/// What a revision lets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most requests in flight per endpoint; 0 = no limit.
    pub concurrency: u32,
    /// Most waiting requests.
    pub queue_depth: u32,
    /// Most bytes kept for them; `None` = half of what all may have while there are several
    /// throttles.
    pub queue_bytes: Option<u64>,
    /// Most waiting requests of one flow; 0 = no bound of its own.
    pub per_client: u32,
    /// How an endpoint that just came is loaded; `None` = at once.
    pub ramp_up: Option<RampUp>,
}

impl Limits {
    /// Without the bounds that may be left out.
    pub const fn new(concurrency: u32, queue_depth: u32) -> Limits {
        Limits {
            concurrency,
            queue_depth,
            queue_bytes: None,
            per_client: 0,
            ramp_up: None,
        }
    }
}

/// What one process may have in flight at an endpoint whose slots it divides with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Its own slots; 0 = none.
    pub own: u32,
    /// With those that others lend it while requests wait ([`Throttle::lend`]).
    pub most: u32,
}

/// Tells a scaler that somebody waits.
pub trait Nudge: Send + Sync + Debug {
    /// Called on a worker, so it must neither block nor be slow; and it may be called often, so
    /// what is not yet heard must be merged.
    fn nudge(&self);

    /// The endpoint at this address became suspect: a probe that finds it well ends that
    /// ([`Throttle::trust`]). Called as `nudge` is.
    fn suspected(&self, address: SocketAddr);
}

/// Who brings a revision's endpoints.
#[derive(Clone, Debug)]
pub enum Supply {
    /// Nobody: without an endpoint there is nothing to wait for.
    None,
    /// They are written down; they may be late (a name to resolve) but nobody starts them.
    Fixed,
    /// A scaler, which is nudged when somebody begins to wait.
    Scaled(Arc<dyn Nudge>),
}

/// One endpoint for as long as it is known; unique in the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointId(pub u64);

impl EndpointId {
    fn next() -> EndpointId {
        // Not through the switch: an id orders nothing, and loom has no statics.
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
        EndpointId(NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
    }
}

/// Why a request gets no slot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AcquireError {
    /// As many requests wait, or as many bytes are kept for them, as may: for this revision or
    /// client, in its namespace or in the process. Also what those get that gave way to others.
    #[error("too many requests wait: {0}")]
    QueueFull(Bound),
    /// The scaler says that the revision cannot start, and why.
    #[error("the revision cannot start: {0}")]
    StartFailed(Arc<str>),
    /// There is no endpoint and nobody who could bring one.
    #[error("no endpoint, and no scaler that could bring one")]
    NoScaler,
    /// The revision was removed and has no endpoint left: route the request once more.
    #[error("the revision was removed")]
    Removed,
}

/// A bound on those who wait, by the key of the configuration that sets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    Depth,
    Bytes,
    PerClient,
    HeldPerAddress,
    HeldPerNamespace,
    Held,
    HeldBytes,
}

impl Bound {
    /// In the order of their numbers.
    pub const ALL: [Bound; 7] = [
        Bound::Depth,
        Bound::Bytes,
        Bound::PerClient,
        Bound::HeldPerAddress,
        Bound::HeldPerNamespace,
        Bound::Held,
        Bound::HeldBytes,
    ];

    /// The key, of a revision's `queue` or of the gateway's `limits`.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Bound::Depth => "queue.depth",
            Bound::Bytes => "queue.bytes",
            Bound::PerClient => "queue.perClient",
            Bound::HeldPerAddress => "limits.heldPerAddress",
            Bound::HeldPerNamespace => "limits.heldPerNamespace",
            Bound::Held => "limits.held",
            Bound::HeldBytes => "limits.heldBytes",
        }
    }
}

impl std::fmt::Display for Bound {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(self.key())
    }
}

/// Why a request that comes now has to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    NoEndpoint,
    /// No slot is free, or others wait for it already.
    AllBusy,
    /// The same, and an endpoint that came or failed a moment ago gets fewer than it may have.
    Paced,
    /// All endpoints are passed over for what they did to others.
    AllSuspect,
}

/// What an endpoint is doing, for people and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndpointState {
    Ready,
    /// It failed a request, and is passed over for a while.
    Suspect,
    /// All its slots are held by requests that nobody waits for any more.
    Lingering,
    /// It gets no new slot and goes once its last one is free.
    Draining,
}

/// One endpoint at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointStatus {
    pub address: SocketAddr,
    pub id: EndpointId,
    pub state: EndpointState,
    /// Slots held, lingering ones included.
    pub in_flight: u32,
    pub lingering: u32,
    /// Most in flight for the time being, where the endpoint has not proved yet that it bears more.
    pub window: Option<u32>,
}

/// What a failed attempt says of the request that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing good: the endpoint does not serve.
    Endpoint,
    /// The endpoint was given more requests than it bears, and gets fewer from now on. It does not
    /// speak against another attempt.
    Crowding,
}
