//! Revisions as the rest of the program sees them: values that cannot hold nonsense.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

pub use crate::document::Protocol;
use crate::settings::FileRef;

/// Dense index of a revision. A place is reused after its revision has gone, so an id means
/// something only together with the snapshot it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RevisionId(pub u32);

/// `NAMESPACE/NAME`: what a revision is known by across snapshots.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// One immutable version of a service: limit, timeouts, and where its endpoints come from.
#[derive(Clone, Debug, PartialEq)]
pub struct Revision {
    pub id: RevisionId,
    pub key: Key,
    /// What its endpoints speak, in clear or over `tls`.
    pub protocol: Protocol,
    /// `None` = in clear.
    pub tls: Option<Box<EndpointTls>>,
    /// Most requests in flight per endpoint; 0 = no limit.
    pub concurrency: u32,
    /// Slot → response head. `None` = no bound.
    pub timeout: Option<Duration>,
    /// Arrival → last byte. `None` = no bound.
    pub max_duration: Option<Duration>,
    /// No byte either way after the response head. `None` = no bound.
    pub idle: Option<Duration>,
    /// Those that say nothing of it share one.
    pub queue: Arc<Queue>,
    /// `None` = an endpoint that just appeared is like any other.
    pub ramp_up: Option<RampUp>,
    /// After how long without a byte an answer or upgraded connection is no demand any more. `None` =
    /// never.
    pub idle_stream: Option<Duration>,
    pub backend: Backend,
}

impl Revision {
    /// HTTP/1.1 in clear, with the usual queue, no limit and no bound of time.
    #[must_use]
    pub fn plain(key: Key, backend: Backend) -> Revision {
        Revision {
            id: RevisionId(0),
            key,
            protocol: Protocol::Http1,
            tls: None,
            concurrency: 0,
            timeout: None,
            max_duration: None,
            idle: None,
            queue: Queue::usual(),
            ramp_up: None,
            idle_stream: None,
            backend,
        }
    }

    /// The longest that one of its requests waits for a slot, from arrival, under this timeout.
    #[must_use]
    pub fn wait_at_most(&self, timeout: Option<Duration>) -> Duration {
        match self.queue.wait {
            Wait::For(wait) => wait,
            Wait::Auto => timeout.unwrap_or(WAIT),
        }
    }
}

/// Arrival → slot, where nothing says it.
const WAIT: Duration = Duration::from_secs(300);

/// Waiting for a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Most waiting requests.
    pub depth: u32,
    /// Most bytes of theirs. `None` = half of what all may have, while there are several revisions.
    pub bytes: Option<u64>,
    /// Arrival → slot.
    pub wait: Wait,
    /// Most waiting requests of one client; 0 = no bound of its own.
    pub per_client: u32,
    /// Who is one client.
    pub fair_by: FairBy,
    /// Of requests for which nothing else says it.
    pub priority: Priority,
}

impl Queue {
    /// That of all revisions that say nothing of it.
    #[must_use]
    pub fn usual() -> Arc<Queue> {
        static USUAL: LazyLock<Arc<Queue>> = LazyLock::new(Arc::default);
        Arc::clone(&USUAL)
    }
}

impl Default for Queue {
    fn default() -> Self {
        Queue {
            depth: 1000,
            bytes: None,
            wait: Wait::For(WAIT),
            per_client: 0,
            fair_by: FairBy::default(),
            priority: Priority::default(),
        }
    }
}

/// How long a request may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    For(Duration),
    /// As long as the starts of the revision that were seen make sensible.
    Auto,
}

/// What tells clients apart. Where a request lacks it, the address does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum FairBy {
    /// Of IPv6, the /64 network.
    #[default]
    Address,
    /// The first value of this request header (lower case).
    Header(Box<str>),
    /// This claim of the bearer token, which nobody has verified.
    Claim(Box<str>),
    /// Everybody is one client.
    Nothing,
}

/// The class of a request, 0 to 7; 7 goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Priority(u8);

impl Priority {
    /// What goes first.
    pub const MOST: u8 = 7;

