//! One HTTP/2 client's connection: it is driven by one task, each of its streams by one of its own.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use h2::RecvStream;
use h2::server::{Builder, Connection, SendResponse};
use http::{Request, request};

use super::connection::{DISCARD_MAX, DISCARD_TIME};
use super::drain::{IDLE_WHILE_CLOSING, Phase};
use super::io::Io;
use super::preface::PREFACE;
use super::runners::Desk;
use super::timers::Timer;
use super::worker::Worker;
use crate::exchange::{self, Client, Papers};
use crate::http::h1::HeadLimits;
use crate::http::h2::budget::{Abuse, Peer};
use crate::http::h2::outbox::{Outbox, Parcel};
use crate::http::h2::pings::Pings;
use crate::http::h2::server::{Crowd, Stream};
use crate::http::h2::wire::{Heard, Wire};
use crate::http::h2::{HEADER_LIST, SEND_BUFFER, SMALL_DATA, STREAM_WINDOW, heads};
use crate::http::message::{RequestHead, Version};
use crate::refusal::Reason;

/// Most unread bytes a client may have sent on all streams of a connection.
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// A client that is silent for so long while it waits for an answer is asked whether it is there,
/// which also keeps what is between us from forgetting the connection.
const PING_AFTER: Duration = Duration::from_secs(30);

/// Streams a client has reset that were not yet taken up (RFC 9113 §10.5).
const PENDING_RESETS_MAX: usize = 20;

/// Streams we have reset because the client broke the protocol.
const ERROR_RESETS_MAX: usize = 128;

/// Serves a client that speaks HTTP/2. `unread`: what came of it already, its preface first.
pub async fn serve(worker: &Rc<Worker>, io: Io, unread: Vec<u8>, client: Rc<Client>, timer: Timer) {
    // Boxed, each alone: what begins a connection is gone while it lies idle.
    if let Some(mut driver) = Box::pin(begin(worker, io, unread, client, &timer)).await {
        poll_fn(|cx| driver.poll(cx, &timer)).await;
    }
}

async fn begin(
    worker: &Rc<Worker>,
    io: Io,
    unread: Vec<u8>,
    client: Rc<Client>,
    timer: &Timer,
) -> Option<Box<Driver>> {
    let limits = &worker.shared.settings.limits;
    let heard = Heard::new(Peer::Client, &worker.clock);
    let wire = Wire::accepted(io, unread, PREFACE.len(), DISCARD_MAX, heard.clone());
    let header_list = u32::try_from(limits.head_bytes.min(HEADER_LIST)).unwrap_or(u32::MAX);
    let handshake = Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(header_list)
        .max_send_buffer_size(SEND_BUFFER)
        .data_frame_budget(SMALL_DATA)
        .max_concurrent_streams(limits.http2_streams)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_local_error_reset_streams(Some(ERROR_RESETS_MAX))
        .enable_connect_protocol()
        .handshake(wire);
    timer.set_idle(tokio::time::Instant::now() + limits.head_timeout);
    let mut connection = exchange::until(timer, handshake)
        .await?
        .inspect_err(|error| tracing::debug!(%error, "HTTP/2 did not begin"))
        .ok()?;
    worker.grew();
    let outbox = Outbox::new(&heard, limits.http2_streams as usize);
    Some(Box::new(Driver {
        worker: worker.clone(),
        client,
        pings: Pings::new(connection.ping_pong(), heard.clone(), PING_AFTER),
        crowd: Crowd::new(CONNECTION_WINDOW as usize, outbox),
        heard,
        connection: Some(connection),
        crew: Rc::new(Crew::new(worker)),
        begun: 0,
        told: None,
        condemned: None,
    }))
}

/// What moves a connection.
struct Driver {
    worker: Rc<Worker>,
    client: Rc<Client>,
    /// `None` once it has ended.
    connection: Option<Connection<Wire, Parcel>>,
    crew: Rc<Crew>,
    crowd: Rc<Crowd>,
    pings: Pings,
    heard: Rc<Heard>,
    /// Streams the client has opened.
    begun: u32,
    /// When the client was told to leave.
    told: Option<Instant>,
    /// When it was told to leave at once, for what it did.
    condemned: Option<Instant>,
}

