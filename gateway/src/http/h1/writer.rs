//! The writing half of a connection: heads and bodies into as few system calls as they need.

use std::future::poll_fn;
use std::io::IoSlice;
use std::task::{Context, Poll};

use super::encode;
use crate::http::message::{Length, Sink, StreamError, Trailers};
use crate::http::pace::Pace;
use crate::serve::io::IoWrite;

/// Pieces up to this size are copied behind what waits to be written; larger ones go out beside it
/// in one vectored write.
const COPY_MAX: usize = 8 * 1024;

/// What the body being sent looks like on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoder {
    /// Bytes still owed.
    Exactly(u64),
    Chunked,
    UntilClose,
    Tunnel,
    Over,
}

impl Encoder {
    pub(super) fn new(length: Length) -> Encoder {
        match length {
            Length::None => Encoder::Exactly(0),
            Length::Exactly(bytes) => Encoder::Exactly(bytes),
            Length::Chunked => Encoder::Chunked,
            Length::UntilClose => Encoder::UntilClose,
        }
    }
}

/// Borrowed for one exchange; what outlives it belongs to the connection.
#[derive(Debug)]
pub struct Writer<'a> {
    pub(super) io: IoWrite<'a>,
    pub(super) out: &'a mut Vec<u8>,
    pub(crate) encoder: &'a mut Encoder,
    pub(super) pace: &'a Pace,
}

impl Writer<'_> {
    /// Ends our side of the connection; errors mean it had ended already.
    pub async fn shutdown(&mut self) {
        // A body that ends with the connection and was not finished is cut off, not over.
        let cut = *self.encoder == Encoder::UntilClose;
        let _already_gone = poll_fn(|cx| match cut {
            true => self.io.poll_cut(cx),
            false => self.io.poll_shutdown(cx),
        })
        .await;
    }

    /// Writes `out`, then `data`, then `tail`, all of them. What was written of `out` is gone from
    /// it, also when this fails or is dropped, so that it never goes out twice.
    async fn write_parts(&mut self, data: &[u8], tail: &[u8]) -> Result<(), StreamError> {
        let mut done = 0;
        poll_fn(|cx| self.poll_parts(cx, &mut done, data, tail)).await
    }

    /// `done`: bytes of `data` and `tail` that were written.
    fn poll_parts(
        &mut self,
        cx: &mut Context<'_>,
        done: &mut usize,
        data: &[u8],
        tail: &[u8],
    ) -> Poll<Result<(), StreamError>> {
        loop {
            let of_data = (*done).min(data.len());
            let left = [&**self.out, &data[of_data..], &tail[*done - of_data..]];
            let mut parts = [IoSlice::new(&[]); 3];
            let mut count = 0;
            for part in left.into_iter().filter(|part| !part.is_empty()) {
                parts[count] = IoSlice::new(part);
                count += 1;
            }
            if count == 0 {
                return self.poll_flush(cx);
            }
            match self.io.poll_write(cx, &parts[..count]) {
                Poll::Ready(Ok(written)) => {
                    let of_out = written.min(self.out.len());
                    if of_out == self.out.len() {
                        self.out.clear();
                    } else {
                        self.out.drain(..of_out);
                    }
                    *done += written - of_out;
                    self.pace.write_moved(written);
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                Poll::Pending => {
                    self.pace.write_waits();
                    return Poll::Pending;
                }
            }
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        let polled = self.io.poll_flush(cx);
        if polled.is_pending() {
            self.pace.write_waits();
        }
        polled.map_err(StreamError::from)
    }
}

impl Sink for Writer<'_> {
    async fn write(&mut self, data: &[u8]) -> Result<(), StreamError> {
        if data.is_empty() {
            // An empty chunk would end the body.
            return Ok(());
        }
        let tail: &[u8] = match self.encoder {
            Encoder::Exactly(left) => {
                *left = left
                    .checked_sub(data.len() as u64)
                    .ok_or(StreamError::Malformed("body longer than its length"))?;
                b""
            }
            Encoder::Chunked => {
                encode::chunk_line(self.out, data.len());
                b"\r\n"
            }
            Encoder::UntilClose | Encoder::Tunnel => b"",
            Encoder::Over => return Err(StreamError::Malformed("body after its end")),
        };
        if self.out.len() + data.len() <= COPY_MAX {
            self.out.extend_from_slice(data);
            self.out.extend_from_slice(tail);
            return Ok(());
        }
        self.write_parts(data, tail).await
    }

    async fn flush(&mut self) -> Result<(), StreamError> {
        if self.out.is_empty() {
            return Ok(());
        }
        self.write_parts(b"", b"").await
    }

    async fn finish(&mut self, trailers: Option<&Trailers>) -> Result<(), StreamError> {
        match self.encoder {
            Encoder::Exactly(0) | Encoder::UntilClose | Encoder::Over => {}
            Encoder::Tunnel => {
                self.flush().await?;
                self.shutdown().await;
            }
            Encoder::Exactly(_) => return Err(StreamError::Closed),
            Encoder::Chunked => {
                self.out.extend_from_slice(b"0\r\n");
                if let Some(trailers) = trailers {
                    self.out.extend_from_slice(&trailers.lines);
                }
                self.out.extend_from_slice(b"\r\n");
            }
        }
        *self.encoder = Encoder::Over;
        self.flush().await
    }

    fn begin_tunnel(&mut self) {
        *self.encoder = Encoder::Tunnel;
    }
}
