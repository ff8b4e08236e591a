//! The connection to the autoscaler: a WebSocket, opened again and again, with one writer.
//!
//! There are no answers: that the connection stands is all that is ever known. So it is pinged, and
//! given up when no pong comes. Its name is looked up anew for every attempt, since the autoscaler
//! may have several replicas and any of them will do: they pass on what is another's.

use std::collections::VecDeque;
use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use http::Uri;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Bytes, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use tracing::{debug, info, warn};

use super::followed::Adopted;
use super::outbox::{Batch, Outbox};
use super::stat::encode;

/// Name, connection and handshake.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
pub(super) const PING_EVERY: Duration = Duration::from_millis(3_333);
/// Without a pong for so long the connection is given up.
pub(super) const PONG_WITHIN: Duration = Duration::from_secs(10);
/// One message, from the first byte to the last.
const SEND_WITHIN: Duration = Duration::from_secs(5);
/// A connection that lasted so long is no failed attempt.
const STEADY_AFTER: Duration = Duration::from_secs(1);
/// The autoscaler sends control frames only.
const RECEIVED_MAX: usize = 4096;
const BUFFER: usize = 4096;

/// Pauses between attempts.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_FACTOR: f64 = 1.3;
/// Up to so much more of each, so that replicas do not come all at once.
const PAUSE_JITTER: f64 = 0.5;
/// An autoscaler that is back should hear of those who wait for it within seconds.
const PAUSE_MOST: Duration = Duration::from_secs(2);

/// What is known of the connection.
#[derive(Debug, Default)]
pub(super) struct Health {
    pub(super) reachable: AtomicBool,
    pub(super) errors: AtomicU64,
    pub(super) connections: AtomicU64,
}

/// Where the autoscaler is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// As given, for the handshake.
    url: Uri,
    host: Box<str>,
    port: u16,
}

#[derive(Debug)]
pub(super) struct Socket {
    target: Target,
    pod_name: Box<str>,
    outbox: Arc<Outbox>,
    health: Arc<Health>,
    adopted: Arc<Adopted>,
    attempts: usize,
}

/// Why a connection is no more.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("no answer within {CONNECT_WITHIN:?}")]
    Late,
    #[error("its name has no address")]
    NoAddress,
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    WebSocket(Box<tokio_tungstenite::tungstenite::Error>),
    #[error("it was closed: {0}")]
    Closed(Box<str>),
    #[error("no pong within {PONG_WITHIN:?}")]
    Silent,
    #[error("a message could not be sent within {SEND_WITHIN:?}")]
    Stuck,
}

impl Target {
    /// # Errors
    /// `url` is not `ws://HOST[:PORT][/PATH]`.
    pub(super) fn parse(url: &str) -> Result<Target, Box<str>> {
        let wrong = |why: &dyn Display| format!("{url}: {why}").into_boxed_str();
        let uri: Uri = url.parse().map_err(|error| wrong(&error))?;
        if uri.scheme_str() != Some("ws") {
            return Err(wrong(&"the autoscaler's address must begin with ws://"));
        }
        let host = uri.host().unwrap_or_default();
        if host.is_empty() {
            return Err(wrong(&"the autoscaler's address has no host"));
        }
        Ok(Target {
            host: host.trim_matches(['[', ']']).into(),
            port: uri.port_u16().unwrap_or(80),
            url: uri,
        })
    }
}

impl Socket {
    pub(super) fn new(
        target: Target,
        pod_name: Box<str>,
        outbox: Arc<Outbox>,
        health: Arc<Health>,
        adopted: Arc<Adopted>,
    ) -> Socket {
        Socket {
            target,
            pod_name,
            outbox,
            health,
            adopted,
            attempts: 0,
        }
    }

    /// Connects and sends, for ever.
    pub(super) async fn run(mut self) -> ! {
        let mut pauses = Pauses::new();
        // Every turn is a connection, or a pause after one that failed.
        loop {
            let (ended, lasted) = match self.connect().await {
                Ok(socket) => {
                    let since = Instant::now();
                    info!(url = %self.target.url, "connected to the autoscaler");
                    self.health.connections.fetch_add(1, Ordering::Relaxed);
                    self.health.reachable.store(true, Ordering::Relaxed);
                    let ended = self.serve(socket).await;
                    self.health.reachable.store(false, Ordering::Relaxed);
                    warn!(url = %self.target.url, "the connection to the autoscaler is lost: {ended}");
                    (ended, since.elapsed())
                }
                Err(ended) => (ended, Duration::ZERO),
            };
            if !matches!(ended, Ended::Closed(_)) {
                self.health.errors.fetch_add(1, Ordering::Relaxed);
            }
            if lasted >= STEADY_AFTER {
                pauses = Pauses::new();
                continue;
            }
            if pauses.is_first() {
                warn!(url = %self.target.url, "cannot reach the autoscaler: {ended}");
            } else {
                debug!(url = %self.target.url, "cannot reach the autoscaler: {ended}");
            }
            sleep(pauses.next(fastrand::f64())).await;
        }
    }

