//! The side of the new process: asks whoever runs for its sockets.

use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::timeout;

use super::hatch::Hatch;
use super::wire::{DESCRIPTORS_MAX, Kind, VERSION, Wire, Word};
use super::{STEP, TakeoverError, is_our_user};
use crate::serve::listeners::Group;

/// How long the process that runs may take until it hands its sockets over: it may be busy with
/// another one that asked before.
const OFFER_WITHIN: Duration = Duration::from_secs(70);

/// How often it is asked, if it ends meanwhile.
const ASKED_MAX: usize = 3;

/// Between two times: its sockets are closed one after the other.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// How long the process that ran may take to stop accepting, which is a matter of a turn of its
/// workers' loops. A worker that is stuck accepts nobody either.
const CLOSED_WITHIN: Duration = Duration::from_secs(2);

/// A takeover that has begun. Dropped before its end, the other process goes on.
#[derive(Debug)]
pub struct Takeover {
    wire: Wire,
    path: PathBuf,
    hatch: UnixListener,
    groups: Vec<(Kind, Option<Group>)>,
}

impl Takeover {
    /// Asks at `path`; `None` if nobody is there, or no longer, or just leaves.
    ///
    /// # Errors
    /// Somebody is there who does not hand over, or not to us.
    pub async fn begin(path: &Path) -> Result<Option<Takeover>, TakeoverError> {
        for _ in 1..ASKED_MAX {
            match Takeover::ask(path).await {
                Err(TakeoverError::Broken(error)) if is_gone(&error) => {
                    tracing::warn!(%error, "the process that was to be taken over has fallen silent");
                    tokio::time::sleep(ASK_AGAIN).await;
                }
                asked => return asked,
            }
        }
        Takeover::ask(path).await
    }

    async fn ask(path: &Path) -> Result<Option<Takeover>, TakeoverError> {
        let stream = match UnixStream::connect(path).await {
            Ok(stream) => stream,
            Err(error) if is_nobody(&error) => return Ok(None),
            Err(error) => return Err(TakeoverError::Broken(error)),
        };
        let peer = stream.peer_cred().map_err(TakeoverError::Broken)?;
        if !is_our_user(&peer) {
            return Err(TakeoverError::Foreign(peer.uid()));
        }
        let mut wire = Wire::new(stream, DESCRIPTORS_MAX);
        let hello = Word::Hello { version: VERSION };
        timed(STEP, wire.say(&hello)).await?;
        let groups = match timed(OFFER_WITHIN, wire.hear()).await? {
            Word::Offer { groups, process } => {
                tracing::info!(process, "taking over");
                groups
            }
            Word::Leaving {} => return Ok(None),
            Word::Refused { why } => return Err(TakeoverError::Refused(why)),
            _ => return Err(TakeoverError::Broken(out_of_turn())),
        };
        let count = |sum: usize, more: usize| sum.checked_add(more);
        let count = groups
            .iter()
            .try_fold(1, |sum, group| count(sum, group.sockets))
            .filter(|count| *count <= DESCRIPTORS_MAX)
            .ok_or_else(|| TakeoverError::Broken(out_of_turn()))?;
        let mut sockets = timed(STEP, wire.take(count)).await?;
        let hatch = sockets.pop().map(UnixListener::from);
        let hatch = hatch.ok_or_else(|| TakeoverError::Broken(out_of_turn()))?;
        let mut sockets = sockets.into_iter();
        let mut adopted = Vec::new();
        for offered in groups {
            let mine: Vec<TcpListener> = sockets
                .by_ref()
                .take(offered.sockets)
                .map(|socket: OwnedFd| socket.into())
                .collect();
            let group = Group::adopt(offered.asked, mine, offered.shared);
            let group = group.map_err(TakeoverError::Broken)?;
            adopted.push((offered.kind, Some(group)));
        }
        Ok(Some(Takeover {
            wire,
            path: path.to_owned(),
            hatch,
            groups: adopted,
        }))
    }

    /// The sockets of an address, if they were handed over: those where it is, or, port 0, those of
    /// the first that was asked for in the same way.
    pub fn find(&mut self, kind: Kind, asked: std::net::SocketAddr) -> Option<Group> {
        let place = |fits: &dyn Fn(&Group) -> bool| {
            self.groups
                .iter()
                .position(|(of, group)| *of == kind && group.as_ref().is_some_and(fits))
        };
        let place = place(&|group| group.address() == asked).or_else(|| {
            let same = place(&|group| group.asked() == asked);
            same.filter(|_| asked.port() == 0)
        })?;
        self.groups[place].1.take()
    }

    /// Says that everything is ready that [`find`](Takeover::find) gave; then it is this process's
    /// alone, and so is the socket for the next takeover. Nothing may have been accepted before.
    /// Returns when the other process accepts nothing any more, so that whoever is told that this one
    /// is ready meets this one.
    ///
    /// # Errors
    /// The other process goes on, so this one must not.
    pub async fn finish(mut self) -> Result<Hatch, TakeoverError> {
        let served = self.groups.iter().map(|(_, group)| group.is_none());
        let served = served.collect();
        match timed(STEP, self.wire.say(&Word::Ready { served })).await {
            // Gone, or it has refused meanwhile: that can still be heard.
            Err(TakeoverError::Broken(error)) if is_gone(&error) => {}
            said => said?,
        }
        let done = match timeout(STEP, self.wire.hear()).await {
            Ok(done) => done,
            Err(_late) => {
                // It says its word before or never.
                self.wire.close_ears().map_err(TakeoverError::Broken)?;
                match self.wire.hear().await {
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                        return Err(TakeoverError::Broken(io::ErrorKind::TimedOut.into()));
                    }
                    done => done,
                }
            }
        };
        match done {
            // It hangs up when its workers have left their sockets.
            Ok(Word::Done {}) => drop(timeout(CLOSED_WITHIN, self.wire.hear()).await),
            Ok(Word::Refused { why }) => return Err(TakeoverError::Refused(why)),
            Ok(_) => return Err(TakeoverError::Broken(out_of_turn())),
            // Alive, it would have said why.
            Err(error) if is_gone(&error) => {
                tracing::warn!("the process that was to be taken over has ended by itself");
                // It may have removed the socket's place, or be about to.
                return Hatch::open(&self.path).map_err(TakeoverError::Broken);
            }
            Err(error) => return Err(TakeoverError::Broken(error)),
        }
        Hatch::inherited(self.hatch, &self.path).map_err(TakeoverError::Broken)
    }
}

/// A step of the conversation.
async fn timed<T>(
    limit: Duration,
    step: impl Future<Output = io::Result<T>>,
) -> Result<T, TakeoverError> {
    match timeout(limit, step).await {
        Ok(result) => result.map_err(TakeoverError::Broken),
        Err(late) => Err(TakeoverError::Broken(late.into())),
    }
}

fn is_nobody(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, NotFound};
    matches!(error.kind(), NotFound | ConnectionRefused)
}

fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

fn out_of_turn() -> io::Error {
    let what = "the process that runs spoke out of turn";
    io::Error::new(io::ErrorKind::InvalidData, what)
}
