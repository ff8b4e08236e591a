//! A connection to the target, plain or over TLS.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::plan::Plan;
use super::tally::Fault;

/// A connection to the target.
#[derive(Debug)]
pub(super) enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Io {
    /// Connects to the first address that answers, from the `turn`th local address.
    ///
    /// # Errors
    /// None of them does, or TLS fails.
    pub(super) async fn connect(plan: &Plan, turn: usize) -> Result<Self, Fault> {
        let mut failed = None;
        for address in &plan.target.addresses {
            match tcp(plan, *address, turn).await {
                Ok(stream) => return Self::secure(plan, stream).await,
                Err(error) => failed = failed.or(Some((address, error))),
            }
        }
        Err(Fault::Connect(match failed {
            Some((address, error)) => format!("cannot connect to {address}: {error}"),
            None => "no address to connect to".to_owned(),
        }))
    }

    async fn secure(plan: &Plan, stream: TcpStream) -> Result<Self, Fault> {
        match &plan.tls {
            None => Ok(Self::Plain(stream)),
            Some(config) => handshake(config, &plan.tls_name, stream)
                .await
                .map_err(|error| Fault::Connect(format!("TLS: {error}"))),
        }
    }
}

async fn tcp(plan: &Plan, address: SocketAddr, turn: usize) -> io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if !plan.bind.is_empty() {
        socket.bind(SocketAddr::new(plan.bind[turn % plan.bind.len()], 0))?;
    }
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn handshake(config: &Arc<ClientConfig>, name: &str, stream: TcpStream) -> io::Result<Io> {
    let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
    let stream = TlsConnector::from(config.clone())
        .connect(name, stream)
        .await?;
    let wanted = config.alpn_protocols.iter().any(|name| name == b"h2");
    if wanted && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
        return Err(io::Error::other("the server does not offer h2"));
    }
    Ok(Io::Tls(Box::new(stream)))
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, bytes),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
