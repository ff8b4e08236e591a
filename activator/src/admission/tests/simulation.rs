//! Random operations on one throttle, each followed by a comparison with a model that knows the
//! rules and nothing of how they are kept. The failing seed is printed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::super::{
    AcquireError, Claim, Clock, EndpointState, EndpointStatus, Gate, Holding, Limits, RampUp,
    Share, Slot, Supply, Throttle, Waiting,
};
use super::model::{Model, Supplier};
use super::{Bell, Bound, address, effort, poll};

/// Twenty times as many with `TIDEGATE_LONG`.
const SEEDS: u64 = 200;
const STEPS: u32 = 1_000;
const WORKERS: usize = 3;
const HELD_MAX: usize = 12;
const ADDRESSES: u16 = 7;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    Waits,
    LetIn,
    Refused(AcquireError),
}

struct Waiter {
    waiting: Waiting,
    worker: usize,
    /// Those that had a slot before first; by arrival, then by when it joined.
    turn: (bool, Instant, u64),
    fate: Fate,
    /// Rung once when its fate is known, if it was polled before.
    bell: Option<Arc<Bell>>,
}

struct Held {
    slot: Slot,
    /// The request's first arrival.
    arrived: Instant,
    /// It was taken where there was no limit and nobody waited.
    in_cell: bool,
}

struct World {
    seed: u64,
    step: u32,
    rng: Rng,
    now: Instant,
    holding: Arc<Holding>,
    throttle: Arc<Throttle>,
    clocks: Vec<Rc<Clock>>,
    gates: Vec<Rc<Gate>>,
    nudges: Arc<Bell>,
    model: Model,
    slots: Vec<Held>,
    waiters: Vec<Waiter>,
    joined: u64,
    /// Slots that were marked and had not been waited for.
    marked_at_once: u64,
    before: BTreeMap<SocketAddr, EndpointStatus>,
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {} failed at step {}", self.seed, self.step);
        }
    }
}

impl World {
    fn new(seed: u64) -> World {
        let now = Instant::now();
        let limits = Limits::new(1, 3);
        let holding = Holding::new(HELD_MAX, 100);
        let nudges = Bell::new();
        let supply = Supply::Scaled(Arc::clone(&nudges) as _);
        let throttle = Throttle::new(limits, supply, &holding.namespace("default"), WORKERS);
        let clocks: Vec<_> = (0..WORKERS).map(|_| Clock::new(now)).collect();
        let gate = |(worker, clock): (usize, &Rc<Clock>)| {
            Gate::new(Arc::clone(&throttle), worker, Rc::clone(clock))
        };
        World {
            seed,
            step: 0,
            rng: Rng::with_seed(seed),
            now,
            gates: clocks.iter().enumerate().map(gate).collect(),
            holding,
            throttle,
            clocks,
            nudges,
            model: Model::new(limits),
            slots: Vec::new(),
            waiters: Vec::new(),
            joined: 0,
            marked_at_once: 0,
            before: BTreeMap::new(),
        }
    }

    fn step(&mut self) {
        match self.rng.u32(0..100) {
            0..20 => self.try_acquire(),
            20..40 => self.wait(self.now),
            40..55 => self.poll(),
            55..58 => self.answer(),
            58..72 => self.drop_slot(),
            72..77 => self.drop_waiter(),
            77..79 => self.repeat(),
            79..82 => self.suspect(),
            82..85 => self.configure(),
            85..89 => self.set_endpoints(),
            89 => self.drain(),
            90 => self.trust(),
            91 => self.lend(),
            92 => self.set_proxied(),
            93..95 => self.pass_time(),
            95 => self.linger(),
            96 => self.replace_gate(),
            97 => self.set_supply(),
            98 => self.fail(),
            _ => {
                self.throttle.retire();
                self.model.retired = true;
            }
        }
    }

    fn worker(&mut self) -> usize {
        self.rng.usize(0..WORKERS)
    }

