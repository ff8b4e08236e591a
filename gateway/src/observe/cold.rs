//! The last starts of all revisions, for people who ask why something took so long, or failed.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use activator::starts::Start;
use config::revision::Key;

/// So many are kept.
pub const STARTS: usize = 100;

/// The last [`STARTS`] starts, as far as each has come. Written a few times per start, so the lock is
/// not contended.
#[derive(Debug, Default)]
pub struct LastStarts(Mutex<VecDeque<ColdStart>>);

/// A start that is over for those who waited, or has its endpoint.
#[derive(Clone, Debug)]
pub struct ColdStart {
    pub revision: Key,
    pub start: Start,
}

impl LastStarts {
    /// A start is new here, or has come further than it was.
    pub fn note(&self, revision: &Key, start: &Start) {
        let mut starts = self.lock();
        // It is mostly the newest.
        let known = starts.iter_mut().rev();
        if let Some(known) = known.into_iter().find(|one| one.start.id == start.id) {
            known.start = start.clone();
            return;
        }
        if starts.len() == STARTS {
            starts.pop_front();
        }
        starts.push_back(ColdStart {
            revision: revision.clone(),
            start: start.clone(),
        });
    }

    /// The newest first.
    #[must_use]
    pub fn list(&self) -> Vec<ColdStart> {
        self.lock().iter().rev().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<ColdStart>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "an example that cannot be made fails its test"
)]
pub(crate) mod example {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use activator::admission::{Holding, Limits, Supply, Throttle};
    use activator::starts::{News, Witness};

    use super::*;

    #[derive(Debug, Default)]
    struct Heard(Mutex<Option<Start>>);

    impl Witness for Heard {
        fn hear(&self, start: &Start, _news: News) {
            *self.0.lock().unwrap() = Some(start.clone());
        }
    }

    /// A prewarm whose endpoint passed its probe after 1500 ms.
    pub(crate) fn start() -> Start {
        let limits = Limits {
            concurrency: 0,
            queue_depth: 1,
            queue_bytes: None,
            per_client: 0,
            ramp_up: None,
        };
        let holding = Holding::new(1, 0);
        let throttle = Throttle::new(limits, Supply::None, &holding.namespace("default"), 1);
        let heard = Arc::<Heard>::default();
        throttle.starts().set_witness(heard.clone());
        let now = Instant::now();
        throttle.starts().prewarmed(now);
        throttle.starts().nudged(now + Duration::from_micros(300));
        throttle.starts().passed(now + Duration::from_millis(1_500));
        throttle.set_endpoints(&[([127, 0, 0, 1], 9001).into()]);
        heard.0.lock().unwrap().take().unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::example::start;
    use super::*;

    fn key(name: &str) -> Key {
        Key {
            namespace: "default".into(),
            name: name.into(),
        }
    }

    #[test]
    fn only_the_last_starts_are_kept_each_once_and_the_newest_comes_first() {
        let starts = LastStarts::default();
        let all: Vec<Start> = std::iter::repeat_with(start).take(STARTS + 7).collect();
        for one in &all {
            starts.note(&key("a"), one);
        }
        let mut again = all[50].clone();
        again.held = 5;
        starts.note(&key("a"), &again);
        let listed = starts.list();
        let listed: Vec<_> = listed
            .iter()
            .map(|one| (one.start.id, one.start.held))
            .collect();
        let expected = all.iter().skip(7).rev();
        let expected: Vec<_> = expected
            .map(|one| (one.id, if one.id == again.id { 5 } else { 0 }))
            .collect();
        assert_eq!(listed, expected);
    }
}
