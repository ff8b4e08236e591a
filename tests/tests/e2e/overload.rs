//! Ten times the load it has memory for: the process gives things up step by step, lives, and serves
//! as before when the load has gone.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tests::process::resident;
use tests::raw::field;
use tests::{Client, Gateway, Launch, PATIENCE, RawBackend, eventually, heavy, request, sized};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

use crate::{HELLO, hello};

const MEBIBYTE: u64 = 1024 * 1024;

/// What the gateway may have.
const LIMIT: u64 = 256 * MEBIBYTE;

/// Between two attempts of a client, two reads of a slow endpoint, two looks at a process.
const PAUSE: Duration = Duration::from_millis(20);

/// How long it is flooded.
fn duration() -> Duration {
    sized(Duration::from_secs(4), Duration::from_secs(600))
}

/// Clients of each kind.
fn clients_of_a_kind() -> usize {
    sized(80, 400)
}

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
                    let mut pause = interval(PAUSE);
                    let goes_on = || !over.load(Ordering::SeqCst);
                    while goes_on() && !connection.exactly(1000).await.is_empty() {
                        pause.tick().await;
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

#[expect(clippy::infinite_loop, reason = "it is dropped; it does not end")]
async fn client(gateway: SocketAddr, kind: Kind, seen: Arc<Seen>) {
    let mut pause = interval(PAUSE);
    loop {
        pause.tick().await;
        if once(gateway, kind, &seen).await.is_err() {
            seen.turned_away.fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn config(endpoint: &RawBackend, limit: u64) -> String {
    format!(
        "gateway: {{ limits: {{ memory: {limit}, abortLinger: 1s }}, accessLog: {{ mode: off }} }}
{}    concurrency: 1000
    queue: {{ depth: 100000 }}
",
        hello(endpoint)
    )
}

/// Floods a gateway; the most memory it had meanwhile.
async fn flood(gateway: &Gateway, seen: &Arc<Seen>) -> u64 {
    let over = Arc::new(AtomicBool::new(false));
    // A thread of its own: nothing else here can be relied on to run in time.
    let (pid, ended) = (gateway.pid(), over.clone());
    let looking = std::thread::spawn(move || {
        let mut peak = 0;
        while !ended.load(Ordering::SeqCst) {
            peak = resident(pid).max(peak);
            std::thread::park_timeout(PAUSE);
        }
        peak
    });
    let mut clients = JoinSet::new();
    for number in 0..4 * clients_of_a_kind() {
        let kind = Kind::ALL[number % 4];
        clients.spawn(client(gateway.public(), kind, seen.clone()));
    }
    let begun = Instant::now();
    let met = |count: &AtomicU64| count.load(Ordering::SeqCst) > 0;
    eventually(
        duration() + 2 * PATIENCE,
        "it gives up something",
        async || {
            let all = [&seen.refused, &seen.cut, &seen.turned_away];
            let enough = begun.elapsed() >= duration() && all.into_iter().all(met);
            enough.then_some(())
        },
    )
    .await;
    clients.shutdown().await;
    over.store(true, Ordering::SeqCst);
    looking.join().expect("it lives")
}

/// Floods the gateway and shows that it has kept within bounds, lives and recovers.
async fn overload(launch: impl FnOnce(&RawBackend) -> Launch) {
    let _alone = heavy().await;
    let over = Arc::new(AtomicBool::new(false));
    let endpoint = endpoint(over.clone());
    let gateway = launch(&endpoint).start().await;
    let seen = Arc::new(Seen::default());
    let peak = flood(&gateway, &seen).await;
    over.store(true, Ordering::SeqCst);
    assert!(peak < LIMIT, "at most {} KiB; {seen:?}", peak / 1024);
    gateway
        .until_metric("tidegate_memory_level", &[], |level| level == 0.0)
        .await;
    // Its workers have just heard of it, too, each for itself.
    eventually(PATIENCE, "it serves again, twenty in a row", async || {
        for _ in 0..20 {
            let client = Client::try_connect(gateway.public()).await;
            let answer = client.ok()?.try_send(request("GET", HELLO, "/")).await;
            if answer.ok()?.status != 200 {
                return None;
            }
        }
        Some(())
    })
    .await;
    gateway.until_idle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_lives_through_ten_times_its_load_and_serves_afterwards() {
    overload(|endpoint| Launch::new(&config(endpoint, LIMIT))).await;
}

/// A control group of version 1 below our own, with a limit of memory.
struct Group(PathBuf);

impl Group {
    /// `None` where this machine does not let us make one.
    fn new() -> Option<Group> {
        let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = groups.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            let memory = controllers.split(',').any(|name| name == "memory");
            memory.then(|| path.trim_start_matches('/'))
        })?;
        let parent = Path::new("/sys/fs/cgroup/memory").join(own);
        let group = Group(parent.join(format!("tidegate-test-{}", std::process::id())));
        std::fs::create_dir(&group.0).ok()?;
        let limit = group.0.join("memory.limit_in_bytes");
        std::fs::write(limit, LIMIT.to_string()).ok()?;
        Some(group)
    }

    /// How many processes the kernel has killed in it.
    fn killed(&self) -> u64 {
        let text = std::fs::read_to_string(self.0.join("memory.oom_control")).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        line.unwrap().parse().unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Its processes are gone; the kernel may still be counting.
        drop(std::fs::remove_dir(&self.0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limit_of_its_control_group_counts_and_the_kernel_kills_nobody() {
    let Some(group) = Group::new() else {
        eprintln!("SKIPPED: no control group with a limit of memory can be made here");
        return;
    };
    let enter = format!("echo $$ > '{}/cgroup.procs'", group.0.display());
    overload(|endpoint| Launch::new(&config(endpoint, 0)).after(&enter)).await;
    assert_eq!(group.killed(), 0);
}
