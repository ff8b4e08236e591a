//! One client's connection: requests one after the other, until somebody has had enough.

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use super::census::{Entry, Origin};
use super::drain::Phase;
use super::io::Io;
use super::runners::Desk;
use super::timers::Timer;
use super::worker::Worker;
use super::{preface, streams};
use crate::exchange::{self, Client, Papers};
use crate::http::h1::connection::{Connection, ReadLimits};
use crate::http::h1::server;
use crate::http::h1::{HeadLimits, request};
use crate::http::message::{Downstream, RequestHead, Source, StreamError};
use crate::http::pace::Pace;
use crate::refusal::Reason;

/// Most unread bytes that are taken in for the sake of an orderly end.
pub(super) const DISCARD_MAX: usize = 256 * 1024;

/// How long that may take.
pub(super) const DISCARD_TIME: Duration = Duration::from_secs(2);

/// What came of waiting for a request's head.
enum Heard {
    Request,
    /// Not a head, or too late.
    Refused(Reason),
    /// The client left, or stayed silent too long.
    Nothing,
}

/// A head that is refused or a connection that fails while it is read.
enum HeadError {
    Refused(Reason),
    Stream,
}

impl From<StreamError> for HeadError {
    fn from(error: StreamError) -> HeadError {
        match error {
            StreamError::Malformed(_) | StreamError::TooLarge => {
                HeadError::Refused(Reason::HeadTooLarge)
            }
            _ => HeadError::Stream,
        }
    }
}

/// Serves a client until either side ends the connection, which counts as open from this call on.
pub fn serve(worker: Rc<Worker>, io: Io, client: Client) -> impl Future<Output = ()> {
    let open = Open::new(&worker, client.listener);
    async move {
        serve_open(&worker, io, client).await;
        drop(open);
    }
}

/// Where TLS or a PROXY protocol header comes first, it is done with.
pub(super) async fn serve_open(worker: &Rc<Worker>, io: Io, mut client: Client) {
    let head_timeout = worker.shared.settings.limits.head_timeout;
    let spoken_by = Instant::now() + head_timeout;
    client.leaves_at = leaves_at(worker);
    let client = Rc::new(client);
    let mut timer = worker.timers.timer();
    let mut connection = Box::new(Connection::new(io, &worker.buffers));
    loop {
        connection.rest();
        if !idle(worker, &mut connection, &timer, spoken_by).await {
            connection.part();
            return;
        }
        let mut head_by = None;
        if connection.exchanges == 0 && preface::is_likely(connection.unread()) {
            let begun = Instant::now();
            timer.set(Some(spoken_by));
            let sniffing = worker.unless_ended(preface::sniff(&mut connection));
            match exchange::until(&timer, sniffing).await {
                Some(None) => return,
                Some(Some(true)) => {
                    let (io, unread) = connection.into_parts();
                    return Box::pin(streams::serve(worker, io, unread, client, timer)).await;
                }
                Some(Some(false)) => head_by = Some(begun + head_timeout),
                // Nothing but half a preface came: a head that is late, whatever its protocol.
                None => head_by = Some(spoken_by),
            }
        }
        if connection.exchanges == 0 && connection.io().agreed_on_http2() {
            tracing::debug!(client = %client.address, "no HTTP/2, which was agreed on");
            connection.part();
            return;
        }
        let job = Job {
            worker: worker.clone(),
            connection,
            timer,
            client: client.clone(),
            head_by,
        };
        let running = worker.runners.run(job, |desk| {
            worker.grew();
            serve_requests(desk)
        });
        // The one place where the clock goes on while a request waits for others.
        match worker.ticking(running).await {
            Some(rested) => (connection, timer) = rested,
            None => return,
        }
    }
}

/// When a client that comes now is asked to leave: after `connectionAge`, give or take a tenth, so
/// that those who came together do not come back together.
fn leaves_at(worker: &Worker) -> Option<std::time::Instant> {
    let age = worker.shared.settings.limits.connection_age?;
    let per_mille = 900 + u32::try_from(worker.random() % 201).unwrap_or(0);
    Some(Worker::now() + age / 1000 * per_mille)
}

/// A connection with a request to be read.
#[derive(Debug)]
pub struct Job {
    worker: Rc<Worker>,
    connection: Box<Connection>,
    timer: Timer,
    client: Rc<Client>,
    /// When the head must be whole, if it began a while ago.
    head_by: Option<Instant>,
}

/// The connection, if it can carry another request.
pub type Rested = Option<(Box<Connection>, Timer)>;

/// Serves one request after the other, each of another connection.
#[expect(clippy::infinite_loop, reason = "a runner is dropped; it does not end")]
async fn serve_requests(desk: Rc<Desk<Job, Rested>>) {
    let mut papers = Papers::default();
    loop {
        let Job {
            worker,
            mut connection,
            timer,
            client,
            head_by,
        } = desk.job().await;
        let goes_on = serve_one(
            &worker,
            &mut connection,
            &timer,
            &client,
            head_by,
            &mut papers,
        )
        .await;
        papers.tidy();
        desk.done(goes_on.then_some((connection, timer)));
    }
}

