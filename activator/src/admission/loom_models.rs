//! Every interleaving of the few steps on which admission's promises rest. Run them with
//!
//! ```text
//! RUSTFLAGS="--cfg tidegate_loom" cargo test -p activator --release --lib loom
//! ```
//!
//! A waiter that nobody wakes is a deadlock, which loom reports.
#![cfg(tidegate_loom)]

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use loom::thread;

use super::{
    Claim, Clock, Gate, Holding, Limits, Nudge, RampUp, Share, Slot, Supply, Throttle, Waiting,
};

/// So many involuntary switches per execution: loom's authors found that two or three find nearly
/// every mistake, and the space stays small.
const PREEMPTIONS: usize = 3;

fn explore(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS);
    builder.check(model);
}

/// What two threads do to one throttle of two workers with one endpoint.
struct Scene {
    throttle: Arc<Throttle>,
    /// How many are at the endpoint.
    inside: AtomicU32,
    /// The endpoint's process has ended.
    stopped: AtomicBool,
}

/// One thread's part, as worker number so-and-so.
type Part = fn(&Scene, usize);

/// Plays the parts on two threads, each in turn on the one that starts: loom forgets what another
/// thread read of what this one read too before writing it, so one way round is not enough.
fn play(concurrency: u32, one: Part, other: Part) {
    for (first, second) in [(one, other), (other, one)] {
        explore(move || {
            let scene = Arc::new(Scene {
                throttle: throttle(concurrency),
                inside: AtomicU32::new(0),
                stopped: AtomicBool::new(false),
            });
            let thread = {
                let scene = Arc::clone(&scene);
                thread::spawn(move || second(&scene, 1))
            };
            first(&scene, 0);
            thread.join().unwrap();
            assert_all_is_free(&scene.throttle);
        });
    }
}

struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn poll(waiting: &mut Waiting) -> Poll<Slot> {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    Pin::new(waiting)
        .poll(&mut Context::from_waker(&waker))
        .map(|outcome| outcome.unwrap())
}

fn block_on(mut waiting: Waiting) -> Slot {
    loop {
        match poll(&mut waiting) {
            Poll::Ready(slot) => return slot,
            Poll::Pending => thread::park(),
        }
    }
}

fn address() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 80))
}

fn limits(concurrency: u32) -> Limits {
    Limits::new(concurrency, 10)
}

/// One endpoint, two workers.
fn throttle(concurrency: u32) -> Arc<Throttle> {
    let holding = Holding::new(10, 0);
    let throttle = Throttle::new(
        limits(concurrency),
        Supply::Fixed,
        &holding.namespace("default"),
        2,
    );
    throttle.set_endpoints(&[address()]);
    throttle
}

/// Time stands still: a model must not depend on anything but the order of its steps.
fn now() -> Instant {
    static NOW: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *NOW.get_or_init(Instant::now)
}

/// Made on the thread that uses it.
fn gate(throttle: &Arc<Throttle>, worker: usize) -> Rc<Gate> {
    Gate::new(Arc::clone(throttle), worker, Clock::new(now()))
}

fn acquire(gate: &Rc<Gate>) -> Slot {
    match gate.try_acquire(0) {
        Some(slot) => slot,
        None => block_on(gate.wait(Claim::new(now())).unwrap()),
    }
}

fn assert_all_is_free(throttle: &Throttle) {
    assert_eq!(throttle.in_flight(), 0);
    assert_eq!(throttle.waiting(), 0);
    assert_eq!(throttle.holding().held(), 0);
}

/// Works at the endpoint, alone.
fn visit(scene: &Scene, slot: Slot) {
    assert!(
        !scene.stopped.load(Ordering::Relaxed),
        "sent where nobody is"
    );
    assert_eq!(
        scene.inside.fetch_add(1, Ordering::Relaxed),
        0,
        "two at once"
    );
    scene.inside.fetch_sub(1, Ordering::Relaxed);
    drop(slot);
}

fn acquire_and_visit(scene: &Scene, worker: usize) {
    visit(scene, acquire(&gate(&scene.throttle, worker)));
}

/// Comes and goes where there may be no limit yet, so that it need not be alone.
fn try_and_leave(scene: &Scene, worker: usize) {
    drop(gate(&scene.throttle, worker).try_acquire(0));
}

fn try_and_visit(scene: &Scene, worker: usize) {
    if let Some(slot) = gate(&scene.throttle, worker).try_acquire(0) {
        visit(scene, slot);
    }
}

fn wait_and_leave(scene: &Scene, worker: usize) {
    let gate = gate(&scene.throttle, worker);
    let mut waiting = gate.wait(Claim::new(now())).unwrap();
    drop(poll(&mut waiting));
}

fn limit_and_acquire(scene: &Scene, worker: usize) {
    scene.throttle.configure(limits(1));
    drop(acquire(&gate(&scene.throttle, worker)));
}

fn limit_and_visit(scene: &Scene, worker: usize) {
    scene.throttle.configure(limits(1));
    try_and_visit(scene, worker);
}

fn share_and_visit(scene: &Scene, worker: usize) {
    let share = Share { own: 1, most: 1 };
    scene.throttle.share_endpoints(&[(address(), share)]);
    try_and_visit(scene, worker);
}

/// Nothing there is ours: only who is lent a slot may go there.
fn borrow_and_visit(scene: &Scene, worker: usize) {
    let share = Share { own: 0, most: 1 };
    scene.throttle.share_endpoints(&[(address(), share)]);
    let waiting = gate(&scene.throttle, worker)
        .wait(Claim::new(now()))
        .unwrap();
    scene.throttle.lend(Duration::ZERO, now());
    visit(scene, block_on(waiting));
}

