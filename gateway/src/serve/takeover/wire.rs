//! What two processes say to each other during a takeover: lines of JSON over a unix socket, and
//! descriptors beside them.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;

/// What both must speak. Fields may be added to it; another meaning needs another number.
pub(super) const VERSION: u32 = 1;

/// Bytes of the longest line.
const LINE_MAX: usize = 256 * 1024;

/// Most descriptors that change hands.
pub(super) const DESCRIPTORS_MAX: usize = 8192;

/// Descriptors of one message; the kernel takes up to 253.
const BATCH: usize = 128;

/// Each message needs a byte to carry its descriptors.
const CARRIER: u8 = b'.';

/// Everything that is said, in this order; `Refused` at any time, by the process that runs.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Word {
    /// The new process asks.
    Hello { version: u32 },
    /// These sockets come next, group by group, and the one of takeovers last.
    Offer {
        groups: Vec<Offered>,
        /// Who says so; the socket only knows who made it, which may be one long before.
        #[serde(default)]
        process: u32,
    },
    /// The new process can serve at once those groups; it accepts nothing yet.
    Ready { served: Vec<bool> },
    /// They are the new process's alone.
    Done {},
    /// There is nothing to take over any more: whoever runs is about to end.
    Leaving {},
    /// There will be no takeover. Whoever runs goes on.
    Refused { why: String },
}

/// The sockets of one address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Offered {
    pub(super) kind: Kind,
    /// As in the configuration: its port may be 0.
    pub(super) asked: SocketAddr,
    pub(super) shared: bool,
    pub(super) sockets: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    Listener,
    Admin,
}

/// One side's end.
#[derive(Debug)]
pub(super) struct Wire {
    stream: UnixStream,
    seen: Vec<u8>,
    descriptors: Vec<OwnedFd>,
    /// Most descriptors that may come.
    expected: usize,
}

impl Wire {
    /// Takes up to that many descriptors from the other side.
    pub(super) fn new(stream: UnixStream, expected: usize) -> Wire {
        Wire {
            stream,
            seen: Vec::new(),
            descriptors: Vec::new(),
            expected,
        }
    }

    pub(super) async fn say(&mut self, word: &Word) -> io::Result<()> {
        let mut line = serde_json::to_vec(word)?;
        line.push(b'\n');
        if line.len() > LINE_MAX {
            return Err(io::Error::other("too many listeners for one message"));
        }
        self.stream.write_all(&line).await
    }

