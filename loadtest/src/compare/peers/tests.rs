//! What arrives behind each proxy that is installed.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use rustls::{ClientConfig, ClientConnection, NamedGroup};

use super::*;
use crate::compare::clients::{Answer, Client, Http2Client, Visit, Way};
use crate::compare::ports::Ports;
use crate::compare::speech::{Certificate, Speech, Wire};

/// How long a proxy may take until it forwards.
const PATIENCE: Duration = Duration::from_secs(60);

/// Ended when the test ends, however it ends, with all it has started: nginx's workers outlive a
/// killed master.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        // A group that has gone is what is wanted.
        let _gone = kill_process_group(Pid::from_child(&self.0), Signal::KILL);
        drop(self.0.wait());
    }
}

fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}

/// An upstream that passes on the heads it gets.
fn upstream() -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let (heads, receiver): (Sender<String>, _) = channel();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let Some(head) = read_head(&mut stream) else {
                continue;
            };
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
            if heads.send(head).is_err() || stream.write_all(answer).is_err() {
                return;
            }
        }
    });
    (address, receiver)
}

/// The status of an answer, once there is one.
fn ask(way: &Way, host: &str) -> Option<u16> {
    async fn visit<V: Visit>(way: &Way, host: &str) -> anyhow::Result<Answer> {
        V::reach(way).await?.ask(host, "/").await
    }
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().unwrap();
    let answer = runtime.block_on(async {
        match way.wire().http2 {
            true => visit::<Http2Client>(way, host).await,
            false => visit::<Client>(way, host).await,
        }
    });
    Some(answer.ok()?.status)
}

/// The key exchange that a handshake of TLS 1.3 ends in.
fn agree(listen: SocketAddr, config: Arc<ClientConfig>) -> NamedGroup {
    let mut stream = TcpStream::connect(listen).unwrap();
    let mut client = ClientConnection::new(config, HOST.try_into().unwrap()).unwrap();
    while client.is_handshaking() {
        client.complete_io(&mut stream).unwrap();
    }
    client.negotiated_key_exchange_group().unwrap().name()
}

/// The head that arrives behind a proxy when a client sends none of the fields; over TLS also the
/// key exchange.
fn behind(found: &Found, wire: Wire, host: &str) -> (String, Option<NamedGroup>) {
    let directory = tempfile::tempdir().unwrap();
    let (address, heads) = upstream();
    let ports = Ports::take().unwrap();
    let site = Site {
        listen: ports.free_address().unwrap(),
        admin: ports.free_address().unwrap(),
        upstreams: [address; 2],
        workers: 1,
        directory: directory.path().to_owned(),
        limit: 10,
        speech: Speech {
            clients: wire,
            upstream_http2: false,
        },
        certificate: Certificate::write(directory.path().join("certificates")).unwrap(),
    };
    let way = Way::new(site.listen, wire, &site.certificate).unwrap();
    let CommandLine { program, args, env } = found.set_up(&site).unwrap().command;
    let child = Command::new(program)
        .args(args)
        .envs(env)
        .current_dir(directory.path())
        .process_group(0)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut started = Started(child);
    let patience = Instant::now() + PATIENCE;
    while ask(&way, host) != Some(200) {
        let name = found.peer.name;
        assert!(started.0.try_wait().unwrap().is_none(), "{name} has ended");
        assert!(Instant::now() < patience, "{name} does not forward");
        thread::park_timeout(Duration::from_millis(5));
    }
    let exchange = way.tls().map(|config| agree(site.listen, config));
    (heads.recv_timeout(PATIENCE).unwrap(), exchange)
}

/// Those of the fields that are in a head, each with its values.
fn seen(head: &str) -> BTreeMap<&'static str, Vec<&str>> {
    let mut seen: BTreeMap<&'static str, Vec<&str>> = BTreeMap::new();
    for (name, value) in head.lines().filter_map(|line| line.split_once(": ")) {
        let known = fields::ALL
            .iter()
            .find(|known| known.eq_ignore_ascii_case(name));
        if let Some(known) = known {
            seen.entry(known).or_default().push(value);
        }
    }
    seen
}

/// Those that are programs of their own and are here. Tidegate: `$TIDEGATE_BIN`, or what was built
/// beside this.
fn here() -> Vec<Found> {
    let beside = || {
        Some(
            std::env::current_exe()
                .ok()?
                .parent()?
                .with_file_name("tidegate"),
        )
    };
    let tidegate = std::env::var_os("TIDEGATE_BIN").map_or_else(beside, |path| Some(path.into()));
    let external = PEERS.into_iter().filter(|peer| peer.program.is_some());
    let found = external.filter_map(|peer| {
        let given = tidegate.as_deref().filter(|_| peer.name == TIDEGATE);
        let found = peer.find(given);
        if let Err(error) = &found {
            eprintln!("{} is not looked at: {error:#}", peer.name);
        }
        found.ok()
    });
    found.collect()
}

#[test]
fn each_proxy_adds_the_fields_it_is_said_to_add() {
    check_fields(Wire::HTTP1);
}

#[test]
fn each_proxy_adds_the_same_fields_for_clients_of_http2() {
    check_fields(Wire::H2C);
}

#[test]
fn each_proxy_adds_the_same_fields_and_makes_the_same_handshake_for_clients_of_tls() {
    check_fields(Wire::HTTP1_TLS);
}

#[test]
fn each_proxy_adds_the_same_fields_for_clients_of_http2_over_tls() {
    check_fields(Wire::H2);
}

fn check_fields(wire: Wire) {
    let speech = Speech {
        clients: wire,
        upstream_http2: false,
    };
    let able = here().into_iter();
    for found in able.filter(|found| found.peer.lacks(speech).is_none()) {
        let name = found.peer.name;
        // Not a scheme's own, which HAProxy takes away.
        let host = format!("{HOST}:8080");
        let (head, exchange) = behind(&found, wire, &host);
        assert_eq!(exchange, wire.tls.then_some(NamedGroup::X25519), "{name}");
        let seen = seen(&head);
        let mut said = found.peer.fields.to_vec();
        said.sort_unstable();
        let names: Vec<&str> = seen.keys().copied().collect();
        assert_eq!(names, said, "{name}: {head}");
        for (field, values) in seen {
            let [value] = &*values else {
                panic!("{name} sends {field} more than once: {head}");
            };
            match field {
                // Of loopback Envoy makes an address of the machine.
                "X-Forwarded-For" => assert!(value.parse::<IpAddr>().is_ok(), "{name}: {value}"),
                "X-Forwarded-Proto" => assert_eq!(*value, wire.scheme(), "{name}"),
                "X-Forwarded-Host" => assert_eq!(*value, host, "{name}"),
                _ => assert!(value.len() >= 32, "{name} names a request {value}"),
            }
        }
    }
}
