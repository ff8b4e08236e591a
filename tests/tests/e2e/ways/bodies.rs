//! Bodies pass both ways, whole, in time, with their trailers, and no faster than they are read.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use hyper::{HeaderMap, Request, Response};
use tests::body::{channel, chunks, fingerprint, full, pattern};
use tests::client::{carrying, with};
use tests::process::resident;
use tests::{Backend, Body, PATIENCE, Wire, eventually, request, settled, sized, within};
use tokio::sync::{Semaphore, mpsc};

use super::{Way, on_every_way};
use crate::HELLO;

on_every_way! {
    bodies_arrive_byte_for_byte_however_they_are_cut
    bodies_of_known_length_keep_it
    trailers_pass_both_ways
    both_directions_move_at_the_same_time
    events_are_not_held_back
    early_answer_reaches_the_client_that_is_still_sending
    answer_may_end_before_its_request
    slow_reader_holds_back_the_endpoint
    slow_endpoint_holds_back_the_client
}

/// What tests send that want to see where it stops: far more than sockets and gateway may buffer.
const MUCH: usize = 64 << 20;
const PIECE: usize = 1 << 16;

fn cut(content: &Bytes, random: &mut fastrand::Rng) -> Vec<Bytes> {
    let mut pieces = Vec::new();
    let mut rest = content.clone();
    while !rest.is_empty() {
        let most = [1, 100, 16_384, 16_385, 70_000, 1 << 20][random.usize(..6)];
        pieces.push(rest.split_to(random.usize(1..=most).min(rest.len())));
    }
    pieces
}

async fn bodies_arrive_byte_for_byte_however_they_are_cut(way: Way) {
    let backend = Backend::start("one");
    let gateway = way.gateway(&backend).await;
    let mut client = way.client(&gateway).await;
    let mut random = fastrand::Rng::with_seed(11);
    for size in [0, 1, 65_535, 65_536, 300_000, sized(2_000_000, 64 << 20)] {
        let content = pattern(size, random.u64(..));
        let upload = chunks(cut(&content, &mut random), None);
        let asked = carrying(request("POST", HELLO, "/?mirror"), upload);
        let answer = client.send(asked).await.expect(200);
        assert!(answer.body == content, "{size} bytes came back changed");
        let upload = chunks(cut(&content, &mut random), None);
        let report = client
            .send(carrying(request("PUT", HELLO, "/"), upload))
            .await
            .expect(200);
        assert_eq!(
            report.json()["fingerprint"],
            fingerprint(&content),
            "{size}"
        );
    }
}

async fn bodies_of_known_length_keep_it(way: Way) {
    let backend = Backend::start("one");
    let gateway = way.gateway(&backend).await;
    let mut client = way.client(&gateway).await;
    for size in [1, 100_000] {
        let upload = carrying(request("POST", HELLO, "/"), full(pattern(size, 1)));
        let answer = client.send(upload).await.expect(200);
        assert_eq!(answer.json()["fingerprint"], fingerprint(&pattern(size, 1)));
        assert_eq!(answer.seen("content-length"), size.to_string());
        let path = format!("/?size={size}&seed=1");
        let answer = client.get(HELLO, &path).await.expect(200);
        assert_eq!(answer.header("content-length"), size.to_string());
        assert!(answer.body == pattern(size, 1));
    }
}

async fn trailers_pass_both_ways(way: Way) {
    let backend = Backend::start("one");
    let gateway = way.gateway(&backend).await;
    let mut client = way.client(&gateway).await;
    let trailers = [("x-sum".parse().unwrap(), "42".parse().unwrap())];
    let trailers: HeaderMap = trailers.into_iter().collect();
    for pieces in [vec![Bytes::from("abc")], vec![]] {
        let upload = chunks(pieces, Some(trailers.clone()));
        let mut asked = with(request("POST", HELLO, "/?trailers"), "te", "trailers");
        if way.client == Wire::Http1 {
            asked = with(with(asked, "connection", "te"), "trailer", "x-sum");
        }
        let answer = client.send(carrying(asked, upload)).await.expect(200);
        assert_eq!(answer.json()["trailers"]["x-sum"], "42", "{answer:?}");
        assert_eq!(answer.trailers["x-sum"], fingerprint(&answer.body));
        assert_eq!(answer.trailers["x-end"], "yes");
    }
    // The connection goes on behind them.
    client.get(HELLO, "/").await.expect(200);
}

