//! Request heads: bytes → [`RequestHead`], or the reason to refuse.

use std::mem::MaybeUninit;

use smallvec::SmallVec;

use super::{Framing, FramingError, HeadLimits, OPTIONS_MAX, Parsed, framing, index, span_in};
use crate::http::authority::{is_authority, same_authority};
use crate::http::field::{Name, Span};
use crate::http::message::{Length, RequestHead, Version};
use crate::refusal::Reason;

/// Most fields the configuration may allow.
pub const FIELDS_MAX: usize = 1000;

/// Up to this many are indexed with little of the stack.
const FIELDS_USUAL: usize = 128;

/// Longest method token.
pub(in crate::http) const METHOD_MAX: usize = 32;

/// Most empty lines before a request line.
const EMPTY_LINES_MAX: usize = 4;

/// Fields that `Connection` may not name, beside the known ones of [`is_protected`]: taking them
/// away would change who asked or break the trace (RFC 9110 §7.6.1 lets us refuse).
const PROTECTED: [&str; 10] = [
    "proxy-authorization",
    "x-forwarded-port",
    "x-real-ip",
    "traceparent",
    "tracestate",
    "baggage",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-sampled",
];

/// Reads a head from the front of `bytes` into `out`. `bytes` may hold more, or not yet enough.
///
/// # Errors
/// The reason to refuse it with; the connection cannot be read on after any of them.
pub fn parse(bytes: &[u8], limits: &HeadLimits, out: &mut RequestHead) -> Result<Parsed, Reason> {
    if limits.fields <= FIELDS_USUAL {
        let mut storage = [const { MaybeUninit::uninit() }; FIELDS_USUAL];
        parse_in(bytes, limits, &mut storage, out)
    } else {
        parse_many(bytes, limits, out)
    }
}

#[cold]
#[inline(never)]
fn parse_many(bytes: &[u8], limits: &HeadLimits, out: &mut RequestHead) -> Result<Parsed, Reason> {
    let mut storage = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    parse_in(bytes, limits, &mut storage, out)
}

fn parse_in<'b>(
    bytes: &'b [u8],
    limits: &HeadLimits,
    storage: &mut [MaybeUninit<httparse::Header<'b>>],
    out: &mut RequestHead,
) -> Result<Parsed, Reason> {
    // RFC 9112 §2.2: empty lines before the request line are ignored.
    let empty_lines = bytes
        .chunks_exact(2)
        .take(EMPTY_LINES_MAX)
        .take_while(|pair| *pair == b"\r\n")
        .count();
    let skipped = empty_lines * 2;
    // What lies beyond the bound cannot be part of a head, whatever it is.
    let bytes = &bytes[skipped..];
    let bytes = &bytes[..bytes.len().min(limits.bytes)];
    if bytes.starts_with(b"\r\n") {
        return Err(Reason::BadRequest);
    }
    let mut request = httparse::Request::new(&mut []);
    let most = limits.fields.min(storage.len());
    let fields = &mut storage[..most];
    let otherwise = |reason| line_too_long(bytes, limits).unwrap_or(reason);
    let length = match request.parse_with_uninit_headers(bytes, fields) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() < limits.bytes => {
            return line_too_long(bytes, limits).map_or(Ok(Parsed::More), Err);
        }
        Ok(_) | Err(httparse::Error::TooManyHeaders) => {
            return Err(otherwise(Reason::HeadTooLarge));
        }
        Err(_) => return Err(otherwise(Reason::BadRequest)),
    };
    let head = &bytes[..length];
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version)
    else {
        return Err(Reason::BadRequest);
    };
    if method.len() > METHOD_MAX || target.len() > limits.target {
        return Err(otherwise(Reason::BadRequest));
    }
    if !index(&mut out.head, head, request.headers) {
        return Err(Reason::BadRequest);
    }
    out.method = span_in(head, method.as_bytes());
    out.target = span_in(head, target.as_bytes());
    out.version = if minor == 0 {
        Version::Http10
    } else {
        Version::Http11
    };
    check(out)?;
    Ok(Parsed::Head(skipped + length))
}

