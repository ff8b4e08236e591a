//! The upstream behind every proxy: it answers with what was laid ready at its start.
//!
//! One thread. A request over HTTP/1.1 costs one read, one write and no allocation, so that what is
//! measured is the proxy in front. HTTP/2, WebSockets and TLS are there so that they can be asked
//! for; they are not as lean.

mod answer;
mod body;
mod http1;
mod http2;
mod serve;
mod stats;
mod times;
mod tls;
mod transport;
mod websocket;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use bytesize::ByteSize;
use tokio::runtime::{Builder, LocalOptions};

use crate::bounds;

pub use stats::{AddressStats, Stats, read as read_stats};
pub use times::Times;

const EXAMPLES: &str = "\
Examples:
  loadtest backend --listen 127.0.0.1:9000                    128 bytes, at once
  loadtest backend --listen 127.0.0.1:9000 --body 1MiB        large answers
  loadtest backend --listen 127.0.0.1:9000 --delay 5ms --concurrency 10
  loadtest backend --listen 127.0.0.1:9000 --listen 127.0.0.1:9001 --stats 127.0.0.1:9002
  loadtest backend --listen 127.0.0.1:9443 --tls-self-signed /tmp/certs

Speaks HTTP/1.1, HTTP/2 (with prior knowledge, or chosen by ALPN over TLS) and WebSocket,
all on every address. WebSockets are echoed, whatever the options say about answers. SIGTERM and Ctrl-C end it with its counts as one line of JSON.";

/// The options of this command.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct BackendArgs {
    /// Listen here; may repeat: one endpoint each. Port 0 picks a free one.
    #[arg(long, value_name = "ADDR", required = true)]
    listen: Vec<SocketAddr>,
    /// Bytes of every answer's body.
    #[arg(long, value_name = "SIZE", default_value = "128B", value_parser = bounds::body)]
    body: ByteSize,
    /// Time between a request's last byte and its answer, to the millisecond.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = bounds::time)]
    delay: Duration,
    /// Over HTTP/1.1, send bodies in chunks of SIZE (8 KiB) instead of with a Content-Length.
    #[arg(long, value_name = "SIZE", num_args = 0..=1, default_missing_value = "8KiB")]
    chunked: Option<ByteSize>,
    /// Reset the connection (RST; over HTTP/2 the stream) instead of every Nth answer.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    reset_every: Option<u64>,
    /// Over HTTP/1.1, close the connection after every answer, and say so.
    #[arg(long)]
    close: bool,
    /// Answer 503 at once, and count it, when more than N requests are in flight at one address.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    concurrency: Option<u64>,
    /// Answer with the body of the request, up to 16 MiB, instead of --body.
    #[arg(long, conflicts_with_all = ["body", "chunked"])]
    echo: bool,
    /// Serve TLS with this certificate chain (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its private key (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Serve TLS with a certificate made now and written to DIR/cert.pem and DIR/key.pem.
    #[arg(long, value_name = "DIR", conflicts_with = "tls_cert")]
    tls_self_signed: Option<PathBuf>,
    /// Answer HTTP requests here with the counts as JSON; POST also begins the peaks anew.
    #[arg(long, value_name = "ADDR")]
    stats: Option<SocketAddr>,
    /// Begin to listen once this file is there.
    #[arg(long, value_name = "FILE")]
    listen_after: Option<PathBuf>,
    /// Write here, with the first request, when the process ran, when it listened, and when that
    /// request came: JSON, nanoseconds of the monotonic clock.
    #[arg(long, value_name = "FILE")]
    times: Option<PathBuf>,
}

/// Runs the command, until SIGTERM or Ctrl-C.
///
/// # Errors
///
/// What kept it from doing its work: addresses that are taken, certificates that cannot be read.
pub fn main(args: BackendArgs) -> anyhow::Result<()> {
    let started = crate::system::monotonic_nanos();
    crate::system::raise_descriptor_limit();
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .context("cannot start the event loop")?;
    let stats = runtime.block_on(serve::run(args, started))?;
    writeln!(std::io::stdout(), "{}", serde_json::to_string(&stats)?)?;
    Ok(())
}
