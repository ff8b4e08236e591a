//! What a client can make a worker spend memory on: little bytes, little memory, and a held
//! request costs little.
//!
//! The whole worker runs on one thread of this test, and only what that thread has allocated is
//! counted.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

mod endpoint;
mod one_worker;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use activator::admission::Holding;
use tidegate::observe::access_log::Mode;
use tidegate::serve::drain::Phase;

use self::endpoint::endpoint;
use self::one_worker::OneWorker;

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

/// The head of each: what is charged to a held request is less than that by this, about.
const HEAD: usize = 2 * 1024;

/// What one held request without a body may cost, its connection included.
const HELD_COST_MAX: i64 = 8 * 1024;

/// Reads whatever comes, and answers nothing.
fn swallow(mut stream: TcpStream) {
    let mut buffer = [0; 4096];
    while let Ok(1..) = stream.read(&mut buffer) {}
}

/// `open`: everybody is let in; `full`: one is; `here`: answers by itself.
fn configuration(endpoint: SocketAddr) -> String {
    format!(
        "routes:\n  - {{ name: open, traffic: [ {{ revision: open }} ] }}\n\
         \x20 - {{ name: full, traffic: [ {{ revision: full }} ] }}\n\
         \x20 - {{ name: here, rules: [ {{ respond: {{ status: 204 }} }} ] }}\n\
         revisions:\n  - {{ name: open, endpoints: [\"{endpoint}\"] }}\n\
         \x20 - {{ name: full, concurrency: 1, endpoints: [\"{endpoint}\"] }}\n"
    )
}

struct Gateway {
    holding: Arc<Holding>,
    worker: Option<OneWorker>,
    address: SocketAddr,
}

impl Gateway {
    fn start() -> Gateway {
        let holding = Holding::new(10_000, 1 << 30);
        let endpoint = endpoint(swallow);
        let text = configuration(endpoint);
        let count: fn() = || COUNTED.set(true);
        let worker = OneWorker::start(&text, endpoint, &holding, Mode::Off, count);
        Gateway {
            holding,
            address: worker.address,
            worker: Some(worker),
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
        if let Some(worker) = self.worker.take() {
            worker.end(Phase::Ended);
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
    let filler = format!("\r\nx-filler: {}\r\n\r\n", "x".repeat(HEAD));
    let head = get("full").replace("\r\n\r\n", &filler);
    let clients: Vec<_> = (0..HELD)
        .map(|_| {
            let mut client = gateway.connect();
            client.write_all(head.as_bytes()).unwrap();
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
