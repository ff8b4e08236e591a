//! The file format as people write it. Unknown keys are refused; nothing here is checked for
//! meaning yet. The comments of these types are the user's reference (`docs/configuration.md`).

mod gateway;
mod queue;

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

pub use crate::at::{At, Mark, Pair, Pairs};
pub use crate::revision::{EndpointTls as FedTls, Fed, Knative};
pub use gateway::{
    AccessLog, AccessLogMode, Audience, Certificate, ClientAuth, DotSegments, Drain, Gateway,
    Limits, Listener, LogFormat, ProxyProtocol, Tls, Underscores, UnknownName,
};
pub use queue::{Deadline, Priority, Queue, RampUp, WaitText};

pub(crate) type Text = Box<str>;

/// A path relative to the file it is written in.
pub(crate) fn beside(file: &str, path: &str) -> std::path::PathBuf {
    let file = std::path::Path::new(file);
    file.parent().unwrap_or(file).join(path)
}

/// A configuration file is a YAML stream of such documents. Several documents, files and
/// directories merge into one whole.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Document {
    /// Process options; at most once per run.
    pub gateway: Option<At<Gateway>>,
    /// What default hosts end in: `NAME.NAMESPACE.DOMAIN` (`example.com`). Given by one file only.
    pub domain: Option<At<Text>>,
    /// What is asked for, and where it goes.
    #[serde(default)]
    pub routes: Option<Vec<At<Route>>>,
    /// Immutable versions of services that routes send requests to.
    #[serde(default)]
    pub revisions: Option<Vec<At<Revision>>>,
}

/// Hosts and rules that lead requests to revisions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Route {
    /// A DNS label, unique in its namespace. The default host is `NAME.NAMESPACE.DOMAIN`.
    pub name: At<Text>,
    /// Where the route's revisions are looked up (`default`).
    pub namespace: Option<At<Text>>,
    /// Hosts it answers on beside the default host. `*.bot.example.com` covers one or more labels
    /// before `.bot.example.com`; `*` alone matches what nothing else does.
    pub hosts: Option<Vec<At<Text>>>,
    /// Whether it answers on its default host, and tags on theirs (`true`).
    pub default_host: Option<At<bool>>,
    /// Which listeners serve it (`public`).
    pub visibility: Option<Visibility>,
    /// Targets and their shares. Without `rules`, every request goes here; with `rules`, only its
    /// tags are looked at, where the rule that matched lacks the tag asked for.
    pub traffic: Option<At<Vec<At<Target>>>>,
    /// Requests with the same key keep reaching the same revision (drawn per request).
    pub sticky: Option<Box<At<Sticky>>>,
    /// Tried by precedence: the longest path first; at equal length an exact path, then more
    /// headers, then named methods, then the order of the file. Without rules there is one that
    /// matches everything and uses `traffic`.
    pub rules: Option<Vec<At<Rule>>>,
    /// Which of its requests go first where requests wait (`queue.priority` of the revision).
    pub priority: Option<Box<At<Priority>>>,
    /// How long clients wait, as they say themselves (`grpc-timeout` of gRPC requests alone).
    pub deadline: Option<Box<At<Deadline>>>,
    /// A target whose percent rises from 0 gets its share once it has a ready endpoint, and is asked
    /// for one meanwhile; until then the others, as they were, have it (`false`).
    pub warm_before_shift: Option<At<bool>>,
    /// What `K-Network-Hash: override` stands for. A request that has it beside `K-Network-Probe:
    /// probe` is answered with this value once every target has an endpoint, and with 503 before.
    pub network_hash: Option<At<Text>>,
    /// Of each rule, its place among all rules that its hosts have in routes of the same source, whose
    /// order decides between paths of equal length (number of headers). Files cannot say it.
    #[serde(skip)]
    pub order: Option<Box<[u32]>>,
}

/// Who may reach a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Visibility {
    /// Served by every listener.
    Public,
    /// Served by internal listeners only, on `NAME.NAMESPACE`, `NAME.NAMESPACE.svc` and
    /// `NAME.NAMESPACE.svc.cluster.local`.
    ClusterLocal,
}

