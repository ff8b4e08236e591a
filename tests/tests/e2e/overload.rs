//! Ten times the load it has memory for: the process gives things up step by step, lives, and serves
//! as before when the load has gone.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tests::process::resident;
use tests::raw::field;
use tests::{Gateway, RawBackend, heavy, sized};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::{HELLO, hello};

const MEBIBYTE: u64 = 1024 * 1024;

/// What the gateway may have.
const LIMIT: u64 = 256 * MEBIBYTE;

/// How long it is flooded.
fn duration() -> Duration {
    sized(Duration::from_secs(4), Duration::from_secs(600))
}

/// Clients of each kind.
const CLIENTS: usize = 300;

/// An endpoint that answers `/big` without end, reads an upload as slowly as it may, and says nothing
/// to anybody else until the flood is over.
fn endpoint(over: Arc<AtomicBool>) -> RawBackend {
    RawBackend::scripted(move |_, mut connection| {
        let over = over.clone();
        async move {
            while let Some(head) = connection.next_head().await {
                if head.starts_with("GET /big ") {
                    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
                    let chunk = [b"10000\r\n", &[b'x'; 0x10000][..], b"\r\n"].concat();
                    let mut sent = connection.try_send(head).await;
                    while sent.is_ok() {
                        sent = connection.try_send(&chunk).await;
                    }
                    return;
                }
                while head.starts_with("GET /hold") && !over.load(Ordering::SeqCst) {
                    if !connection.silent_for(Duration::from_millis(20)).await {
                        return;
                    }
                }
                if head.starts_with("POST ") {
                    while !connection.exactly(1000).await.is_empty() {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    return;
                }
                let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                if connection.try_send(answer).await.is_err() {
                    return;
                }
            }
        }
    })
}

/// What came of requests.
#[derive(Debug, Default)]
struct Seen {
    served: AtomicU64,
    refused: AtomicU64,
    /// Reset after their answer had begun.
    cut: AtomicU64,
    /// Closed without an answer.
    turned_away: AtomicU64,
}

/// What a client does.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Asks for much and reads nothing of it.
    Stalls,
    /// Waits for an answer that does not come.
    Waits,
    /// Sends more than anybody takes.
    Uploads,
    /// Asks and reads.
    Asks,
}

impl Kind {
    const ALL: [Kind; 4] = [Kind::Stalls, Kind::Waits, Kind::Uploads, Kind::Asks];

    fn head(self) -> String {
        let (line, more) = match self {
            Kind::Stalls => ("GET /big", ""),
            Kind::Waits => ("GET /hold", ""),
            Kind::Uploads => ("POST /", "Content-Length: 100000000\r\n"),
            Kind::Asks => ("GET /", ""),
        };
        format!("{line} HTTP/1.1\r\nHost: {HELLO}\r\n{more}\r\n")
    }
}

/// Sends one request of that kind and notes what came of it.
async fn once(gateway: SocketAddr, kind: Kind, seen: &Seen) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(gateway).await?;
    stream.write_all(kind.head().as_bytes()).await?;
    let (mut reading, mut writing) = stream.split();
    let mut head = Vec::new();
    let answered = async {
        while !head.ends_with(b"\r\n\r\n") {
            head.push(reading.read_u8().await?);
        }
        std::io::Result::Ok(())
    };
    let uploading = async {
        if matches!(kind, Kind::Uploads) {
            while writing.write_all(&[b'x'; 0x8000]).await.is_ok() {}
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        answered = answered => answered?,
        () = uploading => {}
    }
    let head = String::from_utf8(head).unwrap();
    match &head[9..12] {
        "503" => {
            assert_eq!(
                field(&head, "tidegate-reason"),
                Some("overloaded"),
                "{head}"
            );
            assert!(field(&head, "retry-after").is_some(), "{head}");
            seen.refused.fetch_add(1, Ordering::SeqCst);
        }
        "200" if matches!(kind, Kind::Stalls) => {
            stream.ready(Interest::ERROR).await?;
            seen.cut.fetch_add(1, Ordering::SeqCst);
        }
        "200" => {
            seen.served.fetch_add(1, Ordering::SeqCst);
        }
        _ => panic!("{head}"),
    }
    Ok(())
}

async fn client(gateway: SocketAddr, kind: Kind, seen: Arc<Seen>) {
    loop {
        if once(gateway, kind, &seen).await.is_err() {
            seen.turned_away.fetch_add(1, Ordering::SeqCst);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The most that was seen of a few numbers.
#[derive(Debug, Default)]
struct Peak {
    resident: u64,
    counted: u64,
    level: u64,
}

fn config(endpoint: &RawBackend, limit: u64) -> String {
    format!(
        "gateway: {{ limits: {{ memory: {limit} }}, accessLog: {{ mode: off }} }}\n{}    \
         concurrency: 1000\n    queue: {{ depth: 100000 }}\n",
        hello(endpoint)
    )
}

/// Floods a gateway, and looks at it meanwhile.
async fn flood(gateway: &mut Gateway, seen: &Arc<Seen>) -> Peak {
    let mut clients = JoinSet::new();
    for number in 0..4 * CLIENTS {
        let kind = Kind::ALL[number % 4];
        clients.spawn(client(gateway.public(), kind, seen.clone()));
    }
    let until = Instant::now() + duration();
    let mut peak = Peak::default();
    while Instant::now() < until {
        assert!(gateway.lives(), "{peak:?} {seen:?}");
        peak.resident = peak.resident.max(resident(gateway.pid()));
        let ready = gateway.ask("/readyz").await.json();
        let memory = &ready["memory"];
        peak.counted = peak.counted.max(memory["bytes"].as_u64().unwrap());
        let level = gateway.metric("tidegate_memory_level", &[]).await;
        eprintln!(
            "{:?} {memory} {level} rss {} {seen:?}",
            until - Instant::now(),
            resident(gateway.pid())
        );
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0 to 4"
        )]
        let level = level as u64;
        peak.level = peak.level.max(level);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    clients.shutdown().await;
    peak
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_lives_through_ten_times_its_load_and_serves_afterwards() {
    let _alone = heavy().await;
    let over = Arc::new(AtomicBool::new(false));
    let endpoint = endpoint(over.clone());
    let mut gateway = Gateway::start(&config(&endpoint, LIMIT)).await;
    let seen = Arc::new(Seen::default());
    let peak = flood(&mut gateway, &seen).await;
    over.store(true, Ordering::SeqCst);
    println!("{peak:?} {seen:?}\n{}", gateway.stderr());
    let recovering = Instant::now();
    assert!(peak.resident < LIMIT, "{peak:?}");
    assert!(peak.level >= 3, "{peak:?}: it was no flood");
    assert!(seen.refused.load(Ordering::SeqCst) > 0, "{seen:?}");

    gateway
        .until_metric("tidegate_memory_level", &[], |level| level == 0.0)
        .await;
    for _ in 0..20 {
        gateway.get(HELLO, "/").await.expect(200);
    }
    gateway.until_idle().await;
    println!("{:?}\n{}", recovering.elapsed(), gateway.stderr());
}