    async fn connect(&mut self) -> Result<WebSocketStream<TcpStream>, Ended> {
        self.attempts = self.attempts.wrapping_add(1);
        let connecting = async {
            let addresses = lookup_host((&*self.target.host, self.target.port)).await?;
            let addresses: Vec<SocketAddr> = addresses.collect();
            if addresses.is_empty() {
                return Err(Ended::NoAddress);
            }
            // Each attempt begins with another: the first may be the one that says nothing.
            let address = addresses[self.attempts % addresses.len()];
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let mut config = WebSocketConfig::default();
            config.read_buffer_size = BUFFER;
            config.write_buffer_size = 0;
            config.max_message_size = Some(RECEIVED_MAX);
            config.max_frame_size = Some(RECEIVED_MAX);
            let url = self.target.url.clone();
            let opened = client_async_with_config(url, stream, Some(config)).await;
            let (socket, _answer) = opened.map_err(|error| Ended::WebSocket(Box::new(error)))?;
            Ok(socket)
        };
        let connected = timeout(CONNECT_WITHIN, connecting).await;
        connected.unwrap_or(Err(Ended::Late))
    }

    /// Sends what there is until the connection ends.
    async fn serve<S>(&self, mut socket: WebSocketStream<S>) -> Ended
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut pings = interval_at(Instant::now() + PING_EVERY, PING_EVERY);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut patience = Instant::now() + PONG_WITHIN;
        // First requests sent before each ping that has no pong yet; at most those of PONG_WITHIN.
        let mut pinged = VecDeque::new();
        loop {
            let sent = tokio::select! {
                () = self.outbox.news() => {
                    let batch = self.outbox.take();
                    let sent = self.send(&mut socket, &batch).await;
                    if sent.is_err() {
                        self.outbox.restore(batch.reports);
                    }
                    sent
                }
                _ = pings.tick() => {
                    pinged.push_back(self.outbox.sent());
                    send(&mut socket, Message::Ping(Bytes::new())).await
                }
                () = sleep_until(patience) => Err(Ended::Silent),
                received = socket.next() => match received {
                    Some(Ok(Message::Pong(_))) => {
                        patience = Instant::now() + PONG_WITHIN;
                        if let Some(sent) = pinged.pop_front() {
                            self.outbox.proven(sent);
                        }
                        Ok(())
                    }
                    Some(Ok(Message::Close(frame))) => {
                        let why = frame.map_or_else(String::new, |frame| frame.to_string());
                        Err(Ended::Closed(why.into()))
                    }
                    Some(Ok(_)) => Ok(()),
                    Some(Err(error)) => Err(Ended::WebSocket(Box::new(error))),
                    None => Err(Ended::Closed("".into())),
                },
            };
            if let Err(ended) = sent {
                self.outbox.restore(vec![]);
                return ended;
            }
        }
    }

    async fn send<S>(&self, socket: &mut WebSocketStream<S>, batch: &Batch) -> Result<(), Ended>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        for reports in batch.messages() {
            let bytes = encode(&self.pod_name, reports);
            send(socket, Message::binary(bytes)).await?;
        }
        let now = Instant::now().into_std();
        for (key, _) in &batch.firsts {
            if let Some(throttle) = self.adopted.throttle(key) {
                throttle.starts().nudged(now);
            }
        }
        Ok(())
    }
}

async fn send<S>(socket: &mut WebSocketStream<S>, message: Message) -> Result<(), Ended>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match timeout(SEND_WITHIN, socket.send(message)).await {
        Ok(sent) => sent.map_err(|error| Ended::WebSocket(Box::new(error))),
        Err(_late) => Err(Ended::Stuck),
    }
}

/// The pauses between failed attempts.
#[derive(Debug)]
struct Pauses {
    next: Duration,
}

impl Pauses {
    fn new() -> Pauses {
        Pauses { next: PAUSE_FIRST }
    }

    fn is_first(&self) -> bool {
        self.next == PAUSE_FIRST
    }

    /// `random` is in 0..1.
    fn next(&mut self, random: f64) -> Duration {
        let pause = self.next.mul_f64(1.0 + PAUSE_JITTER * random);
        self.next = self.next.mul_f64(PAUSE_FACTOR).min(PAUSE_MOST);
        pause
    }
}

#[cfg(test)]
mod tests;
