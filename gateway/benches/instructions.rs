//! Instructions of one proxied request, counted by callgrind: `cargo bench -p tidegate --bench
//! instructions`. They hold still where time does not.
//!
//! A keep-alive GET goes through the exchange over pipes in memory: 1 000 routes, a 70/30 split, a
//! concurrency limit, metrics on, the access log off. Only what the gateway's connection task does
//! is counted, in user space: neither the client's and the endpoint's side nor the kernel. The
//! program runs itself under valgrind for N and for 2 N requests; what the second run has more is
//! N warm requests. `target/callgrind.requests` keeps the second run for `callgrind_annotate`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a benchmark prints, and of a broken gateway may fail"
)]

use std::path::Path;
use std::pin::Pin;
use std::process::Command;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};

use activator::admission::{Holding, Limits, Supply, Throttle};
use config::{Compiler, Content, Fragment, Origin};
use tidegate::exchange::Client;
use tidegate::http::h1::connection::Connection;
use tidegate::live::{Live, Published, Throttles};
use tidegate::observe::access_log::{self, AccessLog};
use tidegate::observe::metrics::Registry;
use tidegate::serve::census::Census;
use tidegate::serve::connection::serve;
use tidegate::serve::io::Io;
use tidegate::serve::worker::{Shared, Worker};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::runtime::{Builder, LocalOptions};

/// Asks the program to run so many requests itself.
const REQUESTS: &str = "--requests=";
const N: u64 = 2_000;
const ROUTES: usize = 1_000;
/// The function whose callees are counted; never inlined.
const COUNTED: &str = "*poll_gateway*";

const REQUEST: &[u8] = b"GET /hello?x=1 HTTP/1.1\r\nHost: route-500.default.example.com\r\n\
User-Agent: test\r\nAccept: */*\r\n\r\n";
const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nhello";

fn main() {
    let asked = std::env::args().find_map(|arg| arg.strip_prefix(REQUESTS)?.parse().ok());
    if let Some(requests) = asked {
        return run(requests);
    }
    let (Some(once), Some(twice)) = (counted(N), counted(2 * N)) else {
        println!("instructions: not counted, because valgrind is not installed");
        return;
    };
    println!("instructions per request: {}", (twice - once) / N);
}

/// Instructions of so many requests and the start before them; `None` without valgrind.
fn counted(requests: u64) -> Option<u64> {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../callgrind.requests");
    let result = Command::new("valgrind")
        .args(["--tool=callgrind", "--dump-line=yes"])
        .arg(format!("--toggle-collect={COUNTED}"))
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe().unwrap())
        .arg(format!("{REQUESTS}{requests}"))
        .output();
    let output = match result {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => panic!("valgrind cannot be started: {error}"),
    };
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    let line = text.lines().find(|line| line.contains("Collected :"));
    let count = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
    Some(count.unwrap_or_else(|| panic!("valgrind says no count: {text}")))
}

fn run(requests: u64) {
    // The split draws the same targets in every run.
    fastrand::seed(7);
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .unwrap();
    runtime.block_on(async {
        let worker = worker();
        let timers = worker.timers.clone();
        tokio::task::spawn_local(async move { timers.drive().await });
        let mut endpoints = endpoints(&worker);
        let (io, mut client) = Io::memory(1 << 16);
        let mut gateway = Box::pin(serve(worker, io, from()));
        for _ in 0..requests {
            ask(&mut client, &mut gateway, &mut endpoints);
            // Ends this turn of the loop, and with it tokio's budget of operations.
            tokio::task::yield_now().await;
        }
    });
}

fn from() -> Client {
    Client {
        address: "192.0.2.7:4321".parse().unwrap(),
        address_text: "192.0.2.7".into(),
        listener: 0,
        audience: config::settings::Audience::Public,
        one_client: true,
        trusted: false,
        secure: false,
        identity: None,
        leaves_at: None,
    }
}

#[inline(never)]
fn poll_gateway<F: Future>(gateway: &mut Pin<Box<F>>) {
    let mut context = Context::from_waker(Waker::noop());
    let polled = gateway.as_mut().poll(&mut context);
    assert!(polled.is_pending(), "the gateway ended the connection");
}

