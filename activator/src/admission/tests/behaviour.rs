use std::time::Duration;

use super::super::{EndpointState, SUSPICION, Share};
use super::*;
use crate::demand::average;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn without_an_endpoint_and_a_scaler_nobody_waits() {
    let bench = Bench::new(1, Supply::None, 0);
    let refused = bench.gate.wait(Claim::new(bench.start)).unwrap_err();
    assert_eq!(refused, AcquireError::NoScaler);
    bench.throttle.set_endpoints(&[address(0)]);
    assert!(bench.gate.try_acquire(0).is_some());
}

#[test]
fn waiters_hear_that_the_last_endpoint_left_with_nobody_to_bring_another() {
    let bench = Bench::new(1, Supply::None, 1);
    let slot = bench.gate.try_acquire(0).unwrap();
    let mut waiting = bench.wait();
    bench.throttle.set_endpoints(&[]);
    assert_eq!(ready(&mut waiting).unwrap_err(), AcquireError::NoScaler);
    drop(slot);
    assert!(bench.throttle.is_idle());
}

#[test]
fn waiters_hear_that_the_scaler_went() {
    let bench = Bench::new(1, Supply::Fixed, 0);
    let mut waiting = bench.wait();
    bench.throttle.set_supply(Supply::None);
    assert_eq!(ready(&mut waiting).unwrap_err(), AcquireError::NoScaler);
}

#[test]
fn a_failed_start_is_told_until_an_endpoint_comes_or_it_is_cleared() {
    let bell = Bell::new();
    let bench = Bench::new(1, Supply::Scaled(bell), 0);
    let failed = AcquireError::StartFailed("exit 1".into());
    let mut waiting = bench.wait();
    bench.throttle.fail("exit 1".into(), later(&bench));
    assert_eq!(ready(&mut waiting).unwrap_err(), failed);
    assert_eq!(
        bench.gate.wait(Claim::new(bench.start)).unwrap_err(),
        failed
    );

    bench.throttle.clear_failure();
    drop(bench.wait());

    bench.throttle.fail("exit 1".into(), later(&bench));
    bench.throttle.set_endpoints(&[address(0)]);
    assert!(bench.gate.try_acquire(0).is_some());
    bench.throttle.set_endpoints(&[]);
    drop(bench.wait());
}

#[test]
fn one_more_that_cannot_start_harms_nobody() {
    let bench = Bench::new(1, Supply::Scaled(Bell::new()), 1);
    let slot = bench.gate.try_acquire(0).unwrap();
    let mut waiting = bench.wait();
    bench.throttle.fail("no port left".into(), later(&bench));
    drop(slot);
    assert!(ready(&mut waiting).is_ok());
}

#[test]
fn a_removed_revision_serves_while_it_has_endpoints() {
    let bench = Bench::new(1, Supply::Fixed, 1);
    let slot = bench.gate.try_acquire(0).unwrap();
    let (mut first, mut second) = (bench.wait(), bench.wait());
    bench.throttle.retire();
    drop(slot);
    let slot = ready(&mut first).unwrap();
    bench.throttle.set_endpoints(&[]);
    assert_eq!(ready(&mut second).unwrap_err(), AcquireError::Removed);
    let refused = bench.gate.wait(Claim::new(bench.start)).unwrap_err();
    assert_eq!(refused, AcquireError::Removed);
    assert!(!bench.throttle.is_idle());
    drop(slot);
    assert!(bench.throttle.is_idle());

    bench.throttle.set_supply(Supply::Fixed);
    drop(bench.wait());
}

#[test]
fn the_queue_and_the_process_have_bounds() {
    let bench = Bench::new(1, Supply::Fixed, 0);
    let limits = Limits::new(1, 2);
    bench.throttle.configure(limits);
    let _waiting = [bench.wait(), bench.wait()];
    let refused = bench.gate.wait(Claim::new(bench.start)).unwrap_err();
    assert_eq!(refused, AcquireError::QueueFull(Bound::Depth));

    let holding = Holding::new(1, 100);
    let throttle = Throttle::new(limits, Supply::Fixed, &holding.namespace("default"), 1);
    let gate = Gate::new(throttle, 0, Rc::clone(&bench.clock));
    let waiting = gate.wait(Claim::new(bench.start)).unwrap();
    let refused = gate.wait(Claim::new(bench.start)).unwrap_err();
    assert_eq!(refused, AcquireError::QueueFull(Bound::Held));
    drop(waiting);
    assert_eq!(holding.held(), 0);
}

