//! The options of `loadtest run`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;

use crate::bounds;

/// What to send, how much of it, and where to write what came back.
#[derive(Clone, Debug, clap::Args)]
pub struct RunArgs {
    /// Where to send: http, https, ws or wss.
    #[arg(value_name = "URL")]
    pub url: String,

    /// Connections held open; each carries one request at a time.
    #[arg(short, long, value_name = "N", default_value_t = 64)]
    pub connections: usize,

    /// Requests in flight per connection of HTTP/2.
    #[arg(long, value_name = "M", default_value_t = 1)]
    pub streams: usize,

    /// Requests per second, sent come what may; latency counts from when each was due.
    ///
    /// Without it, each connection sends its next request when it has its answer.
    #[arg(long, value_name = "R", value_parser = bounds::rate)]
    pub rate: Option<f64>,

    /// With --rate: requests due and not yet sent, beyond which they are given up and reported.
    #[arg(long, value_name = "N", default_value_t = 65_536, requires = "rate")]
    pub backlog: u64,

    /// How long to measure [default: 10s; with --requests until they are done]
    #[arg(short, long, value_name = "TIME", value_parser = bounds::length)]
    pub duration: Option<Duration>,

    /// How many requests to measure.
    #[arg(short = 'n', long, value_name = "N")]
    pub requests: Option<u64>,

    /// Load before the measured time, which is not counted.
    #[arg(long, value_name = "TIME", value_parser = bounds::time, default_value = "0s")]
    pub warmup: Duration,

    /// How long to wait for a connection, and for an answer.
    #[arg(long, value_name = "TIME", value_parser = bounds::length, default_value = "10s")]
    pub timeout: Duration,

    /// Threads to share the connections among.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub threads: usize,

    /// HTTP/2: with prior knowledge over http, by ALPN over https.
    #[arg(long)]
    pub http2: bool,

    /// The method [default: GET, or POST with a body]
    #[arg(short = 'X', long, value_name = "METHOD")]
    pub method: Option<String>,

    /// A header to send, as 'Name: value'; may be repeated.
    #[arg(short = 'H', long = "header", value_name = "HEADER")]
    pub headers: Vec<String>,

    /// The host to ask for instead of the URL's; over TLS also the name expected.
    #[arg(long, conflicts_with_all = ["hosts", "host_pattern"])]
    pub host: Option<String>,

    /// A file of hosts, one a line, to ask for in turn.
    #[arg(long, value_name = "FILE", conflicts_with = "host_pattern")]
    pub hosts: Option<PathBuf>,

    /// Hosts to ask for in turn, as 'h{0..999}.example.com'.
    #[arg(long, value_name = "PATTERN")]
    pub host_pattern: Option<String>,

    /// Send a body of this size, such as 1KiB; of a WebSocket, the size of a message.
    #[arg(long, value_name = "SIZE", conflicts_with = "body_file", value_parser = bounds::body)]
    pub body: Option<ByteSize>,

    /// Send this file as the body.
    #[arg(long, value_name = "FILE")]
    pub body_file: Option<PathBuf>,

    /// A new connection for each request; connecting is part of its latency.
    #[arg(long)]
    pub new_connection: bool,

    /// Send one request on each connection, then hold all of them idle for the duration.
    #[arg(long, conflicts_with_all = ["rate", "requests", "new_connection", "warmup"])]
    pub hold: bool,

    /// A local address to connect from; repeated, they take turns.
    #[arg(long, value_name = "ADDRESS")]
    pub bind: Vec<IpAddr>,

    /// A PEM file of authorities to trust instead of the system's.
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    pub ca: Option<PathBuf>,

    /// Take any certificate.
    #[arg(long)]
    pub insecure: bool,

    /// Write the report as JSON, to a file or, instead of text, to standard output.
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    pub json: Option<PathBuf>,

    /// Draw latency by percentile.
    #[arg(long, value_name = "FILE.svg")]
    pub plot: Option<PathBuf>,
}
