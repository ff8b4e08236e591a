//! A place in the queue, as a future.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::queue::Key;
use super::{AcquireError, Gate, HeldBytes, Slot};

/// Waits for a slot. It has no deadline of its own: drop it to stop waiting.
///
/// # Cancel safety
///
/// A dropped waiter leaves the queue; if it had been granted a slot it had not seen yet, the slot
/// passes on to the next.
#[derive(Debug)]
#[must_use]
pub struct Waiting {
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// There was room before the waiting began.
    Granted(Slot),
    Queued(Queued),
    Done,
}

/// Counts as waiting until dropped.
#[derive(Debug)]
struct Queued {
    gate: Rc<Gate>,
    /// `None` once the queue has forgotten it.
    key: Option<Key>,
    _held: Option<HeldBytes>,
}

impl Waiting {
    pub(super) fn granted(slot: Slot) -> Waiting {
        Waiting {
            stage: Stage::Granted(slot),
        }
    }

    pub(super) fn new(gate: Rc<Gate>, key: Key, held: Option<HeldBytes>) -> Waiting {
        gate.count(0, 1);
        Waiting {
            stage: Stage::Queued(Queued {
                gate,
                key: Some(key),
                _held: held,
            }),
        }
    }
}

impl Future for Waiting {
    type Output = Result<Slot, AcquireError>;

    /// # Panics
    ///
    /// When polled again after it was ready.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Granted(slot) => Poll::Ready(Ok(slot)),
            Stage::Queued(mut queued) => {
                let key = queued.key.expect("kept while queued");
                match queued.gate.throttle().poll(key, context.waker()) {
                    Poll::Pending => {
                        self.stage = Stage::Queued(queued);
                        Poll::Pending
                    }
                    Poll::Ready(outcome) => {
                        queued.key = None;
                        let gate = Rc::clone(&queued.gate);
                        drop(queued);
                        Poll::Ready(outcome.map(|grant| gate.redeem(grant)))
                    }
                }
            }
            Stage::Done => unreachable!("polled after it was ready"),
        }
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.gate.count(0, -1);
        if let Some(key) = self.key {
            self.gate.throttle().leave(key);
        }
    }
}
