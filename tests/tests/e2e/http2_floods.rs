//! Frames that carry nothing are borne in a burst of 1000 and 50 a second, from clients and from
//! endpoints; whoever uses them for something is never held to it.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use hyper::Response;
use hyper::body::Frame as Piece;
use tests::body::{channel, pattern};
use tests::frames::{self, Frame, Frames, Outcome, get};
use tests::{Backend, Client, Gateway, RawBackend, Wire, request};

use crate::{HELLO, hello, hello_h2c};

/// What is borne at once.
const BURST: usize = 1000;

/// Far more of one frame than anybody has a use for.
const FLOOD: usize = 20_000;

/// A connection on which one request is under way, on stream 1.
async fn busy(gateway: &Gateway) -> Frames {
    let mut client = Frames::connect(gateway.public()).await;
    client.settled().await;
    let mut fields = get(HELLO, "/?hold").to_vec();
    fields[0].1 = "POST";
    client.head(1, &fields, false).await;
    client
}

async fn others_are_served(gateway: &Gateway) {
    let mut calm = Client::speaking(Wire::Http2, gateway.public()).await;
    calm.get(HELLO, "/").await.expect(200);
}

/// Frames until the peer says goodbye, and its code.
async fn until_goaway(client: &mut Frames) -> (Vec<Frame>, u32) {
    let mut seen = Vec::new();
    loop {
        let frame = client.any().await.expect("GOAWAY comes before the end");
        if frame.kind == frames::GOAWAY {
            return (seen, frame.number(4));
        }
        seen.push(frame);
    }
}

#[tokio::test]
async fn client_whose_frames_carry_nothing_is_left() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&hello(&backend)).await;
    let one = &[0, 0, 0, 1];
    for (what, kind, flags, stream, payload) in [
        ("pings", frames::PING, 0, 0, &[0; 8][..]),
        ("answers to no ping", frames::PING, frames::ACK, 0, &[1; 8]),
        ("settings", frames::SETTINGS, 0, 0, &[]),
        (
            "windows toggled",
            frames::SETTINGS,
            0,
            0,
            &[0, 4, 0, 0, 0, 9],
        ),
        ("priorities", frames::PRIORITY, 0, 1, &[0, 0, 0, 0, 9]),
        ("priorities of nothing", frames::PRIORITY, 0, 99, &[0; 5]),
        ("window", frames::WINDOW_UPDATE, 0, 0, one),
        ("window of a stream", frames::WINDOW_UPDATE, 0, 1, one),
        ("goodbyes", frames::GOAWAY, 0, 0, &[0; 8]),
        ("unknown frames", 0x20, 0, 0, &[]),
        ("unknown frames of a stream", 0xff, 0xff, 1, &[0; 20]),
        ("empty parts of a body", frames::DATA, 0, 1, &[]),
        ("nothing but padding", frames::DATA, 8, 1, &[1, 0]),
    ] {
        let mut client = busy(&gateway).await;
        let flood = frames::encode(kind, flags, stream, payload).repeat(FLOOD);
        client.flood(&flood).await;
        let (_, code) = until_goaway(&mut client).await;
        assert_eq!(code, frames::ENHANCE_YOUR_CALM, "{what}");
        client.end().await;
        others_are_served(&gateway).await;
    }
    gateway.until_idle().await;
    let frames = [("why", "frames")];
    let left = gateway.metric("tidegate_http2_closed_total", &frames).await;
    // Empty parts of bodies may be counted by the library first.
    assert!(left >= 11.0, "{left}");
    // Nor do they fill the log.
    assert!(!gateway.stderr().contains("WARN"), "{}", gateway.stderr());
}

