//! Checks of single values. Each reports what is wrong and hands back something usable.

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::report::{Path, Report};
use crate::at::{At, Mark, Pairs};
use crate::document::{DurationText, Text};
use crate::duration;
use crate::fragment::Origin;
use crate::revision::Address;

/// Longest DNS label (RFC 1035 §2.3.4).
pub(super) const LABEL_BYTES_MAX: usize = 63;
/// Longest host name as text (RFC 1035 §2.3.4).
pub(super) const HOST_NAME_BYTES_MAX: usize = 253;
/// Longest name that a cluster gives: an object's, and a port or a number behind it.
const NAME_BYTES_MAX: usize = 320;
/// Longest path or header value in a rule.
const TEXT_BYTES_MAX: usize = 8192;
/// Most headers a rule looks at or sets.
const PAIRS_MAX: usize = 64;

const LABEL_HINT: &str =
    "use 1 to 63 lower-case letters, digits and `-`, beginning and ending with a letter or digit";

/// Whether this is a DNS label in lower case (RFC 1123 §2.1).
pub(super) fn is_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=LABEL_BYTES_MAX).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// A name, namespace or tag.
pub(super) fn label(report: &mut Report<'_>, path: &Path<'_>, at: &At<Text>, what: &str) {
    if is_label(&at.value) {
        return;
    }
    let lower = at.value.to_lowercase();
    let hint = match is_label(&lower) {
        true => format!("write `{lower}`"),
        false => LABEL_HINT.to_owned(),
    };
    let problem = format!("the {what} is not a DNS label");
    report.add(path, at.mark, &at.value, problem, hint);
}

/// The name of a route or revision, and its namespace. Those of a cluster are chosen by others, and
/// carry what no label may: dots, a port, the number of a rule.
pub(super) fn names(
    report: &mut Report<'_>,
    path: &Path<'_>,
    name: &At<Text>,
    namespace: Option<&At<Text>>,
) {
    if let Some(namespace) = namespace {
        label(report, &path.key("namespace"), namespace, "namespace");
    }
    let path = &path.key("name");
    match report.origin {
        Origin::File(_) => label(report, path, name, "name"),
        Origin::Kubernetes(_) => {
            let fine = |byte: u8| byte.is_ascii_graphic();
            if name.value.is_empty()
                || name.value.len() > NAME_BYTES_MAX
                || !name.value.bytes().all(fine)
            {
                let hint = format!("use 1 to {NAME_BYTES_MAX} visible characters");
                report.add(path, name.mark, &name.value, "bad name", hint);
            }
        }
    }
}

/// What is wrong with a host name (no port, no wildcard).
fn host_name_fault(host: &str) -> Option<&'static str> {
    if host.is_empty() {
        return Some("write a host name");
    }
    if host.starts_with('[') {
        let inner = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let valid = inner.is_some_and(|ip| ip.parse::<std::net::Ipv6Addr>().is_ok());
        return (!valid).then_some("write an IPv6 address in brackets: [::1]");
    }
    if host.contains("://") || host.contains('/') {
        return Some("write the host alone, without scheme and path");
    }
    if host.contains(':') {
        return Some("write it without the port: ports are not compared");
    }
    if !host.is_ascii() {
        return Some("write international names in their ASCII form (xn--...)");
    }
    if host.len() > HOST_NAME_BYTES_MAX {
        return Some("use at most 253 characters");
    }
    let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let fine = |label: &str| {
        (1..=LABEL_BYTES_MAX).contains(&label.len())
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    (!host.split('.').all(fine))
        .then_some("use labels of 1 to 63 letters, digits and `-`, parted by dots")
}

