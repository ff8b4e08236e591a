//! Who pins how many bytes, so that whoever pins most is found when there are too many.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::turns::Place;
use crate::admission::Flow;

/// Waiters that pin bytes, by flow.
#[derive(Debug, Default)]
pub(super) struct Pins {
    flows: HashMap<Flow, Pinning>,
    /// The flow that pins most last; among equals the one with the least important request.
    ranks: BTreeSet<Rank>,
}

#[derive(Debug, Default)]
struct Pinning {
    bytes: u64,
    /// The first to go first: the newest of the least important ones.
    waiters: BTreeMap<(u8, Reverse<Place>), usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    pub(super) bytes: u64,
    least: Reverse<u8>,
    pub(super) flow: Flow,
}

impl Rank {
    /// Its least important class.
    pub(super) fn lowest(&self) -> u8 {
        self.least.0
    }
}

impl Pinning {
    fn rank(&self, flow: Flow) -> Option<Rank> {
        let ((lowest, _), _) = self.waiters.first_key_value()?;
        Some(Rank {
            bytes: self.bytes,
            least: Reverse(*lowest),
            flow,
        })
    }
}

impl Pins {
    pub(super) fn add(&mut self, flow: Flow, class: u8, place: Place, bytes: u64, key: usize) {
        self.change(flow, |pinning| {
            pinning.bytes += bytes;
            pinning.waiters.insert((class, Reverse(place)), key);
        });
    }

    /// Does nothing where it is not known.
    pub(super) fn remove(&mut self, flow: Flow, class: u8, place: Place, bytes: u64) {
        self.change(flow, |pinning| {
            if pinning.waiters.remove(&(class, Reverse(place))).is_some() {
                pinning.bytes -= bytes;
            }
        });
    }

    fn change(&mut self, flow: Flow, change: impl FnOnce(&mut Pinning)) {
        let pinning = self.flows.entry(flow).or_default();
        if let Some(rank) = pinning.rank(flow) {
            self.ranks.remove(&rank);
        }
        change(pinning);
        match pinning.rank(flow) {
            Some(rank) => {
                self.ranks.insert(rank);
            }
            None => {
                self.flows.remove(&flow);
            }
        }
    }

    /// Bytes of a flow.
    pub(super) fn of(&self, flow: Flow) -> u64 {
        self.flows.get(&flow).map_or(0, |pinning| pinning.bytes)
    }

    pub(super) fn biggest(&self) -> Option<Rank> {
        self.ranks.last().copied()
    }

    /// Class and key of the one of a flow that goes first.
    pub(super) fn first_to_go(&self, flow: Flow) -> Option<(u8, usize)> {
        let pinning = self.flows.get(&flow)?;
        let ((class, _), key) = pinning.waiters.first_key_value()?;
        Some((*class, *key))
    }
}
