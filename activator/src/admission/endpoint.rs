//! One address, the slots held there, and the word that decides whether there is room.

use std::net::SocketAddr;

use super::EndpointId;
use crate::sync::{AtomicU32, AtomicU64, Ordering, Padded, fence};

/// Where the limit begins in the word; the count is below it.
const LIMIT_SHIFT: u32 = 32;
/// The highest limit the word can say. More than thirty million requests in flight at one endpoint
/// are beyond any machine, so higher limits mean this one.
const LIMIT_MAX: u32 = (1 << 25) - 1;
/// Draining: no new slot.
const CLOSED: u64 = 1 << 63;
/// Passed over while another endpoint is ready.
const SUSPECT: u64 = 1 << 62;
/// A limit came while slots without one may still be held: new slots need the queue's lock, under
/// which both kinds are added up.
const MIXED: u64 = 1 << 61;
/// None of the slots here is ours to begin with; they are only lent.
const FOREIGN: u64 = 1 << 60;
/// The limit is a window, smaller than what the revision allows.
const PACED: u64 = 1 << 59;
/// The revision has no limit: what the word says is a window.
const BOUNDLESS: u64 = 1 << 58;
/// The queue must hear of answers.
const HEARD: u64 = 1 << 57;

/// Eras count up to this and begin again.
const ERA_MASK: u32 = 0xffff;

/// One endpoint. What admission decides by is one word: flags, limit, and the count of shared slots.
/// Flags and limit change under the queue's lock only; the count changes by anybody who takes or
/// frees a slot. So a compare-and-swap of the word can never exceed the limit, nor succeed after
/// the endpoint was closed.
///
/// Slots taken without a limit are counted in a cell per worker instead, which only that worker
/// writes: store the cell, pass a fence, read the word again, and take it back if the world has
/// changed. Whoever changes the word and then passes a fence therefore sees every such slot that
/// stays.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) id: EndpointId,
    pub(super) address: SocketAddr,
    word: Padded<AtomicU64>,
    cells: Box<[Padded<AtomicU32>]>,
    /// In flight with lent slots, at most; nothing is lent when it is not above the limit. Written
    /// under the queue's lock only.
    most: AtomicU32,
    lingering: AtomicU32,
    /// Counts the failures that were news. Written under the queue's lock only.
    era: AtomicU32,
    resting: AtomicU32,
}

/// Where a slot was counted, and so where it is taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counted {
    /// In the word; by anybody for anybody.
    Word,
    /// In the cell of the worker that holds the slot.
    Cell,
}

/// What a worker's own attempt came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    /// A slot was taken; `limited` says whether there was a limit.
    Taken { counted: Counted, limited: bool },
    /// No room, or not without the lock.
    Refused,
    /// A slot was taken for a moment and given back: the caller owes the queue a settling.
    Undone,
}

#[derive(Clone, Copy)]
struct Word(u64);

impl Word {
    fn count(self) -> u32 {
        u32::try_from(self.0 & u64::from(u32::MAX)).expect("masked to 32 bits")
    }

    fn limit(self) -> u32 {
        let limit = (self.0 >> LIMIT_SHIFT) & u64::from(LIMIT_MAX);
        u32::try_from(limit).expect("masked to 25 bits")
    }

    fn is(self, flags: u64) -> bool {
        self.0 & flags != 0
    }

    fn with_limit(self, limit: u32) -> Word {
        let rest = self.0 & !(u64::from(LIMIT_MAX) << LIMIT_SHIFT);
        Word(rest | u64::from(limit.min(LIMIT_MAX)) << LIMIT_SHIFT)
    }

    /// Slots are taken without a limit, and so in cells.
    fn is_unlimited(self) -> bool {
        self.limit() == 0 && !self.is(FOREIGN)
    }

    fn set(self, flag: u64, on: bool) -> Word {
        match on {
            true => Word(self.0 | flag),
            false => Word(self.0 & !flag),
        }
    }
}

impl Endpoint {
    pub(super) fn new(address: SocketAddr, limit: u32, workers: usize) -> Endpoint {
        Endpoint {
            id: EndpointId::next(),
            address,
            word: Padded(AtomicU64::new(Word(0).with_limit(limit).0)),
            cells: (0..workers).map(|_| Padded(AtomicU32::new(0))).collect(),
            most: AtomicU32::new(0),
            lingering: AtomicU32::new(0),
            era: AtomicU32::new(0),
            resting: AtomicU32::new(0),
        }
    }

    fn word(&self) -> Word {
        Word(self.word.0.load(Ordering::Relaxed))
    }

