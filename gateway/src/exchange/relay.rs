//! The two directions of an attempt: bodies from one side to the other, the answer's head between.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;

use super::forward::Stop;
use super::hold::READ_AHEAD;
use super::timing::Timing;
use super::watch::Progress;
use super::{Client, Seen, edits};
use crate::http::message::{
    Filled, RequestHead, Responder, ResponseHead, Responses, Sink, Source, StreamError,
};
use crate::live::LocalRevision;
use crate::serve::worker::Worker;

/// Most interim answers (RFC 9110 §15.2) to one request.
const INTERIMS_MAX: u32 = 32;

/// A failure of one direction, by the end of it that failed.
#[derive(Debug)]
pub(super) enum Broken {
    Source(StreamError),
    Sink(StreamError),
}

/// Waits until something is written, unless whoever has sent it leaves meanwhile.
async fn unless_gone<S: Source>(
    source: &S,
    mut writing: Pin<&mut impl Future<Output = Result<(), StreamError>>>,
) -> Result<(), Broken> {
    poll_fn(|cx| match writing.as_mut().poll(cx) {
        Poll::Ready(written) => Poll::Ready(written.map_err(Broken::Sink)),
        Poll::Pending => {
            let gone = |()| Err(Broken::Source(StreamError::Closed));
            source.poll_gone(cx).map(gone)
        }
    })
    .await
}

/// Waits until nothing lies in the sink, as [`unless_gone`]; the source gives back its buffer meanwhile.
async fn flush<S: Source, K: Sink>(source: &mut S, sink: &mut K) -> Result<(), Broken> {
    let mut flushing = pin!(sink.flush());
    poll_fn(|cx| match flushing.as_mut().poll(cx) {
        Poll::Ready(flushed) => Poll::Ready(flushed.map_err(Broken::Sink)),
        Poll::Pending => {
            source.rest();
            let gone = |()| Err(Broken::Source(StreamError::Closed));
            source.poll_gone(cx).map(gone)
        }
    })
    .await
}

/// Waits until there is data or the body is over, and fetches no more than the sink has room for, in
/// which nothing lies that was not flushed.
async fn fetch<S: Source, K: Sink>(source: &mut S, sink: &mut K) -> Result<Filled, Broken> {
    poll_fn(|cx| {
        let Poll::Ready(room) = sink.poll_room(cx) else {
            source.rest();
            let gone = |()| Err(Broken::Source(StreamError::Closed));
            return source.poll_gone(cx).map(gone);
        };
        source.limit(room);
        pin!(source.fill()).poll(cx).map_err(Broken::Source)
    })
    .await
}

/// Moves a body from one side to the other.
pub(super) async fn pump<S: Source, K: Sink>(source: &mut S, sink: &mut K) -> Result<(), Broken> {
    loop {
        let filled = if source.is_ready() {
            source.fill().await.map_err(Broken::Source)?
        } else {
            flush(source, sink).await?;
            fetch(source, sink).await?
        };
        match filled {
            Filled::Data => {
                let data = source.data();
                let count = data.len();
                unless_gone(source, pin!(sink.write(data))).await?;
                source.consume(count);
            }
            Filled::End => {
                return unless_gone(source, pin!(sink.finish(source.trailers()))).await;
            }
        }
    }
}

/// Sends the request's body, then watches whether the client stays. Ends only when it does not, or
/// its body is bad.
pub(super) async fn upload<S: Source, K: Sink>(
    source: &mut S,
    sink: &mut K,
    progress: &Progress<'_>,
) -> StreamError {
    match send_body(source, sink, progress.whole).await {
        Ok(()) => {}
        Err(Broken::Source(error)) => return error,
        // It may have answered before it stopped reading: the other direction tells.
        Err(Broken::Sink(error)) => tracing::trace!(%error, "the endpoint stopped reading"),
    }
    progress.uploaded.set(true);
    let _left = source.departed(READ_AHEAD).await;
    StreamError::Closed
}

/// A body that is not whole here cannot be fetched back: none of it is let go before it was
/// written, so that an attempt of which nothing was written can be made again.
async fn send_body<S: Source, K: Sink>(
    source: &mut S,
    sink: &mut K,
    whole: bool,
) -> Result<(), Broken> {
    if !whole && source.is_ready() && source.fill().await.map_err(Broken::Source)? == Filled::Data {
        let data = source.data();
        let count = data.len();
        unless_gone(source, pin!(sink.write(data))).await?;
        unless_gone(source, pin!(sink.flush())).await?;
        source.consume(count);
    }
    pump(source, sink).await
}

/// The way of the answer to the client.
pub(super) struct Relay<'a> {
    pub(super) worker: &'a Worker,
    pub(super) client: &'a Client,
    pub(super) request: &'a RequestHead,
    pub(super) routed: &'a crate::live::Routed,
    pub(super) revision: &'a LocalRevision,
    pub(super) seen: &'a Seen,
    pub(super) progress: &'a Progress<'a>,
    pub(super) edits: &'a mut Vec<u8>,
}

impl Relay<'_> {
    fn answered(&self) {
        let now = self.worker.clock.now();
        self.progress.answered.set(Some(now));
        drop(self.progress.repeat.take());
        // Before the client can know that it was answered, and ask how long the start took.
        if let Some(start) = self.seen.start {
            let starts = self.revision.gate.throttle().starts();
            starts.answered(start, now);
        }
        self.progress.slot.answered();
    }

    pub(super) async fn download<S: Responses, K: Responder>(
        self,
        source: &mut S,
        sink: &mut K,
        response: &mut ResponseHead,
    ) -> Stop {
        for interims in 0.. {
            if interims > INTERIMS_MAX {
                return Stop::Endpoint(StreamError::Malformed("too many interim answers"));
            }
            if let Err(error) = source.response(self.request.is_head(), response).await {
                return Stop::Endpoint(error);
            }
            match response.status {
                101 if !self.request.wants_websocket => {
                    return Stop::Endpoint(StreamError::Malformed("upgrade nobody asked for"));
                }
                // Ours was sent when the body was wanted.
                100 => {}
                102..200 => {
                    sink.interim(response, b"");
                    if sink.flush().await.is_err() {
                        return Stop::Left;
                    }
                }
                _ => break,
            }
        }
        self.answered();
        edits::response(self.edits, response, self.routed);
        if self.worker.shared.settings.server_timing {
            let now = self.worker.clock.now();
            let attempt = now.saturating_duration_since(self.progress.begun);
            let timing = Timing::so_far(self.seen, Some(self.revision)).and(attempt);
            timing.write(self.edits);
        }
        self.progress.relayed.set(true);
        if response.status == 101 {
            sink.interim(response, self.edits);
            return match sink.flush().await {
                Ok(()) => Stop::Upgraded,
                Err(_) => Stop::Left,
            };
        }
        let last = self.worker.is_parting() || self.client.is_to_leave(self.worker.clock.now());
        sink.respond(response, self.edits, last);
        match pump(source, sink).await {
            Ok(()) => Stop::Done,
            Err(Broken::Source(error)) => {
                // Behind no answer at all the client could take its connection for one that was
                // closed unused, and ask again: it is to see that there was one and it broke off.
                let _gone_too = sink.flush().await;
                Stop::Endpoint(error)
            }
            Err(Broken::Sink(_)) => Stop::Left,
        }
    }
}
