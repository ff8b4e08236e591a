//! What a codec reads and writes: a socket, or memory in tests. One enum instead of a type
//! parameter, so that transports multiply nothing.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, Interest, ReadBuf, ReadHalf, WriteHalf};
use tokio::net::{TcpStream, tcp};

use super::tls::endpoint::Dialer;
use super::tls::stream::{TlsRead, TlsStream, TlsWrite};

/// A byte stream in both directions.
#[derive(Debug)]
pub enum Io {
    Plain(TcpStream),
    /// Boxed: a session is many times the size of a socket.
    Tls(Box<TlsStream>),
    /// Both halves of one end of an in-process pipe.
    Memory {
        read: ReadHalf<DuplexStream>,
        write: WriteHalf<DuplexStream>,
    },
}

impl Io {
    /// One end of an in-process pipe that holds at most `capacity` bytes each way, and the other.
    #[must_use]
    pub fn memory(capacity: usize) -> (Io, DuplexStream) {
        let (ours, theirs) = tokio::io::duplex(capacity);
        let (read, write) = tokio::io::split(ours);
        (Io::Memory { read, write }, theirs)
    }

    /// Halves that can be used at the same time.
    pub fn split(&mut self) -> (IoRead<'_>, IoWrite<'_>) {
        match self {
            Io::Plain(stream) => {
                let (read, write) = stream.split();
                (IoRead::Plain(read), IoWrite::Plain(write))
            }
            Io::Tls(stream) => {
                let (read, write) = stream.split();
                (IoRead::Tls(read), IoWrite::Tls(write))
            }
            Io::Memory { read, write } => (IoRead::Memory(read), IoWrite::Memory(write)),
        }
    }

    /// Who opened it; `None` = in clear.
    #[must_use]
    pub fn dialer(&self) -> Option<&Arc<Dialer>> {
        match self {
            Io::Plain(_) | Io::Memory { .. } => None,
            Io::Tls(stream) => stream.dialer(),
        }
    }

    /// Whether the handshake ended with HTTP/2 (ALPN).
    #[must_use]
    pub fn agreed_on_http2(&self) -> bool {
        match self {
            Io::Plain(_) | Io::Memory { .. } => false,
            Io::Tls(stream) => stream.agreed_on_http2(),
        }
    }

    /// Whether it was opened by this dialer, or in clear for `None`.
    #[must_use]
    pub fn is_of(&self, dialer: Option<&Arc<Dialer>>) -> bool {
        Dialer::is_same(self.dialer(), dialer)
    }

    /// Whether an idle connection has said or ended something since it was last read. Knows what
    /// the reactor has seen; makes no system call, unless a TLS session may have talked to itself.
    pub fn is_stirred(&self) -> bool {
        match self {
            Io::Plain(stream) => {
                // Runs only when the reactor has seen something; takes no lock and no waker.
                let seen = stream.try_io(Interest::READABLE, || Ok(()));
                seen.is_ok()
            }
            Io::Tls(stream) => stream.is_stirred(),
            Io::Memory { .. } => false,
        }
    }

    /// Waits until there may be something to read, without a buffer to read it into.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Io::Plain(stream) => stream.poll_read_ready(cx).map(|_| ()),
            Io::Tls(stream) => stream.poll_readable(cx),
            Io::Memory { .. } => Poll::Ready(()),
        }
    }

    /// Whether all that was written has left us; if not, somebody must flush.
    #[must_use]
    pub fn sent_all(&self) -> bool {
        match self {
            Io::Plain(_) | Io::Memory { .. } => true,
            Io::Tls(stream) => stream.sent_all(),
        }
    }

    /// Before it is dropped while nothing is under way: a peer that can be told that nothing follows
    /// is told. Does not wait.
    pub fn part(&mut self) {
        match self {
            Io::Plain(_) | Io::Memory { .. } => {}
            Io::Tls(stream) => stream.part(),
        }
    }

    /// What was written and has not been taken is dropped with the connection, and the peer hears that
    /// it was reset.
    pub fn abort(&self) {
        let socket = match self {
            Io::Plain(stream) => stream,
            Io::Tls(stream) => stream.socket(),
            Io::Memory { .. } => return,
        };
        if let Err(error) = socket.set_zero_linger() {
            tracing::debug!(%error, "a connection cannot be reset");
        }
    }

    /// Gives back memory that is not needed while nothing is read or written.
    pub fn rest(&mut self) {
        match self {
            Io::Plain(_) | Io::Memory { .. } => {}
            Io::Tls(stream) => stream.rest(),
        }
    }
}

