//! One worker's side of a throttle: the warm path, and the slot it hands out.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::choice::choose;
use super::endpoint::{Attempt, Counted, Endpoint};
use super::queue::{Failure, Grant};
use super::throttle::Joined;
use super::{AcquireError, Claim, EndpointId, Fault, Throttle, Waiting};
use crate::demand::{Change, nanoseconds};

/// A worker's cached time; the worker's loop sets it, everything else reads it.
#[derive(Debug)]
pub struct Clock {
    start: Instant,
    now: Cell<Instant>,
}

impl Clock {
    pub fn new(now: Instant) -> Rc<Clock> {
        Rc::new(Clock {
            start: now,
            now: Cell::new(now),
        })
    }

    pub fn set(&self, now: Instant) {
        self.now.set(now);
    }

    pub fn now(&self) -> Instant {
        self.now.get()
    }
}

/// One worker's side of one throttle. A worker may have several of the same throttle, all on its
/// own thread: what a gate keeps is only a copy of the endpoints.
#[derive(Debug)]
pub struct Gate {
    throttle: Arc<Throttle>,
    worker: usize,
    clock: Rc<Clock>,
    /// From the throttle's origin to the clock's start, in nanoseconds; it may be negative.
    offset: i64,
    epoch: Cell<u64>,
    /// Slots are marked; as the throttle said at that epoch.
    proxied: Cell<bool>,
    endpoints: RefCell<Rc<[Rc<Local>]>>,
}

/// A worker's handle of an endpoint, so that taking a slot touches no shared reference count.
#[derive(Debug)]
struct Local {
    endpoint: Arc<Endpoint>,
}

/// The right to one request in flight at one endpoint; dropping it gives it back.
#[derive(Debug)]
#[must_use]
pub struct Slot {
    gate: Rc<Gate>,
    local: Rc<Local>,
    counted: Counted,
    /// The endpoint's, when it was taken.
    era: u16,
    limited: bool,
    lingering: bool,
    marked: bool,
    /// Not part of demand at the moment.
    resting: Cell<bool>,
    /// It belongs to another process.
    lent: bool,
}

/// How a request comes to its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Came {
    First,
    /// It had a slot before, and is made once more.
    Again,
    /// It was counted as waiting until now.
    Waited,
}

impl Gate {
    /// The side of worker number `worker`. All gates with this number must live on one thread.
    ///
    /// # Panics
    ///
    /// When the throttle was made for fewer workers.
    pub fn new(throttle: Arc<Throttle>, worker: usize, clock: Rc<Clock>) -> Rc<Gate> {
        assert!(worker < throttle.workers(), "no such worker: {worker}");
        let origin = throttle.origin(clock.now());
        let after = nanoseconds(origin, clock.start).cast_signed();
        let before = nanoseconds(clock.start, origin).cast_signed();
        let offset = after - before;
        let gate = Gate {
            throttle,
            worker,
            clock,
            offset,
            epoch: Cell::new(0),
            proxied: Cell::new(false),
            endpoints: RefCell::new(Rc::new([])),
        };
        gate.refresh();
        Rc::new(gate)
    }

    pub fn throttle(&self) -> &Arc<Throttle> {
        &self.throttle
    }

    /// The warm path: a slot, if nobody waits and a ready endpoint has room. `random` decides
    /// between equals. `None` says only that it takes [`Gate::wait`] to know more.
    pub fn try_acquire(self: &Rc<Self>, random: u32) -> Option<Slot> {
        self.try_as(Came::First, random)
    }

    /// The same for a request that had a slot before: it is no other request for that.
    pub fn try_acquire_again(self: &Rc<Self>, random: u32) -> Option<Slot> {
        self.try_as(Came::Again, random)
    }

    #[inline]
    fn try_as(self: &Rc<Self>, came: Came, random: u32) -> Option<Slot> {
        if self.throttle.waiting() != 0 {
            return None;
        }
        self.keep_up();
        // Not borrowed while slots are taken: undoing one may wake a waiter.
        let endpoints = Rc::clone(&self.endpoints.borrow());
        choose(
            endpoints.len(),
            random,
            |at| endpoints[at].endpoint.load(self.worker),
            |at| self.take(&endpoints[at], came),
        )
    }

    /// Waits for a slot until it is the claim's turn. Looks for room once more first.
    ///
    /// # Errors
    ///
    /// Why it may not wait; the returned future says why it no longer may.
    pub fn wait(self: &Rc<Self>, claim: Claim) -> Result<Waiting, AcquireError> {
        let again = claim.again;
        let came = if again { Came::Again } else { Came::First };
        match self.throttle.join(&claim, self.clock.now())? {
            Joined::Granted(grant) => Ok(Waiting::granted(self.redeem(grant, came))),
            Joined::Waits(key) => Ok(Waiting::new(Rc::clone(self), key, again)),
        }
    }

    /// The worker's time.
    pub(super) fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Counts the change in this worker's demand.
    #[inline]
    pub(super) fn count(&self, change: Change) {
        let since_start = nanoseconds(self.clock.start, self.clock.now());
        let now = since_start.saturating_add_signed(self.offset);
        let begins = self.throttle.shard(self.worker).change(now, change);
        if begins {
            self.throttle.begun();
        }
    }

