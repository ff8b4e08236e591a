//! The task of one revision: waits in one place, lets the fleet and the autoscaler decide.

use std::sync::{Arc, Mutex, PoisonError};

use config::revision::{Backend, Process, Revision};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until};

use super::fleet::Fleet;
use super::link::News;
use super::machine::{Machine, Means, Outlet};
use super::probe::Proof;
use super::protocol::Id;
use super::status::{ColdStart, LocalStatus};
use crate::admission::{Nudge, Throttle};
use crate::demand::{Reading, average};
use crate::scaler::autoscale::{Autoscaler, Observation, TICK};

/// News that wait for the task. It takes them all before it waits for anything else.
pub(super) const NEWS: usize = 64;

/// What the task is told to do; only the newest counts.
#[derive(Clone, Debug)]
pub(super) enum Order {
    Adopt(Arc<Revision>),
    /// Let requests end, then stop.
    Release,
    /// Stop.
    Shutdown,
}

/// How requests wake the task.
#[derive(Debug, Default)]
pub(super) struct Wake {
    notify: Notify,
    /// When the first request that was not heard of came.
    nudged: Mutex<Option<Instant>>,
}

impl Nudge for Wake {
    fn nudge(&self) {
        let mut nudged = self.nudged.lock().unwrap_or_else(PoisonError::into_inner);
        nudged.get_or_insert_with(Instant::now);
        drop(nudged);
        self.notify.notify_one();
    }
}

impl Wake {
    /// When the request came. Cancel safe.
    async fn nudged(&self) -> Instant {
        self.notify.notified().await;
        let mut nudged = self.nudged.lock().unwrap_or_else(PoisonError::into_inner);
        nudged.take().unwrap_or_else(Instant::now)
    }
}

/// What a task is made of.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) means: Arc<Means>,
    pub(super) orders: watch::Receiver<Order>,
    pub(super) outlet: Arc<Outlet>,
    pub(super) wake: Arc<Wake>,
    pub(super) status: Arc<Mutex<LocalStatus>>,
}

#[derive(Debug)]
pub(super) struct Task {
    orders: watch::Receiver<Order>,
    wake: Arc<Wake>,
    news: mpsc::Receiver<News>,
    status: Arc<Mutex<LocalStatus>>,
    ticks: Interval,
    machine: Machine,
    fleet: Fleet,
    autoscaler: Autoscaler,
    demand: Demand,
    cold_start: Option<ColdStart>,
    /// Not released: the revision is still wanted.
    adopted: bool,
}

#[derive(Debug)]
enum Heard {
    Order,
    Nudge(Instant),
    News(News),
    Ready(Id, Proof),
    Tick,
    Deadline,
    /// There is room for requests again, or a probe was aborted.
    Nothing,
    /// Nobody can give orders any more.
    Gone,
}

/// What the revision runs on this machine, if anything.
pub(super) fn process(revision: &Revision) -> Option<&Process> {
    match &revision.backend {
        Backend::Process(process) => Some(process),
        Backend::None | Backend::Fixed { .. } | Backend::Fed(_) => None,
    }
}

impl Task {
    pub(super) fn new(revision: &Revision, process: &Process, parts: Parts) -> Task {
        let (sender, news) = mpsc::channel(NEWS);
        let mut ticks = interval_at(Instant::now() + TICK, TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let machine = Machine::new(revision.key.clone(), parts.means, parts.outlet, sender);
        Task {
            orders: parts.orders,
            wake: parts.wake,
            news,
            status: parts.status,
            ticks,
            demand: Demand::new(machine.throttle()),
            machine,
            fleet: Fleet::new(revision, process),
            autoscaler: Autoscaler::new(process.scale.clone()),
            cold_start: None,
            adopted: true,
        }
    }

    /// Works until every process is gone after a release or shutdown; `may_end` then has the last
    /// word, since an order may just have come.
    pub(super) async fn run(mut self, may_end: impl Fn(&watch::Receiver<Order>) -> bool) {
        self.want();
        loop {
            self.send_requests();
            self.report();
            let over = !self.adopted && self.fleet.is_empty() && self.machine.outbox.is_empty();
            if over && may_end(&self.orders) {
                return;
            }
            match self.hear().await {
                Heard::Gone => return,
                heard => self.apply(heard),
            }
        }
    }

    async fn hear(&mut self) -> Heard {
        let deadline = self.fleet.next_deadline(now()).map(Instant::from_std);
        let ticking = self.adopted && (self.autoscaler.wanted() > 0 || !self.fleet.is_empty());
        let behind = !self.machine.outbox.is_empty();
        tokio::select! {
            biased;
            changed = self.orders.changed() => match changed {
                Ok(()) => Heard::Order,
                Err(_closed) => Heard::Gone,
            },
            Some(news) = self.news.recv() => Heard::News(news),
            Some(probed) = self.machine.probes.join_next() => match probed {
                Ok((id, proof)) => Heard::Ready(id, proof),
                Err(_aborted) => Heard::Nothing,
            },
            nudged = self.wake.nudged() => Heard::Nudge(nudged),
            room = self.machine.means.requests.reserve(), if behind => match room {
                Ok(_permit) => Heard::Nothing,
                Err(_closed) => Heard::Gone,
            },
            _ = self.ticks.tick(), if ticking => Heard::Tick,
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                Heard::Deadline
            }
        }
    }

