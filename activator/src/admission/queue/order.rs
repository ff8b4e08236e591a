//! Who waits, whose turn it is, and who must go when there are too many.
//!
//! First those that had a slot and lost it without a fault of theirs, then the classes, the most
//! important first; within a class [`Turns`]. A class that was passed over [`PATIENCE`] times has
//! the next turn, so that no class waits for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::holders::Holders;
use super::pins::Pins;
use super::turns::{Place, Turns};
use crate::admission::{Flow, Priority};

/// So many others may go before a class whose turn it would not be. With all classes waiting, each
/// gets at least one of 23 slots.
const PATIENCE: u32 = 16;

#[derive(Debug, Default)]
pub(super) struct Order {
    /// Those that had a slot before.
    again: BTreeMap<Place, usize>,
    /// Those in which somebody waits.
    classes: BTreeMap<u8, Class>,
    holders: Holders,
    pins: Pins,
    /// All, the oldest first.
    arrivals: BTreeSet<Place>,
    tickets: u64,
}

#[derive(Debug, Default)]
struct Class {
    turns: Turns,
    /// How often another class was let in meanwhile.
    passed: u32,
}

/// Where a waiter stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    place: Place,
    again: bool,
    class: u8,
    flow: Flow,
    /// Bytes.
    pins: u64,
}

/// What a newcomer is measured by.
#[derive(Clone, Copy, Debug)]
pub(in crate::admission) struct Rival {
    pub(in crate::admission) flow: Flow,
    pub(in crate::admission) priority: Priority,
}

impl Order {
    pub(super) fn len(&self) -> usize {
        self.arrivals.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.arrivals.is_empty()
    }

    /// When the one who has waited longest came.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.arrivals.first().map(|(arrived, _)| *arrived)
    }

    /// Waiters of a flow, but for those that had a slot before.
    pub(super) fn of(&self, flow: Flow) -> u32 {
        self.holders.count(flow)
    }

    /// Waiters but for those that had a slot before.
    pub(super) fn newcomers(&self) -> usize {
        self.len() - self.again.len()
    }

    pub(super) fn turn(&mut self, arrived: Instant, again: bool, rival: Rival, pins: u64) -> Turn {
        let place = (arrived, self.tickets);
        self.tickets += 1;
        Turn {
            place,
            again,
            class: rival.priority.class(),
            flow: rival.flow,
            pins,
        }
    }

    pub(super) fn insert(&mut self, turn: Turn, key: usize) {
        self.arrivals.insert(turn.place);
        self.put_back(&turn, key);
        if turn.again {
            self.again.insert(turn.place, key);
            return;
        }
        self.holders.add(turn.flow, turn.class);
        let class = self.classes.entry(turn.class).or_default();
        class.turns.insert(turn.flow, turn.place, key);
    }

    /// Somebody goes whose turn it need not be.
    pub(super) fn remove(&mut self, turn: &Turn) {
        self.forget(turn);
        if turn.again {
            self.again.remove(&turn.place);
        } else if let Some(class) = self.classes.get_mut(&turn.class) {
            class.turns.remove(turn.flow, &turn.place);
            self.tidy(turn.class);
        }
    }

    /// Whose turn it is.
    pub(super) fn first(&self) -> Option<usize> {
        if let Some((_, key)) = self.again.first_key_value() {
            return Some(*key);
        }
        self.classes.get(&self.next_class()?)?.turns.first()
    }

    /// The one whose turn it is goes; `turn` is theirs.
    pub(super) fn pop(&mut self, turn: &Turn) {
        self.forget(turn);
        if turn.again {
            self.again.remove(&turn.place);
            return;
        }
        for (class, other) in &mut self.classes {
            match *class == turn.class {
                true => other.passed = 0,
                false => other.passed += 1,
            }
        }
        if let Some(class) = self.classes.get_mut(&turn.class) {
            class.turns.pop();
            self.tidy(turn.class);
        }
    }

    /// The most important one, unless another was passed over too often.
    fn next_class(&self) -> Option<u8> {
        let starving = self.classes.iter().max_by_key(|(_, class)| class.passed);
        match starving {
            Some((starving, class)) if class.passed >= PATIENCE => Some(*starving),
            _ => self.classes.last_key_value().map(|(class, _)| *class),
        }
    }

    fn forget(&mut self, turn: &Turn) {
        self.arrivals.remove(&turn.place);
        self.set_aside(turn);
        if !turn.again {
            self.holders.remove(turn.flow, turn.class);
        }
    }

    fn tidy(&mut self, class: u8) {
        if self
            .classes
            .get(&class)
            .is_some_and(|it| it.turns.is_empty())
        {
            self.classes.remove(&class);
        }
    }

    // Who goes when there are too many. `None`: the newcomer.

    /// The biggest holder's newest and least important one. The newcomer counts as one of its
    /// flow's; among flows that hold as much, the one with the least important request gives way.
    pub(super) fn to_shed(&self, newcomer: Option<Rival>) -> Option<usize> {
        let biggest = self.holders.biggest()?;
        if let Some(rival) = newcomer {
            let with_it = self.holders.count(rival.flow) + 1;
            let equal = with_it == biggest.count && biggest.lowest() >= rival.priority.class();
            if biggest.flow == rival.flow || with_it > biggest.count || equal {
                return self.to_shed_of(rival);
            }
        }
        self.newest(biggest.flow, biggest.lowest())
    }

    /// The same within the newcomer's flow.
    pub(super) fn to_shed_of(&self, rival: Rival) -> Option<usize> {
        let lowest = self.holders.lowest(rival.flow)?;
        match lowest < rival.priority.class() {
            true => self.newest(rival.flow, lowest),
            false => None,
        }
    }

    /// The same by bytes: the newest and least important one that pins some, of the flow that pins
    /// most. The newcomer's bytes count as its flow's.
    pub(super) fn to_unpin(&self, newcomer: Option<(Rival, u64)>) -> Option<usize> {
        let biggest = self.pins.biggest()?;
        if let Some((rival, bytes)) = newcomer {
            let class = rival.priority.class();
            let with_it = self.pins.of(rival.flow).saturating_add(bytes);
            let equal = with_it == biggest.bytes && biggest.lowest() >= class;
            if biggest.flow == rival.flow || with_it > biggest.bytes || equal {
                let (lowest, key) = self.pins.first_to_go(rival.flow)?;
                return (lowest < class).then_some(key);
            }
        }
        let (_, key) = self.pins.first_to_go(biggest.flow)?;
        Some(key)
    }

    /// A waiter is not among those that pin bytes, though it stays. Returns how many it pins.
    pub(super) fn set_aside(&mut self, turn: &Turn) -> u64 {
        if turn.pins > 0 {
            self.pins
                .remove(turn.flow, turn.class, turn.place, turn.pins);
        }
        turn.pins
    }

    /// It is again, or for the first time.
    pub(super) fn put_back(&mut self, turn: &Turn, key: usize) {
        if turn.pins > 0 {
            let Turn {
                flow,
                class,
                place,
                pins,
                ..
            } = *turn;
            self.pins.add(flow, class, place, pins, key);
        }
    }

    fn newest(&self, flow: Flow, class: u8) -> Option<usize> {
        self.classes.get(&class)?.turns.newest(flow)
    }
}

impl Turn {
    /// It was its turn before.
    pub(super) fn had_a_slot(&mut self) {
        self.again = true;
    }
}
