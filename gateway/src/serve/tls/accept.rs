//! Handshakes with clients: how many at a time, for how long, and who the client is.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::ServerConfig;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

use super::identity;
use super::server::Acceptor;
use super::share::Share;
use super::stream::TlsStream;
use crate::serve::connection::patiently;
use crate::serve::timers::Timers;
use crate::serve::worker::Worker;

/// Most handshakes of a worker at a time, from a client's whole hello on; further ones wait in
/// order. Each costs far more than a request: those whose requests are served go before them.
pub const HANDSHAKES_MAX: usize = 64;

/// How long a client that does not go on may keep its place, so that a few who stall do not keep
/// everybody else out. Its handshake goes on without one.
const PLACE_TIME: Duration = Duration::from_secs(1);

/// The fatal alert `unrecognized_name`, in clear (RFC 8446 §6, RFC 6066 §3).
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// A client that has shaken hands.
#[derive(Debug)]
pub struct Accepted {
    pub stream: TlsStream,
    /// What `x-forwarded-client-cert` says of it.
    pub identity: Option<Rc<[u8]>>,
}

/// Shakes hands with a client. `None` where that failed or took too long; then it is logged and
/// counted.
pub async fn accept(
    worker: &Worker,
    acceptor: &Acceptor,
    stream: TcpStream,
    listener: usize,
) -> Option<Accepted> {
    let timer = worker.timers.timer();
    let patience = worker.shared.settings.limits.handshake;
    let lobby = Lobby {
        places: &worker.handshakes,
        share: &worker.share,
        others: &worker.ticks,
        timers: &worker.timers,
    };
    let rejects = |name: Option<&str>| acceptor.rejects(name);
    let shaking = lobby.shake(&acceptor.config, rejects, stream);
    let shaking = worker.unless_ended(shaking);
    let late = || Some(Err(io::ErrorKind::TimedOut.into()));
    match patiently(worker, &timer, patience, shaking)
        .await
        .unwrap_or_else(late)?
    {
        Ok(accepted) => Some(accepted),
        // Who looks whether somebody listens says nothing.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => None,
        Err(error) => {
            tracing::debug!(listener, %error, "TLS handshake failed");
            worker.metrics.handshake_failed(listener);
            None
        }
    }
}

/// Where handshakes wait.
struct Lobby<'a> {
    places: &'a Semaphore,
    share: &'a Share,
    /// Changed by everything else that is done.
    others: &'a Cell<u64>,
    timers: &'a Rc<Timers>,
}

impl Lobby<'_> {
    async fn shake(
        &self,
        config: &Arc<ServerConfig>,
        rejects: impl Fn(Option<&str>) -> bool,
        stream: TcpStream,
    ) -> io::Result<Accepted> {
        // A silent client costs nothing but its connection, so it needs no place.
        let mut start = Box::pin(hello(stream)).await?;
        if rejects(start.client_hello().server_name()) {
            start.io.write_all(&UNRECOGNIZED_NAME).await?;
            let what = "the client asks for a name that no certificate is for";
            return Err(io::Error::other(what));
        }
        let mut place = Some(self.places.acquire().await.map_err(io::Error::other)?);
        let timer = self.timers.timer();
        timer.set(Some(Instant::now() + PLACE_TIME));
        // Most of the work is done where it begins, so that is inside. Boxed: it is large.
        let config = config.clone();
        let mut shaking = Box::pin(async move { start.into_stream(config).await });
        let mut shaking = pin!(self.share.spend(self.others, shaking.as_mut()));
        let shaken = poll_fn(|cx| {
            let polled = shaking.as_mut().poll(cx);
            if polled.is_pending() && place.is_some() && timer.poll_fired(cx).is_ready() {
                place = None;
            }
            polled
        });
        finish(shaken.await?)
    }
}

/// The client's first words.
async fn hello(stream: TcpStream) -> io::Result<Box<StartHandshake<TcpStream>>> {
    let acceptor = rustls::server::Acceptor::default();
    LazyConfigAcceptor::new(acceptor, stream)
        .await
        .map(Box::new)
}

