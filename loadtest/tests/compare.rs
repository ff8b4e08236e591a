//! Every scenario for a moment: the books agree, and all that is written says the same.
//!
//! Nothing here says how fast anything is.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use loadtest::compare::{Comparison, Rounds, Sample, Section};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

/// The gateway's binary: `$TIDEGATE_BIN`, or what the workspace's tests have built beside this.
fn tidegate() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_BIN_EXE_loadtest")).with_file_name("tidegate");
    let path = std::env::var_os("TIDEGATE_BIN").map_or_else(beside, PathBuf::from);
    path.is_file().then(|| std::path::absolute(path).unwrap())
}

fn command(out: &Path, connections: u32, duration: &str, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
    command
        .args(["compare", "--rounds=1", "--duration", duration])
        .args(["--connections", &connections.to_string(), "--out"])
        .arg(out)
        .args(args);
    match tidegate() {
        Some(tidegate) => command.arg("--tidegate").arg(tidegate),
        None => command.arg("--peers=copier,nginx"),
    };
    command
}

struct Written {
    comparison: Comparison,
    markdown: String,
    svg: String,
    output: Output,
}

fn compare(connections: u32, args: &[&str]) -> Written {
    let directory = tempfile::tempdir().unwrap();
    let output = command(directory.path(), connections, "250ms", args)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap();
    Written {
        comparison: serde_json::from_str(&read("compare.json")).unwrap(),
        markdown: read("compare.md"),
        svg: read("compare.svg"),
        output,
    }
}

const PEERS: &str = "--peers=copier,nginx,tidegate";

fn peers() -> &'static [&'static str] {
    // Where there is no gateway `command` names the peers.
    if tidegate().is_some() { &[PEERS] } else { &[] }
}

fn check_sample(sample: &Sample) {
    let report = &sample.report;
    assert_eq!(sample.problems, Vec::<String>::new());
    assert_eq!(report.sent, report.answers + report.errors.total());
    assert_eq!(report.errors.total(), 0);
    assert_eq!(report.statuses.get(&200), Some(&report.answers));
    assert_eq!(report.answers, sample.answered);
    assert_eq!(sample.answered, sample.arrived);
    assert!(report.answers > 0);
    assert!(sample.spent.nanos > 0);
    assert!(sample.memory.rss > 0);
}

/// Checks everything a section of load through several proxies says.
fn check_section(written: &Written, section: &Section) {
    assert_eq!(section.problems, Vec::<String>::new());
    let rounds: Rounds = serde_json::from_value(section.raw.clone()).unwrap();
    assert!(rounds.rate > 0.0);
    assert_eq!(rounds.peers.len(), section.tables[0].rows.len());
    assert_eq!(rounds.peers.len(), section.charts[0].bars.len());
    assert_eq!(rounds.peers.len(), section.shown.len());
    for (peer, shown) in rounds.peers.iter().zip(&section.shown) {
        assert_eq!(peer.name, shown.name);
        assert_eq!((peer.saturation.len(), peer.fixed.len()), (1, 1));
        assert!(peer.sound());
        peer.saturation.iter().for_each(check_sample);
        peer.fixed.iter().for_each(check_sample);
        let row = format!("| {} | ", peer.name);
        assert!(written.markdown.contains(&row), "{}", written.markdown);
        assert!(written.markdown.contains(&shown.command));
        assert!(written.svg.contains(&peer.name));
    }
}

fn check_whole(written: &Written) {
    assert!(written.svg.starts_with("<svg "));
    assert_eq!(
        String::from_utf8_lossy(&written.output.stdout),
        written.markdown
    );
    for section in &written.comparison.sections {
        assert!(written.markdown.contains(&section.title));
        for cell in section
            .tables
            .iter()
            .flat_map(|table| table.rows.iter().flatten())
        {
            assert!(written.markdown.contains(cell));
        }
    }
}

fn check(scenario: &str, names: &[&str]) {
    let scenario = format!("--scenario={scenario}");
    let written = compare(8, &[peers(), &[scenario.as_str()]].concat());
    check_whole(&written);
    let sections = &written.comparison.sections;
    let found: Vec<&str> = sections.iter().map(|section| &*section.name).collect();
    assert_eq!(found, names);
    for section in sections {
        check_section(&written, section);
    }
}

#[test]
fn keepalive_counts_right() {
    check("keepalive", &["keepalive"]);
}

#[test]
fn post_counts_right() {
    check("post", &["post"]);
}

#[test]
fn large_counts_right() {
    check("large", &["large-down", "large-up"]);
}

#[test]
fn connect_counts_right() {
    check("connect", &["connect"]);
}