    /// Turns a grant into the slot it stands for.
    pub(super) fn redeem(self: &Rc<Self>, grant: Grant, came: Came) -> Slot {
        self.keep_up();
        let endpoint = grant.endpoint;
        let local = Rc::new(Local { endpoint });
        let mut slot = self.slot(local, Counted::Word, grant.limited, came);
        slot.lent = grant.lent;
        slot.era = grant.era;
        slot
    }

    /// What the gate keeps is as the throttle last said.
    fn keep_up(&self) {
        if self.epoch.get() != self.throttle.epoch() {
            self.refresh();
        }
    }

    fn refresh(&self) {
        let members = self.throttle.members();
        let locals = members
            .endpoints
            .into_iter()
            .map(|endpoint| Rc::new(Local { endpoint }));
        *self.endpoints.borrow_mut() = locals.collect();
        self.proxied.set(members.proxied);
        self.epoch.set(members.epoch);
    }

    #[inline]
    fn take(self: &Rc<Self>, local: &Rc<Local>, came: Came) -> Option<Slot> {
        match local.endpoint.take(self.worker) {
            Attempt::Taken { counted, limited } => {
                Some(self.slot(Rc::clone(local), counted, limited, came))
            }
            Attempt::Refused => None,
            Attempt::Undone => {
                self.throttle.freed(&local.endpoint);
                None
            }
        }
    }

    #[inline]
    fn slot(
        self: &Rc<Self>,
        local: Rc<Local>,
        counted: Counted,
        limited: bool,
        came: Came,
    ) -> Slot {
        let marked = self.proxied.get();
        self.count(Change {
            running: 1,
            waiting: -i8::from(came == Came::Waited),
            marked: i8::from(marked),
            asks: marked && came != Came::Waited,
            again: came == Came::Again,
            ..Change::default()
        });
        let era = local.endpoint.era();
        Slot {
            gate: Rc::clone(self),
            local,
            counted,
            era,
            limited,
            lingering: false,
            marked,
            resting: Cell::new(false),
            lent: false,
        }
    }
}

impl Slot {
    pub fn endpoint(&self) -> EndpointId {
        self.local.endpoint.id
    }

    pub fn address(&self) -> SocketAddr {
        self.local.endpoint.address
    }

    /// There was a limit when the slot was taken.
    pub fn limited(&self) -> bool {
        self.limited
    }

    /// The revision was proxied when the slot was taken ([`Throttle::set_proxied`]).
    pub fn is_marked(&self) -> bool {
        self.marked
    }

    /// It belongs to another process, which lends it ([`Throttle::lend`]).
    pub fn is_lent(&self) -> bool {
        self.lent
    }

    /// The endpoint refused a connection, or ended a new one before an answer began. It gets fewer
    /// requests at a time if it had many, and is passed over for a while ([`super::SUSPICION`]) where
    /// another is ready, unless it answers others at the same time.
    pub fn suspect(&self) -> Fault {
        self.failed(true)
    }

    /// The same of a connection that had been in use, which says nothing of how many it bears.
    pub fn doubt(&self) -> Fault {
        self.failed(false)
    }

    #[cfg(all(test, not(tidegate_loom)))]
    pub(super) fn era(&self) -> u16 {
        self.era
    }

    fn failed(&self, fresh: bool) -> Fault {
        let now = self.gate.clock.now();
        let era = self.era;
        let failure = Failure { era, fresh };
        self.gate
            .throttle
            .failed(&self.local.endpoint, failure, now)
    }

    /// The answer began: the endpoint is well, and if it is new it may get more. Costs next to
    /// nothing where it is neither new nor has failed.
    #[inline]
    pub fn answered(&self) {
        if self.local.endpoint.is_heard() {
            self.gate.throttle.answered(&self.local.endpoint);
        }
    }

    /// Nothing has moved for long: from now on the request is no part of demand, while the slot stays
    /// held. Does nothing when it rests already.
    pub fn rest(&self) {
        if !self.resting.replace(true) {
            self.local.endpoint.rest();
            self.gate.count(Change {
                running: -1,
                marked: -i8::from(self.marked),
                resting: 1,
                resting_marked: i8::from(self.marked),
                ..Change::default()
            });
        }
    }

    /// Something moves again: the request is part of demand as before. Does nothing unless it rests.
    pub fn stir(&self) {
        if self.resting.replace(false) {
            self.gate.count(Change {
                running: 1,
                marked: i8::from(self.marked),
                resting: -1,
                resting_marked: -i8::from(self.marked),
                // Whoever is told of marked requests may have gone to sleep meanwhile.
                asks: self.marked,
                again: true,
                ..Change::default()
            });
            self.local.endpoint.end_rest();
        }
    }

    pub fn rests(&self) -> bool {
        self.resting.get()
    }

    /// The exchange ended early, but the work at the endpoint may go on: the slot shows as lingering
    /// until it is dropped.
    pub fn linger(&mut self) {
        if !self.lingering {
            self.lingering = true;
            self.local.endpoint.linger();
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let endpoint = &self.local.endpoint;
        if self.lingering {
            endpoint.end_linger();
        }
        let resting = self.resting.get();
        self.gate.count(match resting {
            false => Change {
                running: -1,
                marked: -i8::from(self.marked),
                ..Change::default()
            },
            true => Change {
                resting: -1,
                resting_marked: -i8::from(self.marked),
                ..Change::default()
            },
        });
        endpoint.free(self.counted, self.gate.worker);
        if resting {
            endpoint.end_rest();
        }
        match self.lent {
            true => self.gate.throttle.returned(endpoint),
            false => self.gate.throttle.freed(endpoint),
        }
    }
}