fn finish(shaken: tokio_rustls::server::TlsStream<TcpStream>) -> io::Result<Accepted> {
    let (socket, session) = shaken.into_inner();
    let mut who = None;
    if let Some([certificate, ..]) = session.peer_certificates() {
        let known = identity::of(certificate, SystemTime::now());
        who = Some(known.ok_or_else(|| io::Error::other("the client's certificate has expired"))?);
    }
    Ok(Accepted {
        stream: TlsStream::new(socket, session.into()),
        identity: who,
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::task::Poll;

    use rustls::ClientConnection;
    use rustls::pki_types::ServerName;
    use tokio::task::{LocalSet, spawn_local};
    use tokio_rustls::TlsConnector;

    use super::super::testing::{configurations, sockets};
    use super::*;

    fn timers() -> Rc<Timers> {
        let timers = Timers::new();
        let driven = timers.clone();
        spawn_local(async move { driven.drive().await });
        timers
    }

    fn lobby<'a>(
        places: &'a Semaphore,
        share: &'a Share,
        others: &'a Cell<u64>,
        timers: &'a Rc<Timers>,
    ) -> Lobby<'a> {
        Lobby {
            places,
            share,
            others,
            timers,
        }
    }

    fn localhost() -> ServerName<'static> {
        ServerName::try_from("localhost").unwrap()
    }

    #[tokio::test]
    async fn a_handshake_waits_for_a_place_in_order() {
        let test = async {
            let (server, client) = configurations();
            let (places, timers) = (Semaphore::new(1), timers());
            let held = places.acquire().await.unwrap();
            let (ours, theirs) = sockets().await;
            let connector = TlsConnector::from(client);
            let mut waits = Box::pin(async {
                let (share, others) = (Share::default(), Cell::new(0));
                let lobby = lobby(&places, &share, &others, &timers);
                let ours = lobby.shake(&server, |_| false, ours);
                let (ours, theirs) = tokio::join!(ours, connector.connect(localhost(), theirs));
                ours.unwrap();
                theirs.unwrap();
            });
            // Its hello is here, and it goes no further.
            for _ in 0..100 {
                let pending = poll_fn(|cx| Poll::Ready(waits.as_mut().poll(cx).is_pending()));
                assert!(pending.await);
                tokio::task::yield_now().await;
            }
            drop(held);
            waits.await;
            assert_eq!(places.available_permits(), 1);
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_stalls_loses_its_place_and_not_its_handshake() {
        let test = async {
            let (server, client) = configurations();
            let (places, timers) = (Rc::new(Semaphore::new(1)), timers());
            let (ours, theirs) = sockets().await;
            let mut session = ClientConnection::new(client, localhost()).unwrap();
            let mut theirs = theirs.into_std().unwrap();
            theirs.set_nonblocking(false).unwrap();
            session.write_tls(&mut theirs).unwrap();
            let (of_shake, of_timers) = (places.clone(), timers.clone());
            let shaking = spawn_local(async move {
                let (share, others) = (Share::default(), Cell::new(0));
                let lobby = lobby(&of_shake, &share, &others, &of_timers);
                lobby.shake(&server, |_| false, ours).await
            });
            while places.available_permits() > 0 {
                tokio::task::yield_now().await;
            }
            // The server's answer is left unanswered for long.
            tokio::time::timeout(PLACE_TIME * 2, places.acquire())
                .await
                .unwrap()
                .unwrap()
                .forget();
            let finishing = tokio::task::spawn_blocking(move || {
                let mut stream = rustls::Stream::new(&mut session, &mut theirs);
                stream.write_all(b"hello").unwrap();
                theirs
            });
            let mut accepted = shaking.await.unwrap().unwrap();
            let _open = finishing.await.unwrap();
            let mut target = [0; 10];
            let (mut read, _write) = accepted.stream.split();
            let count = poll_fn(|cx| read.poll_read(cx, &mut target)).await;
            assert_eq!(&target[..count.unwrap()], b"hello");
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn a_name_that_nobody_knows_is_an_alert_where_that_is_asked_for() {
        let test = async {
            let (server, client) = configurations();
            let (places, timers) = (Semaphore::new(1), timers());
            let (share, others) = (Share::default(), Cell::new(0));
            let lobby = lobby(&places, &share, &others, &timers);
            let (ours, theirs) = sockets().await;
            let rejects = |name: Option<&str>| name == Some("localhost");
            let connector = TlsConnector::from(client);
            let ours = lobby.shake(&server, rejects, ours);
            let theirs = connector.connect(localhost(), theirs);
            let (ours, theirs) = tokio::join!(ours, theirs);
            assert!(ours.is_err());
            let told = theirs.unwrap_err().to_string();
            assert!(told.to_lowercase().contains("unrecognisedname"), "{told}");
        };
        LocalSet::new().run_until(test).await;
    }
}