/// The reading half of an [`Io`].
#[derive(Debug)]
pub enum IoRead<'a> {
    Plain(tcp::ReadHalf<'a>),
    Tls(TlsRead<'a>),
    Memory(&'a mut ReadHalf<DuplexStream>),
}

impl IoRead<'_> {
    /// Reads into `target`, which must not be empty and may be written to beyond what is read; 0 is
    /// the end. A TLS peer that ends without saying so is an error (`UnexpectedEof`): somebody else
    /// may have cut it off.
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        target: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(target);
        // A short read clears readiness, so the next poll needs no system call to learn "no more".
        match self {
            IoRead::Tls(half) => return half.poll_read(cx, target),
            IoRead::Plain(half) => ready!(Pin::new(half).poll_read(cx, &mut buffer))?,
            IoRead::Memory(half) => ready!(Pin::new(half).poll_read(cx, &mut buffer))?,
        }
        Poll::Ready(Ok(buffer.filled().len()))
    }

    /// Like [`poll_read`](IoRead::poll_read), into memory that need not be initialised.
    pub fn poll_read_buf(
        &mut self,
        cx: &mut Context<'_>,
        target: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self {
            IoRead::Plain(half) => Pin::new(half).poll_read(cx, target),
            IoRead::Memory(half) => Pin::new(half).poll_read(cx, target),
            IoRead::Tls(half) => {
                let count = ready!(half.poll_read(cx, target.initialize_unfilled()))?;
                target.advance(count);
                Poll::Ready(Ok(()))
            }
        }
    }

    /// Waits until the peer has ended or reset its side, however much it sent before that we have
    /// not read. Never resolves in memory, where only reading can tell.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn closed(&mut self) {
        let half = match self {
            IoRead::Plain(half) => half,
            IoRead::Tls(half) => &mut half.socket,
            IoRead::Memory(_) => return std::future::pending().await,
        };
        // PRIORITY wakes for a closed read side and not for unread bytes. Urgent data has no meaning
        // in HTTP; a peer that sends it is treated as gone rather than spun on.
        let _closed_or_broken = half.ready(Interest::PRIORITY).await;
    }
}

/// The writing half of an [`Io`].
#[derive(Debug)]
pub enum IoWrite<'a> {
    Plain(tcp::WriteHalf<'a>),
    Tls(TlsWrite<'a>),
    Memory(&'a mut WriteHalf<DuplexStream>),
}

impl IoWrite<'_> {
    /// Writes as much of `parts` as there is room for; an error rather than 0. Some of it may stay
    /// here until [`poll_flush`](IoWrite::poll_flush).
    pub fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = match (self, parts) {
            (IoWrite::Plain(half), [one]) => ready!(Pin::new(half).poll_write(cx, one))?,
            (IoWrite::Tls(half), many) => ready!(half.poll_write(cx, many))?,
            (IoWrite::Plain(half), many) => ready!(Pin::new(half).poll_write_vectored(cx, many))?,
            (IoWrite::Memory(half), many) => ready!(Pin::new(half).poll_write_vectored(cx, many))?,
        };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        Poll::Ready(Ok(written))
    }

    /// Sends what was written and stayed here; costs nothing where nothing can.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            IoWrite::Plain(_) | IoWrite::Memory(_) => Poll::Ready(Ok(())),
            IoWrite::Tls(half) => half.poll_flush(cx),
        }
    }

    /// Ends our side; the peer reads an end of stream.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            IoWrite::Plain(half) => Pin::new(half).poll_shutdown(cx),
            IoWrite::Tls(half) => half.poll_shutdown(cx),
            IoWrite::Memory(half) => Pin::new(half).poll_shutdown(cx),
        }
    }

    /// Ends our side in the middle of something: where the transport can tell, the peer learns that
    /// it has not got all.
    pub fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            IoWrite::Tls(half) => half.poll_cut(cx),
            IoWrite::Plain(_) | IoWrite::Memory(_) => self.poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{Future as _, poll_fn};
    use std::io::Write as _;
    use std::pin::pin;
    use std::time::Duration;

    use super::*;

    /// Our end of a connection, and theirs.
    async fn connected() -> (Io, std::net::TcpStream) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let ours = TcpStream::connect(address).await.unwrap();
        (Io::Plain(ours), listener.accept().unwrap().0)
    }

    async fn until_stirred(io: &Io) {
        poll_fn(|cx| io.poll_readable(cx)).await;
        assert!(io.is_stirred());
    }

    #[tokio::test]
    async fn a_peer_that_leaves_is_seen_behind_what_it_said() {
        let reset = |end: &std::net::TcpStream| {
            let at_once = Some(Duration::ZERO);
            socket2::SockRef::from(end).set_linger(at_once).unwrap();
        };
        let leave: fn(&std::net::TcpStream) = |_| {};
        for before_leaving in [leave, reset] {
            let (mut io, mut theirs) = connected().await;
            theirs.write_all(&[b'x'; 1000]).unwrap();
            until_stirred(&io).await;
            let (mut read, _write) = io.split();
            let mut closed = pin!(read.closed());
            let waits = poll_fn(|cx| Poll::Ready(closed.as_mut().poll(cx).is_pending())).await;
            assert!(waits, "unread bytes are no departure");
            before_leaving(&theirs);
            drop(theirs);
            closed.await;
        }
    }

    #[tokio::test]
    async fn half_a_close_is_a_departure() {
        let (mut io, theirs) = connected().await;
        theirs.shutdown(std::net::Shutdown::Write).unwrap();
        let (mut read, _write) = io.split();
        read.closed().await;
    }

    #[tokio::test]
    async fn a_quiet_connection_is_not_stirred() {
        let (mut io, mut theirs) = connected().await;
        assert!(!io.is_stirred());
        theirs.write_all(b"hello").unwrap();
        until_stirred(&io).await;
        let mut target = [0; 100];
        let (mut read, _write) = io.split();
        let count = poll_fn(|cx| read.poll_read(cx, &mut target)).await.unwrap();
        assert_eq!(&target[..count], b"hello");
        assert!(!io.is_stirred());
    }
}
