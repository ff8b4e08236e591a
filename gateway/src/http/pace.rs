//! How one side of an exchange keeps up: what its time limits are judged by. Cells, because the
//! futures that read and write lend it to the one that watches the clock.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use activator::admission::Clock;

/// Progress of one connection during one exchange.
#[derive(Debug)]
pub struct Pace {
    clock: Rc<Clock>,
    /// Since when a read has been waiting for the peer.
    starved_since: Cell<Option<Instant>>,
    /// How long reads before that one waited.
    starved: Cell<Duration>,
    /// Since when a write has been waiting for the peer.
    blocked_since: Cell<Option<Instant>>,
    last: Cell<Instant>,
    read: Cell<u64>,
    body: Cell<u64>,
    written: Cell<u64>,
}

impl Pace {
    #[must_use]
    pub fn new(clock: &Rc<Clock>) -> Pace {
        Pace {
            clock: clock.clone(),
            starved_since: Cell::new(None),
            starved: Cell::new(Duration::ZERO),
            blocked_since: Cell::new(None),
            last: Cell::new(clock.now()),
            read: Cell::new(0),
            body: Cell::new(0),
            written: Cell::new(0),
        }
    }

    pub fn read_waits(&self) {
        if self.starved_since.get().is_none() {
            self.starved_since.set(Some(self.clock.now()));
        }
    }

    pub fn read_moved(&self, bytes: usize) {
        let now = self.clock.now();
        if let Some(since) = self.starved_since.take() {
            self.starved
                .set(self.starved.get() + now.saturating_duration_since(since));
        }
        self.read.set(self.read.get() + bytes as u64);
        self.last.set(now);
    }

    /// Bytes of a body were passed on.
    pub fn body_moved(&self, bytes: usize) {
        self.body.set(self.body.get() + bytes as u64);
    }

    /// Bytes of the body read from this side and passed on.
    #[must_use]
    pub fn body_bytes(&self) -> u64 {
        self.body.get()
    }

    pub fn write_waits(&self) {
        if self.blocked_since.get().is_none() {
            self.blocked_since.set(Some(self.clock.now()));
        }
    }

    pub fn write_moved(&self, bytes: usize) {
        self.blocked_since.set(None);
        self.written.set(self.written.get() + bytes as u64);
        self.last.set(self.clock.now());
    }

    /// When the last byte moved either way.
    #[must_use]
    pub fn last(&self) -> Instant {
        self.last.get()
    }

    /// Bytes read since the exchange began.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.read.get()
    }

    #[must_use]
    pub fn bytes_written(&self) -> u64 {
        self.written.get()
    }

    /// When a write that waits now will have stalled for `limit`.
    #[must_use]
    pub fn stall_deadline(&self, limit: Duration) -> Option<Instant> {
        self.blocked_since.get().map(|since| since + limit)
    }

    /// When a read that waits now breaks `idle` or the minimum rate (bytes per second after
    /// `grace`). Only time spent waiting counts: a peer we do not read from is not slow.
    #[must_use]
    pub fn body_deadline(&self, idle: Duration, rate: u64, grace: Duration) -> Option<Instant> {
        let since = self.starved_since.get()?;
        let by_idle = since + idle;
        if rate == 0 {
            return Some(by_idle);
        }
        let earned = Duration::from_millis(self.read.get().saturating_mul(1000) / rate);
        let by_rate = since + (grace + earned).saturating_sub(self.starved.get());
        Some(by_idle.min(by_rate))
    }
}
