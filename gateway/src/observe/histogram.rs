//! Counters and histograms with one writer: a plain load and store instead of a locked instruction.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use prometheus::proto;

use super::facts::nanos;

const MICRO: u64 = 1_000;
const MILLI: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;

/// Upper bounds in nanoseconds. One histogram serves all families of request durations: these are
/// the bounds of Knative's, old and new, and three finer ones.
pub(crate) const LATENCY: [u64; 35] = scaled(
    [
        500,
        1_000,
        2_000,
        5_000,
        10_000,
        20_000,
        25_000,
        40_000,
        50_000,
        60_000,
        75_000,
        80_000,
        100_000,
        150_000,
        200_000,
        250_000,
        300_000,
        350_000,
        400_000,
        450_000,
        500_000,
        600_000,
        700_000,
        750_000,
        800_000,
        900_000,
        1_000_000,
        2_000_000,
        2_500_000,
        5_000_000,
        7_500_000,
        10_000_000,
        20_000_000,
        50_000_000,
        100_000_000,
    ],
    MICRO,
);

/// What `tidegate_request_duration_seconds` shows of [`LATENCY`].
pub(crate) const DURATION: [u64; 17] = scaled(
    [
        500,
        1_000,
        2_000,
        5_000,
        10_000,
        20_000,
        40_000,
        100_000,
        250_000,
        500_000,
        1_000_000,
        2_000_000,
        5_000_000,
        10_000_000,
        20_000_000,
        50_000_000,
        100_000_000,
    ],
    MICRO,
);

/// What `activator_request_latencies` shows of [`LATENCY`].
pub(crate) const KNATIVE: [u64; 26] = scaled(
    [
        5, 10, 20, 40, 60, 80, 100, 150, 200, 250, 300, 350, 400, 450, 500, 600, 700, 800, 900,
        1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000,
    ],
    MILLI,
);

/// What `http_server_request_duration_seconds` shows of [`LATENCY`].
pub(crate) const OTEL: [u64; 14] = scaled(
    [
        5, 10, 25, 50, 75, 100, 250, 500, 750, 1_000, 2_500, 5_000, 7_500, 10_000,
    ],
    MILLI,
);

/// Our own share of an exchange.
pub(crate) const OVERHEAD: [u64; 15] = scaled(
    [
        10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000,
        1_000_000,
    ],
    MICRO,
);

/// Time in the queue, and the phases of a cold start.
pub(crate) const WAIT: [u64; 17] = scaled(
    [
        1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 120_000,
        300_000,
    ],
    MILLI,
);

const fn scaled<const N: usize>(mut bounds: [u64; N], unit: u64) -> [u64; N] {
    let mut i = 0;
    while i < N {
        bounds[i] *= unit;
        i += 1;
    }
    bounds
}

/// A counter that exactly one thread adds to and any thread reads.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Two writers at once would lose additions, nothing worse.
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Durations counted by upper bound, with one writer.
#[derive(Debug)]
pub(crate) struct Histogram<const N: usize> {
    bounds: &'static [u64; N],
    buckets: [Counter; N],
    beyond: Counter,
    sum: Counter,
}

impl<const N: usize> Histogram<N> {
    pub(crate) fn new(bounds: &'static [u64; N]) -> Histogram<N> {
        Histogram {
            bounds,
            buckets: std::array::from_fn(|_| Counter::default()),
            beyond: Counter::default(),
            sum: Counter::default(),
        }
    }

    /// Counts a duration under the first bound that is not below it.
    pub(crate) fn observe(&self, duration: Duration) {
        let nanos = nanos(duration);
        let place = self.bounds.partition_point(|bound| *bound < nanos);
        self.buckets.get(place).unwrap_or(&self.beyond).add(1);
        self.sum.add(nanos);
    }
}

/// The sum of histograms over the same bounds, at scrape. The count is the sum of the buckets, so
/// that a scrape in the middle of an observation is still consistent.
#[derive(Clone, Debug)]
pub(crate) struct Totals {
    bounds: &'static [u64],
    /// One more than `bounds`: the last is what lies beyond.
    buckets: Vec<u64>,
    sum: u64,
}

/// What a family counts durations in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Unit {
    Seconds,
    Milliseconds,
}

