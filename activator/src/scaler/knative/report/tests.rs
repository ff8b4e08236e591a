use std::time::{Duration, Instant};

use super::*;

/// One revision whose requests the test makes, on a clock of its own in milliseconds.
struct Timeline {
    ledger: Ledger,
    id: Id,
    start: Instant,
    now: u64,
    reading: Reading,
}

fn key() -> Key {
    Key {
        namespace: "default".into(),
        name: "hello-00001".into(),
    }
}

fn reading(start: Instant) -> Reading {
    Reading {
        at: start,
        running: 0,
        waiting: 0,
        running_integral: 0,
        waiting_integral: 0,
        marked: 0,
        marked_integral: 0,
        asked: 7,
        again: 0,
        resting: 0,
        resting_marked: 0,
    }
}

fn measured(average: f64, count: f64) -> Measured {
    Measured { average, count }
}

impl Timeline {
    fn new() -> Timeline {
        let start = Instant::now();
        let mut ledger = Ledger::default();
        let (id, first) = ledger.follow(key(), reading(start));
        assert_eq!(first, None);
        Timeline {
            ledger,
            id,
            start,
            now: 0,
            reading: reading(start),
        }
    }

    fn to(&mut self, now: u64) -> &mut Timeline {
        let reading = &mut self.reading;
        let time = (now - self.now) * 1_000_000;
        reading.waiting_integral += time * u64::from(reading.waiting);
        reading.marked_integral += time * u64::from(reading.marked);
        reading.at = self.start + Duration::from_millis(now);
        self.now = now;
        self
    }

    fn runs(&mut self) -> &mut Timeline {
        self.reading.asked += 1;
        self.reading.marked += 1;
        self
    }

    fn waits(&mut self) -> &mut Timeline {
        self.reading.asked += 1;
        self.reading.waiting += 1;
        self
    }

    /// A request that has waited and run already has to wait once more.
    fn waits_again(&mut self) -> &mut Timeline {
        self.reading.again += 1;
        self.ends().waits()
    }

    fn is_let_in(&mut self, marked: bool) -> &mut Timeline {
        self.reading.waiting -= 1;
        self.reading.marked += u32::from(marked);
        self
    }

    fn ends(&mut self) -> &mut Timeline {
        self.reading.marked -= 1;
        self
    }

    fn rests(&mut self) -> &mut Timeline {
        self.reading.resting += 1;
        self.reading.resting_marked += 1;
        self.ends()
    }

    fn nudge(&mut self) -> Option<Measured> {
        self.ledger.look(self.id, self.reading)
    }

    /// The report of a tick, after which an idle revision rests.
    fn tick(&mut self) -> Option<Measured> {
        let reading = self.reading;
        let (reports, idle) = self.ledger.tick(|_| Some(reading));
        for id in idle {
            assert_eq!(self.ledger.rest(id, Some(reading)), None);
        }
        assert!(reports.iter().all(|(of, _)| *of == key()));
        assert!(reports.len() <= 1);
        reports.first().map(|(_, measured)| *measured)
    }
}

#[test]
fn one_request_of_half_a_second_is_told_of_at_once_and_not_again() {
    let mut line = Timeline::new();
    line.to(300).runs();
    assert_eq!(line.nudge(), Some(FIRST));
    line.to(800).ends();
    line.to(1_300);
    assert_eq!(line.tick(), Some(measured(0.0, 0.0)));
    line.to(2_300);
    assert_eq!(line.tick(), Some(measured(0.0, 0.0)), "the last one");
    line.to(3_300);
    assert_eq!(line.tick(), None, "it rests");
    line.runs();
    assert_eq!(line.nudge(), Some(FIRST), "and begins anew");
}

