//! Endpoints in the test's own process: real servers of hyper on free ports, which speak HTTP/1.1
//! or HTTP/2, whichever their clients begin with.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::app::App;
use crate::body::Body;

/// Enough for thousands of connections that come at once.
const BACKLOG: u32 = 8192;

/// One endpoint. Prints as its address; dropped or killed, it is gone with all its connections.
pub struct Backend {
    pub address: SocketAddr,
    app: Arc<App>,
    alarm: Alarm,
    task: JoinHandle<()>,
}

impl Backend {
    /// An [`App`] of that name.
    #[must_use]
    pub fn start(name: &str) -> Backend {
        Backend::serving(App::new(name))
    }

    /// An [`App`] that finishes what it began, as programs do that do not watch their client.
    #[must_use]
    pub fn stubborn(name: &str) -> Backend {
        let mut app = App::new(name);
        app.stubborn = true;
        Backend::serving(app)
    }

    #[must_use]
    pub fn serving(app: App) -> Backend {
        let app = Arc::new(app);
        let half_close = app.stubborn;
        let handler = app.clone();
        Backend::new(app, half_close, move |request| {
            handler.clone().answer(request)
        })
    }

    /// An endpoint that does what the test says.
    pub fn with<F, R>(handler: F) -> Backend
    where
        F: Fn(Request<Incoming>) -> R + Clone + Send + 'static,
        R: Future<Output = Response<Body>> + Send + 'static,
    {
        let app = Arc::new(App::new("scripted"));
        Backend::new(app, false, move |request| {
            let answer = handler(request);
            async move { anyhow::Ok(answer.await) }
        })
    }

    fn new<F, R>(app: Arc<App>, half_close: bool, handler: F) -> Backend
    where
        F: Fn(Request<Incoming>) -> R + Clone + Send + 'static,
        R: Future<Output = anyhow::Result<Response<Body>>> + Send + 'static,
    {
        let listener = listen();
        let address = listener.local_addr().unwrap();
        let alarm = Alarm::default();
        let wire = alarm.clone();
        let task = tokio::spawn(accept(listener, half_close, move |request| {
            wire.watch(handler(request))
        }));
        Backend {
            address,
            app,
            alarm,
            task,
        }
    }

    /// Closes the listening socket and every connection, as the kernel does after kill -9.
    pub async fn kill(mut self) {
        self.app.close_websockets();
        self.task.abort();
        // The abort is the expected end; the sockets are closed when the task has gone.
        drop((&mut self.task).await);
    }

    /// The same, and nobody else gets its port: connections are refused for as long as the socket
    /// lives, unless it listens again.
    pub async fn kill_for_now(self) -> TcpSocket {
        let address = self.address;
        self.kill().await;
        bind(address)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.app.close_websockets();
        self.task.abort();
        self.alarm.check();
    }
}

impl Deref for Backend {
    type Target = App;

    fn deref(&self) -> &App {
        &self.app
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Backend({})", self.address)
    }
}

/// A listening socket on a free port of the loopback address.
#[must_use]
pub fn listen() -> TcpListener {
    listen_on("127.0.0.1:0".parse().unwrap())
}

#[must_use]
pub fn listen_on(address: SocketAddr) -> TcpListener {
    bind(address).listen(BACKLOG).unwrap()
}

fn bind(address: SocketAddr) -> TcpSocket {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    };
    let socket = socket.unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

/// An address that refuses connections for as long as the socket lives.
#[must_use]
pub fn refusing() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// Tells the test of panics in what it let run beside itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Alarm(Arc<AtomicBool>);

impl Alarm {
    /// The future's value; a panic of it is remembered.
    pub(crate) fn watch<T, F>(&self, future: F) -> impl Future<Output = T> + use<T, F>
    where
        F: Future<Output = T>,
    {
        let guard = Guard(self.clone());
        async move {
            let value = future.await;
            drop(guard);
            value
        }
    }

    /// # Panics
    /// When something watched has, and the test does not panic already.
    pub(crate) fn check(&self) {
        let rung = self.0.load(Ordering::SeqCst) && !std::thread::panicking();
        assert!(!rung, "a script of an endpoint has failed, see above");
    }
}

struct Guard(Alarm);

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.0.store(true, Ordering::SeqCst);
        }
    }
}

/// Serves every connection of `listener` until dropped, and with it all of them.
pub async fn accept<F, R>(listener: TcpListener, half_close: bool, handler: F)
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + 'static,
    R: Future<Output = anyhow::Result<Response<Body>>> + Send + 'static,
{
    accept_few(listener, usize::MAX, half_close, handler).await;
}

/// The same of so many connections at a time: those beyond are reset.
pub async fn accept_few<F, R>(listener: TcpListener, most: usize, half_close: bool, handler: F)
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + 'static,
    R: Future<Output = anyhow::Result<Response<Body>>> + Send + 'static,
{
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        if connections.len() >= most {
            stream.set_zero_linger().unwrap();
            continue;
        }
        connections.spawn(converse(stream, half_close, handler.clone()));
    }
}

async fn converse<F, R>(stream: TcpStream, half_close: bool, handler: F)
where
    F: Fn(Request<Incoming>) -> R + Send + 'static,
    R: Future<Output = anyhow::Result<Response<Body>>> + Send + 'static,
{
    stream.set_nodelay(true).unwrap();
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().half_close(half_close);
    let connection =
        server.serve_connection_with_upgrades(TokioIo::new(stream), service_fn(handler));
    // How a connection ends is the gateway's and the script's affair, and seen from there.
    drop(connection.await);
}
