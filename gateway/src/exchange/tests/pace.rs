//! How fast bodies must come and answers be taken, and how long everything between may last: with the
//! limits as they are by default.

use bytes::Bytes;
use h2::Reason;
use http::Response;

use super::streams::{Answerer, asks, between, ok, status};
use super::*;

const MILLISECOND: Duration = Duration::from_millis(1);

/// A chunked request's head.
fn chunked(more: &str) -> String {
    format!(
        "POST / HTTP/1.1\r\nhost: a.default.example.com\r\ntransfer-encoding: chunked\r\n{more}\r\n"
    )
}

/// Says as many bytes of a body as often, until nobody listens.
fn drip(
    mut client: impl AsyncWriteExt + Unpin + 'static,
    bytes: usize,
    every: Duration,
) -> JoinHandle<()> {
    spawn_local(async move {
        while client.write_all(&vec![b'x'; bytes]).await.is_ok() {
            tokio::time::sleep(every).await;
        }
    })
}

/// Takes as many bytes as often until there are no more; how many there were.
async fn sip(mut client: impl AsyncReadExt + Unpin, bytes: usize, every: Duration) -> usize {
    let (mut all, mut buffer) = (0, vec![0; bytes]);
    loop {
        match client.read(&mut buffer).await {
            Ok(count @ 1..) => all += count,
            _ => return all,
        }
        tokio::time::sleep(every).await;
    }
}

/// `since` was between so many seconds ago.
fn took_between(since: Instant, least: u64, most: u64) {
    let took = since.elapsed();
    assert!(took >= seconds(least) && took <= seconds(most), "{took:?}");
}

#[test]
fn a_body_that_stops_has_a_minute_however_fast_it_was() {
    run(async {
        let world = World::new("", "");
        let (mut client, mut endpoint) = (world.client(), world.endpoint());
        say(&mut client, post(200_000)).await;
        say(&mut client, vec![b'x'; 100_000]).await;
        read_head(&mut endpoint).await;
        endpoint.read_exact(&mut vec![0; 100_000]).await.unwrap();
        let start = Instant::now();
        refusal(&mut client, 408, "body_timeout").await;
        took(start, seconds(60));
    });
}

#[test]
fn a_body_that_keeps_up_with_the_least_rate_is_let_through() {
    run(async {
        let world = World::new("", "");
        let (mut client, mut endpoint) = (world.client(), world.endpoint());
        say(&mut client, post(250 * 300)).await;
        let (mut read, write) = tokio::io::split(client);
        let _drip = drip(write, 250, seconds(1));
        read_head(&mut endpoint).await;
        endpoint.read_exact(&mut vec![0; 250 * 300]).await.unwrap();
        say(&mut endpoint, "HTTP/1.1 204 Done\r\n\r\n").await;
        assert!(read_head(&mut read).await.starts_with("HTTP/1.1 204 "));
    });
}

#[test]
fn a_body_below_the_least_rate_is_refused_when_grace_and_bytes_are_used_up() {
    run(async {
        let world = World::new("", "");
        let (mut client, mut endpoint) = (world.client(), world.endpoint());
        let start = Instant::now();
        say(&mut client, post(100_000)).await;
        let (mut read, write) = tokio::io::split(client);
        let _drip = drip(write, 120, seconds(1));
        read_head(&mut endpoint).await;
        let head = read_head(&mut read).await;
        assert!(head.contains("tidegate-reason: body_timeout\r\n"), "{head}");
        // Each second brings half of one: five of grace last for ten.
        took_between(start, 9, 11);
    });
}

#[test]
fn a_body_is_held_to_its_rate_after_the_answer_has_begun_as_well() {
    run(async {
        let world = World::new("", "");
        let (mut client, mut endpoint) = (world.client(), world.endpoint());
        let start = Instant::now();
        say(&mut client, post(100_000)).await;
        read_head(&mut endpoint).await;
        say(&mut endpoint, "HTTP/1.1 200 OK\r\n\r\nbegun").await;
        let (mut read, write) = tokio::io::split(client);
        read_until(&mut read, "begun\r\n").await;
        let _drip = drip(write, 1, seconds(1));
        assert_eq!(read_all(&mut read).await, "");
        took_between(start, 5, 6);
        assert_eq!(world.counted(200, "stream_timeout"), 1);
    });
}

