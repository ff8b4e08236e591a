//! The bytes under an HTTP/2 connection.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use activator::admission::Clock;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::budget::{Abuse, Budget, Peer, Tally};
use super::frames::Frames;
use crate::http::pace::{BEHIND_MAX, Pace, SEND_RATE};
use crate::serve::io::Io;

/// Bytes of what a client says first (RFC 9113 §3.4).
const PREFACE: usize = 24;

/// When the peer was last heard, whether it reads, and what its frames have cost.
#[derive(Debug)]
pub struct Heard {
    clock: Rc<Clock>,
    at: Cell<Instant>,
    ever: Cell<bool>,
    /// How it takes what is written, over all its streams.
    pace: Pace,
    /// When the last write that had to wait went on.
    freed: Cell<Instant>,
    /// Since when something other than a body has begun and not ended.
    amid: Cell<Option<Instant>>,
    /// When our side ended.
    parted: Cell<Option<Instant>>,
    /// What the peer has not taken in is not kept for it.
    aborted: Cell<bool>,
    budget: RefCell<Budget>,
}

impl Heard {
    #[must_use]
    pub fn new(peer: Peer, clock: &Rc<Clock>) -> Rc<Heard> {
        let pace = Pace::new(clock);
        if peer == Peer::Client {
            pace.expect_rate(SEND_RATE);
        }
        Rc::new(Heard {
            pace,
            clock: clock.clone(),
            at: Cell::new(clock.now()),
            ever: Cell::new(false),
            freed: Cell::new(clock.now()),
            amid: Cell::new(None),
            parted: Cell::new(None),
            aborted: Cell::new(false),
            budget: RefCell::new(Budget::new(peer, clock)),
        })
    }

    fn note(&self) {
        self.at.set(self.clock.now());
        self.ever.set(true);
    }

    #[must_use]
    pub fn at(&self) -> Instant {
        self.at.get()
    }

    /// `bytes`: how many were written, if it did not have to wait.
    fn note_write<T>(&self, written: &Poll<T>, bytes: usize) {
        if written.is_pending() {
            self.pace.write_waits();
            return;
        }
        if self.pace.is_blocked() {
            self.freed.set(self.clock.now());
        }
        self.pace.write_moved(bytes);
    }

    /// Has the connection reset once it is dropped.
    pub fn abort(&self) {
        self.aborted.set(true);
    }

    /// When it will have read nothing for `stall` of what waits for it, or too little all the time
    /// it kept us waiting; `None` if nothing waits.
    #[must_use]
    pub fn stuck_until(&self, stall: Duration) -> Option<Instant> {
        let ends = [
            self.pace.stall_deadline(stall),
            self.pace.slow_deadline(BEHIND_MAX),
        ];
        ends.into_iter().flatten().min()
    }

    /// Bytes that lie in the kernel for a peer that takes none now, at most.
    #[must_use]
    pub fn stuck_bytes(&self) -> u64 {
        self.pace.stuck_bytes()
    }

    /// When it last read something that had to wait.
    #[must_use]
    pub fn freed_at(&self) -> Instant {
        self.freed.get()
    }

    /// Whether what came may be looked at.
    fn walk(&self, frames: &mut Frames, bytes: &[u8]) -> bool {
        let mut budget = self.budget.borrow_mut();
        let mut tally = Tally::default();
        let apart = frames.walk(bytes, |frame| budget.count(frame, &mut tally));
        if !frames.is_amid() {
            self.amid.set(None);
        } else if apart || self.amid.get().is_none() {
            self.amid.set(Some(self.clock.now()));
        }
        budget.admit(tally)
    }

    /// Why the peer must be left, once it must: nothing more is read from it.
    #[must_use]
    pub fn abuse(&self) -> Option<Abuse> {
        self.budget.borrow().abuse()
    }

    /// A client's stream was taken up.
    pub fn taken(&self, stream: u32) {
        self.budget.borrow_mut().taken(stream);
    }

    /// A head was larger than allowed.
    pub fn large_head(&self) {
        self.budget.borrow_mut().large_head();
    }

    /// The peer's window let hardly anything through.
    pub fn crumb(&self) {
        self.budget.borrow_mut().crumb();
    }

    /// Since when a head, or any frame but a body's, has begun and not ended.
    #[must_use]
    pub fn amid_since(&self) -> Option<Instant> {
        self.amid.get()
    }

