//! A client of HTTP/1.1, in clear or over TLS.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Waker};

use anyhow::{Context as _, ensure};
use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};
use tokio::time::timeout;

use super::way::{Stream, Way};
use super::{Answer, BYTES_MAX, PATIENCE, Visit};

/// Most fields of an answer's head.
const FIELDS_MAX: usize = 64;

/// A connection over HTTP/1.1, one request at a time.
#[derive(Debug)]
pub(crate) struct Client {
    stream: Stream,
    buffer: Vec<u8>,
}

impl Client {
    /// Connects in clear.
    ///
    /// # Errors
    ///
    /// Nobody accepts it.
    pub(crate) async fn connect(address: SocketAddr) -> anyhow::Result<Client> {
        Client::reach(&address.into()).await
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

impl Visit for Client {
    async fn reach(way: &Way) -> anyhow::Result<Client> {
        Ok(Client {
            stream: way.connect().await?,
            buffer: Vec::new(),
        })
    }

    async fn ask(&mut self, host: &str, path: &str) -> anyhow::Result<Answer> {
        self.send(host, path).await?;
        self.answer().await
    }

    fn idles(&mut self) -> bool {
        let mut byte = [0; 1];
        let mut byte = ReadBuf::new(&mut byte);
        // Whoever wants to know looks again.
        let mut context = Context::from_waker(Waker::noop());
        Pin::new(&mut self.stream)
            .poll_read(&mut context, &mut byte)
            .is_pending()
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
