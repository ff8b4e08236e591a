//! Cold starts: how a revision comes up from nothing, step by step, and how long that usually takes.
//!
//! A start begins with the first request that is held while there is no endpoint, or with a prewarm.
//! Whoever takes a step says so: the throttle that somebody waits or that an endpoint is there, the
//! scaler what it does, a worker that a held request was written and answered. Requests that find an
//! endpoint see nothing of this.
//!
//! A start that all its requests gave up goes on as long as the scaler does: a request that comes
//! meanwhile takes it up again, and the endpoint that it brings teaches how long to wait.
//!
//! An endpoint may come and crash at the first request. So a start has come up for good only once
//! something was answered, or nobody is left who waits for that; if the endpoint goes before, the
//! start goes on, and may still fail.

mod learned;
mod start;

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use config::revision::{Revision, Wait};

use self::learned::Learned;
use self::start::Steps;
use crate::admission::AcquireError;

pub use self::learned::{LEARNED_FROM, WAIT_FACTOR, WAIT_LEAST};
pub use self::start::{Outcome, Phases, Start, StartId, Trigger};

/// A start that nobody has waited for during this time is over, whatever the scaler does: the next
/// request begins another.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(120);

/// The cause where nobody has said why they left.
const NOBODY: &str = "nobody waits any more";

/// What has become known of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// There is an endpoint, which nobody has an answer of.
    Up,
    /// A held request was written to it.
    Written,
    /// It has come up for good, mostly with an answer. Told once.
    Settled,
    /// An answer to a held request began, after somebody else's.
    Answered,
    /// It came to nothing, or nobody waits for it any more.
    Ended,
}

/// Hears of starts. Called with locks of the throttle held, so it must be quick and not call back.
pub trait Witness: Send + Sync + std::fmt::Debug {
    fn hear(&self, start: &Start, news: News);
}

/// The starts of one revision.
#[derive(Debug, Default)]
pub struct Starts {
    /// The start that may still be added to; 0 = none.
    open: AtomicU64,
    now: Mutex<Now>,
    learned: Learned,
    witness: OnceLock<Arc<dyn Witness>>,
}

#[derive(Debug, Default)]
struct Now {
    open: Option<Open>,
    /// Addresses are known, whether or not anything answers there.
    addressed: bool,
    /// How long the last start took that brought an endpoint.
    took: Option<(StartId, Duration)>,
}

#[derive(Debug)]
struct Open {
    start: Start,
    /// There is an endpoint: what is left is the first answer.
    up: bool,
    /// It cannot fail any more.
    settled: bool,
    /// Since when nobody waits for it.
    left: Option<Instant>,
}

impl Now {
    /// The start that may still be added to, if it is this one.
    fn of(&mut self, id: StartId) -> Option<&mut Open> {
        self.open.as_mut().filter(|open| open.start.id == id)
    }
}

impl Starts {
    /// Who hears of starts; only the first one is taken.
    pub fn set_witness(&self, witness: Arc<dyn Witness>) {
        drop(self.witness.set(witness));
    }

    /// The start that a request waits for, or has waited for if it is not answered yet.
    #[inline]
    pub fn current(&self) -> Option<StartId> {
        NonZeroU64::new(self.open.load(Ordering::Relaxed)).map(StartId)
    }

    /// How long a request waits for this revision under a timeout. Where that is to be learned: a
    /// multiple of the time that nearly all of the last starts took, but no longer than the timeout;
    /// that while nothing is known.
    pub fn wait(&self, revision: &Revision, timeout: Option<Duration>) -> Duration {
        let most = revision.wait_at_most(timeout);
        match revision.queue.wait {
            Wait::For(_) => most,
            Wait::Auto => self.learned.wait().map_or(most, |wait| wait.min(most)),
        }
    }

    /// In how long the endpoint of the start under way is there, if that takes as long as others
    /// did; `None` where none is under way, nothing is known, or it takes longer.
    pub fn comes_in(&self, now: Instant) -> Option<Duration> {
        self.current()?;
        let usual = self.learned.usual()?;
        let state = self.lock();
        let open = state.open.as_ref().filter(|open| !open.up)?;
        let time = now.saturating_duration_since(open.start.began);
        usual.checked_sub(time).filter(|left| !left.is_zero())
    }

    // For the throttle.

