//! How endpoints stand: windows of new ones, suspicions, and what is done about removed ones.

use std::time::Duration;

use super::super::{EndpointState, Fault, RampUp, SUSPICION, SUSPICION_MAX};
use super::*;

const RAMP: RampUp = RampUp {
    initial: 8,
    interval: Duration::from_secs(1),
};

/// Without endpoints; those that come are ramped up.
fn ramped(concurrency: u32, supply: Supply) -> Bench {
    ramped_by(RAMP, concurrency, supply)
}

fn ramped_each(interval: Duration, supply: Supply) -> Bench {
    ramped_by(RampUp { interval, ..RAMP }, 0, supply)
}

fn ramped_by(ramp_up: RampUp, concurrency: u32, supply: Supply) -> Bench {
    let bench = Bench::new(concurrency, supply, 0);
    let limits = Limits {
        ramp_up: Some(ramp_up),
        ..Limits::new(concurrency, 10_000)
    };
    bench.throttle.configure(limits);
    bench
}

fn scaled() -> Supply {
    Supply::Scaled(Bell::new())
}

/// Those of them that were let in, and those that wait still.
fn let_in(waiting: Vec<Waiting>) -> (Vec<Slot>, Vec<Waiting>) {
    let (mut slots, mut rest) = (Vec::new(), Vec::new());
    for mut one in waiting {
        match poll(&mut one, &Bell::new()) {
            Poll::Ready(slot) => slots.push(slot.unwrap()),
            Poll::Pending => rest.push(one),
        }
    }
    (slots, rest)
}

impl Bench {
    fn crowd(&self, count: usize) -> Vec<Waiting> {
        std::iter::repeat_with(|| self.wait()).take(count).collect()
    }

    /// Time passes, and control looks after it.
    fn pass(&self, time: Duration) {
        self.clock.set(self.clock.now() + time);
        self.holding.sweep(self.clock.now());
    }

    fn states(&self) -> Vec<EndpointState> {
        let statuses = self.throttle.endpoints();
        statuses.iter().map(|status| status.state).collect()
    }
}

#[test]
fn a_new_endpoint_gets_a_few_and_twice_as_many_after_each_round_of_answers() {
    for (concurrency, rounds) in [(0, [8, 16, 32, 64, 128]), (20, [8, 16, 20, 20, 20])] {
        let bench = ramped(concurrency, scaled());
        let mut waiting = bench.crowd(500);
        bench.throttle.set_endpoints(&[address(0)]);
        for expected in rounds {
            let (slots, rest) = let_in(waiting);
            waiting = rest;
            assert_eq!(slots.len(), expected);
            assert!(slots.iter().all(|slot| slot.limited() == (concurrency > 0)));
            for slot in &slots {
                slot.answered();
            }
        }
    }
}

#[test]
fn slow_answers_do_not_starve_those_who_wait() {
    let bench = ramped(0, scaled());
    let waiting = bench.crowd(5_000);
    bench.throttle.set_endpoints(&[address(0)]);
    let mut held = Vec::new();
    let mut rest = waiting;
    for _ in 0..40 {
        let (slots, still) = let_in(rest);
        held.extend(slots);
        rest = still;
        bench.pass(Duration::from_millis(250));
    }
    assert!(rest.is_empty(), "{} wait after ten seconds", rest.len());
    assert_eq!(bench.throttle.endpoints()[0].window, None);
}

/// How long control takes to look again.
const LOOK: Duration = Duration::from_millis(100);

/// Nothing answers, and control looks now a little early and now a little late.
#[test]
fn a_window_doubles_each_interval_however_short_or_long_that_is() {
    for milliseconds in [10, 20, 50, 99, 100, 101, 150, 300, 1_000] {
        let interval = Duration::from_millis(milliseconds);
        let bench = ramped_each(interval, scaled());
        let mut waiting = bench.crowd(5_000);
        bench.throttle.set_endpoints(&[address(0)]);
        let mut held = Vec::new();
        let mut passed = Duration::ZERO;
        for late in [0, 5, 0, 9, 4, 7, 1, 0].repeat(20) {
            let (slots, rest) = let_in(waiting);
            held.extend(slots);
            waiting = rest;
            let doublings = |time: Duration| (time.as_nanos() / interval.as_nanos()).min(10);
            // The first look only finds that somebody waits; what came since the last is to come.
            let least = 8 << doublings(passed.saturating_sub(LOOK * 2 + LOOK / 10));
            let most = (8 << doublings(passed)).min(5_000);
            let in_window = least..=most;
            let context = format!("{} {passed:?} after each {interval:?}", held.len());
            assert!(
                in_window.contains(&held.len()) || waiting.is_empty(),
                "{context}"
            );
            let next = LOOK * (u32::try_from(passed.as_millis() / 100).unwrap() + 1);
            let step = next + Duration::from_millis(late) - passed;
            passed += step;
            bench.pass(step);
        }
        assert!(waiting.is_empty(), "{} after {passed:?}", waiting.len());
    }
}

