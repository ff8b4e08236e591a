//! Counters of workers: cells with one writer each, made at first use, merged at scrape.
//!
//! A [`Series`] is what one worker counts for one route and revision. Workers find theirs once
//! (under a lock) and then count without locks, allocations or locked instructions.

mod series;

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use activator::admission::Bound;
use hashbrown::HashMap;

use crate::http::h2::budget::Abuse;
use crate::refusal::{Reason, TurnedAway};

use super::cold::LastStarts;
use super::facts::{Facts, Method, Names, Phases, Start, is_answer};
use super::histogram::{Counter, Totals, WAIT};
use super::world::{AutoscalerView, MemoryView};

pub use self::series::{Labels, Series};
use self::series::{Owned, RevisionCells};
pub use super::families::{FAMILIES, Family, Kind};

/// How long the series of a removed route or revision are still shown, so that every scraper sees
/// their last values.
const RETIRED: Duration = Duration::from_secs(300);

/// All metrics of the process.
#[derive(Debug)]
pub struct Registry {
    pub(super) workers: Vec<Arc<Cells>>,
    pub(super) listeners: Vec<String>,
    pub(super) version: AtomicU64,
    /// Targets that wait until they are warm.
    pub(super) warming: AtomicU64,
    pub(super) rejected: Mutex<BTreeMap<String, u64>>,
    pub(super) starts: Mutex<BTreeMap<(String, String), Starts>>,
    last_starts: LastStarts,
    pub(super) unwritten: AtomicU64,
    memory: Mutex<MemoryView>,
    autoscaler: Mutex<Option<AutoscalerView>>,
    born: Instant,
}

/// What one worker counts.
#[derive(Debug)]
pub(super) struct Cells {
    taken: AtomicBool,
    table: Mutex<Table>,
    pub(super) refused: [Counter; Reason::ALL.len()],
    /// By [`Bound`].
    pub(super) queue_full: [Counter; Bound::ALL.len()],
    /// By listener: opened less closed, wrapping.
    pub(super) connections: Vec<Counter>,
    /// By listener.
    pub(super) handshakes_failed: Vec<Counter>,
    pub(super) http2_closed: [Counter; Abuse::ALL.len()],
    /// By listener and why.
    pub(super) connections_refused: Vec<[Counter; TurnedAway::ALL.len()]>,
    /// By listener.
    pub(super) accept_errors: Vec<Counter>,
    /// Bits of an `f64`.
    pub(super) busy: AtomicU64,
    pub(super) dropped: Counter,
}

#[derive(Debug, Default)]
struct Table {
    series: HashMap<Owned, Arc<Series>>,
    /// Shared by the series of all routes that lead to a revision.
    revisions: HashMap<(String, String), Arc<RevisionCells>>,
}

/// The cold starts of one revision.
#[derive(Debug)]
pub(super) struct Starts {
    pub(super) count: u64,
    last: Start,
    pub(super) phases: [Totals; 6],
}

/// One worker's right to count. Exactly one thread at a time may use it, which the type says by
/// not being `Sync`.
#[derive(Debug)]
pub struct WorkerMetrics {
    registry: Arc<Registry>,
    cells: Arc<Cells>,
    index: usize,
    one_thread: PhantomData<std::cell::Cell<()>>,
}

impl Registry {
    /// `listeners` are the values of the label `listener`.
    #[must_use]
    pub fn new(workers: usize, listeners: Vec<String>) -> Arc<Registry> {
        let cells = || Arc::new(Cells::new(listeners.len()));
        Arc::new(Registry {
            workers: std::iter::repeat_with(cells).take(workers).collect(),
            listeners,
            version: AtomicU64::new(0),
            warming: AtomicU64::new(0),
            rejected: Mutex::new(BTreeMap::from([("file".to_owned(), 0)])),
            starts: Mutex::default(),
            last_starts: LastStarts::default(),
            unwritten: AtomicU64::new(0),
            memory: Mutex::default(),
            autoscaler: Mutex::default(),
            born: Instant::now(),
        })
    }

