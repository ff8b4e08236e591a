//! How long a client may take to say what it wants, and how long its connection lives: with the
//! limits as they are by default.

use std::time::Duration;

use h2::Reason;

use super::streams::{Caller, asks, between, ok, status};
use super::*;
use crate::live::Credentials;
use crate::serve::accept::Door;
use crate::serve::arrival::welcome;
use crate::serve::drain::Phase;
use crate::serve::tls::server::Acceptor;
use crate::serve::tls::testing::{Authority, Files};

const PREFACE: &str = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Answers one request on the endpoint's end of a connection.
async fn answer(endpoint: &mut DuplexStream) {
    read_head(endpoint).await;
    say(endpoint, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
}

/// The head of an answer that ends with `ok`.
async fn answered(client: &mut (impl AsyncReadExt + Unpin)) -> String {
    let head = read_until(client, "ok").await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    head
}

/// Waits until so long after `since`.
async fn at(since: Instant, seconds_since: u64) {
    tokio::time::sleep_until(since + seconds(seconds_since)).await;
}

#[test]
fn half_a_preface_is_answered_as_late_ten_seconds_after_the_connection() {
    run(async {
        for (begun, length) in [(0, 1), (0, 23), (4, 3), (9, 14)] {
            let world = World::new("", "");
            let mut client = world.client();
            let start = Instant::now();
            at(start, begun).await;
            say(&mut client, &PREFACE[..length]).await;
            refusal(&mut client, 408, "header_timeout").await;
            took(start, seconds(10));
        }
    });
}

#[test]
fn a_preface_that_drips_has_no_longer_than_one_that_stops() {
    run(async {
        let world = World::new("", "");
        let mut client = world.client();
        let start = Instant::now();
        for (second, byte) in PREFACE.bytes().take(10).enumerate() {
            at(start, second as u64).await;
            say(&mut client, [byte]).await;
        }
        refusal(&mut client, 408, "header_timeout").await;
        took(start, seconds(10));
    });
}

#[test]
fn a_preface_that_comes_in_time_begins_http2() {
    run(async {
        let world = World::new("", "");
        let mut client = world.client();
        tokio::time::sleep(seconds(5)).await;
        say(&mut client, &PREFACE[..10]).await;
        tokio::time::sleep(Duration::from_millis(4900)).await;
        say(&mut client, &PREFACE[10..]).await;
        // Our settings.
        let mut header = [0; 9];
        client.read_exact(&mut header).await.unwrap();
        assert_eq!(header[3], 4);
    });
}

#[test]
fn a_head_has_ten_seconds_from_its_first_byte_whatever_it_looked_like_at_first() {
    run(async {
        for begin in ["G", "P", "PR"] {
            let world = World::new("", "");
            let mut client = world.client();
            let start = Instant::now();
            at(start, 9).await;
            say(&mut client, begin).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
            say(&mut client, "OPFIND / HTTP/1.1\r\nx: ").await;
            // Dripping does not extend it.
            for second in 10..19 {
                at(start, second).await;
                say(&mut client, "a").await;
            }
            refusal(&mut client, 408, "header_timeout").await;
            took(start, seconds(19));
        }
    });
}

#[test]
fn a_head_that_is_whole_just_in_time_is_served() {
    run(async {
        let world = World::new("", "");
        let (mut client, mut endpoint) = (world.client(), world.endpoint());
        for _ in 0..2 {
            tokio::time::sleep(Duration::from_millis(9900)).await;
            say(&mut client, &GET[..10]).await;
            tokio::time::sleep(Duration::from_millis(9900)).await;
            say(&mut client, &GET[10..]).await;
            answer(&mut endpoint).await;
            answered(&mut client).await;
        }
    });
}

#[test]
fn the_next_head_has_as_long_after_an_idle_time_of_its_own() {
    run(async {
        let world = World::new("", "");
        let (mut client, mut endpoint) = (world.client(), world.endpoint());
        say(&mut client, GET).await;
        answer(&mut endpoint).await;
        answered(&mut client).await;
        tokio::time::sleep(seconds(74)).await;
        let start = Instant::now();
        for byte in &GET[..9] {
            say(&mut client, [*byte]).await;
            tokio::time::sleep(seconds(1)).await;
        }
        refusal(&mut client, 408, "header_timeout").await;
        took(start, seconds(10));
    });
}

#[test]
fn a_handshake_that_drips_ends_after_ten_seconds() {
    run(async {
        let files = Files::new();
        let pem = Authority::new().issue(&["localhost"]);
        files.write("a.pem", &pem.cert);
        files.write("a.key", &pem.key);
        let path = files.path().display();
        let world = World::of(
            &format!(
                "listeners: [{{ address: '127.0.0.1:1', tls: {{ certificates: [ \
                 {{ cert: '{path}/a.pem', key: '{path}/a.key' }} ] }} }}]"
            ),
            NOWHERE.parse().unwrap(),
            "",
        );
        let shared = &world.worker.shared;
        let tls = shared.settings.listeners[0].tls.as_ref().unwrap();
        let acceptor = Acceptor::read(tls, None, Default::default()).unwrap();
        let credentials = Credentials {
            acceptors: vec![Some(acceptor)],
            ..Credentials::default()
        };
        let live = Live::clone(&shared.published.load());
        shared.published.swap(Live {
            version: 2,
            credentials: Arc::new(credentials),
            ..live
        });
        let (mut client, io) = sockets().await;
        let Io::Plain(stream) = io else {
            unreachable!("it is plain")
        };
        let peer = stream.peer_addr().unwrap();
        let start = Instant::now();
        let entry = world.worker.shared.census.enter(0).unwrap();
        spawn_local(welcome(world.worker.clone(), stream, peer, 0, entry));
        // The beginning of a record that announces a long hello.
        for byte in [0x16, 3, 1, 1, 0, 1, 0, 0, 0xfc] {
            say(&mut client, [byte]).await;
            tokio::time::sleep(seconds(1)).await;
        }
        assert_eq!(world.worker.connections.get(), 1);
        let mut said = Vec::new();
        let _ended_or_reset = client.read_to_end(&mut said).await;
        took(start, seconds(10));
        while world.worker.connections.get() > 0 {
            tokio::time::sleep(TICK).await;
        }
    });
}

#[test]
fn an_old_connection_is_asked_to_end_with_its_next_answer() {
    run(async {
        let world = World::new("connectionAge: 100s", "");
        let mut endpoint = world.endpoint();
        let mut client = world.client();
        let start = Instant::now();
        for second in [0, 60, 89] {
            at(start, second).await;
            say(&mut client, GET).await;
            answer(&mut endpoint).await;
            let head = answered(&mut client).await;
            assert!(!head.contains("connection: close"), "{second}: {head}");
        }
        // Old when the answer comes, though not when it was asked for.
        say(&mut client, GET).await;
        read_head(&mut endpoint).await;
        at(start, 110).await;
        say(
            &mut endpoint,
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        )
        .await;
        let head = answered(&mut client).await;
        assert!(head.contains("connection: close\r\n"), "{head}");
        assert_eq!(read_all(&mut client).await, "");
    });
}

#[test]
fn age_is_spread_by_a_tenth_either_way() {
    run(async {
        let world = World::new("connectionAge: 100s, keepAlive: 1h", "");
        let mut clients = Vec::new();
        let start = Instant::now();
        for _ in 0..40 {
            clients.push((world.client(), None));
        }
        let ask = b"GET /empty HTTP/1.1\r\nhost: b.default.example.com\r\n\r\n";
        for second in (9..=110).step_by(1) {
            at(start, second).await;
            for (client, left) in &mut clients {
                if left.is_some() {
                    continue;
                }
                say(client, ask).await;
                if read_head(client).await.contains("connection: close\r\n") {
                    *left = Some(second);
                }
            }
        }
        let mut left: Vec<_> = clients.iter().map(|(_, left)| left.unwrap()).collect();
        left.sort_unstable();
        assert!(left[0] >= 90 && left[0] < 100, "{left:?}");
        assert!(*left.last().unwrap() > 100, "{left:?}");
    });
}

#[test]
fn connections_have_no_age_unless_they_are_given_one() {
    run(async {
        let world = World::new("keepAlive: 2h", "");
        let mut client = world.client();
        let ask = b"GET /empty HTTP/1.1\r\nhost: b.default.example.com\r\n\r\n";
        for _ in 0..20 {
            say(&mut client, ask).await;
            let head = read_head(&mut client).await;
            assert!(!head.contains("connection: close"), "{head}");
            tokio::time::sleep(seconds(3600)).await;
        }
    });
}

#[test]
fn an_old_http2_connection_lets_its_streams_finish() {
    run(async {
        let (world, mut endpoint, mut caller) =
            between("connectionAge: 100s", "protocol: h2c").await;
        let start = Instant::now();
        let (response, _) = caller.get().await;
        let (_request, mut respond) = endpoint.next().await;
        // It hears of it while a stream runs, and no connection ends under a stream.
        while caller.requests.clone().ready().await.is_ok() && start.elapsed() < seconds(120) {
            tokio::time::sleep(seconds(1)).await;
        }
        let told = start.elapsed();
        assert!(told >= seconds(90) && told < seconds(112), "{told:?}");
        assert_eq!(world.worker.connections.get(), 1);
        ok(&mut respond);
        assert_eq!(status(response).await.0, 200);
        assert!(caller.driven.await.unwrap().is_ok());
        assert_eq!(world.worker.connections.get(), 0);
    });
}

#[test]
fn an_old_http2_connection_without_streams_ends() {
    run(async {
        let (world, mut endpoint, mut caller) =
            between("connectionAge: 100s, http2Idle: 1h", "protocol: h2c").await;
        let start = Instant::now();
        let (response, _) = caller.get().await;
        let (_request, mut respond) = endpoint.next().await;
        ok(&mut respond);
        assert_eq!(status(response).await.0, 200);
        assert!(caller.driven.await.unwrap().is_ok());
        let took = start.elapsed();
        assert!(took >= seconds(90) && took < seconds(111), "{took:?}");
        while world.worker.connections.get() > 0 {
            tokio::time::sleep(TICK).await;
        }
    });
}

#[test]
fn an_http2_connection_carries_as_many_requests_as_it_may() {
    run(async {
        let (_world, mut endpoint, mut caller) =
            between("requestsPerConnection: 3", "protocol: h2c").await;
        let mut asked = Vec::new();
        for _ in 0..3 {
            let (response, _) = caller.ask(asks("POST"), true).await;
            asked.push((response, endpoint.next().await.1));
        }
        tokio::time::sleep(TICK).await;
        let refused = match caller.requests.clone().ready().await {
            Ok(mut requests) => requests.send_request(asks("GET"), true).is_err(),
            Err(error) => error.reason() == Some(Reason::NO_ERROR),
        };
        assert!(refused, "one too many");
        for (response, mut respond) in asked {
            ok(&mut respond);
            assert_eq!(status(response).await.0, 200);
        }
        assert!(caller.driven.await.unwrap().is_ok());
    });
}

#[test]
fn an_http2_connection_without_streams_lives_for_five_minutes() {
    run(async {
        let world = World::new("", "");
        let caller = Caller::new(&world).await;
        let start = Instant::now();
        assert!(caller.driven.await.unwrap().is_ok());
        took(start, seconds(300));
    });
}

#[test]
fn who_waits_where_nobody_will_serve_is_not_taken() {
    run(async {
        let world = World::new("", "");
        for phase in [None, Some(Phase::Closing)] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap())
                .await
                .unwrap();
            say(&mut client, GET).await;
            let (sender, receiver) = tokio::sync::watch::channel(Phase::Poised);
            match phase {
                // A takeover that came to nothing.
                None => drop(sender),
                Some(phase) => drop(sender.send_replace(phase)),
            }
            let door = Rc::new(Door::new(world.worker.clone(), Arc::default()));
            door.accept(listener, 0, receiver).await;
            let taken = world.worker.connections.get();
            assert_eq!(taken, usize::from(phase.is_some()));
        }
    });
}
