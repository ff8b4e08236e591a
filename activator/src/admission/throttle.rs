//! The running side of a revision: what all its workers share.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use super::endpoint::{Counted, Endpoint};
use super::queue::{Grant, Key, Queue, Room};
use super::repeats::Repeats;
use super::wakers::Wakers;
use super::{
    AcquireError, EndpointState, EndpointStatus, Holding, Limits, Namespace, Share, Supply,
};
use crate::demand::{Reading, Shard, Sums, nanoseconds};
use crate::sync::{AtomicU32, AtomicU64, Mutex, MutexGuard, Ordering, Padded, fence, lock};

/// The running side of one revision: who holds slots, who waits. One per revision name, shared by
/// all workers and kept across snapshots.
#[derive(Debug)]
pub struct Throttle {
    me: Weak<Throttle>,
    namespace: Arc<Namespace>,
    shards: Box<[Shard]>,
    /// Where the shards' time begins: the first gate's clock.
    origin: OnceLock<Instant>,
    /// Changes with the set of endpoints, and with whether requests are proxied.
    epoch: AtomicU64,
    /// 1 = whoever listens must hear of the next request that waits or is marked.
    listening: AtomicU32,
    /// How many wait. Written under the lock; read by everybody who frees a slot or wants one.
    waiting: Padded<AtomicU32>,
    /// Bytes kept for those who wait.
    pub(super) bytes: AtomicU64,
    /// The most; `u64::MAX` = the share of one throttle.
    pub(super) bytes_max: AtomicU64,
    queue: Mutex<Queue>,
    pub(super) repeats: Repeats,
}

/// What gates keep a copy of.
#[derive(Debug)]
pub(super) struct Members {
    pub(super) epoch: u64,
    /// The declared ones.
    pub(super) endpoints: Vec<Arc<Endpoint>>,
    pub(super) proxied: bool,
}

/// What joining the queue came to.
#[derive(Debug)]
pub(super) enum Joined {
    /// There was room after all.
    Granted(Grant),
    Waits(Key),
}

impl Throttle {
    /// A throttle without endpoints, for workers `0..workers`, of a revision of that namespace.
    pub fn new(
        limits: Limits,
        supply: Supply,
        namespace: &Arc<Namespace>,
        workers: usize,
    ) -> Arc<Throttle> {
        namespace.holding().came();
        Arc::new_cyclic(|me| Throttle {
            me: Weak::clone(me),
            namespace: Arc::clone(namespace),
            shards: (0..workers).map(|_| Shard::new()).collect(),
            origin: OnceLock::new(),
            epoch: AtomicU64::new(0),
            listening: AtomicU32::new(0),
            waiting: Padded(AtomicU32::new(0)),
            bytes: AtomicU64::new(0),
            bytes_max: AtomicU64::new(limits.queue_bytes.unwrap_or(u64::MAX)),
            queue: Mutex::new(Queue::new(limits, supply, workers)),
            repeats: Repeats::new(),
        })
    }

    /// Changes the limits. A raised one lets waiters in at once; a lowered one cuts nobody, new
    /// slots wait until fewer are held.
    pub fn configure(&self, limits: Limits) {
        let most = limits.queue_bytes.unwrap_or(u64::MAX);
        self.bytes_max.store(most, Ordering::Relaxed);
        let mut queue = lock(&self.queue);
        queue.configure(limits);
        self.settle(queue, Room::Anywhere);
    }

    /// Says who brings endpoints from now on, and so also that the revision is there (again, if it
    /// was retired). With [`Supply::None`] and no endpoint, waiters get [`AcquireError::NoScaler`].
    pub fn set_supply(&self, supply: Supply) {
        let mut queue = lock(&self.queue);
        let before = queue.set_supply(supply);
        self.settle(queue, Room::Anywhere);
        drop(before);
        self.nudge();
    }

    /// Declares the whole set of ready endpoints. The same address is the same endpoint with its
    /// count, also one that was draining; those left out drain. A non-empty set ends a failure.
    pub fn set_endpoints(&self, addresses: &[SocketAddr]) {
        let declared: Vec<_> = addresses.iter().map(|address| (*address, None)).collect();
        self.declare(&declared);
    }

