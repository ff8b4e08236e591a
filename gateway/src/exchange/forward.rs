//! One attempt at one endpoint: the request up and the answer down at the same time, and the clock
//! over both.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use activator::admission::Slot;
use tokio::net::TcpStream;

use super::hold::READ_AHEAD;
use super::linger::{self, Owed};
use super::{End, Exchange, edits};
use crate::http::h1::HeadLimits;
use crate::http::h1::client::Endpoint;
use crate::http::h1::connection::{Connection, ReadLimits};
use crate::http::message::{
    Downstream, Filled, RequestHead, Requester, Responder, ResponseHead, Responses, Sink, Source,
    StreamError, Upstream,
};
use crate::http::pace::Pace;
use crate::live::LocalRevision;
use crate::refusal::Reason;
use crate::serve::drain::Phase;
use crate::serve::io::Io;
use crate::serve::timers::Timer;
use crate::serve::worker::Worker;

/// Before this much waiting for a body's bytes, its rate is not judged.
const RATE_GRACE: Duration = Duration::from_secs(5);

/// How long a tunnel may stay half closed without a byte.
const HALF_CLOSED: Duration = Duration::from_secs(10);

/// What became of one attempt.
#[derive(Debug)]
pub(super) enum Attempt {
    Over(End),
    /// Nothing of it can have been done: it may be tried again; the reason, if it may not.
    Again(Reason),
}

