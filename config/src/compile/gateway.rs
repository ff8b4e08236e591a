//! Process options: what was written → what they mean.

use std::collections::HashMap;
use std::time::Duration;

use ipnet::IpNet;

use super::report::{BYTES_MAX, LIST, Path, Report};
use super::{check, tls};
use crate::at::At;
use crate::document::{self, DurationText, ProxyProtocol, beside};
use crate::settings::{AccessLog, Audience, Drain, Limits, Listener, LogOutput, Settings};

const LISTENERS_MAX: usize = 256;
const WORKERS_MAX: i64 = 1024;
const SOME: Duration = Duration::from_millis(1);
/// Heads are kept in one buffer per connection.
const HEAD_BYTES: std::ops::RangeInclusive<i64> = 1024..=1024 * 1024;
const FIELDS: std::ops::RangeInclusive<i64> = 8..=1000;
const STREAMS: std::ops::RangeInclusive<i64> = 1..=1000;
const MEMORY_MIN: u64 = 16 * 1024 * 1024;
const COUNT_MAX: i64 = u32::MAX as i64;

pub(super) fn compile(
    report: &mut Report<'_>,
    written: &document::Gateway,
    defaults: &Settings,
) -> Settings {
    let path = &Path::Root.key("gateway");
    let mut settings = defaults.clone();
    if let Some(at) = &written.listeners {
        settings.listeners = listeners(report, &path.key("listeners"), at);
    }
    if let Some(at) = &written.admin {
        let path = &path.key("admin");
        if let Some(address) = check::listen_address(report, path, at) {
            settings.admin = address;
        }
        let same = |listener: &Listener| listener.address == settings.admin;
        if settings.admin.port() != 0 && settings.listeners.iter().any(same) {
            let hint = "give it a port of its own";
            report.add(
                path,
                at.mark,
                &at.value,
                "a listener has the same address",
                hint,
            );
        }
    }
    let token = written.admin_token_file.as_ref();
    settings.admin_token = token.map(|at| tls::file(report, &path.key("adminTokenFile"), at));
    settings.server_timing = written.server_timing.unwrap_or(settings.server_timing);
    let workers = written.workers.as_ref();
    settings.workers = check::integer(report, &path.key("workers"), workers, 0..=WORKERS_MAX, 0);
    if let Some(drain) = &written.drain {
        settings.drain = self::drain(report, &path.key("drain"), drain, settings.drain);
    }
    for (index, at) in written.trusted_proxies.iter().flatten().enumerate() {
        let path = &path.key("trustedProxies");
        let network = check::network(report, &path.item(index), at);
        settings.trusted_proxies.extend(network);
    }
    if let Some(log) = &written.access_log {
        settings.access_log = access_log(report, &path.key("accessLog"), log, settings.access_log);
    }
    if let Some(limits) = &written.limits {
        settings.limits = self::limits(report, &path.key("limits"), limits);
    }
    settings
}

fn listeners(
    report: &mut Report<'_>,
    list: &Path<'_>,
    written: &At<Vec<At<document::Listener>>>,
) -> Vec<Listener> {
    if written.value.is_empty() {
        let hint = "write at least one, or remove the key for 0.0.0.0:8080";
        report.add(list, written.mark, "[]", "there is no listener", hint);
    }
    check::at_most(
        report,
        list,
        written.mark,
        written.value.len(),
        LISTENERS_MAX,
    );
    let mut listeners = Vec::new();
    let mut seen = HashMap::new();
    for (index, at) in written.value.iter().enumerate() {
        let path = &list.item(index);
        let listener = &at.value;
        let proxy_protocol = proxy_protocol(report, path, listener);
        let tls = listener.tls.as_ref();
        let tls = tls.map(|at| tls::listener(report, &path.key("tls"), at));
        let https_redirect = https_redirect(report, path, listener);
        let connections = listener.connections.as_ref();
        let connections = bound(report, &path.key("connections"), connections);
        let address = &listener.address;
        let path = &path.key("address");
        let Some(bound) = check::listen_address(report, path, address) else {
            continue;
        };
        listeners.push(Listener {
            address: bound,
            audience: listener.audience.unwrap_or(Audience::Public),
            proxy_protocol,
            tls,
            https_redirect,
            connections,
        });
        if bound.port() == 0 {
            continue;
        }
        let Some((first, mark)) = seen.insert(bound, (index, address.mark)) else {
            continue;
        };
        for (one, mark, other) in [(first, mark, address.mark), (index, address.mark, mark)] {
            let problem = "two listeners have the same address";
            let hint = format!("the other one is at line {}: remove one", other.line);
            let path = list.item(one);
            report.add(&path.key("address"), mark, bound, problem, hint);
        }
    }
    listeners
}