    /// When we said that nothing follows, and began to wait for its end.
    #[must_use]
    pub fn parted_at(&self) -> Option<Instant> {
        self.parted.get()
    }

    /// Whether it has said anything yet.
    #[must_use]
    pub fn ever(&self) -> bool {
        self.ever.get()
    }
}

/// A byte stream of which the first bytes were read already, to see what it is.
#[derive(Debug)]
pub struct Wire {
    io: Io,
    peer: Peer,
    prefix: Vec<u8>,
    /// Bytes of the prefix that were given out.
    given: usize,
    heard: Rc<Heard>,
    /// What comes.
    frames: Frames,
    /// What goes.
    ours: Frames,
    /// Most bytes to take in for the sake of an orderly end, once our side has ended.
    discard: usize,
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.heard.aborted.get() {
            self.io.abort();
        }
    }
}

impl Wire {
    /// To an endpoint.
    #[must_use]
    pub fn opened(io: Io, heard: Rc<Heard>) -> Wire {
        Wire {
            frames: Frames::new(0),
            ours: Frames::new(PREFACE),
            io,
            peer: Peer::Endpoint,
            prefix: Vec::new(),
            given: 0,
            heard,
            discard: 0,
        }
    }

    /// From a client. `prefix`: what was read of it, which begins with `before` bytes that are no
    /// frames; `discard`: most bytes that are taken in after our side has ended, so that the last of
    /// what we said is not lost to a reset.
    #[must_use]
    pub fn accepted(
        io: Io,
        prefix: Vec<u8>,
        before: usize,
        discard: usize,
        heard: Rc<Heard>,
    ) -> Wire {
        let mut wire = Wire::opened(io, heard);
        wire.peer = Peer::Client;
        wire.frames = Frames::new(before);
        wire.ours = Frames::new(0);
        wire.prefix = prefix;
        wire.discard = discard;
        wire
    }

    /// Nothing more is read. Whoever drives a client's connection says goodbye; one to an endpoint
    /// has failed.
    fn refuse(&self) -> Poll<io::Result<()>> {
        match self.peer {
            Peer::Client => Poll::Pending,
            Peer::Endpoint => Poll::Ready(Err(io::Error::other("its frames cost too much"))),
        }
    }

    /// Goes on over what was written: the first `count` bytes of these.
    fn wrote(&mut self, parts: &[IoSlice<'_>], count: usize) {
        let mut budget = self.heard.budget.borrow_mut();
        let mut left = count;
        for part in parts {
            let written = &part[..part.len().min(left)];
            left -= written.len();
            self.ours.walk(written, |frame| budget.sent(frame));
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let wire = &mut *self;
        let before = buffer.filled().len();
        if wire.heard.abuse().is_some() {
            return wire.refuse();
        }
        let left = &wire.prefix[wire.given..];
        if left.is_empty() {
            let (mut read, _write) = wire.io.split();
            ready!(read.poll_read_buf(cx, buffer))?;
            wire.heard.note();
        } else {
            let count = left.len().min(buffer.remaining());
            buffer.put_slice(&left[..count]);
            wire.given += count;
            if wire.given == wire.prefix.len() {
                wire.prefix = Vec::new();
                wire.given = 0;
            }
        }
        if !wire
            .heard
            .walk(&mut wire.frames, &buffer.filled()[before..])
        {
            buffer.set_filled(before);
            return wire.refuse();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wire = &mut *self;
        let (_read, mut write) = wire.io.split();
        let written = write.poll_write(cx, parts);
        let count = match written {
            Poll::Ready(Ok(count)) => count,
            Poll::Ready(Err(_)) | Poll::Pending => 0,
        };
        wire.heard.note_write(&written, count);
        if count > 0 {
            wire.wrote(parts, count);
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wire = &mut *self;
        let (_read, mut write) = wire.io.split();
        let flushed = write.poll_flush(cx);
        wire.heard.note_write(&flushed, 0);
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wire = &mut *self;
        let (mut read, mut write) = wire.io.split();
        if wire.heard.parted.get().is_none() {
            ready!(write.poll_shutdown(cx))?;
            wire.heard.parted.set(Some(wire.heard.clock.now()));
        }
        let mut unwanted = [0; 4096];
        while wire.discard > 0 {
            match ready!(read.poll_read(cx, &mut unwanted)) {
                Ok(0) | Err(_) => break,
                Ok(count) => wire.discard = wire.discard.saturating_sub(count),
            }
        }
        Poll::Ready(Ok(()))
    }
}
