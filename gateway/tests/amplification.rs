//! What a client can make a worker spend memory on: little bytes, little memory, and a held
//! request costs little.
//!
//! The whole worker runs on one thread of this test, and only what that thread has allocated is
//! counted.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

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

/// Bytes that the worker's thread has and had at most.
static LIVE: AtomicI64 = AtomicI64::new(0);
static PEAK: AtomicI64 = AtomicI64::new(0);

struct Counting;

impl Counting {
    fn change(by: i64) {
        if COUNTED.try_with(Cell::get).unwrap_or(false) {
            let live = LIVE.fetch_add(by, Ordering::Relaxed) + by;
            PEAK.fetch_max(live, Ordering::Relaxed);
        }
    }
}

fn bytes(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

#[allow(
    unsafe_code,
    reason = "an allocator is unsafe by its signature; this one only counts"
)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Counting::change(bytes(layout.size()));
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        Counting::change(-bytes(layout.size()));
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Counting::change(bytes(size) - bytes(layout.size()));
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What a client sends.
const SENT: usize = 10 * 1024;

/// What that may cost.
const COST_MAX: i64 = 1024 * 1024;

/// Held at once, to see what one costs.
const HELD: usize = 500;

/// What one held request without a body may cost, its connection included.
const HELD_COST_MAX: i64 = 8 * 1024;

/// Reads whatever comes, and answers nothing.
fn endpoint() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(1..) = stream.read(&mut buffer) {}
            });
        }
    });
    address
}

