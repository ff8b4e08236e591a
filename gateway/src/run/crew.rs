//! The workers' threads: started, and waited for.

use std::net::TcpListener;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use super::RunError;
use crate::observe::access_log::AccessWriter;
use crate::observe::metrics::Registry;
use crate::serve::drain::Phase;
use crate::serve::thread::{self, Seat};
use crate::serve::worker::Shared;

/// The workers' threads.
pub(super) struct Crew {
    pub(super) threads: Vec<JoinHandle<()>>,
    /// Each worker says here how it ended.
    ended: JoinSet<Result<(), String>>,
    pending: Vec<oneshot::Receiver<Result<(), String>>>,
    poised: Vec<oneshot::Receiver<()>>,
    closed: Vec<oneshot::Receiver<()>>,
    handed_over: Arc<OnceLock<Vec<bool>>>,
}

impl Crew {
    /// Starts a worker for each lot of sockets.
    pub(super) fn start(
        shared: &Arc<Shared>,
        sockets: Vec<Vec<(usize, TcpListener)>>,
        registry: &Arc<Registry>,
        writers: Vec<AccessWriter>,
        phase: &watch::Sender<Phase>,
    ) -> Result<Crew, RunError> {
        let mut crew = Crew {
            threads: Vec::new(),
            ended: JoinSet::new(),
            pending: Vec::new(),
            poised: Vec::new(),
            closed: Vec::new(),
            handed_over: Arc::default(),
        };
        for (index, (listeners, log)) in sockets.into_iter().zip(writers).enumerate() {
            let (shared, phase) = (shared.clone(), phase.subscribe());
            let registry = registry.clone();
            let (ended, end) = oneshot::channel();
            let (poised, is_poised) = oneshot::channel();
            let (closed, is_closed) = oneshot::channel();
            let handed_over = crew.handed_over.clone();
            let work = move || {
                let metrics = registry.worker(index);
                let seat = Seat {
                    index,
                    shared,
                    listeners,
                    metrics,
                    log,
                    phase,
                    poised,
                    closed,
                    handed_over,
                };
                let result = thread::run(seat).map_err(|error| error.to_string());
                // Nobody listens when the process ends at once.
                let _heard = ended.send(result);
            };
            let name = format!("worker-{index}");
            crew.threads
                .push(std::thread::Builder::new().name(name).spawn(work)?);
            crew.pending.push(end);
            crew.poised.push(is_poised);
            crew.closed.push(is_closed);
        }
        Ok(crew)
    }

    /// Waits until every worker could serve at once.
    ///
    /// # Errors
    /// One cannot.
    pub(super) async fn poised(&mut self) -> Result<(), RunError> {
        for poised in std::mem::take(&mut self.poised) {
            if poised.await.is_err() {
                let why = self.next().await.and_then(Result::err);
                return Err(RunError::Worker(
                    why.unwrap_or_else(|| "it left".to_owned()),
                ));
            }
        }
        Ok(())
    }

    /// Says, before the listeners close, with which of them another process goes on.
    pub(super) fn hand_over(&self, listeners: Vec<bool>) {
        // There is one takeover in the life of a process.
        let _first = self.handed_over.set(listeners);
    }

    /// Waits, once the listeners close, until no worker accepts any more.
    pub(super) async fn closed(&mut self) {
        for closed in std::mem::take(&mut self.closed) {
            // One that has ended accepts nothing either.
            let _closed_or_gone = closed.await;
        }
    }

    /// Waits for the next worker to end; `None` when all have.
    pub(super) async fn next(&mut self) -> Option<Result<(), String>> {
        for end in self.pending.drain(..) {
            self.ended.spawn(async move {
                end.await
                    .unwrap_or_else(|_gone| Err("it panicked".to_owned()))
            });
        }
        let ended = self.ended.join_next().await?;
        Some(ended.unwrap_or_else(|error| Err(error.to_string())))
    }
}
