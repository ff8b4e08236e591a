//! Values by name, for hosts: persistent like [`Table`](crate::table::Table), but names of any
//! length stand one behind the other in their shard's own memory. A lookup waits for two places
//! that a hundred thousand hosts can push out of the caches: a slot, then name and value together.

use std::sync::Arc;

use crate::table::{SHARDS, hash, shard_of};

/// Of so many slots at most so many are taken, so that a row of taken ones stays short.
const LOAD: (usize, usize) = (4, 5);
/// What grows, grows by this part of itself, so that little is left unused.
const GROWTH: usize = 4;
/// Slots of the smallest shard that has any.
const SLOTS_MIN: usize = 5;
/// The name of a slot that is not taken.
const FREE: u32 = u32::MAX;
/// Bytes before each name that say its length.
const LENGTH: usize = 2;

#[derive(Clone, Copy, Debug)]
struct Slot {
    /// Bits of the hash, which also say where the search for it begins.
    print: u32,
    /// Where the name stands in `names`.
    name: u32,
    /// Where the value stands in `values`.
    value: u32,
}

const FREE_SLOT: Slot = Slot {
    print: 0,
    name: FREE,
    value: 0,
};

/// Open addressing, linear probing, no tombstones.
#[derive(Clone, Debug)]
struct Shard<T> {
    slots: Vec<Slot>,
    names: Vec<u8>,
    values: Vec<T>,
}

impl<T> Default for Shard<T> {
    fn default() -> Self {
        Shard {
            slots: Vec::new(),
            names: Vec::new(),
            values: Vec::new(),
        }
    }
}

/// A table of values by name. A clone costs one reference count, an edit copies one shard.
#[derive(Clone)]
pub(super) struct Names<T> {
    /// Empty until the first entry comes.
    shards: Arc<[Arc<Shard<T>>]>,
    len: usize,
}

impl<T> Default for Names<T> {
    fn default() -> Self {
        Names {
            shards: Arc::from([]),
            len: 0,
        }
    }
}

impl<T> std::fmt::Debug for Names<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Names").field("len", &self.len).finish()
    }
}

impl<T> Names<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline]
    pub(super) fn get(&self, name: &[u8]) -> Option<&T> {
        let hash = hash(name);
        let shard = self.shards.get(shard_of(hash))?;
        let slot = shard.find(print_of(hash), name)?;
        shard.values.get(shard.slots[slot].value as usize)
    }
}

impl<T: Clone> Names<T> {
    fn shard_mut(&mut self, hash: u64) -> &mut Shard<T> {
        if self.shards.is_empty() {
            let empty = Arc::new(Shard::default());
            self.shards = std::iter::repeat_n(empty, SHARDS).collect();
        }
        let shards = Arc::make_mut(&mut self.shards);
        Arc::make_mut(&mut shards[shard_of(hash)])
    }

    /// Puts a value in the place of the one that stood there.
    pub(super) fn put(&mut self, name: &[u8], value: T) {
        let hash = hash(name);
        if self.shard_mut(hash).put(print_of(hash), name, value) {
            self.len += 1;
        }
    }

    pub(super) fn remove(&mut self, name: &[u8]) {
        if self.get(name).is_some() {
            let hash = hash(name);
            self.shard_mut(hash).remove(print_of(hash), name);
            self.len -= 1;
        }
    }
}

/// The low half; a shard is chosen by bits of the high one.
fn print_of(hash: u64) -> u32 {
    u32::try_from(hash & u64::from(u32::MAX)).unwrap_or(0)
}

/// Positions within a shard, which is far below four billion bytes.
fn narrow(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(FREE)
}

/// Makes room for `more` and little beyond.
fn reserve<T>(list: &mut Vec<T>, more: usize) {
    if list.capacity() - list.len() < more {
        list.reserve_exact(more.max(list.len() / GROWTH));
    }
}

impl<T> Shard<T> {
    /// Where the search for a print begins: spread over all slots, however many there are.
    #[inline]
    fn begin(&self, print: u32) -> usize {
        let scaled = (u64::from(print) * self.slots.len() as u64) >> 32;
        usize::try_from(scaled).unwrap_or(0)
    }

    #[inline]
    fn name_at(&self, place: u32) -> &[u8] {
        let rest = self.names.get(place as usize..).unwrap_or_default();
        match rest.split_first_chunk() {
            Some((length, rest)) => rest
                .get(..usize::from(u16::from_le_bytes(*length)))
                .unwrap_or_default(),
            None => &[],
        }
    }

    /// The slot of a name.
    #[inline]
    fn find(&self, print: u32, name: &[u8]) -> Option<usize> {
        let begin = self.begin(print);
        let (before, from) = self.slots.split_at_checked(begin)?;
        // There is always a free slot, which ends the search.
        for (step, slot) in from.iter().chain(before).enumerate() {
            if slot.name == FREE {
                return None;
            }
            if slot.print == print && self.name_at(slot.name) == name {
                let place = begin + step;
                let wrapped = place.checked_sub(self.slots.len());
                return Some(wrapped.unwrap_or(place));
            }
        }
        None
    }

