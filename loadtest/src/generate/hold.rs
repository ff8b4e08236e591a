//! Connections that are held open and idle.

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::http1::{self, Requests};
use super::job::{Job, Sender, Shared};
use super::plan::Plan;

/// Between two looks at how many connections have had their answer.
const LOOK: Duration = Duration::from_millis(5);

/// Sends one request, then keeps its connection until it ends or all are let go.
pub(super) async fn http1(sender: Sender, requests: Rc<Requests>) {
    let job = &sender.job;
    let link = http1::once(&sender, &requests).await;
    job.shared.settled.fetch_add(1, Ordering::Relaxed);
    if let Some(mut link) = link {
        until_released(job, link.end(job)).await;
    }
}

/// Waits until the run lets go of its connections, and counts this one, unless it ends first.
pub(super) async fn until_released(job: &Job, end: impl Future<Output = ()>) {
    tokio::select! {
        () = end => {}
        () = job.released.notified() => job.tally.borrow_mut().held += 1,
    }
}

/// Waits until every connection has had its answer, holds them all for the duration, lets go.
pub(super) async fn lead(plan: &Plan, shared: &Shared) {
    let stopped = || shared.stop.load(Ordering::Relaxed);
    while shared.settled.load(Ordering::Relaxed) < plan.connections && !stopped() {
        tokio::time::sleep(LOOK).await;
    }
    eprintln!("loadtest: holding {} connections", plan.connections);
    if let Some(duration) = plan.duration {
        let end = tokio::time::Instant::now() + duration;
        while tokio::time::Instant::now() < end && !stopped() {
            tokio::time::sleep(LOOK.min(duration)).await;
        }
    }
    shared.release.store(true, Ordering::Relaxed);
}
