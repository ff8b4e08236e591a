//! WebSockets by tokio-tungstenite, on both sides of the gateway.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::app::Running;
use crate::body::{self, Body};
use crate::wait::within;

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

/// An open WebSocket through the gateway.
#[derive(Debug)]
pub struct WebSocket(WebSocketStream<TcpStream>);

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
        let handshake = client_async(format!("ws://{host}{path}"), stream);
        let (socket, _) = within("a WebSocket handshake", handshake).await?;
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