impl Driver {
    /// Ready when the connection and all its streams have ended.
    fn poll(&mut self, cx: &mut Context<'_>, timer: &Timer) -> Poll<()> {
        self.worker.tick();
        self.crew.watch(cx);
        loop {
            if self.told.is_none() && self.client.is_to_leave(self.worker.clock.now()) {
                self.tell();
            }
            self.accept(cx);
            self.crowd.relieve();
            if self.connection.is_none() {
                // The streams have heard of it.
                let over = self.crew.open.get() == 0;
                return if over { Poll::Ready(()) } else { Poll::Pending };
            }
            let Some(at) = self.deadline(cx) else {
                self.connection = None;
                continue;
            };
            timer.set_idle(tokio::time::Instant::from_std(at));
            if timer.poll_fired(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Reads and writes what there is, and starts what was asked.
    fn accept(&mut self, cx: &mut Context<'_>) {
        while let Some(connection) = &mut self.connection {
            match connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => self.start(request, respond),
                Poll::Ready(Some(Err(error))) => {
                    tracing::debug!(%error, "a client's HTTP/2 connection failed");
                    self.connection = None;
                }
                Poll::Ready(None) => self.connection = None,
                Poll::Pending if self.condemned.is_some() => return,
                Poll::Pending => match self.heard.abuse() {
                    Some(abuse) => self.condemn(abuse),
                    None if self.is_parting() && self.told.is_none() => self.tell(),
                    None => return,
                },
            }
        }
    }

    /// Whether the client should leave at once; for want of memory not before it has asked anything,
    /// or it would only come again.
    fn is_parting(&self) -> bool {
        self.worker.is_closing() || self.begun > 0 && self.worker.is_parting()
    }

    /// Ends the connection for what the client did; its streams hear of it.
    fn condemn(&mut self, abuse: Abuse) {
        let client = &self.client.address;
        tracing::debug!(%client, abuse = abuse.word(), "a client is left for what it sends");
        self.worker.metrics.http2_closed(abuse);
        self.condemned = Some(self.worker.clock.now());
        if let Some(connection) = &mut self.connection {
            connection.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM);
        }
    }

    fn start(&mut self, request: Request<RecvStream>, respond: SendResponse<Parcel>) {
        self.heard.taken(respond.stream_id().as_u32());
        self.begun = self.begun.saturating_add(1);
        let most = self.worker.shared.settings.limits.requests_per_connection;
        if self.begun >= most && self.told.is_none() {
            self.tell();
        }
        let (head, body) = request.into_parts();
        let worker = self.worker.clone();
        let job = StreamJob {
            worker: worker.clone(),
            client: self.client.clone(),
            head,
            body,
            respond,
            crowd: self.crowd.clone(),
            _hand: Hand::new(&self.crew),
        };
        tokio::task::spawn_local(async move {
            let running = worker.stream_runners.run(job, |desk| {
                worker.grew();
                serve_streams(desk)
            });
            worker.ticking(running).await;
        });
    }

    /// Asks the client to open no more streams (RFC 9113 §6.8): a last one may be on its way.
    fn tell(&mut self) {
        self.told = Some(self.worker.clock.now());
        if let Some(connection) = &mut self.connection {
            connection.graceful_shutdown();
        }
    }

    /// The next instant to look again, or `None`: it is time to end.
    fn deadline(&mut self, cx: &mut Context<'_>) -> Option<Instant> {
        let now = self.worker.clock.now();
        if let Some(parted) = self.heard.parted_at() {
            let patience = if self.worker.is_closing() {
                IDLE_WHILE_CLOSING
            } else {
                DISCARD_TIME
            };
            let end = parted + patience;
            return (now < end).then_some(end);
        }
        if let Some(condemned) = self.condemned {
            let end = condemned + DISCARD_TIME;
            return (now < end).then_some(end);
        }
        let limits = &self.worker.shared.settings.limits;
        // What was written is not even taken in: nothing on it can go on.
        let stuck = self.heard.stuck_until(limits.write_stall);
        if self.worker.pressure.get().cuts(self.heard.stuck_bytes()) {
            // What the kernel keeps for it is more than any one of its streams.
            self.heard.abort();
            return None;
        }
        if stuck.is_some_and(|end| now >= end) {
            tracing::debug!(client = %self.client.address, "the client reads nothing, or too little");
            return None;
        }
        let head = self.heard.amid_since();
        let head = head.map(|since| since + limits.head_timeout);
        if head.is_some_and(|end| now >= end) {
            tracing::debug!(client = %self.client.address, "a head over HTTP/2 does not end");
            return None;
        }
        let at = if self.crew.open.get() > 0 {
            let at = self.pings.poll(cx, now);
            if at.is_none() {
                tracing::debug!(client = %self.client.address, "the client answers no ping");
            }
            at
        } else {
            self.idle_deadline(now)
        };
        let age = self.client.leaves_at.filter(|_| self.told.is_none());
        let others = [head, stuck, age].into_iter().flatten();
        at.map(|at| others.fold(at, Instant::min))
    }

    /// The same, while there is no stream.
    fn idle_deadline(&mut self, now: Instant) -> Option<Instant> {
        if self.worker.phase.get() == Phase::Ended {
            return None;
        }
        let limits = &self.worker.shared.settings.limits;
        if let Some(stuck) = self.heard.stuck_until(limits.write_stall) {
            // The last of what was answered is still here.
            return Some(stuck);
        }
        let idle = self.crew.idle_since.get().max(self.heard.freed_at());
        if let Some(told) = self.told {
            let end = told.max(idle) + self.worker.idle_while_closing.get();
            return (now < end).then_some(end);
        }
        // For want of memory who asks nothing is to leave as well, once there was time to.
        let patience = match self.worker.is_parting() {
            true => limits.http2_idle.min(limits.head_timeout),
            false => limits.http2_idle,
        };
        let end = idle + patience;
        if now < end {
            return Some(end);
        }
        self.tell();
        Some(now)
    }
}

/// The streams that are being served.
#[derive(Debug)]
struct Crew {
    worker: Rc<Worker>,
    open: Cell<usize>,
    /// Since when there was none.
    idle_since: Cell<Instant>,
    driver: RefCell<Option<Waker>>,
}

impl Crew {
    fn new(worker: &Rc<Worker>) -> Crew {
        Crew {
            worker: worker.clone(),
            open: Cell::new(0),
            idle_since: Cell::new(worker.clock.now()),
            driver: RefCell::new(None),
        }
    }

