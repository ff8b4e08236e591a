//! The reading half of a connection: heads and bodies out of one buffer.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use super::Parsed;
use super::body::{Decoder, Step};
use crate::http::message::{Departure, Filled, Length, Source, StreamError, Trailers};
use crate::http::pace::Pace;
use crate::serve::buffers::{Buffer, SIZES};
use crate::serve::io::IoRead;

/// Most bytes of a body in flight in one direction.
pub const BODY_WINDOW: usize = 64 * 1024;

/// Borrowed for one exchange; what outlives it belongs to the connection.
#[derive(Debug)]
pub struct Reader<'a> {
    pub(super) io: IoRead<'a>,
    pub(super) buffer: &'a mut Buffer,
    pub(super) decoder: &'a mut Decoder,
    pub(super) pace: &'a Pace,
    pub(super) available: usize,
    pub(super) trailers: Option<Trailers>,
    pub(super) trailer_bytes: usize,
    pub(super) body_bytes_max: u64,
    pub(super) body_bytes: u64,
    /// Most bytes of a body to read at once.
    pub(super) limit: usize,
    /// Size the buffer should have for the next read, if it should be larger.
    pub(super) wide: usize,
}

impl Reader<'_> {
    /// Reads once into the buffer, which may hold at most `max` unused bytes; 0 is the end.
    fn poll_read(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<Result<usize, StreamError>> {
        if self.wide > 0 {
            self.buffer.widen(self.wide.min(max));
            self.wide = 0;
        }
        let room = self.buffer.room(max);
        if room.is_empty() {
            return Poll::Ready(Err(StreamError::Malformed("more framing than fits")));
        }
        let wanted = room.len();
        let Poll::Ready(result) = self.io.poll_read(cx, room) else {
            self.pace.read_waits();
            return Poll::Pending;
        };
        let count = result?;
        self.buffer.filled(count);
        self.pace.read_moved(count);
        if count == wanted && wanted < BODY_WINDOW && self.buffer.len() == wanted {
            // The peer sends faster than we take it: the next read may take more at once.
            self.wide = SIZES[2];
        }
        Poll::Ready(Ok(count))
    }

    /// Reads a head: `parse` looks at the unused bytes and says whether they are one.
    ///
    /// # Errors
    /// What `parse` said; `Closed` if the peer ended before the head was whole.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn head<E: From<StreamError>>(
        &mut self,
        max: usize,
        mut parse: impl FnMut(&[u8]) -> Result<Parsed, E>,
    ) -> Result<(), E> {
        // A head that comes in crumbs is parsed again only when it may have become whole or has
        // doubled, so that crumbs cost no more than the bytes they bring.
        let mut parsed_at = 0;
        let mut seen: usize = 0;
        loop {
            let bytes = self.buffer.bytes();
            let worth_it = bytes.len() >= parsed_at * 2
                || bytes.len() >= max
                || has_empty_line(&bytes[seen.saturating_sub(2)..]);
            seen = bytes.len();
            if !bytes.is_empty() && worth_it {
                parsed_at = bytes.len();
                if let Parsed::Head(length) = parse(bytes)? {
                    self.buffer.consume(length);
                    return Ok(());
                }
            }
            let count = poll_fn(|cx| self.poll_read(cx, max)).await?;
            if count == 0 {
                return Err(StreamError::Closed.into());
            }
        }
    }

    /// A body of this length follows.
    pub fn begin_body(&mut self, length: Length) {
        *self.decoder = Decoder::new(length, self.trailer_bytes);
        self.available = 0;
        self.trailers = None;
    }

    /// Whether a byte of the next message is here.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Reads and drops at most `budget` bytes; returns when they are used up or the peer has ended.
    pub async fn discard(&mut self, budget: usize) {
        self.buffer.forget();
        let mut left = budget;
        loop {
            left = left.saturating_sub(self.buffer.len());
            self.buffer.consume(self.buffer.len());
            if left == 0 {
                return;
            }
            match poll_fn(|cx| self.poll_read(cx, BODY_WINDOW)).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }

    /// What the bytes at hand say; `None` = more are needed.
    fn step(&mut self) -> Result<Option<Filled>, StreamError> {
        if self.available > 0 {
            return Ok(Some(Filled::Data));
        }
        loop {
            match self.decoder.step(self.buffer.bytes())? {
                Step::Data(count) => {
                    if self.body_bytes + count as u64 > self.body_bytes_max {
                        return Err(StreamError::TooLarge);
                    }
                    self.available = count;
                    return Ok(Some(Filled::Data));
                }
                Step::Skip(count) => self.buffer.consume(count),
                Step::End(count, trailers) => {
                    self.buffer.consume(count);
                    if trailers.is_some() {
                        self.trailers = trailers;
                    }
                    return Ok(Some(Filled::End));
                }
                Step::More => return Ok(None),
            }
        }
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<Filled, StreamError>> {
        loop {
            if let Some(filled) = self.step()? {
                return Poll::Ready(Ok(filled));
            }
            let max = self.limit.saturating_add(self.buffer.len());
            if ready!(self.poll_read(cx, max.min(BODY_WINDOW)))? > 0 {
                continue;
            }
            if self.decoder.ends_with_connection() {
                *self.decoder = Decoder::new(Length::None, 0);
                return Poll::Ready(Ok(Filled::End));
            }
            return Poll::Ready(Err(StreamError::Closed));
        }
    }
}

/// Whether a line end follows another: every head ends so, also one whose lines lack their CR.
fn has_empty_line(bytes: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', bytes)
        .any(|at| matches!(bytes[at + 1..], [b'\n', ..] | [b'\r', b'\n', ..]))
}

impl Source for Reader<'_> {
    async fn fill(&mut self) -> Result<Filled, StreamError> {
        poll_fn(|cx| self.poll_fill(cx)).await
    }

    fn limit(&mut self, bytes: usize) {
        self.limit = bytes;
    }

    fn rest(&mut self) {
        if self.buffer.is_empty() {
            self.wide = self.wide.max(self.buffer.size());
            self.buffer.release();
        }
    }

    fn data(&self) -> &[u8] {
        &self.buffer.bytes()[..self.available]
    }

    fn consume(&mut self, count: usize) {
        self.available -= count;
        self.body_bytes += count as u64;
        self.pace.body_moved(count);
        self.decoder.took(count);
        self.buffer.consume(count);
    }

    fn is_ready(&mut self) -> bool {
        !matches!(self.step(), Ok(None))
    }

    fn trailers(&self) -> Option<&Trailers> {
        self.trailers.as_ref()
    }

    async fn departed(&mut self, max: usize) -> Departure {
        while self.buffer.len() < max {
            let read = poll_fn(|cx| {
                let room = self.buffer.room(max);
                if room.is_empty() {
                    return Poll::Ready(None);
                }
                let Poll::Ready(result) = self.io.poll_read(cx, room) else {
                    // Thousands may wait like this: none of them keeps an empty buffer.
                    self.buffer.release();
                    return Poll::Pending;
                };
                if let Ok(count) = result {
                    self.buffer.filled(count);
                }
                Poll::Ready(Some(result))
            });
            match read.await {
                None => break,
                Some(Ok(0) | Err(_)) => return Departure::Left,
                Some(Ok(_)) => {}
            }
        }
        self.io.closed().await;
        Departure::Left
    }

    fn poll_gone(&self, _cx: &mut Context<'_>) -> Poll<()> {
        // Unread bytes hide it, or there is room for what would show it.
        Poll::Pending
    }

    fn begin_tunnel(&mut self) {
        self.body_bytes_max = u64::MAX;
        self.buffer.forget();
        self.begin_body(Length::UntilClose);
    }
}
