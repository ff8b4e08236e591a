#![cfg(not(tidegate_loom))]

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
struct Change {
    /// Nanoseconds since the change before.
    after: u64,
    shard: usize,
    begins: bool,
    waiting: bool,
}

fn change() -> impl Strategy<Value = Change> {
    (
        0..2_000_000_000_u64,
        0..3_usize,
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(after, shard, begins, waiting)| Change {
            after,
            shard,
            begins,
            waiting,
        })
}

/// What one shard ought to say, kept the obvious way.
#[derive(Clone, Copy, Default)]
struct Plain {
    counts: [u32; 2],
    sums: [u128; 2],
}

impl Plain {
    fn pass(&mut self, time: u64) {
        for (sum, count) in self.sums.iter_mut().zip(self.counts) {
            *sum += u128::from(time) * u128::from(count);
        }
    }
}

fn reading(origin: Instant, now: u64, shards: &[Shard]) -> Reading {
    let sums = shards
        .iter()
        .map(|shard| shard.read(now))
        .fold(Sums::default(), |sum, shard| sum + shard);
    Reading {
        at: origin + Duration::from_nanos(now),
        running: sums.running,
        waiting: sums.waiting,
        running_integral: sums.running_integral,
        waiting_integral: sums.waiting_integral,
    }
}

proptest! {
    #[test]
    fn averages_are_the_areas_under_the_counts_over_the_time(
        changes in vec(change(), 1..60),
        ends in (0..60_usize, 0..60_usize),
        rest in 0..2_000_000_000_u64,
    ) {
        let origin = Instant::now();
        let shards = [Shard::new(), Shard::new(), Shard::new()];
        // Integrals wrap; averages must not notice.
        shards[0].0.0.running_integral.store(u64::MAX - 1_000, Ordering::Relaxed);
        let mut plain = [Plain::default(); 3];
        let mut now = 0;
        let mut seen = Vec::new();
        for change in &changes {
            let areas = |plain: &[Plain; 3]| {
                [0, 1].map(|which| plain.iter().map(|p| p.sums[which]).sum::<u128>())
            };
            seen.push((reading(origin, now, &shards), areas(&plain)));
            now += change.after;
            plain.iter_mut().for_each(|plain| plain.pass(change.after));
            let which = usize::from(change.waiting);
            let count = &mut plain[change.shard].counts[which];
            let by = if change.begins || *count == 0 { 1 } else { -1 };
            *count = count.wrapping_add_signed(by);
            let by = if change.waiting { (0, by) } else { (by, 0) };
            shards[change.shard].change(now, by.0, by.1);
            // Between changes too: the integral reaches to the instant asked for.
            let mut later = plain;
            later.iter_mut().for_each(|plain| plain.pass(rest));
            seen.push((reading(origin, now + rest, &shards), areas(&later)));
        }
        let (one, other) = (&seen[ends.0 % seen.len()], &seen[ends.1 % seen.len()]);
        let (earlier, later) = if one.0.at <= other.0.at { (one, other) } else { (other, one) };
        let (running, waiting) = average(&earlier.0, &later.0);
        let time = (later.0.at - earlier.0.at).as_nanos();
        for (average, which, last) in
            [(running, 0, later.0.running), (waiting, 1, later.0.waiting)]
        {
            // A reading taken for granted may be contradicted by a change before its instant.
            let expected = match time {
                0 => f64::from(last),
                _ => later.1[which].saturating_sub(earlier.1[which]) as f64 / time as f64,
            };
            prop_assert!((average - expected).abs() <= 1e-9 * expected.max(1.0),
                "{average}, not {expected}");
        }
        for (shard, plain) in shards.iter().zip(plain) {
            let sums = shard.read(now);
            prop_assert_eq!([sums.running, sums.waiting], plain.counts);
        }
    }
}

#[test]
fn a_change_dated_before_the_last_one_adds_no_time() {
    let shard = Shard::new();
    shard.change(100, 1, 0);
    shard.change(40, 1, 0);
    let sums = shard.read(110);
    assert_eq!((sums.running, sums.running_integral), (2, 20));
}

#[test]
fn an_average_is_never_negative() {
    let origin = Instant::now();
    let shards = [Shard::new()];
    shards[0].change(0, 1, 0);
    // The worker's clock was behind when it said that the request had ended before this.
    let earlier = reading(origin, 1_000, &shards);
    shards[0].change(500, -1, 0);
    let later = reading(origin, 2_000, &shards);
    assert_eq!(average(&earlier, &later), (0.0, 0.0));
}

#[test]
fn readings_of_one_instant_average_to_its_counts() {
    let origin = Instant::now();
    let shards = [Shard::new()];
    shards[0].change(0, 3, 2);
    let now = reading(origin, 10, &shards);
    assert_eq!(average(&now, &now), (3.0, 2.0));
}