#[test]
fn a_body_that_stops_after_the_answer_has_begun_ends_both() {
    run(async {
        let world = World::new("bodyMinRate: 0", "concurrency: 1");
        let (mut client, mut endpoint) = (world.client(), world.endpoint());
        say(&mut client, post(100)).await;
        read_head(&mut endpoint).await;
        say(&mut endpoint, "HTTP/1.1 200 OK\r\n\r\nbegun").await;
        read_until(&mut client, "begun\r\n").await;
        let start = Instant::now();
        assert_eq!(read_all(&mut client).await, "");
        took(start, seconds(60));
        drop(endpoint);
        world.in_flight(0).await;
    });
}

#[test]
fn a_whole_answer_ends_an_upload_that_goes_on_soon() {
    run(async {
        let world = World::new("", "concurrency: 1");
        let (mut client, mut endpoint) = (world.client(), world.endpoint());
        say(&mut client, post(100_000)).await;
        read_head(&mut endpoint).await;
        let answer = "HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno";
        say(&mut endpoint, answer).await;
        let (mut read, write) = tokio::io::split(client);
        let head = read_until(&mut read, "no").await;
        assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
        // The slot is free though the client goes on: the answer was whole.
        world.in_flight(0).await;
        let start = Instant::now();
        let _drip = drip(write, 1, MILLISECOND * 100);
        // Two seconds for the rest of the body, and as long for last words.
        assert_eq!(read_all(&mut read).await, "");
        took(start, seconds(2));
        while world.worker.connections.get() > 0 {
            tokio::time::sleep(TICK).await;
        }
        took(start, seconds(4));
    });
}

#[test]
fn a_call_that_says_something_now_and_then_goes_on() {
    run(async {
        let world = World::new("", "");
        let (mut client, mut endpoint) = (world.client(), world.endpoint());
        say(&mut client, chunked("content-type: application/grpc\r\n")).await;
        say(&mut client, "5\r\nhello\r\n").await;
        read_until(&mut endpoint, "hello\r\n").await;
        // Before the answer its silence is that of any body, at no rate.
        tokio::time::sleep(seconds(59)).await;
        say(&mut client, "1\r\nx\r\n").await;
        read_until(&mut endpoint, "x\r\n").await;
        say(&mut endpoint, "HTTP/1.1 200 OK\r\n\r\nbegun").await;
        read_until(&mut client, "begun\r\n").await;
        tokio::time::sleep(seconds(3599)).await;
        say(&mut endpoint, "more").await;
        read_until(&mut client, "more\r\n").await;
        tokio::time::sleep(seconds(3599)).await;
        say(&mut client, "1\r\ny\r\n").await;
        read_until(&mut endpoint, "y\r\n").await;
        let start = Instant::now();
        assert_eq!(read_all(&mut client).await, "");
        took(start, seconds(3600));
        assert_eq!(world.counted(200, "stream_timeout"), 1);
    });
}

#[test]
fn a_call_that_does_not_begin_is_refused() {
    run(async {
        let (_world, mut endpoint, mut caller) = between("", "protocol: h2c").await;
        let mut request = asks("POST");
        let grpc = "application/grpc".parse().unwrap();
        request.headers_mut().insert("content-type", grpc);
        let start = Instant::now();
        let (response, _body) = caller.ask(request, false).await;
        let (_request, _respond) = endpoint.next().await;
        assert_eq!(status(response).await, (200, "body_timeout".into()));
        took(start, seconds(60));
    });
}

#[test]
fn a_call_may_wait_for_the_head_of_its_answer_before_it_goes_on() {
    run(async {
        let (world, mut endpoint, mut caller) = between("", "protocol: h2c").await;
        let mut request = asks("POST");
        let grpc = "application/grpc".parse().unwrap();
        request.headers_mut().insert("content-type", grpc);
        let (response, mut body) = caller.ask(request, false).await;
        body.send_data("hello".into(), false).unwrap();
        let (_request, mut respond) = endpoint.next().await;
        tokio::time::sleep(seconds(200)).await;
        assert_eq!(world.throttle.in_flight(), 1);
        respond.send_response(Response::new(()), true).unwrap();
        assert_eq!(response.await.unwrap().status(), 200);
    });
}

