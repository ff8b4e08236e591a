//! The facts of one finished exchange: plain data that metrics and access log are written from.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use activator::admission::Shortage;
pub use activator::starts::Phases;

use crate::http::field::Head;
use crate::refusal::Reason;

/// Whose exchange it was. Every part is `""` when nothing matched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Names<'a> {
    pub namespace: &'a str,
    pub route: &'a str,
    pub revision: &'a str,
}

/// The protocol spoken with the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http10,
    Http11,
    Http2,
}

impl Protocol {
    /// As the access log writes it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Protocol::Http10 => "HTTP/1.0",
            Protocol::Http11 => "HTTP/1.1",
            Protocol::Http2 => "HTTP/2",
        }
    }
}

/// Methods as metrics tell them apart (RFC 9110 §9, RFC 5789): a closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Connect,
    Options,
    Trace,
    Patch,
    Other,
}

impl Method {
    #[must_use]
    pub fn of(method: &[u8]) -> Method {
        match method {
            b"GET" => Method::Get,
            b"HEAD" => Method::Head,
            b"POST" => Method::Post,
            b"PUT" => Method::Put,
            b"DELETE" => Method::Delete,
            b"CONNECT" => Method::Connect,
            b"OPTIONS" => Method::Options,
            b"TRACE" => Method::Trace,
            b"PATCH" => Method::Patch,
            _ => Method::Other,
        }
    }

    /// As metrics write it: OpenTelemetry's word for all others is `_OTHER`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Delete => "DELETE",
            Method::Connect => "CONNECT",
            Method::Options => "OPTIONS",
            Method::Trace => "TRACE",
            Method::Patch => "PATCH",
            Method::Other => "_OTHER",
        }
    }
}

/// Why a request had to wait for a slot: a closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitReason {
    /// There was no endpoint.
    Cold,
    /// Every endpoint had as many requests as it may have, or others waited already.
    Full,
    /// The same, but one that came or failed a moment ago will have more soon.
    Paced,
    /// Every endpoint had failed a request a moment ago.
    Suspect,
}

impl WaitReason {
    /// In the order of declaration.
    pub const ALL: [WaitReason; 4] = [
        WaitReason::Cold,
        WaitReason::Full,
        WaitReason::Paced,
        WaitReason::Suspect,
    ];

    /// The word of the access log and of `Server-Timing`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            WaitReason::Cold => "cold",
            WaitReason::Full => "full",
            WaitReason::Paced => "paced",
            WaitReason::Suspect => "suspect",
        }
    }
}

impl From<Shortage> for WaitReason {
    fn from(shortage: Shortage) -> WaitReason {
        match shortage {
            Shortage::NoEndpoint => WaitReason::Cold,
            Shortage::AllBusy => WaitReason::Full,
            Shortage::Paced => WaitReason::Paced,
            Shortage::AllSuspect => WaitReason::Suspect,
        }
    }
}

/// One finished exchange, as its end saw it. Bytes are as received: any length, any content.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    pub names: Names<'a>,
    /// First byte of the request.
    pub arrived: Instant,
    /// Arrival → last byte of the answer, or the end that came instead.
    pub total: Duration,
    /// Spent in the queue.
    pub waited: Duration,
    /// Owned by the endpoint: neither waiting nor ours.
    pub endpoint: Duration,
    /// Of that, how long it was no demand because nothing moved.
    pub rested: Duration,
    /// Whether it waited for a slot at all.
    pub held: bool,
    /// Why, if it did.
    pub wait_reason: Option<WaitReason>,
    /// Status sent to the client; 499 when the client left before; 0 when there is none.
    pub code: u16,
    /// `None` when the endpoint answered and its answer ended well.
    pub reason: Option<Reason>,
    /// Times it was given to an endpoint.
    pub attempts: u32,
    pub request_bytes: u64,
    pub response_bytes: u64,
    pub method: &'a [u8],
    pub host: &'a [u8],
    /// Request target with its query string; the access log hides secrets in it.
    pub target: &'a [u8],
    pub user_agent: &'a [u8],
    pub request_id: &'a [u8],
    pub client: IpAddr,
    pub endpoint_address: Option<SocketAddr>,
    pub protocol: Protocol,
}

/// What only a request log wants to know of an exchange, beside its [`Facts`].
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Labels of the revision; empty = none.
    pub service: &'a str,
    pub configuration: &'a str,
    /// The client's.
    pub port: u16,
    /// Bytes of the request's body, as announced; `None` = nobody said.
    pub content_length: Option<u64>,
    /// Bytes of the answer's body.
    pub answer_bytes: u64,
    /// Of the request.
    pub head: &'a Head,
}

impl Facts<'_> {
    /// Our own share of the time: neither waiting nor endpoint.
    #[must_use]
    pub fn overhead(&self) -> Duration {
        self.total
            .saturating_sub(self.waited)
            .saturating_sub(self.endpoint)
    }
}

/// The last time a revision came up from zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// First arrival.
    pub at: std::time::SystemTime,
    pub phases: Phases,
}

/// Whether a client reads this word; the others say how an answer that had begun was cut short, or
/// that nobody was there to read one.
pub(crate) const fn is_answer(reason: Reason) -> bool {
    !matches!(
        reason,
        Reason::ClientGone | Reason::StreamTimeout | Reason::EndpointGone
    )
}

/// Whole nanoseconds; `u64::MAX` stands for anything beyond 584 years.
pub(crate) fn nanos(duration: Duration) -> u64 {
    duration
        .as_secs()
        .saturating_mul(1_000_000_000)
        .saturating_add(u64::from(duration.subsec_nanos()))
}

#[cfg(any(test, fuzzing))]
pub(crate) mod example {
    use super::*;

    /// A held request of the coffee example.
    pub(crate) fn facts() -> Facts<'static> {
        Facts {
            names: Names {
                namespace: "default",
                route: "coffee",
                revision: "coffee-00001",
            },
            arrived: Instant::now(),
            total: Duration::from_micros(57_250),
            waited: Duration::from_millis(12),
            endpoint: Duration::from_millis(45),
            rested: Duration::from_millis(5),
            held: true,
            wait_reason: Some(WaitReason::Cold),
            code: 200,
            reason: None,
            attempts: 1,
            request_bytes: 120,
            response_bytes: 3_400,
            method: b"GET",
            host: b"coffee.default.example.com",
            target: b"/brew?sleep=100",
            user_agent: b"curl/8.5.0",
            request_id: b"2f1c",
            client: IpAddr::from([192, 0, 2, 7]),
            endpoint_address: Some(SocketAddr::from(([127, 0, 0, 1], 9001))),
            protocol: Protocol::Http11,
        }
    }
}
