//! How a revision's endpoints stand: what failures, answers, probes and time change of that.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Instant;

use super::endpoint::Endpoint;
use super::holding::Place;
use super::queue::{Failure, Key, Queue, Room};
use super::{Fault, Throttle};
use crate::sync::{MutexGuard, lock};

impl Throttle {
    /// A probe found the endpoint at this address well: it is no suspect any more.
    pub fn trust(&self, address: SocketAddr) {
        let mut queue = lock(&self.queue);
        queue.members.trust(address);
        self.settle(queue, Room::Anywhere);
    }

    /// A request failed there before its answer began.
    pub(super) fn failed(&self, endpoint: &Arc<Endpoint>, failure: Failure, now: Instant) -> Fault {
        let mut queue = lock(&self.queue);
        let was_suspect = endpoint.is_suspect();
        let fault = queue.failed(endpoint, failure, now);
        let suspected = endpoint.is_suspect() && !was_suspect;
        self.watch(&mut queue);
        let alone = suspected && !queue.members.has_ready();
        let scaler = queue.scaler().filter(|_| suspected);
        self.settle(queue, Room::Anywhere);
        if let Some(scaler) = scaler {
            scaler.suspected(endpoint.address);
        }
        if alone {
            self.nudge();
        }
        fault
    }

    /// An answer began there.
    pub(super) fn answered(&self, endpoint: &Arc<Endpoint>) {
        let mut queue = lock(&self.queue);
        queue.answered(endpoint);
        if !endpoint.is_closed() {
            self.starts().proved();
        }
        self.settle(queue, Room::At(endpoint));
    }

    /// The endpoint that a waiter got a slot at was removed before the waiter saw that: it gets another,
    /// or waits for one. Where it can no longer be held it goes there all the same.
    pub(super) fn take_back<'a>(
        &'a self,
        mut queue: MutexGuard<'a, Queue>,
        key: Key,
    ) -> MutexGuard<'a, Queue> {
        let counted = (self.namespace.one_more(), self.holding().one_more());
        let (Some(namespace), Some(process)) = counted else {
            return queue;
        };
        let place = Place {
            namespace,
            process,
            _address: None,
        };
        if let Some(grant) = queue.take_back(key, place) {
            queue.members.give_back(&grant);
        }
        self.watch(&mut queue);
        self.settle(queue, Room::Anywhere);
        self.nudge();
        lock(&self.queue)
    }

    /// Some time has passed: suspicions end, and windows grow while requests wait.
    pub(super) fn sweep(&self, now: Instant) {
        let mut queue = lock(&self.queue);
        queue.sweep(now);
        queue.watched = false;
        self.watch(&mut queue);
        self.settle(queue, Room::Anywhere);
    }

    /// Has [`super::Holding::sweep`] come by if time alone may let somebody in.
    pub(super) fn watch(&self, queue: &mut Queue) {
        if !queue.watched && queue.is_unsettled() {
            queue.watched = true;
            self.holding().watch(Weak::clone(&self.me));
        }
    }
}
