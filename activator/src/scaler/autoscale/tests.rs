use super::*;
use proptest::prelude::*;

const TARGET: f64 = 10.0;

fn scale(window: u64, grace: u64) -> Scale {
    Scale {
        min: 0,
        max: 0,
        target: TARGET,
        window: Duration::from_secs(window),
        grace: Duration::from_secs(grace),
    }
}

/// A revision whose endpoints are ready one tick after they were wanted.
struct World {
    autoscaler: Autoscaler,
    now: Instant,
    area: f64,
    ready: u32,
    /// Of the load, those that wait.
    waiting: u32,
    resting: u32,
}

impl World {
    fn new(scale: Scale) -> World {
        let mut world = World {
            autoscaler: Autoscaler::new(scale),
            now: Instant::now(),
            area: 0.0,
            ready: 0,
            waiting: 0,
            resting: 0,
        };
        world.tick(0);
        world
    }

    fn seen(&self, load: u32) -> Observation {
        Observation {
            at: self.now,
            area: self.area,
            load,
            waiting: self.waiting.min(load),
            resting: self.resting,
            ready: self.ready,
        }
    }

    fn wake(&mut self, load: u32) -> u32 {
        let seen = self.seen(load);
        self.autoscaler.wake(&seen)
    }

    /// One second under `load`, then a decision.
    fn tick(&mut self, load: u32) -> u32 {
        self.step(Duration::from_secs(1), load)
    }

    fn step(&mut self, time: Duration, load: u32) -> u32 {
        self.now += time;
        self.area += f64::from(load) * time.as_secs_f64();
        let seen = self.seen(load);
        let wanted = self.autoscaler.decide(&seen);
        self.ready = wanted;
        wanted
    }
}

#[test]
fn one_request_at_zero_wants_one_endpoint_at_once() {
    let mut world = World::new(scale(60, 30));
    assert_eq!(world.tick(0), 0);
    assert_eq!(world.wake(1), 1);
}

#[test]
fn a_queue_at_zero_is_sized_by_what_waits_now() {
    let mut world = World::new(scale(60, 30));
    assert_eq!(world.wake(95), 10);
    let mut slow = World::new(scale(60, 30));
    slow.wake(1);
    slow.now += Duration::from_millis(10);
    let seen = slow.seen(95);
    assert_eq!(slow.autoscaler.decide(&seen), 10);
}

#[test]
fn a_burst_is_followed_within_two_ticks() {
    let mut world = World::new(scale(60, 30));
    world.wake(1);
    for _ in 0..120 {
        world.tick(1);
    }
    assert_eq!(world.ready, 1);
    world.tick(90);
    world.tick(90);
    assert!(world.autoscaler.panicking());
    world.step(Duration::from_secs(6), 90);
    assert_eq!(world.ready, 9);
    // A short window sees the whole of it at the first tick.
    let mut short = World::new(scale(6, 2));
    short.wake(1);
    for _ in 0..20 {
        short.tick(1);
    }
    assert_eq!(short.tick(90), 9);
}

#[test]
fn panic_never_scales_down_and_ends_a_window_after_the_burst() {
    let mut world = World::new(scale(20, 30));
    world.wake(1);
    world.tick(10);
    world.tick(200);
    world.tick(200);
    let peak = world.ready;
    assert_eq!(peak, 20);
    let mut last = peak;
    let mut held = 0;
    while world.autoscaler.panicking() {
        last = world.tick(10);
        if world.autoscaler.panicking() {
            assert_eq!(last, peak);
        }
        held += 1;
        assert!(held <= 25);
    }
    assert!(held >= 18, "panic ended after {held} s");
    assert!(last < peak);
}

#[test]
fn constant_load_does_not_flap() {
    for load in [1_u32, 9, 10, 11, 70, 100, 333] {
        let mut world = World::new(scale(60, 30));
        world.wake(load);
        let expected = load.div_ceil(10);
        for tick in 0..600_u64 {
            // Ticks are never exactly a second apart.
            let time = Duration::from_millis(1000 + (tick * 7) % 13);
            assert_eq!(world.step(time, load), expected, "load {load}, tick {tick}");
        }
    }
}

