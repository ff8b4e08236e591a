//! The one internal form between protocol edges: heads as bytes with an index, bodies as a source
//! and a sink. HTTP/1.1 heads come in this form; HTTP/2 converts to and from it at its own edge.

use std::io;
use std::task::{Context, Poll};

use super::field::{Head, Name, Span};
use super::pace::Pace;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    Http10,
    Http11,
    Http2,
}

/// How much body a message has, as its head says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    None,
    /// 0: no body, and no field says so (HTTP/2).
    Exactly(u64),
    /// Ends when it says so, perhaps with trailers.
    Chunked,
    /// Ends with the connection (responses only).
    UntilClose,
}

impl Length {
    /// Whether it is known that there is no body.
    #[must_use]
    pub fn is_zero(self) -> bool {
        matches!(self, Length::None | Length::Exactly(0))
    }
}

/// A request's head, checked: nothing in it can be read two ways.
#[derive(Debug)]
pub struct RequestHead {
    pub head: Head,
    pub version: Version,
    pub method: Span,
    /// Origin form as received, or cut out of the absolute form: path and query.
    pub target: Span,
    /// Authority: of the absolute form, else of `Host`; empty when there is none.
    pub host: Span,
    pub length: Length,
    /// The client wants to use the connection again.
    pub keep_alive: bool,
    pub expects_continue: bool,
    /// Asks to become a WebSocket (RFC 6455); the one upgrade that is passed on.
    pub wants_websocket: bool,
    /// `TE: trailers`.
    pub takes_trailers: bool,
}

impl Default for RequestHead {
    fn default() -> Self {
        RequestHead {
            head: Head::default(),
            version: Version::Http11,
            method: Span::default(),
            target: Span::default(),
            host: Span::default(),
            length: Length::None,
            keep_alive: true,
            expects_continue: false,
            wants_websocket: false,
            takes_trailers: false,
        }
    }
}

impl RequestHead {
    #[must_use]
    pub fn method(&self) -> &[u8] {
        self.method.of(&self.head.bytes)
    }

    #[must_use]
    pub fn target(&self) -> &[u8] {
        self.target.of(&self.head.bytes)
    }

    #[must_use]
    pub fn host(&self) -> &[u8] {
        self.host.of(&self.head.bytes)
    }

    /// The target without its query.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        let target = self.target();
        let end = memchr::memchr(b'?', target).unwrap_or(target.len());
        &target[..end]
    }

    /// RFC 9110 §9.2.2.
    #[must_use]
    pub fn is_idempotent(&self) -> bool {
        matches!(
            self.method(),
            b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE" | b"PUT" | b"DELETE"
        )
    }

    #[must_use]
    pub fn is_head(&self) -> bool {
        self.method() == b"HEAD"
    }

    /// gRPC is told by its content type, on any version.
    #[must_use]
    pub fn is_grpc(&self) -> bool {
        self.head
            .first(Name::ContentType)
            .is_some_and(|value| value.starts_with(b"application/grpc"))
    }
}

/// A response's head.
#[derive(Debug)]
pub struct ResponseHead {
    pub head: Head,
    pub version: Version,
    pub status: u16,
    /// Reason phrase as received.
    pub phrase: Span,
    pub length: Length,
    /// The endpoint lets the connection be used again.
    pub keep_alive: bool,
}

impl Default for ResponseHead {
    fn default() -> Self {
        ResponseHead {
            head: Head::default(),
            version: Version::Http11,
            status: 0,
            phrase: Span::default(),
            length: Length::None,
            keep_alive: true,
        }
    }
}

/// Trailer fields that may be passed on: lines with CRLF, no empty line.
#[derive(Debug, Default)]
pub struct Trailers {
    pub lines: Vec<u8>,
}

/// Whether a trailer field of this name may be passed on (RFC 9110 §6.5.1: none that frames, routes
/// or authenticates).
pub(super) fn may_trail(name: &[u8]) -> bool {
    const NEVER: [&str; 10] = [
        "set-cookie",
        "proxy-authorization",
        "proxy-authenticate",
        "www-authenticate",
        "cache-control",
        "max-forwards",
        "range",
        "location",
        "vary",
        "knative-serving-tag",
    ];
    let content = name
        .get(..8)
        .is_some_and(|start| start.eq_ignore_ascii_case(b"content-"));
    let known = Name::of(name);
    !content
        && matches!(known, Name::Other | Name::Date | Name::UserAgent)
        && !NEVER
            .iter()
            .any(|never| never.as_bytes().eq_ignore_ascii_case(name))
}

/// Why a stream of one side ended before its message did.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    #[error("connection failed")]
    Io(#[from] io::Error),
    #[error("connection closed in the middle of a message")]
    Closed,
    #[error("{0}")]
    Malformed(&'static str),
    #[error("the body is larger than allowed")]
    TooLarge,
    /// HTTP/2 (RFC 9113 §8.7): the peer has processed nothing of it.
    #[error("the stream was refused")]
    Refused,
    /// HTTP/2 (RFC 9113 §5.4.2): the peer has ended this stream and no other.
    #[error("the stream was reset")]
    Reset,
    /// HTTP/2 (RFC 9113 §6.8): the peer takes no more streams on this connection, this one included.
    #[error("the connection is being closed by its peer")]
    GoingAway,
}

/// What [`Source::fill`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filled {
    /// [`Source::data`] is not empty.
    Data,
    /// The body is over; trailers, if any, are known.
    End,
}

/// Why a request that waits is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Departure {
    /// The client left.
    Left,
    /// Its unread body was in the way of others on the same connection.
    Evicted,
}

