//! Exchanges over in-process pipes with paused time: what limits end them, and what is left behind.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]
#![cfg_attr(
    fuzzing,
    allow(dead_code, unused_imports, reason = "fuzzing uses a part of it")
)]

#[cfg(test)]
mod arrival;
#[cfg(test)]
mod connections;
#[cfg(test)]
mod edge;
#[cfg(test)]
mod ends;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod grpc;
#[cfg(test)]
mod held;
pub(crate) mod hostile;
#[cfg(test)]
mod knative;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod pace;
#[cfg(test)]
mod paths;
#[cfg(test)]
mod repeats;
#[cfg(test)]
mod reuse;
#[cfg(test)]
mod series;
#[cfg(test)]
mod streams;
#[cfg(test)]
mod streams_end;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use activator::admission::{Holding, Limits, Supply, Throttle};
use config::settings::Audience;
use config::{Compiler, Content, Fragment, Origin};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::Instant;

use super::Client;
use crate::http::h1::connection::Connection;
use crate::live::{Live, Published, Throttles};
use crate::observe::access_log::{self, AccessLog};
use crate::observe::metrics::Registry;
use crate::serve::census::Census;
use crate::serve::connection::serve;
use crate::serve::drain::Phase;
use crate::serve::io::Io;
use crate::serve::timers::TICK;
use crate::serve::worker::{Shared, Worker};

/// Nobody listens there: all connections come from the pool.
const NOWHERE: &str = "127.0.0.1:1";

/// Bytes a pipe holds where a test does not care.
const PLENTY: usize = 1 << 20;

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a.default.example.com\r\n\r\n";

/// One worker, one route `a` to one revision `a` with fixed endpoints.
struct World {
    worker: Rc<Worker>,
    throttle: Arc<Throttle>,
    registry: Arc<Registry>,
    log: AccessLog,
}

/// Runs a test on a worker's kind of event loop; time passes only while nothing else can happen.
fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build_local(LocalOptions::default())
        .unwrap();
    // A test that would wait for ever fails at once: only timers are left to pass.
    let day = Duration::from_secs(24 * 3600);
    runtime.block_on(async { tokio::time::timeout(day, Box::pin(test)).await.unwrap() })
}

impl World {
    /// `limits` are those of the process, `revision` more keys of the revision, both in flow style.
    fn new(limits: &str, revision: &str) -> World {
        World::at(NOWHERE.parse().unwrap(), limits, revision)
    }

    fn at(endpoint: SocketAddr, limits: &str, revision: &str) -> World {
        World::of(&format!("limits: {{ {limits} }}"), endpoint, revision)
    }

    /// `gateway` are options of the process, in flow style.
    fn of(gateway: &str, endpoint: SocketAddr, revision: &str) -> World {
        let backend = format!("endpoints: [\"{endpoint}\"]");
        World::behind(&backend, gateway, endpoint, revision)
    }

    /// The same, of a revision whose endpoints a scaler would bring.
    fn scaled(endpoint: SocketAddr, revision: &str) -> World {
        World::behind("process: { command: [nobody] }", "", endpoint, revision)
    }

    fn behind(backend: &str, gateway: &str, endpoint: SocketAddr, revision: &str) -> World {
        let text = format!(
            "gateway: {{ {gateway} }}\n\
             routes:\n  - {{ name: a, traffic: [ {{ revision: a }} ] }}\n\
             \x20 - {{ name: b, rules: [ {{ path: /empty, respond: {{ status: 204 }} }},\n\
             \x20     {{ path: /set, setHeaders: {{ x-forwarded-proto: https }}, traffic: [ {{ revision: a }} ] }},\n\
             \x20     {{ path: /moved, rewriteHost: inner.test, rewritePath: /else, setResponseHeaders: {{ x-set: '1' }},\n\
             \x20       traffic: [ {{ revision: a }} ] }} ] }}\n\
             revisions:\n  - {{ name: a, {backend}, {revision} }}\n"
        );
        let content = config::parse("test.yaml", &text);
        World::saying(content, endpoint)
    }

