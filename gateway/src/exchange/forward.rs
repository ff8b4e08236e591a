//! One attempt at one endpoint: the request up and the answer down at the same time, and the clock
//! over both.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use activator::admission::Slot;
use tokio::net::TcpStream;

use super::hold::read_ahead;
use super::relay::{Relay, upload};
use super::watch::{Progress, Watch};
use super::{End, Exchange, linger};
use crate::http::h1::HeadLimits;
use crate::http::h1::client::Endpoint;
use crate::http::h1::connection::{Connection, ReadLimits};
use crate::http::message::{Downstream, Requester, Responder, Sink, Source, StreamError, Upstream};
use crate::http::pace::Pace;
use crate::live::LocalRevision;
use crate::refusal::Reason;
use crate::serve::drain::Phase;
use crate::serve::io::Io;
use crate::serve::timers::Timer;

/// What became of one attempt.
#[derive(Debug)]
pub(super) enum Attempt {
    Over(End),
    /// Nothing of it can have been done: it may be tried again; the reason, if it may not.
    Again(Reason),
}

/// Why there is no connection to an endpoint.
#[derive(Debug)]
enum Unconnected {
    Failed(StreamError),
    /// Nobody waits for one any more.
    Over(End),
}

/// Why the two directions stopped.
#[derive(Debug)]
pub(super) enum Stop {
    /// The answer went out whole.
    Done,
    /// The endpoint said 101.
    Upgraded,
    /// The client left or could not be written to.
    Left,
    /// The request's body is malformed or too large.
    BadBody(Reason),
    Endpoint(StreamError),
    Timeout(Reason),
}

