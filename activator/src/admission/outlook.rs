//! What a throttle tells those who have to wait, or may not.

use std::time::{Duration, Instant};

use super::{Shortage, Throttle};
use crate::sync::lock;

impl Throttle {
    /// Why a request has to wait that comes now.
    pub fn shortage(&self) -> Shortage {
        lock(&self.queue).members.shortage()
    }

    /// When those who wait now will have been let in, at the rate at which others were in the last
    /// seconds, else when that was last measured; after the start that they wait for, if it is known
    /// how long those take. `None` where neither is known.
    pub fn drains_in(&self, now: Instant) -> Option<Duration> {
        let drains_in = lock(&self.queue).drains_in(now);
        let Some(comes_in) = self.starts().comes_in(now) else {
            return drains_in;
        };
        Some(comes_in.saturating_add(drains_in.unwrap_or_default()))
    }

    /// Until when newcomers hear that the revision cannot start; `None` where it can.
    pub fn fails_until(&self) -> Option<Instant> {
        lock(&self.queue).fails_until()
    }
}
