//! What one request leaves to the next, whoever sent it: nothing.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, ReadBuf};

use super::*;

/// What a client sends, and what the endpoint says to it.
type Play = (&'static str, &'static str);

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Requests that have little in common with each other.
const PLAYS: &[Play] = &[
    ("GET /a HTTP/1.1\r\nhost: a.default.example.com\r\n\r\n", OK),
    (
        "GET / HTTP/1.0\r\nhost: a.default.example.com\r\nx-old: 1\r\n\r\n",
        "HTTP/1.1 201 Made\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
    ),
    (
        "GET / HTTP/1.0\r\nhost: a.default.example.com\r\nconnection: keep-alive\r\n\r\n",
        "HTTP/1.0 200 Old\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok",
    ),
    (
        "HEAD /h HTTP/1.1\r\nhost: a.default.example.com\r\naccept: application/problem+json\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n",
    ),
    (
        "POST /?q HTTP/1.1\r\nhost: a.default.example.com\r\ntransfer-encoding: chunked\r\n\
         te: trailers\r\nconnection: te, x-hop\r\nx-hop: 1\r\n\r\n2\r\nhi\r\n0\r\nx-end: 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nx-end: 2\r\n\r\n",
    ),
    (
        "PUT / HTTP/1.1\r\nhost: a.default.example.com\r\nexpect: 100-continue\r\n\
         content-length: 3\r\n\r\nabc",
        "HTTP/1.1 103 Early\r\nlink: x\r\n\r\nHTTP/1.1 204 Gone\r\nx-more: 1\r\n\r\n",
    ),
    (
        "GET / HTTP/1.1\r\nhost: a.default.example.com\r\nconnection: upgrade\r\n\
         upgrade: websocket\r\n\r\nframe",
        "HTTP/1.1 101 Up\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nframes",
    ),
    (
        "GET / HTTP/1.1\r\nhost: a.default.example.com\r\nconnection: upgrade\r\n\
         upgrade: websocket\r\n\r\n",
        "HTTP/1.1 403 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
    ),
    (
        "GET http://b.default.example.com HTTP/1.1\r\nhost: b.default.example.com\r\n\r\n",
        OK,
    ),
    (
        "GET /set/x?y HTTP/1.1\r\nhost: b.default.example.com\r\nx-request-id: mine\r\n\
         x-forwarded-for: 1.2.3.4\r\nforwarded: for=x\r\nvia: 1.1 other\r\n\r\n",
        "HTTP/1.1 200 \r\n\r\nuntil the end",
    ),
    (
        "GET /moved/x?y HTTP/1.1\r\nHost: b.default.example.com\r\n\r\n",
        "HTTP/1.1 200 Fine\r\nx-set: 0\r\ncontent-length: 2\r\n\r\nok",
    ),
    (
        "GET /empty HTTP/1.1\r\nhost: b.default.example.com\r\nconnection: close\r\n\r\n",
        "",
    ),
    ("GET / HTTP/1.1\r\nhost: nowhere\r\n\r\n", ""),
    (
        "POST / HTTP/1.1\r\nhost: a.default.example.com\r\ncontent-type: application/grpc\r\n\
         content-length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nok",
    ),
    (
        "POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n",
        "",
    ),
    ("HEAD / HTTP/1.1\r\nhost: a b\r\n\r\n", ""),
    ("GET / HTTP/1.1\r\nhost: a.default.exam", ""),
    ("nonsense\r\n\r\n", ""),
    (
        "POST / HTTP/1.1\r\nhost: a.default.example.com\r\ncontent-length: 100\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf",
    ),
    (
        "GET / HTTP/1.1\r\nhost: a.default.example.com\r\n\r\n\
         GET /empty HTTP/1.1\r\nhost: b.default.example.com\r\n\r\n",
        OK,
    ),
];

/// What there is to read, without what no two answers share.
fn heard(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut storage = vec![0; 64 * 1024];
    let mut target = ReadBuf::new(&mut storage);
    let mut context = Context::from_waker(Waker::noop());
    let read = Pin::new(stream).poll_read(&mut context, &mut target);
    let ended = matches!(read, Poll::Ready(Ok(()))) && target.filled().is_empty();
    let text = String::from_utf8(target.filled().to_vec()).unwrap();
    let own = ["date: ", "x-request-id: "];
    let lines = text.split_inclusive('\n');
    let mut common: String = lines
        .filter(|line| line.contains("mine") || !own.iter().any(|name| line.starts_with(name)))
        .collect();
    if ended {
        common += "<end>";
    }
    common
}