    fn nobody_waits(&self) -> bool {
        self.waiters.iter().all(|waiter| waiter.fate != Fate::Waits)
    }

    fn in_flight(&self, address: SocketAddr) -> u32 {
        self.before
            .get(&address)
            .map_or(0, |status| status.in_flight)
    }

    fn has_room(&self, address: SocketAddr, lending: bool) -> bool {
        let limit = self.model.limit(address, lending);
        limit.is_none_or(|limit| self.in_flight(address) < limit)
    }

    /// Room for the next in turn, at ready endpoints or by last resort.
    fn room(&self) -> Vec<SocketAddr> {
        self.room_with(self.throttle.may_borrow())
    }

    fn room_with(&self, lending: bool) -> Vec<SocketAddr> {
        let declared = self.model.declared.keys().copied();
        declared
            .filter(|at| self.model.serves(*at) && self.has_room(*at, lending))
            .collect()
    }

    /// Slots from before there was a limit are left, and the warm path leaves it alone.
    fn is_mixed(&self, address: SocketAddr) -> bool {
        let mut slots = self
            .slots
            .iter()
            .filter(|held| held.slot.address() == address);
        let limited = self.model.limit(address, false).is_some();
        limited && slots.any(|held| held.in_cell)
    }

    /// A slot that was not waited for.
    fn keep(&mut self, slot: Slot, arrived: Instant, in_cell: bool) {
        assert_eq!(slot.is_marked(), self.model.proxied);
        self.marked_at_once += u64::from(slot.is_marked());
        self.check_limited(&slot);
        assert_eq!(slot.era(), self.model.era(slot.address()));
        self.slots.push(Held {
            slot,
            arrived,
            in_cell,
        });
    }

    /// A window is no limit of the revision.
    fn check_limited(&self, slot: &Slot) {
        let configured = self.model.configured(slot.address(), false);
        assert_eq!(slot.limited(), configured.is_some());
    }

    fn try_acquire(&mut self) {
        let worker = self.worker();
        let open: Vec<SocketAddr> = self
            .room_with(false)
            .into_iter()
            .filter(|at| self.model.declared[at].suspect.is_none())
            .collect();
        let slot = self.gates[worker].try_acquire(self.rng.u32(..));
        let Some(slot) = slot else {
            let warm = open.iter().any(|at| !self.is_mixed(*at));
            assert!(
                !warm || !self.nobody_waits(),
                "the warm path missed a free slot"
            );
            return;
        };
        assert!(self.nobody_waits(), "a newcomer overtook a waiter");
        assert!(
            open.contains(&slot.address()),
            "no room at {}",
            slot.address()
        );
        let limit = self.model.limit(slot.address(), false);
        if limit.is_some() && self.model.declared.len() <= 4 {
            let warm = open.iter().filter(|at| !self.is_mixed(**at));
            let least = warm.map(|at| self.in_flight(*at)).min().unwrap_or(u32::MAX);
            let chosen = self.in_flight(slot.address());
            assert!(chosen <= least, "not the least loaded");
        }
        self.keep(slot, self.now, limit.is_none());
    }

    fn claim(arrived: Instant) -> Claim {
        Claim {
            bytes: 1,
            ..Claim::new(arrived)
        }
    }

    fn wait(&mut self, arrived: Instant) {
        if self.model.end_suspicions(self.now) {
            self.wait_as_suspicions_end(arrived);
            return;
        }
        let worker = self.worker();
        let room = self.room();
        let idle = self.nobody_waits();
        let expected = self.refusal_to_wait();
        let nudges = self.nudges.rung();
        let claim = World::claim(arrived);
        let outcome = self.gates[worker].wait(claim);
        if idle && !room.is_empty() {
            let Poll::Ready(Ok(slot)) = poll(&mut outcome.unwrap(), &Bell::new()) else {
                panic!("had to wait beside a free slot");
            };
            assert!(room.contains(&slot.address()));
            self.keep(slot, arrived, false);
            return;
        }
        let waiting = match outcome {
            Ok(waiting) => waiting,
            Err(error) => return assert_eq!(Some(error), expected),
        };
        assert_eq!(expected, None);
        let ready = self.model.any_ready();
        if idle && !ready && self.model.supplier == Supplier::Scaled {
            assert_eq!(self.nudges.rung(), nudges + 1, "the scaler was not nudged");
        }
        self.join(waiting, worker, arrived, None);
    }

