//! Who goes first, and who must go when there are too many.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// One endpoint, busy; a queue of so many.
struct Line {
    bench: Bench,
    busy: Vec<Slot>,
    waiting: BTreeMap<u32, Waiting>,
}

/// A claim of that client.
fn of(client: u64) -> Claim {
    let flow = Flow {
        namespace: 0,
        client,
    };
    Claim {
        flow,
        ..Claim::new(Instant::now())
    }
}

fn class(claim: Claim, class: u8) -> Claim {
    let priority = Priority::new(class.into()).unwrap();
    Claim { priority, ..claim }
}

impl Line {
    fn new(depth: u32) -> Line {
        Line::with(Limits::new(1, depth), &Holding::new(1_000_000, 1 << 20))
    }

    fn with(limits: Limits, holding: &Arc<Holding>) -> Line {
        let bench = Bench::of(holding, 1, Supply::Fixed, 1);
        bench.throttle.configure(limits);
        let busy = vec![bench.gate.try_acquire(0).unwrap()];
        Line {
            bench,
            busy,
            waiting: BTreeMap::new(),
        }
    }

    fn try_join(&mut self, name: u32, claim: Claim) -> Result<(), AcquireError> {
        let waiting = self.bench.gate.wait(claim)?;
        self.waiting.insert(name, waiting);
        Ok(())
    }

    fn join(&mut self, name: u32, claim: Claim) {
        self.try_join(name, claim).unwrap();
    }

    /// Lets the next one in, whose slot is kept busy in its turn.
    fn next(&mut self) -> Option<u32> {
        self.busy.pop();
        let mut outcomes = self.outcomes();
        let (name, slot) = outcomes.pop()?;
        assert!(outcomes.is_empty(), "one slot, one waiter");
        self.busy.push(slot.unwrap());
        Some(name)
    }

    /// Those that are decided, in order of their names.
    fn outcomes(&mut self) -> Vec<(u32, Result<Slot, AcquireError>)> {
        let mut decided = Vec::new();
        self.waiting
            .retain(|name, waiting| match poll(waiting, &Bell::new()) {
                Poll::Ready(outcome) => {
                    decided.push((*name, outcome));
                    false
                }
                Poll::Pending => true,
            });
        decided
    }

    /// Those refused by now.
    fn shed(&mut self) -> Vec<u32> {
        let refused = self.outcomes().into_iter().map(|(name, outcome)| {
            assert!(matches!(outcome, Err(AcquireError::QueueFull(_))));
            name
        });
        refused.collect()
    }

    fn all(&mut self) -> Vec<u32> {
        std::iter::from_fn(|| self.next()).collect()
    }
}

#[test]
fn clients_take_turns_and_each_goes_in_order_of_arrival() {
    let mut line = Line::new(100);
    for name in 0..4 {
        line.join(name, of(1));
    }
    line.join(10, of(2));
    line.join(20, of(3));
    line.join(11, of(2));
    assert_eq!(line.all(), [0, 10, 20, 1, 11, 2, 3]);
}

#[test]
fn namespaces_take_turns_before_their_clients_do() {
    let mut line = Line::new(100);
    let at = |namespace, client| Claim {
        flow: Flow { namespace, client },
        ..of(0)
    };
    for client in 0..3 {
        line.join(client, at(1, client.into()));
    }
    line.join(10, at(2, 0));
    line.join(11, at(2, 0));
    assert_eq!(line.all(), [0, 10, 1, 11, 2]);
}

#[test]
fn a_client_that_joins_again_has_its_turn_after_the_others() {
    let mut line = Line::new(100);
    line.join(0, of(1));
    line.join(10, of(2));
    assert_eq!(line.next(), Some(0));
    line.join(1, of(1));
    line.join(11, of(2));
    assert_eq!(line.all(), [10, 1, 11]);
}

#[test]
fn the_most_important_class_goes_first() {
    let mut line = Line::new(100);
    for (name, important) in [(0, 0), (1, 7), (2, 4), (3, 7), (4, 5)] {
        line.join(name, class(of(1), important));
    }
    assert_eq!(line.all(), [1, 3, 4, 2, 0]);
}

