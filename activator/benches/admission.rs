//! What taking and freeing a slot costs, on one thread and on two: `cargo bench -p activator`.
//!
//! Threads run for as long as the slowest: the time told is that of one acquire and release as a
//! thread sees it. Together is how much two threads do as a multiple of what one does alone. The
//! first line is what the machine gives two threads that share nothing.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark prints, and of a broken throttle may fail"
)]

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::{Arc, Barrier};
use std::time::Instant;

use activator::admission::{Clock, Gate, Holding, Limits, Supply, Throttle};

/// The most a limit may count to here; never reached.
const PLENTY: u32 = 1_000;
const TURNS: u32 = 200_000;
/// Of so many rounds the median is told, and the best.
const ROUNDS: usize = 21;
/// So many workers the throttle is made for.
const WORKERS: usize = 2;

/// Endpoints, the limit of each, and whether requests are marked.
const CASES: [(&str, u16, u32, bool); 5] = [
    ("1 endpoint, no limit", 1, 0, false),
    ("16 endpoints, no limit", 16, 0, false),
    ("16 endpoints, limited", 16, PLENTY, false),
    ("1 endpoint, limited", 1, PLENTY, false),
    ("16 endpoints, marked", 16, 0, true),
];

fn main() {
    println!("acquire + release          one thread       two threads      together");
    let apart = [throttle(1, 0), throttle(1, 0)];
    compare("a throttle for each", &apart);
    for (name, endpoints, limit, marked) in CASES {
        let throttle = throttle(endpoints, limit);
        throttle.set_proxied(marked);
        compare(name, &[Arc::clone(&throttle), throttle]);
    }
    println!("medians, and in brackets the best of {ROUNDS} rounds");
}

fn compare(name: &str, throttles: &[Arc<Throttle>; WORKERS]) {
    // In turn, so that a machine that gets busier weighs on both.
    let (mut one, mut two): (Vec<f64>, Vec<f64>) = (0..ROUNDS)
        .map(|_| (nanoseconds(&throttles[..1]), nanoseconds(throttles)))
        .unzip();
    one.sort_by(f64::total_cmp);
    two.sort_by(f64::total_cmp);
    let (one, one_best) = (one[ROUNDS / 2], one[0]);
    let (two, two_best) = (two[ROUNDS / 2], two[0]);
    let (ratio, best) = (2.0 * one / two, 2.0 * one_best / two_best);
    println!(
        "{name:<23} {one:5.1} ({one_best:5.1}) ns {two:5.1} ({two_best:5.1}) ns \
         {ratio:5.2} ({best:.2}) x"
    );
}

fn throttle(endpoints: u16, concurrency: u32) -> Arc<Throttle> {
    let limits = Limits::new(concurrency, 10);
    let holding = Holding::new(100, 1 << 20);
    let throttle = Throttle::new(
        limits,
        Supply::Fixed,
        &holding.namespace("default"),
        WORKERS,
    );
    let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let addresses: Vec<SocketAddr> = (1..=endpoints).map(address).collect();
    throttle.set_endpoints(&addresses);
    throttle
}

/// Nanoseconds of one turn while a thread for each of these takes turns at once.
fn nanoseconds(throttles: &[Arc<Throttle>]) -> f64 {
    let barrier = Barrier::new(throttles.len());
    let times: Vec<f64> = std::thread::scope(|scope| {
        let running: Vec<_> = throttles
            .iter()
            .enumerate()
            .map(|(worker, throttle)| {
                let (throttle, barrier) = (Arc::clone(throttle), &barrier);
                scope.spawn(move || turns(throttle, worker, barrier))
            })
            .collect();
        running.into_iter().map(|one| one.join().unwrap()).collect()
    });
    times.into_iter().fold(0.0, f64::max)
}

fn turns(throttle: Arc<Throttle>, worker: usize, barrier: &Barrier) -> f64 {
    let gate = Gate::new(throttle, worker, Clock::new(Instant::now()));
    let mut random = 7_u32.wrapping_add(u32::try_from(worker).unwrap());
    let mut turn = || {
        random = random.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
        drop(black_box(gate.try_acquire(black_box(random)).unwrap()));
    };
    (0..TURNS / 10).for_each(|_| turn());
    barrier.wait();
    let before = Instant::now();
    (0..TURNS).for_each(|_| turn());
    before.elapsed().as_secs_f64() * 1e9 / f64::from(TURNS)
}
