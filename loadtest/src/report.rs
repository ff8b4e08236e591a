//! What a run of load found, as text for people and JSON for programs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The outcome of one `loadtest run`; what `--json` writes.
///
/// Of the requests begun within the measured time, each is either an answer or one of `errors`:
/// `sent == answers + errors.total()`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The URL asked for.
    pub url: String,
    /// `http1`, `h2c`, `h2` or `websocket`.
    pub protocol: String,
    /// Connections held open, or the bound on them with a new connection per request.
    pub connections: usize,
    /// Requests in flight per connection.
    pub streams: usize,
    /// Requests per second asked for; none in closed loop.
    pub target_rate: Option<f64>,
    /// Length of the measured time in seconds, warm-up not counted.
    pub seconds: f64,
    /// Requests begun.
    pub sent: u64,
    /// Answers read to their end.
    pub answers: u64,
    /// What did not end in an answer.
    pub errors: Errors,
    /// Answers by status code.
    pub statuses: BTreeMap<u16, u64>,
    /// Body bytes sent.
    pub bytes_up: u64,
    /// Body bytes received.
    pub bytes_down: u64,
    /// Answers per second.
    pub rate: f64,
    /// From the intended send time in open loop, from the actual one in closed loop.
    pub latency: Latency,
    /// User and system time of the generator's process over the measured time, per answer, µs.
    pub cpu_micros: f64,
}

/// Requests without an answer, by where they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Errors {
    /// The connection could not be made.
    pub connect: u64,
    /// The connection or stream ended before the answer did.
    pub closed: u64,
    /// No answer within `--timeout`.
    pub timeout: u64,
    /// What came is no answer of the protocol.
    pub invalid: u64,
}

impl Errors {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.connect + self.closed + self.timeout + self.invalid
    }
}

/// Latency of answers in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    pub min: u64,
    pub mean: f64,
    pub p50: u64,
    pub p75: u64,
    pub p90: u64,
    pub p99: u64,
    pub p999: u64,
    pub max: u64,
}