impl Exchange<'_> {
    /// Tries one endpoint. Cold parts (connect, linger, tunnel) are functions of their own.
    pub(super) async fn attempt<D: Downstream>(
        &mut self,
        revision: &LocalRevision,
        slot: Slot,
        down: &mut D,
    ) -> Attempt {
        self.seen.attempts += 1;
        self.seen.address = Some(slot.address());
        let mut up = match self.connection(&slot, down).await {
            Ok(up) => up,
            Err(Unconnected::Over(end)) => return Attempt::Over(end),
            Err(Unconnected::Failed(error)) => {
                tracing::debug!(endpoint = %slot.address(), %error, "connect failed");
                slot.suspect();
                return Attempt::Again(Reason::ConnectFailed);
            }
        };
        if self.request.expects_continue && !self.say_continue(down).await {
            return Attempt::Over(End::Cut(Reason::ClientGone));
        }
        let whole = down.keep_body();
        let repeatable = whole && self.request.is_idempotent();
        let pace = Pace::new(&self.worker.clock);
        let begun = self.worker.clock.now();
        let stop = self
            .forward(revision, whole, begun, down, &mut up, &pace)
            .await;
        let ended = self.worker.tick();
        self.seen.endpoint += ended.saturating_duration_since(begun);
        self.timer.set(None);
        match stop {
            Stop::Done => {
                self.settle(up, slot, ended);
                Attempt::Over(End::Answered)
            }
            Stop::Upgraded => Attempt::Over(self.tunnel(revision, down, &mut up, &pace).await),
            Stop::Endpoint(error) if pace.bytes_read() == 0 && self.seen.code == 0 => {
                tracing::debug!(endpoint = %slot.address(), %error, "closed before an answer");
                slot.suspect();
                self.worker.pool.forget(slot.endpoint());
                if repeatable || pace.bytes_written() == 0 {
                    down.rewind_body();
                    return Attempt::Again(Reason::UpstreamClosed);
                }
                Attempt::Over(End::Refused(Reason::UpstreamClosed))
            }
            stop => {
                let end = self.broken(&stop);
                let answer = linger::Answer {
                    begun: self.seen.code != 0,
                    to_head: self.request.is_head(),
                };
                linger::linger(self.worker, up, slot, &pace, answer);
                Attempt::Over(end)
            }
        }
    }

    /// What an attempt that failed half-way means for the client.
    fn broken(&self, stop: &Stop) -> End {
        let head_sent = self.seen.code != 0;
        match stop {
            Stop::Left => End::Cut(Reason::ClientGone),
            Stop::BadBody(reason) if head_sent => End::Cut(match reason {
                Reason::BodyTimeout => Reason::StreamTimeout,
                _ => Reason::ClientGone,
            }),
            Stop::BadBody(reason) => End::Refused(*reason),
            Stop::Endpoint(error) => {
                tracing::debug!(address = ?self.seen.address, %error, "endpoint failed");
                match error {
                    _ if head_sent => End::Cut(Reason::EndpointGone),
                    StreamError::Malformed(_) | StreamError::TooLarge => {
                        End::Refused(Reason::UpstreamInvalid)
                    }
                    StreamError::Io(_) | StreamError::Closed => {
                        End::Refused(Reason::UpstreamClosed)
                    }
                }
            }
            Stop::Timeout(Reason::ShuttingDown) if head_sent => End::Cut(Reason::EndpointGone),
            Stop::Timeout(_) if head_sent => End::Cut(Reason::StreamTimeout),
            Stop::Timeout(reason) => End::Refused(*reason),
            Stop::Done | Stop::Upgraded => End::Answered,
        }
    }

    /// An idle connection to the slot's endpoint, else a new one.
    async fn connection<D: Downstream>(
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

    /// Opens a connection to the slot's endpoint, unless the client leaves first.
    async fn connect<D: Downstream>(
        &mut self,
        slot: &Slot,
        down: &mut D,
    ) -> Result<Connection, Unconnected> {
        let (worker, timer) = (self.worker, self.timer);
        let limit = worker.shared.settings.limits.connect;
        timer.set(Some(tokio::time::Instant::now() + limit));
        let (mut source, _sink) = down.split(self.pace);
        // Boxed: connecting is rare, and its state would make every idle connection's task larger.
        let mut connecting = Box::pin(TcpStream::connect(slot.address()));
        let mut departed = Box::pin(source.departed(read_ahead(&self.request)));
        let stream = poll_fn(|cx| {
            worker.tick();
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
        Ok(Connection::new(Io::Plain(stream), &worker.buffers))
    }

    /// The client waits for leave to send its body: slot and connection are there. Whether it
    /// could be told.
    async fn say_continue<D: Downstream>(&mut self, down: &mut D) -> bool {
        self.request.expects_continue = false;
        self.response.status = 100;
        self.response.head.clear();
        self.response.head.bytes.extend_from_slice(b"Continue");
        self.response.phrase = crate::http::field::Span::new(0, b"Continue".len());
        let stall = self.worker.shared.settings.limits.write_stall;
        self.timer.set(Some(tokio::time::Instant::now() + stall));
        let (_source, mut sink) = down.split(self.pace);
        sink.interim(&self.response, b"");
        matches!(until(self.timer, sink.flush()).await, Some(Ok(())))
    }

    async fn forward<D: Downstream, U: Upstream>(
        &mut self,
        revision: &LocalRevision,
        whole: bool,
        begun: Instant,
        down: &mut D,
        up: &mut U,
        up_pace: &Pace,
    ) -> Stop {
        let progress = Progress {
            whole,
            begun,
            uploaded: Cell::new(false),
            answered: Cell::new(None),
            relayed: Cell::new(false),
        };
        let watch = Watch {
            worker: self.worker,
            revision,
            progress: &progress,
            arrived: self.arrived,
            timeout: self.timeout(revision),
            down: self.pace,
            up: up_pace,
        };
        let stop = self.both_ways(down, up, up_pace, &progress, &watch).await;
        if progress.relayed.get() {
            self.seen.code = self.response.status;
        }
        stop
    }

    async fn both_ways<D: Downstream, U: Upstream>(
        &mut self,
        down: &mut D,
        up: &mut U,
        up_pace: &Pace,
        progress: &Progress,
        watch: &Watch<'_>,
    ) -> Stop {
        let timer = self.timer;
        let Exchange {
            request,
            response,
            routed,
            edits,
            worker,
            pace,
            seen,
            ..
        } = self;
        let Some(routed) = routed else {
            return Stop::Done;
        };
        let (mut down_source, mut down_sink) = down.split(pace);
        let (mut up_source, mut up_sink) = up.split(up_pace);
        up_sink.request(request, &edits.request());
        let mut upload = pin!(upload(&mut down_source, &mut up_sink, progress));
        let relay = Relay {
            worker,
            request,
            routed,
            revision: watch.revision,
            woken: seen.woken.take(),
            progress,
            edits: &mut edits.response,
        };
        let mut download = pin!(relay.download(&mut up_source, &mut down_sink, response));
        poll_fn(|cx| {
            worker.tick();
            if let Poll::Ready(error) = upload.as_mut().poll(cx) {
                return Poll::Ready(client_failed(&error));
            }
            if let Poll::Ready(stop) = download.as_mut().poll(cx) {
                return Poll::Ready(stop);
            }
            watch.poll(cx, timer).map(Stop::Timeout)
        })
        .await
    }

    fn timeout(&self, revision: &LocalRevision) -> Option<Duration> {
        let rule = self
            .routed
            .as_ref()
            .and_then(|routed| match &routed.rule().action {
                config::snapshot::Action::Forward(forward) => forward.timeout,
                _ => None,
            });
        rule.or(revision.revision.timeout)
    }

    /// The answer is whole: the connection may be used again, if both sides are done with it.
    fn settle(&self, mut up: Endpoint, slot: Slot, now: Instant) {
        let reusable = self.response.keep_alive && up.is_clean();
        if reusable {
            up.connection.rest(&self.worker.buffers);
            self.worker.pool.put(slot.endpoint(), up.connection, now);
        }
        // The connection is back before the slot: who is let in next finds it.
        drop(slot);
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

fn client_failed(error: &StreamError) -> Stop {
    match error {
        StreamError::Malformed(_) => Stop::BadBody(Reason::BadRequest),
        StreamError::TooLarge => Stop::BadBody(Reason::BodyTooLarge),
        StreamError::Io(_) | StreamError::Closed => Stop::Left,
    }
}