    /// How busy the endpoint looks to a worker, `None` when it has no room for one more. Without a
    /// limit a worker sees its own slots and the shared ones: each balances what it sends.
    pub(super) fn load(&self, worker: usize) -> Option<u32> {
        let word = self.word();
        if word.is(CLOSED | SUSPECT | MIXED | FOREIGN) {
            return None;
        }
        match word.limit() {
            0 => {
                let own = self.cells[worker].0.load(Ordering::Relaxed);
                Some(word.count().saturating_add(own))
            }
            limit => (word.count() < limit).then(|| word.count()),
        }
    }

    /// Takes a slot for the calling worker if a ready endpoint has room; needs no lock.
    pub(super) fn take(&self, worker: usize) -> Attempt {
        let mut word = self.word();
        // Each turn but the last means that somebody else took or freed a slot.
        loop {
            if word.is(CLOSED | SUSPECT | MIXED | FOREIGN) {
                return Attempt::Refused;
            }
            if word.limit() == 0 {
                return self.take_in_cell(worker);
            }
            if word.count() >= word.limit() {
                return Attempt::Refused;
            }
            match self.swap(word, Word(word.0 + 1)) {
                Ok(()) => {
                    return Attempt::Taken {
                        counted: Counted::Word,
                        limited: !word.is(BOUNDLESS),
                    };
                }
                Err(now) => word = now,
            }
        }
    }

