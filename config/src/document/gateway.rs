//! Process options as people write them.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{At, DurationText, Text};

/// Process options.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Gateway {
    /// Where requests come in (one public listener on `0.0.0.0:8080`).
    pub listeners: Option<At<Vec<At<Listener>>>>,
    /// Address of the admin interface (`127.0.0.1:9901`).
    pub admin: Option<At<Text>>,
    /// File with the token that `POST` requests to the admin interface must bring
    /// (`authorization: Bearer TOKEN`); read again at each of them, relative to this file (none: the
    /// admin interface changes nothing).
    pub admin_token_file: Option<At<Text>>,
    /// Worker threads; 0 = one per core (0).
    pub workers: Option<At<i64>>,
    /// How the process ends.
    pub drain: Option<Drain>,
    /// Networks (CIDR) whose `X-Forwarded-*`, `Forwarded` and `X-Request-Id` are kept (none).
    pub trusted_proxies: Option<Vec<At<Text>>>,
    /// What is logged about requests.
    pub access_log: Option<AccessLog>,
    /// Whether answers say in `Server-Timing` how long their requests waited, why, how long the start
    /// took that they waited for, and how long the endpoint (`false`).
    pub server_timing: Option<bool>,
    /// Bounds.
    pub limits: Option<Limits>,
}

/// One listening socket.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Listener {
    /// IP address and port; port 0 picks a free one.
    pub address: At<Text>,
    /// Whom it serves (`public`).
    pub audience: Option<Audience>,
    /// Whether connections begin with a PROXY protocol header (`off`).
    pub proxy_protocol: Option<At<ProxyProtocol>>,
    /// Networks (CIDR) whose connections begin with a PROXY protocol header; all others are served
    /// as they come. Required with `proxyProtocol: v1v2`, and only then.
    pub trusted_proxies: Option<At<Vec<At<Text>>>>,
    /// Serves HTTPS (plain HTTP).
    pub tls: Option<Box<At<Tls>>>,
    /// Answers every request with a redirect to `https` at this port (none). Not for a listener with
    /// `tls`.
    pub https_redirect: Option<At<i64>>,
    /// Client connections it has open at once; those beyond are closed at once; 0 = no bound (0).
    pub connections: Option<At<i64>>,
}

/// Whom a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Audience {
    /// Public routes.
    Public,
    /// Public and cluster-local routes.
    Internal,
    /// What is sent to Knative's activator: revisions by `Knative-Serving-Namespace` and
    /// `Knative-Serving-Revision`, or by host `REVISION.NAMESPACE.svc.CLUSTER_DOMAIN`, and probes.
    Activator,
}

/// PROXY protocol of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProxyProtocol {
    /// None is expected.
    Off,
    /// Version 1 or 2, from the networks of `trustedProxies`.
    V1v2,
}

/// TLS of a listener: 1.2 and 1.3, with HTTP/2 and HTTP/1.1 by ALPN.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Tls {
    /// Certificates, chosen by the name the client asks for. The first is also for clients that ask
    /// for none, or for one that no certificate is for. At least one, unless `fromRoutes`.
    pub certificates: Option<At<Vec<At<Certificate>>>>,
    /// Whether certificates are used that a cluster brings with its routes; these go first (`false`).
    /// Without any for the name a client asks for, and without `certificates`, it gets no connection.
    pub from_routes: Option<At<bool>>,
    /// PEM file of the authorities that client certificates are checked against (clients are not
    /// asked for one).
    pub client_ca: Option<At<Text>>,
    /// Whether a client without a certificate is served (`required`). Needs `clientCa`.
    pub client_auth: Option<At<ClientAuth>>,
    /// Files of 32 to 4096 random bytes, with which session tickets are made, so that other processes
    /// with the same files take them: the first makes new ones, all open them (keys of this process
    /// alone, changed every 6 h).
    pub ticket_keys: Option<At<Vec<At<Text>>>>,
    /// What becomes of clients that ask for a name that no certificate is for (`default`). Those that
    /// ask for none get the first certificate.
    pub unknown_name: Option<UnknownName>,
}

/// What a client gets that asks for a name nobody knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum UnknownName {
    /// The first certificate: the client finds out by itself that it is not for it.
    #[default]
    Default,
    /// The alert `unrecognized_name`, and no connection.
    Reject,
}

/// Whether clients must show a certificate. One that is shown is always checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    /// The handshake fails without one.
    Required,
    /// Clients without one are served too.
    Optional,
}

/// A certificate and its key. Both files are read again when they change; paths are relative to this
/// file.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Certificate {
    /// PEM file of the chain, the server's own certificate first.
    pub cert: At<Text>,
    /// PEM file of the private key.
    pub key: At<Text>,
    /// Names it is used for, like `example.com` and `*.example.com` (those in the certificate).
    pub hosts: Option<At<Vec<At<Text>>>>,
}

/// What happens between a signal and the end of the process.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Drain {
    /// How long connections are still accepted (`0s`).
    pub wait: Option<At<DurationText>>,
    /// How long running and held requests may go on (`30s`).
    pub timeout: Option<At<DurationText>>,
}

