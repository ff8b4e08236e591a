//! One request to an HTTP/2 endpoint, as the exchange sees it.

use std::cell::RefCell;
use std::future::{Future as _, pending, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use h2::client::ResponseFuture;

use super::inbound::Inbound;
use super::link::Lease;
use super::outbound::Outbound;
use super::{failure, heads};
use crate::http::message::{
    Departure, Filled, RequestEdits, RequestHead, Requester, ResponseHead, Responses, Sink, Source,
    StreamError, Trailers, Upstream,
};
use crate::http::pace::Pace;

/// The endpoint's side of one exchange. Dropping it before both messages are over resets the
/// stream, which tells the endpoint to stop.
#[derive(Debug)]
pub struct Call {
    lease: Lease,
    outbound: Option<Outbound>,
    response: RefCell<Option<ResponseFuture>>,
    inbound: Option<Inbound>,
}

impl Call {
    #[must_use]
    pub fn new(lease: Lease) -> Call {
        Call {
            lease,
            outbound: None,
            response: RefCell::new(None),
            inbound: None,
        }
    }

    /// Streams begun on the connection, this one included.
    #[must_use]
    pub fn exchanges(&self) -> u32 {
        self.lease.exchanges()
    }

    /// Nobody should use the connection again, if nothing was heard on it since then.
    pub fn give_up_if_silent(&self, since: Instant) {
        if self.lease.heard_at() <= since {
            self.lease.give_up();
        }
    }
}

impl Upstream for Call {
    type Source<'a> = CallReader<'a>;
    type Sink<'a> = CallWriter<'a>;

    fn split<'a>(&'a mut self, pace: &'a Pace) -> (CallReader<'a>, CallWriter<'a>) {
        let reader = CallReader {
            lease: &self.lease,
            response: &self.response,
            inbound: &mut self.inbound,
            pace,
        };
        let writer = CallWriter {
            lease: &self.lease,
            outbound: &mut self.outbound,
            response: &self.response,
            pace,
        };
        (reader, writer)
    }
}

/// Reads the response.
#[derive(Debug)]
pub struct CallReader<'a> {
    lease: &'a Lease,
    response: &'a RefCell<Option<ResponseFuture>>,
    inbound: &'a mut Option<Inbound>,
    pace: &'a Pace,
}

impl CallReader<'_> {
    fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
        to_head: bool,
        out: &mut ResponseHead,
    ) -> Poll<Result<(), StreamError>> {
        let mut asked = self.response.borrow_mut();
        let Some(response) = asked.as_mut() else {
            return Poll::Ready(Err(StreamError::Closed));
        };
        if let Poll::Ready(Some(interim)) = response.poll_informational(cx) {
            let interim = interim.map_err(|error| failed(self.lease, response, error));
            let (parts, ()) = interim?.into_parts();
            let read = heads::read_response(parts.status, &parts.headers, false, to_head, out);
            self.pace.read_moved(out.head.bytes.len());
            return Poll::Ready(read);
        }
        let answer = ready!(Pin::new(&mut *response).poll(cx));
        let answer = answer.map_err(|error| failed(self.lease, response, error))?;
        self.lease.answered();
        let (parts, body) = answer.into_parts();
        let ended = body.is_end_stream();
        let read = heads::read_response(parts.status, &parts.headers, ended, to_head, out);
        self.pace.read_moved(out.head.bytes.len());
        let mut inbound = Inbound::new(body, u64::MAX);
        if to_head || matches!(out.status, 204 | 304) {
            inbound.ignore();
        }
        *self.inbound = Some(inbound);
        Poll::Ready(read)
    }
}

/// What came instead of an answer, which also tells how many the connection took.
fn failed(lease: &Lease, response: &ResponseFuture, error: h2::Error) -> StreamError {
    let error = failure(error);
    if matches!(error, StreamError::GoingAway) {
        lease.left_out(response.stream_id().as_u32());
    }
    error
}