async fn both_directions_move_at_the_same_time(way: Way) {
    let backend = Backend::start("one");
    let gateway = way.gateway(&backend).await;
    let mut client = way.client(&gateway).await;
    let (sender, stream) = channel();
    let upload = carrying(request("POST", HELLO, "/?mirror"), stream);
    sender.send(Frame::data(Bytes::from("0"))).await.unwrap();
    let mut answer = within("a head", client.open(upload))
        .await
        .unwrap()
        .into_body();
    for number in 1..50 {
        let echo = within("an echo", answer.frame()).await.unwrap().unwrap();
        assert_eq!(echo.into_data().unwrap(), (number - 1).to_string());
        sender
            .send(Frame::data(number.to_string().into()))
            .await
            .unwrap();
    }
    drop(sender);
    let rest = within("the end", answer.collect()).await.unwrap();
    assert_eq!(rest.to_bytes(), "49");
}

async fn events_are_not_held_back(way: Way) {
    let (events, stream) = channel();
    let stream = Arc::new(Mutex::new(Some(stream)));
    let backend = Backend::with(move |_| {
        let stream = stream.lock().unwrap().take().unwrap();
        let response = Response::builder().header("content-type", "text/event-stream");
        std::future::ready(response.body(stream).unwrap())
    });
    let gateway = way.gateway(&backend).await;
    let mut client = way.client(&gateway).await;
    // The head comes before there is any event, each event before there is the next.
    let asked = client.open(request("GET", HELLO, "/"));
    let mut body = within("the head", asked).await.unwrap().into_body();
    for number in 0..20 {
        let event = Bytes::from(format!("data: {number}\n\n"));
        events.send(Frame::data(event.clone())).await.unwrap();
        let frame = within("an event", body.frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), event);
    }
    drop(events);
    let rest = within("the end", body.collect()).await.unwrap();
    assert_eq!(rest.to_bytes(), "");
}

async fn early_answer_reaches_the_client_that_is_still_sending(way: Way) {
    let backend = Backend::with(|_| async {
        let answer = Response::builder().status(413).header("x-early", "yes");
        answer.body(full("enough")).unwrap()
    });
    let gateway = way.gateway(&backend).await;
    let mut client = way.client(&gateway).await;
    let (sender, stream) = channel();
    sender.send(Frame::data(pattern(1000, 1))).await.unwrap();
    let asked = carrying(request("POST", HELLO, "/"), stream);
    // The upload is never ended.
    let answer = client.send(asked).await.expect(413);
    assert_eq!(
        (answer.header("x-early"), answer.text()),
        ("yes", "enough".to_owned())
    );
    drop(sender);
    gateway.until_idle().await;
}

async fn answer_may_end_before_its_request(way: Way) {
    // Answers at once and reads on.
    let backend = Backend::with(|request: Request<Incoming>| async {
        tokio::spawn(request.into_body().collect());
        Response::new(full("done"))
    });
    let gateway = way.gateway(&backend).await;
    for _ in 0..5 {
        let mut client = way.client(&gateway).await;
        let (sender, stream) = channel();
        let asked = carrying(request("POST", HELLO, "/"), stream);
        sender.send(Frame::data(pattern(1000, 1))).await.unwrap();
        let answer = client.send(asked).await.expect(200);
        assert_eq!(answer.text(), "done");
        // Whether anybody still wants the rest or not.
        drop(sender.send(Frame::data(pattern(1000, 1))).await);
        drop(sender);
        gateway.until_idle().await;
        if way.client == Wire::Http2 {
            client.get(HELLO, "/").await.expect(200);
        }
    }
}

