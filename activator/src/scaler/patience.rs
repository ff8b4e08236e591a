//! How long a probe is waited for: what TCP waits for an acknowledgement (RFC 6298).

use std::time::Duration;

/// The longest, unless more is asked for from the start.
pub const PATIENCE_MOST: Duration = Duration::from_secs(10);

/// More doublings reach [`PATIENCE_MOST`] from a millisecond.
const DOUBLINGS_MAX: u32 = 14;

/// What is known of the time that one target takes to answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoundTrips {
    smoothed: Option<Smoothed>,
    /// Probes, in a row, that nothing came of in time.
    late: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Smoothed {
    time: Duration,
    deviation: Duration,
}

impl RoundTrips {
    /// An answer took so long.
    pub fn measured(&mut self, time: Duration) {
        self.late = 0;
        self.smoothed = Some(match self.smoothed {
            None => Smoothed {
                time,
                deviation: time / 2,
            },
            Some(before) => Smoothed {
                time: average(before.time, 7, time),
                deviation: average(before.deviation, 3, before.time.abs_diff(time)),
            },
        });
    }

    /// None came in the time that it was waited for.
    pub fn timed_out(&mut self) {
        self.late = (self.late + 1).min(DOUBLINGS_MAX);
    }

    /// How long to wait for the next: at least `least`, and at most [`PATIENCE_MOST`] unless `least` is
    /// more.
    #[must_use]
    pub fn patience(&self, least: Duration) -> Duration {
        let expected = self.smoothed.map_or(Duration::ZERO, |known| {
            known.time.saturating_add(known.deviation.saturating_mul(4))
        });
        let doubled = expected.max(least).saturating_mul(1 << self.late);
        doubled.min(PATIENCE_MOST.max(least))
    }
}

/// Of what was known, which counts so often as the new one.
fn average(before: Duration, weight: u32, new: Duration) -> Duration {
    (before.saturating_mul(weight).saturating_add(new)) / (weight + 1)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const LEAST: Duration = Duration::from_millis(300);

    /// How many probes it takes until one of a target that needs so long is answered.
    fn tries(known: &mut RoundTrips, needed: Duration) -> u32 {
        let mut tries = 1;
        while known.patience(LEAST) < needed {
            known.timed_out();
            tries += 1;
        }
        known.measured(needed);
        tries
    }

    #[test]
    fn it_follows_what_is_measured_as_rfc_6298_says() {
        let ms = Duration::from_millis;
        let mut known = RoundTrips::default();
        assert_eq!(known.patience(LEAST), LEAST);
        known.measured(ms(400));
        assert_eq!(known.patience(LEAST), ms(400 + 4 * 200));
        known.measured(ms(800));
        // Three quarters of 200 and a quarter of 400; seven eighths of 400 and one of 800.
        assert_eq!(known.patience(LEAST), ms(450 + 4 * 250));
        known.timed_out();
        assert_eq!(known.patience(LEAST), ms(2 * 1_450));
    }

    proptest! {
        #[test]
        fn whoever_answers_within_ten_seconds_is_heard_after_a_few_probes(
            times in vec(0..10_000u64, 1..50)
        ) {
            let mut known = RoundTrips::default();
            for time in times {
                prop_assert!(tries(&mut known, Duration::from_millis(time)) <= 7);
            }
        }

        #[test]
        fn patience_keeps_its_bounds_and_settles_on_a_steady_target(
            least in 0..20_000u64,
            before in vec(proptest::option::of(0..100_000u64), 0..50),
            steady in 1..9_000u64,
        ) {
            let least = Duration::from_millis(least);
            let mut known = RoundTrips::default();
            for time in before {
                match time {
                    Some(time) => known.measured(Duration::from_millis(time)),
                    None => known.timed_out(),
                }
                let patience = known.patience(least);
                prop_assert!(patience >= least && patience <= PATIENCE_MOST.max(least));
            }
            let steady = Duration::from_millis(steady);
            for _ in 0..200 {
                known.measured(steady);
            }
            let patience = known.patience(Duration::ZERO);
            prop_assert!(patience >= steady && patience < steady * 9 / 8 + Duration::from_millis(1));
        }
    }
}
