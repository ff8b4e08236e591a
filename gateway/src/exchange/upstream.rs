//! A connection to the endpoint whose slot we hold.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use activator::admission::Slot;
use config::revision::Protocol;
use socket2::SockRef;
use tokio::net::TcpStream;

use super::hold::read_ahead;
use super::{End, Exchange};
use crate::http::h1::HeadLimits;
use crate::http::h1::client::Endpoint;
use crate::http::h1::connection::{Connection, ReadLimits};
use crate::http::h2::client::Call;
use crate::http::h2::link::{Lease, Link};
use crate::http::message::{Departure, Downstream, Source, StreamError};
use crate::http::pool::Turn;
use crate::live::LocalRevision;
use crate::refusal::Reason;
use crate::serve::drain::Phase;
use crate::serve::io::Io;
use crate::serve::listeners;
use crate::serve::timers::Timer;
use crate::serve::worker::Worker;

/// Why there is no connection to an endpoint.
#[derive(Debug)]
pub(super) enum Unconnected {
    Failed(StreamError),
    /// The time of the request is over.
    Late,
    /// Nobody waits for one any more.
    Over(End),
}

/// The endpoint's side of one attempt.
#[derive(Debug)]
pub(super) enum Connected {
    Http1(Endpoint),
    /// Boxed: it is large, and the other is moved on every warm request.
    Http2(Box<Call>),
}

impl Connected {
    /// Exchanges its connection has carried, this one included.
    pub(super) fn exchanges(&self) -> u32 {
        match self {
            Connected::Http1(up) => up.connection.exchanges,
            Connected::Http2(up) => up.exchanges(),
        }
    }
}

impl Exchange<'_> {
    /// A connection to the slot's endpoint, for an attempt that began then: one there is, else a new one.
    pub(super) async fn connection<D: Downstream>(
        &mut self,
        revision: &LocalRevision,
        slot: &Slot,
        begun: Instant,
        down: &mut D,
    ) -> Result<Connected, Unconnected> {
        let worker = self.worker;
        let dialer = revision.dialer.as_ref();
        if revision.revision.protocol == Protocol::H2c {
            let lease = match worker.pool.lease(slot.endpoint(), dialer) {
                Some(lease) => lease,
                // Boxed: see `connect`.
                None => Box::pin(self.open(revision, slot, begun, down)).await?,
            };
            return Ok(Connected::Http2(Box::new(Call::new(lease))));
        }
        let limits = &worker.shared.settings.limits;
        let mut connection = match worker.pool.take(slot.endpoint(), dialer) {
            Some(connection) => connection,
            None => self.connect(revision, slot, begun, down).await?,
        };
        connection.wake();
        connection.exchanges += 1;
        Ok(Connected::Http1(Endpoint {
            connection,
            heads: HeadLimits::of(limits),
            limits: ReadLimits {
                trailer_bytes: limits.trailer_bytes,
                body_bytes: u64::MAX,
            },
        }))
    }

    /// Opens a connection to the slot's endpoint, unless the client leaves first.
    async fn connect<D: Downstream>(
        &mut self,
        revision: &LocalRevision,
        slot: &Slot,
        begun: Instant,
        down: &mut D,
    ) -> Result<Box<Connection>, Unconnected> {
        let worker = self.worker;
        // Boxed: connecting is rare, and its state would make every idle connection's task larger.
        let dialing = Box::pin(dial(worker, revision, slot.address()));
        let io = self.while_there(revision, begun, down, dialing).await?;
        Ok(Box::new(Connection::new(io, &worker.buffers)))
    }

    /// A stream on a connection that is opened for all who wait for one.
    async fn open<D: Downstream>(
        &mut self,
        revision: &LocalRevision,
        slot: &Slot,
        begun: Instant,
        down: &mut D,
    ) -> Result<Lease, Unconnected> {
        let worker = self.worker;
        loop {
            match worker.pool.open_or_wait(slot.endpoint()) {
                Turn::Open(opener) => {
                    let linking = link(worker, revision, slot);
                    let opened = self.while_there(revision, begun, down, linking).await;
                    let leased = opened.and_then(|link| {
                        // One that takes no streams at all is no better than none.
                        let none = Unconnected::Failed(StreamError::Refused);
                        let lease = link.lease().ok_or(none)?;
                        worker.pool.share(slot.endpoint(), link);
                        Ok(lease)
                    });
                    if let Err(Unconnected::Failed(_)) = &leased {
                        opener.failed();
                    }
                    return leased;
                }
                Turn::Wait(opening) => {
                    let ended = async {
                        let failed = opening.ended().await;
                        let refused = io::ErrorKind::ConnectionRefused;
                        if failed {
                            Err(io::Error::from(refused).into())
                        } else {
                            Ok(())
                        }
                    };
                    self.while_there(revision, begun, down, ended).await?;
                }
            }
            if let Some(lease) = worker.pool.lease(slot.endpoint(), revision.dialer.as_ref()) {
                return Ok(lease);
            }
        }
    }

    /// The future's result, unless the client leaves first, it takes too long to connect, or the time
    /// of the whole request is over.
    async fn while_there<D: Downstream, T>(
        &mut self,
        revision: &LocalRevision,
        begun: Instant,
        down: &mut D,
        connecting: impl Future<Output = Result<T, StreamError>>,
    ) -> Result<T, Unconnected> {
        let (worker, timer) = (self.worker, self.timer);
        let limit = worker.shared.settings.limits.connect;
        let limit = tokio::time::Instant::now() + limit;
        let ends = self.ends_by(revision, begun);
        let ends = ends.map(tokio::time::Instant::from_std);
        let over = ends.filter(|ends| *ends <= limit);
        timer.set(Some(over.unwrap_or(limit)));
        let (mut source, _sink) = down.split(self.pace);
        let mut connecting = pin!(connecting);
        let mut departed = Box::pin(source.departed(read_ahead(self.request)));
        let connected = poll_fn(|cx| {
            if let Poll::Ready(connected) = connecting.as_mut().poll(cx) {
                return Poll::Ready(connected.map_err(Unconnected::Failed));
            }
            if let Poll::Ready(departure) = departed.as_mut().poll(cx) {
                return Poll::Ready(Err(Unconnected::Over(End::Cut(gone(departure)))));
            }
            if worker.phase.get() == Phase::Ended {
                return Poll::Ready(Err(Unconnected::Over(End::Refused(Reason::ShuttingDown))));
            }
            let late = || match over.is_some() {
                true => Unconnected::Late,
                false => Unconnected::Failed(io::Error::from(io::ErrorKind::TimedOut).into()),
            };
            timer.poll_fired(cx).map(|()| Err(late()))
        })
        .await;
        timer.set(None);
        connected
    }
}

