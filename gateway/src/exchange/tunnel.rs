//! What an exchange becomes when the endpoint has said 101.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use activator::admission::Slot;

use super::relay::{Broken, pump};
use super::rest::Rest;
use super::watch::must_go;
use super::{End, Exchange};
use crate::http::message::{Downstream, Sink, Source, Upstream};
use crate::http::pace::{BEHIND_MAX, Pace};
use crate::live::LocalRevision;
use crate::refusal::Reason;
use crate::serve::drain::Phase;

/// How long a tunnel may stay half closed without a byte.
const HALF_CLOSED: Duration = Duration::from_secs(10);

/// The time limits over a tunnel.
struct Limits {
    /// Without a byte.
    idle: Duration,
    stall: Duration,
    /// Its end, whatever moves.
    whole: Option<Instant>,
}

impl Limits {
    /// When one is broken if nothing moves. `last`: when something did.
    fn deadline(&self, last: Instant, half_closed: bool, down: &Pace, up: &Pace) -> Instant {
        let idle = match half_closed {
            true => self.idle.min(HALF_CLOSED),
            false => self.idle,
        };
        let stalled = [
            down.stall_deadline(self.stall),
            down.slow_deadline(BEHIND_MAX),
            up.stall_deadline(self.stall),
        ];
        let others = stalled.into_iter().flatten().chain(self.whole);
        others.fold(last + idle, Instant::min)
    }
}

impl Exchange<'_> {
    fn tunnel_limits(&self, revision: &LocalRevision) -> Limits {
        let of_process = &self.worker.shared.settings.limits;
        let of_revision = &revision.revision;
        let most = of_process.tunnel_idle;
        Limits {
            idle: of_revision.idle.map_or(most, |idle| idle.min(most)),
            stall: of_process.write_stall,
            whole: of_revision.max_duration.map(|most| self.arrived + most),
        }
    }

    /// Bytes both ways until both sides have ended or nothing moves.
    pub(super) async fn tunnel<D: Downstream, U: Upstream>(
        &mut self,
        revision: &LocalRevision,
        slot: &Slot,
        down: &mut D,
        up: &mut U,
        up_pace: &Pace,
    ) -> End {
        let (mut down_source, mut down_sink) = down.split(self.pace);
        let (mut up_source, mut up_sink) = up.split(up_pace);
        down_source.begin_tunnel();
        down_sink.begin_tunnel();
        up_source.begin_tunnel();
        up_sink.begin_tunnel();
        let mut upward = pin!(pump(&mut down_source, &mut up_sink));
        let mut downward = pin!(pump(&mut up_source, &mut down_sink));
        let (mut up_done, mut down_done) = (false, false);
        let rest = Rest::new(slot, revision);
        let begun = self.worker.clock.now();
        let limits = self.tunnel_limits(revision);
        let end = poll_fn(|cx| {
            let now = self.worker.clock.now();
            if !up_done && let Poll::Ready(result) = upward.as_mut().poll(cx) {
                up_done = true;
                if result.is_err() {
                    return Poll::Ready(End::Answered);
                }
            }
            let mut result = Ok(());
            if !down_done && let Poll::Ready(over) = downward.as_mut().poll(cx) {
                (down_done, result) = (true, over);
            }
            let last = self.pace.last().max(up_pace.last());
            let rests_at = rest.look(last, now);
            if down_done && rest.rests() && !matches!(result, Err(Broken::Sink(_))) {
                // It was let go, most likely: a stream at rest keeps no endpoint.
                return Poll::Ready(End::Cut(Reason::EndpointGone));
            }
            if result.is_err() {
                return Poll::Ready(End::Answered);
            }
            if (up_done && down_done) || self.worker.phase.get() == Phase::Ended {
                return Poll::Ready(End::Answered);
            }
            if must_go(self.worker, self.pace, up_pace) {
                return Poll::Ready(End::Cut(Reason::Overloaded));
            }
            let deadline = limits.deadline(last, up_done || down_done, self.pace, up_pace);
            if now >= deadline {
                return Poll::Ready(End::Cut(Reason::StreamTimeout));
            }
            let timer = |at| self.timer.set(Some(tokio::time::Instant::from_std(at)));
            if let Some(at) = rests_at.filter(|at| *at < deadline) {
                timer(at);
                if self.timer.poll_fired(cx).is_pending() {
                    return Poll::Pending;
                }
                rest.look(last, self.worker.tick());
            }
            timer(deadline);
            match self.timer.poll_fired(cx) {
                Poll::Ready(()) => Poll::Ready(End::Cut(Reason::StreamTimeout)),
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
        let now = self.worker.clock.now();
        self.seen.rested += rest.rested(now);
        self.seen.endpoint += now.saturating_duration_since(begun);
        end
    }
}
