//! A connection to an HTTP/2 endpoint, shared by the streams of one worker.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use activator::admission::Clock;
use h2::client::{Builder, Connection, SendRequest};
use tokio::sync::Notify;

use super::budget::Peer;
use super::outbox::{Outbox, Parcel};
use super::pings::Pings;
use super::quota::Quota;
use super::wire::{Heard, Wire};
use super::{HEADER_LIST, SEND_BUFFER, SMALL_DATA, STREAM_WINDOW, failure};
use crate::http::message::StreamError;
use crate::serve::io::Io;
use crate::serve::timers::Timer;
use crate::serve::tls::endpoint::Dialer;
use crate::serve::worker::Worker;

/// Most streams at a time; an endpoint may allow fewer.
pub const STREAMS_MAX: u32 = 100;

/// Every stream may fill its window: a client that reads slowly holds up nobody else.
const CONNECTION_WINDOW: u32 = STREAMS_MAX * STREAM_WINDOW;

/// Streams after which a connection is replaced, long before its ids run out (RFC 9113 §5.1.1).
const STREAMS_ALL: u32 = 1 << 20;

/// An endpoint that is silent for so long while it owes an answer is asked whether it is there.
/// More often than once in five minutes gRPC servers take for an attack.
const PING_AFTER: Duration = Duration::from_secs(330);

/// A connection to an endpoint. Dropping the last handle ends it, once its streams are over.
#[derive(Debug)]
pub struct Link {
    requests: RefCell<SendRequest<Parcel>>,
    clock: Rc<Clock>,
    /// Who opened it; `None` = in clear.
    dialer: Option<Arc<Dialer>>,
    /// Streams in use.
    streams: Cell<usize>,
    /// Streams begun on it.
    begun: Cell<u32>,
    /// It takes no more streams.
    gone: Cell<bool>,
    used: Cell<Instant>,
    heard: Rc<Heard>,
    outbox: Rc<Outbox>,
    quota: Rc<Quota>,
    /// Told when it was first heard, or has ended.
    settled: Notify,
}

impl Link {
    /// Begins HTTP/2 on a new connection and waits for the endpoint's settings, which say how many
    /// streams it takes at a time; `quota` is its endpoint's. It is driven by a task of its own.
    ///
    /// # Errors
    /// The connection failed, or is no HTTP/2.
    ///
    /// # Cancel safety
    /// The connection is closed.
    pub async fn open(
        io: Io,
        clock: &Rc<Clock>,
        timer: Timer,
        quota: &Rc<Quota>,
    ) -> Result<Rc<Link>, StreamError> {
        let dialer = io.dialer().cloned();
        let heard = Heard::new(Peer::Endpoint, clock);
        let wire = Wire::opened(io, heard.clone());
        let header_list = u32::try_from(HEADER_LIST).unwrap_or(u32::MAX);
        let (requests, mut connection) = Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(header_list)
            .max_send_buffer_size(SEND_BUFFER)
            .data_frame_budget(SMALL_DATA)
            .initial_max_send_streams(STREAMS_MAX as usize)
            .enable_push(false)
            .handshake(wire)
            .await
            .map_err(failure)?;
        let pings = Pings::new(connection.ping_pong(), heard.clone(), PING_AFTER);
        let link = Rc::new(Link {
            requests: RefCell::new(requests),
            clock: clock.clone(),
            dialer,
            streams: Cell::new(0),
            begun: Cell::new(0),
            gone: Cell::new(false),
            used: Cell::new(clock.now()),
            outbox: Outbox::new(&heard, STREAMS_MAX as usize),
            heard,
            quota: quota.clone(),
            settled: Notify::new(),
        });
        let driven = drive(
            connection,
            Rc::downgrade(&link),
            pings,
            clock.clone(),
            timer,
        );
        tokio::task::spawn_local(driven);
        link.settled.notified().await;
        if link.is_gone() {
            return Err(StreamError::Closed);
        }
        Ok(link)
    }

    /// A stream's place on it, if it can carry one more.
    #[must_use]
    pub fn lease(self: &Rc<Link>) -> Option<Lease> {
        if self.is_gone() {
            return None;
        }
        let most = self.requests.borrow().current_max_send_streams();
        if self.streams.get() >= most.min(STREAMS_MAX as usize)
            || !self.is_ready()
            || !self.quota.allows(self.begun.get())
        {
            return None;
        }
        self.streams.set(self.streams.get() + 1);
        self.begun.set(self.begun.get() + 1);
        Some(Lease {
            link: self.clone(),
            number: self.begun.get(),
            requests: self.requests.clone(),
        })
    }

