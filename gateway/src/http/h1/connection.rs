//! One HTTP/1.1 connection, to a client or to an endpoint: what lives longer than an exchange.

use std::rc::Rc;
use std::task::{Context, Poll};

use super::body::Decoder;
use super::reader::{BODY_WINDOW, Reader};
use super::writer::{Encoder, Writer};
use crate::http::message::Length;
use crate::http::pace::Pace;
use crate::serve::buffers::{Buffer, Buffers, SIZES};
use crate::serve::io::Io;

/// A connection between exchanges, or lent to one.
#[derive(Debug)]
pub struct Connection {
    io: Io,
    buffer: Buffer,
    decoder: Decoder,
    /// Where the body began that [`keep`](Connection::keep) marked.
    kept: Option<Decoder>,
    out: Vec<u8>,
    encoder: Encoder,
    /// Exchanges begun on it.
    pub exchanges: u32,
}

/// Bounds of what is read from a peer.
#[derive(Clone, Copy, Debug)]
pub struct ReadLimits {
    pub trailer_bytes: usize,
    /// Most bytes of a body; `u64::MAX` = no bound.
    pub body_bytes: u64,
}

impl Connection {
    #[must_use]
    pub fn new(io: Io, buffers: &Rc<Buffers>) -> Connection {
        Connection {
            io,
            buffer: Buffer::new(buffers),
            decoder: Decoder::new(Length::None, 0),
            kept: None,
            out: Vec::new(),
            encoder: Encoder::Over,
            exchanges: 0,
        }
    }

    /// Halves for one exchange.
    pub fn split<'a>(&'a mut self, pace: &'a Pace, limits: ReadLimits) -> (Reader<'a>, Writer<'a>) {
        let (read, write) = self.io.split();
        let reader = Reader {
            io: read,
            buffer: &mut self.buffer,
            decoder: &mut self.decoder,
            pace,
            available: 0,
            trailers: None,
            trailer_bytes: limits.trailer_bytes,
            body_bytes_max: limits.body_bytes,
            body_bytes: 0,
            limit: BODY_WINDOW,
            wide: 0,
        };
        let writer = Writer {
            io: write,
            out: &mut self.out,
            encoder: &mut self.encoder,
            pace,
        };
        (reader, writer)
    }

    /// A body of this length comes next.
    pub fn begin_body(&mut self, length: Length, limits: ReadLimits) {
        self.forget();
        self.decoder = Decoder::new(length, limits.trailer_bytes);
    }

    #[must_use]
    pub fn io(&self) -> &Io {
        &self.io
    }

    /// As [`Io::part`].
    pub fn part(&mut self) {
        self.io.part();
    }

    /// What it reads and writes, and the bytes that came and were not used.
    #[must_use]
    pub fn into_parts(self) -> (Io, Vec<u8>) {
        let unread = self.buffer.bytes().to_vec();
        (self.io, unread)
    }

    /// Bytes that came and were not used.
    #[must_use]
    pub fn unread(&self) -> &[u8] {
        self.buffer.bytes()
    }

    /// The body that was being received is over.
    #[must_use]
    pub fn received_all(&self) -> bool {
        self.decoder.is_over()
    }

    /// The body that was being sent is over, and all of it was written.
    #[must_use]
    pub fn sent_all(&self) -> bool {
        self.encoder == Encoder::Over && self.out.is_empty() && self.io.sent_all()
    }

    /// Bytes of the body being received, if all of it is already here, so that it can be sent
    /// twice.
    #[must_use]
    pub fn whole_body(&self) -> Option<u64> {
        let mut decoder = self.decoder;
        let mut bytes = self.buffer.bytes();
        let mut length = 0;
        loop {
            match decoder.step(bytes) {
                Ok(super::body::Step::Data(count)) => {
                    decoder.took(count);
                    bytes = &bytes[count..];
                    length += count as u64;
                }
                Ok(super::body::Step::Skip(count)) => bytes = &bytes[count..],
                Ok(super::body::Step::End(..)) => return Some(length),
                Ok(super::body::Step::More) | Err(_) => return None,
            }
        }
    }

    /// Keeps the body's bytes although they are used, until [`forget`](Connection::forget).
    pub fn keep(&mut self) {
        self.buffer.keep();
        self.kept = Some(self.decoder);
    }

    /// Goes back to the beginning of the body; `false` if some of it was used and not kept.
    pub fn rewind(&mut self) -> bool {
        let Some(decoder) = self.kept else {
            return self.decoder.is_untouched();
        };
        self.decoder = decoder;
        self.buffer.rewind();
        true
    }

    /// Ends what `keep` began.
    pub fn forget(&mut self) {
        self.kept = None;
        self.buffer.forget();
    }

    /// Keeps what was read in as little as holds it: it may have come behind a large head.
    pub fn fit(&mut self) {
        self.buffer.fit();
    }

    /// Gives back what is not needed while nothing is read or written.
    pub fn rest(&mut self) {
        self.buffer.release();
        self.io.rest();
        if self.out.is_empty() && self.out.capacity() > 0 {
            self.buffer.pool().give_out(std::mem::take(&mut self.out));
        }
    }

    /// Whether it holds no buffers.
    #[cfg(test)]
    pub(super) fn is_at_rest(&self) -> bool {
        self.buffer.holds_no_storage() && self.out.capacity() == 0
    }

    /// Waits for the first byte of a message. The reactor takes a connection that was never read
    /// from, or whose last read filled its buffer, for readable until a read has found nothing, so
    /// this reads; without a byte no buffer is kept.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub fn poll_begun(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (mut read, _write) = self.io.split();
        let room = self.buffer.room(SIZES[0]);
        let wanted = room.len();
        let polled = read.poll_read(cx, room);
        match &polled {
            Poll::Ready(Ok(count)) => {
                self.buffer.filled(*count);
                if *count == wanted {
                    // More than a usual head: a body may follow, faster than we take it.
                    self.buffer.widen(SIZES[2]);
                }
            }
            // An end or an error shows again to whoever reads next.
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.buffer.release(),
        }
        polled.map(|_| ())
    }

    /// Makes room to write into, from the worker's spare ones.
    pub fn wake(&mut self) {
        if self.out.capacity() == 0 {
            self.out = self.buffer.pool().take_out();
        }
    }
}