/// A host or pattern a route answers on, in lower case and without a trailing dot.
pub(super) fn host_pattern(report: &mut Report<'_>, path: &Path<'_>, at: &At<Text>) -> Box<str> {
    let lower = at.value.to_ascii_lowercase();
    let pattern = lower.strip_suffix('.').unwrap_or(&lower);
    if pattern == "*" {
        return pattern.into();
    }
    let name = pattern.strip_prefix("*.").unwrap_or(pattern);
    let fault = match name.contains('*') {
        true => Some("`*` stands alone or as the first label: *.example.com"),
        false => host_name_fault(name),
    };
    if let Some(hint) = fault {
        report.add(path, at.mark, &at.value, "bad host pattern", hint);
    }
    pattern.into()
}

/// What default hosts end in.
pub(super) fn domain(report: &mut Report<'_>, path: &Path<'_>, at: &At<Text>) -> Arc<str> {
    let lower = at.value.to_ascii_lowercase();
    let name = lower.strip_suffix('.').unwrap_or(&lower);
    if let Some(hint) = host_name_fault(name) {
        report.add(path, at.mark, &at.value, "bad domain", hint);
    }
    name.into()
}

/// A host the answer or the endpoint sees, with a port where needed.
pub(super) fn authority(report: &mut Report<'_>, path: &Path<'_>, at: &At<Text>) -> Box<str> {
    let text = &*at.value;
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !text.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let hint = match port.map(str::parse::<u16>) {
        Some(Err(_) | Ok(0)) => Some("write a port of 1 to 65535"),
        _ => host_name_fault(host),
    };
    if let Some(hint) = hint {
        report.add(path, at.mark, text, "bad host", hint);
    }
    text.into()
}

/// Whom a certificate must be for: a host name, in lower case and without a trailing dot, or an IP
/// address.
pub(super) fn server_name(report: &mut Report<'_>, path: &Path<'_>, at: &At<Text>) -> Arc<str> {
    if let Ok(address) = at.value.parse::<std::net::IpAddr>() {
        return address.to_string().into();
    }
    let lower = at.value.to_ascii_lowercase();
    let name = lower.strip_suffix('.').unwrap_or(&lower);
    let fault = match name.starts_with('[') {
        true => Some("write an address without brackets: ::1"),
        false => host_name_fault(name),
    };
    if let Some(hint) = fault {
        report.add(path, at.mark, &at.value, "bad server name", hint);
    }
    name.into()
}

/// Whether this is a token (RFC 9110 §5.6.2): a method, a field name, a cookie name.
pub(super) fn is_token(text: &str) -> bool {
    let fine = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(fine)
}

/// What is wrong with a field value (RFC 9110 §5.5).
fn field_value_fault(value: &str) -> Option<&'static str> {
    let control = |b: u8| (b < b' ' && b != b'\t') || b == 0x7f;
    if value.bytes().any(|b| b == b'\r' || b == b'\n') {
        Some("line breaks would end the field: remove them")
    } else if value.bytes().any(control) {
        Some("remove the control characters")
    } else if value.trim_matches([' ', '\t']).len() != value.len() {
        Some("remove the spaces around the value")
    } else if value.len() > TEXT_BYTES_MAX {
        Some("use at most 8192 bytes")
    } else {
        None
    }
}

