//! A revision of which Kubernetes says that it cannot start: when requests are told so at once, and
//! when one may try again.
//!
//! Requests that are refused ask for no pod, so Knative would never look again. Hence there are pauses,
//! after each of which the next request waits, and is told of to the autoscaler. If Kubernetes says
//! nothing else of the revision while that attempt lasts, it has come to nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

/// The first pause; each attempt that comes to nothing doubles it.
const PAUSE_FIRST: Duration = Duration::from_secs(5);
const PAUSE_MOST: Duration = Duration::from_secs(60);

/// How long an attempt lasts. What comes up later still serves those who come then.
const ATTEMPT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Failing {
    why: Arc<str>,
    pause: Duration,
    until: Instant,
    /// Since when the present attempt lasts.
    tried: Option<Instant>,
}

impl Failing {
    /// It is known from now on.
    pub(super) fn new(why: Arc<str>, now: Instant) -> Failing {
        Failing {
            why,
            pause: PAUSE_FIRST,
            until: now + PAUSE_FIRST,
            tried: None,
        }
    }

    pub(super) fn is_for(&self, why: &str) -> bool {
        *self.why == *why
    }

    pub(super) fn why(&self) -> Arc<str> {
        Arc::clone(&self.why)
    }

    /// The end of the present pause, or of the last.
    pub(super) fn until(&self) -> Instant {
        self.until
    }

    /// A request waits.
    pub(super) fn is_tried(&mut self, now: Instant) {
        if now >= self.until {
            self.tried.get_or_insert(now);
        }
    }

    /// Whether an attempt has come to nothing by now; then another pause begins.
    pub(super) fn is_over(&mut self, now: Instant) -> bool {
        let over = |tried: &Instant| now.saturating_duration_since(*tried) >= ATTEMPT;
        if self.tried.take_if(|tried| over(tried)).is_none() {
            return false;
        }
        self.pause = (self.pause * 2).min(PAUSE_MOST);
        self.until = now + self.pause;
        true
    }

    /// Nobody waits any more.
    pub(super) fn rests(&mut self) {
        self.tried = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_follow_pauses_that_double_to_their_bound() {
        let mut now = Instant::now();
        let mut failing = Failing::new("no image".into(), now);
        let mut pauses = vec![];
        for _ in 0..6 {
            pauses.push((failing.until() - now).as_secs());
            // Not before the pause is over, and not without a request.
            failing.is_tried(failing.until() - Duration::from_millis(1));
            assert!(!failing.is_over(failing.until() + ATTEMPT));
            now = failing.until() + Duration::from_secs(100);
            failing.is_tried(now);
            failing.is_tried(now + Duration::from_secs(1));
            assert!(!failing.is_over(now + ATTEMPT - Duration::from_millis(1)));
            now += ATTEMPT;
            assert!(failing.is_over(now));
            assert!(!failing.is_over(now));
        }
        assert_eq!(pauses, [5, 10, 20, 40, 60, 60]);
    }

    #[test]
    fn an_attempt_ends_with_those_who_made_it() {
        let mut failing = Failing::new("no image".into(), Instant::now());
        let now = failing.until();
        failing.is_tried(now);
        failing.rests();
        assert!(!failing.is_over(now + ATTEMPT));
        failing.is_tried(now + ATTEMPT);
        assert!(!failing.is_over(now + ATTEMPT));
    }
}
