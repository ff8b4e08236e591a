//! What the gateway and its child `supervise` say to each other: JSON, one message per line.
//!
//! Commands go down, events come up. Both ends are the same binary, so there is no version.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

/// The longest message, newline not counted. A start command with its environment is the only one
/// that gets anywhere near.
pub(super) const MESSAGE_MAX: usize = 1 << 20;
/// The longest line of a process's output that is passed on; the rest of the line is dropped.
pub(super) const LINE_MAX: usize = 4096;
/// What is kept of the end of a process's standard error, in bytes, to say why it exited.
pub(super) const TAIL_MAX: usize = 900;

/// One process for as long as the gateway lives; never used twice.
pub(super) type Id = u64;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) enum Command {
    Start(Start),
    /// SIGTERM to the process group, and SIGKILL to what is left of it after `grace`. Without
    /// effect when the process is gone.
    Stop {
        id: Id,
        grace: Duration,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Start {
    pub(super) id: Id,
    /// Program and arguments; `$PORT` in arguments is not yet replaced.
    pub(super) command: Vec<String>,
    /// Beside the inherited environment.
    pub(super) env: Vec<(String, String)>,
    pub(super) directory: Option<PathBuf>,
    pub(super) port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) enum Event {
    Started {
        id: Id,
        pid: i32,
    },
    /// The program could not be executed. The last event of this process.
    Refused {
        id: Id,
        refusal: Refusal,
    },
    Output {
        id: Id,
        stream: Stream,
        line: String,
    },
    /// The process is gone and nothing it started is left. The last event of this process.
    Exited {
        id: Id,
        exit: Exit,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    pub(super) fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// Why a program could not be executed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Refusal {
    /// For clients: without names of this machine.
    pub(super) cause: String,
    /// For the revision's owner: the rest.
    pub(super) detail: String,
}

/// How a process ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Exit {
    /// Its exit status, unless a signal ended it.
    pub(super) status: Option<i32>,
    /// The signal that ended it.
    pub(super) signal: Option<i32>,
    /// The last lines of its standard error, at most [`TAIL_MAX`] bytes, separated by `" | "`.
    pub(super) tail: String,
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.status, self.signal) {
            (Some(status), _) => write!(f, "exited with status {status}"),
            (None, Some(signal)) => write!(f, "ended by signal {signal}"),
            (None, None) => write!(f, "ended"),
        }
    }
}

/// A message as it goes over the socket, newline included.
///
/// # Errors
/// `InvalidInput` when it would be longer than [`MESSAGE_MAX`].
pub(super) fn encode<M: Serialize>(message: &M) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    if line.len() > MESSAGE_MAX {
        let why = format!("a message of {} bytes, at most {MESSAGE_MAX}", line.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    line.push(b'\n');
    Ok(line)
}

/// Reads messages, never holding more than one of [`MESSAGE_MAX`] bytes.
#[derive(Debug)]
pub(super) struct Messages<R> {
    reader: BufReader<R>,
    line: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Messages<R> {
    pub(super) fn new(reader: R) -> Messages<R> {
        Messages {
            reader: BufReader::new(reader),
            line: Vec::new(),
        }
    }

    /// The next message; `None` when the other end has closed, also in the middle of one.
    /// Cancel safe: what was read of a message is kept.
    ///
    /// # Errors
    /// What the socket says, or `InvalidData` for what is too long or not a message.
    pub(super) async fn next<M: DeserializeOwned>(&mut self) -> io::Result<Option<M>> {
        loop {
            let read = self.reader.fill_buf().await?;
            if read.is_empty() {
                return Ok(None);
            }
            let end = read.iter().position(|&byte| byte == b'\n');
            let taken = end.unwrap_or(read.len());
            if self.line.len() + taken > MESSAGE_MAX {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("a message of more than {MESSAGE_MAX} bytes"),
                ));
            }
            self.line.extend_from_slice(&read[..taken]);
            self.reader.consume(taken + usize::from(end.is_some()));
            if end.is_some() {
                let message = serde_json::from_slice(&self.line);
                self.line.clear();
                return Ok(Some(message?));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stop(id: Id) -> Command {
        Command::Stop {
            id,
            grace: Duration::from_millis(1500),
        }
    }

    #[tokio::test]
    async fn messages_come_out_as_they_went_in_however_they_are_cut() {
        let mut bytes = encode(&stop(1)).unwrap();
        bytes.extend(encode(&stop(2)).unwrap());
        for cut in 0..bytes.len() {
            let (front, back) = bytes.split_at(cut);
            let stream = tokio::io::AsyncReadExt::chain(front, back);
            let mut messages = Messages::new(stream);
            assert_eq!(messages.next().await.unwrap(), Some(stop(1)));
            assert_eq!(messages.next().await.unwrap(), Some(stop(2)));
            assert_eq!(messages.next::<Command>().await.unwrap(), None);
        }
    }

    #[tokio::test]
    async fn what_is_too_long_or_no_message_is_an_error() {
        let endless = tokio::io::repeat(b'x');
        let error = Messages::new(endless).next::<Command>().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let nonsense = &b"{\"stop\":{}}\n"[..];
        Messages::new(nonsense).next::<Command>().await.unwrap_err();
        let long = Event::Refused {
            id: 1,
            refusal: Refusal {
                cause: "too long".to_owned(),
                detail: "x".repeat(MESSAGE_MAX),
            },
        };
        encode(&long).unwrap_err();
    }
}
