//! Many requests in simulated time: what a crowd costs those beside it, and what it leaves behind.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::*;

/// One revision in simulated time: each slot is held for the same time.
struct Service {
    gate: Rc<Gate>,
    takes: Duration,
    waiting: Vec<(Instant, Waiting, u64)>,
    running: BinaryHeap<Ending>,
    /// How long each one waited that was let in.
    waits: Vec<(u64, Duration)>,
    refused: usize,
}

struct Ending {
    at: Instant,
    slot: Slot,
}

impl PartialEq for Ending {
    fn eq(&self, other: &Ending) -> bool {
        self.at == other.at
    }
}

impl Eq for Ending {}

impl PartialOrd for Ending {
    fn partial_cmp(&self, other: &Ending) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ending {
    fn cmp(&self, other: &Ending) -> std::cmp::Ordering {
        Reverse(self.at).cmp(&Reverse(other.at))
    }
}

impl Service {
    fn new(gate: Rc<Gate>, takes: Duration) -> Service {
        Service {
            gate,
            takes,
            waiting: Vec::new(),
            running: BinaryHeap::new(),
            waits: Vec::new(),
            refused: 0,
        }
    }

    fn in_namespace(holding: &Arc<Holding>, name: &str, clock: &Rc<Clock>, limit: u32) -> Service {
        let limits = Limits::new(limit, 1_000_000);
        let throttle = Throttle::new(limits, Supply::Fixed, &holding.namespace(name), 1);
        throttle.set_endpoints(&[address(0)]);
        let gate = Gate::new(throttle, 0, Rc::clone(clock));
        Service::new(gate, Duration::from_millis(100))
    }

    fn ask(&mut self, client: u64, now: Instant) {
        let flow = Flow {
            namespace: 0,
            client,
        };
        if let Some(slot) = self.gate.try_acquire(0) {
            return self.run(client, slot, now, now);
        }
        let claim = Claim {
            flow,
            ..Claim::new(now)
        };
        match self.gate.wait(claim) {
            Ok(waiting) => self.waiting.push((now, waiting, client)),
            Err(error) => {
                assert!(matches!(error, AcquireError::QueueFull(_)));
                self.refused += 1;
            }
        }
    }

    fn run(&mut self, client: u64, slot: Slot, arrived: Instant, now: Instant) {
        self.waits.push((client, now - arrived));
        let at = now + self.takes;
        self.running.push(Ending { at, slot });
    }

    /// Ends what is over at `now` and starts what was let in.
    fn settle(&mut self, now: Instant) {
        while self.running.peek().is_some_and(|ending| ending.at <= now) {
            drop(self.running.pop().unwrap().slot);
        }
        // Waking would say which: here all are asked.
        let mut at = 0;
        while at < self.waiting.len() {
            match poll(&mut self.waiting[at].1, &Bell::new()) {
                Poll::Pending => at += 1,
                Poll::Ready(outcome) => {
                    let (arrived, _, client) = self.waiting.swap_remove(at);
                    match outcome {
                        Ok(slot) => self.run(client, slot, arrived, now),
                        Err(_) => self.refused += 1,
                    }
                }
            }
        }
    }

    fn give_up_before(&mut self, arrived: Instant) {
        self.waiting.retain(|(at, ..)| *at > arrived);
    }

