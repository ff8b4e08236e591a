//! Demand: how many requests a revision runs and holds, now and on average.
//!
//! Each worker has a shard that only it writes: the counts of running, waiting and marked requests,
//! and the integral of each over time. A request is marked if it was let in while its revision's
//! requests were counted here for somebody else, who would not see them otherwise. An average over a window is the difference of two readings divided by the time between them, so
//! nothing is sampled and no request is too short to be seen.
//!
//! A shard is a sequence lock whose fields are all atomics. The writer makes the sequence odd, then
//! a release fence keeps that before the fields; the closing release store keeps the fields before
//! the even sequence. The reader loads the sequence (acquire), the fields, then an acquire fence
//! and the sequence again: if any field came from a later write, the fences pair and the second
//! load sees at least that write's odd sequence. No locked instruction on either side.
//!
//! What is marked carries an instant of its own, so that a change of nothing marked leaves it alone.
//!
//! A request may *rest*: a stream that has begun and on which nothing has moved for long. As long as it
//! does it is in no count but its own, and in no integral.

use std::time::Instant;

use crate::sync::{AtomicU32, AtomicU64, Ordering, Padded, fence, pause};

/// What a throttle was asked to carry up to one instant, summed over its workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The instant the integrals reach to.
    pub at: Instant,
    /// Requests that hold a slot and do not rest.
    pub running: u32,
    /// Requests that wait for one.
    pub waiting: u32,
    /// Request-nanoseconds run so far. It wraps: only differences mean something.
    pub running_integral: u64,
    /// Request-nanoseconds waited so far. It wraps: only differences mean something.
    pub waiting_integral: u64,
    /// Requests that hold a slot, are marked and do not rest.
    pub marked: u32,
    /// Request-nanoseconds run so far by marked requests. It wraps: only differences mean something.
    pub marked_integral: u64,
    /// How often a request began to wait, or was let in marked without waiting, or rests no longer and
    /// is marked, so far. It wraps: only differences mean something.
    pub asked: u32,
    /// How often of these it was one that had been counted before: it is made once more, or rests no
    /// longer. It wraps, too.
    pub again: u32,
    /// Requests that hold a slot and rest.
    pub resting: u32,
    /// Of those, the marked ones.
    pub resting_marked: u32,
}

/// Average numbers of requests over some time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Averages {
    pub running: f64,
    pub waiting: f64,
    /// Of those running.
    pub marked: f64,
}

/// The average numbers of requests between two readings of one throttle. Readings of the same
/// instant give the numbers at that instant.
pub fn average(earlier: &Reading, later: &Reading) -> Averages {
    let time = nanoseconds(earlier.at, later.at);
    if time == 0 {
        return Averages {
            running: later.running.into(),
            waiting: later.waiting.into(),
            marked: later.marked.into(),
        };
    }
    let over = |earlier: u64, later: u64| {
        // A worker's cached time may be a little behind the reader's, so that what a reading took
        // for granted did not happen: less than nothing means nothing.
        let grown = later.wrapping_sub(earlier).cast_signed().max(0);
        grown as f64 / time as f64
    };
    Averages {
        running: over(earlier.running_integral, later.running_integral),
        waiting: over(earlier.waiting_integral, later.waiting_integral),
        marked: over(earlier.marked_integral, later.marked_integral),
    }
}

/// From `origin` to `instant`, 0 when it is earlier. Wraps after 584 years.
pub(crate) fn nanoseconds(origin: Instant, instant: Instant) -> u64 {
    let since = instant.saturating_duration_since(origin);
    since
        .as_secs()
        .wrapping_mul(1_000_000_000)
        .wrapping_add(since.subsec_nanos().into())
}

/// What one event adds to a worker's counts. Small enough to be passed in a register.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Change {
    pub(crate) running: i8,
    pub(crate) waiting: i8,
    pub(crate) marked: i8,
    pub(crate) resting: i8,
    /// Of those, what changes of the marked ones; only together with [`Change::resting`].
    pub(crate) resting_marked: i8,
    /// Somebody must hear of it: counted in [`Reading::asked`].
    pub(crate) asks: bool,
    /// It is a request that has asked before: if it asks, counted in [`Reading::again`] too.
    pub(crate) again: bool,
}

