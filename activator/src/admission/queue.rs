//! What a throttle keeps under its lock: the endpoints, and who waits in which order.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use slab::Slab;

use super::choice::choose;
use super::endpoint::Endpoint;
use super::holding::Place;
use super::lending::Lending;
use super::wakers::Wakers;
use super::{AcquireError, Limits, Nudge, SUSPICION, Share, Supply};

/// Nudges about the first waiter are merged over this time while an endpoint is ready.
const NUDGE_EVERY: Duration = Duration::from_millis(10);

/// A slot that its waiter has not taken up yet; counted in the endpoint's word.
#[derive(Clone, Debug)]
pub(super) struct Grant {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) limited: bool,
    /// The slot belongs to another process.
    pub(super) lent: bool,
}

/// Identifies a waiter in its queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key(usize);

/// Where to look for room.
#[derive(Clone, Copy, Debug)]
pub(super) enum Room<'a> {
    /// Something changed for the whole revision.
    Anywhere,
    /// A slot was freed here, and settling was up to date before.
    At(&'a Arc<Endpoint>),
}

#[derive(Debug)]
pub(super) struct Queue {
    pub(super) limits: Limits,
    supply: Supply,
    failure: Option<Arc<str>>,
    retired: bool,
    workers: usize,
    /// The declared set, in the order declared.
    members: Vec<Member>,
    /// Those that left it and still hold slots.
    draining: Vec<Arc<Endpoint>>,
    entries: Slab<Entry>,
    /// Those that still wait: by arrival, then in the order they came here.
    order: BTreeMap<(Instant, u64), usize>,
    ticket: u64,
    /// When the first waiter was last told of.
    nudged: Option<Instant>,
    /// The holding's sweep visits this throttle.
    pub(super) watched: bool,
    /// Slots are marked.
    pub(super) proxied: bool,
    pub(super) lending: Lending,
    /// Spreads grants over equally loaded endpoints.
    dice: u32,
}

#[derive(Debug)]
struct Member {
    endpoint: Arc<Endpoint>,
    suspect_until: Option<Instant>,
    share: Option<Share>,
}

#[derive(Debug)]
struct Entry {
    /// Its key in `order`.
    turn: (Instant, u64),
    state: State,
}

#[derive(Debug)]
enum State {
    Waiting { waker: Option<Waker>, _place: Place },
    Granted(Grant),
    Refused(AcquireError),
}