#[test]
fn only_time_in_which_somebody_waits_widens_a_window() {
    for interval in [LOOK / 5, LOOK * 10] {
        let bench = ramped_each(interval, scaled());
        bench.throttle.set_endpoints(&[address(0)]);
        let slots: Vec<Slot> = (0..8).filter_map(|n| bench.gate.try_acquire(n)).collect();
        assert_eq!(slots.len(), 8);
        for _ in 0..3 {
            drop(bench.wait());
            (0..50).for_each(|_| bench.pass(LOOK));
            let _waiting = bench.wait();
            bench.pass(LOOK);
            assert_eq!(bench.throttle.endpoints()[0].window, Some(8));
        }
    }
}

#[test]
fn fixed_endpoints_that_requests_wait_for_are_ramped_up_though_they_are_the_first() {
    let bench = ramped(0, Supply::Fixed);
    bench.throttle.set_endpoints(&[]);
    let waiting = bench.crowd(100);
    bench.throttle.set_endpoints(&[address(0), address(1)]);
    let (slots, _waiting) = let_in(waiting);
    assert_eq!(slots.len(), 16);
    let windows = bench.throttle.endpoints().into_iter();
    assert!(windows.map(|it| it.window).all(|it| it == Some(8)));
}

#[test]
fn endpoints_that_were_there_before_us_are_not_ramped_up_and_later_ones_are() {
    let bench = ramped(0, Supply::Fixed);
    bench.throttle.set_endpoints(&[]);
    bench.throttle.set_endpoints(&[address(0)]);
    bench.throttle.set_endpoints(&[address(0), address(1)]);
    let windows = bench.throttle.endpoints().into_iter();
    let windows: Vec<_> = windows.map(|status| status.window).collect();
    assert_eq!(windows, [None, Some(8)]);
    bench.throttle.configure(Limits::new(0, 10));
    assert_eq!(bench.throttle.endpoints()[1].window, None);
}

#[test]
fn a_share_of_a_new_endpoint_is_bounded_by_its_window_too() {
    let bench = ramped(100, scaled());
    let waiting = bench.crowd(60);
    let share = super::super::Share { own: 50, most: 100 };
    bench.throttle.share_endpoints(&[(address(0), share)]);
    let (slots, waiting) = let_in(waiting);
    assert_eq!(slots.len(), 8);
    for _ in 0..3 {
        slots.iter().for_each(Slot::answered);
    }
    assert_eq!(let_in(waiting).0.len(), 24);
}

#[test]
fn an_endpoint_that_answers_others_is_no_suspect_and_gets_what_it_bore() {
    let bench = ramped(0, scaled());
    let mut waiting = bench.crowd(500);
    bench.throttle.set_endpoints(&[address(0)]);
    for _ in 0..4 {
        let (slots, rest) = let_in(waiting);
        slots.iter().for_each(Slot::answered);
        waiting = rest;
    }
    let (mut slots, _waiting) = let_in(waiting);
    // It held on to the first 64 of 128.
    assert_eq!(slots.len(), 128);
    for slot in slots.drain(64..).rev() {
        assert_eq!(slot.suspect(), Fault::Crowding);
    }
    assert_eq!(bench.states(), [EndpointState::Ready]);
    assert_eq!(bench.throttle.endpoints()[0].window, Some(64));
    assert_eq!(bench.throttle.in_flight(), 64);
}

#[test]
fn a_fixed_endpoint_learns_what_it_bears_from_the_requests_that_fail_at_once() {
    let bench = ramped(0, Supply::Fixed);
    bench.throttle.set_endpoints(&[address(0)]);
    let mut slots: Vec<Slot> = (0..500).filter_map(|n| bench.gate.try_acquire(n)).collect();
    assert_eq!(slots.len(), 500);
    for slot in slots.drain(64..) {
        slot.suspect();
    }
    let [status] = bench.throttle.endpoints()[..] else {
        panic!("one endpoint");
    };
    assert_eq!(
        (status.state, status.window),
        (EndpointState::Suspect, Some(64))
    );
    slots[0].answered();
    assert_eq!(bench.states(), [EndpointState::Ready]);
}

#[test]
fn a_lone_fixed_endpoint_that_is_gone_makes_nobody_wait_for_a_window() {
    let bench = ramped(0, Supply::Fixed);
    bench.throttle.set_endpoints(&[address(0)]);
    let slots: Vec<Slot> = (0..100).filter_map(|n| bench.gate.try_acquire(n)).collect();
    for slot in slots {
        slot.suspect();
    }
    assert_eq!(bench.throttle.endpoints()[0].window, Some(1));
    let (slots, waiting) = let_in(bench.crowd(100));
    assert_eq!(slots.len(), 1);
    assert_eq!(slots[0].suspect(), Fault::Endpoint);
    let (slots, waiting) = let_in(waiting);
    assert!(waiting.is_empty());
    for slot in slots {
        assert_eq!(slot.suspect(), Fault::Endpoint);
    }
}

