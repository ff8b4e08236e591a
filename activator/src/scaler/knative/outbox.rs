//! What waits to be said to the autoscaler while it cannot be reached.
//!
//! Reports grow old: only the newest of a revision is kept. That a revision's first request came is
//! kept until the autoscaler is known to have read it, and else said again on the next connection,
//! so that a start that begins while it restarts is not lost. It says nothing back, but it reads in
//! order: a pong to a ping that was sent later proves what was sent before.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use config::revision::Key;
use tokio::sync::Notify;

use super::report::{FIRST, Measured};
use super::stat::REVISIONS_PER_MESSAGE;

/// Of so many revisions first requests are kept, and of as many newest reports.
pub(super) const REVISIONS_KEPT: usize = 20_000;

/// Filled by who measures, emptied by the one that sends.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pending: Mutex<Pending>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Pending {
    /// Revisions whose first request was not sent, in order of arrival; each once.
    firsts: VecDeque<Key>,
    known: HashSet<Key>,
    /// Sent, but not known to be read, each with its place in the order sent.
    unproven: VecDeque<(u64, Key)>,
    /// First requests ever sent.
    sent: u64,
    /// Newest reports that were not sent.
    reports: HashMap<Key, Measured>,
    dropped: u64,
}

/// What goes out together.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Batch {
    pub(super) firsts: Vec<(Key, Measured)>,
    pub(super) reports: Vec<(Key, Measured)>,
}

impl Batch {
    /// Messages of bounded size, first requests ahead of reports.
    pub(super) fn messages(&self) -> impl Iterator<Item = &[(Key, Measured)]> {
        let firsts = self.firsts.chunks(REVISIONS_PER_MESSAGE);
        firsts.chain(self.reports.chunks(REVISIONS_PER_MESSAGE))
    }
}

impl Outbox {
    /// A revision's first request came.
    pub(super) fn first(&self, key: &Key) {
        let mut pending = self.lock();
        if pending.known.contains(key) {
            return;
        }
        if pending.firsts.len() >= REVISIONS_KEPT {
            pending.dropped += 1;
            return;
        }
        pending.known.insert(key.clone());
        pending.firsts.push_back(key.clone());
        drop(pending);
        self.news.notify_one();
    }

    /// The reports of one window.
    pub(super) fn report(&self, reports: Vec<(Key, Measured)>) {
        if reports.is_empty() {
            return;
        }
        let mut pending = self.lock();
        for (key, measured) in reports {
            let room = pending.reports.len() < REVISIONS_KEPT;
            if room || pending.reports.contains_key(&key) {
                pending.reports.insert(key, measured);
            } else {
                pending.dropped += 1;
            }
        }
        drop(pending);
        self.news.notify_one();
    }

    /// Nothing more is to be said of this revision.
    pub(super) fn forget(&self, key: &Key) {
        let mut pending = self.lock();
        pending.reports.remove(key);
        pending.unproven.retain(|(_, of)| of != key);
        if pending.known.remove(key) {
            pending.firsts.retain(|of| of != key);
        }
    }

    /// Returns once there may be something to send. For one task. Cancel safe.
    pub(super) async fn news(&self) {
        self.news.notified().await;
    }

    /// Takes all there is to send.
    pub(super) fn take(&self) -> Batch {
        let mut pending = self.lock();
        let firsts = std::mem::take(&mut pending.firsts);
        pending.known.clear();
        for key in &firsts {
            let place = pending.sent;
            pending.unproven.push_back((place, key.clone()));
            pending.sent += 1;
        }
        while pending.unproven.len() > REVISIONS_KEPT {
            pending.unproven.pop_front();
        }
        Batch {
            firsts: firsts.into_iter().map(|key| (key, FIRST)).collect(),
            reports: pending.reports.drain().collect(),
        }
    }

    /// How many first requests were sent; for [`Outbox::proven`].
    pub(super) fn sent(&self) -> u64 {
        self.lock().sent
    }

    /// So many first requests were sent before something that is known to have been read.
    pub(super) fn proven(&self, sent: u64) {
        let mut pending = self.lock();
        while pending.unproven.front().is_some_and(|(at, _)| *at < sent) {
            pending.unproven.pop_front();
        }
    }

