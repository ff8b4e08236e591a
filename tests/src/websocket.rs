//! WebSockets by tokio-tungstenite, on both sides of the gateway; clients also over HTTP/2.

use std::net::SocketAddr;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use h2::{RecvStream, SendStream};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::app::Running;
use crate::body::{self, Body};
use crate::http2::{Http2, pull, push};
use crate::wait::{PATIENCE, eventually, within};

/// Switches protocols and echoes every message until the client closes. `running` ends with it.
pub(crate) fn accept(
    mut request: Request<Incoming>,
    running: Running,
) -> anyhow::Result<(Response<Body>, AbortHandle)> {
    let key = request.headers().get(SEC_WEBSOCKET_KEY);
    let key = key.ok_or_else(|| anyhow::anyhow!("an upgrade without Sec-WebSocket-Key"))?;
    let response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(UPGRADE, "websocket")
        .header(CONNECTION, "Upgrade")
        .header(SEC_WEBSOCKET_ACCEPT, derive_accept_key(key.as_bytes()))
        .body(body::empty())?;
    let echoing = tokio::spawn(async move {
        let upgraded = TokioIo::new(hyper::upgrade::on(&mut request).await?);
        let (mut sink, mut stream) = WebSocketStream::from_raw_socket(upgraded, Role::Server, None)
            .await
            .split();
        while let Some(message) = stream.next().await {
            let message = message?;
            if message.is_text() || message.is_binary() {
                sink.send(message).await?;
            }
        }
        drop(running);
        anyhow::Ok(())
    });
    Ok((response, echoing.abort_handle()))
}

/// What carries a WebSocket's frames.
trait Carrier: AsyncRead + AsyncWrite + Unpin + Send + std::fmt::Debug {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + std::fmt::Debug> Carrier for T {}

/// An open WebSocket through the gateway.
#[derive(Debug)]
pub struct WebSocket(WebSocketStream<Box<dyn Carrier>>);

impl WebSocket {
    /// # Panics
    /// When the upgrade is refused.
    pub async fn open(gateway: SocketAddr, host: &str, path: &str) -> WebSocket {
        match WebSocket::try_open(gateway, host, path).await {
            Ok(socket) => socket,
            Err(error) => panic!("no WebSocket at {host}{path}: {error}"),
        }
    }

    /// # Errors
    /// Whatever ended the handshake; an answer other than 101 is [`Error::Http`].
    pub async fn try_open(
        gateway: SocketAddr,
        host: &str,
        path: &str,
    ) -> Result<WebSocket, Box<Error>> {
        let stream = TcpStream::connect(gateway).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let stream: Box<dyn Carrier> = Box::new(stream);
        let handshake = client_async(format!("ws://{host}{path}"), stream);
        let (socket, _) = within("a WebSocket handshake", handshake).await?;
        Ok(WebSocket(socket))
    }

    /// On a stream of a connection of HTTP/2, by extended CONNECT (RFC 8441).
    ///
    /// # Errors
    /// The answer's status when it is not 200.
    pub async fn on_stream(client: &mut Http2, host: &str, path: &str) -> Result<WebSocket, u16> {
        eventually(PATIENCE, "extended CONNECT is offered", async || {
            client.connects().then_some(())
        })
        .await;
        let mut request = Request::builder()
            .method("CONNECT")
            .uri(format!("http://{host}{path}"))
            .header("sec-websocket-version", "13")
            .body(())
            .unwrap();
        let protocol = h2::ext::Protocol::from_static("websocket");
        request.extensions_mut().insert(protocol);
        let mut call = client.open(request, false).await;
        let answer = call.head().await;
        if answer.status() != StatusCode::OK {
            return Err(answer.status().as_u16());
        }
        let (near, far) = tokio::io::duplex(1 << 16);
        tokio::spawn(carry(far, call.upload, answer.into_body()));
        let near: Box<dyn Carrier> = Box::new(near);
        let socket = WebSocketStream::from_raw_socket(near, Role::Client, None).await;
        Ok(WebSocket(socket))
    }

    /// Sends a text and waits for the same to come back.
    pub async fn echo(&mut self, text: &str) {
        self.send(Message::text(text)).await;
        assert_eq!(self.receive().await, Message::text(text));
    }

    pub async fn send(&mut self, message: Message) {
        within("a WebSocket to take a message", self.0.send(message))
            .await
            .unwrap();
    }

    pub async fn receive(&mut self) -> Message {
        let message = within("a WebSocket message", self.0.next()).await;
        message.expect("the WebSocket is open").unwrap()
    }

    /// Waits until the other side has gone, properly closed or not.
    pub async fn gone(&mut self) {
        within("the WebSocket to end", async {
            while let Some(Ok(_)) = self.0.next().await {}
        })
        .await;
    }

    /// Closes as the protocol asks and waits for the answer.
    pub async fn close(mut self) {
        self.0.close(None).await.unwrap();
        self.gone().await;
    }
}

/// Moves bytes between a pipe and a stream until either side of either ends: the stream ends when
/// the pipe does, and the other way round.
async fn carry(pipe: DuplexStream, mut up: SendStream<Bytes>, mut down: RecvStream) {
    let (mut reader, mut writer) = tokio::io::split(pipe);
    let sending = async {
        let mut buffer = vec![0; 1 << 14];
        while let Ok(length @ 1..) = reader.read(&mut buffer).await {
            let data = Bytes::copy_from_slice(&buffer[..length]);
            if push(&mut up, data).await.is_err() {
                return;
            }
        }
        // It may have been reset by now.
        drop(up.send_data(Bytes::new(), true));
    };
    let receiving = async {
        while let Ok(Some(data)) = pull(&mut down).await {
            if writer.write_all(&data).await.is_err() {
                return;
            }
        }
        drop(writer.shutdown().await);
    };
    tokio::join!(sending, receiving);
}
