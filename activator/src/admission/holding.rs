//! What all throttles of the process share: how much may be held, how much of that by one namespace
//! or client address, who holds most, and whose suspicions run.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Instant;

use super::{Bound, Throttle};
use crate::sync::{AtomicU64, AtomicUsize, Mutex, Ordering, lock};

/// How much may be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Waiting requests of the process.
    pub held: usize,
    /// Bytes of theirs.
    pub bytes: u64,
    /// Waiting requests of one namespace; `None` = half while there are several.
    pub per_namespace: Option<usize>,
    /// Waiting requests of one client address; `None` = as many as there may be.
    pub per_address: Option<u32>,
}

/// Process-wide bounds on holding, shared by all throttles.
#[derive(Debug)]
pub struct Holding {
    bounds: Bounds,
    held: AtomicUsize,
    bytes: AtomicU64,
    throttles: AtomicUsize,
    /// Most held requests of one namespace now.
    share: AtomicUsize,
    /// Those with a throttle, by name.
    namespaces: Mutex<HashMap<Arc<str>, Weak<Namespace>>>,
    /// The namespace that held most when it was last looked for.
    crowded: Mutex<Crowded<Namespace>>,
    /// Waiting requests by address; empty without a bound on them.
    addresses: Mutex<HashMap<u64, u32>>,
    /// Throttles with suspects, each once.
    suspicious: Mutex<Vec<Weak<Throttle>>>,
}

/// Revisions that share what one tenant may hold. There is one of a name while a throttle uses it.
#[derive(Debug)]
pub struct Namespace {
    name: Arc<str>,
    holding: Arc<Holding>,
    held: AtomicUsize,
    /// By address of the throttle, which is unique while it lives.
    throttles: Mutex<HashMap<usize, Weak<Throttle>>>,
    /// The one with most waiters when it was last looked for.
    crowded: Mutex<Crowded<Throttle>>,
}

/// One held request of a namespace; given back on drop.
#[derive(Debug)]
pub(super) struct InNamespace(Arc<Namespace>);

/// One held request of the process; given back on drop.
#[derive(Debug)]
pub(super) struct InProcess(Arc<Holding>);

/// One held request of an address; given back on drop.
#[derive(Debug)]
pub(super) struct OfAddress {
    holding: Arc<Holding>,
    address: u64,
}

/// One held request wherever it is counted, but in its queue.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) namespace: InNamespace,
    pub(super) process: InProcess,
    /// `None` where addresses have no bound.
    pub(super) _address: Option<OfAddress>,
}

/// Which bound beyond its queue keeps a request from waiting while others may give way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Crowd {
    Namespace,
    Process,
}

/// As many requests of an address wait as may. Nobody gives way for that: the newcomer is its own
/// address's newest.
#[derive(Debug)]
pub(super) struct AddressFull;

/// Who held most, and how much would still make it likely to be the one that does.
#[derive(Debug)]
struct Crowded<T> {
    who: Weak<T>,
    above: usize,
}

impl Holding {
    /// At most `held_max` waiting requests and `bytes_max` bytes of theirs; of one namespace at most
    /// half of the requests, of one throttle half of the bytes, while there are several.
    pub fn new(held_max: usize, bytes_max: u64) -> Arc<Holding> {
        Holding::bounded(Bounds {
            held: held_max,
            bytes: bytes_max,
            per_namespace: None,
            per_address: None,
        })
    }

    /// Nobody holds anything yet.
    pub fn bounded(bounds: Bounds) -> Arc<Holding> {
        Arc::new(Holding {
            bounds,
            held: AtomicUsize::new(0),
            bytes: AtomicU64::new(0),
            throttles: AtomicUsize::new(0),
            share: AtomicUsize::new(bounds.per_namespace.unwrap_or(bounds.held)),
            namespaces: Mutex::new(HashMap::new()),
            crowded: Mutex::new(Crowded::nobody()),
            addresses: Mutex::new(HashMap::new()),
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
            throttles: Mutex::new(HashMap::new()),
            crowded: Mutex::new(Crowded::nobody()),
        });
        all.insert(name, Arc::downgrade(&namespace));
        self.divide(all.len());
        namespace
    }