    /// A request is held, the last of so many, and there is no endpoint.
    pub(crate) fn held(&self, waiting: usize, now: Instant) {
        let waiting = u32::try_from(waiting).unwrap_or(u32::MAX);
        let mut state = self.lock();
        let open = self.under_way(&mut state, Trigger::Request, now);
        open.left = None;
        open.start.held = open.start.held.max(waiting);
    }

    /// There is an endpoint, and so many wait.
    pub(crate) fn came(&self, waiting: u32) {
        if self.current().is_none() {
            return;
        }
        let mut state = self.lock();
        let Some(open) = state.open.as_mut().filter(|open| !open.up) else {
            return;
        };
        open.up = true;
        let start = &mut open.start;
        let wanted = waiting > 0 || start.trigger == Trigger::Prewarm;
        match start.outcome {
            _ if wanted => (start.outcome, start.cause) = (Some(Outcome::Ok), None),
            None => start.end(Outcome::GaveUp, NOBODY),
            // Why is known.
            Some(_) => {}
        }
        let took = start.length().map(|length| (start.id, length));
        if waiting == 0 {
            self.settle(open);
            self.close(&mut state);
        } else {
            self.tell(&open.start, News::Up);
        }
        state.took = took;
    }

    /// The last endpoint is gone, while so many wait and as many have a slot.
    pub(crate) fn gone(&self, waiting: u32, in_flight: u32) {
        if self.current().is_none() {
            return;
        }
        let mut state = self.lock();
        let unsettled = |open: &&mut Open| open.up && !open.settled;
        let Some(open) = state.open.as_mut().filter(unsettled) else {
            return;
        };
        if waiting == 0 && in_flight == 0 {
            self.settle(open);
            self.close(&mut state);
            return;
        }
        open.up = false;
        let steps = &mut open.start.steps;
        // Whoever has a slot may come again, but nobody waits now.
        let seen = steps.written.take().or(steps.passed);
        open.left = seen.filter(|_| waiting == 0);
        steps.passed = None;
    }

    /// Somebody was answered who may not have waited for it.
    pub(crate) fn proved(&self) {
        if self.current().is_none() {
            return;
        }
        let mut state = self.lock();
        if let Some(open) = state.open.as_mut().filter(|open| open.up) {
            self.settle(open);
        }
    }

    /// Nobody can be let in, for this reason.
    pub(crate) fn refused(&self, why: &AcquireError) {
        match why {
            AcquireError::StartFailed(cause) => self.end(Outcome::Failed, cause),
            other => self.end(Outcome::GaveUp, &other.to_string()),
        }
    }

    fn end(&self, outcome: Outcome, cause: &str) {
        let mut state = self.lock();
        let Some(open) = state.open.as_mut().filter(|open| !open.up) else {
            return;
        };
        let came_up = open.start.outcome == Some(Outcome::Ok);
        if came_up && outcome != Outcome::Failed {
            self.settle(open);
        } else {
            open.start.end(outcome, cause);
            self.tell(&open.start, News::Ended);
        }
        self.close(&mut state);
    }

    /// The last one who waited has left, and there is no endpoint.
    pub(crate) fn left(&self, now: Instant) {
        let mut state = self.lock();
        let Some(open) = state.open.as_mut().filter(|open| !open.up) else {
            return;
        };
        open.left = Some(now);
        if open.start.trigger == Trigger::Prewarm {
            // Nobody needs to wait for it.
            return;
        }
        open.start.end(Outcome::GaveUp, NOBODY);
        self.tell(&open.start, News::Ended);
    }

    // For scalers.

    /// An endpoint is wanted without a request that waits for it.
    pub fn prewarmed(&self, now: Instant) {
        let mut state = self.lock();
        self.under_way(&mut state, Trigger::Prewarm, now);
    }

    /// The scaler has heard of the start; only the first time counts, as for all steps.
    pub fn nudged(&self, now: Instant) {
        self.step(now, |steps| &mut steps.nudged);
    }

    /// It has asked for an endpoint.
    pub fn acted(&self, now: Instant) {
        self.step(now, |steps| &mut steps.acted);
    }

    /// An endpoint is seen, though it may not answer yet.
    pub fn seen(&self, now: Instant) {
        self.step(now, |steps| &mut steps.seen);
    }

    /// Whether addresses of endpoints are known, which may be so before a start begins.
    pub fn addressed(&self, any: bool, now: Instant) {
        let mut state = self.lock();
        state.addressed = any;
        let open = state.open.as_mut().filter(|open| !open.up);
        if let Some(Open { start, .. }) = open {
            start.steps.seen = any.then(|| start.steps.seen.unwrap_or(now));
        }
    }

