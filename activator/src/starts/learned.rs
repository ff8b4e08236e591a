//! How long requests wait for a revision whose starts have been seen.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// So many of a revision's last starts count.
pub const LEARNED_FROM: usize = 64;
/// Nobody waits less than this because starts are quick.
pub const WAIT_LEAST: Duration = Duration::from_secs(10);
/// So many times as long as all but the slowest twentieth of starts took.
pub const WAIT_FACTOR: f64 = 3.5;

/// The lengths of a revision's last starts, and what follows.
#[derive(Debug, Default)]
pub(super) struct Learned {
    lengths: Mutex<VecDeque<Duration>>,
    /// So long all but the slowest twentieth took, in nanoseconds; 0 = nothing is known.
    usual: AtomicU64,
}

impl Learned {
    /// A start took so long, from the request to the endpoint.
    pub(super) fn learn(&self, length: Duration) {
        let lengths = self.lengths.lock();
        let mut lengths = lengths.unwrap_or_else(PoisonError::into_inner);
        if lengths.len() == LEARNED_FROM {
            lengths.pop_front();
        }
        lengths.push_back(length);
        let usual = usual(lengths.make_contiguous());
        let nanoseconds = u64::try_from(usual.as_nanos()).unwrap_or(u64::MAX);
        self.usual.store(nanoseconds.max(1), Ordering::Relaxed);
    }

    /// How long a start takes at most, as a rule.
    pub(super) fn usual(&self) -> Option<Duration> {
        match self.usual.load(Ordering::Relaxed) {
            0 => None,
            nanoseconds => Some(Duration::from_nanos(nanoseconds)),
        }
    }

    /// [`WAIT_FACTOR`] times as long, at least [`WAIT_LEAST`].
    pub(super) fn wait(&self) -> Option<Duration> {
        let wait = self.usual()?.mul_f64(WAIT_FACTOR);
        Some(wait.max(WAIT_LEAST))
    }
}

/// The 95th percentile (the nearest rank) of the lengths of starts.
fn usual(lengths: &[Duration]) -> Duration {
    let mut sorted = lengths.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * 95).div_ceil(100);
    let usual = sorted.get(rank.saturating_sub(1)).copied();
    usual.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learned(millis: impl IntoIterator<Item = u64>) -> Option<Duration> {
        let learned = Learned::default();
        for length in millis {
            learned.learn(Duration::from_millis(length));
        }
        learned.wait()
    }

    #[test]
    fn nothing_is_known_before_the_first_start() {
        assert_eq!(learned([]), None);
        assert_eq!(learned([0]), Some(WAIT_LEAST));
    }

    #[test]
    fn the_wait_follows_the_slow_starts_but_not_the_slowest() {
        assert_eq!(learned([4_000]), Some(Duration::from_secs(14)));
        // One of twenty may be an accident.
        let one_slow = std::iter::repeat_n(4_000, 19).chain([60_000]);
        assert_eq!(learned(one_slow), Some(Duration::from_secs(14)));
        let two_slow = std::iter::repeat_n(4_000, 18).chain([60_000, 60_000]);
        assert_eq!(learned(two_slow), Some(Duration::from_secs(210)));
        assert_eq!(learned([200, 100, 300]), Some(WAIT_LEAST));
    }

    #[test]
    fn old_starts_are_forgotten() {
        let count = LEARNED_FROM;
        let slow_then_quick = [60_000]
            .into_iter()
            .chain(std::iter::repeat_n(4_000, count));
        assert_eq!(learned(slow_then_quick), Some(Duration::from_secs(14)));
        let learned = Learned::default();
        for _ in 0..10 * count {
            learned.learn(Duration::from_secs(1));
        }
        assert_eq!(learned.lengths.lock().unwrap().len(), count);
    }
}
