//! Sockets that somebody else made for us, and words to whoever started us, as systemd has them.

use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;
use tests::load::{Reconnect, assert_only_200};
use tests::{Backend, Launch, Load, PATIENCE, Raw, eventually, request};

use crate::{HELLO, hello};

/// How long the end may take: silent connections are given five seconds.
const SOON: Duration = Duration::from_secs(15);

/// Listeners at that address, served by several workers.
fn at(listener: &TcpListener) -> String {
    let address = listener.local_addr().unwrap();
    format!("gateway: {{ workers: 3, listeners: [ {{ address: '{address}' }} ] }}\n")
}

fn socket() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

#[tokio::test]
async fn given_socket_is_served_by_all_workers_and_nobody_waits_in_vain() {
    let backend = Backend::start("one");
    let socket = socket();
    // Before there is any gateway.
    let mut early = Raw::connect(socket.local_addr().unwrap()).await;
    early
        .send(format!("GET / HTTP/1.1\r\nHost: {HELLO}\r\n\r\n"))
        .await;
    let copy = socket.try_clone().unwrap();
    let yaml = at(&socket) + &hello(&backend);
    let launch = || Launch::new(&yaml).own_listeners();
    let mut gateway = launch().activated_by(copy).start().await;
    assert_eq!(gateway.public(), socket.local_addr().unwrap());
    assert_eq!(early.answer().await.status(), 200);
    let load = Load::start(gateway.public(), 20, Reconnect::Always, || {
        request("GET", HELLO, "/")
    });
    load.more(200).await;
    assert_only_200(&load.stop().await);

    // A restart refuses nobody: the socket is still there, and who comes waits in it.
    gateway.signal(Signal::TERM);
    gateway.exit(SOON).await.expect(0);
    let mut between = Raw::connect(socket.local_addr().unwrap()).await;
    between
        .send(format!("GET / HTTP/1.1\r\nHost: {HELLO}\r\n\r\n"))
        .await;
    let _gateway = launch().activated_by(socket).start().await;
    assert_eq!(between.answer().await.status(), 200);
}

#[tokio::test]
async fn given_socket_may_be_the_admin_address() {
    let socket = socket();
    let address = socket.local_addr().unwrap();
    let yaml = format!("gateway: {{ admin: '{address}' }}\n");
    let command = ["run", "-f", "tidegate.yaml", "--listen", "127.0.0.1:0"];
    let launch = Launch::new(&yaml).command(command);
    let gateway = launch.activated_by(socket).start().await;
    assert_eq!(gateway.admin(), address);
    gateway.ask("/readyz").await.expect(200);
}

#[tokio::test]
async fn given_socket_that_no_listener_is_for_is_an_error_that_names_it() {
    let socket = socket();
    let address = socket.local_addr().unwrap().to_string();
    let exit = Launch::new("routes: []\n").activated_by(socket).run().await;
    let exit = exit.expect(1);
    assert!(exit.stderr.contains(&address), "{}", exit.stderr);
    assert_eq!(exit.stdout, "");
}

#[tokio::test]
async fn given_descriptor_that_does_not_listen_is_an_error() {
    let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let exit = Launch::new("routes: []\n")
        .activated_by(datagrams)
        .run()
        .await;
    let exit = exit.expect(1);
    assert!(exit.stderr.contains("LISTEN_FDS"), "{}", exit.stderr);
}

#[tokio::test]
async fn given_socket_changes_hands_in_a_takeover() {
    let backend = Backend::start("one");
    let socket = socket();
    let yaml = at(&socket) + &hello(&backend);
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("takeover.sock");
    let launch = || {
        Launch::new(&yaml)
            .own_listeners()
            .environment("TIDEGATE_TAKEOVER", &path)
    };
    let mut old = launch().activated_by(socket).start().await;
    let load = Load::start(old.public(), 10, Reconnect::Always, || {
        request("GET", HELLO, "/")
    });
    for _ in 0..2 {
        let new = launch().start().await;
        load.more(100).await;
        old.exit(SOON).await.expect(0);
        old = new;
    }
    assert_only_200(&load.stop().await);
}

/// What was said since the last look, line by line.
fn heard(socket: &UnixDatagram) -> Vec<String> {
    let mut lines = Vec::new();
    let mut datagram = [0; 4096];
    while let Ok(length) = socket.recv(&mut datagram) {
        let text = String::from_utf8_lossy(&datagram[..length]);
        lines.extend(text.lines().map(str::to_owned));
    }
    lines
}

#[tokio::test]
async fn service_manager_hears_who_serves_and_who_stops() {
    let directory = TempDir::new().unwrap();
    let notify = directory.path().join("notify");
    let socket = UnixDatagram::bind(&notify).unwrap();
    socket.set_nonblocking(true).unwrap();
    let launch = || {
        Launch::new("routes: []\n")
            .environment("NOTIFY_SOCKET", &notify)
            .environment("TIDEGATE_TAKEOVER", directory.path().join("takeover.sock"))
    };
    let told = async |what: &[String]| {
        let mut lines = Vec::new();
        eventually(PATIENCE, "the service manager is told", async || {
            lines.extend(heard(&socket));
            what.iter().all(|what| lines.contains(what)).then_some(())
        })
        .await;
        lines
    };
    let ready = |pid: rustix::process::Pid| {
        let pid = pid.as_raw_nonzero();
        ["READY=1".to_owned(), format!("MAINPID={pid}")]
    };
    let mut old = launch().start().await;
    told(&ready(old.pid())).await;
    let mut new = launch().start().await;
    let lines = told(&ready(new.pid())).await;
    old.exit(SOON).await.expect(0);
    // The service goes on: only one of its processes ends.
    let lines = [lines, heard(&socket)].concat();
    assert!(!lines.contains(&"STOPPING=1".to_owned()), "{lines:?}");
    new.signal(Signal::TERM);
    new.exit(SOON).await.expect(0);
    told(&["STOPPING=1".to_owned()]).await;
}
