//! Clients of a comparison's own, where a single connection or request is what matters.

mod http1;
mod http2;
mod way;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::sleep;

pub(crate) use http1::Client;
pub(crate) use http2::Http2Client;
pub(crate) use way::Way;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a proxy may take until it serves, once it accepts connections.
const SERVED_MAX: Duration = Duration::from_secs(10);

/// Between two requests of whoever waits for something to show.
const LOOK: Duration = Duration::from_millis(5);

/// Most bytes of an answer: a page of metrics of many routes is the largest.
const BYTES_MAX: usize = 256 * 1024 * 1024;

/// Clients of a crowd that connect at once. Few, so that what a proxy holds afterwards is what idle
/// connections take and not what was left by a burst.
pub(crate) const AT_ONCE: usize = 32;

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

/// A connection that carries one request at a time.
pub(crate) trait Visit: Sized {
    /// Connects.
    ///
    /// # Errors
    ///
    /// Nobody accepts it, or not what it speaks.
    async fn reach(way: &Way) -> anyhow::Result<Self>;

    /// Sends a request and reads its answer.
    ///
    /// # Errors
    ///
    /// The connection has ended or ends, a minute passes, or what comes is no answer.
    async fn ask(&mut self, host: &str, path: &str) -> anyhow::Result<Answer>;

    /// Whether the connection is open and nothing has come that nobody asked for.
    fn idles(&mut self) -> bool;
}

/// Asks on a connection of its own, over HTTP/1.1 in clear.
///
/// # Errors
///
/// As of [`Visit::ask`], and for any status but 200.
pub(crate) async fn get(address: SocketAddr, path: &str) -> anyhow::Result<Vec<u8>> {
    let mut client = Client::connect(address).await?;
    let answer = client.ask(&address.to_string(), path).await?;
    if answer.status != 200 {
        bail!("{path} of {address} is answered with {}", answer.status);
    }
    Ok(answer.body)
}

/// Waits until requests are answered with 200: some proxies listen before they have their routes.
///
/// # Errors
///
/// They are not within ten seconds; the message says what the last one was answered with.
pub(crate) async fn until_served<V: Visit>(way: &Way, host: &str) -> anyhow::Result<()> {
    let patience = Instant::now() + SERVED_MAX;
    loop {
        let answer = V::reach(way).await?.ask(host, "/").await?;
        if answer.status == 200 {
            return Ok(());
        }
        if Instant::now() > patience {
            bail!("requests are answered with {}", answer.status);
        }
        sleep(LOOK).await;
    }
}

/// Connects `number` clients, a few at a time, and has each ask once; they stay connected.
///
/// # Errors
///
/// One of them is not answered, or not with 200.
pub(crate) async fn crowd<V: Visit>(
    way: &Way,
    host: &str,
    number: usize,
) -> anyhow::Result<Vec<V>> {
    stream::iter(0..number)
        .map(|_| async move {
            let mut client = V::reach(way).await?;
            let answer = client.ask(host, "/").await?;
            ensure!(answer.status == 200, "an answer with {}", answer.status);
            anyhow::Ok(client)
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}
