//! Many clients at once, each sending its next request when the last one is answered.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hyper::Request;
use tokio::task::JoinSet;

use crate::body::Body;
use crate::client::{Answer, Client};
use crate::wait::{PATIENCE, eventually, within};

/// What came of all requests: `200`, `503 queue_full`, `lost: …`, and how often.
pub type Tally = BTreeMap<String, u64>;

/// When a client takes a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reconnect {
    /// As often as the gateway closes one.
    Always,
    /// Never: the gateway's `Connection: close` is the end.
    Never,
}

/// Clients at work.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    clients: JoinSet<Tally>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    answered: AtomicU64,
}

impl Load {
    /// `clients` keep-alive connections, each sending what `request` makes again and again.
    pub fn start(
        gateway: SocketAddr,
        clients: usize,
        reconnect: Reconnect,
        request: impl Fn() -> Request<Body> + Clone + Send + 'static,
    ) -> Load {
        let shared = Arc::new(Shared::default());
        let work =
            (0..clients).map(|_| client(shared.clone(), gateway, reconnect, request.clone()));
        let clients = work.collect();
        Load { shared, clients }
    }

    /// Answers so far, whatever they said.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::SeqCst)
    }

    /// Waits for that many more answers, longer for more of them.
    pub async fn more(&self, count: u64) {
        let goal = self.answered() + count;
        let limit = PATIENCE + Duration::from_millis(10 * count);
        eventually(limit, "the load is answered", async || {
            (self.answered() >= goal).then_some(())
        })
        .await;
    }

    /// Lets every client finish its last request, and adds up.
    pub async fn stop(self) -> Tally {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.end().await
    }

    /// Waits until every client has ended by itself, and adds up.
    pub async fn end(self) -> Tally {
        let tallies = within("the load to end", self.clients.join_all()).await;
        let mut sum = Tally::new();
        for (what, count) in tallies.into_iter().flatten() {
            *sum.entry(what).or_default() += count;
        }
        sum
    }
}

async fn client(
    shared: Arc<Shared>,
    gateway: SocketAddr,
    reconnect: Reconnect,
    request: impl Fn() -> Request<Body>,
) -> Tally {
    let mut tally = Tally::new();
    let mut connection = None;
    while !shared.stop.load(Ordering::SeqCst) {
        let answer = once(&mut connection, gateway, request()).await;
        let closing = match &answer {
            Ok(answer) => answer.header("connection").eq_ignore_ascii_case("close"),
            Err(_) => true,
        };
        *tally.entry(verdict(answer)).or_default() += 1;
        shared.answered.fetch_add(1, Ordering::SeqCst);
        if closing {
            connection = None;
            if reconnect == Reconnect::Never {
                break;
            }
        }
    }
    tally
}

async fn once(
    connection: &mut Option<Client>,
    gateway: SocketAddr,
    request: Request<Body>,
) -> anyhow::Result<Answer> {
    if connection.is_none() {
        *connection = Some(Client::try_connect(gateway).await?);
    }
    match connection {
        Some(client) => client.try_send(request).await,
        None => anyhow::bail!("not connected"),
    }
}

fn verdict(answer: anyhow::Result<Answer>) -> String {
    match answer {
        Ok(answer) => format!("{} {}", answer.status, answer.reason())
            .trim_end()
            .to_owned(),
        Err(error) => format!("lost: {error:#}"),
    }
}

/// # Panics
/// Unless there were answers and every one was 200.
#[track_caller]
pub fn assert_only_200(tally: &Tally) {
    let words: Vec<_> = tally.keys().collect();
    assert_eq!(words, ["200"], "{tally:?}");
}

/// Sends `count` requests over a few connections and counts which backend answered how often.
///
/// # Panics
/// When an answer is not 200.
pub async fn distribution(
    gateway: SocketAddr,
    count: usize,
    request: impl Fn(usize) -> Request<Body>,
) -> BTreeMap<String, usize> {
    let mut client = Client::connect(gateway).await;
    let mut counts = BTreeMap::new();
    for number in 0..count {
        let answer = client.send(request(number)).await.expect(200);
        *counts.entry(answer.backend().to_owned()).or_default() += 1;
        if answer.header("connection").eq_ignore_ascii_case("close") {
            client = Client::connect(gateway).await;
        }
    }
    counts
}