fn pinning(bytes: u64) -> Claim {
    Claim {
        bytes,
        ..Claim::new(Instant::now())
    }
}

#[test]
fn who_may_not_wait_still_wakes_a_scaler_where_nobody_is_there() {
    let bell = Bell::new();
    let bench = Bench::new(1, Supply::Scaled(bell.clone()), 0);
    bench.throttle.configure(Limits::new(1, 0));
    let refused = |claim| bench.gate.wait(claim).unwrap_err();
    let full = AcquireError::QueueFull(Bound::Depth);
    assert_eq!(refused(Claim::new(bench.start)), full);
    assert_eq!(bell.rung(), 1);
    // Told once, for a while.
    assert_eq!(refused(Claim::new(bench.start)), full);
    assert_eq!(bell.rung(), 1);
    bench.clock.set(bench.start + Duration::from_secs(1));
    assert_eq!(refused(Claim::new(bench.start)), full);
    assert_eq!(bell.rung(), 2);
    // Whose requests are served can see by itself how many there are.
    bench.throttle.set_endpoints(&[address(0)]);
    let _busy = bench.gate.try_acquire(0).unwrap();
    bench.clock.set(bench.start + Duration::from_secs(2));
    assert_eq!(refused(Claim::new(bench.start)), full);
    assert_eq!(bell.rung(), 2);
}

#[test]
fn held_bytes_are_given_back_when_the_waiting_ends() {
    let holding = Holding::new(10, 100);
    let bench = Bench::of(&holding, 1, Supply::Fixed, 1);
    let try_wait = |bytes| bench.gate.wait(pinning(bytes));
    let wait = |bytes| try_wait(bytes).unwrap();
    let slot = bench.gate.try_acquire(0).unwrap();
    let first = wait(60);
    let mut second = wait(40);
    assert_eq!(
        try_wait(1).unwrap_err(),
        AcquireError::QueueFull(Bound::HeldBytes)
    );
    drop(first);
    assert_eq!((holding.bytes(), bench.throttle.held_bytes()), (40, 40));
    drop(slot);
    let slot = ready(&mut second).unwrap();
    assert_eq!((holding.bytes(), bench.throttle.held_bytes()), (0, 0));
    let refused = try_wait(u64::MAX).unwrap_err();
    assert_eq!(refused, AcquireError::QueueFull(Bound::HeldBytes));
    drop(slot);
    assert_eq!((holding.bytes(), bench.throttle.held_bytes()), (0, 0));
}

#[test]
fn a_revision_holds_no_more_bytes_than_it_may_and_leaves_the_rest_to_others() {
    let holding = Holding::new(10, 100);
    let greedy = Bench::of(&holding, 1, Supply::Fixed, 1);
    let other = Bench::of(&holding, 1, Supply::Fixed, 1);
    let mut limits = Limits {
        queue_bytes: Some(50),
        ..Limits::new(1, 10)
    };
    greedy.throttle.configure(limits);
    let _busy = [&greedy, &other].map(|it| it.gate.try_acquire(0).unwrap());
    let wait = |bench: &Bench, bytes| bench.gate.wait(pinning(bytes));
    let held = wait(&greedy, 50).unwrap();
    let refused = wait(&greedy, 1).unwrap_err();
    assert_eq!(refused, AcquireError::QueueFull(Bound::Bytes));
    let others = wait(&other, 50).unwrap();
    assert_eq!(greedy.throttle.held_bytes(), 50);
    assert_eq!(other.throttle.held_bytes(), 50);
    limits.queue_bytes = Some(60);
    greedy.throttle.configure(limits);
    let refused = wait(&greedy, 1).unwrap_err();
    assert_eq!(
        refused,
        AcquireError::QueueFull(Bound::HeldBytes),
        "there is none left"
    );
    drop((held, others));
    assert_eq!(holding.bytes(), 0);
    drop(wait(&greedy, 60).unwrap());
    let refused = wait(&other, 51).unwrap_err();
    assert_eq!(
        refused,
        AcquireError::QueueFull(Bound::Bytes),
        "more than its share"
    );
}

