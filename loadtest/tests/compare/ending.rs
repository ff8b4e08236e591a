//! Nothing that was started outlives a comparison.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use loadtest::compare::Comparison;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::support::{PEERS, command};

/// Processes below this one, and theirs.
fn below(root: Pid) -> Vec<Pid> {
    let mut found = Vec::new();
    let mut open = vec![root];
    while let Some(pid) = open.pop() {
        let path = format!(
            "/proc/{pid}/task/{pid}/children",
            pid = pid.as_raw_nonzero()
        );
        let children = std::fs::read_to_string(path).unwrap_or_default();
        let children = children.split_whitespace().map(|pid| pid.parse().unwrap());
        let children: Vec<Pid> = children.filter_map(Pid::from_raw).collect();
        found.extend(&children);
        open.extend(&children);
    }
    found
}

/// Whether a process runs; one that only waits to be reaped does not.
fn lives(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    let state = stat
        .ok()
        .and_then(|stat| stat.rsplit(") ").next()?.chars().next());
    test_kill_process(pid).is_ok() && !matches!(state, None | Some('Z' | 'X'))
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let patience = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < patience, "not within a minute: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

fn nothing_survives(signal: Signal) {
    let directory = tempfile::tempdir().unwrap();
    let mut child = command(directory.path(), 8, "60s", &[PEERS])
        .arg("--scenario=keepalive")
        // Killed, it cannot clean up behind itself.
        .env("TMPDIR", directory.path())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let pid = Pid::from_child(&child);
    // A backend, the proxies and a generator, the last to start.
    let generates = |pid: &Pid| {
        let path = format!("/proc/{}/cmdline", pid.as_raw_nonzero());
        std::fs::read(path)
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains("--connections="))
    };
    eventually("the load begins", || {
        assert!(child.try_wait().unwrap().is_none());
        below(pid).iter().any(generates)
    });
    let started = below(pid);
    kill_process(pid, signal).unwrap();
    let status = child.wait().unwrap();
    assert!(!status.success());
    eventually("nothing is left", || !started.iter().any(|pid| lives(*pid)));
}

#[test]
fn scenarios_that_were_done_are_written_though_the_next_is_interrupted() {
    let directory = tempfile::tempdir().unwrap();
    let args = ["--peers=copier", "--scenario=keepalive,post"];
    let mut child = command(directory.path(), 2, "300ms", &args)
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(said.any(|line| line.unwrap().starts_with("post, ")));
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert!(said.any(|line| line.unwrap().contains("interrupted")));
    assert!(!child.wait().unwrap().success());
    let json = std::fs::read_to_string(directory.path().join("compare.json")).unwrap();
    let written: Comparison = serde_json::from_str(&json).unwrap();
    let names: Vec<&str> = written.sections.iter().map(|one| &*one.name).collect();
    assert_eq!(names, ["keepalive"]);
}

#[test]
fn nothing_survives_an_interruption() {
    nothing_survives(Signal::INT);
}

#[test]
fn nothing_survives_a_kill() {
    nothing_survives(Signal::KILL);
}
