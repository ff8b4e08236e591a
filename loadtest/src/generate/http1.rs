//! HTTP/1.1: one request at a time on a connection, with one write and one read.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Method;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::answer::Decoder;
use super::drive::Link;
use super::io::Io;
use super::job::{Job, Sender};
use super::plan::Plan;
use super::tally::{Answer, Fault};

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

/// A connection, and how far its request and its answer are.
#[derive(Debug)]
pub(super) struct Connection {
    io: Io,
    decoder: Decoder,
    /// Bytes of the request that are written.
    written: usize,
    /// Bytes of the request before its body.
    bodiless: usize,
    /// All of them are, and flushed.
    sent: bool,
}

impl Connection {
    fn new(io: Io, is_head: bool) -> Self {
        Self {
            io,
            decoder: Decoder::new(is_head),
            written: 0,
            bodiless: 0,
            sent: false,
        }
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
}

impl Link for Connection {
    type Requests = Requests;

    async fn open(sender: &Sender, requests: &Requests) -> Result<Self, Fault> {
        let io = sender.job.connect(&sender.watch).await?;
        Ok(Self::new(io, requests.is_head))
    }

    async fn exchange(&mut self, job: &Job, requests: &Requests) -> Result<Answer, Fault> {
        let head = &requests.heads[job.next_host()];
        self.decoder.reset();
        self.sent = false;
        self.written = 0;
        self.bodiless = head.len() - requests.joined;
        poll_fn(|context| self.poll_exchange(context, head, &requests.body, job)).await
    }

    fn up(&self) -> u64 {
        self.written.saturating_sub(self.bodiless) as u64
    }

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
}
