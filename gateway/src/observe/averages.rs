//! Averages of demand over the last second, 6 s and 60 s, from readings taken once a second.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use config::revision::Key;

/// Readings kept: 60 seconds lie between 61 of them.
const READINGS: usize = 61;

/// Average running and waiting requests of one revision, over its last 1 s, 6 s and 60 s (less
/// while the revision is younger).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Average {
    pub one: f64,
    pub six: f64,
    pub sixty: f64,
}

/// The sampler: fed by control once a second, read by scrapes.
#[derive(Debug, Default)]
pub struct Averages(Mutex<Rings>);

#[derive(Debug, Default)]
struct Rings {
    /// When the readings were taken, oldest first; shared by all revisions.
    times: VecDeque<Instant>,
    revisions: HashMap<Key, Ring>,
}

/// The readings of one revision, oldest first and aligned with the newest end of `times`. A
/// revision without demand keeps one: what it would have read all along.
#[derive(Debug)]
struct Ring {
    readings: VecDeque<f64>,
    seen: Instant,
    /// How many of `times` it has been there for.
    age: usize,
}

impl Averages {
    #[must_use]
    pub fn new() -> Averages {
        Averages::default()
    }

    /// Takes one reading of every revision: request-seconds, running and waiting, since its
    /// throttle exists, as of `now`. A revision that is missing is forgotten; one whose reading
    /// went back is taken for a new one of the same name.
    pub fn sample<'a>(&self, now: Instant, readings: impl IntoIterator<Item = (&'a Key, f64)>) {
        let mut rings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let rings = &mut *rings;
        if rings.times.len() == READINGS {
            rings.times.pop_front();
        }
        rings.times.push_back(now);
        for (key, reading) in readings {
            match rings.revisions.get_mut(key) {
                Some(ring) => ring.push(now, reading),
                None => {
                    rings.revisions.insert(key.clone(), Ring::new(now, reading));
                }
            }
        }
        rings.revisions.retain(|_, ring| ring.seen == now);
    }

    /// Zeros for a revision that has not been sampled twice.
    #[must_use]
    pub fn of(&self, key: &Key) -> Average {
        let rings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(ring) = rings.revisions.get(key) else {
            return Average::default();
        };
        Average {
            one: ring.average(&rings.times, 1),
            six: ring.average(&rings.times, 6),
            sixty: ring.average(&rings.times, 60),
        }
    }
}

impl Ring {
    fn new(now: Instant, reading: f64) -> Ring {
        Ring {
            readings: VecDeque::from([reading]),
            seen: now,
            age: 1,
        }
    }

    fn push(&mut self, now: Instant, reading: f64) {
        let last = *self.readings.back().unwrap_or(&reading);
        if reading < last {
            *self = Ring::new(now, reading);
            return;
        }
        self.seen = now;
        self.age = (self.age + 1).min(READINGS);
        if self.readings.len() == 1 {
            if reading > last {
                // Quiet until now: the readings it spared were all like the last one.
                self.readings.resize(self.age - 1, last);
                self.readings.push_back(reading);
            }
            return;
        }
        self.readings.push_back(reading);
        if self.readings.len() > READINGS {
            self.readings.pop_front();
        }
        if self.readings.front() == self.readings.back() && self.readings.len() == READINGS {
            self.readings = VecDeque::from([reading]);
        }
    }

    /// Over the last `steps` readings, or as many as there are.
    fn average(&self, times: &VecDeque<Instant>, steps: usize) -> f64 {
        let steps = steps.min(self.readings.len() - 1);
        let back = |from: usize| from - 1 - steps;
        let (Some(newest), Some(now)) = (self.readings.back(), times.back()) else {
            return 0.0;
        };
        let then = times[back(times.len())];
        let seconds = now.duration_since(then).as_secs_f64();
        if steps == 0 || seconds <= 0.0 {
            return 0.0;
        }
        (newest - self.readings[back(self.readings.len())]) / seconds
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn key(name: &str) -> Key {
        Key {
            namespace: "default".into(),
            name: name.into(),
        }
    }

    /// Feeds one revision readings a second apart.
    fn fed(readings: impl IntoIterator<Item = f64>) -> Averages {
        let averages = Averages::new();
        let start = Instant::now();
        for (second, reading) in (0..).zip(readings) {
            let now = start + Duration::from_secs(second);
            averages.sample(now, [(&key("a"), reading)]);
        }
        averages
    }

    #[test]
    fn windows_look_back_as_far_as_they_say() {
        // Two requests for 60 s, then eight for 5 s, then three for 1 s.
        let mut total = 0.0;
        let steps = [2.0; 60].into_iter().chain([8.0; 5]).chain([3.0]);
        let readings = steps.map(|running| {
            total += running;
            total
        });
        let average = fed(std::iter::once(0.0).chain(readings)).of(&key("a"));
        assert_eq!(average.one, 3.0);
        assert_eq!(average.six, 43.0 / 6.0);
        assert_eq!(average.sixty, (54.0 * 2.0 + 43.0) / 60.0);
    }

    #[test]
    fn a_young_revision_is_averaged_over_its_life() {
        let average = fed([0.0, 4.0, 8.0]).of(&key("a"));
        assert_eq!((average.one, average.sixty), (4.0, 4.0));
        assert_eq!(fed([5.0]).of(&key("a")), Average::default());
    }

    #[test]
    fn the_divisor_is_the_time_between_the_readings() {
        let averages = Averages::new();
        let start = Instant::now();
        averages.sample(start, [(&key("a"), 0.0)]);
        averages.sample(start + Duration::from_millis(2_500), [(&key("a"), 5.0)]);
        assert_eq!(averages.of(&key("a")).one, 2.0);
    }

    #[test]
    fn a_quiet_revision_keeps_one_reading_and_loses_nothing() {
        let averages = fed(std::iter::repeat_n(7.0, 30).chain([13.0]));
        let average = averages.of(&key("a"));
        assert_eq!(average.one, 6.0);
        assert_eq!(average.six, 1.0);
        assert_eq!(average.sixty, 6.0 / 30.0);

        let averages = fed([0.0, 6.0].into_iter().chain([6.0; 60]));
        assert_eq!(averages.of(&key("a")), Average::default());
        let rings = averages.0.lock().unwrap();
        assert_eq!(rings.revisions[&key("a")].readings.len(), 1);
    }

    #[test]
    fn a_removed_revision_is_forgotten_and_a_new_one_starts_afresh() {
        let averages = Averages::new();
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        averages.sample(at(0), [(&key("a"), 0.0), (&key("b"), 0.0)]);
        averages.sample(at(1), [(&key("a"), 9.0), (&key("b"), 1.0)]);
        averages.sample(at(2), [(&key("b"), 2.0)]);
        assert_eq!(averages.of(&key("a")), Average::default());
        assert_eq!(averages.of(&key("b")).one, 1.0);

        averages.sample(at(3), [(&key("b"), 0.5)]);
        averages.sample(at(4), [(&key("b"), 1.0)]);
        assert_eq!(
            averages.of(&key("b")).sixty,
            0.5,
            "a reading that went back"
        );
    }
}