    /// The same for endpoints whose slots are divided among several processes: each has limits of
    /// its own instead of that of the revision.
    pub fn share_endpoints(&self, endpoints: &[(SocketAddr, Share)]) {
        let endpoints = endpoints.iter();
        let declared: Vec<_> = endpoints.map(|(at, share)| (*at, Some(*share))).collect();
        self.declare(&declared);
    }

    fn declare(&self, endpoints: &[(SocketAddr, Option<Share>)]) {
        let mut queue = lock(&self.queue);
        if queue.set_endpoints(endpoints) {
            self.publish();
        }
        self.settle(queue, Room::Anywhere);
    }

    /// If anybody has waited for so long, those who wait get slots that are only lent too: at first
    /// one at a time, and more as they are given back. Called again, it may be one more.
    pub fn lend(&self, after: Duration, now: Instant) {
        let Some(since) = now.checked_sub(after) else {
            return;
        };
        let mut queue = lock(&self.queue);
        queue.lend(since, now);
        self.settle(queue, Room::Anywhere);
    }

    /// Nobody gets a lent slot from now on. Those that are held stay.
    pub fn lend_no_more(&self) {
        lock(&self.queue).lending.end();
    }

    /// Lent slots that are held.
    pub fn lent(&self) -> u32 {
        lock(&self.queue).lending.held()
    }

    /// From now on slots are marked, or are not: whether the time requests run is counted here for
    /// somebody who sees them nowhere else. Slots that are held stay as they are.
    pub fn set_proxied(&self, proxied: bool) {
        let mut queue = lock(&self.queue);
        if queue.proxied != proxied {
            queue.proxied = proxied;
            self.publish();
        }
    }

