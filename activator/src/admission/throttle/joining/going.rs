//! Who is going to give way, at most three throttles' waiters, before anybody is refused.

use std::sync::Arc;

use super::{Denied, full};
use crate::admission::holding::Crowd;
use crate::admission::queue::Queue;
use crate::admission::wakers::BATCH;
use crate::admission::{Bound, Throttle};
use crate::sync::{MutexGuard, lock};

/// The newcomer's own throttle, the biggest crowd's, and the one that keeps most bytes.
const THROTTLES_MAX: usize = 3;

/// The newcomer's own side.
pub(super) const OWN: usize = 0;

/// Who may give way beside the newcomer's own throttle, or that one again.
pub(super) struct Relief<'a> {
    /// For this bound.
    pub(super) crowd: Option<(Crowd, &'a Throttle)>,
    /// Of bytes of the process; `None` = there seemed to be room, or nobody keeps any.
    pub(super) keeper: Option<Arc<Throttle>>,
}

/// What waits at the newcomer's throttle and, where it takes that, at others.
pub(super) struct Queues<'a> {
    pub(super) own: MutexGuard<'a, Queue>,
    pub(super) others: Vec<(&'a Throttle, MutexGuard<'a, Queue>)>,
}

/// One that is going to be refused, and for which bound.
#[derive(Clone, Copy)]
pub(super) struct Victim {
    pub(super) side: usize,
    pub(super) key: usize,
    pub(super) bound: Bound,
}

/// Waiters that are going to be refused so that one more may wait.
#[derive(Default)]
pub(super) struct Going {
    victims: Vec<Victim>,
    /// What they pin, by side.
    bytes: [u64; THROTTLES_MAX],
}

impl Relief<'_> {
    /// Whose waiters give way for that bound, if that was looked for.
    pub(super) fn of(&self, crowd: Crowd) -> Option<&Throttle> {
        let (found_for, throttle) = self.crowd?;
        (found_for == crowd).then_some(throttle)
    }
}

impl<'a> Queues<'a> {
    pub(super) fn alone(own: MutexGuard<'a, Queue>) -> Queues<'a> {
        let others = Vec::new();
        Queues { own, others }
    }

    /// All of them, in order of their addresses: nobody who waits for one of their locks has
    /// another that is needed.
    pub(super) fn lock(own: &'a Throttle, relief: &'a Relief<'_>) -> Queues<'a> {
        let crowd = relief.crowd.map(|(_, throttle)| throttle);
        let mut all: Vec<&Throttle> = vec![own];
        all.extend(crowd);
        all.extend(relief.keeper.as_deref());
        all.sort_by_key(|throttle| std::ptr::from_ref(*throttle).addr());
        all.dedup_by(|one, other| std::ptr::eq(*one, *other));
        let mut others: Vec<_> = all.into_iter().map(|it| (it, lock(&it.queue))).collect();
        let at = others.iter().position(|(it, _)| std::ptr::eq(*it, own));
        let (_, own) = others.swap_remove(at.expect("it is one of them"));
        Queues { own, others }
    }

    /// Where that throttle's waiters are; it was locked with the others.
    pub(super) fn side(&self, throttle: &Throttle) -> usize {
        let at = |(it, _): &(&Throttle, _)| std::ptr::eq(*it, throttle);
        self.others.iter().position(at).map_or(OWN, |at| at + 1)
    }

    pub(super) fn at(&mut self, side: usize) -> &mut Queue {
        match side.checked_sub(1) {
            Some(at) => &mut self.others[at].1,
            None => &mut self.own,
        }
    }
}

impl Going {
    /// The one with this key goes as well, if there is one and they are not too many.
    pub(super) fn add(
        &mut self,
        queues: &mut Queues<'_>,
        side: usize,
        key: Option<usize>,
        bound: Bound,
    ) -> Result<(), Denied> {
        let key = key.filter(|_| self.victims.len() < BATCH);
        let key = key.ok_or(full(bound))?;
        self.victims.push(Victim { side, key, bound });
        self.bytes[side] += queues.at(side).set_aside(key);
        Ok(())
    }

    /// Nobody goes.
    pub(super) fn put_back(&self, queues: &mut Queues<'_>) {
        for Victim { side, key, .. } in self.victims() {
            queues.at(side).put_back(key);
        }
    }

    pub(super) fn victims(&self) -> impl Iterator<Item = Victim> {
        self.victims.iter().copied()
    }

    /// What they pin.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.iter().sum()
    }

    /// What is pinned at the throttle of that side without them.
    pub(super) fn left(&self, side: usize, throttle: &Throttle) -> u64 {
        throttle.held_bytes().saturating_sub(self.bytes[side])
    }
}