#[test]
fn a_client_that_was_held_between_two_attempts_is_not_slow() {
    run(async {
        let (world, mut endpoint, mut caller) = between("", "protocol: h2c").await;
        let (response, mut body) = caller.ask(asks("POST"), false).await;
        let (_request, mut respond) = endpoint.next().await;
        tokio::time::sleep(seconds(3)).await;
        // There is no endpoint any more when the first has refused, for long.
        let address = world.throttle.endpoints()[0].address;
        world.throttle.set_endpoints(&[]);
        respond.send_reset(Reason::REFUSED_STREAM);
        tokio::time::sleep(seconds(200)).await;
        assert_eq!(world.throttle.waiting(), 1);
        world.throttle.set_endpoints(&[address]);
        let mut other = Answerer::new(&world).await;
        let (mut request, mut respond) = other.next().await;
        tokio::time::sleep(seconds(1)).await;
        body.send_data(Bytes::from_static(b"late"), true).unwrap();
        assert_eq!(request.body_mut().data().await.unwrap().unwrap(), "late");
        ok(&mut respond);
        assert_eq!(status(response).await.0, 200);
    });
}

/// A client whose answer is `bytes` long, past its head, and what serves it.
async fn downloading(world: &World, bytes: usize) -> (DuplexStream, JoinHandle<()>) {
    let (mut client, served) = world.client_holding(1024);
    let mut endpoint = world.endpoint();
    say(&mut client, GET).await;
    read_head(&mut endpoint).await;
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\n\r\n");
    say(&mut endpoint, head).await;
    spawn_local(async move {
        // Its end comes early when the client is given up.
        let _given_up = endpoint.write_all(&vec![b'x'; bytes]).await;
        let _end = endpoint.read(&mut [0]).await;
    });
    read_head(&mut client).await;
    (client, served)
}

#[test]
fn a_client_that_takes_nothing_for_a_minute_is_given_up() {
    run(async {
        let world = World::new("", "concurrency: 1");
        let start = Instant::now();
        let (client, _served) = downloading(&world, 3_000_000).await;
        world.in_flight(0).await;
        took(start, seconds(60));
        assert_eq!(world.counted(200, "stream_timeout"), 1);
        drop(client);
    });
}

#[test]
fn a_client_that_takes_a_little_now_and_then_is_given_up() {
    run(async {
        for (bytes, every, least, most) in [(1, 59, 256, 257), (512, 1, 500, 530)] {
            let world = World::new("", "concurrency: 1");
            let start = Instant::now();
            let (client, _served) = downloading(&world, 3_000_000).await;
            let sipping = spawn_local(sip(client, bytes, seconds(every)));
            world.in_flight(0).await;
            took_between(start, least, most);
            assert_eq!(world.counted(200, "stream_timeout"), 1);
            sipping.abort();
        }
    });
}

#[test]
fn a_client_that_was_fast_has_no_credit_for_being_slow() {
    run(async {
        let world = World::new("", "concurrency: 1");
        let (mut client, _served) = downloading(&world, 30_000_000).await;
        client.read_exact(&mut vec![0; 20_000_000]).await.unwrap();
        let start = Instant::now();
        let sipping = spawn_local(sip(client, 1, seconds(59)));
        world.in_flight(0).await;
        took_between(start, 256, 257);
        sipping.abort();
    });
}

#[test]
fn a_slow_client_that_keeps_up_with_the_least_rate_gets_all() {
    run(async {
        let world = World::new("", "concurrency: 1");
        let start = Instant::now();
        let (client, _served) = downloading(&world, 2_000_000).await;
        let sipping = sip(client, 1100, seconds(1));
        let all = tokio::time::timeout(seconds(1850), sipping).await;
        assert!(all.is_err(), "it was cut");
        took_between(start, 1850, 1851);
        assert_eq!(world.counted(200, "stream_timeout"), 0);
    });
}

