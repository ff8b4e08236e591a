//! Whole messages through every pair of protocols: what is sent is what arrives, however it is cut.
//! hyper speaks on both ends.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::sync::Notify;
use tokio::task::spawn_local;

use super::*;
use crate::http::h2::link::Link;

const HOST: &str = "a.default.example.com";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaks {
    Http1,
    Http2,
}

/// A body: pieces of these sizes, then perhaps trailers.
#[derive(Clone, Debug)]
struct Plan {
    pieces: Vec<usize>,
    /// The head says how long it is.
    announced: bool,
    trailers: bool,
    /// Its end is said behind its last piece, not with it: over HTTP/2 in an empty DATA frame.
    ends_late: bool,
    seed: u8,
}

impl Plan {
    fn bytes(&self) -> Vec<u8> {
        (0..self.pieces.iter().sum::<usize>())
            .map(|at| (at.wrapping_mul(31) >> 3).to_le_bytes()[0] ^ self.seed)
            .collect()
    }

    fn trailers(&self) -> HeaderMap {
        let mut trailers = HeaderMap::new();
        if self.trailers && !self.announced {
            trailers.insert("x-sum", HeaderValue::from_static("1"));
        }
        trailers
    }

    /// Its last frame waits until `gate` opens.
    fn body(&self, gate: Option<Arc<Gate>>) -> Cut {
        let mut bytes = Bytes::from(self.bytes());
        // Once it is as long as was announced it is over.
        let pieces = self
            .pieces
            .iter()
            .filter(|size| **size > 0 || !self.announced);
        let mut frames: Vec<_> = pieces
            .map(|size| Frame::data(bytes.split_to(*size)))
            .collect();
        let trailers = self.trailers();
        if !trailers.is_empty() {
            frames.push(Frame::trailers(trailers));
        }
        frames.reverse();
        Cut {
            left: self
                .announced
                .then(|| self.pieces.iter().sum::<usize>() as u64),
            frames,
            ends_late: self.ends_late,
            pause: false,
            gate,
        }
    }
}

/// Opens once.
#[derive(Debug, Default)]
struct Gate {
    open: std::sync::atomic::AtomicBool,
    opened: Notify,
}

impl Gate {
    fn open(&self) {
        self.open.store(true, std::sync::atomic::Ordering::Relaxed);
        self.opened.notify_one();
    }
}

/// A body in frames, last first; between two of them others have a turn.
struct Cut {
    frames: Vec<Frame<Bytes>>,
    ends_late: bool,
    left: Option<u64>,
    pause: bool,
    gate: Option<Arc<Gate>>,
}

impl Body for Cut {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.frames.len() <= 1
            && let Some(gate) = self.gate.clone()
        {
            if !gate.open.load(std::sync::atomic::Ordering::Relaxed) {
                let waker = cx.waker().clone();
                spawn_local(async move {
                    gate.opened.notified().await;
                    waker.wake();
                });
                return Poll::Pending;
            }
            self.gate = None;
        }
        self.pause = !self.pause;
        if self.pause {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let frame = self.frames.pop();
        if let (Some(left), Some(data)) = (&mut self.left, frame.as_ref().and_then(Frame::data_ref))
        {
            *left -= data.len() as u64;
        }
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && !self.ends_late
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

/// What came of a body.
#[derive(Debug, Default, PartialEq, Eq)]
struct Received {
    bytes: Vec<u8>,
    trailers: HeaderMap,
}

async fn receive(body: Incoming) -> Received {
    let whole = body.collect().await.unwrap();
    Received {
        trailers: whole.trailers().cloned().unwrap_or_default(),
        bytes: whole.to_bytes().to_vec(),
    }
}

/// Runs what hyper wants to be run.
#[derive(Clone, Copy, Debug)]
struct Local;

impl<F: Future + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        spawn_local(async move {
            future.await;
        });
    }
}

/// An endpoint that answers with `answer`, whose end waits for the request's end, and keeps what it
/// received.
async fn endpoint(
    world: &World,
    speaks: Speaks,
    capacity: usize,
    answer: Plan,
    received: Arc<Mutex<Option<Received>>>,
) {
    let (io, theirs) = Io::memory(capacity);
    let service = service_fn(move |request: Request<Incoming>| {
        let (answer, received) = (answer.clone(), received.clone());
        async move {
            let gate = Arc::new(Gate::default());
            let body = answer.body(Some(gate.clone()));
            let reading = spawn_local(async move {
                let whole = receive(request.into_body()).await;
                *received.lock().unwrap() = Some(whole);
                gate.open();
            });
            if body.frames.is_empty() {
                // An answer that is whole at once ends the exchange.
                reading.await.unwrap();
            }
            let mut response = Response::new(body);
            response
                .headers_mut()
                .insert("trailer", HeaderValue::from_static("x-sum"));
            Ok::<_, Infallible>(response)
        }
    });
    let theirs = TokioIo::new(theirs);
    spawn_local(async move {
        // Ends with the test.
        let _ended = match speaks {
            Speaks::Http1 => {
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(theirs, service)
                    .await
            }
            Speaks::Http2 => {
                hyper::server::conn::http2::Builder::new(Local)
                    .serve_connection(theirs, service)
                    .await
            }
        };
    });
    let endpoint = world.throttle.endpoints()[0].id;
    let pool = &world.worker.pool;
    match speaks {
        Speaks::Http1 => {
            let mut connection = Connection::new(io, &world.worker.buffers);
            connection.rest();
            pool.put(endpoint, Box::new(connection), world.worker.tick());
        }
        Speaks::Http2 => {
            let timer = world.worker.timers.timer();
            let quota = pool.quota(endpoint);
            let link = Link::open(io, &world.worker.clock, timer, &quota).await;
            pool.share(endpoint, link.unwrap());
        }
    }
}

