//! The one switch between the standard library's primitives and loom's.
//!
//! Admission and demand synchronise through nothing but what is named here, so that a build with
//! `--cfg tidegate_loom` explores every interleaving of the real code.

#[cfg(not(tidegate_loom))]
pub(crate) use std::{
    hint::spin_loop,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
    },
};

#[cfg(tidegate_loom)]
pub(crate) use loom::{
    // A spinning reader must let the writer run, or the model never ends.
    hint::spin_loop,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
    },
};

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
