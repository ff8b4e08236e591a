//! A worker's thread: its event loop, its accept loops, its housekeeping, its way out.

use std::net::TcpListener;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{oneshot, watch};
use tokio::task::spawn_local;
use tokio::time::Instant;

use super::accept::Door;
use super::drain::{IDLE_AFTER_TAKEOVER, LAST_WORDS, Phase};
use super::takeover::HandedOver;
use super::worker::{Shared, Worker};
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
    /// Set before [`Phase::Closing`], if another process takes over.
    pub handed_over: Arc<OnceLock<HandedOver>>,
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
        handed_over,
    } = seat;
    let worker = Worker::new(index, &shared, metrics, log);
    let timers = worker.timers.clone();
    spawn_local(async move { timers.drive().await });
    spawn_local(follow(worker.clone()));
    spawn_local(keep_house(worker.clone()));
    let door = Rc::new(Door::new(worker.clone(), handed_over.clone()));
    let mut accepting = Vec::new();
    for (index, listener) in listeners {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let accept = door.clone().accept(listener, index, phase.clone());
        accepting.push(spawn_local(accept));
    }
    // Nobody listens when the process ends at once.
    let _heard = poised.send(());
    // The sender outlives the workers; were it gone, draining is the right thing too.
    drop(phase.wait_for(|phase| *phase >= Phase::Closing).await);
    if handed_over.get().is_some() {
        worker.idle_while_closing.set(IDLE_AFTER_TAKEOVER);
    }
    worker.phase.set(Phase::Closing);
    for task in accepting {
        let _ended = task.await;
    }
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

async fn keep_house(worker: Rc<Worker>) {
    let mut ticks = tokio::time::interval(HOUSEKEEPING);
    let mut wall = Instant::now();
    let mut busy = cpu_time();
    while worker.phase.get() != Phase::Ended {
        ticks.tick().await;
        worker.pool.sweep(worker.tick());
        worker.live.sweep();
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