    /// Joining ends suspicions, and so may first let others in: the outcome cannot be foretold by
    /// what was seen before, but what is seen after it must still be right.
    fn wait_as_suspicions_end(&mut self, arrived: Instant) {
        let worker = self.worker();
        let claim = World::claim(arrived);
        let Ok(mut waiting) = self.gates[worker].wait(claim) else {
            return;
        };
        let bell = Bell::new();
        match poll(&mut waiting, &bell) {
            Poll::Ready(slot) => self.keep(slot.unwrap(), arrived, false),
            Poll::Pending => {
                // Those who waited already were let in before this one took its place.
                self.learn_fates(self.throttle.waiting() as usize - 1);
                self.join(waiting, worker, arrived, Some(bell));
            }
        }
    }

    fn join(&mut self, waiting: Waiting, worker: usize, arrived: Instant, bell: Option<Arc<Bell>>) {
        self.joined += 1;
        self.waiters.push(Waiter {
            waiting,
            worker,
            turn: (true, arrived, self.joined),
            fate: Fate::Waits,
            bell,
        });
    }

    fn refusal_to_wait(&self) -> Option<AcquireError> {
        let waits = self.waiters.iter().filter(|it| it.fate == Fate::Waits);
        let newcomers = waits.clone().filter(|waiter| waiter.turn.0).count();
        let full = newcomers >= self.model.limits.queue_depth as usize;
        if let Some(error) = self.model.refusal() {
            Some(error)
        } else if full {
            Some(AcquireError::QueueFull(Bound::Depth))
        } else if waits.count() >= HELD_MAX {
            Some(AcquireError::QueueFull(Bound::Held))
        } else {
            None
        }
    }

    fn poll(&mut self) {
        if self.waiters.is_empty() {
            return;
        }
        let at = self.rng.usize(0..self.waiters.len());
        let waiter = &mut self.waiters[at];
        let bell = match &waiter.bell {
            Some(bell) if waiter.fate == Fate::Waits && self.rng.bool() => Arc::clone(bell),
            _ => Bell::new(),
        };
        let polled = poll(&mut waiter.waiting, &bell);
        match (polled, &waiter.fate) {
            (Poll::Pending, Fate::Waits) => waiter.bell = Some(bell),
            // Its endpoint was removed before it saw that it was let in.
            (Poll::Pending, Fate::LetIn) => {
                waiter.bell = Some(bell);
                waiter.fate = Fate::Waits;
                waiter.turn.0 = false;
            }
            (Poll::Ready(Ok(slot)), Fate::LetIn) => {
                assert_eq!(slot.is_marked(), self.model.proxied);
                let waiter = self.waiters.swap_remove(at);
                self.slots.push(Held {
                    slot,
                    arrived: waiter.turn.1,
                    in_cell: false,
                });
            }
            (Poll::Ready(Err(error)), Fate::Refused(expected)) => {
                assert_eq!(error, *expected);
                self.waiters.swap_remove(at);
            }
            (polled, fate) => panic!("{polled:?}, not {fate:?}"),
        }
    }

    fn any_slot(&mut self) -> Option<usize> {
        match self.slots.len() {
            0 => None,
            len => Some(self.rng.usize(0..len)),
        }
    }

    fn drop_slot(&mut self) {
        if let Some(at) = self.any_slot() {
            drop(self.slots.swap_remove(at));
        }
    }

