//! What all throttles of the process share: how much may be held, and whose suspicions run.

use std::sync::{Arc, Weak};
use std::time::Instant;

use super::Throttle;
use crate::sync::{AtomicU64, AtomicUsize, Mutex, Ordering, lock};

/// Process-wide bounds on holding, shared by all throttles.
#[derive(Debug)]
pub struct Holding {
    held_max: usize,
    bytes_max: u64,
    held: AtomicUsize,
    bytes: AtomicU64,
    /// Throttles with suspects, each once.
    suspicious: Mutex<Vec<Weak<Throttle>>>,
}

/// Bytes kept for a held request; given back on drop.
#[derive(Debug)]
#[must_use]
pub struct HeldBytes {
    holding: Arc<Holding>,
    bytes: u64,
}

/// One held request; given back on drop.
#[derive(Debug)]
pub(super) struct Place(Arc<Holding>);

impl Holding {
    /// At most `held_max` waiting requests and `bytes_max` bytes of theirs.
    pub fn new(held_max: usize, bytes_max: u64) -> Arc<Holding> {
        Arc::new(Holding {
            held_max,
            bytes_max,
            held: AtomicUsize::new(0),
            bytes: AtomicU64::new(0),
            suspicious: Mutex::new(Vec::new()),
        })
    }

    /// Requests that wait now, over all throttles.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Bytes reserved now.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Sets bytes aside until the guard is dropped; `None` when they would exceed the bound.
    pub fn reserve(self: &Arc<Self>, bytes: u64) -> Option<HeldBytes> {
        let fits = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= self.bytes_max);
        self.bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
            .ok()
            .map(|_| HeldBytes {
                holding: Arc::clone(self),
                bytes,
            })
    }

    /// Ends the suspicions whose time has passed and lets in who waited for that. Control calls it
    /// every 100 ms.
    pub fn sweep(&self, now: Instant) {
        let throttles = std::mem::take(&mut *lock(&self.suspicious));
        for throttle in throttles.iter().filter_map(Weak::upgrade) {
            throttle.sweep(now);
        }
    }

    /// The throttle has suspects: the next sweep visits it.
    pub(super) fn watch(&self, throttle: Weak<Throttle>) {
        lock(&self.suspicious).push(throttle);
    }

    pub(super) fn place(self: &Arc<Self>) -> Option<Place> {
        let fits = |held: usize| (held < self.held_max).then(|| held + 1);
        self.held
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
            .ok()
            .map(|_| Place(Arc::clone(self)))
    }
}

impl HeldBytes {
    /// How many bytes are set aside.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        self.holding.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Ordering::Relaxed);
    }
}
