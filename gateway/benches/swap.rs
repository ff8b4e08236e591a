//! From one changed fragment among 10 000 to the swapped pointer: merged, compiled, throttles
//! brought in line, published. `cargo bench -p tidegate --bench swap`.

#![allow(
    clippy::unwrap_used,
    reason = "a benchmark of a broken gateway may fail"
)]

use std::sync::Arc;

use activator::admission::Holding;
use activator::scaler::local::Local;
use config::{Compiler, Content, Fragment, Origin};
use divan::Bencher;
use tidegate::control::feeds::Feeds;
use tidegate::control::reconcile::{Means, Reconciler};
use tidegate::live::Published;
use tidegate::observe::metrics::Registry;
use tokio::runtime::Runtime;

/// What the gateway runs on.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROUTES: usize = 10_000;
const WORKERS: usize = 2;

fn main() {
    divan::main();
}

/// A file of its own for each route. `route` turns the split round, `revision` raises a limit.
fn fragment(number: usize, route: usize, revision: usize) -> Fragment {
    let (percent, rest) = (10 + route % 80, 90 - route % 80);
    let concurrency = 10 + revision;
    let text = format!(
        "routes:\n  - name: app-{number}\n    hosts: [www.app-{number}.test, app-{number}.test]\n    \
         traffic: [{{revision: app-{number}-1, percent: {percent}, tag: old}}, \
         {{revision: app-{number}-2, percent: {rest}, tag: new}}]\n\
         revisions:\n  - {{name: app-{number}-1, concurrency: {concurrency}, endpoints: ['10.0.0.1:80']}}\n  \
         - {{name: app-{number}-2, concurrency: 10, endpoints: ['10.0.0.2:80']}}\n"
    );
    let name = format!("routes/app-{number}.yaml");
    let content = config::parse(&name, &text);
    assert!(matches!(content, Content::Documents { .. }));
    let origin = Origin::File(name.into());
    Fragment { origin, content }
}

#[divan::bench(args = ["route", "route and revision"], sample_count = 1_000, sample_size = 1)]
fn one_of_10_000(bencher: Bencher<'_, '_>, what: &str) {
    let runtime = Runtime::new().unwrap();
    let _inside = runtime.enter();
    let program = std::env::current_exe().unwrap();
    let local = Arc::new(Local::start(program, &[]).unwrap());
    let holding = Holding::new(100, 1 << 20);
    let means = Means {
        holding,
        workers: WORKERS,
        local,
        feeds: Feeds::new(None, Arc::default()),
        registry: Registry::new(WORKERS, Vec::new()),
        runtime: runtime.handle().clone(),
    };
    let mut reconciler = Reconciler::new(Compiler::default(), means, None);
    let published = Published::default();
    let all = (0..ROUTES).map(|number| fragment(number, 0, 0)).collect();
    let next = reconciler.apply(all, &published.load()).unwrap();
    published.swap(next.live);
    let mut turn = 0;
    let inputs = || {
        turn += 1;
        let revision = if what == "route" { 0 } else { turn };
        vec![fragment(turn * 7919 % ROUTES, turn, revision)]
    };
    bencher.with_inputs(inputs).bench_local_values(|changed| {
        let next = reconciler.apply(changed, &published.load()).unwrap();
        let old = published.swap(next.live);
        reconciler.retire(&next.removed);
        // Control frees it later.
        old
    });
}
