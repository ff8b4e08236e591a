//! Asks a starting process whether it is ready.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use config::revision::Readiness;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::scaler::ask;
use crate::scaler::patience::RoundTrips;

/// Between probes while nobody listens: a refused connection costs some ten microseconds, and
/// requests wait.
const REFUSED_PAUSE: Duration = Duration::from_millis(2);
/// After this long the pause grows: a slow start gains nothing from a quick notice.
const EAGER_FOR: Duration = Duration::from_secs(5);
/// Between probes of a process that answers, but not as it should.
const ANSWERED_PAUSE: Duration = Duration::from_millis(10);
const PAUSE_MOST: Duration = Duration::from_millis(100);
/// How long a connection or an answer may take, at least.
const PATIENCE: Duration = Duration::from_secs(1);
/// Who asks.
const AGENT: &str = "tidegate-readiness";

/// When an endpoint came to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Proof {
    /// It took a connection for the first time.
    pub(super) accepted: Instant,
    /// It answered as asked.
    pub(super) ready: Instant,
}

/// How far a process has come that is not ready: what the last probe that connected was answered.
#[derive(Debug, Default)]
pub(super) struct Seen(AtomicU16);

/// It never took a connection; or it did, and has answered nothing; else a status.
const NOTHING: u16 = 0;
const CONNECTION: u16 = 1;

impl Seen {
    /// What is missing, for clients.
    pub(super) fn lacks(&self) -> String {
        match self.0.load(Ordering::Relaxed) {
            NOTHING => "it does not listen on its port".to_owned(),
            CONNECTION => "its readiness check is not answered".to_owned(),
            status => format!("its readiness check is answered {status}"),
        }
    }
}

/// Returns once the process at `address` is ready. The caller bounds the time.
pub(super) async fn until_ready(address: SocketAddr, readiness: &Readiness, seen: &Seen) -> Proof {
    let start = Instant::now();
    let mut accepted = None;
    let mut pause = REFUSED_PAUSE;
    let mut trips = RoundTrips::default();
    loop {
        let connected = timeout(PATIENCE, connect(address)).await;
        if let Ok(Ok(stream)) = connected {
            let accepted = *accepted.get_or_insert_with(|| {
                pause = ANSWERED_PAUSE;
                Instant::now()
            });
            let status = ask(stream, address, readiness, &mut trips).await;
            let known = status.unwrap_or(CONNECTION);
            seen.0.store(known, Ordering::Relaxed);
            if matches!(status, Some(200..=399)) {
                let ready = Instant::now();
                return Proof { accepted, ready };
            }
        }
        sleep(pause).await;
        if accepted.is_some() || start.elapsed() >= EAGER_FOR {
            pause = (pause * 3 / 2).min(PAUSE_MOST);
        }
    }
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    // Where nobody listens the kernel may pick the very port as the source port, and connect the
    // socket to itself.
    if stream.local_addr()? == address {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok(stream)
}

/// The status that the readiness check is answered; where none is asked, a connection is as good.
async fn ask(
    stream: TcpStream,
    address: SocketAddr,
    readiness: &Readiness,
    trips: &mut RoundTrips,
) -> Option<u16> {
    match readiness {
        Readiness::Tcp => Some(200),
        Readiness::Http { path, protocol } => {
            let asking = ask::get(stream, address, path, AGENT, *protocol);
            let asked = Instant::now();
            let status = timeout(trips.patience(PATIENCE), asking).await;
            match &status {
                Ok(_) => trips.measured(asked.elapsed()),
                Err(_late) => trips.timed_out(),
            }
            status.ok()?.ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use config::revision::Protocol;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers one connection after the other with these bytes, a few at a time, then with the last.
    async fn serve(listener: TcpListener, answers: &'static [&'static str]) {
        let mut answers = answers.iter().copied().cycle();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 1024];
            let count = stream.read(&mut head).await.unwrap_or(0);
            assert!(count == 0 || head.starts_with(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:"));
            for part in answers.next().unwrap().as_bytes().chunks(7) {
                stream.write_all(part).await.unwrap_or(());
                stream.flush().await.unwrap_or(());
                tokio::task::yield_now().await;
            }
        }
    }

    async fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    fn healthz() -> Readiness {
        Readiness::Http {
            path: "/healthz".to_owned(),
            protocol: Protocol::Http1,
        }
    }

    #[tokio::test]
    async fn a_listener_is_ready_by_tcp() {
        let (_listener, address) = listener().await;
        let proof = until_ready(address, &Readiness::Tcp, &Seen::default()).await;
        assert!(proof.accepted <= proof.ready);
    }

    #[tokio::test]
    async fn nobody_is_ready_where_nobody_listens() {
        let (listener, address) = listener().await;
        drop(listener);
        let seen = Seen::default();
        let probe = until_ready(address, &Readiness::Tcp, &seen);
        timeout(Duration::from_millis(50), probe).await.unwrap_err();
        assert_eq!(seen.lacks(), "it does not listen on its port");
    }

    #[tokio::test]
    async fn http_is_ready_at_the_first_success() {
        let (listener, address) = listener().await;
        let answers = &[
            "HTTP/1.1 503 Service Unavailable\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\nA: b\r\n\r\n",
            "nonsense\r\n\r\n",
            "",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 500 Oops\r\n\r\n",
            "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 302 Found\r\nA: b\r\n\r\nbody",
        ];
        let server = tokio::spawn(serve(listener, answers));
        let proof = until_ready(address, &healthz(), &Seen::default()).await;
        assert!(proof.accepted < proof.ready);
        server.abort();
    }

    #[tokio::test]
    async fn what_a_process_lacks_is_the_last_answer() {
        for (said, lacks) in [
            (
                "HTTP/1.1 503 No\r\n\r\n",
                "its readiness check is answered 503",
            ),
            ("nonsense\r\n\r\n", "its readiness check is not answered"),
        ] {
            let (listener, address) = listener().await;
            let (seen, readiness) = (Seen::default(), healthz());
            let server = async {
                // A second probe comes when the first is over.
                for _ in 0..2 {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    let mut head = [0; 1024];
                    let _count = stream.read(&mut head).await.unwrap();
                    stream.write_all(said.as_bytes()).await.unwrap();
                }
            };
            tokio::select! {
                _ready = until_ready(address, &readiness, &seen) => panic!("it is not ready"),
                () = server => {}
            }
            assert_eq!(seen.lacks(), lacks);
        }
    }
}