/// Why the two directions stopped.
#[derive(Debug)]
enum Stop {
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

/// A failure of one direction, by the end of it that failed.
#[derive(Debug)]
enum Broken {
    Source(StreamError),
    Sink(StreamError),
}

/// How far an attempt has come; shared by both directions and the watch over them.
#[derive(Debug)]
struct Progress {
    begun: Instant,
    /// The request's body is sent.
    uploaded: Cell<bool>,
    /// When the final head came.
    answered: Cell<Option<Instant>>,
    /// The final head was given to the client's connection.
    relayed: Cell<bool>,
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
        let mut up = match self.connection(&slot).await {
            Ok(up) => up,
            Err(error) => {
                tracing::debug!(endpoint = %slot.address(), %error, "connect failed");
                slot.suspect();
                return Attempt::Again(Reason::ConnectFailed);
            }
        };
        if self.request.expects_continue && self.say_continue(down).await.is_err() {
            return Attempt::Over(End::Cut(Reason::ClientGone));
        }
        down.keep_body();
        let pace = Pace::new(&self.worker.clock);
        let begun = self.worker.clock.now();
        let stop = self.forward(revision, begun, down, &mut up, &pace).await;
        let ended = self.worker.tick();
        self.seen.endpoint += ended.saturating_duration_since(begun);
        self.timer.set(None);
        match stop {
            Stop::Done => {
                down.forget_body();
                self.settle(up, slot, ended);
                Attempt::Over(End::Answered)
            }
            Stop::Upgraded => Attempt::Over(self.tunnel(down, &mut up, &pace).await),
            Stop::Endpoint(error) if pace.bytes_read() == 0 && self.seen.code == 0 => {
                tracing::debug!(endpoint = %slot.address(), %error, "closed before an answer");
                slot.suspect();
                self.worker.pool.forget(slot.endpoint());
                let harmless = self.request.is_idempotent() || pace.bytes_written() == 0;
                if harmless && down.rewind_body() {
                    return Attempt::Again(Reason::UpstreamClosed);
                }
                Attempt::Over(End::Refused(Reason::UpstreamClosed))
            }
            stop => {
                let end = self.broken(&stop);
                let owed = match self.seen.code {
                    0 => Owed::Answer {
                        to_head: self.request.is_head(),
                    },
                    _ => Owed::Body,
                };
                linger::linger(self.worker, up, slot, &pace, owed);
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
    async fn connection(&mut self, slot: &Slot) -> Result<Endpoint, StreamError> {
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

    /// The client waits for leave to send its body: slot and connection are there.
    async fn say_continue<D: Downstream>(&mut self, down: &mut D) -> Result<(), StreamError> {
        self.request.expects_continue = false;
        self.response.status = 100;
        self.response.head.clear();
        self.response.head.bytes.extend_from_slice(b"Continue");
        self.response.phrase = crate::http::field::Span::new(0, b"Continue".len());
        // The slot is held meanwhile: a client that does not read must not keep it.
        let stall = tokio::time::Instant::now() + self.worker.shared.settings.limits.write_stall;
        self.timer.set(Some(stall));
        let (_source, mut sink) = down.split(self.pace);
        sink.interim(&self.response, b"");
        let sent = until(self.timer, sink.flush()).await;
        sent.unwrap_or(Err(StreamError::Closed))
    }

    async fn forward<D: Downstream, U: Upstream>(
        &mut self,
        revision: &LocalRevision,
        begun: Instant,
        down: &mut D,
        up: &mut U,
        up_pace: &Pace,
    ) -> Stop {
        let progress = Progress {
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
        let mut uploading = true;
        poll_fn(|cx| {
            worker.tick();
            if uploading && let Poll::Ready(broken) = upload.as_mut().poll(cx) {
                match broken {
                    Broken::Source(error) => return Poll::Ready(client_failed(&error)),
                    // It may have answered before it stopped reading: the other direction tells.
                    Broken::Sink(error) => {
                        tracing::trace!(%error, "the endpoint stopped reading");
                        uploading = false;
                    }
                }
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

    /// Bytes both ways until both sides have ended or nothing moves.
    async fn tunnel<D: Downstream, U: Upstream>(
        &mut self,
        down: &mut D,
        up: &mut U,
        up_pace: &Pace,
    ) -> End {
        let (mut down_source, mut down_sink) = down.split(self.pace);
        let (mut up_source, mut up_sink) = up.split(up_pace);
        down_source.begin_tunnel();
        down_sink.begin_tunnel();
        up_source.begin_tunnel();
        up_sink.begin_tunnel();
        let mut upward = pin!(pump(&mut down_source, &mut up_sink));
        let mut downward = pin!(pump(&mut up_source, &mut down_sink));
        let (mut up_done, mut down_done) = (false, false);
        let idle = self.worker.shared.settings.limits.tunnel_idle;
        poll_fn(|cx| {
            let now = self.worker.tick();
            if !up_done && let Poll::Ready(result) = upward.as_mut().poll(cx) {
                up_done = true;
                if result.is_err() {
                    return Poll::Ready(End::Answered);
                }
            }
            if !down_done && let Poll::Ready(result) = downward.as_mut().poll(cx) {
                down_done = true;
                if result.is_err() {
                    return Poll::Ready(End::Answered);
                }
            }
            if (up_done && down_done) || self.worker.phase.get() == Phase::Ended {
                return Poll::Ready(End::Answered);
            }
            let idle = if up_done || down_done {
                idle.min(HALF_CLOSED)
            } else {
                idle
            };
            let deadline = self.pace.last().max(up_pace.last()) + idle;
            if now >= deadline {
                return Poll::Ready(End::Cut(Reason::StreamTimeout));
            }
            self.timer
                .set(Some(tokio::time::Instant::from_std(deadline)));
            match self.timer.poll_fired(cx) {
                Poll::Ready(()) => Poll::Ready(End::Cut(Reason::StreamTimeout)),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
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

fn client_failed(error: &StreamError) -> Stop {
    match error {
        StreamError::Malformed(_) => Stop::BadBody(Reason::BadRequest),
        StreamError::TooLarge => Stop::BadBody(Reason::BodyTooLarge),
        StreamError::Io(_) | StreamError::Closed => Stop::Left,
    }
}

/// Moves a body from one side to the other.
async fn pump<S: Source, K: Sink>(source: &mut S, sink: &mut K) -> Result<(), Broken> {
    loop {
        if !source.is_ready() {
            sink.flush().await.map_err(Broken::Sink)?;
        }
        match source.fill().await.map_err(Broken::Source)? {
            Filled::Data => {
                let data = source.data();
                let count = data.len();
                sink.write(data).await.map_err(Broken::Sink)?;
                source.consume(count);
            }
            Filled::End => return sink.finish(source.trailers()).await.map_err(Broken::Sink),
        }
    }
}

/// Sends the request's body, then watches whether the client stays. Ends only with a failure.
async fn upload<S: Source, K: Sink>(source: &mut S, sink: &mut K, progress: &Progress) -> Broken {
    if let Err(broken) = pump(source, sink).await {
        return broken;
    }
    progress.uploaded.set(true);
    source.departed(READ_AHEAD).await;
    Broken::Source(StreamError::Closed)
}

/// The way of the answer to the client.
struct Relay<'a> {
    worker: &'a Worker,
    request: &'a RequestHead,
    routed: &'a crate::live::Routed,
    revision: &'a LocalRevision,
    /// When the request was let in, if it woke its revision.
    woken: Option<Instant>,
    progress: &'a Progress,
    edits: &'a mut Vec<u8>,
}

impl Relay<'_> {
    fn answered(&self) {
        let now = self.worker.clock.now();
        let begun = self.progress.begun;
        self.progress.answered.set(Some(now));
        // Before the client can know that it was answered, and ask how long the start took.
        if let Some(granted) = self.woken {
            let wire = begun.saturating_duration_since(granted);
            let first_byte = now.saturating_duration_since(begun);
            let key = &self.revision.revision.key;
            self.worker.shared.first_answers.note(key, wire, first_byte);
        }
    }

    async fn download<S: Responses, K: Responder>(
        self,
        source: &mut S,
        sink: &mut K,
        response: &mut ResponseHead,
    ) -> Stop {
        loop {
            if let Err(error) = source.response(self.request.is_head(), response).await {
                return Stop::Endpoint(error);
            }
            match response.status {
                101 if self.request.wants_websocket => {}
                101 => return Stop::Endpoint(StreamError::Malformed("upgrade nobody asked for")),
                // Ours was sent when the body was wanted.
                100 => continue,
                102..200 => {
                    sink.interim(response, b"");
                    if sink.flush().await.is_err() {
                        return Stop::Left;
                    }
                    continue;
                }
                _ => {}
            }
            break;
        }
        self.answered();
        edits::response(self.edits, response, self.routed);
        self.progress.relayed.set(true);
        if response.status == 101 {
            sink.interim(response, self.edits);
            return match sink.flush().await {
                Ok(()) => Stop::Upgraded,
                Err(_) => Stop::Left,
            };
        }
        sink.respond(response, self.edits, self.worker.is_closing());
        match pump(source, sink).await {
            Ok(()) => Stop::Done,
            Err(Broken::Source(error)) => Stop::Endpoint(error),
            Err(Broken::Sink(_)) => Stop::Left,
        }
    }
}

/// The time limits over one attempt.
struct Watch<'a> {
    worker: &'a Worker,
    revision: &'a LocalRevision,
    progress: &'a Progress,
    arrived: Instant,
    timeout: Option<Duration>,
    down: &'a Pace,
    up: &'a Pace,
}

impl Watch<'_> {
    /// Ready with the reason when a limit is broken; arms the timer for the nearest otherwise.
    fn poll(&self, cx: &mut Context<'_>, timer: &Timer) -> Poll<Reason> {
        if self.worker.phase.get() == Phase::Ended {
            return Poll::Ready(Reason::ShuttingDown);
        }
        let Some((at, reason)) = self.nearest() else {
            timer.set(None);
            return Poll::Pending;
        };
        // Not the timer but the clock decides: a deadline that has just moved is not the one that
        // fired.
        if self.worker.clock.now() >= at {
            return Poll::Ready(reason);
        }
        timer.set(Some(tokio::time::Instant::from_std(at)));
        timer.poll_fired(cx).map(|()| reason)
    }

    fn nearest(&self) -> Option<(Instant, Reason)> {
        let limits = &self.worker.shared.settings.limits;
        let revision = &self.revision.revision;
        let answered = self.progress.answered.get().is_some();
        let mut nearest: Option<(Instant, Reason)> = None;
        let mut consider = |at: Option<Instant>, reason: Reason| {
            if let Some(at) = at
                && nearest.is_none_or(|(nearest, _)| at < nearest)
            {
                nearest = Some((at, reason));
            }
        };
        consider(
            revision.max_duration.map(|most| self.arrived + most),
            Reason::ResponseTimeout,
        );
        if !self.progress.uploaded.get() {
            let rate = limits.body_min_rate;
            let body = self.down.body_deadline(limits.body_idle, rate, RATE_GRACE);
            consider(body, Reason::BodyTimeout);
        }
        if answered {
            let last = self.down.last().max(self.up.last());
            consider(revision.idle.map(|idle| last + idle), Reason::StreamTimeout);
        } else {
            let begun = self.progress.begun;
            consider(
                self.timeout.map(|timeout| begun + timeout),
                Reason::ResponseTimeout,
            );
        }
        consider(
            self.down.stall_deadline(limits.write_stall),
            Reason::StreamTimeout,
        );
        consider(
            self.up.stall_deadline(limits.write_stall),
            Reason::ResponseTimeout,
        );
        nearest
    }
}
