//! One request of an HTTP/2 client, as the exchange sees it.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{FlowControl, RecvStream};

use super::inbound::Inbound;
use super::outbound::Outbound;
use super::{failure, heads};
use crate::http::message::{
    Departure, Downstream, Filled, Length, RequestHead, Responder, ResponseHead, Sink, Source,
    StreamError, Trailers,
};
use crate::http::pace::Pace;

/// The client's side of one exchange.
#[derive(Debug)]
pub struct Stream {
    inbound: Inbound,
    outbound: RefCell<Answer>,
    crowd: Rc<Crowd>,
    /// While the request is held.
    place: Option<Rc<Place>>,
}

/// How far the answer has come.
#[derive(Debug)]
enum Answer {
    Due(SendResponse<Bytes>),
    Begun(Outbound),
}

impl Stream {
    /// `body_bytes`: most bytes of the request's body.
    #[must_use]
    pub fn new(
        request: &RequestHead,
        body: RecvStream,
        respond: SendResponse<Bytes>,
        body_bytes: u64,
        crowd: &Rc<Crowd>,
    ) -> Stream {
        let mut inbound = Inbound::new(body, body_bytes);
        if request.wants_websocket {
            inbound.await_tunnel();
        }
        Stream {
            inbound,
            outbound: RefCell::new(Answer::Due(respond)),
            crowd: crowd.clone(),
            place: None,
        }
    }

    /// The exchange is over: what was not said whole is said to be broken.
    pub fn end(self) {
        let evicted = self.place.is_some_and(|place| place.told.get());
        match self.outbound.into_inner() {
            // Nothing of it was processed (RFC 9113 §8.7).
            Answer::Due(mut respond) if evicted => respond.send_reset(h2::Reason::REFUSED_STREAM),
            Answer::Due(mut respond) => respond.send_reset(h2::Reason::INTERNAL_ERROR),
            Answer::Begun(mut outbound) if !outbound.is_over() => {
                outbound.reset(h2::Reason::INTERNAL_ERROR);
            }
            // Dropped: a body that nobody wants is told so once the answer is out (§8.1).
            Answer::Begun(_) => {}
        }
    }
}

impl Downstream for Stream {
    type Source<'a>
        = StreamReader<'a>
    where
        Self: 'a;
    type Sink<'a>
        = StreamWriter<'a>
    where
        Self: 'a;

    fn split<'a>(&'a mut self, pace: &'a Pace) -> (StreamReader<'a>, StreamWriter<'a>) {
        let reader = StreamReader {
            inbound: &mut self.inbound,
            outbound: &self.outbound,
            place: self.place.as_deref(),
            pace,
        };
        let writer = StreamWriter {
            outbound: &self.outbound,
            pace,
        };
        (reader, writer)
    }

    fn rest(&mut self) {
        let place = self.crowd.join(self.inbound.flow_control());
        self.place = Some(place);
    }

    fn wake(&mut self) {
        if let Some(place) = &self.place {
            self.crowd.leave(place);
            // One that was let in before it heard that it must go stays.
            if !place.told.get() {
                self.place = None;
            }
        }
    }

    fn body_here(&mut self, pace: &Pace) -> Option<u64> {
        self.inbound.gather(super::KEEP_MAX, pace);
        self.inbound.whole().map(|bytes| bytes as u64)
    }

    fn keep_body(&mut self, pace: &Pace) -> bool {
        self.inbound.gather(super::KEEP_MAX, pace);
        self.inbound.keep();
        self.inbound.whole().is_some()
    }

    fn rewind_body(&mut self) -> bool {
        self.inbound.rewind()
    }

    fn forget_body(&mut self) {
        self.inbound.forget();
    }

    fn received_all(&self) -> bool {
        self.inbound.is_over()
    }

    fn may_answer(&self) -> bool {
        matches!(*self.outbound.borrow(), Answer::Due(_))
    }

    fn closes(&mut self) {
        // What is left unsaid is seen at the end.
    }
}

/// Reads the request's body.
#[derive(Debug)]
pub struct StreamReader<'a> {
    inbound: &'a mut Inbound,
    outbound: &'a RefCell<Answer>,
    place: Option<&'a Place>,
    pace: &'a Pace,
}

impl StreamReader<'_> {
    fn poll_departed(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<Departure> {
        while self.inbound.held() < max {
            match self.inbound.poll_more(cx, self.pace) {
                Poll::Ready(Ok(Filled::Data)) => {}
                // Whoever reads the body hears of it.
                Poll::Ready(Ok(Filled::End) | Err(StreamError::TooLarge)) | Poll::Pending => break,
                Poll::Ready(Err(_)) => return Poll::Ready(Departure::Left),
            }
        }
        self.inbound.release_all();
        if self.place.is_some_and(|place| place.poll_evicted(cx)) {
            return Poll::Ready(Departure::Evicted);
        }
        self.poll_reset(cx).map(|()| Departure::Left)
    }

    fn poll_reset(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut *self.outbound.borrow_mut() {
            Answer::Due(respond) => respond.poll_reset(cx).map(|_either_way_gone| ()),
            Answer::Begun(outbound) => outbound.poll_reset(cx),
        }
    }
}

