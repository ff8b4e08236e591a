//! One declared endpoint: what it may get, and what its failures and answers say of it.

use std::sync::Arc;
use std::time::Instant;

use super::window::Window;
use crate::admission::endpoint::Endpoint;
use crate::admission::{Fault, Limits, RampUp, SUSPICION, SUSPICION_MAX, Share};

#[derive(Debug)]
pub(super) struct Member {
    pub(super) endpoint: Arc<Endpoint>,
    share: Option<Share>,
    /// How much it gets while nobody knows what it bears.
    window: Option<Window>,
    suspicion: Option<Suspicion>,
    /// How often in a row it has become suspect.
    failures: u32,
    /// It has answered since it last failed, as far as is known: only answers at an endpoint with a
    /// window or a failure are heard of.
    alive: bool,
}

#[derive(Clone, Copy, Debug)]
struct Suspicion {
    since: Instant,
    until: Instant,
}

/// A request failed before its answer began.
#[derive(Clone, Copy, Debug)]
pub(in crate::admission) struct Failure {
    /// Of its slot.
    pub(in crate::admission) era: u16,
    /// Of a new connection: one that had been in use may end for reasons of its own, and says nothing
    /// of how many the endpoint bears.
    pub(in crate::admission) fresh: bool,
}

impl Member {
    pub(super) fn new(endpoint: Arc<Endpoint>, ramp_up: Option<RampUp>) -> Member {
        Member {
            endpoint,
            share: None,
            window: ramp_up.map(Window::fresh),
            suspicion: None,
            failures: 0,
            alive: false,
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.suspicion.is_none()
    }

    pub(super) fn is_paced(&self) -> bool {
        self.window.is_some()
    }

    /// When it last failed, if it is suspect.
    pub(super) fn failed_at(&self) -> Option<Instant> {
        self.suspicion.map(|suspicion| suspicion.since)
    }

    pub(super) fn suspect_until(&self) -> Option<Instant> {
        self.suspicion.map(|suspicion| suspicion.until)
    }

    /// Its slots are divided with others, or are not.
    pub(super) fn set_share(&mut self, share: Option<Share>, concurrency: u32) {
        self.share = share;
        self.bound(concurrency);
    }

    pub(super) fn configure(&mut self, limits: &Limits) {
        if limits.ramp_up.is_none() {
            self.window = None;
        }
        self.bound(limits.concurrency);
    }

    /// Brings the endpoint in line with what is known of it. A window that is wide enough goes.
    fn bound(&mut self, concurrency: u32) {
        let limit = match self.share {
            Some(Share { own, most }) => own.max(most),
            None => concurrency,
        };
        self.window = self.window.take().filter(|window| !window.is_open(limit));
        let window = self.window.as_ref().map(Window::size);
        match self.share {
            Some(Share { own, most }) => self.endpoint.set_share(own, most, window),
            None => self.endpoint.set_limit(concurrency, window),
        }
        self.tune_in();
    }

    fn tune_in(&self) {
        let heard = self.window.is_some() || self.failures > 0;
        self.endpoint.set_heard(heard);
    }

    /// What a failure there says: of the request that met it, and of the endpoint, which may become
    /// suspect. `spare`: another endpoint is ready; `scaled`: somebody may bring others.
    ///
    /// Requests that were let in together fail together, so of those only the first is news; the rest
    /// make the window follow. If the endpoint has answered since it last failed and had as many
    /// requests as it was let have, those were too many, and nothing is suspected until it happens
    /// again without an answer in between.
    pub(super) fn failed(
        &mut self,
        failure: Failure,
        limits: &Limits,
        (spare, scaled): (bool, bool),
        now: Instant,
    ) -> Fault {
        let held = self.endpoint.in_flight().saturating_sub(1);
        if failure.era != self.endpoint.era() {
            return self.follow(failure, held, limits, now);
        }
        self.endpoint.next_era();
        let alive = std::mem::replace(&mut self.alive, false);
        // Nothing is answered and nothing hangs on: no number of requests would be right. Whoever
        // waits for a lone fixed endpoint is to hear that soon.
        let dead = !alive && held == 0 && self.failures > 0;
        if dead {
            self.window = limits.ramp_up.filter(|_| scaled).map(Window::fresh);
            self.bound(limits.concurrency);
        }
        let crowded = failure.fresh && !dead && self.learn(alive, held, limits, now);
        if !alive || (spare && !crowded) {
            self.failures = self.failures.saturating_add(1);
            self.suspect(now);
        }
        match alive && crowded {
            true => Fault::Crowding,
            false => Fault::Endpoint,
        }
    }

    /// One more failed of those that were let in before the last failure.
    fn follow(&mut self, failure: Failure, held: u32, limits: &Limits, now: Instant) -> Fault {
        if self.failures > 0 {
            self.suspect(now);
        }
        let Some(window) = &mut self.window else {
            return Fault::Endpoint;
        };
        if failure.fresh {
            window.follow(held);
            self.bound(limits.concurrency);
        }
        Fault::Crowding
    }

    /// True when the endpoint had too many requests, as far as one can know.
    fn learn(&mut self, alive: bool, held: u32, limits: &Limits, now: Instant) -> bool {
        let Some(ramp_up) = limits.ramp_up else {
            return false;
        };
        if self.window.is_none() && self.failures > 0 && !alive {
            return false;
        }
        let learned = match &mut self.window {
            Some(window) => window.failed(ramp_up, held, now),
            None => {
                self.window = Window::learned(ramp_up, held, now);
                self.window.is_some()
            }
        };
        self.bound(limits.concurrency);
        learned
    }

    /// Begins or prolongs a suspicion.
    fn suspect(&mut self, now: Instant) {
        let doublings = self.failures.saturating_sub(1).min(u32::BITS - 1);
        let length = SUSPICION.saturating_mul(1 << doublings).min(SUSPICION_MAX);
        let before = self.suspicion.map_or(now, |before| before.until);
        self.suspicion = Some(Suspicion {
            since: now,
            until: before.max(now + length),
        });
        self.endpoint.set_suspect(true);
        self.tune_in();
    }

    /// An answer began there; `waited_for` says whether requests wait.
    pub(super) fn answered(&mut self, waited_for: bool, limits: &Limits) {
        self.alive = true;
        if self.failures > 0 {
            self.failures = 0;
            self.trust();
            self.tune_in();
        }
        let Some(window) = &mut self.window else {
            return;
        };
        let before = window.size();
        window.answered(waited_for);
        if window.size() != before {
            self.bound(limits.concurrency);
        }
    }

    /// A probe found it well: it may be tried. If requests fail there all the same, the next suspicion
    /// is longer.
    pub(super) fn trust(&mut self) {
        if self.suspicion.take().is_some() {
            self.endpoint.set_suspect(false);
        }
    }

    /// Ends a suspicion that is over; true when there was one.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let over = |suspicion: Suspicion| suspicion.until <= now;
        self.end_suspicion_if(over)
    }

    /// Ends a suspicion for want of another endpoint; true when there was one that is old enough.
    pub(super) fn try_again(&mut self, now: Instant) -> bool {
        let over = |suspicion: Suspicion| suspicion.since + SUSPICION <= now;
        self.end_suspicion_if(over)
    }

    fn end_suspicion_if(&mut self, over: impl FnOnce(Suspicion) -> bool) -> bool {
        let over = self.suspicion.is_some_and(over);
        if over {
            self.trust();
        }
        over
    }

    /// Requests wait.
    pub(super) fn pressed(&mut self, limits: &Limits, now: Instant) {
        if let Some(window) = &mut self.window
            && let Some(ramp_up) = limits.ramp_up
        {
            window.pressed(ramp_up, now);
            self.bound(limits.concurrency);
        }
    }

    /// Nobody waits.
    pub(super) fn eased(&mut self) {
        if let Some(window) = &mut self.window {
            window.eased();
        }
    }
}