#[test]
fn a_lone_revision_may_hold_all_bytes() {
    let holding = Holding::new(10, 100);
    let bench = Bench::of(&holding, 1, Supply::Fixed, 1);
    let _busy = bench.gate.try_acquire(0).unwrap();
    let _all = bench.gate.wait(pinning(100)).unwrap();
    assert_eq!(bench.throttle.held_bytes(), 100);
}

/// As many as the namespace may hold, in gates of one worker each.
fn flood(holding: &Arc<Holding>, namespace: &str) -> Vec<Waiting> {
    let limits = Limits::new(1, 10_000);
    let namespace = holding.namespace(namespace);
    let mut all = Vec::new();
    // No one revision is at fault: they are many.
    loop {
        let throttle = Throttle::new(limits, Supply::Fixed, &namespace, 1);
        let clock = Clock::new(Instant::now());
        let gate = Gate::new(throttle, 0, Rc::clone(&clock));
        for _ in 0..7 {
            match gate.wait(Claim::new(clock.now())) {
                Ok(waiting) => all.push(waiting),
                Err(error) => {
                    assert!(matches!(error, AcquireError::QueueFull(_)));
                    // Some gave way to others of them.
                    all.retain_mut(|waiting| poll(waiting, &Bell::new()).is_pending());
                    return all;
                }
            }
        }
    }
}

#[test]
fn a_flooding_namespace_leaves_half_of_the_places_to_the_others() {
    let holding = Holding::new(100, 0);
    // Alone it may have all.
    let alone = flood(&holding, "one");
    assert_eq!(alone.len(), 100);
    drop(alone);
    let other = holding.namespace("other");
    let flooding = flood(&holding, "one");
    assert_eq!(flooding.len(), 50);
    assert_eq!(flood(&holding, "other").len(), 50);
    // A third one takes what is there, up to its half.
    assert_eq!(flood(&holding, "third").len(), 50);
    let more = flood(&holding, "third");
    assert_eq!((more.len(), holding.held()), (50, 100));
    drop((flooding, more));
    assert_eq!(holding.held(), 0);
    drop(other);
    assert_eq!(flood(&holding, "one").len(), 100, "it is alone again");
}

#[test]
fn what_a_namespace_may_hold_can_be_said() {
    let holding = Holding::bounded(Bounds {
        held: 100,
        bytes: 0,
        per_namespace: Some(30),
        per_address: None,
    });
    assert_eq!(flood(&holding, "one").len(), 30);
    let _kept: Vec<_> = ["a", "b", "c"].map(|name| flood(&holding, name)).into();
    assert_eq!(holding.held(), 90);
    // What is left, and then about as much as the biggest ones have.
    let late = flood(&holding, "d").len();
    assert!((24..=25).contains(&late), "{late}");
}

#[test]
fn a_repeated_request_keeps_its_place() {
    let bench = Bench::new(1, Supply::Fixed, 1);
    let slot = bench.gate.try_acquire(0).unwrap();
    bench.clock.set(bench.start + SECOND);
    let mut later = bench.wait();
    let mut repeated = bench.gate.wait(Claim::new(bench.start)).unwrap();
    drop(slot);
    let slot = ready(&mut repeated).unwrap();
    assert!(poll(&mut later, &Bell::new()).is_pending());
    drop(slot);
    assert!(ready(&mut later).is_ok());
}

#[test]
fn a_newcomer_never_overtakes_a_waiter() {
    let bench = Bench::new(1, Supply::Fixed, 1);
    let slot = bench.gate.try_acquire(0).unwrap();
    let mut waiting = bench.wait();
    drop(slot);
    assert!(bench.gate.try_acquire(0).is_none());
    let mut newcomer = bench.wait();
    assert!(poll(&mut newcomer, &Bell::new()).is_pending());
    assert!(ready(&mut waiting).is_ok());
}

