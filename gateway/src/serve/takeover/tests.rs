use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;

use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::wire::{DESCRIPTORS_MAX, VERSION, Wire, Word};
use super::*;
use crate::serve::drain::Phase;
use crate::serve::listeners::Group;

/// A process that runs, as far as takeovers are concerned.
struct Running {
    directory: TempDir,
    stock: Stock,
    phase: watch::Sender<Phase>,
    waiting: JoinHandle<io::Result<Option<Vec<bool>>>>,
    listeners: Vec<SocketAddr>,
    admin: SocketAddr,
}

fn free() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

impl Running {
    fn with(listeners: usize) -> Running {
        let directory = tempfile::tempdir().unwrap();
        let mut groups: Vec<_> = (0..listeners)
            .map(|_| (Kind::Listener, Group::bind(free()).unwrap()))
            .collect();
        let listeners = groups.iter().map(|(_, group)| group.address()).collect();
        for (_, group) in &mut groups {
            drop(group.seat(2).unwrap());
        }
        let admin = Group::bind_single(free()).unwrap();
        let admin_address = admin.address();
        groups.push((Kind::Admin, admin));
        let stock = Stock::new(groups);
        let hatch = Hatch::open(&directory.path().join("hatch")).unwrap();
        let phase = watch::Sender::new(Phase::Serving);
        let waiting = tokio::spawn(given(hatch, stock.clone(), phase.subscribe()));
        Running {
            directory,
            stock,
            phase,
            waiting,
            listeners,
            admin: admin_address,
        }
    }

    fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("hatch")
    }

    async fn taken_over(self) -> (Vec<bool>, TempDir) {
        let listeners = self.waiting.await.unwrap().unwrap();
        self.stock.clear();
        (listeners.unwrap(), self.directory)
    }
}

/// Gives its sockets to who comes, and accepts no more at once.
async fn given(
    hatch: Hatch,
    stock: Stock,
    phase: watch::Receiver<Phase>,
) -> io::Result<Option<Vec<bool>>> {
    let handed_over = serve(hatch, stock, phase).await?;
    Ok(handed_over.map(|handed_over| handed_over.listeners))
}

async fn begin(path: &Path) -> Takeover {
    Takeover::begin(path).await.unwrap().unwrap()
}

/// What the process that runs says to somebody who is no takeover.
async fn answer(path: &Path, sent: &[u8]) -> Word {
    use tokio::io::AsyncWriteExt;
    let mut stream = UnixStream::connect(path).await.unwrap();
    stream.write_all(sent).await.unwrap();
    Wire::new(stream, DESCRIPTORS_MAX).hear().await.unwrap()
}

