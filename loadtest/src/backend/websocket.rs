//! WebSocket: every message goes back.

use std::io;

use bytes::BytesMut;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::AsyncWriteExt as _;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::serve::Site;
use super::stats::count;
use super::transport::Transport;

/// Accepts the upgrade and echoes until the client closes.
pub(super) async fn serve<S: Transport>(
    mut stream: S,
    rest: BytesMut,
    key: &str,
    site: &Site,
) -> io::Result<()> {
    let _running = site.counts.begin();
    let accept = derive_accept_key(key.as_bytes());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).await?;
    count(&site.counts.answers);
    let role = Role::Server;
    let mut socket = WebSocketStream::from_partially_read(stream, rest.to_vec(), role, None).await;
    while let Some(message) = socket.next().await {
        let message = message.map_err(io::Error::other)?;
        if message.is_text() || message.is_binary() {
            site.pause().await;
            socket.send(message).await.map_err(io::Error::other)?;
            count(&site.counts.messages);
        }
    }
    Ok(())
}
