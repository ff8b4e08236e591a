//! Finds and kills what revision processes leave behind, whatever group or session it moved to.

use std::fs;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, kill_process_group, wait};

/// How long [`everything`] keeps on: only processes stuck in the kernel, or of another user, live
/// longer.
const KILL_WITHIN: Duration = Duration::from_secs(10);
/// Between two looks at who is left.
const KILL_PAUSE: Duration = Duration::from_millis(2);

/// Kills and reaps every descendant. As this process is a subreaper, whatever lost its parent is
/// a child of ours, so having no child left means that nothing is left.
pub(super) fn everything(groups: &[Pid]) {
    let give_up = Instant::now() + KILL_WITHIN;
    for &group in groups {
        group_of(group, Signal::KILL);
    }
    while any_child_left() && Instant::now() < give_up {
        below(getpid());
        if !any_child_left() {
            return;
        }
        std::thread::sleep(KILL_PAUSE);
    }
}

/// Reaps what has ended; whether a child is left.
fn any_child_left() -> bool {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

/// Signals the process group that `leader` leads. Nobody left to signal is no error.
pub(super) fn group_of(leader: Pid, signal: Signal) {
    match kill_process_group(leader, signal) {
        Ok(()) | Err(Errno::SRCH) => {}
        Err(error) => complain(leader, error),
    }
}

/// Kills every process below `ancestor`, but not itself.
pub(super) fn below(ancestor: Pid) {
    for pid in descendants(ancestor) {
        one(pid);
    }
}

/// Kills those descendants of ours whose environment says that they were started for `port`:
/// daemons that left group and session, and whose parent has exited.
pub(super) fn started_for(port: u16) {
    let marker = format!("PORT={port}");
    for pid in descendants(getpid()) {
        if has_in_environment(pid, marker.as_bytes()) {
            one(pid);
        }
    }
}

fn one(pid: Pid) {
    match kill_process(pid, Signal::KILL) {
        Ok(()) | Err(Errno::SRCH) => {}
        Err(error) => complain(pid, error),
    }
}

fn complain(pid: Pid, error: Errno) {
    eprintln!("supervise: cannot signal process {pid}: {error}");
}

fn has_in_environment(pid: Pid, variable: &[u8]) -> bool {
    fs::read(format!("/proc/{pid}/environ"))
        .is_ok_and(|environment| environment.split(|&byte| byte == 0).any(|v| v == variable))
}

/// Every process below `ancestor`, in no particular order. Empty where there is no `/proc`.
fn descendants(ancestor: Pid) -> Vec<Pid> {
    let mut others = parents();
    let mut found = vec![ancestor];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        next += 1;
        others.retain(|&(pid, its_parent)| {
            let child = its_parent == parent;
            if child {
                found.push(pid);
            }
            !child
        });
    }
    found.swap_remove(0);
    found
}

/// Every process of this machine that we can see, with its parent.
fn parents() -> Vec<(Pid, Pid)> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| {
            let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
            Some((Pid::from_raw(pid)?, Pid::from_raw(parent(&stat)?)?))
        })
        .collect()
}

/// The parent in `/proc/PID/stat`: `PID (NAME) STATE PARENT …`, where NAME may hold anything.
fn parent(stat: &[u8]) -> Option<i32> {
    let name_end = stat.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(stat.get(name_end + 1..)?).ok()?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_is_found_behind_any_program_name() {
        assert_eq!(parent(b"7 (sh) S 42 7 7 0 -1"), Some(42));
        assert_eq!(parent(b"7 (a) S 1 (b) ) R 9 7 7"), Some(9));
        assert_eq!(parent(b"7 (a"), None);
        assert_eq!(parent(b""), None);
    }

    #[test]
    fn descendants_are_found_at_any_depth() {
        let mut shell = std::process::Command::new("sh")
            .args(["-c", "sh -c 'sleep 1000; true' & wait"])
            .spawn()
            .unwrap();
        let shell_pid = Pid::from_child(&shell);
        let mut found = vec![];
        while found.len() < 2 {
            found = descendants(shell_pid);
        }
        assert!(descendants(getpid()).contains(&shell_pid));
        for pid in found {
            one(pid);
        }
        shell.wait().unwrap();
        assert!(descendants(shell_pid).is_empty());
    }
}
