//! When the next request is sent.
//!
//! Closed loop: as soon as a connection has its answer. Open loop: at fixed times, whichever
//! connection is free; what is due while none is free waits, and its latency counts all the same
//! from when it was due. The backlog is arithmetic: arrivals due by now less those taken.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::alarm::Alarm;
use super::plan::Plan;
use super::tally::Ticket;

/// One thread's share of the requests to come.
pub(super) struct Pace {
    /// From here on requests are counted.
    measured: Instant,
    end: Option<Instant>,
    /// Counted requests still to be sent in closed loop.
    left: Cell<u64>,
    over: Cell<bool>,
    open: Option<Open>,
}

/// When the run begins and ends, for all of its threads alike.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    pub(super) start: Instant,
    pub(super) measured: Instant,
    pub(super) end: Option<Instant>,
}

/// Constant arrivals.
struct Open {
    first: Instant,
    /// Between two arrivals, in seconds.
    interval: f64,
    /// How many there are in all.
    total: u64,
    backlog: u64,
    patience: Duration,
    /// The first one not yet taken.
    next: Cell<u64>,
    /// Counted ones that were never sent.
    missed: Cell<u64>,
    /// Who waits for an arrival, the longest waiting first; at most one entry per seat.
    parked: RefCell<VecDeque<Rc<Seat>>>,
    /// Somebody parked, or the run is over.
    changed: Notify,
}

/// Where one sender waits for its next request.
#[derive(Default)]
pub(super) struct Seat {
    grant: Cell<Option<Ticket>>,
    parked: Cell<bool>,
    waker: Cell<Option<Waker>>,
}

impl Pace {
    /// The share of thread `index` of `plan.threads`.
    pub(super) fn new(plan: &Plan, index: usize, schedule: Schedule) -> Self {
        let (threads, thread) = (plan.threads as u64, index as u64);
        let share = |all: u64| all / threads + u64::from(thread < all % threads);
        let open = plan.rate.map(|rate| {
            let interval = threads as f64 / rate;
            let first = schedule.start + Duration::from_secs_f64(thread as f64 / rate);
            let count = |until: Instant| arrivals(first, interval, until);
            let timed = schedule.end.map_or(u64::MAX, count);
            let before = count(schedule.measured);
            let limited = plan
                .requests
                .map_or(u64::MAX, |all| before.saturating_add(share(all)));
            Open {
                first,
                interval,
                total: timed.min(limited),
                backlog: (plan.backlog / threads).max(1),
                patience: plan.timeout,
                next: Cell::new(0),
                missed: Cell::new(0),
                parked: RefCell::default(),
                changed: Notify::new(),
            }
        });
        Self {
            measured: schedule.measured,
            end: schedule.end,
            left: Cell::new(plan.requests.map_or(u64::MAX, share)),
            over: Cell::new(false),
            open,
        }
    }

    /// Waits for the next request to send; none when the run is over, or after
    /// [`Pace::unpark`].
    ///
    /// `now` is a fresh reading of the clock.
    pub(super) async fn next(&self, seat: &Rc<Seat>, now: Instant) -> Option<Ticket> {
        match &self.open {
            None => self.at_once(now),
            Some(open) => match self.take(open, now) {
                Some(ticket) => Some(ticket),
                None if self.over.get() => None,
                None => self.park(open, seat).await,
            },
        }
    }

    /// Whether no more requests are to be sent.
    pub(super) fn over(&self) -> bool {
        let taken = match &self.open {
            Some(open) => open.next.get() >= open.total,
            None => self.left.get() == 0,
        };
        taken || self.over.get()
    }

    /// Whether a connection may sit idle between requests.
    pub(super) fn waits(&self) -> bool {
        self.open.is_some()
    }

    /// Sends no more, whatever is due.
    pub(super) fn stop(&self) {
        self.over.set(true);
        if let Some(open) = &self.open {
            for seat in open.parked.borrow_mut().drain(..) {
                seat.wake(None);
            }
            open.changed.notify_one();
        }
    }

    /// Lets go of who waits in `seat`, without a request.
    pub(super) fn unpark(&self, seat: &Rc<Seat>) {
        if let Some(open) = &self.open
            && seat.parked.get()
        {
            let mut parked = open.parked.borrow_mut();
            parked.retain(|other| !Rc::ptr_eq(other, seat));
            seat.wake(None);
        }
    }

    /// Arrivals of the measured time that were never sent.
    pub(super) fn missed(&self) -> u64 {
        self.open.as_ref().map_or(0, |open| open.missed.get())
    }

    /// Hands out arrivals as they become due; returns when there are no more.
    pub(super) async fn drive(&self, alarm: &Alarm) {
        let Some(open) = &self.open else { return };
        while !self.over.get() {
            let now = Instant::now();
            self.hand_out(open, now);
            if open.next.get() >= open.total {
                return self.stop();
            }
            if open.parked.borrow().is_empty() {
                open.changed.notified().await;
            } else {
                alarm.until(open.due_at(open.next.get())).await;
            }
        }
    }

    fn hand_out(&self, open: &Open, now: Instant) {
        let mut parked = open.parked.borrow_mut();
        while !parked.is_empty() {
            let Some(ticket) = self.take(open, now) else {
                break;
            };
            if let Some(seat) = parked.pop_front() {
                seat.wake(Some(ticket));
            }
        }
    }

    fn at_once(&self, now: Instant) -> Option<Ticket> {
        let counted = now >= self.measured;
        if self.over.get() || self.end.is_some_and(|end| now >= end) || self.left.get() == 0 {
            self.over.set(true);
            return None;
        }
        if counted {
            self.left.set(self.left.get() - 1);
        }
        Some(Ticket {
            due: now,
            begun: now,
            counted,
        })
    }

    /// Takes the first arrival that is due and not given up.
    fn take(&self, open: &Open, now: Instant) -> Option<Ticket> {
        if self.over.get() {
            return None;
        }
        let due = arrivals(open.first, open.interval, now).min(open.total);
        while open.next.get() < due {
            let index = open.next.get();
            open.next.set(index + 1);
            let at = open.due_at(index);
            let counted = at >= self.measured;
            let late = now.saturating_duration_since(at) > open.patience;
            if !late && due - index <= open.backlog {
                return Some(Ticket {
                    due: at,
                    begun: now,
                    counted,
                });
            }
            open.missed.set(open.missed.get() + u64::from(counted));
        }
        None
    }

    async fn park(&self, open: &Open, seat: &Rc<Seat>) -> Option<Ticket> {
        seat.parked.set(true);
        open.parked.borrow_mut().push_back(seat.clone());
        open.changed.notify_one();
        poll_fn(|context| {
            if !seat.parked.get() {
                return Poll::Ready(());
            }
            seat.waker.set(Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
        seat.grant.take()
    }
}

impl Open {
    fn due_at(&self, index: u64) -> Instant {
        self.first + Duration::from_secs_f64(index as f64 * self.interval)
    }
}

impl Seat {
    fn wake(&self, ticket: Option<Ticket>) {
        self.grant.set(ticket);
        self.parked.set(false);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// How many arrivals there are before `until`.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count of arrivals: saturates, and is never negative"
)]
fn arrivals(first: Instant, interval: f64, until: Instant) -> u64 {
    match until.checked_duration_since(first) {
        Some(time) if !time.is_zero() => (time.as_secs_f64() / interval).ceil() as u64,
        _ => 0,
    }
}