#[test]
fn no_class_is_passed_over_for_ever() {
    let mut line = Line::new(1_000);
    line.join(1_000, class(of(9), 0));
    line.join(2_000, class(of(9), 3));
    for name in 0..100 {
        line.join(name, class(of(1), 7));
    }
    let order = line.all();
    let place = |name| order.iter().position(|it| *it == name).unwrap();
    assert_eq!(place(2_000), 16, "sixteen go before");
    assert_eq!(place(1_000), 17);
}

#[test]
fn who_had_a_slot_goes_before_those_who_had_none() {
    let mut line = Line::new(2);
    line.join(0, class(of(1), 7));
    line.join(1, class(of(1), 7));
    let again = Claim {
        again: true,
        ..class(of(2), 0)
    };
    line.join(2, again);
    assert_eq!(line.all(), [2, 0, 1], "a full queue does not keep it out");
}

#[test]
fn past_the_depth_the_biggest_holders_newest_goes() {
    let mut line = Line::new(5);
    for name in 0..4 {
        line.join(name, of(1));
    }
    line.join(10, of(2));
    line.join(11, of(2));
    assert_eq!(line.shed(), [3], "the newest of the one who has most");
    line.join(20, of(3));
    assert_eq!(line.shed(), [2]);
    let refused = line.try_join(4, of(1)).unwrap_err();
    assert_eq!(
        refused,
        AcquireError::QueueFull(Bound::Depth),
        "it has as many as any"
    );
    assert_eq!(line.all(), [0, 10, 20, 1, 11]);
}

#[test]
fn of_the_biggest_holder_the_least_important_goes() {
    let mut line = Line::new(4);
    line.join(0, class(of(1), 2));
    line.join(1, class(of(1), 1));
    line.join(2, class(of(1), 1));
    line.join(3, class(of(1), 4));
    line.join(10, class(of(2), 0));
    assert_eq!(line.shed(), [2], "the newer one of the lowest class");
    line.join(4, class(of(1), 3));
    assert_eq!(line.shed(), [1], "its own, for a more important one");
    let refused = line.try_join(5, class(of(1), 2)).unwrap_err();
    assert_eq!(
        refused,
        AcquireError::QueueFull(Bound::Depth),
        "not for an equal one"
    );
}

#[test]
fn after_the_depth_was_lowered_each_newcomer_takes_the_place_of_one() {
    let mut line = Line::new(100);
    for name in 0..100 {
        line.join(name, of(1));
    }
    line.bench.throttle.configure(Limits::new(1, 20));
    assert!(line.shed().is_empty(), "nobody goes for that alone");
    for (name, gone) in [(200, 99), (201, 98), (202, 97)] {
        line.join(name, of(2));
        assert_eq!(line.shed(), [gone]);
        assert_eq!(line.bench.holding.held(), 100);
    }
    assert!(line.try_join(100, of(1)).is_err(), "it holds most itself");
    assert!(line.shed().is_empty());
    line.join(101, class(of(1), 7));
    assert_eq!(line.shed(), [96], "its own, for a more important one");
}

#[test]
fn after_the_share_of_a_namespace_shrank_each_newcomer_takes_the_place_of_one() {
    let holding = Holding::new(100, 0);
    let mut big = Line::with(Limits::new(1, 100), &holding);
    let mut small = Line::with(Limits::new(1, 100), &holding);
    for name in 0..70 {
        big.join(name, of(1));
    }
    for name in 0..30 {
        small.join(name, of(1));
    }
    let second = holding.namespace("second");
    small.join(100, of(1));
    assert_eq!((big.shed(), small.shed()), (vec![69], vec![]));
    big.join(100, of(2));
    assert_eq!((big.shed(), small.shed()), (vec![68], vec![]));
    assert!(big.try_join(101, of(1)).is_err(), "it holds most itself");
    assert_eq!((big.shed(), small.shed()), (vec![], vec![]));
    let throttle = Throttle::new(Limits::new(1, 100), Supply::Fixed, &second, 1);
    let gate = Gate::new(throttle, 0, Clock::new(Instant::now()));
    let _waiting = gate.wait(of(1)).unwrap();
    assert_eq!((big.shed(), small.shed()), (vec![67], vec![]));
    assert_eq!(holding.held(), 100);
}

