//! HTTP/2 stream by stream, on the h2 crate: a client and an endpoint that decide themselves when
//! they send, read, give window, reset and leave.

use std::fmt;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use hyper::{HeaderMap, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::backend::{Alarm, listen};
use crate::client::{WINDOWS, with_authority};
use crate::wait::within;

/// Sends all of `data` as the peer's window allows.
///
/// # Errors
/// When the stream is reset or the connection breaks.
pub async fn push(stream: &mut SendStream<Bytes>, mut data: Bytes) -> Result<(), h2::Error> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let room = poll_fn(|context| stream.poll_capacity(context)).await;
        let room = room.ok_or(h2::Error::from(Reason::STREAM_CLOSED))??;
        stream.send_data(data.split_to(room.min(data.len())), false)?;
    }
    Ok(())
}

/// The next piece, its window given back; `None` at the end.
///
/// # Errors
/// When the stream is reset or the connection breaks.
pub async fn pull(stream: &mut RecvStream) -> Result<Option<Bytes>, h2::Error> {
    let Some(data) = stream.data().await.transpose()? else {
        return Ok(None);
    };
    stream.flow_control().release_capacity(data.len())?;
    Ok(Some(data))
}

/// Everything up to the end, and the trailers, none being empty.
///
/// # Errors
/// When the stream is reset or the connection breaks.
pub async fn drain(stream: &mut RecvStream) -> Result<(Bytes, HeaderMap), h2::Error> {
    let mut body = Vec::new();
    while let Some(data) = pull(stream).await? {
        body.extend_from_slice(&data);
    }
    let trailers = stream.trailers().await?.unwrap_or_default();
    Ok((body.into(), trailers))
}

/// The code with which the peer has reset a stream or left, when that is the error.
#[must_use]
pub fn code(error: &h2::Error) -> Option<Reason> {
    error.is_remote().then(|| error.reason()).flatten()
}

/// One connection as a client, closed when dropped.
#[derive(Debug)]
pub struct Http2 {
    sender: h2::client::SendRequest<Bytes>,
    connection: JoinHandle<Result<(), h2::Error>>,
}

impl Drop for Http2 {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Http2 {
    pub async fn connect(address: SocketAddr) -> Http2 {
        let stream = within("a connection", TcpStream::connect(address))
            .await
            .unwrap();
        stream.set_nodelay(true).unwrap();
        Http2::over(stream).await
    }

    /// On a connection that stands, in clear or not.
    pub async fn over<S>(stream: S) -> Http2
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut client = h2::client::Builder::new();
        client
            .initial_window_size(WINDOWS.0)
            .initial_connection_window_size(WINDOWS.1)
            .enable_push(false);
        let (sender, connection) = client.handshake(stream).await.unwrap();
        let connection = tokio::spawn(connection);
        Http2 { sender, connection }
    }

    /// Begins a stream with that head; its `host` becomes `:authority`. `end`: nothing follows.
    pub async fn open<B>(&mut self, request: Request<B>, end: bool) -> Call {
        within("a stream", self.try_open(request, end))
            .await
            .unwrap()
    }

    /// # Errors
    /// When the peer takes no more streams, or the connection broke.
    pub async fn try_open<B>(&mut self, request: Request<B>, end: bool) -> Result<Call, h2::Error> {
        self.sender = self.sender.clone().ready().await?;
        let request = with_authority(request).map(drop);
        let (response, upload) = self.sender.send_request(request, end)?;
        Ok(Call { response, upload })
    }

    /// Whether the peer takes extended CONNECT (RFC 8441); known once its SETTINGS have come.
    #[must_use]
    pub fn connects(&self) -> bool {
        self.sender.is_extended_connect_protocol_enabled()
    }

    /// How many streams the peer takes at once; known once its SETTINGS have come.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.sender.current_max_send_streams()
    }

    /// Waits until the connection is over.
    ///
    /// # Errors
    /// Why it is, unless the peer left in peace.
    pub async fn ended(&mut self) -> Result<(), h2::Error> {
        within("the connection to end", &mut self.connection)
            .await
            .unwrap()
    }
}