impl Queue {
    pub(super) fn new(limits: Limits, supply: Supply, workers: usize) -> Queue {
        Queue {
            limits,
            supply,
            failure: None,
            retired: false,
            workers,
            members: Vec::new(),
            draining: Vec::new(),
            entries: Slab::new(),
            order: BTreeMap::new(),
            ticket: 0,
            nudged: None,
            watched: false,
            proxied: false,
            lending: Lending::default(),
            dice: 0,
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
        if recent && self.has_ready() {
            return None;
        }
        self.nudged = Some(now);
        self.nudge()
    }

    /// Why nobody can be let in and nothing is expected to change that.
    pub(super) fn refusal(&self) -> Option<AcquireError> {
        if !self.members.is_empty() {
            return None;
        }
        match (&self.failure, &self.supply) {
            _ if self.retired => Some(AcquireError::Removed),
            (Some(why), _) => Some(AcquireError::StartFailed(Arc::clone(why))),
            (None, Supply::None) => Some(AcquireError::NoScaler),
            (None, Supply::Fixed | Supply::Scaled(_)) => None,
        }
    }

    // Waiters.

    pub(super) fn join(&mut self, arrived: Instant, place: Place) -> Key {
        let turn = (arrived, self.ticket);
        self.ticket += 1;
        let key = self.entries.insert(Entry {
            turn,
            state: State::Waiting {
                waker: None,
                _place: place,
            },
        });
        self.order.insert(turn, key);
        Key(key)
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
        while let Some(first) = self.order.first_entry() {
            if wakers.is_full() {
                return true;
            }
            let key = *first.get();
            let state = match &refusal {
                Some(error) => State::Refused(error.clone()),
                None => match self.room(room) {
                    Some(grant) => State::Granted(grant),
                    None => return false,
                },
            };
            self.order.pop_first();
            let before = std::mem::replace(&mut self.entries[key].state, state);
            if let State::Waiting { waker, .. } = before {
                wakers.push(waker);
            }
        }
        false
    }

    /// Takes a slot where there is room, if the rules for suspects allow it.
    pub(super) fn room(&mut self, room: Room<'_>) -> Option<Grant> {
        match room {
            Room::Anywhere => self.room_anywhere(),
            Room::At(freed) => {
                if freed.is_closed() || (freed.is_suspect() && !self.suspects_serve()) {
                    return None;
                }
                if let Some(own) = take(freed, false) {
                    return Some(own);
                }
                if !self.lending.may_take() {
                    return None;
                }
                let lent = take(freed, true)?;
                self.lending.took();
                Some(lent)
            }
        }
    }

    /// Our own slots come before those that are lent.
    fn room_anywhere(&mut self) -> Option<Grant> {
        if let Some(own) = self.room_among(false) {
            return Some(own);
        }
        if !self.lending.may_take() {
            return None;
        }
        let lent = self.room_among(true)?;
        self.lending.took();
        Some(lent)
    }

    fn room_among(&mut self, lent: bool) -> Option<Grant> {
        // A step of Knuth's congruential generator: spread is all that is asked of it.
        self.dice = self
            .dice
            .wrapping_mul(1_664_525)
            .wrapping_add(1_013_904_223);
        let last_resort = self.suspects_serve();
        // Where all are suspect, the one that failed last comes last: a request repeated because of
        // it gets another if there is one. The rest share the load, for most have recovered.
        let failed_last = match last_resort {
            true => self.members.iter().max_by_key(|m| m.suspect_until),
            false => None,
        };
        let choosable = |at: usize| {
            let member = &self.members[at];
            let last = failed_last.is_some_and(|last| std::ptr::eq(last, member));
            ((member.is_ready() || last_resort) && !last).then_some(&member.endpoint)
        };
        let chosen = choose(
            self.members.len(),
            self.dice,
            |at| Some(choosable(at)?.in_flight()),
            |at| take(choosable(at)?, lent),
        );
        chosen.or_else(|| take(&failed_last?.endpoint, lent))
    }

    /// With a scaler, waiters wait for another endpoint or the end of the suspicion. Without one,
    /// suspects are all there is, and a lone flapping endpoint is tried again at once.
    fn suspects_serve(&self) -> bool {
        match self.supply {
            Supply::Scaled(_) => false,
            Supply::None | Supply::Fixed => !self.has_ready(),
        }
    }

    // Changes of the world. Each is followed by a settling.

    pub(super) fn configure(&mut self, limits: Limits) {
        self.limits = limits;
        let own = self.members.iter().filter(|member| member.share.is_none());
        let own = own.map(|member| &member.endpoint);
        for endpoint in own.chain(&self.draining) {
            endpoint.set_limit(limits.concurrency);
        }
    }

    /// If anybody waits since `since` or before, those who wait may get what is lent.
    pub(super) fn lend(&mut self, since: Instant, now: Instant) {
        let first = self.order.first_key_value();
        if first.is_some_and(|((arrived, _), _)| *arrived <= since) {
            self.lending.want(now);
        }
    }

    /// Returns the old one, to be dropped without the lock.
    pub(super) fn set_supply(&mut self, supply: Supply) -> Supply {
        self.retired = false;
        std::mem::replace(&mut self.supply, supply)
    }

    pub(super) fn retire(&mut self) {
        self.retired = true;
    }

    /// A revision with an endpoint has started, whatever became of one more.
    pub(super) fn fail(&mut self, why: Arc<str>) {
        if self.members.is_empty() {
            self.failure = Some(why);
        }
    }

    pub(super) fn clear_failure(&mut self) {
        self.failure = None;
    }

    /// True when the set changed.
    pub(super) fn set_endpoints(&mut self, declared: &[(SocketAddr, Option<Share>)]) -> bool {
        self.purge();
        let mut seen = HashSet::new();
        let declared = declared.iter().filter(|(address, _)| seen.insert(*address));
        let declared: Vec<_> = declared.copied().collect();
        let unchanged = declared.len() == self.members.len()
            && declared
                .iter()
                .zip(&self.members)
                .all(|((address, _), member)| *address == member.endpoint.address);
        if !unchanged {
            self.replace(&declared);
        }
        let concurrency = self.limits.concurrency;
        for (member, (_, share)) in self.members.iter_mut().zip(declared) {
            member.set_share(share, concurrency);
        }
        !unchanged
    }

    /// Each address once.
    fn replace(&mut self, declared: &[(SocketAddr, Option<Share>)]) {
        let mut known: HashMap<SocketAddr, Member> = HashMap::new();
        let draining = self.draining.drain(..).map(Member::ready);
        for member in self.members.drain(..).chain(draining) {
            known.insert(member.endpoint.address, member);
        }
        for (address, _) in declared {
            let member = match known.remove(address) {
                Some(member) => {
                    if member.endpoint.is_closed() {
                        member.endpoint.reopen();
                    }
                    member
                }
                None => Member::ready(Arc::new(Endpoint::new(
                    *address,
                    self.limits.concurrency,
                    self.workers,
                ))),
            };
            self.members.push(member);
        }
        for member in known.into_values() {
            self.close(member);
        }
        if !self.members.is_empty() {
            self.failure = None;
        }
    }

    /// True when the set changed.
    pub(super) fn drain(&mut self, address: SocketAddr) -> bool {
        let found = self
            .members
            .iter()
            .position(|m| m.endpoint.address == address);
        let Some(at) = found else { return false };
        let member = self.members.remove(at);
        self.close(member);
        true
    }

    fn close(&mut self, mut member: Member) {
        member.endpoint.close();
        member.set_share(None, self.limits.concurrency);
        self.draining.push(member.endpoint);
    }

    /// Begins or prolongs a suspicion.
    pub(super) fn suspect(&mut self, endpoint: &Endpoint, now: Instant) {
        let Some(member) = self
            .members
            .iter_mut()
            .find(|m| m.endpoint.id == endpoint.id)
        else {
            return;
        };
        let until = now + SUSPICION;
        member.suspect_until = Some(member.suspect_until.map_or(until, |was| was.max(until)));
        member.endpoint.set_suspect(true);
    }

    /// Ends the suspicions that are over. True when there were any.
    pub(super) fn end_suspicions(&mut self, now: Instant) -> bool {
        let mut ended = false;
        if !self.watched {
            return ended;
        }
        for member in &mut self.members {
            if member.suspect_until.is_some_and(|until| until <= now) {
                member.suspect_until = None;
                member.endpoint.set_suspect(false);
                ended = true;
            }
        }
        ended
    }

    pub(super) fn has_suspects(&self) -> bool {
        self.members.iter().any(|member| !member.is_ready())
    }

    pub(super) fn has_ready(&self) -> bool {
        self.members.iter().any(Member::is_ready)
    }

    /// Forgets the drained endpoints whose last slot is free.
    pub(super) fn purge(&mut self) {
        self.draining.retain(|endpoint| endpoint.in_flight() != 0);
    }

    pub(super) fn members(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.members.iter().map(|member| &member.endpoint)
    }

    /// Members, then those that drain.
    pub(super) fn all_endpoints(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.members().chain(&self.draining)
    }
}

impl Member {
    fn ready(endpoint: Arc<Endpoint>) -> Member {
        Member {
            endpoint,
            suspect_until: None,
            share: None,
        }
    }

    fn is_ready(&self) -> bool {
        self.suspect_until.is_none()
    }

    fn set_share(&mut self, share: Option<Share>, concurrency: u32) {
        if self.share == share {
            return;
        }
        self.share = share;
        match share {
            Some(Share { own, most }) => self.endpoint.set_share(own, most),
            None => self.endpoint.set_limit(concurrency),
        }
    }
}

fn take(endpoint: &Arc<Endpoint>, lent: bool) -> Option<Grant> {
    let limited = endpoint.take_shared(lent)?;
    Some(Grant {
        endpoint: Arc::clone(endpoint),
        limited,
        lent,
    })
}
