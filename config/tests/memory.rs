//! What a route weighs: bytes hold still, so the budget is a test.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may fail")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use config::{Compiler, Content, Fragment, Origin};

thread_local! {
    static BYTES: Cell<usize> = const { Cell::new(0) };
}

fn count(change: impl FnOnce(usize) -> usize) {
    // A thread that ends has no use for its count.
    let _counted = BYTES.try_with(|bytes| bytes.set(change(bytes.get())));
}

/// The system's allocator, counting what each thread holds.
struct Counting;

#[allow(
    unsafe_code,
    reason = "an allocator is unsafe by its signature; this one only counts"
)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(|bytes| bytes.wrapping_add(layout.size()));
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(|bytes| bytes.wrapping_sub(layout.size()));
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const ROUTES: usize = 10_000;
/// Routes of one file.
const EACH: usize = 100;

/// Bytes per route of the compiler's state, tables and what was written, once the texts are gone.
/// Debug builds and release builds hold the same.
fn bytes_per_route(shared: &str, route: impl Fn(usize) -> (String, String)) -> usize {
    let before = BYTES.get();
    let mut compiler = Compiler::default();
    let mut all: Vec<Fragment> = (0..ROUTES / EACH)
        .map(|file| {
            let these = (0..EACH).map(|number| route(file * EACH + number));
            let (routes, revisions): (String, String) = these.unzip();
            let revisions = match revisions.is_empty() {
                true => String::new(),
                false => format!("revisions:\n{revisions}"),
            };
            fragment(
                &format!("{file}.yaml"),
                &format!("routes:\n{routes}{revisions}"),
            )
        })
        .collect();
    all.push(fragment("shared.yaml", shared));
    compiler.apply(all).unwrap();
    BYTES.get().wrapping_sub(before) / ROUTES
}

fn fragment(name: &str, text: &str) -> Fragment {
    let content = config::parse(name, text);
    assert!(matches!(content, Content::Documents { .. }), "{text}");
    let origin = Origin::File(name.into());
    Fragment { origin, content }
}

#[test]
fn a_route_weighs_less_than_a_kibibyte() {
    let bytes = bytes_per_route("revisions: [{name: all}]", |number| {
        let route = format!("  - {{name: app-{number}, traffic: [{{revision: all}}]}}\n");
        (route, String::new())
    });
    assert!(bytes <= 640, "{bytes} bytes beside a revision for all");
    let bytes = bytes_per_route("domain: example.com", |number| {
        let revision =
            format!("  - {{name: app-{number}, concurrency: 10, endpoints: ['10.0.0.1:80']}}\n");
        let route = format!("  - {{name: app-{number}, traffic: [{{revision: app-{number}}}]}}\n");
        (route, revision)
    });
    assert!(bytes <= 1024, "{bytes} bytes with a revision of its own");
}

/// Two tagged revisions with a limit each, two hosts beside the default one: five hosts in all.
#[test]
fn a_route_with_two_revisions_and_five_hosts_weighs_less_than_two_kibibytes() {
    let bytes = bytes_per_route("domain: example.com", |number| {
        let route = format!(
            "  - name: app-{number}\n    hosts: [www.app-{number}.test, app-{number}.test]\n    \
             traffic: [{{revision: app-{number}-1, percent: 70, tag: old}}, \
             {{revision: app-{number}-2, percent: 30, tag: new}}]\n"
        );
        let revision = |version| {
            format!(
                "  - {{name: app-{number}-{version}, concurrency: 10, \
                 endpoints: ['10.0.0.{version}:80']}}\n"
            )
        };
        (route, revision(1) + &revision(2))
    });
    assert!(bytes <= 2048, "{bytes} bytes");
}
