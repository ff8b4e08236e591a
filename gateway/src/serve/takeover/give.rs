//! The side of the process that runs: hands its sockets to whoever comes for them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time::timeout;

use super::hatch::Hatch;
use super::wire::{DESCRIPTORS_MAX, Kind, Offered, VERSION, Wire, Word};
use super::{STEP, is_our_user};
use crate::serve::drain::Phase;
use crate::serve::listeners::Group;

/// How long the new process may take from its sockets to its readiness.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Pause after `accept` failed, which is for want of descriptors or memory.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// The sockets there are to hand over. Empty once they are to be closed: what is in here keeps
/// them open.
#[derive(Clone, Debug, Default)]
pub struct Stock(Arc<Mutex<Vec<(Kind, Group)>>>);

impl Stock {
    /// Listeners come first, in their order.
    #[must_use]
    pub fn new(groups: Vec<(Kind, Group)>) -> Stock {
        Stock(Arc::new(Mutex::new(groups)))
    }

    /// Lets go of all of them.
    pub fn clear(&self) {
        let mut groups = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        groups.clear();
    }

    /// What to say of them, and copies of them.
    fn copy(&self) -> io::Result<(Vec<Offered>, Vec<OwnedFd>)> {
        let groups = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut offered, mut sockets) = (Vec::new(), Vec::new());
        for (kind, group) in groups.iter() {
            offered.push(Offered {
                kind: *kind,
                asked: group.asked(),
                shared: group.is_shared(),
                sockets: group.sockets().len(),
            });
            for socket in group.sockets() {
                sockets.push(socket.try_clone()?.into());
            }
        }
        Ok((offered, sockets))
    }
}

/// Another process takes over.
#[derive(Debug)]
pub struct HandedOver {
    /// Of each listener, in their order: whether it goes on with its sockets.
    pub listeners: Vec<bool>,
    pub farewell: Farewell,
}

/// Dropped when this process accepts no more: the other one waits for that.
#[derive(Debug)]
pub struct Farewell {
    _conversation: Wire,
}

/// Waits for the process that takes over, one after another until one has; `None` if a drain
/// begins before.
///
/// # Errors
/// The socket is of no use to the event loop.
pub async fn serve(
    hatch: Hatch,
    stock: Stock,
    mut phase: watch::Receiver<Phase>,
) -> io::Result<Option<HandedOver>> {
    let Hatch { listener, place } = hatch;
    let listener = UnixListener::from_std(listener)?;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = phase.wait_for(|phase| *phase >= Phase::Announced) => return Ok(None),
        };
        let failed = match accepted {
            Ok((stream, _)) => match hand_over(stream, &stock, &listener).await {
                Ok(handed) => {
                    place.leave();
                    return Ok(Some(handed));
                }
                Err(error) => error,
            },
            Err(error) => {
                tokio::time::sleep(ACCEPT_REST).await;
                error
            }
        };
        tracing::warn!(error = %failed, "no takeover: this process goes on");
    }
}

/// One conversation. Whatever goes wrong in it changes nothing here.
async fn hand_over(
    stream: UnixStream,
    stock: &Stock,
    hatch: &UnixListener,
) -> io::Result<HandedOver> {
    let peer = stream.peer_cred()?;
    if !is_our_user(&peer) {
        let what = format!("user {} asked for the sockets", peer.uid());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
    }
    let mut wire = Wire::new(stream, 0);
    match converse(&mut wire, stock, hatch).await {
        Ok(listeners) => {
            tracing::info!(process = peer.pid(), "another process serves from now on");
            let farewell = Farewell {
                _conversation: wire,
            };
            Ok(HandedOver {
                listeners,
                farewell,
            })
        }
        Err(error) => {
            let why = error.to_string();
            // It may have gone.
            drop(timeout(STEP, wire.say(&Word::Refused { why })).await);
            Err(error)
        }
    }
}

/// Of each listener, whether the other process goes on with it.
async fn converse(wire: &mut Wire, stock: &Stock, hatch: &UnixListener) -> io::Result<Vec<bool>> {
    match timeout(STEP, wire.hear()).await? {
        Ok(Word::Hello { version: VERSION }) => {}
        Ok(Word::Hello { version }) => {
            let what = format!("it speaks version {version}, this process version {VERSION}");
            return Err(io::Error::other(what));
        }
        Ok(_) => return Err(out_of_turn()),
        Err(error) => return Err(error),
    }
    let (groups, mut sockets) = stock.copy()?;
    if groups.is_empty() {
        timeout(STEP, wire.say(&Word::Leaving {})).await??;
        return Err(io::Error::other("this process is shutting down"));
    }
    sockets.push(hatch.as_fd().try_clone_to_owned()?);
    if sockets.len() > DESCRIPTORS_MAX {
        return Err(io::Error::other("there are too many sockets"));
    }
    let kinds: Vec<_> = groups.iter().map(|group| group.kind).collect();
    timeout(STEP, async {
        let process = std::process::id();
        wire.say(&Word::Offer { groups, process }).await?;
        wire.pass(&sockets).await
    })
    .await??;
    drop(sockets);
    let served = match timeout(READY_WITHIN, wire.hear()).await {
        Ok(Ok(Word::Ready { served })) if served.len() == kinds.len() => served,
        Ok(Ok(_)) => return Err(out_of_turn()),
        Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Err(io::Error::other(
                "the new process ended before it was ready",
            ));
        }
        Ok(Err(error)) => return Err(error),
        Err(_late) => {
            let what = format!("the new process was not ready within {READY_WITHIN:?}");
            return Err(io::Error::new(io::ErrorKind::TimedOut, what));
        }
    };
    // From here on it is the other's, which serves as soon as this process accepts no more.
    timeout(STEP, wire.say(&Word::Done {})).await??;
    let all = kinds.into_iter().zip(served);
    let listeners = all.filter(|(kind, _)| *kind == Kind::Listener);
    Ok(listeners.map(|(_, served)| served).collect())
}

fn out_of_turn() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "the new process spoke out of turn",
    )
}
