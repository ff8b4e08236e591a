//! Deadlines of one worker's connections: coarse, and free when they only move later.
//!
//! Each connection owns one [`Timer`] for its whole life and moves its deadline at every step of an
//! exchange. Moving it later is one store: the entry stays where it is in the schedule and is put
//! forward when its old time comes. Only moving it earlier than it is scheduled costs an insertion.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use slab::Slab;
use tokio::time::Instant;

/// Deadlines are kept in ticks of this length and fire up to one tick late, never early.
pub const TICK: Duration = Duration::from_millis(5);

const TICKS_PER_SECOND: u64 = 1_000_000_000 / TICK.subsec_nanos() as u64;

const NEVER: u64 = u64::MAX;

/// All timers of one worker.
#[derive(Debug)]
pub struct Timers {
    start: Instant,
    schedule: RefCell<Schedule>,
    /// The tick the driver sleeps until.
    armed: Cell<u64>,
    /// The tick up to which deadlines have fired.
    passed: Cell<u64>,
    driver: RefCell<Option<Waker>>,
}

#[derive(Debug, Default)]
struct Schedule {
    entries: Slab<Entry>,
    due: BTreeMap<u64, Vec<usize>>,
}

#[derive(Debug)]
struct Entry {
    deadline: u64,
    /// Where the entry stands in `due`; any other place it is found at is stale.
    scheduled: u64,
    fired: bool,
    idle: bool,
    waker: Option<Waker>,
}

impl Timers {
    #[must_use]
    pub fn new() -> Rc<Timers> {
        Rc::new(Timers {
            start: Instant::now(),
            schedule: RefCell::default(),
            armed: Cell::new(NEVER),
            passed: Cell::new(0),
            driver: RefCell::new(None),
        })
    }

    /// A timer without a deadline.
    #[must_use]
    pub fn timer(self: &Rc<Self>) -> Timer {
        let key = self.schedule.borrow_mut().entries.insert(Entry {
            deadline: NEVER,
            scheduled: NEVER,
            fired: false,
            idle: false,
            waker: None,
        });
        Timer {
            timers: self.clone(),
            key,
        }
    }