#[test]
fn a_tunnel_whose_client_takes_nothing_for_a_minute_ends() {
    run(async {
        let world = World::new("", "concurrency: 1");
        let (mut client, _served) = world.client_holding(1024);
        let mut endpoint = world.endpoint();
        upgraded(&mut client, &mut endpoint).await;
        say(&mut endpoint, vec![b'x'; 300_000]).await;
        let start = Instant::now();
        assert_eq!(read_all(&mut endpoint).await, "");
        took(start, seconds(60));
        assert_eq!(world.counted(101, "stream_timeout"), 1);
    });
}

#[test]
fn a_tunnel_without_a_byte_lives_for_an_hour() {
    run(async {
        let world = World::new("", "");
        let (mut client, mut endpoint) = (world.client(), world.endpoint());
        upgraded(&mut client, &mut endpoint).await;
        tokio::time::sleep(seconds(3599)).await;
        say(&mut endpoint, "ping").await;
        read_until(&mut client, "ping").await;
        let start = Instant::now();
        assert_eq!(read_all(&mut client).await, "");
        took(start, seconds(3600));
    });
}

/// An HTTP/2 client that lets a stream of `window` bytes begin, and its endpoint.
async fn by_hand(mut client: DuplexStream, window: u32) -> DuplexStream {
    say(&mut client, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    // SETTINGS_INITIAL_WINDOW_SIZE.
    say(&mut client, [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4]).await;
    say(&mut client, window.to_be_bytes()).await;
    // GET http://a.default.example.com/ on stream 1, and that is all.
    let host = "a.default.example.com";
    let length = u8::try_from(host.len()).unwrap();
    say(&mut client, [0, 0, length + 5, 1, 5, 0, 0, 0, 1]).await;
    say(&mut client, [0x82, 0x86, 0x84, 0x41, length]).await;
    say(&mut client, host).await;
    client
}

/// Opens the window of a stream, or of the connection, by one byte as often.
fn update(
    mut client: impl AsyncWriteExt + Unpin + 'static,
    stream: u8,
    every: Duration,
) -> JoinHandle<()> {
    spawn_local(async move {
        let update = [0, 0, 4, 8, 0, 0, 0, 0, stream, 0, 0, 0, 1];
        while client.write_all(&update).await.is_ok() {
            tokio::time::sleep(every).await;
        }
    })
}

/// Reads frames until a stream is reset; with which code.
async fn until_reset(client: &mut (impl AsyncReadExt + Unpin)) -> u32 {
    loop {
        let mut header = [0; 9];
        client.read_exact(&mut header).await.unwrap();
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        let mut payload = vec![0; length as usize];
        client.read_exact(&mut payload).await.unwrap();
        if header[3] == 3 {
            return u32::from_be_bytes(payload.try_into().unwrap());
        }
    }
}

#[test]
fn a_stream_whose_window_stays_shut_for_a_minute_is_reset() {
    run(async {
        for window in [0, 100] {
            let world = World::new("", "protocol: h2c, concurrency: 1");
            let mut endpoint = Answerer::new(&world).await;
            let client = by_hand(world.client(), window).await;
            let (_request, mut respond) = endpoint.next().await;
            let mut body = respond.send_response(Response::new(()), false).unwrap();
            body.send_data(Bytes::from(vec![0; 10_000]), true).unwrap();
            let start = Instant::now();
            let (mut read, write) = tokio::io::split(client);
            // It is there, and opens what is not shut.
            let _updates = update(write, 0, seconds(20));
            assert_eq!(until_reset(&mut read).await, 2);
            took(start, seconds(60));
            world.in_flight(0).await;
            assert_eq!(world.counted(200, "stream_timeout"), 1);
        }
    });
}

#[test]
fn a_stream_whose_window_opens_a_crack_now_and_then_is_reset() {
    run(async {
        let world = World::new("", "protocol: h2c, concurrency: 1");
        let mut endpoint = Answerer::new(&world).await;
        let client = by_hand(world.client(), 0).await;
        let (_request, mut respond) = endpoint.next().await;
        let mut body = respond.send_response(Response::new(()), false).unwrap();
        body.send_data(Bytes::from(vec![0; 10_000]), true).unwrap();
        let start = Instant::now();
        let (mut read, write) = tokio::io::split(client);
        let _updates = update(write, 1, seconds(29));
        assert_eq!(until_reset(&mut read).await, 2);
        // A byte is worth a tenth of a second where a hundred streams share a connection.
        took_between(start, 256, 258);
        world.in_flight(0).await;
    });
}

#[test]
fn a_connection_that_takes_a_little_now_and_then_of_what_is_left_is_ended() {
    run(async {
        let world = World::new("", "protocol: h2c, concurrency: 1");
        let mut endpoint = Answerer::new(&world).await;
        let (client, _served) = world.client_holding(1024);
        let client = by_hand(client, 65_535).await;
        let (_request, mut respond) = endpoint.next().await;
        let mut body = respond.send_response(Response::new(()), false).unwrap();
        body.send_data(Bytes::from(vec![0; 50_000]), true).unwrap();
        let start = Instant::now();
        // Its stream has ended: the connection has the answer, and its client takes its time.
        world.in_flight(0).await;
        let sipping = spawn_local(sip(client, 1, seconds(5)));
        while world.worker.connections.get() > 0 {
            tokio::time::sleep(TICK).await;
        }
        took_between(start, 256, 258);
        sipping.abort();
    });
}

#[test]
fn a_connection_to_an_endpoint_may_take_two_seconds_three_times() {
    run(async {
        let full = Full::new();
        let world = World::at(full.address, "", "concurrency: 1");
        let mut client = world.client();
        let start = Instant::now();
        say(&mut client, GET).await;
        refusal(&mut client, 502, "connect_failed").await;
        // And a pause of 5 to 25 ms between two of them.
        let took = start.elapsed();
        let pauses = took.checked_sub(seconds(6)).unwrap();
        assert!(
            pauses >= MILLISECOND * 10 && pauses <= MILLISECOND * 90,
            "{took:?}"
        );
        assert_eq!(world.throttle.in_flight(), 0);
    });
}

#[test]
fn an_endpoint_has_five_minutes_for_its_head_and_as_long_as_it_likes_after_it() {
    run(async {
        let world = World::new("", "");
        let (mut client, mut endpoint) = (world.client(), world.endpoint());
        say(&mut client, GET).await;
        read_head(&mut endpoint).await;
        tokio::time::sleep(seconds(299)).await;
        say(&mut endpoint, "HTTP/1.1 200 OK\r\n\r\nbegun").await;
        read_until(&mut client, "begun\r\n").await;
        tokio::time::sleep(seconds(12 * 3600)).await;
        say(&mut endpoint, "more").await;
        drop(endpoint);
        assert_eq!(read_all(&mut client).await, "4\r\nmore\r\n0\r\n\r\n");
        let (mut client, mut endpoint) = (world.client(), world.endpoint());
        let start = Instant::now();
        say(&mut client, GET).await;
        read_head(&mut endpoint).await;
        refusal(&mut client, 504, "response_timeout").await;
        took(start, seconds(300));
    });
}

#[test]
fn a_request_is_held_for_five_minutes() {
    run(async {
        let world = World::new("", "");
        world.throttle.set_endpoints(&[]);
        let mut client = world.client();
        let start = Instant::now();
        say(&mut client, GET).await;
        refusal(&mut client, 504, "start_timeout").await;
        took(start, seconds(300));
        assert_eq!(world.throttle.waiting(), 0);
    });
}

#[test]
fn who_leaves_while_held_frees_the_place_at_once() {
    run(async {
        let world = World::new("", "");
        world.throttle.set_endpoints(&[]);
        let whole = format!("{}{}", post(10), "0123456789");
        let begun = format!("{}{}", post(100_000), "x".repeat(10_000));
        for request in [GET, whole.as_bytes(), begun.as_bytes()] {
            let mut client = world.client();
            say(&mut client, request).await;
            while world.throttle.waiting() != 1 {
                tokio::time::sleep(TICK).await;
            }
            tokio::time::sleep(seconds(100)).await;
            let start = Instant::now();
            drop(client);
            while world.throttle.waiting() != 0 {
                tokio::time::sleep(MILLISECOND).await;
            }
            took(start, seconds(0));
        }
        assert_eq!(world.worker.shared.holding.bytes(), 0);
        assert_eq!(world.counted(499, "client_gone"), 3);
    });
}
