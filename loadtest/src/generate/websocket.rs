//! WebSocket: a message up, and its echo.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use futures_util::{SinkExt, Stream, StreamExt};
use http::header::{CONNECTION, HOST, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Uri};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::error::{Error, ProtocolError};
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::drive::Link;
use super::io::Io;
use super::job::{Job, Sender};
use super::plan::Plan;
use super::tally::{Answer, Fault};

/// What to open, one URL per host, and what to say.
#[derive(Debug)]
pub(super) struct Requests {
    urls: Vec<(Uri, HeaderValue)>,
    headers: HeaderMap,
    message: Bytes,
}

impl Requests {
    pub(super) fn new(plan: &Plan) -> Self {
        let scheme = if plan.target.tls { "wss" } else { "ws" };
        let url = |host: &String| {
            let url = Uri::builder()
                .scheme(scheme)
                .authority(host.as_str())
                .path_and_query(plan.target.path.as_str())
                .build()
                .expect("the plan has checked hosts and path");
            let host = HeaderValue::from_str(host).expect("a host is a header value");
            (url, host)
        };
        let mut headers = HeaderMap::new();
        for (name, value) in &plan.headers {
            headers.append(name, value.clone());
        }
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        Self {
            urls: plan.hosts.iter().map(url).collect(),
            headers,
            message: plan.body.clone(),
        }
    }

    /// The request that opens a connection. Its key is new each time.
    fn opening(&self, job: &Job) -> Result<Request<()>, Fault> {
        let (url, host) = &self.urls[job.next_host()];
        let key = HeaderValue::try_from(generate_key());
        let key = key.map_err(|error| Fault::Connect(error.to_string()))?;
        let mut request = Request::new(());
        *request.uri_mut() = url.clone();
        let headers = request.headers_mut();
        self.headers.clone_into(headers);
        headers.insert(HOST, host.clone());
        headers.insert(SEC_WEBSOCKET_KEY, key);
        Ok(request)
    }
}

/// A connection that is open for messages.
#[derive(Debug)]
pub(super) struct Connection {
    stream: WebSocketStream<Io>,
    up: u64,
}

impl Link for Connection {
    type Requests = Requests;

    async fn open(sender: &Sender, requests: &Requests) -> Result<Self, Fault> {
        let job = &*sender.job;
        let io = job.connect(&sender.watch).await?;
        let request = requests.opening(job)?;
        let config = WebSocketConfig::default()
            .max_message_size(None)
            .max_frame_size(None);
        let opening = client_async_with_config(request, io, Some(config));
        let (stream, _) = sender
            .watch
            .limit(Instant::now(), Box::pin(opening))
            .await
            .map_err(|_expired| Fault::Connect("opening a WebSocket took too long".to_owned()))?
            .map_err(|error| Fault::Connect(format!("opening a WebSocket: {error}")))?;
        Ok(Self { stream, up: 0 })
    }

    async fn exchange(&mut self, _job: &Job, requests: &Requests) -> Result<Answer, Fault> {
        let message = &requests.message;
        self.up = 0;
        let sent = self.stream.send(Message::Binary(message.clone())).await;
        sent.map_err(fault)?;
        self.up = message.len() as u64;
        loop {
            match self.stream.next().await {
                Some(Ok(Message::Binary(echo))) if echo == *message => {
                    return Ok(Answer {
                        status: 0,
                        bytes: echo.len() as u64,
                    });
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(_))) | None => {
                    return Err(Fault::Closed("the WebSocket was closed".to_owned()));
                }
                Some(Ok(_)) => {
                    return Err(Fault::Invalid("the echo is not what was sent".to_owned()));
                }
                Some(Err(error)) => return Err(fault(error)),
            }
        }
    }

    fn up(&self) -> u64 {
        self.up
    }

    fn keeps(&self) -> bool {
        true
    }

    fn poll_end(&mut self, context: &mut Context<'_>, _job: &Job) -> Poll<()> {
        loop {
            match Pin::new(&mut self.stream).poll_next(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => {}
                // Whatever comes without being asked for ends the connection for us.
                Poll::Ready(_) => return Poll::Ready(()),
            }
        }
    }
}

/// Takes by value what `map_err` hands over.
#[expect(clippy::needless_pass_by_value, reason = "the shape map_err wants")]
fn fault(error: Error) -> Fault {
    let words = format!("WebSocket: {error}");
    match error {
        Error::ConnectionClosed
        | Error::AlreadyClosed
        | Error::Io(_)
        | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Fault::Closed(words),
        _ => Fault::Invalid(words),
    }
}