#[tokio::test]
async fn no_more_frames_are_looked_at_than_are_borne() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&hello(&backend)).await;
    for (kind, payload) in [(frames::PING, &[0; 8][..]), (frames::SETTINGS, &[])] {
        let mut client = busy(&gateway).await;
        let begun = Instant::now();
        client
            .flood(&frames::encode(kind, 0, 0, payload).repeat(FLOOD))
            .await;
        let (seen, _) = until_goaway(&mut client).await;
        let answer = |frame: &&Frame| frame.kind == kind && frame.flags == frames::ACK;
        let answered = seen.iter().filter(answer).count();
        let earned = 50 * (usize::try_from(begun.elapsed().as_secs()).unwrap() + 1);
        assert!(answered <= BURST + earned, "{answered} answers");
    }
}

#[tokio::test]
async fn attackers_beside_it_keep_no_client_from_being_served() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&hello(&backend)).await;
    let mut calm = Client::speaking(Wire::Http2, gateway.public()).await;
    for _ in 0..10 {
        let mut attackers = Vec::new();
        for _ in 0..10 {
            let mut client = busy(&gateway).await;
            client
                .flood(&frames::encode(frames::SETTINGS, 0, 0, &[]).repeat(5000))
                .await;
            attackers.push(client);
        }
        // One connection, not replaced by others.
        for _ in 0..10 {
            calm.get(HELLO, "/").await.expect(200);
        }
        for mut attacker in attackers {
            until_goaway(&mut attacker).await;
        }
    }
}

#[tokio::test]
async fn window_given_in_crumbs_is_not_taken_without_end() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&hello(&backend)).await;
    let mut client = Frames::connect(gateway.public()).await;
    client.settled().await;
    client.setting(&[(frames::INITIAL_WINDOW_SIZE, 1)]).await;
    // Several at a time, so that they come faster than they are earned on any machine.
    for stream in (1..20).step_by(2) {
        client.get(stream, HELLO, "/?size=100000").await;
    }
    let begun = Instant::now();
    let mut crumbs = 0;
    let code = loop {
        let frame = client.any().await.expect("GOAWAY comes before the end");
        match frame.kind {
            frames::GOAWAY => break frame.number(4),
            frames::DATA => {
                assert_eq!(frame.payload.len(), 1);
                crumbs += 1;
                let more = &[0, 0, 0, 1];
                let more = frames::encode(frames::WINDOW_UPDATE, 0, frame.stream, more);
                client.flood(&more).await;
            }
            _ => {}
        }
    };
    assert_eq!(code, frames::ENHANCE_YOUR_CALM);
    let earned = 50 * (usize::try_from(begun.elapsed().as_secs()).unwrap() + 1);
    // The heads of the answers have earned some, too.
    let earned = earned + 2 * 10;
    assert!(crumbs <= BURST + earned, "{crumbs} bytes, one by one");
    others_are_served(&gateway).await;
}

#[tokio::test]
async fn client_that_answers_every_piece_with_windows_and_a_ping_is_served() {
    for config in [hello, hello_h2c] {
        let (pieces, stream) = channel();
        let stream = Arc::new(Mutex::new(Some(stream)));
        let backend = Backend::with(move |_| {
            let stream = stream.lock().unwrap().take().unwrap();
            std::future::ready(Response::new(stream))
        });
        let gateway = Gateway::start(&config(&backend)).await;
        let mut client = Frames::connect(gateway.public()).await;
        client.settled().await;
        client.get(1, HELLO, "/").await;
        let piece = pattern(100, 1);
        // The endpoint sends small pieces, each once the one before has come: none is joined to
        // another, however busy the machine is.
        for number in 0..BURST {
            pieces.send(Piece::data(piece.clone())).await.unwrap();
            let mut length = 0;
            while length < piece.len() {
                let frame = client.next().await.expect("the answer goes on");
                assert!(
                    !matches!(frame.kind, frames::GOAWAY | frames::RST_STREAM),
                    "after {number} pieces: {frame:?}"
                );
                // Windows of the stream and the connection were given back by now.
                if frame.kind == frames::DATA {
                    length += frame.payload.len();
                    client.send(frames::PING, 0, 0, &[7; 8]).await;
                }
            }
            assert_eq!(length, piece.len());
        }
        drop(pieces);
        while !client.next().await.expect("the answer ends").ends() {}
    }
}