/// The networks whose connections begin with a PROXY protocol header.
fn proxy_protocol(
    report: &mut Report<'_>,
    path: &Path<'_>,
    listener: &document::Listener,
) -> Option<Vec<IpNet>> {
    let expected = listener.proxy_protocol.as_ref();
    let expected = expected.filter(|at| at.value == ProxyProtocol::V1v2);
    let networks = listener.trusted_proxies.as_ref();
    let path = |name| path.key(name);
    match (expected, networks) {
        (None, Some(at)) => {
            let problem = "`trustedProxies` without `proxyProtocol`";
            let hint = "write `proxyProtocol: v1v2`; for X-Forwarded-*, write it under `gateway`";
            report.add(&path("trustedProxies"), at.mark, LIST, problem, hint);
        }
        (Some(at), None) => {
            let problem = "`proxyProtocol` without `trustedProxies`";
            let hint = "nobody would be believed: write the networks under `trustedProxies`";
            report.add(&path("proxyProtocol"), at.mark, "v1v2", problem, hint);
        }
        (Some(_), Some(at)) if at.value.is_empty() => {
            let hint = "nobody would be believed: write networks like 10.0.0.0/8";
            report.add(
                &path("trustedProxies"),
                at.mark,
                "[]",
                "there is no network",
                hint,
            );
        }
        (_, _) => {}
    }
    let list = path("trustedProxies");
    let written = networks.map_or(&[][..], |at| &at.value).iter();
    let networks = written.enumerate();
    let networks = networks.filter_map(|(index, at)| check::network(report, &list.item(index), at));
    let networks = networks.collect();
    expected.map(|_| networks)
}

fn https_redirect(
    report: &mut Report<'_>,
    path: &Path<'_>,
    listener: &document::Listener,
) -> Option<u16> {
    let at = listener.https_redirect.as_ref()?;
    let path = &path.key("httpsRedirect");
    if listener.tls.is_some() {
        let hint = "requests come by https here: write it at a plain listener";
        let problem = "`httpsRedirect` together with `tls`";
        report.add(path, at.mark, at.value, problem, hint);
    }
    Some(check::integer(report, path, Some(at), 1..=65_535, 443))
}

fn drain(
    report: &mut Report<'_>,
    path: &Path<'_>,
    written: &document::Drain,
    default: Drain,
) -> Drain {
    let mut read = |name, at: &Option<_>, default| {
        check::duration(
            report,
            &path.key(name),
            at.as_ref(),
            Duration::ZERO,
            default,
        )
    };
    Drain {
        wait: read("wait", &written.wait, default.wait),
        timeout: read("timeout", &written.timeout, default.timeout),
    }
}

fn access_log(
    report: &mut Report<'_>,
    path: &Path<'_>,
    written: &document::AccessLog,
    default: AccessLog,
) -> AccessLog {
    let per_second = written.per_second.as_ref();
    let output = written.file.as_ref().map(|at| match &*at.value {
        "stderr" => LogOutput::Stderr,
        "stdout" => LogOutput::Stdout,
        file => {
            if file.is_empty() || file.contains('\0') {
                let hint = "write stderr, stdout or the path of a file";
                report.add(
                    &path.key("file"),
                    at.mark,
                    file.escape_debug(),
                    "bad file name",
                    hint,
                );
            }
            LogOutput::File(beside(report.file(), file))
        }
    });
    let path = &path.key("perSecond");
    AccessLog {
        mode_written: written.mode.is_some(),
        mode: written.mode.unwrap_or(default.mode),
        per_second: check::integer(report, path, per_second, 1..=COUNT_MAX, default.per_second),
        format: written.format.unwrap_or(default.format),
        output: output.unwrap_or(default.output),
    }
}

fn limits(report: &mut Report<'_>, path: &Path<'_>, written: &document::Limits) -> Limits {
    let default = Limits::default();
    let (age, at) = (path.key("connectionAge"), written.connection_age.as_ref());
    let age = check::unless_zero(report, &age, at, Duration::ZERO);
    let mut time = |name, at: &Option<At<DurationText>>, default| {
        check::duration(report, &path.key(name), at.as_ref(), SOME, default)
    };
    let timed = Limits {
        head_timeout: time("headTimeout", &written.head_timeout, default.head_timeout),
        keep_alive: time("keepAlive", &written.keep_alive, default.keep_alive),
        http2_idle: time("http2Idle", &written.http2_idle, default.http2_idle),
        connection_age: age,
        body_idle: time("bodyIdle", &written.body_idle, default.body_idle),
        write_stall: time("writeStall", &written.write_stall, default.write_stall),
        handshake: time("handshake", &written.handshake, default.handshake),
        connect: time("connect", &written.connect, default.connect),
        tunnel_idle: time("tunnelIdle", &written.tunnel_idle, default.tunnel_idle),
        abort_linger: time("abortLinger", &written.abort_linger, default.abort_linger),
        upstream_idle: time(
            "upstreamIdle",
            &written.upstream_idle,
            default.upstream_idle,
        ),
        ..default
    };
    let mut counted = counts(report, path, written, &timed);
    let connections = written.connections.as_ref();
    counted.connections = bound(report, &path.key("connections"), connections);
    let per_address = written.connections_per_address.as_ref();
    let per_address_path = &path.key("connectionsPerAddress");
    counted.connections_per_address = bound(report, per_address_path, per_address);
    counted.memory = memory(report, &path.key("memory"), written.memory.as_ref());
    let per_namespace = written.held_per_namespace.as_ref();
    counted.held_per_namespace = bound(report, &path.key("heldPerNamespace"), per_namespace);
    let per_address = written.held_per_address.as_ref();
    counted.held_per_address = bound(report, &path.key("heldPerAddress"), per_address);
    held_parts(report, path, written, &counted);
    if counted.target_bytes > counted.head_bytes {
        let (name, at) = match (&written.target_bytes, &written.head_bytes) {
            (Some(at), _) => ("targetBytes", at),
            (None, Some(at)) => ("headBytes", at),
            (None, None) => return counted,
        };
        let hint = "the target is part of the head: write targetBytes at most headBytes";
        let problem = "`targetBytes` is greater than `headBytes`";
        report.add(&path.key(name), at.mark, at.value, problem, hint);
    }
    counted.dot_segments = written.dot_segments.unwrap_or(counted.dot_segments);
    counted.underscores = written.underscores.unwrap_or(counted.underscores);
    counted
}

