//! The last two phases of a cold start, which only a worker sees: the scaler knows when an endpoint
//! was ready, the worker when the first held request reached it and when the answer began.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use config::revision::Key;

/// Per revision, what the first request after its last cold start saw. Written at most once per
/// cold start, so the lock is never contended.
#[derive(Debug, Default)]
pub struct FirstAnswers(Mutex<HashMap<Key, FirstAnswer>>);

/// How long the first held request took from being let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstAnswer {
    /// Let in → written to the endpoint.
    pub wire: Duration,
    /// → the first byte of the answer.
    pub first_byte: Duration,
}

impl FirstAnswers {
    /// Notes what a request that woke its revision saw; the first one counts.
    pub fn note(&self, key: &Key, wire: Duration, first_byte: Duration) {
        let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !answers.contains_key(key) {
            answers.insert(key.clone(), FirstAnswer { wire, first_byte });
        }
    }

    /// Takes what was noted, so that the next cold start notes afresh.
    pub fn take(&self, key: &Key) -> Option<FirstAnswer> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key)
    }
}
