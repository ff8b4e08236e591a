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
use super::starts::Starts;

/// Between two reports of a revision.
pub(super) const WINDOW: Duration = Duration::from_secs(1);
/// Who has waited so long for a slot of this replica's may get one that another replica lends. So
/// often, too, those who wait are looked after.
pub(super) const LEND_AFTER: Duration = Duration::from_millis(10);
/// A revision is looked after so many times in a row without anybody waiting or anything lent,
/// because nudges about waiting requests are merged over a few milliseconds.
const LOOKS_AFTERWARDS: u32 = 3;

/// What the reporter has to hear.
#[derive(Debug)]
pub(super) enum Heard {
    Follow(Arc<Followed>),
    Forget(u64),
    /// When it came.
    Nudge(u64, std::time::Instant),
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
    starts: Arc<Starts>,
    ledger: Ledger,
    revisions: HashMap<u64, (Arc<Followed>, Id)>,
    by_id: HashMap<Id, Arc<Followed>>,
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
    pub(super) fn new(hearing: Arc<Hearing>, outbox: Arc<Outbox>, starts: Arc<Starts>) -> Reporter {
        Reporter {
            hearing,
            outbox,
            starts,
            ledger: Ledger::default(),
            revisions: HashMap::new(),
            by_id: HashMap::new(),
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
                Heard::Nudge(number, at) => self.look(number, at),
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
        if let Some((followed, id)) = self.revisions.remove(&number) {
            self.by_id.remove(&id);
            self.outbox.forget(&followed.key);
            if let Some(last) = self.ledger.forget(id) {
                self.outbox.report(vec![(followed.key.clone(), last)]);
            }
        }
    }

    fn look(&mut self, number: u64, nudged: std::time::Instant) {
        let Some((followed, id)) = self.revisions.get(&number) else {
            return;
        };
        let (followed, id) = (Arc::clone(followed), *id);
        followed.heard();
        let Some(throttle) = followed.throttle() else {
            return;
        };
        if throttle.waiting() != 0 {
            self.starts.asked(&followed.key, nudged);
        }
        let first = self.ledger.look(id, throttle.demand(now()));
        self.say_first(&followed, first);
        // Even if nobody waits now: the next nudge may be merged with this one.
        if followed.terms().lent {
            self.wanting.insert(number, 0);
        }
    }

    fn say_first(&self, followed: &Followed, first: Option<Measured>) {
        if first.is_some() {
            self.outbox.first(&followed.key);
        }
    }

    fn report(&mut self) {
        let by_id = &self.by_id;
        let throttle = |id| by_id.get(&id)?.throttle();
        let now = now();
        let (reports, idle) = self.ledger.tick(|id| Some(throttle(id)?.demand(now)));
        self.outbox.report(reports);
        for id in idle {
            let reading = throttle(id).map(|throttle| throttle.listen(now));
            let first = self.ledger.rest(id, reading);
            match by_id.get(&id) {
                Some(followed) if first.is_some() => self.outbox.first(&followed.key),
                Some(followed) => self.starts.called_off(&followed.key),
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