    /// Says how much one of so many namespaces may hold.
    fn divide(&self, namespaces: usize) {
        let share = match self.bounds.per_namespace {
            Some(most) => most,
            None if namespaces > 1 => self.bounds.held.div_ceil(2),
            None => self.bounds.held,
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

    /// Most bytes of one throttle that has no bound of its own.
    pub(super) fn share_of_bytes(&self) -> u64 {
        match self.throttles.load(Ordering::Relaxed) {
            0 | 1 => u64::MAX,
            _ => self.bounds.bytes.div_ceil(2),
        }
    }

    /// Bytes take the place of others, unless they would exceed the bound.
    pub(super) fn exchange(&self, before: u64, bytes: u64) -> bool {
        let fits = |used: u64| {
            let sum = used.saturating_sub(before).checked_add(bytes);
            sum.filter(|sum| *sum <= self.bounds.bytes)
        };
        self.bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
            .is_ok()
    }

    /// Whether they would fit now.
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        self.bytes().saturating_add(bytes) <= self.bounds.bytes
    }

    pub(super) fn release(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// The bound that a crowd has reached: a namespace that is alone may hold what the process may.
    pub(super) fn bound_of(&self, crowd: Crowd) -> Bound {
        let most = self.share.load(Ordering::Relaxed);
        match crowd {
            Crowd::Namespace if most < self.bounds.held => Bound::HeldPerNamespace,
            Crowd::Namespace | Crowd::Process => Bound::Held,
        }
    }

    /// The throttle that keeps most bytes, if anybody keeps some. Goes through all of them.
    pub(super) fn keeps_most_bytes(&self) -> Option<Arc<Throttle>> {
        let namespaces: Vec<_> = lock(&self.namespaces).values().cloned().collect();
        let namespaces = namespaces.iter().filter_map(Weak::upgrade);
        let throttles = namespaces.flat_map(|namespace| namespace.throttles());
        throttles.max_by_key(|throttle| throttle.held_bytes())
    }

    /// The namespace that holds most, the one that asks counting one more.
    fn biggest(&self, asking: &Arc<Namespace>) -> Arc<Namespace> {
        let find = || {
            let all: Vec<_> = lock(&self.namespaces).values().cloned().collect();
            all.iter()
                .filter_map(Weak::upgrade)
                .max_by_key(|it| it.held())
        };
        let biggest = lock(&self.crowded).get(|it: &Namespace| it.held(), find);
        match biggest {
            Some(biggest) if biggest.held() > asking.held() + 1 => biggest,
            _ => Arc::clone(asking),
        }
    }

    /// Counts one more of an address.
    pub(super) fn of_address(
        self: &Arc<Self>,
        address: Option<u64>,
    ) -> Result<Option<OfAddress>, AddressFull> {
        let (Some(address), Some(most)) = (address, self.bounds.per_address) else {
            return Ok(None);
        };
        let mut addresses = lock(&self.addresses);
        let count = addresses.get(&address).copied().unwrap_or(0);
        if count >= most {
            return Err(AddressFull);
        }
        addresses.insert(address, count + 1);
        let holding = Arc::clone(self);
        Ok(Some(OfAddress { holding, address }))
    }

    /// Counts one more of the process, if it may be.
    pub(super) fn one_more(self: &Arc<Self>) -> Option<InProcess> {
        enter(&self.held, self.bounds.held).then(|| InProcess(Arc::clone(self)))
    }

    fn leave_address(&self, address: u64) {
        let mut addresses = lock(&self.addresses);
        match addresses.get_mut(&address) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                addresses.remove(&address);
            }
        }
    }
}

impl Namespace {
    pub(super) fn holding(&self) -> &Arc<Holding> {
        &self.holding
    }

    /// Waiting requests.
    fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Taken out of the list first: the last one to let go of a throttle needs that list.
    fn throttles(&self) -> impl Iterator<Item = Arc<Throttle>> + use<> {
        let all: Vec<_> = lock(&self.throttles).values().cloned().collect();
        all.into_iter().filter_map(|throttle| throttle.upgrade())
    }

    /// There is one throttle more.
    pub(super) fn came(&self, throttle: &Weak<Throttle>) {
        self.holding.throttles.fetch_add(1, Ordering::Relaxed);
        lock(&self.throttles).insert(throttle.as_ptr().addr(), Weak::clone(throttle));
    }

    pub(super) fn gone(&self, throttle: &Throttle) {
        self.holding.throttles.fetch_sub(1, Ordering::Relaxed);
        lock(&self.throttles).remove(&std::ptr::from_ref(throttle).addr());
    }

    /// Counts one more of the namespace, if it may be.
    pub(super) fn one_more(self: &Arc<Self>) -> Option<InNamespace> {
        let most = self.holding.share.load(Ordering::Relaxed);
        enter(&self.held, most).then(|| InNamespace(Arc::clone(self)))
    }

    /// Who is to give way when that bound is reached: the biggest throttle of the biggest namespace,
    /// or of this one. The one that asks counts one more, and gives way among equals.
    pub(super) fn gives_way(
        self: &Arc<Self>,
        crowd: Crowd,
        asking: &Throttle,
    ) -> Option<Arc<Throttle>> {
        let namespace = match crowd {
            Crowd::Namespace => Arc::clone(self),
            Crowd::Process => self.holding.biggest(self),
        };
        let find = || {
            namespace
                .throttles()
                .max_by_key(|throttle| throttle.waiting())
        };
        let biggest = lock(&namespace.crowded).get(|it| it.waiting() as usize, find)?;
        let elsewhere = !Arc::ptr_eq(&namespace, self);
        (elsewhere || biggest.waiting() > asking.waiting() + 1).then_some(biggest)
    }
}

impl<T> Crowded<T> {
    const fn nobody() -> Crowded<T> {
        Crowded {
            who: Weak::new(),
            above: 0,
        }
    }

    /// Going through all of them takes long, and who holds most does so for a while: who held most
    /// is asked for again until an eighth of it is gone.
    fn get(
        &mut self,
        holds: impl Fn(&T) -> usize,
        find: impl FnOnce() -> Option<Arc<T>>,
    ) -> Option<Arc<T>> {
        if let Some(known) = self.who.upgrade()
            && holds(&known) > self.above
        {
            return Some(known);
        }
        let found = find()?;
        self.who = Arc::downgrade(&found);
        self.above = holds(&found) / 8 * 7;
        Some(found)
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

impl Drop for InNamespace {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for InProcess {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for OfAddress {
    fn drop(&mut self) {
        self.holding.leave_address(self.address);
    }
}

/// Adds one to a count that must not exceed `most`.
fn enter(count: &AtomicUsize, most: usize) -> bool {
    let fits = |count: usize| (count < most).then(|| count + 1);
    count
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
        .is_ok()
}