/// A body of [`MUCH`], and how much of it was taken.
fn much() -> (Body, Arc<AtomicUsize>) {
    let (sender, body): (mpsc::Sender<Frame<Bytes>>, _) = channel();
    let taken = Arc::new(AtomicUsize::new(0));
    let count = taken.clone();
    let piece = pattern(PIECE, 1);
    tokio::spawn(async move {
        while count.load(Ordering::SeqCst) < MUCH {
            if sender.send(Frame::data(piece.clone())).await.is_err() {
                return;
            }
            count.fetch_add(PIECE, Ordering::SeqCst);
        }
    });
    (body, taken)
}

/// Whether a body is what [`much`] makes.
async fn is_much(mut body: Incoming) -> bool {
    let piece = pattern(PIECE, 1);
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let mut data = frame.unwrap().into_data().unwrap();
        while !data.is_empty() {
            let rest = &piece[length % PIECE..];
            let part = data.split_to(rest.len().min(data.len()));
            if part != rest[..part.len()] {
                return false;
            }
            length += part.len();
        }
    }
    length == MUCH
}

/// How much of [`MUCH`] may be on the way when nobody reads: with HTTP/1.1 on a side also what
/// the kernel takes.
fn most(way: Way) -> usize {
    match (way.client, way.endpoint) {
        (Wire::Http2, Wire::Http2) => 4 << 20,
        _ => MUCH / 2,
    }
}

async fn slow_reader_holds_back_the_endpoint(way: Way) {
    let taken = Arc::new(Mutex::new(None));
    let slot = taken.clone();
    let backend = Backend::with(move |_| {
        let (body, taken) = much();
        *slot.lock().unwrap() = Some(taken);
        std::future::ready(Response::new(body))
    });
    let gateway = way.gateway(&backend).await;
    let before = resident(gateway.pid());
    let mut client = way.client(&gateway).await;
    let asked = client.open(request("GET", HELLO, "/"));
    let answer = within("a head", asked).await.unwrap();
    let taken = taken.lock().unwrap().take().unwrap();
    let count = || taken.load(Ordering::SeqCst);
    let held = settled("the endpoint is held back", count).await;
    assert!(held < most(way), "{held} bytes were swallowed");
    assert!(
        resident(gateway.pid()) < before + (16 << 20),
        "the gateway swells"
    );
    assert!(is_much(answer.into_body()).await, "it came changed");
}

async fn slow_endpoint_holds_back_the_client(way: Way) {
    let gate = Arc::new(Semaphore::new(0));
    let opened = gate.clone();
    let backend = Backend::with(move |request: Request<Incoming>| {
        let gate = gate.clone();
        async move {
            gate.acquire().await.unwrap().forget();
            let status = if is_much(request.into_body()).await {
                200
            } else {
                500
            };
            Response::builder()
                .status(status)
                .body(full("read"))
                .unwrap()
        }
    });
    let gateway = way.gateway(&backend).await;
    let before = resident(gateway.pid());
    let mut client = way.client(&gateway).await;
    let (body, taken) = much();
    let sending = tokio::spawn(async move {
        client
            .try_send(carrying(request("POST", HELLO, "/"), body))
            .await
    });
    let count = || taken.load(Ordering::SeqCst);
    let held = settled("the client is held back", count).await;
    assert!(held < most(way), "{held} bytes were swallowed");
    assert!(
        resident(gateway.pid()) < before + (16 << 20),
        "the gateway swells"
    );
    opened.add_permits(1);
    eventually(4 * PATIENCE, "the rest is read", async || {
        sending.is_finished().then_some(())
    })
    .await;
    sending.await.unwrap().unwrap().expect(200);
}
