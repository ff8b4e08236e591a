//! Read buffers and where they come from: a free list per worker, so that a connection between
//! requests holds none and a busy worker allocates none.

use std::cell::RefCell;
use std::rc::Rc;

/// Sizes that are kept for later use. The smallest holds the head of nearly every request, the
/// largest is the most that is in flight in one direction of one body. Larger buffers, for heads
/// that the configuration allows to be larger, are made when needed and freed.
pub const SIZES: [usize; 3] = [4 * 1024, 16 * 1024, 64 * 1024];

/// Spare buffers kept per size and worker; beyond it they are freed.
const SPARE_MAX: [usize; 3] = [1024, 256, 64];

/// One worker's spare buffers.
#[derive(Debug, Default)]
pub struct Buffers {
    spare: RefCell<[Vec<Box<[u8]>>; 3]>,
    spare_out: RefCell<Vec<Vec<u8>>>,
    /// Most bytes that one read buffer ever had.
    #[cfg(test)]
    pub largest: std::cell::Cell<usize>,
    /// Bytes of storage taken and not given back.
    #[cfg(test)]
    pub lent: std::cell::Cell<usize>,
}

/// Write buffers larger than this are freed rather than kept.
const OUT_MAX: usize = 16 * 1024;
/// Spare write buffers kept per worker.
const SPARE_OUT_MAX: usize = 1024;

impl Buffers {
    #[must_use]
    pub fn new() -> Rc<Buffers> {
        Rc::default()
    }

    /// An empty buffer to write into.
    #[must_use]
    pub fn take_out(&self) -> Vec<u8> {
        let spare = self.spare_out.borrow_mut().pop();
        spare.unwrap_or_else(|| Vec::with_capacity(SIZES[0]))
    }

    /// Takes back what [`take_out`](Buffers::take_out) gave.
    pub fn give_out(&self, mut out: Vec<u8>) {
        let mut spare = self.spare_out.borrow_mut();
        if out.capacity() <= OUT_MAX && spare.len() < SPARE_OUT_MAX {
            out.clear();
            spare.push(out);
        }
    }

    /// Frees what is spare.
    pub fn shrink(&self) {
        drop(self.spare.take());
        drop(self.spare_out.take());
    }

    /// Storage for at least `size` bytes.
    fn take(&self, size: usize) -> Box<[u8]> {
        let class = SIZES.iter().position(|class| *class >= size);
        let spare = class.and_then(|class| self.spare.borrow_mut()[class].pop());
        let size = class.map_or_else(|| size.next_power_of_two(), |class| SIZES[class]);
        #[cfg(test)]
        self.largest.set(self.largest.get().max(size));
        #[cfg(test)]
        self.lent.set(self.lent.get() + size);
        spare.unwrap_or_else(|| vec![0; size].into_boxed_slice())
    }

    fn give(&self, storage: Box<[u8]>) {
        #[cfg(test)]
        self.lent.set(self.lent.get() - storage.len());
        let Some(class) = SIZES.iter().position(|size| *size == storage.len()) else {
            return;
        };
        let spare = &mut self.spare.borrow_mut()[class];
        if spare.len() < SPARE_MAX[class] {
            spare.push(storage);
        }
    }
}

/// Bytes read and not yet used: `storage[start..end]`. Holds storage only while it needs any.
#[derive(Debug)]
pub struct Buffer {
    buffers: Rc<Buffers>,
    storage: Box<[u8]>,
    start: usize,
    end: usize,
    /// Bytes from here on are kept although used: a repeated attempt sends them again.
    kept_from: Option<usize>,
}

impl Buffer {
    #[must_use]
    pub fn new(buffers: &Rc<Buffers>) -> Buffer {
        Buffer {
            buffers: buffers.clone(),
            storage: Box::default(),
            start: 0,
            end: 0,
            kept_from: None,
        }
    }