#[test]
fn scaling_down_at_most_halves_per_tick() {
    let mut world = World::new(scale(2, 30));
    world.wake(1);
    for _ in 0..10 {
        world.tick(160);
    }
    assert_eq!(world.ready, 16);
    let mut seen = vec![];
    for _ in 0..10 {
        seen.push(world.tick(0));
    }
    seen.dedup();
    assert_eq!(seen.last(), Some(&1));
    for pair in seen.windows(2) {
        assert!(pair[1] >= pair[0] / 2, "{seen:?}");
    }
}

#[test]
fn to_zero_after_an_empty_window_and_the_grace_period() {
    let mut world = World::new(scale(6, 3));
    world.wake(1);
    for _ in 0..5 {
        world.tick(5);
    }
    let mut ticks = 0;
    while world.tick(0) > 0 {
        ticks += 1;
        assert!(ticks < 20);
    }
    // The window is empty at the sixth tick, and three more seconds of grace pass.
    assert_eq!(ticks, 8);
    assert_eq!(world.tick(0), 0);
}

#[test]
fn a_request_in_the_grace_period_starts_it_anew() {
    let mut world = World::new(scale(2, 3));
    world.wake(1);
    world.tick(1);
    for _ in 0..4 {
        assert_eq!(world.tick(0), 1);
    }
    assert_eq!(world.tick(1), 1);
    for _ in 0..4 {
        assert_eq!(world.tick(0), 1);
    }
    assert_eq!(world.tick(0), 0);
}

#[test]
fn a_request_of_this_instant_keeps_the_last_endpoint() {
    let mut world = World::new(scale(2, 0));
    world.wake(1);
    for _ in 0..10 {
        world.now += Duration::from_secs(1);
        let seen = world.seen(1);
        assert_eq!(world.autoscaler.decide(&seen), 1);
    }
}

#[test]
fn idle_time_before_a_wake_does_not_dilute_the_average() {
    let mut world = World::new(scale(60, 0));
    for _ in 0..100 {
        world.tick(0);
    }
    world.wake(1);
    assert_eq!(world.tick(15), 2);
}

#[test]
fn a_changed_scale_bounds_at_once_and_keeps_what_was_seen() {
    let mut world = World::new(scale(10, 5));
    world.wake(1);
    for _ in 0..10 {
        world.tick(80);
    }
    assert_eq!(world.ready, 8);
    world.autoscaler.set_scale(Scale {
        max: 5,
        ..scale(10, 5)
    });
    assert_eq!(world.autoscaler.wanted(), 5);
    world.autoscaler.set_scale(Scale {
        target: 5.0,
        ..scale(10, 5)
    });
    assert_eq!(world.tick(80), 16);
}

#[test]
fn long_windows_use_bounded_memory() {
    let mut world = World::new(scale(3600, 0));
    world.wake(1);
    for _ in 0..10_000 {
        world.tick(3);
    }
    assert!(world.autoscaler.samples.len() <= 260);
    assert_eq!(world.ready, 1);
}

prop_compose! {
    fn any_scale()(min in 0_u32..4, room in 0_u32..20, limited: bool, target in 1.0_f64..50.0,
        window in 1_u64..90, grace in 0_u64..60) -> Scale {
        Scale {
            min,
            max: if limited { (min + room).max(1) } else { 0 },
            target,
            window: Duration::from_secs(window),
            grace: Duration::from_secs(grace),
        }
    }
}

fn loads() -> impl Strategy<Value = Vec<(u64, u32)>> {
    let load = prop_oneof![Just(0_u32), 0_u32..20, 0_u32..5000];
    proptest::collection::vec((1_u64..2500, load), 1..120)
}