    fn watch(&self, cx: &mut Context<'_>) {
        let mut driver = self.driver.borrow_mut();
        if !driver.as_ref().is_some_and(|it| it.will_wake(cx.waker())) {
            *driver = Some(cx.waker().clone());
        }
    }
}

/// Counts a stream for as long as it is served.
#[derive(Debug)]
struct Hand(Rc<Crew>);

impl Hand {
    fn new(crew: &Rc<Crew>) -> Hand {
        crew.open.set(crew.open.get() + 1);
        Hand(crew.clone())
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        let crew = &self.0;
        crew.open.set(crew.open.get() - 1);
        if crew.open.get() == 0 {
            crew.idle_since.set(crew.worker.clock.now());
            if let Some(driver) = &*crew.driver.borrow() {
                driver.wake_by_ref();
            }
        }
    }
}

/// A request to be served.
#[derive(Debug)]
pub struct StreamJob {
    worker: Rc<Worker>,
    client: Rc<Client>,
    head: request::Parts,
    body: RecvStream,
    respond: SendResponse<Parcel>,
    crowd: Rc<Crowd>,
    _hand: Hand,
}

/// Serves one request after the other, each of another stream.
#[expect(clippy::infinite_loop, reason = "a runner is dropped; it does not end")]
async fn serve_streams(desk: Rc<Desk<StreamJob, ()>>) {
    let mut papers = Papers::default();
    loop {
        serve_one(desk.job().await, &mut papers).await;
        papers.tidy();
        desk.done(());
    }
}

async fn serve_one(job: StreamJob, papers: &mut Papers) {
    let StreamJob {
        worker,
        client,
        head,
        body,
        respond,
        crowd,
        _hand,
    } = job;
    let limits = &worker.shared.settings.limits;
    let arrived = worker.clock.now();
    let timer = worker.timers.timer();
    let ended = body.is_end_stream();
    let key = || u128::from(worker.random()) << 64 | u128::from(worker.random());
    let request = &mut papers.request;
    let read = heads::read_request(&head, ended, &HeadLimits::of(limits), key, request);
    // Most of what it held is in `request` now.
    drop(head);
    if read.is_err() {
        papers.request = RequestHead {
            version: Version::Http2,
            ..RequestHead::default()
        };
    }
    if let Err(Reason::HeadTooLarge) = read {
        crowd.large_head();
    }
    let body_bytes = limits.body_bytes.unwrap_or(u64::MAX);
    let mut down = Stream::new(&papers.request, body, respond, body_bytes, &crowd);
    match read {
        Ok(()) => exchange::exchange(&worker, &client, papers, arrived, &mut down, &timer).await,
        Err(reason) => {
            exchange::refuse(&worker, &client, papers, arrived, reason, &mut down, &timer).await;
        }
    }
    down.end();
}
