//! What the kernel has on its books about a process and everything below it.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, ensure};
use rustix::process::Pid;
use rustix::thread::sched_getaffinity;
use serde::{Deserialize, Serialize};

/// Nanoseconds in a tick of `/proc/PID/stat`: `USER_HZ` is 100 on every architecture Linux has now.
const TICK_NANOS: u64 = 10_000_000;

/// Processor time of a process tree at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Usage {
    processes: BTreeMap<i32, Process>,
}

#[derive(Clone, Debug, Default)]
struct Process {
    /// User and system time of all its threads, also of those that have ended; whole ticks.
    ticks: u64,
    /// Nanoseconds on a processor by thread, of those that live.
    threads: BTreeMap<i32, u64>,
}

/// The difference between two moments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// User and system time, in nanoseconds.
    pub nanos: u64,
    /// Whether that is exact. Where a thread ended in between it comes in ticks of 10 ms.
    pub exact: bool,
}

/// Memory of a process tree, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    pub rss: u64,
    /// Pages shared with other processes counted in part; none where the kernel does not tell.
    pub pss: Option<u64>,
    /// The part of `pss` that is no file's: free of how many others run the same program.
    pub anonymous: Option<u64>,
}

impl Usage {
    /// Reads the tree below and with `root`.
    ///
    /// # Errors
    ///
    /// It has gone.
    pub(crate) fn read(root: Pid) -> anyhow::Result<Usage> {
        let mut usage = Usage::default();
        for pid in tree(root)? {
            usage.processes.insert(pid, Process::read(pid)?);
        }
        Ok(usage)
    }

    /// What was spent since an earlier reading.
    ///
    /// # Errors
    ///
    /// A process of the tree has ended, and its time with it.
    pub(crate) fn since(&self, earlier: &Usage) -> anyhow::Result<Spent> {
        let mut spent = Spent {
            nanos: 0,
            exact: true,
        };
        for pid in earlier.processes.keys() {
            ensure!(
                self.processes.contains_key(pid),
                "process {pid} of it has ended"
            );
        }
        let none = Process::default();
        for (pid, process) in &self.processes {
            let before = earlier.processes.get(pid).unwrap_or(&none);
            let one = process.since(before);
            spent.nanos += one.nanos;
            spent.exact &= one.exact;
        }
        Ok(spent)
    }
}

impl Process {
    fn read(pid: i32) -> anyhow::Result<Process> {
        let fields = stat(pid)?;
        let field = |index: usize| fields.get(index).and_then(|field| field.parse().ok());
        // Fields 14 and 15 of `man 5 proc`; what is in front of the third is cut off.
        let (user, system): (Option<u64>, Option<u64>) = (field(11), field(12));
        let mut threads = BTreeMap::new();
        for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
            let path = entry?.path();
            let id = path
                .file_name()
                .and_then(|name| name.to_str()?.parse().ok());
            // A thread that ends while it is looked at is in the ticks.
            if let (Some(id), Ok(text)) = (id, fs::read_to_string(path.join("schedstat"))) {
                let nanos = text.split(' ').next().and_then(|nanos| nanos.parse().ok());
                threads.insert(id, nanos.context("schedstat is not as expected")?);
            }
        }
        Ok(Process {
            ticks: user
                .zip(system)
                .map(|(u, s)| u + s)
                .context("stat is not as expected")?,
            threads,
        })
    }

    fn since(&self, earlier: &Process) -> Spent {
        let lost = earlier
            .threads
            .keys()
            .any(|id| !self.threads.contains_key(id));
        if lost {
            return Spent {
                nanos: (self.ticks - earlier.ticks) * TICK_NANOS,
                exact: false,
            };
        }
        let since = |(id, nanos): (&i32, &u64)| nanos - earlier.threads.get(id).unwrap_or(&0);
        Spent {
            nanos: self.threads.iter().map(since).sum(),
            exact: true,
        }
    }
}

impl Memory {
    /// Reads the tree below and with `root`.
    ///
    /// # Errors
    ///
    /// It has gone.
    pub(crate) fn read(root: Pid) -> anyhow::Result<Memory> {
        let mut sum = Memory {
            rss: 0,
            pss: Some(0),
            anonymous: Some(0),
        };
        for pid in tree(root)? {
            let one = Memory::of_process(pid)?;
            sum.rss += one.rss;
            let add = |sum: Option<u64>, one| sum.zip(one).map(|(sum, one)| sum + one);
            sum.pss = add(sum.pss, one.pss);
            sum.anonymous = add(sum.anonymous, one.anonymous);
        }
        Ok(sum)
    }

    /// Reads that of one process, without those below it.
    ///
    /// # Errors
    ///
    /// It has gone.
    pub(crate) fn alone(pid: Pid) -> anyhow::Result<Memory> {
        Memory::of_process(pid.as_raw_nonzero().get())
    }

    fn of_process(pid: i32) -> anyhow::Result<Memory> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok();
        Ok(Memory {
            rss: kibibytes(&status, "VmRSS:").context("status has no VmRSS")?,
            pss: rollup.as_ref().and_then(|text| kibibytes(text, "Pss:")),
            anonymous: rollup.and_then(|text| kibibytes(&text, "Pss_Anon:")),
        })
    }
}

