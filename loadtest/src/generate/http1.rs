//! HTTP/1.1: one request at a time on a connection, with one write and one read.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::answer::Decoder;
use super::io::Io;
use super::job::{Job, Sender};
use super::plan::Plan;
use super::tally::{Answer, Fault, Ticket};

/// Waiting for the other side to close, once it has said that it will.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

/// The bytes of each request, written once.
#[derive(Debug)]
pub(super) struct Requests {
    /// One per host. A body that is short goes with it.
    heads: Vec<Box<[u8]>>,
    /// What is left of the body to be written behind the head.
    body: Bytes,
    /// Bytes of body in each of `heads`.
    joined: usize,
    is_head: bool,
}

/// The heads of all hosts with a body each may take this much memory; otherwise they share it.
const JOINED_MAX: usize = 16 * 1024 * 1024;

impl Requests {
    pub(super) fn new(plan: &Plan) -> Self {
        let join = plan.body.len().saturating_mul(plan.hosts.len()) <= JOINED_MAX;
        let joined: &[u8] = if join { &plan.body } else { &[] };
        let head = |host: &String| {
            let mut bytes = head(plan, host);
            bytes.extend_from_slice(joined);
            bytes.into_boxed_slice()
        };
        Self {
            heads: plan.hosts.iter().map(head).collect(),
            body: plan.body.slice(joined.len()..),
            joined: joined.len(),
            is_head: plan.method == Method::HEAD,
        }
    }
}

