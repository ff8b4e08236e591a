//! From readings of memory to what is given up for it, step by step; no clock, no file.

use std::time::Duration;

/// What the process gives up at the moment. Each level includes those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing.
    #[default]
    Normal,
    /// What lies idle: connections to endpoints, connections of clients between requests, buffers.
    Shrinking,
    /// New requests that would have to wait.
    NotHolding,
    /// All new requests.
    Rejecting,
    /// New connections, and the exchanges that pin most.
    Cutting,
}

impl Level {
    /// In order.
    pub const ALL: [Level; 5] = [
        Level::Normal,
        Level::Shrinking,
        Level::NotHolding,
        Level::Rejecting,
        Level::Cutting,
    ];

    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Level::Normal => "normal",
            Level::Shrinking => "shrinking",
            Level::NotHolding => "not_holding",
            Level::Rejecting => "rejecting",
            Level::Cutting => "cutting",
        }
    }

    /// The share of the limit from which on it is entered, in percent.
    const fn begins_at_percent(self) -> u64 {
        match self {
            Level::Normal => 0,
            Level::Shrinking => 85,
            Level::NotHolding => 92,
            Level::Rejecting => 95,
            Level::Cutting => 98,
        }
    }

    /// The bytes from which on it is entered.
    pub(super) fn begins_at(self, limit: u64) -> u64 {
        let bytes = u128::from(limit) * u128::from(self.begins_at_percent());
        u64::try_from(bytes.div_ceil(100)).unwrap_or(u64::MAX)
    }

    /// The one that so much of the limit calls for.
    fn at(used: u64, limit: u64) -> Level {
        let from = |level: &&Level| used >= level.begins_at(limit);
        let reached = Level::ALL.iter().rev().find(from);
        *reached.unwrap_or(&Level::Normal)
    }
}

/// A level is left once so much less is used than where it begins, in percent of the limit.
const GAP: u64 = 3;

/// Exchanges that pin at least so much end first; a quarter of it, and so on, if that was not enough.
pub(super) const CUT_FIRST: u64 = 4 * 1024 * 1024;

/// Less than that nobody is cut for.
pub(super) const CUT_LEAST: u64 = 4 * 1024;

/// What was let go needs so long to be seen as gone, since the allocator gives memory back late.
const CUT_EVERY: Duration = Duration::from_secs(1);

/// Between two cuts while memory still grows.
const CUT_EVERY_GROWING: Duration = Duration::from_millis(200);

/// What workers must know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    pub level: Level,
    /// Exchanges that pin at least so many bytes end now.
    pub cut: Option<u64>,
    /// Cuts that were made: once no smaller ones end, those count that pin something since the last.
    pub cuts: u32,
}

impl Pressure {
    /// Whether an exchange that pins so many bytes must end.
    #[must_use]
    pub fn cuts(self, bytes: u64) -> bool {
        self.cut.is_some_and(|least| bytes >= least)
    }
}

/// Where we stand.
#[derive(Debug, Default)]
pub(super) struct Ladder {
    pressure: Pressure,
    /// When the last cut was made, and what was used then.
    last_cut: (Duration, u64),
}

impl Ladder {
    /// Takes a reading, in bytes, made at that time (since whenever).
    pub(super) fn read(&mut self, used: u64, limit: u64, now: Duration) -> Pressure {
        let level = self.level(used, limit);
        let cut = match Level::at(used, limit) {
            Level::Cutting => Some(self.next_cut(used, now)),
            // Being cut for longer than needed helps nobody.
            _ => None,
        };
        self.pressure.level = level;
        self.pressure.cut = cut;
        self.pressure
    }

    fn level(&self, used: u64, limit: u64) -> Level {
        let reached = Level::at(used, limit);
        let gap = limit / 100 * GAP;
        // The level that would be reached if a little more were used is not left yet.
        let kept = Level::at(used.saturating_add(gap), limit);
        reached.max(self.pressure.level.min(kept))
    }

    fn next_cut(&mut self, used: u64, now: Duration) -> u64 {
        let Some(cut) = self.pressure.cut else {
            self.cut_now(used, now);
            return CUT_FIRST;
        };
        let (at, then) = self.last_cut;
        let pause = match used > then {
            true => CUT_EVERY_GROWING,
            false => CUT_EVERY,
        };
        if now.saturating_sub(at) < pause {
            return cut;
        }
        self.cut_now(used, now);
        (cut / 4).max(CUT_LEAST)
    }

