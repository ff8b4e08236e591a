//! Bytes kept for requests that wait, within what their revision and the process may keep.

use std::sync::Arc;

use super::holding::add_within;
use super::{AcquireError, Throttle};
use crate::sync::Ordering;

/// Bytes kept for a held request; given back on drop.
#[derive(Debug)]
#[must_use]
pub struct HeldBytes {
    throttle: Arc<Throttle>,
    bytes: u64,
}

impl Throttle {
    /// Sets bytes aside for a request that is going to wait, until the guard is dropped.
    ///
    /// # Errors
    ///
    /// They would exceed the bound of the revision or of the process.
    pub fn reserve(self: &Arc<Self>, bytes: u64) -> Result<HeldBytes, AcquireError> {
        let most = match self.bytes_max.load(Ordering::Relaxed) {
            u64::MAX => self.holding().share_of_bytes(),
            most => most,
        };
        if !add_within(&self.bytes, bytes, most) {
            return Err(AcquireError::QueueFull);
        }
        if !self.holding().reserve(bytes) {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err(AcquireError::Overloaded);
        }
        Ok(HeldBytes {
            throttle: Arc::clone(self),
            bytes,
        })
    }

    /// Bytes set aside now.
    pub fn held_bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl HeldBytes {
    /// How many bytes are set aside.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        self.throttle.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.throttle.holding().release(self.bytes);
    }
}
