//! The clock over one attempt.

use std::cell::{Cell, RefCell};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use activator::admission::{Repeat, Slot};

use super::Exchange;
use super::rest::Rest;
use crate::http::message::Version;
use crate::http::pace::{BEHIND_MAX, Pace, SEND_RATE};
use crate::live::LocalRevision;
use crate::refusal::Reason;
use crate::serve::drain::Phase;
use crate::serve::timers::Timer;
use crate::serve::worker::Worker;

/// Before this much waiting for a body's bytes, its rate is not judged.
const RATE_GRACE: Duration = Duration::from_secs(5);

/// How far an attempt has come; shared by both directions and the watch over them.
#[derive(Debug)]
pub(super) struct Progress<'a> {
    /// Hears that an answer has begun.
    pub(super) slot: &'a Slot,
    pub(super) rest: Rest<'a>,
    pub(super) begun: Instant,
    /// The request's body is all here and kept.
    pub(super) whole: bool,
    /// No more of the request's body is sent.
    pub(super) uploaded: Cell<bool>,
    /// When the final head came.
    pub(super) answered: Cell<Option<Instant>>,
    /// The final head was given to the client's connection.
    pub(super) relayed: Cell<bool>,
    /// What a second or later attempt needs, until its answer begins: a long answer is no reason to
    /// let others repeat less.
    pub(super) repeat: RefCell<Option<Repeat>>,
}

impl<'a> Progress<'a> {
    pub(super) fn new(
        slot: &'a Slot,
        revision: &LocalRevision,
        begun: Instant,
        whole: bool,
        repeat: Option<Repeat>,
    ) -> Progress<'a> {
        Progress {
            slot,
            rest: Rest::new(slot, revision),
            begun,
            whole,
            uploaded: Cell::new(false),
            answered: Cell::new(None),
            relayed: Cell::new(false),
            repeat: RefCell::new(repeat),
        }
    }
}

/// Bytes of a body that are here on their way, in one direction, at most.
const IN_FLIGHT_MAX: u64 = 64 * 1024;

impl Exchange<'_> {
    /// Slot → response head.
    pub(super) fn timeout(&self, revision: &LocalRevision) -> Option<Duration> {
        let rule = self
            .routed
            .as_ref()
            .and_then(|routed| match &routed.rule().action {
                config::snapshot::Action::Forward(forward) => forward.timeout,
                _ => None,
            });
        rule.or(revision.revision.timeout)
    }

    /// When an attempt that began then must have an answer, whatever it is doing.
    pub(super) fn ends_by(&self, revision: &LocalRevision, begun: Instant) -> Option<Instant> {
        let whole = revision
            .revision
            .max_duration
            .map(|most| self.arrived + most);
        let head = self.timeout(revision).map(|timeout| begun + timeout);
        [whole, head, self.deadline].into_iter().flatten().min()
    }
}

/// Whether there is no memory for what an exchange pins: in our buffers, and in the kernel's for a
/// peer that takes nothing.
pub(super) fn must_go(worker: &Worker, down: &Pace, up: &Pace) -> bool {
    let pressure = worker.pressure.get();
    let here = |from: &Pace, to: &Pace| {
        let bytes = from.bytes_read().saturating_sub(to.bytes_written());
        bytes.min(IN_FLIGHT_MAX)
    };
    pressure.cut.is_some()
        && pressure.cuts(down.stuck_bytes() + up.stuck_bytes() + here(down, up) + here(up, down))
}

/// The time limits over one attempt.
pub(super) struct Watch<'a> {
    pub(super) worker: &'a Worker,
    pub(super) revision: &'a LocalRevision,
    pub(super) progress: &'a Progress<'a>,
    pub(super) arrived: Instant,
    /// When the client itself stops waiting.
    pub(super) deadline: Option<Instant>,
    pub(super) timeout: Option<Duration>,
    /// Client and endpoint talk with each other (gRPC): a body's bytes come when there is something
    /// to say, not at a rate.
    pub(super) talk: bool,
    pub(super) down: &'a Pace,
    pub(super) up: &'a Pace,
}

