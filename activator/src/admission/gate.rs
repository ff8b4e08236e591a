//! One worker's side of a throttle: the warm path, and the slot it hands out.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::choice::choose;
use super::endpoint::{Attempt, Counted, Endpoint};
use super::queue::Grant;
use super::throttle::Joined;
use super::{AcquireError, EndpointId, HeldBytes, Throttle, Waiting};
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
    limited: bool,
    lingering: bool,
    marked: bool,
    /// It belongs to another process.
    lent: bool,
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
            |at| self.take(&endpoints[at]),
        )
    }

    /// Waits for a slot in the order of `arrived`: a repeated request keeps its first arrival, and
    /// so its place. Looks for room once more first. `held` is what the request pins meanwhile; it
    /// is given back when the waiting ends.
    ///
    /// # Errors
    ///
    /// Why it may not wait; the returned future says why it no longer may.
    pub fn wait(
        self: &Rc<Self>,
        arrived: Instant,
        held: Option<HeldBytes>,
    ) -> Result<Waiting, AcquireError> {
        match self.throttle.join(arrived, self.clock.now())? {
            Joined::Granted(grant) => Ok(Waiting::granted(self.redeem(grant, false))),
            Joined::Waits(key) => Ok(Waiting::new(Rc::clone(self), key, held)),
        }
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

    /// Turns a grant into the slot it stands for. `waited`: it was counted as waiting until now.
    pub(super) fn redeem(self: &Rc<Self>, grant: Grant, waited: bool) -> Slot {
        self.keep_up();
        let endpoint = grant.endpoint;
        let local = Rc::new(Local { endpoint });
        let mut slot = self.slot(local, Counted::Word, grant.limited, waited);
        slot.lent = grant.lent;
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

    fn take(self: &Rc<Self>, local: &Rc<Local>) -> Option<Slot> {
        match local.endpoint.take(self.worker) {
            Attempt::Taken { counted, limited } => {
                Some(self.slot(Rc::clone(local), counted, limited, false))
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
        waited: bool,
    ) -> Slot {
        let marked = self.proxied.get();
        self.count(Change {
            running: 1,
            waiting: -i32::from(waited),
            marked: i32::from(marked),
            asks: marked && !waited,
        });
        Slot {
            gate: Rc::clone(self),
            local,
            counted,
            limited,
            lingering: false,
            marked,
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

    /// The endpoint refused a connection or closed one early: it is passed over for
    /// [`super::SUSPICION`] while another is ready.
    pub fn suspect(&self) {
        let now = self.gate.clock.now();
        self.gate.throttle.suspect(&self.local.endpoint, now);
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
        self.gate.count(Change {
            running: -1,
            marked: -i32::from(self.marked),
            ..Change::default()
        });
        endpoint.free(self.counted, self.gate.worker);
        match self.lent {
            true => self.gate.throttle.returned(endpoint),
            false => self.gate.throttle.freed(endpoint),
        }
    }
}
