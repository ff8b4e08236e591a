//! A client of HTTP/2, in clear or over TLS, one request at a time.

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use h2::client::SendRequest;
use http::{Request, Version};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::way::Way;
use super::{Answer, BYTES_MAX, PATIENCE, Visit};

/// A connection over HTTP/2.
#[derive(Debug)]
pub(crate) struct Http2Client {
    send: SendRequest<Bytes>,
    scheme: &'static str,
    /// Reads and writes the connection; ends with it.
    driver: JoinHandle<()>,
}

impl Drop for Http2Client {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Visit for Http2Client {
    async fn reach(way: &Way) -> anyhow::Result<Http2Client> {
        let stream = way.connect().await?;
        let handshake = timeout(PATIENCE, h2::client::handshake(stream)).await;
        let (send, connection) = handshake.context("HTTP/2 takes too long to begin")??;
        Ok(Http2Client {
            send,
            scheme: way.wire().scheme(),
            // How it ends, its requests hear.
            driver: tokio::spawn(async move { drop(connection.await) }),
        })
    }

    async fn ask(&mut self, host: &str, path: &str) -> anyhow::Result<Answer> {
        let request = Request::get(format!("{}://{host}{path}", self.scheme));
        let request = request.version(Version::HTTP_2).body(())?;
        let answer = timeout(PATIENCE, exchange(self.send.clone(), request)).await;
        answer.context("no answer in time")?
    }

    fn idles(&mut self) -> bool {
        !self.driver.is_finished()
    }
}

async fn exchange(send: SendRequest<Bytes>, request: Request<()>) -> anyhow::Result<Answer> {
    let (response, _no_body) = send.ready().await?.send_request(request, true)?;
    let (head, mut incoming) = response.await?.into_parts();
    let mut body = Vec::new();
    while let Some(part) = incoming.data().await {
        let part = part?;
        ensure!(
            body.len() + part.len() <= BYTES_MAX,
            "an answer without end"
        );
        body.extend_from_slice(&part);
        incoming.flow_control().release_capacity(part.len())?;
    }
    Ok(Answer {
        status: head.status.as_u16(),
        body,
    })
}
