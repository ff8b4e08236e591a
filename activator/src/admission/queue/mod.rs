//! What a throttle keeps under its lock: the endpoints, and who waits in which order.

mod holders;
mod member;
mod members;
mod order;
mod pins;
mod rate;
mod turns;
pub(super) mod window;

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use slab::Slab;

pub(super) use self::member::Failure;
use self::members::Members;
pub(super) use self::members::{Grant, Room};
pub(super) use self::order::Rival;
use self::order::{Order, Turn};
use self::rate::Rate;
use super::endpoint::Endpoint;
use super::holding::Place;
use super::wakers::Wakers;
use super::{AcquireError, Bound, Claim, Fault, HeldBytes, Limits, Nudge, Share, Supply};

/// Nudges about the first waiter are merged over this time while an endpoint is ready.
const NUDGE_EVERY: Duration = Duration::from_millis(10);

/// Identifies a waiter in its queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key(usize);

#[derive(Debug)]
pub(super) struct Queue {
    pub(super) limits: Limits,
    supply: Supply,
    failure: Option<NoStart>,
    retired: bool,
    pub(super) members: Members,
    entries: Slab<Entry>,
    /// Those that still wait.
    order: Order,
    rate: Rate,
    /// When the first waiter was last told of.
    nudged: Option<Instant>,
    /// The holding's sweep visits this throttle.
    pub(super) watched: bool,
    /// Slots are marked.
    pub(super) proxied: bool,
}

/// The revision cannot start.
#[derive(Debug)]
struct NoStart {
    why: Arc<str>,
    /// Unless something else is said before.
    until: Instant,
}

#[derive(Debug)]
struct Entry {
    turn: Turn,
    state: State,
    /// Given back once it is refused or takes its grant up: until then it may have to wait again.
    held: Option<HeldBytes>,
}

#[derive(Debug)]
enum State {
    Waiting { waker: Option<Waker>, place: Place },
    Granted(Grant),
    Refused(AcquireError),
}

impl Queue {
    pub(super) fn new(limits: Limits, supply: Supply, workers: usize) -> Queue {
        Queue {
            limits,
            members: Members::new(workers, matches!(supply, Supply::Scaled(_))),
            supply,
            failure: None,
            retired: false,
            entries: Slab::new(),
            order: Order::default(),
            rate: Rate::default(),
            nudged: None,
            watched: false,
            proxied: false,
        }
    }

    /// How many wait and have been neither let in nor refused.
    pub(super) fn waiting(&self) -> usize {
        self.order.len()
    }

    /// Who must hear that somebody waits.
    pub(super) fn nudge(&self) -> Option<Arc<dyn Nudge>> {
        match self.order.is_empty() {
            true => None,
            false => self.scaler(),
        }
    }

    pub(super) fn scaler(&self) -> Option<Arc<dyn Nudge>> {
        match &self.supply {
            Supply::Scaled(nudge) => Some(Arc::clone(nudge)),
            Supply::Fixed | Supply::None => None,
        }
    }

    /// Who must hear that the first one waits. With ready endpoints the queue may fill and empty
    /// with every request, so those nudges are merged.
    pub(super) fn first_nudge(&mut self, now: Instant) -> Option<Arc<dyn Nudge>> {
        let recent = self
            .nudged
            .is_some_and(|at| now.saturating_duration_since(at) < NUDGE_EVERY);
        if recent && self.members.has_ready() {
            return None;
        }
        self.nudged = Some(now);
        self.nudge()
    }

    /// The same of one who may not wait, where nobody is there.
    pub(super) fn knock(&mut self, now: Instant) -> Option<Arc<dyn Nudge>> {
        let told = self.nudged;
        let recent = told.is_some_and(|at| now.saturating_duration_since(at) < NUDGE_EVERY);
        if recent || self.members.has_ready() {
            return None;
        }
        self.nudged = Some(now);
        self.scaler()
    }

    /// Why nobody can be let in and nothing is expected to change that.
    pub(super) fn refusal(&self) -> Option<AcquireError> {
        if !self.members.is_empty() {
            return None;
        }
        match (&self.failure, &self.supply) {
            _ if self.retired => Some(AcquireError::Removed),
            (Some(failure), _) => Some(AcquireError::StartFailed(Arc::clone(&failure.why))),
            (None, Supply::None) => Some(AcquireError::NoScaler),
            (None, Supply::Fixed | Supply::Scaled(_)) => None,
        }
    }

    // Waiters.

    /// Whether one more may wait as far as this queue goes. Those that had a slot are few, and have
    /// waited for it already.
    pub(super) fn bound(&self, claim: &Claim) -> Option<(Full, Bound)> {
        let per_client = self.limits.per_client;
        if claim.again {
            None
        } else if per_client > 0 && self.order.of(claim.flow) >= per_client {
            Some((Full::Client, Bound::PerClient))
        } else if self.order.newcomers() >= self.limits.queue_depth as usize {
            Some((Full::Queue, Bound::Depth))
        } else {
            None
        }
    }

