//! A whole gateway that panics, wherever this test says so, by listening to its log: what it goes on
//! with, and what it says. A program of its own: it is also the `supervise` that the gateway starts.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may fail"
)]

mod endpoint;
mod saboteur;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use self::endpoint::endpoint;
use self::saboteur::Saboteur;
use tidegate::observe::panics;
use tidegate::run::{Addresses, Options, RunError, SocketOptions, run};

const PATIENCE: Duration = Duration::from_secs(60);

/// What is logged while an endpoint is tried, while a change is taken in, while a connection is
/// accepted.
const IN_AN_EXCHANGE: &str = "connect failed";
const IN_THE_WRITER: &str = "`gateway` options have changed: they take effect at the next start";
const IN_ACCEPTING: &str = "connections are turned away";

/// Answers one request.
fn answer_once(mut stream: TcpStream) {
    let mut seen = [0; 4096];
    let _count = stream.read(&mut seen);
    let answer = b"HTTP/1.1 204 Done\r\nconnection: close\r\n\r\n";
    let _written = stream.write_all(answer);
}

/// All of the answer.
fn ask(address: SocketAddr, host: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Asks until the answer says so.
fn until(address: SocketAddr, path: &str, text: &str) {
    let begun = Instant::now();
    let mut answer = String::new();
    while !answer.contains(text) {
        assert!(begun.elapsed() < PATIENCE, "no {text:?} in {answer}");
        answer = ask(address, "admin", path);
    }
}

struct Gateway {
    directory: tempfile::TempDir,
    endpoint: SocketAddr,
    /// Where nobody listens.
    nowhere: SocketAddr,
}

impl Gateway {
    fn file(&self) -> PathBuf {
        self.directory.path().join("tidegate.yaml")
    }

    /// Writes the file; `limits` in flow style.
    fn says(&self, limits: &str) {
        let Gateway {
            endpoint, nowhere, ..
        } = self;
        let text = format!(
            "gateway: {{ workers: 1, admin: '127.0.0.1:0', accessLog: {{ mode: off }},\n\
             \x20 listeners: [ {{ address: '127.0.0.1:0' }} ], limits: {{ {limits} }} }}\n\
             routes:\n\
             \x20 - {{ name: well, traffic: [ {{ revision: well }} ] }}\n\
             \x20 - {{ name: ill, traffic: [ {{ revision: ill }} ] }}\n\
             revisions:\n\
             \x20 - {{ name: well, endpoints: ['{endpoint}'] }}\n\
             \x20 - {{ name: ill, concurrency: 1, endpoints: ['{nowhere}'] }}\n"
        );
        let draft = self.directory.path().join("draft");
        std::fs::write(&draft, text).unwrap();
        std::fs::rename(draft, self.file()).unwrap();
    }

    fn start(&self) -> (Addresses, JoinHandle<Result<(), RunError>>) {
        let (told, hears) = mpsc::sync_channel(1);
        let options = Options {
            files: vec![self.file()],
            overrides: config::settings::Overrides::default(),
            sockets: SocketOptions::default(),
            cluster: None,
            announce: Box::new(move |addresses| told.send(addresses.clone()).unwrap()),
            ready: Box::new(|| ()),
        };
        let running = std::thread::spawn(|| run(options));
        (hears.recv_timeout(PATIENCE).unwrap(), running)
    }
}

fn faults_cost_what_they_happen_in() {
    let nowhere = TcpListener::bind("127.0.0.1:0").unwrap();
    let gateway = Gateway {
        directory: tempfile::tempdir().unwrap(),
        endpoint: endpoint(answer_once),
        nowhere: nowhere.local_addr().unwrap(),
    };
    drop(nowhere);
    gateway.says("connections: 2");
    let (addresses, running) = gateway.start();
    let (here, admin) = (addresses.listeners[0].address, addresses.admin);
    let well = || ask(here, "well.default.example.com", "/");

    // In an exchange: that one is answered, and its slot is free.
    for reason in ["internal", "connect_failed"] {
        let answer = ask(here, "ill.default.example.com", "/");
        assert!(
            answer.contains(&format!("tidegate-reason: {reason}\r\n")),
            "{answer}"
        );
    }
    assert!(well().starts_with("HTTP/1.1 204 "));
    until(
        admin,
        "/metrics",
        "tidegate_panics_total{thread=\"worker\"} 1\n",
    );
    until(
        admin,
        "/metrics",
        "tidegate_inflight{namespace=\"default\",revision=\"ill\"} 0\n",
    );

    // In the writer: what is published stays, and who looks is told.
    gateway.says("connections: 3");
    until(admin, "/readyz", "its compiler has failed");
    assert!(well().starts_with("HTTP/1.1 204 "));
    until(
        admin,
        "/metrics",
        "tidegate_panics_total{thread=\"control\"} 1\n",
    );

    // In what lets clients in: a worker that serves nobody is not passed for one that lives.
    let idle: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(here).unwrap()).collect();
    let begun = Instant::now();
    while !running.is_finished() {
        assert!(
            begun.elapsed() < PATIENCE,
            "the lost worker was not noticed"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(idle);
    let ended = running.join().unwrap();
    assert!(
        matches!(&ended, Err(RunError::Worker(why)) if why.contains("panicked")),
        "{ended:?}"
    );
}

fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == "supervise") {
        return activator::scaler::local::supervise();
    }
    let saboteur = Saboteur::at([IN_AN_EXCHANGE, IN_THE_WRITER, IN_ACCEPTING]);
    tracing::subscriber::set_global_default(saboteur).unwrap();
    panics::watch();
    let test = std::thread::spawn(faults_cost_what_they_happen_in);
    match test.join() {
        Ok(()) => {
            println!("test faults_cost_what_they_happen_in ... ok");
            ExitCode::SUCCESS
        }
        Err(why) => {
            let text = why.downcast_ref::<String>().cloned();
            let text = text.or_else(|| why.downcast_ref::<&str>().map(ToString::to_string));
            println!(
                "test faults_cost_what_they_happen_in ... FAILED: {}",
                text.unwrap_or_default()
            );
            ExitCode::FAILURE
        }
    }
}
