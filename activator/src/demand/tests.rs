#![cfg(not(tidegate_loom))]

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
struct Event {
    /// Nanoseconds since the change before.
    after: u64,
    shard: usize,
    begins: bool,
    /// Of running, waiting and marked requests.
    which: usize,
}

fn event() -> impl Strategy<Value = Event> {
    (0..2_000_000_000_u64, 0..3_usize, any::<bool>(), 0..3_usize).prop_map(
        |(after, shard, begins, which)| Event {
            after,
            shard,
            begins,
            which,
        },
    )
}

fn change(running: i8, waiting: i8, marked: i8) -> Change {
    Change {
        running,
        waiting,
        marked,
        asks: waiting > 0 || marked > 0,
        ..Change::default()
    }
}

/// What one shard ought to say, kept the obvious way.
#[derive(Clone, Copy, Default)]
struct Plain {
    counts: [u32; 3],
    sums: [u128; 3],
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
    sums.reading(origin + Duration::from_nanos(now))
}

proptest! {
    #[test]
    fn averages_are_the_areas_under_the_counts_over_the_time(
        events in vec(event(), 1..60),
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
        let mut asked = 0;
        for event in &events {
            let areas = |plain: &[Plain; 3]| {
                [0, 1, 2].map(|which| plain.iter().map(|p| p.sums[which]).sum::<u128>())
            };
            seen.push((reading(origin, now, &shards), areas(&plain)));
            now += event.after;
            plain.iter_mut().for_each(|plain| plain.pass(event.after));
            let counts = &mut plain[event.shard].counts;
            let idle = counts[1] == 0 && counts[2] == 0;
            let count = &mut counts[event.which];
            let by: i8 = if event.begins || *count == 0 { 1 } else { -1 };
            *count = count.wrapping_add_signed(by.into());
            let mut by_each = [0; 3];
            by_each[event.which] = by;
            let [running, waiting, marked] = by_each;
            let change = change(running, waiting, marked);
            asked += u32::from(change.asks);
            let begins = shards[event.shard].change(now, change);
            prop_assert_eq!(begins, change.asks && idle);
            // Between changes too: the integral reaches to the instant asked for.
            let mut later = plain;
            later.iter_mut().for_each(|plain| plain.pass(rest));
            seen.push((reading(origin, now + rest, &shards), areas(&later)));
        }
        let (one, other) = (&seen[ends.0 % seen.len()], &seen[ends.1 % seen.len()]);
        let (earlier, later) = if one.0.at <= other.0.at { (one, other) } else { (other, one) };
        let averages = average(&earlier.0, &later.0);
        let time = (later.0.at - earlier.0.at).as_nanos();
        for (average, which, last) in [
            (averages.running, 0, later.0.running),
            (averages.waiting, 1, later.0.waiting),
            (averages.marked, 2, later.0.marked),
        ] {
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
            prop_assert_eq!([sums.running, sums.waiting, sums.marked], plain.counts);
        }
        prop_assert_eq!(reading(origin, now, &shards).asked, asked);
    }
}

#[test]
fn a_change_dated_before_the_last_one_adds_no_time() {
    let shard = Shard::new();
    shard.change(100, change(1, 0, 0));
    shard.change(40, change(1, 0, 0));
    let sums = shard.read(110);
    assert_eq!((sums.running, sums.running_integral), (2, 20));
}

#[test]
fn a_change_of_nothing_marked_leaves_the_marked_integral_to_the_reader() {
    let shard = Shard::new();
    shard.change(100, change(1, 0, 1));
    shard.change(150, change(1, 0, 0));
    let sums = shard.read(200);
    assert_eq!((sums.marked, sums.marked_integral), (1, 100));
    assert_eq!((sums.running, sums.running_integral), (2, 150));
}

#[test]
fn an_average_is_never_negative() {
    let origin = Instant::now();
    let shards = [Shard::new()];
    shards[0].change(0, change(1, 0, 0));
    // The worker's clock was behind when it said that the request had ended before this.
    let earlier = reading(origin, 1_000, &shards);
    shards[0].change(500, change(-1, 0, 0));
    let later = reading(origin, 2_000, &shards);
    assert_eq!(average(&earlier, &later).running, 0.0);
}

#[test]
fn readings_of_one_instant_average_to_its_counts() {
    let origin = Instant::now();
    let shards = [Shard::new()];
    shards[0].change(0, change(3, 2, 1));
    let now = reading(origin, 10, &shards);
    let expected = Averages {
        running: 3.0,
        waiting: 2.0,
        marked: 1.0,
    };
    assert_eq!(average(&now, &now), expected);
}