    pub(super) fn join(
        &mut self,
        claim: &Claim,
        place: Place,
        held: Option<HeldBytes>,
        now: Instant,
    ) -> Key {
        match self.order.is_empty() {
            true => self.rate.begin(now),
            false => self.rate.roll(now),
        }
        let pins = held.as_ref().map_or(0, HeldBytes::bytes);
        let turn = self
            .order
            .turn(claim.arrived, claim.again, Rival::of(claim), pins);
        let key = self.entries.insert(Entry {
            turn,
            state: State::Waiting { waker: None, place },
            held,
        });
        self.order.insert(turn, key);
        Key(key)
    }

    /// The one that goes so that there is room for another; `None` = the newcomer itself.
    pub(super) fn gives_way(&self, full: Full, rival: Option<Rival>) -> Option<usize> {
        match (full, rival) {
            (Full::Client, Some(rival)) => self.order.to_shed_of(rival),
            (Full::Queue | Full::Client, rival) => self.order.to_shed(rival),
        }
    }

    /// The one that goes so that there is room for bytes of another; `None` = the newcomer itself.
    pub(super) fn unpins(&self, newcomer: Option<(Rival, u64)>) -> Option<usize> {
        self.order.to_unpin(newcomer)
    }

    /// It is not chosen again for what it pins, which is returned.
    pub(super) fn set_aside(&mut self, key: usize) -> u64 {
        let turn = &self.entries[key].turn;
        self.order.set_aside(turn)
    }

    /// It may be chosen again.
    pub(super) fn put_back(&mut self, key: usize) {
        let turn = &self.entries[key].turn;
        self.order.put_back(turn, key);
    }

    /// Refuses one that waits, for a bound. Its place and bytes may be another's.
    pub(super) fn refuse(
        &mut self,
        key: usize,
        bound: Bound,
        wakers: &mut Wakers,
    ) -> (Place, Option<HeldBytes>) {
        let turn = self.entries[key].turn;
        self.order.remove(&turn);
        let held = self.entries[key].held.take();
        let refused = State::Refused(AcquireError::QueueFull(bound));
        (self.decide(key, refused, wakers), held)
    }

    /// Of one that waited and was in the order until now.
    fn decide(&mut self, key: usize, state: State, wakers: &mut Wakers) -> Place {
        let entry = &mut self.entries[key];
        if matches!(state, State::Refused(_)) {
            entry.held = None;
        }
        match std::mem::replace(&mut entry.state, state) {
            State::Waiting { waker, place } => {
                wakers.push(waker);
                place
            }
            State::Granted(_) | State::Refused(_) => unreachable!("whoever is in the order waits"),
        }
    }

    /// What became of a waiter; once that is known its entry is gone. Wakers that are no longer
    /// needed go to `spent`: dropping one may run any code, so it happens without the lock.
    pub(super) fn poll(
        &mut self,
        Key(key): Key,
        current: &Waker,
        spent: &mut Option<Waker>,
    ) -> Poll<Result<Grant, AcquireError>> {
        if let State::Waiting { waker, .. } = &mut self.entries[key].state {
            if !waker.as_ref().is_some_and(|known| known.will_wake(current)) {
                *spent = waker.replace(current.clone());
            }
            return Poll::Pending;
        }
        match self.entries.remove(key).state {
            State::Granted(grant) => Poll::Ready(Ok(grant)),
            State::Refused(error) => Poll::Ready(Err(error)),
            State::Waiting { .. } => Poll::Pending,
        }
    }

    /// The endpoint that a waiter was granted a slot at has been removed before it took that up, and
    /// there is something to wait for.
    pub(super) fn is_granted_in_vain(&self, Key(key): Key) -> bool {
        match &self.entries[key].state {
            State::Granted(grant) => grant.endpoint.is_closed() && self.refusal().is_none(),
            State::Waiting { .. } | State::Refused(_) => false,
        }
    }

    /// It waits again, before those who had no turn yet; returns its grant, which must be freed.
    pub(super) fn take_back(&mut self, Key(key): Key, place: Place) -> Option<Grant> {
        let entry = &mut self.entries[key];
        let waits = State::Waiting { waker: None, place };
        let State::Granted(grant) = std::mem::replace(&mut entry.state, waits) else {
            return None;
        };
        entry.turn.had_a_slot();
        self.order.insert(entry.turn, key);
        Some(grant)
    }

