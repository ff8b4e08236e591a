//! What all commands ask of the kernel.

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// How long to wait when no connection can be accepted, for want of descriptors above all.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// Lets this process, and what it starts, have as many descriptors as it may.
pub fn raise_descriptor_limit() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit {
        current: maximum,
        maximum,
    };
    // Where it is refused, what needs more descriptors says so by itself.
    let _refused = setrlimit(Resource::Nofile, limit);
}

/// The time of the kernel's monotonic clock, the same for all processes, in nanoseconds.
#[must_use]
pub fn monotonic_nanos() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

/// Listens on this address, on the event loop of the caller.
///
/// With `shared`, other threads may listen on the same address and the kernel spreads connections
/// over them.
///
/// # Errors
///
/// The address is taken, or not of this machine; the message names it.
pub fn listen(address: SocketAddr, shared: bool) -> anyhow::Result<TcpListener> {
    let open = || -> std::io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(shared)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    open().with_context(|| format!("cannot listen on {address}"))
}

/// The next connection, however long it takes until one can be accepted.
pub async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// Says it to whoever still listens, unlike `eprintln`, which panics when nobody does.
pub fn tell(what: &str) {
    let _unheard = writeln!(std::io::stderr(), "{what}");
}
