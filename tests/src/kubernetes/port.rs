//! A port that stays ours while nobody listens on it, for servers that go and come back.

use std::net::SocketAddr;
use std::sync::Mutex;

use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinHandle;

use crate::backend::listen_on;

/// An address that refuses connections unless a server is there. Dropped, it takes the server along.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) address: SocketAddr,
    /// Bound, never listening: the kernel gives the port to nobody else.
    _guard: TcpSocket,
    server: Mutex<Option<JoinHandle<()>>>,
}

fn socket(address: SocketAddr) -> TcpSocket {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    };
    socket.unwrap()
}

impl Port {
    /// Port 0 is any free one.
    pub(super) fn on(address: SocketAddr) -> Port {
        let guard = socket(address);
        guard.set_reuseaddr(true).unwrap();
        guard.bind(address).unwrap();
        Port {
            address: guard.local_addr().unwrap(),
            _guard: guard,
            server: Mutex::default(),
        }
    }

    pub(super) fn free() -> Port {
        Port::on("127.0.0.1:0".parse().unwrap())
    }

    /// Listens, and lets this serve what comes.
    ///
    /// # Panics
    /// When a server is there.
    pub(super) fn serve<F>(&self, server: impl FnOnce(TcpListener) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut running = self.server.lock().unwrap();
        assert!(running.is_none(), "the server at {} runs", self.address);
        *running = Some(tokio::spawn(server(listen_on(self.address))));
    }

    /// Closes the port and every connection, as the kernel does after kill -9.
    pub(super) async fn stop(&self) {
        if let Some(server) = self.kill() {
            // The abort is the expected end; the sockets are closed when the task has gone.
            drop(server.await);
        }
    }

    /// The same, without waiting for its end.
    pub(super) fn kill(&self) -> Option<JoinHandle<()>> {
        let server = self.server.lock().unwrap().take();
        server.inspect(JoinHandle::abort)
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        drop(self.kill());
    }
}
