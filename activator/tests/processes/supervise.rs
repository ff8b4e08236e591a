//! The child `supervise`, spoken to as the gateway does.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::Test;
use crate::world::{descendants, is_alive, kill, own_path, state, until};

pub(crate) const TESTS: &[Test] = &[
    ("output_arrives_line_by_line", output_arrives_line_by_line),
    (
        "an_exit_is_told_with_the_last_lines_of_stderr",
        an_exit_is_told_with_the_last_lines_of_stderr,
    ),
    (
        "what_cannot_be_executed_is_refused",
        what_cannot_be_executed_is_refused,
    ),
    (
        "processes_get_their_environment",
        processes_get_their_environment,
    ),
    (
        "our_own_name_means_our_own_binary",
        our_own_name_means_our_own_binary,
    ),
    ("stop_asks_first", stop_asks_first),
    (
        "stop_kills_what_does_not_listen",
        stop_kills_what_does_not_listen,
    ),
    (
        "nothing_outlives_the_process_that_started_it",
        nothing_outlives_the_process_that_started_it,
    ),
    (
        "everything_ends_with_the_socket",
        everything_ends_with_the_socket,
    ),
    (
        "signals_for_the_gateway_do_not_end_it",
        signals_for_the_gateway_do_not_end_it,
    ),
    (
        "a_chatty_process_waits_for_its_reader",
        a_chatty_process_waits_for_its_reader,
    ),
    ("nonsense_ends_it", nonsense_ends_it),
    ("it_cannot_be_run_by_hand", it_cannot_be_run_by_hand),
];

struct Supervisor {
    child: Child,
    commands: UnixStream,
    events: BufReader<UnixStream>,
}

impl Supervisor {
    fn new() -> Supervisor {
        Supervisor::with_stderr(Stdio::inherit())
    }

    fn with_stderr(stderr: Stdio) -> Supervisor {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let child = Command::new(own_path())
            .arg("supervise")
            .env("TIDEGATE_SECRET", "x")
            .env("NOTIFY_SOCKET", "/run/manager")
            .env("INHERITED", "yes")
            .stdin(OwnedFd::from(theirs))
            .stderr(stderr)
            .spawn()
            .unwrap();
        Supervisor {
            child,
            events: BufReader::new(ours.try_clone().unwrap()),
            commands: ours,
        }
    }

    fn pid(&self) -> i32 {
        self.child.id().try_into().unwrap()
    }

    fn send(&mut self, command: &Value) {
        writeln!(self.commands, "{command}").unwrap();
    }

    fn start(&mut self, id: u64, command: &[&str]) {
        let start = json!({"id": id, "command": command, "env": [], "port": 20000 + id});
        self.send(&json!({"start": start}));
    }

    /// Starts a shell script and returns its process.
    fn shell(&mut self, id: u64, script: &str) -> i32 {
        self.start(id, &["sh", "-c", script]);
        let started = self.event();
        assert_eq!(started["started"]["id"], id, "{started}");
        number(&started["started"]["pid"])
    }

    fn stop(&mut self, id: u64, grace: Duration) {
        self.send(&json!({"stop": {"id": id, "grace": grace}}));
    }