/// Fields whose meaning is between two neighbours, or decides where a message ends: a rule that
/// set them would break the message.
const FRAMING: [&str; 10] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Header names and values; the names in lower case.
pub(super) fn headers(
    report: &mut Report<'_>,
    path: &Path<'_>,
    pairs: Option<&Pairs>,
    use_of: HeaderUse,
) -> Vec<(Box<str>, Box<str>)> {
    let pairs = pairs.map_or(&[][..], |pairs| &pairs.0);
    let mut headers: Vec<(Box<str>, Box<str>)> = Vec::with_capacity(pairs.len());
    for (name, value) in pairs {
        let lower = name.value.to_ascii_lowercase();
        let path = &path.key(&name.value);
        if !is_token(&lower) {
            let hint = "use letters, digits and `-`";
            report.add(path, name.mark, &name.value, "bad header name", hint);
        } else if headers.iter().any(|(present, _)| **present == *lower) {
            let hint = "header names ignore case: keep one of them";
            report.add(path, name.mark, &name.value, "header given twice", hint);
        } else if use_of == HeaderUse::Set && FRAMING.contains(&&*lower) {
            let hint = match &*lower {
                "host" => "use `rewriteHost`",
                _ => "the gateway sets it where it is needed: remove it",
            };
            report.add(
                path,
                name.mark,
                &name.value,
                "this header cannot be set",
                hint,
            );
        }
        if let Some(hint) = field_value_fault(&value.value) {
            let shown = value.value.escape_debug();
            report.add(path, value.mark, shown, "bad header value", hint);
        }
        headers.push((lower.into(), value.value.clone()));
    }
    if let Some((name, _)) = pairs.get(PAIRS_MAX) {
        let problem = format!("more than {PAIRS_MAX} headers");
        report.add(path, name.mark, pairs.len(), problem, "use fewer");
    }
    headers
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderUse {
    Match,
    Set,
}

/// The value of a header that we send.
pub(super) fn field_value(report: &mut Report<'_>, path: &Path<'_>, at: &At<Text>) -> Text {
    if let Some(hint) = field_value_fault(&at.value) {
        let shown = at.value.escape_debug();
        report.add(path, at.mark, shown, "bad header value", hint);
    }
    at.value.clone()
}

/// A raw path: what a request line may carry before `?`.
pub(super) fn raw_path(report: &mut Report<'_>, path: &Path<'_>, at: &At<Text>) -> Box<str> {
    let text = &*at.value;
    let hint = if !text.starts_with('/') {
        Some("begin it with `/`")
    } else if text.contains(['?', '#']) {
        Some("paths are compared without the query: remove `?`, `#` and what follows")
    } else if text.bytes().any(|b| b <= b' ' || b >= 0x7f) {
        Some("paths are compared as raw bytes: percent-encode spaces and other characters")
    } else if text.len() > TEXT_BYTES_MAX {
        Some("use at most 8192 bytes")
    } else {
        None
    };
    if let Some(hint) = hint {
        report.add(path, at.mark, text, "bad path", hint);
    }
    text.into()
}

/// A duration that must lie within bounds; `default` where none is written.
pub(super) fn duration(
    report: &mut Report<'_>,
    path: &Path<'_>,
    at: Option<&At<DurationText>>,
    least: Duration,
    default: Duration,
) -> Duration {
    let Some(at) = at else { return default };
    match duration::parse(&at.value.0) {
        Ok(duration) if duration >= least => duration,
        Ok(_) => {
            let problem = match least <= Duration::from_millis(1) {
                true => "the duration must not be zero".to_owned(),
                false => format!("the duration is shorter than {least:?}"),
            };
            let hint = format!("write at least {least:?}, for instance {default:?}");
            report.add(path, at.mark, &at.value.0, problem, hint);
            default
        }
        Err(fault) => {
            report.add(path, at.mark, &at.value.0, fault.problem, fault.hint);
            default
        }
    }
}

/// A duration of which zero means that there is none.
pub(super) fn unless_zero(
    report: &mut Report<'_>,
    path: &Path<'_>,
    at: Option<&At<DurationText>>,
    default: Duration,
) -> Option<Duration> {
    if let Some(at) = at
        && let Err(fault) = duration::parse(&at.value.0)
        && fault.hint == duration::FORM
    {
        let hint = format!("{}; `0s` switches it off", duration::FORM);
        report.add(path, at.mark, &at.value.0, fault.problem, hint);
        return None;
    }
    let duration = duration(report, path, at, Duration::ZERO, default);
    (!duration.is_zero()).then_some(duration)
}

/// An integer that must lie within bounds; `default` where none is written.
pub(super) fn integer<T: TryFrom<i64>>(
    report: &mut Report<'_>,
    path: &Path<'_>,
    at: Option<&At<i64>>,
    bounds: RangeInclusive<i64>,
    default: T,
) -> T {
    let Some(at) = at else { return default };
    let (least, most) = (bounds.start(), bounds.end());
    match T::try_from(at.value) {
        Ok(value) if bounds.contains(&at.value) => value,
        _ => {
            let hint = format!("write an integer of {least} to {most}");
            report.add(path, at.mark, at.value, "the number is out of range", hint);
            default
        }
    }
}

/// Of `whole` so many are allowed to one: a bound above `most`, that of all, has no effect. `bound`
/// was read from `at`; 0 is none.
pub(super) fn part_of<T: Ord + Default + Display>(
    report: &mut Report<'_>,
    path: &Path<'_>,
    (key, at): (&str, Option<&At<i64>>),
    bound: &T,
    (whole, most): (&str, &T),
) {
    if let Some(at) = at.filter(|_| bound > most) {
        let problem = format!("`{key}` is greater than `{whole}`");
        let hint = format!("it has no effect: write at most {whole} ({most}), or raise {whole}");
        report.add(&path.key(key), at.mark, at.value, problem, hint);
    }
}

/// An IP address and a port to listen on.
pub(super) fn listen_address(
    report: &mut Report<'_>,
    path: &Path<'_>,
    at: &At<Text>,
) -> Option<SocketAddr> {
    let parsed = at.value.parse();
    if parsed.is_err() {
        let hint = "write an IP address and a port: 0.0.0.0:8080 or [::]:8080";
        report.add(path, at.mark, &at.value, "bad address", hint);
    }
    parsed.ok()
}

pub(super) fn network(report: &mut Report<'_>, path: &Path<'_>, at: &At<Text>) -> Option<IpNet> {
    let text = &*at.value;
    let parsed = text.parse::<IpNet>().ok();
    let alone = || text.parse::<std::net::IpAddr>().ok().map(IpNet::from);
    let network = parsed.or_else(alone);
    if network.is_none() {
        let hint = "write a network like 10.0.0.0/8 or fd00::/8, or one address";
        report.add(path, at.mark, text, "bad network", hint);
    }
    network
}

/// An endpoint: host or IP address, and port.
pub(super) fn endpoint(report: &mut Report<'_>, path: &Path<'_>, at: &At<Text>) -> Option<Address> {
    let text = &*at.value;
    let parsed = match text.parse::<SocketAddr>() {
        Ok(address) if address.port() == 0 => Err("write a port of 1 to 65535"),
        Ok(address) => Ok(Address::Ip(address)),
        Err(_) => named_endpoint(text),
    };
    match parsed {
        Ok(address) => Some(address),
        Err(hint) => {
            report.add(path, at.mark, text, "bad endpoint address", hint);
            None
        }
    }
}

fn named_endpoint(text: &str) -> Result<Address, &'static str> {
    const FORM: &str = "write host and port: 10.0.0.5:8080, [::1]:8080 or svc.internal:8080";
    let (host, port) = text.rsplit_once(':').ok_or(FORM)?;
    let port = port.parse::<u16>().ok().filter(|port| *port > 0);
    let port = port.ok_or("write a port of 1 to 65535")?;
    let host = host.strip_suffix('.').unwrap_or(host);
    let last = host.rsplit('.').next().unwrap_or_default();
    // A name whose last label is a number could only be a broken IPv4 address.
    let number = !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit());
    if number || host.starts_with('[') || host_name_fault(host).is_some() {
        return Err(FORM);
    }
    Ok(Address::Name {
        host: host.to_ascii_lowercase().into(),
        port,
    })
}

/// Reports lists longer than anybody needs.
pub(super) fn at_most(
    report: &mut Report<'_>,
    path: &Path<'_>,
    mark: Mark,
    count: usize,
    most: usize,
) {
    if count > most {
        let problem = format!("more than {most} entries");
        report.add(path, mark, count, problem, "use fewer");
    }
}
