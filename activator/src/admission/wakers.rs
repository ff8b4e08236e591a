//! Those to wake once the queue's lock is released.

use std::task::Waker;

/// So many waiters are let in or refused per turn of the lock, and woken after it.
pub(super) const BATCH: usize = 32;

#[derive(Debug, Default)]
pub(super) struct Wakers {
    wakers: [Option<Waker>; BATCH],
    served: usize,
}

impl Wakers {
    pub(super) fn is_full(&self) -> bool {
        self.served == BATCH
    }

    pub(super) fn push(&mut self, waker: Option<Waker>) {
        self.wakers[self.served] = waker;
        self.served += 1;
    }

    pub(super) fn wake(self) {
        for waker in self.wakers.into_iter().flatten() {
            waker.wake();
        }
    }
}
