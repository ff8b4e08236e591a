//! Listening sockets: one per worker and address, so that the kernel spreads connections and
//! workers share nothing.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

/// Connections the kernel completes before we accept them.
const BACKLOG: i32 = 4096;

/// Dead peers are found during long waits: first probe, between probes, how many.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(15), Duration::from_secs(15), 4);

/// How long sent data may stay unacknowledged before the peer counts as dead.
const USER_TIMEOUT: Duration = Duration::from_secs(60);

/// Binds one socket per worker to `address`; port 0 becomes the same free port for all.
///
/// # Errors
/// The address is taken, not ours, or not allowed to us.
pub fn bind(address: SocketAddr, workers: usize) -> io::Result<Vec<TcpListener>> {
    // Sockets with SO_REUSEPORT would share the address with a stranger in silence: bind once
    // without it and let go.
    let claim = socket(address)?;
    claim.bind(&address.into())?;
    claim.listen(1)?;
    let address = local(&claim)?;
    drop(claim);
    (0..workers).map(|_| listen(address)).collect()
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

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(address)?;
    socket.set_reuse_port(true)?;
    // Accepted sockets inherit what is set here.
    socket.set_tcp_nodelay(true)?;
    notice_death(&socket)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
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
