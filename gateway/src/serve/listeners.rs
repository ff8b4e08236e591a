//! Listening sockets: one per worker and address, so that the kernel spreads connections and
//! workers share nothing; unless somebody else made a single one for us.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

/// Connections the kernel completes before we accept them.
pub(super) const BACKLOG: i32 = 4096;

/// Dead peers are found during long waits: first probe, between probes, how many.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(15), Duration::from_secs(15), 4);

/// Bytes that the kernel takes before they can be sent, where memory is short.
const UNSENT_MAX: u32 = 128 * 1024;

/// How long sent data may stay unacknowledged before the peer counts as dead.
const USER_TIMEOUT: Duration = Duration::from_secs(60);

/// The listening sockets of one address.
///
/// Connections wait in the socket that the kernel chose for them, and are lost when its last
/// descriptor closes. So a group never shrinks while its address is served.
#[derive(Debug)]
pub struct Group {
    /// What was asked for; its port may be 0.
    asked: SocketAddr,
    /// Where that is.
    address: SocketAddr,
    /// Never empty.
    sockets: Vec<TcpListener>,
    /// A single socket for all workers, which can have no others beside it.
    shared: bool,
    /// Another process serves them too: one more would be given connections before anybody here
    /// accepts them, and for nothing if we never come so far.
    adopted: bool,
}

impl Group {
    /// Binds `asked`; port 0 becomes a free one. Sockets come with [`seat`](Group::seat).
    ///
    /// # Errors
    /// The address is taken, not ours, or not allowed to us.
    pub fn bind(asked: SocketAddr) -> io::Result<Group> {
        // Sockets with SO_REUSEPORT would share the address with a stranger in silence: bind once
        // without it and let go.
        let claim = socket(asked)?;
        claim.bind(&asked.into())?;
        claim.listen(1)?;
        let address = local(&claim)?;
        drop(claim);
        Ok(Group {
            asked,
            address,
            sockets: vec![listen(address)?],
            shared: false,
            adopted: false,
        })
    }

    /// Binds a single socket to `asked`.
    ///
    /// # Errors
    /// The address is taken, not ours, or not allowed to us.
    pub fn bind_single(asked: SocketAddr) -> io::Result<Group> {
        let socket = TcpListener::bind(asked)?;
        socket.set_nonblocking(true)?;
        Ok(Group {
            asked,
            address: socket.local_addr()?,
            sockets: vec![socket],
            shared: true,
            adopted: false,
        })
    }

    /// Sockets that were made elsewhere, of one address.
    ///
    /// # Errors
    /// They are no listening sockets of TCP, not all of one address, or there are none.
    pub fn adopt(asked: SocketAddr, sockets: Vec<TcpListener>, shared: bool) -> io::Result<Group> {
        let unfit = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, what);
        let first = sockets.first().ok_or_else(|| unfit("there is no socket"))?;
        let address = first.local_addr()?;
        for socket in &sockets {
            if socket.local_addr()? != address {
                return Err(unfit("sockets of one group have several addresses"));
            }
            let options = SockRef::from(socket);
            if options.r#type()? != Type::STREAM
                || !rustix::net::sockopt::socket_acceptconn(socket)?
            {
                return Err(unfit("the socket does not listen"));
            }
            prepare(&options)?;
            options.listen(BACKLOG)?;
        }
        Ok(Group {
            asked,
            address,
            sockets,
            shared,
            adopted: true,
        })
    }

    #[must_use]
    pub fn asked(&self) -> SocketAddr {
        self.asked
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    #[must_use]
    pub fn sockets(&self) -> &[TcpListener] {
        &self.sockets
    }

    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.shared
    }

    /// Copies of its sockets for each worker. Each socket is served by one worker, and each worker
    /// serves one at least: further ones are bound where there are too few, or, of those that were
    /// made elsewhere, some served by several. A shared one is served by all.
    ///
    /// # Errors
    /// A further socket cannot be had, or there are too few descriptors.
    pub fn seat(&mut self, workers: usize) -> io::Result<Vec<Vec<TcpListener>>> {
        while !self.shared && !self.adopted && self.sockets.len() < workers {
            self.sockets.push(listen(self.address)?);
        }
        let copies = |worker: usize| {
            let mine = self.sockets.iter().enumerate();
            let mine = mine.filter(|(index, _)| {
                let lent = worker % self.sockets.len();
                self.shared || index % workers == worker || *index == lent
            });
            mine.map(|(_, socket)| socket.try_clone()).collect()
        };
        (0..workers).map(copies).collect()
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(address)?;
    socket.set_reuse_port(true)?;
    prepare(&socket)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Accepted sockets inherit what is set here.
fn prepare(socket: &Socket) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    notice_death(socket)?;
    socket.set_nonblocking(true)
}

