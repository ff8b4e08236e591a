//! How many requests may be made once more at a time: when everything fails, repeating everything
//! would double or treble the load of what fails.
//!
//! Per revision, not per process: a revision that is broken must not use up what the others may
//! repeat, and what is spared is that revision's endpoints. Only who repeats comes here.

use std::sync::Arc;

use super::Throttle;
use crate::sync::{AtomicU32, Ordering};

/// Of so many requests under way, one may be a repeat.
const ONE_IN: u32 = 5;

/// So many may be repeats however few requests are under way.
const LEAST: u32 = 3;

/// The repeats of one throttle.
#[derive(Debug)]
pub(super) struct Repeats {
    under_way: AtomicU32,
    /// Requests between two attempts: they hold no slot and do not wait for one.
    pausing: AtomicU32,
}

/// The right to a second or later attempt; given back on drop.
#[derive(Debug)]
#[must_use]
pub struct Repeat(Arc<Throttle>);

/// A request that pauses between two attempts, until this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Pause(Arc<Throttle>);

impl Repeats {
    pub(super) fn new() -> Repeats {
        Repeats {
            under_way: AtomicU32::new(0),
            pausing: AtomicU32::new(0),
        }
    }

    /// One more, if `active` requests, beside those that pause, allow it.
    fn begin(&self, active: u32) -> bool {
        let active = active.saturating_add(self.pausing.load(Ordering::Relaxed));
        let most = active / ONE_IN + LEAST;
        let fits = |repeats: u32| (repeats < most).then(|| repeats + 1);
        self.under_way
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
            .is_ok()
    }
}

impl Throttle {
    /// The right to a second or later attempt for a request that holds a slot; `None` when
    /// repeats are already a fifth of the revision's requests and three.
    pub fn repeat(self: &Arc<Self>) -> Option<Repeat> {
        let active = self.in_flight().saturating_add(self.waiting());
        self.repeats.begin(active).then(|| Repeat(Arc::clone(self)))
    }

    /// A request that has given back its slot and pauses before it wants another: it is under way
    /// all the same.
    pub fn pause(self: &Arc<Self>) -> Pause {
        self.repeats.pausing.fetch_add(1, Ordering::Relaxed);
        Pause(Arc::clone(self))
    }
}

impl Drop for Repeat {
    fn drop(&mut self) {
        self.0.repeats.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        self.0.repeats.pausing.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[cfg(not(tidegate_loom))]
mod tests {
    use std::time::Instant;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::{Clock, Gate, Holding, Limits, Supply};
    use super::*;

    /// What may happen to a revision's requests; numbers choose among those there are.
    #[derive(Clone, Debug)]
    enum Event {
        Arrives,
        Ends(usize),
        Repeats,
        RepeatEnds(usize),
        Pauses,
        PauseEnds(usize),
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            4 => Just(Event::Arrives),
            2 => any::<usize>().prop_map(Event::Ends),
            6 => Just(Event::Repeats),
            1 => any::<usize>().prop_map(Event::RepeatEnds),
            2 => Just(Event::Pauses),
            1 => any::<usize>().prop_map(Event::PauseEnds),
        ];
        vec(event, 0..200)
    }

    fn throttle() -> (Arc<Throttle>, std::rc::Rc<Gate>) {
        let limits = Limits::new(0, 10);
        let namespace = Holding::new(10, 10).namespace("default");
        let throttle = Throttle::new(limits, Supply::Fixed, &namespace, 1);
        throttle.set_endpoints(&["127.0.0.1:1".parse().unwrap()]);
        let gate = Gate::new(throttle.clone(), 0, Clock::new(Instant::now()));
        (throttle, gate)
    }

    fn drop_one<T>(all: &mut Vec<T>, which: usize) {
        if !all.is_empty() {
            drop(all.swap_remove(which % all.len()));
        }
    }

    proptest! {
        #[test]
        fn repeats_never_begin_beyond_a_fifth_of_what_is_under_way_and_three(events in events()) {
            let (throttle, gate) = throttle();
            let (mut slots, mut repeats, mut pauses) = (Vec::new(), Vec::new(), Vec::new());
            for event in events {
                match event {
                    Event::Arrives => slots.extend(gate.try_acquire(0)),
                    Event::Ends(which) => drop_one(&mut slots, which),
                    Event::Repeats => {
                        let most = (slots.len() + pauses.len()) / 5 + 3;
                        let repeat = throttle.repeat();
                        prop_assert_eq!(repeat.is_some(), repeats.len() < most);
                        repeats.extend(repeat);
                    }
                    Event::RepeatEnds(which) => drop_one(&mut repeats, which),
                    Event::Pauses => pauses.push(throttle.pause()),
                    Event::PauseEnds(which) => drop_one(&mut pauses, which),
                }
            }
            drop((slots, repeats, pauses));
            // Nothing is left behind: the least is there again, and no more.
            let again: Vec<_> = std::iter::repeat_with(|| throttle.repeat()).take(4).collect();
            prop_assert_eq!(again.iter().flatten().count(), 3);
        }
    }

    #[test]
    fn threads_together_begin_no_more_repeats_than_one() {
        let (throttle, _gate) = throttle();
        let begun: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let mine = (0..100).filter_map(|_| throttle.repeat());
                        mine.map(std::mem::forget).count()
                    })
                })
                .collect();
            let counts = threads.into_iter().map(|thread| thread.join().unwrap());
            counts.sum()
        });
        assert_eq!(begun, 3);
    }
}