proptest! {
    #[test]
    fn stays_within_its_bounds(scale in any_scale(), history in loads()) {
        let mut world = World::new(scale.clone());
        for (millis, load) in history {
            if load > 0 {
                world.wake(load);
            }
            let ready = world.ready.max(1);
            let wanted = world.step(Duration::from_millis(millis), load);
            prop_assert!(wanted >= scale.min);
            prop_assert!(scale.max == 0 || wanted <= scale.max);
            prop_assert!(wanted <= ready.saturating_mul(1000).max(load).max(scale.min));
            prop_assert!(load == 0 || wanted > 0, "never zero while a request is here");
        }
    }

    #[test]
    fn more_load_never_wants_less(scale in any_scale(), history in loads(), more in 0_u32..3000) {
        let mut less = World::new(scale.clone());
        let mut greater = World::new(scale);
        let last = history.len() - 1;
        for (at, (millis, load)) in history.into_iter().enumerate() {
            let time = Duration::from_millis(millis);
            let plus = if at == last { more } else { 0 };
            let before = less.ready;
            greater.ready = before;
            let low = less.step(time, load);
            let high = greater.step(time, load + plus);
            prop_assert!(low <= high, "{low} > {high}");
        }
    }

    #[test]
    fn settles_at_load_over_target(scale in any_scale(), load in 1_u32..2000) {
        let unbounded = (f64::from(load) / scale.target - 1e-6).ceil();
        let expected = whole(unbounded).max(1).max(scale.min);
        let expected = if scale.max == 0 { expected } else { expected.min(scale.max) };
        let mut world = World::new(scale);
        world.wake(load);
        for _ in 0..300 {
            world.tick(load);
        }
        prop_assert_eq!(world.ready, expected);
    }

    #[test]
    fn ends_at_its_least_when_nobody_comes(scale in any_scale(), history in loads()) {
        let (least, empty) = (scale.min, scale.window + scale.grace);
        let mut world = World::new(scale);
        for (millis, load) in history {
            if load > 0 {
                world.wake(load);
            }
            world.step(Duration::from_millis(millis), load);
        }
        // Panic may outlive the load by a window, then halving takes a few ticks.
        for _ in 0..empty.as_secs() + 95 {
            world.tick(0);
        }
        prop_assert_eq!(world.ready, least);
    }
}

fn floor(world: &World, endpoints: u32, seconds: u64) -> Floor {
    Floor::new(endpoints, world.now, Duration::from_secs(seconds), PATIENCE)
}

/// For starts that a floor waits for.
const PATIENCE: Duration = Duration::from_secs(100);

impl World {
    fn expect(&mut self, endpoints: u32, seconds: u64) -> u32 {
        let floor = floor(self, endpoints, seconds);
        let seen = self.seen(0);
        self.ready = self.autoscaler.expect(&seen, floor);
        self.ready
    }
}

#[test]
fn what_is_expected_is_wanted_at_once_and_for_that_time() {
    let mut world = World::new(scale(10, 5));
    assert_eq!(world.expect(3, 60), 3);
    // It begins with the tick that sees them ready.
    for _ in 0..60 {
        assert_eq!(world.tick(0), 3);
    }
    // The window is empty and the grace period over by then.
    assert_eq!(world.tick(0), 0);
}

#[test]
fn what_is_expected_for_less_than_the_grace_period_goes_after_it() {
    let mut world = World::new(scale(10, 30));
    world.expect(1, 5);
    for _ in 0..30 {
        assert_eq!(world.tick(0), 1);
    }
    assert_eq!(world.tick(0), 0);
}

#[test]
fn more_may_be_wanted_than_was_expected_and_never_more_than_may_be() {
    let mut world = World::new(Scale {
        max: 4,
        ..scale(10, 5)
    });
    world.expect(2, 60);
    world.tick(35);
    assert_eq!(world.tick(35), 4);
    let mut world = World::new(Scale {
        max: 4,
        ..scale(10, 5)
    });
    assert_eq!(world.expect(100, 60), 4);
}

#[test]
fn the_higher_of_two_floors_holds_for_as_long_as_either() {
    let mut world = World::new(scale(10, 0));
    world.expect(3, 20);
    assert_eq!(world.expect(1, 40), 3);
    for _ in 0..40 {
        assert_eq!(world.tick(0), 3);
    }
    assert_eq!(world.tick(0), 0);
    assert_eq!(world.expect(1, 40), 1);
}

impl World {
    /// One endpoint, whose requests have all come to rest since a window ago.
    fn silent(scale: Scale, resting: u32) -> World {
        let window = scale.window.as_secs();
        let mut world = World::new(scale);
        world.wake(resting);
        for _ in 0..10 {
            world.tick(resting);
        }
        world.resting = resting;
        for _ in 0..window {
            world.tick(0);
        }
        assert_eq!(world.ready, 1);
        world
    }

    /// A second in which so many wait.
    fn wait(&mut self, waiting: u32) -> u32 {
        self.waiting = waiting;
        let wanted = self.tick(waiting);
        self.waiting = 0;
        wanted
    }
}

