//! A scrape: the cells of all workers merged, and what the live tables say, as Prometheus text.

mod knative;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use activator::admission::Bound;
use prometheus::{TextEncoder, proto};

use crate::http::h2::budget::Abuse;
use crate::refusal::{Reason, TurnedAway};

use super::facts::{Names, Phases, is_answer};
use super::families::{self, FAMILIES, Family};
use super::histogram::{DURATION, LATENCY, OVERHEAD, Totals, Unit, WAIT};
use super::metrics::{Cells, Registry, Series, lock};
use super::panics::{self, Thread};
use super::world::{EndpointState, RevisionView};

/// Content type of what [`Registry::scrape`] renders.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

impl Registry {
    /// All metrics as Prometheus text. `revisions` are the live ones; their gauges are shown and
    /// no others. Takes time in proportion to the number of series: for a blocking thread.
    #[must_use]
    pub fn scrape(&self, revisions: &[RevisionView]) -> String {
        let scrape = Scrape {
            registry: self,
            merged: Merged::of(self),
            revisions,
        };
        let mut text = String::new();
        for family in FAMILIES {
            append(&mut text, family, scrape.samples(family));
        }
        text
    }
}

/// One family at a time, so that the messages of only one are in memory.
fn append(text: &mut String, family: &Family, samples: Vec<proto::Metric>) {
    if samples.is_empty() {
        return; // The encoder refuses a family without samples.
    }
    let mut message = proto::MetricFamily::default();
    message.set_name(family.name.to_owned());
    message.set_help(family.help.to_owned());
    message.set_field_type(family.kind.message());
    message.set_metric(samples);
    if let Err(error) = TextEncoder::new().encode_utf8(&[message], text) {
        tracing::error!(family = family.name, %error, "a metric family cannot be encoded");
    }
}

type Place<'a> = (&'a str, &'a str);

/// The cells of all workers, summed.
struct Merged {
    outcomes: BTreeMap<Ending, Totals>,
    revisions: BTreeMap<(String, String), RevisionTotals>,
    knative: knative::Merged,
}

/// Labels of `tidegate_requests_total`.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Ending {
    namespace: String,
    revision: String,
    route: String,
    code: u16,
    reason: &'static str,
}

struct RevisionTotals {
    overhead: Totals,
    queue_wait: Totals,
    request_bytes: u64,
    response_bytes: u64,
}

impl Merged {
    fn of(registry: &Registry) -> Merged {
        let mut merged = Merged {
            outcomes: BTreeMap::new(),
            revisions: BTreeMap::new(),
            knative: knative::Merged::default(),
        };
        for cells in &registry.workers {
            for series in cells.series() {
                merged.add_series(&series);
                merged.knative.add_series(&series);
            }
            for (place, cells) in cells.revisions() {
                let totals = merged.revisions.entry(place);
                let totals = totals.or_insert_with(|| RevisionTotals {
                    overhead: Totals::new(&OVERHEAD),
                    queue_wait: Totals::new(&WAIT),
                    request_bytes: 0,
                    response_bytes: 0,
                });
                totals.overhead.add(&cells.overhead);
                totals.queue_wait.add(&cells.queue_wait);
                totals.request_bytes += cells.request_bytes.get();
                totals.response_bytes += cells.response_bytes.get();
            }
        }
        merged
    }

    fn add_series(&mut self, series: &Series) {
        let Names {
            namespace,
            route,
            revision,
        } = series.names();
        for outcome in series.outcomes() {
            let ending = Ending {
                namespace: namespace.to_owned(),
                revision: revision.to_owned(),
                route: route.to_owned(),
                code: outcome.code,
                reason: outcome.reason.map_or("", Reason::word),
            };
            self.outcomes
                .entry(ending)
                .or_insert_with(|| Totals::new(&LATENCY))
                .add(&outcome.latency);
        }
    }
}

fn panics(family: &Family) -> Vec<proto::Metric> {
    let counted = |thread: Thread| number(family, &[thread.word()], panics::count(thread) as f64);
    Thread::ALL.map(counted).into()
}

struct Scrape<'a> {
    registry: &'a Registry,
    merged: Merged,
    revisions: &'a [RevisionView],
}