/// What is too long in the request line so far. Asked before anything else is found wrong, so that
/// the answer does not depend on how many bytes came at once.
fn line_too_long(bytes: &[u8], limits: &HeadLimits) -> Option<Reason> {
    let line = memchr::memchr(b'\n', bytes).map_or(bytes, |end| &bytes[..end]);
    let method_end = line.iter().take(METHOD_MAX + 1).position(|b| *b == b' ');
    let Some(method_end) = method_end else {
        return (line.len() > METHOD_MAX).then_some(Reason::BadRequest);
    };
    let (method, rest) = (&line[..method_end], &line[method_end + 1..]);
    let target = memchr::memchr(b' ', rest).unwrap_or(rest.len());
    if target <= limits.target {
        return None;
    }
    // What may not stand there is found first where it comes first.
    let is_method = !method.is_empty() && method.iter().all(is_token_byte);
    Some(
        if is_method && rest[..=limits.target].iter().all(is_target_byte) {
            Reason::UriTooLong
        } else {
            Reason::BadRequest
        },
    )
}

/// RFC 9110 §5.6.2.
fn is_token_byte(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

fn is_target_byte(byte: &u8) -> bool {
    matches!(byte, 0x21..=0x7e) && *byte != b'#'
}

fn check(out: &mut RequestHead) -> Result<(), Reason> {
    if out.method.is_empty() || !out.target().iter().all(is_target_byte) {
        return Err(Reason::BadRequest);
    }
    // RFC 9112 §6.1: a coding that HTTP/1.0 does not know is faulty framing, whichever it is.
    if out.version == Version::Http10 && out.head.has(Name::TransferEncoding) {
        return Err(Reason::BadRequest);
    }
    out.length = match framing(&out.head) {
        Ok(Framing::Unsaid) => Length::None,
        Ok(Framing::Length(0)) => Length::None,
        Ok(Framing::Length(length)) => Length::Exactly(length),
        Ok(Framing::Chunked) => Length::Chunked,
        Err(FramingError::Ambiguous) => return Err(Reason::BadRequest),
        Err(FramingError::UnsupportedCoding) => return Err(Reason::NotImplemented),
    };
    authority(out)?;
    connection(out)?;
    expectation(out)
}

/// Host and target form (RFC 9112 §3.2).
fn authority(out: &mut RequestHead) -> Result<(), Reason> {
    let mut hosts = out
        .head
        .fields()
        .iter()
        .filter(|field| field.id == Name::Host);
    let host = hosts.next().map(|field| field.value);
    if hosts.next().is_some() {
        return Err(Reason::BadRequest);
    }
    match host {
        Some(host) if !is_authority(host.of(&out.head.bytes)) => return Err(Reason::BadRequest),
        None if out.version == Version::Http11 => return Err(Reason::BadRequest),
        _ => {}
    }
    out.host = host.unwrap_or_default();
    if out.method() == b"CONNECT" {
        return Err(Reason::MethodNotAllowed);
    }
    match out.target() {
        [b'/', ..] => Ok(()),
        b"*" if out.method() == b"OPTIONS" => Ok(()),
        _ => absolute_form(out),
    }
}

fn absolute_form(out: &mut RequestHead) -> Result<(), Reason> {
    let target = out.target();
    let scheme = [&b"http://"[..], b"https://"].into_iter().find(|scheme| {
        target
            .get(..scheme.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    });
    let Some(scheme) = scheme else {
        return Err(Reason::BadRequest);
    };
    let rest = &target[scheme.len()..];
    let end = memchr::memchr3(b'/', b'?', b'#', rest).unwrap_or(rest.len());
    let authority = &rest[..end];
    let host = out.host();
    if !is_authority(authority) || !(host.is_empty() || same_authority(host, authority, scheme)) {
        return Err(Reason::BadRequest);
    }
    let start = out.target.start as usize + scheme.len();
    let path = Span::new(start + end, out.target.end as usize);
    out.host = Span::new(start, start + end);
    out.target = if path.of(&out.head.bytes).starts_with(b"/") {
        path
    } else {
        // RFC 9112 §3.2.1: an empty path is sent as "/"; §3.2.4: OPTIONS without one as "*".
        let whole = path.is_empty() && out.method() == b"OPTIONS";
        let at = out.head.bytes.len();
        out.head.bytes.push(if whole { b'*' } else { b'/' });
        out.head
            .bytes
            .extend_from_within(path.start as usize..path.end as usize);
        Span::new(at, out.head.bytes.len())
    };
    Ok(())
}

/// Hop-by-hop fields (RFC 9110 §7.6.1): what they ask of us, and that they go no further.
fn connection(out: &mut RequestHead) -> Result<(), Reason> {
    out.keep_alive = out.version == Version::Http11;
    out.wants_websocket = false;
    out.takes_trailers = false;
    // What is expected is expected of us: the endpoint's 100 would come to nobody.
    for id in [
        Name::KeepAlive,
        Name::ProxyConnection,
        Name::TransferEncoding,
        Name::Expect,
    ] {
        out.head.drop_all(id);
    }
    let said = [Name::Connection, Name::Te, Name::Upgrade];
    if !said.iter().any(|id| out.head.has(*id)) {
        return Ok(());
    }
    for id in said {
        out.head.drop_all(id);
    }
    let (mut upgrade, mut close, mut keep) = (false, false, false);
    let mut named = SmallVec::<[Span; 4]>::new();
    for option in out.head.list(Name::Connection) {
        match option {
            _ if option.eq_ignore_ascii_case(b"close") => close = true,
            _ if option.eq_ignore_ascii_case(b"keep-alive") => keep = true,
            _ if option.eq_ignore_ascii_case(b"upgrade") => upgrade = true,
            _ if option.eq_ignore_ascii_case(b"te") => {}
            _ if named.len() == OPTIONS_MAX || is_protected(option) => {
                return Err(Reason::BadRequest);
            }
            _ => named.push(span_in(&out.head.bytes, option)),
        }
    }
    // `close` beside `keep-alive` wins.
    out.keep_alive = !close && (keep || out.keep_alive);
    for name in named {
        out.head.drop_named_at(name);
    }
    let websocket = |token: &[u8]| token.eq_ignore_ascii_case(b"websocket");
    out.wants_websocket = upgrade
        && out.version == Version::Http11
        && out.method() == b"GET"
        && out.length == Length::None
        && out.head.list(Name::Upgrade).any(websocket);
    out.takes_trailers = out
        .head
        .list(Name::Te)
        .any(|coding| coding.eq_ignore_ascii_case(b"trailers"));
    Ok(())
}

fn is_protected(option: &[u8]) -> bool {
    match Name::of(option) {
        Name::Host
        | Name::ContentLength
        | Name::ContentType
        | Name::Authorization
        | Name::Cookie
        | Name::Expect
        | Name::Forwarded
        | Name::XForwardedFor
        | Name::XForwardedProto
        | Name::XForwardedHost
        | Name::XForwardedClientCert
        | Name::XRequestId
        | Name::Via
        | Name::Control
        | Name::Lookalike => true,
        _ => PROTECTED
            .iter()
            .any(|name| name.as_bytes().eq_ignore_ascii_case(option)),
    }
}

/// RFC 9110 §10.1.1.
fn expectation(out: &mut RequestHead) -> Result<(), Reason> {
    let mut expects = false;
    for member in out.head.list(Name::Expect) {
        if !member.eq_ignore_ascii_case(b"100-continue") {
            return Err(Reason::ExpectationFailed);
        }
        expects = true;
    }
    out.expects_continue = expects && out.version == Version::Http11 && out.length != Length::None;
    Ok(())
}