    /// `None` if there is no such class.
    #[must_use]
    pub fn new(class: i64) -> Option<Priority> {
        let class = u8::try_from(class).ok()?;
        (class <= Priority::MOST).then_some(Priority(class))
    }

    /// 0 to 7.
    #[must_use]
    pub fn class(self) -> u8 {
        self.0
    }
}

impl Default for Priority {
    fn default() -> Self {
        Priority(4)
    }
}

/// What an endpoint that just appeared is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RampUp {
    /// Most requests in flight in the beginning; not 0.
    pub initial: u32,
    /// After how long without a failure it is doubled.
    pub interval: Duration,
}

/// TLS to endpoints. What files and authorities hold is checked by whoever reads them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointTls {
    /// Asked for, and what the certificate must be for: a host name in lower case or an IP address.
    /// `None` = the endpoint's host name as written, else its address.
    pub server_name: Option<Arc<str>>,
    /// Authorities to trust. `None` = those of the system.
    pub ca: Option<Authorities>,
    /// Our certificate and its key.
    pub client_cert: Option<Box<(FileRef, FileRef)>>,
    /// Endpoints are those of a cluster, which has rules of its own.
    pub inside: Option<Box<Inside>>,
}

/// Who may sign the certificates of endpoints.
#[derive(Clone, PartialEq, Eq)]
pub enum Authorities {
    File(FileRef),
    /// PEM. What is no certificate is passed over, as long as one is.
    Pem(Arc<[u8]>),
}

impl std::fmt::Debug for Authorities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Authorities::File(file) => f.debug_tuple("File").field(file).finish(),
            Authorities::Pem(pem) => write!(f, "Pem({} bytes)", pem.len()),
        }
    }
}

/// TLS between the parts of a cluster: 1.3 only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inside {
    /// The DNS name that certificates must have, whatever was asked for. It need not be one that
    /// could be resolved.
    pub identity: Arc<str>,
    /// Where an endpoint speaks TLS, in place of the port of its address.
    pub port: u16,
}

/// Where a revision's endpoints come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Backend {
    /// Neither `endpoints` nor `process`: another source may bring them; until then `no_scaler`.
    None,
    Fixed {
        endpoints: Box<[Address]>,
        health: Option<Box<Health>>,
    },
    Process(Box<Process>),
    /// The source brings endpoints through a feed.
    Fed(Box<Fed>),
}

/// How endpoints that come through a feed are used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fed {
    /// `None`: somebody else decides how many there are; all are used as they come.
    pub knative: Option<Knative>,
}

/// A revision of Knative: its pods have a queue-proxy, its autoscaler hears of demand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Knative {
    /// Labels `serving.knative.dev/service` and `/configuration`, for metrics; empty = none.
    pub service: Box<str>,
    pub configuration: Box<str>,
    /// A pod that answers its probe gets requests even before its kubelet says that it is ready.
    pub unready_pods: bool,
}

/// An address as written: `10.0.0.5:8080`, `[::1]:8080` or `svc.internal:8080`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    Ip(SocketAddr),
    /// Resolved again as its TTL ends.
    Name {
        host: Arc<str>,
        port: u16,
    },
}

/// Optional active check of fixed endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    pub path: String,
    /// That of the revision.
    pub protocol: Protocol,
    pub interval: Duration,
}

/// A program started and stopped on demand on this machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Process {
    /// Never empty. `$PORT` in arguments is replaced by whoever starts it.
    pub command: Vec<String>,
    pub env: Vec<(String, String)>,
    /// Absolute, or relative to the working directory: the file's own directory is already applied.
    pub directory: Option<PathBuf>,
    pub readiness: Readiness,
    pub scale: Scale,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// A TCP connect succeeds.
    Tcp,
    /// `GET path` answers 2xx or 3xx, in the revision's protocol.
    Http { path: String, protocol: Protocol },
}

#[derive(Clone, Debug, PartialEq)]
pub struct Scale {
    pub min: u32,
    /// 0 = unlimited.
    pub max: u32,
    /// Running + waiting requests wanted per endpoint; at least 1.
    pub target: f64,
    pub window: Duration,
    pub grace: Duration,
}