impl Scrape<'_> {
    fn samples(&self, family: &Family) -> Vec<proto::Metric> {
        match *family {
            families::REQUESTS => self.requests(),
            families::REQUEST_DURATION => self.durations(),
            families::ACTIVATOR_COUNT | families::ACTIVATOR_LATENCIES => self.activator(family),
            families::ACTIVATOR_CONCURRENCY => self.activator_concurrency(),
            families::KN_CONCURRENCY | families::KN_QUEUED | families::KN_ACTIVE => {
                self.knative_gauges(family)
            }
            families::KN_DURATION => self.knative_durations(),
            families::KN_REACHABLE | families::KN_ERRORS => self.autoscaler(family),
            families::COLD_STARTS => self.cold_starts(),
            families::COLD_START => self.cold_start_phases(),
            families::ENDPOINTS => self.endpoints(),
            _ if family.labels == families::OVERHEAD.labels => self.per_revision(family),
            _ => self.per_process(family),
        }
    }

    fn requests(&self) -> Vec<proto::Metric> {
        let sample = |(ending, totals): (&Ending, &Totals)| {
            let code = three_digits(ending.code);
            let labels = [
                &ending.namespace,
                &ending.revision,
                &ending.route,
                &code,
                ending.reason,
            ];
            number(&families::REQUESTS, &labels, totals.count() as f64)
        };
        self.merged.outcomes.iter().map(sample).collect()
    }

    fn durations(&self) -> Vec<proto::Metric> {
        let mut sums: BTreeMap<Place<'_>, Totals> = BTreeMap::new();
        for (ending, totals) in &self.merged.outcomes {
            sums.entry((&ending.namespace, &ending.revision))
                .or_insert_with(|| Totals::new(&LATENCY))
                .merge(totals);
        }
        let family = &families::REQUEST_DURATION;
        let sample = |((namespace, revision), totals): (Place<'_>, Totals)| {
            let message = totals.message(&DURATION, Unit::Seconds);
            histogram(family, &[namespace, revision], message)
        };
        sums.into_iter().map(sample).collect()
    }

    /// What workers count, or the live tables know, by revision.
    fn per_revision(&self, family: &Family) -> Vec<proto::Metric> {
        let counted = |value: fn(&RevisionTotals) -> u64| {
            let totals = self.merged.revisions.iter();
            totals
                .map(|((n, r), totals)| number(family, &[n, r], value(totals) as f64))
                .collect()
        };
        let timed = |which: fn(&RevisionTotals) -> &Totals, bounds: &[u64]| {
            let message = |totals| which(totals).message(bounds, Unit::Seconds);
            let totals = self.merged.revisions.iter();
            totals
                .map(|((n, r), totals)| histogram(family, &[n, r], message(totals)))
                .collect()
        };
        let live = |value: fn(&RevisionView) -> f64| {
            let views = self.revisions.iter();
            views
                .map(|view| number(family, &[&view.namespace, &view.name], value(view)))
                .collect()
        };
        match *family {
            families::OVERHEAD => timed(|t| &t.overhead, &OVERHEAD),
            families::QUEUE_WAIT => timed(|t| &t.queue_wait, &WAIT),
            families::REQUEST_BYTES => counted(|t| t.request_bytes),
            families::RESPONSE_BYTES => counted(|t| t.response_bytes),
            families::INFLIGHT => live(|v| v.in_flight as f64),
            families::IDLE_STREAMS => live(|v| v.idle as f64),
            families::WAITING => live(|v| v.waiting as f64),
            families::CONCURRENCY_AVERAGE => live(|v| v.average.one),
            families::WAITING_AVERAGE => live(|v| v.average_waiting.one),
            families::CONCURRENCY_SECONDS => live(|v| v.concurrency_seconds),
            _ => Vec::new(),
        }
    }

    fn cold_starts(&self) -> Vec<proto::Metric> {
        let sample = |view: &RevisionView| {
            let labels = [view.namespace.as_str(), &view.name];
            number(&families::COLD_STARTS, &labels, view.cold_starts as f64)
        };
        self.revisions.iter().map(sample).collect()
    }

    fn cold_start_phases(&self) -> Vec<proto::Metric> {
        let starts = lock(&self.registry.starts);
        let words = Phases::default().named().map(|(word, _)| word);
        let mut samples = Vec::with_capacity(starts.len() * words.len());
        for ((namespace, revision), starts) in &*starts {
            for (word, totals) in words.iter().zip(&starts.phases) {
                let message = totals.message(&WAIT, Unit::Seconds);
                let labels = [namespace.as_str(), revision, word];
                samples.push(histogram(&families::COLD_START, &labels, message));
            }
        }
        samples
    }

    fn endpoints(&self) -> Vec<proto::Metric> {
        let mut samples = Vec::with_capacity(self.revisions.len() * EndpointState::ALL.len());
        for view in self.revisions {
            for state in EndpointState::ALL {
                let endpoints = view.endpoints.iter();
                let count = endpoints.filter(|e| e.state == state).count();
                let labels = [view.namespace.as_str(), &view.name, state.word()];
                samples.push(number(&families::ENDPOINTS, &labels, count as f64));
            }
        }
        samples
    }

    fn per_process(&self, family: &Family) -> Vec<proto::Metric> {
        let registry = self.registry;
        let workers = &registry.workers;
        match *family {
            families::REFUSED => Reason::ALL
                .iter()
                .filter(|reason| is_answer(**reason))
                .map(|reason| {
                    let count = workers.iter().map(|w| w.refused[reason.index()].get());
                    number(family, &[reason.word()], count.sum::<u64>() as f64)
                })
                .collect(),
            families::QUEUE_FULL => {
                let count = |w: &Cells, bound| w.queue_full[bound as usize].get();
                self.per_word(family, &Bound::ALL, Bound::key, count)
            }
            families::CONNECTIONS => {
                self.per_listener(family, |cells, i| cells.connections[i].get())
            }
            families::HANDSHAKES_FAILED => {
                self.per_listener(family, |cells, i| cells.handshakes_failed[i].get())
            }
            families::HTTP2_CLOSED => {
                let count = |w: &Cells, why| w.http2_closed[why as usize].get();
                self.per_word(family, &Abuse::ALL, Abuse::word, count)
            }
            families::ACCEPT_ERRORS => {
                self.per_listener(family, |cells, i| cells.accept_errors[i].get())
            }
            families::CONNECTIONS_REFUSED => self.connections_refused(),
            families::PANICS => panics(family),
            families::CONFIG_VERSION => {
                vec![number(family, &[], registry.version.load(Relaxed) as f64)]
            }
            families::WARMING_TARGETS => {
                vec![number(family, &[], registry.warming.load(Relaxed) as f64)]
            }
            families::CONFIG_REJECTED => lock(&registry.rejected)
                .iter()
                .map(|(source, count)| number(family, &[source], *count as f64))
                .collect(),
            families::WORKER_BUSY => (0..)
                .zip(workers)
                .map(|(i, worker): (usize, _)| {
                    let ratio = f64::from_bits(worker.busy.load(Relaxed));
                    number(family, &[&i.to_string()], ratio)
                })
                .collect(),
            families::MEMORY_BYTES => vec![number(family, &[], registry.memory().used as f64)],
            families::MEMORY_LIMIT => vec![number(family, &[], registry.memory().limit as f64)],
            families::MEMORY_LEVEL => {
                let level = registry.memory().level as u8;
                vec![number(family, &[], f64::from(level))]
            }
            families::ACCESS_LOG_DROPPED => {
                let dropped: u64 = workers.iter().map(|w| w.dropped.get()).sum();
                let lost = dropped + registry.unwritten.load(Relaxed);
                vec![number(family, &[], lost as f64)]
            }
            _ => Vec::new(),
        }
    }

    fn per_listener(
        &self,
        family: &Family,
        value: impl Fn(&Cells, usize) -> u64,
    ) -> Vec<proto::Metric> {
        let registry = self.registry;
        let sum = |i| {
            let values = registry.workers.iter().map(|cells| value(cells, i));
            values.fold(0, u64::wrapping_add)
        };
        let listeners = registry.listeners.iter().enumerate();
        listeners
            .map(|(i, name)| number(family, &[name], sum(i) as f64))
            .collect()
    }

    /// One number for each of these.
    fn per_word<T: Copy>(
        &self,
        family: &Family,
        all: &[T],
        word: impl Fn(T) -> &'static str,
        count: impl Fn(&Cells, T) -> u64,
    ) -> Vec<proto::Metric> {
        let of = |one: &T| {
            let workers = self.registry.workers.iter();
            let count: u64 = workers.map(|cells| count(cells, *one)).sum();
            number(family, &[word(*one)], count as f64)
        };
        all.iter().map(of).collect()
    }

    fn connections_refused(&self) -> Vec<proto::Metric> {
        let registry = self.registry;
        let mut samples = Vec::with_capacity(registry.listeners.len() * TurnedAway::ALL.len());
        for (i, name) in registry.listeners.iter().enumerate() {
            for why in TurnedAway::ALL {
                let cells = registry.workers.iter();
                let counts = cells.map(|cells| cells.connections_refused[i][why as usize].get());
                let labels = [name.as_str(), why.word()];
                let count = counts.sum::<u64>() as f64;
                samples.push(number(&families::CONNECTIONS_REFUSED, &labels, count));
            }
        }
        samples
    }
}

fn three_digits(code: u16) -> String {
    format!("{code:03}")
}

fn labelled(family: &Family, values: &[&str]) -> proto::Metric {
    debug_assert_eq!(family.labels.len(), values.len(), "{}", family.name);
    let pair = |(name, value): (&&str, &&str)| {
        let mut pair = proto::LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    proto::Metric::from_label(family.labels.iter().zip(values).map(pair).collect())
}

/// A sample of a counter or gauge.
fn number(family: &Family, labels: &[&str], value: f64) -> proto::Metric {
    let mut metric = labelled(family, labels);
    let mut counter = proto::Counter::default();
    counter.set_value(value);
    metric.set_counter(counter);
    let mut gauge = proto::Gauge::default();
    gauge.set_value(value);
    metric.set_gauge(gauge);
    metric
}

fn histogram(family: &Family, labels: &[&str], message: proto::Histogram) -> proto::Metric {
    let mut metric = labelled(family, labels);
    metric.set_histogram(message);
    metric
}