#[test]
fn a_dropped_grant_passes_on() {
    let bench = Bench::new(1, Supply::Fixed, 1);
    let slot = bench.gate.try_acquire(0).unwrap();
    let (granted, mut next) = (bench.wait(), bench.wait());
    let bell = Bell::new();
    assert!(poll(&mut next, &bell).is_pending());
    drop(slot);
    assert_eq!(bell.rung(), 0);
    drop(granted);
    assert_eq!(bell.rung(), 1);
    assert!(ready(&mut next).is_ok());
}

#[test]
fn a_slot_is_freed_by_a_panic() {
    let bench = Bench::new(1, Supply::Fixed, 1);
    let gate = std::panic::AssertUnwindSafe(Rc::clone(&bench.gate));
    let outcome = std::panic::catch_unwind(move || {
        let _slot = gate.try_acquire(0);
        panic!("while a slot is held");
    });
    assert!(outcome.is_err());
    assert!(bench.throttle.is_idle());
}

#[test]
fn a_suspect_is_passed_over_while_another_is_ready() {
    let bench = Bench::new(0, Supply::Fixed, 2);
    let slot = bench.gate.try_acquire(0).unwrap();
    let failed = slot.address();
    slot.suspect();
    drop(slot);
    for random in 0..100 {
        let slot = bench.gate.try_acquire(random << 25).unwrap();
        assert_ne!(slot.address(), failed);
    }
    bench.holding.sweep(bench.start + SUSPICION);
    let states = bench.throttle.endpoints();
    assert!(states.iter().all(|s| s.state == EndpointState::Ready));
}

#[test]
fn a_lone_flapping_fixed_endpoint_is_tried_again_at_once() {
    let bench = Bench::new(1, Supply::Fixed, 1);
    for _ in 0..3 {
        let slot = ready(&mut bench.wait()).unwrap();
        slot.suspect();
    }
}

#[test]
fn where_all_are_suspect_the_one_that_failed_last_comes_last() {
    let bench = Bench::new(1, Supply::Fixed, 6);
    let mut last = None;
    for turn in 0..100 {
        bench.clock.set(bench.start + Duration::from_millis(turn));
        let slot = ready(&mut bench.wait()).unwrap();
        assert_ne!(Some(slot.address()), last, "repeated where it failed");
        slot.suspect();
        last = Some(slot.address());
    }
    let slots: Vec<_> = (0..6)
        .map(|_| ready(&mut bench.wait()).unwrap().address())
        .collect();
    assert!(slots.iter().all(|at| Some(*at) != last));
    let slots: Vec<_> = (0..6).map(|_| ready(&mut bench.wait()).unwrap()).collect();
    assert_eq!(Some(slots[5].address()), last);
    drop(slots);
}

#[test]
fn with_a_scaler_waiters_wait_until_the_suspicion_ends() {
    let bell = Bell::new();
    let bench = Bench::new(1, Supply::Scaled(Arc::clone(&bell) as _), 1);
    let slot = bench.gate.try_acquire(0).unwrap();
    slot.suspect();
    drop(slot);
    let mut waiting = bench.wait();
    assert!(poll(&mut waiting, &Bell::new()).is_pending());
    assert_eq!(bell.rung(), 1);
    bench.holding.sweep(bench.start + SUSPICION / 2);
    assert!(poll(&mut waiting, &Bell::new()).is_pending());
    bench.holding.sweep(bench.start + SUSPICION);
    assert!(ready(&mut waiting).is_ok());
}

#[test]
fn a_suspicion_renewed_is_watched_until_it_ends() {
    let bench = Bench::new(1, Supply::Scaled(Bell::new()), 1);
    let slot = bench.gate.try_acquire(0).unwrap();
    slot.suspect();
    bench.clock.set(bench.start + SUSPICION / 2);
    slot.suspect();
    drop(slot);
    bench.holding.sweep(bench.start + SUSPICION);
    assert!(bench.gate.try_acquire(0).is_none());
    bench.holding.sweep(bench.start + SUSPICION * 3 / 2);
    assert!(bench.gate.try_acquire(0).is_some());
}

