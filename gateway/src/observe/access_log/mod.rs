//! The access log, and the request log beside it: a ring per worker and one thread that writes for
//! all of them.
//!
//! A worker never waits for a log: when its ring is full the record is dropped and counted. The access
//! log is about every exchange and looks as we say; the request log is about requests to revisions of
//! Knative and looks as a [`Template`] says. Both can be switched while they run ([`Switches`]).

mod format;
mod record;
mod redact;
mod request;
pub mod template;
mod thread;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread::Thread;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use rtrb::{Producer, RingBuffer};

use self::template::Template;
use super::facts::{Asked, Facts};
use super::metrics::{Registry, lock};

/// Bytes of one worker's ring: some 3 000 common records, enough for 50 ms of a busy worker.
const RING: usize = 1 << 20;

/// Bytes a worker writes before it tells the log's thread not to wait for its own time.
const NUDGE: usize = RING / 4;

/// Beyond the rate, one record in this many is written, with this weight.
const SAMPLE: u32 = 100;

/// The longest that `shutdown` waits for a log that nobody reads.
const FLUSH: Duration = Duration::from_millis(500);

/// What to log, and where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub mode: Mode,
    /// In limited mode, records a second and worker that are written without question.
    pub per_second: u32,
    pub format: Format,
    pub file: Target,
    /// Where a request log is written to, should there be one; `None` = there will be none.
    pub requests: Option<Target>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Up to a rate; beyond it a sample. Refusals and 5xx always.
    Limited,
    All,
    Off,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Stderr,
    Stdout,
    /// Appended to; opened again by [`AccessLog::reopen`].
    Path(PathBuf),
}

/// What is logged, as it can be switched at any time and from anywhere.
#[derive(Debug, Default)]
pub struct Switches {
    /// The access log is left out.
    no_access: AtomicBool,
    /// There is a template: all that workers look at.
    requests: AtomicBool,
    template: ArcSwapOption<Template>,
}

impl Switches {
    /// Writes requests to revisions of Knative by this template from now on; `None` = does not.
    /// Without effect if no place was named for them when the log was started.
    pub fn set_request_log(&self, template: Option<Template>) {
        let on = template.is_some();
        self.template.store(template.map(Arc::new));
        self.requests.store(on, Ordering::Release);
    }

    /// Whether the access log is written, if it was started.
    pub fn set_access_log(&self, on: bool) {
        self.no_access.store(!on, Ordering::Relaxed);
    }
}

/// The log as the process sees it. Dropping it without [`shutdown`](Self::shutdown) ends the
/// thread after what the rings hold, without waiting for it.
#[derive(Debug)]
pub struct AccessLog {
    /// `None` when the log is off.
    thread: Option<LogThread>,
    switches: Arc<Switches>,
}

#[derive(Debug)]
struct LogThread {
    thread: Thread,
    signals: Arc<Signals>,
    /// Disconnected when the thread has ended.
    ended: Mutex<Receiver<()>>,
}

#[derive(Debug, Default)]
struct Signals {
    stop: AtomicBool,
    reopen: AtomicBool,
}

/// One worker's end of the log.
#[derive(Debug)]
pub struct AccessWriter {
    /// `None` when the log is off.
    ring: Option<Ring>,
    sampler: Sampler,
    switches: Arc<Switches>,
}

#[derive(Debug)]
struct Ring {
    producer: Producer<u8>,
    /// One encoded record; keeps its capacity.
    scratch: Vec<u8>,
    /// Instants are written as their distance from here.
    base: Instant,
    since_nudge: usize,
    thread: Thread,
    registry: Arc<Registry>,
    worker: usize,
}

impl AccessLog {
    /// Opens the file, starts the thread and gives one writer to each worker of the registry,
    /// which counts the records that were dropped.
    ///
    /// # Errors
    /// When the file cannot be opened or the thread cannot be started.
    pub fn start(
        config: &Config,
        registry: &Arc<Registry>,
    ) -> std::io::Result<(AccessLog, Vec<AccessWriter>)> {
        let workers = registry.workers();
        let sampler = Sampler::new(config.mode, config.per_second);
        let switches = Arc::new(Switches::default());
        switches.set_access_log(config.mode != Mode::Off);
        if config.mode == Mode::Off && config.requests.is_none() {
            let writer = || AccessWriter {
                ring: None,
                sampler,
                switches: Arc::clone(&switches),
            };
            let writers = std::iter::repeat_with(writer).take(workers).collect();
            let thread = None;
            return Ok((AccessLog { thread, switches }, writers));
        }
        let (producers, consumers): (Vec<_>, Vec<_>) =
            (0..workers).map(|_| RingBuffer::new(RING)).unzip();
        let base = Instant::now();
        let signals = Arc::new(Signals::default());
        let (thread, ended) = thread::spawn(thread::Log::new(
            consumers,
            base,
            thread::Sinks::open(config)?,
            Arc::clone(&signals),
            Arc::clone(&switches),
            Arc::clone(registry),
        ))?;
        let writer = |(worker, producer)| AccessWriter {
            ring: Some(Ring {
                producer,
                scratch: Vec::with_capacity(record::LONGEST),
                base,
                since_nudge: 0,
                thread: thread.clone(),
                registry: Arc::clone(registry),
                worker,
            }),
            sampler,
            switches: Arc::clone(&switches),
        };
        let writers = producers.into_iter().enumerate().map(writer).collect();
        let thread = Some(LogThread {
            thread,
            signals,
            ended: ended.into(),
        });
        Ok((AccessLog { thread, switches }, writers))
    }

