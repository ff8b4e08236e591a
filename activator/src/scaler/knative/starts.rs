//! Revisions that come up from zero: how often, and how long each step took.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use config::revision::Key;

/// The cold starts of a revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ColdStarts {
    /// How often a request found no pod and one was found for it.
    pub count: u64,
    pub last: Option<LastStart>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastStart {
    /// When the request came.
    pub at: SystemTime,
    pub phases: Phases,
}

/// Where the time of a cold start went, one phase after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Phases {
    /// Request → the autoscaler was written to; `None`: it was not, or had been before.
    pub nudge: Option<Duration>,
    /// → the first address of a pod is known; nothing if one was.
    pub endpoint: Duration,
    /// → a pod has passed its probe.
    pub probe: Duration,
}

/// The starts of all revisions. Changed a few times per start, so the lock is not contended.
#[derive(Debug, Default)]
pub(super) struct Starts(Mutex<HashMap<Key, Track>>);

#[derive(Debug, Default)]
struct Track {
    /// Some pod can serve.
    up: bool,
    /// Some address is known.
    addressed: bool,
    under_way: Option<Start>,
    told: ColdStarts,
}

#[derive(Clone, Copy, Debug)]
struct Start {
    asked: Instant,
    written: Option<Instant>,
    addressed: Option<Instant>,
}

impl Starts {
    /// A request came at this time, and waits. A start begins with the first that finds no pod.
    pub(super) fn asked(&self, key: &Key, at: Instant) {
        self.change(key, |track| {
            if !track.up && track.under_way.is_none() {
                track.under_way = Some(Start {
                    asked: at,
                    written: None,
                    addressed: track.addressed.then_some(at),
                });
            }
        });
    }

    /// The autoscaler was told of the revision's first request.
    pub(super) fn written(&self, key: &Key, now: Instant) {
        self.change(key, |track| {
            if let Some(start) = &mut track.under_way {
                start.written.get_or_insert(now);
            }
        });
    }

    /// Whether addresses of the revision's pods are known.
    pub(super) fn addressed(&self, key: &Key, any: bool, now: Instant) {
        self.change(key, |track| {
            track.addressed = any;
            if let Some(start) = &mut track.under_way {
                start.addressed = any.then(|| start.addressed.unwrap_or(now));
            }
        });
    }

    /// Whether any pod can serve: if a start is under way it ends with the first that can.
    pub(super) fn up(&self, key: &Key, up: bool, now: Instant) {
        self.change(key, |track| {
            track.up = up;
            if up && let Some(start) = track.under_way.take() {
                track.told.count += 1;
                track.told.last = Some(start.ended(now));
            }
        });
    }

    /// Nobody waits any more.
    pub(super) fn called_off(&self, key: &Key) {
        self.change(key, |track| track.under_way = None);
    }

    pub(super) fn forget(&self, key: &Key) {
        self.lock().remove(key);
    }

    /// Nothing for a revision that is not known.
    pub(super) fn of(&self, key: &Key) -> ColdStarts {
        self.lock()
            .get(key)
            .map(|track| track.told)
            .unwrap_or_default()
    }

    fn change(&self, key: &Key, change: impl FnOnce(&mut Track)) {
        let mut tracks = self.lock();
        match tracks.get_mut(key) {
            Some(track) => change(track),
            None => change(tracks.entry(key.clone()).or_default()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Track>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Start {
    fn ended(self, now: Instant) -> LastStart {
        let written = self.written.unwrap_or(self.asked);
        let addressed = self.addressed.unwrap_or(now).max(written);
        let wall = SystemTime::now();
        let ago = now.saturating_duration_since(self.asked);
        LastStart {
            at: wall.checked_sub(ago).unwrap_or(wall),
            phases: Phases {
                nudge: self
                    .written
                    .map(|at| at.saturating_duration_since(self.asked)),
                endpoint: addressed.saturating_duration_since(written),
                probe: now.saturating_duration_since(addressed),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNTOLD: ColdStarts = ColdStarts {
        count: 0,
        last: None,
    };

    fn key() -> Key {
        Key {
            namespace: "default".into(),
            name: "a".into(),
        }
    }

    fn millis(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn the_phases_of_a_start_add_up_to_its_length() {
        let (starts, key, start) = (Starts::default(), key(), Instant::now());
        let at = |n| start + millis(n);
        starts.asked(&key, at(0));
        starts.asked(&key, at(1));
        starts.written(&key, at(2));
        starts.addressed(&key, true, at(50));
        starts.addressed(&key, true, at(60));
        starts.up(&key, false, at(60));
        assert_eq!(starts.of(&key), UNTOLD);
        starts.up(&key, true, at(80));
        starts.up(&key, true, at(90));
        let told = starts.of(&key);
        assert_eq!(told.count, 1);
        let phases = Phases {
            nudge: Some(millis(2)),
            endpoint: millis(48),
            probe: millis(30),
        };
        assert_eq!(told.last.unwrap().phases, phases);
        // While there is a pod nothing starts.
        starts.asked(&key, at(100));
        starts.up(&key, true, at(110));
        assert_eq!(starts.of(&key).count, 1);
        starts.addressed(&key, false, at(200));
        starts.up(&key, false, at(200));
        starts.asked(&key, at(300));
        starts.up(&key, true, at(310));
        assert_eq!(starts.of(&key).count, 2);
        starts.forget(&key);
        assert_eq!(starts.of(&key), UNTOLD);
    }

    #[test]
    fn steps_that_others_took_before_last_no_time() {
        let (starts, key, start) = (Starts::default(), key(), Instant::now());
        let at = |n| start + millis(n);
        starts.addressed(&key, true, at(0));
        starts.asked(&key, at(10));
        starts.up(&key, true, at(15));
        let phases = Phases {
            nudge: None,
            endpoint: Duration::ZERO,
            probe: millis(5),
        };
        assert_eq!(starts.of(&key).last.unwrap().phases, phases);
    }

    #[test]
    fn a_start_that_nobody_waits_for_is_none() {
        let (starts, key, start) = (Starts::default(), key(), Instant::now());
        starts.asked(&key, start);
        starts.called_off(&key);
        starts.up(&key, true, start + millis(10));
        assert_eq!(starts.of(&key), UNTOLD);
    }
}
