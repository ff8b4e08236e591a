//! What systemd, or whoever speaks like it, hands us and hears from us: listening sockets
//! (`sd_listen_fds(3)`) and words about how far we are (`sd_notify(3)`).

use std::io;
use std::net::TcpListener;

use listenfd::ListenFd;
use sd_notify::NotifyState;

/// The listening sockets we were started with, which no child inherits. To be called before there
/// are threads: it tidies up the environment.
///
/// # Errors
/// One of them is no TCP socket.
pub(crate) fn sockets() -> io::Result<Vec<TcpListener>> {
    let mut given = ListenFd::from_env();
    let mut sockets = Vec::new();
    for index in 0..given.len() {
        sockets.extend(given.take_tcp_listener(index)?);
    }
    Ok(sockets)
}

/// Connections are accepted, by this process.
pub(crate) fn ready() {
    let main = NotifyState::MainPid(std::process::id());
    tell(&[NotifyState::Ready, main]);
}

/// The drain has begun.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot notify the service manager");
    }
}