impl Unit {
    fn of(self, nanos: u64) -> f64 {
        let unit = match self {
            Unit::Seconds => SECOND,
            Unit::Milliseconds => MILLI,
        };
        nanos as f64 / unit as f64
    }
}

impl Totals {
    pub(crate) fn new(bounds: &'static [u64]) -> Totals {
        Totals {
            bounds,
            buckets: vec![0; bounds.len() + 1],
            sum: 0,
        }
    }

    pub(crate) fn add<const N: usize>(&mut self, histogram: &Histogram<N>) {
        let cells = histogram.buckets.iter().chain([&histogram.beyond]);
        for (total, cell) in self.buckets.iter_mut().zip(cells) {
            *total += cell.get();
        }
        self.sum = self.sum.wrapping_add(histogram.sum.get());
    }

    /// Counts one duration directly, for what is not counted by workers.
    pub(crate) fn observe(&mut self, duration: Duration) {
        let nanos = nanos(duration);
        let place = self.bounds.partition_point(|bound| *bound < nanos);
        self.buckets[place] += 1;
        self.sum = self.sum.wrapping_add(nanos);
    }

    pub(crate) fn merge(&mut self, other: &Totals) {
        for (total, more) in self.buckets.iter_mut().zip(&other.buckets) {
            *total += more;
        }
        self.sum = self.sum.wrapping_add(other.sum);
    }

    pub(crate) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The message for the encoder, with the `shown` ones of the bounds.
    pub(crate) fn message(&self, shown: &[u64], unit: Unit) -> proto::Histogram {
        let mut cumulative = 0;
        let mut buckets = Vec::with_capacity(shown.len());
        for (bound, count) in self.bounds.iter().zip(&self.buckets) {
            cumulative += count;
            if shown.contains(bound) {
                let mut bucket = proto::Bucket::default();
                bucket.set_upper_bound(unit.of(*bound));
                bucket.set_cumulative_count(cumulative);
                buckets.push(bucket);
            }
        }
        let mut message = proto::Histogram::default();
        message.set_bucket(buckets);
        message.set_sample_count(self.count());
        message.set_sample_sum(unit.of(self.sum));
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_bounds_are_bounds() {
        assert!(LATENCY.is_sorted() && OVERHEAD.is_sorted() && WAIT.is_sorted());
        for bound in DURATION.iter().chain(&KNATIVE).chain(&OTEL) {
            assert!(LATENCY.contains(bound), "{bound} ns is not counted");
        }
    }

    #[test]
    fn a_bound_includes_its_own_value() {
        let histogram = Histogram::new(&WAIT);
        histogram.observe(Duration::from_millis(1));
        histogram.observe(Duration::from_nanos(1_000_001));
        histogram.observe(Duration::from_secs(301));
        let mut totals = Totals::new(&WAIT);
        totals.add(&histogram);
        let message = totals.message(&WAIT, Unit::Seconds);
        let cumulative = |i: usize| message.get_bucket()[i].cumulative_count();
        assert_eq!(cumulative(0), 1, "le 0.001");
        assert_eq!(cumulative(1), 2, "le 0.002");
        assert_eq!(cumulative(16), 2, "le 300");
        assert_eq!(message.get_sample_count(), 3);
        assert!((message.get_sample_sum() - 301.002_000_001).abs() < 1e-9);
    }

    #[test]
    fn hidden_bounds_are_summed_into_the_next_shown_one() {
        let histogram = Histogram::new(&LATENCY);
        for ms in [1, 2, 3, 60, 61] {
            histogram.observe(Duration::from_millis(ms));
        }
        let mut totals = Totals::new(&LATENCY);
        totals.add(&histogram);
        let message = totals.message(&KNATIVE, Unit::Milliseconds);
        let pairs: Vec<_> = message
            .get_bucket()
            .iter()
            .map(|b| (b.upper_bound(), b.cumulative_count()))
            .collect();
        assert_eq!(pairs.len(), 26);
        assert_eq!(pairs[0], (5.0, 3));
        assert_eq!(pairs[4], (60.0, 4));
        assert_eq!(pairs[5], (80.0, 5));
        assert_eq!(pairs[25], (100_000.0, 5));
    }
}
