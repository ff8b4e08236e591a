//! The last two phases of a cold start, which only a worker sees: the scaler knows when an endpoint
//! was ready, the worker when the first held request reached it and when the answer began.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use config::revision::Key;

/// Per revision, what the first request after its last cold start saw. Written at most once per
/// cold start, so the lock is not contended.
#[derive(Debug, Default)]
pub struct FirstAnswers(Mutex<HashMap<Key, Noted>>);

#[derive(Debug)]
struct Noted {
    answer: Option<FirstAnswer>,
    /// Requests that came before belong to a cold start that is already told.
    since: Option<Instant>,
}

/// How long the first held request took from being let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstAnswer {
    /// Let in → written to the endpoint.
    pub wire: Duration,
    /// → the first byte of the answer.
    pub first_byte: Duration,
}

impl FirstAnswers {
    /// Notes what a request that came to a revision at zero saw; the first one counts.
    pub fn note(&self, key: &Key, arrived: Instant, answer: FirstAnswer) {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match noted.get_mut(key) {
            None => {
                let first = Noted {
                    answer: Some(answer),
                    since: None,
                };
                noted.insert(key.clone(), first);
            }
            Some(noted) => {
                let told = noted.since.is_some_and(|since| arrived < since);
                if !told && noted.answer.is_none() {
                    noted.answer = Some(answer);
                }
            }
        }
    }

    /// Takes what was noted; from `now` on the next cold start is noted.
    pub fn take(&self, key: &Key, now: Instant) -> Option<FirstAnswer> {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let noted = noted.get_mut(key)?;
        let answer = noted.answer.take()?;
        noted.since = Some(now);
        Some(answer)
    }

    /// Forgets revisions that are gone.
    pub fn retain(&self, mut known: impl FnMut(&Key) -> bool) {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        noted.retain(|key, _| known(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_answer_of_a_start_that_is_told_does_not_count_for_the_next() {
        let answers = FirstAnswers::default();
        let key = Key {
            namespace: "default".into(),
            name: "a".into(),
        };
        let answer = |n| FirstAnswer {
            wire: Duration::ZERO,
            first_byte: Duration::from_secs(n),
        };
        let start = Instant::now();
        answers.note(&key, start, answer(1));
        answers.note(&key, start, answer(2));
        let told = start + Duration::from_secs(1);
        assert_eq!(answers.take(&key, told), Some(answer(1)));
        answers.note(&key, start, answer(3));
        assert_eq!(answers.take(&key, told), None);
        answers.note(&key, told, answer(4));
        assert_eq!(answers.take(&key, told), Some(answer(4)));
    }
}
