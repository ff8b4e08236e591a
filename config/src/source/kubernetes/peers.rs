//! Asking the other replicas whether they serve an ingress, as Knative's own prober asks gateways.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};

use super::state::Ask;
use super::translate::Probe;

/// Requests at a time, over all ingresses.
const REQUESTS: usize = 64;
/// Idle connections kept to one replica.
const IDLE: usize = 16;
/// For one request, its connection included.
const ANSWER: Duration = Duration::from_secs(1);
/// Between two rounds: at first, and at most.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Of an answer's body, which has none.
const BODY: usize = 64 * 1024;

const HASH: &str = "k-network-hash";

type Sender = SendRequest<Empty<Bytes>>;

/// The other replicas, and connections to them.
#[derive(Debug)]
pub(super) struct Peers {
    known: watch::Receiver<Arc<BTreeSet<SocketAddr>>>,
    idle: Mutex<HashMap<SocketAddr, Vec<Sender>>>,
    permits: Semaphore,
}

impl Peers {
    pub(super) fn new(known: watch::Receiver<Arc<BTreeSet<SocketAddr>>>) -> Peers {
        Peers {
            known,
            idle: Mutex::default(),
            permits: Semaphore::new(REQUESTS),
        }
    }

    /// Returns once all others serve it; one that is no replica any more counts as if it did.
    /// `slow` is called if that is not so at once.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it asks no more.
    pub(super) async fn ask(&self, ask: &Ask, slow: impl FnOnce()) {
        let mut known = self.known.clone();
        let mut passed = HashSet::new();
        let mut pause = PAUSE;
        let mut slow = Some(slow);
        loop {
            let now = Arc::clone(&known.borrow_and_update());
            let waiting = now.iter().filter(|peer| !passed.contains(*peer));
            let rounds = waiting.map(async |peer| self.serves(*peer, ask).await.then_some(*peer));
            let answers = futures_util::future::join_all(rounds).await;
            passed.extend(answers.into_iter().flatten());
            let now = Arc::clone(&known.borrow());
            if now.iter().all(|peer| passed.contains(peer)) {
                return;
            }
            if let Some(slow) = slow.take() {
                slow();
            }
            let changed = async {
                if known.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(PAUSE_MAX),
                () = changed => pause = PAUSE,
            }
        }
    }

    /// Whether a replica answers every probe with the hash.
    async fn serves(&self, peer: SocketAddr, ask: &Ask) -> bool {
        for probe in ask.probes.iter() {
            // The semaphore is never closed.
            let Ok(_permit) = self.permits.acquire().await else {
                return false;
            };
            let answer = tokio::time::timeout(ANSWER, self.probe(peer, probe)).await;
            let passes = match answer {
                Ok(Ok(answer)) => answer.passes(&ask.hash),
                Ok(Err(error)) => {
                    tracing::debug!(%peer, ingress = %ask.ingress, %error, "replica not asked");
                    false
                }
                Err(_) => false,
            };
            if !passes {
                return false;
            }
        }
        true
    }

    async fn probe(&self, peer: SocketAddr, probe: &Probe) -> Result<Answer, Error> {
        let mut sender = match self.idle_to(peer) {
            Some(sender) => sender,
            None => connect(peer).await?,
        };
        let response = sender.send_request(request(probe)?).await?;
        let hash = response.headers().get(HASH);
        let answer = Answer {
            status: response.status(),
            hash: hash.and_then(|hash| hash.to_str().ok()).map(Into::into),
        };
        let mut body = http_body_util::Limited::new(response.into_body(), BODY);
        while let Some(frame) = body.frame().await {
            frame?;
        }
        self.keep(peer, sender);
        Ok(answer)
    }

    fn idle_to(&self, peer: SocketAddr) -> Option<Sender> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let senders = idle.get_mut(&peer)?;
        while let Some(sender) = senders.pop() {
            if sender.is_ready() {
                return Some(sender);
            }
        }
        None
    }

    fn keep(&self, peer: SocketAddr, sender: Sender) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        // Those to replicas that are no more go.
        let known = Arc::clone(&self.known.borrow());
        idle.retain(|peer, _| known.contains(peer));
        let senders = idle.entry(peer).or_default();
        if senders.len() < IDLE {
            senders.push(sender);
        }
    }
}

type Error = Box<dyn std::error::Error + Send + Sync>;

async fn connect(peer: SocketAddr) -> Result<Sender, Error> {
    let stream = TcpStream::connect(peer).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the sender, or with the peer.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%peer, %error, "connection to a replica ended");
        }
    });
    sender.ready().await?;
    Ok(sender)
}

fn request(probe: &Probe) -> Result<Request<Empty<Bytes>>, Error> {
    let mut request = Request::get(&*probe.path)
        .header("Host", &*probe.host)
        .header("User-Agent", "Knative-Ingress-Probe")
        .header("K-Network-Probe", "probe")
        .header("K-Network-Hash", "override");
    for (name, value) in &probe.headers {
        request = request.header(&**name, &**value);
    }
    Ok(request.body(Empty::new())?)
}

/// What a replica says.
struct Answer {
    status: StatusCode,
    hash: Option<Box<str>>,
}

impl Answer {
    /// As Knative's prober judges: what is neither this hash nor a sign of an old table is somebody
    /// else's matter.
    fn passes(&self, hash: &str) -> bool {
        match self.status {
            StatusCode::OK => self.hash.as_deref().is_none_or(|answered| answered == hash),
            StatusCode::NOT_FOUND | StatusCode::SERVICE_UNAVAILABLE => false,
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests;