#[test]
fn among_equal_holders_the_one_with_the_least_important_request_gives_way() {
    let mut line = Line::new(3);
    for (name, important) in [(0, 5), (1, 2), (2, 4)] {
        line.join(name, class(of(name.into()), important));
    }
    assert!(
        line.try_join(9, class(of(9), 2)).is_err(),
        "no less important"
    );
    line.join(9, class(of(9), 3));
    assert_eq!(line.shed(), [1]);
}

#[test]
fn one_client_may_have_a_bound_of_its_own() {
    let limits = Limits {
        per_client: 2,
        ..Limits::new(1, 100)
    };
    let mut line = Line::with(limits, &Holding::new(100, 0));
    line.join(0, of(1));
    line.join(1, class(of(1), 1));
    assert!(line.try_join(2, class(of(1), 1)).is_err());
    line.join(3, of(1));
    assert_eq!(line.shed(), [1], "its less important one gives way");
    line.join(10, of(2));
    assert_eq!(line.all(), [0, 10, 3]);
}

#[test]
fn an_address_may_have_a_bound_over_all_revisions() {
    let holding = Holding::bounded(Bounds {
        held: 100,
        bytes: 0,
        per_namespace: None,
        per_address: Some(2),
    });
    let mut one = Line::with(Limits::new(1, 100), &holding);
    let mut two = Line::with(Limits::new(1, 100), &holding);
    let from = |last| Claim {
        address: Some(last),
        ..of(1)
    };
    one.join(0, from(1));
    two.join(0, from(1));
    assert_eq!(
        two.try_join(1, from(1)).unwrap_err(),
        AcquireError::QueueFull(Bound::HeldPerAddress)
    );
    two.join(2, from(2));
    two.join(3, of(1));
    assert_eq!(one.next(), Some(0));
    two.join(4, from(1));
}

#[test]
fn who_is_refused_for_its_address_costs_nobody_else_their_place() {
    let most = |held, per_namespace| {
        Holding::bounded(Bounds {
            held,
            bytes: 0,
            per_namespace,
            per_address: Some(3),
        })
    };
    let from = |last: u64| Claim {
        address: Some(last),
        ..of(last / 10)
    };
    // Full is the queue, the namespace, the process.
    for (depth, holding) in [
        (10, most(100, None)),
        (100, most(100, Some(10))),
        (100, most(10, None)),
    ] {
        let mut many = Line::with(Limits::new(1, 100), &holding);
        let mut line = Line::with(Limits::new(1, depth), &holding);
        let elsewhere = if depth > 10 { 7 } else { 0 };
        for name in 0..elsewhere {
            many.join(name, from(u64::from(name) / 3 + 10));
        }
        for name in elsewhere..7 {
            line.join(name, from(u64::from(name) / 3 + 10));
        }
        for name in 7..10 {
            line.join(name, from(1));
        }
        assert_eq!(
            line.try_join(10, from(1)).unwrap_err(),
            AcquireError::QueueFull(Bound::HeldPerAddress)
        );
        assert_eq!((many.shed(), line.shed()), (vec![], vec![]), "{holding:?}");
        assert_eq!(holding.held(), 10);
    }
}

#[test]
fn past_the_bound_of_the_process_the_biggest_namespace_gives_way() {
    let holding = Holding::new(10, 0);
    let in_namespace = |name| {
        let namespace = holding.namespace(name);
        let limits = Limits::new(1, 100);
        let throttle = Throttle::new(limits, Supply::Fixed, &namespace, 1);
        let clock = Clock::new(Instant::now());
        (Gate::new(throttle, 0, Rc::clone(&clock)), namespace)
    };
    let (big, _kept) = in_namespace("big");
    let wait = |gate: &Rc<Gate>| gate.wait(of(1));
    let mut crowd: Vec<_> = (0..10).map(|_| wait(&big).unwrap()).collect();
    let (small, _kept) = in_namespace("small");
    let mut few: Vec<_> = (0..4).map(|_| wait(&small).unwrap()).collect();
    assert_eq!(holding.held(), 10);
    let gone = |all: &mut Vec<Waiting>| {
        all.retain_mut(|waiting| poll(waiting, &Bell::new()).is_pending());
        all.len()
    };
    assert_eq!((gone(&mut crowd), gone(&mut few)), (6, 4));
    few.push(wait(&small).unwrap());
    assert!(wait(&small).is_err(), "both have half");
    assert_eq!((gone(&mut crowd), gone(&mut few)), (5, 5));
}