    fn apply(&mut self, heard: Heard) {
        match heard {
            Heard::Order => self.obey(),
            Heard::Nudge(nudged) => self.wake_up(nudged),
            Heard::Tick => self.decide(),
            Heard::Deadline => self.fleet.expire(now(), &mut self.machine),
            Heard::Ready(id, proof) => self.ready(id, proof),
            Heard::News(News::Started(id)) => self.machine.probe(id),
            Heard::News(News::Refused(id, why)) => {
                self.machine.forget(id);
                self.fleet.refused(id, &why, now(), &mut self.machine);
            }
            Heard::News(News::Exited(id, exit)) => {
                self.machine.forget(id);
                self.fleet.exited(id, &exit, now(), &mut self.machine);
            }
            Heard::News(News::Lost(id)) => {
                self.machine.forget(id);
                self.fleet.lost(id, now(), &mut self.machine);
            }
            Heard::Nothing | Heard::Gone => {}
        }
    }

    fn obey(&mut self) {
        let order = self.orders.borrow_and_update().clone();
        match order {
            Order::Adopt(revision) => {
                let Some(process) = process(&revision) else {
                    return;
                };
                self.adopted = true;
                self.machine.renew(self.fleet.published());
                self.demand.follow(self.machine.throttle());
                self.autoscaler.set_scale(process.scale.clone());
                self.fleet
                    .configure(&revision, process, now(), &mut self.machine);
                self.want();
            }
            Order::Release => {
                self.adopted = false;
                self.cold_start = None;
                self.fleet.want(0, now(), &mut self.machine);
            }
            Order::Shutdown => {
                self.adopted = false;
                self.fleet.stop_all(&mut self.machine);
            }
        }
    }

    fn wake_up(&mut self, nudged: Instant) {
        if !self.adopted {
            return;
        }
        self.expect_cold_start(nudged);
        if self.autoscaler.wanted() == 0 {
            let seen = self.observe();
            self.autoscaler.wake(&seen);
            self.ticks.reset();
        }
        self.want();
    }

    fn decide(&mut self) {
        let seen = self.observe();
        let wanted = self.autoscaler.decide(&seen);
        if wanted == 0 {
            self.cold_start = None;
        } else if seen.load > 0 {
            self.expect_cold_start(Instant::now());
        }
        self.want();
    }

    fn expect_cold_start(&mut self, nudged: Instant) {
        if self.fleet.ready_count() == 0 && self.cold_start.is_none() {
            self.cold_start = Some(ColdStart::new(nudged, Instant::now()));
        }
    }

    fn want(&mut self) {
        let wanted = self.autoscaler.wanted();
        self.fleet.want(wanted, now(), &mut self.machine);
    }

    fn ready(&mut self, id: Id, proof: Proof) {
        if !self.machine.forget(id) {
            return;
        }
        // Before the requests that waited for it can ask.
        if let Some(cold_start) = self.cold_start.take() {
            let last = cold_start.finish(proof);
            let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
            status.cold_starts += 1;
            status.total += last.phases;
            status.last_start = Some(last);
        }
        self.fleet.ready(id, now(), &mut self.machine);
    }

    fn observe(&mut self) -> Observation {
        let (load, area) = self.demand.read(self.machine.throttle());
        Observation {
            at: now(),
            area,
            load,
            ready: self.fleet.ready_count(),
        }
    }

    fn send_requests(&mut self) {
        let asked = self.machine.send_requests();
        if asked && let Some(cold_start) = &mut self.cold_start {
            cold_start.acted(Instant::now());
        }
    }

    fn report(&self) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.starting.clear();
        status.starting.extend(self.fleet.starting());
        status.wanted = self.autoscaler.wanted();
        status.panicking = self.autoscaler.panicking();
    }
}

/// The pure parts are told the time; the runtime's clock can be paused.
fn now() -> std::time::Instant {
    Instant::now().into_std()
}

/// Adds up what a throttle was asked to carry.
#[derive(Debug)]
struct Demand {
    last: Reading,
    /// Request seconds, running and waiting, since the first reading.
    area: f64,
}

impl Demand {
    fn new(throttle: &Throttle) -> Demand {
        Demand {
            last: throttle.demand(now()),
            area: 0.0,
        }
    }

    /// Another throttle may have taken the place of the one read before.
    fn follow(&mut self, throttle: &Throttle) {
        self.last = throttle.demand(now());
    }

    /// The load of this moment, and the area up to it.
    fn read(&mut self, throttle: &Throttle) -> (u32, f64) {
        let reading = throttle.demand(now());
        let time = reading.at.saturating_duration_since(self.last.at);
        let averages = average(&self.last, &reading);
        self.area += (averages.running + averages.waiting) * time.as_secs_f64();
        self.last = reading;
        (reading.running.saturating_add(reading.waiting), self.area)
    }
}
