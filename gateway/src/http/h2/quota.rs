//! How many streams in its life a connection to an endpoint gets while nobody knows whether it takes more.
//!
//! Some endpoints end each connection after so many requests, and say so (GOAWAY) when these have
//! come: what was sent behind them in the meantime has to be sent again.

use std::cell::Cell;

/// One worker's, for all its connections to an endpoint.
#[derive(Debug)]
pub struct Quota(Cell<u32>);

impl Default for Quota {
    fn default() -> Quota {
        Quota(Cell::new(u32::MAX))
    }
}

impl Quota {
    /// Whether another stream may begin on a connection on which so many have.
    pub(super) fn allows(&self, begun: u32) -> bool {
        begun < self.0.get()
    }

    /// The endpoint left after that many streams of a connection.
    pub(super) fn left(&self, after: u32) {
        // The requests that met it together tell one after the other, in any order.
        self.0.set(self.0.get().min(after).max(1));
    }

    /// The last stream that it allows is answered, and the endpoint stays. It may leave right after:
    /// then twice as many cost no more than half of them another attempt.
    pub(super) fn grow(&self) {
        self.0.set(self.0.get().saturating_mul(2));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_what_a_connection_took_until_it_grows() {
        let quota = Quota::default();
        assert!(quota.allows(u32::MAX - 1));
        for after in [31, 20, 27] {
            quota.left(after);
        }
        assert!(quota.allows(19) && !quota.allows(20));
        quota.grow();
        assert!(quota.allows(39) && !quota.allows(40));
    }

    #[test]
    fn a_connection_gets_one_stream_at_least() {
        let quota = Quota::default();
        quota.left(0);
        assert!(quota.allows(0) && !quota.allows(1));
    }
}