#[tokio::test]
async fn requests_without_end_may_each_have_a_priority_and_be_let_go() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&hello(&backend)).await;
    let mut client = Frames::connect(gateway.public()).await;
    client.settled().await;
    let mut stream = 1;
    for _ in 0..15 {
        let streams: Vec<u32> = (stream..).step_by(2).take(100).collect();
        for stream in &streams {
            client.get(*stream, HELLO, "/").await;
            client.send(frames::PRIORITY, 0, *stream, &[0; 5]).await;
        }
        let mut open = streams.len();
        while open > 0 {
            let frame = client.next().await.expect("all are answered");
            assert_ne!(frame.kind, frames::GOAWAY, "after {stream}");
            open -= usize::from(frame.ends());
        }
        for stream in &streams {
            // Too late to matter.
            client.reset(*stream, frames::NO_ERROR).await;
        }
        stream += 200;
    }
    assert_eq!(backend.total(), 1500);
}

/// An endpoint that answers nothing but these frames, without end, on its first connection, and
/// properly on all others.
fn flooding(frame: impl Fn(u32) -> Vec<u8> + Send + Sync + Clone + 'static) -> RawBackend {
    RawBackend::scripted(move |number, raw| {
        let frame = frame.clone();
        async move {
            let mut server = Frames::accept(raw).await;
            while let Some(stream) = server.asked().await {
                if number == 0 {
                    server.flood(&frame(stream).repeat(FLOOD)).await;
                } else {
                    server.respond(stream, &[(":status", "200")]).await;
                }
            }
        }
    })
}

#[tokio::test]
async fn endpoint_whose_frames_carry_nothing_is_left() {
    let interim = frames::block(&[(":status", "103")]);
    let ok = frames::block(&[(":status", "200")]);
    let body = frames::encode(frames::HEADERS, frames::END_HEADERS, 1, &ok);
    for (what, frame) in [
        ("pings", frames::encode(frames::PING, 0, 0, &[0; 8])),
        ("settings", frames::encode(frames::SETTINGS, 0, 0, &[])),
        ("unknown frames", frames::encode(0x20, 0, 0, &[])),
        (
            "interim answers",
            frames::encode(frames::HEADERS, frames::END_HEADERS, 1, &interim),
        ),
        (
            "empty parts of a body",
            [&body[..], &frames::encode(frames::DATA, 0, 1, &[])].concat(),
        ),
        (
            "parts of a head",
            frames::encode(frames::CONTINUATION, 0, 1, b""),
        ),
    ] {
        let backend = flooding(move |_| frame.clone());
        let gateway = Gateway::start(&hello_h2c(&backend)).await;
        let mut client = gateway.connect().await;
        // Asked once more where that is safe.
        let post = request("POST", HELLO, "/");
        let answer = client.try_send(post).await;
        let failed = answer.is_err() || answer.is_ok_and(|answer| answer.status == 502);
        assert!(failed, "{what}");
        gateway.get(HELLO, "/").await.expect(200);
        gateway.until_idle().await;
    }
}

#[tokio::test]
async fn streams_may_be_many_and_none_comes_back() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&hello(&backend)).await;
    // The last there is, after which the connection is of no use.
    let last = (1 << 31) - 1;
    let mut client = Frames::connect(gateway.public()).await;
    client.settled().await;
    client.get(last, HELLO, "/").await;
    assert_eq!(client.outcome(last).await, Outcome::Status(200));
    // Backwards, again, and a server's own number.
    for (first, second) in [(9, 7), (9, 9), (9, 8)] {
        let mut client = Frames::connect(gateway.public()).await;
        client.settled().await;
        client.get(first, HELLO, "/").await;
        assert_eq!(client.outcome(first).await, Outcome::Status(200));
        client.get(second, HELLO, "/").await;
        let code = client.goaway().await.1;
        let fine = [frames::PROTOCOL_ERROR, frames::STREAM_CLOSED];
        assert!(fine.contains(&code), "{second} after {first}: {code}");
        client.end().await;
    }
    assert_eq!(backend.total(), 4);
    others_are_served(&gateway).await;
}