    /// An endpoint has passed its probe, and is about to be declared.
    pub fn passed(&self, now: Instant) {
        self.step(now, |steps| &mut steps.passed);
    }

    /// The scaler does no more about it.
    pub fn called_off(&self, cause: &str) {
        if self.current().is_some() {
            self.end(Outcome::GaveUp, cause);
        }
    }

    // For workers.

    /// From the beginning of a start to its endpoint, for those who waited for it; `None` once
    /// another has brought one.
    pub fn took(&self, id: StartId) -> Option<Duration> {
        let (last, length) = self.lock().took?;
        (last == id).then_some(length)
    }

    /// A request has waited for this start, and was not the last to give it up unless nobody waits
    /// for it now: then this is why.
    pub fn gave_up(&self, id: StartId, cause: &str) {
        let mut state = self.lock();
        let given_up = |open: &&mut Open| {
            let of_requests = open.start.trigger == Trigger::Request;
            open.left.is_some() && of_requests
        };
        if let Some(open) = state.of(id).filter(given_up) {
            open.start.end(Outcome::GaveUp, cause);
            self.tell(&open.start, News::Ended);
        }
    }

    /// A request that has waited for this start was written to the endpoint.
    pub fn written(&self, id: StartId, now: Instant) {
        if self.current() != Some(id) {
            return;
        }
        let mut state = self.lock();
        let first = |open: &&mut Open| open.start.steps.written.is_none();
        if let Some(open) = state.of(id).filter(first) {
            open.start.steps.written = Some(now);
            self.tell(&open.start, News::Written);
        }
    }

    /// Its answer has begun.
    pub fn answered(&self, id: StartId, now: Instant) {
        if self.current() != Some(id) {
            return;
        }
        let mut state = self.lock();
        let Some(open) = state.of(id) else { return };
        let start = &mut open.start;
        start.steps.answered = Some(now);
        (start.outcome, start.cause) = (Some(Outcome::Ok), None);
        match open.settled {
            true => self.tell(start, News::Answered),
            false => self.settle(open),
        }
        self.close(&mut state);
    }

    /// The start without an endpoint, begun now if there is none.
    fn under_way<'a>(&self, state: &'a mut Now, trigger: Trigger, now: Instant) -> &'a mut Open {
        let goes_on = |open: &Open| {
            let forgotten = open.left.is_some_and(|left| is_forgotten((left, now)));
            !open.up && !forgotten
        };
        let addressed = state.addressed;
        let mut open = state.open.take();
        if let Some(mut forgotten) = open.take_if(|open| !goes_on(open))
            && forgotten.start.outcome == Some(Outcome::Ok)
        {
            self.settle(&mut forgotten);
        }
        state.open.insert(open.unwrap_or_else(|| {
            let mut start = Start::new(now, trigger);
            start.steps.seen = addressed.then_some(now);
            self.open.store(start.id.0.get(), Ordering::Relaxed);
            Open {
                start,
                up: false,
                settled: false,
                left: None,
            }
        }))
    }

    /// It has come up for good, and teaches how long that takes.
    fn settle(&self, open: &mut Open) {
        if std::mem::replace(&mut open.settled, true) {
            return;
        }
        let start = &open.start;
        let forgotten = open.left.zip(start.steps.passed).is_some_and(is_forgotten);
        if let Some(length) = start.length().filter(|_| !forgotten) {
            self.learned.learn(length);
        }
        self.tell(start, News::Settled);
    }

    fn step(&self, now: Instant, which: impl FnOnce(&mut Steps) -> &mut Option<Instant>) {
        if self.current().is_none() {
            return;
        }
        let mut state = self.lock();
        if let Some(open) = state.open.as_mut().filter(|open| !open.up) {
            which(&mut open.start.steps).get_or_insert(now);
        }
    }

    fn close(&self, state: &mut Now) {
        state.open = None;
        self.open.store(0, Ordering::Relaxed);
    }

    fn tell(&self, start: &Start, news: News) {
        if let Some(witness) = self.witness.get() {
            witness.hear(start, news);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a start that nobody has waited for since then is over by now.
fn is_forgotten((left, now): (Instant, Instant)) -> bool {
    now.saturating_duration_since(left) >= FORGOTTEN_AFTER
}

#[cfg(test)]
mod tests;
