//! What an exchange becomes when the endpoint has said 101.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::relay::pump;
use super::watch::must_go;
use super::{End, Exchange};
use crate::http::message::{Downstream, Sink, Source, Upstream};
use crate::http::pace::{BEHIND_MAX, Pace};
use crate::live::LocalRevision;
use crate::refusal::Reason;
use crate::serve::drain::Phase;

/// How long a tunnel may stay half closed without a byte.
const HALF_CLOSED: Duration = Duration::from_secs(10);

impl Exchange<'_> {
    /// Bytes both ways until both sides have ended or nothing moves.
    pub(super) async fn tunnel<D: Downstream, U: Upstream>(
        &mut self,
        revision: &LocalRevision,
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
        let most = self.worker.shared.settings.limits.tunnel_idle;
        let stall = self.worker.shared.settings.limits.write_stall;
        let limits = &revision.revision;
        let most = limits.idle.map_or(most, |idle| idle.min(most));
        let whole = limits.max_duration.map(|most| self.arrived + most);
        poll_fn(|cx| {
            let now = self.worker.clock.now();
            if !up_done && let Poll::Ready(result) = upward.as_mut().poll(cx) {
                up_done = true;
                if result.is_err() {
                    return Poll::Ready(End::Answered);
                }
            }
            if !down_done && let Poll::Ready(result) = downward.as_mut().poll(cx) {
                down_done = true;
                if result.is_err() {
                    return Poll::Ready(End::Answered);
                }
            }
            if (up_done && down_done) || self.worker.phase.get() == Phase::Ended {
                return Poll::Ready(End::Answered);
            }
            if must_go(self.worker, self.pace, up_pace) {
                return Poll::Ready(End::Cut(Reason::Overloaded));
            }
            let idle = if up_done || down_done {
                most.min(HALF_CLOSED)
            } else {
                most
            };
            let silent = self.pace.last().max(up_pace.last()) + idle;
            let stalled = [
                self.pace.stall_deadline(stall),
                self.pace.slow_deadline(BEHIND_MAX),
                up_pace.stall_deadline(stall),
            ];
            let others = stalled.into_iter().flatten().chain(whole);
            let deadline = others.fold(silent, Instant::min);
            if now >= deadline {
                return Poll::Ready(End::Cut(Reason::StreamTimeout));
            }
            self.timer
                .set(Some(tokio::time::Instant::from_std(deadline)));
            match self.timer.poll_fired(cx) {
                Poll::Ready(()) => Poll::Ready(End::Cut(Reason::StreamTimeout)),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }
}
