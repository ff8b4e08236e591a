//! Hears nudges, reads demand every second, and says what the ledger decides. It also looks after
//! those who wait for slots that other replicas would lend.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::followed::Followed;
use super::outbox::Outbox;
use super::report::{Id, Ledger, Measured};
use crate::scaler::autoscale::Floor;

/// Between two reports of a revision.
pub(super) const WINDOW: Duration = Duration::from_secs(1);
/// Who has waited so long for a slot of this replica's may get one that another replica lends. So
/// often, too, those who wait are looked after.
pub(super) const LEND_AFTER: Duration = Duration::from_millis(10);
/// `container-concurrency-target-percentage` of config-autoscaler.
const UTILISATION: f64 = 0.7;
/// `container-concurrency-target-default`: what counts as the limit of pods without one.
const UNLIMITED: f64 = 100.0;
/// A revision is looked after so many times in a row without anybody waiting or anything lent,
/// because nudges about waiting requests are merged over a few milliseconds.
const LOOKS_AFTERWARDS: u32 = 3;

/// What the reporter has to hear.
#[derive(Debug)]
pub(super) enum Heard {
    Follow(Arc<Followed>),
    Forget(u64),
    Nudge(u64),
    Expect(u64, Floor),
}

/// What was said and not heard yet: of nudges one per revision, and of the rest what the
/// configuration changes.
#[derive(Debug, Default)]
pub(super) struct Hearing {
    heard: Mutex<Vec<Heard>>,
    notify: Notify,
}

#[derive(Debug)]
pub(super) struct Reporter {
    hearing: Arc<Hearing>,
    outbox: Arc<Outbox>,
    ledger: Ledger,
    revisions: HashMap<u64, (Arc<Followed>, Id)>,
    by_id: HashMap<Id, Arc<Followed>>,
    /// Those that somebody wants to have endpoints.
    expected: HashMap<u64, Floor>,
    /// Those with requests that may want to be lent slots, and how often nobody waited.
    wanting: HashMap<u64, u32>,
}

