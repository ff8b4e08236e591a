//! Thousands of held requests, with and without bodies, cost what is said in advance: the process and
//! the kernel's buffers for it stay within a fixed size, and whoever goes beyond a bound hears so.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http_body_util::BodyExt as _;
use hyper::Response;
use tests::body::empty;
use tests::client::with;
use tests::process::{raise_descriptor_limit, resident};
use tests::raw::field;
use tests::{Backend, Client, Gateway, PATIENCE, Wire, eventually, heavy, request, settled, sized};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::{HELLO, hello};

const MEBIBYTE: u64 = 1 << 20;
const UPLOAD: usize = 1 << 20;

/// Streams of a client's HTTP/2 connection.
const STREAMS: usize = 100;

/// Requests without a body, over HTTP/1.1 and over HTTP/2, and uploads.
struct Crowd {
    plain: usize,
    streams: usize,
    uploads: usize,
}

impl Crowd {
    fn all(&self) -> usize {
        self.plain + self.streams + self.uploads
    }
}

/// What comes of a request: its status, and its reason if it is ours.
type Came = (u16, Option<String>);

/// Sends one request over a connection of its own; of an upload as much as is taken until there is
/// an answer, which is added to `taken`. What the client's own kernel keeps of it is little.
async fn over_http1(
    gateway: SocketAddr,
    upload: bool,
    fields: &str,
    few: Arc<Semaphore>,
    taken: Arc<AtomicUsize>,
) -> Came {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_send_buffer_size(64 << 10).unwrap();
    let connecting = few.acquire().await.unwrap();
    let mut stream = socket.connect(gateway).await.unwrap();
    drop(connecting);
    let (line, more) = match upload {
        true => ("POST /", format!("Content-Length: {UPLOAD}\r\n")),
        false => ("GET /", fields.to_owned()),
    };
    let head = format!("{line} HTTP/1.1\r\nHost: {HELLO}\r\n{more}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut reading, mut writing) = stream.split();
    let answered = async {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(reading.read_u8().await.expect("an answer"));
        }
        String::from_utf8(head).unwrap()
    };
    let uploading = async {
        if upload {
            let chunk = vec![b'x'; 1 << 14];
            for _ in 0..UPLOAD / chunk.len() {
                if writing.write_all(&chunk).await.is_err() {
                    break;
                }
                taken.fetch_add(chunk.len(), Ordering::SeqCst);
            }
        }
        std::future::pending::<()>().await;
    };
    let head = tokio::select! {
        head = answered => head,
        () = uploading => unreachable!("it waits for the answer"),
    };
    let reason = field(&head, "tidegate-reason").map(str::to_owned);
    assert_eq!(
        reason.is_some(),
        field(&head, "retry-after").is_some(),
        "{head}"
    );
    (head[9..12].parse().unwrap(), reason)
}

/// Sends a hundred requests over one connection, with a field of that value.
async fn over_http2(gateway: SocketAddr, filler: String) -> Vec<Came> {
    let client = Client::speaking(Wire::Http2, gateway).await;
    let mut streams = JoinSet::new();
    for _ in 0..STREAMS {
        let mut stream = client.sibling();
        let asked = with(request("GET", HELLO, "/"), "x-filler", &filler);
        streams.spawn(async move {
            let answer = stream.try_send(asked).await.unwrap();
            let reason = answer.headers.get("tidegate-reason");
            let reason = reason.map(|reason| reason.to_str().unwrap().to_owned());
            (answer.status, reason)
        });
    }
    streams.join_all().await
}

/// What is taken of uploads is added to `taken`.
fn send(gateway: SocketAddr, crowd: &Crowd, taken: &Arc<AtomicUsize>) -> JoinSet<Vec<Came>> {
    let mut sent = JoinSet::new();
    // So many connections at once at most: more than wait to be accepted would be tried again by the
    // kernel after a second.
    let few = Arc::new(Semaphore::new(100));
    for number in 0..crowd.plain + crowd.uploads {
        let upload = number < crowd.uploads;
        let (few, taken) = (few.clone(), taken.clone());
        sent.spawn(async move { vec![over_http1(gateway, upload, "", few, taken).await] });
    }
    for _ in 0..crowd.streams / STREAMS {
        sent.spawn(over_http2(gateway, String::new()));
    }
    sent
}

/// What the kernel keeps for TCP on this machine: of both ends of each connection.
fn kernel() -> usize {
    let text = std::fs::read_to_string("/proc/net/sockstat").unwrap();
    let line = text.lines().find(|line| line.starts_with("TCP:")).unwrap();
    let pages = line.split("mem ").nth(1).unwrap().trim();
    pages.parse::<usize>().unwrap() * 4096
}

fn config(backend: &Backend, held: usize, bytes: u64) -> String {
    format!(
        "gateway:
  limits: {{ held: {held}, heldBytes: {bytes} }}
  accessLog: {{ mode: off }}
{}    concurrency: 20
    queue: {{ depth: 100000 }}
",
        hello(backend)
    )
}

/// Reads requests and answers them once there are permits.
fn behind(open: Arc<Semaphore>) -> Backend {
    Backend::with(move |request| {
        let gate = open.clone();
        async move {
            drop(gate.acquire().await.unwrap());
            drop(request.into_body().collect().await);
            Response::new(empty())
        }
    })
}

