//! What the connections of one thread share.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore};

use super::io::Io;
use super::pace::{Pace, Seat};
use super::plan::Plan;
use super::tally::{Answer, Fault, Tally, Ticket};
use super::watch::{Watch, Watches};

/// Bytes read at once. One buffer serves all connections of a thread: what is read is counted
/// before anything else runs.
const READ_MAX: usize = 128 * 1024;

/// Connections being made at once by all threads, unless each request makes its own: more would
/// overflow the target's backlog, and wait a second for the kernel to try again.
const CONNECTING_MAX: usize = 128;

/// Waiting before a failed connection is made again: doubled from the first to the last.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// What the threads of a run share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Send no more.
    pub(super) stop: AtomicBool,
    /// Connections of `--hold` that have had their answer, or failed.
    pub(super) settled: AtomicUsize,
    /// All of them have: close.
    pub(super) release: AtomicBool,
}

/// What the connections of one thread share.
pub(super) struct Job {
    pub(super) plan: Arc<Plan>,
    pub(super) shared: Arc<Shared>,
    pub(super) pace: Pace,
    pub(super) tally: RefCell<Tally>,
    pub(super) watches: Watches,
    pub(super) buffer: RefCell<Box<[u8]>>,
    pub(super) connecting: Semaphore,
    /// Connections of `--hold` may close.
    pub(super) released: Notify,
    /// All connections have ended.
    pub(super) ended: Cell<bool>,
    /// The host to ask for next.
    host: Cell<usize>,
    /// Connections made so far.
    turn: Cell<usize>,
}

impl Job {
    pub(super) fn new(
        plan: Arc<Plan>,
        shared: Arc<Shared>,
        index: usize,
        pace: Pace,
        tally: Tally,
    ) -> Self {
        let connecting = (CONNECTING_MAX / plan.threads).max(1);
        Self {
            host: Cell::new(index * plan.hosts.len() / plan.threads),
            turn: Cell::new(index * plan.connections / plan.threads),
            plan,
            shared,
            pace,
            tally: RefCell::new(tally),
            watches: Watches::default(),
            buffer: RefCell::new(vec![0; READ_MAX].into()),
            connecting: Semaphore::new(connecting),
            released: Notify::new(),
            ended: Cell::new(false),
        }
    }

    /// The host of the next request.
    pub(super) fn next_host(&self) -> usize {
        let host = self.host.get();
        let next = host + 1;
        self.host.set(if next < self.plan.hosts.len() {
            next
        } else {
            0
        });
        host
    }

    /// A connection to the target.
    ///
    /// # Errors
    /// It cannot be made, or takes too long.
    pub(super) async fn connect(&self, watch: &Watch) -> Result<Io, Fault> {
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        // Waiting for our own limit is not the target's time, and must not look like it. The
        // semaphore is never closed.
        let _permit = match self.plan.new_connection {
            true => None,
            false => self.connecting.acquire().await.ok(),
        };
        watch
            .limit(Instant::now(), Io::connect(&self.plan, turn))
            .await
            .unwrap_or_else(|_| Err(Fault::Connect("connecting took too long".to_owned())))
    }

    /// Counts how a request ended; whether it was an answer.
    pub(super) fn count(
        &self,
        ticket: &Ticket,
        now: Instant,
        outcome: Result<Answer, Fault>,
        up: u64,
    ) -> bool {
        let mut tally = self.tally.borrow_mut();
        match outcome {
            Ok(answer) => {
                tally.answer(ticket, now, answer, up);
                true
            }
            Err(fault) => {
                tally.fault(ticket, fault, up);
                false
            }
        }
    }

    /// Ends what takes too long, and everything when the run is to stop.
    pub(super) fn sweep(&self, now: Instant) {
        self.watches.sweep(now, self.plan.timeout);
        if self.shared.stop.load(Ordering::Relaxed) && !self.pace.over() {
            self.pace.stop();
        }
        if self.shared.release.load(Ordering::Relaxed) {
            self.released.notify_waiters();
        }
    }
}

/// One sender: where it waits for requests, and the limit over what it does.
pub(super) struct Sender {
    pub(super) job: Rc<Job>,
    pub(super) seat: Rc<Seat>,
    pub(super) watch: Rc<Watch>,
    /// A request that a lost connection could not take.
    taken: Cell<Option<Ticket>>,
    backoff: Cell<Duration>,
}

impl Sender {
    pub(super) fn new(job: &Rc<Job>) -> Self {
        Self {
            job: job.clone(),
            seat: Rc::default(),
            watch: job.watches.watch(),
            taken: Cell::new(None),
            backoff: Cell::new(BACKOFF.0),
        }
    }

    /// Waits for the next request to send; none when the run is over.
    pub(super) async fn next(&self, now: Instant) -> Option<Ticket> {
        match self.taken.take() {
            Some(ticket) => Some(ticket),
            None => self.job.pace.next(&self.seat, now).await,
        }
    }

    /// Ends the wait for a request: its connection has gone.
    pub(super) fn unpark(&self) {
        self.job.pace.unpark(&self.seat);
    }

    /// Keeps a request for another connection.
    pub(super) fn give_back(&self, ticket: Ticket) {
        self.taken.set(Some(ticket));
    }

    /// Whether there may be another request to send.
    pub(super) fn has_more(&self) -> bool {
        self.taken.get().is_some() || !self.job.pace.over()
    }

    /// Waits before trying once more, longer each time until [`Sender::well`].
    pub(super) async fn back_off(&self) {
        let time = self.backoff.get();
        self.backoff.set((time * 2).min(BACKOFF.1));
        tokio::time::sleep(time).await;
    }

    /// The target answers.
    pub(super) fn well(&self) {
        self.backoff.set(BACKOFF.0);
    }
}
