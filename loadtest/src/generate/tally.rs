//! What one thread counts.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::report::Errors;

/// The longest latency told apart, in microseconds: an hour.
const LATENCY_MAX: u64 = 3_600_000_000;

/// Digits of a latency that are exact.
const DIGITS: u8 = 3;

/// One more than the largest status code.
const STATUSES: usize = 1000;

/// Why a request has no answer.
#[derive(Debug)]
pub(super) enum Fault {
    /// The connection could not be made.
    Connect(String),
    /// The connection or stream ended before the answer did.
    Closed(String),
    /// The other side ends the connection and has not looked at the request, which may go to
    /// another.
    Refused(String),
    /// No answer in time.
    Timeout(&'static str),
    /// What came is no answer of the protocol.
    Invalid(String),
}

impl Fault {
    /// Takes an error of a connection that was open.
    pub(super) fn lost(error: &std::io::Error) -> Self {
        Self::Closed(error.to_string())
    }
}

/// A request to send.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    /// Where its latency counts from.
    pub(super) due: Instant,
    /// Where its time limit counts from.
    pub(super) begun: Instant,
    /// Whether it belongs to the measured time.
    pub(super) counted: bool,
}

/// The part of an answer that is counted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Answer {
    /// Zero where the protocol has none.
    pub(super) status: u16,
    /// Bytes of its body.
    pub(super) bytes: u64,
}

/// What one thread counts.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    /// Answers that came within this time make the rate.
    window: (Instant, Option<Instant>),
    pub(super) sent: u64,
    pub(super) answers: u64,
    /// Answers within the window, also to what was sent before it.
    pub(super) within: u64,
    pub(super) errors: Errors,
    pub(super) missed: u64,
    /// Connections of `--hold` still open at the end.
    pub(super) held: u64,
    pub(super) statuses: Box<[u64]>,
    pub(super) bytes_up: u64,
    pub(super) bytes_down: u64,
    /// In microseconds.
    pub(super) latency: Histogram<u64>,
    pub(super) last_answer: Option<Instant>,
    /// The first that went wrong, in words.
    pub(super) first_error: Option<String>,
}

impl Tally {
    pub(super) fn new(start: Instant, end: Option<Instant>) -> Self {
        Self {
            window: (start, end),
            sent: 0,
            answers: 0,
            within: 0,
            errors: Errors::default(),
            missed: 0,
            held: 0,
            statuses: vec![0; STATUSES].into(),
            bytes_up: 0,
            bytes_down: 0,
            latency: histogram(),
            last_answer: None,
            first_error: None,
        }
    }

    /// An answer that has been read to its end.
    pub(super) fn answer(&mut self, ticket: &Ticket, now: Instant, answer: Answer, up: u64) {
        let (start, end) = self.window;
        if now >= start && end.is_none_or(|end| now <= end) {
            self.within += 1;
        }
        if !ticket.counted {
            return;
        }
        self.sent += 1;
        self.answers += 1;
        self.last_answer = Some(now);
        self.bytes_up += up;
        self.bytes_down += answer.bytes;
        if let Some(count) = self.statuses.get_mut(usize::from(answer.status)) {
            *count += 1;
        }
        self.latency.saturating_record(micros(now - ticket.due));
    }

    /// A request that has no answer.
    pub(super) fn fault(&mut self, ticket: &Ticket, fault: Fault, up: u64) {
        if !ticket.counted {
            return;
        }
        self.sent += 1;
        self.bytes_up += up;
        self.note(fault);
    }

    fn note(&mut self, fault: Fault) {
        let (count, words) = match fault {
            Fault::Connect(words) => (&mut self.errors.connect, words),
            Fault::Closed(words) | Fault::Refused(words) => (&mut self.errors.closed, words),
            Fault::Timeout(words) => (&mut self.errors.timeout, words.to_owned()),
            Fault::Invalid(words) => (&mut self.errors.invalid, words),
        };
        *count += 1;
        self.first_error.get_or_insert(words);
    }

    /// Adds what another thread counted.
    pub(super) fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.answers += other.answers;
        self.within += other.within;
        self.errors.connect += other.errors.connect;
        self.errors.closed += other.errors.closed;
        self.errors.timeout += other.errors.timeout;
        self.errors.invalid += other.errors.invalid;
        self.missed += other.missed;
        self.held += other.held;
        for (count, other) in self.statuses.iter_mut().zip(&other.statuses) {
            *count += other;
        }
        self.bytes_up += other.bytes_up;
        self.bytes_down += other.bytes_down;
        // Both have the same bounds, so that adding cannot fail.
        self.latency.add(&other.latency).unwrap_or_default();
        self.last_answer = self.last_answer.max(other.last_answer);
        if self.first_error.is_none() {
            self.first_error.clone_from(&other.first_error);
        }
    }
}

/// Latency in microseconds.
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MAX, DIGITS)
        .expect("the bounds are constants the crate allows")
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(LATENCY_MAX)
}
