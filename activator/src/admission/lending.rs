//! What one process takes of slots that belong to others, while requests wait for its own.
//!
//! Nobody knows whether the others need them: then what is sent there waits behind their work, and
//! cannot go to an endpoint that comes meanwhile. So it begins with one, and each that is given back
//! allows one more: twice as many per length of a request. Short requests get all that is lent
//! soon, and lose little by it; long ones risk few.

use std::time::{Duration, Instant};

/// So often one more is allowed while requests wait and none is given back.
const ONE_MORE_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Lending {
    /// `None`: nothing is taken.
    on: Option<Taking>,
    /// Lent slots in flight.
    held: u32,
}

#[derive(Debug)]
struct Taking {
    most: u32,
    grown: Instant,
}

impl Lending {
    /// Somebody has waited for long: lent slots may be taken, or after a while one more.
    pub(super) fn want(&mut self, now: Instant) {
        let taking = self.on.get_or_insert(Taking {
            most: 1,
            grown: now,
        });
        if now.saturating_duration_since(taking.grown) >= ONE_MORE_EVERY {
            taking.most = taking.most.saturating_add(1);
            taking.grown = now;
        }
    }

    pub(super) fn end(&mut self) {
        self.on = None;
    }

    /// One more may be taken.
    pub(super) fn may_take(&self) -> bool {
        self.on.as_ref().is_some_and(|on| self.held < on.most)
    }

    pub(super) fn took(&mut self) {
        self.held += 1;
    }

    pub(super) fn returned(&mut self) {
        self.held = self.held.saturating_sub(1);
        if let Some(taking) = &mut self.on {
            taking.most = taking.most.saturating_add(1);
        }
    }

    pub(super) fn held(&self) -> u32 {
        self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_taken_doubles_with_each_round_that_is_given_back() {
        let now = Instant::now();
        let mut lending = Lending::default();
        assert!(!lending.may_take());
        lending.want(now);
        let mut rounds = Vec::new();
        for _ in 0..4 {
            while lending.may_take() {
                lending.took();
            }
            rounds.push(lending.held());
            while lending.held() > 0 {
                lending.returned();
            }
        }
        assert_eq!(rounds, [1, 2, 4, 8]);
        lending.end();
        assert!(!lending.may_take());
        lending.want(now);
        lending.took();
        assert!(!lending.may_take(), "it begins anew");
    }

    #[test]
    fn without_any_given_back_it_is_one_more_each_second() {
        let now = Instant::now();
        let mut lending = Lending::default();
        lending.want(now);
        lending.took();
        lending.want(now + ONE_MORE_EVERY / 2);
        assert!(!lending.may_take());
        lending.want(now + ONE_MORE_EVERY);
        assert!(lending.may_take());
        lending.took();
        lending.want(now + ONE_MORE_EVERY);
        assert!(!lending.may_take());
    }
}
