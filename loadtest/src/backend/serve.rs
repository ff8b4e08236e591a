//! Listening, and what all protocols share.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{spawn_local, yield_now};
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;

use super::answer::Answers;
use super::stats::{Book, Counts, Held, Stats, count};
use super::times::{Watch, until_there};
use super::{BackendArgs, http1, tls};
use crate::system;

/// One address, as its connections see it.
#[derive(Clone, Debug)]
pub(super) struct Site {
    pub(super) answers: Rc<Answers>,
    pub(super) counts: Rc<Counts>,
    pub(super) echo: bool,
    pub(super) close: bool,
    delay: Duration,
    reset_every: Option<u64>,
    concurrency: Option<u64>,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Usual,
    /// Over the limit.
    Refuse,
    Reset,
}

impl Site {
    /// Decides about the request that was counted last.
    pub(super) fn judge(&self) -> Verdict {
        let over = |limit| self.counts.running.get() > limit;
        let turn = |every| self.counts.requests.get().is_multiple_of(every);
        if self.concurrency.is_some_and(over) {
            Verdict::Refuse
        } else if self.reset_every.is_some_and(turn) {
            Verdict::Reset
        } else {
            Verdict::Usual
        }
    }

    /// Whether [`Site::pause`] does anything.
    pub(super) fn waits(&self) -> bool {
        !self.delay.is_zero() || self.concurrency.is_some()
    }

    /// The time before an answer.
    ///
    /// Where concurrency is watched, at least until every request that has arrived by now was
    /// counted: one thread that answers at once would never see two.
    pub(super) async fn pause(&self) {
        if !self.delay.is_zero() {
            sleep(self.delay).await;
        } else if self.concurrency.is_some() {
            yield_now().await;
        }
    }
}

/// Serves until a signal; what was counted by then. `started` is when the process ran.
pub(super) async fn run(args: BackendArgs, started: u64) -> anyhow::Result<Stats> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let tls = acceptor(&args)?;
    let answers = Rc::new(Answers::new(
        usize::try_from(args.body.as_u64())?,
        args.chunked
            .map(|size| usize::try_from(size.as_u64()))
            .transpose()?,
    ));
    if let Some(file) = &args.listen_after {
        tokio::select! {
            () = until_there(file) => {}
            _ = terminate.recv() => return Ok(Stats::default()),
            _ = interrupt.recv() => return Ok(Stats::default()),
        }
    }
    let mut addresses = Vec::new();
    let mut watch = None;
    for address in &args.listen {
        let listener = system::listen(*address, false)?;
        if let (None, Some(file)) = (&watch, &args.times) {
            watch = Some(Rc::new(Watch::new(file, started)));
        }
        let site = Site {
            answers: answers.clone(),
            counts: Rc::new(Counts {
                watch: watch.clone(),
                ..Counts::default()
            }),
            echo: args.echo,
            close: args.close,
            delay: args.delay,
            reset_every: args.reset_every,
            concurrency: args.concurrency,
        };
        addresses.push((listener.local_addr()?, site.counts.clone()));
        spawn_local(accept(listener, site, tls.clone()));
    }
    let book = Book {
        addresses: Rc::new(addresses),
    };
    let mut stats = None;
    if let Some(address) = args.stats {
        let listener = system::listen(address, false)?;
        stats = Some(listener.local_addr()?);
        spawn_local(book.clone().serve(listener));
    }
    announce(&book, stats)?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(book.read())
}

fn acceptor(args: &BackendArgs) -> anyhow::Result<Option<TlsAcceptor>> {
    let files = match (&args.tls_cert, &args.tls_key, &args.tls_self_signed) {
        (Some(cert), Some(key), _) => (cert.clone(), key.clone()),
        (_, _, Some(directory)) => crate::tls::write_certificate(directory, &tls::NAMES)?,
        _ => return Ok(None),
    };
    Ok(Some(tls::acceptor(&files.0, &files.1)?))
}

fn announce(book: &Book, stats: Option<SocketAddr>) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    if let Some(address) = stats {
        writeln!(out, "stats on {address}").context("cannot say where it listens")?;
    }
    let addresses: Vec<String> = book
        .addresses
        .iter()
        .map(|(at, _)| at.to_string())
        .collect();
    writeln!(out, "listening on {}", addresses.join(" "))?;
    out.flush().context("cannot say where it listens")
}

#[expect(clippy::infinite_loop, reason = "it ends with the program")]
async fn accept(listener: TcpListener, site: Site, tls: Option<TlsAcceptor>) {
    loop {
        let stream = system::accept(&listener).await;
        spawn_local(connection(stream, site.clone(), tls.clone()));
    }
}

async fn connection(stream: TcpStream, site: Site, tls: Option<TlsAcceptor>) {
    count(&site.counts.connections);
    let _open = Held::new(&site.counts.open);
    // How a connection ends is the client's affair; what matters is in the counts.
    let _ended = serve(stream, &site, tls).await;
}

async fn serve(stream: TcpStream, site: &Site, tls: Option<TlsAcceptor>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    match tls {
        None => http1::serve(stream, site).await,
        Some(tls) => {
            let stream = tls.accept(stream).await?;
            http1::serve(stream, site).await
        }
    }
}
