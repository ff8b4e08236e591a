//! Counting an exchange and logging it allocate nothing once they have seen one like it.

#![allow(
    unsafe_code,
    reason = "a counting allocator has to implement GlobalAlloc"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use tidegate::observe::access_log::{AccessLog, Config, Format, Mode, Target};
use tidegate::observe::facts::{Facts, Names, Protocol, WaitReason};
use tidegate::observe::metrics::Registry;
use tidegate::refusal::Reason;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, counting by thread.
struct Counting;

// SAFETY: every call goes to the system's allocator unchanged; counting touches a thread-local
// without destructor or lazy initialisation, so it cannot allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

fn facts(code: u16, reason: Option<Reason>) -> Facts<'static> {
    Facts {
        names: Names {
            namespace: "default",
            route: "coffee",
            revision: "coffee-00001",
        },
        arrived: Instant::now(),
        total: Duration::from_millis(57),
        waited: Duration::from_millis(12),
        endpoint: Duration::from_millis(45),
        rested: Duration::from_millis(5),
        held: true,
        wait_reason: Some(WaitReason::Full),
        code,
        reason,
        attempts: 1,
        request_bytes: 120,
        response_bytes: 3_400,
        method: b"GET",
        host: b"coffee.default.example.com",
        target: b"/brew?sleep=100",
        user_agent: b"curl/8.5.0",
        request_id: b"2f1c",
        client: IpAddr::from([192, 0, 2, 7]),
        endpoint_address: Some(SocketAddr::from(([127, 0, 0, 1], 9001))),
        protocol: Protocol::Http11,
    }
}

#[test]
fn the_counter_counts() {
    let count = allocations(|| drop(std::hint::black_box(Box::new(1))));
    assert_eq!(count, 1);
}

#[test]
fn recording_allocates_only_for_the_first_of_its_kind() {
    let registry = Registry::new(1, Vec::new());
    let metrics = registry.worker(0);
    let ok = facts(200, None);
    let refused = facts(503, Some(Reason::QueueFull));
    let series = metrics.series(ok.names);
    assert_eq!(allocations(|| metrics.record(&series, &ok)), 1);
    assert_eq!(allocations(|| metrics.record(&series, &refused)), 1);
    let steady = allocations(|| {
        for _ in 0..1_000 {
            metrics.record(&series, &ok);
            metrics.record(&series, &refused);
            metrics.refused(Reason::Overloaded);
        }
    });
    assert_eq!(steady, 0);
}

#[test]
fn logging_allocates_nothing_even_when_the_ring_is_full() {
    let registry = Registry::new(1, Vec::new());
    for mode in [Mode::All, Mode::Limited, Mode::Off] {
        let config = Config {
            mode,
            per_second: 100,
            format: Format::Text,
            file: Target::Path("/dev/null".into()),
            requests: None,
        };
        let (log, mut writers) = AccessLog::start(&config, &registry).unwrap();
        let long = [b'a'; 70_000];
        let count = allocations(|| {
            for _ in 0..10_000 {
                writers[0].write(&facts(200, None));
                writers[0].write(&Facts {
                    target: &long,
                    ..facts(502, Some(Reason::UpstreamClosed))
                });
            }
        });
        assert_eq!(count, 0, "{mode:?}");
        log.shutdown();
    }
}