    /// # Errors
    /// `UnexpectedEof` when the other side has gone, `InvalidData` for what is no line of ours.
    pub(super) async fn hear(&mut self) -> io::Result<Word> {
        loop {
            if let Some(end) = self.seen.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.seen.drain(..=end).collect();
                return serde_json::from_slice(&line).map_err(garbage);
            }
            if self.seen.len() > LINE_MAX {
                return Err(garbage("a line without end"));
            }
            self.fill().await?;
        }
    }

    pub(super) async fn pass(&mut self, descriptors: &[OwnedFd]) -> io::Result<()> {
        for batch in descriptors.chunks(BATCH) {
            let batch: Vec<_> = batch.iter().map(AsFd::as_fd).collect();
            let send = || {
                let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(BATCH))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                if !control.push(SendAncillaryMessage::ScmRights(&batch)) {
                    return Err(io::Error::other("descriptors do not fit a message"));
                }
                let carrier = [IoSlice::new(&[CARRIER])];
                sendmsg(&self.stream, &carrier, &mut control, SendFlags::NOSIGNAL)?;
                Ok(())
            };
            self.stream.async_io(Interest::WRITABLE, send).await?;
        }
        Ok(())
    }

    /// Exactly that many descriptors.
    pub(super) async fn take(&mut self, count: usize) -> io::Result<Vec<OwnedFd>> {
        let carriers = count.div_ceil(BATCH);
        while self.descriptors.len() < count || self.seen.len() < carriers {
            self.fill().await?;
        }
        let carried = self.seen.drain(..carriers).all(|byte| byte == CARRIER);
        if !carried || self.descriptors.len() != count {
            return Err(garbage("descriptors that were not announced"));
        }
        Ok(std::mem::take(&mut self.descriptors))
    }

    /// After this nothing more arrives: what the other side says fails there, unless it has been
    /// said. Whatever that is can still be heard.
    pub(super) fn close_ears(&self) -> io::Result<()> {
        rustix::net::shutdown(&self.stream, rustix::net::Shutdown::Read)?;
        Ok(())
    }

    async fn fill(&mut self) -> io::Result<()> {
        let mut bytes = [0; 4096];
        let (stream, descriptors) = (&self.stream, &mut self.descriptors);
        let receive = || {
            let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(BATCH))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut target = [IoSliceMut::new(&mut bytes)];
            let flags = RecvFlags::CMSG_CLOEXEC;
            let received = recvmsg(stream, &mut target, &mut control, flags)?;
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(more) = message {
                    descriptors.extend(more);
                }
            }
            match received.flags.contains(ReturnFlags::CTRUNC) {
                true => Err(io::Error::other("descriptors were lost: too many are open")),
                false => Ok(received.bytes),
            }
        };
        let count = stream.async_io(Interest::READABLE, receive).await?;
        if self.descriptors.len() > self.expected {
            self.descriptors.clear();
            return Err(garbage("more descriptors than were announced"));
        }
        self.seen.extend_from_slice(&bytes[..count]);
        match count {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

fn garbage(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn pair(expected: usize) -> (Wire, Wire) {
        let (one, other) = UnixStream::pair().unwrap();
        (Wire::new(one, 0), Wire::new(other, expected))
    }

    fn files(count: usize) -> (tempfile::TempDir, Vec<OwnedFd>) {
        let directory = tempfile::tempdir().unwrap();
        let make = |index: usize| {
            let path = directory.path().join(index.to_string());
            OwnedFd::from(std::fs::File::create(path).unwrap())
        };
        let files = (0..count).map(make).collect();
        (directory, files)
    }

    fn number(descriptor: OwnedFd) -> u64 {
        std::fs::File::from(descriptor).metadata().unwrap().ino()
    }

    #[tokio::test]
    async fn words_and_descriptors_arrive_in_order() {
        for count in [1, BATCH, BATCH + 1, 3 * BATCH + 5] {
            let (mut from, mut to) = pair(count);
            let (_directory, files) = files(count);
            let told = async {
                from.say(&Word::Hello { version: 7 }).await.unwrap();
                from.pass(&files).await.unwrap();
                from.say(&Word::Done {}).await.unwrap();
            };
            let heard = async {
                assert_eq!(to.hear().await.unwrap(), Word::Hello { version: 7 });
                let taken = to.take(count).await.unwrap();
                assert_eq!(to.hear().await.unwrap(), Word::Done {});
                taken
            };
            let ((), taken) = tokio::join!(told, heard);
            let taken: Vec<_> = taken.into_iter().map(number).collect();
            let files: Vec<_> = files.into_iter().map(number).collect();
            assert_eq!(taken, files);
        }
    }

    #[tokio::test]
    async fn garbage_and_uninvited_descriptors_are_errors() {
        let (mut from, mut to) = pair(0);
        from.stream
            .write_all(b"GET / HTTP/1.1\r\n\r\n")
            .await
            .unwrap();
        let error = to.hear().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);

        let (mut from, mut to) = pair(0);
        let (_directory, files) = files(2);
        from.pass(&files).await.unwrap();
        let error = to.hear().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(to.descriptors.is_empty());

        let (mut from, mut to) = pair(0);
        let endless = async {
            let block = [b'x'; 4096];
            while from.stream.write_all(&block).await.is_ok() {}
        };
        let heard = async {
            let error = to.hear().await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            assert!(to.seen.len() <= LINE_MAX + 4096);
            drop(to);
        };
        tokio::join!(endless, heard);
    }

    #[tokio::test]
    async fn later_fields_are_no_trouble() {
        let (mut from, mut to) = pair(0);
        let line = b"{\"hello\":{\"version\":1,\"more\":[1,2]}}\n";
        from.stream.write_all(line).await.unwrap();
        assert_eq!(to.hear().await.unwrap(), Word::Hello { version: 1 });
    }

    #[tokio::test]
    async fn who_stops_listening_hears_what_was_said_and_lets_nothing_more_be_said() {
        let (mut from, mut to) = pair(0);
        from.say(&Word::Done {}).await.unwrap();
        to.close_ears().unwrap();
        assert!(from.say(&Word::Done {}).await.is_err());
        assert_eq!(to.hear().await.unwrap(), Word::Done {});
        assert!(to.hear().await.is_err());
    }
}