#[test]
fn the_scaler_is_nudged_when_the_first_one_waits() {
    let bell = Bell::new();
    let bench = Bench::new(1, Supply::Scaled(Arc::clone(&bell) as _), 0);
    let waiting = [bench.wait(), bench.wait()];
    assert_eq!(bell.rung(), 1);
    drop(waiting);
    drop(bench.wait());
    assert_eq!(
        bell.rung(),
        2,
        "nothing is merged while no endpoint is ready"
    );
}

#[test]
fn nudges_are_merged_while_an_endpoint_is_ready() {
    let bell = Bell::new();
    let bench = Bench::new(1, Supply::Scaled(Arc::clone(&bell) as _), 1);
    let _slot = bench.gate.try_acquire(0).unwrap();
    for _ in 0..10 {
        drop(bench.wait());
    }
    assert_eq!(bell.rung(), 1);
    bench.clock.set(bench.start + Duration::from_millis(10));
    drop(bench.wait());
    assert_eq!(bell.rung(), 2);
}

#[test]
fn a_new_scaler_hears_of_those_who_wait() {
    let bench = Bench::new(1, Supply::Fixed, 0);
    let _waiting = bench.wait();
    let bell = Bell::new();
    bench
        .throttle
        .set_supply(Supply::Scaled(Arc::clone(&bell) as _));
    assert_eq!(bell.rung(), 1);
}

#[test]
fn a_raised_limit_lets_waiters_in_at_once_and_a_lowered_one_cuts_nobody() {
    let bench = Bench::new(2, Supply::Fixed, 1);
    let slots = [
        bench.gate.try_acquire(0).unwrap(),
        bench.gate.try_acquire(0).unwrap(),
    ];
    let mut waiting = bench.wait();
    let limited = |concurrency| Limits::new(concurrency, 10);
    bench.throttle.configure(limited(3));
    let third = ready(&mut waiting).unwrap();
    bench.throttle.configure(limited(1));
    assert_eq!(bench.throttle.in_flight(), 3);
    let mut waiting = bench.wait();
    drop(slots);
    assert!(poll(&mut waiting, &Bell::new()).is_pending());
    drop(third);
    assert!(ready(&mut waiting).is_ok());
}

#[test]
fn a_limit_counts_the_slots_from_before_it() {
    let bench = Bench::new(0, Supply::Fixed, 1);
    let slots = [
        bench.gate.try_acquire(0).unwrap(),
        bench.gate.try_acquire(0).unwrap(),
    ];
    bench.throttle.configure(Limits::new(2, 10));
    let mut waiting = bench.wait();
    let [one, other] = slots;
    drop(one);
    let new = ready(&mut waiting).unwrap();
    assert!(new.limited() && !other.limited());
    assert_eq!(bench.throttle.in_flight(), 2);
    drop(other);
    assert!(bench.gate.try_acquire(0).is_some(), "warm again");
}

#[test]
fn the_same_address_is_the_same_endpoint_with_its_count() {
    let bench = Bench::new(1, Supply::Fixed, 1);
    let slot = bench.gate.try_acquire(0).unwrap();
    bench.throttle.set_endpoints(&[]);
    let status = bench.throttle.endpoints();
    assert_eq!(status[0].state, EndpointState::Draining);
    bench.throttle.set_endpoints(&[address(0)]);
    assert_eq!(bench.throttle.endpoints()[0].id, slot.endpoint());
    assert!(bench.gate.try_acquire(0).is_none());
    drop(slot);
    assert!(bench.gate.try_acquire(0).is_some());
}

#[test]
fn a_drained_endpoint_gets_no_slot_and_goes_when_empty() {
    for concurrency in [0, 3] {
        let bench = Bench::new(concurrency, Supply::Fixed, 1);
        let slot = bench.gate.try_acquire(0).unwrap();
        bench.throttle.drain(address(0));
        assert!(bench.gate.try_acquire(0).is_none());
        assert_eq!(bench.throttle.in_flight_at(address(0)), 1);
        drop(slot);
        assert_eq!(bench.throttle.in_flight_at(address(0)), 0);
        assert_eq!(bench.throttle.endpoints(), []);
    }
}

