//! Accepting connections: one loop per listener, who is turned away, and what happens when there are
//! no descriptors left.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::spawn_local;
use tokio::time::Instant;

use super::arrival::welcome;
use super::drain::Phase;
use super::listeners::{BACKLOG, bound_queue};
use super::worker::Worker;
use crate::memory::Level;
use crate::refusal::TurnedAway;

/// How long an accept loop rests after an error that more accepting would only repeat.
const REST: Duration = Duration::from_millis(50);

/// How often the log says that connections are turned away, for each reason.
const COMPLAIN_EVERY: Duration = Duration::from_secs(1);

/// Where one worker's connections come in.
pub(crate) struct Door {
    worker: Rc<Worker>,
    /// Set before the listeners close, if another process takes over: of each, whether it goes on
    /// with its sockets.
    handed_over: Arc<OnceLock<Vec<bool>>>,
    complaints: [Complaint; TurnedAway::ALL.len()],
    failures: Complaint,
}

impl Door {
    pub(crate) fn new(worker: Rc<Worker>, handed_over: Arc<OnceLock<Vec<bool>>>) -> Door {
        Door {
            worker,
            handed_over,
            complaints: Default::default(),
            failures: Complaint::default(),
        }
    }

    /// Accepts until the listeners close, then takes what the kernel has already completed: nobody
    /// whose connection was established is turned away because of that. Where another process goes
    /// on with the same socket, those who wait in it are that one's.
    pub(crate) async fn accept(
        self: Rc<Self>,
        listener: TcpListener,
        index: usize,
        mut phase: watch::Receiver<Phase>,
    ) {
        if phase
            .wait_for(|phase| *phase >= Phase::Serving)
            .await
            .is_err()
        {
            // This process will never serve. Who waits in the sockets it was given is another's.
            return;
        }
        let mut closing = pin!(phase.wait_for(|phase| *phase >= Phase::Closing));
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = closing.as_mut() => break,
            };
            match accepted {
                Ok((stream, address)) => self.admit(stream, address, index),
                Err(error) if is_about_one_connection(&error) => {}
                Err(error) => {
                    self.failed(&error, index);
                    if self.may_turn_away(&error) {
                        continue;
                    }
                    tokio::select! {
                        () = tokio::time::sleep(REST) => {}
                        _ = closing.as_mut() => break,
                    }
                }
            }
        }
        let handed_over = self.handed_over.get();
        if handed_over.is_some_and(|listeners| listeners.get(index) == Some(&true)) {
            return;
        }
        if let Err(error) = self.accept_rest(listener, index) {
            self.failed(&error, index);
        }
    }

    /// Asks the kernel itself until it has no more: the event loop may not have heard of all of them
    /// yet, and lets a task take only so many at once. Who comes meanwhile, while others are taken,
    /// is taken too, but not for ever.
    fn accept_rest(&self, listener: TcpListener, index: usize) -> io::Result<()> {
        let listener = listener.into_std()?;
        for _ in 0..=BACKLOG {
            match listener.accept() {
                Ok((stream, address)) => {
                    stream.set_nonblocking(true)?;
                    self.admit(TcpStream::from_std(stream)?, address, index);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if is_about_one_connection(&error) => {}
                // They are turned away then, and counted, which is more than a reset tells.
                Err(error) if self.may_turn_away(&error) => self.failed(&error, index),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether descriptors had run out, and there are a few now for turning connections away.
    fn may_turn_away(&self, error: &io::Error) -> bool {
        is_out_of_descriptors(error) && self.worker.shared.census.run_dry()
    }

    fn admit(&self, stream: TcpStream, address: SocketAddr, listener: usize) {
        let entered = match self.worker.is_short_of_memory(Level::Cutting) {
            true => Err(TurnedAway::Memory),
            false => self.worker.shared.census.enter(listener),
        };
        match entered {
            Ok(entry) => {
                if self.worker.is_short_of_memory(Level::Shrinking) {
                    // The one that cannot be bounded is no worse than those of before.
                    let _best_effort = bound_queue(&SockRef::from(&stream));
                }
                self.worker.grew();
                let serving = welcome(self.worker.clone(), stream, address, listener, entry);
                spawn_local(serving);
            }
            Err(why) => {
                // Before it hears: whoever looks then finds it counted.
                self.refused(why, listener);
                drop(stream);
            }
        }
    }

    fn refused(&self, why: TurnedAway, listener: usize) {
        let metrics = &self.worker.metrics;
        metrics.connection_refused(listener, why);
        let complaint = &self.complaints[why as usize];
        if let Some(count) = complaint.is_due() {
            let listener = metrics.listener(listener);
            let why = why.word();
            tracing::warn!(listener, why, count, "connections are turned away");
        }
    }

    fn failed(&self, error: &io::Error, listener: usize) {
        let metrics = &self.worker.metrics;
        metrics.accept_failed(listener);
        if let Some(count) = self.failures.is_due() {
            let listener = metrics.listener(listener);
            tracing::warn!(listener, %error, count, "cannot accept connections");
        }
    }
}

/// Something that is said once in a while, however often it happens.
#[derive(Debug, Default)]
struct Complaint {
    said: Cell<Option<Instant>>,
    count: Cell<u64>,
}

impl Complaint {
    /// It happened once more: how often since it was last said, if it is time to say so.
    fn is_due(&self) -> Option<u64> {
        let count = self.count.get() + 1;
        let now = Instant::now();
        let recent = self.said.get().is_some_and(|at| now - at < COMPLAIN_EVERY);
        self.count.set(if recent { count } else { 0 });
        if recent {
            return None;
        }
        self.said.set(Some(now));
        Some(count)
    }
}

/// The peer gave up before we accepted: the next connection is not concerned.
fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}

/// Neither this process nor, perhaps, any other can have another descriptor.
pub(crate) fn is_out_of_descriptors(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let number = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(number, Some(Errno::MFILE | Errno::NFILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_complaint_is_made_once_a_second_and_says_how_often() {
        let complaint = Complaint::default();
        assert_eq!(complaint.is_due(), Some(1));
        for _ in 0..10 {
            assert_eq!(complaint.is_due(), None);
        }
        tokio::time::advance(COMPLAIN_EVERY).await;
        assert_eq!(complaint.is_due(), Some(11));
        assert_eq!(complaint.is_due(), None);
    }
}
