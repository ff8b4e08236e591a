//! Bytes on sockets: for what no proper client or server would send.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use crate::backend::{Alarm, listen};
use crate::wait::within;

/// One TCP connection and what was read ahead of it.
#[derive(Debug)]
pub struct Raw {
    stream: TcpStream,
    ahead: Vec<u8>,
}

impl Raw {
    pub async fn connect(address: SocketAddr) -> Raw {
        Raw::from(
            within("a connection", TcpStream::connect(address))
                .await
                .unwrap(),
        )
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within("the peer to take bytes", self.try_send(bytes))
            .await
            .unwrap();
    }

    /// # Errors
    /// When the peer has gone.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.write_all(bytes.as_ref()).await
    }

    /// Everything up to and including `end`; less when the peer closes or resets before.
    pub async fn until(&mut self, end: &[u8]) -> Vec<u8> {
        within("bytes from the peer", async {
            loop {
                let found = self.ahead.windows(end.len()).position(|part| part == end);
                if let Some(start) = found {
                    return self.ahead.drain(..start + end.len()).collect();
                }
                if !self.more().await {
                    return std::mem::take(&mut self.ahead);
                }
            }
        })
        .await
    }

    /// That many bytes; less when the peer closes or resets before.
    pub async fn exactly(&mut self, length: usize) -> Vec<u8> {
        within("bytes from the peer", async {
            while self.ahead.len() < length && self.more().await {}
            let length = length.min(self.ahead.len());
            self.ahead.drain(..length).collect()
        })
        .await
    }

    /// Everything until the peer closes or resets.
    pub async fn rest(&mut self) -> Vec<u8> {
        within("the peer to close", async { while self.more().await {} }).await;
        std::mem::take(&mut self.ahead)
    }

    /// A message's head with its empty line, `""` when the peer closed instead.
    pub async fn head(&mut self) -> String {
        String::from_utf8_lossy(&self.until(b"\r\n\r\n").await).into_owned()
    }

    /// The next request's head, however long the connection stays idle before; `None` at its end.
    pub async fn next_head(&mut self) -> Option<String> {
        match self.begins().await {
            true => Some(self.head().await),
            false => None,
        }
    }

    /// Waits for a byte, however long that takes; whether one came before the end.
    pub async fn begins(&mut self) -> bool {
        !self.ahead.is_empty() || self.more().await
    }

    /// A whole answer to any request but HEAD.
    pub async fn answer(&mut self) -> RawAnswer {
        let head = self.head().await;
        assert!(head.starts_with("HTTP/1.1 "), "not an answer: {head:?}");
        let mut answer = RawAnswer {
            head,
            body: Vec::new(),
            trailers: String::new(),
        };
        if answer.field("transfer-encoding").is_some() {
            (answer.body, answer.trailers) = self.chunked().await;
        } else if let Some(length) = answer.field("content-length") {
            answer.body = self.exactly(length.parse().unwrap()).await;
        } else if !matches!(answer.status(), 100..=199 | 204 | 304) {
            answer.body = self.rest().await;
        }
        answer
    }

    /// A chunked body and the lines of its trailers.
    pub async fn chunked(&mut self) -> (Vec<u8>, String) {
        let mut body = Vec::new();
        loop {
            let line = String::from_utf8(self.until(b"\r\n").await).unwrap();
            let length = usize::from_str_radix(line.trim_end(), 16);
            match length.unwrap_or_else(|_| panic!("not a chunk: {line:?}")) {
                0 => break,
                length => body.extend(self.exactly(length).await),
            }
            assert_eq!(self.exactly(2).await, b"\r\n");
        }
        let mut trailers = String::new();
        loop {
            match String::from_utf8(self.until(b"\r\n").await).unwrap() {
                line if line.len() <= 2 => return (body, trailers),
                line => trailers.push_str(&line),
            }
        }
    }

    /// Whether nothing at all arrives for that long. Only ever shows that something is missing
    /// which would have been there by then.
    pub async fn silent_for(&mut self, time: Duration) -> bool {
        self.ahead.is_empty() && timeout(time, self.more()).await.is_err()
    }

    /// Closes the sending side, unless the peer has closed all of it.
    pub async fn finish(&mut self) {
        drop(self.stream.shutdown().await);
    }

    /// Closes with a reset.
    pub fn reset(self) {
        self.stream.set_zero_linger().unwrap();
    }

    /// Reads what there is; false at the end.
    async fn more(&mut self) -> bool {
        matches!(self.stream.read_buf(&mut self.ahead).await, Ok(1..))
    }
}

impl From<TcpStream> for Raw {
    fn from(stream: TcpStream) -> Raw {
        stream.set_nodelay(true).unwrap();
        Raw {
            stream,
            ahead: Vec::new(),
        }
    }
}

/// An answer as it came.
#[derive(Debug)]
pub struct RawAnswer {
    pub head: String,
    /// Without chunk framing.
    pub body: Vec<u8>,
    pub trailers: String,
}

impl RawAnswer {
    #[must_use]
    pub fn status(&self) -> u16 {
        self.head[9..12].parse().unwrap()
    }

    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        field(&self.head, name)
    }

    #[must_use]
    pub fn reason(&self) -> &str {
        self.field("tidegate-reason").unwrap_or_default()
    }

    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// The first value of a field in a head, whatever the name's case.
#[must_use]
pub fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    fields(head, name).into_iter().next()
}

/// All values of a field in a head, whatever the name's case.
#[must_use]
pub fn fields<'h>(head: &'h str, name: &str) -> Vec<&'h str> {
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(found, _)| found.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
        .collect()
}

/// The length that a head says its body has.
#[must_use]
pub fn length(head: &str) -> usize {
    field(head, "content-length").map_or(0, |value| value.parse().unwrap())
}

/// An endpoint that plays a script on every connection. Prints as its address.
pub struct RawBackend {
    pub address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    alarm: Alarm,
    task: JoinHandle<()>,
}

impl RawBackend {
    /// Calls `script` with each connection, and its number from 0.
    pub fn scripted<F, R>(script: F) -> RawBackend
    where
        F: Fn(usize, Raw) -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let listener = listen();
        let address = listener.local_addr().unwrap();
        let alarm = Alarm::default();
        let wire = alarm.clone();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            let mut number = 0;
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(wire.watch(script(number, Raw::from(stream))));
                number += 1;
            }
        });
        let heads = Arc::default();
        RawBackend {
            address,
            heads,
            alarm,
            task,
        }
    }

    /// Gives the same bytes to every request, of whose head it keeps a copy.
    #[must_use]
    pub fn answering(answer: impl Into<Vec<u8>>) -> RawBackend {
        let answer = Arc::new(answer.into());
        let heads = Arc::new(Mutex::new(Vec::new()));
        let copies = Arc::clone(&heads);
        let mut backend = RawBackend::scripted(move |_, connection| {
            answer_all(connection, answer.clone(), copies.clone())
        });
        backend.heads = heads;
        backend
    }

    /// The heads of all requests so far.
    #[must_use]
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

async fn answer_all(mut connection: Raw, answer: Arc<Vec<u8>>, heads: Arc<Mutex<Vec<String>>>) {
    while let Some(head) = connection.next_head().await {
        connection.exactly(length(&head)).await;
        heads.lock().unwrap().push(head);
        if connection.try_send(&*answer).await.is_err() {
            return;
        }
    }
}

impl Drop for RawBackend {
    fn drop(&mut self) {
        self.task.abort();
        self.alarm.check();
    }
}

impl fmt::Display for RawBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

impl fmt::Debug for RawBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RawBackend({})", self.address)
    }
}
