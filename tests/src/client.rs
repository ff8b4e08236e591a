//! A client that is not ours: hyper's, on one connection of HTTP/1.1 or HTTP/2.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::header::{HOST, HeaderMap};
use hyper::{Request, Response, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

use crate::body::{self, Body};
use crate::wait::within;

/// A request without a body. Further fields: see [`hyper::http::request::Builder`].
#[must_use]
pub fn request(method: &str, host: &str, path: &str) -> Request<Body> {
    let request = Request::builder().method(method).uri(path);
    request.header("host", host).body(body::empty()).unwrap()
}

/// One more or one changed field of a request.
#[must_use]
pub fn with(mut request: Request<Body>, name: &'static str, value: &str) -> Request<Body> {
    request.headers_mut().append(name, value.parse().unwrap());
    request
}

/// A request's new body.
#[must_use]
pub fn carrying(request: Request<Body>, body: Body) -> Request<Body> {
    request.map(|_| body)
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: HeaderMap,
}

impl Answer {
    /// # Errors
    /// When the body breaks off.
    pub async fn read(response: Response<Incoming>) -> hyper::Result<Answer> {
        let (head, incoming) = response.into_parts();
        let collected = incoming.collect().await?;
        let trailers = collected.trailers().cloned().unwrap_or_default();
        Ok(Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body: collected.to_bytes(),
            trailers,
        })
    }

    /// The field's value, `""` where there is none.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// The word of `tidegate-reason`, `""` where there is none.
    #[must_use]
    pub fn reason(&self) -> &str {
        self.header("tidegate-reason")
    }

    /// Which backend answered.
    #[must_use]
    pub fn backend(&self) -> &str {
        self.header("x-backend")
    }

    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(error) => panic!("not JSON ({error}): {self:?}"),
        }
    }

    /// A field of the request as the backend saw it, `""` where there was none.
    #[must_use]
    pub fn seen(&self, name: &str) -> String {
        self.json()["headers"][name]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// The same answer.
    ///
    /// # Panics
    /// Unless the status is that.
    #[track_caller]
    pub fn expect(self, status: u16) -> Answer {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    /// # Panics
    /// Unless this is our own answer with that status and that word.
    #[track_caller]
    pub fn refused(self, status: u16, reason: &str) -> Answer {
        let got = (self.status, self.reason());
        assert_eq!(got, (status, reason), "{self:?}");
        self
    }
}

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    Http1,
    /// With prior knowledge, or agreed on in a TLS handshake.
    Http2,
}

/// How much of an answer HTTP/2 clients take before they have read it: per stream, per connection.
pub const WINDOWS: (u32, u32) = (65_535, 1 << 20);

/// One connection to the gateway, closed when dropped.
#[derive(Debug)]
pub struct Client {
    sender: Sender,
    connection: AbortHandle,
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

impl Drop for Client {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Client {
        Client::try_connect(address).await.unwrap()
    }

    /// # Errors
    /// When nobody listens.
    pub async fn try_connect(address: SocketAddr) -> anyhow::Result<Client> {
        Client::try_speaking(Wire::Http1, address).await
    }

    /// A connection on which that is spoken from the first byte.
    pub async fn speaking(wire: Wire, address: SocketAddr) -> Client {
        Client::try_speaking(wire, address).await.unwrap()
    }

    /// # Errors
    /// When nobody listens.
    pub async fn try_speaking(wire: Wire, address: SocketAddr) -> anyhow::Result<Client> {
        let stream = within("a connection", TcpStream::connect(address)).await?;
        stream.set_nodelay(true)?;
        Client::over(wire, stream).await
    }

    /// On a connection that stands, in clear or not.
    ///
    /// # Errors
    /// When the first bytes cannot be sent.
    pub async fn over<S>(wire: Wire, stream: S) -> anyhow::Result<Client>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stream = TokioIo::new(stream);
        let (sender, connection) = match wire {
            Wire::Http1 => {
                let mut client = http1::Builder::new();
                let (sender, connection) = client.max_buf_size(1 << 20).handshake(stream).await?;
                (Sender::Http1(sender), tokio::spawn(connection))
            }
            Wire::Http2 => {
                let mut client = http2::Builder::new(TokioExecutor::new());
                client.initial_stream_window_size(WINDOWS.0);
                client.initial_connection_window_size(WINDOWS.1);
                let (sender, connection) = client.handshake(stream).await?;
                (Sender::Http2(sender), tokio::spawn(connection))
            }
        };
        let connection = connection.abort_handle();
        Ok(Client { sender, connection })
    }

    pub async fn get(&mut self, host: &str, path: &str) -> Answer {
        self.send(request("GET", host, path)).await
    }

    pub async fn send(&mut self, request: Request<Body>) -> Answer {
        let asked = format!("{} {}", request.method(), request.uri());
        match within(&asked, self.try_send(request)).await {
            Ok(answer) => answer,
            Err(error) => panic!("no answer to {asked}: {error:?}"),
        }
    }

    /// Waits without end for the answer: dropping the future and the client leaves.
    ///
    /// # Errors
    /// When the connection breaks or cannot be used again.
    pub async fn try_send(&mut self, request: Request<Body>) -> anyhow::Result<Answer> {
        Ok(Answer::read(self.open(request).await?).await?)
    }

    /// The answer's head, its body still to be read.
    ///
    /// # Errors
    /// When the connection breaks or cannot be used again.
    pub async fn open(&mut self, request: Request<Body>) -> anyhow::Result<Response<Incoming>> {
        match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await?;
                Ok(sender.send_request(request).await?)
            }
            Sender::Http2(sender) => {
                sender.ready().await?;
                Ok(sender.send_request(with_authority(request)).await?)
            }
        }
    }

    /// One more request of the same HTTP/2 connection can be under way for each of these; the
    /// connection closes with the client that was cloned.
    ///
    /// # Panics
    /// With HTTP/1.1.
    #[must_use]
    pub fn sibling(&self) -> Sibling {
        match &self.sender {
            Sender::Http1(_) => panic!("HTTP/1.1 has one request at a time"),
            Sender::Http2(sender) => Sibling(sender.clone()),
        }
    }

    /// Whether the gateway has closed the connection.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender) => sender.is_closed(),
            Sender::Http2(sender) => sender.is_closed(),
        }
    }
}

/// A further user of a client's HTTP/2 connection.
#[derive(Clone, Debug)]
pub struct Sibling(http2::SendRequest<Body>);

impl Sibling {
    /// # Errors
    /// When the stream is reset or the connection breaks.
    pub async fn try_send(&mut self, request: Request<Body>) -> anyhow::Result<Answer> {
        self.0.ready().await?;
        let response = self.0.send_request(with_authority(request)).await?;
        Ok(Answer::read(response).await?)
    }
}

/// The request with its `host` as `:authority`, as HTTP/2 clients send it.
pub(crate) fn with_authority<B>(mut request: Request<B>) -> Request<B> {
    if let Some(host) = request.headers_mut().remove(HOST) {
        let target = request
            .uri()
            .path_and_query()
            .map_or("/", |path| path.as_str());
        let uri = format!("http://{}{target}", host.to_str().unwrap());
        *request.uri_mut() = uri.parse::<Uri>().unwrap();
    }
    request
}
