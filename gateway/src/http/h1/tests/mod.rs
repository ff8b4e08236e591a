//! The codec over an in-process pipe: what it understands, whatever pieces it comes in.

mod body;
mod encode;
mod index;
mod request;
mod response;
mod soup;
mod writer;

use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use activator::admission::Clock;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use super::client::Endpoint;
use super::connection::{Connection, ReadLimits};
use super::{HeadLimits, Parsed, request as parser};
use crate::http::message::{RequestHead, StreamError};
use crate::http::pace::Pace;
use crate::refusal::Reason;
use crate::serve::buffers::Buffers;
use crate::serve::io::Io;

/// Small, so that tests of bounds stay readable.
const HEADS: HeadLimits = HeadLimits {
    bytes: 1024,
    fields: 8,
    target: 100,
};

const READS: ReadLimits = ReadLimits {
    trailer_bytes: 1024,
    body_bytes: u64::MAX,
};

fn pipe() -> (Connection, DuplexStream) {
    narrow_pipe(1 << 20)
}

/// A pipe that holds at most `capacity` bytes each way.
fn narrow_pipe(capacity: usize) -> (Connection, DuplexStream) {
    let (io, theirs) = Io::memory(capacity);
    let buffers = Buffers::new();
    (Connection::new(io, &buffers), theirs)
}

fn endpoint() -> (Endpoint, DuplexStream) {
    let (connection, theirs) = pipe();
    let endpoint = Endpoint {
        connection: Box::new(connection),
        heads: HEADS,
        limits: READS,
    };
    (endpoint, theirs)
}

fn pace() -> Pace {
    let clock: Rc<Clock> = Clock::new(Instant::now());
    Pace::new(&clock)
}

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// The future's result; it must not have to wait.
fn now<F: Future>(future: F) -> F::Output {
    match poll(pin!(future)) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it waits"),
    }
}

/// The peer sends these bytes.
fn say(theirs: &mut DuplexStream, mut bytes: &[u8]) {
    let mut context = Context::from_waker(Waker::noop());
    while !bytes.is_empty() {
        match Pin::new(&mut *theirs).poll_write(&mut context, bytes) {
            Poll::Ready(Ok(count)) => bytes = &bytes[count..],
            other => panic!("the pipe takes no more: {other:?}"),
        }
    }
}

/// What has come to the peer.
fn heard(theirs: &mut DuplexStream) -> Vec<u8> {
    let mut context = Context::from_waker(Waker::noop());
    let mut all = Vec::new();
    loop {
        let mut storage = [0; 4096];
        let mut target = ReadBuf::new(&mut storage);
        match Pin::new(&mut *theirs).poll_read(&mut context, &mut target) {
            Poll::Ready(Ok(())) if !target.filled().is_empty() => {
                all.extend_from_slice(target.filled());
            }
            _ => return all,
        }
    }
}

/// The head in these bytes.
fn parsed(head: &[u8]) -> RequestHead {
    let mut out = RequestHead::default();
    assert_eq!(
        parser::parse(head, &HEADS, &mut out),
        Ok(Parsed::Head(head.len())),
        "{}",
        head.escape_ascii()
    );
    out
}

/// Every way to cut `bytes` in two, and every byte alone.
fn cuts(bytes: &[u8]) -> Vec<Vec<&[u8]>> {
    let mut ways: Vec<Vec<&[u8]>> = (1..bytes.len())
        .map(|at| vec![&bytes[..at], &bytes[at..]])
        .collect();
    ways.push(bytes.chunks(1).collect());
    ways
}

/// What came of reading a head.
#[derive(Debug)]
enum Heard {
    Head(RequestHead),
    Refused(Reason),
    /// It would wait for more.
    Waits,
}

enum HeadError {
    Refused(Reason),
    Stream(StreamError),
}

impl From<StreamError> for HeadError {
    fn from(error: StreamError) -> Self {
        HeadError::Stream(error)
    }
}

/// Reads one request head from a connection on which these pieces arrive one after the other.
fn hear(pieces: &[&[u8]]) -> Heard {
    let (mut connection, mut theirs) = pipe();
    let pace = pace();
    let (mut reader, _writer) = connection.split(&pace, READS);
    let mut head = RequestHead::default();
    let parse = |bytes: &[u8]| parser::parse(bytes, &HEADS, &mut head).map_err(HeadError::Refused);
    let result = {
        let mut reading = pin!(reader.head(HEADS.bytes, parse));
        pieces.iter().find_map(|piece| {
            say(&mut theirs, piece);
            match poll(reading.as_mut()) {
                Poll::Ready(result) => Some(result),
                Poll::Pending => None,
            }
        })
    };
    match result {
        Some(Ok(())) => Heard::Head(head),
        Some(Err(HeadError::Refused(reason))) => Heard::Refused(reason),
        // What the connection's task makes of it.
        Some(Err(HeadError::Stream(StreamError::Malformed(_)))) => {
            Heard::Refused(Reason::HeadTooLarge)
        }
        Some(Err(HeadError::Stream(error))) => panic!("{error}"),
        None => Heard::Waits,
    }
}
