//! An autoscaler of Knative, as far as a gateway talks to it: a WebSocket server that takes
//! statistics, and the question it asks before it scales to zero.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use futures_util::{SinkExt, StreamExt};
use prost::Message as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};

use super::objects::{CLUSTER_DOMAIN, Revision};
use super::port::Port;
use crate::client::{Answer, Client, request, with};
use crate::wait::{PATIENCE, eventually, eventually_seen};

/// What is said of one revision, over a window that has just ended.
#[derive(Clone, Debug)]
pub struct Stat {
    pub namespace: String,
    pub revision: String,
    pub pod: String,
    pub average: f64,
    pub count: f64,
    /// What only queue-proxies say.
    pub proxied: (f64, f64),
    pub at: Instant,
    /// Which message it came in, over all connections, and on which connection: from 0.
    pub message: usize,
    pub connection: usize,
}

/// The messages of `stat.proto` in `knative.dev/serving/pkg/autoscaler/metrics`.
mod wire {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct WireStatMessages {
        #[prost(message, repeated, tag = "1")]
        pub(super) messages: Vec<WireStatMessage>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct WireStatMessage {
        #[prost(string, tag = "1")]
        pub(super) namespace: String,
        #[prost(string, tag = "2")]
        pub(super) name: String,
        #[prost(message, optional, tag = "3")]
        pub(super) stat: Option<Stat>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Stat {
        #[prost(string, tag = "1")]
        pub(super) pod_name: String,
        #[prost(double, tag = "2")]
        pub(super) average_concurrent_requests: f64,
        #[prost(double, tag = "3")]
        pub(super) average_proxied_concurrent_requests: f64,
        #[prost(double, tag = "4")]
        pub(super) request_count: f64,
        #[prost(double, tag = "5")]
        pub(super) proxied_request_count: f64,
        #[prost(double, tag = "6")]
        pub(super) process_uptime: f64,
        #[prost(int64, tag = "7")]
        pub(super) timestamp: i64,
    }
}

/// A running autoscaler. Dropped, it is gone with all its connections.
pub struct Autoscaler {
    port: Port,
    state: Arc<State>,
}

struct State {
    books: Mutex<Books>,
    mood: watch::Sender<Mood>,
}

#[derive(Debug, Default)]
struct Books {
    stats: Vec<Stat>,
    messages: usize,
    /// Binary messages that were no statistics, and text.
    bad: usize,
    pings: Vec<Instant>,
    /// Connections that there were, and that there are.
    accepted: usize,
    open: usize,
    refused: usize,
}

/// How it is disposed to its clients.
#[derive(Clone, Debug, Default)]
struct Mood {
    refusing: bool,
    silent: bool,
    /// How often all clients were to be sent away.
    closings: u64,
}

impl Autoscaler {
    /// On a free port.
    #[must_use]
    pub fn start() -> Autoscaler {
        let state = State {
            books: Mutex::default(),
            mood: watch::Sender::default(),
        };
        let autoscaler = Autoscaler {
            port: Port::free(),
            state: Arc::new(state),
        };
        autoscaler.restart();
        autoscaler
    }

    /// For `TIDEGATE_AUTOSCALER`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("ws://{}", self.port.address)
    }

    /// Closes the port and every connection without a word.
    pub async fn stop(&self) {
        self.port.stop().await;
    }

    /// Listens on the same port again.
    ///
    /// # Panics
    /// When it was not stopped.
    pub fn restart(&self) {
        self.port
            .serve(|listener| serve(listener, self.state.clone()));
    }

    /// Sends every client away with 1012, as it does when it is restarted. It goes on to take new
    /// ones.
    pub fn close(&self) {
        self.state.mood.send_modify(|mood| mood.closings += 1);
    }

    /// Answers 503 to who comes, until this is taken back.
    pub fn refuse(&self, refusing: bool) {
        self.state.mood.send_modify(|mood| mood.refusing = refusing);
    }

    /// Reads nothing and answers no pings, until this is taken back. Handshakes go on.
    pub fn silence(&self, silent: bool) {
        self.state.mood.send_modify(|mood| mood.silent = silent);
    }

    // --- what it heard ---

    /// All statistics, in the order they came.
    #[must_use]
    pub fn stats(&self) -> Vec<Stat> {
        self.books(|books| books.stats.clone())
    }

    /// Those of one revision.
    #[must_use]
    pub fn stats_of(&self, namespace: &str, revision: &str) -> Vec<Stat> {
        let mut stats = self.stats();
        stats.retain(|stat| (&*stat.namespace, &*stat.revision) == (namespace, revision));
        stats
    }

    /// Forgets the statistics that came until now.
    pub fn forget(&self) {
        self.books(|books| books.stats.clear());
    }

    /// Waits until all that was heard is as wanted, and gives it.
    ///
    /// # Panics
    /// After [`PATIENCE`], showing what was heard.
    pub async fn until(&self, what: &str, wanted: impl Fn(&[Stat]) -> bool) -> Vec<Stat> {
        eventually_seen(PATIENCE, what, async || {
            let stats = self.stats();
            match wanted(&stats) {
                true => Ok(stats),
                false => Err(format!("{stats:#?}")),
            }
        })
        .await
    }