#[test]
fn a_limit_is_never_exceeded_at_the_backend() {
    if tidegate().is_none() {
        return;
    }
    let written = compare(32, &["--scenario=limit", "--peers=tidegate"]);
    check_whole(&written);
    let [section] = &*written.comparison.sections else {
        panic!("{:?}", written.comparison.sections);
    };
    assert_eq!(section.problems, Vec::<String>::new());
    assert_eq!(section.verdicts.len(), 4);
    assert!(
        section
            .verdicts
            .iter()
            .all(|verdict| verdict.holds == Some(true))
    );
    for case in section.raw.as_array().unwrap() {
        let samples: Vec<Sample> = serde_json::from_value(case["samples"].clone()).unwrap();
        samples.iter().for_each(check_sample);
        let limit = case["limit"].as_u64().unwrap();
        assert!(
            samples
                .iter()
                .all(|sample| (1..=limit).contains(&sample.peak))
        );
        assert!(samples.iter().all(|sample| sample.refused == 0));
    }
}

#[test]
fn the_generator_is_priced_where_wrk_is_there() {
    let written = compare(8, &["--scenario=generator"]);
    check_whole(&written);
    let [section] = &*written.comparison.sections else {
        panic!("{:?}", written.comparison.sections);
    };
    if Command::new("wrk").arg("-v").output().is_err() {
        assert!(section.problems[0].contains("wrk (Debian)"));
        return;
    }
    assert_eq!(section.problems, Vec::<String>::new());
    assert_eq!(section.tables[0].rows.len(), 2);
    for name in ["wrk", "loadtest"] {
        let turns = section.raw[name].as_array().unwrap();
        assert_eq!(turns.len(), 1);
        assert!(turns[0]["answers"].as_u64().unwrap() > 0);
        assert!(turns[0]["cost"].as_f64().unwrap() > 0.0);
    }
    assert!(section.verdicts[0].figure.is_some());
}

#[test]
fn a_missing_proxy_is_listed_with_what_gives_it() {
    let none = "--haproxy=/nowhere/haproxy";
    let directory = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args([
            "compare",
            "--rounds=1",
            "--duration=50ms",
            "--connections=2",
        ])
        .args(["--scenario=post", "--peers=copier,haproxy", none, "--out"])
        .arg(directory.path())
        .output()
        .unwrap();
    assert!(output.status.success());
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("haproxy is missing"), "{text}");
    assert!(text.contains("haproxy (Debian)"), "{text}");
}

#[test]
fn a_proxy_that_does_not_start_is_shown_with_what_it_said() {
    let directory = tempfile::tempdir().unwrap();
    let fake = directory.path().join("haproxy");
    let script = "#!/bin/sh\n[ \"$1\" = -v ] && echo 'HAProxy version 0.1' && exit\n\
                  echo 'no such luck' >&2\nexit 3\n";
    std::fs::write(&fake, script).unwrap();
    let mode = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
    std::fs::set_permissions(&fake, mode).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args([
            "compare",
            "--rounds=1",
            "--duration=50ms",
            "--connections=2",
        ])
        .args([
            "--scenario=keepalive",
            "--peers=copier,haproxy",
            "--haproxy",
        ])
        .arg(&fake)
        .output()
        .unwrap();
    assert!(output.status.success());
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("| haproxy ⚠ | – |"), "{text}");
    assert!(text.contains("no such luck"), "{text}");
}

#[test]
fn a_page_gets_its_sections_and_charts() {
    let directory = tempfile::tempdir().unwrap();
    let page = directory.path().join("page.md");
    let marks = "<!-- measured: begin -->\n<!-- measured: end -->\n";
    std::fs::write(&page, format!("# Page\n\n{marks}\nThe end.\n")).unwrap();
    for connections in ["2", "3"] {
        let output = Command::new(env!("CARGO_BIN_EXE_loadtest"))
            .args([
                "compare",
                "--rounds=1",
                "--duration=50ms",
                "--scenario=keepalive",
            ])
            .args(["--peers=copier", "--connections", connections, "--docs"])
            .arg(&page)
            .output()
            .unwrap();
        assert!(output.status.success());
        let text = std::fs::read_to_string(&page).unwrap();
        assert!(
            text.starts_with("# Page\n\n") && text.ends_with("\nThe end.\n"),
            "{text}"
        );
        assert_eq!(text.matches("<!-- section keepalive-1 -->").count(), 1);
        assert!(
            text.contains(&format!("{connections} connections")),
            "{text}"
        );
        assert!(text.contains("](page/keepalive-1.svg)"), "{text}");
    }
    assert!(directory.path().join("page/keepalive-1.svg").is_file());
}

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
    let mut child = command(directory.path(), 8, "60s", peers())
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
fn nothing_survives_an_interruption() {
    nothing_survives(Signal::INT);
}

#[test]
fn nothing_survives_a_kill() {
    nothing_survives(Signal::KILL);
}
