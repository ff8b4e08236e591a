//! One thread of load: a runtime of its own, and a task per connection.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, LocalOptions};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{MissedTickBehavior, interval};

use super::alarm::Alarm;
use super::drive::Link;
use super::job::{Job, Sender, Shared};
use super::pace::{Pace, Schedule};
use super::plan::{Plan, Protocol};
use super::progress::Board;
use super::tally::Tally;
use super::{drive, http1, http2, websocket};

/// Between two looks at all time limits: a tenth of the limit, within these.
const SWEEP: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));

/// What a thread is started with.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) index: usize,
    pub(super) plan: Arc<Plan>,
    pub(super) shared: Arc<Shared>,
    pub(super) schedule: Schedule,
    /// Where to show what has been counted so far, if somebody looks.
    pub(super) board: Option<Board>,
}

/// Carries this thread's share of the load; what it counted.
///
/// # Errors
/// The event loop cannot be set up.
pub(super) fn run(seat: Seat) -> io::Result<Tally> {
    Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())?
        .block_on(carry(seat))
}

async fn carry(seat: Seat) -> io::Result<Tally> {
    let Seat {
        index,
        plan,
        shared,
        schedule,
        board,
    } = seat;
    let pace = Pace::new(&plan, index, schedule);
    let tally = Tally::new(schedule.measured, schedule.end);
    let job = Rc::new(Job::new(plan, shared, index, pace, tally));
    let alarm = Alarm::new()?;
    let driver = job.clone();
    let arrivals = spawn_local(async move { driver.pace.drive(&alarm).await });
    spawn_local(sweep(job.clone(), board));
    for task in connections(&job, index) {
        // A task that panicked has said so; its thread is not worth a report.
        task.await.map_err(io::Error::other)?;
    }
    arrivals.abort();
    job.ended.set(true);
    let mut tally = job.tally.borrow().clone();
    tally.missed = job.pace.missed();
    Ok(tally)
}

/// Looks at the time limits now and then.
async fn sweep(job: Rc<Job>, board: Option<Board>) {
    let every = (job.plan.timeout / 10).clamp(SWEEP.0, SWEEP.1);
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !job.ended.get() {
        ticks.tick().await;
        job.sweep(Instant::now());
        if let Some(board) = &board
            && let Ok(mut board) = board.lock()
        {
            board.clone_from(&job.tally.borrow());
        }
    }
}

/// Starts this thread's share of the connections.
fn connections(job: &Rc<Job>, index: usize) -> Vec<JoinHandle<()>> {
    let plan = &job.plan;
    let share =
        plan.connections / plan.threads + usize::from(index < plan.connections % plan.threads);
    match plan.protocol {
        Protocol::Http1 => {
            let requests = Rc::new(http1::Requests::new(plan));
            let start = |_| start::<http1::Connection>(job, &requests);
            (0..share).map(start).collect()
        }
        Protocol::WebSocket => {
            let requests = Rc::new(websocket::Requests::new(plan));
            let start = |_| start::<websocket::Connection>(job, &requests);
            (0..share).map(start).collect()
        }
        Protocol::Http2 => {
            let requests = Rc::new(http2::Requests::new(plan));
            let start = |_| match plan.streams {
                1 => start::<http2::Connection>(job, &requests),
                streams => {
                    let senders = (0..streams).map(|_| Sender::new(job)).collect();
                    spawn_local(http2::keep_alive(senders, requests.clone()))
                }
            };
            (0..share).map(start).collect()
        }
    }
}

/// Starts one connection with one request at a time.
fn start<L: Link + 'static>(job: &Rc<Job>, requests: &Rc<L::Requests>) -> JoinHandle<()> {
    let sender = Sender::new(job);
    let requests = requests.clone();
    if job.plan.hold {
        spawn_local(drive::hold::<L>(sender, requests))
    } else if job.plan.new_connection {
        spawn_local(drive::new_connections::<L>(sender, requests))
    } else {
        spawn_local(drive::keep_alive::<L>(sender, requests))
    }
}