/// Serves one request; whether the connection can carry another. Ends it otherwise.
async fn serve_one(
    worker: &Rc<Worker>,
    connection: &mut Connection,
    timer: &Timer,
    client: &Client,
    head_by: Option<Instant>,
    papers: &mut Papers,
) -> bool {
    let limits = &worker.shared.settings.limits;
    let reads = ReadLimits {
        trailer_bytes: limits.trailer_bytes,
        body_bytes: limits.body_bytes.unwrap_or(u64::MAX),
    };
    connection.wake();
    let arrived = worker.clock.now();
    let heard = hear(
        worker,
        connection,
        reads,
        timer,
        head_by,
        &mut papers.request,
    )
    .await;
    connection.exchanges += 1;
    let refused = match heard {
        Heard::Request => None,
        Heard::Refused(reason) => {
            // What is there is half of it, or of the request before, which another client sent.
            papers.request = RequestHead::default();
            Some(reason)
        }
        Heard::Nothing => {
            connection.part();
            return false;
        }
    };
    let request = &papers.request;
    let leaves = !request.keep_alive && refused.is_none();
    let mut down = server::Client::new(connection, reads, request);
    // Behind a head that was refused nobody knows where the next one begins.
    if refused.is_some() || connection_is_spent(worker, &down) {
        down.closes();
    }
    match refused {
        None => exchange::exchange(worker, client, papers, arrived, &mut down, timer).await,
        Some(reason) => {
            let down = &mut down;
            exchange::refuse(worker, client, papers, arrived, reason, down, timer).await;
        }
    }
    if down.wants_more() && (down.received_all() || skip_body(worker, &mut down, timer).await) {
        return true;
    }
    // Who said that this request is the last should have nothing more to send that could meet a
    // closed socket and cost it the answer. Some send an empty line all the same.
    let is_over = down.is_over();
    if worker.pressure.get().cut.is_some() && !connection.sent_all() {
        // What the client does not take is not kept for it any longer.
        connection.io().abort();
        return false;
    }
    let silent = connection.unread().is_empty() && !connection.io().is_stirred();
    // A TLS client must be told that nothing follows, however long its socket takes nothing.
    let parted = leaves && is_over && silent && !matches!(connection.io(), Io::Tls(_));
    if !parted {
        end(worker, connection, reads, timer).await;
    }
    false
}

/// After an early answer: what is left of the body stands before the next request. Whether it
/// could be read away.
async fn skip_body(worker: &Worker, down: &mut server::Client<'_>, timer: &Timer) -> bool {
    let pace = Pace::new(&worker.clock);
    timer.set(Some(Instant::now() + DISCARD_TIME));
    let (mut source, _sink) = down.split(&pace);
    exchange::until(timer, discard_body(&mut source)).await == Some(true)
}

fn connection_is_spent(worker: &Worker, down: &server::Client<'_>) -> bool {
    let most = worker.shared.settings.limits.requests_per_connection;
    most > 0 && down.exchanges() >= most
}

/// Waits for the first byte of a request, of a connection's first until `spoken_by`; `false` when
/// there will be none.
async fn idle(
    worker: &Worker,
    connection: &mut Connection,
    timer: &Timer,
    spoken_by: Instant,
) -> bool {
    if !connection.unread().is_empty() {
        return true;
    }
    let first = connection.exchanges == 0;
    let deadline = if first {
        spoken_by
    } else {
        Instant::now() + worker.shared.settings.limits.keep_alive
    };
    let readable = poll_fn(|cx| {
        let may_have_begun = first || connection.io().poll_readable(cx).is_ready();
        if may_have_begun && connection.poll_begun(cx).is_ready() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    });
    let readable = worker.unless_ended(readable);
    // One that has not begun costs nobody less by coming again.
    let begun = patiently_until(worker, timer, deadline, !first, readable).await;
    begun.flatten().is_some()
}

/// The future's result, or `None` when it takes longer than `patience`, or than an idle connection
/// may take while we drain.
pub(super) async fn patiently<T>(
    worker: &Worker,
    timer: &Timer,
    patience: Duration,
    future: impl Future<Output = T>,
) -> Option<T> {
    patiently_until(worker, timer, Instant::now() + patience, false, future).await
}