/// User and system time of all children of this process that have ended, in nanoseconds, in whole
/// ticks of 10 ms.
///
/// # Errors
///
/// The kernel does not tell.
pub(crate) fn ended_children() -> anyhow::Result<u64> {
    let fields = stat(rustix::process::getpid().as_raw_nonzero().get())?;
    // Fields 16 and 17 of `man 5 proc`.
    let field = |index: usize| fields.get(index)?.parse::<u64>().ok();
    let ticks = field(13).zip(field(14)).map(|(user, system)| user + system);
    Ok(ticks.context("stat is not as expected")? * TICK_NANOS)
}

/// What the kernel uses for its own objects, sockets among them, in bytes, on the whole machine.
pub(crate) fn kernel_memory() -> Option<u64> {
    kibibytes(&fs::read_to_string("/proc/meminfo").ok()?, "Slab:")
}

/// The bytes of a line like `VmRSS:      1234 kB`.
fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let number: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(number * 1024)
}

/// The fields of `/proc/PID/stat` from the third on.
fn stat(pid: i32) -> anyhow::Result<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name may hold anything, also spaces and parentheses.
    let (_, rest) = text.rsplit_once(") ").context("stat is not as expected")?;
    Ok(rest.split_whitespace().map(str::to_owned).collect())
}

/// `root` and every process below it.
fn tree(root: Pid) -> anyhow::Result<Vec<i32>> {
    let root = root.as_raw_nonzero().get();
    let mut parents = BTreeMap::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let parent = stat(pid)
            .ok()
            .and_then(|fields| fields.get(1)?.parse::<i32>().ok());
        parents.insert(pid, parent.unwrap_or(0));
    }
    ensure!(parents.contains_key(&root), "process {root} has gone");
    let below = |pid: &i32| {
        let mut at = *pid;
        while at != root {
            match parents.get(&at) {
                Some(parent) if *parent != 0 => at = *parent,
                _ => return false,
            }
        }
        true
    };
    Ok(parents.keys().copied().filter(below).collect())
}

/// Time all processors of the machine have spent on anything, also for other machines, in
/// nanoseconds since it started.
///
/// # Errors
///
/// The kernel does not tell.
pub(crate) fn busy() -> anyhow::Result<u64> {
    let text = fs::read_to_string("/proc/stat")?;
    let line = text
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("cpu "));
    let fields = line.context("stat is not as expected")?.split_whitespace();
    let ticks: Vec<u64> = fields.map(str::parse).collect::<Result<_, _>>()?;
    // user nice system idle iowait irq softirq steal; what follows is part of the first two.
    let ticks = ticks.iter().take(8).enumerate();
    let busy = ticks.filter(|(field, _)| !matches!(field, 3 | 4));
    Ok(busy.map(|(_, ticks)| ticks).sum::<u64>() * TICK_NANOS)
}

/// The processors this process may run on.
///
/// # Errors
///
/// The kernel does not tell.
pub(crate) fn processors() -> anyhow::Result<Vec<usize>> {
    let set = sched_getaffinity(None).context("cannot learn which processors there are")?;
    let most = rustix::thread::CpuSet::MAX_CPU;
    Ok((0..most).filter(|cpu| set.is_set(*cpu)).collect())
}

/// The model of the processor, for people.
pub(crate) fn model() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("model name"));
    let model = line.and_then(|line| line.split_once(": "));
    model.map_or("unknown", |(_, model)| model).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What this process has used. Other tests start and end programs and threads meanwhile, which
    /// may be gone when they are looked at.
    fn own_usage() -> Usage {
        let own = rustix::process::getpid();
        let mut looks = (0..1000).map(|_| Usage::read(own));
        looks.find_map(Result::ok).unwrap()
    }

    #[test]
    fn time_spent_by_a_thread_is_seen() {
        let before = own_usage();
        let (done, wait) = std::sync::mpsc::channel::<()>();
        let (spun, ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let text: String = (0..400_000).map(|n| n.to_string()).collect();
            spun.send(text.len()).unwrap();
            wait.recv().unwrap_err();
        });
        ready.recv().unwrap();
        let after = own_usage();
        drop(done);
        thread.join().unwrap();
        assert!(after.since(&before).unwrap().nanos > 100_000);
    }

    #[test]
    fn a_thread_that_ended_makes_the_figure_inexact() {
        let before = Process {
            ticks: 3,
            threads: BTreeMap::from([(1, 5), (2, 7)]),
        };
        let after = Process {
            ticks: 5,
            threads: BTreeMap::from([(1, 6)]),
        };
        let spent = after.since(&before);
        assert_eq!((spent.nanos, spent.exact), (2 * TICK_NANOS, false));
    }

    #[test]
    fn memory_of_this_process_is_more_than_a_page() {
        assert!(Memory::read(rustix::process::getpid()).unwrap().rss > 4096);
    }
}