#[test]
fn an_abandoned_exchange_shows_as_lingering_until_it_ends() {
    let bench = Bench::new(1, Supply::Fixed, 1);
    let mut slot = bench.gate.try_acquire(0).unwrap();
    slot.linger();
    slot.linger();
    let status = bench.throttle.endpoints()[0];
    assert_eq!(status.state, EndpointState::Lingering);
    assert_eq!((status.in_flight, status.lingering), (1, 1));
    drop(slot);
    let status = bench.throttle.endpoints()[0];
    assert_eq!(status.state, EndpointState::Ready);
    assert_eq!((status.in_flight, status.lingering), (0, 0));
}

#[test]
fn requests_spread_over_endpoints_without_a_limit() {
    for endpoints in [2u16, 4, 30] {
        let bench = Bench::new(0, Supply::Fixed, endpoints);
        let mut rng = fastrand::Rng::with_seed(1);
        let count = usize::from(endpoints) * 100;
        let slots: Vec<_> = (0..count)
            .map(|_| bench.gate.try_acquire(rng.u32(..)).unwrap())
            .collect();
        let statuses = bench.throttle.endpoints();
        let counts = || statuses.iter().map(|s| s.in_flight);
        assert!(
            counts().max().unwrap() <= 105,
            "{:?}",
            counts().collect::<Vec<_>>()
        );
        drop(slots);
    }
}

#[test]
fn equals_are_drawn_by_chance() {
    let bench = Bench::new(0, Supply::Fixed, 3);
    let mut rng = fastrand::Rng::with_seed(1);
    let mut hits = std::collections::HashMap::new();
    for _ in 0..3_000 {
        let slot = bench.gate.try_acquire(rng.u32(..)).unwrap();
        *hits.entry(slot.address()).or_insert(0) += 1;
    }
    assert!(hits.values().all(|n| (900..1100).contains(n)), "{hits:?}");
}

#[test]
fn thousands_are_let_in_when_an_unlimited_endpoint_comes() {
    let bench = Bench::new(0, Supply::Fixed, 0);
    let bell = Bell::new();
    let mut waiting: Vec<_> = (0..5_000).map(|_| bench.wait()).collect();
    for waiting in &mut waiting {
        assert!(poll(waiting, &bell).is_pending());
    }
    assert_eq!(bench.throttle.demand(bench.start).waiting, 5_000);
    bench.throttle.set_endpoints(&[address(0)]);
    assert_eq!(bell.rung(), 5_000);
    let slots: Vec<_> = waiting.iter_mut().map(|w| ready(w).unwrap()).collect();
    assert_eq!(bench.throttle.in_flight_at(address(0)), 5_000);
    assert_eq!(bench.throttle.demand(bench.start).running, 5_000);
    assert_eq!(bench.holding.held(), 0);
    drop(slots);
    assert!(bench.throttle.is_idle());
}

#[test]
fn a_woken_task_may_come_back_at_once() {
    /// A waker that uses the throttle, as an executor that runs tasks inside `wake` would.
    struct Eager(Arc<Throttle>);
    impl Wake for Eager {
        fn wake(self: Arc<Self>) {
            assert!(self.0.in_flight() > 0);
        }
    }
    let bench = Bench::new(1, Supply::Fixed, 1);
    let slot = bench.gate.try_acquire(0).unwrap();
    let mut waiting = bench.wait();
    let waker = Waker::from(Arc::new(Eager(Arc::clone(&bench.throttle))));
    let polled = Pin::new(&mut waiting).poll(&mut Context::from_waker(&waker));
    assert!(polled.is_pending());
    drop(slot);
    assert!(ready(&mut waiting).is_ok());
}