/// One request and its answer, everybody in turn.
fn ask<F: Future>(
    client: &mut DuplexStream,
    gateway: &mut Pin<Box<F>>,
    endpoints: &mut [DuplexStream],
) {
    write(client, REQUEST);
    poll_gateway(gateway);
    let mut seen = [0; 1024];
    let asked = endpoints.iter_mut().find_map(|endpoint| {
        let count = read(endpoint, &mut seen);
        seen[..count].ends_with(b"\r\n\r\n").then_some(endpoint)
    });
    write(asked.unwrap(), ANSWER);
    poll_gateway(gateway);
    let count = read(client, &mut seen);
    let answer = &seen[..count];
    assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n") && answer.ends_with(b"hello"));
}

fn write(stream: &mut DuplexStream, bytes: &[u8]) {
    let mut context = Context::from_waker(Waker::noop());
    let written = Pin::new(stream).poll_write(&mut context, bytes);
    assert!(matches!(written, std::task::Poll::Ready(Ok(count)) if count == bytes.len()));
}

/// What is there to read, perhaps nothing.
fn read(stream: &mut DuplexStream, target: &mut [u8]) -> usize {
    let mut context = Context::from_waker(Waker::noop());
    let mut buffer = ReadBuf::new(target);
    let polled = Pin::new(stream).poll_read(&mut context, &mut buffer);
    assert!(!matches!(polled, std::task::Poll::Ready(Err(_))));
    buffer.filled().len()
}

/// The routes: each splits between two revisions of its own.
fn text() -> String {
    let (mut routes, mut revisions) = (String::new(), String::new());
    for number in 0..ROUTES {
        routes.push_str(&format!(
            "  - {{name: route-{number}, traffic: [{{revision: r{number}-1, percent: 70}}, \
             {{revision: r{number}-2, percent: 30}}]}}\n"
        ));
        for version in [1, 2] {
            revisions.push_str(&format!(
                "  - {{name: r{number}-{version}, concurrency: 100, \
                 endpoints: [\"127.0.0.1:1\"]}}\n"
            ));
        }
    }
    format!("routes:\n{routes}revisions:\n{revisions}")
}

fn worker() -> Rc<Worker> {
    let content = config::parse("bench.yaml", &text());
    assert!(matches!(content, Content::Documents { .. }));
    let origin = Origin::File("bench.yaml".into());
    let fragment = Fragment { origin, content };
    let compiled = Compiler::default().apply(vec![fragment]).unwrap();
    let holding = Holding::new(100, 1 << 20);
    let mut throttles = Throttles::default();
    for revision in compiled.snapshot.revisions() {
        let limits = Limits::new(revision.concurrency, revision.queue.depth);
        let throttle = Throttle::new(limits, Supply::Fixed, &holding.namespace("default"), 1);
        throttle.set_endpoints(&["127.0.0.1:1".parse().unwrap()]);
        throttles.set(revision.id, Some(throttle));
    }
    let published = Arc::new(Published::default());
    published.swap(Live {
        version: 1,
        snapshot: compiled.snapshot,
        throttles,
        ..Live::default()
    });
    let registry = Registry::new(1, vec!["bench".to_owned()]);
    let log = access_log::Config {
        mode: access_log::Mode::Off,
        per_second: 0,
        format: access_log::Format::Text,
        file: access_log::Target::Stderr,
        requests: None,
    };
    let (_log, mut writers) = AccessLog::start(&log, &registry).unwrap();
    let shared = Arc::new(Shared {
        census: Census::new(&compiled.settings, None),
        memory: Default::default(),
        settings: compiled.settings,
        published,
        holding,
        pseudonym: "tidegate-bench".into(),
    });
    Worker::new(0, &shared, registry.worker(0), writers.remove(0))
}

/// The other ends of idle connections to both revisions of the route that is asked for.
fn endpoints(worker: &Rc<Worker>) -> Vec<DuplexStream> {
    let live = worker.shared.published.load();
    let revisions = live.snapshot.revisions();
    let asked = revisions.filter(|revision| revision.key.name.starts_with("r500-"));
    let connect = |revision: &Arc<config::revision::Revision>| {
        let (io, theirs) = Io::memory(1 << 16);
        let mut connection = Connection::new(io, &worker.buffers);
        connection.rest();
        let throttle = live.throttles.get(revision.id).unwrap();
        let endpoint = throttle.endpoints()[0].id;
        worker
            .pool
            .put(endpoint, Box::new(connection), worker.tick());
        theirs
    };
    asked.map(connect).collect()
}