/// A request under way.
#[derive(Debug)]
pub struct Call {
    response: h2::client::ResponseFuture,
    /// The request's body.
    pub upload: SendStream<Bytes>,
}

impl Call {
    /// The next answer before the final one; `None` where that comes instead.
    pub async fn informational(&mut self) -> Option<Response<()>> {
        let next = poll_fn(|context| self.response.poll_informational(context));
        within("an informational answer", next)
            .await
            .map(Result::unwrap)
    }

    pub async fn head(&mut self) -> Response<RecvStream> {
        self.try_head().await.unwrap()
    }

    /// # Errors
    /// When the stream is reset or the connection breaks.
    pub async fn try_head(&mut self) -> Result<Response<RecvStream>, h2::Error> {
        within("an answer", self.response()).await
    }

    /// The same, however long it takes.
    ///
    /// # Errors
    /// When the stream is reset or the connection breaks.
    pub async fn response(&mut self) -> Result<Response<RecvStream>, h2::Error> {
        (&mut self.response).await
    }

    pub async fn send(&mut self, data: impl Into<Bytes>) {
        within("window", push(&mut self.upload, data.into()))
            .await
            .unwrap();
    }

    /// Ends the request's body.
    pub fn finish(&mut self) {
        self.upload.send_data(Bytes::new(), true).unwrap();
    }

    /// The whole answer's status and body.
    pub async fn answer(mut self) -> (u16, Bytes) {
        let (head, mut body) = self.head().await.into_parts();
        let (body, _) = within("a body", drain(&mut body)).await.unwrap();
        (head.status.as_u16(), body)
    }
}

/// What an endpoint was asked.
#[derive(Debug)]
pub struct Stream {
    pub request: Request<RecvStream>,
    pub respond: SendResponse<Bytes>,
    /// Of the connection, from 0.
    pub connection: usize,
}

impl Stream {
    #[must_use]
    pub fn path(&self) -> &str {
        self.request.uri().path()
    }

    /// Answers with that head and nothing after it.
    pub fn status(&mut self, status: u16) {
        let response = Response::builder().status(status).body(()).unwrap();
        self.respond.send_response(response, true).unwrap();
    }

    /// Answers 200; a body follows.
    pub fn begin(&mut self) -> SendStream<Bytes> {
        self.respond
            .send_response(Response::new(()), false)
            .unwrap()
    }

    pub fn reset(&mut self, reason: Reason) {
        self.respond.send_reset(reason);
    }

    /// Reads the request's body to its end.
    pub async fn body(&mut self) -> Bytes {
        drain(self.request.body_mut()).await.unwrap().0
    }

    /// Waits until the client cancels.
    pub async fn cancelled(&mut self) -> Reason {
        poll_fn(|context| self.respond.poll_reset(context))
            .await
            .unwrap()
    }
}

/// What an endpoint has seen.
#[derive(Debug, Default)]
pub struct Books {
    connections: AtomicUsize,
    open: AtomicUsize,
    streams: AtomicUsize,
    running: AtomicUsize,
    /// Most streams at once, by connection.
    peaks: Mutex<Vec<usize>>,
}

impl Books {
    /// Connections that were ever made.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Connections that stand.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// Streams that were ever begun.
    pub fn streams(&self) -> usize {
        self.streams.load(Ordering::SeqCst)
    }

    /// Streams whose script has not ended.
    pub fn running(&self) -> usize {
        self.running.load(Ordering::SeqCst)
    }

    /// Most streams that ever were on one connection at once.
    pub fn peak(&self) -> usize {
        self.peaks
            .lock()
            .unwrap()
            .iter()
            .copied()
            .max()
            .unwrap_or_default()
    }
}

/// How an endpoint greets its clients.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    pub streams: u32,
    /// Of a stream's window; the connection's is sixteen times that.
    pub window: u32,
}

impl Default for Terms {
    fn default() -> Terms {
        Terms {
            streams: 100,
            window: 65_535,
        }
    }
}