    /// Of the first revision that this says.
    fn saying(content: Content, endpoint: SocketAddr) -> World {
        let log = access_log::Config {
            mode: access_log::Mode::Off,
            per_second: 0,
            format: access_log::Format::Text,
            file: access_log::Target::Stderr,
            requests: None,
        };
        World::logging(content, endpoint, &log)
    }

    fn logging(content: Content, endpoint: SocketAddr, log: &access_log::Config) -> World {
        assert!(matches!(content, Content::Documents { .. }), "{content:?}");
        let origin = Origin::File("test.yaml".into());
        let compiled = Compiler::default()
            .apply(vec![Fragment { origin, content }])
            .unwrap();
        let revision = compiled.snapshot.revisions().next().unwrap().clone();
        let holding = Holding::new(100, 1 << 20);
        let limits = Limits::new(revision.concurrency, revision.queue.depth);
        let throttle = Throttle::new(limits, Supply::Fixed, &holding.namespace("default"), 1);
        throttle.set_endpoints(&[endpoint]);
        let mut throttles = Throttles::default();
        throttles.set(revision.id, Some(throttle.clone()));
        let published = Arc::new(Published::default());
        published.swap(Live {
            version: 1,
            snapshot: compiled.snapshot,
            throttles,
            ..Live::default()
        });
        let registry = Registry::new(1, vec!["test".to_owned()]);
        let (log, mut writers) = AccessLog::start(log, &registry).unwrap();
        let shared = Arc::new(Shared {
            census: Census::new(&compiled.settings, None),
            memory: Default::default(),
            settings: compiled.settings,
            published,
            holding,
            pseudonym: "tidegate-test".into(),
        });
        let worker = Worker::new(0, &shared, registry.worker(0), writers.remove(0));
        let timers = worker.timers.clone();
        spawn_local(async move { timers.drive().await });
        World {
            worker,
            throttle,
            registry,
            log,
        }
    }

    /// The other end of an idle connection to the endpoint.
    fn endpoint(&self) -> DuplexStream {
        self.endpoint_holding(PLENTY)
    }

    fn endpoint_holding(&self, capacity: usize) -> DuplexStream {
        let (io, theirs) = Io::memory(capacity);
        let mut connection = Connection::new(io, &self.worker.buffers);
        connection.rest();
        let endpoint = self.throttle.endpoints()[0].id;
        self.worker
            .pool
            .put(endpoint, Box::new(connection), self.worker.tick());
        theirs
    }

    /// A client's end of a connection that is being served.
    fn client(&self) -> DuplexStream {
        self.client_holding(PLENTY).0
    }

    fn client_holding(&self, capacity: usize) -> (DuplexStream, JoinHandle<()>) {
        let (io, theirs) = Io::memory(capacity);
        (theirs, self.serve(io))
    }

    fn serve(&self, io: Io) -> JoinHandle<()> {
        self.serve_as(io, |_| {})
    }

    /// A client's end of a connection that is served as if from this client.
    fn client_as(&self, change: impl FnOnce(&mut Client)) -> DuplexStream {
        let (io, theirs) = Io::memory(PLENTY);
        self.serve_as(io, change);
        theirs
    }

    fn serve_as(&self, io: Io, change: impl FnOnce(&mut Client)) -> JoinHandle<()> {
        let mut client = world_client();
        change(&mut client);
        spawn_local(serve(self.worker.clone(), io, client))
    }

    /// Waits until as many slots are held.
    async fn in_flight(&self, wanted: u32) {
        while self.throttle.in_flight() != wanted {
            tokio::time::sleep(TICK).await;
        }
    }