/// Bounds of parts of what is held at once lie within that of the whole.
fn held_parts(
    report: &mut Report<'_>,
    path: &Path<'_>,
    written: &document::Limits,
    limits: &Limits,
) {
    let per_address = limits
        .held_per_address
        .and_then(|most| usize::try_from(most).ok());
    for (key, at, bound) in [
        (
            "heldPerNamespace",
            &written.held_per_namespace,
            limits.held_per_namespace,
        ),
        ("heldPerAddress", &written.held_per_address, per_address),
    ] {
        let bound = &bound.unwrap_or_default();
        check::part_of(
            report,
            path,
            (key, at.as_ref()),
            bound,
            ("held", &limits.held),
        );
    }
}

fn counts(
    report: &mut Report<'_>,
    path: &Path<'_>,
    written: &document::Limits,
    timed: &Limits,
) -> Limits {
    let w = written;
    let body_bytes = w.body_bytes.as_ref();
    let body_bytes = check::integer(report, &path.key("bodyBytes"), body_bytes, 0..=BYTES_MAX, 0);
    let rate = w.body_min_rate.as_ref();
    let rate_path = &path.key("bodyMinRate");
    let body_min_rate = check::integer(report, rate_path, rate, 0..=BYTES_MAX, timed.body_min_rate);
    let mut count = |name, at: &Option<At<i64>>, least, default| {
        check::integer(
            report,
            &path.key(name),
            at.as_ref(),
            least..=COUNT_MAX,
            default,
        )
    };
    let requests = timed.requests_per_connection;
    let requests = count(
        "requestsPerConnection",
        &w.requests_per_connection,
        1,
        requests,
    );
    let attempts = count("attempts", &w.attempts, 1, timed.attempts);
    let streams = w.http2_streams.as_ref();
    let streams_path = &path.key("http2Streams");
    let http2_streams = check::integer(report, streams_path, streams, STREAMS, timed.http2_streams);
    let mut size = |name, at: &Option<At<i64>>, bounds, default| {
        check::integer(report, &path.key(name), at.as_ref(), bounds, default)
    };
    let idle = timed.upstream_idle_per_endpoint;
    Limits {
        requests_per_connection: requests,
        attempts,
        head_bytes: size("headBytes", &w.head_bytes, HEAD_BYTES, timed.head_bytes),
        head_fields: size("headFields", &w.head_fields, FIELDS, timed.head_fields),
        target_bytes: size(
            "targetBytes",
            &w.target_bytes,
            64..=1024 * 1024,
            timed.target_bytes,
        ),
        trailer_bytes: size(
            "trailerBytes",
            &w.trailer_bytes,
            0..=1024 * 1024,
            timed.trailer_bytes,
        ),
        held: size("held", &w.held, 1..=COUNT_MAX, timed.held),
        held_bytes: size("heldBytes", &w.held_bytes, 0..=BYTES_MAX, timed.held_bytes),
        upstream_idle_per_endpoint: size(
            "upstreamIdlePerEndpoint",
            &w.upstream_idle_per_endpoint,
            0..=65_536,
            idle,
        ),
        body_bytes: (body_bytes > 0).then_some(body_bytes),
        body_min_rate,
        http2_streams,
        ..timed.clone()
    }
}

/// A number of things; 0 = no bound of this kind.
fn bound<T: TryFrom<i64> + Default + PartialEq>(
    report: &mut Report<'_>,
    path: &Path<'_>,
    written: Option<&At<i64>>,
) -> Option<T> {
    let most = check::integer(report, path, written, 0..=COUNT_MAX, T::default());
    (most != T::default()).then_some(most)
}

fn memory(report: &mut Report<'_>, path: &Path<'_>, written: Option<&At<i64>>) -> Option<u64> {
    let most = check::integer(report, path, written, 0..=BYTES_MAX, 0);
    let Some(at) = written.filter(|_| (1..MEMORY_MIN).contains(&most)) else {
        return (most > 0).then_some(most);
    };
    let hint = format!("write at least {MEMORY_MIN}, or 0 for the limit of the control group");
    let problem = "no process can live within so little";
    report.add(path, at.mark, at.value, problem, hint);
    None
}