    fn cut_now(&mut self, used: u64, now: Duration) {
        self.last_cut = (now, used);
        self.pressure.cuts = self.pressure.cuts.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: u64 = 1000;

    /// The levels that these readings, a tenth of a percent each, lead to.
    fn levels(readings: &[u64]) -> Vec<Level> {
        let mut ladder = Ladder::default();
        let read = |used: &u64| ladder.read(*used, LIMIT, Duration::ZERO).level;
        readings.iter().map(read).collect()
    }

    #[test]
    fn each_step_is_taken_at_its_share_and_left_a_little_below() {
        use Level::{Cutting, Normal, NotHolding, Rejecting, Shrinking};
        let up = levels(&[0, 849, 850, 919, 920, 949, 950, 979, 980, 2000]);
        let expected = [
            Normal, Normal, Shrinking, Shrinking, NotHolding, NotHolding, Rejecting, Rejecting,
            Cutting, Cutting,
        ];
        assert_eq!(up, expected);
        let down = levels(&[980, 950, 949, 920, 919, 890, 889, 820, 819]);
        let expected = [
            Cutting, Cutting, Rejecting, Rejecting, NotHolding, NotHolding, Shrinking, Shrinking,
            Normal,
        ];
        assert_eq!(down, expected);
    }

    #[test]
    fn cuts_go_from_the_largest_down_for_as_long_as_it_takes() {
        let mut ladder = Ladder::default();
        let mut cut = |used, at| ladder.read(used, LIMIT, Duration::from_millis(at)).cut;
        assert_eq!(cut(979, 0), None);
        assert_eq!(cut(980, 100), Some(CUT_FIRST));
        assert_eq!(cut(980, 200), Some(CUT_FIRST), "it has had no time to help");
        assert_eq!(cut(985, 300), Some(CUT_FIRST / 4), "it grows all the same");
        assert_eq!(cut(985, 1200), Some(CUT_FIRST / 4));
        assert_eq!(cut(985, 1300), Some(CUT_FIRST / 16));
        assert_eq!(cut(979, 1400), None);
        assert_eq!(cut(990, 1500), Some(CUT_FIRST), "begins anew");
        for second in 3..30 {
            assert!(cut(980, second * 1000).unwrap() >= CUT_LEAST);
        }
        assert_eq!(cut(980, 30_000), Some(CUT_LEAST));
    }

    #[test]
    fn numbers_of_any_size_are_read() {
        let mut ladder = Ladder::default();
        let mut read = |used, limit| ladder.read(used, limit, Duration::MAX).level;
        assert_eq!(read(u64::MAX, u64::MAX), Level::Cutting);
        assert_eq!(read(0, u64::MAX), Level::Normal);
        assert_eq!(read(0, 1), Level::Normal);
        assert_eq!(read(u64::MAX, 1), Level::Cutting);
    }

    proptest! {
        #[test]
        fn a_level_is_never_too_low_nor_kept_for_nothing(
            readings in proptest::collection::vec(0..1100_u64, 1..100)
        ) {
            let mut ladder = Ladder::default();
            let mut before = Level::Normal;
            for used in readings {
                let pressure = ladder.read(used, LIMIT, Duration::ZERO);
                let reached = Level::at(used, LIMIT);
                prop_assert!(pressure.level >= reached);
                prop_assert!(pressure.level <= reached.max(before), "rose for nothing");
                let eased = Level::at(used + 30, LIMIT);
                prop_assert!(pressure.level <= eased.max(reached), "kept for nothing");
                prop_assert_eq!(pressure.cut.is_some(), reached == Level::Cutting);
                before = pressure.level;
            }
        }

        #[test]
        fn a_reading_that_trembles_moves_no_level_back_and_forth(
            about in 0..1000_u64, by in proptest::collection::vec(0..30_u64, 1..100)
        ) {
            let mut ladder = Ladder::default();
            let mut levels: Vec<_> = by
                .iter()
                .map(|by| ladder.read(about + by, LIMIT, Duration::ZERO).level)
                .collect();
            levels.dedup();
            prop_assert!(levels.is_sorted(), "{levels:?}");
        }
    }
}