#[test]
fn two_requests_of_a_second_are_told_of_as_one_and_one() {
    let mut line = Timeline::new();
    line.runs().runs();
    assert_eq!(line.nudge(), Some(FIRST));
    line.to(1_000);
    assert_eq!(line.tick(), Some(measured(1.0, 1.0)));
    line.to(2_000);
    assert_eq!(
        line.tick(),
        Some(measured(2.0, 0.0)),
        "only the first window is less"
    );
}

#[test]
fn a_request_counts_from_its_arrival_through_the_wait() {
    let mut line = Timeline::new();
    line.waits();
    assert_eq!(line.nudge(), Some(FIRST));
    line.to(1_000);
    assert_eq!(line.tick(), Some(measured(0.0, 0.0)));
    line.to(1_500).is_let_in(true);
    line.to(2_000);
    assert_eq!(line.tick(), Some(measured(1.0, 0.0)));
    line.to(2_250).ends();
    line.to(3_000);
    assert_eq!(line.tick(), Some(measured(0.25, 0.0)));
}

#[test]
fn a_request_that_is_made_again_is_one_request() {
    let mut line = Timeline::new();
    line.runs().runs();
    assert_eq!(line.nudge(), Some(FIRST));
    line.to(500).waits_again();
    line.to(1_000).is_let_in(true);
    assert_eq!(line.tick(), Some(measured(1.0, 1.0)));
    line.to(2_000).waits_again().is_let_in(true);
    assert_eq!(line.tick(), Some(measured(2.0, 0.0)));
}

#[test]
fn a_request_that_is_made_again_wakes_a_revision_as_any_other() {
    let mut line = Timeline::new();
    line.reading.again += 1;
    line.waits().is_let_in(false);
    assert_eq!(line.nudge(), Some(FIRST), "though it has gone");
    line.to(1_000);
    assert_eq!(line.tick(), Some(measured(0.0, 0.0)));
}

#[test]
fn what_runs_unmarked_is_for_others_to_tell() {
    let mut line = Timeline::new();
    line.waits();
    assert_eq!(line.nudge(), Some(FIRST));
    line.to(500).is_let_in(false);
    line.to(1_000);
    assert_eq!(line.tick(), Some(measured(0.0, 0.0)));
    line.to(2_000);
    assert_eq!(line.tick(), Some(measured(0.0, 0.0)));
    assert!(!line.ledger.is_active(line.id));
}

#[test]
fn silent_streams_count_while_somebody_waits_for_their_slots() {
    let mut line = Timeline::new();
    line.runs().runs();
    assert_eq!(line.nudge(), Some(FIRST));
    line.to(1_000).rests().rests();
    line.tick();
    line.to(2_000);
    assert_eq!(line.tick(), Some(measured(0.0, 0.0)), "they are no demand");
    assert!(!line.ledger.is_active(line.id));
    line.waits();
    assert_eq!(line.nudge(), Some(FIRST));
    line.to(3_000);
    assert_eq!(line.tick(), Some(measured(2.0, 0.0)));
    // Of those that are not marked, others tell.
    line.reading.resting_marked = 0;
    line.to(4_000);
    assert_eq!(line.tick(), Some(measured(1.0, 0.0)));
    line.reading.resting_marked = 2;
    line.to(5_000).is_let_in(true);
    assert_eq!(line.tick(), Some(measured(1.0, 0.0)), "nobody waits");
}

#[test]
fn a_revision_at_work_is_not_told_of_twice() {
    let mut line = Timeline::new();
    line.runs();
    assert_eq!(line.nudge(), Some(FIRST));
    line.runs();
    assert_eq!(line.nudge(), None);
    line.to(1_000);
    assert_eq!(line.tick(), Some(measured(1.0, 1.0)));
    assert_eq!(line.nudge(), None);
}

#[test]
fn a_nudge_about_nobody_says_nothing() {
    let mut line = Timeline::new();
    assert_eq!(line.nudge(), None);
    line.to(1_000);
    assert_eq!(line.tick(), None);
}

