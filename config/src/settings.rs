//! Process options: plain data, parsed once. What runs is built from them elsewhere.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::problem::Place;

pub use crate::document::{
    AccessLogMode, Audience, DotSegments, LogFormat, Underscores, UnknownName,
};

#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Never empty.
    pub listeners: Vec<Listener>,
    pub admin: SocketAddr,
    /// Holds the token of requests that change something, read at each of them; `None` = nothing can
    /// be changed at the admin address.
    pub admin_token: Option<FileRef>,
    /// 0 = one per core.
    pub workers: usize,
    pub drain: Drain,
    /// Networks whose `X-Forwarded-*` are kept.
    pub trusted_proxies: Vec<IpNet>,
    pub access_log: AccessLog,
    /// Answers say in `Server-Timing` where the time went.
    pub server_timing: bool,
    pub limits: Limits,
    /// What names of services end in, behind `.svc.`.
    pub cluster_domain: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    pub address: SocketAddr,
    pub audience: Audience,
    /// Networks whose connections begin with a PROXY protocol header of version 1 or 2; `None`: no
    /// connection does. Never empty.
    pub proxy_protocol: Option<Vec<IpNet>>,
    /// `None` = plain.
    pub tls: Option<Tls>,
    /// The port that plain requests are redirected to. Never together with `tls`.
    pub https_redirect: Option<u16>,
    /// Client connections open at once. `None` = no bound.
    pub connections: Option<usize>,
}

/// How a listener speaks TLS. What the files hold is checked by whoever reads them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The first is for names that no other is for. Empty only if others come with routes.
    pub certificates: Vec<Certificate>,
    /// Those that come with routes are used before.
    pub from_routes: bool,
    pub client_ca: Option<ClientCa>,
    /// Keys of session tickets, the first for new ones. Empty: keys of our own.
    pub ticket_keys: Vec<FileRef>,
    pub unknown_name: UnknownName,
}

/// A certificate of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    pub cert: FileRef,
    pub key: FileRef,
    /// Lower case, exact or `*.suffix`, each in one certificate of a listener only. Empty = the names
    /// in the certificate.
    pub hosts: Vec<Arc<str>>,
}

/// What client certificates are checked against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCa {
    pub file: FileRef,
    /// Whether clients without a certificate are turned away.
    pub required: bool,
}

/// A file that the configuration refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRef {
    /// The directory of the configuration file is already applied.
    pub path: PathBuf,
    /// Where it is referred to: for problems with what it holds.
    pub at: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    pub wait: Duration,
    pub timeout: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    /// A file says which mode; nobody else may switch it then.
    pub mode_written: bool,
    pub mode: AccessLogMode,
    /// Per worker.
    pub per_second: u32,
    pub format: LogFormat,
    pub output: LogOutput,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogOutput {
    Stderr,
    Stdout,
    /// The directory of the configuration file is already applied.
    File(PathBuf),
}

/// Bounds, named as in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    pub head_timeout: Duration,
    pub keep_alive: Duration,
    pub http2_idle: Duration,
    /// `None` = no bound.
    pub connection_age: Option<Duration>,
    pub requests_per_connection: u32,
    pub body_idle: Duration,
    /// Bytes per second; 0 = none.
    pub body_min_rate: u64,
    pub write_stall: Duration,
    /// Of TLS, with clients.
    pub handshake: Duration,
    pub connect: Duration,
    pub attempts: u32,
    pub tunnel_idle: Duration,
    pub abort_linger: Duration,
    pub head_bytes: usize,
    pub head_fields: usize,
    pub target_bytes: usize,
    pub trailer_bytes: usize,
    /// `None` = no bound.
    pub body_bytes: Option<u64>,
    /// Client connections open at once. `None` = as many as descriptors allow.
    pub connections: Option<usize>,
    /// Of one address. `None` = no bound.
    pub connections_per_address: Option<u32>,
    pub held: usize,
    /// `None` = half of `held` while more than one namespace has revisions.
    pub held_per_namespace: Option<usize>,
    /// Of one address, or of a /64 network of IPv6. `None` = no bound.
    pub held_per_address: Option<u32>,
    pub held_bytes: usize,
    /// Concurrent streams of a client's HTTP/2 connection.
    pub http2_streams: u32,
    /// Bytes. `None` = from the control group.
    pub memory: Option<u64>,
    pub upstream_idle: Duration,
    pub upstream_idle_per_endpoint: usize,
    pub dot_segments: DotSegments,
    pub underscores: Underscores,
}

