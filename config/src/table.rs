//! Persistent tables: a clone costs one reference count, an edit copies one shard. Readers of an
//! old clone keep seeing what they saw.

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

/// Shards of a table: with a hundred thousand entries, an edit copies about a hundred of them.
const SHARDS: usize = 1024;
/// Entries of a chunk of [`Slots`].
const CHUNK: usize = 128;

/// Hashes of keys. Fixed, because only configuration is inserted: a client can look up, not fill.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = FixedState::default().build_hasher();
    hasher.write(bytes);
    hasher.finish()
}

/// The hash of several parts in order; their borders count.
pub(crate) fn hash_parts(parts: &[&str]) -> u64 {
    let mut hasher = FixedState::default().build_hasher();
    for part in parts {
        hasher.write(part.as_bytes());
        hasher.write_u8(0xff);
    }
    hasher.finish()
}

/// An entry that knows the hash of its own key.
pub(crate) trait Entry: Clone {
    fn hash(&self) -> u64;
}

#[derive(Clone)]
struct Shard<T>(HashTable<T>);

/// A hash table of entries in shards.
#[derive(Clone)]
pub(crate) struct Table<T> {
    /// Empty until the first entry comes.
    shards: Arc<[Arc<Shard<T>>]>,
    len: usize,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Table {
            shards: Arc::from([]),
            len: 0,
        }
    }
}

impl<T> std::fmt::Debug for Table<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("len", &self.len).finish()
    }
}

/// The bits that choose a shard are none of those a `HashTable` uses: neither the lowest ones nor
/// the topmost seven.
fn shard_of(hash: u64) -> usize {
    // The mask keeps it below `SHARDS`.
    usize::try_from((hash >> 40) & (SHARDS as u64 - 1)).unwrap_or(0)
}

impl<T> Table<T> {
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline]
    pub(crate) fn get(&self, hash: u64, is: impl FnMut(&T) -> bool) -> Option<&T> {
        self.shards.get(shard_of(hash))?.0.find(hash, is)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.shards.iter().flat_map(|shard| shard.0.iter())
    }
}

impl<T: Entry> Table<T> {
    fn shard_mut(&mut self, hash: u64) -> &mut HashTable<T> {
        if self.shards.is_empty() {
            let empty = Arc::new(Shard(HashTable::new()));
            self.shards = std::iter::repeat_n(empty, SHARDS).collect();
        }
        let shards = Arc::make_mut(&mut self.shards);
        &mut Arc::make_mut(&mut shards[shard_of(hash)]).0
    }

    /// Puts an entry in the place of the one that `is` accepts, and gives that back.
    pub(crate) fn put(&mut self, entry: T, is: impl FnMut(&T) -> bool) -> Option<T> {
        let hash = entry.hash();
        let shard = self.shard_mut(hash);
        if let Some(present) = shard.find_mut(hash, is) {
            return Some(std::mem::replace(present, entry));
        }
        shard.insert_unique(hash, entry, Entry::hash);
        self.len += 1;
        None
    }

    pub(crate) fn remove(&mut self, hash: u64, is: impl FnMut(&T) -> bool + Copy) -> Option<T> {
        self.get(hash, is)?;
        let found = self.shard_mut(hash).find_entry(hash, is).ok()?;
        let (removed, _) = found.remove();
        self.len -= 1;
        Some(removed)
    }
}

/// Values by dense index. A place is taken again once it is free.
#[derive(Clone)]
pub(crate) struct Slots<T> {
    chunks: Arc<Vec<Arc<Vec<Option<T>>>>>,
    free: Arc<Vec<u32>>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Slots {
            chunks: Arc::default(),
            free: Arc::default(),
        }
    }
}

impl<T> std::fmt::Debug for Slots<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let places: usize = self.chunks.iter().map(|chunk| chunk.len()).sum();
        let len = places - self.free.len();
        f.debug_struct("Slots").field("len", &len).finish()
    }
}

fn split(index: u32) -> (usize, usize) {
    let index = index as usize;
    (index / CHUNK, index % CHUNK)
}

impl<T: Clone> Slots<T> {
    pub(crate) fn get(&self, index: u32) -> Option<&T> {
        let (chunk, within) = split(index);
        self.chunks.get(chunk)?.get(within)?.as_ref()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks
            .iter()
            .flat_map(|chunk| chunk.iter().filter_map(Option::as_ref))
    }

    /// Takes a free place.
    pub(crate) fn reserve(&mut self) -> u32 {
        if let Some(index) = Arc::make_mut(&mut self.free).pop() {
            return index;
        }
        let chunks = Arc::make_mut(&mut self.chunks);
        if chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            chunks.push(Arc::new(Vec::with_capacity(CHUNK)));
        }
        let before = chunks.len() - 1;
        let mut within = 0;
        if let Some(last) = chunks.last_mut() {
            within = last.len();
            Arc::make_mut(last).push(None);
        }
        u32::try_from(before * CHUNK + within).unwrap_or(u32::MAX)
    }

    /// Fills a reserved place.
    pub(crate) fn set(&mut self, index: u32, value: T) {
        let (chunk, within) = split(index);
        let chunks = Arc::make_mut(&mut self.chunks);
        if let Some(chunk) = chunks.get_mut(chunk) {
            Arc::make_mut(chunk)[within] = Some(value);
        }
    }

    /// Frees a place.
    pub(crate) fn clear(&mut self, index: u32) {
        let (chunk, within) = split(index);
        let chunks = Arc::make_mut(&mut self.chunks);
        if let Some(chunk) = chunks.get_mut(chunk) {
            Arc::make_mut(chunk)[within] = None;
            Arc::make_mut(&mut self.free).push(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    struct Word(String, u32);

    impl Entry for Word {
        fn hash(&self) -> u64 {
            hash(self.0.as_bytes())
        }
    }

    fn look_up(table: &Table<Word>, word: &str) -> Option<u32> {
        let found = table.get(hash(word.as_bytes()), |entry| entry.0 == word);
        found.map(|entry| entry.1)
    }

    #[test]
    fn an_edit_of_a_clone_leaves_the_original_alone() {
        let mut table = Table::default();
        for number in 0..5000 {
            table.put(Word(number.to_string(), number), |_| false);
        }
        let before = table.clone();
        table.put(Word("7".into(), 700), |entry| entry.0 == "7");
        table.remove(hash(b"8"), |entry| entry.0 == "8");
        assert_eq!(look_up(&table, "7"), Some(700));
        assert_eq!(look_up(&table, "8"), None);
        assert_eq!(look_up(&before, "7"), Some(7));
        assert_eq!(look_up(&before, "8"), Some(8));
        assert_eq!((before.len, table.len), (5000, 4999));
        assert_eq!(table.iter().count(), 4999);
    }

    #[test]
    fn a_freed_place_is_taken_again() {
        let mut slots = Slots::default();
        for number in 0..300 {
            let place = slots.reserve();
            slots.set(place, number);
            assert_eq!(place, number);
        }
        let before = slots.clone();
        slots.clear(130);
        assert_eq!(slots.get(130), None);
        assert_eq!(slots.reserve(), 130);
        assert_eq!(slots.reserve(), 300);
        assert_eq!(before.get(130), Some(&130));
        assert_eq!(before.iter().count(), 300);
    }
}
