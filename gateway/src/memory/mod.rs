//! Watches what memory is used, and says when workers must give something up.
//!
//! Against `limits.memory` counts what this process has in memory and what its connections have in
//! the kernel; without that, against the limit of its control group, what the group is charged for.

mod cgroup;
mod ladder;
mod sockets;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use self::cgroup::Group;
use self::ladder::Ladder;
pub use self::ladder::{Level, Pressure};
use self::sockets::Sockets;
use crate::observe::metrics::Registry;
use crate::observe::world::MemoryView;

/// How often memory is looked at.
const SAMPLE: Duration = Duration::from_millis(100);

/// While less than this share of the limit is used (in percent), all TCP memory of the network
/// namespace counts as ours: to know better would change nothing.
const CALM_PERCENT: u64 = 80;

/// What is counted, against which limit.
#[derive(Debug)]
enum Against {
    /// `limits.memory`.
    Process(u64),
    Group(Group),
    /// Nothing: it is told and no more.
    Nothing,
}

/// What others know of memory.
#[derive(Clone, Debug)]
pub struct Gauge {
    pressure: watch::Receiver<Pressure>,
    crowd: Arc<Crowd>,
}

/// What happens between two looks.
#[derive(Debug)]
struct Crowd {
    /// How much this process may have in memory until it must give everything up, if all else is as
    /// it was at the last look. Bytes.
    room: AtomicU64,
    /// It has that much.
    here: AtomicBool,
    look: Notify,
}

impl Default for Crowd {
    fn default() -> Crowd {
        Crowd {
            room: AtomicU64::new(u64::MAX),
            here: AtomicBool::new(false),
            look: Notify::new(),
        }
    }
}

/// Of memory that nobody watches.
impl Default for Gauge {
    fn default() -> Gauge {
        Gauge {
            pressure: watch::Sender::default().subscribe(),
            crowd: Arc::default(),
        }
    }
}

impl Gauge {
    /// A glance between two looks, for whoever has just used much memory: a crowd can use all of it
    /// before the next one. Takes microseconds.
    pub fn glance(&self) {
        let room = self.crowd.room.load(Relaxed);
        if room < u64::MAX && resident().is_some_and(|resident| resident >= room) {
            self.crowd.here.store(true, Relaxed);
            self.crowd.look.notify_one();
        }
    }

    /// Whether a glance has found that nothing more fits, and nobody has looked since.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        self.crowd.here.load(Relaxed)
    }

    /// Returns with what is to be given up when that changes; never, if nobody watches any more: what
    /// was said last holds.
    ///
    /// # Cancel safety
    /// What has changed meanwhile is told next time.
    pub async fn changed(&mut self) -> Pressure {
        match self.pressure.changed().await {
            Ok(()) => *self.pressure.borrow_and_update(),
            Err(_nobody) => std::future::pending().await,
        }
    }
}

/// Looks at memory.
#[derive(Debug)]
pub struct Watcher {
    against: Against,
    sockets: Sockets,
    ladder: Ladder,
    start: Instant,
    registry: Arc<Registry>,
    sender: watch::Sender<Pressure>,
    crowd: Arc<Crowd>,
}

impl Watcher {
    /// `limit`: bytes, as configured. Says what it found in the log.
    #[must_use]
    pub fn new(limit: Option<u64>, registry: Arc<Registry>) -> (Watcher, Gauge) {
        let against = match limit {
            Some(bytes) => Against::Process(bytes),
            None => Group::find().map_or(Against::Nothing, Against::Group),
        };
        if let Against::Group(group) = &against {
            let directory = group.directory().display();
            tracing::info!(group = %directory, "memory is bounded by the control group");
        }
        let (sender, receiver) = watch::channel(Pressure::default());
        let gauge = Gauge {
            pressure: receiver,
            crowd: Arc::default(),
        };
        let watcher = Watcher {
            against,
            sockets: Sockets::default(),
            ladder: Ladder::default(),
            start: Instant::now(),
            registry,
            sender,
            crowd: gauge.crowd.clone(),
        };
        (watcher, gauge)
    }

    /// Watches for ever.
    ///
    /// # Cancel safety
    /// Nobody hears of pressure any more; what was said last holds.
    pub async fn run(self) {
        let mut ticks = tokio::time::interval(SAMPLE);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let crowd = self.crowd.clone();
        let mut watcher = Some(self);
        while let Some(mut this) = watcher.take() {
            tokio::select! {
                _ = ticks.tick() => {}
                () = crowd.look.notified() => {}
            }
            // The kernel's tables may take long to read.
            let looked = tokio::task::spawn_blocking(move || {
                this.look();
                this
            });
            match looked.await {
                Ok(this) => watcher = Some(this),
                Err(error) => tracing::error!(%error, "memory is not watched any more"),
            }
        }
    }

    fn look(&mut self) {
        let now = self.start.elapsed();
        let Some(resident) = resident() else {
            self.crowd.here.store(false, Relaxed);
            return;
        };
        let (used, limit) = self.read(resident, now);
        let before = *self.sender.borrow();
        let pressure = match limit {
            Some(limit) => self.ladder.read(used, limit, now),
            None => Pressure::default(),
        };
        if pressure != before {
            self.sender.send_replace(pressure);
            tell(before, pressure, used, limit.unwrap_or(0));
        }
        let left = limit.map(|limit| Level::Cutting.begins_at(limit).saturating_sub(used));
        let room = left.map_or(u64::MAX, |left| resident.saturating_add(left));
        self.crowd.room.store(room, Relaxed);
        self.crowd.here.store(false, Relaxed);
        self.registry.set_memory(MemoryView {
            used,
            limit: limit.unwrap_or(0),
            level: pressure.level,
        });
    }

