//! A worker's thread: its event loop, its accept loops, its housekeeping, its way out.

use std::net::TcpListener;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::accept::Door;
use super::drain::{IDLE_AFTER_TAKEOVER, LAST_WORDS, Phase};
use super::worker::{Shared, Worker};
use crate::memory::Level;
use crate::observe::access_log::AccessWriter;
use crate::observe::metrics::WorkerMetrics;

/// How often a worker tidies up.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// Everything a worker's thread is started with.
#[derive(Debug)]
pub struct Seat {
    pub index: usize,
    pub shared: Arc<Shared>,
    /// Sockets, each with the place of its listener among the settings'.
    pub listeners: Vec<(usize, TcpListener)>,
    pub metrics: WorkerMetrics,
    pub log: AccessWriter,
    pub phase: watch::Receiver<Phase>,
    /// Told when it could serve at once.
    pub poised: oneshot::Sender<()>,
    /// Told when nothing is accepted any more.
    pub closed: oneshot::Sender<()>,
    /// Set before [`Phase::Closing`], if another process takes over: of each listener, whether it goes
    /// on with its sockets.
    pub handed_over: Arc<OnceLock<Vec<bool>>>,
}

/// Runs a worker until it has drained.
///
/// # Errors
/// The event loop or a listening socket cannot be set up.
pub fn run(seat: Seat) -> std::io::Result<()> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())?;
    runtime.block_on(work(seat))
}

async fn work(seat: Seat) -> std::io::Result<()> {
    let Seat {
        index,
        shared,
        listeners,
        metrics,
        log,
        mut phase,
        poised,
        closed,
        handed_over,
    } = seat;
    let worker = Worker::new(index, &shared, metrics, log);
    let timers = worker.timers.clone();
    let mut duties = JoinSet::new();
    duties.spawn_local(async move { timers.drive().await });
    duties.spawn_local(follow(worker.clone()));
    duties.spawn_local(heed(worker.clone()));
    duties.spawn_local(keep_house(worker.clone()));
    let door = Rc::new(Door::new(worker.clone(), handed_over.clone()));
    let mut accepting = JoinSet::new();
    for (index, listener) in listeners {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let accept = door.clone().accept(listener, index, phase.clone());
        accepting.spawn_local(accept);
    }
    // Nobody listens when the process ends at once.
    let _heard = poised.send(());
    tokio::select! {
        biased;
        // The sender outlives the workers; were it gone, draining is the right thing too.
        _ = phase.wait_for(|phase| *phase >= Phase::Closing) => {}
        error = lost(&mut duties, &mut accepting) => return Err(error),
    }
    if handed_over.get().is_some() {
        worker.idle_while_closing.set(IDLE_AFTER_TAKEOVER);
    }
    worker.phase.set(Phase::Closing);
    while accepting.join_next().await.is_some() {}
    // Nobody listens unless another process waits for it.
    let _heard = closed.send(());
    worker.timers.wake_idle();
    tokio::select! {
        () = emptied(&worker) => {}
        _ = phase.wait_for(|phase| *phase == Phase::Ended) => {
            worker.phase.set(Phase::Ended);
            worker.timers.wake_all();
            let _cut = tokio::time::timeout(LAST_WORDS, emptied(&worker)).await;
        }
    }
    let left = worker.connections.get();
    if left > 0 {
        tracing::warn!(
            worker = index,
            connections = left,
            "cut what was left at the end of the drain"
        );
    }
    Ok(())
}

/// Returns when a task has panicked that should live as long as its worker: without it the worker
/// would seem to live and serve nobody.
async fn lost(duties: &mut JoinSet<()>, accepting: &mut JoinSet<()>) -> std::io::Error {
    loop {
        let ended = tokio::select! {
            Some(ended) = duties.join_next() => ended,
            Some(ended) = accepting.join_next() => ended,
            else => std::future::pending().await,
        };
        // What has come to its end has nothing more to look after.
        if let Err(error) = ended {
            return std::io::Error::other(format!("a task of its own was lost: {error}"));
        }
    }
}

/// Returns when no connection is being served.
async fn emptied(worker: &Worker) {
    while worker.connections.get() > 0 {
        worker.emptied.notified().await;
    }
}

/// Takes up every new version at once, so that idle workers pin no old one.
async fn follow(worker: Rc<Worker>) {
    let mut versions = worker.shared.published.subscribe();
    while versions.changed().await.is_ok() {
        worker.live.refresh();
    }
}

/// Gives up what there is no memory for.
#[expect(clippy::infinite_loop, reason = "it is dropped with its worker")]
async fn heed(worker: Rc<Worker>) {
    let mut memory = worker.shared.memory.clone();
    loop {
        worker.heed(memory.changed().await);
    }
}

async fn keep_house(worker: Rc<Worker>) {
    let mut ticks = tokio::time::interval(HOUSEKEEPING);
    let mut wall = Instant::now();
    let mut busy = cpu_time();
    while worker.phase.get() != Phase::Ended {
        ticks.tick().await;
        worker.pool.sweep(worker.tick());
        worker.live.sweep();
        if worker.is_short_of_memory(Level::Shrinking) {
            worker.shrink();
        }
        let (now, spent) = (Instant::now(), cpu_time());
        worker.metrics.busy(
            spent.saturating_sub(busy),
            now.saturating_duration_since(wall),
        );
        (wall, busy) = (now, spent);
    }
}

/// CPU time of this thread.
pub(super) fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(seconds, nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_duty_that_panics_is_noticed_whichever_it_is() {
        for in_duties in [true, false] {
            let (mut duties, mut accepting) = (JoinSet::new(), JoinSet::new());
            let local = tokio::task::LocalSet::new();
            for tasks in [&mut duties, &mut accepting] {
                tasks.spawn_local_on(async {}, &local);
                tasks.spawn_local_on(std::future::pending(), &local);
            }
            let faulty = if in_duties {
                &mut duties
            } else {
                &mut accepting
            };
            faulty.spawn_local_on(async { panic!("a fault") }, &local);
            let error = local.run_until(lost(&mut duties, &mut accepting)).await;
            assert!(error.to_string().contains("panicked"), "{error}");
        }
    }
}