/// `open`: everybody is let in; `full`: one is; `here`: answers by itself.
fn world(endpoint: SocketAddr, holding: &Arc<Holding>) -> (config::Settings, Live) {
    let text = format!(
        "routes:\n  - {{ name: open, traffic: [ {{ revision: open }} ] }}\n\
         \x20 - {{ name: full, traffic: [ {{ revision: full }} ] }}\n\
         \x20 - {{ name: here, rules: [ {{ respond: {{ status: 204 }} }} ] }}\n\
         revisions:\n  - {{ name: open, endpoints: [\"{endpoint}\"] }}\n\
         \x20 - {{ name: full, concurrency: 1, endpoints: [\"{endpoint}\"] }}\n"
    );
    let content = config::parse("test.yaml", &text);
    assert!(matches!(content, Content::Documents { .. }), "{content:?}");
    let origin = Origin::File("test.yaml".into());
    let compiled = Compiler::default()
        .apply(vec![Fragment { origin, content }])
        .unwrap();
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

/// One worker on a thread of its own.
struct Gateway {
    address: SocketAddr,
    holding: Arc<Holding>,
    phase: tokio::sync::watch::Sender<Phase>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Gateway {
    fn start() -> Gateway {
        let holding = Holding::new(10_000, 1 << 30);
        let (settings, live) = world(endpoint(), &holding);
        let mut group = Group::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = group.address();
        let sockets = group.seat(1).unwrap().remove(0);
        let registry = Registry::new(1, vec!["test".to_owned()]);
        let log = access_log::Config {
            mode: access_log::Mode::Off,
            per_second: 100,
            format: access_log::Format::Text,
            file: access_log::Target::Path("/dev/null".into()),
        };
        let (_log, mut writers) = AccessLog::start(&log, &registry).unwrap();
        let published = Arc::new(Published::default());
        published.swap(live);
        let shared = Arc::new(Shared {
            census: Census::new(&settings, None),
            pressure: tokio::sync::watch::channel(Default::default()).1,
            settings,
            published,
            holding: holding.clone(),
            first_answers: Arc::default(),
            pseudonym: "tidegate-test".into(),
        });
        let (phase, phases) = tokio::sync::watch::channel(Phase::Serving);
        let thread = std::thread::spawn(move || {
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
        Gateway {
            address,
            holding,
            phase,
            thread: Some(thread),
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Returns when the worker has seen what was sent before: it answers in turn.
    fn settle(&self) {
        for _ in 0..3 {
            let mut client = self.connect();
            let head =
                "GET / HTTP/1.1\r\nHost: here.default.example.com\r\nConnection: close\r\n\r\n";
            client.write_all(head.as_bytes()).unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
        }
    }

    /// Takes the only slot of `full`, and holds one more: what a worker needs once is there then.
    fn fill(&self) -> [TcpStream; 2] {
        let clients = [self.connect(), self.connect()];
        for mut client in &clients {
            client.write_all(get("full").as_bytes()).unwrap();
        }
        while self.holding.held() != 1 {
            std::thread::yield_now();
        }
        clients
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.phase.send_replace(Phase::Ended);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn get(route: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: {route}.default.example.com\r\n\r\n")
}

fn post(route: &str, framing: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: {route}.default.example.com\r\n{framing}\r\n\r\n")
}

/// What may be sent, by name.
#[expect(clippy::too_many_lines, reason = "a table")]
fn hostile() -> Vec<(&'static str, String)> {
    let many = |begin: &str, piece: &str| begin.to_owned() + &piece.repeat(SENT / piece.len());
    let chunked = "Transfer-Encoding: chunked";
    vec![
        (
            "a head without an end",
            many("GET / HTTP/1.1\r\nHost: open\r\nX: ", "x"),
        ),
        ("fields", many("GET / HTTP/1.1\r\nHost: open\r\n", "a:\r\n")),
        ("empty lines", many("", "\r\n")),
        ("a long target", many("GET /", "x")),
        ("dots", many("GET /", "./")),
        ("escapes", many("GET /?", "%41")),
        ("requests in a row", many("", &get("open"))),
        ("requests in a row that are held", many("", &get("full"))),
        (
            "requests in a row that nobody wants",
            many("", &get("nowhere")),
        ),
        (
            "a huge body that is forwarded",
            many(&post("open", "Content-Length: 9223372036854775807"), "x"),
        ),
        (
            "a huge body that is held",
            many(&post("full", "Content-Length: 9223372036854775807"), "x"),
        ),
        ("small chunks", many(&post("open", chunked), "1\r\nx\r\n")),
        (
            "small chunks that are held",
            many(&post("full", chunked), "1\r\nx\r\n"),
        ),
        (
            "a huge chunk",
            many(&post("open", chunked), "ffffffffffff\r\nx"),
        ),
        (
            "extensions of chunks",
            many(&(post("open", chunked) + "1"), ";a=b"),
        ),
        (
            "trailers",
            many(&(post("open", chunked) + "0\r\n"), "a: b\r\n"),
        ),
        (
            "cookies",
            many(
                "GET / HTTP/1.1\r\nHost: open.default.example.com\r\nCookie: a=b",
                "; a=b",
            ),
        ),
        (
            "proxies",
            many(
                "GET / HTTP/1.1\r\nHost: open.default.example.com\r\nVia: 1.1 a",
                ", 1.1 a",
            ),
        ),
        (
            "options",
            many(
                "GET / HTTP/1.1\r\nHost: open.default.example.com\r\nConnection: a",
                ", b",
            ),
        ),
        (
            "an upgrade and then bytes",
            many(
                "GET / HTTP/1.1\r\nHost: open.default.example.com\r\nConnection: upgrade\r\n\
          Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
                "\u{1}",
            ),
        ),
        (
            "a preface of HTTP/2",
            many("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\0\0\0\u{4}\0\0\0\0\0"),
        ),
    ]
}

#[test]
fn ten_kibibytes_of_anything_cost_less_than_a_mebibyte_and_a_held_request_little() {
    let gateway = Gateway::start();
    let _full = gateway.fill();
    gateway.settle();
    for (what, mut content) in hostile() {
        content.truncate(SENT);
        // All at once, and in crumbs.
        for piece in [SENT, 7] {
            let before = LIVE.load(Ordering::Relaxed);
            PEAK.store(before, Ordering::Relaxed);
            let mut client = gateway.connect();
            for piece in content.as_bytes().chunks(piece) {
                // Who is refused is told so, and need not be listened to any longer.
                if client.write_all(piece).is_err() {
                    break;
                }
            }
            gateway.settle();
            let cost = PEAK.load(Ordering::Relaxed) - before;
            assert!(cost <= COST_MAX, "{what}: {cost} bytes");
        }
    }
    held_requests_cost_little(&gateway);
}

fn held_requests_cost_little(gateway: &Gateway) {
    let begun = gateway.holding.held();
    let before = LIVE.load(Ordering::Relaxed);
    let clients: Vec<_> = (0..HELD)
        .map(|_| {
            let mut client = gateway.connect();
            client.write_all(get("full").as_bytes()).unwrap();
            client
        })
        .collect();
    while gateway.holding.held() < begun + HELD {
        std::thread::yield_now();
    }
    gateway.settle();
    let cost = (LIVE.load(Ordering::Relaxed) - before) / bytes(HELD);
    assert!(cost <= HELD_COST_MAX, "{cost} bytes for each");
    drop(clients);
}