/// The access log.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct AccessLog {
    /// Which requests are logged (`limited`).
    pub mode: Option<AccessLogMode>,
    /// Requests per second and worker that `limited` logs without sampling (100).
    pub per_second: Option<At<i64>>,
    /// (`text`)
    pub format: Option<LogFormat>,
    /// `stderr`, `stdout`, or a file, relative to this one (`stderr`).
    pub file: Option<At<Text>>,
}

/// Which requests are logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AccessLogMode {
    /// Every request up to `perSecond` per worker; beyond it one in 100 with its weight. Refusals
    /// and 5xx always.
    Limited,
    /// Every request.
    All,
    /// None.
    Off,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Bounds on what a client or an endpoint may cost.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Limits {
    /// First to last byte of a request head; as long from the connection to that first byte (`10s`).
    pub head_timeout: Option<At<DurationText>>,
    /// An idle client connection is closed after this (`75s`).
    pub keep_alive: Option<At<DurationText>>,
    /// The same for HTTP/2 (`300s`).
    pub http2_idle: Option<At<DurationText>>,
    /// Age at which a client connection is asked to end, give or take a tenth; 0 = none (`0s`).
    pub connection_age: Option<At<DurationText>>,
    /// Requests a client connection may carry (10000).
    pub requests_per_connection: Option<At<i64>>,
    /// No byte of a request body (`60s`).
    pub body_idle: Option<At<DurationText>>,
    /// Bytes per second a request body must keep up on average (240).
    pub body_min_rate: Option<At<i64>>,
    /// A client that takes no byte of a response (`60s`).
    pub write_stall: Option<At<DurationText>>,
    /// TLS handshake (`10s`).
    pub handshake: Option<At<DurationText>>,
    /// Connecting to an endpoint (`2s`).
    pub connect: Option<At<DurationText>>,
    /// Attempts of one request over fixed endpoints (3).
    pub attempts: Option<At<i64>>,
    /// No byte either way in an upgraded connection (`1h`).
    pub tunnel_idle: Option<At<DurationText>>,
    /// How long an endpoint's slot lingers after its client has left (`30s`).
    pub abort_linger: Option<At<DurationText>>,
    /// Bytes of a request or response head (65536).
    pub head_bytes: Option<At<i64>>,
    /// Fields of a head (100).
    pub head_fields: Option<At<i64>>,
    /// Bytes of a request target (8192).
    pub target_bytes: Option<At<i64>>,
    /// Bytes of trailers (16384).
    pub trailer_bytes: Option<At<i64>>,
    /// Bytes of a request body; 0 = no bound (0).
    pub body_bytes: Option<At<i64>>,
    /// Client connections open at once, over all listeners; those beyond are closed at once; 0 =
    /// four fifths of the file descriptors the process may have (0).
    pub connections: Option<At<i64>>,
    /// The same of one client address, or of one /64 network of IPv6; addresses of `trustedProxies`
    /// are not counted; 0 = no bound (0).
    pub connections_per_address: Option<At<i64>>,
    /// Requests held at once over all revisions (10000).
    pub held: Option<At<i64>>,
    /// Of these, requests of one namespace, at most `held`; 0 = half of `held` while more than one
    /// namespace has revisions, else all (0).
    pub held_per_namespace: Option<At<i64>>,
    /// The same of one client address, or of one /64 network of IPv6, at most `held`; 0 = no bound
    /// (0). Requests of which only an address of `gateway.trustedProxies` is known do not count.
    pub held_per_address: Option<At<i64>>,
    /// Bytes kept for held requests, over all revisions: bodies, each charged 64 KiB at most, and of
    /// each head what goes beyond 2 KiB. A request that needs more than there may be is refused
    /// (268435456).
    pub held_bytes: Option<At<i64>>,
    /// Concurrent requests of an HTTP/2 connection, 1 to 1000 (100).
    pub http2_streams: Option<At<i64>>,
    /// Bytes of memory the process should stay within, buffers of its connections in the kernel
    /// included, at least 16777216; 0 = from the cgroup, else none (0).
    pub memory: Option<At<i64>>,
    /// An idle connection to an endpoint is closed after this (`55s`).
    pub upstream_idle: Option<At<DurationText>>,
    /// Idle connections kept per endpoint and worker (8).
    pub upstream_idle_per_endpoint: Option<At<i64>>,
    /// What happens to paths with `/./` or `/../`, also percent-encoded (`reject`). Those beside `\`,
    /// `%2f` or `%5c`, or with a `;` behind their dots, cannot be resolved: only `keep` lets them in.
    pub dot_segments: Option<DotSegments>,
    /// What happens to request header fields with `_` in their name, which CGI and its kin take for
    /// `-` (`allow`). Those that would read as `X-Forwarded-*` or the like are always dropped.
    pub underscores: Option<Underscores>,
}

/// Handling of header fields with `_` in their name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Underscores {
    /// Routed by and forwarded like any other.
    Allow,
    /// As if they had not been sent.
    Drop,
    /// The request is refused as `bad_request`.
    Reject,
}

/// Handling of dot segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DotSegments {
    /// Refused as `bad_request`.
    Reject,
    /// Resolved before routing and forwarding.
    Normalise,
    /// Routed and forwarded as they are.
    Keep,
}