impl Source for CallReader<'_> {
    async fn fill(&mut self) -> Result<Filled, StreamError> {
        let inbound = self.inbound.as_mut().ok_or(StreamError::Closed)?;
        poll_fn(|cx| inbound.poll_fill(cx, self.pace)).await
    }

    fn data(&self) -> &[u8] {
        self.inbound.as_ref().map_or(&[], Inbound::data)
    }

    fn consume(&mut self, count: usize) {
        if let Some(inbound) = self.inbound {
            inbound.consume(count, self.pace);
        }
    }

    fn is_ready(&mut self) -> bool {
        match self.inbound {
            Some(inbound) => inbound.is_ready(self.pace),
            None => false,
        }
    }

    fn trailers(&self) -> Option<&Trailers> {
        self.inbound.as_ref().and_then(Inbound::trailers)
    }

    async fn departed(&mut self, _max: usize) -> Departure {
        // An endpoint's departure is heard by whoever waits for its answer.
        pending().await
    }

    fn poll_gone(&self, _cx: &mut Context<'_>) -> Poll<()> {
        // What it has sent is passed on all the same.
        Poll::Pending
    }

    fn begin_tunnel(&mut self) {
        if let Some(inbound) = self.inbound {
            inbound.begin_tunnel();
        }
    }
}

impl Responses for CallReader<'_> {
    async fn response(&mut self, to_head: bool, out: &mut ResponseHead) -> Result<(), StreamError> {
        poll_fn(|cx| self.poll_response(cx, to_head, out)).await
    }
}

/// Writes the request.
#[derive(Debug)]
pub struct CallWriter<'a> {
    lease: &'a Lease,
    outbound: &'a mut Option<Outbound>,
    response: &'a RefCell<Option<ResponseFuture>>,
    pace: &'a Pace,
}

impl Sink for CallWriter<'_> {
    async fn write(&mut self, data: &[u8]) -> Result<(), StreamError> {
        let outbound = self.outbound.as_mut().ok_or(StreamError::Closed)?;
        poll_fn(|cx| outbound.poll_write(cx, data, self.pace)).await
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        match self.outbound {
            Some(outbound) => outbound.poll_room(cx, self.pace),
            None => Poll::Ready(usize::MAX),
        }
    }

    async fn flush(&mut self) -> Result<(), StreamError> {
        let outbound = self.outbound.as_mut().ok_or(StreamError::Closed)?;
        poll_fn(|cx| outbound.poll_flush(cx, self.pace)).await
    }

    async fn finish(&mut self, trailers: Option<&Trailers>) -> Result<(), StreamError> {
        let outbound = self.outbound.as_mut().ok_or(StreamError::Closed)?;
        poll_fn(|cx| outbound.poll_finish(cx, trailers, self.pace)).await
    }

    fn begin_tunnel(&mut self) {
        if let Some(outbound) = self.outbound {
            outbound.begin_tunnel();
        }
    }
}

impl Requester for CallWriter<'_> {
    fn request(
        &mut self,
        request: &RequestHead,
        edits: &RequestEdits<'_>,
    ) -> Result<(), StreamError> {
        let head = heads::write_request(request, edits, self.lease.is_secure())?;
        let ended = request.length.is_zero();
        let sent = self.lease.requests.borrow_mut().send_request(head, ended);
        let (response, stream) = sent.map_err(|error| {
            self.lease.give_up();
            match failure(error) {
                // Of earlier frames on the connection; this request is as good as it was.
                StreamError::Malformed(_) => StreamError::Closed,
                error => error,
            }
        })?;
        self.pace
            .write_moved(request.head.bytes.len() + edits.lines.len());
        *self.outbound = Some(Outbound::new(
            stream,
            request.length,
            ended,
            self.lease.outbox(),
        ));
        *self.response.borrow_mut() = Some(response);
        Ok(())
    }
}
