//! Taking turns: flows one after another, each in order of arrival.
//!
//! Deficit round robin (Shreedhar and Varghese, 1995) where every request costs one and every flow
//! may spend one per round, which leaves no deficit to carry: a request's real cost, the time it
//! holds its slot, is known only afterwards. A tree of two levels, namespaces and their clients.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use crate::admission::Flow;

/// By arrival, then in the order they came here.
pub(super) type Place = (Instant, u64);

/// Those of one class.
#[derive(Debug, Default)]
pub(super) struct Turns(Node);

#[derive(Debug, Default)]
struct Node {
    children: HashMap<u64, Child>,
    /// Whose turn comes when, among the children.
    rounds: BTreeMap<u64, u64>,
    next_round: u64,
    /// Of a leaf: who waits.
    waiting: BTreeMap<Place, usize>,
}

#[derive(Debug)]
struct Child {
    node: Node,
    round: u64,
}

impl Turns {
    pub(super) fn insert(&mut self, flow: Flow, place: Place, key: usize) {
        let node = self.0.child(flow.namespace).child(flow.client);
        node.waiting.insert(place, key);
    }

    pub(super) fn remove(&mut self, flow: Flow, place: &Place) {
        self.0.remove(&[flow.namespace, flow.client], place);
    }

    /// Whose turn it is.
    pub(super) fn first(&self) -> Option<usize> {
        let mut node = &self.0;
        // Two levels.
        while let Some((_, id)) = node.rounds.first_key_value() {
            node = &node.children.get(id)?.node;
        }
        node.waiting.first_key_value().map(|(_, key)| *key)
    }

    /// The one whose turn it is goes; its flow's next turn comes after all others'.
    pub(super) fn pop(&mut self) -> Option<usize> {
        self.0.pop()
    }

    /// The one of a flow that came last.
    pub(super) fn newest(&self, flow: Flow) -> Option<usize> {
        let namespace = self.0.children.get(&flow.namespace)?;
        let client = namespace.node.children.get(&flow.client)?;
        client.node.waiting.last_key_value().map(|(_, key)| *key)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Node {
    fn is_empty(&self) -> bool {
        self.children.is_empty() && self.waiting.is_empty()
    }

    /// A child that is new has its turn after the others.
    fn child(&mut self, id: u64) -> &mut Node {
        let child = self.children.entry(id).or_insert_with(|| {
            let round = self.next_round;
            self.next_round += 1;
            self.rounds.insert(round, id);
            Child {
                node: Node::default(),
                round,
            }
        });
        &mut child.node
    }

    fn remove(&mut self, path: &[u64], place: &Place) {
        let Some((id, rest)) = path.split_first() else {
            self.waiting.remove(place);
            return;
        };
        let Some(child) = self.children.get_mut(id) else {
            return;
        };
        child.node.remove(rest, place);
        if child.node.is_empty() {
            self.rounds.remove(&child.round);
            self.children.remove(id);
        }
    }

    fn pop(&mut self) -> Option<usize> {
        let Some((_, id)) = self.rounds.pop_first() else {
            return self.waiting.pop_first().map(|(_, key)| key);
        };
        let child = self.children.get_mut(&id)?;
        let key = child.node.pop();
        if child.node.is_empty() {
            self.children.remove(&id);
        } else {
            child.round = self.next_round;
            self.rounds.insert(self.next_round, id);
            self.next_round += 1;
        }
        key
    }
}
