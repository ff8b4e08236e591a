//! The endpoints of a queue: which are declared, which drain, which are suspect, where there is room.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::member::{Failure, Member};
use crate::admission::choice::choose;
use crate::admission::endpoint::{Counted, Endpoint};
use crate::admission::lending::Lending;
use crate::admission::{Fault, Limits, RampUp, Share, Shortage};

/// A slot that its waiter has not taken up yet; counted in the endpoint's word.
#[derive(Clone, Debug)]
pub(in crate::admission) struct Grant {
    pub(in crate::admission) endpoint: Arc<Endpoint>,
    pub(in crate::admission) limited: bool,
    /// The slot belongs to another process.
    pub(in crate::admission) lent: bool,
    /// The endpoint's, when it was given.
    pub(in crate::admission) era: u16,
}

/// Where to look for room.
#[derive(Clone, Copy, Debug)]
pub(in crate::admission) enum Room<'a> {
    /// Something changed for the whole revision.
    Anywhere,
    /// A slot was freed here, and settling was up to date before.
    At(&'a Arc<Endpoint>),
}

#[derive(Debug)]
pub(in crate::admission) struct Members {
    /// The declared set, in the order declared.
    declared: Vec<Member>,
    /// Those that left it and still hold slots.
    draining: Vec<Arc<Endpoint>>,
    pub(in crate::admission) lending: Lending,
    workers: usize,
    /// Somebody may bring others.
    pub(super) scaled: bool,
    /// Spreads grants over equally loaded endpoints.
    dice: u32,
    /// Endpoints have been declared before: others that come are new, not only to us.
    any_before: bool,
    /// No suspicion ends earlier.
    soonest: Option<Instant>,
}

impl Members {
    pub(super) fn new(workers: usize, scaled: bool) -> Members {
        Members {
            declared: Vec::new(),
            draining: Vec::new(),
            lending: Lending::default(),
            workers,
            scaled,
            dice: 0,
            any_before: false,
            soonest: None,
        }
    }

    pub(in crate::admission) fn is_empty(&self) -> bool {
        self.declared.is_empty()
    }

    /// Takes a slot where there is room, if the rules for suspects allow it.
    pub(in crate::admission) fn room(&mut self, room: Room<'_>) -> Option<Grant> {
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

    /// A grant that nobody takes up.
    pub(in crate::admission) fn give_back(&mut self, grant: &Grant) {
        // No worker is needed to free what is counted in the word.
        grant.endpoint.free(Counted::Word, 0);
        grant.endpoint.unmix();
        if grant.lent {
            self.lending.returned();
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
            true => self.declared.iter().max_by_key(|m| m.failed_at()),
            false => None,
        };
        let choosable = |at: usize| {
            let member = &self.declared[at];
            let last = failed_last.is_some_and(|last| std::ptr::eq(last, member));
            ((member.is_ready() || last_resort) && !last).then_some(&member.endpoint)
        };
        let chosen = choose(
            self.declared.len(),
            self.dice,
            |at| Some(choosable(at)?.in_flight()),
            |at| take(choosable(at)?, lent),
        );
        chosen.or_else(|| take(&failed_last?.endpoint, lent))
    }

    /// With a scaler, waiters wait for another endpoint or the end of the suspicion. Without one,
    /// suspects are all there is, and a lone flapping endpoint is tried again at once.
    fn suspects_serve(&self) -> bool {
        !self.scaled && !self.has_ready()
    }

    pub(in crate::admission) fn shortage(&self) -> Shortage {
        let ready = self.declared.iter().filter(|member| member.is_ready());
        let mut paced = ready.map(Member::is_paced);
        match paced.next() {
            None if self.is_empty() => Shortage::NoEndpoint,
            None => Shortage::AllSuspect,
            Some(first) if first || paced.any(|other| other) => Shortage::Paced,
            Some(_) => Shortage::AllBusy,
        }
    }

    // Changes. Each is followed by a settling.

    pub(super) fn configure(&mut self, limits: &Limits) {
        for member in &mut self.declared {
            member.configure(limits);
        }
        for endpoint in &self.draining {
            endpoint.set_limit(limits.concurrency, None);
        }
    }

    /// Declares the whole set; `waited_for` says whether requests wait. True when it changed.
    pub(in crate::admission) fn declare(
        &mut self,
        declared: &[(SocketAddr, Option<Share>)],
        waited_for: bool,
        limits: &Limits,
    ) -> bool {
        self.purge();
        let mut seen = HashSet::new();
        let declared = declared.iter().filter(|(address, _)| seen.insert(*address));
        let declared: Vec<_> = declared.copied().collect();
        let unchanged = declared.len() == self.declared.len()
            && declared
                .iter()
                .zip(&self.declared)
                .all(|((address, _), member)| *address == member.endpoint.address);
        if !unchanged {
            // Those that are written down were at work before we came: nobody had to wait.
            let new = self.scaled || self.any_before || waited_for;
            self.replace(&declared, limits.ramp_up.filter(|_| new), limits);
        }
        for (member, (_, share)) in self.declared.iter_mut().zip(declared) {
            member.set_share(share, limits.concurrency);
        }
        !unchanged
    }

    /// Each address once. Those that are not known yet begin as `ramp_up` says.
    fn replace(
        &mut self,
        declared: &[(SocketAddr, Option<Share>)],
        ramp_up: Option<RampUp>,
        limits: &Limits,
    ) {
        let mut known: HashMap<SocketAddr, Member> = HashMap::new();
        let draining = self.draining.drain(..);
        let draining = draining.map(|endpoint| Member::new(endpoint, None));
        self.any_before |= !declared.is_empty();
        for member in self.declared.drain(..).chain(draining) {
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
                None => {
                    let endpoint = Endpoint::new(*address, limits.concurrency, self.workers);
                    Member::new(Arc::new(endpoint), ramp_up)
                }
            };
            self.declared.push(member);
        }
        for member in known.into_values() {
            self.close(member, limits.concurrency);
        }
    }