/// What endpoint and client have heard after a while.
async fn play(world: &World, (request, answer): Play) -> (String, String) {
    let mut endpoint = world.endpoint();
    let (mut client, served) = world.client_holding(PLENTY);
    say(&mut endpoint, answer).await;
    say(&mut client, request).await;
    tokio::time::sleep(seconds(1)).await;
    let seen = (heard(&mut endpoint), heard(&mut client));
    drop((client, endpoint));
    served.await.unwrap();
    let known = world.throttle.endpoints()[0].id;
    world.worker.pool.forget(known);
    seen
}

#[test]
fn a_request_finds_nothing_of_the_one_before_it() {
    run(async {
        let mut alone = Vec::new();
        for one in PLAYS {
            alone.push(play(&World::new("", ""), *one).await);
        }
        for before in PLAYS {
            for (one, alone) in PLAYS.iter().zip(&alone) {
                let world = World::new("", "");
                play(&world, *before).await;
                let seen = play(&world, *one).await;
                assert_eq!(seen, *alone, "{one:?} after {before:?}");
            }
        }
    });
}

/// Like [`play`], of a client whose bytes come in two pieces, both before there is a slot.
async fn play_held(world: &World, (request, answer): Play, cut: usize) -> (String, String) {
    let (mut first, mut busy) = (world.client(), world.endpoint());
    say(&mut first, GET).await;
    read_head(&mut busy).await;
    let mut endpoint = world.endpoint();
    say(&mut endpoint, answer).await;
    let (mut client, io) = sockets().await;
    let served = world.serve(io);
    let (one, two) = request.split_at(cut);
    say(&mut client, one).await;
    tokio::time::sleep(seconds(1)).await;
    say(&mut client, two).await;
    tokio::time::sleep(seconds(1)).await;
    assert_eq!(heard(&mut endpoint), "");
    let gone = "HTTP/1.1 204 Gone\r\nconnection: close\r\n\r\n";
    say(&mut busy, gone).await;
    tokio::time::sleep(seconds(1)).await;
    let seen = (heard(&mut endpoint), heard(&mut client));
    drop((client, endpoint));
    served.await.unwrap();
    seen
}

#[test]
fn a_request_that_was_held_is_served_as_any_other() {
    run(async {
        for one in PLAYS {
            let alone = play(&World::new("", ""), *one).await;
            for cut in (0..one.0.len()).step_by(7) {
                let world = World::new("", "concurrency: 1");
                let seen = play_held(&world, *one, cut).await;
                assert_eq!(seen, alone, "{one:?} cut at {cut}");
            }
        }
    });
}

/// A client's socket that takes in little before it is read from, as it is served.
async fn slow_socket(world: &World) -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(1024).unwrap();
    let client = socket.connect(listener.local_addr().unwrap());
    let (client, accepted) = tokio::join!(client, listener.accept());
    world.serve(Io::Plain(accepted.unwrap().0));
    client.unwrap()
}

#[test]
fn bytes_behind_the_last_request_do_not_cost_it_its_answer() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let world = World::at(listener.local_addr().unwrap(), "", "");
        let mut client = slow_socket(&world).await;
        let last = "GET / HTTP/1.0\r\nhost: a.default.example.com\r\n\r\n";
        say(&mut client, last).await;
        let (mut endpoint, _) = listener.accept().await.unwrap();
        read_head(&mut endpoint).await;
        let body = "x".repeat(16 * 1024);
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        // Both are there when the gateway looks again.
        assert_eq!(endpoint.try_write(answer.as_bytes()).unwrap(), answer.len());
        assert_eq!(client.try_write(b"\r\n").unwrap(), 2);
        let mut heard = Vec::new();
        let ended = client.read_to_end(&mut heard).await;
        assert!(
            heard.ends_with(body.as_bytes()),
            "{ended:?} after {} bytes",
            heard.len()
        );
    });
}

#[test]
fn a_request_that_fills_its_buffer_is_not_the_beginning_of_the_next() {
    run(async {
        let world = World::new("headTimeout: 10s, keepAlive: 75s", "");
        let (mut client, io) = sockets().await;
        world.serve(io);
        let filled = |size: usize| {
            let head = "GET /empty HTTP/1.1\r\nhost: b.default.example.com\r\nx: ";
            format!("{head}{}\r\n\r\n", "x".repeat(size - head.len() - 4))
        };
        let start = Instant::now();
        say(&mut client, filled(4096)).await;
        assert!(read_head(&mut client).await.starts_with("HTTP/1.1 204 "));
        assert_eq!(read_all(&mut client).await, "");
        took(start, seconds(75));
    });
}
