//! A new process takes the place of the one that runs: no connection is refused, no request lost
//!

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use rustix::process::Signal;
use rustls::HandshakeKind;
use tempfile::TempDir;
use tests::client::with;
use tests::http2::Http2;
use tests::load::{Reconnect, Tally, assert_only_200};
use tests::tls::{Authority, connect};
use tests::websocket::WebSocket;
use tests::{
    Backend, Client, Gateway, Launch, Load, PATIENCE, Raw, Wire, eventually, request, sized, within,
};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval_at};

use crate::tls::listener;
use crate::{COLD, HELLO, Switch, cold, hello};

/// How long the end may take: silent connections are given five seconds.
const SOON: Duration = Duration::from_secs(15);

/// Where processes meet.
struct Meeting(TempDir);

impl Meeting {
    fn new() -> Meeting {
        Meeting(TempDir::new().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("takeover.sock")
    }

    /// A process with that file, on free ports or on those of the one before.
    fn launch(&self, yaml: &str) -> Launch {
        Launch::new(yaml).environment("TIDEGATE_TAKEOVER", self.path())
    }

    async fn start(&self, yaml: &str) -> Gateway {
        self.launch(yaml).start().await
    }

    /// Another process, the same addresses; the old one is left to end.
    async fn next(&self, old: &Gateway, yaml: &str) -> Gateway {
        let new = self.start(yaml).await;
        assert_eq!(new.listeners, old.listeners);
        assert_eq!(new.admin(), old.admin());
        new
    }
}

async fn arrived(backend: &Backend, count: u64) {
    eventually(PATIENCE, "requests arrive", async || {
        (backend.running() == count).then_some(())
    })
    .await;
}

/// Clients of HTTP/2 that send and send, on a new connection when they are told to leave theirs.
struct Streams {
    stop: Arc<AtomicBool>,
    clients: JoinSet<Tally>,
}

impl Streams {
    fn start(gateway: SocketAddr, clients: usize) -> Streams {
        let stop = Arc::new(AtomicBool::new(false));
        let work = (0..clients).map(|_| streams(gateway, stop.clone()));
        let clients = work.collect();
        Streams { stop, clients }
    }