    /// True when the set changed.
    pub(in crate::admission) fn drain(&mut self, address: SocketAddr, concurrency: u32) -> bool {
        let found = self
            .declared
            .iter()
            .position(|m| m.endpoint.address == address);
        let Some(at) = found else { return false };
        let member = self.declared.remove(at);
        self.close(member, concurrency);
        true
    }

    fn close(&mut self, member: Member, concurrency: u32) {
        member.endpoint.close();
        member.endpoint.set_limit(concurrency, None);
        self.draining.push(member.endpoint);
    }

    /// A request failed there before its answer began.
    pub(in crate::admission) fn failed(
        &mut self,
        endpoint: &Arc<Endpoint>,
        failure: Failure,
        limits: &Limits,
        now: Instant,
    ) -> Fault {
        let is_it = |member: &Member| Arc::ptr_eq(&member.endpoint, endpoint);
        let spare = self.declared.iter().any(|m| !is_it(m) && m.is_ready());
        let Some(member) = self.declared.iter_mut().find(|m| is_it(m)) else {
            return Fault::Endpoint;
        };
        let fault = member.failed(failure, limits, (spare, self.scaled), now);
        if let Some(end) = member.suspect_until() {
            self.soonest = Some(self.soonest.map_or(end, |soonest| soonest.min(end)));
        }
        fault
    }

    /// An answer began there; `waited_for` says whether requests wait.
    pub(in crate::admission) fn answered(
        &mut self,
        endpoint: &Arc<Endpoint>,
        waited_for: bool,
        limits: &Limits,
    ) {
        let is_it = |member: &&mut Member| Arc::ptr_eq(&member.endpoint, endpoint);
        if let Some(member) = self.declared.iter_mut().find(is_it) {
            member.answered(waited_for, limits);
        }
    }

    /// Something that asked the endpoint at this address found it well.
    pub(in crate::admission) fn trust(&mut self, address: SocketAddr) {
        let is_it = |member: &&mut Member| member.endpoint.address == address;
        if let Some(member) = self.declared.iter_mut().find(is_it) {
            member.trust();
        }
    }

    /// Ends the suspicions that are over. Where somebody may bring others and all are suspect, one
    /// that failed long enough ago is the best there is. True when there were any.
    pub(super) fn end_suspicions(&mut self, now: Instant) -> bool {
        let mut ended = false;
        for member in &mut self.declared {
            ended |= member.expire(now);
        }
        if self.scaled && !self.has_ready() {
            for member in &mut self.declared {
                ended |= member.try_again(now);
            }
        }
        self.soonest = self.declared.iter().filter_map(Member::suspect_until).min();
        ended
    }

    /// Ends suspicions where one may be over. True when there were any.
    pub(super) fn end_suspicions_due(&mut self, now: Instant) -> bool {
        let over = self.soonest.is_some_and(|soonest| soonest <= now);
        (over || (self.scaled && !self.has_ready())) && self.end_suspicions(now)
    }

    /// Requests wait: windows grow with time.
    pub(super) fn pressed(&mut self, limits: &Limits, now: Instant) {
        for member in &mut self.declared {
            member.pressed(limits, now);
        }
    }

    /// Nobody waits: time does not count for windows.
    pub(super) fn eased(&mut self) {
        for member in &mut self.declared {
            member.eased();
        }
    }

    /// Whether time may change what there is room for.
    pub(in crate::admission) fn is_unsettled(&self, waited_for: bool) -> bool {
        let unsettled = |member: &Member| !member.is_ready() || (waited_for && member.is_paced());
        self.declared.iter().any(unsettled)
    }

    pub(in crate::admission) fn has_ready(&self) -> bool {
        self.declared.iter().any(Member::is_ready)
    }

    /// Forgets the drained endpoints whose last slot is free.
    pub(in crate::admission) fn purge(&mut self) {
        self.draining.retain(|endpoint| endpoint.in_flight() != 0);
    }

    pub(in crate::admission) fn declared(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.declared.iter().map(|member| &member.endpoint)
    }

    /// Slots held, draining endpoints included.
    pub(in crate::admission) fn in_flight(&self) -> u32 {
        let counts = self.all().map(|endpoint| endpoint.in_flight());
        counts.fold(0, u32::saturating_add)
    }

    /// The declared ones, then those that drain.
    pub(in crate::admission) fn all(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.declared().chain(&self.draining)
    }
}

fn take(endpoint: &Arc<Endpoint>, lent: bool) -> Option<Grant> {
    let limited = endpoint.take_shared(lent)?;
    Some(Grant {
        endpoint: Arc::clone(endpoint),
        limited,
        lent,
        era: endpoint.era(),
    })
}