#[test]
fn past_the_bound_of_bytes_the_newest_of_the_revision_that_keeps_most_goes() {
    let holding = Holding::new(100, 100);
    let mut big = Line::with(Limits::new(1, 100), &holding);
    let mut small = Line::with(Limits::new(1, 100), &holding);
    big.bench.throttle.configure(Limits {
        queue_bytes: Some(100),
        ..Limits::new(1, 100)
    });
    for name in 0..9 {
        big.join(name, pinning(10, of(1)));
    }
    big.join(100, of(1));
    small.join(0, pinning(25, of(1)));
    assert_eq!(big.shed(), [7, 8], "those that keep bytes");
    assert_eq!(holding.bytes(), 95);
    let refused = big.try_join(9, pinning(10, of(1))).unwrap_err();
    assert_eq!(
        refused,
        AcquireError::QueueFull(Bound::HeldBytes),
        "it keeps most itself"
    );
    big.join(50, pinning(10, class(of(1), 5)));
    assert_eq!(big.shed(), [6], "for a more important one");
    small.join(1, pinning(12, of(1)));
    assert_eq!(big.shed(), [5], "one that goes makes room enough");
    assert!(small.try_join(2, pinning(49, of(1))).is_err());
    assert!(big.shed().is_empty(), "not in vain");
    assert_eq!((holding.bytes(), big.bench.throttle.held_bytes()), (97, 60));
}

/// One queue of so many bytes.
fn narrow(bytes: u64) -> Line {
    let limits = Limits {
        queue_bytes: Some(bytes),
        ..Limits::new(1, 100)
    };
    Line::with(limits, &Holding::new(100, 1_000))
}

fn pinning(bytes: u64, claim: Claim) -> Claim {
    Claim { bytes, ..claim }
}

#[test]
fn past_the_bound_of_bytes_the_client_that_keeps_most_gives_way() {
    let mut line = narrow(100);
    for name in 0..10 {
        line.join(name, pinning(10, of(1)));
    }
    line.join(20, pinning(10, of(2)));
    assert_eq!(line.shed(), [9]);
    line.join(21, pinning(1, of(2)));
    assert_eq!(line.shed(), [8]);
    line.join(22, pinning(19, of(2)));
    assert_eq!(line.shed(), [7], "nine were free");
    assert!(line.try_join(10, pinning(10, of(1))).is_err());
    assert!(line.shed().is_empty(), "it keeps most itself");
    line.join(11, pinning(10, class(of(1), 5)));
    assert_eq!(line.shed(), [6], "its own, for a more important one");
    assert_eq!(line.bench.throttle.held_bytes(), 100);
}

#[test]
fn nobody_gives_way_for_bytes_that_will_not_fit() {
    let mut line = narrow(100);
    for name in 0..10 {
        line.join(name, pinning(10, of(1)));
    }
    let urgent = |bytes| class(pinning(bytes, of(2)), 7);
    assert!(line.try_join(20, urgent(101)).is_err(), "it never can");
    assert!(line.try_join(20, urgent(60)).is_err(), "it would keep most");
    assert!(line.shed().is_empty());
    line.join(20, urgent(30));
    assert_eq!(line.shed(), [7, 8, 9], "as many as it takes");
    // Each client keeps little.
    let mut line = narrow(100);
    for name in 0..100 {
        line.join(name, pinning(1, of(name.into())));
    }
    line.bench.throttle.configure(Limits {
        queue_bytes: Some(100),
        ..Limits::new(1, 1_000)
    });
    let urgent = |bytes| class(pinning(bytes, of(1_000)), 7);
    assert!(line.try_join(200, urgent(100)).is_err());
    assert!(line.shed().is_empty());
    line.join(200, urgent(1));
    assert_eq!(line.shed().len(), 1);
}

#[test]
fn who_gives_their_place_gives_their_bytes_with_it() {
    let limits = Limits {
        queue_bytes: Some(20),
        ..Limits::new(1, 2)
    };
    let mut line = Line::with(limits, &Holding::new(100, 1_000));
    line.join(0, pinning(10, of(1)));
    line.join(1, pinning(10, of(1)));
    line.join(2, pinning(10, of(2)));
    assert_eq!(line.shed(), [1]);
    assert_eq!(line.bench.holding.bytes(), 20);
    // The one whose place it could have pins too little.
    line.join(3, class(pinning(1, of(1)), 7));
    assert_eq!(line.shed(), [0]);
    assert!(line.try_join(4, pinning(19, of(3))).is_err());
    assert!(line.shed().is_empty());
}