/// Waits until each of so many requests waits, runs, or was refused.
async fn until_settled(gateway: &Gateway, count: usize) {
    eventually(4 * PATIENCE, "all wait or are refused", async || {
        let metrics = gateway.metrics().await;
        let sum = |name, labels: &[(&str, &str)]| metrics.sum(name, labels).unwrap_or_default();
        let waiting = sum("tidegate_waiting", &[]) + sum("tidegate_inflight", &[]);
        let refused = sum("tidegate_refused_total", &[("reason", "queue_full")]);
        (waiting + refused == count as f64).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_held_requests_and_uploads_stay_within_a_fixed_size() {
    let _alone = heavy().await;
    raise_descriptor_limit();
    let crowd = Crowd {
        plain: sized(1_200, 12_000),
        streams: sized(800, 8_000),
        uploads: sized(400, 4_000),
    };
    // Three quarters of the requests may wait, and half of the uploads.
    let held = crowd.all() / 4 * 3;
    let bytes = crowd.uploads as u64 / 2 * 65_536;
    let open = Arc::new(Semaphore::new(0));
    let backend = behind(open.clone());
    let gateway = Gateway::start(&config(&backend, held, bytes)).await;
    let (process, buffers) = (resident(gateway.pid()), kernel());
    let taken = Arc::new(AtomicUsize::new(0));
    let sent = send(gateway.public(), &crowd, &taken);
    until_settled(&gateway, crowd.all()).await;
    // What comes of uploads has come. The kernel's count is of the whole machine, and does not rest.
    let pid = gateway.pid();
    settled("nothing more is taken", || taken.load(Ordering::SeqCst)).await;
    let grown = resident(pid) - process;
    let kept = kernel().saturating_sub(buffers) as u64;
    // For each request its connection and its place, in builds that are not optimised; for each
    // upload that may wait what it is charged, and six times that in buffers of the kernel at both
    // ends, which counts them by the room they take.
    let most = held as u64 * (32 << 10) + 7 * bytes;
    println!(
        "{} MiB of process, {} MiB of kernel, {} MiB allowed",
        grown / MEBIBYTE,
        kept / MEBIBYTE,
        most / MEBIBYTE
    );
    assert!(grown + kept < most, "{grown} + {kept} of {most} bytes");
    open.add_permits(Semaphore::MAX_PERMITS >> 1);
    let came: Vec<Came> = sent.join_all().await.into_iter().flatten().collect();
    let served = came.iter().filter(|(status, _)| *status == 200).count();
    let full = (503, Some("queue_full".to_owned()));
    let turned_away = came.iter().filter(|came| **came == full).count();
    assert_eq!(served + turned_away, crowd.all());
    assert!(
        served >= held / 2,
        "{served} served of {held} that may wait"
    );
    assert!(turned_away > 0);
    gateway.until_idle().await;
}

/// What the one head of a request over HTTP/1.1 and over HTTP/2 is filled with.
const HEADS: [usize; 2] = [60_000, 30_000];

/// Sends requests without a body whose heads are large, half of them over each protocol; what comes of
/// them.
fn send_heads(gateway: SocketAddr, count: usize) -> JoinSet<Vec<Came>> {
    let mut sent = JoinSet::new();
    let few = Arc::new(Semaphore::new(100));
    for _ in 0..count / 2 {
        let few = few.clone();
        sent.spawn(async move {
            let filler = format!("x-filler: {}\r\n", "x".repeat(HEADS[0]));
            vec![over_http1(gateway, false, &filler, few, Arc::default()).await]
        });
    }
    for _ in 0..count / 2 / STREAMS {
        sent.spawn(over_http2(gateway, "x".repeat(HEADS[1])));
    }
    sent
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_heads_of_held_requests_stay_within_the_bound_of_bytes() {
    let _alone = heavy().await;
    raise_descriptor_limit();
    let count = sized(800, 16_000);
    let heads: usize = HEADS.iter().map(|head| count / 2 * head).sum();
    // A tenth of them may stay.
    let bytes = heads as u64 / 10;
    let open = Arc::new(Semaphore::new(0));
    let backend = behind(open.clone());
    let gateway = Gateway::start(&config(&backend, count, bytes)).await;
    let process = resident(gateway.pid());
    let sent = send_heads(gateway.public(), count);
    until_settled(&gateway, count).await;
    let waiting = gateway.metric("tidegate_waiting", &[]).await;
    let smallest = HEADS.iter().min().copied().unwrap();
    assert!(
        waiting <= heads as f64 / 10.0 / (smallest - 4096) as f64,
        "{waiting} wait"
    );
    let grown = resident(gateway.pid()) - process;
    // What is charged; for each request, also those that were refused, a connection; and buffers that
    // workers keep for later.
    let most = bytes + count as u64 * (32 << 10) + 16 * MEBIBYTE;
    println!(
        "{waiting} of {count} wait; {} of {} MiB allowed, {} MiB of heads",
        grown / MEBIBYTE,
        most / MEBIBYTE,
        heads as u64 / MEBIBYTE
    );
    assert!(grown < most, "{grown} of {most} bytes");
    open.add_permits(Semaphore::MAX_PERMITS >> 1);
    let came: Vec<Came> = sent.join_all().await.into_iter().flatten().collect();
    let served = came.iter().filter(|(status, _)| *status == 200).count();
    let full = (503, Some("queue_full".to_owned()));
    let turned_away = came.iter().filter(|came| **came == full).count();
    assert_eq!(served + turned_away, count);
    assert!(served > 0 && turned_away > count / 2, "{served} served");
    gateway.until_idle().await;
}
