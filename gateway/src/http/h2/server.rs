//! One request of an HTTP/2 client, as the exchange sees it.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use h2::server::SendResponse;
use h2::{FlowControl, RecvStream};

use super::inbound::Inbound;
use super::outbound::Outbound;
use super::outbox::{Outbox, Parcel};
use super::{failure, heads};
use crate::http::message::{
    Departure, Downstream, Filled, RequestHead, Responder, ResponseHead, Sink, Source, StreamError,
    Trailers,
};
use crate::http::pace::Pace;

/// The client's side of one exchange.
#[derive(Debug)]
pub struct Stream {
    inbound: Inbound,
    outbound: RefCell<Answer>,
    outbox: Rc<Outbox>,
    seat: Option<Seat>,
}

/// How far the answer has come.
#[derive(Debug)]
enum Answer {
    Due(SendResponse<Parcel>),
    Begun(Outbound),
}

impl Stream {
    /// `body_bytes`: most bytes of the request's body.
    #[must_use]
    pub fn new(
        request: &RequestHead,
        body: RecvStream,
        respond: SendResponse<Parcel>,
        body_bytes: u64,
        crowd: &Rc<Crowd>,
    ) -> Stream {
        let mut inbound = Inbound::new(body, body_bytes);
        let seat = (!inbound.is_over()).then(|| crowd.join(inbound.flow_control()));
        if request.wants_websocket {
            inbound.await_tunnel();
        }
        Stream {
            inbound,
            outbound: RefCell::new(Answer::Due(respond)),
            outbox: crowd.outbox.clone(),
            seat,
        }
    }

    /// The exchange is over: what was not said whole is said to be broken.
    pub fn end(self) {
        let evicted = self.seat.is_some_and(|seat| seat.place.told.get());
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
            seat: self.seat.as_ref(),
            pace,
        };
        let writer = StreamWriter {
            outbound: &self.outbound,
            outbox: &self.outbox,
            pace,
        };
        (reader, writer)
    }

    fn rest(&mut self) {
        if let Some(seat) = &self.seat {
            seat.place.evicted.set(false);
            seat.place.held.set(true);
        }
    }

    fn wake(&mut self) {
        if let Some(seat) = &self.seat {
            // One that was let in before it heard that it must go stays.
            seat.place.held.set(false);
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
    seat: Option<&'a Seat>,
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
        if self.seat.is_some_and(|seat| seat.place.poll_evicted(cx)) {
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
        poll_fn(|cx| {
            let filled = self.inbound.poll_fill(cx, self.pace);
            if filled.is_pending() && self.seat.is_some_and(|seat| seat.crowd.is_full()) {
                self.pace.read_waits_for_us();
            }
            filled
        })
        .await
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
    outbox: &'a Rc<Outbox>,
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
        let ended = response.status != 101 && response.length.is_zero();
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
                let body = Outbound::new(stream, response.length, ended, self.outbox);
                *answer = Answer::Begun(body);
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

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        match &mut *self.outbound.borrow_mut() {
            Answer::Begun(outbound) => outbound.poll_room(cx, self.pace),
            Answer::Due(_) => Poll::Ready(usize::MAX),
        }
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

/// The requests of one connection. What their client has sent of bodies and nobody has read takes up
/// the window that all its streams share.
#[derive(Debug)]
pub struct Crowd {
    outbox: Rc<Outbox>,
    /// Bytes of the window.
    window: usize,
    /// Of those that have a body. Oldest first; as many as the connection has streams, at most.
    places: RefCell<Vec<Rc<Place>>>,
}

/// One request in the crowd.
#[derive(Debug)]
struct Place {
    flow: FlowControl,
    /// It waits for its turn.
    held: Cell<bool>,
    evicted: Cell<bool>,
    /// The exchange knows that it was evicted.
    told: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// A place in the crowd, until it is dropped.
#[derive(Debug)]
struct Seat {
    crowd: Rc<Crowd>,
    place: Rc<Place>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut places = self.crowd.places.borrow_mut();
        places.retain(|place| !Rc::ptr_eq(place, &self.place));
    }
}

impl Place {
    fn poll_evicted(&self, cx: &mut Context<'_>) -> bool {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|it| it.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        if self.held.get() {
            self.told.set(self.evicted.get());
        }
        self.told.get()
    }
}

impl Crowd {
    /// Nobody in it yet. `window`: bytes that all streams of the connection share; `outbox`: where
    /// answers wait to be written.
    #[must_use]
    pub fn new(window: usize, outbox: Rc<Outbox>) -> Rc<Crowd> {
        Rc::new(Crowd {
            outbox,
            window,
            places: RefCell::default(),
        })
    }

    /// A head was larger than allowed.
    pub fn large_head(&self) {
        self.outbox.heard().large_head();
    }

    fn join(self: &Rc<Self>, flow: FlowControl) -> Seat {
        let place = Rc::new(Place {
            flow,
            held: Cell::new(false),
            evicted: Cell::new(false),
            told: Cell::new(false),
            waker: RefCell::new(None),
        });
        self.places.borrow_mut().push(place.clone());
        Seat {
            crowd: self.clone(),
            place,
        }
    }

    /// Whether so much is unread that the client may have no credit: it hears of credit that goes
    /// back once it is half the window.
    fn is_full(&self) -> bool {
        let places = self.places.borrow();
        let pinned = places.iter().map(|place| place.flow.used_capacity());
        pinned.sum::<usize>() >= self.window / 2
    }

    /// While held requests pin more than half of the window, the newest with unread bytes must go.
    pub fn relieve(&self) {
        let places = self.places.borrow();
        let held = |place: &&Rc<Place>| place.held.get() && !place.evicted.get();
        if !places.iter().any(|place| held(&place)) {
            return;
        }
        let staying = places.iter().rev().filter(held);
        let pinned: Vec<_> = staying
            .map(|place| (place, place.flow.used_capacity()))
            .collect();
        let mut sum: usize = pinned.iter().map(|(_, bytes)| bytes).sum();
        for (place, bytes) in pinned {
            if sum <= self.window / 2 {
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