impl Source for StreamReader<'_> {
    async fn fill(&mut self) -> Result<Filled, StreamError> {
        poll_fn(|cx| self.inbound.poll_fill(cx, self.pace)).await
    }

    fn data(&self) -> &[u8] {
        self.inbound.data()
    }

    fn consume(&mut self, count: usize) {
        self.inbound.consume(count, self.pace);
    }

    fn is_ready(&mut self) -> bool {
        self.inbound.is_ready(self.pace)
    }

    fn trailers(&self) -> Option<&Trailers> {
        self.inbound.trailers()
    }

    async fn departed(&mut self, max: usize) -> Departure {
        poll_fn(|cx| self.poll_departed(cx, max)).await
    }

    fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_reset(cx)
    }

    fn begin_tunnel(&mut self) {
        self.inbound.begin_tunnel();
    }
}

/// Writes the answer.
#[derive(Debug)]
pub struct StreamWriter<'a> {
    outbound: &'a RefCell<Answer>,
    pace: &'a Pace,
}

impl StreamWriter<'_> {
    async fn with_body(
        &mut self,
        mut poll: impl FnMut(&mut Outbound, &mut Context<'_>, &Pace) -> Poll<Result<(), StreamError>>,
    ) -> Result<(), StreamError> {
        poll_fn(|cx| match &mut *self.outbound.borrow_mut() {
            Answer::Begun(outbound) => poll(outbound, cx, self.pace),
            Answer::Due(_) => Poll::Ready(Err(StreamError::Closed)),
        })
        .await
    }

    /// Sends a head that a body or a tunnel may follow. If that fails the stream has ended, which
    /// whoever writes or flushes hears.
    fn begin(&mut self, response: &ResponseHead, added: &[u8]) {
        let ended =
            response.status != 101 && matches!(response.length, Length::None | Length::Exactly(0));
        let mut answer = self.outbound.borrow_mut();
        let Answer::Due(respond) = &mut *answer else {
            return;
        };
        let sent = heads::write_response(response, added)
            .and_then(|head| respond.send_response(head, ended).map_err(failure));
        match sent {
            Ok(stream) => {
                self.pace
                    .write_moved(response.head.bytes.len() + added.len());
                *answer = Answer::Begun(Outbound::new(stream, response.length, ended));
            }
            Err(error) => tracing::debug!(%error, "the client's stream has ended"),
        }
    }
}

impl Sink for StreamWriter<'_> {
    async fn write(&mut self, data: &[u8]) -> Result<(), StreamError> {
        self.with_body(|body, cx, pace| body.poll_write(cx, data, pace))
            .await
    }

    async fn flush(&mut self) -> Result<(), StreamError> {
        poll_fn(|cx| match &mut *self.outbound.borrow_mut() {
            Answer::Begun(outbound) => outbound.poll_flush(cx, self.pace),
            // Interim answers are with the connection at once.
            Answer::Due(_) => Poll::Ready(Ok(())),
        })
        .await
    }

    async fn finish(&mut self, trailers: Option<&Trailers>) -> Result<(), StreamError> {
        self.with_body(|body, cx, pace| body.poll_finish(cx, trailers, pace))
            .await
    }

    fn begin_tunnel(&mut self) {
        if let Answer::Begun(outbound) = &mut *self.outbound.borrow_mut() {
            outbound.begin_tunnel();
        }
    }
}

impl Responder for StreamWriter<'_> {
    fn interim(&mut self, response: &ResponseHead, added: &[u8]) {
        if response.status == 101 {
            self.begin(response, added);
            return;
        }
        let mut answer = self.outbound.borrow_mut();
        let Answer::Due(respond) = &mut *answer else {
            return;
        };
        let sent = heads::write_response(response, added)
            .and_then(|head| respond.send_informational(head).map_err(failure));
        if let Err(error) = sent {
            tracing::debug!(%error, "an interim answer was lost");
        }
    }

    fn respond(&mut self, response: &ResponseHead, added: &[u8], _last: bool) {
        self.begin(response, added);
    }
}

/// The held requests of one connection. What their clients have sent and nobody reads takes up the
/// window that all its streams share.
#[derive(Debug, Default)]
pub struct Crowd {
    /// Oldest first; as many as the connection has streams, at most.
    places: RefCell<Vec<Rc<Place>>>,
}

/// One held request.
#[derive(Debug)]
struct Place {
    flow: FlowControl,
    evicted: Cell<bool>,
    /// The exchange knows that it was evicted.
    told: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Place {
    fn poll_evicted(&self, cx: &mut Context<'_>) -> bool {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|it| it.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        self.told.set(self.evicted.get());
        self.told.get()
    }
}

impl Crowd {
    fn join(&self, flow: FlowControl) -> Rc<Place> {
        let place = Rc::new(Place {
            flow,
            evicted: Cell::new(false),
            told: Cell::new(false),
            waker: RefCell::new(None),
        });
        self.places.borrow_mut().push(place.clone());
        place
    }

    fn leave(&self, place: &Rc<Place>) {
        self.places.borrow_mut().retain(|it| !Rc::ptr_eq(it, place));
    }

    /// While held requests pin more than half of a window of this size, the newest with unread
    /// bytes must go.
    pub fn relieve(&self, window: usize) {
        let places = self.places.borrow();
        if places.is_empty() {
            return;
        }
        let staying = places.iter().rev().filter(|place| !place.evicted.get());
        let pinned: Vec<_> = staying
            .map(|place| (place, place.flow.used_capacity()))
            .collect();
        let mut sum: usize = pinned.iter().map(|(_, bytes)| bytes).sum();
        for (place, bytes) in pinned {
            if sum <= window / 2 {
                return;
            }
            if bytes > 0 {
                place.evicted.set(true);
                sum -= bytes;
                if let Some(waker) = place.waker.take() {
                    waker.wake();
                }
            }
        }
    }
}
