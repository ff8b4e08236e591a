//! What a route weighs: bytes hold still, so the budget is a test.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may fail, and tells what it counted"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use config::{Compiler, Content, Fragment, Origin};

static BYTES: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, counting what is held.
struct Counting;

#[allow(
    unsafe_code,
    reason = "an allocator is unsafe by its signature; this one only counts"
)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const ROUTES: usize = 10_000;

/// A split of two tagged revisions with a limit each, two hosts beside the default one.
fn text(number: usize) -> String {
    format!(
        "routes:\n  - name: app-{number}\n    hosts: [www.app-{number}.test, app-{number}.test]\n    \
         traffic: [{{revision: app-{number}-1, percent: 70, tag: old}}, \
         {{revision: app-{number}-2, percent: 30, tag: new}}]\n\
         revisions:\n  - {{name: app-{number}-1, concurrency: 10, endpoints: ['10.0.0.1:80']}}\n  \
         - {{name: app-{number}-2, concurrency: 10, endpoints: ['10.0.0.2:80']}}\n"
    )
}

fn compiled(files: usize) -> Compiler {
    let mut compiler = Compiler::default();
    let each = ROUTES / files;
    let fragments = (0..files).map(|file| {
        let texts: Vec<String> = (0..each).map(|route| text(file * each + route)).collect();
        let name = format!("routes/app-{file}.yaml");
        let content = config::parse(&name, &texts.join("---\n"));
        assert!(matches!(content, Content::Documents { .. }));
        let origin = Origin::File(name.into());
        Fragment { origin, content }
    });
    compiler.apply(fragments.collect()).unwrap();
    compiler
}

#[test]
fn a_route_weighs_less_than_a_kibibyte() {
    for files in [100, ROUTES] {
        let before = BYTES.load(Ordering::Relaxed);
        let compiler = compiled(files);
        let whole = BYTES.load(Ordering::Relaxed) - before;
        let snapshot = compiler.snapshot().clone();
        drop(compiler);
        let tables = BYTES.load(Ordering::Relaxed) - before;
        drop(snapshot);
        println!(
            "{files} files: {} bytes per route, {} of them tables",
            whole / ROUTES,
            tables / ROUTES
        );
    }
}
