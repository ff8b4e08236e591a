//! What a connection says before its first request, and whom requests are from then.

use super::*;
use crate::serve::arrival::welcome;

/// A listener that believes this machine's addresses.
const BEHIND_PROXY: &str =
    "listeners: [{ address: '127.0.0.1:1', proxyProtocol: v1v2, trustedProxies: [127.0.0.0/8] }]";

fn world(gateway: &str) -> World {
    World::of(gateway, NOWHERE.parse().unwrap(), "")
}

/// A client of the first listener, and the task that serves it.
async fn connected(world: &World) -> (TcpStream, JoinHandle<()>) {
    let (client, io) = sockets().await;
    let Io::Plain(stream) = io else {
        unreachable!("it is plain")
    };
    let peer = stream.peer_addr().unwrap();
    let entry = world.worker.shared.census.enter(0).unwrap();
    let serving = welcome(world.worker.clone(), stream, peer, 0, entry);
    let size = size_of_val(&serving);
    assert!(size < 1024, "{size}");
    (client, spawn_local(serving))
}

/// The head an endpoint sees of a request behind this.
async fn forwarded(world: &World, begin: &str) -> String {
    let mut endpoint = world.endpoint();
    let (mut client, _serving) = connected(world).await;
    say(&mut client, begin).await;
    let head = read_head(&mut endpoint).await;
    say(
        &mut endpoint,
        "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n",
    )
    .await;
    assert!(read_head(&mut client).await.starts_with("HTTP/1.1 204 "));
    head
}

const REQUEST: &str =
    "GET / HTTP/1.1\r\nhost: a.default.example.com\r\nx-forwarded-for: 203.0.113.9\r\n\r\n";

#[test]
fn the_source_of_a_proxy_header_is_the_client() {
    run(async {
        let world = world(BEHIND_PROXY);
        let line = "PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n";
        let head = forwarded(&world, &format!("{line}{REQUEST}")).await;
        assert!(
            head.contains("\r\nx-forwarded-for: 192.0.2.1\r\n"),
            "{head}"
        );
        let line = "PROXY TCP6 ::ffff:192.0.2.1 ::1 1 443\r\n";
        let head = forwarded(&world, &format!("{line}{REQUEST}")).await;
        assert!(
            head.contains("\r\nx-forwarded-for: 192.0.2.1\r\n"),
            "{head}"
        );
    });
}

#[test]
fn a_proxy_that_speaks_for_itself_is_the_client() {
    run(async {
        let world = world(BEHIND_PROXY);
        let head = forwarded(&world, &format!("PROXY UNKNOWN\r\n{REQUEST}")).await;
        assert!(
            head.contains("\r\nx-forwarded-for: 127.0.0.1\r\n"),
            "{head}"
        );
    });
}

#[test]
fn whom_to_believe_is_asked_of_the_source_and_not_of_the_proxy() {
    run(async {
        for (trusted, seen) in [
            ("127.0.0.0/8", "192.0.2.1"),
            ("192.0.2.0/24", "203.0.113.9, 192.0.2.1"),
        ] {
            let world = world(&format!("{BEHIND_PROXY}, trustedProxies: [{trusted}]"));
            let line = "PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n";
            let head = forwarded(&world, &format!("{line}{REQUEST}")).await;
            let wanted = format!("\r\nx-forwarded-for: {seen}\r\n");
            assert!(head.contains(&wanted), "{head}");
        }
    });
}

#[test]
fn others_are_served_as_they_come_and_not_believed() {
    run(async {
        let world = world(&BEHIND_PROXY.replace("127.0.0.0/8", "10.0.0.0/8"));
        let head = forwarded(&world, REQUEST).await;
        assert!(
            head.contains("\r\nx-forwarded-for: 127.0.0.1\r\n"),
            "{head}"
        );
        let (mut client, _serving) = connected(&world).await;
        say(
            &mut client,
            format!("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n{REQUEST}"),
        )
        .await;
        assert!(read_head(&mut client).await.starts_with("HTTP/1.1 400 "));
    });
}

#[test]
fn a_proxy_without_a_header_is_closed_without_an_answer() {
    run(async {
        let world = world(BEHIND_PROXY);
        for begin in [REQUEST, "PROXY TCP4 nonsense\r\n"] {
            let (mut client, serving) = connected(&world).await;
            say(&mut client, begin).await;
            // Closed with bytes unread, so the kernel may say so with a reset.
            let mut seen = Vec::new();
            let _ended_or_reset = client.read_to_end(&mut seen).await;
            assert!(seen.is_empty(), "{seen:?}");
            serving.await.unwrap();
        }
        assert_eq!(world.worker.connections.get(), 0);
    });
}

#[test]
fn a_proxy_header_may_take_three_seconds_in_all() {
    run(async {
        let world = world(BEHIND_PROXY);
        let (mut client, _serving) = connected(&world).await;
        let start = Instant::now();
        say(&mut client, "PROXY TCP4 ").await;
        tokio::time::sleep(seconds(2)).await;
        say(&mut client, "192.0.2.1 ").await;
        assert_eq!(world.worker.connections.get(), 1);
        assert_eq!(read_all(&mut client).await, "");
        took(start, seconds(3));
    });
}

#[test]
fn who_has_not_said_whom_it_speaks_for_does_not_hold_up_a_drain() {
    run(async {
        for phase in [Phase::Closing, Phase::Ended] {
            let world = world(BEHIND_PROXY);
            let (_client, serving) = connected(&world).await;
            tokio::task::yield_now().await;
            assert_eq!(world.worker.connections.get(), 1);
            let start = Instant::now();
            world.worker.phase.set(phase);
            world.worker.timers.wake_idle();
            world.worker.timers.wake_all();
            serving.await.unwrap();
            let patience = match phase {
                Phase::Ended => Duration::ZERO,
                _ => Duration::from_millis(500),
            };
            took(start, patience);
            assert_eq!(world.worker.connections.get(), 0);
        }
    });
}