    /// Where its storage comes from.
    #[must_use]
    pub fn pool(&self) -> &Buffers {
        &self.buffers
    }

    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.storage[self.start..self.end]
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Bytes of storage it holds.
    #[must_use]
    pub fn size(&self) -> usize {
        self.storage.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Marks `count` bytes as used.
    pub fn consume(&mut self, count: usize) {
        self.start += count;
        debug_assert!(self.start <= self.end, "more consumed than there was");
        if self.start == self.end && self.kept_from.is_none() {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Room to read into, at least one byte unless `max` bytes are already waiting to be used; then
    /// it is empty. Grows by steps up to `max` and what is kept, rounded up to a size.
    pub fn room(&mut self, max: usize) -> &mut [u8] {
        let Some(wanted) = max.checked_sub(self.len()).filter(|wanted| *wanted > 0) else {
            return &mut [];
        };
        if self.end == self.storage.len() {
            self.compact_or_grow(max);
        }
        let limit = self.storage.len().min(self.end.saturating_add(wanted));
        &mut self.storage[self.end..limit]
    }

    /// Makes sure the next read can take `size` bytes at once (bounded by the largest size).
    pub fn widen(&mut self, size: usize) {
        if self.kept_from.is_none() && self.storage.len() < size {
            self.grow(size.min(SIZES[SIZES.len() - 1]));
        }
    }

    /// Makes room where there is none: by moving what is there to the front if that is cheap or
    /// all that `max` asks for, else by taking larger storage.
    fn compact_or_grow(&mut self, max: usize) {
        let keep = self.kept_from.unwrap_or(self.start);
        let size = self.storage.len();
        if keep > 0 && (self.end - keep <= size / 2 || size >= max) {
            self.storage.copy_within(keep..self.end, 0);
            self.shift(keep);
        } else {
            self.grow(size + 1);
        }
    }

    /// Moves to storage for at least `size` bytes, which hold what is here.
    fn grow(&mut self, size: usize) {
        let keep = self.kept_from.unwrap_or(self.start);
        let mut storage = self.buffers.take(size);
        storage[..self.end - keep].copy_from_slice(&self.storage[keep..self.end]);
        self.buffers
            .give(std::mem::replace(&mut self.storage, storage));
        self.shift(keep);
    }

    fn shift(&mut self, by: usize) {
        self.start -= by;
        self.end -= by;
        if let Some(from) = &mut self.kept_from {
            *from -= by;
        }
    }

    /// Notes that `count` bytes were read into `room`.
    pub fn filled(&mut self, count: usize) {
        self.end += count;
        debug_assert!(
            self.end <= self.storage.len(),
            "more read than there was room"
        );
    }

    /// From now on used bytes are kept, until [`forget`](Buffer::forget).
    pub fn keep(&mut self) {
        self.kept_from = Some(self.start);
    }

    /// Goes back to where [`keep`](Buffer::keep) was called.
    pub fn rewind(&mut self) {
        if let Some(from) = self.kept_from {
            self.start = from;
        }
    }

    /// Ends what `keep` began.
    pub fn forget(&mut self) {
        self.kept_from = None;
        self.consume(0);
    }

    /// Whether it has given its storage back.
    #[must_use]
    pub fn holds_no_storage(&self) -> bool {
        self.storage.is_empty()
    }

    /// Moves what is there to smaller storage, where that holds it.
    pub fn fit(&mut self) {
        let used = self.end - self.kept_from.unwrap_or(self.start);
        let size = self.storage.len();
        if SIZES.iter().any(|class| (used..size).contains(class)) {
            self.grow(used);
        }
    }

    /// Gives the storage back if nothing is in it.
    pub fn release(&mut self) {
        if self.is_empty() && self.kept_from.is_none() && !self.storage.is_empty() {
            self.buffers.give(std::mem::take(&mut self.storage));
            self.start = 0;
            self.end = 0;
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if !self.storage.is_empty() {
            self.buffers.give(std::mem::take(&mut self.storage));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fill(buffer: &mut Buffer, bytes: &[u8]) {
        for byte in bytes {
            let room = buffer.room(usize::MAX / 2);
            room[0] = *byte;
            buffer.filled(1);
        }
    }

    #[test]
    fn bytes_survive_growth_and_compaction() {
        let buffers = Buffers::new();
        let mut buffer = Buffer::new(&buffers);
        let data: Vec<u8> = (0..40_000u32).map(|n| (n % 251) as u8).collect();
        fill(&mut buffer, &data[..10_000]);
        buffer.consume(9_000);
        fill(&mut buffer, &data[10_000..]);
        assert_eq!(buffer.bytes(), &data[9_000..]);
    }

    #[test]
    fn a_rewound_buffer_gives_the_same_bytes_again() {
        let buffers = Buffers::new();
        let mut buffer = Buffer::new(&buffers);
        fill(&mut buffer, b"head body");
        buffer.consume(5);
        buffer.keep();
        buffer.consume(4);
        fill(&mut buffer, &[b'x'; 5_000]);
        buffer.rewind();
        assert_eq!(&buffer.bytes()[..6], b"bodyxx");
    }

    #[test]
    fn room_ends_at_the_bound() {
        let buffers = Buffers::new();
        let mut buffer = Buffer::new(&buffers);
        fill(&mut buffer, &[1; 100]);
        assert_eq!(buffer.room(100).len(), 0);
        assert_eq!(buffer.room(130).len(), 30);
        buffer.consume(100);
        buffer.release();
        assert_eq!(buffer.storage.len(), 0);
    }

    #[test]
    fn what_is_kept_takes_no_room_from_what_comes() {
        let buffers = Buffers::new();
        let mut buffer = Buffer::new(&buffers);
        let largest = SIZES[2];
        fill(&mut buffer, &vec![1; largest]);
        buffer.keep();
        buffer.consume(largest);
        assert!(!buffer.room(16).is_empty());
        fill(&mut buffer, b"next");
        buffer.rewind();
        assert_eq!(buffer.len(), largest + 4);
        buffer.forget();
        buffer.consume(largest);
        assert_eq!(buffer.bytes(), b"next");
    }

    #[test]
    fn more_than_the_largest_spare_size_fits_if_the_bound_allows_it() {
        let buffers = Buffers::new();
        let mut buffer = Buffer::new(&buffers);
        let most = 3 * SIZES[2];
        while buffer.len() < most {
            let count = buffer.room(most).len();
            assert!(count > 0, "no room after {}", buffer.len());
            buffer.filled(count);
        }
        assert_eq!(buffer.len(), most);
        drop(buffer);
        assert!(buffers.spare.borrow().iter().all(|spare| spare.len() <= 1));
    }

    #[test]
    fn spare_storage_is_freed_when_that_is_asked_for() {
        let buffers = Buffers::new();
        let mut buffer = Buffer::new(&buffers);
        fill(&mut buffer, b"x");
        buffer.consume(1);
        buffer.release();
        buffers.give_out(buffers.take_out());
        buffers.shrink();
        assert!(buffers.spare.borrow().iter().all(Vec::is_empty));
        assert!(buffers.spare_out.borrow().is_empty());
    }

    #[test]
    fn little_that_is_left_of_much_moves_to_small_storage() {
        let buffers = Buffers::new();
        let mut buffer = Buffer::new(&buffers);
        fill(&mut buffer, &vec![b'x'; SIZES[2] - 4]);
        fill(&mut buffer, b"body");
        buffer.fit();
        assert_eq!(buffer.size(), SIZES[2], "nothing smaller holds it");
        buffer.consume(SIZES[2] - 4);
        buffer.fit();
        assert_eq!((buffer.size(), buffer.bytes()), (SIZES[0], &b"body"[..]));
        buffer.keep();
        buffer.consume(4);
        fill(&mut buffer, &vec![b'y'; SIZES[0]]);
        buffer.fit();
        assert_eq!(buffer.size(), SIZES[1], "what is kept counts");
        buffer.rewind();
        assert_eq!(&buffer.bytes()[..6], b"bodyyy");
    }

    #[test]
    fn spare_storage_is_used_again() {
        let buffers = Buffers::new();
        let mut buffer = Buffer::new(&buffers);
        fill(&mut buffer, b"x");
        let place = buffer.storage.as_ptr();
        buffer.consume(1);
        buffer.release();
        let mut next = Buffer::new(&buffers);
        fill(&mut next, b"y");
        assert_eq!(next.storage.as_ptr(), place);
    }

    #[derive(Clone, Debug)]
    enum Act {
        Read { most: usize, bytes: usize },
        Consume(usize),
        Keep,
        Rewind,
        Forget,
        Widen(usize),
        Release,
        Fit,
    }

    fn act() -> impl Strategy<Value = Act> {
        let most = prop_oneof![0..64usize, Just(16 * 1024), Just(64 * 1024), Just(100_000)];
        prop_oneof![
            6 => (most, prop_oneof![1..64usize, 1..100_000usize])
                .prop_map(|(most, bytes)| Act::Read { most, bytes }),
            6 => prop_oneof![0..64usize, 0..100_000usize].prop_map(Act::Consume),
            2 => Just(Act::Keep),
            2 => Just(Act::Rewind),
            2 => Just(Act::Forget),
            1 => prop_oneof![Just(SIZES[1]), Just(SIZES[2])].prop_map(Act::Widen),
            1 => Just(Act::Release),
            1 => Just(Act::Fit),
        ]
    }

    proptest! {
        #[test]
        fn it_is_a_queue_that_can_go_back(acts in proptest::collection::vec(act(), 1..60)) {
            let buffers = Buffers::new();
            let mut buffer = Buffer::new(&buffers);
            // All bytes ever read, how many of them are used, and where `keep` was called.
            let mut all: Vec<u8> = Vec::new();
            let mut used = 0;
            let mut kept: Option<usize> = None;
            for act in acts {
                match act {
                    Act::Read { most, bytes } => {
                        let room = buffer.room(most);
                        prop_assert_eq!(room.is_empty(), all.len() - used >= most);
                        let count = room.len().min(bytes);
                        prop_assert!(all.len() - used + room.len() <= most || room.is_empty());
                        for place in &mut room[..count] {
                            let byte = u8::try_from(all.len() % 251).unwrap();
                            *place = byte;
                            all.push(byte);
                        }
                        buffer.filled(count);
                    }
                    Act::Consume(count) => {
                        let count = count.min(all.len() - used);
                        buffer.consume(count);
                        used += count;
                    }
                    Act::Keep => {
                        buffer.keep();
                        kept = Some(used);
                    }
                    Act::Rewind => {
                        buffer.rewind();
                        used = kept.unwrap_or(used);
                    }
                    Act::Forget => {
                        buffer.forget();
                        kept = None;
                    }
                    Act::Widen(size) => buffer.widen(size),
                    Act::Release => buffer.release(),
                    Act::Fit => buffer.fit(),
                }
                prop_assert_eq!(buffer.bytes(), &all[used..]);
                prop_assert_eq!(buffer.len(), all.len() - used);
                prop_assert_eq!(buffer.is_empty(), all.len() == used);
            }
        }
    }
}
