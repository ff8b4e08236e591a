//! What a lookup costs: `cargo bench -p config --bench find`.
//!
//! The first table repeats one question, so that everything it touches is in the nearest cache. The
//! second asks for hosts at random, each question depending on the answer before, as requests that
//! are far apart: there the tables are cold, and what counts is how many lines of memory a lookup
//! waits for. The cost of one such wait, in as many bytes, is printed beside it; the loop around the
//! lookups is measured alone and taken off.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark prints, and of broken tables may fail"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use config::route::{FieldList, Query, find};
use config::{Compiler, Content, Fragment, Origin, Snapshot};
use divan::Bencher;

/// What the gateway runs on.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SIZES: [usize; 3] = [1, 1_000, 100_000];
/// Lookups of one measurement, and measurements, of which the median is told.
const LOOKUPS: u32 = 20_000;
const ROUNDS: usize = 101;
/// Bytes written between two lookups to empty the caches near the core, and lookups timed so.
const EVICTING: usize = 4 << 20;
const EVICTED_LOOKUPS: usize = 2_001;
/// What a lookup may touch at most per host, for the comparison with bare memory.
const LINE: usize = 64;

fn main() {
    divan::main();
    for hosts in SIZES {
        report(hosts);
    }
}

/// As many routes, with one default host each, and a few that match by more than the host.
fn snapshot(hosts: usize) -> Snapshot {
    let mut text = String::from("revisions: [{name: v}]\nroutes:\n");
    for number in 0..hosts {
        text.push_str(&format!(
            "  - {{name: app-{number:06}, traffic: [{{revision: v}}]}}\n"
        ));
    }
    text.push_str("  - {name: wild, hosts: ['*.wild.test'], traffic: [{revision: v}]}\n");
    text.push_str("  - name: rules\n    rules:\n");
    for number in 0..100 {
        text.push_str(&format!(
            "      - {{path: /part-{number}, traffic: [{{revision: v}}]}}\n"
        ));
    }
    text.push_str(
        "      - {path: /part-50, headers: {x-canary: 'on'}, traffic: [{revision: v}]}\n",
    );
    let content = config::parse("bench.yaml", &text);
    assert!(matches!(content, Content::Documents { .. }));
    let origin = Origin::File("bench.yaml".into());
    let mut compiler = Compiler::default();
    let compiled = compiler.apply(vec![Fragment { origin, content }]).unwrap();
    compiled.snapshot
}

fn query<'a>(host: &'a [u8], path: &'a [u8], fields: &'a FieldList) -> Query<'a> {
    Query {
        host,
        path,
        method: b"GET",
        fields,
        internal: false,
    }
}

fn repeat(bencher: Bencher<'_, '_>, hosts: usize, host: &str, path: &str, fields: &FieldList) {
    let snapshot = snapshot(hosts);
    let query = query(host.as_bytes(), path.as_bytes(), fields);
    assert!(find(&snapshot, &query).is_some());
    bencher.bench_local(|| find(black_box(&snapshot), black_box(&query)).is_some());
}

#[divan::bench(args = SIZES)]
fn exact(bencher: Bencher<'_, '_>, hosts: usize) {
    let host = "app-000000.default.example.com";
    repeat(bencher, hosts, host, "/", &FieldList::default());
}

#[divan::bench(args = SIZES)]
fn wildcard(bencher: Bencher<'_, '_>, hosts: usize) {
    repeat(bencher, hosts, "a.wild.test", "/", &FieldList::default());
}

#[divan::bench(args = SIZES)]
fn path_of_100(bencher: Bencher<'_, '_>, hosts: usize) {
    let host = "rules.default.example.com";
    repeat(bencher, hosts, host, "/part-77/x", &FieldList::default());
}

#[divan::bench(args = SIZES)]
fn header(bencher: Bencher<'_, '_>, hosts: usize) {
    let host = "rules.default.example.com";
    let fields = FieldList(vec![("x-canary".to_owned(), "on".to_owned())]);
    repeat(bencher, hosts, host, "/part-50", &fields);
}

/// Median nanoseconds per turn of a loop of `LOOKUPS` turns.
fn median(mut turns: impl FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let before = Instant::now();
            turns();
            before.elapsed().as_secs_f64() * 1e9 / f64::from(LOOKUPS)
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[ROUNDS / 2]
}

/// The next of a row of numbers below `bound` that depends on `last`.
fn next(state: &mut u64, last: usize, bound: usize) -> usize {
    *state = state
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(last as u64)
        | 1;
    usize::try_from((u128::from(*state) * bound as u128) >> 64).unwrap()
}

/// `app-NNNNNN.default.example.com`, written as a client would send it.
fn name(buffer: &mut [u8; 30], mut number: usize) {
    for digit in buffer[4..10].iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 10).unwrap();
        number /= 10;
    }
}

/// Asks for hosts at random; `lookup` false runs the loop alone.
fn ask(snapshot: &Snapshot, hosts: usize, lookup: bool) -> f64 {
    let fields = FieldList::default();
    let mut host = *b"App-000000.default.example.com";
    let mut state = 7;
    let mut last = 0;
    median(|| {
        for _ in 0..LOOKUPS {
            name(&mut host, next(&mut state, last, hosts));
            let query = query(&host, b"/", &fields);
            last = match lookup {
                // The next question waits for this pointer and for nothing behind it.
                true => black_box(Arc::as_ptr(find(snapshot, &query).unwrap().route)) as usize & 1,
                false => usize::from(black_box(&query).host.is_empty()),
            };
        }
    })
}

/// One read at random of as many lines as there are hosts, each depending on the one before.
fn memory(hosts: usize) -> f64 {
    let lines = vec![1_u8; hosts * LINE];
    let (mut state, mut last) = (7, 0);
    median(|| {
        for _ in 0..LOOKUPS {
            last = usize::from(black_box(&lines)[next(&mut state, last, hosts) * LINE]);
        }
    })
}

/// One lookup at a time after so much other work that the caches near the core hold nothing of the
/// tables; the clock's own time is taken off.
fn evicted(snapshot: &Snapshot, hosts: usize) -> f64 {
    let fields = FieldList::default();
    let mut host = *b"App-000000.default.example.com";
    let mut other = vec![1_u8; EVICTING];
    let mut state = 7;
    let mut time = |lookup: bool| {
        let mut times = Vec::new();
        for _ in 0..EVICTED_LOOKUPS {
            for line in other.chunks_mut(LINE) {
                line[0] = line[0].wrapping_add(1);
            }
            name(&mut host, next(&mut state, 0, hosts));
            let query = query(&host, b"/", &fields);
            let before = Instant::now();
            if lookup {
                black_box(find(snapshot, black_box(&query)).is_some());
            }
            times.push(before.elapsed().as_secs_f64() * 1e9);
        }
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    time(true) - time(false)
}

fn report(hosts: usize) {
    let snapshot = snapshot(hosts);
    let alone = ask(&snapshot, hosts, false);
    let one = ask(&snapshot, 1, true) - alone;
    let any = ask(&snapshot, hosts, true) - alone;
    let evicted = evicted(&snapshot, hosts);
    let wait = memory(hosts);
    println!(
        "{hosts:>6} hosts: always the same one {one:.0} ns, at random {any:.0} ns, at random with \
         emptied caches {evicted:.0} ns (loop of {alone:.0} ns taken off; one dependent read in \
         {hosts} lines {wait:.0} ns)"
    );
}
