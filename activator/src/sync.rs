//! The one switch between the standard library's primitives and loom's.
//!
//! Admission and demand synchronise through nothing but what is named here, so that a build with
//! `--cfg tidegate_loom` explores every interleaving of the real code.

#[cfg(not(tidegate_loom))]
pub(crate) use std::{
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
    },
    thread::yield_now,
};

#[cfg(tidegate_loom)]
pub(crate) use loom::{
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
    },
    thread::yield_now,
};

/// So many times a reader spins before it offers its core to the writer it waits for.
const SPINS: u32 = 64;

/// Waits a little for another thread, on turn `turn` of doing so. Returns the next turn.
pub(crate) fn pause(turn: u32) -> u32 {
    // Under loom a reader that spins never lets the writer run.
    if cfg!(tidegate_loom) || turn >= SPINS {
        yield_now();
        return turn;
    }
    std::hint::spin_loop();
    turn + 1
}

/// Locks, and carries on where another thread panicked: every change made under our locks is
/// complete before anything that could panic (waking, nudging) runs, and that runs unlocked.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Keeps what one core writes off the lines that others read. Two lines, because the adjacent-line
/// prefetcher of x86 fetches them in pairs.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Padded<T>(pub(crate) T);
