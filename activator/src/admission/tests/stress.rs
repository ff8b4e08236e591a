//! Real threads on one throttle: the endpoints themselves count who is there.

use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use super::*;

const WORKERS: usize = 3;
const ENDPOINTS: u16 = 3;
/// Per worker; a hundred times as many with `TIDEGATE_LONG`.
const OPERATIONS: u32 = 40_000;

/// What runs at each endpoint, as the endpoint sees it.
type Running = Arc<Vec<AtomicU32>>;

/// Wakes by unparking the thread that waits.
struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Longer than any wait here can take, so that a lost wake-up fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(60);

fn block_on(mut waiting: Waiting) -> Result<Slot, AcquireError> {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let begun = Instant::now();
    loop {
        match Pin::new(&mut waiting).poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(outcome) => return outcome,
            Poll::Pending => thread::park_timeout(PATIENCE),
        }
        assert!(begun.elapsed() < PATIENCE, "a wake-up was lost");
    }
}

fn visit(slot: &Slot, running: &Running, limit: u32) {
    let at = usize::from(slot.address().port() - 8000);
    let there = running[at].fetch_add(1, Ordering::SeqCst) + 1;
    assert!(there <= limit, "{there} at an endpoint that takes {limit}");
    std::hint::spin_loop();
    running[at].fetch_sub(1, Ordering::SeqCst);
}

fn work(throttle: Arc<Throttle>, worker: usize, running: &Running, limit: u32) {
    let start = Instant::now();
    let gate = Gate::new(throttle, worker, Clock::new(start));
    let mut rng = fastrand::Rng::with_seed(worker as u64);
    let mut kept: Vec<Waiting> = Vec::new();
    for _ in 0..OPERATIONS * effort() {
        match rng.u32(0..10) {
            // Begin to wait and leave, with or without a grant.
            0 => kept.push(gate.wait(start, None).unwrap()),
            1 => drop(kept.pop()),
            // Only who keeps nothing may block: a kept grant may be what all others wait for.
            2..6 if kept.is_empty() => {
                let slot = block_on(gate.wait(start, None).unwrap()).unwrap();
                visit(&slot, running, limit);
            }
            _ => {
                if let Some(slot) = gate.try_acquire(rng.u32(..)) {
                    visit(&slot, running, limit);
                }
            }
        }
        if kept.len() > 4 {
            kept.clear();
        }
    }
}

fn stress(limit: u32, meddle: impl Fn(&Throttle, &Running, u32) + Send + Sync) {
    let holding = Holding::new(1_000, 0);
    let limits = Limits {
        concurrency: limit,
        queue_depth: 1_000,
        queue_bytes: None,
    };
    let throttle = Throttle::new(
        limits,
        Supply::Fixed,
        &holding.namespace("default"),
        WORKERS,
    );
    let all: Vec<SocketAddr> = (0..ENDPOINTS).map(address).collect();
    throttle.set_endpoints(&all);
    let running: Running = Arc::new(all.iter().map(|_| AtomicU32::new(0)).collect());
    let most = if limit == 0 { u32::MAX } else { limit };
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| {
                let (throttle, running) = (Arc::clone(&throttle), Arc::clone(&running));
                scope.spawn(move || work(throttle, worker, &running, most))
            })
            .collect();
        let control = scope.spawn(|| {
            for turn in 0.. {
                if done.load(Ordering::SeqCst) {
                    return;
                }
                meddle(&throttle, &running, turn);
                thread::park_timeout(Duration::from_micros(50));
            }
        });
        let outcomes: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        done.store(true, Ordering::SeqCst);
        control.thread().unpark();
        for outcome in outcomes {
            outcome.unwrap();
        }
    });
    assert!(throttle.is_idle());
    assert_eq!(holding.held(), 0);
    assert_eq!(throttle.demand(Instant::now()).running, 0);
    assert_eq!(throttle.demand(Instant::now()).waiting, 0);
}

#[test]
fn threads_never_exceed_a_limit_of_one() {
    stress(1, |_, _, _| {});
}

#[test]
fn threads_never_exceed_a_limit_while_endpoints_come_and_go() {
    stress(2, |throttle, _, turn| {
        let left = u16::try_from(turn % 3).unwrap();
        let some: Vec<_> = (0..ENDPOINTS).filter(|n| *n != left).map(address).collect();
        throttle.set_endpoints(&some);
    });
}

#[test]
fn no_slot_is_lost_while_a_limit_comes_and_goes() {
    stress(0, |throttle, _, turn| {
        let concurrency = [0, 1, 2][turn as usize % 3];
        throttle.configure(Limits {
            concurrency,
            queue_depth: 1_000,
            queue_bytes: None,
        });
    });
}

#[test]
fn nothing_runs_at_an_endpoint_that_has_drained() {
    let met = AtomicU32::new(0);
    stress(0, |throttle, running, turn| {
        let gone = u16::try_from(turn % 3).unwrap();
        throttle.drain(address(gone));
        for _ in 0..100 {
            if throttle.in_flight_at(address(gone)) == 0 {
                met.fetch_add(1, Ordering::SeqCst);
                for _ in 0..100 {
                    assert_eq!(running[usize::from(gone)].load(Ordering::SeqCst), 0);
                }
                break;
            }
        }
        let all: Vec<_> = (0..ENDPOINTS).map(address).collect();
        throttle.set_endpoints(&all);
    });
    assert!(met.load(Ordering::SeqCst) > 0, "never seen empty");
}
