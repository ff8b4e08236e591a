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
            0 => kept.push(gate.wait(Claim::new(start)).unwrap()),
            1 => drop(kept.pop()),
            // Only who keeps nothing may block: a kept grant may be what all others wait for.
            2..6 if kept.is_empty() => {
                let slot = block_on(gate.wait(Claim::new(start)).unwrap()).unwrap();
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
    let limits = Limits::new(limit, 1_000);
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
        throttle.configure(Limits::new(concurrency, 1_000));
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

/// Joins and leaves one of three crowds that are together more than there may be.
fn crowd(throttle: Arc<Throttle>, worker: usize) {
    let start = Instant::now();
    let most = throttle.holding().clone();
    let gate = Gate::new(throttle, 0, Clock::new(start));
    let mut rng = fastrand::Rng::with_seed(worker as u64);
    let mut kept: Vec<Waiting> = Vec::new();
    for _ in 0..OPERATIONS / 10 * effort() {
        match rng.u32(0..10) {
            0..6 => {
                let claim = Claim {
                    address: Some(rng.u64(0..4)),
                    bytes: rng.u64(0..4),
                    ..Claim::new(start)
                };
                match gate.wait(claim) {
                    Ok(waiting) => kept.push(waiting),
                    Err(error) => assert!(matches!(error, AcquireError::QueueFull(_))),
                }
            }
            6..8 if !kept.is_empty() => drop(kept.swap_remove(rng.usize(0..kept.len()))),
            8 => kept.retain_mut(|waiting| poll(waiting, &Bell::new()).is_pending()),
            // Others hold most for a while.
            _ if rng.u32(0..20) == 0 => kept.clear(),
            _ => {}
        }
        assert!(most.held() <= CROWD && most.bytes() <= CROWD as u64);
    }
}

/// All three together.
const CROWD: usize = 12;

#[test]
fn crowds_that_give_way_to_each_other_on_real_threads_leave_nothing_behind() {
    let holding = Holding::bounded(Bounds {
        held: CROWD,
        bytes: CROWD as u64,
        per_namespace: Some(8),
        per_address: Some(4),
    });
    // Two of one namespace.
    let namespaces = ["one", "one", "two"].map(|name| holding.namespace(name));
    let limits = Limits::new(1, 6);
    let throttles = namespaces.map(|it| Throttle::new(limits, Supply::Fixed, &it, 1));
    thread::scope(|scope| {
        for (worker, throttle) in throttles.iter().cloned().enumerate() {
            scope.spawn(move || crowd(throttle, worker));
        }
    });
    assert_eq!((holding.held(), holding.bytes()), (0, 0));
    assert!(throttles.iter().all(|it| it.is_idle()));
}
