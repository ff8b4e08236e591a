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
/// How often, and how far apart, [`orphans_of`] looks for what had no environment to tell by or was
/// being started while it looked.
const ORPHAN_LOOKS: u32 = 10;
const ORPHAN_PAUSE: Duration = Duration::from_millis(1);

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
    for pid in find_below(ancestor, &[]) {
        one(pid);
    }
}

/// Kills the orphans that were started for `port`, as their environment says: daemons that left
/// group and session. Whoever is below one of `leaders` is no orphan.
pub(super) fn orphans_of(port: u16, leaders: &[Pid]) {
    let marker = format!("PORT={port}");
    for _ in 0..ORPHAN_LOOKS {
        let mut again = false;
        for pid in find_below(getpid(), leaders) {
            match fs::read(format!("/proc/{pid}/environ")) {
                Ok(environment) if has(&environment, marker.as_bytes()) => {
                    one(pid);
                    again = true;
                }
                // Perhaps it is about to execute another program, and has none for a moment.
                Ok(environment) => again |= environment.is_empty() && !is_dead(pid),
                // It ended, or it is another user's.
                Err(_) => {}
            }
        }
        if !again {
            return;
        }
        std::thread::sleep(ORPHAN_PAUSE);
    }
}

fn has(environment: &[u8], variable: &[u8]) -> bool {
    environment
        .split(|&byte| byte == 0)
        .any(|it| it == variable)
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

/// Every process below `ancestor`, in no particular order, without those in `except` and
/// whoever is below them. Empty where there is no `/proc`.
fn find_below(ancestor: Pid, except: &[Pid]) -> Vec<Pid> {
    let mut others = parents();
    others.retain(|(pid, _)| !except.contains(pid));
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
            let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let pid = Pid::from_raw(pid)?;
            let (_, parent) = state_and_parent(&stat(pid)?)?;
            Some((pid, Pid::from_raw(parent)?))
        })
        .collect()
}

fn is_dead(pid: Pid) -> bool {
    let state = stat(pid).and_then(|stat| Some(state_and_parent(&stat)?.0));
    matches!(state, None | Some(b'Z' | b'X'))
}

fn stat(pid: Pid) -> Option<Vec<u8>> {
    fs::read(format!("/proc/{pid}/stat")).ok()
}

/// From `/proc/PID/stat`: `PID (NAME) STATE PARENT …`, where NAME may hold anything.
fn state_and_parent(stat: &[u8]) -> Option<(u8, i32)> {
    let name_end = stat.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(stat.get(name_end + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.bytes().next()?;
    Some((state, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_and_parent_are_found_behind_any_program_name() {
        assert_eq!(state_and_parent(b"7 (sh) S 42 7 7 0 -1"), Some((b'S', 42)));
        assert_eq!(state_and_parent(b"7 (a) S 1 (b) ) R 9 7"), Some((b'R', 9)));
        assert_eq!(state_and_parent(b"7 (a) S"), None);
        assert_eq!(state_and_parent(b"7 (a"), None);
        assert_eq!(state_and_parent(b""), None);
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
            found = find_below(shell_pid, &[]);
        }
        assert!(find_below(getpid(), &[]).contains(&shell_pid));
        let without = find_below(getpid(), &[shell_pid]);
        assert!(!found.iter().any(|pid| without.contains(pid)));
        for pid in found {
            one(pid);
        }
        shell.wait().unwrap();
        assert!(find_below(shell_pid, &[]).is_empty());
    }
}