    /// Whether the name is new.
    fn put(&mut self, print: u32, name: &[u8], value: T) -> bool {
        if let Some(slot) = self.find(print, name) {
            let place = self.slots[slot].value as usize;
            self.values[place] = value;
            return false;
        }
        if self.slots.len() * LOAD.0 < (self.values.len() + 1) * LOAD.1 {
            let slots = self.slots.len() + self.slots.len() / GROWTH;
            self.spread(slots.max(SLOTS_MIN));
        }
        let slot = Slot {
            print,
            name: narrow(self.names.len()),
            value: narrow(self.values.len()),
        };
        self.take(slot);
        reserve(&mut self.names, LENGTH + name.len());
        // Host names are a few hundred bytes at most.
        let length = u16::try_from(name.len()).unwrap_or(u16::MAX);
        self.names.extend_from_slice(&length.to_le_bytes());
        self.names.extend_from_slice(name);
        reserve(&mut self.values, 1);
        self.values.push(value);
        true
    }

    /// Takes the first free slot for this one's print.
    fn take(&mut self, slot: Slot) {
        let begin = self.begin(slot.print);
        let free = |slot: &Slot| slot.name == FREE;
        let (before, from) = self.slots.split_at_mut(begin);
        if let Some(place) = from.iter_mut().chain(before).find(|slot| free(slot)) {
            *place = slot;
        }
    }

    /// Places every slot anew, among so many.
    fn spread(&mut self, slots: usize) {
        let old = std::mem::replace(&mut self.slots, vec![FREE_SLOT; slots]);
        for slot in old.into_iter().filter(|slot| slot.name != FREE) {
            self.take(slot);
        }
    }

    fn remove(&mut self, print: u32, name: &[u8]) {
        let Some(at) = self.find(print, name) else {
            return;
        };
        let gone = std::mem::replace(&mut self.slots[at], FREE_SLOT);
        let bytes = LENGTH + name.len();
        let begin = gone.name as usize;
        self.names.drain(begin..begin + bytes);
        self.values.swap_remove(gone.value as usize);
        let moved = narrow(self.values.len());
        for slot in self.slots.iter_mut().filter(|slot| slot.name != FREE) {
            if slot.name > gone.name {
                slot.name -= narrow(bytes);
            }
            if slot.value == moved {
                slot.value = gone.value;
            }
        }
        self.spread(self.slots.len());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_is_put_is_found_until_it_is_removed(
            steps in proptest::collection::vec((0_u32..60, any::<bool>(), any::<bool>()), 0..400),
        ) {
            let mut table = Names::default();
            let mut model = BTreeMap::new();
            let mut before = (table.clone(), model.clone());
            for (turn, (number, put, keep)) in (0_u32..).zip(steps) {
                // One shard, so that names share slots, names and values.
                let name = number.to_string().repeat(number as usize % 7 + 1);
                let shard = &mut table.shard_mut(0);
                let print = print_of(hash(name.as_bytes()) << (number % 32));
                if put {
                    let new = shard.put(print, name.as_bytes(), turn);
                    prop_assert_eq!(new, model.insert((print, name), turn).is_none());
                } else {
                    shard.remove(print, name.as_bytes());
                    model.remove(&(print, name));
                }
                if keep {
                    before = (table.clone(), model.clone());
                }
                for (table, model) in [(&table, &model), (&before.0, &before.1)] {
                    let shard = table.shards.first().map(|shard| &**shard);
                    prop_assert_eq!(shard.map_or(0, |shard| shard.values.len()), model.len());
                    for ((print, name), value) in model {
                        let slot = shard.and_then(|shard| shard.find(*print, name.as_bytes()));
                        let found = slot.map(|slot| shard.unwrap().slots[slot].value as usize);
                        prop_assert_eq!(found.map(|at| shard.unwrap().values[at]), Some(*value));
                    }
                }
            }
        }
    }

    #[test]
    fn an_edit_of_a_clone_leaves_the_original_alone() {
        let mut table = Names::default();
        for number in 0..5_000 {
            table.put(format!("{number}.test").as_bytes(), number);
        }
        let before = table.clone();
        table.put(b"7.test", 700);
        table.remove(b"8.test");
        table.remove(b"unknown.test");
        assert_eq!(table.get(b"7.test"), Some(&700));
        assert_eq!(table.get(b"8.test"), None);
        assert_eq!(before.get(b"7.test"), Some(&7));
        assert_eq!(before.get(b"8.test"), Some(&8));
        assert_eq!((before.len, table.len), (5_000, 4_999));
        for number in 9..5_000 {
            let name = format!("{number}.test");
            assert_eq!(table.get(name.as_bytes()), Some(&number));
        }
    }
}