    /// Switches it from elsewhere.
    #[must_use]
    pub fn switches(&self) -> &Arc<Switches> {
        &self.switches
    }

    /// Opens the file again, for log rotation. When that fails the old one is kept and the process
    /// log says so.
    pub fn reopen(&self) {
        if let Some(log) = &self.thread {
            log.signals.reopen.store(true, Ordering::Relaxed);
            log.thread.unpark();
        }
    }

    /// Writes what the rings hold and ends the thread. Blocks until then, at most half a second:
    /// a log that nobody reads must not keep the process. Writers that are still in use write to
    /// nobody and count drops once their ring is full.
    pub fn shutdown(self) {
        if let Some(log) = &self.thread {
            log.stop();
            let ended = lock(&log.ended).recv_timeout(FLUSH);
            if ended == Err(RecvTimeoutError::Timeout) {
                tracing::warn!("the access log could not be written in time");
            }
        }
    }
}

impl LogThread {
    fn stop(&self) {
        // Release: whoever sees this sees every record written before it.
        self.signals.stop.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

impl Drop for LogThread {
    fn drop(&mut self) {
        self.stop();
    }
}

impl AccessWriter {
    /// Logs one finished exchange, if it is this one's turn. Neither waits nor allocates.
    pub fn write(&mut self, facts: &Facts<'_>) {
        let weight = self.weight(facts);
        if let Some(ring) = self.ring.as_mut().filter(|_| weight > 0) {
            ring.push(facts, weight, None);
        }
    }

    /// Whether there is a request log: whoever has an exchange for it must say more.
    #[must_use]
    pub fn logs_requests(&self) -> bool {
        self.switches.requests.load(Ordering::Acquire)
    }

    /// As [`write`](Self::write), and to the request log too. Does not wait.
    pub fn write_request(&mut self, facts: &Facts<'_>, asked: &Asked<'_>) {
        let weight = self.weight(facts);
        let template = self.switches.template.load();
        let asked = template.as_ref().map(|template| (asked, template.names()));
        if let Some(ring) = self.ring.as_mut().filter(|_| weight > 0 || asked.is_some()) {
            ring.push(facts, weight, asked);
        }
    }

    /// For how many exchanges this one stands in the access log; 0 = it is left out.
    fn weight(&mut self, facts: &Facts<'_>) -> u32 {
        if self.ring.is_none() || self.switches.no_access.load(Ordering::Relaxed) {
            return 0;
        }
        self.sampler.weight(facts)
    }
}

impl Ring {
    fn push(&mut self, facts: &Facts<'_>, weight: u32, asked: Option<(&Asked<'_>, &[Box<str>])>) {
        record::encode(&mut self.scratch, facts, weight, self.base, asked);
        if self.producer.push_entire_slice(&self.scratch).is_err() {
            self.registry.access_log_dropped(self.worker);
            return;
        }
        self.since_nudge += self.scratch.len();
        if self.since_nudge >= NUDGE {
            self.since_nudge = 0;
            self.thread.unpark();
        }
    }
}

/// Decides which records are written, and for how many each stands.
#[derive(Clone, Copy, Debug)]
struct Sampler {
    limited: bool,
    per_second: f64,
    tokens: f64,
    refilled: Option<Instant>,
    passed_over: u32,
}

impl Sampler {
    fn new(mode: Mode, per_second: u32) -> Sampler {
        Sampler {
            limited: mode == Mode::Limited,
            per_second: f64::from(per_second),
            tokens: f64::from(per_second),
            refilled: None,
            passed_over: 0,
        }
    }

    /// 0 = not this one.
    fn weight(&mut self, facts: &Facts<'_>) -> u32 {
        if !self.limited || facts.reason.is_some() || facts.code >= 500 {
            return 1;
        }
        let now = facts.arrived + facts.total;
        let since = self
            .refilled
            .map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.tokens = (self.tokens + since.as_secs_f64() * self.per_second).min(self.per_second);
        self.refilled = self.refilled.max(Some(now));
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return 1;
        }
        self.passed_over += 1;
        if self.passed_over < SAMPLE {
            return 0;
        }
        self.passed_over = 0;
        SAMPLE
    }
}

/// As the log's thread would write it, having arrived then.
#[cfg(any(test, fuzzing))]
pub(crate) fn line(
    facts: &Facts<'_>,
    weight: u32,
    format: Format,
    arrived: std::time::SystemTime,
) -> Vec<u8> {
    let mut bytes = Vec::new();
    record::encode(&mut bytes, facts, weight, facts.arrived, None);
    let mut rest = bytes.as_slice();
    let mut out = Vec::new();
    let record = record::decode(&mut rest).filter(|_| rest.is_empty());
    match (record, format) {
        (None, _) => {}
        (Some(record), Format::Text) => format::text(&mut out, &record, arrived),
        (Some(record), Format::Json) => format::json(&mut out, &record, arrived),
    }
    out
}

#[cfg(test)]
mod tests;
