//! What the tests of admission share.
#![cfg(not(tidegate_loom))]

mod behaviour;
mod crowds;
mod model;
mod order;
mod resting;
mod simulation;
mod standing;
mod stress;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use super::{
    AcquireError, Bound, Bounds, Claim, Clock, Flow, Gate, Holding, Limits, Nudge, Priority, Slot,
    Supply, Throttle, Waiting,
};

/// Counts what it hears, as a waker and as a scaler's nudge.
#[derive(Debug, Default)]
struct Bell(AtomicU32);

impl Bell {
    fn new() -> Arc<Bell> {
        Arc::default()
    }

    fn rung(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Nudge for Bell {
    fn nudge(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    fn suspected(&self, _address: SocketAddr) {}
}

fn address(number: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 8000 + number))
}

fn poll(waiting: &mut Waiting, bell: &Arc<Bell>) -> Poll<Result<Slot, AcquireError>> {
    let waker = Waker::from(Arc::clone(bell));
    Pin::new(waiting).poll(&mut Context::from_waker(&waker))
}

fn ready(waiting: &mut Waiting) -> Result<Slot, AcquireError> {
    match poll(waiting, &Bell::new()) {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => panic!("still waits"),
    }
}

/// One throttle and one worker, with generous bounds.
struct Bench {
    holding: Arc<Holding>,
    throttle: Arc<Throttle>,
    clock: Rc<Clock>,
    gate: Rc<Gate>,
    start: Instant,
}

impl Bench {
    fn new(concurrency: u32, supply: Supply, endpoints: u16) -> Bench {
        let holding = Holding::new(10_000, 1 << 20);
        Bench::of(&holding, concurrency, supply, endpoints)
    }

    fn of(holding: &Arc<Holding>, concurrency: u32, supply: Supply, endpoints: u16) -> Bench {
        let limits = Limits::new(concurrency, 10_000);
        let throttle = Throttle::new(limits, supply, &holding.namespace("default"), 1);
        let addresses: Vec<SocketAddr> = (0..endpoints).map(address).collect();
        throttle.set_endpoints(&addresses);
        let start = Instant::now();
        let clock = Clock::new(start);
        Bench {
            gate: Gate::new(Arc::clone(&throttle), 0, Rc::clone(&clock)),
            holding: Arc::clone(holding),
            throttle,
            clock,
            start,
        }
    }

    fn wait(&self) -> Waiting {
        self.gate.wait(Claim::new(self.clock.now())).unwrap()
    }
}

/// Later than anything a test waits for.
fn later(bench: &Bench) -> Instant {
    bench.start + Duration::from_secs(3600)
}

/// How much more than usual a test should try: `TIDEGATE_LONG` asks for the full size.
fn effort() -> u32 {
    match std::env::var_os("TIDEGATE_LONG") {
        Some(_) => 100,
        None => 1,
    }
}