/// One worker's part. Written by that worker's thread only; read by anybody.
#[derive(Debug)]
pub(crate) struct Shard(Padded<Fields>);

#[derive(Debug)]
struct Fields {
    /// Odd while a change is being written.
    sequence: AtomicU64,
    /// What the integrals reach to, in nanoseconds since the throttle's origin.
    at: AtomicU64,
    running: AtomicU32,
    waiting: AtomicU32,
    running_integral: AtomicU64,
    waiting_integral: AtomicU64,
    /// What the marked integral reaches to.
    marked_at: AtomicU64,
    marked_integral: AtomicU64,
    marked: AtomicU32,
    asked: AtomicU32,
    again: AtomicU32,
    resting: AtomicU32,
    resting_marked: AtomicU32,
}

/// A shard's counts, and its integrals carried on to the instant asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) running: u32,
    pub(crate) waiting: u32,
    pub(crate) running_integral: u64,
    pub(crate) waiting_integral: u64,
    pub(crate) marked: u32,
    pub(crate) marked_integral: u64,
    pub(crate) asked: u32,
    pub(crate) again: u32,
    pub(crate) resting: u32,
    pub(crate) resting_marked: u32,
}

impl Shard {
    pub(crate) fn new() -> Shard {
        Shard(Padded(Fields {
            sequence: AtomicU64::new(0),
            at: AtomicU64::new(0),
            running: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
            running_integral: AtomicU64::new(0),
            waiting_integral: AtomicU64::new(0),
            marked_at: AtomicU64::new(0),
            marked_integral: AtomicU64::new(0),
            marked: AtomicU32::new(0),
            asked: AtomicU32::new(0),
            again: AtomicU32::new(0),
            resting: AtomicU32::new(0),
            resting_marked: AtomicU32::new(0),
        }))
    }

    /// Adds to the counts as of `now`, nanoseconds since the origin. True when something is asked
    /// here and nothing waited or was marked here before. Only the worker that owns the shard may
    /// call it.
    #[inline]
    pub(crate) fn change(&self, now: u64, change: Change) -> bool {
        let fields = &self.0.0;
        let sequence = fields.sequence.load(Ordering::Relaxed);
        fields
            .sequence
            .store(sequence.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        let waited = fields.count(now, change.running, change.waiting);
        let mut marked = 0;
        if change.asks || change.marked != 0 {
            marked = fields.mark(now, change);
        }
        if change.resting != 0 {
            fields.rest(change);
        }
        fields
            .sequence
            .store(sequence.wrapping_add(2), Ordering::Release);
        change.asks && waited == 0 && marked == 0
    }

    /// A consistent view carried on to `now`. Retries while the owner writes: that is a dozen
    /// stores, and nothing in them can stop but the thread itself being put aside, for which this
    /// yields.
    pub(crate) fn read(&self, now: u64) -> Sums {
        let fields = &self.0.0;
        let mut turn = 0;
        loop {
            let before = fields.sequence.load(Ordering::Acquire);
            if before.is_multiple_of(2) {
                let sums = fields.load(now);
                fence(Ordering::Acquire);
                if fields.sequence.load(Ordering::Relaxed) == before {
                    return sums;
                }
            }
            turn = pause(turn);
        }
    }
}
impl Fields {
    fn load(&self, now: u64) -> Sums {
        let running = self.running.load(Ordering::Relaxed);
        let waiting = self.waiting.load(Ordering::Relaxed);
        let marked = self.marked.load(Ordering::Relaxed);
        let since = now.saturating_sub(self.at.load(Ordering::Relaxed));
        let marked_since = now.saturating_sub(self.marked_at.load(Ordering::Relaxed));
        Sums {
            running,
            waiting,
            running_integral: carried(&self.running_integral, running, since),
            waiting_integral: carried(&self.waiting_integral, waiting, since),
            marked,
            marked_integral: carried(&self.marked_integral, marked, marked_since),
            asked: self.asked.load(Ordering::Relaxed),
            again: self.again.load(Ordering::Relaxed),
            resting: self.resting.load(Ordering::Relaxed),
            resting_marked: self.resting_marked.load(Ordering::Relaxed),
        }
    }

