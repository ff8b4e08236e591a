//! Faults of ours: a panic costs what it happened in, and leaves no place taken.

#[path = "../../../tests/saboteur/mod.rs"]
mod saboteur;

use tracing::subscriber::DefaultGuard;

use self::saboteur::Saboteur;
use super::*;
use crate::serve::arrival::welcome;

/// Panics where this is logged for the first time, from now on, on this thread.
fn sabotage(message: &'static str) -> DefaultGuard {
    tracing::subscriber::set_default(Saboteur::at([message]))
}

/// Ends the answer before its end.
const CUT_SHORT: &str = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello";

#[test]
fn a_fault_in_an_exchange_is_one_answer_and_frees_its_slot() {
    let _saboteur = sabotage("connect failed");
    run(async {
        let world = World::new("", "concurrency: 1");
        let mut client = world.client();
        say(&mut client, GET).await;
        refusal(&mut client, 500, "internal").await;
        assert_eq!(world.throttle.in_flight(), 0);
        assert_eq!(world.counted(500, "internal"), 1);
        // The next is served as if nothing had been.
        let (mut client, mut endpoint) = (world.client(), world.endpoint());
        say(&mut client, GET).await;
        read_head(&mut endpoint).await;
        say(&mut endpoint, "HTTP/1.1 204 Done\r\n\r\n").await;
        assert!(read_head(&mut client).await.starts_with("HTTP/1.1 204 "));
        world.in_flight(0).await;
    });
}

#[test]
fn a_fault_amid_an_answer_cuts_it() {
    let _saboteur = sabotage("endpoint failed");
    run(async {
        let world = World::new("", "concurrency: 1");
        let (mut client, mut endpoint) = (world.client(), world.endpoint());
        say(&mut client, GET).await;
        read_head(&mut endpoint).await;
        say(&mut endpoint, CUT_SHORT).await;
        read_head(&mut client).await;
        drop(endpoint);
        assert_eq!(read_all(&mut client).await, "hello");
        drop(client);
        while world.worker.connections.get() > 0 {
            tokio::time::sleep(TICK).await;
        }
        world.in_flight(0).await;
        assert_eq!(world.counted(200, "internal"), 1);
    });
}

#[test]
fn who_waits_behind_a_fault_gets_the_slot() {
    let _saboteur = sabotage("endpoint failed");
    run(async {
        let world = World::new("", "concurrency: 1");
        let mut endpoint = world.endpoint();
        let (mut first, mut second) = (world.client(), world.client());
        say(&mut first, GET).await;
        read_head(&mut endpoint).await;
        say(&mut second, GET).await;
        while world.throttle.waiting() == 0 {
            tokio::time::sleep(TICK).await;
        }
        let mut next = world.endpoint();
        say(&mut endpoint, CUT_SHORT).await;
        drop(endpoint);
        read_head(&mut next).await;
        say(&mut next, "HTTP/1.1 204 Done\r\n\r\n").await;
        assert!(read_head(&mut second).await.starts_with("HTTP/1.1 204 "));
        world.in_flight(0).await;
        assert_eq!(world.throttle.waiting(), 0);
    });
}

#[test]
fn a_fault_in_one_stream_leaves_the_others_of_its_connection() {
    let _saboteur = sabotage("connect failed");
    run(async {
        let world = World::new("", "");
        let mut caller = streams::Caller::new(&world).await;
        let (faulty, _) = caller.get().await;
        assert_eq!(streams::status(faulty).await, (500, "internal".to_owned()));
        let mut endpoint = world.endpoint();
        let (next, _) = caller.get().await;
        read_head(&mut endpoint).await;
        say(&mut endpoint, "HTTP/1.1 204 Done\r\n\r\n").await;
        assert_eq!(streams::status(next).await.0, 204);
    });
}

#[test]
fn a_fault_in_an_http2_connection_ends_it_and_no_other() {
    let _saboteur = sabotage("a client's HTTP/2 connection failed");
    run(async {
        let world = World::new("", "concurrency: 1");
        let mut endpoint = world.endpoint();
        let (io, mut theirs) = Io::memory(PLENTY);
        let serving = world.serve(io);
        let get = b"\0\0\x1a\x01\x05\0\0\0\x01\x82\x86\x84\x41\x15a.default.example.com";
        say(
            &mut theirs,
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        )
        .await;
        say(&mut theirs, get).await;
        read_head(&mut endpoint).await;
        // A frame that may not be: the connection fails, and while that is told, so do we.
        say(&mut theirs, b"\0\0\x01\x06\0\0\0\0\0x").await;
        theirs.shutdown().await.unwrap();
        assert!(serving.await.unwrap_err().is_panic());
        drop(endpoint);
        world.in_flight(0).await;
        assert_eq!(world.worker.connections.get(), 0);
        let (mut client, mut endpoint) = (world.client(), world.endpoint());
        say(&mut client, GET).await;
        read_head(&mut endpoint).await;
        say(&mut endpoint, "HTTP/1.1 204 Done\r\n\r\n").await;
        assert!(read_head(&mut client).await.starts_with("HTTP/1.1 204 "));
    });
}

#[test]
fn a_fault_before_the_first_request_ends_that_connection() {
    let _saboteur = sabotage("no PROXY protocol header: connection closed");
    run(async {
        let gateway = "listeners: [{ address: '127.0.0.1:1', proxyProtocol: v1v2, trustedProxies: [127.0.0.0/8] }]";
        let world = World::of(gateway, NOWHERE.parse().unwrap(), "");
        let (mut client, io) = sockets().await;
        let Io::Plain(stream) = io else {
            unreachable!("it is plain")
        };
        let peer = stream.peer_addr().unwrap();
        let entry = world.worker.shared.census.enter(0).unwrap();
        let serving = welcome(world.worker.clone(), stream, peer, 0, entry);
        let serving = spawn_local(serving);
        say(&mut client, "GET / HTTP/1.1\r\n\r\n").await;
        assert!(serving.await.unwrap_err().is_panic());
        assert_eq!(world.worker.connections.get(), 0);
    });
}
