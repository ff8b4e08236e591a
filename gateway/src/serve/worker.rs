//! What one worker owns: everything a request touches is reached from here, and nothing of it is
//! shared with another worker but the throttles' slots.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use activator::admission::{Clock, Holding};
use config::settings::Settings;

use tokio::sync::Notify;

use super::buffers::Buffers;
use super::connection::{Job, Rested};
use super::drain::Phase;
use super::runners::Runners;
use super::timers::Timers;
use crate::http::field::Head;
use crate::http::message::{RequestHead, ResponseHead};
use crate::http::pool::Pool;
use crate::live::{LocalLive, Published};
use crate::observe::access_log::AccessWriter;
use crate::observe::cold::FirstAnswers;
use crate::observe::facts::{Facts, Names};
use crate::observe::metrics::{Series, WorkerMetrics};

/// Spare heads kept per worker.
const SPARE_HEADS_MAX: usize = 1024;

/// Heads that have grown larger are freed rather than kept.
const SPARE_HEAD_BYTES_MAX: usize = 8 * 1024;

/// What all workers share.
#[derive(Debug)]
pub struct Shared {
    pub settings: Settings,
    pub published: Arc<Published>,
    pub holding: Arc<Holding>,
    pub first_answers: Arc<FirstAnswers>,
    /// How this process calls itself in `Via`; tells a request that came round to us.
    pub pseudonym: String,
}

/// One worker.
#[derive(Debug)]
pub struct Worker {
    pub shared: Arc<Shared>,
    pub clock: Rc<Clock>,
    pub timers: Rc<Timers>,
    pub buffers: Rc<Buffers>,
    /// What connections need while they are busy.
    pub runners: Runners<Job, Rested>,
    pub pool: Pool,
    pub live: LocalLive,
    pub metrics: WorkerMetrics,
    pub phase: Cell<Phase>,
    /// Connections being served.
    pub connections: Cell<usize>,
    /// Told when the last of them has ended.
    pub emptied: Notify,
    log: RefCell<AccessWriter>,
    unmatched: Arc<Series>,
    random: RefCell<fastrand::Rng>,
    date: RefCell<Date>,
    requests: RefCell<Vec<RequestHead>>,
    responses: RefCell<Vec<ResponseHead>>,
}

/// The `Date` of answers, made once a second.
#[derive(Debug)]
struct Date {
    at: Instant,
    text: String,
}

/// Whether a head is of a size worth keeping.
fn is_spare(head: &Head) -> bool {
    head.capacity() <= SPARE_HEAD_BYTES_MAX
}

impl Worker {
    /// Worker number `index`, on the thread that will run it.
    #[must_use]
    pub fn new(
        index: usize,
        shared: &Arc<Shared>,
        metrics: WorkerMetrics,
        log: AccessWriter,
    ) -> Rc<Worker> {
        let now = Worker::now();
        let clock = Clock::new(now);
        let limits = &shared.settings.limits;
        Rc::new(Worker {
            shared: shared.clone(),
            timers: Timers::new(),
            buffers: Buffers::new(),
            runners: Runners::default(),
            pool: Pool::new(limits.upstream_idle, limits.upstream_idle_per_endpoint),
            live: LocalLive::new(&shared.published, index, &clock),
            clock,
            unmatched: metrics.series(Names::default()),
            metrics,
            phase: Cell::new(Phase::Serving),
            connections: Cell::new(0),
            emptied: Notify::new(),
            log: RefCell::new(log),
            random: RefCell::new(fastrand::Rng::new()),
            date: RefCell::new(Date {
                at: now,
                text: httpdate::fmt_http_date(SystemTime::now()),
            }),
            requests: RefCell::default(),
            responses: RefCell::default(),
        })
    }

    /// The time, which tests can pause.
    #[must_use]
    pub fn now() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    /// Reads the clock for everything that happens until the next tick.
    pub fn tick(&self) -> Instant {
        let now = Worker::now();
        self.clock.set(now);
        now
    }

    #[must_use]
    pub fn random(&self) -> u64 {
        self.random.borrow_mut().u64(..)
    }

    /// Calls `with` with the `Date` of now, at most a second old.
    pub fn date<T>(&self, with: impl FnOnce(&[u8]) -> T) -> T {
        let now = self.clock.now();
        let mut date = self.date.borrow_mut();
        if now.saturating_duration_since(date.at).as_secs() >= 1 {
            date.at = now;
            date.text = httpdate::fmt_http_date(SystemTime::now());
        }
        with(date.text.as_bytes())
    }

    #[must_use]
    pub fn take_request(&self) -> RequestHead {
        self.requests.borrow_mut().pop().unwrap_or_default()
    }

    pub fn give_request(&self, head: RequestHead) {
        let mut spare = self.requests.borrow_mut();
        if spare.len() < SPARE_HEADS_MAX && is_spare(&head.head) {
            spare.push(head);
        }
    }

    #[must_use]
    pub fn take_response(&self) -> ResponseHead {
        self.responses.borrow_mut().pop().unwrap_or_default()
    }

    pub fn give_response(&self, head: ResponseHead) {
        let mut spare = self.responses.borrow_mut();
        if spare.len() < SPARE_HEADS_MAX && is_spare(&head.head) {
            spare.push(head);
        }
    }

    /// Counts and logs an exchange that no route matched.
    pub fn record_unmatched(&self, facts: &Facts<'_>) {
        self.metrics.record(&self.unmatched, facts);
        self.log(facts);
    }

    /// Writes an exchange to the access log.
    pub fn log(&self, facts: &Facts<'_>) {
        self.log.borrow_mut().write(facts);
    }

    /// Whether answers should ask clients to leave.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.phase.get() >= Phase::Closing
    }
}
