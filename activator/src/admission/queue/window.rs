//! How much an endpoint gets at a time while nobody knows what it bears.
//!
//! As TCP finds out what a path bears (RFC 5681): a window that doubles with each round of answers.
//! A failure shrinks it to what the endpoint held on to, and half of what was too much is remembered:
//! from there on it grows by a little per round, more as time passes without another failure.

use std::time::{Duration, Instant};

use crate::admission::RampUp;

/// An endpoint that has borne so many requests at a time bears whatever comes.
pub(in crate::admission) const OPEN_FROM: u32 = 4096;

/// So long after anybody last waited or anything failed, what a failure taught is forgotten.
pub(in crate::admission) const QUIET: Duration = Duration::from_secs(30);

/// A look that comes late makes up for so much time, or for one interval where that is longer: what it
/// lets in comes at once, and none of it has had time to fail.
const LATE_MAX: Duration = Duration::from_millis(200);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::admission) struct Window {
    /// Most requests in flight, at least 1.
    size: u32,
    /// From here on it grows carefully.
    threshold: u32,
    /// Answers of this round, while it grows carefully.
    round: u32,
    /// So much it grows carefully.
    step: u32,
    /// How long requests have waited since it last grew by time or failed.
    waited: Duration,
    /// The last look, if requests waited then and none failed since.
    looked: Option<Instant>,
    /// When requests last waited, or one failed.
    pressed: Option<Instant>,
    /// When it last failed, unless that is forgotten.
    failed: Option<Instant>,
}

impl Window {
    /// Of an endpoint that just appeared.
    pub(in crate::admission) fn fresh(ramp: RampUp) -> Window {
        Window {
            size: ramp.initial.max(1),
            threshold: u32::MAX,
            round: 0,
            step: 1,
            waited: Duration::ZERO,
            looked: None,
            pressed: None,
            failed: None,
        }
    }

    /// Of an endpoint that had none and failed a request while it held `held` others. `None` when
    /// they were too few to be the reason.
    pub(in crate::admission) fn learned(ramp: RampUp, held: u32, now: Instant) -> Option<Window> {
        let at_once = held.saturating_add(1);
        if at_once <= ramp.initial {
            return None;
        }
        let mut window = Window::fresh(ramp);
        window.size = at_once;
        window.shrink(ramp, held, now);
        Some(window)
    }

    pub(in crate::admission) fn size(&self) -> u32 {
        self.size
    }

    /// Nothing is gained by it any more, where `limit` (0 = none) holds anyway.
    pub(in crate::admission) fn is_open(&self, limit: u32) -> bool {
        self.size >= OPEN_FROM || (limit != 0 && self.size >= limit)
    }

    /// An answer began; `waited_for` says whether requests wait, so that room is of use.
    pub(in crate::admission) fn answered(&mut self, waited_for: bool) {
        if self.size < self.threshold {
            self.size = self.size.saturating_add(1);
        } else if waited_for {
            self.round += 1;
            if self.round >= self.size {
                self.round = 0;
                self.size = self.size.saturating_add(self.step);
            }
        }
    }

    /// A request failed while the endpoint held `held` others. True when it had too many, as far as
    /// one can know: the window was in use.
    pub(in crate::admission) fn failed(&mut self, ramp: RampUp, held: u32, now: Instant) -> bool {
        if held.saturating_add(1) < self.size.div_ceil(2) {
            return false;
        }
        self.shrink(ramp, held, now);
        true
    }

    /// One more failed of those that were let in before the window shrank.
    pub(in crate::admission) fn follow(&mut self, held: u32) {
        self.size = self.size.min(held.max(1));
    }

    fn shrink(&mut self, ramp: RampUp, held: u32, now: Instant) {
        let before = self.failed.replace(now);
        let again = before.is_some_and(|at| now.saturating_duration_since(at) < QUIET);
        // One failure at a few requests may have had any reason.
        let least = if again { 1 } else { ramp.initial.max(1) };
        let too_much = self.size.min(held.saturating_add(1));
        self.threshold = (too_much / 2).max(least);
        self.follow(held);
        self.round = 0;
        self.step = 1;
        self.waited = Duration::ZERO;
        self.looked = None;
        self.pressed = Some(now);
    }

