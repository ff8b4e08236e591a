//! A keep-alive request on a warm worker allocates nothing.
//!
//! The whole worker runs on one thread of this test, between a client and an endpoint on plain
//! sockets, and only that thread's allocations are counted.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use activator::admission::{Holding, Limits, Supply, Throttle};
use config::{Compiler, Content, Fragment, Origin};
use tidegate::live::{Live, Published, Throttles};
use tidegate::observe::access_log::{self, AccessLog};
use tidegate::observe::metrics::Registry;
use tidegate::serve::census::Census;
use tidegate::serve::drain::Phase;
use tidegate::serve::listeners::Group;
use tidegate::serve::thread::{Seat, run};
use tidegate::serve::worker::Shared;

thread_local! {
    static COUNTED: Cell<bool> = const { Cell::new(false) };
}

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

struct Counting;

#[allow(
    unsafe_code,
    reason = "an allocator is unsafe by its signature; this one only counts"
)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if COUNTED.try_with(Cell::get).unwrap_or(false) {
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        }
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if COUNTED.try_with(Cell::get).unwrap_or(false) {
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        }
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const REQUEST: &[u8] = b"GET /hello?x=1 HTTP/1.1\r\nHost: coffee.default.example.com\r\n\
User-Agent: test\r\nAccept: */*\r\nx-user: somebody\r\n\r\n";
const RESPONSE: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nhello";

/// Answers every request on every connection with `RESPONSE`.
fn endpoint() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                let mut seen = 0;
                while let Ok(count @ 1..) = stream.read(&mut buffer[seen..]) {
                    seen += count;
                    if buffer[..seen].ends_with(b"\r\n\r\n") {
                        seen = 0;
                        stream.write_all(RESPONSE).unwrap();
                    }
                }
            });
        }
    });
    address
}

fn ask(client: &mut TcpStream, times: usize) {
    let mut buffer = [0; 4096];
    for _ in 0..times {
        client.write_all(REQUEST).unwrap();
        let mut seen = 0;
        while !buffer[..seen].ends_with(b"hello") {
            let count = client.read(&mut buffer[seen..]).unwrap();
            assert!(count > 0, "the gateway closed the connection");
            seen += count;
        }
        assert!(buffer.starts_with(b"HTTP/1.1 200 OK\r\n"));
    }
}

fn world(endpoint: SocketAddr, holding: &Arc<Holding>) -> (config::Settings, Live) {
    let text = format!(
        "routes:\n  - name: coffee\n    traffic:\n      - {{ revision: coffee-00001, percent: 70, tag: current }}\n      - {{ revision: coffee-00002, percent: 30 }}\n    sticky: {{ header: x-user }}\n\
         revisions:\n  - {{ name: coffee-00001, concurrency: 10, endpoints: [\"{endpoint}\"] }}\n  - {{ name: coffee-00002, endpoints: [\"{endpoint}\"] }}\n"
    );
    let content = config::parse("test.yaml", &text);
    assert!(matches!(content, Content::Documents { .. }), "{content:?}");
    let fragment = Fragment {
        origin: Origin::File("test.yaml".into()),
        content,
    };
    let compiled = Compiler::default().apply(vec![fragment]).unwrap();
    let mut throttles = Throttles::default();
    for revision in compiled.snapshot.revisions() {
        let limits = Limits {
            concurrency: revision.concurrency,
            queue_depth: revision.queue_depth,
            queue_bytes: None,
        };
        let throttle = Throttle::new(limits, Supply::Fixed, &holding.namespace("default"), 1);
        throttle.set_endpoints(&[endpoint]);
        throttles.set(revision.id, Some(throttle));
    }
    let live = Live {
        version: 1,
        snapshot: compiled.snapshot,
        throttles,
        ..Live::default()
    };
    (compiled.settings, live)
}

#[test]
fn a_warm_keep_alive_request_allocates_nothing() {
    let endpoint = endpoint();
    let holding = Holding::new(100, 1 << 20);
    let (settings, live) = world(endpoint, &holding);
    let mut group = Group::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let gateway = group.address();
    let sockets = group.seat(1).unwrap().remove(0);
    let registry = Registry::new(1, vec!["test".to_owned()]);
    let log = access_log::Config {
        mode: access_log::Mode::All,
        per_second: 100,
        format: access_log::Format::Text,
        file: access_log::Target::Path("/dev/null".into()),
    };
    let (log, mut writers) = AccessLog::start(&log, &registry).unwrap();
    let published = Arc::new(Published::default());
    published.swap(live);
    let shared = Arc::new(Shared {
        census: Census::new(&settings, None),
        pressure: tokio::sync::watch::channel(Default::default()).1,
        settings,
        published,
        holding,
        first_answers: Arc::default(),
        pseudonym: "tidegate-test".into(),
    });
    let (phase, phases) = tokio::sync::watch::channel(Phase::Serving);
    let worker = std::thread::spawn(move || {
        COUNTED.set(true);
        let seat = Seat {
            index: 0,
            shared,
            listeners: sockets.into_iter().map(|socket| (0, socket)).collect(),
            metrics: registry.worker(0),
            log: writers.remove(0),
            phase: phases,
            poised: tokio::sync::oneshot::channel().0,
            handed_over: Arc::default(),
        };
        run(seat).unwrap();
    });
    let mut client = TcpStream::connect(gateway).unwrap();
    client.set_nodelay(true).unwrap();
    ask(&mut client, 500);
    // Once a second a worker tidies up, which may allocate; a request never does. So of a few
    // windows far shorter than a second, one at least shows requests alone.
    let fewest = (0..5)
        .map(|_| {
            let before = ALLOCATIONS.load(Ordering::Relaxed);
            ask(&mut client, 500);
            ALLOCATIONS.load(Ordering::Relaxed) - before
        })
        .min();
    assert_eq!(fewest, Some(0), "allocations in 500 requests");
    drop(client);
    phase.send_replace(Phase::Closing);
    worker.join().unwrap();
    log.shutdown();
}