    /// # Panics
    /// When the worker does not exist or its handle was taken before: two writers would lose
    /// counts.
    #[must_use]
    pub fn worker(self: &Arc<Self>, index: usize) -> WorkerMetrics {
        let cells = Arc::clone(&self.workers[index]);
        let taken = cells.taken.swap(true, Relaxed);
        assert!(!taken, "the metrics of worker {index} are taken");
        WorkerMetrics {
            registry: Arc::clone(self),
            cells,
            index,
            one_thread: PhantomData,
        }
    }

    /// How many workers there are.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// The configuration in force; 0 before the first.
    pub fn set_version(&self, version: u64) {
        self.version.store(version, Relaxed);
    }

    /// How many targets of routes wait for their shares until they are warm.
    pub fn set_warming(&self, targets: usize) {
        self.warming.store(targets as u64, Relaxed);
    }

    /// What memory is used now.
    pub fn set_memory(&self, memory: MemoryView) {
        *lock(&self.memory) = memory;
    }

    /// What [`set_memory`](Registry::set_memory) said last.
    #[must_use]
    pub fn memory(&self) -> MemoryView {
        *lock(&self.memory)
    }

    /// How we get along with Knative's autoscaler; nothing is shown before this was called.
    pub fn set_autoscaler(&self, autoscaler: AutoscalerView) {
        *lock(&self.autoscaler) = Some(autoscaler);
    }

    pub(super) fn autoscaler(&self) -> Option<AutoscalerView> {
        *lock(&self.autoscaler)
    }

    /// Counts a rejected change. `source` is the kind of source: `file`, `kubernetes`, `xds`.
    pub fn rejected(&self, source: &str) {
        *lock(&self.rejected).entry(source.to_owned()).or_default() += 1;
    }

    /// Counts a cold start that began at `at` and has its endpoint.
    pub fn cold_start(&self, namespace: &str, revision: &str, at: SystemTime, phases: Phases) {
        let key = (namespace.to_owned(), revision.to_owned());
        let last = Start { at, phases };
        let mut starts = lock(&self.starts);
        let entry = starts.entry(key).or_insert_with(|| Starts {
            count: 0,
            last,
            phases: std::array::from_fn(|_| Totals::new(&WAIT)),
        });
        entry.count += 1;
        entry.last = last;
        for (totals, (_, length)) in entry.phases.iter_mut().zip(phases.named()) {
            if let Some(length) = length {
                totals.observe(length);
            }
        }
    }

    /// More has become known of the last cold start, if that is the one that began then.
    pub fn cold_start_goes_on(
        &self,
        namespace: &str,
        revision: &str,
        at: SystemTime,
        phases: Phases,
    ) {
        let key = (namespace.to_owned(), revision.to_owned());
        let mut starts = lock(&self.starts);
        let Some(entry) = starts.get_mut(&key).filter(|entry| entry.last.at == at) else {
            return;
        };
        let before = std::mem::replace(&mut entry.last.phases, phases);
        let named = before.named().into_iter().zip(phases.named());
        for (totals, ((_, before), (_, now))) in entry.phases.iter_mut().zip(named) {
            if let (None, Some(length)) = (before, now) {
                totals.observe(length);
            }
        }
    }

    /// The last starts of all revisions.
    #[must_use]
    pub fn last_starts(&self) -> &LastStarts {
        &self.last_starts
    }

    /// Cold starts so far, and the last one.
    #[must_use]
    pub fn starts(&self, namespace: &str, revision: &str) -> (u64, Option<Start>) {
        let key = (namespace.to_owned(), revision.to_owned());
        match lock(&self.starts).get(&key) {
            Some(starts) => (starts.count, Some(starts.last)),
            None => (0, None),
        }
    }