#[test]
fn demand_tells_waiting_and_running_apart() {
    let bench = Bench::new(1, Supply::Fixed, 1);
    let from = bench.throttle.demand(bench.start);
    let slot = bench.gate.try_acquire(0).unwrap();
    let mut waiting = bench.wait();
    bench.clock.set(bench.start + SECOND);
    drop(slot);
    let slot = ready(&mut waiting).unwrap();
    bench.clock.set(bench.start + 3 * SECOND);
    drop(slot);
    let to = bench.throttle.demand(bench.start + 4 * SECOND);
    let averages = average(&from, &to);
    assert_eq!((averages.running, averages.waiting), (0.75, 0.25));
    assert_eq!((to.running, to.waiting), (0, 0));
    assert_eq!((to.asked, averages.marked), (1, 0.0));
}

#[test]
fn a_request_that_is_made_again_is_told_apart_however_it_gets_its_slot() {
    let bench = Bench::new(1, Supply::Fixed, 1);
    bench.throttle.set_proxied(true);
    let asked = || {
        let reading = bench.throttle.demand(bench.start);
        (reading.asked, reading.again)
    };
    let again = || Claim {
        again: true,
        ..Claim::new(bench.start)
    };
    drop(bench.gate.try_acquire(0).unwrap());
    assert_eq!(asked(), (1, 0));
    drop(bench.gate.try_acquire_again(0).unwrap());
    assert_eq!(asked(), (2, 1));
    // There was room before the waiting began.
    let mut waiting = bench.gate.wait(again()).unwrap();
    let slot = ready(&mut waiting).unwrap();
    assert_eq!(asked(), (3, 2));
    let mut waiting = bench.gate.wait(again()).unwrap();
    let mut other = bench.wait();
    assert_eq!(asked(), (5, 3));
    drop(slot);
    drop(ready(&mut waiting).unwrap());
    drop(ready(&mut other).unwrap());
    assert_eq!(asked(), (5, 3));
}

#[test]
fn a_slot_is_marked_as_its_revision_was_when_it_was_taken() {
    let bench = Bench::new(0, Supply::Fixed, 1);
    let before = bench.gate.try_acquire(0).unwrap();
    bench.throttle.set_proxied(true);
    let within = bench.gate.try_acquire(0).unwrap();
    bench.throttle.set_proxied(false);
    let after = bench.gate.try_acquire(0).unwrap();
    assert!(!before.is_marked() && within.is_marked() && !after.is_marked());
    assert_eq!(bench.throttle.demand(bench.start).marked, 1);
    bench.clock.set(bench.start + SECOND);
    drop((before, within, after));
    let reading = bench.throttle.demand(bench.start + 2 * SECOND);
    assert_eq!(
        (reading.marked, reading.marked_integral),
        (0, 1_000_000_000)
    );
    assert_eq!(reading.asked, 1);
}

#[test]
fn a_request_that_waited_is_marked_as_it_is_let_in_and_asked_once() {
    let bench = Bench::new(1, Supply::Fixed, 1);
    let slot = bench.gate.try_acquire(0).unwrap();
    let mut waiting = bench.wait();
    bench.throttle.set_proxied(true);
    drop(slot);
    assert_eq!(bench.throttle.demand(bench.start).asked, 1);
    let slot = ready(&mut waiting).unwrap();
    assert!(slot.is_marked());
    let reading = bench.throttle.demand(bench.start);
    assert_eq!((reading.waiting, reading.marked, reading.asked), (0, 1, 1));
}

#[test]
fn who_listens_is_nudged_once_by_the_next_request_that_counts_for_it() {
    let bell = Bell::new();
    let bench = Bench::new(0, Supply::Scaled(Arc::clone(&bell) as _), 1);
    drop(bench.gate.try_acquire(0).unwrap());
    bench.throttle.listen(bench.start);
    drop(bench.gate.try_acquire(0).unwrap());
    assert_eq!(
        bell.rung(),
        0,
        "a request that is not marked is nobody's business"
    );
    bench.throttle.set_proxied(true);
    let first = bench.gate.try_acquire(0).unwrap();
    assert_eq!(bell.rung(), 1);
    drop(first);
    drop(bench.gate.try_acquire(0).unwrap());
    assert_eq!(bell.rung(), 1, "it has not listened again");
    assert_eq!(bench.throttle.listen(bench.start).asked, 2);
    let one = bench.gate.try_acquire(0).unwrap();
    let other = bench.gate.try_acquire(0).unwrap();
    assert_eq!(bell.rung(), 2);
    drop((one, other));
}

