//! What one worker owns: everything a request touches is reached from here, and nothing of it is
//! shared with another worker but the throttles' slots.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::hint::black_box;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use activator::admission::{Clock, Holding};
use config::settings::Settings;

use tokio::sync::{Notify, Semaphore};

use super::buffers::Buffers;
use super::census::Census;
use super::connection::{Job, Rested};
use super::drain::{IDLE_WHILE_CLOSING, Phase};
use super::runners::Runners;
use super::streams::StreamJob;
use super::timers::Timers;
use super::tls::accept::HANDSHAKES_MAX;
use super::tls::share::Share;
use crate::http::pool::Pool;
use crate::live::{LocalLive, Published};
use crate::memory::{Gauge, Level, Pressure};
use crate::observe::access_log::AccessWriter;
use crate::observe::facts::{Asked, Facts, Names};
use crate::observe::metrics::{Series, WorkerMetrics};

/// What no allocator carves out of pages that it has at hand.
const PAGES: usize = 2 * 1024 * 1024;

/// Memory was taken so often for client connections that it is glanced at.
const CROWD: u32 = 64;

/// What all workers share.
#[derive(Debug)]
pub struct Shared {
    pub settings: Settings,
    pub published: Arc<Published>,
    pub holding: Arc<Holding>,
    pub census: Arc<Census>,
    pub memory: Gauge,
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
    /// How often memory was taken for a client connection.
    grown: Cell<u32>,
    /// What HTTP/2 streams need.
    pub stream_runners: Runners<StreamJob, ()>,
    pub pool: Pool,
    pub live: LocalLive,
    pub metrics: WorkerMetrics,
    pub phase: Cell<Phase>,
    /// What must be given up for want of memory.
    pub pressure: Cell<Pressure>,
    /// How long an idle connection may stay silent while we drain.
    pub idle_while_closing: Cell<Duration>,
    /// Places of TLS handshakes, and their share of our time.
    pub handshakes: Semaphore,
    pub share: Share,
    /// How often the clock was read: it goes on whenever a request does.
    pub ticks: Cell<u64>,
    /// Connections being served.
    pub connections: Cell<usize>,
    /// Told when the last of them has ended.
    pub emptied: Notify,
    log: RefCell<AccessWriter>,
    unmatched: Arc<Series>,
    random: RefCell<fastrand::Rng>,
    date: RefCell<Date>,
}

/// The `Date` of answers, made once a second.
#[derive(Debug)]
struct Date {
    at: Instant,
    text: String,
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
            grown: Cell::new(0),
            stream_runners: Runners::default(),
            pool: Pool::new(limits.upstream_idle, limits.upstream_idle_per_endpoint),
            live: LocalLive::new(&shared.published, index, &clock),
            clock,
            unmatched: metrics.series(Names::default()),
            metrics,
            phase: Cell::new(Phase::Serving),
            pressure: Cell::default(),
            idle_while_closing: Cell::new(IDLE_WHILE_CLOSING),
            handshakes: Semaphore::new(HANDSHAKES_MAX),
            share: Share::default(),
            ticks: Cell::new(0),
            connections: Cell::new(0),
            emptied: Notify::new(),
            log: RefCell::new(log),
            random: RefCell::new(fastrand::Rng::new()),
            date: RefCell::new(Date {
                at: now,
                text: httpdate::fmt_http_date(SystemTime::now()),
            }),
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
        self.ticks.set(self.ticks.get().wrapping_add(1));
        now
    }

    /// The future's result; the clock goes on with each poll of it.
    pub async fn ticking<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        poll_fn(|cx| {
            self.tick();
            future.as_mut().poll(cx)
        })
        .await
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

    /// Counts and logs an exchange that no route matched.
    pub fn record_unmatched(&self, facts: &Facts<'_>) {
        self.metrics.record(&self.unmatched, facts);
        self.log(facts, || None);
    }

    /// Writes an exchange to the access log, and, while there is one, to the request log what `asked`
    /// says of it.
    pub fn log<'a>(&self, facts: &Facts<'_>, asked: impl FnOnce() -> Option<Asked<'a>>) {
        let mut log = self.log.borrow_mut();
        match log.logs_requests().then(asked).flatten() {
            Some(asked) => log.write_request(facts, &asked),
            None => log.write(facts),
        }
    }

    /// The future's result, or `None` once the drain is over.
    pub async fn unless_ended<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let mut future = pin!(future);
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Pending if self.phase.get() == Phase::Ended => Poll::Ready(None),
            polled => polled.map(Some),
        })
        .await
    }

    /// Whether we are on our way out.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.phase.get() >= Phase::Closing
    }

    /// Whether clients should leave: answers ask them to, idle connections end soon.
    #[must_use]
    pub fn is_parting(&self) -> bool {
        self.is_closing() || self.is_short_of_memory(Level::Shrinking)
    }

    /// Whether memory is so short that what `level` names must be given up.
    #[must_use]
    pub fn is_short_of_memory(&self, level: Level) -> bool {
        self.pressure.get().level >= level || self.shared.memory.is_crowded()
    }

    /// A client connection came, or what it takes most for was made: a runner, or the state of HTTP/2.
    pub fn grew(&self) {
        self.grown.set(self.grown.get().wrapping_add(1));
        if self.grown.get().is_multiple_of(CROWD) {
            self.shared.memory.glance();
        }
    }

    /// Takes up how short memory is.
    pub fn heed(&self, pressure: Pressure) {
        let before = self.pressure.replace(pressure);
        if pressure.level > Level::Normal {
            self.shrink();
        }
        if before.level == Level::Normal && pressure.level > Level::Normal {
            self.timers.wake_idle();
        }
        if pressure.cut.is_some() && pressure != before {
            self.timers.wake_all();
        }
    }

    /// Frees what is kept for later.
    pub fn shrink(&self) {
        self.pool.shrink();
        self.buffers.shrink();
        self.runners.shrink();
        self.stream_runners.shrink();
        // What is free goes back to the system when the allocator is next asked for pages: nobody
        // else may ask it now.
        drop(black_box(Vec::<u8>::with_capacity(PAGES)));
    }
}
