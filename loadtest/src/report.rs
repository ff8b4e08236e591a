//! What a run of load found, as text for people and JSON for programs.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bytesize::ByteSize;
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
    /// Open loop: requests that were due and never sent, because the backlog was full or they had
    /// waited in it for longer than `--timeout`. Not part of `sent`.
    #[serde(default)]
    pub missed: u64,
    /// With `--hold`: connections still open when the time was over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<u64>,
    /// Answers by status code.
    pub statuses: BTreeMap<u16, u64>,
    /// Body bytes sent.
    pub bytes_up: u64,
    /// Body bytes received.
    pub bytes_down: u64,
    /// Answers per second: those that came within the measured time.
    pub rate: f64,
    /// From the intended send time in open loop, from the actual one in closed loop.
    pub latency: Latency,
    /// User and system time of the generator's process over the measured time, per answer, µs.
    pub cpu_micros: f64,
    /// The first of `errors` in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_error: Option<String>,
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

/// For people: what was asked, what came back, how fast.
impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.asked(out)?;
        self.came_back(out)?;
        let Latency { min, mean, max, .. } = self.latency;
        if self.answers > 0 {
            let mean = Duration::from_secs_f64(mean / 1e6);
            let (min, max) = (time(min), time(max));
            writeln!(out, "latency   min {min}  mean {mean:.1?}  max {max}")?;
            write!(out, "         ")?;
            let Latency {
                p50,
                p75,
                p90,
                p99,
                p999,
                ..
            } = self.latency;
            for (name, micros) in [
                ("p50", p50),
                ("p75", p75),
                ("p90", p90),
                ("p99", p99),
                ("p99.9", p999),
            ] {
                write!(out, " {name} {} ", time(micros))?;
            }
            writeln!(out)?;
            writeln!(out, "cost      {:.2} µs of CPU per answer", self.cpu_micros)?;
        }
        Ok(())
    }
}

impl Report {
    fn asked(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} over {}: ", self.url, self.protocol)?;
        write!(out, "{} connections", self.connections)?;
        if self.streams > 1 {
            write!(out, " of {} streams", self.streams)?;
        }
        if let Some(rate) = self.target_rate {
            write!(out, ", {rate} requests/s")?;
        }
        writeln!(out, ", {:.1} s", self.seconds)
    }

    fn came_back(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, answers, .. } = self;
        writeln!(out, "requests  {sent} sent, {answers} answered")?;
        if self.missed > 0 {
            writeln!(out, "missed    {} were due and never sent", self.missed)?;
        }
        if let Some(held) = self.held {
            writeln!(out, "held      {held} connections open at the end")?;
        }
        let Errors {
            connect,
            closed,
            timeout,
            invalid,
        } = self.errors;
        if self.errors.total() > 0 {
            writeln!(
                out,
                "errors    {connect} connect, {closed} closed, {timeout} timeout, {invalid} invalid"
            )?;
        }
        if let Some(error) = &self.first_error {
            writeln!(out, "          the first: {error}")?;
        }
        if !self.statuses.is_empty() {
            let statuses = self.statuses.iter();
            let statuses: Vec<_> = statuses.map(|(code, n)| format!("{code} × {n}")).collect();
            writeln!(out, "statuses  {}", statuses.join(", "))?;
        }
        let (up, down) = (ByteSize(self.bytes_up), ByteSize(self.bytes_down));
        writeln!(out, "bodies    {up} up, {down} down")?;
        writeln!(out, "rate      {:.0} answers/s", self.rate)
    }
}

fn time(micros: u64) -> String {
    format!("{:.1?}", Duration::from_micros(micros))
}
