//! The half of a stream that is sent.

use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::SendStream;

use super::outbox::{Outbox, Parcel, Part};
use super::{SEND_BUFFER, failure, heads};
use crate::http::message::{Length, StreamError, Trailers};
use crate::http::pace::Pace;

/// A part of a piece that is smaller than this, because the peer's window is, makes more work than it
/// carries.
const CRUMB: usize = 256;

/// A body being sent. What it holds, and the connection holds of it, is bounded by its part of the
/// connection's [`Outbox`].
#[derive(Debug)]
pub struct Outbound {
    stream: SendStream<Parcel>,
    outbox: Rc<Outbox>,
    /// Once there is something to hold.
    part: Option<Rc<Part>>,
    /// Bytes still owed, where the head said how many.
    left: Option<u64>,
    /// Not given to the connection yet: it may turn out to be the last piece.
    piece: Bytes,
    /// Bytes of what is being written that were taken already.
    taken: usize,
    /// More has to be written before it may take any.
    full: bool,
    over: bool,
}

impl Outbound {
    /// `ended`: the head was said to be all.
    #[must_use]
    pub fn new(
        stream: SendStream<Parcel>,
        length: Length,
        ended: bool,
        outbox: &Rc<Outbox>,
    ) -> Outbound {
        let left = match length {
            Length::None => Some(0),
            Length::Exactly(bytes) => Some(bytes),
            Length::Chunked | Length::UntilClose => None,
        };
        Outbound {
            stream,
            outbox: outbox.clone(),
            part: None,
            left,
            piece: Bytes::new(),
            taken: 0,
            full: false,
            over: ended,
        }
    }

    fn part(&mut self) -> &Rc<Part> {
        self.part.get_or_insert_with(|| self.outbox.part())
    }

    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Any number of bytes may follow, until the tunnel's end.
    pub fn begin_tunnel(&mut self) {
        self.left = None;
    }

    /// How many bytes should be fetched for it now: something, or what it holds has to go first.
    pub fn poll_room(&mut self, cx: &mut Context<'_>, pace: &Pace) -> Poll<usize> {
        self.poll_part(cx, SEND_BUFFER, pace)
    }

    fn poll_part(&mut self, cx: &mut Context<'_>, wanted: usize, pace: &Pace) -> Poll<usize> {
        let room = self.part().poll_room(cx, wanted);
        if room.is_pending() {
            self.full = true;
            pace.write_waits();
        } else if self.full {
            self.full = false;
            pace.write_moved(0);
        }
        room
    }

    /// Takes a piece, once the one before is with the connection. `data` is taken when it is ready,
    /// and must be the same until then.
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
        while self.taken < data.len() {
            ready!(self.poll_send(cx, false, pace))?;
            let rest = &data[self.taken..];
            let count = ready!(self.poll_part(cx, rest.len(), pace));
            if let Some(left) = &mut self.left {
                *left = left
                    .checked_sub(count as u64)
                    .ok_or(StreamError::Malformed("body longer than its length"))?;
            }
            self.part().take(count);
            self.piece = Bytes::copy_from_slice(&rest[..count]);
            self.taken += count;
        }
        self.taken = 0;
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
            None => {
                let nothing = Parcel::empty();
                self.stream.send_data(nothing, true).map_err(failure)?;
            }
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
                if room < CRUMB && room < self.piece.len() {
                    self.outbox.heard().crumb();
                }
                let part = self.piece.split_to(room);
                let part = Parcel::new(part, self.part());
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

impl Drop for Outbound {
    fn drop(&mut self) {
        if let Some(part) = &self.part {
            part.free(self.piece.len());
        }
    }
}