    fn take_in_cell(&self, worker: usize) -> Attempt {
        let cell = &self.cells[worker].0;
        let own = cell.load(Ordering::Relaxed);
        cell.store(own.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let word = self.word();
        if word.is(CLOSED) || !word.is_unlimited() {
            cell.store(own, Ordering::Release);
            return Attempt::Undone;
        }
        Attempt::Taken {
            counted: Counted::Cell,
            limited: false,
        }
    }

    /// Takes a slot for whoever's turn it is; `Some(limited)` when there was room, `lent` among
    /// what is lent too. The caller holds the queue's lock and has decided about suspects.
    pub(super) fn take_shared(&self, lent: bool) -> Option<bool> {
        let mut word = self.word();
        // Each turn but the last means that somebody else took or freed a slot.
        loop {
            if word.is(CLOSED) {
                return None;
            }
            let cells = if word.is(MIXED) { self.in_cells() } else { 0 };
            let in_flight = word.count().saturating_add(cells);
            let most = match lent {
                true => word.limit().max(self.most.load(Ordering::Relaxed)),
                false => word.limit(),
            };
            let unlimited = word.is_unlimited();
            if !unlimited && in_flight >= most {
                return None;
            }
            match self.swap(word, Word(word.0 + 1)) {
                Ok(()) => return Some(!unlimited && !word.is(BOUNDLESS)),
                Err(now) => word = now,
            }
        }
    }

    /// Frees a slot; `worker` is the one that holds it. The caller owes the queue a settling.
    pub(super) fn free(&self, counted: Counted, worker: usize) {
        match counted {
            Counted::Word => {
                let before = Word(self.word.0.fetch_sub(1, Ordering::AcqRel));
                debug_assert!(before.count() > 0, "a slot is freed once");
            }
            Counted::Cell => {
                let cell = &self.cells[worker].0;
                let own = cell.load(Ordering::Relaxed);
                debug_assert!(own > 0, "a slot is freed once");
                cell.store(own.wrapping_sub(1), Ordering::Release);
            }
        }
    }

    /// Slots held here. After [`Endpoint::close`] it only falls, but for the moment in which a
    /// worker takes a slot and gives it back; once 0 was read, no slot is or will be held.
    pub(super) fn in_flight(&self) -> u32 {
        let cells = self.in_cells();
        let word = Word(self.word.0.load(Ordering::Acquire));
        word.count().saturating_add(cells)
    }

    fn in_cells(&self) -> u32 {
        // Pairs with the fence of `take_in_cell`: after a change of the word made before this, a
        // slot is either seen here or given back there.
        fence(Ordering::SeqCst);
        let cells = self.cells.iter().map(|cell| cell.0.load(Ordering::Acquire));
        cells.fold(0, u32::saturating_add)
    }

    /// From now on at most `limit` in flight (0: no limit), and no more than the window allows. The
    /// caller holds the queue's lock.
    pub(super) fn set_limit(&self, limit: u32, window: Option<u32>) {
        self.most.store(0, Ordering::Relaxed);
        let paced = window.filter(|window| limit == 0 || *window < limit);
        self.bound(|word| {
            let word = word.set(FOREIGN, false).set(PACED, paced.is_some());
            let word = word.set(BOUNDLESS, paced.is_some() && limit == 0);
            word.with_limit(paced.unwrap_or(limit))
        });
    }

    /// From now on at most `own` in flight (0: none), and up to `most` while slots are lent; of both
    /// no more than the window allows. The caller holds the queue's lock.
    pub(super) fn set_share(&self, own: u32, most: u32, window: Option<u32>) {
        let paced = window.filter(|window| *window < most.max(own));
        let allowed = paced.unwrap_or(u32::MAX);
        self.most.store(most.min(allowed), Ordering::Relaxed);
        self.bound(|word| {
            let word = word.set(FOREIGN, own == 0).set(PACED, paced.is_some());
            word.set(BOUNDLESS, false).with_limit(own.min(allowed))
        });
    }

    fn bound(&self, change: impl Fn(Word) -> Word) {
        self.update(|word| {
            let bounded = change(word);
            match (word.is_unlimited(), bounded.is_unlimited()) {
                (true, false) => Word(bounded.0 | MIXED),
                (_, true) => Word(bounded.0 & !MIXED),
                (false, false) => bounded,
            }
        });
        self.unmix();
    }

    /// Gives the endpoint back to the warm path once no slot without a limit is left. The caller
    /// holds the queue's lock.
    pub(super) fn unmix(&self) {
        if self.is_mixed() && self.in_cells() == 0 {
            self.update(|word| Word(word.0 & !MIXED));
        }
    }

    pub(super) fn is_mixed(&self) -> bool {
        self.word().is(MIXED)
    }

    /// No new slot. The caller holds the queue's lock.
    pub(super) fn close(&self) {
        self.update(|word| Word((word.0 | CLOSED) & !(SUSPECT | HEARD)));
    }

    /// New slots again, with the count it has. The caller holds the queue's lock.
    pub(super) fn reopen(&self) {
        self.update(|word| Word(word.0 & !(CLOSED | SUSPECT)));
    }

    /// The caller holds the queue's lock.
    pub(super) fn set_suspect(&self, suspect: bool) {
        self.update(|word| word.set(SUSPECT, suspect));
    }

    /// Whether the queue must hear of answers. The caller holds the queue's lock.
    pub(super) fn set_heard(&self, heard: bool) {
        if self.is_heard() != heard {
            self.update(|word| word.set(HEARD, heard));
        }
    }

    pub(super) fn is_heard(&self) -> bool {
        self.word().is(HEARD)
    }

    /// The window, while it is what holds.
    pub(super) fn window(&self) -> Option<u32> {
        let word = self.word();
        let most = self.most.load(Ordering::Relaxed);
        word.is(PACED).then(|| word.limit().max(most))
    }

    /// What a slot taken now is to know of the failures before it.
    pub(super) fn era(&self) -> u16 {
        let era = self.era.load(Ordering::Relaxed) & ERA_MASK;
        u16::try_from(era).expect("masked to 16 bits")
    }

    /// A failure was news. The caller holds the queue's lock.
    pub(super) fn next_era(&self) {
        let era = self.era.load(Ordering::Relaxed).wrapping_add(1);
        self.era.store(era, Ordering::Relaxed);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.word().is(CLOSED)
    }

    pub(super) fn is_suspect(&self) -> bool {
        self.word().is(SUSPECT)
    }

    pub(super) fn lingering(&self) -> u32 {
        self.lingering.load(Ordering::Relaxed)
    }

    pub(super) fn linger(&self) {
        self.lingering.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn end_linger(&self) {
        self.lingering.fetch_sub(1, Ordering::Relaxed);
    }

    /// Slots held whose requests do not rest; sometimes one too many for a moment, never too few.
    pub(super) fn busy(&self) -> u32 {
        // In this order, and a slot is freed before its rest ends: one that goes in between counts
        // as busy, and hides none that is.
        let in_flight = self.in_flight();
        in_flight.saturating_sub(self.resting.load(Ordering::Acquire))
    }

    pub(super) fn rest(&self) {
        self.resting.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn end_rest(&self) {
        self.resting.fetch_sub(1, Ordering::AcqRel);
    }

    fn update(&self, change: impl Fn(Word) -> Word) {
        let mut word = self.word();
        // Each turn but the last means that somebody else took or freed a slot.
        while let Err(now) = self.swap(word, change(word)) {
            word = now;
        }
    }

    fn swap(&self, from: Word, to: Word) -> Result<(), Word> {
        let done = self
            .word
            .0
            .compare_exchange(from.0, to.0, Ordering::AcqRel, Ordering::Relaxed);
        done.map(|_| ()).map_err(Word)
    }
}