    fn event(&mut self) -> Value {
        let mut line = String::new();
        self.events.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    /// The next line of output, of either stream.
    fn line(&mut self) -> String {
        let event = self.event();
        let line = event["output"]["line"].as_str();
        line.unwrap_or_else(|| panic!("{event}")).to_owned()
    }

    /// The process's exit, its output skipped.
    fn exit(&mut self, id: u64) -> Value {
        loop {
            let event = self.event();
            if event.get("output").is_none() {
                assert_eq!(event["exited"]["id"], id, "{event}");
                return event["exited"]["exit"].clone();
            }
        }
    }

    /// Closes the socket and waits for the end.
    fn close(mut self) {
        let below = descendants(self.pid());
        drop(self.commands);
        drop(self.events);
        assert!(self.child.wait().unwrap().success());
        for pid in below {
            assert!(!is_alive(pid), "{pid} is left");
        }
    }
}

fn number(value: &Value) -> i32 {
    value.as_i64().unwrap().try_into().unwrap()
}

fn output_arrives_line_by_line() {
    let mut supervisor = Supervisor::new();
    supervisor.shell(1, "echo out; echo >&2; printf '\\377rest' >&2");
    let mut lines = HashSet::new();
    for _ in 0..3 {
        let event = supervisor.event();
        let output = &event["output"];
        assert_eq!(output["id"], 1, "{event}");
        lines.insert((output["stream"].to_string(), output["line"].to_string()));
    }
    let expected = [
        ("\"stdout\"", "\"out\""),
        ("\"stderr\"", "\"\""),
        ("\"stderr\"", "\"\u{fffd}rest\""),
    ];
    let expected = expected.map(|(stream, line)| (stream.to_owned(), line.to_owned()));
    assert_eq!(lines, HashSet::from(expected));
    let exit = supervisor.exit(1);
    assert_eq!(exit["status"], 0);
    supervisor.close();
}

fn an_exit_is_told_with_the_last_lines_of_stderr() {
    let mut supervisor = Supervisor::new();
    supervisor.shell(1, "echo no; echo one >&2; echo two >&2; exit 3");
    let exit = supervisor.exit(1);
    assert_eq!(
        exit,
        json!({"status": 3, "signal": null, "tail": "one | two"})
    );
    supervisor.shell(2, "kill -9 $$");
    let exit = supervisor.exit(2);
    assert_eq!(exit, json!({"status": null, "signal": 9, "tail": ""}));
    supervisor.close();
}

fn what_cannot_be_executed_is_refused() {
    let mut supervisor = Supervisor::new();
    supervisor.start(1, &["/no/such/program"]);
    let refused = |id, cause, detail| {
        let refusal = json!({"cause": cause, "detail": detail});
        json!({"refused": {"id": id, "refusal": refusal}})
    };
    let detail = "cannot execute \"/no/such/program\": No such file or directory (os error 2)";
    assert_eq!(
        supervisor.event(),
        refused(1, "its command was not found", detail)
    );
    let start = json!({"id": 2, "command": ["true"], "env": [], "directory": "/no/dir", "port": 1});
    supervisor.send(&json!({"start": start}));
    let cause = "the directory of its command does not exist";
    assert_eq!(
        supervisor.event(),
        refused(2, cause, "/no/dir is not a directory")
    );
    // It has not lost count of its children by that.
    supervisor.shell(3, "exit 4");
    assert_eq!(supervisor.exit(3)["status"], 4);
    supervisor.close();
}

fn processes_get_their_environment() {
    let mut supervisor = Supervisor::new();
    let script = "env; pwd; echo argument $0";
    let start = json!({
        "id": 1, "command": ["sh", "-c", script, "--port=$PORT"],
        "env": [["A", "b"], ["PORT", "1"]], "directory": "/proc", "port": 4321,
    });
    supervisor.send(&json!({"start": start}));
    supervisor.event();
    let mut lines = vec![];
    while lines
        .last()
        .is_none_or(|line: &String| !line.starts_with("argument"))
    {
        lines.push(supervisor.line());
    }
    for expected in [
        "A=b",
        "PORT=4321",
        "INHERITED=yes",
        "/proc",
        "argument --port=4321",
    ] {
        assert!(
            lines.iter().any(|line| line == expected),
            "{expected} in {lines:?}"
        );
    }
    let ours = ["TIDEGATE_", "NOTIFY_SOCKET"];
    let leaked = |line: &&String| ours.iter().any(|name| line.starts_with(name));
    assert_eq!(lines.iter().find(leaked), None);
    supervisor.exit(1);
    supervisor.close();
}

fn our_own_name_means_our_own_binary() {
    let mut supervisor = Supervisor::new();
    let start = json!({
        "id": 1, "command": ["tidegate", "serve"], "env": [["PATH", "/nowhere"]], "port": 0,
    });
    supervisor.send(&json!({"start": start}));
    assert!(supervisor.event()["started"]["pid"].is_number());
    assert_eq!(supervisor.line(), "listening");
    supervisor.close();
}

fn stop_asks_first() {
    let mut supervisor = Supervisor::new();
    let pid = supervisor.shell(
        1,
        "trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done",
    );
    assert_eq!(supervisor.line(), "ready");
    supervisor.stop(1, Duration::from_secs(1000));
    assert_eq!(supervisor.exit(1)["status"], 7);
    assert!(!is_alive(pid));
    supervisor.stop(1, Duration::ZERO);
    supervisor.close();
}

fn stop_kills_what_does_not_listen() {
    let mut supervisor = Supervisor::new();
    let script = "trap '' TERM; setsid sleep 1000 & echo ready; while :; do sleep 0.01; done";
    let pid = supervisor.shell(1, script);
    assert_eq!(supervisor.line(), "ready");
    supervisor.stop(1, Duration::from_millis(100));
    assert_eq!(supervisor.exit(1)["signal"], 9);
    assert!(!is_alive(pid));
    until("what it started is gone", || {
        descendants(supervisor.pid()).is_empty()
    });
    supervisor.close();
}

fn nothing_outlives_the_process_that_started_it() {
    let mut supervisor = Supervisor::new();
    let other = supervisor.shell(9, "exec sleep 1000");
    let script = "sleep 1000 & echo $!; setsid sleep 1000 & echo $!; \
                  (setsid sh -c 'echo $$; sleep 1000; true' &); sleep 1000; true";
    let leader = supervisor.shell(1, script);
    let left: Vec<i32> = (0..3).map(|_| supervisor.line().parse().unwrap()).collect();
    kill(leader, Signal::KILL);
    assert_eq!(supervisor.exit(1)["signal"], 9);
    for pid in left {
        until("it was killed", || !is_alive(pid));
    }
    until("only the other revision is left", || {
        descendants(supervisor.pid()) == HashSet::from([other])
    });
    supervisor.close();
}

fn everything_ends_with_the_socket() {
    let mut supervisor = Supervisor::new();
    let script = "trap '' TERM HUP INT; sleep 1000 & setsid sleep 1000 & \
                  (setsid sh -c 'env -i sleep 1000 & exec env -i sleep 1000' &) ; sleep 1000";
    for id in 0..3 {
        supervisor.start(id, &["sh", "-c", script]);
    }
    until("all of them run", || {
        descendants(supervisor.pid()).len() >= 18
    });
    supervisor.close();
}

fn signals_for_the_gateway_do_not_end_it() {
    let mut supervisor = Supervisor::new();
    supervisor.shell(1, "echo ready; sleep 1000");
    assert_eq!(supervisor.line(), "ready");
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        kill(supervisor.pid(), signal);
    }
    supervisor.shell(2, "kill -TERM $$; sleep 1000");
    let exit = supervisor.exit(2);
    assert_eq!(exit["signal"], 15, "signals are not ignored below it");
    supervisor.close();
}

fn a_chatty_process_waits_for_its_reader() {
    let mut supervisor = Supervisor::new();
    let pid = supervisor.shell(1, "exec yes");
    let mut asleep = 0;
    until("it waits for its output to be read", || {
        let waits = state(pid) == Some('S');
        asleep = if waits { asleep + 1 } else { 0 };
        asleep >= 100
    });
    let status = std::fs::read_to_string(format!("/proc/{}/status", supervisor.pid())).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let resident: u64 = resident
        .unwrap()
        .trim_end_matches("kB")
        .trim()
        .parse()
        .unwrap();
    assert!(resident < 64 * 1024, "{resident} KiB");
    supervisor.stop(1, Duration::from_secs(1));
    assert_eq!(supervisor.exit(1)["signal"], 15);
    supervisor.close();
}

fn nonsense_ends_it() {
    let mut supervisor = Supervisor::with_stderr(Stdio::null());
    let pid = supervisor.shell(1, "sleep 1000");
    supervisor.send(&json!({"dance": true}));
    assert!(supervisor.child.wait().unwrap().success());
    assert!(!is_alive(pid));
}

fn it_cannot_be_run_by_hand() {
    let mut child = Command::new(own_path())
        .arg("supervise")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(2));
}
