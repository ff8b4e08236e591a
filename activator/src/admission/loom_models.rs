//! Every interleaving of the few steps on which admission's promises rest. Run them with
//!
//! ```text
//! RUSTFLAGS="--cfg tidegate_loom" cargo test -p activator --release --lib loom
//! ```
//!
//! A waiter that nobody wakes is a deadlock, which loom reports.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use loom::thread;

use super::{Clock, Gate, Holding, Limits, Slot, Supply, Throttle, Waiting};

/// So many involuntary switches per execution: loom's authors found that two or three find nearly
/// every mistake, and the space stays small.
const PREEMPTIONS: usize = 3;

fn explore(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS);
    builder.check(model);
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
    Limits {
        concurrency,
        queue_depth: 10,
    }
}

/// One endpoint, two workers.
fn throttle(concurrency: u32) -> Arc<Throttle> {
    let holding = Holding::new(10, 0);
    let throttle = Throttle::new(limits(concurrency), Supply::Fixed, holding, 2);
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
        None => block_on(gate.wait(now(), None).unwrap()),
    }
}

fn assert_all_is_free(throttle: &Throttle) {
    assert_eq!(throttle.in_flight(), 0);
    assert_eq!(throttle.waiting(), 0);
    assert_eq!(throttle.holding().held(), 0);
}

/// Runs `inside` on two threads that each acquire, and checks that they never meet.
fn two_threads_one_slot(throttle: Arc<Throttle>) {
    let inside = Arc::new(AtomicU32::new(0));
    let visit = |throttle: &Arc<Throttle>, worker, inside: &AtomicU32| {
        let slot = acquire(&gate(throttle, worker));
        assert_eq!(inside.fetch_add(1, Ordering::Relaxed), 0, "two at once");
        inside.fetch_sub(1, Ordering::Relaxed);
        drop(slot);
    };
    let thread = {
        let (throttle, inside) = (Arc::clone(&throttle), Arc::clone(&inside));
        thread::spawn(move || visit(&throttle, 1, &inside))
    };
    visit(&throttle, 0, &inside);
    thread.join().unwrap();
    assert_all_is_free(&throttle);
}

#[test]
fn a_slot_freed_while_somebody_joins_is_not_lost() {
    explore(|| two_threads_one_slot(throttle(1)));
}

#[test]
fn a_slot_without_a_limit_freed_under_a_new_limit_is_not_lost() {
    explore(|| {
        let throttle = throttle(0);
        let thread = {
            let throttle = Arc::clone(&throttle);
            thread::spawn(move || drop(gate(&throttle, 1).try_acquire(0)))
        };
        throttle.configure(limits(1));
        drop(acquire(&gate(&throttle, 0)));
        thread.join().unwrap();
        assert_all_is_free(&throttle);
    });
}

#[test]
fn a_new_limit_counts_who_is_there_without_one() {
    explore(|| {
        let throttle = throttle(0);
        let inside = Arc::new(AtomicU32::new(0));
        let thread = {
            let (throttle, inside) = (Arc::clone(&throttle), Arc::clone(&inside));
            thread::spawn(move || {
                if let Some(slot) = gate(&throttle, 1).try_acquire(0) {
                    inside.fetch_add(1, Ordering::Relaxed);
                    inside.fetch_sub(1, Ordering::Relaxed);
                    drop(slot);
                }
            })
        };
        throttle.configure(limits(1));
        if let Some(slot) = gate(&throttle, 0).try_acquire(0) {
            assert_eq!(inside.load(Ordering::Relaxed), 0, "two at once");
            drop(slot);
        }
        thread.join().unwrap();
        assert_all_is_free(&throttle);
    });
}

#[test]
fn a_grant_dropped_unseen_passes_on() {
    explore(|| {
        let throttle = throttle(1);
        let main = gate(&throttle, 0);
        let slot = main.try_acquire(0).unwrap();
        let mut leaver = main.wait(now(), None).unwrap();
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
fn a_waiter_that_leaves_as_it_is_let_in_loses_no_slot() {
    explore(|| {
        let throttle = throttle(1);
        let main = gate(&throttle, 0);
        let slot = main.try_acquire(0).unwrap();
        let thread = {
            let throttle = Arc::clone(&throttle);
            thread::spawn(move || {
                let gate = gate(&throttle, 1);
                let mut waiting = gate.wait(now(), None).unwrap();
                drop(poll(&mut waiting));
            })
        };
        drop(slot);
        drop(acquire(&main));
        thread.join().unwrap();
        assert_all_is_free(&throttle);
    });
}

/// Once an endpoint was drained and reads empty, nobody is or comes there.
fn drain_against_acquire(concurrency: u32) {
    let throttle = throttle(concurrency);
    let stopped = Arc::new(AtomicBool::new(false));
    let thread = {
        let (throttle, stopped) = (Arc::clone(&throttle), Arc::clone(&stopped));
        thread::spawn(move || {
            if let Some(slot) = gate(&throttle, 1).try_acquire(0) {
                assert!(!stopped.load(Ordering::Relaxed), "sent where nobody is");
                drop(slot);
            }
        })
    };
    throttle.drain(address());
    if throttle.in_flight_at(address()) == 0 {
        stopped.store(true, Ordering::Relaxed);
    }
    thread.join().unwrap();
    assert_eq!(throttle.in_flight_at(address()), 0);
}

#[test]
fn nobody_is_sent_to_an_unlimited_endpoint_that_drained() {
    explore(|| drain_against_acquire(0));
}

#[test]
fn nobody_is_sent_to_a_limited_endpoint_that_drained() {
    explore(|| drain_against_acquire(1));
}

#[test]
fn an_endpoint_that_comes_as_somebody_joins_is_found() {
    explore(|| {
        let throttle = throttle(0);
        throttle.set_endpoints(&[]);
        let thread = {
            let throttle = Arc::clone(&throttle);
            thread::spawn(move || drop(acquire(&gate(&throttle, 1))))
        };
        throttle.set_endpoints(&[address()]);
        thread.join().unwrap();
        assert_all_is_free(&throttle);
    });
}