impl Hearing {
    pub(super) fn say(&self, what: Heard) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.push(what);
        drop(heard);
        self.notify.notify_one();
    }

    fn take(&self) -> Vec<Heard> {
        std::mem::take(&mut *self.heard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Reporter {
    pub(super) fn new(hearing: Arc<Hearing>, outbox: Arc<Outbox>) -> Reporter {
        Reporter {
            hearing,
            outbox,
            ledger: Ledger::default(),
            revisions: HashMap::new(),
            by_id: HashMap::new(),
            expected: HashMap::new(),
            wanting: HashMap::new(),
        }
    }

    /// Works for ever.
    pub(super) async fn run(mut self) {
        let hearing = Arc::clone(&self.hearing);
        let mut windows = every(WINDOW);
        let mut looks = every(LEND_AFTER);
        // Every turn waits for something to do.
        loop {
            let rests = self.ledger.rests();
            let nobody_wants = self.wanting.is_empty();
            tokio::select! {
                biased;
                () = hearing.notify.notified() => self.hear(),
                _ = windows.tick(), if !rests => self.report(),
                _ = looks.tick(), if !nobody_wants => self.lend(),
            }
            // A clock that nobody looked at begins anew.
            if rests && !self.ledger.rests() {
                windows.reset();
            }
            if nobody_wants && !self.wanting.is_empty() {
                looks.reset();
            }
        }
    }

    fn hear(&mut self) {
        for heard in self.hearing.take() {
            match heard {
                Heard::Follow(followed) => self.follow(&followed),
                Heard::Forget(number) => self.forget(number),
                Heard::Nudge(number) => self.look(number),
                Heard::Expect(number, floor) => self.expect(number, floor),
            }
        }
    }

    fn follow(&mut self, followed: &Arc<Followed>) {
        let Some(throttle) = followed.throttle() else {
            return;
        };
        let reading = throttle.listen(now());
        let (id, first) = self.ledger.follow(followed.key.clone(), reading);
        self.by_id.insert(id, Arc::clone(followed));
        self.revisions
            .insert(followed.id, (Arc::clone(followed), id));
        self.say_first(followed, first);
    }

    fn forget(&mut self, number: u64) {
        self.wanting.remove(&number);
        self.expected.remove(&number);
        if let Some((followed, id)) = self.revisions.remove(&number) {
            self.by_id.remove(&id);
            self.outbox.forget(&followed.key);
            if let Some(last) = self.ledger.forget(id) {
                self.outbox.report(vec![(followed.key.clone(), last)]);
            }
        }
    }

    fn look(&mut self, number: u64) {
        let Some((followed, id)) = self.revisions.get(&number) else {
            return;
        };
        let (followed, id) = (Arc::clone(followed), *id);
        followed.heard();
        let Some(throttle) = followed.throttle() else {
            return;
        };
        if throttle.waiting() != 0 {
            followed.is_tried(now());
        }
        let first = self.ledger.look(id, throttle.demand(now()));
        self.say_first(&followed, first);
        // Even if nobody waits now: the next nudge may be merged with this one.
        if followed.terms().lent {
            self.wanting.insert(number, 0);
        }
    }

    /// The autoscaler is told of as many requests as make it want so many pods.
    fn expect(&mut self, number: u64, floor: Floor) {
        let Some((followed, id)) = self.revisions.get(&number) else {
            return;
        };
        let (followed, id) = (Arc::clone(followed), *id);
        let floor = floor.and(self.expected.get(&number).copied());
        if is_met(&followed, floor, now()) {
            return;
        }
        let Some(throttle) = followed.throttle() else {
            return;
        };
        if throttle.ready() == 0 {
            throttle.starts().prewarmed(now());
            followed.is_tried(now());
        }
        let average = requests_for(floor.endpoints, followed.terms().concurrency);
        let first = self.ledger.expect(id, average, throttle.demand(now()));
        self.expected.insert(number, floor);
        self.say_first(&followed, first);
    }

    /// What is there now, or should have been, is expected no longer.
    fn expect_less(&mut self) {
        let now = now();
        let (ledger, revisions) = (&mut self.ledger, &self.revisions);
        self.expected.retain(|number, floor| {
            let Some((followed, id)) = revisions.get(number) else {
                return false;
            };
            let over = is_met(followed, *floor, now);
            if over && let Some(throttle) = followed.throttle() {
                ledger.expect(*id, 0.0, throttle.demand(now));
                if throttle.ready() == 0 && throttle.waiting() == 0 {
                    throttle.starts().called_off("no endpoint came in time");
                }
            }
            !over
        });
    }

    fn say_first(&self, followed: &Followed, first: Option<Measured>) {
        if first.is_some() {
            self.outbox.first(&followed.key);
        }
    }

    fn report(&mut self) {
        self.expect_less();
        let by_id = &self.by_id;
        let throttle = |id| by_id.get(&id)?.throttle();
        let now = now();
        let (reports, idle) = self.ledger.tick(|id| {
            let followed = by_id.get(&id)?;
            followed.ends_trial(now);
            Some(followed.throttle()?.demand(now))
        });
        self.outbox.report(reports);
        for id in idle {
            let reading = throttle(id).map(|throttle| throttle.listen(now));
            let first = self.ledger.rest(id, reading);
            match by_id.get(&id) {
                Some(followed) if first.is_some() => self.outbox.first(&followed.key),
                Some(followed) => followed.rests(),
                None => {}
            }
        }
    }

    fn lend(&mut self) {
        let now = now();
        let revisions = &self.revisions;
        self.wanting.retain(|number, looks| {
            let followed = revisions.get(number).map(|(followed, _)| followed);
            let Some(throttle) = followed.and_then(|followed| followed.throttle()) else {
                return false;
            };
            if throttle.waiting() != 0 {
                *looks = 0;
                throttle.lend(LEND_AFTER, now);
                return true;
            }
            // While lent slots are in use, who comes need not wait for another.
            if throttle.lent() == 0 {
                *looks += 1;
            }
            let wants = *looks < LOOKS_AFTERWARDS;
            if !wants {
                throttle.lend_no_more();
            }
            wants
        });
    }
}

/// Whether so many pods are there, or it is too late for them.
fn is_met(followed: &Followed, floor: Floor, now: std::time::Instant) -> bool {
    let ready = followed.throttle().map(|throttle| throttle.ready());
    let left = |ready| floor.left(ready, u32::MAX, now);
    ready.is_none_or(|ready| ready >= floor.endpoints || left(ready).is_none())
}

/// So many requests at a time make the autoscaler want so many pods, where nothing but its defaults
/// decides: a pod is meant to carry [`UTILISATION`] of its limit.
fn requests_for(pods: u32, concurrency: u32) -> f64 {
    let limit = match concurrency {
        0 => UNLIMITED,
        limit => f64::from(limit),
    };
    f64::from(pods.saturating_sub(1)) * limit * UTILISATION + 1.0
}

/// The first tick is a period from now.
fn every(period: Duration) -> Interval {
    let mut interval = interval_at(Instant::now() + period, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// What is pure is told the time; the runtime's clock can be paused.
fn now() -> std::time::Instant {
    Instant::now().into_std()
}
