//! Attempts after the first: what may be sent twice, how often, how soon, and how many requests at a
//! time (`docs/decisions/0017-retry-budget.md`).

use std::time::Duration;

use activator::admission::Slot;
use config::revision::Backend;
use tokio::time::Instant;

use super::hold::read_ahead;
use super::upstream::{gone, until};
use super::{End, Exchange};
use crate::http::message::{Downstream, RequestHead, Source, StreamError};
use crate::http::pace::Pace;
use crate::live::LocalRevision;
use crate::refusal::Reason;

/// Milliseconds between an attempt that failed and the next, at least and at most: requests that
/// failed together are not made again together.
const PAUSE: std::ops::RangeInclusive<u64> = 5..=25;

/// So long a request for fixed endpoints waits for others to have been made again: longer than one
/// endpoint's share of the requests takes, shorter than a client that has to hear of an outage waits.
const PATIENCE: Duration = Duration::from_secs(5);

/// So many attempts of a request are not counted because its endpoint had too many at the time, or left
/// before it began with it. More are not a matter of chance: then the request itself may be the reason,
/// or the endpoint takes nothing.
const SPARED_MAX: u32 = 5;

/// So often a request for a scaler's endpoints is sent to one that ends without an answer, those not
/// counted that had too many. More, and it may be what ends them: it must not end all that are started.
const UNANSWERED_MAX: u32 = 3;

/// What is known of an attempt that failed before the first byte of an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Broken {
    /// The method's effect is the same when it is done twice (RFC 9110 §9.2.2).
    idempotent: bool,
    /// The request's body is all here and kept.
    whole: bool,
    /// The endpoint has said that it has processed nothing.
    unprocessed: bool,
    /// Bytes of the request were written.
    written: bool,
}

impl Broken {
    /// `pace` is the endpoint's side.
    pub(super) fn new(
        request: &RequestHead,
        error: &StreamError,
        whole: bool,
        pace: &Pace,
    ) -> Broken {
        Broken {
            idempotent: request.is_idempotent(),
            whole,
            unprocessed: matches!(error, StreamError::Refused | StreamError::GoingAway),
            written: pace.bytes_written() > 0,
        }
    }

    /// Whether nothing of the request can have been done, or doing it twice is no different.
    pub(super) fn is_harmless(self) -> bool {
        self.is_untouched() || (self.idempotent && self.whole)
    }

    /// Whether the endpoint cannot have begun with it.
    pub(super) fn is_untouched(self) -> bool {
        self.unprocessed || !self.written
    }
}

/// Why an attempt is to be made again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failed {
    /// What the client is told if it is not.
    pub(super) cause: Reason,
    pub(super) how: How,
    /// The endpoint may have begun with it.
    pub(super) touched: bool,
}

/// What a failure says of the attempt after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// The endpoint asked to go on elsewhere with what it has not processed: no failure at all.
    Left,
    /// A connection that had been in use ended: nothing says that a new one would.
    Ended,
    /// It was given more requests than it bears, and gets fewer from now on: the fault is ours.
    Crowded,
    /// It cannot be reached, or ended a new connection.
    Failed,
}

/// A request between two attempts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failure {
    cause: Reason,
    how: How,
    /// Attempts that failed because the endpoint had too many requests, or left.
    spared: u32,
    /// Other attempts that an endpoint may have begun with.
    unanswered: u32,
    /// Since when it could have been made again, but for others that are.
    denied: Option<Instant>,
}

impl Exchange<'_> {
    /// After an attempt that failed: whether there may be another. The request goes back to its place
    /// then, by arrival, if it does not leave.
    pub(super) async fn again<D: Downstream>(
        &mut self,
        revision: &LocalRevision,
        failed: Failed,
        failure: Option<Failure>,
        down: &mut D,
    ) -> Result<Failure, End> {
        self.repeat = None;
        let Failed {
            cause,
            mut how,
            touched,
        } = failed;
        let mut spared = failure.map_or(0, |failure| failure.spared);
        let mut unanswered = failure.map_or(0, |failure| failure.unanswered);
        if matches!(how, How::Crowded | How::Left) {
            match spared < SPARED_MAX {
                true => spared += 1,
                false => how = How::Failed,
            }
        }
        unanswered += u32::from(touched && how != How::Crowded);
        let most = self.worker.shared.settings.limits.attempts;
        let is_enough = match is_fixed(revision) {
            true => self.seen.attempts.saturating_sub(spared) >= most,
            false => unanswered >= UNANSWERED_MAX,
        };
        if is_enough {
            return Err(End::Refused(cause));
        }
        let before = self.seen.attempts > 1;
        if before && Instant::now() >= self.wait_deadline(revision) {
            return Err(End::Refused(cause));
        }
        if matches!(how, How::Failed | How::Crowded) || before {
            self.pause(revision, down).await?;
        }
        Ok(Failure {
            cause,
            how,
            spared,
            unanswered,
            denied: None,
        })
    }

    /// Whether a request that has a slot again may use it, as few repeats are under way. `None`: not
    /// now, so it has given the slot back and paused.
    pub(super) async fn admit<D: Downstream>(
        &mut self,
        revision: &LocalRevision,
        slot: Slot,
        failure: &mut Failure,
        down: &mut D,
    ) -> Result<Option<Slot>, End> {
        // A window bounds what a crowded endpoint gets, whatever of that is a repeat; a quota, how often
        // what it gets was sent for nothing.
        let free = matches!(failure.how, How::Left | How::Crowded);
        if !free {
            self.repeat = revision.gate.throttle().repeat();
        }
        if self.repeat.is_some() || free {
            return Ok(Some(slot));
        }
        drop(slot);
        let denied = *failure.denied.get_or_insert_with(Instant::now);
        if is_fixed(revision) && denied.elapsed() >= PATIENCE {
            return Err(End::Refused(failure.cause));
        }
        self.pause(revision, down).await?;
        if Instant::now() >= self.wait_deadline(revision) {
            return Err(End::Refused(Reason::StartTimeout));
        }
        Ok(None)
    }

    async fn pause<D: Downstream>(
        &mut self,
        revision: &LocalRevision,
        down: &mut D,
    ) -> Result<(), End> {
        let _under_way = revision.gate.throttle().pause();
        let some = self.worker.random() % (PAUSE.end() - PAUSE.start() + 1);
        let pause = Duration::from_millis(PAUSE.start() + some);
        self.timer.set(Some(Instant::now() + pause));
        let (mut source, _sink) = down.split(self.pace);
        // Boxed: repeating is rare, and its state would make every request's larger.
        let departed = Box::pin(source.departed(read_ahead(self.request)));
        let departed = until(self.timer, departed).await;
        self.timer.set(None);
        match departed {
            Some(departure) => Err(End::Cut(gone(departure))),
            None => Ok(()),
        }
    }
}

/// Whether there will be no other endpoints, however long a request waits.
fn is_fixed(revision: &LocalRevision) -> bool {
    matches!(revision.revision.backend, Backend::Fixed { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_and_cannot_be_done_twice_is_not_repeated_whatever_else_is_known() {
        let each = || [false, true].into_iter();
        for (idempotent, whole) in each().flat_map(|one| each().map(move |other| (one, other))) {
            let broken = |unprocessed, written| Broken {
                idempotent,
                whole,
                unprocessed,
                written,
            };
            // The endpoint knows best; so do we of what never left.
            assert!(broken(true, true).is_harmless() && broken(true, false).is_harmless());
            assert!(broken(false, false).is_harmless());
            assert_eq!(broken(false, true).is_harmless(), idempotent && whole);
        }
    }
}