/// How the exchange of a client that departed so ends.
pub(super) fn gone(departure: Departure) -> Reason {
    match departure {
        Departure::Left => Reason::ClientGone,
        Departure::Evicted => Reason::Overloaded,
    }
}

/// A connection that is found out about when its peer dies while we wait for an answer.
async fn open(address: SocketAddr, stall: Duration) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let socket = SockRef::from(&stream);
    listeners::notice_death(&socket)?;
    listeners::allow_stall(&socket, stall)?;
    Ok(stream)
}

async fn dial(
    worker: &Worker,
    revision: &LocalRevision,
    address: SocketAddr,
) -> Result<Io, StreamError> {
    let dialer = revision.dialer.as_ref();
    let target = dialer.map_or(address, |dialer| dialer.target(address));
    let stream = open(target, worker.shared.settings.limits.write_stall).await?;
    Ok(match (&revision.dialer, &revision.revision.tls) {
        (Some(dialer), _) => {
            let connected = dialer.connect(stream, address).await.inspect_err(|error| {
                tracing::debug!(endpoint = %address, %error, "TLS handshake with an endpoint failed");
            });
            Io::Tls(Box::new(connected?))
        }
        (None, None) => Io::Plain(stream),
        // Whatever went wrong on the way here: never in clear what was to be kept secret.
        (None, Some(_)) => return Err(io::Error::other("TLS is not set up").into()),
    })
}

async fn link(
    worker: &Worker,
    revision: &LocalRevision,
    slot: &Slot,
) -> Result<Rc<Link>, StreamError> {
    let io = dial(worker, revision, slot.address()).await?;
    let quota = worker.pool.quota(slot.endpoint());
    Link::open(io, &worker.clock, worker.timers.timer(), &quota).await
}

/// The future's result, or `None` when the timer fires first.
pub async fn until<T>(timer: &Timer, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        if let Poll::Ready(result) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(result));
        }
        timer.poll_fired(cx).map(|()| None)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_peer_that_dies_while_we_wait_for_it_is_found_out() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        for (stall, wanted) in [(1, 60), (60, 60), (300, 300)] {
            let stream = open(address, Duration::from_secs(stall)).await.unwrap();
            let socket = SockRef::from(&stream);
            assert!(socket.keepalive().unwrap());
            assert_eq!(
                (
                    socket.tcp_keepalive_time().unwrap(),
                    socket.tcp_keepalive_interval().unwrap(),
                    socket.tcp_keepalive_retries().unwrap(),
                    socket.tcp_user_timeout().unwrap(),
                ),
                (
                    Duration::from_secs(15),
                    Duration::from_secs(15),
                    4,
                    Some(Duration::from_secs(wanted)),
                )
            );
        }
    }
}