/// One target of a split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Target {
    /// Name of a revision in the route's namespace.
    pub revision: At<Text>,
    /// Share of the requests, an integer; those of a split sum to 100. A lone target needs none
    /// (100). A tagged target with 0 gets tagged requests only.
    pub percent: Option<At<i64>>,
    /// Reaches this target alone: on host `TAG-` + the default host, or by header
    /// `Knative-Serving-Tag: TAG` on the route's own hosts. A DNS label.
    pub tag: Option<At<Text>>,
    /// Overwritten on the request; wins over the rule's.
    pub set_headers: Option<Box<Pairs>>,
}

/// Where the key of a sticky split comes from: exactly one of `header` and `cookie`. A request
/// without a key is drawn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Sticky {
    /// The value of this request header is the key.
    pub header: Option<At<Text>>,
    /// The value of this cookie is the key; the gateway sets it where it is missing.
    pub cookie: Option<At<Text>>,
    /// How long the cookie is kept (`24h`).
    pub ttl: Option<At<DurationText>>,
}

/// Which requests, and what happens to them: exactly one of `traffic`, `redirect`, `respond` and
/// `reroute`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Rule {
    /// The raw path begins with this text; the longest wins. Begins with `/`.
    pub path: Option<At<Text>>,
    /// The raw path is this text.
    pub path_exact: Option<At<Text>>,
    /// Any of these methods (any).
    pub methods: Option<Vec<At<Text>>>,
    /// All of these header values, compared exactly; `""` means present with any value.
    pub headers: Option<Box<Pairs>>,
    /// Targets and their shares.
    pub traffic: Option<At<Vec<At<Target>>>>,
    /// Overwritten on the request.
    pub set_headers: Option<Box<Pairs>>,
    /// Overwritten on the response.
    pub set_response_headers: Option<Box<Pairs>>,
    /// The `Host` the endpoint sees.
    pub rewrite_host: Option<At<Text>>,
    /// Replaces the matched prefix, or the whole path of `pathExact`.
    pub rewrite_path: Option<At<Text>>,
    /// Answer with a redirect instead of forwarding.
    pub redirect: Option<Box<At<Redirect>>>,
    /// Answer with a fixed response instead of forwarding.
    pub respond: Option<Box<At<Respond>>>,
    /// Find another route for it instead of forwarding.
    pub reroute: Option<Box<At<Reroute>>>,
    /// Slot to response head; takes the place of the targets' `timeout`.
    pub timeout: Option<At<DurationText>>,
    /// Takes the place of the route's.
    pub priority: Option<Box<At<Priority>>>,
    /// Takes the place of the route's.
    pub deadline: Option<Box<At<Deadline>>>,
    /// Requests that come to a public listener by plain HTTP are sent to `https` on its standard port
    /// (`false`).
    pub https_only: Option<bool>,
}

/// A redirect; what is not given is taken from the request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Redirect {
    /// `http` or `https`.
    pub scheme: Option<At<Text>>,
    /// Host, with a port where needed.
    pub host: Option<At<Text>>,
    /// The whole path; the query is kept.
    pub path: Option<At<Text>>,
    /// 301, 302, 303, 307 or 308 (301).
    pub status: Option<At<i64>>,
}

/// A fixed response.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Respond {
    /// 200 to 599 (200).
    pub status: Option<At<i64>>,
    /// At most 64 KiB (empty).
    pub body: Option<At<Text>>,
    /// (`text/plain; charset=utf-8`)
    pub content_type: Option<At<Text>>,
}

/// Where a request is looked up once more: as if it had come to an internal listener for this host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Reroute {
    /// Also the `Host` the endpoint sees.
    pub host: At<Text>,
}