    /// A waiter stops waiting. Returns the grant it had not taken up, which must be freed.
    pub(super) fn leave(&mut self, Key(key): Key, spent: &mut Option<Waker>) -> Option<Grant> {
        let entry = self.entries.remove(key);
        match entry.state {
            State::Waiting { waker, .. } => {
                *spent = waker;
                self.order.remove(&entry.turn);
                None
            }
            State::Granted(grant) => Some(grant),
            State::Refused(_) => None,
        }
    }

    /// Lets in those whose turn it is, or refuses them all when nothing can come. True when the
    /// batch was full and the caller must come again.
    pub(super) fn settle(&mut self, room: Room<'_>, wakers: &mut Wakers) -> bool {
        let refusal = self.refusal();
        while let Some(key) = self.order.first() {
            if wakers.is_full() {
                return true;
            }
            let state = match &refusal {
                Some(error) => State::Refused(error.clone()),
                None => match self.members.room(room) {
                    Some(grant) => State::Granted(grant),
                    None => return false,
                },
            };
            if refusal.is_none() {
                self.rate.granted();
            }
            let turn = self.entries[key].turn;
            self.order.pop(&turn);
            drop(self.decide(key, state, wakers));
        }
        false
    }

    #[cfg(all(test, not(tidegate_loom)))]
    pub(super) fn kept(&self) -> usize {
        self.entries.capacity()
    }

    /// How long it takes, at the present rate, until those who wait now have been let in.
    pub(super) fn drains_in(&self, now: Instant) -> Option<Duration> {
        self.rate.time_for(self.waiting(), now)
    }

    // Changes of the world. Each is followed by a settling.

    pub(super) fn configure(&mut self, limits: Limits) {
        self.limits = limits;
        self.members.configure(&self.limits);
    }

    /// If anybody waits since `since` or before, those who wait may get what is lent.
    pub(super) fn lend(&mut self, since: Instant, now: Instant) {
        if self.order.oldest().is_some_and(|arrived| arrived <= since) {
            self.members.lending.want(now);
        }
    }

    /// Returns the old one, to be dropped without the lock.
    pub(super) fn set_supply(&mut self, supply: Supply) -> Supply {
        self.retired = false;
        self.members.scaled = matches!(supply, Supply::Scaled(_));
        std::mem::replace(&mut self.supply, supply)
    }

    pub(super) fn retire(&mut self) {
        self.retired = true;
    }

    /// A revision with an endpoint has started, whatever became of one more.
    pub(super) fn fail(&mut self, why: Arc<str>, until: Instant) {
        if self.members.is_empty() {
            self.failure = Some(NoStart { why, until });
        }
    }

    /// Forgets a failure whose time is over.
    pub(super) fn end_failure(&mut self, now: Instant) {
        self.failure.take_if(|failure| failure.until <= now);
    }

    pub(super) fn fails_until(&self) -> Option<Instant> {
        self.failure.as_ref().map(|failure| failure.until)
    }

    pub(super) fn clear_failure(&mut self) {
        self.failure = None;
    }

    /// True when the set changed.
    pub(super) fn set_endpoints(&mut self, declared: &[(SocketAddr, Option<Share>)]) -> bool {
        let waited_for = !self.order.is_empty();
        let changed = self.members.declare(declared, waited_for, &self.limits);
        if !self.members.is_empty() {
            self.failure = None;
        }
        changed
    }

    /// True when the set changed.
    pub(super) fn drain(&mut self, address: SocketAddr) -> bool {
        self.members.drain(address, self.limits.concurrency)
    }

    /// A request failed there before its answer began.
    pub(super) fn failed(
        &mut self,
        endpoint: &Arc<Endpoint>,
        failure: Failure,
        now: Instant,
    ) -> Fault {
        self.members.failed(endpoint, failure, &self.limits, now)
    }

    /// An answer began there.
    pub(super) fn answered(&mut self, endpoint: &Arc<Endpoint>) {
        let waited_for = !self.order.is_empty();
        self.members.answered(endpoint, waited_for, &self.limits);
    }

    /// Ends the suspicions that are over. True when there were any.
    pub(super) fn end_suspicions(&mut self, now: Instant) -> bool {
        self.watched && self.members.end_suspicions_due(now)
    }

    /// Time has passed: suspicions end, and windows grow while requests wait.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.members.end_suspicions(now);
        match self.order.is_empty() {
            true => self.members.eased(),
            false => self.members.pressed(&self.limits, now),
        }
    }

    /// Whether time alone may let somebody in.
    pub(super) fn is_unsettled(&self) -> bool {
        self.members.is_unsettled(!self.order.is_empty())
    }
}

/// Which bound of a queue is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    Queue,
    /// That of one flow.
    Client,
}

impl Rival {
    pub(super) fn of(claim: &Claim) -> Rival {
        Rival {
            flow: claim.flow,
            priority: claim.priority,
        }
    }
}