    /// Fires deadlines as they come; one task per worker runs it for ever.
    pub async fn drive(&self) {
        let mut sleep = pin!(tokio::time::sleep_until(self.start));
        poll_fn(|cx| {
            self.driver.borrow_mut().replace(cx.waker().clone());
            loop {
                self.fire_due(self.tick_of(Instant::now(), false));
                let next = self
                    .schedule
                    .borrow()
                    .due
                    .keys()
                    .next()
                    .copied()
                    .unwrap_or(NEVER);
                self.armed.set(next);
                if next == NEVER {
                    return Poll::<()>::Pending;
                }
                sleep.as_mut().reset(self.instant_of(next));
                if sleep.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await;
    }

    /// Wakes every connection that waits for its next request, so that it sees that we drain.
    pub fn wake_idle(&self) {
        let mut schedule = self.schedule.borrow_mut();
        for (_, entry) in &mut schedule.entries {
            if entry.idle
                && let Some(waker) = entry.waker.take()
            {
                waker.wake();
            }
        }
    }

    /// Wakes every connection, so that it sees that the drain is over.
    pub fn wake_all(&self) {
        for (_, entry) in &mut self.schedule.borrow_mut().entries {
            if let Some(waker) = entry.waker.take() {
                waker.wake();
            }
        }
    }

    fn fire_due(&self, now: u64) {
        self.passed.set(now);
        let mut schedule = self.schedule.borrow_mut();
        while let Some(bucket) = schedule.due.first_entry() {
            let tick = *bucket.key();
            if tick > now {
                return;
            }
            for key in bucket.remove() {
                schedule.fire(key, tick, now);
            }
        }
    }

    fn tick_of(&self, instant: Instant, round_up: bool) -> u64 {
        let since = instant.saturating_duration_since(self.start);
        // In parts, so that no division is wider than a register.
        let part = since.subsec_nanos();
        let tick = TICK.subsec_nanos();
        let ticks = if round_up {
            part.div_ceil(tick)
        } else {
            part / tick
        };
        let whole = since.as_secs().saturating_mul(TICKS_PER_SECOND);
        whole.saturating_add(u64::from(ticks))
    }

    fn instant_of(&self, tick: u64) -> Instant {
        let nanos = tick.saturating_mul(u64::try_from(TICK.as_nanos()).unwrap_or(u64::MAX));
        self.start + Duration::from_nanos(nanos)
    }
}

impl Schedule {
    fn fire(&mut self, key: usize, tick: u64, now: u64) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        if entry.scheduled != tick {
            return;
        }
        if entry.deadline <= now {
            entry.scheduled = NEVER;
            entry.fired = true;
            if let Some(waker) = entry.waker.take() {
                waker.wake();
            }
        } else {
            entry.scheduled = entry.deadline;
            if entry.deadline != NEVER {
                self.due.entry(entry.deadline).or_default().push(key);
            }
        }
    }
}

/// One connection's deadline.
#[derive(Debug)]
pub struct Timer {
    timers: Rc<Timers>,
    key: usize,
}

impl Timer {
    /// Sets the deadline; `None` = none. Takes the place of the one before. One that the timers
    /// know to have passed has fired at once.
    pub fn set(&self, deadline: Option<Instant>) {
        self.arm(deadline, false);
    }

    /// Like [`set`](Timer::set), for a connection between requests: [`Timers::wake_idle`] wakes it.
    pub fn set_idle(&self, deadline: Instant) {
        self.arm(Some(deadline), true);
    }

    fn arm(&self, deadline: Option<Instant>, idle: bool) {
        let tick = deadline.map_or(NEVER, |at| self.timers.tick_of(at, true));
        let mut schedule = self.timers.schedule.borrow_mut();
        let entry = &mut schedule.entries[self.key];
        entry.deadline = tick;
        // Whoever sets the same deadline at every poll sees that it has fired.
        entry.fired = tick <= self.timers.passed.get();
        entry.idle = idle;
        if entry.fired || tick >= entry.scheduled {
            return;
        }
        entry.scheduled = tick;
        schedule.due.entry(tick).or_default().push(self.key);
        drop(schedule);
        if tick < self.timers.armed.get() {
            // The driver sleeps past the new deadline.
            if let Some(driver) = self.timers.driver.borrow_mut().take() {
                driver.wake();
            }
        }
    }

    /// Ready once the deadline has passed.
    pub fn poll_fired(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut schedule = self.timers.schedule.borrow_mut();
        let entry = &mut schedule.entries[self.key];
        if entry.fired {
            return Poll::Ready(());
        }
        match &mut entry.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // The place may be taken by another timer before its stale schedule comes up; `scheduled`
        // tells them apart.
        self.timers.schedule.borrow_mut().entries.remove(self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn fires_after(timers: &Rc<Timers>, timer: &Timer) -> Duration {
        let start = Instant::now();
        let drive = timers.drive();
        let mut drive = pin!(drive);
        poll_fn(|cx| {
            assert!(drive.as_mut().poll(cx).is_pending());
            timer.poll_fired(cx)
        })
        .await;
        start.elapsed()
    }

    fn close_to(measured: Duration, wanted: Duration) -> bool {
        measured >= wanted && measured <= wanted + TICK * 2
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_fires_once_it_has_passed() {
        let timers = Timers::new();
        let timer = timers.timer();
        timer.set(Some(Instant::now() + Duration::from_millis(300)));
        let took = fires_after(&timers, &timer).await;
        assert!(close_to(took, Duration::from_millis(300)), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_moved_later_or_earlier_fires_at_its_last_place() {
        let timers = Timers::new();
        let timer = timers.timer();
        let start = Instant::now();
        timer.set(Some(start + Duration::from_millis(100)));
        timer.set(Some(start + Duration::from_secs(10)));
        let took = fires_after(&timers, &timer).await;
        assert!(close_to(took, Duration::from_secs(10)), "{took:?}");
        timer.set(Some(Instant::now() + Duration::from_secs(60)));
        timer.set(Some(Instant::now() + Duration::from_millis(20)));
        let took = fires_after(&timers, &timer).await;
        assert!(close_to(took, Duration::from_millis(20)), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_is_set_again_whenever_it_is_asked_about_fires() {
        let timers = Timers::new();
        let timer = timers.timer();
        let deadline = Instant::now() + Duration::from_millis(100);
        let mut drive = pin!(timers.drive());
        let mut polls = 0;
        poll_fn(|cx| {
            assert!(drive.as_mut().poll(cx).is_pending());
            polls += 1;
            assert!(polls < 100, "it never fires");
            timer.set(Some(deadline));
            timer.poll_fired(cx)
        })
        .await;
        assert!(Instant::now() >= deadline);
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_in_the_past_fires_at_once_and_one_in_the_future_takes_it_back() {
        let timers = Timers::new();
        let timer = timers.timer();
        timer.set(Some(Instant::now() + Duration::from_millis(50)));
        fires_after(&timers, &timer).await;
        let fired = || timer.poll_fired(&mut Context::from_waker(Waker::noop()));
        timer.set(Some(Instant::now() - Duration::from_millis(20)));
        assert!(fired().is_ready());
        timer.set(Some(Instant::now() + Duration::from_millis(20)));
        assert!(fired().is_pending());
        timer.set(None);
        assert!(fired().is_pending());
    }

    #[tokio::test(start_paused = true)]
    async fn a_reused_place_does_not_inherit_an_old_deadline() {
        let timers = Timers::new();
        let old = timers.timer();
        old.set(Some(Instant::now() + Duration::from_millis(50)));
        drop(old);
        let new = timers.timer();
        new.set(Some(Instant::now() + Duration::from_secs(1)));
        let took = fires_after(&timers, &new).await;
        assert!(close_to(took, Duration::from_secs(1)), "{took:?}");
    }
}