/// `idle`: what it waits for may be given up as memory runs short, too.
async fn patiently_until<T>(
    worker: &Worker,
    timer: &Timer,
    deadline: Instant,
    idle: bool,
    future: impl Future<Output = T>,
) -> Option<T> {
    let mut future = pin!(future);
    timer.set_idle(deadline);
    let mut closing = false;
    poll_fn(|cx| {
        if let Poll::Ready(result) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(result));
        }
        if !closing && (worker.is_closing() || idle && worker.is_parting()) {
            closing = true;
            let silent = worker.idle_while_closing.get();
            timer.set_idle(deadline.min(Instant::now() + silent));
        }
        timer.poll_fired(cx).map(|()| None)
    })
    .await
}

/// Reads one head until `by`, else for `headTimeout`: its first byte has just come. More of them
/// do not extend it.
async fn hear(
    worker: &Worker,
    connection: &mut Connection,
    reads: ReadLimits,
    timer: &Timer,
    by: Option<Instant>,
    head: &mut RequestHead,
) -> Heard {
    if by.is_some_and(|by| Instant::now() >= by) {
        // Most of a preface can be read as a head, too: late it is all the same.
        return Heard::Refused(Reason::HeaderTimeout);
    }
    let limits = &worker.shared.settings.limits;
    let heads = HeadLimits::of(limits);
    let pace = Pace::new(&worker.clock);
    let (mut reader, _writer) = connection.split(&pace, reads);
    let read = {
        let parse = |bytes: &[u8]| request::parse(bytes, &heads, head).map_err(HeadError::Refused);
        let mut reading = pin!(reader.head(heads.bytes, parse));
        let mut armed = false;
        poll_fn(|cx| {
            if let Poll::Ready(read) = reading.as_mut().poll(cx) {
                return Poll::Ready(Some(read));
            }
            if !armed {
                // Nearly every head comes whole and needs no timer.
                armed = true;
                let by = by.unwrap_or_else(|| Instant::now() + limits.head_timeout);
                timer.set(Some(by));
            }
            if worker.phase.get() == Phase::Ended {
                return Poll::Ready(Some(Err(HeadError::Stream)));
            }
            timer.poll_fired(cx).map(|()| None)
        })
        .await
    };
    match read {
        Some(Ok(())) => Heard::Request,
        Some(Err(HeadError::Refused(reason))) => Heard::Refused(reason),
        Some(Err(HeadError::Stream)) => Heard::Nothing,
        None if reader.has_begun() => Heard::Refused(Reason::HeaderTimeout),
        None => Heard::Nothing,
    }
}

/// Reads what is left of a body; whether its end was reached within the bounds.
async fn discard_body<S: Source>(source: &mut S) -> bool {
    let mut left = exchange::SKIP_MAX;
    loop {
        match source.fill().await {
            Ok(crate::http::message::Filled::End) => return true,
            Ok(crate::http::message::Filled::Data) => {
                let count = source.data().len();
                source.consume(count);
                let Some(rest) = left.checked_sub(count as u64) else {
                    return false;
                };
                left = rest;
            }
            Err(_) => return false,
        }
    }
}

/// Ends the connection so that the last answer is not lost to a reset: our side first, then what
/// the client still sends is read and dropped for a while (RFC 9112 §9.6).
async fn end(worker: &Worker, connection: &mut Connection, reads: ReadLimits, timer: &Timer) {
    let pace = Pace::new(&worker.clock);
    let (mut reader, mut writer) = connection.split(&pace, reads);
    let ending = async {
        writer.shutdown().await;
        reader.discard(DISCARD_MAX).await;
    };
    let _in_time = patiently(worker, timer, DISCARD_TIME, ending).await;
}

/// Counts a connection for as long as it is served.
pub(super) struct Open {
    pub(super) worker: Rc<Worker>,
    pub(super) listener: usize,
    entry: Option<Entry>,
    origin: Option<Origin>,
}

impl Open {
    pub(super) fn new(worker: &Rc<Worker>, listener: usize) -> Open {
        worker.connections.set(worker.connections.get() + 1);
        worker.metrics.connection_opened(listener);
        Open {
            worker: worker.clone(),
            listener,
            entry: None,
            origin: None,
        }
    }

    /// It is one of those that the census let in.
    pub(super) fn counts(&mut self, entry: Entry) {
        self.entry = Some(entry);
    }

    /// Counts it for the client's address; `false` if that has too many.
    pub(super) fn counts_for(&mut self, address: IpAddr) -> bool {
        match self.worker.shared.census.of_address(address) {
            Ok(origin) => {
                self.origin = origin;
                true
            }
            Err(why) => {
                self.worker.metrics.connection_refused(self.listener, why);
                tracing::debug!(%address, "the address has too many connections");
                false
            }
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.worker
            .connections
            .set(self.worker.connections.get() - 1);
        self.worker.metrics.connection_closed(self.listener);
        if self.worker.connections.get() == 0 {
            self.worker.emptied.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_request_needs_while_it_runs_or_waits_is_small() {
        let size = size_of_val(&serve_requests(Rc::default()));
        assert!(size <= 4096, "{size}");
    }
}