    /// A look found that requests wait: it grows once for each `interval` of that since the look
    /// before, and first forgets what was learned too long ago.
    pub(in crate::admission) fn pressed(&mut self, ramp: RampUp, now: Instant) {
        let since = |at: Option<Instant>| at.map(|at| now.saturating_duration_since(at));
        let calm = since(self.pressed.replace(now));
        if self.failed.is_some() && calm.is_some_and(|calm| calm >= QUIET) {
            self.failed = None;
            self.threshold = u32::MAX;
            self.step = 1;
        }
        let waited = since(self.looked.replace(now)).unwrap_or_default();
        self.waited += waited.min(ramp.interval.max(LATE_MAX));
        // Ends, for it grows each time.
        while self.waited >= ramp.interval && !self.is_open(0) {
            self.waited -= ramp.interval;
            self.grow();
        }
    }

    /// A look found that nobody waits. Only time in which somebody does counts.
    pub(in crate::admission) fn eased(&mut self) {
        self.looked = None;
    }

    fn grow(&mut self) {
        if self.size < self.threshold {
            self.size = self.size.saturating_mul(2).min(self.threshold);
        } else {
            self.size = self.size.saturating_add(self.step);
            self.step = self.step.saturating_mul(2);
        }
    }
}

#[cfg(test)]
#[cfg(not(tidegate_loom))]
mod tests {
    use super::*;

    const RAMP: RampUp = RampUp {
        initial: 8,
        interval: Duration::from_secs(1),
    };

    fn answer_a_round(window: &mut Window) {
        for _ in 0..window.size() {
            window.answered(true);
        }
    }

    /// What a window comes to at an endpoint that bears `most`, round by round, while more wait: those
    /// beyond are reset at once, the others answered.
    fn rounds(most: u32, rounds: usize) -> Vec<u32> {
        let now = Instant::now();
        let mut window = Window::fresh(RAMP);
        let mut sizes = Vec::new();
        for _ in 0..rounds {
            let sent = window.size();
            sizes.push(sent);
            for left in (most..sent).rev() {
                match left + 1 == sent {
                    true => assert!(window.failed(RAMP, left, now)),
                    false => window.follow(left),
                }
            }
            for _ in 0..sent.min(most) {
                window.answered(true);
            }
        }
        sizes
    }

    #[test]
    fn a_fresh_window_doubles_with_each_round_of_answers_until_it_is_open() {
        let sizes = rounds(u32::MAX, 11);
        assert_eq!(
            sizes,
            [8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192]
        );
        let mut window = Window::fresh(RAMP);
        assert!(!window.is_open(0) && !window.is_open(9) && window.is_open(8));
        window.answered(false);
        assert!(window.is_open(9));
        window.size = OPEN_FROM;
        assert!(window.is_open(0) && window.is_open(u32::MAX));
    }

    #[test]
    fn what_an_endpoint_bears_is_found_and_left_by_one_request_per_round() {
        let sizes = rounds(64, 40);
        assert_eq!(sizes[..6], [8, 16, 32, 64, 128, 65]);
        assert!(sizes[5..].iter().all(|size| (64..=65).contains(size)));
        let sizes = rounds(3, 40);
        assert!(
            sizes[4..].iter().all(|size| (3..=6).contains(size)),
            "{sizes:?}"
        );
    }

    #[test]
    fn a_failure_beside_few_others_teaches_nothing() {
        let now = Instant::now();
        assert_eq!(Window::learned(RAMP, 7, now), None);
        assert_eq!(Window::learned(RAMP, 8, now).unwrap().size(), 8);
        let mut window = Window::fresh(RAMP);
        while window.size() < 100 {
            window.answered(false);
        }
        assert!(!window.failed(RAMP, 48, now));
        assert_eq!(window.size(), 100);
        assert!(window.failed(RAMP, 49, now));
        assert_eq!(window.size(), 49);
    }

