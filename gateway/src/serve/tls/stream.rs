//! A TLS session over a socket whose two halves can be used at the same time, on one thread.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::Connection as Session;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, tcp};

use super::endpoint::Dialer;

/// Most ciphertext kept for a peer that does not read, two full records; what does not fit waits in
/// the clear with whoever writes.
const UNSENT_MAX: usize = 32 * 1024;

/// Most reads for the sake of what a session says by itself while its connection is idle: session
/// tickets, a change of keys. A peer that says more is taken for one that says something.
const ASIDES_MAX: usize = 4;

/// A connection whose handshake is done.
#[derive(Debug)]
pub struct TlsStream {
    socket: TcpStream,
    // Both halves need the whole session. No borrow outlives a poll.
    shared: RefCell<Shared>,
    /// Who opened it, if we did.
    dialer: Option<Arc<Dialer>>,
}

#[derive(Debug)]
struct Shared {
    session: Session,
    /// What the peer did wrong: rustls would say so only once.
    failed: Option<rustls::Error>,
    /// We have said that nothing follows.
    ended: bool,
}

impl TlsStream {
    /// A session that has shaken hands over this socket.
    #[must_use]
    pub fn new(socket: TcpStream, mut session: Session) -> TlsStream {
        session.set_buffer_limit(Some(UNSENT_MAX));
        TlsStream {
            socket,
            shared: RefCell::new(Shared {
                session,
                failed: None,
                ended: false,
            }),
            dialer: None,
        }
    }

    /// As [`new`](TlsStream::new), to an endpoint.
    #[must_use]
    pub fn opened(socket: TcpStream, session: Session, dialer: Arc<Dialer>) -> TlsStream {
        TlsStream {
            dialer: Some(dialer),
            ..TlsStream::new(socket, session)
        }
    }

    /// Who opened it, if we did.
    #[must_use]
    pub fn dialer(&self) -> Option<&Arc<Dialer>> {
        self.dialer.as_ref()
    }

    #[must_use]
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Halves that can be used at the same time.
    pub fn split(&mut self) -> (TlsRead<'_>, TlsWrite<'_>) {
        let (read, write) = self.socket.split();
        let shared = &self.shared;
        (
            TlsRead {
                socket: read,
                shared,
            },
            TlsWrite {
                socket: write,
                shared,
            },
        )
    }

    /// Whether the handshake ended with HTTP/2.
    #[must_use]
    pub fn agreed_on_http2(&self) -> bool {
        self.shared.borrow().session.alpn_protocol() == Some(b"h2")
    }

    /// As [`Io::is_stirred`](crate::serve::io::Io::is_stirred). What the peer's session says by
    /// itself, most often tickets to come back with, is read in and is no stir.
    pub fn is_stirred(&self) -> bool {
        let mut shared = self.shared.borrow_mut();
        for _ in 0..ASIDES_MAX {
            if shared.has_news() {
                return true;
            }
            // Runs only when the reactor has seen something; takes no lock and no waker.
            if self.socket.try_io(Interest::READABLE, || Ok(())).is_err() {
                return false;
            }
            match shared.session.read_tls(&mut Unawaited(&self.socket)) {
                Ok(1..) => shared.process(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Ok(0) | Err(_) => return true,
            }
        }
        true
    }

    /// As [`Io::poll_readable`](crate::serve::io::Io::poll_readable).
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.shared.borrow().has_news() {
            return Poll::Ready(());
        }
        self.socket.poll_read_ready(cx).map(|_| ())
    }

    /// Whether all that was written has left us.
    pub fn sent_all(&self) -> bool {
        !self.shared.borrow().session.wants_write()
    }

    /// Says that nothing follows, if the socket takes that at once: for a connection that is dropped
    /// while nothing is under way.
    pub fn part(&mut self) {
        let shared = self.shared.get_mut();
        if !std::mem::replace(&mut shared.ended, true) {
            shared.session.send_close_notify();
            // A peer that does not read does not miss it.
            let _best_effort = shared.session.write_tls(&mut Unawaited(&self.socket));
        }
    }

    /// Gives back memory that an idle session does not need.
    pub fn rest(&mut self) {
        // rustls fits its buffer to what it holds when it is asked to read, and only then.
        let nothing = self.shared.get_mut().session.read_tls(&mut Silent);
        debug_assert!(nothing.is_err() || self.shared.get_mut().has_news());
    }
}

impl Shared {
    /// Whether a read would return without asking the socket.
    fn has_news(&self) -> bool {
        // After the handshake a session wants no read only when it holds plaintext or has been
        // told that nothing follows.
        self.failed.is_some() || !self.session.wants_read()
    }

    /// Takes up what was read into the session.
    fn process(&mut self) {
        if let Err(error) = self.session.process_new_packets() {
            self.failed = Some(error);
        }
    }

