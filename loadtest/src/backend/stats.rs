//! What the backend has seen: the other side of every comparison's books.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::times::Watch;
use crate::system;

/// Most bytes of a request for the counts, and of the answer to one.
const BYTES_MAX: usize = 64 * 1024;

/// How long a reader of the counts may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the whole backend has seen since it started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// The sum over all addresses; its `peak` is the highest of theirs.
    pub total: AddressStats,
    /// In the order of `--listen`, by address.
    pub addresses: Vec<(SocketAddr, AddressStats)>,
}

/// What one address has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressStats {
    /// Connections accepted.
    pub connections: u64,
    /// Connections open now.
    pub open: u64,
    /// Requests whose head was read. Each ends as one of the three below, or with its connection.
    pub requests: u64,
    /// Answers written whole, those of `refused` not among them.
    pub answers: u64,
    /// Requests over `--concurrency`, answered with 503.
    pub refused: u64,
    /// Requests answered with a reset.
    pub resets: u64,
    /// Most requests in flight at once, refused ones among them: since the start or the last POST.
    pub peak: u64,
    /// Body bytes received.
    pub bytes_up: u64,
    /// Messages of WebSockets sent back.
    pub messages: u64,
}

/// Counts of one address, on its thread.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) connections: Cell<u64>,
    pub(super) open: Cell<u64>,
    pub(super) requests: Cell<u64>,
    pub(super) answers: Cell<u64>,
    pub(super) refused: Cell<u64>,
    pub(super) resets: Cell<u64>,
    pub(super) running: Cell<u64>,
    pub(super) peak: Cell<u64>,
    pub(super) bytes_up: Cell<u64>,
    pub(super) messages: Cell<u64>,
    pub(super) watch: Option<Rc<Watch>>,
}

/// One more.
pub(super) fn count(cell: &Cell<u64>) {
    cell.set(cell.get() + 1);
}

/// A count that goes down again when this is dropped.
#[derive(Debug)]
pub(super) struct Held<'a>(&'a Cell<u64>);

impl<'a> Held<'a> {
    pub(super) fn new(cell: &'a Cell<u64>) -> Held<'a> {
        count(cell);
        Held(cell)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Counts {
    /// Counts a request in, for as long as what it returns lives.
    pub(super) fn begin(&self) -> Held<'_> {
        count(&self.requests);
        if let Some(watch) = &self.watch {
            watch.request();
        }
        let held = Held::new(&self.running);
        self.peak.set(self.peak.get().max(self.running.get()));
        held
    }

    fn read(&self) -> AddressStats {
        AddressStats {
            connections: self.connections.get(),
            open: self.open.get(),
            requests: self.requests.get(),
            answers: self.answers.get(),
            refused: self.refused.get(),
            resets: self.resets.get(),
            peak: self.peak.get(),
            bytes_up: self.bytes_up.get(),
            messages: self.messages.get(),
        }
    }
}

/// The counts of all addresses.
#[derive(Clone, Debug)]
pub(super) struct Book {
    pub(super) addresses: Rc<Vec<(SocketAddr, Rc<Counts>)>>,
}

impl Book {
    pub(super) fn read(&self) -> Stats {
        let addresses: Vec<(SocketAddr, AddressStats)> = self
            .addresses
            .iter()
            .map(|(address, counts)| (*address, counts.read()))
            .collect();
        let mut total = AddressStats::default();
        for (_, one) in &addresses {
            total.connections += one.connections;
            total.open += one.open;
            total.requests += one.requests;
            total.answers += one.answers;
            total.refused += one.refused;
            total.resets += one.resets;
            total.peak = total.peak.max(one.peak);
            total.bytes_up += one.bytes_up;
            total.messages += one.messages;
        }
        Stats { total, addresses }
    }

    /// Begins the peaks anew, from what is in flight.
    fn forget_peaks(&self) {
        for (_, counts) in self.addresses.iter() {
            counts.peak.set(counts.running.get());
        }
    }

    /// Tells whoever asks.
    #[expect(clippy::infinite_loop, reason = "it ends with the program")]
    pub(super) async fn serve(self, listener: TcpListener) {
        loop {
            let stream = system::accept(&listener).await;
            // A reader that leaves or dawdles has itself to blame.
            let _left = timeout(PATIENCE, self.tell(stream)).await;
        }
    }

    async fn tell(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") && request.len() < BYTES_MAX {
            if stream.read_buf(&mut request).await? == 0 {
                return Ok(());
            }
        }
        let body = serde_json::to_string(&self.read())?;
        if request.starts_with(b"POST ") {
            self.forget_peaks();
        }
        let length = body.len() + 1;
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
             Connection: close\r\n\r\n{body}\n"
        );
        stream.write_all(answer.as_bytes()).await
    }
}

/// Asks the backend whose `--stats` address this is; `anew` begins its peaks anew.
///
/// # Errors
///
/// It does not answer, or not with counts, within 5 s.
pub async fn read(address: SocketAddr, anew: bool) -> anyhow::Result<Stats> {
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        let method = if anew { "POST" } else { "GET" };
        let request = format!("{method} / HTTP/1.1\r\nHost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        let mut stream = stream.take(BYTES_MAX as u64);
        stream.read_to_string(&mut answer).await?;
        anyhow::Ok(answer)
    };
    let answer = timeout(PATIENCE, ask)
        .await
        .context("no counts from the backend in time")?
        .context("no counts from the backend")?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body);
    serde_json::from_str(body.unwrap_or_default()).context("the backend's counts are not counts")
}
