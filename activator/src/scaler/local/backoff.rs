//! When a process that keeps failing may be tried again.

use std::time::{Duration, Instant};

/// The first pause; each further failure doubles it.
const PAUSE_FIRST: Duration = Duration::from_millis(250);
const PAUSE_MOST: Duration = Duration::from_secs(30);

/// Processes started together and failing together count once: a failure during a pause is part
/// of the round that caused it.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    rounds: u32,
    last_failed: Option<Instant>,
    not_before: Option<Instant>,
}

impl Backoff {
    /// A process failed; returns the number of rounds that did, one after the other.
    pub(super) fn failed(&mut self, now: Instant) -> u32 {
        self.last_failed = Some(now);
        if self.allows(now) {
            let pause = PAUSE_FIRST
                .saturating_mul(1_u32.checked_shl(self.rounds).unwrap_or(u32::MAX))
                .min(PAUSE_MOST);
            self.rounds = self.rounds.saturating_add(1);
            self.not_before = Some(now + pause);
        }
        self.rounds
    }

    pub(super) fn allows(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|at| at <= now)
    }

    /// Whether a process that became ready at this instant did so after the last failure. One that
    /// was there before proves nothing about those that failed.
    pub(super) fn is_before(&self, ready_since: Instant) -> bool {
        self.last_failed.is_some_and(|at| at <= ready_since)
    }

    /// Whether the last round failed: then one process tries before many do.
    pub(super) fn is_failing(&self) -> bool {
        self.rounds > 0
    }

    /// The end of the present pause.
    pub(super) fn not_before(&self) -> Option<Instant> {
        self.not_before
    }

    pub(super) fn reset(&mut self) {
        *self = Backoff::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_their_bound_and_start_over_after_a_reset() {
        let mut backoff = Backoff::default();
        let mut now = Instant::now();
        let mut pauses = vec![];
        for round in 1..=40 {
            assert!(backoff.allows(now));
            assert_eq!(backoff.failed(now), round);
            let until = backoff.not_before().unwrap();
            pauses.push((until - now).as_millis());
            assert!(!backoff.allows(now));
            now = until;
        }
        assert_eq!(
            pauses[..8],
            [250, 500, 1000, 2000, 4000, 8000, 16000, 30000]
        );
        assert!(pauses[8..].iter().all(|&pause| pause == 30000));
        backoff.reset();
        assert!(backoff.allows(now) && !backoff.is_failing());
        assert_eq!(backoff.failed(now), 1);
    }

    #[test]
    fn failures_of_one_round_count_once() {
        let mut backoff = Backoff::default();
        let now = Instant::now();
        for _ in 0..10 {
            assert_eq!(backoff.failed(now), 1);
        }
        assert_eq!(backoff.not_before(), Some(now + PAUSE_FIRST));
    }
}