    /// Bytes that are used, and the limit.
    fn read(&mut self, resident: u64, now: Duration) -> (u64, Option<u64>) {
        match &self.against {
            Against::Process(limit) => {
                let limit = *limit;
                let sockets = self.with_sockets(resident, limit, now);
                (resident.saturating_add(sockets), Some(limit))
            }
            Against::Group(group) => {
                let Some(usage) = group.read() else {
                    // Its limit was taken away. Perhaps one around it counts now, or will.
                    if let Some(group) = Group::find() {
                        self.against = Against::Group(group);
                    }
                    return (resident, None);
                };
                let sockets = match usage.sockets {
                    Some(_) => 0,
                    None => self.with_sockets(usage.used, usage.limit, now),
                };
                (usage.used.saturating_add(sockets), Some(usage.limit))
            }
            Against::Nothing => (resident, None),
        }
    }

    fn with_sockets(&mut self, used: u64, limit: u64, now: Duration) -> u64 {
        let calm = limit / 100 * CALM_PERCENT;
        let enough = |sockets: u64| used >= limit || used.saturating_add(sockets) < calm;
        self.sockets.read(now, enough)
    }
}

fn tell(before: Pressure, now: Pressure, used: u64, limit: u64) {
    let level = now.level.word();
    if now.level > before.level {
        tracing::warn!(level, used, limit, "memory is short");
    } else if now.level < before.level {
        tracing::info!(level, used, limit, "memory is less short");
    }
    if let Some(bytes) = now.cut.filter(|_| now.cut != before.cut) {
        tracing::warn!(bytes, used, limit, "exchanges that pin so much end");
    }
}

/// What this process has in memory, in bytes.
fn resident() -> Option<u64> {
    let pages = resident_of(&std::fs::read_to_string("/proc/self/statm").ok()?)?;
    pages.checked_mul(u64::try_from(rustix::param::page_size()).ok()?)
}

/// Pages; in `10400 2630 1400 320 0 1030 0` (proc(5)) the second number.
fn resident_of(statm: &str) -> Option<u64> {
    statm.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(gauge: &Gauge) -> Pressure {
        *gauge.pressure.borrow()
    }

    /// Watches a group whose files are in that directory.
    fn of_group(directory: &std::path::Path) -> (Watcher, Gauge) {
        let (mut watcher, gauge) = Watcher::new(Some(1), Registry::new(1, Vec::new()));
        let group = cgroup::nearest(cgroup::Version::Two, directory, directory);
        watcher.against = Against::Group(group.unwrap());
        (watcher, gauge)
    }

    #[test]
    fn what_the_process_has_in_memory_is_read() {
        assert_eq!(resident_of("10400 2630 1400 320 0 1030 0\n"), Some(2630));
        for text in ["", "10400", "1 x 3", "1 99999999999999999999"] {
            assert_eq!(resident_of(text), None, "{text:?}");
        }
        assert!(resident().unwrap() > 100_000);
    }

    #[test]
    fn pressure_ends_when_the_limit_is_taken_away() {
        let directory = tempfile::TempDir::new().unwrap();
        let write = |name, text| std::fs::write(directory.path().join(name), text).unwrap();
        write("memory.current", "1000\n");
        write("memory.max", "1000\n");
        let (mut watcher, gauge) = of_group(directory.path());
        watcher.look();
        assert_eq!(said(&gauge).level, Level::Cutting);
        write("memory.max", "max\n");
        watcher.look();
        assert_eq!(said(&gauge).level, Level::Normal);
    }

    #[tokio::test]
    async fn pressure_is_published_while_it_lasts() {
        let registry = Registry::new(1, Vec::new());
        let (watcher, mut gauge) = Watcher::new(Some(1), registry.clone());
        assert_eq!(said(&gauge).level, Level::Normal);
        let watching = tokio::spawn(watcher.run());
        let pressure = gauge.changed().await;
        assert_eq!(pressure.level, Level::Cutting);
        assert!(pressure.cut.is_some());
        watching.abort();
    }

    #[test]
    fn what_a_crowd_takes_between_two_looks_is_seen_at_a_glance() {
        let directory = tempfile::TempDir::new().unwrap();
        let write = |name, text| std::fs::write(directory.path().join(name), text).unwrap();
        write("memory.current", "1000000000\n");
        write("memory.max", "1100000000\n");
        let (mut watcher, gauge) = of_group(directory.path());
        watcher.look();
        gauge.glance();
        assert!(!gauge.is_crowded());
        let crowd = vec![1_u8; 200_000_000];
        gauge.glance();
        assert!(gauge.is_crowded(), "{}", crowd[7]);
        // The group has seen nothing of it.
        watcher.look();
        assert!(!gauge.is_crowded());
    }

    #[test]
    fn what_was_seen_is_told() {
        let registry = Registry::new(1, Vec::new());
        let (mut watcher, gauge) = Watcher::new(Some(1), registry.clone());
        watcher.look();
        assert_eq!(said(&gauge).level, Level::Cutting);
        let seen = registry.memory();
        assert_eq!((seen.limit, seen.level), (1, Level::Cutting));
        assert!(registry.scrape(&[]).contains("tidegate_memory_level 4"));

        let (mut watcher, gauge) = Watcher::new(Some(1 << 40), registry.clone());
        watcher.look();
        assert_eq!(said(&gauge), Pressure::default());
        let (mut watcher, gauge) = Watcher::new(None, registry.clone());
        watcher.against = Against::Nothing;
        watcher.look();
        assert_eq!(said(&gauge), Pressure::default());
        assert!(
            registry
                .scrape(&[])
                .contains("tidegate_memory_limit_bytes 0")
        );
    }
}
