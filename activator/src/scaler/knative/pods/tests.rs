use super::*;

const PERIOD: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_millis(300);
const PASSED: Outcome = Outcome::Passed {
    connect: Duration::from_millis(1),
};

fn pod(number: u16) -> SocketAddr {
    let [high, low] = number.to_be_bytes();
    SocketAddr::from(([10, 0, high, low], 8012))
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// One revision's pods on a clock of the test's.
struct World {
    pods: Pods,
    now: Instant,
    tickets: u64,
}

impl World {
    fn new(probes: bool, unready_too: bool) -> World {
        let now = Instant::now();
        let mut pods = Pods::new(Manner {
            probes,
            period: PERIOD,
            patience: PATIENCE,
        });
        pods.use_unready(unready_too, now);
        World {
            pods,
            now,
            tickets: 0,
        }
    }

    fn set(&mut self, ready: &[u16], unready: &[u16]) {
        let addresses = Addresses {
            ready: ready.iter().map(|&number| pod(number)).collect(),
            unready: unready.iter().map(|&number| pod(number)).collect(),
            ..Addresses::default()
        };
        self.pods.set(&addresses, self.now);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    /// Asks everybody who is due.
    fn ask(&mut self) -> Vec<Question> {
        let mut questions = Vec::new();
        while let Some(question) = self.pods.ask(self.tickets, self.now) {
            self.tickets += 1;
            questions.push(question);
        }
        questions
    }

    fn asked(&mut self) -> Vec<SocketAddr> {
        let questions = self.ask().into_iter();
        questions.map(|question| question.address).collect()
    }

    /// The answer to the question before the last `back` ones.
    fn answer(&mut self, back: u64, number: u16, outcome: Outcome) -> bool {
        let ticket = self.tickets - 1 - back;
        self.pods.answered(ticket, pod(number), outcome, self.now)
    }

    fn next_in(&self) -> Option<Duration> {
        let next = self.pods.next_due()?;
        Some(next.saturating_duration_since(self.now))
    }
}

#[test]
fn a_new_pod_is_asked_at_once_and_serves_when_it_has_answered() {
    let mut world = World::new(true, true);
    world.set(&[], &[1]);
    assert_eq!(world.asked(), [pod(1)]);
    assert_eq!(world.pods.usable(), []);
    assert!(world.answer(0, 1, PASSED));
    assert_eq!(world.pods.usable(), [pod(1)]);
    assert_eq!(world.next_in(), None, "it is not asked again");
}

#[test]
fn a_pod_that_is_not_ready_is_left_alone_where_such_are_not_used() {
    let mut world = World::new(true, false);
    world.set(&[], &[1]);
    assert_eq!(world.asked(), []);
    world.set(&[1], &[]);
    assert_eq!(world.asked(), [pod(1)]);
    world.answer(0, 1, PASSED);
    assert_eq!(world.pods.usable(), [pod(1)]);
}

#[test]
fn a_pod_that_answers_badly_is_asked_again_a_period_after_it_was_asked() {
    let mut world = World::new(true, true);
    world.set(&[], &[1]);
    world.asked();
    world.pass(ms(50));
    assert!(!world.answer(0, 1, Outcome::Failed));
    assert_eq!(world.next_in(), Some(ms(150)));
    assert_eq!(world.asked(), []);
    world.pass(ms(150));
    assert_eq!(world.asked(), [pod(1)]);
    world.pass(ms(300));
    world.answer(0, 1, Outcome::Late { connected: true });
    assert_eq!(world.next_in(), Some(PAUSE_LEAST), "the period is over");
}

/// The pauses between probes of a pod to which all of this comes, until it is young no longer.
fn pauses(world: &mut World, outcome: Outcome) -> Vec<Duration> {
    let mut pauses = Vec::new();
    while world.now - world.pods.known[&pod(1)].since < EAGER_FOR {
        assert_eq!(world.asked(), [pod(1)]);
        world.answer(0, 1, outcome);
        pauses.push(world.next_in().unwrap());
        world.pass(*pauses.last().unwrap());
    }
    pauses
}

#[test]
fn a_young_pod_that_refuses_or_does_not_serve_yet_is_asked_quickly_and_an_old_one_is_not() {
    for outcome in [Outcome::Refused, Outcome::NotYet] {
        let mut world = World::new(true, true);
        world.set(&[], &[1]);
        let pauses = pauses(&mut world, outcome);
        assert_eq!(pauses[0], EAGER_FIRST);
        assert!(pauses.is_sorted() && pauses.iter().all(|pause| *pause <= PERIOD));
        assert!(pauses.iter().filter(|pause| **pause < PERIOD).count() >= 12);
        world.asked();
        world.answer(0, 1, outcome);
        assert_eq!(world.next_in(), Some(PERIOD));
    }
}

#[test]
fn a_pod_that_begins_to_listen_is_asked_quickly_anew() {
    let mut world = World::new(true, true);
    world.set(&[], &[1]);
    for _ in 0..15 {
        world.asked();
        world.answer(0, 1, Outcome::Refused);
        let pause = world.next_in().unwrap();
        world.pass(pause);
    }
    world.asked();
    world.answer(0, 1, Outcome::NotYet);
    assert_eq!(world.next_in(), Some(EAGER_FIRST));
    // What is not the pod's own word says nothing of when it will serve.
    world.pass(EAGER_FIRST);
    world.asked();
    world.answer(0, 1, Outcome::Failed);
    assert_eq!(world.next_in(), Some(PERIOD));
}

#[test]
fn many_young_pods_are_not_asked_more_often_together_than_a_few() {
    let mut world = World::new(true, true);
    let numbers: Vec<u16> = (0..100).collect();
    world.set(&[], &numbers);
    assert_eq!(world.asked().len(), 100);
    for (back, number) in numbers.iter().rev().enumerate() {
        let outcome = match number % 2 {
            0 => Outcome::Refused,
            _ => Outcome::NotYet,
        };
        world.answer(back as u64, *number, outcome);
    }
    assert_eq!(world.next_in(), Some(PERIOD));
}

#[test]
fn a_pod_that_became_unready_must_answer_anew() {
    let mut world = World::new(true, true);
    world.set(&[1], &[]);
    world.asked();
    world.answer(0, 1, PASSED);
    world.set(&[], &[1]);
    assert_eq!(world.pods.usable(), []);
    assert_eq!(world.asked(), [pod(1)]);
    world.answer(0, 1, PASSED);
    assert_eq!(world.pods.usable(), [pod(1)]);
    world.set(&[1], &[]);
    assert_eq!(world.pods.usable(), [pod(1)], "it has answered already");
    assert_eq!(world.asked(), []);
}

#[test]
fn an_answer_to_a_question_from_before_does_not_count() {
    let mut world = World::new(true, true);
    world.set(&[1], &[]);
    world.asked();
    world.set(&[], &[1]);
    world.asked();
    assert!(!world.answer(1, 1, PASSED));
    assert_eq!(world.pods.usable(), []);
    world.set(&[], &[]);
    assert!(!world.answer(0, 1, PASSED));
    assert_eq!((world.pods.usable(), world.pods.asked()), (vec![], 0));
    world.set(&[], &[1]);
    assert!(!world.answer(0, 1, PASSED));
    assert_eq!(world.asked(), [pod(1)]);
}

#[test]
fn a_pod_that_becomes_ready_is_asked_at_once() {
    let mut world = World::new(true, true);
    world.set(&[], &[1]);
    world.asked();
    world.answer(0, 1, Outcome::Failed);
    world.pass(ms(20));
    assert_eq!(world.asked(), []);
    world.set(&[1], &[]);
    assert_eq!(world.asked(), [pod(1)]);
}

#[test]
fn one_changed_pod_among_a_thousand_costs_one_probe() {
    let mut world = World::new(true, true);
    let all: Vec<u16> = (0..1_000).collect();
    world.set(&all, &[]);
    assert_eq!(world.asked().len(), 1_000);
    for (back, number) in all.iter().rev().enumerate() {
        assert!(world.answer(back as u64, *number, PASSED));
    }
    let mut others: Vec<u16> = (1..=1_000).collect();
    world.set(&others, &[]);
    assert_eq!(world.asked(), [pod(1_000)]);
    assert_eq!(world.pods.usable().len(), 999);
    world.answer(0, 1_000, PASSED);
    assert_eq!(world.pods.usable().len(), 1_000);
    others.retain(|number| *number != 500);
    world.set(&others, &[500]);
    assert_eq!(world.asked(), [pod(500)]);
}

#[test]
fn patience_grows_with_probes_that_are_late_and_with_slow_connections() {
    let mut world = World::new(true, true);
    world.set(&[], &[1]);
    let mut waited = Vec::new();
    for _ in 0..7 {
        let questions = world.ask();
        waited.push(questions[0].within);
        world.pass(questions[0].within);
        world.answer(0, 1, Outcome::Late { connected: true });
        world.pass(PAUSE_LEAST);
    }
    let doubled = [300, 600, 1_200, 2_400, 4_800, 9_600, 10_000].map(ms);
    assert_eq!(waited, doubled);
    world.ask();
    let connect = ms(250);
    world.answer(0, 1, Outcome::Passed { connect });
    world.set(&[1, 2], &[]);
    assert_eq!(world.ask()[0].within, ms(500 + 4 * 250));
}

#[test]
fn what_cannot_be_connected_to_is_tried_often_and_sometimes_for_long() {
    let mut world = World::new(true, true);
    world.set(&[], &[1]);
    let mut waited = Vec::new();
    for _ in 0..17 {
        let questions = world.ask();
        waited.push(questions[0].within.as_millis());
        world.pass(questions[0].within);
        world.answer(0, 1, Outcome::Late { connected: false });
        world.pass(PAUSE_LEAST);
    }
    let expected = [
        300, 300, 300, 300, 600, 300, 300, 300, 1_200, 300, 300, 300, 2_400, 300, 300, 300, 4_800,
    ];
    assert_eq!(waited, expected);
}

#[test]
fn a_pod_that_failed_a_request_is_asked_while_it_is_used_until_it_is_well() {
    let mut world = World::new(true, true);
    world.set(&[], &[1]);
    world.ask();
    assert!(world.answer(0, 1, PASSED));
    world.pods.doubt(pod(1), world.now);
    assert!(world.asked().is_empty());
    world.pass(PERIOD);
    for _ in 0..3 {
        assert_eq!(world.asked(), [pod(1)]);
        world.answer(0, 1, Outcome::Failed);
        assert_eq!(world.pods.usable(), [pod(1)]);
        world.pass(PERIOD);
    }
    // That it became ready is a reason to ask again at once, not to take it away.
    world.ask();
    world.answer(0, 1, Outcome::Failed);
    world.set(&[1], &[]);
    assert_eq!(world.pods.usable(), [pod(1)]);
    assert_eq!(world.asked(), [pod(1)]);
    assert!(!world.answer(0, 1, PASSED), "nobody is new");
    world.pass(PERIOD * 2);
    assert!(world.asked().is_empty());
    assert_eq!(world.pods.usable(), [pod(1)]);
}

#[test]
fn without_probes_whom_kubernetes_calls_ready_serves() {
    let mut world = World::new(false, true);
    world.set(&[1], &[2]);
    assert_eq!(world.pods.usable(), [pod(1)]);
    world.set(&[2], &[1]);
    assert_eq!(world.pods.usable(), [pod(2)]);
    assert_eq!(world.asked(), []);
}

#[test]
fn an_address_that_is_said_to_be_both_is_ready() {
    let mut world = World::new(false, false);
    world.set(&[1], &[1]);
    assert_eq!(world.pods.usable(), [pod(1)]);
}

#[test]
fn unready_pods_may_be_used_from_one_moment_on_and_no_longer_from_another() {
    let mut world = World::new(true, false);
    world.set(&[1], &[2]);
    assert_eq!(world.asked(), [pod(1)]);
    world.answer(0, 1, PASSED);
    world.pods.use_unready(true, world.now);
    assert_eq!(world.asked(), [pod(2)]);
    world.answer(0, 2, PASSED);
    assert_eq!(world.pods.usable(), [pod(1), pod(2)]);
    world.pods.use_unready(false, world.now);
    assert_eq!(world.pods.usable(), [pod(1)]);
}

/// Whatever happens, nobody serves who did not answer since they were last new or unready, and
/// everybody who may serve is asked again within a period.
#[test]
fn only_those_who_answered_serve_and_nobody_is_forgotten() {
    for seed in 0..100 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let unready_too = rng.bool();
        let mut world = World::new(true, unready_too);
        let mut said: BTreeMap<SocketAddr, bool> = BTreeMap::new();
        let mut proven: BTreeSet<SocketAddr> = BTreeSet::new();
        let mut under_way: Vec<(u64, SocketAddr)> = Vec::new();
        for _ in 0..300 {
            world.pass(ms(rng.u64(0..120)));
            if rng.u32(0..4) == 0 {
                let numbers: Vec<u16> = (0..8).filter(|_| rng.bool()).collect();
                let (ready, unready): (Vec<u16>, Vec<u16>) =
                    numbers.iter().partition(|_| rng.bool());
                world.set(&ready, &unready);
                let before = std::mem::take(&mut said);
                said.extend(ready.iter().map(|&number| (pod(number), true)));
                said.extend(unready.iter().map(|&number| (pod(number), false)));
                let counts_still = |address: &SocketAddr| match said.get(address) {
                    Some(ready) => *ready || before.get(address) != Some(&true),
                    None => false,
                };
                proven.retain(|address| counts_still(address));
                under_way.retain(|(_, address)| counts_still(address));
            }
            while let Some(question) = world.pods.ask(world.tickets, world.now) {
                assert!(said[&question.address] || unready_too);
                assert!(!proven.contains(&question.address), "seed {seed}");
                under_way.push((world.tickets, question.address));
                world.tickets += 1;
            }
            if !under_way.is_empty() && rng.bool() {
                let (ticket, address) = under_way.swap_remove(rng.usize(0..under_way.len()));
                let outcomes = [
                    PASSED,
                    Outcome::Refused,
                    Outcome::Late { connected: true },
                    Outcome::NotYet,
                    Outcome::Failed,
                ];
                let outcome = outcomes[rng.usize(0..5)];
                world.pods.answered(ticket, address, outcome, world.now);
                if outcome == PASSED {
                    proven.insert(address);
                }
            }
            let usable: Vec<_> = proven.iter().copied().collect();
            assert_eq!(world.pods.usable(), usable, "seed {seed}");
            let wanted = said
                .iter()
                .filter(|(at, ready)| (**ready || unready_too) && !proven.contains(at));
            assert_eq!(wanted.count(), world.pods.due.len() + world.pods.asked());
            let next = world.next_in();
            assert!(next.is_none_or(|next| next <= PERIOD), "seed {seed}");
        }
    }
}
