//! One probe of one pod: whether its queue-proxy takes requests.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use config::revision::Key;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::scaler::ask;

/// Whatever the revision speaks, the queue-proxy answers this in HTTP/1.1 on the same port.
const PATH: &str = "/healthz";
const AGENT: &str = "Knative-Activator-Probe";
/// What a queue-proxy says whose user's container is ready.
const BODY: &[u8] = b"queue";
/// What it says before.
const UNAVAILABLE: u16 = 503;

/// What a probe came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// As asked; the connection took so long to open.
    Passed { connect: Duration },
    /// Nobody listens, at least not yet.
    Refused,
    /// Nothing within the time, or not more than a connection.
    Late { connected: bool },
    /// The pod is there and says that it does not serve yet.
    NotYet,
    /// Something else was answered, or the connection broke.
    Failed,
}

/// The fields of a probe. With `passthrough` a mesh is told to leave the address alone.
pub(super) fn fields(key: &Key, address: SocketAddr, passthrough: bool) -> String {
    let about = match passthrough {
        true => {
            let (name, namespace) = (&key.name, &key.namespace);
            format!("Host: {name}-private.{namespace}\r\nK-Passthrough-Lb: true\r\n")
        }
        false => format!("Host: {address}\r\n"),
    };
    format!("{about}User-Agent: {AGENT}\r\nK-Network-Probe: queue\r\n")
}

/// Asks once, for at most `within`. Cancel safe: the connection is closed.
pub(super) async fn probe(address: SocketAddr, fields: &str, within: Duration) -> Outcome {
    let start = Instant::now();
    let stream = match timeout(within, connect(address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            return Outcome::Refused;
        }
        Ok(Err(_unreachable)) => return Outcome::Failed,
        Err(_late) => return Outcome::Late { connected: false },
    };
    let connect = start.elapsed();
    let left = within.saturating_sub(connect);
    match timeout(left, ask::whole(stream, PATH, fields)).await {
        Ok(Ok(answer)) if answer.status == 200 && answer.body == BODY => {
            Outcome::Passed { connect }
        }
        Ok(Ok(answer)) if answer.status == UNAVAILABLE => Outcome::NotYet,
        Ok(_other) => Outcome::Failed,
        Err(_late) => Outcome::Late { connected: true },
    }
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    // Where nobody listens the kernel may connect a socket of this machine to itself.
    if stream.local_addr()? == address {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok(stream)
}