/// A message being received.
pub trait Source {
    /// Waits until there is data or the body is over.
    ///
    /// # Cancel safety
    /// Nothing is lost: what was read stays buffered.
    fn fill(&mut self) -> impl Future<Output = Result<Filled, StreamError>>;
    /// From now on no more than so many bytes should be fetched at a time.
    fn limit(&mut self, _bytes: usize) {}
    /// Gives back what it does not need while nothing can be read.
    fn rest(&mut self) {}
    /// What is there. Stays until [`consume`](Source::consume).
    fn data(&self) -> &[u8];
    /// Drops the first `count` bytes of `data`; over HTTP/2 this is what returns credit.
    fn consume(&mut self, count: usize);
    /// Whether `fill` would return without waiting.
    fn is_ready(&mut self) -> bool;
    fn trailers(&self) -> Option<&Trailers>;
    /// Reads ahead until `max` bytes lie here unused, then only watches; returns when the peer has
    /// left, or must.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    fn departed(&mut self, max: usize) -> impl Future<Output = Departure>;
    /// Whether the peer is known to have left though nothing is read: for whoever cannot read on,
    /// because what was read has nowhere to go. `cx` hears of it.
    fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()>;
    /// What follows is no message but a tunnel's bytes, until the peer ends them.
    fn begin_tunnel(&mut self);
}

/// A message being sent, its head before it.
pub trait Sink {
    /// Takes all of `data`; small pieces may stay buffered until [`flush`](Sink::flush).
    ///
    /// # Cancel safety
    /// None: part of a piece may have been written. Close the stream.
    fn write(&mut self, data: &[u8]) -> impl Future<Output = Result<(), StreamError>>;
    fn flush(&mut self) -> impl Future<Output = Result<(), StreamError>>;
    /// How many bytes should be fetched for it, which is something; waits while it holds too much.
    fn poll_room(&mut self, _cx: &mut Context<'_>) -> Poll<usize> {
        Poll::Ready(usize::MAX)
    }
    /// Ends the body and flushes; a tunnel's end is the end of our side of the connection.
    fn finish(
        &mut self,
        trailers: Option<&Trailers>,
    ) -> impl Future<Output = Result<(), StreamError>>;
    /// What follows is no message but a tunnel's bytes.
    fn begin_tunnel(&mut self);
}

/// Sends responses to a client.
pub trait Responder: Sink {
    /// Buffers an interim response; one the client cannot understand is left out.
    fn interim(&mut self, response: &ResponseHead, added: &[u8]);
    /// Buffers a final response head; its body follows as `response.length` says. `added` are whole
    /// lines; `last` says that the connection ends after it.
    fn respond(&mut self, response: &ResponseHead, added: &[u8], last: bool);
}

/// Sends requests to an endpoint.
pub trait Requester: Sink {
    /// Buffers a request head; its body follows as `request.length` says.
    ///
    /// # Errors
    /// `Malformed`: the endpoint's protocol has no way to say it. `GoingAway`, `Closed`, `Io`: the
    /// connection takes no more requests; nothing was sent.
    fn request(
        &mut self,
        request: &RequestHead,
        edits: &RequestEdits<'_>,
    ) -> Result<(), StreamError>;
}

/// Receives responses from an endpoint.
pub trait Responses: Source {
    /// Waits for the next response head, interim or final, and is then ready for its body.
    ///
    /// # Errors
    /// `Closed` or `Io` before its first byte, else `Malformed`.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    fn response(
        &mut self,
        to_head: bool,
        out: &mut ResponseHead,
    ) -> impl Future<Output = Result<(), StreamError>>;
}

/// The side that asked: one request of it.
pub trait Downstream {
    type Source<'a>: Source
    where
        Self: 'a;
    type Sink<'a>: Responder
    where
        Self: 'a;

    fn split<'a>(&'a mut self, pace: &'a Pace) -> (Self::Source<'a>, Self::Sink<'a>);
    /// Gives back what is not needed while the request waits for its turn.
    fn rest(&mut self);
    /// Ends what `rest` began: there will be something to write.
    fn wake(&mut self);
    /// Bytes of the request's body, if all of it is here.
    fn body_here(&mut self, pace: &Pace) -> Option<u64>;
    /// Keeps the request's body for a second attempt if all of it is here, and perhaps if it is
    /// still to come; whether all of it is here. Until [`forget_body`](Downstream::forget_body).
    fn keep_body(&mut self, pace: &Pace) -> bool;
    /// Goes back to the beginning of the body; `false` if that cannot be, because some of it was
    /// used and it was not kept.
    fn rewind_body(&mut self) -> bool;
    /// The body is not needed again.
    fn forget_body(&mut self);
    /// The request's body was read to its end.
    fn received_all(&self) -> bool;
    /// Nothing of an answer is on its way or waits to be written.
    fn may_answer(&self) -> bool;
    /// Nothing more can be said on it: HTTP/1.1 will carry no other request on the connection,
    /// HTTP/2 resets the stream if its answer is not whole.
    fn closes(&mut self);
}

/// The side that answers, while it is lent to one exchange.
pub trait Upstream {
    type Source<'a>: Responses
    where
        Self: 'a;
    type Sink<'a>: Requester
    where
        Self: 'a;

    fn split<'a>(&'a mut self, pace: &'a Pace) -> (Self::Source<'a>, Self::Sink<'a>);
}

/// What changes in a request on its way to the endpoint.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestEdits<'a> {
    /// Takes the place of the target.
    pub target: Option<&'a [u8]>,
    /// Takes the place of the host.
    pub host: Option<&'a [u8]>,
    /// Whole lines put behind the fields.
    pub lines: &'a [u8],
}