    /// How many clients are there.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.books(|books| books.open)
    }

    /// How many have come until now.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.books(|books| books.accepted)
    }

    /// How many were refused.
    #[must_use]
    pub fn refused(&self) -> usize {
        self.books(|books| books.refused)
    }

    /// Messages that were no statistics.
    #[must_use]
    pub fn bad(&self) -> usize {
        self.books(|books| books.bad)
    }

    #[must_use]
    pub fn pings(&self) -> Vec<Instant> {
        self.books(|books| books.pings.clone())
    }

    /// Waits until as many clients are there.
    pub async fn until_clients(&self, count: usize) {
        let what = format!("{count} clients are at the autoscaler");
        eventually(PATIENCE, &what, async || {
            (self.clients() == count).then_some(())
        })
        .await;
    }

    fn books<T>(&self, read: impl FnOnce(&mut Books) -> T) -> T {
        read(&mut self.state.books.lock().unwrap())
    }
}

impl fmt::Debug for Autoscaler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Autoscaler({})", self.port.address)
    }
}

async fn serve(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(greet(stream, state.clone()));
        while connections.try_join_next().is_some() {}
    }
}

async fn greet(stream: TcpStream, state: Arc<State>) {
    let refusing = state.mood.borrow().refusing;
    #[expect(
        clippy::result_large_err,
        reason = "the callback's type is the library's"
    )]
    let check = |_: &Request, response: Response| -> Result<Response, ErrorResponse> {
        if refusing {
            let mut refusal = ErrorResponse::new(None);
            *refusal.status_mut() = 503.try_into().unwrap();
            return Err(refusal);
        }
        Ok(response)
    };
    // A client that does not shake hands is its own affair, and seen from there.
    match accept_hdr_async(stream, check).await {
        Ok(socket) => listen(socket, &state).await,
        Err(_) => state.books.lock().unwrap().refused += 1,
    }
}

/// A client that is there, until dropped.
struct Present<'a>(&'a State);

impl Drop for Present<'_> {
    fn drop(&mut self) {
        self.0.books.lock().unwrap().open -= 1;
    }
}

async fn listen(mut socket: WebSocketStream<TcpStream>, state: &State) {
    let mut mood = state.mood.subscribe();
    let closings = mood.borrow().closings;
    let connection = {
        let mut books = state.books.lock().unwrap();
        books.open += 1;
        books.accepted += 1;
        books.accepted - 1
    };
    let _present = Present(state);
    loop {
        // The sender lives as long as the connection.
        drop(mood.wait_for(|mood| !mood.silent).await);
        if mood.borrow_and_update().closings != closings {
            let frame = CloseFrame {
                code: CloseCode::Restart,
                reason: "Restarting".into(),
            };
            // Gone already, if not.
            drop(socket.close(Some(frame)).await);
            drop(socket.flush().await);
            return;
        }
        tokio::select! {
            message = socket.next() => match message {
                Some(Ok(message)) => state.take(connection, &message),
                _ => return,
            },
            Ok(()) = mood.changed() => {}
        }
    }
}

impl State {
    fn take(&self, connection: usize, message: &Message) {
        let at = Instant::now();
        let mut books = self.books.lock().unwrap();
        let decoded = match message {
            Message::Binary(data) => wire::WireStatMessages::decode(data.clone()).ok(),
            Message::Text(_) => None,
            Message::Ping(_) => return books.pings.push(at),
            _ => return,
        };
        let Some(decoded) = decoded else {
            books.bad += 1;
            return;
        };
        let number = books.messages;
        books.messages += 1;
        let stats = decoded.messages.into_iter().filter_map(|message| {
            let stat = message.stat?;
            Some(Stat {
                namespace: message.namespace,
                revision: message.name,
                pod: stat.pod_name,
                average: stat.average_concurrent_requests,
                count: stat.request_count,
                proxied: (
                    stat.average_proxied_concurrent_requests,
                    stat.proxied_request_count,
                ),
                at,
                message: number,
                connection,
            })
        });
        books.stats.extend(stats);
    }
}

/// What the autoscaler asks the public Service of a revision, here at one address behind it, before
/// it scales to zero: an activator answers 200 and `activator`.
pub async fn scale_to_zero_probe(address: SocketAddr, revision: &Revision) -> Answer {
    let (name, namespace) = (&revision.name, &revision.namespace);
    let host = format!("{name}.{namespace}.svc.{CLUSTER_DOMAIN}:80");
    let mut probe = request("GET", &host, "//healthz");
    for (name, value) in [
        ("user-agent", "Knative-Autoscaling-Probe"),
        ("k-network-probe", "activator"),
        ("connection", "close"),
    ] {
        probe = with(probe, name, value);
    }
    Client::connect(address).await.send(probe).await
}