    /// Has the scaler nudged at the next request that waits or is marked, and reads demand
    /// afterwards: a request that did not nudge is in that reading.
    ///
    /// A worker that has neither waiting nor marked requests and gets one writes its shard, passes a
    /// sequentially consistent fence, and looks whether anybody listens. Here it is the other way
    /// round, so at least one sees the other. A worker that has such requests need not look: the
    /// first of them did, and a revision with requests is not asleep. So the warm path pays nothing
    /// for it while requests are not marked, and else a fence where a worker was idle.
    pub fn listen(&self, now: Instant) -> Reading {
        self.listening.store(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.demand(now)
    }

    /// Whether requests are marked now.
    pub fn is_proxied(&self) -> bool {
        lock(&self.queue).proxied
    }

    /// No new slot at this address until it is declared again.
    pub fn drain(&self, address: SocketAddr) {
        let mut queue = lock(&self.queue);
        if queue.drain(address) {
            self.publish();
        }
        self.settle(queue, Room::Anywhere);
    }

    /// Slots held at this address, draining or not; 0 when it is unknown. Once [`Throttle::drain`]
    /// has returned and this reads 0, no slot is or will be held there.
    pub fn in_flight_at(&self, address: SocketAddr) -> u32 {
        let queue = lock(&self.queue);
        let found = queue.all_endpoints().find(|e| e.address == address);
        found.map_or(0, |endpoint| endpoint.in_flight())
    }

    /// The scaler says that the revision cannot start: those who wait, and newcomers until an
    /// endpoint comes or [`Throttle::clear_failure`], get [`AcquireError::StartFailed`]. Says
    /// nothing while there is an endpoint: then only one more could not start.
    pub fn fail(&self, why: Arc<str>) {
        let mut queue = lock(&self.queue);
        queue.fail(why);
        self.settle(queue, Room::Anywhere);
    }

    /// Newcomers may wait again.
    pub fn clear_failure(&self) {
        lock(&self.queue).clear_failure();
    }

    /// The revision was removed: whoever waits without an endpoint, now or later, gets
    /// [`AcquireError::Removed`]. Endpoints that are there go on serving. Ended by
    /// [`Throttle::set_supply`].
    pub fn retire(&self) {
        let mut queue = lock(&self.queue);
        queue.retire();
        self.settle(queue, Room::Anywhere);
    }

    /// Demand up to `now`, over all workers.
    pub fn demand(&self, now: Instant) -> Reading {
        let sums = match self.origin.get() {
            Some(origin) => {
                let since = nanoseconds(*origin, now);
                let shards = self.shards.iter().map(|shard| shard.read(since));
                shards.fold(Sums::default(), |sum, shard| sum + shard)
            }
            None => Sums::default(),
        };
        Reading {
            at: now,
            running: sums.running,
            waiting: sums.waiting,
            running_integral: sums.running_integral,
            waiting_integral: sums.waiting_integral,
            marked: sums.marked,
            marked_integral: sums.marked_integral,
            asked: sums.asked,
        }
    }

    /// Every endpoint that is declared or still holds slots.
    pub fn endpoints(&self) -> Vec<EndpointStatus> {
        let mut queue = lock(&self.queue);
        queue.purge();
        queue.all_endpoints().map(|e| status(e)).collect()
    }

    /// Slots held, draining endpoints included.
    pub fn in_flight(&self) -> u32 {
        let queue = lock(&self.queue);
        let counts = queue.all_endpoints().map(|endpoint| endpoint.in_flight());
        counts.fold(0, u32::saturating_add)
    }

    /// Requests that wait for a slot.
    pub fn waiting(&self) -> u32 {
        self.waiting.0.load(Ordering::Relaxed)
    }

    /// Nobody holds a slot or waits for one.
    pub fn is_idle(&self) -> bool {
        self.waiting() == 0 && self.in_flight() == 0
    }

    /// The process-wide bounds it counts against.
    pub fn holding(&self) -> &Arc<Holding> {
        self.namespace.holding()
    }

    #[cfg(all(test, not(tidegate_loom)))]
    pub(super) fn may_borrow(&self) -> bool {
        lock(&self.queue).lending.may_take()
    }

    // For gates.

    /// Where this throttle's time begins; the first caller decides.
    pub(super) fn origin(&self, now: Instant) -> Instant {
        *self.origin.get_or_init(|| now)
    }

    pub(super) fn shard(&self, worker: usize) -> &Shard {
        &self.shards[worker]
    }

    pub(super) fn workers(&self) -> usize {
        self.shards.len()
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    pub(super) fn members(&self) -> Members {
        let queue = lock(&self.queue);
        Members {
            epoch: self.epoch(),
            endpoints: queue.members().cloned().collect(),
            proxied: queue.proxied,
        }
    }

    /// A worker that had no such request has one that waits or is marked: see
    /// [`Throttle::listen`].
    pub(super) fn begun(&self) {
        fence(Ordering::SeqCst);
        let heard = self.listening.load(Ordering::Relaxed) != 0
            && self.listening.swap(0, Ordering::Relaxed) != 0;
        if !heard {
            return;
        }
        let scaler = lock(&self.queue).scaler();
        if let Some(nudge) = scaler {
            nudge.nudge();
        }
    }

    /// Somebody freed a slot there: it goes to the one whose turn it is.
    pub(super) fn freed(&self, endpoint: &Arc<Endpoint>) {
        // Pairs with the fence of `join`.
        fence(Ordering::SeqCst);
        if self.waiting() != 0 || endpoint.is_mixed() {
            let queue = lock(&self.queue);
            endpoint.unmix();
            self.settle(queue, Room::At(endpoint));
        }
    }

    /// Somebody gave a lent slot back, which may allow another anywhere.
    pub(super) fn returned(&self, endpoint: &Endpoint) {
        let mut queue = lock(&self.queue);
        endpoint.unmix();
        queue.lending.returned();
        self.settle(queue, Room::Anywhere);
    }

    /// Joins the queue, unless there is room after all.
    pub(super) fn join(&self, arrived: Instant, now: Instant) -> Result<Joined, AcquireError> {
        let mut queue = lock(&self.queue);
        if queue.end_suspicions(now) {
            self.settle(queue, Room::Anywhere);
            queue = lock(&self.queue);
        }
        let first = queue.waiting() == 0;
        if first {
            self.announce(1);
            // Pairs with the fence of `freed`: a slot freed before this is found below, one freed
            // after it finds us.
            fence(Ordering::SeqCst);
            if let Some(grant) = queue.room(Room::Anywhere) {
                self.announce(0);
                return Ok(Joined::Granted(grant));
            }
        }
        let joined = self.enqueue(&mut queue, arrived);
        let nudge = match first && joined.is_ok() {
            true => queue.first_nudge(now),
            false => None,
        };
        self.announce(queue.waiting());
        drop(queue);
        if let Some(nudge) = nudge {
            nudge.nudge();
        }
        joined
    }

    fn enqueue(&self, queue: &mut Queue, arrived: Instant) -> Result<Joined, AcquireError> {
        if let Some(error) = queue.refusal() {
            return Err(error);
        }
        if queue.waiting() >= queue.limits.queue_depth as usize {
            return Err(AcquireError::QueueFull);
        }
        let place = self.namespace.place().ok_or(AcquireError::Overloaded)?;
        Ok(Joined::Waits(queue.join(arrived, place)))
    }

    pub(super) fn poll(&self, key: Key, waker: &Waker) -> Poll<Result<Grant, AcquireError>> {
        let mut spent = None;
        let polled = lock(&self.queue).poll(key, waker, &mut spent);
        drop(spent);
        polled
    }

    /// A waiter goes; a grant it had not taken up passes on.
    pub(super) fn leave(&self, key: Key) {
        let mut spent = None;
        let mut queue = lock(&self.queue);
        match queue.leave(key, &mut spent) {
            Some(grant) => {
                // No worker is needed to free what is counted in the word.
                grant.endpoint.free(Counted::Word, 0);
                let mut room = Room::At(&grant.endpoint);
                if grant.lent {
                    queue.lending.returned();
                    room = Room::Anywhere;
                }
                self.settle(queue, room);
            }
            None => {
                self.announce(queue.waiting());
                drop(queue);
            }
        }
        drop(spent);
    }

    pub(super) fn suspect(&self, endpoint: &Endpoint, now: Instant) {
        let mut queue = lock(&self.queue);
        queue.suspect(endpoint, now);
        self.watch(&mut queue);
        let alone = !queue.has_ready();
        self.settle(queue, Room::Anywhere);
        if alone {
            self.nudge();
        }
    }

    /// Ends the suspicions that are over.
    pub(super) fn sweep(&self, now: Instant) {
        let mut queue = lock(&self.queue);
        queue.end_suspicions(now);
        queue.watched = false;
        self.watch(&mut queue);
        self.settle(queue, Room::Anywhere);
    }

    // Under the lock.

    fn watch(&self, queue: &mut Queue) {
        if queue.has_suspects() && !queue.watched {
            queue.watched = true;
            self.holding().watch(Weak::clone(&self.me));
        }
    }

    fn publish(&self) {
        let next = self.epoch.load(Ordering::Relaxed).wrapping_add(1);
        self.epoch.store(next, Ordering::Release);
    }

    fn announce(&self, waiting: usize) {
        let waiting = u32::try_from(waiting).unwrap_or(u32::MAX);
        self.waiting.0.store(waiting, Ordering::Relaxed);
    }

    /// Lets in whoever can be, a batch per turn of the lock, and wakes each batch after it.
    fn settle<'a>(&'a self, mut queue: MutexGuard<'a, Queue>, room: Room<'_>) {
        // Ends when nobody waits or nothing has room; each turn but the last serves a full batch.
        loop {
            let mut wakers = Wakers::default();
            let more = queue.settle(room, &mut wakers);
            self.announce(queue.waiting());
            drop(queue);
            wakers.wake();
            if !more {
                return;
            }
            queue = lock(&self.queue);
        }
    }

    fn nudge(&self) {
        let nudge = lock(&self.queue).nudge();
        if let Some(nudge) = nudge {
            nudge.nudge();
        }
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        self.holding().gone();
    }
}

fn status(endpoint: &Endpoint) -> EndpointStatus {
    let in_flight = endpoint.in_flight();
    let lingering = endpoint.lingering();
    let state = if endpoint.is_closed() {
        EndpointState::Draining
    } else if endpoint.is_suspect() {
        EndpointState::Suspect
    } else if lingering > 0 && lingering >= in_flight {
        EndpointState::Lingering
    } else {
        EndpointState::Ready
    };
    EndpointStatus {
        address: endpoint.address,
        id: endpoint.id,
        state,
        in_flight,
        lingering,
    }
}