/// What flags and environment say; each takes the place of what the files say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Public plain HTTP; any takes the place of all listeners of the files.
    pub listen: Vec<SocketAddr>,
    pub admin: Option<SocketAddr>,
    pub workers: Option<usize>,
}

const LISTEN_DEFAULT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8080);
const ADMIN_DEFAULT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9901);

impl Default for Settings {
    fn default() -> Self {
        Settings {
            listeners: vec![Listener::plain(LISTEN_DEFAULT)],
            admin: ADMIN_DEFAULT,
            admin_token: None,
            workers: 0,
            drain: Drain {
                wait: Duration::ZERO,
                timeout: Duration::from_secs(30),
            },
            trusted_proxies: Vec::new(),
            access_log: AccessLog {
                mode_written: false,
                mode: AccessLogMode::Limited,
                per_second: 100,
                format: LogFormat::Text,
                output: LogOutput::Stderr,
            },
            server_timing: false,
            limits: Limits::default(),
            cluster_domain: "cluster.local".into(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            head_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(75),
            http2_idle: Duration::from_secs(300),
            connection_age: None,
            requests_per_connection: 10_000,
            body_idle: Duration::from_secs(60),
            body_min_rate: 240,
            write_stall: Duration::from_secs(60),
            handshake: Duration::from_secs(10),
            connect: Duration::from_secs(2),
            attempts: 3,
            tunnel_idle: Duration::from_secs(3600),
            abort_linger: Duration::from_secs(30),
            head_bytes: 65_536,
            head_fields: 100,
            target_bytes: 8192,
            trailer_bytes: 16_384,
            body_bytes: None,
            connections: None,
            connections_per_address: None,
            held: 10_000,
            held_per_namespace: None,
            held_per_address: None,
            held_bytes: 256 * 1024 * 1024,
            http2_streams: 100,
            memory: None,
            upstream_idle: Duration::from_secs(55),
            upstream_idle_per_endpoint: 8,
            dot_segments: DotSegments::Reject,
            underscores: Underscores::Allow,
        }
    }
}

impl Listener {
    /// Plain HTTP for the public.
    #[must_use]
    pub fn plain(address: SocketAddr) -> Listener {
        Listener {
            address,
            audience: Audience::Public,
            proxy_protocol: None,
            tls: None,
            https_redirect: None,
            connections: None,
        }
    }

    /// Whether it could become the other one while it runs: certificates and authorities are
    /// taken up live, everything else at the next start.
    fn may_become(&self, other: &Listener) -> bool {
        let fixed = |listener: &Listener| Listener {
            tls: None,
            ..listener.clone()
        };
        self.tls.is_some() == other.tls.is_some() && fixed(self) == fixed(other)
    }
}

impl Settings {
    /// Defaults of a process that is a cluster's gateway and Knative's activator. An activator is
    /// told to stop before everybody who sends to it knows, so that it goes on for a while.
    #[must_use]
    pub fn of_cluster(domain: &str) -> Settings {
        let at = |port, audience| Listener {
            audience,
            ..Listener::plain(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port))
        };
        let settings = Settings::default();
        Settings {
            listeners: vec![
                at(8080, Audience::Public),
                at(8081, Audience::Internal),
                at(8012, Audience::Activator),
                at(8013, Audience::Activator),
            ],
            drain: Drain {
                wait: Duration::from_secs(45),
                ..settings.drain
            },
            cluster_domain: domain.into(),
            ..settings
        }
    }

    /// Whether a process started with these takes up all of the others while it runs: they differ
    /// in nothing but the `tls` of listeners that have it before and after.
    #[must_use]
    pub fn may_become(&self, other: &Settings) -> bool {
        let fixed = |settings: &Settings| Settings {
            listeners: Vec::new(),
            ..settings.clone()
        };
        let mut pairs = self.listeners.iter().zip(&other.listeners);
        self.listeners.len() == other.listeners.len()
            && pairs.all(|(one, other)| one.may_become(other))
            && fixed(self) == fixed(other)
    }

    #[must_use]
    pub fn with(mut self, overrides: &Overrides) -> Settings {
        if !overrides.listen.is_empty() {
            self.listeners = overrides
                .listen
                .iter()
                .map(|address| Listener::plain(*address))
                .collect();
        }
        self.admin = overrides.admin.unwrap_or(self.admin);
        self.workers = overrides.workers.unwrap_or(self.workers);
        self
    }
}
