//! A port that stays ours while nobody listens on it, for servers that go and come back.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};

use crate::backend::listen_on;

/// An address that refuses connections unless a test listens on it.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) address: SocketAddr,
    /// Bound, never listening: the kernel gives the port to nobody else.
    _guard: TcpSocket,
}

impl Port {
    /// Port 0 is any free one.
    pub(super) fn on(address: SocketAddr) -> Port {
        let guard = TcpSocket::new_v4().unwrap();
        guard.set_reuseaddr(true).unwrap();
        guard.bind(address).unwrap();
        Port {
            address: guard.local_addr().unwrap(),
            _guard: guard,
        }
    }

    pub(super) fn free() -> Port {
        Port::on("127.0.0.1:0".parse().unwrap())
    }

    pub(super) fn listen(&self) -> TcpListener {
        listen_on(self.address)
    }
}