    /// How many exchanges of route `a` were counted so.
    fn counted(&self, code: u16, reason: &str) -> u64 {
        let text = self.registry.scrape(&[]);
        let wanted = [
            "tidegate_requests_total{".to_owned(),
            format!("code=\"{code}\""),
            format!("reason=\"{reason}\""),
        ];
        let line = text
            .lines()
            .find(|line| wanted.iter().all(|part| line.contains(part.as_str())));
        let count = line.and_then(|line| line.rsplit(' ').next());
        count.map_or(0, |count| count.parse().unwrap())
    }
}

/// Whom clients are taken for.
fn world_client() -> Client {
    Client {
        address: "192.0.2.7:4321".parse().unwrap(),
        address_text: "192.0.2.7".into(),
        listener: 0,
        audience: Audience::Public,
        one_client: true,
        trusted: false,
        secure: false,
        identity: None,
        leaves_at: None,
    }
}

/// Reads until what came ends with `end`.
async fn read_until(stream: &mut (impl AsyncReadExt + Unpin), end: &str) -> String {
    let mut seen = Vec::new();
    while !seen.ends_with(end.as_bytes()) {
        let mut byte = [0];
        let count = stream.read(&mut byte).await.unwrap();
        assert!(
            count > 0,
            "ended after {:?}",
            String::from_utf8_lossy(&seen)
        );
        seen.push(byte[0]);
    }
    String::from_utf8(seen).unwrap()
}

async fn read_head(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    read_until(stream, "\r\n\r\n").await
}

/// Reads until the other side has ended the connection.
async fn read_all(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut seen = Vec::new();
    stream.read_to_end(&mut seen).await.unwrap();
    String::from_utf8(seen).unwrap()
}

/// An answer of our own with this status and reason.
async fn refusal(client: &mut DuplexStream, status: u16, reason: &str) {
    let head = read_head(client).await;
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
    assert!(
        head.contains(&format!("tidegate-reason: {reason}\r\n")),
        "{head}"
    );
}

async fn say(stream: &mut (impl AsyncWriteExt + Unpin), bytes: impl AsRef<[u8]>) {
    stream.write_all(bytes.as_ref()).await.unwrap();
}

/// `since` was so long ago, give or take what timers are late.
fn took(since: Instant, wanted: Duration) {
    let took = since.elapsed();
    let late = TICK * 4;
    assert!(
        took >= wanted && took <= wanted + late,
        "{took:?}, not {wanted:?}"
    );
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A client's socket, and the same connection as it is served.
async fn sockets() -> (TcpStream, Io) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap());
    let (client, accepted) = tokio::join!(client, listener.accept());
    (client.unwrap(), Io::Plain(accepted.unwrap().0))
}

/// An address that takes no more connections and refuses none.
struct Full {
    address: SocketAddr,
    _listener: Socket,
    _queued: Vec<Socket>,
}

impl Full {
    fn new() -> Full {
        let socket = || Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let listener = socket();
        listener
            .bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into())
            .unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let queued = (0..4).map(|_| {
            let client = socket();
            client.set_nonblocking(true).unwrap();
            let _in_progress = client.connect(&address);
            client
        });
        Full {
            address: address.as_socket().unwrap(),
            _queued: queued.collect(),
            _listener: listener,
        }
    }
}

fn post(length: usize) -> String {
    format!("POST / HTTP/1.1\r\nhost: a.default.example.com\r\ncontent-length: {length}\r\n\r\n")
}

/// Opens a tunnel.
async fn upgraded(client: &mut DuplexStream, endpoint: &mut DuplexStream) {
    say(
        client,
        "GET / HTTP/1.1\r\nhost: a.default.example.com\r\nconnection: upgrade\r\n\
         upgrade: websocket\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         sec-websocket-version: 13\r\n\r\n",
    )
    .await;
    read_head(endpoint).await;
    let answer =
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    say(endpoint, answer).await;
    assert!(read_head(client).await.starts_with("HTTP/1.1 101 "));
}
