//! Every metric family there is: the table that scrapes are made from and documented by.

use prometheus::proto::MetricType;

/// One family. Labels come from configuration or from closed sets, never from a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    pub name: &'static str,
    pub help: &'static str,
    pub labels: &'static [&'static str],
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    pub(crate) fn message(self) -> MetricType {
        match self {
            Kind::Counter => MetricType::COUNTER,
            Kind::Gauge => MetricType::GAUGE,
            Kind::Histogram => MetricType::HISTOGRAM,
        }
    }
}

const REVISION: &[&str] = &["namespace", "revision"];

/// Of Knative's classic activator metrics, without `pod_name` and `container_name`, which the
/// scraper knows better.
const KNATIVE: &[&str] = &[
    "namespace_name",
    "service_name",
    "configuration_name",
    "revision_name",
];
const KNATIVE_RESPONSE: &[&str] = &[
    "namespace_name",
    "service_name",
    "configuration_name",
    "revision_name",
    "response_code",
    "response_code_class",
];

/// Of Knative's metrics since its move to OpenTelemetry, as Prometheus spells them; without
/// `otel_scope_name` and its like, which name the library that counts.
const KN: &[&str] = &["kn_revision_name", "k8s_namespace_name"];
const KN_LABELLED: &[&str] = &[
    "kn_service_name",
    "kn_configuration_name",
    "kn_revision_name",
    "k8s_namespace_name",
];
const KN_HTTP: &[&str] = &[
    "http_request_method",
    "http_response_status_code",
    "kn_service_name",
    "kn_configuration_name",
    "kn_revision_name",
    "k8s_namespace_name",
];
const PEER: &[&str] = &["peer"];

macro_rules! families {
    ($($constant:ident $kind:ident $name:literal $labels:expr, $help:literal;)*) => {
        $(pub(crate) const $constant: Family = Family {
            name: $name,
            help: $help,
            labels: $labels,
            kind: Kind::$kind,
        };)*

        /// In the order a scrape shows them.
        pub const FAMILIES: &[Family] = &[$($constant),*];
    };
}

