//! `Retry-After` of a refusal, or what gRPC has for it: when there will be room, by what was let in
//! lately, or when a start will be tried again.

use std::time::Duration;

use super::Exchange;
use crate::refusal::Reason;

/// Longest time that is asked of a client: what is measured now says little about later.
const SECONDS_MAX: u64 = 120;

impl Exchange<'_> {
    /// Seconds after which those who wait now will have been let in, or the revision may start;
    /// `None` where neither is the question, or nothing is known of it.
    pub(super) fn retry_after(&self, reason: Reason) -> Option<u64> {
        let throttle = self.revision.as_ref()?.gate.throttle();
        let now = self.worker.clock.now();
        let wait = match reason {
            Reason::QueueFull | Reason::StartTimeout => throttle.drains_in(now)?,
            Reason::StartFailed => throttle.fails_until()?.saturating_duration_since(now),
            _ => return None,
        };
        Some(seconds(wait, self.worker.random()))
    }
}

/// Up to a quarter later for some: clients that were refused together do not come back together.
fn seconds(wait: Duration, random: u64) -> u64 {
    let begun = u64::from(wait.subsec_nanos() > 0);
    let whole = wait.as_secs().saturating_add(begun);
    let least = whole.clamp(1, SECONDS_MAX * 4 / 5);
    let spread = (least / 4).max(1);
    least + random % (spread + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_asked_back_when_the_queue_has_drained_and_not_all_at_once() {
        for (millis, earliest, latest) in [
            (0, 1, 2),
            (1, 1, 2),
            (1000, 1, 2),
            (1001, 2, 3),
            (20_000, 20, 25),
            (96_000, 96, 120),
            (1_000_000, 96, 120),
            (u64::MAX, 96, 120),
        ] {
            let all = (0..1000).map(|random| seconds(Duration::from_millis(millis), random));
            let (least, most) = all.fold((u64::MAX, 0), |(least, most), one| {
                (least.min(one), most.max(one))
            });
            assert_eq!((least, most), (earliest, latest), "{millis} ms");
        }
    }
}