    fn drop_waiter(&mut self) {
        if !self.waiters.is_empty() {
            let at = self.rng.usize(0..self.waiters.len());
            self.waiters.swap_remove(at);
        }
    }

    /// The endpoint failed the request, which goes back to its place.
    fn repeat(&mut self) {
        if let Some(at) = self.any_slot() {
            self.suspect_endpoint_of(at);
            self.check();
            let held = self.slots.swap_remove(at);
            drop(held.slot);
            self.check();
            self.wait(held.arrived);
        }
    }

    fn suspect(&mut self) {
        if let Some(at) = self.any_slot() {
            self.suspect_endpoint_of(at);
        }
    }

    fn suspect_endpoint_of(&mut self, at: usize) {
        let slot = &self.slots[at].slot;
        let fresh = self.rng.u32(0..4) > 0;
        let others = self.in_flight(slot.address()) - 1;
        let address = slot.address();
        let expected = self
            .model
            .fail(address, slot.era(), fresh, others, self.now);
        let fault = match fresh {
            true => slot.suspect(),
            false => slot.doubt(),
        };
        assert_eq!(fault, expected);
    }

    fn answer(&mut self) {
        if let Some(at) = self.any_slot() {
            let waited_for = !self.nobody_waits();
            let slot = &self.slots[at].slot;
            self.model.answer(slot.address(), waited_for);
            slot.answered();
        }
    }

    fn trust(&mut self) {
        let address = address(self.rng.u16(0..ADDRESSES));
        self.throttle.trust(address);
        self.model.trust(address);
    }

    fn linger(&mut self) {
        if let Some(at) = self.any_slot() {
            self.slots[at].slot.linger();
            let address = self.slots[at].slot.address();
            let statuses = self.throttle.endpoints();
            let status = statuses.iter().find(|s| s.address == address).unwrap();
            assert!(status.lingering >= 1 && status.lingering <= status.in_flight);
        }
    }

    fn configure(&mut self) {
        let concurrency = self.rng.choice([0, 1, 2, 5]).unwrap();
        let queue_depth = self.rng.choice([0, 1, 3, 20]).unwrap();
        let ramp_up = (self.rng.u32(0..4) > 0).then(|| RampUp {
            initial: self.rng.u32(1..4),
            interval: Duration::from_millis(self.rng.u64(10..1_000)),
        });
        let limits = Limits {
            ramp_up,
            ..Limits::new(concurrency, queue_depth)
        };
        self.throttle.configure(limits);
        self.model.configure(limits);
    }

    fn set_endpoints(&mut self) {
        let mut all: Vec<SocketAddr> = (0..ADDRESSES).map(address).collect();
        self.rng.shuffle(&mut all);
        all.truncate(self.rng.usize(0..=ADDRESSES.into()));
        if self.rng.u32(0..8) == 0 {
            all.extend_from_within(..all.len() / 2);
        }
        let waited_for = !self.nobody_waits();
        self.model.shares.clear();
        if self.rng.u32(0..3) == 0 {
            for address in &all {
                let own = self.rng.u32(0..3);
                let most = self.rng.u32(own..4);
                self.model.shares.insert(*address, Share { own, most });
            }
            let shares = all.iter().map(|at| (*at, self.model.shares[at]));
            self.throttle.share_endpoints(&shares.collect::<Vec<_>>());
        } else {
            self.throttle.set_endpoints(&all);
        }
        let known = |at| self.before.contains_key(&at);
        self.model.declare(&all, waited_for, known);
    }

    fn lend(&mut self) {
        if self.rng.u32(0..4) == 0 {
            return self.throttle.lend_no_more();
        }
        let after = Duration::from_millis(self.rng.u64(0..700));
        let waits = self.waiters.iter().filter(|w| w.fate == Fate::Waits);
        let first = waits.map(|waiter| waiter.turn.1).min();
        let due = first.is_some_and(|arrived| arrived + after <= self.now);
        let before = self.throttle.may_borrow();
        self.throttle.lend(after, self.now);
        let begun = self.throttle.may_borrow() || self.throttle.lent() > 0;
        assert!(before || begun || !due || self.nobody_waits());
    }