families! {
    REQUESTS Counter "tidegate_requests_total"
        &["namespace", "revision", "route", "code", "reason"],
        "Finished requests; reason is empty when the endpoint answered.";
    REQUEST_DURATION Histogram "tidegate_request_duration_seconds" REVISION,
        "From a request's arrival to the last byte of its answer.";
    OVERHEAD Histogram "tidegate_overhead_seconds" REVISION,
        "The gateway's own share of a request: neither waiting nor endpoint.";
    INFLIGHT Gauge "tidegate_inflight" REVISION,
        "Requests at endpoints now.";
    IDLE_STREAMS Gauge "tidegate_idle_streams" REVISION,
        "Of those at endpoints: streams on which nothing moves and that are no demand.";
    WAITING Gauge "tidegate_waiting" REVISION,
        "Requests in the queue now.";
    QUEUE_WAIT Histogram "tidegate_queue_wait_seconds" REVISION,
        "Time in the queue, of the requests that had to wait.";
    CONCURRENCY_AVERAGE Gauge "tidegate_concurrency_average" REVISION,
        "Running and waiting requests, averaged over the last second.";
    WAITING_AVERAGE Gauge "tidegate_waiting_average" REVISION,
        "Of these the waiting ones, averaged over the last second.";
    COLD_STARTS Counter "tidegate_cold_starts_total" REVISION,
        "Times the revision came up from zero.";
    COLD_START Histogram "tidegate_cold_start_seconds" &["namespace", "revision", "phase"],
        "Length of each phase of a cold start.";
    ENDPOINTS Gauge "tidegate_endpoints" &["namespace", "revision", "state"],
        "Endpoints by state.";
    REFUSED Counter "tidegate_refused_total" &["reason"],
        "Answers of the gateway's own, by reason word.";
    QUEUE_FULL Counter "tidegate_queue_full_total" &["bound"],
        "Requests that might not wait or had to give way, by the bound that was reached.";
    CONNECTIONS Gauge "tidegate_connections" &["listener"],
        "Open client connections.";
    CONNECTIONS_REFUSED Counter "tidegate_connections_refused_total" &["listener", "why"],
        "Client connections that were closed as soon as they were accepted.";
    ACCEPT_ERRORS Counter "tidegate_accept_errors_total" &["listener"],
        "Times that accepting connections failed: mostly for want of file descriptors.";
    HANDSHAKES_FAILED Counter "tidegate_tls_handshakes_failed_total" &["listener"],
        "TLS handshakes with clients that failed or took too long.";
    HTTP2_CLOSED Counter "tidegate_http2_closed_total" &["why"],
        "HTTP/2 connections of clients that were ended for what was sent on them.";
    CONFIG_VERSION Gauge "tidegate_config_version" &[],
        "Version of the configuration in force: 1 at first, one more with every swap.";
    WARMING_TARGETS Gauge "tidegate_warming_targets" &[],
        "Targets of routes that wait for their shares until they are warm.";
    CONFIG_REJECTED Counter "tidegate_config_rejected_total" &["source"],
        "Configuration changes that were rejected.";
    WORKER_BUSY Gauge "tidegate_worker_busy_ratio" &["worker"],
        "Share of the last period that a worker was not waiting for events.";
    MEMORY_BYTES Gauge "tidegate_memory_bytes" &[],
        "Memory that counts against the limit, buffers of connections in the kernel included.";
    MEMORY_LIMIT Gauge "tidegate_memory_limit_bytes" &[],
        "The limit of memory; 0 when none is known.";
    MEMORY_LEVEL Gauge "tidegate_memory_level" &[],
        "What is given up for want of memory: 0 nothing, 1 what lies idle, 2 holding requests, \
         3 new requests, 4 new connections and the largest exchanges.";
    REQUEST_BYTES Counter "tidegate_request_bytes_total" REVISION,
        "Bytes of requests received from clients.";
    RESPONSE_BYTES Counter "tidegate_response_bytes_total" REVISION,
        "Bytes of responses sent to clients.";
    CONCURRENCY_SECONDS Counter "tidegate_concurrency_seconds_total" REVISION,
        "Requests in flight, summed over time: what metering bills.";
    ACCESS_LOG_DROPPED Counter "tidegate_access_log_dropped_total" &[],
        "Access log records lost because the log could not keep up.";
    PANICS Counter "tidegate_panics_total" &["thread"],
        "Panics, each a fault of the gateway's own.";
    ACTIVATOR_COUNT Counter "activator_request_count" KNATIVE_RESPONSE,
        "Finished requests that reached a revision.";
    ACTIVATOR_LATENCIES Histogram "activator_request_latencies" KNATIVE_RESPONSE,
        "From arrival to the last byte of the answer, in milliseconds.";
    ACTIVATOR_CONCURRENCY Gauge "activator_request_concurrency" KNATIVE,
        "Running and waiting requests, averaged over the last second.";
    KN_CONCURRENCY Gauge "kn_revision_request_concurrency" KN_LABELLED,
        "Running and waiting requests of a Knative revision, averaged over the last second.";
    KN_QUEUED Gauge "kn_revision_request_queued" KN,
        "Requests in the queue of a Knative revision now.";
    KN_ACTIVE Gauge "kn_revision_request_active" KN,
        "Requests at pods of a Knative revision now.";
    KN_DURATION Histogram "http_server_request_duration_seconds" KN_HTTP,
        "From arrival to the last byte of the answer, of requests to Knative revisions.";
    KN_REACHABLE Gauge "kn_activator_stats_conn_reachable" PEER,
        "Whether the connection to Knative's autoscaler stands.";
    KN_ERRORS Counter "kn_activator_stats_conn_errors_total" PEER,
        "Times that it could not be made, or was lost.";
}
