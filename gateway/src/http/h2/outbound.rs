//! The half of a stream that is sent.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::SendStream;

use super::{failure, heads};
use crate::http::message::{Length, StreamError, Trailers};
use crate::http::pace::Pace;

/// A body being sent. What it holds is bounded by the pieces it is given; what the connection holds
/// of it, by [`SEND_BUFFER`](super::SEND_BUFFER) and by the peer's window.
#[derive(Debug)]
pub struct Outbound {
    stream: SendStream<Bytes>,
    /// Bytes still owed, where the head said how many.
    left: Option<u64>,
    /// Not given to the connection yet: it may turn out to be the last piece.
    piece: Bytes,
    over: bool,
}

impl Outbound {
    /// `ended`: the head was said to be all.
    #[must_use]
    pub fn new(stream: SendStream<Bytes>, length: Length, ended: bool) -> Outbound {
        let left = match length {
            Length::None => Some(0),
            Length::Exactly(bytes) => Some(bytes),
            Length::Chunked | Length::UntilClose => None,
        };
        Outbound {
            stream,
            left,
            piece: Bytes::new(),
            over: ended,
        }
    }

    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Any number of bytes may follow, until the tunnel's end.
    pub fn begin_tunnel(&mut self) {
        self.left = None;
    }

    /// Takes a piece, once the one before is with the connection. `data` is taken when it is ready.
    pub fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        data: &[u8],
        pace: &Pace,
    ) -> Poll<Result<(), StreamError>> {
        if data.is_empty() {
            return Poll::Ready(Ok(()));
        }
        if self.over {
            return Poll::Ready(Err(StreamError::Malformed("body after its end")));
        }
        ready!(self.poll_send(cx, false, pace))?;
        if let Some(left) = &mut self.left {
            *left = left
                .checked_sub(data.len() as u64)
                .ok_or(StreamError::Malformed("body longer than its length"))?;
        }
        self.piece = Bytes::copy_from_slice(data);
        Poll::Ready(Ok(()))
    }

    pub fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        pace: &Pace,
    ) -> Poll<Result<(), StreamError>> {
        if self.over {
            return Poll::Ready(Ok(()));
        }
        self.poll_send(cx, false, pace)
    }

    /// Ends the body.
    pub fn poll_finish(
        &mut self,
        cx: &mut Context<'_>,
        trailers: Option<&Trailers>,
        pace: &Pace,
    ) -> Poll<Result<(), StreamError>> {
        if self.over {
            return Poll::Ready(Ok(()));
        }
        if self.left.is_some_and(|left| left > 0) {
            return Poll::Ready(Err(StreamError::Closed));
        }
        let trailers = trailers.filter(|trailers| !trailers.lines.is_empty());
        ready!(self.poll_send(cx, trailers.is_none(), pace))?;
        match trailers {
            None if self.over => {}
            None => self.stream.send_data(Bytes::new(), true).map_err(failure)?,
            Some(trailers) => {
                let trailers = heads::write_trailers(trailers)?;
                self.stream.send_trailers(trailers).map_err(failure)?;
            }
        }
        self.over = true;
        Poll::Ready(Ok(()))
    }

    /// Gives the connection what there is, as the peer's window allows; `last`: nothing follows.
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        last: bool,
        pace: &Pace,
    ) -> Poll<Result<(), StreamError>> {
        while !self.piece.is_empty() {
            self.stream.reserve_capacity(self.piece.len());
            let room = self.stream.capacity().min(self.piece.len());
            if room > 0 {
                let part = self.piece.split_to(room);
                let end = last && self.piece.is_empty();
                self.stream.send_data(part, end).map_err(failure)?;
                self.over |= end;
                pace.write_moved(room);
                continue;
            }
            match self.stream.poll_capacity(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(failure(error))),
                Poll::Ready(None) => return Poll::Ready(Err(StreamError::Closed)),
                Poll::Pending => {
                    pace.write_waits();
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Ready when the peer has reset the stream, or the connection has ended.
    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_reset(cx).map(|_either_way_gone| ())
    }

    pub fn reset(&mut self, reason: h2::Reason) {
        self.stream.send_reset(reason);
    }
}
