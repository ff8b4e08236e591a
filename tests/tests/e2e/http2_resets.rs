//! Who takes back most of what he asks, or makes us do so, is left, and has cost little by then
//!

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tests::frames::{self, Frames, Outcome, get};
use tests::{Backend, Client, Gateway, PATIENCE, RawBackend, Wire, eventually};

use crate::{HELLO, hello, hello_h2c};

const BEGIN: u8 = frames::END_STREAM | frames::END_HEADERS;

/// Resets of mostly reset streams that are borne within half a minute.
const RESETS: u32 = 200;

async fn connected(gateway: &Gateway) -> Frames {
    let mut client = Frames::connect(gateway.public()).await;
    client.settled().await;
    client
}

async fn others_are_served(gateway: &Gateway) {
    let mut calm = Client::speaking(Wire::Http2, gateway.public()).await;
    calm.get(HELLO, "/").await.expect(200);
}

/// Waits until all that was sent has been looked at; `false` if we are told to go instead.
async fn heard(client: &mut Frames) -> bool {
    client
        .flood(&frames::encode(frames::PING, 0, 0, &[9; 8]))
        .await;
    loop {
        match client.any().await {
            Some(frame) if frame.kind == frames::PING && frame.flags == frames::ACK => return true,
            Some(frame) if frame.kind == frames::GOAWAY => {
                assert_eq!(frame.number(4), frames::ENHANCE_YOUR_CALM);
                return false;
            }
            Some(_) => {}
            None => panic!("GOAWAY comes before the end"),
        }
    }
}

#[tokio::test]
async fn client_that_resets_without_end_is_left() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&hello(&backend)).await;
    let mut client = connected(&gateway).await;
    let block = frames::block(&get(HELLO, "/?hold"));
    let attack: Vec<u8> = (1..5_000)
        .step_by(2)
        .flat_map(|stream| {
            let cancel = frames::CANCEL.to_be_bytes();
            let mut both = frames::encode(frames::HEADERS, BEGIN, stream, &block);
            both.extend(frames::encode(frames::RST_STREAM, 0, stream, &cancel));
            both
        })
        .collect();
    client.flood(&attack).await;
    assert_eq!(client.goaway().await.1, frames::ENHANCE_YOUR_CALM);
    client.end().await;
    gateway.until_idle().await;
    assert!(backend.total() <= u64::from(RESETS));
    others_are_served(&gateway).await;
}

#[tokio::test]
async fn client_that_resets_one_by_one_is_left_too() {
    for config in [hello, hello_h2c] {
        let backend = Backend::start("one");
        let gateway = Gateway::start(&config(&backend)).await;
        let mut client = connected(&gateway).await;
        let mut resets = 0;
        loop {
            let stream = 2 * resets + 1;
            client.get(stream, HELLO, "/?hold").await;
            // Never more than one that was not taken up.
            let asked = u64::from(resets) + 1;
            eventually(PATIENCE, "the endpoint is asked", async || {
                (backend.total() == asked).then_some(())
            })
            .await;
            client.reset(stream, frames::CANCEL).await;
            resets += 1;
            assert!(resets < 20 * RESETS, "it is never left");
            if !heard(&mut client).await {
                break;
            }
        }
        // One that took its time would not count, nor do those of more than half a minute ago.
        assert!(resets > RESETS, "{resets}");
        let why = [("why", "resets")];
        assert_eq!(
            gateway.metric("tidegate_http2_closed_total", &why).await,
            1.0
        );
        client.end().await;
        gateway.until_idle().await;
        assert_eq!(backend.total(), u64::from(resets));
        others_are_served(&gateway).await;
    }
}

#[tokio::test]
async fn client_that_lets_go_of_less_than_it_takes_is_served() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&hello(&backend)).await;
    let mut client = connected(&gateway).await;
    let mut stream = 1;
    for round in 0..RESETS + 50 {
        client.get(stream, HELLO, "/").await;
        assert_eq!(client.outcome(stream).await, Outcome::Status(200));
        // A few more, so that it is less in any half a minute, wherever that begins.
        if round.is_multiple_of(10) {
            stream += 2;
            client.get(stream, HELLO, "/").await;
            assert_eq!(client.outcome(stream).await, Outcome::Status(200));
        }
        client.get(stream + 2, HELLO, "/?hold").await;
        client.reset(stream + 2, frames::CANCEL).await;
        assert!(heard(&mut client).await, "at {stream}");
        stream += 4;
    }
    // Answered streams may be reset as often as one likes.
    for _ in 0..2 * RESETS {
        client.get(stream, HELLO, "/").await;
        assert_eq!(client.outcome(stream).await, Outcome::Status(200));
        client.reset(stream, frames::CANCEL).await;
        stream += 2;
    }
    assert!(heard(&mut client).await);
}

/// Frames after a request's head that make us reset its stream.
fn provocations() -> Vec<(&'static str, bool, Vec<u8>)> {
    let on = |kind, flags, payload: &[u8]| frames::encode(kind, flags, 1, payload);
    let end = frames::END_STREAM;
    let window = on(frames::WINDOW_UPDATE, 0, &[0x7f, 0xff, 0xff, 0xff]);
    let trailers = frames::block(&[("x-late", "1")]);
    vec![
        ("no window", true, on(frames::WINDOW_UPDATE, 0, &[0; 4])),
        ("too much window", true, window.repeat(2)),
        ("a body after its end", true, on(frames::DATA, 0, b"x")),
        (
            "a head after its end",
            true,
            on(frames::HEADERS, BEGIN, &trailers),
        ),
        (
            "trailers that do not end",
            false,
            on(frames::HEADERS, frames::END_HEADERS, &trailers),
        ),
        (
            "a body of another length",
            false,
            on(frames::DATA, end, b"longer than it says"),
        ),
        (
            "a priority of itself",
            true,
            on(frames::PRIORITY, 0, &[0, 0, 0, 1, 0]),
        ),
    ]
}

