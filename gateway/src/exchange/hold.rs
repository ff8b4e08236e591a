//! Taking a slot, and waiting for one: what ends it, and what it may pin meanwhile.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use activator::admission::{AcquireError, Bound, Slot, Waiting};
use activator::starts::StartId;

use super::Exchange;
use crate::http::message::{Departure, Downstream, Length, RequestHead, ResponseHead, Source};
use crate::live::LocalRevision;
use crate::memory::Level;
use crate::refusal::Reason;
use crate::serve::drain::Phase;

/// Most bytes of a body read while its request is held. Most API calls are then whole: the
/// client's departure is visible and the attempt can be repeated.
pub(super) const READ_AHEAD: usize = 16 * 1024;

/// Most bytes a held body is charged: what we read ahead and what the kernel buffers for it.
const CHARGE_MAX: u64 = 64 * 1024;

/// So much of a held request's head is among what every held request costs. What it keeps beyond it is
/// charged like its body.
pub(super) const HEAD_FREE: usize = 2 * 1024;

/// A client that expects 100 has not begun to send, and nothing is read until it may.
pub(super) fn read_ahead(request: &RequestHead) -> usize {
    if request.expects_continue {
        0
    } else {
        READ_AHEAD
    }
}

/// Why a request got no slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    Refused(Reason),
    /// It may not wait, or had to give way.
    Full(Bound),
    /// Its revision cannot start, for this reason.
    Failed(Arc<str>),
    /// Its revision is no more.
    Removed,
    Departed(Departure),
}

impl Exchange<'_> {
    /// A slot, at once if there is one.
    pub(super) async fn acquire<D: Downstream>(
        &mut self,
        revision: &LocalRevision,
        down: &mut D,
    ) -> Result<Slot, Denied> {
        if self.seen.attempts > 0 && self.as_of_now(revision).is_none() {
            // What failed may be no endpoint of anybody's by now.
            return Err(Denied::Removed);
        }
        #[allow(
            clippy::cast_possible_truncation,
            reason = "any 32 of the bits will do"
        )]
        let random = self.worker.random() as u32;
        let slot = match self.seen.attempts {
            0 => revision.gate.try_acquire(random),
            _ => revision.gate.try_acquire_again(random),
        };
        match slot {
            Some(slot) => Ok(slot),
            None => self.hold(revision, down).await,
        }
    }

    /// Holds the request until there is a slot, the deadline is over, or somebody gives up.
    async fn hold<D: Downstream>(
        &mut self,
        revision: &LocalRevision,
        down: &mut D,
    ) -> Result<Slot, Denied> {
        if self.worker.is_short_of_memory(Level::NotHolding) {
            return Err(Denied::Refused(Reason::Overloaded));
        }
        let begun = self.worker.clock.now();
        let deadline = self.wait_deadline(revision);
        let body = match (down.body_here(self.pace), self.request.length) {
            (Some(length), _) | (None, Length::Exactly(length)) => length.min(CHARGE_MAX),
            (None, Length::None) => 0,
            (None, Length::Chunked | Length::UntilClose) => CHARGE_MAX,
        };
        let charge = body + self.head_charge();
        let shortage = revision.gate.throttle().shortage();
        let claim = self.claim(&revision.revision, charge);
        let waiting = revision.gate.wait(claim);
        let waiting = waiting.map_err(|error| denied(&error))?;
        let start = revision.gate.throttle().starts().current();
        self.seen.held = true;
        self.seen.wait_reason.get_or_insert(shortage.into());
        self.timer.set(Some(deadline));
        down.rest();
        let result = self.wait(waiting, charge, down).await;
        down.wake();
        self.timer.set(None);
        let granted = self.worker.clock.now();
        self.seen.waited += granted.saturating_duration_since(begun);
        if let Some(start) = start {
            self.end_start(revision, start, &result);
        }
        result
    }

    /// Bytes that its head keeps beyond what is free.
    fn head_charge(&mut self) -> u64 {
        let kept = |it: &Self| it.request.head.capacity() + it.edits.capacity();
        let answer = self.response.head.capacity();
        if kept(self) + answer > HEAD_FREE {
            // Memory that was of use to others before is not what this one asks for.
            self.request.head.fit();
            self.edits.fit();
            *self.response = ResponseHead::default();
        }
        kept(self).saturating_sub(HEAD_FREE) as u64
    }

    /// A request has waited for a start.
    fn end_start(
        &mut self,
        revision: &LocalRevision,
        start: StartId,
        result: &Result<Slot, Denied>,
    ) {
        let starts = revision.gate.throttle().starts();
        match result {
            Ok(_slot) => self.seen.start = Some(start),
            Err(Denied::Refused(reason)) => starts.gave_up(start, reason.word()),
            Err(Denied::Full(_)) => starts.gave_up(start, Reason::QueueFull.word()),
            Err(Denied::Departed(_)) => starts.gave_up(start, Reason::ClientGone.word()),
            // That is told by the throttle.
            Err(Denied::Failed(_) | Denied::Removed) => {}
        }
    }

    pub(super) fn wait_deadline(&self, revision: &LocalRevision) -> tokio::time::Instant {
        let starts = revision.gate.throttle().starts();
        let wait = starts.wait(&revision.revision, self.timeout(revision));
        let wait = match revision.revision.max_duration {
            Some(whole) => wait.min(whole),
            None => wait,
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
    match error {
        AcquireError::QueueFull(bound) => Denied::Full(*bound),
        AcquireError::StartFailed(cause) => Denied::Failed(Arc::clone(cause)),
        AcquireError::NoScaler => Denied::Refused(Reason::NoScaler),
        AcquireError::Removed => Denied::Removed,
    }
}
