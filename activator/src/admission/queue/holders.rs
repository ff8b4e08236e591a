//! Who holds how much of a queue, so that the biggest holder is found when it is full.

use std::collections::{BTreeSet, HashMap};

use crate::admission::{Flow, Priority};

/// Waiting requests of each flow.
#[derive(Debug, Default)]
pub(super) struct Holders {
    flows: HashMap<Flow, Counts>,
    /// The biggest last; among equals the one with the least important request.
    ranks: BTreeSet<Rank>,
}

/// By class.
#[derive(Clone, Copy, Debug, Default)]
struct Counts([u32; Priority::MOST as usize + 1]);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    pub(super) count: u32,
    /// How far its least important request is from the most important class.
    unimportance: u8,
    pub(super) flow: Flow,
}

impl Counts {
    fn total(&self) -> u32 {
        self.0.iter().sum()
    }

    fn lowest(&self) -> Option<u8> {
        let lowest = self.0.iter().position(|count| *count > 0)?;
        u8::try_from(lowest).ok()
    }

    fn rank(&self, flow: Flow) -> Option<Rank> {
        let lowest = self.lowest()?;
        Some(Rank {
            count: self.total(),
            unimportance: u8::MAX - lowest,
            flow,
        })
    }
}

impl Rank {
    /// Its least important class.
    pub(super) fn lowest(&self) -> u8 {
        u8::MAX - self.unimportance
    }
}

impl Holders {
    pub(super) fn add(&mut self, flow: Flow, class: u8) {
        self.change(flow, |counts| counts.0[usize::from(class)] += 1);
    }

    pub(super) fn remove(&mut self, flow: Flow, class: u8) {
        self.change(flow, |counts| counts.0[usize::from(class)] -= 1);
    }

    fn change(&mut self, flow: Flow, change: impl FnOnce(&mut Counts)) {
        let mut counts = self.flows.get(&flow).copied().unwrap_or_default();
        if let Some(rank) = counts.rank(flow) {
            self.ranks.remove(&rank);
        }
        change(&mut counts);
        match counts.rank(flow) {
            Some(rank) => {
                self.ranks.insert(rank);
                self.flows.insert(flow, counts);
            }
            None => {
                self.flows.remove(&flow);
            }
        }
    }

    /// How many wait of a flow.
    pub(super) fn count(&self, flow: Flow) -> u32 {
        self.flows.get(&flow).map_or(0, Counts::total)
    }

    /// The least important class of which one of a flow waits.
    pub(super) fn lowest(&self, flow: Flow) -> Option<u8> {
        self.flows.get(&flow)?.lowest()
    }

    pub(super) fn biggest(&self) -> Option<Rank> {
        self.ranks.last().copied()
    }
}