/// One immutable version of a service. Its endpoints are fixed (`endpoints`) or processes of this
/// machine (`process`), never both.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Revision {
    /// A DNS label, unique in its namespace.
    pub name: At<Text>,
    /// (`default`)
    pub namespace: Option<At<Text>>,
    /// What the endpoints speak (`http1`).
    pub protocol: Option<At<Protocol>>,
    /// Speak it over TLS (in clear).
    pub tls: Option<Box<At<EndpointTls>>>,
    /// Hard limit of requests in flight per endpoint (0 = none).
    pub concurrency: Option<At<i64>>,
    /// From slot to response head; `0s` = no bound (`300s`).
    pub timeout: Option<At<DurationText>>,
    /// From arrival to the last byte; `0s` = no bound (`0s`).
    pub max_duration: Option<At<DurationText>>,
    /// No byte either way after the response head; `0s` = no bound (`0s`).
    pub idle: Option<At<DurationText>>,
    /// Requests that wait for a slot.
    pub queue: Option<Box<Queue>>,
    /// Fixed addresses: `10.0.0.5:8080`, `[::1]:8080`, `svc.internal:8080`. Names are resolved
    /// again as their TTL ends.
    pub endpoints: Option<At<Vec<At<Text>>>>,
    /// Active check of fixed endpoints (none).
    pub health: Option<Box<At<Health>>>,
    /// Started and stopped on demand on this machine.
    pub process: Option<Box<At<Process>>>,
    /// How many processes there are, and what new endpoints get.
    pub scale: Option<Box<At<Scale>>>,
    /// Its endpoints come from the source that says it, apart from the document. Not for files.
    #[serde(skip)]
    pub fed: Option<Box<Fed>>,
    /// TLS to them, in place of `tls`. Not for files.
    #[serde(skip)]
    pub fed_tls: Option<Box<FedTls>>,
}

/// The protocol spoken with endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 from the first byte; with `tls`, HTTP/2 over TLS.
    H2c,
}

/// TLS to the endpoints of a revision: 1.2 and 1.3. Their certificate is always checked. Files are
/// read again when they change; paths are relative to this file.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct EndpointTls {
    /// The name that is asked for and that the certificate must be for (the endpoint's host name as
    /// written, else its address).
    pub server_name: Option<At<Text>>,
    /// PEM file of the authorities to trust (those of the system).
    pub ca: Option<At<Text>>,
    /// What we show to endpoints that ask who we are (nothing).
    pub client_cert: Option<At<ClientCertificate>>,
}

/// Our certificate for endpoints, and its key.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ClientCertificate {
    /// PEM file of the chain, our own certificate first.
    pub cert: At<Text>,
    /// PEM file of the private key.
    pub key: At<Text>,
}

/// `GET path` must answer 2xx or 3xx. Asked in the revision's `protocol` and in clear; a revision
/// with `tls` cannot have it.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Health {
    /// Begins with `/`.
    pub path: At<Text>,
    /// (`5s`)
    pub interval: Option<At<DurationText>>,
}

/// A program that listens on `127.0.0.1:$PORT`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Process {
    /// Program and arguments, run without a shell. It finds `PORT` in its environment; `$PORT` in
    /// arguments is replaced.
    pub command: At<Vec<At<Text>>>,
    /// Beside the inherited environment less `TIDEGATE_*`.
    pub env: Option<Box<Pairs>>,
    /// Working directory, relative to the file (the gateway's own).
    pub directory: Option<At<Text>>,
    /// When the process may get requests (a TCP connect succeeds).
    pub readiness: Option<Readiness>,
}

/// `GET path` must answer 2xx or 3xx. Asked in the revision's `protocol` and in clear; a revision
/// with `tls` cannot have it.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Readiness {
    /// Begins with `/`.
    pub path: At<Text>,
}

/// Scaling. `rampUp` and `idleStream` are for every revision, the others for those with `process`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Scale {
    /// Fewest processes (0).
    pub min: Option<At<i64>>,
    /// Most processes; 0 = unlimited (10).
    pub max: Option<At<i64>>,
    /// Running and waiting requests wanted per process, at least 1 (70 % of `concurrency`; 100
    /// without one).
    pub target: Option<At<f64>>,
    /// Over which demand is averaged, at least `1s`. The panic window is a tenth of it, at least
    /// 1 s, entered at twice the target (`60s`).
    pub window: Option<At<DurationText>>,
    /// To zero when the average over the window is zero and this has passed since (`30s`).
    pub grace: Option<At<DurationText>>,
    /// An endpoint that just appeared gets few requests at first.
    pub ramp_up: Option<Box<RampUp>>,
    /// An answer or upgraded connection without a byte either way for this long does not keep the
    /// revision up; `0s` = it always does (`0s`). Holds for requests that begin from then on.
    pub idle_stream: Option<At<DurationText>>,
}

/// A number and a unit: `500ms`, `10s`, `5m`, `1h`, `1m30s`. `0` needs no unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DurationText(pub Text);

impl JsonSchema for DurationText {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A number and a unit: `500ms`, `10s`, `5m`, `1h`, `1m30s`. `0` needs no unit.",
            "pattern": "^(0|([0-9]+(ms|s|m|h))+)$"
        })
    }
}
