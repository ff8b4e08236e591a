//! Answers of our own: what rules say, and refusals.

use config::snapshot::{Redirect, Respond};

use super::{End, Exchange, SKIP_MAX, edits, until};
use crate::http::answer::{self, Answer};
use crate::http::message::{Downstream, Length, Responder, Sink};
use crate::refusal::Reason;

impl Exchange<'_> {
    pub(super) fn redirect(&self, redirect: &Redirect) -> Answer {
        let location = edits::location(redirect, self.request, self.scheme());
        let mut answer = self
            .worker
            .date(|date| Answer::new(redirect.status, "", Vec::new(), date));
        answer.line("location", &location);
        answer
    }

    pub(super) fn respond(&self, respond: &Respond) -> Answer {
        let body = respond.body.as_bytes().to_vec();
        self.worker
            .date(|date| Answer::new(respond.status, &respond.content_type, body, date))
    }

    /// Sends an answer of our own.
    pub(super) async fn answer<D: Downstream>(
        &mut self,
        mut answer: Answer,
        down: &mut D,
    ) -> Result<(), End> {
        let status = answer.head.status;
        if matches!(status, 204 | 304) {
            // RFC 9110 §8.6: no length where there can be no content.
            answer.remove("content-length");
            answer.without_body();
        } else if self.request.is_head() {
            answer.without_body();
        }
        self.seen.code = status;
        self.seen.answer_bytes = answer.body.len() as u64;
        let phrase = answer::phrase(status).as_bytes();
        answer.head.head.bytes.extend_from_slice(phrase);
        answer.head.phrase = crate::http::field::Span::new(0, phrase.len());
        let goes_on = down.received_all() || self.may_skip_body();
        let last = self.is_last() || !goes_on;
        let stall = tokio::time::Instant::now() + self.worker.shared.settings.limits.write_stall;
        self.timer.set(Some(stall));
        let (_source, mut sink) = down.split(self.pace);
        sink.respond(&answer.head, &answer.lines, last);
        let send = async {
            sink.write(&answer.body).await?;
            sink.finish(None).await
        };
        match until(self.timer, send).await {
            Some(Ok(())) => Ok(()),
            Some(Err(_)) | None => Err(End::Cut(Reason::ClientGone)),
        }
    }

    /// Whether the client is to be asked to leave.
    pub(super) fn is_last(&self) -> bool {
        self.worker.is_parting() || self.client.is_to_leave(self.worker.clock.now())
    }

    /// Whether the rest of a body that nobody wants may be read and dropped, so that the connection
    /// goes on behind it.
    pub(super) fn may_skip_body(&self) -> bool {
        // Who was not told to continue may send the body or the next request: nobody can tell.
        let known = !self.request.expects_continue;
        known
            && match self.request.length {
                Length::Exactly(length) => length <= SKIP_MAX,
                Length::None | Length::Chunked | Length::UntilClose => true,
            }
    }

    /// Tells the client what it may read, then counts and logs.
    pub(super) async fn finish<D: Downstream>(mut self, end: End, down: &mut D) {
        let reason = match end {
            End::Answered => None,
            End::Refused(reason) => Some(self.refuse(reason, down).await),
            End::Cut(reason) => {
                down.closes();
                if self.seen.code == 0 {
                    self.seen.code = reason.status();
                }
                Some(reason)
            }
        };
        self.record(reason);
        down.forget_body();
    }

    async fn refuse<D: Downstream>(&mut self, reason: Reason, down: &mut D) -> Reason {
        let worker = self.worker;
        let said = self.activator_says(reason);
        let grpc = said.is_none() && self.request.is_grpc();
        let mut answer = worker.date(|date| match said {
            Some(text) => Answer::saying(reason, text, date),
            None => Answer::refusal(reason, self.cause.as_deref(), Some(self.request), date),
        });
        if let Some(seconds) = self.retry_after(reason) {
            answer.retry_after(seconds, grpc);
        }
        if let Some(timing) = self.timing() {
            timing.write(&mut answer.lines);
        }
        if reason.closes() {
            down.closes();
        }
        match self.answer(answer, down).await {
            Ok(()) => reason,
            Err(_) => {
                down.closes();
                Reason::ClientGone
            }
        }
    }
}
