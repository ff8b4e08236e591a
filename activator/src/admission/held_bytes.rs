//! Bytes kept for requests that wait, within what their revision and the process may keep.

use std::sync::Arc;

use super::Throttle;
use crate::sync::Ordering;

/// Bytes kept for a waiter; given back on drop. Made and dropped under the lock of its throttle's queue.
#[derive(Debug)]
#[must_use]
pub(super) struct HeldBytes {
    throttle: Arc<Throttle>,
    bytes: u64,
}

impl HeldBytes {
    /// Counted already in the sum of the process.
    pub(super) fn counted(throttle: &Arc<Throttle>, bytes: u64) -> HeldBytes {
        throttle.bytes.fetch_add(bytes, Ordering::Relaxed);
        HeldBytes {
            throttle: Arc::clone(throttle),
            bytes,
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// They are not given back to the process: a newcomer has them.
    pub(super) fn pass_on(mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        self.throttle.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        self.throttle.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.throttle.holding().release(self.bytes);
    }
}

impl Throttle {
    /// Most bytes kept for its waiters.
    pub(super) fn most_bytes(&self) -> u64 {
        match self.bytes_max.load(Ordering::Relaxed) {
            u64::MAX => self.holding().share_of_bytes(),
            most => most,
        }
    }

    /// Bytes kept for its waiters now.
    pub fn held_bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}