    fn set_proxied(&mut self) {
        self.model.proxied = self.rng.bool();
        self.throttle.set_proxied(self.model.proxied);
    }

    fn drain(&mut self) {
        let address = address(self.rng.u16(0..ADDRESSES));
        self.throttle.drain(address);
        self.model.declared.remove(&address);
        self.model.shares.remove(&address);
    }

    fn pass_time(&mut self) {
        self.now += Duration::from_millis(self.rng.u64(0..700));
        for clock in &self.clocks {
            clock.set(self.now);
        }
        if self.rng.bool() {
            self.holding.sweep(self.now);
            self.model.end_suspicions(self.now);
            match self.nobody_waits() {
                true => self.model.ease(),
                false => self.model.press(self.now),
            }
        }
    }

    fn replace_gate(&mut self) {
        let worker = self.worker();
        let clock = Rc::clone(&self.clocks[worker]);
        self.gates[worker] = Gate::new(Arc::clone(&self.throttle), worker, clock);
    }

    fn set_supply(&mut self) {
        let supplier = [Supplier::None, Supplier::Fixed, Supplier::Scaled];
        self.model.supplier = self.rng.choice(supplier).unwrap();
        self.model.retired = false;
        self.throttle.set_supply(match self.model.supplier {
            Supplier::None => Supply::None,
            Supplier::Fixed => Supply::Fixed,
            Supplier::Scaled => Supply::Scaled(Arc::clone(&self.nudges) as _),
        });
    }

    fn fail(&mut self) {
        if self.rng.bool() {
            let never = self.now + Duration::from_secs(1 << 30);
            self.throttle.fail("no".into(), never);
            self.model.failed |= self.model.declared.is_empty();
        } else {
            self.throttle.clear_failure();
            self.model.failed = false;
        }
    }

    /// Compares what can be seen with what the rules say, and learns who was let in.
    fn check(&mut self) {
        self.check_queue();
        let statuses = self.throttle.endpoints();
        let after: BTreeMap<_, _> = statuses.iter().map(|s| (s.address, *s)).collect();
        assert_eq!(after.len(), statuses.len(), "one endpoint per address");
        for status in &statuses {
            self.check_endpoint(status);
        }
        let known: BTreeSet<_> = after.keys().copied().collect();
        assert!(self.model.declared.keys().all(|at| known.contains(at)));

        let let_in = self
            .waiters
            .iter()
            .filter(|w| w.fate == Fate::LetIn)
            .count();
        let in_flight: u32 = statuses.iter().map(|s| s.in_flight).sum();
        assert_eq!(
            in_flight as usize,
            self.slots.len() + let_in,
            "a slot was lost"
        );
        assert_eq!(self.throttle.in_flight(), in_flight);
        self.check_lent(let_in);
        self.before = after;
        if !self.nobody_waits() {
            assert!(
                self.room().is_empty(),
                "somebody waits while a slot is free"
            );
            assert_eq!(self.model.refusal(), None, "somebody waits for nothing");
        }

        let demand = self.throttle.demand(self.now);
        assert_eq!(demand.running as usize, self.slots.len());
        assert_eq!(demand.waiting as usize, self.waiters.len());
        let marked = self.slots.iter().filter(|held| held.slot.is_marked());
        assert_eq!(demand.marked as usize, marked.count());
        assert_eq!(u64::from(demand.asked), self.joined + self.marked_at_once);
        let refused = |waiter: &&Waiter| matches!(waiter.fate, Fate::Refused(_));
        let held = self.waiters.len() - self.waiters.iter().filter(refused).count();
        assert_eq!(self.holding.bytes(), held as u64);
        assert_eq!(self.throttle.held_bytes(), held as u64);
    }

