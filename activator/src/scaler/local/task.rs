//! The task of one revision: waits in one place, lets the fleet and the autoscaler decide.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use config::revision::{Backend, Process, Revision};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until};

use super::fleet::Fleet;
use super::link::News;
use super::machine::{Machine, Means, Outlet};
use super::probe::Proof;
use super::protocol::Id;
use super::status::LocalStatus;
use crate::admission::{Nudge, Throttle};
use crate::demand::{Reading, average};
use crate::scaler::autoscale::{Autoscaler, Floor, Observation, TICK};

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
    calls: Mutex<Calls>,
}

/// What was not heard yet.
#[derive(Debug, Default)]
struct Calls {
    /// A request came.
    nudged: bool,
    /// Processes that failed one.
    suspects: BTreeSet<SocketAddr>,
    /// Requests are expected.
    floor: Option<Floor>,
}

impl Nudge for Wake {
    fn nudge(&self) {
        self.lock().nudged = true;
        self.notify.notify_one();
    }

    fn suspected(&self, address: SocketAddr) {
        self.lock().suspects.insert(address);
        self.notify.notify_one();
    }
}

impl Wake {
    /// Requests are expected.
    pub(super) fn expect(&self, floor: Floor) {
        let mut calls = self.lock();
        calls.floor = Some(floor.and(calls.floor));
        drop(calls);
        self.notify.notify_one();
    }

    /// Cancel safe.
    async fn called(&self) -> Calls {
        self.notify.notified().await;
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
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
    /// Not released: the revision is still wanted.
    adopted: bool,
}

#[derive(Debug)]
enum Heard {
    Order,
    Calls(Calls),
    /// A process that was suspect answers as asked.
    Well(SocketAddr),
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
            Some(checked) = self.machine.checks.join_next() => match checked {
                Ok(Some(address)) => Heard::Well(address),
                Ok(None) | Err(_) => Heard::Nothing,
            },
            calls = self.wake.called() => Heard::Calls(calls),
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
            Heard::Calls(calls) => self.answer(calls),
            Heard::Well(address) => self.machine.trust(address),
            Heard::Tick => self.decide(),
            Heard::Deadline => self.fleet.expire(now(), &mut self.machine),
            Heard::Ready(id, proof) => self.ready(id, proof),
            Heard::News(News::Started(id)) => self.machine.probe(id),
            Heard::News(News::Refused(id, refusal)) => {
                self.machine.forget(id);
                self.fleet.refused(id, &refusal, now(), &mut self.machine);
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
                self.fleet.want(0, now(), &mut self.machine);
            }
            Order::Shutdown => {
                self.adopted = false;
                self.fleet.stop_all(&mut self.machine);
            }
        }
    }

    fn answer(&mut self, calls: Calls) {
        for address in calls.suspects {
            let readiness = self.fleet.readiness_at(address);
            if let Some(readiness) = readiness {
                self.machine.check(address, readiness);
            }
        }
        if calls.nudged {
            self.wake_up();
        }
        if let Some(floor) = calls.floor {
            self.expect(floor);
        }
    }

    fn wake_up(&mut self) {
        if !self.adopted {
            return;
        }
        self.machine.throttle().starts().nudged(now());
        if self.autoscaler.wanted() == 0 {
            let seen = self.observe();
            self.autoscaler.wake(&seen);
            self.ticks.reset();
        }
        self.want();
    }

    fn expect(&mut self, floor: Floor) {
        if !self.adopted {
            return;
        }
        if self.autoscaler.wanted() == 0 {
            self.ticks.reset();
        }
        let seen = self.observe();
        if seen.ready == 0 {
            let starts = self.machine.throttle().starts();
            starts.prewarmed(now());
            starts.nudged(now());
        }
        self.autoscaler.expect(&seen, floor);
        self.want();
    }

    fn decide(&mut self) {
        let seen = self.observe();
        let wanted = self.autoscaler.decide(&seen);
        if wanted == 0 {
            let starts = self.machine.throttle().starts();
            starts.called_off("nothing asked for it any more");
        }
        self.want();
    }

    fn want(&mut self) {
        let wanted = self.autoscaler.wanted();
        self.fleet.want(wanted, now(), &mut self.machine);
    }

    fn ready(&mut self, id: Id, proof: Proof) {
        if !self.machine.forget(id) {
            return;
        }
        let starts = self.machine.throttle().starts();
        starts.seen(proof.accepted.into_std());
        starts.passed(proof.ready.into_std());
        self.fleet.ready(id, now(), &mut self.machine);
    }

    fn observe(&mut self) -> Observation {
        let (reading, area) = self.demand.read(self.machine.throttle());
        Observation {
            at: now(),
            area,
            load: reading.running.saturating_add(reading.waiting),
            waiting: reading.waiting,
            resting: reading.resting,
            ready: self.fleet.ready_count(),
        }
    }

    fn send_requests(&mut self) {
        let asked = self.machine.send_requests();
        if asked {
            self.machine.throttle().starts().acted(now());
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

    /// What there is at this moment, and the area up to it.
    fn read(&mut self, throttle: &Throttle) -> (Reading, f64) {
        let reading = throttle.demand(now());
        let time = reading.at.saturating_duration_since(self.last.at);
        let averages = average(&self.last, &reading);
        self.area += (averages.running + averages.waiting) * time.as_secs_f64();
        self.last = reading;
        (reading, self.area)
    }
}
