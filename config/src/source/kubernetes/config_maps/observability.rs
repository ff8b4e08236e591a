//! config-observability: the request log, and where measurements and traces go.

use std::sync::Arc;

use super::read::Map;
use super::{BadValue, CheckTemplate, Data, Unheeded};

pub(super) const NAME: &str = "config-observability";

const REQUEST_LOG: &str = "logging.enable-request-log";
const TEMPLATE: &str = "logging.request-log-template";

/// What holds where `logging.request-log-template` is not set: Knative's own.
pub const DEFAULT_TEMPLATE: &str = concat!(
    r#"{"httpRequest": {"requestMethod": "{{.Request.Method}}", "#,
    r#""requestUrl": "{{js .Request.RequestURI}}", "#,
    r#""requestSize": "{{.Request.ContentLength}}", "status": {{.Response.Code}}, "#,
    r#""responseSize": "{{.Response.Size}}", "userAgent": "{{js .Request.UserAgent}}", "#,
    r#""remoteIp": "{{js .Request.RemoteAddr}}", "serverIp": "{{.Revision.PodIP}}", "#,
    r#""referer": "{{js .Request.Referer}}", "latency": "{{.Response.Latency}}s", "#,
    r#""protocol": "{{.Request.Proto}}"}, "traceId": "{{.TraceID}}"}"#,
);

/// What config-observability says to a gateway. Keys that begin with `request-`, and
/// `logging.enable-probe-request-log`, are for queue-proxies: an activator logs no probe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observability {
    /// Requests to revisions of Knative are logged by this template: set while
    /// `logging.enable-request-log` is, to `logging.request-log-template` or [`DEFAULT_TEMPLATE`].
    pub request_log: Option<Arc<str>>,
    /// Of `metrics-protocol`, `tracing-protocol` and `runtime-profiling`.
    pub(super) unheeded: Vec<Unheeded>,
}

impl Observability {
    pub(super) fn of(data: &Data, check: CheckTemplate) -> Result<Observability, BadValue> {
        let map = Map { name: NAME, data };
        let enabled = map.flag(REQUEST_LOG, false)?;
        let template = data.get(TEMPLATE).map_or(DEFAULT_TEMPLATE, String::as_str);
        if !template.is_empty() {
            check(template).map_err(|problem| map.wrong(TEMPLATE, template, problem))?;
        } else if enabled {
            let problem = "the request log is on: write a template, or leave the key out";
            return Err(map.wrong(TEMPLATE, template, problem));
        }
        Ok(Observability {
            request_log: enabled.then(|| template.into()),
            unheeded: unheeded(map)?,
        })
    }
}

/// What has no effect here. Words that nobody knows are errors all the same.
fn unheeded(map: Map<'_>) -> Result<Vec<Unheeded>, BadValue> {
    let scraped = "metrics are scraped from the admin address";
    let metrics = [
        ("none", None),
        ("prometheus", None),
        ("http/protobuf", Some(scraped)),
        ("grpc", Some(scraped)),
    ];
    let passed_on = "trace headers are passed on, and no spans are sent";
    let tracing = [
        ("none", None),
        ("stdout", Some(passed_on)),
        ("http/protobuf", Some(passed_on)),
        ("grpc", Some(passed_on)),
    ];
    let profiling = [
        ("disabled", None),
        ("enabled", Some("there is no profile to be had over HTTP")),
    ];
    let said = [
        ("metrics-protocol", &metrics[..]),
        ("tracing-protocol", &tracing[..]),
        ("runtime-profiling", &profiling[..]),
    ];
    let mut all = Vec::new();
    for (key, words) in said {
        if let Some(instead) = map.word(key, None, words)? {
            all.push(map.unheeded(key, instead));
        }
    }
    Ok(all)
}