/// Stops the endpoint's process once nobody is or comes there.
fn drain_and_stop(scene: &Scene, _: usize) {
    scene.throttle.drain(address());
    if scene.throttle.in_flight_at(address()) == 0 {
        scene.stopped.store(true, Ordering::Relaxed);
    }
}

/// The endpoint goes and another one comes, so that who waits need not wait for ever.
fn replace(scene: &Scene, _: usize) {
    scene.throttle.set_endpoints(&[]);
    scene
        .throttle
        .set_endpoints(&[SocketAddr::from(([10, 0, 0, 2], 80))]);
}

#[test]
fn a_slot_freed_while_somebody_joins_is_not_lost() {
    play(1, acquire_and_visit, acquire_and_visit);
}

#[test]
fn a_waiter_that_leaves_as_it_is_let_in_loses_no_slot() {
    play(1, acquire_and_visit, wait_and_leave);
}

#[test]
fn a_slot_without_a_limit_freed_under_a_new_limit_is_not_lost() {
    play(0, limit_and_acquire, try_and_leave);
}

#[test]
fn a_new_limit_counts_who_is_there_without_one() {
    play(0, limit_and_visit, try_and_visit);
}

#[test]
fn a_share_counts_who_is_there_without_one() {
    play(0, share_and_visit, try_and_visit);
}

#[test]
fn a_lent_slot_counts_who_is_there_without_one() {
    play(0, borrow_and_visit, try_and_visit);
}

#[test]
fn nobody_is_sent_to_an_unlimited_endpoint_that_drained() {
    play(0, drain_and_stop, try_and_visit);
}

#[test]
fn nobody_is_sent_to_a_limited_endpoint_that_drained() {
    play(1, drain_and_stop, try_and_visit);
}

#[test]
fn an_endpoint_that_comes_as_somebody_joins_is_found() {
    play(0, replace, acquire_and_visit);
}

/// Of one request at first.
fn ramped() -> Arc<Throttle> {
    let throttle = throttle(0);
    throttle.configure(Limits {
        ramp_up: Some(RampUp {
            initial: 1,
            interval: Duration::from_secs(1),
        }),
        ..limits(0)
    });
    throttle.set_endpoints(&[SocketAddr::from(([10, 0, 0, 2], 80))]);
    throttle
}

#[test]
fn a_window_that_widens_as_somebody_joins_lets_them_in() {
    explore(|| {
        let throttle = ramped();
        let slot = acquire(&gate(&throttle, 0));
        let thread = {
            let throttle = Arc::clone(&throttle);
            thread::spawn(move || drop(acquire(&gate(&throttle, 1))))
        };
        slot.answered();
        thread.join().unwrap();
        drop(slot);
        assert_all_is_free(&throttle);
    });
}

/// Remembers that it was rung.
#[derive(Debug)]
struct Bell(AtomicU32);

impl Nudge for Bell {
    fn nudge(&self) {
        self.0.store(1, Ordering::Relaxed);
    }

    fn suspected(&self, _address: SocketAddr) {}
}

/// A request comes while a scaler lies down to sleep: it is in the reading, or it nudges.
fn nobody_is_overlooked<T: 'static>(comes: fn(&Rc<Gate>) -> T) {
    // Two switches: the reading spins while a change is written, which makes the space large.
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(move || {
        let bell = Arc::new(Bell(AtomicU32::new(0)));
        let supply = Supply::Scaled(Arc::clone(&bell) as Arc<dyn Nudge>);
        let holding = Holding::new(10, 0);
        let throttle = Throttle::new(limits(0), supply, &holding.namespace("default"), 1);
        throttle.set_endpoints(&[address()]);
        throttle.set_proxied(true);
        let gate = gate(&throttle, 0);
        let scaler = {
            let throttle = Arc::clone(&throttle);
            thread::spawn(move || throttle.listen(now()).asked)
        };
        let request = comes(&gate);
        let asked = scaler.join().unwrap();
        assert!(asked == 1 || bell.0.load(Ordering::Relaxed) == 1);
        drop(request);
    });
}

#[test]
fn a_marked_request_is_read_or_nudges() {
    nobody_is_overlooked(|gate| gate.try_acquire(0).unwrap());
}

#[test]
fn a_waiting_request_is_read_or_nudges() {
    nobody_is_overlooked(|gate| {
        gate.throttle().drain(address());
        gate.wait(Claim::new(now())).unwrap()
    });
}

#[test]
fn a_grant_dropped_unseen_passes_on() {
    explore(|| {
        let throttle = throttle(1);
        let main = gate(&throttle, 0);
        let slot = main.try_acquire(0).unwrap();
        let mut leaver = main.wait(Claim::new(now())).unwrap();
        assert!(poll(&mut leaver).is_pending());
        let thread = {
            let throttle = Arc::clone(&throttle);
            thread::spawn(move || drop(acquire(&gate(&throttle, 1))))
        };
        drop(slot);
        drop(leaver);
        thread.join().unwrap();
        assert_all_is_free(&throttle);
    });
}

#[test]
fn a_newcomer_never_gets_what_was_freed_for_a_waiter() {
    explore(|| {
        let throttle = throttle(1);
        let main = gate(&throttle, 0);
        let slot = main.try_acquire(0).unwrap();
        let waiting = main.wait(Claim::new(now())).unwrap();
        let thread = {
            let throttle = Arc::clone(&throttle);
            thread::spawn(move || assert!(gate(&throttle, 1).try_acquire(0).is_none()))
        };
        drop(slot);
        let slot = block_on(waiting);
        thread.join().unwrap();
        drop(slot);
        assert_all_is_free(&throttle);
    });
}
