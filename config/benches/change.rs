//! What compiling everything and changing one route cost: `cargo bench -p config --bench change`.

#![allow(
    clippy::unwrap_used,
    reason = "a benchmark of a broken compiler may fail"
)]

use config::{Compiler, Content, Fragment, Origin};
use divan::Bencher;

/// What the gateway runs on.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    divan::main();
}

/// A file of its own for each route: a 70/30 split of two tagged revisions, two hosts beside the
/// default one.
fn text(number: usize, percent: usize) -> String {
    let rest = 100 - percent;
    format!(
        "routes:\n  - name: app-{number}\n    hosts: [www.app-{number}.test, app-{number}.test]\n    \
         traffic: [{{revision: app-{number}-1, percent: {percent}, tag: old}}, \
         {{revision: app-{number}-2, percent: {rest}, tag: new}}]\n\
         revisions:\n  - {{name: app-{number}-1, concurrency: 10, endpoints: ['10.0.0.1:80']}}\n  \
         - {{name: app-{number}-2, concurrency: 10, endpoints: ['10.0.0.2:80']}}\n"
    )
}

fn fragment(number: usize, percent: usize) -> Fragment {
    let name = format!("routes/app-{number}.yaml");
    let content = config::parse(&name, &text(number, percent));
    assert!(matches!(content, Content::Documents { .. }));
    let origin = Origin::File(name.into());
    Fragment { origin, content }
}

fn fragments(routes: usize) -> Vec<Fragment> {
    (0..routes).map(|number| fragment(number, 70)).collect()
}

#[divan::bench(args = [1_000, 10_000], sample_count = 10)]
fn compile(bencher: Bencher<'_, '_>, routes: usize) {
    let all = fragments(routes);
    bencher
        .with_inputs(|| all.clone())
        .bench_local_values(|all| {
            let mut compiler = Compiler::default();
            compiler.apply(all).unwrap();
            compiler
        });
}

/// From the changed fragment to the new tables; the old ones are freed outside.
#[divan::bench(args = [1_000, 10_000], sample_count = 1_000, sample_size = 1)]
fn one_of(bencher: Bencher<'_, '_>, routes: usize) {
    let mut compiler = Compiler::default();
    compiler.apply(fragments(routes)).unwrap();
    let mut turn = 0;
    let inputs = || {
        turn += 1;
        vec![fragment(turn * 7919 % routes, 10 + turn % 80)]
    };
    bencher
        .with_inputs(inputs)
        .bench_local_values(|changed| compiler.apply(changed).unwrap());
}