#[test]
fn who_waits_for_slots_of_silent_streams_gets_another_endpoint_at_once() {
    // However long the window, and though one request is far from what an endpoint carries.
    for window in [6, 60, 3600] {
        let mut world = World::silent(scale(window, 3600), 10);
        assert_eq!(world.wait(1), 2, "{window}");
        assert!(!world.autoscaler.panicking());
    }
    // Where nothing rests, averages decide.
    let mut world = World::silent(scale(60, 3600), 10);
    world.resting = 0;
    assert_eq!(world.wait(1), 1);
}

#[test]
fn silent_streams_alone_or_beside_requests_that_need_not_wait_keep_nothing() {
    let mut world = World::silent(scale(60, 30), 10);
    for _ in 0..100 {
        assert_eq!(world.tick(1), 1);
    }
    for _ in 0..90 {
        world.tick(0);
    }
    assert_eq!(world.ready, 0);
}

#[test]
fn what_was_started_for_who_waited_stays_for_a_window_and_goes_with_it() {
    let mut world = World::silent(scale(20, 30), 10);
    assert_eq!(world.wait(1), 2);
    assert_eq!(world.wait(1), 2);
    for _ in 0..19 {
        assert_eq!(world.tick(0), 2);
    }
    for _ in 0..30 {
        assert_eq!(world.tick(0), 1);
    }
    assert_eq!(world.tick(0), 0);
}

#[test]
fn silent_streams_of_endpoints_that_are_gone_are_in_nobodys_way() {
    let mut world = World::silent(scale(60, 30), 30);
    world.ready = 0;
    assert_eq!(world.wait(1), 1);
}

impl World {
    /// A second without requests in which nothing became ready.
    fn tick_in_vain(&mut self, ready: u32) -> u32 {
        let wanted = self.tick(0);
        self.ready = ready;
        wanted
    }
}

#[test]
fn the_time_of_what_is_expected_begins_when_it_is_ready() {
    let mut world = World::new(scale(10, 0));
    world.expect(2, 5);
    world.ready = 0;
    // Many times as long as it was asked for; one is not both.
    for ready in [0, 1] {
        for _ in 0..40 {
            assert_eq!(world.tick_in_vain(ready), 2);
        }
    }
    world.ready = 2;
    for _ in 0..5 {
        assert_eq!(world.tick(0), 2);
    }
    assert_eq!(world.tick(0), 0);
}

#[test]
fn what_is_expected_is_ready_when_there_is_all_that_may_be() {
    let mut world = World::new(Scale {
        max: 2,
        ..scale(10, 0)
    });
    world.expect(3, 5);
    for _ in 0..5 {
        assert_eq!(world.tick(0), 2);
    }
    assert_eq!(world.tick(0), 0);
}

#[test]
fn what_is_expected_and_never_ready_is_given_up() {
    for (seconds, held) in [(5, 100), (150, 150)] {
        let mut world = World::new(scale(10, 0));
        world.expect(2, seconds);
        world.ready = 1;
        for _ in 1..held {
            assert_eq!(world.tick_in_vain(1), 2, "{seconds}");
        }
        assert_eq!(world.tick_in_vain(1), 0, "{seconds}");
    }
}

#[test]
fn of_two_floors_each_has_its_time() {
    let now = Instant::now();
    let at = |seconds| now + Duration::from_secs(seconds);
    let floor = |endpoints, asked, seconds| {
        Floor::new(endpoints, at(asked), Duration::from_secs(seconds), PATIENCE)
    };
    let is_left = |floor: Floor, ready, seconds| floor.left(ready, u32::MAX, at(seconds));
    // The first is met and has a hundred seconds; the second begins when it is.
    let first = is_left(floor(1, 0, 100), 1, 1).unwrap();
    let both = floor(2, 50, 10).and(Some(first));
    let met = is_left(both, 2, 60).unwrap();
    assert!(is_left(met, 2, 100).is_some());
    assert_eq!(is_left(met, 2, 101), None);
    let late = is_left(both, 2, 120).unwrap();
    assert!(is_left(late, 2, 129).is_some());
    assert_eq!(is_left(late, 2, 130), None);
    assert_eq!(both, first.and(Some(floor(2, 50, 10))));
}