    /// Returns how many waited before.
    #[inline]
    fn count(&self, now: u64, by_running: i8, by_waiting: i8) -> u32 {
        let running = self.running.load(Ordering::Relaxed);
        let waiting = self.waiting.load(Ordering::Relaxed);
        let at = self.at.load(Ordering::Relaxed);
        let since = now.saturating_sub(at);
        let running_integral = carried(&self.running_integral, running, since);
        let waiting_integral = carried(&self.waiting_integral, waiting, since);
        self.at.store(at.max(now), Ordering::Relaxed);
        let running = running.wrapping_add_signed(by_running.into());
        self.running.store(running, Ordering::Relaxed);
        self.waiting.store(
            waiting.wrapping_add_signed(by_waiting.into()),
            Ordering::Relaxed,
        );
        self.running_integral
            .store(running_integral, Ordering::Relaxed);
        self.waiting_integral
            .store(waiting_integral, Ordering::Relaxed);
        waiting
    }

    fn rest(&self, change: Change) {
        let resting = self.resting.load(Ordering::Relaxed);
        let resting = resting.wrapping_add_signed(change.resting.into());
        self.resting.store(resting, Ordering::Relaxed);
        let marked = self.resting_marked.load(Ordering::Relaxed);
        let marked = marked.wrapping_add_signed(change.resting_marked.into());
        self.resting_marked.store(marked, Ordering::Relaxed);
    }

    /// Returns how many were marked before.
    fn mark(&self, now: u64, change: Change) -> u32 {
        let marked = self.marked.load(Ordering::Relaxed);
        let at = self.marked_at.load(Ordering::Relaxed);
        let integral = carried(&self.marked_integral, marked, now.saturating_sub(at));
        self.marked_at.store(at.max(now), Ordering::Relaxed);
        self.marked_integral.store(integral, Ordering::Relaxed);
        self.marked.store(
            marked.wrapping_add_signed(change.marked.into()),
            Ordering::Relaxed,
        );
        if change.asks {
            let asked = self.asked.load(Ordering::Relaxed);
            self.asked.store(asked.wrapping_add(1), Ordering::Relaxed);
        }
        if change.asks && change.again {
            let again = self.again.load(Ordering::Relaxed);
            self.again.store(again.wrapping_add(1), Ordering::Relaxed);
        }
        marked
    }
}

/// The integral after `count` requests have gone on for `since` more.
fn carried(integral: &AtomicU64, count: u32, since: u64) -> u64 {
    let more = since.wrapping_mul(count.into());
    integral.load(Ordering::Relaxed).wrapping_add(more)
}

impl Sums {
    /// Of all shards, as a reading taken then.
    pub(crate) fn reading(self, at: Instant) -> Reading {
        Reading {
            at,
            running: self.running,
            waiting: self.waiting,
            running_integral: self.running_integral,
            waiting_integral: self.waiting_integral,
            marked: self.marked,
            marked_integral: self.marked_integral,
            asked: self.asked,
            again: self.again,
            resting: self.resting,
            resting_marked: self.resting_marked,
        }
    }
}

impl std::ops::Add for Sums {
    type Output = Sums;

    fn add(self, other: Sums) -> Sums {
        Sums {
            running: self.running.wrapping_add(other.running),
            waiting: self.waiting.wrapping_add(other.waiting),
            running_integral: self.running_integral.wrapping_add(other.running_integral),
            waiting_integral: self.waiting_integral.wrapping_add(other.waiting_integral),
            marked: self.marked.wrapping_add(other.marked),
            marked_integral: self.marked_integral.wrapping_add(other.marked_integral),
            asked: self.asked.wrapping_add(other.asked),
            again: self.again.wrapping_add(other.again),
            resting: self.resting.wrapping_add(other.resting),
            resting_marked: self.resting_marked.wrapping_add(other.resting_marked),
        }
    }
}

#[cfg(test)]
mod loom_models;
#[cfg(test)]
mod tests;