    /// The busy share of a worker's last period. Any thread may say so.
    pub fn busy(&self, worker: usize, busy: Duration, total: Duration) {
        if let Some(cells) = self.workers.get(worker)
            && !total.is_zero()
        {
            let ratio = busy.as_secs_f64() / total.as_secs_f64();
            cells.busy.store(ratio.min(1.0).to_bits(), Relaxed);
        }
    }

    /// Called after a configuration swap with what is no longer configured. Series that are `gone`
    /// are forgotten once no worker holds them and scrapers have had five minutes to see their last
    /// values; one whose route and revision come back before goes on counting. Cold starts of a
    /// revision that is gone (asked with an empty route) are forgotten at once.
    ///
    /// An empty part of the names means that none matched, which is no reason to be gone.
    pub fn retire(&self, mut gone: impl FnMut(Names<'_>) -> bool) {
        let now = self.born.elapsed();
        for cells in &self.workers {
            for series in cells.series() {
                if series.retired.load(Relaxed) == 0 && gone(series.names()) {
                    series.retired.store(now.as_secs() + 1, Relaxed);
                }
            }
        }
        lock(&self.starts).retain(|(namespace, revision), _| {
            !gone(Names {
                namespace,
                route: "",
                revision,
            })
        });
        self.sweep(now);
    }

    fn sweep(&self, now: Duration) {
        for cells in &self.workers {
            lock(&cells.table).sweep(now);
        }
    }

    /// Access log records lost after they left their ring.
    pub(super) fn add_unwritten(&self, records: u64) {
        self.unwritten.fetch_add(records, Relaxed);
    }

    pub(super) fn access_log_dropped(&self, worker: usize) {
        self.workers[worker].dropped.add(1);
    }
}

impl Cells {
    fn new(listeners: usize) -> Cells {
        let per_listener = || (0..listeners).map(|_| Counter::default()).collect();
        Cells {
            taken: AtomicBool::new(false),
            table: Mutex::default(),
            refused: std::array::from_fn(|_| Counter::default()),
            queue_full: Default::default(),
            connections: per_listener(),
            handshakes_failed: per_listener(),
            http2_closed: Default::default(),
            connections_refused: (0..listeners).map(|_| <[Counter; _]>::default()).collect(),
            accept_errors: per_listener(),
            busy: AtomicU64::new(0),
            dropped: Counter::default(),
        }
    }

    /// Handles only, so that the worker is not kept from its table for long.
    pub(super) fn series(&self) -> Vec<Arc<Series>> {
        lock(&self.table).series.values().cloned().collect()
    }

    /// As [`Cells::series`], by namespace and revision.
    pub(super) fn revisions(&self) -> Vec<((String, String), Arc<RevisionCells>)> {
        let table = lock(&self.table);
        let pairs = table.revisions.iter();
        pairs
            .map(|(key, cells)| (key.clone(), Arc::clone(cells)))
            .collect()
    }
}

impl Table {
    /// Forgets what was retired long ago and is in nobody's hands.
    fn sweep(&mut self, now: Duration) {
        let limit = now.saturating_sub(RETIRED).as_secs();
        self.series.retain(|_, series| {
            let retired = series.retired.load(Relaxed);
            retired == 0 || retired > limit || Arc::strong_count(series) > 1
        });
        self.revisions
            .retain(|_, cells| Arc::strong_count(cells) > 1);
    }
}

impl WorkerMetrics {
    /// The series of these names, made at first use. Takes a lock and may allocate: callers keep
    /// what they get for as long as the route and revision are configured. It must not be given
    /// to another worker.
    #[must_use]
    pub fn series(&self, names: Names<'_>) -> Arc<Series> {
        self.labelled_series(names, None)
    }

