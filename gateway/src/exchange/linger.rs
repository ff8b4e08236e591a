//! When an exchange ends before its endpoint does: a limited endpoint's slot stays with the work,
//! not with our interest in it.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use activator::admission::Slot;

use super::upstream::{Connected, until};
use crate::http::h1::client::Endpoint;
use crate::http::message::{ResponseHead, Responses, Source, StreamError, Upstream};
use crate::http::pace::Pace;
use crate::serve::worker::Worker;

/// Most bytes of an unwanted answer that are read for the sake of its end.
const DISCARD_MAX: usize = 64 * 1024;

/// How far the endpoint's answer had come when the exchange ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    /// Its final head had come.
    pub(super) begun: bool,
    /// It answers HEAD, so nothing follows its head.
    pub(super) to_head: bool,
}

/// Frees the slot at once where nothing was sent, nothing is counted or the answer has come whole;
/// otherwise keeps it, with the connection, until the endpoint has answered or closed, or
/// `abortLinger` is over.
pub(super) fn linger(worker: &Rc<Worker>, up: Connected, slot: Slot, pace: &Pace, answer: Answer) {
    // A stream that is reset, which dropping it does, is work the endpoint hears it may leave.
    let Connected::Http1(up) = up else {
        return;
    };
    if worker.pressure.get().cut.is_some() {
        // What the endpoint does not take is not kept for it any longer.
        up.connection.io().abort();
    }
    let whole = answer.begun && up.connection.received_all();
    if !slot.limited() || pace.bytes_written() == 0 || whole {
        return;
    }
    let worker = worker.clone();
    // The connection's task may end before the endpoint does: this needs one of its own.
    tokio::task::spawn_local(async move {
        let mut slot = slot;
        slot.linger();
        let timer = worker.timers.timer();
        let limit = worker.shared.settings.limits.abort_linger;
        timer.set(Some(tokio::time::Instant::now() + limit));
        let finished = until(&timer, unless_cut(&worker, up, answer)).await;
        tracing::trace!(endpoint = %slot.address(), ?finished, "lingered");
        worker.tick();
        drop(slot);
    });
}

/// Waits for the endpoint's end. Where there is no memory left for the connection it is reset, and
/// waits for ever: nobody can tell any more when the work ends.
async fn unless_cut(worker: &Worker, mut up: Endpoint, answer: Answer) -> Result<(), StreamError> {
    let finished = {
        let mut finishing = pin!(finish(worker, &mut up, answer));
        poll_fn(|cx| match worker.pressure.get().cut {
            Some(_) => Poll::Ready(None),
            None => finishing.as_mut().poll(cx).map(Some),
        })
        .await
    };
    if let Some(finished) = finished {
        return finished;
    }
    up.connection.io().abort();
    drop(up);
    std::future::pending().await
}

/// Ends our side and reads until the endpoint has ended its own.
async fn finish(worker: &Worker, up: &mut Endpoint, answer: Answer) -> Result<(), StreamError> {
    let pace = Pace::new(&worker.clock);
    let (mut source, mut sink) = up.split(&pace);
    sink.shutdown().await;
    if !answer.begun {
        let mut head = ResponseHead::default();
        loop {
            source.response(answer.to_head, &mut head).await?;
            if head.status >= 200 {
                break;
            }
        }
    }
    let mut left = DISCARD_MAX;
    while left > 0 {
        match source.fill().await? {
            crate::http::message::Filled::End => break,
            crate::http::message::Filled::Data => {
                let count = source.data().len().min(left);
                source.consume(count);
                left -= count;
            }
        }
    }
    Ok(())
}
