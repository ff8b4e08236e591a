//! What all throttles of the process share: how much may be held, how much of that by one namespace,
//! and whose suspicions run.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Instant;

use super::Throttle;
use crate::sync::{AtomicU64, AtomicUsize, Mutex, Ordering, lock};

/// Process-wide bounds on holding, shared by all throttles.
#[derive(Debug)]
pub struct Holding {
    held_max: usize,
    bytes_max: u64,
    /// Of one namespace, as configured.
    per_namespace: Option<usize>,
    held: AtomicUsize,
    bytes: AtomicU64,
    throttles: AtomicUsize,
    /// Most held requests of one namespace now.
    share: AtomicUsize,
    /// Those with a throttle, by name.
    namespaces: Mutex<HashMap<Arc<str>, Weak<Namespace>>>,
    /// Throttles with suspects, each once.
    suspicious: Mutex<Vec<Weak<Throttle>>>,
}

/// Revisions that share what one tenant may hold. There is one of a name while a throttle uses it.
#[derive(Debug)]
pub struct Namespace {
    name: Arc<str>,
    holding: Arc<Holding>,
    held: AtomicUsize,
}

/// One held request; given back on drop.
#[derive(Debug)]
pub(super) struct Place(Arc<Namespace>);

impl Holding {
    /// At most `held_max` waiting requests and `bytes_max` bytes of theirs; of one namespace at most
    /// half of the requests, of one throttle half of the bytes, while there are several.
    pub fn new(held_max: usize, bytes_max: u64) -> Arc<Holding> {
        Holding::bounded(held_max, bytes_max, None)
    }

    /// The same, with another bound on the requests of one namespace, which always holds.
    pub fn bounded(held_max: usize, bytes_max: u64, per_namespace: Option<usize>) -> Arc<Holding> {
        Arc::new(Holding {
            held_max,
            bytes_max,
            per_namespace,
            held: AtomicUsize::new(0),
            bytes: AtomicU64::new(0),
            throttles: AtomicUsize::new(0),
            share: AtomicUsize::new(per_namespace.unwrap_or(held_max)),
            namespaces: Mutex::new(HashMap::new()),
            suspicious: Mutex::new(Vec::new()),
        })
    }

    /// The namespace of that name.
    pub fn namespace(self: &Arc<Self>, name: &str) -> Arc<Namespace> {
        let mut all = lock(&self.namespaces);
        if let Some(known) = all.get(name).and_then(Weak::upgrade) {
            return known;
        }
        let name: Arc<str> = name.into();
        let namespace = Arc::new(Namespace {
            name: Arc::clone(&name),
            holding: Arc::clone(self),
            held: AtomicUsize::new(0),
        });
        all.insert(name, Arc::downgrade(&namespace));
        self.divide(all.len());
        namespace
    }

    /// Says how much one of so many namespaces may hold.
    fn divide(&self, namespaces: usize) {
        let share = match self.per_namespace {
            Some(most) => most,
            None if namespaces > 1 => self.held_max.div_ceil(2),
            None => self.held_max,
        };
        self.share.store(share, Ordering::Relaxed);
    }

    /// Requests that wait now, over all throttles.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Bytes reserved now.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
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

    /// There is one throttle more.
    pub(super) fn came(&self) {
        self.throttles.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn gone(&self) {
        self.throttles.fetch_sub(1, Ordering::Relaxed);
    }

    /// Most bytes of one throttle that has no bound of its own.
    pub(super) fn share_of_bytes(&self) -> u64 {
        match self.throttles.load(Ordering::Relaxed) {
            0 | 1 => u64::MAX,
            _ => self.bytes_max.div_ceil(2),
        }
    }

    /// Sets bytes aside, unless they would exceed the bound; what was is to be released.
    pub(super) fn reserve(&self, bytes: u64) -> bool {
        add_within(&self.bytes, bytes, self.bytes_max)
    }

    pub(super) fn release(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Namespace {
    pub(super) fn holding(&self) -> &Arc<Holding> {
        &self.holding
    }

    pub(super) fn place(self: &Arc<Self>) -> Option<Place> {
        let share = self.holding.share.load(Ordering::Relaxed);
        if !enter(&self.held, share) {
            return None;
        }
        if !enter(&self.holding.held, self.holding.held_max) {
            self.held.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Place(Arc::clone(self)))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let mut all = lock(&self.holding.namespaces);
        // Another of the name may have come since the last throttle let go of this one.
        if all.get(&self.name).is_some_and(|it| it.strong_count() == 0) {
            all.remove(&self.name);
        }
        self.holding.divide(all.len());
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Ordering::Relaxed);
        self.0.holding.held.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Adds one to a count that must not exceed `most`.
fn enter(count: &AtomicUsize, most: usize) -> bool {
    let fits = |count: usize| (count < most).then(|| count + 1);
    count
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
        .is_ok()
}

/// Adds bytes to a sum that must not exceed `most`.
pub(super) fn add_within(sum: &AtomicU64, bytes: u64, most: u64) -> bool {
    let fits = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= most);
    sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
        .is_ok()
}
