//! Streams on which nothing moves: for demand they are not there.

use std::cell::Cell;
use std::time::{Duration, Instant};

use activator::admission::Slot;

use crate::live::LocalRevision;

/// Sets an attempt's slot at rest once its answer has begun and then no byte has moved either way for
/// as long as the revision says. The first byte that moves ends it.
#[derive(Debug)]
pub(super) struct Rest<'a> {
    slot: &'a Slot,
    /// `None`: it never does.
    after: Option<Duration>,
    since: Cell<Option<Instant>>,
    before: Cell<Duration>,
}

impl<'a> Rest<'a> {
    pub(super) fn new(slot: &'a Slot, revision: &LocalRevision) -> Rest<'a> {
        Rest {
            slot,
            after: revision.revision.idle_stream,
            since: Cell::new(None),
            before: Cell::new(Duration::ZERO),
        }
    }

    /// Brings the slot in line with when the last byte moved. When it will rest, if it does not yet and
    /// nothing moves until then.
    pub(super) fn look(&self, last: Instant, now: Instant) -> Option<Instant> {
        let at = last + self.after?;
        if now >= at {
            self.slot.rest();
            if self.since.get().is_none() {
                self.since.set(Some(now));
            }
            return None;
        }
        if let Some(since) = self.since.take() {
            self.slot.stir();
            let rested = now.saturating_duration_since(since);
            self.before.set(self.before.get() + rested);
        }
        Some(at)
    }

    /// Whether it rests now.
    pub(super) fn rests(&self) -> bool {
        self.since.get().is_some()
    }

    /// For how long it has rested in all.
    pub(super) fn rested(&self, now: Instant) -> Duration {
        let since = self.since.get();
        let still = since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        self.before.get() + still
    }
}