fn share(number: u16, own: u32, most: u32) -> (SocketAddr, Share) {
    (address(number), Share { own, most })
}

#[test]
fn what_is_lent_is_for_who_has_waited_one_at_first_and_more_as_it_is_given_back() {
    let bench = Bench::new(2, Supply::Fixed, 0);
    bench
        .throttle
        .share_endpoints(&[share(0, 1, 2), share(1, 0, 1)]);
    let own = bench.gate.try_acquire(0).unwrap();
    assert_eq!(own.address(), address(0));
    assert!(!own.is_lent());
    let mut waiting = [(); 5].map(|()| bench.wait());
    bench.clock.set(bench.start + SECOND);
    bench.throttle.lend(2 * SECOND, bench.start + SECOND);
    assert_eq!(bench.throttle.waiting(), 5, "nobody has waited so long");
    bench.throttle.lend(SECOND, bench.start + SECOND);
    let [one, two, three, four, five] = &mut waiting;
    let first = ready(one).unwrap();
    assert!(first.is_lent() && first.limited());
    assert!(
        poll(two, &Bell::new()).is_pending(),
        "one is enough to begin with"
    );
    drop(first);
    let mut lent = [ready(two).unwrap(), ready(three).unwrap()];
    lent.sort_by_key(Slot::address);
    assert_eq!(lent.each_ref().map(Slot::address), [address(0), address(1)]);
    assert!(
        poll(four, &Bell::new()).is_pending(),
        "that is all there is"
    );
    let [zero, one] = lent;
    drop(zero);
    let own = [own, ready(four).unwrap()];
    assert_eq!((own[1].address(), bench.throttle.lent()), (address(0), 2));
    bench.throttle.lend_no_more();
    drop(one);
    assert!(poll(five, &Bell::new()).is_pending(), "no more is lent");
    drop(own);
    let last = ready(five).unwrap();
    assert!(!last.is_lent());
    assert_eq!(bench.throttle.lent(), 0);
}

#[test]
fn shares_come_and_go_with_the_counts_kept() {
    let bench = Bench::new(2, Supply::Fixed, 1);
    let slots = [(); 2].map(|()| bench.gate.try_acquire(0).unwrap());
    let id = slots[0].endpoint();
    bench.throttle.share_endpoints(&[share(0, 1, 1)]);
    let [one, other] = slots;
    drop(one);
    assert!(bench.gate.try_acquire(0).is_none(), "one is held of one");
    bench.throttle.share_endpoints(&[share(0, 0, 0)]);
    drop(other);
    assert!(bench.gate.try_acquire(0).is_none(), "none is ours");
    bench.throttle.set_endpoints(&[]);
    bench.throttle.set_endpoints(&[address(0)]);
    let slots: Vec<_> = std::iter::from_fn(|| bench.gate.try_acquire(0)).collect();
    assert_eq!(slots.len(), 2);
    bench.throttle.share_endpoints(&[share(0, 3, 3)]);
    bench.throttle.configure(Limits::new(1, 10));
    let third = bench.gate.try_acquire(0).unwrap();
    assert_eq!(third.endpoint(), slots[0].endpoint());
    assert_ne!(third.endpoint(), id, "it had drained");
}

#[test]
fn an_unlimited_endpoint_that_is_shared_counts_who_is_there() {
    let bench = Bench::new(0, Supply::Fixed, 1);
    let slots = [(); 2].map(|()| bench.gate.try_acquire(0).unwrap());
    bench.throttle.share_endpoints(&[share(0, 0, 3)]);
    assert!(bench.gate.try_acquire(0).is_none());
    let mut waiting = [bench.wait(), bench.wait()];
    bench.throttle.lend(Duration::ZERO, bench.start);
    bench.throttle.lend(Duration::ZERO, bench.start + SECOND);
    let [one, other] = &mut waiting;
    let third = ready(one).unwrap();
    assert!(poll(other, &Bell::new()).is_pending(), "three are there");
    drop(slots);
    assert!(ready(other).is_ok());
    drop(third);
}