    /// Plaintext that is there, at most as much as fits; `None` when more must be read first, 0 at
    /// an orderly end.
    ///
    /// # Errors
    /// The peer has ended without saying so (`UnexpectedEof`), or is no peer to talk to
    /// (`InvalidData`); once more each time.
    fn plaintext(&mut self, target: &mut [u8]) -> io::Result<Option<usize>> {
        match io::Read::read(&mut self.session.reader(), target) {
            Ok(count) => Ok(Some(count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => match &self.failed {
                Some(failed) => Err(io::Error::new(io::ErrorKind::InvalidData, failed.clone())),
                None => Ok(None),
            },
            Err(error) => Err(error),
        }
    }

    /// Takes in `count` bytes of ciphertext at the front of `target`, and puts the plaintext in
    /// their place. rustls reads 4 KiB at a time and keeps 16 KiB of plaintext; so a large buffer
    /// costs one system call, and no more is kept than that. Returns the length of the plaintext.
    fn decrypt(&mut self, target: &mut [u8], count: usize) -> io::Result<usize> {
        let (mut fed, mut made) = (0, 0);
        while fed < count && self.failed.is_none() {
            // Nothing is taken after the peer has said that nothing follows.
            match self.session.read_tls(&mut &target[fed..count])? {
                0 => break,
                taken => fed += taken,
            }
            self.process();
            if made < fed
                && let Ok(Some(count)) = self.plaintext(&mut target[made..fed])
            {
                made += count;
            }
        }
        Ok(made)
    }
}

/// Reads and writes what a socket has and takes, and does not ask to be woken.
struct Unawaited<'a>(&'a TcpStream);

impl io::Read for Unawaited<'_> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(target)
    }
}

impl io::Write for Unawaited<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.try_write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Has nothing to read yet.
struct Silent;

impl io::Read for Silent {
    fn read(&mut self, _target: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
}

/// The reading half.
#[derive(Debug)]
pub struct TlsRead<'a> {
    pub(in crate::serve) socket: tcp::ReadHalf<'a>,
    shared: &'a RefCell<Shared>,
}

impl TlsRead<'_> {
    /// As [`IoRead::poll_read`](crate::serve::io::IoRead::poll_read).
    pub(in crate::serve) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        target: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut shared = self.shared.borrow_mut();
        loop {
            if let Some(count) = shared.plaintext(target)? {
                return Poll::Ready(Ok(count));
            }
            let mut buffer = ReadBuf::new(target);
            ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buffer))?;
            let count = buffer.filled().len();
            if count == 0 {
                // It learns of the end, and can tell an orderly one.
                shared.session.read_tls(&mut io::empty())?;
                continue;
            }
            let made = shared.decrypt(target, count)?;
            if shared.failed.is_some() {
                self.complain(&mut shared);
            }
            if made > 0 {
                return Poll::Ready(Ok(made));
            }
        }
    }

    /// Tells the peer what it did wrong, if the socket takes it at once.
    fn complain(&self, shared: &mut Shared) {
        let _best_effort = shared
            .session
            .write_tls(&mut Unawaited(self.socket.as_ref()));
    }
}

/// The writing half.
#[derive(Debug)]
pub struct TlsWrite<'a> {
    socket: tcp::WriteHalf<'a>,
    shared: &'a RefCell<Shared>,
}

impl TlsWrite<'_> {
    /// As [`IoWrite::poll_write`](crate::serve::io::IoWrite::poll_write); what was taken may still
    /// lie here until [`poll_flush`](TlsWrite::poll_flush).
    pub(in crate::serve) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if parts.iter().all(|part| part.is_empty()) {
            // Of nothing, nothing is ever taken.
            return Poll::Ready(Ok(0));
        }
        loop {
            let taken = {
                let mut shared = self.shared.borrow_mut();
                io::Write::write_vectored(&mut shared.session.writer(), parts)?
            };
            let sent = self.poll_flush(cx)?;
            if taken > 0 {
                return Poll::Ready(Ok(taken));
            }
            ready!(sent);
        }
    }

    /// As [`IoWrite::poll_flush`](crate::serve::io::IoWrite::poll_flush).
    pub(in crate::serve) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut shared = self.shared.borrow_mut();
        while shared.session.wants_write() {
            let mut awaited = Awaited {
                socket: &mut self.socket,
                cx,
            };
            match shared.session.write_tls(&mut awaited) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// As [`IoWrite::poll_shutdown`](crate::serve::io::IoWrite::poll_shutdown).
    pub(in crate::serve) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        {
            let mut shared = self.shared.borrow_mut();
            if !std::mem::replace(&mut shared.ended, true) {
                shared.session.send_close_notify();
            }
        }
        self.poll_cut(cx)
    }

    /// As [`IoWrite::poll_cut`](crate::serve::io::IoWrite::poll_cut).
    pub(in crate::serve) fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(cx))?;
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// Writes to a socket, and asks to be woken when it takes no more.
struct Awaited<'a, 'b, 'c> {
    socket: &'a mut tcp::WriteHalf<'b>,
    cx: &'a mut Context<'c>,
}

impl Awaited<'_, '_, '_> {
    fn now_or_never(polled: Poll<io::Result<usize>>) -> io::Result<usize> {
        match polled {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl io::Write for Awaited<'_, '_, '_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        Awaited::now_or_never(Pin::new(&mut *self.socket).poll_write(self.cx, data))
    }

    fn write_vectored(&mut self, parts: &[io::IoSlice<'_>]) -> io::Result<usize> {
        Awaited::now_or_never(Pin::new(&mut *self.socket).poll_write_vectored(self.cx, parts))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
