//! A client that is not ours: hyper's, on one keep-alive connection.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::HeaderMap;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
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

/// One connection to the gateway, closed when dropped.
#[derive(Debug)]
pub struct Client {
    sender: SendRequest<Body>,
    connection: AbortHandle,
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
        let stream = within("a connection", TcpStream::connect(address)).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(1 << 20)
            .handshake(TokioIo::new(stream))
            .await?;
        let connection = tokio::spawn(connection).abort_handle();
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
        self.sender.ready().await?;
        Ok(self.sender.send_request(request).await?)
    }

    /// Whether the gateway has closed the connection.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}