    /// Beyond what is ours there is at most what is lent.
    fn check_lent(&self, let_in: usize) {
        let lent = self.throttle.lent() as usize;
        let held = self.slots.iter().filter(|held| held.slot.is_lent()).count();
        assert!((held..=held + let_in).contains(&lent), "{lent} lent");
    }

    fn check_queue(&mut self) {
        let still = self.throttle.waiting() as usize;
        assert_eq!(self.holding.held(), still);
        self.learn_fates(still);
        for waiter in &self.waiters {
            let rung = waiter.bell.as_ref().map_or(0, |bell| bell.rung());
            let told = waiter.bell.is_some() && waiter.fate != Fate::Waits;
            assert_eq!(rung, u32::from(told), "worker {}", waiter.worker);
        }
    }

    /// Of those who waited `still` do: all others came before them and got what the rules say.
    fn learn_fates(&mut self, still: usize) {
        let mut waits: Vec<&mut Waiter> = self
            .waiters
            .iter_mut()
            .filter(|waiter| waiter.fate == Fate::Waits)
            .collect();
        waits.sort_by_key(|waiter| waiter.turn);
        assert!(still <= waits.len(), "waiters from nowhere");
        let gone = waits.len() - still;
        for waiter in waits.into_iter().take(gone) {
            waiter.fate = match self.model.refusal() {
                Some(error) => Fate::Refused(error),
                None => Fate::LetIn,
            };
        }
    }

    fn check_endpoint(&self, status: &EndpointStatus) {
        let at = status.address;
        let declared = self.model.declared.get(&at);
        match status.state {
            EndpointState::Draining => {
                assert!(declared.is_none());
                assert!(status.in_flight > 0, "nothing drains there");
            }
            EndpointState::Suspect => assert!(declared.unwrap().suspect.is_some()),
            EndpointState::Ready | EndpointState::Lingering => {
                assert_eq!(declared.unwrap().suspect, None);
            }
        }
        let configured = self.model.configured(at, true);
        let window = self.model.window(at);
        let window = window.filter(|window| configured.is_none_or(|limit| *window < limit));
        assert_eq!(status.window, window);
        let held = self.slots.iter().map(|held| &held.slot);
        let mut count = 0;
        for slot in held.filter(|slot| slot.address() == at) {
            assert_eq!(slot.endpoint(), status.id, "one address, two endpoints");
            count += 1;
        }
        assert!(status.in_flight >= count);
        assert_eq!(self.throttle.in_flight_at(at), status.in_flight);
        let before = self.in_flight(at);
        if let Some(limit) = self.model.limit(at, true) {
            assert!(
                status.in_flight <= limit.max(before),
                "above the limit at {at}"
            );
        }
        if status.in_flight > before {
            assert!(self.model.serves(at), "a slot was given at {at}");
        }
    }

    fn finish(&mut self) {
        // Half of the waiters see what became of them first.
        for _ in 0..self.waiters.len() {
            self.poll();
            self.check();
        }
        while !self.waiters.is_empty() {
            self.drop_waiter();
            self.check();
        }
        while !self.slots.is_empty() {
            self.drop_slot();
            self.check();
        }
        assert!(self.throttle.is_idle());
        assert_eq!(self.throttle.lent(), 0);
        assert_eq!(self.holding.held(), 0);
        assert_eq!(self.holding.bytes(), 0);
        let statuses = self.throttle.endpoints();
        assert!(
            statuses
                .iter()
                .all(|s| s.in_flight == 0 && s.lingering == 0)
        );
    }
}

fn run(seed: u64, steps: u32) {
    let mut world = World::new(seed);
    for step in 0..steps {
        world.step = step;
        world.step();
        world.check();
    }
    world.finish();
}

#[test]
fn the_invariants_hold_after_every_step() {
    for seed in 0..SEEDS * u64::from(effort().min(20)) {
        run(seed, STEPS);
    }
}