    /// Whether another stream could begin, as far as is known now: the endpoint may just have left.
    fn is_ready(&self) -> bool {
        let mut requests = self.requests.borrow_mut();
        let ready = requests.poll_ready(&mut Context::from_waker(Waker::noop()));
        if matches!(ready, Poll::Ready(Err(_))) {
            self.gone.set(true);
        }
        !self.is_gone() && ready.is_ready()
    }

    /// Whether it will carry no more streams.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.gone.get() || self.begun.get() >= STREAMS_ALL
    }

    /// Whether it was opened by this dialer, or in clear for `None`.
    #[must_use]
    pub fn is_of(&self, dialer: Option<&Arc<Dialer>>) -> bool {
        Dialer::is_same(self.dialer.as_ref(), dialer)
    }

    /// Since when no stream has used it.
    #[must_use]
    pub fn unused_since(&self) -> Option<Instant> {
        (self.streams.get() == 0).then(|| self.used.get())
    }
}

/// The right to one stream on a connection.
#[derive(Debug)]
pub struct Lease {
    link: Rc<Link>,
    /// Of the streams begun on the connection, the first being 1.
    number: u32,
    pub(super) requests: RefCell<SendRequest<Parcel>>,
}

impl Lease {
    /// What `:scheme` says.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.link.dialer.is_some()
    }

    /// Streams begun on the connection, this one included.
    #[must_use]
    pub fn exchanges(&self) -> u32 {
        self.link.begun.get()
    }

    /// The connection takes no more streams.
    pub fn give_up(&self) {
        self.link.gone.set(true);
    }

    /// The answer to it began.
    pub(super) fn answered(&self) {
        let link = &self.link;
        // Whoever has left by then keeps to what it takes.
        if !link.quota.allows(self.number) && link.is_ready() {
            link.quota.grow();
        }
    }

    /// The endpoint leaves, and has said that it processes neither the stream of that id nor later ones.
    pub(super) fn left_out(&self, id: u32) {
        // Ours are the odd ones (RFC 9113 §5.1.1).
        self.link.quota.left(id / 2);
    }

    /// Where bodies wait to be written.
    pub(super) fn outbox(&self) -> &Rc<Outbox> {
        &self.link.outbox
    }

    /// When the endpoint last said anything on the connection.
    #[must_use]
    pub fn heard_at(&self) -> Instant {
        self.link.heard.at()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.link.streams.set(self.link.streams.get() - 1);
        self.link.used.set(self.link.clock.now());
    }
}

/// Moves the connection's frames until it ends.
async fn drive(
    connection: Connection<Wire, Parcel>,
    link: Weak<Link>,
    mut pings: Pings,
    clock: Rc<Clock>,
    timer: Timer,
) {
    let mut connection = pin!(connection);
    let ended = poll_fn(|cx| {
        clock.set(Worker::now());
        poll_driven(connection.as_mut(), &link, &mut pings, &clock, &timer, cx)
    });
    match ended.await {
        Ok(()) => tracing::trace!("connection to an endpoint ended"),
        Err(error) => tracing::debug!(%error, "connection to an endpoint failed"),
    }
    if let Some(link) = link.upgrade() {
        link.gone.set(true);
        link.settled.notify_one();
    }
}

fn poll_driven(
    mut connection: Pin<&mut Connection<Wire, Parcel>>,
    link: &Weak<Link>,
    pings: &mut Pings,
    clock: &Clock,
    timer: &Timer,
    cx: &mut Context<'_>,
) -> Poll<Result<(), StreamError>> {
    loop {
        if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
            return Poll::Ready(ended.map_err(failure));
        }
        let link = link.upgrade();
        if let Some(link) = link.as_ref().filter(|link| link.heard.ever()) {
            // Its first frame, the settings, was among what has just been taken in (RFC 9113 §3.4).
            link.settled.notify_one();
        }
        if link.is_none_or(|link| link.streams.get() == 0) {
            // The next stream wakes us.
            timer.set(None);
            return Poll::Pending;
        }
        let Some(at) = pings.poll(cx, clock.now()) else {
            return Poll::Ready(Err(StreamError::Closed));
        };
        timer.set(Some(tokio::time::Instant::from_std(at)));
        if timer.poll_fired(cx).is_pending() {
            return Poll::Pending;
        }
    }
}
