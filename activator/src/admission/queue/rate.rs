//! How fast waiters are let in.

use std::time::{Duration, Instant};

/// The length of a measurement; the one before counts as well.
const OVER: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(super) struct Rate {
    /// `None` before anybody waited.
    since: Option<Instant>,
    /// Let in since then.
    granted: u64,
    /// Per second in the measurement before, if it is known.
    before: Option<f64>,
    /// Per second in the last measurement in which anybody was let in, however long ago.
    last: Option<f64>,
}

impl Rate {
    /// Somebody waits, and nobody did: what was measured before has little to do with it, so it
    /// counts only until somebody is let in.
    pub(super) fn begin(&mut self, now: Instant) {
        *self = Rate {
            since: Some(now),
            last: self.last,
            ..Rate::default()
        };
    }

    pub(super) fn granted(&mut self) {
        self.granted += 1;
    }

    /// One measurement may be over.
    pub(super) fn roll(&mut self, now: Instant) {
        let Some(since) = self.since else { return };
        let time = now.saturating_duration_since(since);
        if time >= OVER {
            let rate = self.granted as f64 / time.as_secs_f64();
            *self = Rate {
                since: Some(now),
                granted: 0,
                before: Some(rate),
                last: Some(rate).filter(|rate| *rate > 0.0).or(self.last),
            };
        }
    }

    /// How long `waiting` take to be let in, at the rate of the last seconds, else at the last one
    /// that was measured; `None` when none was.
    pub(super) fn time_for(&self, waiting: usize, now: Instant) -> Option<Duration> {
        let time = now.saturating_duration_since(self.since?).as_secs_f64();
        let (earlier, over) = match self.before {
            Some(rate) => (rate * OVER.as_secs_f64(), OVER.as_secs_f64()),
            None => (0.0, 0.0),
        };
        let granted = earlier + self.granted as f64;
        let rate = match granted < 1.0 {
            true => self.last?,
            false => granted / (time + over),
        };
        Duration::try_from_secs_f64(waiting as f64 / rate).ok()
    }
}

#[cfg(test)]
#[cfg(not(tidegate_loom))]
mod tests {
    use super::*;

    #[test]
    fn the_last_rate_counts_until_somebody_is_let_in() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut rate = Rate::default();
        rate.begin(at(0));
        assert_eq!(rate.time_for(100, at(0)), None);
        (0..50).for_each(|_| rate.granted());
        rate.roll(at(5));
        let ten_each = Some(Duration::from_secs(10));
        assert_eq!(rate.time_for(100, at(5)), ten_each);
        // Hours later, and while nobody is let in.
        rate.begin(at(10_000));
        assert_eq!(rate.time_for(100, at(10_000)), ten_each);
        rate.roll(at(10_005));
        rate.roll(at(10_010));
        assert_eq!(rate.time_for(100, at(10_010)), ten_each);
        // What is measured now is better.
        rate.begin(at(20_000));
        (0..4).for_each(|_| rate.granted());
        let half = Some(Duration::from_secs(50));
        assert_eq!(rate.time_for(100, at(20_002)), half);
    }
}
