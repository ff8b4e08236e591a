//! Clients of a comparison's own, where a single connection or request is what matters.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a proxy may take until it serves, once it accepts connections.
const SERVED_MAX: Duration = Duration::from_secs(10);

/// Between two requests of whoever waits for something to show.
const LOOK: Duration = Duration::from_millis(5);

/// Most fields of an answer's head.
const FIELDS_MAX: usize = 64;

/// Most bytes of an answer: a page of metrics of many routes is the largest.
const BYTES_MAX: usize = 256 * 1024 * 1024;

/// Clients of a crowd that connect at once. Few, so that what a proxy holds afterwards is what idle
/// connections take and not what was left by a burst.
pub(crate) const AT_ONCE: usize = 32;

/// A connection over HTTP/1.1, one request at a time.
#[derive(Debug)]
pub(crate) struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Client {
    /// # Errors
    ///
    /// Nobody accepts it.
    pub(crate) async fn connect(address: SocketAddr) -> anyhow::Result<Client> {
        let stream = timeout(PATIENCE, TcpStream::connect(address)).await;
        let stream = stream
            .context("no connection in time")?
            .with_context(|| format!("no connection to {address}"))?;
        stream.set_nodelay(true)?;
        let buffer = Vec::new();
        Ok(Client { stream, buffer })
    }

    /// # Errors
    ///
    /// The connection has ended.
    pub(crate) async fn send(&mut self, host: &str, path: &str) -> anyhow::Result<()> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        self.stream.write_all(request.as_bytes()).await?;
        Ok(())
    }

    /// Reads the answer to what was sent.
    ///
    /// # Errors
    ///
    /// The connection ends, a minute passes, or what comes is no answer with a Content-Length.
    pub(crate) async fn answer(&mut self) -> anyhow::Result<Answer> {
        let answer = timeout(PATIENCE, self.read()).await;
        // Of thousands of connections, those that wait should not each keep a buffer.
        self.buffer = Vec::new();
        answer.context("no answer in time")?
    }

    /// Sends a request and reads its answer.
    ///
    /// # Errors
    ///
    /// As of [`Client::send`] and [`Client::answer`].
    pub(crate) async fn ask(&mut self, host: &str, path: &str) -> anyhow::Result<Answer> {
        self.send(host, path).await?;
        self.answer().await
    }

    /// Whether the connection is open and nothing has come that nobody asked for.
    pub(crate) fn idles(&self) -> bool {
        let read = self.stream.try_read(&mut [0; 1]);
        matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    async fn read(&mut self) -> anyhow::Result<Answer> {
        loop {
            if let Some((status, from, end)) = parse(&self.buffer)? {
                while self.buffer.len() < end {
                    self.more().await?;
                }
                let body = self.buffer.split_off(from);
                return Ok(Answer { status, body });
            }
            self.more().await?;
        }
    }

    async fn more(&mut self) -> anyhow::Result<()> {
        ensure!(self.buffer.len() < BYTES_MAX, "a head without an end");
        let read = self.stream.read_buf(&mut self.buffer).await?;
        ensure!(read > 0, "the connection ended before the answer did");
        Ok(())
    }
}

/// Status, where the body begins and where it ends, once the head is whole.
fn parse(bytes: &[u8]) -> anyhow::Result<Option<(u16, usize, usize)>> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut answer = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(head) = answer.parse(bytes)? else {
        return Ok(None);
    };
    let length = answer
        .headers
        .iter()
        .find(|field| field.name.eq_ignore_ascii_case("content-length"))
        .context("an answer without a Content-Length")?;
    let length: usize = std::str::from_utf8(length.value)?.parse()?;
    let end = head.checked_add(length).filter(|end| *end <= BYTES_MAX);
    let end = end.with_context(|| format!("an answer of {length} bytes"))?;
    Ok(Some((answer.code.context("no status")?, head, end)))
}

/// Asks on a connection of its own.
///
/// # Errors
///
/// As of [`Client::ask`], and for any status but 200.
pub(crate) async fn get(address: SocketAddr, path: &str) -> anyhow::Result<Vec<u8>> {
    let mut client = Client::connect(address).await?;
    let answer = client.ask(&address.to_string(), path).await?;
    if answer.status != 200 {
        bail!("{path} of {address} is answered with {}", answer.status);
    }
    Ok(answer.body)
}

/// Waits until requests are answered with 200: some proxies listen before they have their routes.
///
/// # Errors
///
/// They are not within ten seconds; the message says what the last one was answered with.
pub(crate) async fn until_served(address: SocketAddr, host: &str) -> anyhow::Result<()> {
    let patience = Instant::now() + SERVED_MAX;
    loop {
        let mut client = Client::connect(address).await?;
        let answer = client.ask(host, "/").await?;
        if answer.status == 200 {
            return Ok(());
        }
        if Instant::now() > patience {
            bail!("requests are answered with {}", answer.status);
        }
        sleep(LOOK).await;
    }
}

/// Connects `number` clients, a few at a time, and has each ask once; they stay connected.
///
/// # Errors
///
/// One of them is not answered, or not with 200.
pub(crate) async fn crowd(
    address: SocketAddr,
    host: &str,
    number: usize,
) -> anyhow::Result<Vec<Client>> {
    stream::iter(0..number)
        .map(|_| async move {
            let mut client = Client::connect(address).await?;
            let answer = client.ask(host, "/").await?;
            ensure!(answer.status == 200, "an answer with {}", answer.status);
            anyhow::Ok(client)
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_says_how_long_the_answer_is() {
        let text = b"HTTP/1.1 404 Not Found\r\ncontent-length: 7\r\n\r\n";
        assert_eq!(
            parse(text).unwrap(),
            Some((404, text.len(), text.len() + 7))
        );
        assert_eq!(parse(&text[..20]).unwrap(), None);
        assert!(parse(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }

    #[test]
    fn an_answer_beyond_all_bounds_is_refused() {
        for length in [BYTES_MAX, usize::MAX] {
            let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
            assert!(parse(text.as_bytes()).is_err(), "{length}");
        }
    }
}