fn refusal(word: Word) -> String {
    match word {
        Word::Refused { why } => why,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn sockets_change_hands_with_who_waits_in_them() {
    let running = Running::with(2);
    let (path, listeners, admin) = (running.path(), running.listeners.clone(), running.admin);
    let waits: Vec<_> = (0..20)
        .map(|_| TcpStream::connect(listeners[1]).unwrap())
        .collect();
    let mut takeover = begin(&path).await;
    let mut group = takeover.find(Kind::Listener, listeners[1]).unwrap();
    let admin = takeover.find(Kind::Admin, admin).unwrap();
    let hatch = takeover.finish().await.unwrap();
    let (handed, _directory) = running.taken_over().await;
    assert_eq!(handed, [false, true]);
    let seats = group.seat(3).unwrap();
    let accepted = seats
        .iter()
        .flatten()
        .flat_map(|socket: &TcpListener| std::iter::from_fn(|| socket.accept().ok()));
    assert_eq!(accepted.count(), waits.len());
    TcpStream::connect(admin.address()).unwrap();
    assert!(TcpStream::connect(listeners[0]).is_err());

    // And so on: the next one finds it at the same place.
    let stock = Stock::new(vec![(Kind::Listener, group)]);
    let phase = watch::Sender::new(Phase::Serving);
    let waiting = tokio::spawn(given(hatch, stock, phase.subscribe()));
    begin(&path).await.finish().await.unwrap();
    let listeners = waiting.await.unwrap().unwrap();
    assert_eq!(listeners.unwrap(), [false]);
}

type Giving = JoinHandle<io::Result<Option<HandedOver>>>;

/// A process that gives its one socket to who comes, and may accept until what is returned is dropped.
fn giving(path: &Path) -> (Giving, watch::Sender<Phase>) {
    let hatch = Hatch::open(path).unwrap();
    let stock = Stock::new(vec![(Kind::Listener, Group::bind(free()).unwrap())]);
    let phase = watch::Sender::new(Phase::Serving);
    let giving = tokio::spawn(serve(hatch, stock, phase.subscribe()));
    (giving, phase)
}

#[tokio::test]
async fn nobody_takes_over_while_the_other_may_accept() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hatch");
    let (giving, _phase) = giving(&path);
    let taking = tokio::spawn(begin(&path).await.finish());
    let HandedOver { farewell, .. } = giving.await.unwrap().unwrap().unwrap();
    for _ in 0..100 {
        tokio::task::yield_now().await;
        assert!(!taking.is_finished());
    }
    drop(farewell);
    taking.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_never_says_that_it_accepts_no_more_is_not_waited_for_long() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hatch");
    let (giving, _phase) = giving(&path);
    begin(&path).await.finish().await.unwrap();
    giving.await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn port_0_is_what_it_was_before() {
    let running = Running::with(2);
    let (path, listeners) = (running.path(), running.listeners.clone());
    let mut takeover = begin(&path).await;
    let mut found = || takeover.find(Kind::Listener, free());
    let found: Vec<_> = std::iter::from_fn(|| found()?.address().into()).collect();
    assert_eq!(found, listeners);
}

#[tokio::test]
async fn who_ends_before_it_is_ready_changes_nothing() {
    let running = Running::with(1);
    let (path, listeners) = (running.path(), running.listeners.clone());
    for _ in 0..3 {
        let mut takeover = begin(&path).await;
        drop(takeover.find(Kind::Listener, listeners[0]).unwrap());
        drop(takeover);
    }
    drop(UnixStream::connect(&path).await.unwrap());
    let mut takeover = begin(&path).await;
    let _group = takeover.find(Kind::Listener, listeners[0]).unwrap();
    takeover.finish().await.unwrap();
    assert_eq!(running.taken_over().await.0, [true]);
}

#[tokio::test]
async fn nobody_at_the_place_is_no_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hatch");
    assert!(Takeover::begin(&path).await.unwrap().is_none());
    // One that a crash left.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(Takeover::begin(&path).await.unwrap().is_none());
    Hatch::open(&path).unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_ends_before_its_sockets_are_given_leaves_everything_to_the_next() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hatch");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let killed = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        Wire::new(stream, 0).hear().await.unwrap();
    });
    assert!(Takeover::begin(&path).await.unwrap().is_none());
    killed.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_hangs_up_each_time_is_not_asked_without_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hatch");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let hangs_up = async {
        loop {
            drop(listener.accept().await.unwrap());
        }
    };
    tokio::select! {
        error = Takeover::begin(&path) => {
            let error = error.unwrap_err().to_string();
            assert!(error.contains("broke off"), "{error}");
        }
        () = hangs_up => {}
    }
}

#[tokio::test]
async fn who_ends_after_its_sockets_are_given_takes_the_place_along_for_nobody() {
    let running = Running::with(1);
    let path = running.path();
    let takeover = begin(&path).await;
    running.waiting.abort();
    drop(running.waiting.await);
    assert!(!path.exists());
    let hatch = takeover.finish().await.unwrap();
    UnixStream::connect(&path).await.unwrap();
    drop(hatch);
}

#[tokio::test]
async fn strange_words_are_refused_and_harm_nobody() {
    let running = Running::with(1);
    let path = running.path();
    refusal(answer(&path, b"GET / HTTP/1.1\r\n\r\n").await);
    refusal(answer(&path, &[b'x'; 300_000]).await);
    let why = refusal(answer(&path, b"{\"done\":{}}\n").await);
    assert!(why.contains("out of turn"), "{why}");
    let why = refusal(answer(&path, b"{\"hello\":{\"version\":9}}\n").await);
    assert!(why.contains("version 9"), "{why}");
    let hello = format!("{{\"hello\":{{\"version\":{VERSION}}}}}\n");
    assert!(matches!(
        answer(&path, hello.as_bytes()).await,
        Word::Offer { .. }
    ));
    begin(&path).await.finish().await.unwrap();
    assert_eq!(running.taken_over().await.0, [false]);
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_is_not_waited_for_long() {
    let running = Running::with(1);
    let path = running.path();
    let silent = UnixStream::connect(&path).await.unwrap();
    let why = refusal(Wire::new(silent, 0).hear().await.unwrap());
    assert!(why.contains("timed out"), "{why}");
    // It has its sockets, and never becomes ready.
    let takeover = begin(&path).await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    let error = takeover.finish().await.unwrap_err();
    assert!(matches!(&error, TakeoverError::Refused(why) if why.contains("not ready within")));
    begin(&path).await.finish().await.unwrap();
}

#[tokio::test]
async fn a_drain_takes_the_place_away() {
    let running = Running::with(1);
    let path = running.path();
    running.phase.send_replace(Phase::Announced);
    assert!(running.waiting.await.unwrap().unwrap().is_none());
    assert!(!path.exists());
}

#[tokio::test]
async fn what_is_being_closed_is_not_handed_over() {
    let running = Running::with(1);
    running.stock.clear();
    assert!(Takeover::begin(&running.path()).await.unwrap().is_none());
}
