//! A connection to the endpoint whose slot we hold.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use activator::admission::Slot;
use tokio::net::TcpStream;

use super::Exchange;
use crate::http::h1::HeadLimits;
use crate::http::h1::client::Endpoint;
use crate::http::h1::connection::{Connection, ReadLimits};
use crate::http::message::StreamError;
use crate::serve::io::Io;
use crate::serve::timers::Timer;
use crate::serve::worker::Worker;

impl Exchange<'_> {
    /// An idle connection to the slot's endpoint, else a new one.
    pub(super) async fn connection(&mut self, slot: &Slot) -> Result<Endpoint, StreamError> {
        let worker = self.worker;
        let limits = &worker.shared.settings.limits;
        let mut connection = match worker.pool.take(slot.endpoint()) {
            Some(connection) => connection,
            None => connect(worker, self.timer, slot, limits.connect).await?,
        };
        connection.wake(&worker.buffers);
        connection.exchanges += 1;
        Ok(Endpoint {
            connection,
            heads: HeadLimits {
                bytes: limits.head_bytes,
                fields: limits.head_fields,
                target: limits.target_bytes,
            },
            limits: ReadLimits {
                trailer_bytes: limits.trailer_bytes,
                body_bytes: u64::MAX,
            },
        })
    }
}

/// Opens a connection to the slot's endpoint.
async fn connect(
    worker: &Worker,
    timer: &Timer,
    slot: &Slot,
    limit: Duration,
) -> Result<Connection, StreamError> {
    let deadline = tokio::time::Instant::now() + limit;
    timer.set(Some(deadline));
    // Boxed: connecting is rare, and its state would make every idle connection's task larger.
    let connecting = Box::pin(TcpStream::connect(slot.address()));
    let stream = match until(timer, connecting).await {
        Some(stream) => stream?,
        None => return Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
    };
    timer.set(None);
    stream.set_nodelay(true)?;
    Ok(Connection::new(Io::Plain(stream), &worker.buffers))
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
