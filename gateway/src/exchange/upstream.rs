//! A connection to the endpoint whose slot we hold.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::Poll;

use activator::admission::Slot;
use tokio::net::TcpStream;

use super::hold::read_ahead;
use super::{End, Exchange};
use crate::http::h1::HeadLimits;
use crate::http::h1::client::Endpoint;
use crate::http::h1::connection::{Connection, ReadLimits};
use crate::http::message::{Downstream, Source, StreamError};
use crate::refusal::Reason;
use crate::serve::drain::Phase;
use crate::serve::io::Io;
use crate::serve::timers::Timer;

/// Why there is no connection to an endpoint.
#[derive(Debug)]
pub(super) enum Unconnected {
    Failed(StreamError),
    /// Nobody waits for one any more.
    Over(End),
}

impl Exchange<'_> {
    /// An idle connection to the slot's endpoint, else a new one.
    pub(super) async fn connection<D: Downstream>(
        &mut self,
        slot: &Slot,
        down: &mut D,
    ) -> Result<Endpoint, Unconnected> {
        let worker = self.worker;
        let limits = &worker.shared.settings.limits;
        let mut connection = match worker.pool.take(slot.endpoint()) {
            Some(connection) => connection,
            None => self.connect(slot, down).await?,
        };
        connection.wake(&worker.buffers);
        connection.exchanges += 1;
        Ok(Endpoint {
            connection,
            heads: HeadLimits::of(limits),
            limits: ReadLimits {
                trailer_bytes: limits.trailer_bytes,
                body_bytes: u64::MAX,
            },
        })
    }

    /// Opens a connection to the slot's endpoint, unless the client leaves first.
    async fn connect<D: Downstream>(
        &mut self,
        slot: &Slot,
        down: &mut D,
    ) -> Result<Box<Connection>, Unconnected> {
        let (worker, timer) = (self.worker, self.timer);
        let limit = worker.shared.settings.limits.connect;
        timer.set(Some(tokio::time::Instant::now() + limit));
        let (mut source, _sink) = down.split(self.pace);
        // Boxed: connecting is rare, and its state would make every idle connection's task larger.
        let mut connecting = Box::pin(TcpStream::connect(slot.address()));
        let mut departed = Box::pin(source.departed(read_ahead(self.request)));
        let stream = poll_fn(|cx| {
            if let Poll::Ready(stream) = connecting.as_mut().poll(cx) {
                return Poll::Ready(stream.map_err(|error| Unconnected::Failed(error.into())));
            }
            if departed.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(Unconnected::Over(End::Cut(Reason::ClientGone))));
            }
            if worker.phase.get() == Phase::Ended {
                return Poll::Ready(Err(Unconnected::Over(End::Refused(Reason::ShuttingDown))));
            }
            let late = || Unconnected::Failed(io::Error::from(io::ErrorKind::TimedOut).into());
            timer.poll_fired(cx).map(|()| Err(late()))
        })
        .await?;
        timer.set(None);
        stream
            .set_nodelay(true)
            .map_err(|error| Unconnected::Failed(error.into()))?;
        let connection = Connection::new(Io::Plain(stream), &worker.buffers);
        Ok(Box::new(connection))
    }
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
