//! The running side of a revision: what all its workers share.

mod joining;
mod seen;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use super::endpoint::Endpoint;
use super::queue::{Grant, Key, Queue, Room};
use super::repeats::Repeats;
use super::wakers::Wakers;
use super::{AcquireError, Holding, Limits, Namespace, Share, Supply};
use crate::demand::{Reading, Shard};
use crate::starts::Starts;
use crate::sync::{AtomicU32, AtomicU64, Mutex, MutexGuard, Ordering, Padded, fence, lock};

pub(super) use self::joining::Joined;

/// The running side of one revision: who holds slots, who waits. One per revision name, shared by
/// all workers and kept across snapshots.
#[derive(Debug)]
pub struct Throttle {
    pub(super) me: Weak<Throttle>,
    pub(super) namespace: Arc<Namespace>,
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
    pub(super) queue: Mutex<Queue>,
    pub(super) repeats: Repeats,
    starts: Starts,
}

/// What gates keep a copy of.
#[derive(Debug)]
pub(super) struct Members {
    pub(super) epoch: u64,
    /// The declared ones.
    pub(super) endpoints: Vec<Arc<Endpoint>>,
    pub(super) proxied: bool,
}

impl Throttle {
    /// A throttle without endpoints, for workers `0..workers`, of a revision of that namespace.
    pub fn new(
        limits: Limits,
        supply: Supply,
        namespace: &Arc<Namespace>,
        workers: usize,
    ) -> Arc<Throttle> {
        let throttle = Arc::new_cyclic(|me| Throttle {
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
            starts: Starts::default(),
        });
        namespace.came(&throttle.me);
        throttle
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
    /// count, also one that was draining; those left out drain. A non-empty set ends a failure, and a
    /// start, of which [`Starts::passed`] should have been told before.
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
            self.watch(&mut queue);
        }
        // Before those who waited for it can ask.
        match queue.members.is_empty() {
            true => self.starts.gone(self.waiting(), queue.members.in_flight()),
            false => self.starts.came(self.waiting()),
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
        lock(&self.queue).members.lending.end();
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

    /// No new slot at this address until it is declared again.
    pub fn drain(&self, address: SocketAddr) {
        let mut queue = lock(&self.queue);
        if queue.drain(address) {
            self.publish();
            if queue.members.is_empty() {
                self.starts.gone(self.waiting(), queue.members.in_flight());
            }
        }
        self.settle(queue, Room::Anywhere);
    }

    /// The scaler says that the revision cannot start: those who wait, and newcomers until an
    /// endpoint comes or [`Throttle::clear_failure`], get [`AcquireError::StartFailed`]. Whoever
    /// comes at that time or later may wait, and is told of to the scaler. Says nothing while there
    /// is an endpoint: then only one more could not start.
    pub fn fail(&self, why: Arc<str>, until: Instant) {
        let mut queue = lock(&self.queue);
        queue.fail(why, until);
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

    /// How the revision came up from nothing, and does.
    pub fn starts(&self) -> &Starts {
        &self.starts
    }

    /// The process-wide bounds it counts against.
    pub fn holding(&self) -> &Arc<Holding> {
        self.namespace.holding()
    }

    /// Room for so many waiters is kept.
    #[cfg(all(test, not(tidegate_loom)))]
    pub(super) fn kept(&self) -> usize {
        lock(&self.queue).kept()
    }

    #[cfg(all(test, not(tidegate_loom)))]
    pub(super) fn may_borrow(&self) -> bool {
        lock(&self.queue).members.lending.may_take()
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
            endpoints: queue.members.declared().cloned().collect(),
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
        queue.members.lending.returned();
        self.settle(queue, Room::Anywhere);
    }

    pub(super) fn poll(&self, key: Key, waker: &Waker) -> Poll<Result<Grant, AcquireError>> {
        let mut spent = None;
        let mut queue = lock(&self.queue);
        if queue.is_granted_in_vain(key) {
            queue = self.take_back(queue, key);
        }
        let polled = queue.poll(key, waker, &mut spent);
        drop(queue);
        drop(spent);
        polled
    }

    /// A waiter goes; a grant it had not taken up passes on.
    pub(super) fn leave(&self, key: Key, now: Instant) {
        let mut spent = None;
        let mut queue = lock(&self.queue);
        match queue.leave(key, &mut spent) {
            Some(grant) => {
                queue.members.give_back(&grant);
                let room = match grant.lent {
                    true => Room::Anywhere,
                    false => Room::At(&grant.endpoint),
                };
                self.settle(queue, room);
            }
            None => {
                self.announce(queue.waiting());
                if queue.waiting() == 0 && queue.members.is_empty() {
                    self.starts.left(now);
                }
                drop(queue);
            }
        }
        drop(spent);
    }

    // Under the lock.

    fn publish(&self) {
        let next = self.epoch.load(Ordering::Relaxed).wrapping_add(1);
        self.epoch.store(next, Ordering::Release);
    }

    fn announce(&self, waiting: usize) {
        let waiting = u32::try_from(waiting).unwrap_or(u32::MAX);
        self.waiting.0.store(waiting, Ordering::Relaxed);
    }

    /// Lets in whoever can be, a batch per turn of the lock, and wakes each batch after it.
    pub(super) fn settle<'a>(&'a self, mut queue: MutexGuard<'a, Queue>, room: Room<'_>) {
        if self.starts.current().is_some()
            && let Some(refusal) = queue.refusal()
        {
            // Before those who are refused can ask.
            self.starts.refused(&refusal);
        }
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

    pub(super) fn nudge(&self) {
        let nudge = lock(&self.queue).nudge();
        if let Some(nudge) = nudge {
            nudge.nudge();
        }
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        self.namespace.gone(self);
    }
}