#[test]
fn who_fails_again_and_again_is_passed_over_for_longer_until_it_answers() {
    let bench = Bench::new(1, Supply::Fixed, 2);
    let failing = address(1);
    let one = bench.gate.try_acquire(0).unwrap();
    let other = bench.gate.try_acquire(1).unwrap();
    let (good, bad) = match one.address() == failing {
        true => (other, one),
        false => (one, other),
    };
    let _good = good;
    bad.suspect();
    // A failure of the same moment is not another one.
    bad.suspect();
    drop(bad);
    for seconds in [1, 2, 4, 8, 16, 30, 30] {
        let time = Duration::from_secs(seconds);
        assert!(time <= SUSPICION_MAX);
        bench.pass(time - Duration::from_millis(1));
        assert!(bench.gate.try_acquire(0).is_none(), "{seconds}");
        bench.pass(Duration::from_millis(1));
        let slot = bench.gate.try_acquire(0).unwrap();
        slot.suspect();
    }
    bench.pass(SUSPICION_MAX);
    let slot = bench.gate.try_acquire(0).unwrap();
    slot.answered();
    slot.suspect();
    drop(slot);
    bench.pass(SUSPICION);
    assert!(bench.gate.try_acquire(0).is_some());
}

#[test]
fn the_only_endpoint_there_is_is_tried_again_after_a_second_however_often_it_failed() {
    let bench = Bench::new(1, scaled(), 1);
    let mut slot = bench.gate.try_acquire(0).unwrap();
    for _ in 0..6 {
        slot.suspect();
        drop(slot);
        let mut waiting = bench.wait();
        bench.pass(SUSPICION - Duration::from_millis(1));
        assert!(poll(&mut waiting, &Bell::new()).is_pending());
        bench.pass(Duration::from_millis(1));
        slot = ready(&mut waiting).unwrap();
    }
}

#[test]
fn a_good_probe_brings_a_suspect_back_at_once() {
    let bench = Bench::new(1, scaled(), 1);
    let slot = bench.gate.try_acquire(0).unwrap();
    slot.suspect();
    drop(slot);
    let mut waiting = bench.wait();
    bench.throttle.trust(address(1));
    assert!(poll(&mut waiting, &Bell::new()).is_pending());
    bench.throttle.trust(address(0));
    let slot = ready(&mut waiting).unwrap();
    // Requests fail all the same: the next suspicion is longer, for what else there may be.
    slot.suspect();
    bench.throttle.set_endpoints(&[address(0), address(1)]);
    drop(slot);
    bench.pass(SUSPICION);
    assert_eq!(
        bench.states(),
        [EndpointState::Suspect, EndpointState::Ready]
    );
}

#[test]
fn whoever_was_let_in_at_an_endpoint_that_is_removed_goes_elsewhere_or_waits_first_in_line() {
    let bench = Bench::new(1, scaled(), 1);
    let slot = bench.gate.try_acquire(0).unwrap();
    let (mut first, mut second, mut third) = (bench.wait(), bench.wait(), bench.wait());
    drop(slot);
    // The first was let in, and has not seen it.
    bench.throttle.set_endpoints(&[address(1)]);
    assert!(poll(&mut first, &Bell::new()).is_pending());
    assert_eq!(bench.states(), [EndpointState::Ready], "nothing drains");
    let slot = ready(&mut second).unwrap();
    assert_eq!(slot.address(), address(1));
    drop(slot);
    let slot = ready(&mut first).unwrap();
    assert_eq!(slot.address(), address(1));
    assert!(poll(&mut third, &Bell::new()).is_pending());
    drop(slot);
    // There is room elsewhere.
    bench.throttle.set_endpoints(&[address(1), address(2)]);
    bench.throttle.set_endpoints(&[address(2)]);
    assert_eq!(ready(&mut third).unwrap().address(), address(2));
}

#[test]
fn only_an_answer_of_an_endpoint_that_is_still_there_speaks_for_its_start() {
    for answered in [false, true] {
        let bench = ramped(0, scaled());
        let mut waiting = bench.wait();
        bench.throttle.set_endpoints(&[address(0)]);
        let slot = ready(&mut waiting).unwrap();
        let newcomer = bench.gate.try_acquire(0).unwrap();
        if answered {
            newcomer.answered();
        }
        bench.throttle.set_endpoints(&[]);
        newcomer.answered();
        let goes_on = bench.throttle.starts().current();
        drop((slot, newcomer));
        let mut again = bench.wait();
        let same = bench.throttle.starts().current() == goes_on;
        assert_eq!(same, !answered);
        bench.throttle.fail("crashed".into(), later(&bench));
        let failed = AcquireError::StartFailed("crashed".into());
        assert_eq!(ready(&mut again).unwrap_err(), failed);
        assert_eq!(bench.throttle.starts().current(), None);
    }
}