#[tokio::test]
async fn client_that_makes_us_reset_without_end_is_left() {
    for (what, whole, frame) in provocations() {
        let backend = Backend::start("one");
        let gateway = Gateway::start(&hello(&backend)).await;
        let mut client = connected(&gateway).await;
        let mut fields = get(HELLO, "/?hold").to_vec();
        if !whole {
            fields[0].1 = "POST";
            fields.push(("content-length", "5"));
        }
        let flags = if whole { BEGIN } else { frames::END_HEADERS };
        let block = frames::block(&fields);
        let attack: Vec<u8> = (1_u32..5_000)
            .step_by(2)
            .flat_map(|stream| {
                let mut both = frames::encode(frames::HEADERS, flags, stream, &block);
                let after = both.len();
                both.extend(&frame);
                // To this stream, also where a priority names it.
                for start in frame_starts(&frame) {
                    let at = after + start + 5;
                    both[at..at + 4].copy_from_slice(&stream.to_be_bytes());
                }
                if what == "a priority of itself" {
                    let at = after + 9;
                    both[at..at + 4].copy_from_slice(&stream.to_be_bytes());
                }
                both
            })
            .collect();
        client.flood(&attack).await;
        let code = client.goaway().await.1;
        let expected = match what {
            "too much window" | "a body of another length" | "a priority of itself" => {
                frames::ENHANCE_YOUR_CALM
            }
            // Taken for faults of the connection, the first time.
            _ => frames::PROTOCOL_ERROR,
        };
        assert_eq!(code, expected, "{what}");
        client.end().await;
        gateway.until_idle().await;
        assert!(backend.total() <= 2 * u64::from(RESETS), "{what}");
        let left = async || (backend.running() == 0).then_some(());
        eventually(PATIENCE, "the endpoint hears of it", left).await;
        others_are_served(&gateway).await;
    }
}

/// Where frames begin in these bytes.
fn frame_starts(bytes: &[u8]) -> Vec<usize> {
    let mut starts = vec![0];
    loop {
        let at = starts[starts.len() - 1];
        let length = u32::from_be_bytes([0, bytes[at], bytes[at + 1], bytes[at + 2]]);
        let next = at + 9 + length as usize;
        if next >= bytes.len() {
            return starts;
        }
        starts.push(next);
    }
}

#[tokio::test]
async fn reset_frees_a_slot_only_when_its_endpoint_was_told() {
    // Over HTTP/1.1 the endpoint finishes what it began; over HTTP/2 it is told to stop.
    let stubborn = Backend::stubborn("one");
    let one = "    concurrency: 1\n    queue: { depth: 1000 }\n";
    let gateway = Gateway::start(&(hello(&stubborn) + one)).await;
    let mut client = connected(&gateway).await;
    for stream in (1..100).step_by(2) {
        client.get(stream, HELLO, "/?sleep=5").await;
        client.reset(stream, frames::CANCEL).await;
        assert!(heard(&mut client).await);
    }
    client.get(101, HELLO, "/").await;
    assert_eq!(client.outcome(101).await, Outcome::Status(200));
    gateway.until_idle().await;
    assert_eq!(stubborn.peak(), 1);

    let (answers, peak) = (Arc::new(AtomicBool::new(true)), Arc::default());
    let told = counting(&answers, &peak);
    let gateway = Gateway::start(&(hello_h2c(&told) + one)).await;
    let mut client = connected(&gateway).await;
    // There is a connection to the endpoint from here on.
    client.get(1, HELLO, "/").await;
    assert_eq!(client.outcome(1).await, Outcome::Status(200));
    answers.store(false, Ordering::SeqCst);
    for stream in (3..100).step_by(2) {
        client.get(stream, HELLO, "/").await;
        client.reset(stream, frames::CANCEL).await;
        assert!(heard(&mut client).await);
    }
    answers.store(true, Ordering::SeqCst);
    client.get(101, HELLO, "/").await;
    assert_eq!(client.outcome(101).await, Outcome::Status(200));
    assert_eq!(peak.load(Ordering::SeqCst), 1);
}

/// An HTTP/2 endpoint that counts what it was asked and not yet told to stop, frame by frame; it
/// answers while it is to.
fn counting(answers: &Arc<AtomicBool>, peak: &Arc<AtomicUsize>) -> RawBackend {
    let (answers, peak) = (answers.clone(), peak.clone());
    RawBackend::scripted(move |_, raw| {
        let (answers, peak) = (answers.clone(), peak.clone());
        async move {
            let mut server = Frames::accept(raw).await;
            let mut open = HashSet::new();
            while let Some(frame) = server.next().await {
                match frame.kind {
                    frames::HEADERS => {
                        open.insert(frame.stream);
                        peak.fetch_max(open.len(), Ordering::SeqCst);
                        if answers.load(Ordering::SeqCst) {
                            server.respond(frame.stream, &[(":status", "200")]).await;
                            open.remove(&frame.stream);
                        }
                    }
                    frames::RST_STREAM => drop(open.remove(&frame.stream)),
                    _ => {}
                }
            }
        }
    })
}