    async fn stop(self) -> Tally {
        self.stop.store(true, Ordering::SeqCst);
        let mut sum = BTreeMap::new();
        for (what, count) in within("streams", self.clients.join_all())
            .await
            .into_iter()
            .flatten()
        {
            *sum.entry(what).or_default() += count;
        }
        sum
    }
}

async fn streams(gateway: SocketAddr, stop: Arc<AtomicBool>) -> Tally {
    let mut tally = Tally::new();
    while !stop.load(Ordering::SeqCst) {
        let mut client = Http2::connect(gateway).await;
        loop {
            let mut calls = Vec::new();
            for number in 0..3 {
                let path = format!("/?sleep={number}");
                match client.try_open(request("GET", HELLO, &path), true).await {
                    Ok(call) => calls.push(call),
                    Err(_) => break,
                }
            }
            if calls.is_empty() || stop.load(Ordering::SeqCst) {
                break;
            }
            for mut call in calls {
                let outcome = match call.try_head().await {
                    Ok(answer) => answer.status().as_u16().to_string(),
                    // Beyond the last stream that was taken: nothing was done, and clients know.
                    Err(error) if error.is_remote() && error.is_go_away() => continue,
                    Err(error) => format!("lost: {error}"),
                };
                *tally.entry(outcome).or_default() += 1;
            }
        }
    }
    tally
}

#[tokio::test]
async fn nothing_is_lost_across_takeovers_under_load() {
    let _alone = tests::heavy().await;
    let backend = Backend::start("one");
    let meeting = Meeting::new();
    let with_workers = |workers: usize| format!("gateway: {{ workers: {workers} }}\n");
    let mut running = meeting.start(&(with_workers(2) + &hello(&backend))).await;
    let address = running.public();
    let kept = Load::start(address, sized(10, 50), Reconnect::Always, || {
        request("GET", HELLO, "/?sleep=1")
    });
    let fresh = Load::start(address, sized(10, 50), Reconnect::Always, || {
        with(request("GET", HELLO, "/"), "connection", "close")
    });
    let streams = Streams::start(address, sized(4, 20));
    for round in 0..sized(5, 20) {
        let mut socket = WebSocket::open(address, HELLO, "/").await;
        socket.echo("before").await;
        let yaml = with_workers([1, 3, 2][round % 3]) + &hello(&backend);
        let new = meeting.next(&running, &yaml).await;
        kept.more(50).await;
        fresh.more(50).await;
        // Whatever the new one does, this one is finished where it began.
        socket.echo("after").await;
        assert!(running.lives());
        socket.close().await;
        let exit = running.exit(SOON).await.expect(0);
        assert!(!exit.stderr.contains("WARN"), "{}", exit.stderr);
        running = new;
    }
    assert_only_200(&kept.stop().await);
    assert_only_200(&fresh.stop().await);
    assert_only_200(&streams.stop().await);
}

#[tokio::test]
async fn rolling_restart_at_a_steady_rate_fails_nobody() {
    let _alone = tests::heavy().await;
    let rate: u32 = sized(300, 2_000);
    let backend = Backend::start("one");
    let meeting = Meeting::new();
    let mut running = meeting.start(&hello(&backend)).await;
    let address = running.public();
    let stop = Arc::new(AtomicBool::new(false));
    let sending = tokio::spawn({
        let stop = stop.clone();
        async move {
            let mut requests = JoinSet::new();
            let mut ticks = interval_at(Instant::now(), Duration::from_secs(1) / rate);
            while !stop.load(Ordering::SeqCst) {
                ticks.tick().await;
                requests.spawn(async move {
                    let mut client = Client::try_connect(address).await?;
                    let connected = Instant::now();
                    let answer = client.try_send(request("GET", HELLO, "/")).await;
                    let answer = answer.with_context(|| format!("{:?}", connected.elapsed()))?;
                    Ok(answer.status)
                });
            }
            requests.join_all().await
        }
    });
    for _ in 0..sized(2, 5) {
        let before = backend.total();
        let new = meeting.next(&running, &hello(&backend)).await;
        running.exit(SOON).await.expect(0);
        running = new;
        eventually(PATIENCE, "requests go on", async || {
            (backend.total() > before + 100).then_some(())
        })
        .await;
    }
    stop.store(true, Ordering::SeqCst);
    let answers: Vec<anyhow::Result<u16>> = sending.await.unwrap();
    let mut tally = Tally::new();
    for answer in answers {
        let outcome = answer.map_or_else(
            |error| format!("lost: {error:#}"),
            |status| status.to_string(),
        );
        *tally.entry(outcome).or_default() += 1;
    }
    assert_only_200(&tally);
}

#[tokio::test]
async fn what_runs_and_what_waits_is_finished_by_the_old_process() {
    let backend = Backend::start("one");
    let switch = Switch::new();
    let meeting = Meeting::new();
    let yaml = cold(&[("GATE", &switch.path())]);
    let mut old = meeting.start(&yaml).await;
    let mut held = old.raw().await;
    held.send(format!("GET / HTTP/1.1\r\nHost: {COLD}\r\n\r\n"))
        .await;
    old.until_waiting("cold-1", 1).await;
    let mut idle = old.raw().await;
    idle.send(format!("GET / HTTP/1.1\r\nHost: {HELLO}\r\n\r\n"))
        .await;
    assert_eq!(idle.answer().await.status(), 404);

    let new = meeting.next(&old, &hello(&backend)).await;
    assert_eq!(new.get(HELLO, "/").await.expect(200).backend(), "one");
    assert_eq!(idle.rest().await, b"");
    assert!(old.lives());
    switch.turn_on();
    let answer = held.answer().await;
    assert_eq!(
        (answer.status(), answer.field("connection")),
        (200, Some("close"))
    );
    old.exit(SOON).await.expect(0);
    assert_eq!(new.get(HELLO, "/").await.status, 200);
}

#[tokio::test]
async fn connections_made_while_sockets_change_hands_are_served() {
    let backend = Backend::start("one");
    let meeting = Meeting::new();
    let mut old = meeting.start(&hello(&backend)).await;
    let new = meeting.launch(&hello(&backend)).spawn();
    let mut clients = VecDeque::new();
    while !new.is_ready() {
        let mut client = Raw::connect(old.public()).await;
        client
            .send(format!("GET / HTTP/1.1\r\nHost: {HELLO}\r\n\r\n"))
            .await;
        clients.push_back(client);
        // However long it takes: there are only so many ports and descriptors.
        if clients.len() > 500
            && let Some(mut first) = clients.pop_front()
        {
            assert_eq!(first.answer().await.status(), 200);
        }
        tokio::task::yield_now().await;
    }
    for client in &mut clients {
        assert_eq!(client.answer().await.status(), 200);
    }
    drop(clients);
    old.exit(SOON).await.expect(0);
    let _new = new.ready().await;
}

#[tokio::test]
async fn admin_address_changes_hands_and_counts_anew() {
    let backend = Backend::start("one");
    let meeting = Meeting::new();
    let mut old = meeting.start(&hello(&backend)).await;
    old.get(HELLO, "/").await.expect(200);
    let mut scraper = Client::connect(old.admin()).await;
    scraper.get("admin", "/readyz").await.expect(200);
    let mut socket = WebSocket::open(old.public(), HELLO, "/").await;

    let new = meeting.next(&old, &hello(&backend)).await;
    // Nobody is left with the old one's numbers.
    eventually(PATIENCE, "the connection is closed", async || {
        scraper.is_closed().then_some(())
    })
    .await;
    assert!(old.lives());
    for _ in 0..20 {
        new.ask("/readyz").await.expect(200);
    }
    let counted = new.metric("tidegate_requests_total", &[]).await;
    assert_eq!(counted, 0.0);
    socket.echo("still here").await;
    socket.close().await;
    old.exit(SOON).await.expect(0);
}

#[tokio::test]
async fn successor_that_cannot_run_changes_nothing() {
    let backend = Backend::start("one");
    let meeting = Meeting::new();
    let old = meeting.start(&hello(&backend)).await;
    let busy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = busy.local_addr().unwrap();
    let elsewhere = format!("gateway: {{ listeners: [ {{ address: '{taken}' }} ] }}\n");
    let load = Load::start(old.public(), 4, Reconnect::Never, || {
        request("GET", HELLO, "/")
    });
    for (launch, told) in [
        (meeting.launch("routes: nonsense\n"), "1 problem"),
        (
            meeting.launch(&elsewhere).own_listeners(),
            "cannot listen on",
        ),
    ] {
        let exit = launch.run().await.expect(1);
        assert!(exit.stderr.contains(told), "{}", exit.stderr);
        assert_eq!(exit.stdout, "");
        load.more(50).await;
    }
    drop(busy);
    // Not even their connections were closed.
    assert_only_200(&load.stop().await);
    let mut old = old;
    let new = meeting.next(&old, &hello(&backend)).await;
    old.exit(SOON).await.expect(0);
    assert_eq!(new.get(HELLO, "/").await.status, 200);
}

/// As [`cold`], with a process that is always to run.
fn warm(environment: &[(&str, &str)]) -> String {
    cold(environment) + "    scale: { min: 1 }\n"
}

#[tokio::test]
async fn successor_killed_half_way_changes_nothing() {
    let never = Switch::new();
    let meeting = Meeting::new();
    let mut old = meeting.start(&warm(&[])).await;
    old.get(COLD, "/").await.expect(200);
    let load = Load::start(old.public(), 4, Reconnect::Never, || {
        request("GET", COLD, "/")
    });
    for round in 0..3 {
        // It has the sockets, and waits for its process.
        let yaml = warm(&[("GATE", &never.path())]);
        let mut half = meeting.launch(&yaml).spawn();
        half.until_logged("taking over").await;
        load.more(50).await;
        half.signal(Signal::KILL);
        half.exit(SOON).await;
        eventually(PATIENCE, "the old one has given it up", async || {
            let told = old.stderr().matches("no takeover").count();
            (told > round).then_some(())
        })
        .await;
        load.more(50).await;
    }
    assert_only_200(&load.stop().await);
    let new = meeting.next(&old, &warm(&[])).await;
    old.exit(SOON).await.expect(0);
    new.get(COLD, "/").await.expect(200);
}

#[tokio::test]
async fn processes_of_the_new_one_run_before_the_old_one_lets_go() {
    let switch = Switch::new();
    let meeting = Meeting::new();
    let mut old = meeting.start(&warm(&[])).await;
    eventually(PATIENCE, "its process runs", async || {
        (old.endpoints("cold-1", "ready").await == 1).then_some(())
    })
    .await;
    let pids = TempDir::new().unwrap();
    let directory = pids.path().to_str().unwrap();
    let yaml = warm(&[("GATE", &switch.path()), ("PIDS", directory)]);
    let new = meeting.launch(&yaml).spawn();
    eventually(PATIENCE, "the new one's process has begun", async || {
        (tests::process::living(pids.path()).len() == 1).then_some(())
    })
    .await;
    assert!(!new.is_ready());
    old.get(COLD, "/").await.expect(200);
    switch.turn_on();
    let new = new.ready().await;
    assert_eq!(new.endpoints("cold-1", "ready").await, 1);
    new.get(COLD, "/").await.expect(200);
    old.exit(SOON).await.expect(0);
    assert_eq!(tests::process::living(pids.path()).len(), 1);
}

fn listeners(addresses: &[&str]) -> String {
    let listeners = addresses.iter();
    let listeners: Vec<_> = listeners
        .map(|at| format!("{{ address: '{at}:0' }}"))
        .collect();
    let listeners = listeners.join(", ");
    format!("gateway: {{ workers: 2, listeners: [ {listeners} ] }}\n")
}

#[tokio::test]
async fn listeners_may_come_and_go() {
    let backend = Backend::start("one");
    let meeting = Meeting::new();
    let (kept, gone, come) = ("127.0.0.1", "127.0.0.2", "127.0.0.3");
    let yaml = listeners(&[gone, kept]) + &hello(&backend);
    let mut old = meeting.launch(&yaml).own_listeners().start().await;
    let (gone, kept_at) = (old.listeners[0].0, old.listeners[1].0);
    let mut socket = WebSocket::open(gone, HELLO, "/").await;

    let yaml = listeners(&[kept, come]) + &hello(&backend);
    let new = meeting.launch(&yaml).own_listeners().spawn();
    // Whoever comes to the address until it closes is served. The kernel resets what it has completed
    // between the last look and the closing: each of the two sockets may meet one.
    let mut reset = 0;
    while let Ok(mut client) = Client::try_connect(gone).await {
        match client.try_send(request("GET", HELLO, "/")).await {
            Ok(answer) => assert_eq!(answer.status, 200),
            Err(_) => reset += 1,
        }
    }
    assert!(reset <= 2, "{reset}");
    let new = new.ready().await;
    assert_eq!(new.listeners[0].0, kept_at);
    for (address, _) in &new.listeners {
        let mut client = Client::connect(*address).await;
        assert_eq!(client.get(HELLO, "/").await.status, 200);
    }
    socket.echo("after").await;
    socket.close().await;
    old.exit(SOON).await.expect(0);
}

#[tokio::test]
async fn two_that_come_at_once_take_over_one_after_the_other() {
    let backend = Backend::start("one");
    let meeting = Meeting::new();
    let mut old = meeting.start(&hello(&backend)).await;
    let load = Load::start(old.public(), 4, Reconnect::Always, || {
        request("GET", HELLO, "/")
    });
    let spawn = || meeting.launch(&hello(&backend)).spawn();
    let mut new = [spawn(), spawn()];
    eventually(PATIENCE, "both have served", async || {
        new.iter().all(Gateway::is_ready).then_some(())
    })
    .await;
    old.exit(SOON).await.expect(0);
    let ended = eventually(PATIENCE, "one of them has ended", async || {
        new.iter_mut().position(|new| !new.lives())
    })
    .await;
    new[ended].exit(SOON).await.expect(0);
    load.more(50).await;
    assert_only_200(&load.stop().await);
    assert!(new[1 - ended].lives());
}

#[tokio::test]
async fn socket_that_a_crash_left_is_no_obstacle() {
    let backend = Backend::start("one");
    let meeting = Meeting::new();
    let mut old = meeting.start(&hello(&backend)).await;
    old.signal(Signal::KILL);
    old.exit(SOON).await;
    assert!(meeting.path().exists());
    let mut new = meeting.start(&hello(&backend)).await;
    assert_eq!(new.get(HELLO, "/").await.status, 200);
    let mut newer = meeting.next(&new, &hello(&backend)).await;
    new.exit(SOON).await.expect(0);
    let mut newest = meeting.next(&newer, &hello(&backend)).await;
    let from = format!("taking over process={}", newer.pid().as_raw_nonzero());
    newest.until_logged(&from).await;
    newer.exit(SOON).await.expect(0);
    newest.signal(Signal::TERM);
    newest.exit(SOON).await.expect(0);
    assert!(!meeting.path().exists());
}

#[tokio::test]
async fn who_comes_while_the_other_shuts_down_waits_for_its_addresses() {
    let backend = Backend::start("one");
    let meeting = Meeting::new();
    let mut old = meeting.start(&hello(&backend)).await;
    let socket = WebSocket::open(old.public(), HELLO, "/").await;
    let (public, admin) = (old.public().to_string(), old.admin().to_string());
    old.signal(Signal::TERM);
    eventually(PATIENCE, "it hands nothing over any more", async || {
        (!meeting.path().exists()).then_some(())
    })
    .await;
    let launch = meeting.launch(&hello(&backend));
    let line = [
        "run",
        "-f",
        "tidegate.yaml",
        "--listen",
        &public,
        "--admin",
        &admin,
    ];
    let new = launch.command(line).spawn();
    new.until_logged("waiting for whoever uses this address")
        .await;
    socket.close().await;
    old.exit(SOON).await.expect(0);
    let new = new.ready().await;
    assert_eq!(new.get(HELLO, "/").await.status, 200);
    assert!(meeting.path().exists());
}

#[tokio::test]
async fn place_that_is_no_socket_is_left_alone() {
    let meeting = Meeting::new();
    std::fs::write(meeting.path(), "precious").unwrap();
    let exit = meeting.launch("routes: []\n").run().await.expect(1);
    assert!(exit.stderr.contains("takeover.sock"), "{}", exit.stderr);
    assert_eq!(std::fs::read(meeting.path()).unwrap(), b"precious");
}

#[tokio::test]
async fn first_signal_after_a_takeover_lets_the_drain_go_on() {
    let backend = Backend::start("one");
    let meeting = Meeting::new();
    let mut old = meeting.start(&hello(&backend)).await;
    let mut busy = old.raw().await;
    busy.send(format!("GET /?hold HTTP/1.1\r\nHost: {HELLO}\r\n\r\n"))
        .await;
    arrived(&backend, 1).await;
    let _new = meeting.next(&old, &hello(&backend)).await;
    old.until_logged("draining").await;
    // Service managers stop all processes of a unit together.
    old.signal(Signal::TERM);
    backend.open_gate();
    assert_eq!(busy.answer().await.status(), 200);
    old.exit(SOON).await.expect(0);
}

#[tokio::test]
async fn process_that_never_ends_is_cut_when_the_drain_is_over() {
    let backend = Backend::start("one");
    let meeting = Meeting::new();
    let drain = "gateway: { drain: { wait: 1h, timeout: 500ms } }\n".to_owned();
    let mut old = meeting.start(&(drain + &hello(&backend))).await;
    let mut socket = WebSocket::open(old.public(), HELLO, "/").await;
    socket.echo("a").await;
    // `wait` is for those who must look elsewhere: here nobody must.
    let _new = meeting.next(&old, &hello(&backend)).await;
    socket.gone().await;
    old.exit(SOON).await.expect(0);
}

#[tokio::test]
async fn sessions_outlive_a_takeover_where_ticket_keys_are_shared() {
    let backend = Backend::start("one");
    let authority = Authority::new();
    let own = authority.issue(&[HELLO]);
    let meeting = Meeting::new();
    let launch = |keys: &str| {
        let yaml = listener(&["own"], keys) + &hello(&backend);
        let launch = meeting.launch(&yaml).own_listeners();
        let key = "forty-eight bytes that nobody else can ever know";
        launch.certificate("own", &own).file("ticket.key", key)
    };
    let client = Arc::new(authority.client(&["http/1.1"]));
    let visit = async |gateway: &Gateway| {
        let stream = connect(&client, gateway.public(), HELLO).await.unwrap();
        let kind = stream.get_ref().1.handshake_kind().unwrap();
        let mut client = Client::over(Wire::Http1, stream).await.unwrap();
        client.get(HELLO, "/").await.expect(200);
        kind
    };
    let shared = ", ticketKeys: [ticket.key]";
    let mut old = launch(shared).start().await;
    assert_ne!(visit(&old).await, HandshakeKind::Resumed);
    for (keys, resumed) in [(shared, true), ("", false)] {
        let new = launch(keys).start().await;
        old.exit(SOON).await.expect(0);
        assert_eq!(
            visit(&new).await == HandshakeKind::Resumed,
            resumed,
            "{keys}"
        );
        old = new;
    }
}