fn head(plan: &Plan, host: &str) -> Vec<u8> {
    let (method, path) = (&plan.method, &plan.target.path);
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n").into_bytes();
    for (name, value) in &plan.headers {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    if plan.has_body {
        let length = plan.body.len();
        head.extend_from_slice(format!("Content-Length: {length}\r\n").as_bytes());
    }
    if plan.new_connection {
        head.extend_from_slice(b"Connection: close\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// Sends requests on one connection until the run is over, making it anew when it is lost.
pub(super) async fn keep_alive(sender: Sender, requests: Rc<Requests>) {
    let job = &*sender.job;
    let mut taken = None;
    while !job.pace.over() || taken.is_some() {
        match job.connect(&sender.watch).await {
            Ok(io) => {
                let mut link = Link::new(io, requests.is_head);
                taken = link.serve(&sender, &requests, taken).await;
            }
            Err(fault) => {
                let ticket = match taken.take() {
                    Some(ticket) => Some(ticket),
                    None => sender.next(Instant::now()).await,
                };
                let Some(ticket) = ticket else { return };
                job.count(&ticket, Instant::now(), Err(fault), 0);
                sender.back_off().await;
            }
        }
    }
}

/// Makes a connection for each request.
pub(super) async fn new_connections(sender: Sender, requests: Rc<Requests>) {
    let job = &*sender.job;
    let mut now = Instant::now();
    while let Some(ticket) = sender.next(now).await {
        let link = match job.connect(&sender.watch).await {
            Ok(io) => {
                let mut link = Link::new(io, requests.is_head);
                let answered = link.exchange(&sender, &requests, &ticket).await;
                answered.map(|_| link)
            }
            Err(fault) => {
                job.count(&ticket, Instant::now(), Err(fault), 0);
                None
            }
        };
        match link {
            Some(link) => {
                sender.well();
                link.until_closed(&sender).await;
            }
            None => sender.back_off().await,
        }
        now = Instant::now();
    }
}

/// Sends one request on one connection; the connection, if there was an answer.
pub(super) async fn once(sender: &Sender, requests: &Requests) -> Option<Link> {
    let job = &*sender.job;
    let connected = job.connect(&sender.watch).await;
    let ticket = sender.next(Instant::now()).await?;
    match connected {
        Ok(io) => {
            let mut link = Link::new(io, requests.is_head);
            link.exchange(sender, requests, &ticket).await?;
            link.keeps().then_some(link)
        }
        Err(fault) => {
            job.count(&ticket, Instant::now(), Err(fault), 0);
            None
        }
    }
}

/// A connection, and how far its request and its answer are.
#[derive(Debug)]
pub(super) struct Link {
    io: Io,
    decoder: Decoder,
    /// Bytes of the request that are written.
    written: usize,
    /// All of them are, and flushed.
    sent: bool,
}

impl Link {
    fn new(io: Io, is_head: bool) -> Self {
        Self {
            io,
            decoder: Decoder::new(is_head),
            written: 0,
            sent: false,
        }
    }

    /// Sends requests until the connection or the run ends; a request that it could not take.
    async fn serve(
        &mut self,
        sender: &Sender,
        requests: &Requests,
        mut taken: Option<Ticket>,
    ) -> Option<Ticket> {
        let waits = sender.job.pace.waits();
        let mut now = Instant::now();
        loop {
            let ticket = match taken.take() {
                Some(ticket) => ticket,
                None => sender.next(now).await?,
            };
            // While it waited the other side may have closed it, which is no error.
            if waits && self.has_ended(&sender.job).await {
                return Some(ticket);
            }
            match self.exchange(sender, requests, &ticket).await {
                Some(end) => now = end,
                None => {
                    sender.back_off().await;
                    return None;
                }
            }
            sender.well();
            if !self.keeps() {
                return None;
            }
        }
    }

    /// One request and its answer, counted; when it ended, if that was with an answer.
    async fn exchange(
        &mut self,
        sender: &Sender,
        requests: &Requests,
        ticket: &Ticket,
    ) -> Option<Instant> {
        let job = &*sender.job;
        let head = &requests.heads[job.next_host()];
        self.decoder.reset();
        self.written = 0;
        self.sent = false;
        let answer = poll_fn(|context| self.poll_exchange(context, head, &requests.body, job));
        let outcome = sender.watch.limit(ticket.begun, answer).await;
        let now = Instant::now();
        let outcome = outcome.unwrap_or(Err(Fault::Timeout("no answer in time")));
        let up = self.written.saturating_sub(head.len() - requests.joined);
        job.count(ticket, now, outcome, up as u64).then_some(now)
    }

    /// Sends and receives side by side: an answer may begin before the body is sent.
    fn poll_exchange(
        &mut self,
        context: &mut Context<'_>,
        head: &[u8],
        body: &[u8],
        job: &Job,
    ) -> Poll<Result<Answer, Fault>> {
        if !self.sent
            && let Poll::Ready(Err(error)) = self.poll_send(context, head, body)
        {
            // It may have answered before it closed.
            return match self.poll_receive(context, job) {
                Poll::Ready(Ok(answer)) => Poll::Ready(Ok(answer)),
                _ => Poll::Ready(Err(Fault::lost(&error))),
            };
        }
        self.poll_receive(context, job)
    }

    fn poll_send(
        &mut self,
        context: &mut Context<'_>,
        head: &[u8],
        body: &[u8],
    ) -> Poll<io::Result<()>> {
        while self.written < head.len() + body.len() {
            let io = Pin::new(&mut self.io);
            let written = match self.written.checked_sub(head.len()) {
                None if body.is_empty() => io.poll_write(context, &head[self.written..]),
                None => {
                    let both = [IoSlice::new(&head[self.written..]), IoSlice::new(body)];
                    io.poll_write_vectored(context, &both)
                }
                Some(from) => io.poll_write(context, &body[from..]),
            };
            match ready!(written)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.written += written,
            }
        }
        ready!(Pin::new(&mut self.io).poll_flush(context))?;
        self.sent = true;
        Poll::Ready(Ok(()))
    }

    /// Reads until there is no more to read, which the runtime mostly knows without asking.
    fn poll_receive(
        &mut self,
        context: &mut Context<'_>,
        job: &Job,
    ) -> Poll<Result<Answer, Fault>> {
        let mut buffer = job.buffer.borrow_mut();
        loop {
            let mut read = ReadBuf::new(&mut buffer);
            let polled = Pin::new(&mut self.io).poll_read(context, &mut read);
            let taken = match ready!(polled) {
                Err(error) => return Poll::Ready(Err(Fault::lost(&error))),
                Ok(()) if read.filled().is_empty() => {
                    let early = || Fault::Closed("closed before the end of the answer".to_owned());
                    return Poll::Ready(self.decoder.close().ok_or_else(early));
                }
                Ok(()) => self.decoder.feed(read.filled()),
            };
            match taken {
                Ok(None) => {}
                Ok(Some(answer)) => return Poll::Ready(Ok(answer)),
                Err(wrong) => return Poll::Ready(Err(Fault::Invalid(wrong.to_owned()))),
            }
        }
    }

    /// Whether another request may follow.
    fn keeps(&self) -> bool {
        self.sent && self.decoder.keeps()
    }

    fn poll_end(&mut self, context: &mut Context<'_>, job: &Job) -> Poll<()> {
        let mut buffer = job.buffer.borrow_mut();
        let mut read = ReadBuf::new(&mut buffer);
        // Whatever comes without being asked for ends the connection for us.
        Pin::new(&mut self.io)
            .poll_read(context, &mut read)
            .map(|_| ())
    }

    /// Whether the other side has ended the connection.
    async fn has_ended(&mut self, job: &Job) -> bool {
        poll_fn(|context| Poll::Ready(self.poll_end(context, job).is_ready())).await
    }

    /// Waits until the other side ends the connection.
    pub(super) async fn end(&mut self, job: &Job) {
        poll_fn(|context| self.poll_end(context, job)).await;
    }

    /// Lets the other side close, if it does so soon: who closes first keeps the port for a minute.
    async fn until_closed(mut self, sender: &Sender) {
        let spent = sender.job.plan.timeout.saturating_sub(CLOSE_WAIT);
        let now = Instant::now();
        let since = now.checked_sub(spent).unwrap_or(now);
        // In time or not, the answer is whole.
        sender
            .watch
            .limit(since, self.end(&sender.job))
            .await
            .unwrap_or_default();
    }
}