#[test]
fn who_came_and_went_before_the_nudge_was_heard_is_told_of() {
    let mut line = Timeline::new();
    line.runs().ends();
    assert_eq!(line.nudge(), Some(FIRST));
    line.to(1_000);
    assert_eq!(line.tick(), Some(measured(0.0, 0.0)));
}

#[test]
fn requests_too_short_to_measure_keep_a_revision_awake() {
    let mut line = Timeline::new();
    line.runs().ends();
    assert_eq!(line.nudge(), Some(FIRST));
    for second in 1..4 {
        line.to(second * 1_000);
        line.tick();
        line.runs().ends();
    }
    line.to(4_000);
    assert_eq!(line.tick(), Some(measured(0.0, 1.0)));
}

#[test]
fn who_comes_as_a_revision_lies_down_is_told_of_at_once() {
    let mut line = Timeline::new();
    line.runs();
    line.nudge();
    line.ends();
    line.to(1_000);
    line.tick();
    line.to(2_000);
    let before = line.reading;
    let (reports, idle) = line.ledger.tick(|_| Some(before));
    assert_eq!(reports[0].1, measured(0.0, 0.0));
    assert_eq!(idle, [line.id]);
    line.runs();
    let reading = line.reading;
    assert_eq!(line.ledger.rest(line.id, Some(reading)), Some(FIRST));
    line.to(3_000);
    assert_eq!(line.tick(), Some(measured(0.0, 0.0)));
}

#[test]
fn who_waits_as_a_revision_is_followed_is_told_of_at_once() {
    let start = Instant::now();
    let mut ledger = Ledger::default();
    let there = Reading {
        waiting: 2,
        waiting_integral: 5_000_000_000,
        ..reading(start)
    };
    let (id, first) = ledger.follow(key(), there);
    assert_eq!(first, Some(FIRST));
    let later = Reading {
        at: start + Duration::from_secs(1),
        waiting_integral: 7_000_000_000,
        ..there
    };
    let (reports, _) = ledger.tick(|_| Some(later));
    assert_eq!(reports, [(key(), measured(1.0, 1.0))]);
    assert_eq!(ledger.forget(id), Some(measured(0.0, 0.0)));
    assert_eq!(ledger.tick(|_| Some(later)).0, []);
}

#[test]
fn counts_and_averages_survive_counters_that_wrap() {
    let mut line = Timeline::new();
    line.reading.asked = u32::MAX;
    line.reading.marked_integral = u64::MAX - 10;
    line.ledger = Ledger::default();
    line.id = line.ledger.follow(key(), line.reading).0;
    line.reading.asked = 2;
    line.reading.marked = 3;
    assert_eq!(line.nudge(), Some(FIRST));
    line.reading.marked_integral = 2_999_999_989;
    line.reading.at += Duration::from_secs(1);
    assert_eq!(line.tick(), Some(measured(2.0, 2.0)));
}

/// However requests come and go and ticks fall, all reports together say how many there were.
#[test]
fn no_arrival_is_lost_or_told_of_twice() {
    for seed in 0..200 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut line = Timeline::new();
        let (mut came, mut told) = (0.0, 0.0);
        for _ in 0..200 {
            let now = line.now + rng.u64(0..400);
            line.to(now);
            match rng.u32(0..7) {
                0 => {
                    line.runs();
                    came += 1.0;
                }
                1 => {
                    line.waits();
                    came += 1.0;
                }
                2 if line.reading.waiting > 0 => {
                    line.is_let_in(rng.bool());
                }
                3 if line.reading.marked > 0 => {
                    line.ends();
                }
                // It runs, so the revision does not rest.
                4 if line.reading.marked > 0 => {
                    line.waits_again();
                }
                5 => told += line.nudge().map_or(0.0, |first| first.count),
                _ => told += line.tick().map_or(0.0, |report| report.count),
            }
        }
        told += line.nudge().map_or(0.0, |first| first.count);
        told += line.tick().map_or(0.0, |report| report.count);
        assert_eq!(came, told, "seed {seed}");
    }
}