    #[test]
    fn when_all_fail_it_begins_with_one_and_doubles_up_to_half_of_what_was_too_much() {
        let now = Instant::now();
        let mut window = Window::learned(RAMP, 499, now).unwrap();
        for left in (0..499).rev() {
            window.follow(left);
        }
        let mut sizes = Vec::new();
        for _ in 0..10 {
            sizes.push(window.size());
            answer_a_round(&mut window);
        }
        assert_eq!(sizes, [1, 2, 4, 8, 16, 32, 64, 128, 250, 251]);
    }

    #[test]
    fn while_requests_wait_it_grows_with_time_alone() {
        let start = Instant::now();
        let tenth = RAMP.interval / 10;
        let mut window = Window::fresh(RAMP);
        let mut sizes = Vec::new();
        for tick in 0..=40 {
            window.pressed(RAMP, start + tenth * tick);
            if tick % 10 == 0 {
                sizes.push(window.size());
            }
        }
        assert_eq!(sizes, [8, 16, 32, 64, 128]);
        // Five more tenths, and five later on; the time in between does not count, for nobody waited.
        for tick in 41..=45 {
            window.pressed(RAMP, start + tenth * tick);
        }
        window.eased();
        for tick in 200..205 {
            window.pressed(RAMP, start + tenth * tick);
        }
        assert_eq!(window.size(), 128);
        window.pressed(RAMP, start + tenth * 205);
        assert_eq!(window.size(), 256);
    }

    #[test]
    fn a_window_catches_up_with_as_many_intervals_as_fit_between_two_looks_but_not_with_a_stall() {
        let start = Instant::now();
        let ten = Duration::from_millis(10);
        for (interval, looks) in [
            (ten, [8, 8 << 3, 8 << 9]),
            (ten * 3, [8, 8 << 1, 8 << 7]),
            (ten * 100, [8, 8, 8 << 1]),
        ] {
            let ramp = RampUp { interval, ..RAMP };
            let mut window = Window::fresh(ramp);
            let times = [Duration::ZERO, ten * 3, ten * 3 + RAMP.interval * 60];
            let sizes = times.map(|time| {
                window.pressed(ramp, start + time);
                window.size()
            });
            assert_eq!(sizes, looks, "{interval:?}");
        }
    }

    #[test]
    fn a_learned_window_grows_faster_the_longer_nothing_fails() {
        let start = Instant::now();
        let mut window = Window::learned(RAMP, 499, start).unwrap();
        window.pressed(RAMP, start);
        let mut sizes = Vec::new();
        for second in 1..=6 {
            for tenth in 1..=10 {
                let time = RAMP.interval * (second - 1) + RAMP.interval * tenth / 10;
                window.pressed(RAMP, start + time);
            }
            sizes.push(window.size());
        }
        assert_eq!(sizes, [500, 502, 506, 514, 530, 562]);
        let now = start + RAMP.interval * 6;
        window.failed(RAMP, window.size() - 1, now);
        assert_eq!((window.size(), window.step), (561, 1));
    }

    #[test]
    fn what_was_learned_is_kept_under_pressure_and_forgotten_after_a_quiet_while() {
        let start = Instant::now();
        let mut window = Window::learned(RAMP, 99, start).unwrap();
        let threshold = window.threshold;
        window.pressed(RAMP, start + QUIET / 2);
        window.pressed(RAMP, start + QUIET);
        assert_eq!(window.threshold, threshold);
        window.eased();
        // Nobody waits: an answer makes no room that anybody asked for.
        let size = window.size();
        answer_a_round(&mut window.clone());
        window.answered(false);
        assert_eq!(window.size(), size);
        window.pressed(RAMP, start + QUIET * 2);
        assert_eq!(window.size(), size, "it is not forgotten how much it bore");
        answer_a_round(&mut window);
        assert_eq!(window.size(), size * 2);
    }
}