impl Watch<'_> {
    /// Ready with the reason when a limit is broken; arms the timer for the nearest otherwise.
    pub(super) fn poll(&self, cx: &mut Context<'_>, timer: &Timer) -> Poll<Reason> {
        if self.worker.phase.get() == Phase::Ended {
            return Poll::Ready(Reason::ShuttingDown);
        }
        if must_go(self.worker, self.down, self.up) {
            return Poll::Ready(Reason::Overloaded);
        }
        let nearest = self.nearest();
        if let Some(at) = self.rests_at()
            && nearest.is_none_or(|(limit, _)| at < limit)
        {
            timer.set(Some(tokio::time::Instant::from_std(at)));
            if timer.poll_fired(cx).is_pending() {
                return Poll::Pending;
            }
            self.progress.rest.look(self.last(), self.worker.tick());
        }
        let Some((at, reason)) = nearest else {
            timer.set(None);
            // Not for the time, which never comes, but to be woken when the drain is over.
            return timer.poll_fired(cx).map(|()| Reason::Internal);
        };
        // Not the timer but the clock decides: a deadline that has just moved is not the one that
        // fired.
        if self.worker.clock.now() >= at {
            return Poll::Ready(reason);
        }
        timer.set(Some(tokio::time::Instant::from_std(at)));
        timer.poll_fired(cx).map(|()| reason)
    }

    /// When the stream will rest, if it has begun and nothing moves until then.
    fn rests_at(&self) -> Option<Instant> {
        self.progress.answered.get()?;
        self.progress
            .rest
            .look(self.last(), self.worker.clock.now())
    }

    /// When the last byte moved.
    fn last(&self) -> Instant {
        self.down.last().max(self.up.last())
    }

    fn nearest(&self) -> Option<(Instant, Reason)> {
        let limits = &self.worker.shared.settings.limits;
        let revision = &self.revision.revision;
        let answered = self.progress.answered.get().is_some();
        let mut nearest: Option<(Instant, Reason)> = None;
        let mut consider = |at: Option<Instant>, reason: Reason| {
            if let Some(at) = at
                && nearest.is_none_or(|(nearest, _)| at < nearest)
            {
                nearest = Some((at, reason));
            }
        };
        consider(
            revision.max_duration.map(|most| self.arrived + most),
            Reason::ResponseTimeout,
        );
        // Once the head is out, whoever hears of it says `StreamTimeout`.
        consider(self.deadline, Reason::ResponseTimeout);
        let last = self.last();
        if !self.progress.uploaded.get() {
            let (at, reason) = self.body_deadline(answered, last);
            consider(at, reason);
        }
        if answered {
            consider(revision.idle.map(|idle| last + idle), Reason::StreamTimeout);
        } else {
            let begun = self.progress.begun;
            consider(
                self.timeout.map(|timeout| begun + timeout),
                Reason::ResponseTimeout,
            );
        }
        consider(
            self.down.stall_deadline(limits.write_stall),
            Reason::StreamTimeout,
        );
        consider(self.down.slow_deadline(BEHIND_MAX), Reason::StreamTimeout);
        consider(
            self.up.stall_deadline(limits.write_stall),
            Reason::ResponseTimeout,
        );
        nearest
    }

    /// When the client is too slow with a body that is being read. Its answer may have begun already,
    /// that changes nothing. Where both talk, silence of both is what counts once either has begun: the
    /// client may have nothing more to say until it hears something, be it the head.
    fn body_deadline(&self, answered: bool, last: Instant) -> (Option<Instant>, Reason) {
        let limits = &self.worker.shared.settings.limits;
        if self.talk && (answered || self.down.body_bytes() > 0) {
            let reason = match answered {
                true => Reason::StreamTimeout,
                false => Reason::BodyTimeout,
            };
            return (Some(last + limits.tunnel_idle), reason);
        }
        let rate = if self.talk { 0 } else { limits.body_min_rate };
        let at = self.down.body_deadline(limits.body_idle, rate, RATE_GRACE);
        (at, Reason::BodyTimeout)
    }
}

/// Bytes per second that a client must take of an answer.
pub(super) fn send_rate(worker: &Worker, version: Version) -> u64 {
    match version {
        Version::Http10 | Version::Http11 => SEND_RATE,
        Version::Http2 => {
            let streams = u64::from(worker.shared.settings.limits.http2_streams);
            (SEND_RATE / streams.max(1)).max(1)
        }
    }
}