    /// The same; with `labels` where the revision is one of Knative.
    #[must_use]
    pub fn labelled_series(&self, names: Names<'_>, labels: Option<Labels<'_>>) -> Arc<Series> {
        let mut table = lock(&self.cells.table);
        if let Some(series) = table.series.get(&names) {
            series.retired.store(0, Relaxed);
            return Arc::clone(series);
        }
        let key = (names.namespace.to_owned(), names.revision.to_owned());
        let revision = table
            .revisions
            .entry(key)
            .or_insert_with(|| Arc::new(RevisionCells::new(labels)));
        if revision.labels() != labels {
            // Another revision of that name: what was counted so far stays with its series.
            *revision = Arc::new(RevisionCells::new(labels));
        }
        let series = Arc::new(Series {
            names: names.into(),
            revision: Arc::clone(revision),
            outcomes: OnceLock::new(),
            retired: AtomicU64::new(0),
        });
        table.series.insert(names.into(), Arc::clone(&series));
        series
    }

    /// Counts one finished exchange. Allocates only for the first of its code and reason.
    pub fn record(&self, series: &Series, facts: &Facts<'_>) {
        let knative = series.revision.knative.is_some();
        let method = knative.then(|| Method::of(facts.method));
        let outcome = series.outcome(facts.code, facts.reason, method);
        outcome.latency.observe(facts.total);
        let revision = &*series.revision;
        revision.overhead.observe(facts.overhead());
        if facts.held {
            revision.queue_wait.observe(facts.waited);
        }
        revision.request_bytes.add(facts.request_bytes);
        revision.response_bytes.add(facts.response_bytes);
        if let Some(reason) = facts.reason {
            self.refused(reason);
        }
    }

    /// Counts a refusal that no exchange stands behind; [`record`](Self::record) counts the
    /// others. Words that only the log knows are not answers and are not counted.
    pub fn refused(&self, reason: Reason) {
        if is_answer(reason) {
            self.cells.refused[reason.index()].add(1);
        }
    }

    /// A request might not wait, or had to give way.
    pub fn queue_full(&self, bound: Bound) {
        self.cells.queue_full[bound as usize].add(1);
    }

    /// `listener` is an index into the registry's listeners; others are not counted.
    pub fn connection_opened(&self, listener: usize) {
        if let Some(open) = self.cells.connections.get(listener) {
            open.add(1);
        }
    }

    /// The counterpart of [`connection_opened`](Self::connection_opened), on the same worker.
    pub fn connection_closed(&self, listener: usize) {
        if let Some(open) = self.cells.connections.get(listener) {
            open.add(u64::MAX);
        }
    }

    /// A TLS handshake with a client failed; `listener` as for
    /// [`connection_opened`](Self::connection_opened).
    pub fn handshake_failed(&self, listener: usize) {
        if let Some(failed) = self.cells.handshakes_failed.get(listener) {
            failed.add(1);
        }
    }

    /// A client's HTTP/2 connection is ended for what was sent on it.
    pub fn http2_closed(&self, why: Abuse) {
        self.cells.http2_closed[why as usize].add(1);
    }

    /// A connection was closed as soon as it was accepted; `listener` as for
    /// [`connection_opened`](Self::connection_opened).
    pub fn connection_refused(&self, listener: usize, why: TurnedAway) {
        if let Some(refused) = self.cells.connections_refused.get(listener) {
            refused[why as usize].add(1);
        }
    }

    /// Accepting failed, other than by the peer's fault; `listener` as for
    /// [`connection_opened`](Self::connection_opened).
    pub fn accept_failed(&self, listener: usize) {
        if let Some(failed) = self.cells.accept_errors.get(listener) {
            failed.add(1);
        }
    }

    /// What metrics call a listener.
    #[must_use]
    pub fn listener(&self, index: usize) -> &str {
        self.registry
            .listeners
            .get(index)
            .map_or("", String::as_str)
    }

    /// The busy share of the last period.
    pub fn busy(&self, busy: Duration, total: Duration) {
        self.registry.busy(self.index, busy, total);
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves counters as good as they were.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