/// An endpoint of HTTP/2 that plays a script on every stream. Prints as its address; dropped, it
/// is gone with all its connections.
pub struct Http2Backend {
    pub address: SocketAddr,
    books: Arc<Books>,
    leave: watch::Sender<usize>,
    alarm: Alarm,
    task: JoinHandle<()>,
}

impl Http2Backend {
    pub fn scripted<F, R>(script: F) -> Http2Backend
    where
        F: Fn(Stream) -> R + Clone + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        Http2Backend::on_terms(Terms::default(), script)
    }

    pub fn on_terms<F, R>(terms: Terms, script: F) -> Http2Backend
    where
        F: Fn(Stream) -> R + Clone + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let listener = listen();
        let address = listener.local_addr().unwrap();
        let books = Arc::new(Books::default());
        let leave = watch::Sender::new(0);
        let alarm = Alarm::default();
        let (shared, wire, left) = (books.clone(), alarm.clone(), leave.subscribe());
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let number = shared.connections.fetch_add(1, Ordering::SeqCst);
                shared.peaks.lock().unwrap().push(0);
                let connection = Connection {
                    number,
                    books: shared.clone(),
                    left: left.clone(),
                };
                let (script, wire) = (script.clone(), wire.clone());
                let script = move |stream| wire.watch(script(stream));
                connections.spawn(connection.serve(stream, terms, script));
            }
        });
        Http2Backend {
            address,
            books,
            leave,
            alarm,
            task,
        }
    }

    /// Leaves every connection in peace: GOAWAY, and what was begun is finished. New ones stay.
    pub fn leave(&self) {
        self.leave.send_modify(|times| *times += 1);
    }
}

impl Deref for Http2Backend {
    type Target = Books;

    fn deref(&self) -> &Books {
        &self.books
    }
}

impl Drop for Http2Backend {
    fn drop(&mut self) {
        self.task.abort();
        self.alarm.check();
    }
}

impl fmt::Display for Http2Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

impl fmt::Debug for Http2Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Http2Backend({})", self.address)
    }
}

struct Connection {
    number: usize,
    books: Arc<Books>,
    left: watch::Receiver<usize>,
}

impl Connection {
    async fn serve<F, R>(mut self, stream: TcpStream, terms: Terms, script: F)
    where
        F: Fn(Stream) -> R,
        R: Future<Output = ()> + Send + 'static,
    {
        stream.set_nodelay(true).unwrap();
        let _open = Counted::one(&self.books, |books| &books.open);
        let server = h2::server::Builder::new()
            .max_concurrent_streams(terms.streams)
            .initial_window_size(terms.window)
            .initial_connection_window_size(terms.window << 4)
            .handshake(stream)
            .await;
        // How a connection ends is the gateway's and the script's affair, and seen from there.
        let Ok(mut server) = server else { return };
        let mut streams = JoinSet::new();
        self.left.mark_unchanged();
        loop {
            tokio::select! {
                accepted = server.accept() => {
                    let Some(Ok((request, respond))) = accepted else { return };
                    while streams.try_join_next().is_some() {}
                    let connection = self.number;
                    let running = Counted::one(&self.books, |books| &books.running);
                    let playing = script(Stream { request, respond, connection });
                    streams.spawn(async move {
                        playing.await;
                        drop(running);
                    });
                    self.count(streams.len());
                }
                Ok(()) = self.left.changed() => server.graceful_shutdown(),
            }
        }
    }

    fn count(&self, at_once: usize) {
        self.books.streams.fetch_add(1, Ordering::SeqCst);
        let mut peaks = self.books.peaks.lock().unwrap();
        peaks[self.number] = peaks[self.number].max(at_once);
    }
}

/// One more, until dropped.
struct Counted(Arc<Books>, fn(&Books) -> &AtomicUsize);

impl Counted {
    fn one(books: &Arc<Books>, which: fn(&Books) -> &AtomicUsize) -> Counted {
        which(books).fetch_add(1, Ordering::SeqCst);
        Counted(books.clone(), which)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1(&self.0).fetch_sub(1, Ordering::SeqCst);
    }
}