#[test]
fn who_is_refused_for_its_address_costs_nobody_their_bytes() {
    let holding = Holding::bounded(Bounds {
        held: 100,
        bytes: 100,
        per_namespace: None,
        per_address: Some(1),
    });
    let mut line = Line::with(Limits::new(1, 100), &holding);
    for name in 0..10 {
        line.join(name, pinning(10, of(1)));
    }
    let known = Claim {
        address: Some(1),
        ..of(2)
    };
    line.join(20, known);
    assert!(line.try_join(21, pinning(10, known)).is_err());
    assert!(line.shed().is_empty());
}

#[test]
fn the_rate_at_which_waiters_are_let_in_says_when_the_queue_is_empty() {
    let mut line = Line::new(100);
    let start = line.bench.start;
    let at = |line: &Line, seconds| {
        let now = start + Duration::from_secs(seconds);
        line.bench.clock.set(now);
        line.bench.throttle.drains_in(now)
    };
    for name in 0..50 {
        line.join(name, of(1));
    }
    assert_eq!(at(&line, 1), None, "nobody was let in yet");
    for second in 1..=10 {
        at(&line, second);
        line.next();
        line.join(100 + u32::try_from(second).unwrap(), of(2));
    }
    let drains_in = at(&line, 10).unwrap();
    let about = Duration::from_secs(40)..Duration::from_secs(60);
    assert!(about.contains(&drains_in), "{drains_in:?}");
}

#[test]
fn a_crowd_that_waits_for_a_start_hears_of_its_usual_length() {
    let bench = Bench::new(1, Supply::Scaled(Bell::new()), 0);
    let at = |seconds| bench.start + Duration::from_secs(seconds);
    let mut first = bench.wait();
    assert_eq!(bench.throttle.drains_in(at(1)), None, "nothing is known");
    bench.throttle.starts().passed(at(20));
    bench.throttle.set_endpoints(&[address(0)]);
    let slot = ready(&mut first).unwrap();
    slot.answered();
    drop(slot);
    bench.throttle.set_endpoints(&[]);
    bench.clock.set(at(100));
    let _crowd = [bench.wait(), bench.wait()];
    // Learned with the answer.
    let of_start = Some(Duration::from_secs(15));
    assert_eq!(bench.throttle.drains_in(at(105)), of_start);
}

proptest! {
    /// Nobody is lost or served twice, each flow goes in order of arrival within its class, and
    /// between two turns of a flow no other flow of its class has more than one.
    #[test]
    fn turns_are_fair_whatever_comes_and_goes(
        steps in vec((0u64..4, 0u8..3, 0u8..8), 1..120),
    ) {
        let mut line = Line::new(1_000);
        let mut claims = BTreeMap::new();
        let mut name = 0;
        for (client, important, action) in steps {
            match action {
                0 => {
                    // Somebody leaves.
                    let first = line.waiting.keys().next().copied();
                    if let Some(first) = first {
                        line.waiting.remove(&first);
                        claims.remove(&first);
                    }
                }
                _ => {
                    line.join(name, class(of(client), important));
                    claims.insert(name, (client, important));
                    name += 1;
                }
            }
        }
        let order = line.all();
        prop_assert_eq!(order.len(), claims.len());
        for class in 0..3 {
            let of_class: Vec<(u32, u64)> = order
                .iter()
                .filter(|name| claims[name].1 == class)
                .map(|name| (*name, claims[name].0))
                .collect();
            for (at, (name, client)) in of_class.iter().enumerate() {
                let later = &of_class[at + 1..];
                let Some(next) = later.iter().position(|(_, other)| other == client) else {
                    continue;
                };
                prop_assert!(later[next].0 > *name, "order of arrival");
                let mut between: Vec<_> = later[..next].iter().map(|(_, it)| it).collect();
                let turns = between.len();
                between.sort_unstable();
                between.dedup();
                prop_assert_eq!(turns, between.len(), "one turn each");
            }
        }
        prop_assert_eq!(line.bench.holding.held(), 0);
    }
}
