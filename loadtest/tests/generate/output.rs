//! Where the report goes.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::process::Stdio;
use std::time::Duration;

use loadtest::report::Report;
use rustix::process::{Pid, Signal, kill_process};

use super::support::{Server, command, ran};

#[test]
fn people_get_text_and_programs_get_files() {
    let directory = tempfile::tempdir().unwrap();
    let (json, plot) = (
        directory.path().join("a.json"),
        directory.path().join("a.svg"),
    );
    let server = Server::hello();
    let output = command(&server.url(), "-n 200 -c 2")
        .arg("--json")
        .arg(&json)
        .arg("--plot")
        .arg(&plot)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for part in ["200 sent, 200 answered", "200 × 200", "p99", "answers/s"] {
        assert!(text.contains(part), "{text}");
    }
    let report: Report = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
    assert_eq!(report.answers, 200);
    let svg = fs::read_to_string(plot).unwrap();
    assert!(svg.contains("<svg") && svg.contains("polyline"), "{svg}");
}

#[test]
fn an_interrupted_run_ends_with_a_report() {
    let server = Server::hello();
    let child = command(&server.url(), "-d 1h -c 2 --json -")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while server.count() < 10 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::INT).unwrap();
    let ran = ran(&child.wait_with_output().unwrap());
    assert!(ran.success, "{}", ran.stderr);
    assert!(ran.report.answers >= 10);
    assert_eq!(ran.report.errors.total(), 0);
}

#[test]
fn a_run_interrupted_twice_does_not_wait_for_answers() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let mut child = command(&url, "-d 1h -c 1 --timeout 1h")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    // The request that never has an answer.
    let (mut stream, _) = listener.accept().unwrap();
    assert!(stream.read(&mut [0; 16]).unwrap() > 0);
    let pid = Pid::from_child(&child);
    for words in ["waiting for answers", "again"] {
        kill_process(pid, Signal::INT).unwrap();
        assert!(said.any(|line| line.unwrap().contains(words)));
    }
    assert!(!child.wait().unwrap().success());
}
