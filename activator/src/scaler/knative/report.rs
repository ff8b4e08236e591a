//! What the autoscaler is told of each revision, and when: decided here, without a clock or a socket.
//!
//! What counts for a revision is who waits for it, and who runs marked: nobody else tells the
//! autoscaler of these. Marked streams at rest count while somebody waits: they hold the slots that
//! are waited for. The first such request of a revision that rests is told of at once, as one
//! request at a time and one arrival; the report of its window is then less by that much. From then
//! on there is a report per window, until one in which there was nothing, which is the last.
//! Revisions that rest cost nothing.

use std::collections::BTreeSet;

use config::revision::Key;
use slab::Slab;

use crate::demand::{Reading, average};

/// What one report says of one revision.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Measured {
    /// Requests at a time, averaged over the window.
    pub(super) average: f64,
    /// Arrivals in the window.
    pub(super) count: f64,
}

/// What is said of the first request.
pub(super) const FIRST: Measured = Measured {
    average: 1.0,
    count: 1.0,
};

/// What is said last.
const NOTHING: Measured = Measured {
    average: 0.0,
    count: 0.0,
};

/// A revision's number, as long as it is followed.
pub(super) type Id = usize;

/// All revisions that are followed.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    accounts: Slab<Account>,
    /// Those that do not rest.
    active: BTreeSet<Id>,
}

#[derive(Debug)]
struct Account {
    key: Key,
    /// All up to here has been told of.
    told: Reading,
    state: State,
    /// Requests at a time that are on their way, as somebody says; 0 = nobody does.
    expected: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Resting,
    /// The first request was told of, its window was not.
    Begun,
    Active,
}

impl Ledger {
    /// Follows a revision. `reading` is its demand as of now: who waits or runs marked already is
    /// told of, what was before is not.
    pub(super) fn follow(&mut self, key: Key, reading: Reading) -> (Id, Option<Measured>) {
        let there = reading.waiting.wrapping_add(reading.marked);
        let told = Reading {
            asked: reading.asked.wrapping_sub(there),
            ..reading
        };
        let id = self.accounts.insert(Account {
            key,
            told,
            state: State::Resting,
            expected: 0.0,
        });
        (id, self.look(id, reading))
    }

    /// Forgets a revision. What to say of it at last, if it did not rest: nothing is asked here any
    /// more. The number may be used for another.
    pub(super) fn forget(&mut self, id: Id) -> Option<Measured> {
        self.accounts.remove(id);
        self.active.remove(&id).then_some(NOTHING)
    }

    /// Whether all revisions do.
    pub(super) fn rests(&self) -> bool {
        self.active.is_empty()
    }

    /// Somebody may have come: what to say at once, if the revision was resting and did.
    pub(super) fn look(&mut self, id: Id, reading: Reading) -> Option<Measured> {
        let account = &mut self.accounts[id];
        if account.state != State::Resting || !account.has_news(&reading) {
            return None;
        }
        // The integrals stood still since the last report, so its window begins with the request.
        account.told.at = reading.at;
        account.state = State::Begun;
        self.active.insert(id);
        Some(FIRST)
    }

    /// So many requests at a time are expected, until told otherwise: reports say no less. What to say
    /// at once, if the revision was resting and is expected to do something.
    pub(super) fn expect(&mut self, id: Id, average: f64, reading: Reading) -> Option<Measured> {
        let account = &mut self.accounts[id];
        account.expected = average;
        if account.state != State::Resting || average == 0.0 {
            return None;
        }
        account.told.at = reading.at;
        account.state = State::Begun;
        self.active.insert(id);
        Some(FIRST)
    }

    /// The reports of a window that ends now, and who was found idle by them, which must be given to
    /// [`Ledger::rest`]. A revision without a reading has nobody any more.
    pub(super) fn tick(
        &mut self,
        mut read: impl FnMut(Id) -> Option<Reading>,
    ) -> (Vec<(Key, Measured)>, Vec<Id>) {
        let mut idle = Vec::new();
        let mut reports = Vec::with_capacity(self.active.len());
        for &id in &self.active {
            let account = &mut self.accounts[id];
            let (measured, over) = match read(id) {
                Some(reading) => account.report(reading),
                None => (NOTHING, true),
            };
            if over {
                idle.push(id);
            }
            reports.push((account.key.clone(), measured));
        }
        (reports, idle)
    }

    /// Lets a revision rest. `reading` was taken after its next request was sure to be heard of;
    /// what to say at once, if one came before.
    pub(super) fn rest(&mut self, id: Id, reading: Option<Reading>) -> Option<Measured> {
        self.accounts[id].state = State::Resting;
        self.active.remove(&id);
        self.look(id, reading?)
    }

    /// Whether a revision has requests, or had some in its last window.
    #[cfg(test)]
    fn is_active(&self, id: Id) -> bool {
        self.accounts[id].state != State::Resting
    }
}

impl Account {
    fn has_news(&self, reading: &Reading) -> bool {
        reading.asked != self.told.asked || reading.waiting != 0 || reading.marked != 0
    }

    /// What to say of the window that ends with this reading, and whether nothing was in it.
    fn report(&mut self, reading: Reading) -> (Measured, bool) {
        let averages = average(&self.told, &reading);
        let average = averages.waiting + averages.marked + in_the_way(&reading);
        let asked = reading.asked.wrapping_sub(self.told.asked);
        let again = reading.again.wrapping_sub(self.told.again);
        // One that is made once more is the same request.
        let count = f64::from(asked.saturating_sub(again));
        let over = average == 0.0 && !self.has_news(&reading) && self.expected == 0.0;
        let told_already = match self.state {
            State::Begun => FIRST,
            State::Resting | State::Active => NOTHING,
        };
        self.told = reading;
        self.state = State::Active;
        let measured = Measured {
            average: (average - told_already.average).max(self.expected),
            // Some revisions are scaled by how many requests come instead. Less than nothing would be
            // left where nobody came but who had come before.
            count: (count - told_already.count).max(self.expected),
        };
        (measured, over)
    }
}

/// Streams at rest whose slots somebody waits for, of those that nobody else tells of.
fn in_the_way(reading: &Reading) -> f64 {
    match reading.waiting {
        0 => 0.0,
        _ => reading.resting_marked.into(),
    }
}

#[cfg(test)]
mod tests;