/// Has the kernel keep little for a peer that takes nothing, rather than megabytes. Not without need:
/// who takes much is served more slowly.
///
/// # Errors
/// The kernel knows no such thing.
pub fn bound_queue(socket: &Socket) -> io::Result<()> {
    socket.set_tcp_notsent_lowat(UNSENT_MAX)
}

/// Has the kernel find out whether the peer of a connection is dead, also while nothing is sent.
///
/// # Errors
/// The kernel knows no such thing.
pub fn notice_death(socket: &Socket) -> io::Result<()> {
    let (first, between, count) = KEEPALIVE;
    let keepalive = TcpKeepalive::new()
        .with_time(first)
        .with_interval(between)
        .with_retries(count);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))
}

/// For a peer that may take no byte for so long: the kernel, which takes one that keeps its window
/// shut for dead, must not be the first to lose patience.
///
/// # Errors
/// The kernel knows no such thing.
pub fn allow_stall(socket: &Socket, stall: Duration) -> io::Result<()> {
    // Costs accepted sockets nothing unless a limit was raised.
    if stall <= USER_TIMEOUT {
        return Ok(());
    }
    socket.set_tcp_user_timeout(Some(stall))
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    Ok(socket)
}

fn local(socket: &Socket) -> io::Result<SocketAddr> {
    let address = SockRef::from(socket).local_addr()?;
    address
        .as_socket()
        .ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    const FREE: &str = "127.0.0.1:0";

    fn counts(seats: &[Vec<TcpListener>]) -> Vec<usize> {
        seats.iter().map(Vec::len).collect()
    }

    #[test]
    fn every_worker_gets_a_socket_and_every_socket_a_worker() {
        let mut group = Group::bind(FREE.parse().unwrap()).unwrap();
        assert_eq!(counts(&group.seat(4).unwrap()), [1, 1, 1, 1]);
        assert_eq!(counts(&group.seat(3).unwrap()), [2, 1, 1]);
        assert_eq!(counts(&group.seat(1).unwrap()), [4]);
        assert_eq!(counts(&group.seat(5).unwrap()), [1; 5]);
    }

    #[test]
    fn connections_wait_through_a_change_of_hands() {
        let mut group = Group::bind(FREE.parse().unwrap()).unwrap();
        drop(group.seat(3).unwrap());
        let clients: Vec<_> = (0..30)
            .map(|_| TcpStream::connect(group.address()).unwrap())
            .collect();
        let copies = group.sockets().iter().map(|s| s.try_clone().unwrap());
        let mut heir = Group::adopt(group.asked(), copies.collect(), false).unwrap();
        drop(group);
        let seats = heir.seat(2).unwrap();
        let accepted = seats
            .iter()
            .flatten()
            .flat_map(|socket| std::iter::from_fn(|| socket.accept().ok()));
        assert_eq!(accepted.count(), clients.len());
    }

    #[test]
    fn sockets_that_another_process_serves_get_no_more_beside_them() {
        let mut group = Group::bind(FREE.parse().unwrap()).unwrap();
        drop(group.seat(2).unwrap());
        let copies = group.sockets().iter().map(|s| s.try_clone().unwrap());
        let mut heir = Group::adopt(group.asked(), copies.collect(), false).unwrap();
        assert_eq!(counts(&heir.seat(5).unwrap()), [1; 5]);
        assert_eq!(heir.sockets().len(), 2);
        assert_eq!(counts(&heir.seat(2).unwrap()), [1; 2]);
        assert_eq!(counts(&heir.seat(1).unwrap()), [2]);
    }

    #[test]
    fn a_shared_socket_is_served_by_all() {
        let mut group = Group::bind_single(FREE.parse().unwrap()).unwrap();
        assert_eq!(counts(&group.seat(3).unwrap()), [1, 1, 1]);
        assert_eq!(group.sockets().len(), 1);
    }

    #[test]
    fn what_does_not_listen_together_is_not_adopted() {
        let asked = FREE.parse().unwrap();
        assert!(Group::adopt(asked, Vec::new(), false).is_err());
        let bound = socket(asked).unwrap();
        bound.bind(&asked.into()).unwrap();
        assert!(Group::adopt(asked, vec![bound.into()], true).is_err());
        let two = (0..2).map(|_| TcpListener::bind(asked).unwrap()).collect();
        assert!(Group::adopt(asked, two, false).is_err());
    }
}
