//! Streams at rest: held, and no demand.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::demand::average;

/// What happens next, and to which of those that run.
#[derive(Clone, Copy, Debug)]
enum Step {
    Begin,
    Rest(usize),
    Stir(usize),
    End(usize),
    /// Requests that begin from now on are marked, or are not.
    Mark(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        Just(Step::Begin),
        any::<usize>().prop_map(Step::Rest),
        any::<usize>().prop_map(Step::Stir),
        any::<usize>().prop_map(Step::End),
        any::<bool>().prop_map(Step::Mark),
    ]
}

/// A request as it ought to count.
struct Plain {
    slot: Slot,
    marked: bool,
    rests: bool,
}

proptest! {
    #[test]
    fn what_rests_is_taken_out_of_demand_and_put_back_exactly(
        concurrency in 0..3_u32,
        steps in vec((0..3_000_u64, step()), 1..80),
    ) {
        let bench = Bench::new(concurrency * 50, Supply::Fixed, 1);
        let origin = bench.throttle.demand(bench.start);
        let mut running: Vec<Plain> = Vec::new();
        let (mut now, mut marks, mut sums) = (bench.start, false, [0_u64; 2]);
        let (mut asked, mut again, mut resting) = (0, 0, 0);
        for (after, step) in steps {
            let awake = running.iter().filter(|one| !one.rests);
            let marked = awake.clone().filter(|one| one.marked).count();
            sums[0] += after * awake.count() as u64;
            sums[1] += after * marked as u64;
            now += Duration::from_millis(after);
            bench.clock.set(now);
            let count = running.len().max(1);
            match step {
                Step::Mark(marked) => {
                    bench.throttle.set_proxied(marked);
                    marks = marked;
                }
                Step::Begin => {
                    let slot = bench.gate.try_acquire(0).unwrap();
                    asked += u32::from(marks);
                    running.push(Plain { slot, marked: marks, rests: false });
                }
                Step::Rest(which) => if let Some(one) = running.get_mut(which % count) {
                    one.slot.rest();
                    one.rests = true;
                },
                Step::Stir(which) => if let Some(one) = running.get_mut(which % count) {
                    one.slot.stir();
                    asked += u32::from(one.rests && one.marked);
                    again += u32::from(one.rests && one.marked);
                    one.rests = false;
                },
                Step::End(which) => if !running.is_empty() {
                    drop(running.swap_remove(which % count));
                },
            }
            resting = running.iter().filter(|one| one.rests).count();
            let awake = running.len() - resting;
            let marked = running.iter().filter(|one| one.marked && !one.rests).count();
            let reading = bench.throttle.demand(now);
            prop_assert_eq!(reading.running as usize, awake);
            prop_assert_eq!(reading.marked as usize, marked);
            prop_assert_eq!(reading.resting as usize, resting);
            let marked = running.iter().filter(|one| one.marked && one.rests).count();
            prop_assert_eq!(reading.resting_marked as usize, marked);
            prop_assert_eq!((reading.asked, reading.again), (asked, again));
            // The slots stay where they are.
            prop_assert_eq!(bench.throttle.in_flight_at(address(0)) as usize, running.len());
            prop_assert_eq!(bench.throttle.busy_at(address(0)) as usize, awake);
        }
        let reading = bench.throttle.demand(now);
        let grown = reading.running_integral.wrapping_sub(origin.running_integral);
        prop_assert_eq!(grown, sums[0] * 1_000_000);
        let grown = reading.marked_integral.wrapping_sub(origin.marked_integral);
        prop_assert_eq!(grown, sums[1] * 1_000_000);
        prop_assert!(resting <= running.len());
        drop(running);
        let end = bench.throttle.demand(now);
        prop_assert_eq!((end.running, end.marked, end.resting, end.resting_marked), (0, 0, 0, 0));
        prop_assert!(bench.throttle.is_idle());
    }
}

#[test]
fn a_stream_at_rest_keeps_its_place_at_a_limited_endpoint() {
    let bench = Bench::new(1, Supply::Fixed, 1);
    let slot = bench.gate.try_acquire(0).unwrap();
    slot.rest();
    assert!(bench.gate.try_acquire(0).is_none());
    drop(slot);
    assert!(bench.gate.try_acquire(0).is_some());
}

#[test]
fn a_marked_stream_that_moves_again_wakes_a_scaler_that_sleeps() {
    let bell = Bell::new();
    let bench = Bench::new(0, Supply::Scaled(bell.clone()), 1);
    bench.throttle.set_proxied(true);
    let slot = bench.gate.try_acquire(0).unwrap();
    slot.rest();
    let before = bench.throttle.listen(bench.clock.now());
    assert_eq!((before.running, before.marked, bell.rung()), (0, 0, 0));
    slot.stir();
    assert_eq!(bell.rung(), 1);
    bench.clock.set(bench.start + Duration::from_secs(1));
    let after = bench.throttle.demand(bench.clock.now());
    assert_eq!(average(&before, &after).marked, 1.0);
}