    /// The connection was lost. First requests that it may have swallowed are to be sent again, and
    /// of these reports those that no newer ones have replaced.
    pub(super) fn restore(&self, reports: Vec<(Key, Measured)>) {
        let mut pending = self.lock();
        for (_, key) in std::mem::take(&mut pending.unproven).into_iter().rev() {
            if pending.known.insert(key.clone()) {
                pending.firsts.push_front(key);
            }
        }
        for (key, measured) in reports {
            pending.reports.entry(key).or_insert(measured);
        }
        let news = !pending.firsts.is_empty() || !pending.reports.is_empty();
        drop(pending);
        if news {
            self.news.notify_one();
        }
    }

    /// What found no room.
    pub(super) fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> Key {
        Key {
            namespace: "default".into(),
            name: format!("r{number}").into(),
        }
    }

    fn report(number: usize, average: f64) -> (Key, Measured) {
        let count = 0.0;
        (key(number), Measured { average, count })
    }

    fn first(number: usize) -> (Key, Measured) {
        (key(number), FIRST)
    }

    #[test]
    fn only_the_newest_report_of_a_revision_is_kept_and_every_first_request() {
        let outbox = Outbox::default();
        outbox.first(&key(1));
        outbox.report(vec![report(1, 1.0)]);
        outbox.first(&key(2));
        outbox.report(vec![report(1, 2.0)]);
        outbox.first(&key(1));
        let batch = outbox.take();
        assert_eq!(batch.firsts, [first(1), first(2)]);
        assert_eq!(batch.reports, [report(1, 2.0)]);
        assert_eq!(outbox.take(), Batch::default());
    }

    #[test]
    fn a_first_request_is_sent_again_unless_a_later_pong_came() {
        let outbox = Outbox::default();
        outbox.first(&key(1));
        outbox.take();
        let sent = outbox.sent();
        outbox.first(&key(2));
        outbox.take();
        outbox.proven(sent);
        outbox.first(&key(3));
        outbox.restore(vec![]);
        assert_eq!(outbox.take().firsts, [first(2), first(3)]);
        outbox.proven(outbox.sent());
        outbox.restore(vec![]);
        assert_eq!(outbox.take(), Batch::default());
    }

    #[test]
    fn an_unsent_report_comes_back_unless_there_is_a_newer_one() {
        let outbox = Outbox::default();
        outbox.report(vec![report(1, 1.0), report(2, 1.0)]);
        let lost = outbox.take();
        outbox.report(vec![report(2, 5.0)]);
        outbox.restore(lost.reports);
        let mut reports = outbox.take().reports;
        reports.sort_by(|one, other| one.0.cmp(&other.0));
        assert_eq!(reports, [report(1, 1.0), report(2, 5.0)]);
    }

    #[test]
    fn messages_have_a_bounded_size() {
        let outbox = Outbox::default();
        for number in 0..REVISIONS_PER_MESSAGE + 1 {
            outbox.first(&key(number));
        }
        outbox.report(vec![report(0, 0.5)]);
        let batch = outbox.take();
        let sizes: Vec<_> = batch.messages().map(<[_]>::len).collect();
        assert_eq!(sizes, [REVISIONS_PER_MESSAGE, 1, 1]);
    }

    #[test]
    fn what_is_kept_has_a_bound_and_what_is_not_is_counted() {
        let outbox = Outbox::default();
        for number in 0..REVISIONS_KEPT + 3 {
            outbox.first(&key(number));
            outbox.report(vec![report(number, 1.0)]);
        }
        outbox.report(vec![report(0, 2.0)]);
        assert_eq!(outbox.dropped(), 6);
        let batch = outbox.take();
        assert_eq!(batch.firsts.len(), REVISIONS_KEPT);
        assert_eq!(batch.reports.len(), REVISIONS_KEPT);
        assert!(batch.reports.contains(&report(0, 2.0)));
    }

    #[test]
    fn nothing_is_said_of_a_revision_that_is_forgotten() {
        let outbox = Outbox::default();
        for number in [1, 2] {
            outbox.first(&key(number));
            outbox.take();
            outbox.report(vec![report(number, 1.0)]);
        }
        outbox.first(&key(1));
        outbox.forget(&key(1));
        outbox.restore(vec![]);
        let batch = outbox.take();
        assert_eq!(batch.firsts, [first(2)]);
        assert_eq!(batch.reports, [report(2, 1.0)]);
    }
}