    /// The longest wait of all but one in a hundred.
    fn p99(&self, of: impl Fn(u64) -> bool) -> Duration {
        let of = self.waits.iter().filter(|(client, _)| of(*client));
        let mut waits: Vec<_> = of.map(|(_, wait)| *wait).collect();
        waits.sort_unstable();
        waits[waits.len() * 99 / 100]
    }
}

/// The p99 wait of a tenant's ten requests beside a tenant with so many.
fn beside(crowd: u32) -> Duration {
    let holding = Holding::new(10_000, 0);
    let start = Instant::now();
    let clock = Clock::new(start);
    let mut big = Service::in_namespace(&holding, "big", &clock, 2);
    let mut small = Service::in_namespace(&holding, "small", &clock, 2);
    for _ in 0..crowd {
        big.ask(1, start);
    }
    for _ in 0..10 {
        small.ask(2, start);
    }
    assert!(holding.held() <= 10_000);
    for tick in 1..=100 {
        let now = start + tick * Duration::from_millis(10);
        clock.set(now);
        small.settle(now);
    }
    assert_eq!((small.waits.len(), small.refused), (10, 0));
    big.settle(clock.now());
    assert!(crowd < 10_000 || big.refused + big.waits.len() >= 40_000);
    small.p99(|_| true)
}

#[test]
fn a_tenant_with_fifty_thousand_requests_leaves_the_waits_of_another_as_they_were() {
    let alone = beside(0);
    assert_eq!(alone, Duration::from_millis(400), "ten at two a time");
    assert_eq!(beside(50_000), alone);
}

/// The p99 wait of fifty clients with ten requests each at one revision, beside one with so many.
fn among_clients(crowd: u32) -> Duration {
    let holding = Holding::new(100_000, 0);
    let start = Instant::now();
    let clock = Clock::new(start);
    let mut service = Service::in_namespace(&holding, "all", &clock, 50);
    for _ in 0..crowd {
        service.ask(0, start);
    }
    for client in 1..=50 {
        for _ in 0..10 {
            service.ask(client, start);
        }
    }
    for tick in 1..=20 {
        let now = start + tick * Duration::from_millis(100);
        clock.set(now);
        service.settle(now);
    }
    assert_eq!(
        service
            .waits
            .iter()
            .filter(|(client, _)| *client > 0)
            .count(),
        500
    );
    service.p99(|client| client > 0)
}

#[test]
fn a_client_that_floods_a_revision_leaves_the_waits_of_the_others_as_they_were() {
    let polite = among_clients(10);
    let flooded = among_clients(if effort() > 1 { 50_000 } else { 2_000 });
    assert!(
        flooded <= polite + polite / 10,
        "{flooded:?} instead of {polite:?}"
    );
}

#[test]
fn a_hundred_thousand_held_requests_are_all_let_in() {
    let most = 100_000;
    let holding = Holding::new(most, 0);
    let start = Instant::now();
    let clock = Clock::new(start);
    let limits = Limits::new(10_000, 1_000_000);
    let bell = Bell::new();
    let supply = Supply::Scaled(Arc::clone(&bell) as _);
    let throttle = Throttle::new(limits, supply, &holding.namespace("all"), 1);
    let gate = Gate::new(Arc::clone(&throttle), 0, Rc::clone(&clock));
    let mut service = Service::new(gate, Duration::from_secs(1));
    for request in 0..most as u64 + 100 {
        service.ask(request % 1_000, start);
    }
    assert_eq!((holding.held(), bell.rung()), (most, 1));
    assert_eq!(service.refused, 100, "and no more than may be");
    throttle.set_endpoints(&[address(0), address(1)]);
    for second in 1..=10 {
        let now = start + Duration::from_secs(second);
        clock.set(now);
        service.settle(now);
    }
    assert_eq!(service.waits.len(), most);
    assert_eq!((holding.held(), throttle.in_flight()), (0, 0));
}

#[test]
fn clients_that_give_up_for_hours_leave_nothing_behind() {
    // Ten simulated hours in full.
    let seconds = if effort() > 1 { 36_000 } else { 200 };
    let holding = Holding::new(10_000, 0);
    let start = Instant::now();
    let clock = Clock::new(start);
    let mut service = Service::in_namespace(&holding, "all", &clock, 2);
    service.takes = Duration::from_millis(500);
    let tick = Duration::from_millis(50);
    let mut most = (0, 0);
    for ticks in 0..seconds * 20 {
        let now = start + tick * ticks;
        clock.set(now);
        for client in 0..10 {
            service.ask((u64::from(ticks) * 10 + client) % 977, now);
        }
        service.settle(now);
        if let Some(patience) = now.checked_sub(Duration::from_secs(1)) {
            service.give_up_before(patience);
        }
        let kept = service.gate.throttle().kept();
        let before = if ticks < seconds * 10 {
            &mut most.0
        } else {
            &mut most.1
        };
        *before = kept.max(*before);
        service.waits.clear();
    }
    assert!(holding.held() <= 210, "a second's worth waits");
    assert!(most.1 <= most.0, "what is kept grew: {most:?}");
    drop(service);
    assert_eq!(holding.held(), 0);
}
