//! Waiting for a slot: what ends it, and what it may pin meanwhile.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;

use activator::admission::{AcquireError, Slot, Waiting};
use config::revision::Backend;

use super::Exchange;
use super::knative::is_knative;
use crate::http::message::{Departure, Downstream, Length, RequestHead, Source};
use crate::live::LocalRevision;
use crate::memory::Level;
use crate::refusal::Reason;
use crate::serve::drain::Phase;

/// Most bytes of a body read while its request is held. Most API calls are then whole: the
/// client's departure is visible and the attempt can be repeated.
pub(super) const READ_AHEAD: usize = 16 * 1024;

/// Most bytes a held body is charged: what we read ahead and what the kernel buffers for it.
const CHARGE_MAX: u64 = 64 * 1024;

/// A client that expects 100 has not begun to send, and nothing is read until it may.
pub(super) fn read_ahead(request: &RequestHead) -> usize {
    if request.expects_continue {
        0
    } else {
        READ_AHEAD
    }
}

/// Why a request got no slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    Refused(Reason),
    /// Its revision is no more.
    Removed,
    Departed(Departure),
}

impl Exchange<'_> {
    /// Holds the request until there is a slot, the deadline is over, or somebody gives up.
    pub(super) async fn hold<D: Downstream>(
        &mut self,
        revision: &LocalRevision,
        down: &mut D,
    ) -> Result<Slot, Denied> {
        if self.worker.is_short_of_memory(Level::NotHolding) {
            return Err(Denied::Refused(Reason::Overloaded));
        }
        let begun = self.worker.clock.now();
        let deadline = self.wait_deadline(revision);
        let charge = match (down.body_here(self.pace), self.request.length) {
            (Some(length), _) | (None, Length::Exactly(length)) => length.min(CHARGE_MAX),
            (None, Length::None) => 0,
            (None, Length::Chunked | Length::UntilClose) => CHARGE_MAX,
        };
        let held = match charge {
            0 => None,
            bytes => {
                let held = revision.gate.throttle().reserve(bytes);
                Some(held.map_err(|error| denied(&error))?)
            }
        };
        // Before we wait: waiting is what wakes it.
        let process = matches!(revision.revision.backend, Backend::Process(_));
        let started = process || is_knative(&revision.revision);
        let cold = started && revision.gate.throttle().endpoints().is_empty();
        let waiting = revision
            .gate
            .wait(self.arrived, held)
            .map_err(|error| denied(&error))?;
        self.seen.held = true;
        self.timer.set(Some(deadline));
        down.rest();
        let result = self.wait(waiting, charge, down).await;
        down.wake();
        self.timer.set(None);
        let granted = self.worker.clock.now();
        self.seen.waited += granted.saturating_duration_since(begun);
        self.seen.woken = (cold && result.is_ok()).then_some(granted);
        result
    }

    pub(super) fn wait_deadline(&self, revision: &LocalRevision) -> tokio::time::Instant {
        let revision = &revision.revision;
        let wait = match revision.max_duration {
            Some(whole) => revision.queue_wait.min(whole),
            None => revision.queue_wait,
        };
        let end = self.arrived + wait;
        let end = self.deadline.map_or(end, |deadline| deadline.min(end));
        tokio::time::Instant::from_std(end)
    }

    async fn wait<D: Downstream>(
        &mut self,
        mut waiting: Waiting,
        pinned: u64,
        down: &mut D,
    ) -> Result<Slot, Denied> {
        let Exchange {
            worker,
            request,
            timer,
            pace,
            ..
        } = self;
        let (mut source, _sink) = down.split(pace);
        let mut departed = pin!(source.departed(read_ahead(request)));
        poll_fn(|cx| {
            if let Poll::Ready(granted) = Pin::new(&mut waiting).poll(cx) {
                return Poll::Ready(granted.map_err(|error| denied(&error)));
            }
            if let Poll::Ready(departure) = departed.as_mut().poll(cx) {
                return Poll::Ready(Err(Denied::Departed(departure)));
            }
            if timer.poll_fired(cx).is_ready() {
                return Poll::Ready(Err(Denied::Refused(Reason::StartTimeout)));
            }
            if worker.phase.get() == Phase::Ended {
                return Poll::Ready(Err(Denied::Refused(Reason::ShuttingDown)));
            }
            if worker.pressure.get().cuts(pinned) {
                return Poll::Ready(Err(Denied::Refused(Reason::Overloaded)));
            }
            Poll::Pending
        })
        .await
    }
}

fn denied(error: &AcquireError) -> Denied {
    Denied::Refused(match error {
        AcquireError::QueueFull => Reason::QueueFull,
        AcquireError::Overloaded => Reason::Overloaded,
        AcquireError::StartFailed(_) => Reason::StartFailed,
        AcquireError::NoScaler => Reason::NoScaler,
        AcquireError::Removed => return Denied::Removed,
    })
}
