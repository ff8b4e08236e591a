//! Demand: how many requests a revision runs and holds, now and on average.
//!
//! Each worker has a shard that only it writes: the two counts, and the integral of each over time.
//! An average over a window is the difference of two readings divided by the time between them, so
//! nothing is sampled and no request is too short to be seen.
//!
//! A shard is a sequence lock whose fields are all atomics. The writer makes the sequence odd, then
//! a release fence keeps that before the fields; the closing release store keeps the fields before
//! the even sequence. The reader loads the sequence (acquire), the fields, then an acquire fence
//! and the sequence again: if any field came from a later write, the fences pair and the second
//! load sees at least that write's odd sequence. No locked instruction on either side.

use std::time::Instant;

use crate::sync::{AtomicU32, AtomicU64, Ordering, Padded, fence, pause};

/// What a throttle was asked to carry up to one instant, summed over its workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The instant the integrals reach to.
    pub at: Instant,
    /// Requests that hold a slot.
    pub running: u32,
    /// Requests that wait for one.
    pub waiting: u32,
    /// Request-nanoseconds run so far. It wraps: only differences mean something.
    pub running_integral: u64,
    /// Request-nanoseconds waited so far. It wraps: only differences mean something.
    pub waiting_integral: u64,
}

/// The average numbers of running and of waiting requests between two readings of one throttle.
/// Readings of the same instant give the numbers at that instant.
pub fn average(earlier: &Reading, later: &Reading) -> (f64, f64) {
    let time = nanoseconds(earlier.at, later.at);
    if time == 0 {
        return (later.running.into(), later.waiting.into());
    }
    let over = |earlier: u64, later: u64| {
        // A worker's cached time may be a little behind the reader's, so that what a reading took
        // for granted did not happen: less than nothing means nothing.
        let grown = later.wrapping_sub(earlier).cast_signed().max(0);
        grown as f64 / time as f64
    };
    (
        over(earlier.running_integral, later.running_integral),
        over(earlier.waiting_integral, later.waiting_integral),
    )
}

/// From `origin` to `instant`, 0 when it is earlier. Wraps after 584 years.
pub(crate) fn nanoseconds(origin: Instant, instant: Instant) -> u64 {
    let since = instant.saturating_duration_since(origin);
    since
        .as_secs()
        .wrapping_mul(1_000_000_000)
        .wrapping_add(since.subsec_nanos().into())
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
}

/// A shard's counts, and its integrals carried on to the instant asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) running: u32,
    pub(crate) waiting: u32,
    pub(crate) running_integral: u64,
    pub(crate) waiting_integral: u64,
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
        }))
    }

    /// Adds to the counts as of `now`, nanoseconds since the origin. Only the worker that owns the
    /// shard may call it.
    pub(crate) fn change(&self, now: u64, running: i32, waiting: i32) {
        let fields = &self.0.0;
        let sequence = fields.sequence.load(Ordering::Relaxed);
        let sums = fields.load(now);
        let at = fields.at.load(Ordering::Relaxed).max(now);

        fields
            .sequence
            .store(sequence.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        fields.at.store(at, Ordering::Relaxed);
        let count = sums.running.wrapping_add_signed(running);
        fields.running.store(count, Ordering::Relaxed);
        let count = sums.waiting.wrapping_add_signed(waiting);
        fields.waiting.store(count, Ordering::Relaxed);
        fields
            .running_integral
            .store(sums.running_integral, Ordering::Relaxed);
        fields
            .waiting_integral
            .store(sums.waiting_integral, Ordering::Relaxed);
        fields
            .sequence
            .store(sequence.wrapping_add(2), Ordering::Release);
    }

    /// A consistent view carried on to `now`. Retries while the owner writes: that is seven stores,
    /// and nothing in them can stop but the thread itself being put aside, for which this yields.
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
        let since = now.saturating_sub(self.at.load(Ordering::Relaxed));
        let grown = |integral: &AtomicU64, count: u32| {
            let more = since.wrapping_mul(count.into());
            integral.load(Ordering::Relaxed).wrapping_add(more)
        };
        Sums {
            running,
            waiting,
            running_integral: grown(&self.running_integral, running),
            waiting_integral: grown(&self.waiting_integral, waiting),
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
        }
    }
}

#[cfg(test)]
mod loom_models;
#[cfg(test)]
mod tests;
