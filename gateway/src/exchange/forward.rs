//! One attempt at one endpoint: the request up and the answer down at the same time, and the clock
//! over both.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Instant;

use activator::admission::{Fault, Slot};
use config::revision::Backend;

use super::relay::{Relay, upload};
use super::repeat::{Broken, Failed, How};
use super::upstream::{Connected, Unconnected, until};
use super::watch::{Progress, Watch};
use super::{End, Exchange, linger};
use crate::http::message::{Downstream, Length, Requester, Responder, Sink, StreamError, Upstream};
use crate::http::pace::Pace;
use crate::live::LocalRevision;
use crate::refusal::Reason;
use crate::serve::accept::is_out_of_descriptors;

/// What became of one attempt.
#[derive(Debug)]
pub(super) enum Attempt {
    Over(End),
    /// Nothing of it can have been done: it may be tried again.
    Again(Failed),
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
    /// The request is malformed, cannot be said to the endpoint, or its body is too large.
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
        let begun = self.worker.tick();
        self.seen.attempts += 1;
        self.seen.address = Some(slot.address());
        self.mark(&slot);
        let mut up = match self.connection(revision, &slot, begun, down).await {
            Ok(up) => up,
            Err(unconnected) => return self.unconnected(unconnected, &slot),
        };
        if self.request.expects_continue && !self.say_continue(down).await {
            return Attempt::Over(End::Cut(Reason::ClientGone));
        }
        let whole = down.keep_body(self.pace);
        let pace = Pace::new(&self.worker.clock);
        let progress = Progress::new(&slot, revision, begun, whole, self.repeat.take());
        let stop = match &mut up {
            Connected::Http1(up) => self.forward(revision, &progress, down, up, &pace).await,
            Connected::Http2(up) => {
                let up = up.as_mut();
                self.forward(revision, &progress, down, up, &pace).await
            }
        };
        let ended = self.worker.clock.now();
        self.seen.rested += progress.rest.rested(ended);
        self.seen.endpoint += ended.saturating_duration_since(begun);
        self.seen.answer_bytes = pace.body_bytes();
        self.timer.set(None);
        match stop {
            Stop::Done => {
                self.settle(up, slot, ended);
                Attempt::Over(End::Answered)
            }
            Stop::Upgraded => Attempt::Over(match &mut up {
                Connected::Http1(up) => self.tunnel(revision, &slot, down, up, &pace).await,
                Connected::Http2(up) => {
                    let up = up.as_mut();
                    self.tunnel(revision, &slot, down, up, &pace).await
                }
            }),
            Stop::Endpoint(error) if pace.bytes_read() == 0 && self.seen.code == 0 => {
                tracing::debug!(endpoint = %slot.address(), %error, "closed before an answer");
                let broken = Broken::new(self.request, &error, whole, &pace);
                self.unanswered(revision, &slot, &error, &up, broken, down)
            }
            stop => {
                if let (Stop::Timeout(_), Connected::Http2(up)) = (&stop, &up) {
                    // The next on it would wait as long for nothing.
                    up.give_up_if_silent(begun);
                }
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

    /// There is no connection to the endpoint.
    fn unconnected(&self, why: Unconnected, slot: &Slot) -> Attempt {
        match why {
            Unconnected::Over(end) => Attempt::Over(end),
            Unconnected::Late => {
                // A client may be in any hurry: that says nothing of the endpoint.
                if self.deadline.is_none() {
                    slot.suspect();
                }
                Attempt::Over(End::Refused(Reason::ResponseTimeout))
            }
            Unconnected::Failed(StreamError::Io(error)) if is_out_of_descriptors(&error) => {
                // Not the endpoint's fault, and no other would be better.
                self.worker.shared.census.run_dry();
                Attempt::Over(End::Refused(Reason::Overloaded))
            }
            Unconnected::Failed(error) => {
                tracing::debug!(endpoint = %slot.address(), %error, "connect failed");
                Attempt::Again(Failed {
                    cause: Reason::ConnectFailed,
                    how: match slot.suspect() {
                        Fault::Crowding => How::Crowded,
                        Fault::Endpoint => How::Failed,
                    },
                    touched: false,
                })
            }
        }
    }

    /// After a connection that ended before the first byte of an answer.
    fn unanswered<D: Downstream>(
        &self,
        revision: &LocalRevision,
        slot: &Slot,
        error: &StreamError,
        up: &Connected,
        broken: Broken,
        down: &mut D,
    ) -> Attempt {
        let fresh = up.exchanges() <= 1 || is_of_the_stream(error);
        let fault = match self.is_usual(error, up, revision) {
            true => Fault::Endpoint,
            false if fresh => slot.suspect(),
            false => slot.doubt(),
        };
        self.worker.pool.forget(slot.endpoint());
        let cause = Reason::UpstreamClosed;
        if broken.is_harmless() && down.rewind_body() {
            let how = match error {
                _ if fault == Fault::Crowding => How::Crowded,
                _ if up.exchanges() <= 1 => How::Failed,
                StreamError::GoingAway => How::Left,
                _ => How::Ended,
            };
            let touched = !broken.is_untouched();
            return Attempt::Again(Failed {
                cause,
                how,
                touched,
            });
        }
        Attempt::Over(End::Refused(cause))
    }

    /// Whether a connection may end so although its endpoint is well.
    fn is_usual(&self, error: &StreamError, up: &Connected, revision: &LocalRevision) -> bool {
        let reused = up.exchanges() > 1;
        // A process may close an idle connection at its leisure: that is no reason to pass over
        // what is perhaps the only one. A new connection tells.
        let process = matches!(revision.revision.backend, Backend::Process(_));
        let ended = process && !is_of_the_stream(error);
        reused && (ended || matches!(error, StreamError::GoingAway))
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
                    StreamError::Io(_)
                    | StreamError::Closed
                    | StreamError::Refused
                    | StreamError::Reset
                    | StreamError::GoingAway => End::Refused(Reason::UpstreamClosed),
                }
            }
            Stop::Timeout(Reason::Overloaded) if head_sent => End::Cut(Reason::Overloaded),
            Stop::Timeout(_) if head_sent => End::Cut(Reason::StreamTimeout),
            Stop::Timeout(reason) => End::Refused(*reason),
            Stop::Done | Stop::Upgraded => End::Answered,
        }
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
        sink.interim(self.response, b"");
        matches!(until(self.timer, sink.flush()).await, Some(Ok(())))
    }

    async fn forward<D: Downstream, U: Upstream>(
        &mut self,
        revision: &LocalRevision,
        progress: &Progress<'_>,
        down: &mut D,
        up: &mut U,
        up_pace: &Pace,
    ) -> Stop {
        let request = &self.request;
        let watch = Watch {
            talk: request.length == Length::Chunked && request.is_grpc(),
            worker: self.worker,
            revision,
            progress,
            arrived: self.arrived,
            deadline: self.deadline,
            timeout: self.timeout(revision),
            down: self.pace,
            up: up_pace,
        };
        let stop = self.both_ways(down, up, up_pace, progress, &watch).await;
        self.pace.read_rests();
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
        progress: &Progress<'_>,
        watch: &Watch<'_>,
    ) -> Stop {
        let timer = self.timer;
        let Exchange {
            request,
            response,
            routed,
            edits,
            worker,
            client,
            pace,
            seen,
            ..
        } = self;
        let Some(routed) = routed else {
            return Stop::Done;
        };
        let (mut down_source, mut down_sink) = down.split(pace);
        let (mut up_source, mut up_sink) = up.split(up_pace);
        match up_sink.request(request, &edits.request()) {
            Ok(()) => {}
            Err(StreamError::Malformed(_)) => return Stop::BadBody(Reason::BadRequest),
            Err(error) => return Stop::Endpoint(error),
        }
        if let Some(start) = seen.start {
            let starts = watch.revision.gate.throttle().starts();
            starts.written(start, worker.tick());
        }
        let mut upload = pin!(upload(&mut down_source, &mut up_sink, progress));
        let relay = Relay {
            worker,
            client,
            request,
            routed,
            revision: watch.revision,
            seen,
            progress,
            edits: &mut edits.response,
        };
        let mut download = pin!(relay.download(&mut up_source, &mut down_sink, response));
        poll_fn(|cx| {
            let uploaded = progress.uploaded.get();
            if !uploaded && let Poll::Ready(error) = upload.as_mut().poll(cx) {
                return Poll::Ready(client_failed(&error));
            }
            if let Poll::Ready(stop) = download.as_mut().poll(cx) {
                return Poll::Ready(stop);
            }
            // Nothing goes up any more: it is only watched whether the client stays.
            if uploaded && let Poll::Ready(error) = upload.as_mut().poll(cx) {
                return Poll::Ready(client_failed(&error));
            }
            watch.poll(cx, timer).map(Stop::Timeout)
        })
        .await
    }

    /// The answer is whole: the connection may be used again, if both sides are done with it.
    fn settle(&self, up: Connected, slot: Slot, now: Instant) {
        match up {
            Connected::Http1(mut up) if self.response.keep_alive && up.is_clean() => {
                up.connection.rest();
                self.worker.pool.put(slot.endpoint(), up.connection, now);
            }
            Connected::Http1(_) | Connected::Http2(_) => {}
        }
        // The connection is back before the slot: who is let in next finds it.
        drop(slot);
    }
}

/// Whether the endpoint has turned away this stream and keeps the connection: that tells as much as a
/// new connection that is turned away.
fn is_of_the_stream(error: &StreamError) -> bool {
    matches!(error, StreamError::Refused | StreamError::Reset)
}

fn client_failed(error: &StreamError) -> Stop {
    match error {
        StreamError::Malformed(_) => Stop::BadBody(Reason::BadRequest),
        StreamError::TooLarge => Stop::BadBody(Reason::BodyTooLarge),
        StreamError::Io(_)
        | StreamError::Closed
        | StreamError::Refused
        | StreamError::Reset
        | StreamError::GoingAway => Stop::Left,
    }
}
