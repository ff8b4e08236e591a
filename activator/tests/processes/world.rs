//! What both kinds of tests need: processes looked at from outside, and something to start.

use std::collections::HashSet;
use std::fs;
use std::net::TcpListener;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// No condition takes longer unless it never comes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for a condition.
#[track_caller]
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "not in time: {what}");
        sleep(Duration::from_millis(1));
    }
}

/// State letter and parent of a process that exists.
fn stat(pid: i32) -> Option<(char, i32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.next()?.parse().ok()?))
}

pub(crate) fn state(pid: i32) -> Option<char> {
    stat(pid).map(|(state, _)| state)
}

/// Not dead; a corpse that init has not buried does not count.
pub(crate) fn is_alive(pid: i32) -> bool {
    state(pid).is_some_and(|state| state != 'Z')
}

/// Every living process below this one.
pub(crate) fn descendants(ancestor: i32) -> HashSet<i32> {
    let all: Vec<(i32, i32)> = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| {
            let (state, parent) = stat(pid)?;
            (state != 'Z').then_some((pid, parent))
        })
        .collect();
    let mut found = HashSet::from([ancestor]);
    loop {
        let before = found.len();
        found.extend(
            all.iter()
                .filter(|(_, up)| found.contains(up))
                .map(|it| it.0)
                .collect::<Vec<_>>(),
        );
        if found.len() == before {
            found.remove(&ancestor);
            return found;
        }
    }
}

pub(crate) fn kill(pid: i32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

pub(crate) fn own_path() -> String {
    let path = std::env::current_exe().unwrap();
    path.to_str().unwrap().to_owned()
}

/// A service: takes connections on `$PORT` until it is ended.
pub(crate) fn serve() -> ExitCode {
    let port = std::env::var_os("PORT").unwrap();
    let port: u16 = port.to_str().unwrap().parse().unwrap();
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    println!("listening");
    for stream in listener.incoming() {
        drop(stream);
    }
    ExitCode::SUCCESS
}
