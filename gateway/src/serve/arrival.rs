//! What happens between accepting a connection and its first request: who it is from.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;

use super::census::Entry;
use super::connection::{Open, patiently, serve_open};
use super::io::Io;
use super::listeners;
use super::proxy_protocol;
use super::tls;
use super::worker::Worker;
use crate::exchange::Client;

/// How long a PROXY protocol header may take, from the connection on.
const PROXY_HEADER_TIME: Duration = Duration::from_secs(3);

/// Serves a connection that the census let in, of a listener, by its index, until either side ends
/// it. It counts as open from this call on.
pub fn welcome(
    worker: Rc<Worker>,
    stream: TcpStream,
    peer: SocketAddr,
    listener: usize,
    entry: Entry,
) -> impl Future<Output = ()> {
    let mut open = Open::new(&worker, listener);
    open.counts(entry);
    async move {
        if let Some((io, client)) = arrive(&mut open, stream, peer).await {
            serve_open(&worker, io, client).await;
        }
        drop(open);
    }
}

/// Everything before HTTP. `None` where the connection ends here.
pub(super) async fn arrive(
    open: &mut Open,
    mut stream: TcpStream,
    peer: SocketAddr,
) -> Option<(Io, Client)> {
    let (worker, listener) = (open.worker.clone(), open.listener);
    let worker = &*worker;
    let settings = &worker.shared.settings;
    let of = settings.listeners.get(listener)?;
    if let Err(error) = listeners::allow_stall(&SockRef::from(&stream), settings.limits.write_stall)
    {
        tracing::debug!(%peer, %error, "a connection failed before it began");
        return None;
    }
    let mut address = canonical(peer);
    let proxies = of.proxy_protocol.as_deref().unwrap_or_default();
    // A proxy that speaks for itself looks whether we are there.
    let mut one_client = true;
    if proxies.iter().any(|net| net.contains(&address.ip())) {
        // Boxed: few connections need it, and all would keep room for it.
        let source = Box::pin(proxied(worker, &mut stream, address)).await?;
        one_client = source.is_some();
        address = source.map_or(address, canonical);
    }
    let trusted = &settings.trusted_proxies;
    let trusted = trusted.iter().any(|net| net.contains(&address.ip()));
    if one_client && !trusted && !open.counts_for(address.ip()) {
        return None;
    }
    let client = Client {
        address,
        address_text: address.ip().to_string().into(),
        listener,
        audience: of.audience,
        one_client,
        trusted,
        secure: false,
        identity: None,
        leaves_at: None,
    };
    let Some(acceptor) = worker.live.acceptor(listener) else {
        // Never in clear where TLS was asked for.
        return of.tls.is_none().then_some((Io::Plain(stream), client));
    };
    // Boxed: what a handshake needs is not to be kept by the connection behind it.
    let accepted = Box::pin(tls::accept::accept(worker, &acceptor, stream, listener)).await?;
    let client = Client {
        secure: true,
        identity: accepted.identity,
        ..client
    };
    Some((Io::Tls(Box::new(accepted.stream)), client))
}

/// Whom the proxy in front speaks for; `Some(None)` when it speaks for itself.
async fn proxied(
    worker: &Worker,
    stream: &mut TcpStream,
    proxy: SocketAddr,
) -> Option<Option<SocketAddr>> {
    let timer = worker.timers.timer();
    let taking = worker.unless_ended(proxy_protocol::take(stream));
    match patiently(worker, &timer, PROXY_HEADER_TIME, taking).await {
        Some(Some(Ok(source))) => Some(source),
        Some(Some(Err(error))) => {
            tracing::debug!(%proxy, %error, "no PROXY protocol header: connection closed");
            None
        }
        Some(None) | None => {
            tracing::debug!(%proxy, "no PROXY protocol header in time: connection closed");
            None
        }
    }
}

/// IPv4 as such, also where the socket speaks IPv6.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
