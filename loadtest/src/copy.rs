//! A byte copier: the least a proxy can cost.
//!
//! One connection to the upstream per client connection; every message is read once and written
//! once, on one event loop per worker, and nothing looks inside. It runs on the same runtime as the
//! gateway it is compared with, so what lies above it is the price of understanding HTTP.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::io::Write as _;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::mpsc::{Sender, channel};
use std::task::{Context, Poll, ready};
use std::thread;

use anyhow::{Context as _, ensure};
use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::spawn_local;

use crate::system;

/// What is read at once; also what may wait for one slow reader.
const READ_BYTES: usize = 64 * 1024;

/// The options of this command.
#[derive(Debug, clap::Args)]
pub struct CopyArgs {
    /// Listen here.
    #[arg(long, value_name = "ADDR")]
    listen: SocketAddr,
    /// Connect to here, once per client connection.
    #[arg(long, value_name = "ADDR")]
    to: SocketAddr,
    /// Threads, each with its own event loop and listening socket.
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u8).range(1..))]
    workers: u8,
}

/// Runs the command; it ends with a signal.
///
/// # Errors
///
/// The address cannot be listened on.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the command line hands it over"
)]
pub fn main(args: CopyArgs) -> anyhow::Result<()> {
    system::raise_descriptor_limit();
    let (listening, listens) = channel();
    let workers: Vec<_> = (0..args.workers)
        .map(|_| {
            let listening = listening.clone();
            thread::spawn(move || work(args.listen, args.to, args.workers > 1, listening))
        })
        .collect();
    drop(listening);
    // Each says once whether it listens, and lets go of its end.
    let listens: Vec<()> = listens.iter().collect::<anyhow::Result<_>>()?;
    ensure!(listens.len() == workers.len(), "a worker did not start");
    writeln!(io::stdout(), "listening on {}", args.listen)?;
    for worker in workers {
        let ended = worker.join();
        ended.map_err(|_panic| anyhow::anyhow!("a worker has panicked"))??;
    }
    Ok(())
}

fn work(
    listen: SocketAddr,
    to: SocketAddr,
    shared: bool,
    listening: Sender<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .context("cannot start the event loop")?;
    runtime.block_on(async {
        match system::listen(listen, shared) {
            Ok(listener) => {
                listening.send(Ok(()))?;
                drop(listening);
                accept(listener, to).await;
            }
            Err(error) => listening.send(Err(error))?,
        }
        Ok(())
    })
}

#[expect(clippy::infinite_loop, reason = "it ends with the program")]
async fn accept(listener: TcpListener, to: SocketAddr) {
    let scratch = Rc::new(RefCell::new(vec![0; READ_BYTES].into_boxed_slice()));
    loop {
        let client = system::accept(&listener).await;
        let scratch = scratch.clone();
        // An error ends both connections, which is all there is to do about it.
        spawn_local(async move { drop(copy(client, to, &scratch).await) });
    }
}

async fn copy(client: TcpStream, to: SocketAddr, scratch: &Scratch) -> io::Result<()> {
    let upstream = TcpStream::connect(to).await?;
    client.set_nodelay(true)?;
    upstream.set_nodelay(true)?;
    let (mut client, mut upstream) = (client, upstream);
    let (mut up, mut down) = (Direction::default(), Direction::default());
    poll_fn(|cx| {
        let up = up.poll(cx, &mut client, &mut upstream, scratch)?;
        let down = down.poll(cx, &mut upstream, &mut client, scratch)?;
        if up.is_ready() && down.is_ready() {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    })
    .await
}

/// Shared by all connections of a worker: between two polls nothing is in it.
type Scratch = RefCell<Box<[u8]>>;

/// One direction of a connection.
#[derive(Debug, Default)]
struct Direction {
    /// What the other side had no room for.
    left: BytesMut,
    ended: bool,
    closed: bool,
}

impl Direction {
    /// Copies as much as there is; ready when `from` has ended and `to` was told.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut TcpStream,
        to: &mut TcpStream,
        scratch: &Scratch,
    ) -> Poll<io::Result<()>> {
        loop {
            while !self.left.is_empty() {
                let written = ready!(Pin::new(&mut *to).poll_write(cx, &self.left))?;
                self.left.advance(written);
            }
            if self.ended {
                if !self.closed {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                    self.closed = true;
                }
                return Poll::Ready(Ok(()));
            }
            let mut scratch = scratch.borrow_mut();
            let mut buffer = ReadBuf::new(&mut scratch);
            ready!(Pin::new(&mut *from).poll_read(cx, &mut buffer))?;
            let mut read = buffer.filled();
            self.ended = read.is_empty();
            while !read.is_empty() {
                match Pin::new(&mut *to).poll_write(cx, read)? {
                    Poll::Ready(written) => read = &read[written..],
                    Poll::Pending => {
                        self.left.extend_from_slice(read);
                        return Poll::Pending;
                    }
                }
            }
        }
    }
}
