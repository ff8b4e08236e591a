//! Panics: each is a fault of ours. It costs the exchange, connection or task it happened in; here
//! it is counted and logged, in one line like everything else.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::PanicHookInfo;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Whose thread panicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thread {
    /// One that serves.
    Worker,
    /// Sources, scalers, admin, names.
    Control,
    Other,
}

impl Thread {
    pub const ALL: [Thread; 3] = [Thread::Worker, Thread::Control, Thread::Other];

    /// The value of the label `thread`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Thread::Worker => "worker",
            Thread::Control => "control",
            Thread::Other => "other",
        }
    }

    /// By the name of the thread.
    fn of(thread: Option<&str>) -> Thread {
        match thread {
            Some(name) if name.starts_with("worker-") => Thread::Worker,
            Some("control") => Thread::Control,
            _ => Thread::Other,
        }
    }
}

/// Of the whole process, which has one hook.
static COUNTS: [AtomicU64; Thread::ALL.len()] = [const { AtomicU64::new(0) }; Thread::ALL.len()];

/// Panics of these threads since [`watch`].
#[must_use]
pub fn count(place: Thread) -> u64 {
    COUNTS[place as usize].load(Relaxed)
}

/// From now on every panic of the process is counted and goes to its log, instead of to standard
/// error in lines of its own, with whatever a client has said in them.
pub fn watch() {
    static WATCHED: Once = Once::new();
    WATCHED.call_once(|| std::panic::set_hook(Box::new(note)));
}

fn note(info: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or_default();
    COUNTS[Thread::of(thread.name()) as usize].fetch_add(1, Relaxed);
    let at = info.location().map(ToString::to_string).unwrap_or_default();
    let why = message(info.payload());
    let trace = Backtrace::capture();
    if trace.status() == BacktraceStatus::Captured {
        tracing::error!(thread = name, at, why, %trace, "panicked: a fault of ours");
    } else {
        tracing::error!(thread = name, at, why, "panicked: a fault of ours");
    }
}

/// What a panic says.
fn message(payload: &(dyn Any + Send)) -> &str {
    let fixed = payload.downcast_ref::<&str>().copied();
    fixed
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_told_by_their_names() {
        for (name, place) in [
            (Some("worker-0"), Thread::Worker),
            (Some("worker-31"), Thread::Worker),
            (Some("control"), Thread::Control),
            (Some("access-log"), Thread::Other),
            (None, Thread::Other),
        ] {
            assert_eq!(Thread::of(name), place, "{name:?}");
        }
    }
}
