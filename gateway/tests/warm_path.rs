//! A keep-alive request on a warm worker allocates nothing.
//!
//! The whole worker runs on one thread of this test, between a client and an endpoint on plain
//! sockets, and only that thread's allocations are counted.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

mod endpoint;
mod one_worker;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};

use activator::admission::Holding;
use tidegate::observe::access_log::Mode;
use tidegate::serve::drain::Phase;

use self::endpoint::endpoint;
use self::one_worker::OneWorker;

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

/// Answers every request with `RESPONSE`.
fn answer(mut stream: TcpStream) {
    let mut buffer = [0; 4096];
    let mut seen = 0;
    while let Ok(count @ 1..) = stream.read(&mut buffer[seen..]) {
        seen += count;
        if buffer[..seen].ends_with(b"\r\n\r\n") {
            seen = 0;
            stream.write_all(RESPONSE).unwrap();
        }
    }
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

fn configuration(endpoint: SocketAddr) -> String {
    format!(
        "routes:\n  - name: coffee\n    traffic:\n      - {{ revision: coffee-00001, percent: 70, tag: current }}\n      - {{ revision: coffee-00002, percent: 30 }}\n    sticky: {{ header: x-user }}\n\
         revisions:\n  - {{ name: coffee-00001, concurrency: 10, endpoints: [\"{endpoint}\"] }}\n  - {{ name: coffee-00002, endpoints: [\"{endpoint}\"] }}\n"
    )
}

#[test]
fn a_warm_keep_alive_request_allocates_nothing() {
    let endpoint = endpoint(answer);
    let holding = Holding::new(100, 1 << 20);
    let text = configuration(endpoint);
    let count: fn() = || COUNTED.set(true);
    let gateway = OneWorker::start(&text, endpoint, &holding, Mode::All, count);
    let mut client = TcpStream::connect(gateway.address).unwrap();
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
    gateway.end(Phase::Closing);
}
