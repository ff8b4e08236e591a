//! What a run does: its options, checked and made ready to be sent.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};
use rustls::ClientConfig;

use super::args::RunArgs;
use super::target::Target;
use super::{hosts, tls};
use crate::bounds::BODY_MAX;

/// How long to measure when nothing else was asked for.
const DURATION: Duration = Duration::from_secs(10);

/// Fields that say where a message ends or what a connection becomes: for the generator to say.
const OURS: [&str; 6] = [
    "content-length",
    "transfer-encoding",
    "connection",
    "upgrade",
    "sec-websocket-key",
    "sec-websocket-version",
];

/// What is spoken with the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
    WebSocket,
}

/// Everything the threads of a run share; nothing of it changes.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) target: Target,
    pub(super) protocol: Protocol,
    pub(super) tls: Option<Arc<ClientConfig>>,
    /// The name expected of the other side's certificate.
    pub(super) tls_name: String,
    pub(super) method: Method,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// To ask for in turn; never empty.
    pub(super) hosts: Vec<String>,
    pub(super) body: Bytes,
    /// Whether a body was asked for, even an empty one.
    pub(super) has_body: bool,
    pub(super) connections: usize,
    pub(super) streams: usize,
    pub(super) threads: usize,
    pub(super) rate: Option<f64>,
    pub(super) backlog: u64,
    pub(super) duration: Option<Duration>,
    pub(super) requests: Option<u64>,
    pub(super) warmup: Duration,
    pub(super) timeout: Duration,
    pub(super) new_connection: bool,
    pub(super) hold: bool,
    pub(super) bind: Vec<IpAddr>,
}

impl Plan {
    /// Checks the options and reads what they name.
    ///
    /// # Errors
    /// An option has no meaning here, a file cannot be read, or the host has no address.
    pub(super) fn new(args: &RunArgs) -> anyhow::Result<Self> {
        let target = Target::resolve(&args.url)?;
        let protocol = match (target.websocket, args.http2) {
            (true, true) => bail!("a WebSocket is not opened over HTTP/2"),
            (true, false) => Protocol::WebSocket,
            (false, true) => Protocol::Http2,
            (false, false) => Protocol::Http1,
        };
        check(args, protocol, target.tls)?;
        let (body, has_body) = body(args, protocol)?;
        let tls = match target.tls {
            true => Some(tls::config(args, protocol)?),
            false => None,
        };
        let limited = args.requests.is_some() && args.duration.is_none();
        Ok(Self {
            protocol,
            tls,
            tls_name: name_of(args.host.as_ref().unwrap_or(&target.host)),
            method: method(args, has_body)?,
            headers: headers(args)?,
            hosts: hosts_of(args, &target)?,
            target,
            body,
            has_body,
            connections: args.connections,
            streams: args.streams,
            threads: args.threads.min(args.connections),
            rate: args.rate,
            backlog: args.backlog,
            duration: (!limited).then(|| args.duration.unwrap_or(DURATION)),
            requests: args.requests,
            warmup: args.warmup,
            timeout: args.timeout,
            new_connection: args.new_connection,
            hold: args.hold,
            bind: args.bind.clone(),
        })
    }

    /// As the report names it.
    pub(super) fn protocol_name(&self) -> &'static str {
        match (self.protocol, self.target.tls) {
            (Protocol::Http1, _) => "http1",
            (Protocol::Http2, false) => "h2c",
            (Protocol::Http2, true) => "h2",
            (Protocol::WebSocket, _) => "websocket",
        }
    }
}

/// What can be seen without looking at anything else.
fn check(args: &RunArgs, protocol: Protocol, tls: bool) -> anyhow::Result<()> {
    ensure!(args.connections > 0, "--connections must be at least 1");
    ensure!(args.threads > 0, "--threads must be at least 1");
    ensure!(args.streams > 0, "--streams must be at least 1");
    ensure!(args.requests != Some(0), "--requests must be at least 1");
    if args.streams > 1 {
        let alone = args.new_connection || args.hold;
        ensure!(
            protocol == Protocol::Http2,
            "--streams is for HTTP/2: add --http2"
        );
        ensure!(
            !alone,
            "--streams has no meaning with one request at a time"
        );
    }
    if protocol == Protocol::WebSocket {
        ensure!(args.method.is_none(), "a WebSocket is opened with GET");
    }
    let trusts = args.ca.is_some() || args.insecure;
    ensure!(tls || !trusts, "--ca and --insecure are for https and wss");
    Ok(())
}

fn method(args: &RunArgs, has_body: bool) -> anyhow::Result<Method> {
    match &args.method {
        None if has_body => Ok(Method::POST),
        None => Ok(Method::GET),
        Some(name) => {
            let method = Method::from_bytes(name.as_bytes());
            let method = method.with_context(|| format!("{name:?} is no method"))?;
            ensure!(method != Method::CONNECT, "CONNECT is not supported");
            Ok(method)
        }
    }
}

fn headers(args: &RunArgs) -> anyhow::Result<Vec<(HeaderName, HeaderValue)>> {
    let mut headers = Vec::new();
    for line in &args.headers {
        let wrong = || format!("{line:?} is no header: expected 'Name: value'");
        let (name, value) = line.split_once(':').with_context(wrong)?;
        let name: HeaderName = name.trim().parse().with_context(wrong)?;
        ensure!(name != "host", "say --host to ask for another host");
        ensure!(
            !OURS.contains(&name.as_str()),
            "{name} follows from the other options and cannot be set"
        );
        headers.push((name, value.trim().parse().with_context(wrong)?));
    }
    Ok(headers)
}

fn hosts_of(args: &RunArgs, target: &Target) -> anyhow::Result<Vec<String>> {
    let hosts = match (&args.hosts, &args.host_pattern, &args.host) {
        (Some(file), _, _) => hosts::read(file)?,
        (_, Some(pattern), _) => hosts::expand(pattern)?,
        (_, _, Some(host)) => vec![host.clone()],
        _ => vec![target.authority.clone()],
    };
    for host in &hosts {
        let parsed = host.parse::<http::uri::Authority>();
        ensure!(
            parsed.is_ok_and(|name| !name.as_str().contains('@')),
            "{host:?} is no host"
        );
    }
    Ok(hosts)
}

/// A host without its port.
fn name_of(host: &str) -> String {
    match host.parse::<http::uri::Authority>() {
        Ok(authority) => authority.host().trim_matches(['[', ']']).to_owned(),
        // An IPv6 address without brackets.
        Err(_) => host.to_owned(),
    }
}

fn body(args: &RunArgs, protocol: Protocol) -> anyhow::Result<(Bytes, bool)> {
    if let Some(file) = &args.body_file {
        let name = file.display();
        let bytes = std::fs::read(file).with_context(|| format!("cannot read {name}"))?;
        ensure!(bytes.len() as u64 <= BODY_MAX, "{name} is above 1 GiB");
        return Ok((bytes.into(), true));
    }
    let size = match args.body {
        Some(size) => size.as_u64(),
        None if protocol == Protocol::WebSocket => 16,
        None => return Ok((Bytes::new(), false)),
    };
    let bytes: Vec<u8> = (b'a'..=b'z').cycle().take(usize::try_from(size)?).collect();
    Ok((bytes.into(), true))
}
