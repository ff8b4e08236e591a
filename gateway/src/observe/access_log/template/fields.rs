//! What a template can name of a request, and what it gets.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::observe::facts::{Protocol, WaitReason};

/// One request as its line is written from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Values<'a> {
    pub(crate) method: &'a [u8],
    pub(crate) target: &'a [u8],
    pub(crate) host: &'a [u8],
    pub(crate) user_agent: &'a [u8],
    pub(crate) protocol: Protocol,
    /// Of the request's body; -1 = it was not said.
    pub(crate) content_length: i64,
    pub(crate) client: SocketAddr,
    pub(crate) code: u16,
    /// Bytes of the answer's body.
    pub(crate) size: u64,
    pub(crate) latency: Duration,
    pub(crate) waited: Duration,
    pub(crate) wait_reason: Option<WaitReason>,
    pub(crate) namespace: &'a [u8],
    pub(crate) revision: &'a [u8],
    pub(crate) service: &'a [u8],
    pub(crate) configuration: &'a [u8],
    pub(crate) endpoint: Option<IpAddr>,
    /// Names and values of the header fields the template asked for, in their order.
    pub(crate) headers: &'a [(&'a [u8], &'a [u8])],
}

/// What has a value of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Method,
    RequestUri,
    Path,
    Query,
    ContentLength,
    RemoteAddr,
    Proto,
    ProtoMajor,
    ProtoMinor,
    Host,
    UserAgent,
    Referer,
    Code,
    Size,
    Latency,
    QueueLatency,
    WaitReason,
    Revision,
    Namespace,
    Service,
    Configuration,
    PodName,
    PodIp,
    TraceId,
}

/// What something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Int,
    Float,
    Bool,
    /// Texts.
    List,
}

/// What is written.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value<'a> {
    Text(Cow<'a, [u8]>),
    Int(i64),
    Float(f64),
    Bool(bool),
    List(Vec<&'a [u8]>),
}

/// The names behind the dot of all that has one.
const NAMES: [(&str, Field); 25] = [
    ("Request.Method", Field::Method),
    ("Request.RequestURI", Field::RequestUri),
    ("Request.URL", Field::RequestUri),
    ("Request.URL.Path", Field::Path),
    ("Request.URL.RawQuery", Field::Query),
    ("Request.ContentLength", Field::ContentLength),
    ("Request.RemoteAddr", Field::RemoteAddr),
    ("Request.Proto", Field::Proto),
    ("Request.ProtoMajor", Field::ProtoMajor),
    ("Request.ProtoMinor", Field::ProtoMinor),
    ("Request.Host", Field::Host),
    ("Request.UserAgent", Field::UserAgent),
    ("Request.Referer", Field::Referer),
    ("Response.Code", Field::Code),
    ("Response.Size", Field::Size),
    ("Response.Latency", Field::Latency),
    ("Response.QueueLatency", Field::QueueLatency),
    ("Response.WaitReason", Field::WaitReason),
    ("Revision.Name", Field::Revision),
    ("Revision.Namespace", Field::Namespace),
    ("Revision.Service", Field::Service),
    ("Revision.Configuration", Field::Configuration),
    ("Revision.PodName", Field::PodName),
    ("Revision.PodIP", Field::PodIp),
    ("TraceID", Field::TraceId),
];

/// Header fields of the client's trace.
const TRACEPARENT: &str = "traceparent";
const B3_TRACE: &str = "x-b3-traceid";
const REFERER: &str = "referer";

impl Field {
    /// By what stands behind the dot.
    pub(super) fn named(name: &str) -> Option<Field> {
        let found = NAMES.iter().find(|(known, _)| *known == name);
        found.map(|(_, field)| *field)
    }

    pub(super) fn kind(self) -> Kind {
        match self {
            Field::ContentLength
            | Field::ProtoMajor
            | Field::ProtoMinor
            | Field::Code
            | Field::Size => Kind::Int,
            Field::Latency | Field::QueueLatency => Kind::Float,
            _ => Kind::Text,
        }
    }

    /// Header fields it is made of.
    pub(super) fn headers(self) -> &'static [&'static str] {
        match self {
            Field::Referer => &[REFERER],
            Field::TraceId => &[TRACEPARENT, B3_TRACE],
            _ => &[],
        }
    }

    pub(super) fn of<'a>(self, values: &Values<'a>) -> Value<'a> {
        let text = |text: String| Value::Text(Cow::Owned(text.into_bytes()));
        let path_length = memchr::memchr(b'?', values.target);
        let (path, query) = match path_length {
            Some(place) => (&values.target[..place], &values.target[place + 1..]),
            None => (values.target, &b""[..]),
        };
        Value::Text(match self {
            Field::Method => values.method.into(),
            Field::RequestUri => values.target.into(),
            Field::Path => percent_encoding::percent_decode(path).into(),
            Field::Query => query.into(),
            Field::Host => values.host.into(),
            Field::UserAgent => values.user_agent.into(),
            Field::Revision => values.revision.into(),
            Field::Namespace => values.namespace.into(),
            Field::Service => values.service.into(),
            Field::Configuration => values.configuration.into(),
            // An activator does not know it.
            Field::PodName => b"".into(),
            Field::WaitReason => {
                let word = values.wait_reason.map_or("", WaitReason::word);
                word.as_bytes().into()
            }
            Field::Referer => values.header(REFERER).into(),
            Field::TraceId => values.trace().into(),
            Field::Proto => match values.protocol {
                Protocol::Http10 => b"HTTP/1.0".into(),
                Protocol::Http11 => b"HTTP/1.1".into(),
                Protocol::Http2 => b"HTTP/2.0".into(),
            },
            Field::RemoteAddr => return text(values.client.to_string()),
            Field::PodIp => {
                let address = values.endpoint.map(|address| address.to_string());
                return text(address.unwrap_or_default());
            }
            Field::ProtoMajor => {
                return Value::Int(1 + i64::from(values.protocol == Protocol::Http2));
            }
            Field::ProtoMinor => return Value::Int(i64::from(values.protocol == Protocol::Http11)),
            Field::ContentLength => return Value::Int(values.content_length),
            Field::Code => return Value::Int(values.code.into()),
            Field::Size => return Value::Int(i64::try_from(values.size).unwrap_or(i64::MAX)),
            Field::Latency => return Value::Float(values.latency.as_secs_f64()),
            Field::QueueLatency => return Value::Float(values.waited.as_secs_f64()),
        })
    }
}

impl<'a> Values<'a> {
    /// All values of the header fields of this name.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let found = move |(known, _): &&(&[u8], &[u8])| known.eq_ignore_ascii_case(name.as_bytes());
        let headers = self.headers.iter().filter(found);
        headers.map(|(_, value)| *value)
    }

    /// The first; empty if there is none.
    pub(super) fn header(&self, name: &str) -> &'a [u8] {
        self.all(name).next().unwrap_or_default()
    }

    /// Of `traceparent` (W3C), else of B3. Only what can be one: it is written as it stands.
    fn trace(&self) -> &'a [u8] {
        let parent = self.header(TRACEPARENT);
        let of_parent = parent.split(|byte| *byte == b'-').nth(1);
        let trace = of_parent.unwrap_or_else(|| self.header(B3_TRACE));
        match trace.iter().all(u8::is_ascii_hexdigit) {
            true => trace,
            false => b"",
        }
    }
}
