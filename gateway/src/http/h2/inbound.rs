//! The half of a stream that is received.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes};
use h2::RecvStream;

use super::{KEEP_MAX, failure, heads};
use crate::http::message::{Filled, StreamError, Trailers};
use crate::http::pace::Pace;

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// A tunnel's bytes, once there is a tunnel.
    Tunnel,
    Data,
    Trailers,
    /// Trailers that cannot be passed on.
    Broken,
    Nothing,
}

/// A body being received. What it holds unread is bounded by the stream's window.
#[derive(Debug)]
pub struct Inbound {
    stream: RecvStream,
    next: Next,
    /// Received and not used, oldest first.
    chunks: VecDeque<Bytes>,
    /// Bytes of `chunks`.
    held: usize,
    /// Of those, bytes whose credit the peer has not got back: the newest.
    owed: usize,
    /// All that was received so far, while it is little.
    kept: Option<Vec<Bytes>>,
    /// Bytes were used.
    touched: bool,
    received: u64,
    received_max: u64,
    trailers: Option<Trailers>,
}

impl Inbound {
    /// `received_max`: most bytes of a body.
    #[must_use]
    pub fn new(stream: RecvStream, received_max: u64) -> Inbound {
        let next = if stream.is_end_stream() {
            Next::Nothing
        } else {
            Next::Data
        };
        Inbound {
            stream,
            next,
            chunks: VecDeque::new(),
            held: 0,
            owed: 0,
            kept: None,
            touched: false,
            received: 0,
            received_max,
            trailers: None,
        }
    }

    /// What comes is for a tunnel that is not open yet.
    pub fn await_tunnel(&mut self) {
        self.next = Next::Tunnel;
    }

    /// There is no body; what comes all the same is of no use.
    pub fn ignore(&mut self) {
        self.next = Next::Nothing;
    }

    pub fn begin_tunnel(&mut self) {
        self.received_max = u64::MAX;
        if self.next == Next::Tunnel {
            self.next = Next::Data;
        }
    }

    /// The end of the body was received, and all before it was used.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.whole() == Some(0)
    }

    /// The unused bytes, if the end of the body is here.
    #[must_use]
    pub fn whole(&self) -> Option<usize> {
        let ended = matches!(self.next, Next::Nothing | Next::Tunnel);
        ended.then_some(self.held)
    }

    #[must_use]
    pub fn held(&self) -> usize {
        self.held
    }

    #[must_use]
    pub fn flow_control(&mut self) -> h2::FlowControl {
        self.stream.flow_control().clone()
    }

    #[must_use]
    pub fn data(&self) -> &[u8] {
        self.chunks.front().map_or(&[], |chunk| chunk)
    }

    #[must_use]
    pub fn trailers(&self) -> Option<&Trailers> {
        self.trailers.as_ref()
    }

    /// Drops the first `count` bytes; their credit goes back to the peer.
    pub fn consume(&mut self, count: usize, pace: &Pace) {
        let Some(front) = self.chunks.front_mut() else {
            return;
        };
        front.advance(count);
        if front.is_empty() {
            self.chunks.pop_front();
        }
        self.held -= count;
        self.touched |= count > 0;
        pace.body_moved(count);
        // What is owed for is the newest: none of what was used unless the rest is less.
        self.release(self.owed.saturating_sub(self.held));
    }

    /// Gives the peer credit for all that lies here, so that it may send more.
    pub fn release_all(&mut self) {
        self.release(self.owed);
    }

    fn release(&mut self, bytes: usize) {
        self.owed -= bytes;
        if bytes > 0 {
            // Fails only after the stream's end, when no credit is wanted.
            let _no_matter = self.stream.flow_control().release_capacity(bytes);
        }
    }

    /// Waits for one more chunk or the end, whatever lies here already.
    pub fn poll_more(
        &mut self,
        cx: &mut Context<'_>,
        pace: &Pace,
    ) -> Poll<Result<Filled, StreamError>> {
        if self.received > self.received_max {
            return Poll::Ready(Err(StreamError::TooLarge));
        }
        loop {
            match self.next {
                Next::Nothing | Next::Tunnel => return Poll::Ready(Ok(Filled::End)),
                Next::Trailers => {
                    let trailers = ready!(self.stream.poll_trailers(cx)).map_err(failure)?;
                    let read = trailers.as_ref().map(heads::read_trailers).transpose();
                    self.next = if read.is_ok() {
                        Next::Nothing
                    } else {
                        Next::Broken
                    };
                    self.trailers = read.ok().flatten();
                }
                // Again for whoever fills after somebody has looked.
                Next::Broken => {
                    return Poll::Ready(Err(StreamError::Malformed("too many trailers")));
                }
                Next::Data => {
                    let Poll::Ready(data) = self.stream.poll_data(cx) else {
                        return Poll::Pending;
                    };
                    match data.transpose().map_err(failure)? {
                        Some(chunk) if chunk.is_empty() => {}
                        Some(chunk) => return Poll::Ready(self.take(chunk, pace)),
                        None => self.next = Next::Trailers,
                    }
                }
            }
        }
    }

    fn take(&mut self, chunk: Bytes, pace: &Pace) -> Result<Filled, StreamError> {
        pace.read_moved(chunk.len());
        self.received += chunk.len() as u64;
        if self.received > self.received_max {
            return Err(StreamError::TooLarge);
        }
        if let Some(kept) = &mut self.kept {
            kept.push(chunk.clone());
            if self.received > KEEP_MAX as u64 {
                self.kept = None;
            }
        }
        self.held += chunk.len();
        self.owed += chunk.len();
        self.chunks.push_back(chunk);
        Ok(Filled::Data)
    }

    /// Waits until there is data or the body is over.
    pub fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        pace: &Pace,
    ) -> Poll<Result<Filled, StreamError>> {
        if !self.chunks.is_empty() {
            return Poll::Ready(Ok(Filled::Data));
        }
        let more = self.poll_more(cx, pace);
        if more.is_pending() {
            pace.read_waits();
        }
        more
    }

    /// Whether filling would not wait. A failure shows again to whoever fills.
    pub fn is_ready(&mut self, pace: &Pace) -> bool {
        !self.chunks.is_empty() || self.look(pace).is_ready()
    }

    /// Takes what has come already, up to `max` unused bytes.
    pub fn gather(&mut self, max: usize, pace: &Pace) {
        while self.held < max && matches!(self.look(pace), Poll::Ready(Ok(Filled::Data))) {}
    }

    fn look(&mut self, pace: &Pace) -> Poll<Result<Filled, StreamError>> {
        self.poll_more(&mut Context::from_waker(Waker::noop()), pace)
    }

    /// Keeps the body, what is here and what comes, until [`forget`](Inbound::forget) or until it is
    /// more than [`KEEP_MAX`].
    pub fn keep(&mut self) {
        if !self.touched {
            self.kept = Some(self.chunks.iter().cloned().collect());
        }
    }

    /// Goes back to the beginning of the body; `false` if some of it was used and not kept.
    pub fn rewind(&mut self) -> bool {
        let Some(kept) = &self.kept else {
            return !self.touched;
        };
        self.chunks = kept.iter().cloned().collect();
        self.held = self.chunks.iter().map(Bytes::len).sum();
        self.release_all();
        true
    }

    /// Ends what `keep` began.
    pub fn forget(&mut self) {
        self.kept = None;
    }
}
