//! Run as the models of admission are.
#![cfg(tidegate_loom)]

use std::sync::Arc;

use super::*;

// The thread that writes is the first to run: loom forgets a thread's read of what another one
// reads and then writes, so the other way round it would explore a single execution.
#[test]
fn a_reader_never_sees_half_a_change() {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(|| {
        let shard = Arc::new(Shard::new());
        let read = Arc::clone(&shard);
        let reader = loom::thread::spawn(move || read.read(10));
        shard.change(1, change(1, 0, 0, false));
        shard.change(3, change(-1, 1, 0, false));
        let sums = reader.join().unwrap();
        let whole = [(0, 0, 0, 0), (1, 0, 9, 0), (0, 1, 2, 7)];
        let seen = (
            sums.running,
            sums.waiting,
            sums.running_integral,
            sums.waiting_integral,
        );
        assert!(whole.contains(&seen), "{seen:?}");
    });
}

#[test]
fn a_reader_never_sees_half_a_change_of_what_is_marked() {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(|| {
        let shard = Arc::new(Shard::new());
        let read = Arc::clone(&shard);
        let reader = loom::thread::spawn(move || read.read(10));
        // One change: how a reader gets from one to the next is explored above.
        shard.change(3, change(0, 1, 1, true));
        let sums = reader.join().unwrap();
        let whole = [(0, 0, 0, 0, 0), (1, 1, 7, 7, 1)];
        let seen = (
            sums.waiting,
            sums.marked,
            sums.waiting_integral,
            sums.marked_integral,
            sums.asked,
        );
        assert!(whole.contains(&seen), "{seen:?}");
    });
}

fn change(running: i8, waiting: i8, marked: i8, asks: bool) -> Change {
    Change {
        running,
        waiting,
        marked,
        asks,
        ..Change::default()
    }
}
