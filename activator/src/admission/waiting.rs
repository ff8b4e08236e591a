//! A place in the queue, as a future.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::gate::Came;
use super::queue::{Grant, Key};
use super::{AcquireError, Gate, Slot};
use crate::demand::Change;

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

/// Counts as waiting until dropped, or let in.
#[derive(Debug)]
struct Queued {
    gate: Rc<Gate>,
    counts: bool,
    /// `None` once the queue has forgotten it.
    key: Option<Key>,
}

impl Waiting {
    pub(super) fn granted(slot: Slot) -> Waiting {
        Waiting {
            stage: Stage::Granted(slot),
        }
    }

    /// `again`: it had a slot before.
    pub(super) fn new(gate: Rc<Gate>, key: Key, again: bool) -> Waiting {
        gate.count(Change {
            waiting: 1,
            asks: true,
            again,
            ..Change::default()
        });
        Waiting {
            stage: Stage::Queued(Queued {
                gate,
                counts: true,
                key: Some(key),
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
                        Poll::Ready(outcome.map(|grant| queued.let_in(grant)))
                    }
                }
            }
            Stage::Done => unreachable!("polled after it was ready"),
        }
    }
}

impl Queued {
    /// From waiting to running at one instant: nobody sees the request nowhere.
    fn let_in(mut self, grant: Grant) -> Slot {
        self.counts = false;
        self.gate.redeem(grant, Came::Waited)
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        if self.counts {
            self.gate.count(Change {
                waiting: -1,
                ..Change::default()
            });
        }
        if let Some(key) = self.key {
            self.gate.throttle().leave(key, self.gate.now());
        }
    }
}