/// What a client that sends `plan` receives.
async fn fetch(world: &World, speaks: Speaks, capacity: usize, plan: &Plan) -> Received {
    let (client, _served) = world.client_holding(capacity);
    let io = TokioIo::new(client);
    let request = Request::post(format!("http://{HOST}/"))
        .header("host", HOST)
        .header("te", "trailers")
        .header("trailer", "x-sum")
        .body(plan.body(None));
    let request = request.unwrap();
    let response = match speaks {
        Speaks::Http1 => {
            let (mut sender, driven) = hyper::client::conn::http1::handshake(io).await.unwrap();
            spawn_local(driven);
            sender.send_request(request).await
        }
        Speaks::Http2 => {
            let (mut sender, driven) = hyper::client::conn::http2::handshake(Local, io)
                .await
                .unwrap();
            spawn_local(driven);
            sender.send_request(request).await
        }
    };
    let response = response.unwrap();
    assert_eq!(response.status(), 200);
    receive(response.into_body()).await
}

fn plans(largest: usize) -> impl Strategy<Value = Plan> {
    let sizes = prop_oneof![
        4 => Just(0..100usize),
        3 => Just(0..20_000),
        1 => Just(0..largest),
    ];
    let pieces = sizes.prop_flat_map(|sizes| {
        // Empty ones are DATA frames too, with or without the end of the stream.
        let size = prop_oneof![1 => Just(0), 5 => sizes];
        proptest::collection::vec(size, 0..12)
    });
    (pieces, any::<[bool; 3]>(), any::<u8>()).prop_map(
        |(pieces, [announced, trailers, ends_late], seed)| Plan {
            pieces,
            announced,
            trailers,
            ends_late,
            seed,
        },
    )
}

/// Sends both bodies through and compares.
fn through(client: Speaks, upstream: Speaks, capacity: usize, up: &Plan, down: &Plan) {
    run(async {
        let protocol = match upstream {
            Speaks::Http1 => "http1",
            Speaks::Http2 => "h2c",
        };
        let world = World::new("", &format!("protocol: {protocol}"));
        let received = Arc::default();
        endpoint(
            &world,
            upstream,
            capacity,
            down.clone(),
            Arc::clone(&received),
        )
        .await;
        let got = fetch(&world, client, capacity, up).await;
        let sent_up = received.lock().unwrap().take().unwrap();
        assert!(
            got.bytes == down.bytes(),
            "{} bytes came down",
            got.bytes.len()
        );
        assert_eq!(got.trailers, down.trailers());
        assert!(
            sent_up.bytes == up.bytes(),
            "{} bytes went up",
            sent_up.bytes.len()
        );
        assert_eq!(sent_up.trailers, up.trailers());
        world.in_flight(0).await;
    });
}

fn pairs() -> impl Iterator<Item = (Speaks, Speaks)> {
    let both = [Speaks::Http1, Speaks::Http2];
    both.into_iter()
        .flat_map(move |client| both.map(|upstream| (client, upstream)))
}

fn is_long() -> bool {
    std::env::var_os("TIDEGATE_LONG").is_some()
}

//
proptest! {
    #![proptest_config(ProptestConfig {
        cases: if is_long() { 20_000 } else { 48 },
        ..ProptestConfig::default()
    })]

    #[test]
    fn bodies_arrive_as_they_were_sent_whoever_speaks_what(
        up in plans(300_000),
        down in plans(300_000),
        capacity in 1_000..200_000usize,
    ) {
        for (client, upstream) in pairs() {
            through(client, upstream, capacity, &up, &down);
        }
    }
}

/// what Go's client sends, of which a proxy once made two ends, one of them the beginning of
/// the next request.
#[test]
fn an_empty_frame_at_the_end_is_one_end() {
    for (announced, pieces) in [
        (true, vec![5]),
        (false, vec![5]),
        (false, vec![5, 0, 0]),
        (true, vec![]),
    ] {
        let plan = Plan {
            pieces,
            announced,
            trailers: false,
            ends_late: true,
            seed: 1,
        };
        for (client, upstream) in pairs() {
            through(client, upstream, 70_000, &plan, &plan);
        }
    }
}

#[test]
fn large_bodies_arrive_as_they_were_sent_whoever_speaks_what() {
    let most = if is_long() { 64 } else { 4 };
    let plan = |announced, seed| Plan {
        pieces: vec![100_003; most * 1024 * 1024 / 100_003],
        announced,
        trailers: true,
        ends_late: !announced,
        seed,
    };
    for (client, upstream) in pairs() {
        through(client, upstream, 70_000, &plan(true, 1), &plan(false, 2));
        through(client, upstream, 70_000, &plan(false, 3), &plan(true, 4));
    }
}
