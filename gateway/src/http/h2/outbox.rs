//! Bytes that one connection holds for its peer: taken from the other side, not written yet.
//!
//! A stream takes no more than it may hold. Most of that comes out of a store that all streams of the
//! connection share; when it is used up, each may still hold a little, one piece after the other: a
//! peer that lets some of its streams wait does not stop the others.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};

use super::SEND_BUFFER;
use super::wire::Heard;

/// Most bytes held on one connection.
const ALL: usize = 1024 * 1024;

/// Of those, what all streams share.
const SHARED: usize = 640 * 1024;

/// Most bytes one stream may hold without a part of what is shared.
const LEAST_MAX: usize = 4 * 1024;

/// Taking less than this is worth waiting for what is held to go.
const WORTH: usize = 16 * 1024;

/// One connection's.
#[derive(Debug)]
pub struct Outbox {
    heard: Rc<Heard>,
    /// Bytes held.
    held: Cell<usize>,
    /// What each stream may hold in any case.
    least: usize,
}

impl Outbox {
    /// `streams`: most of them at a time.
    #[must_use]
    pub fn new(heard: &Rc<Heard>, streams: usize) -> Rc<Outbox> {
        Rc::new(Outbox {
            heard: heard.clone(),
            held: Cell::new(0),
            least: ((ALL - SHARED) / streams.max(1)).clamp(1, LEAST_MAX),
        })
    }

    /// One more stream's part.
    #[must_use]
    pub fn part(self: &Rc<Self>) -> Rc<Part> {
        Rc::new(Part {
            outbox: self.clone(),
            held: Cell::new(0),
            waiting: RefCell::new(None),
        })
    }

    /// What is known of the peer.
    #[must_use]
    pub fn heard(&self) -> &Heard {
        &self.heard
    }
}

/// What one stream holds.
#[derive(Debug)]
pub struct Part {
    outbox: Rc<Outbox>,
    held: Cell<usize>,
    /// Told when some of it went.
    waiting: RefCell<Option<Waker>>,
}

impl Part {
    /// How much of `wanted` it may take now: something, or it waits until more of what it holds has
    /// gone.
    pub fn poll_room(&self, cx: &mut Context<'_>, wanted: usize) -> Poll<usize> {
        let held = self.held.get();
        let shared = SHARED.saturating_sub(self.outbox.held.get());
        let room = SEND_BUFFER.saturating_sub(held).min(shared).min(wanted);
        if room >= wanted.min(WORTH) {
            return Poll::Ready(room);
        }
        if held == 0 {
            return Poll::Ready(room.max(self.outbox.least.min(wanted)));
        }
        *self.waiting.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }

    /// It has taken some.
    pub fn take(&self, bytes: usize) {
        self.held.set(self.held.get() + bytes);
        self.outbox.held.set(self.outbox.held.get() + bytes);
    }

    /// Some of it was written, or will never be.
    pub fn free(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.held.set(self.held.get() - bytes);
        self.outbox.held.set(self.outbox.held.get() - bytes);
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }
}

/// Bytes on their way through the connection. They are held until they are written, or dropped
/// because their stream was reset.
#[derive(Debug)]
pub struct Parcel {
    bytes: Bytes,
    part: Option<Rc<Part>>,
}

impl Parcel {
    /// `bytes`: [taken](Part::take) before.
    #[must_use]
    pub fn new(bytes: Bytes, part: &Rc<Part>) -> Parcel {
        Parcel {
            bytes,
            part: Some(part.clone()),
        }
    }

    #[must_use]
    pub fn empty() -> Parcel {
        Parcel {
            bytes: Bytes::new(),
            part: None,
        }
    }

    fn free(&self, bytes: usize) {
        if let Some(part) = &self.part {
            part.free(bytes);
        }
    }
}

impl Buf for Parcel {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        self.free(count);
    }
}

impl Drop for Parcel {
    fn drop(&mut self) {
        self.free(self.bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use activator::admission::Clock;

    use super::super::budget::Peer;
    use super::*;

    fn outbox(streams: usize) -> Rc<Outbox> {
        let clock = Clock::new(Instant::now());
        Outbox::new(&Heard::new(Peer::Client, &clock), streams)
    }

    /// What it may take now of as much as it can get.
    fn room(part: &Part) -> Option<usize> {
        let mut cx = Context::from_waker(Waker::noop());
        match part.poll_room(&mut cx, usize::MAX) {
            Poll::Ready(room) => Some(room),
            Poll::Pending => None,
        }
    }

    fn parcel(part: &Rc<Part>, size: usize) -> Parcel {
        part.take(size);
        Parcel::new(vec![0; size].into(), part)
    }

    #[test]
    fn a_stream_holds_no_more_than_its_buffer() {
        let part = outbox(100).part();
        assert_eq!(room(&part), Some(SEND_BUFFER));
        let mut parcel = parcel(&part, SEND_BUFFER - WORTH + 1);
        assert_eq!(room(&part), None);
        parcel.advance(1);
        assert_eq!(room(&part), Some(WORTH));
        drop(parcel);
        assert_eq!(room(&part), Some(SEND_BUFFER));
    }

    #[test]
    fn all_streams_together_hold_no_more_than_the_connection_may() {
        for streams in [1, 100, 1000] {
            let outbox = outbox(streams);
            let mut parts = Vec::new();
            for _ in 0..streams {
                let part = outbox.part();
                let mut parcels = Vec::new();
                while let Some(room) = room(&part) {
                    assert!(room > 0);
                    parcels.push(parcel(&part, room));
                }
                parts.push((part, parcels));
            }
            assert!(outbox.held.get() <= ALL, "{streams}: {}", outbox.held.get());
            drop(parts);
            assert_eq!(outbox.held.get(), 0);
        }
    }

    #[test]
    fn streams_that_wait_do_not_stop_another() {
        let outbox = outbox(100);
        let waiting: Vec<_> = (0..99).map(|_| outbox.part()).collect();
        let kept: Vec<_> = waiting
            .iter()
            .map(|part| parcel(part, room(part).unwrap()))
            .collect();
        let part = outbox.part();
        for _ in 0..10 {
            let parcel = parcel(&part, room(&part).unwrap());
            assert_eq!(room(&part), None, "one piece after the other");
            drop(parcel);
        }
        drop(kept);
        assert_eq!(room(&part), Some(SEND_BUFFER));
    }

    #[test]
    fn who_waits_is_told_when_something_went() {
        let part = outbox(1).part();
        let mut parcel = parcel(&part, SEND_BUFFER);
        let woken = std::sync::Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        let mut cx = Context::from_waker(&waker);
        assert!(part.poll_room(&mut cx, 1).is_pending());
        parcel.advance(1);
        assert!(woken.0.load(std::sync::atomic::Ordering::SeqCst));
    }

    #[derive(Default)]
    struct Woken(std::sync::atomic::AtomicBool);

    impl std::task::Wake for Woken {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.store(true, std::sync::atomic::Ordering::SeqCst);
        }
    }
}
