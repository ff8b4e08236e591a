//! Heads and trailers: from the form the h2 crate gives them to the one they have inside, and back.

use std::fmt;

use bytes::Bytes;
use h2::ext::Protocol;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{Method, Request, Response, StatusCode, request};

use crate::http::answer::phrase;
use crate::http::authority::{is_authority, same_authority};
use crate::http::field::{Head, Name, Span};
use crate::http::h1::body::TRAILERS_MAX;
use crate::http::h1::request::METHOD_MAX;
use crate::http::h1::{HeadLimits, content_length};
use crate::http::message::{
    Length, RequestEdits, RequestHead, ResponseHead, StreamError, Trailers, Version, may_trail,
};
use crate::refusal::Reason;

/// A client's request → the form inside. `ended`: no body follows. `key` makes the
/// `Sec-WebSocket-Key` an HTTP/1.1 endpoint wants to see.
///
/// # Errors
/// The reason to refuse it with.
pub fn read_request(
    parts: &request::Parts,
    ended: bool,
    limits: &HeadLimits,
    key: impl FnOnce() -> u128,
    out: &mut RequestHead,
) -> Result<(), Reason> {
    if parts.headers.len() > limits.fields {
        return Err(Reason::HeadTooLarge);
    }
    let websocket = is_websocket(parts)?;
    out.version = Version::Http2;
    out.keep_alive = true;
    out.wants_websocket = websocket;
    out.head.clear();
    let method = match parts.method.as_str() {
        _ if websocket => "GET",
        method if method.len() > METHOD_MAX => return Err(Reason::BadRequest),
        method => method,
    };
    let target = parts.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    if target.len() > limits.target {
        return Err(Reason::UriTooLong);
    }
    if !is_target(target.as_bytes(), &parts.method) {
        return Err(Reason::BadRequest);
    }
    let bytes = &mut out.head.bytes;
    bytes.extend_from_slice(method.as_bytes());
    out.method = Span::new(0, bytes.len());
    bytes.extend_from_slice(target.as_bytes());
    out.target = Span::new(method.len(), bytes.len());
    out.host = read_host(parts, &mut out.head)?;
    read_fields(&parts.headers, &mut out.head)?;
    if websocket {
        // What follows is no body: an HTTP/1.1 endpoint that does not open the WebSocket would take
        // the next request on its connection for it.
        if out.head.has(Name::ContentLength) {
            return Err(Reason::BadRequest);
        }
        out.head.append(b"sec-websocket-key", &websocket_key(key()));
    }
    out.takes_trailers = out.head.has(Name::Te);
    let expects = read_expectation(&out.head)?;
    for id in [Name::Te, Name::Expect] {
        out.head.drop_all(id);
    }
    out.length = if websocket {
        Length::None
    } else {
        request_length(out, ended)?
    };
    out.expects_continue = expects && out.length != Length::None;
    Ok(())
}

/// Whether it is the one kind of CONNECT there is: RFC 8441, for WebSockets.
fn is_websocket(parts: &request::Parts) -> Result<bool, Reason> {
    if parts.method != Method::CONNECT {
        return Ok(false);
    }
    match parts.extensions.get::<Protocol>() {
        None => Err(Reason::MethodNotAllowed),
        Some(protocol) if protocol.as_str() == "websocket" => Ok(true),
        Some(_) => Err(Reason::NotImplemented),
    }
}

fn is_target(target: &[u8], method: &Method) -> bool {
    let form = match target {
        [b'/', ..] => true,
        b"*" => method == Method::OPTIONS,
        _ => false,
    };
    form && target
        .iter()
        .all(|byte| matches!(byte, 0x21..=0x7e) && *byte != b'#')
}

/// Writes the `Host` an HTTP/1.1 endpoint wants to see, from `:authority` or the field itself; both
/// must mean the same (RFC 9113 §8.3.1).
fn read_host(parts: &request::Parts, head: &mut Head) -> Result<Span, Reason> {
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let field = hosts.next().map(HeaderValue::as_bytes);
    if hosts.next().is_some() {
        return Err(Reason::BadRequest);
    }
    let scheme: &[u8] = match parts.uri.scheme_str() {
        Some("https") => b"https://",
        _ => b"http://",
    };
    let pseudo = parts.uri.authority().map(|it| it.as_str().as_bytes());
    let host = match (pseudo, field) {
        (Some(pseudo), Some(field)) if !same_authority(pseudo, field, scheme) => {
            return Err(Reason::BadRequest);
        }
        (Some(host), _) | (None, Some(host)) => host,
        (None, None) => return Err(Reason::BadRequest),
    };
    if !is_authority(host) {
        return Err(Reason::BadRequest);
    }
    head.append(b"host", host);
    let line_end = head.bytes.len();
    Ok(Span::new(line_end - 2 - host.len(), line_end - 2))
}

/// All but `Host`; cookies that came in crumbs are one again (RFC 9113 §8.2.3).
fn read_fields(headers: &HeaderMap, head: &mut Head) -> Result<(), Reason> {
    let mut crumbs = headers.get_all(header::COOKIE).iter();
    let crumbled = crumbs.next().is_some() && crumbs.next().is_some();
    for (name, value) in headers {
        let value = value.as_bytes();
        // RFC 9113 §8.2.1: malformed.
        let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
        if blank(value.first()) || blank(value.last()) {
            return Err(Reason::BadRequest);
        }
        if !is_field_name(name) {
            return Err(Reason::BadRequest);
        }
        if *name == header::HOST || (crumbled && *name == header::COOKIE) {
            continue;
        }
        head.append(name.as_str().as_bytes(), value);
    }
    if crumbled {
        let crumbs = headers.get_all(header::COOKIE).iter();
        let crumbs: Vec<&[u8]> = crumbs.map(HeaderValue::as_bytes).collect();
        head.append(b"cookie", &crumbs.join(&b"; "[..]));
    }
    Ok(())
}

/// RFC 9110 §5.1: a token. The http crate lets a quote into names that come by HTTP/2, which
/// HTTP/1.1 has no way to say.
fn is_field_name(name: &HeaderName) -> bool {
    memchr::memchr(b'"', name.as_str().as_bytes()).is_none()
}

/// RFC 9110 §10.1.1.
fn read_expectation(head: &Head) -> Result<bool, Reason> {
    let mut expects = false;
    for member in head.list(Name::Expect) {
        if !member.eq_ignore_ascii_case(b"100-continue") {
            return Err(Reason::ExpectationFailed);
        }
        expects = true;
    }
    Ok(expects)
}

fn request_length(request: &RequestHead, ended: bool) -> Result<Length, Reason> {
    let mut lengths = request.head.all(Name::ContentLength);
    let said = lengths.next();
    if lengths.next().is_some() {
        return Err(Reason::BadRequest);
    }
    Ok(match said.map(content_length) {
        Some(None) => return Err(Reason::BadRequest),
        Some(Some(0)) => Length::None,
        Some(Some(length)) => Length::Exactly(length),
        None if !ended => Length::Chunked,
        // RFC 9110 §8.6: where a body is usual, HTTP/1.1 is told that there is none.
        None if matches!(request.method(), b"POST" | b"PUT" | b"PATCH") => Length::Exactly(0),
        None => Length::None,
    })
}

/// 16 bytes in base64 (RFC 6455 §4.1).
fn websocket_key(random: u128) -> [u8; 24] {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut key = [b'='; 24];
    // 21 digits of 6 bits; the last holds what is left, 2 bits, and 4 zeros.
    for (at, digit) in key[..22].iter_mut().enumerate() {
        let bits = if at < 21 {
            random >> (122 - 6 * at)
        } else {
            random << 4
        };
        *digit = DIGITS[(bits & 63) as usize];
    }
    key
}

/// The form inside → a request to an endpoint.
///
/// # Errors
/// `Malformed`: HTTP/2 has no way to say it.
pub fn write_request(
    request: &RequestHead,
    edits: &RequestEdits<'_>,
    secure: bool,
) -> Result<Request<()>, StreamError> {
    let target = edits.target.unwrap_or_else(|| request.target());
    let host = edits.host.unwrap_or_else(|| request.host());
    let mut out = Request::new(());
    *out.method_mut() = Method::from_bytes(request.method()).map_err(unsayable)?;
    let target = Bytes::copy_from_slice(target);
    let mut uri = http::uri::Parts::default();
    uri.path_and_query = Some(PathAndQuery::from_maybe_shared(target).map_err(unsayable)?);
    // An HTTP/1.0 client may have named no host: then the h2 crate is told so by the version.
    if !host.is_empty() {
        let host = Bytes::copy_from_slice(host);
        uri.authority = Some(Authority::from_maybe_shared(host).map_err(unsayable)?);
        uri.scheme = Some(if secure { Scheme::HTTPS } else { Scheme::HTTP });
        *out.version_mut() = http::Version::HTTP_2;
    }
    *out.uri_mut() = Uri::from_parts(uri).map_err(unsayable)?;
    let headers = out.headers_mut();
    headers.reserve(request.head.fields().len() + 8);
    write_fields(headers, &request.head)?;
    write_lines(headers, edits.lines)?;
    if request.takes_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    Ok(out)
}

fn unsayable(error: impl fmt::Display) -> StreamError {
    tracing::debug!(%error, "a head that HTTP/2 cannot carry");
    StreamError::Malformed("a head that HTTP/2 cannot carry")
}

/// Every field that was not dropped, but `Host`.
fn write_fields(headers: &mut HeaderMap, head: &Head) -> Result<(), StreamError> {
    for field in head.fields() {
        if !field.dropped && field.id != Name::Host {
            append(headers, field.name.of(&head.bytes), head.value(field))?;
        }
    }
    Ok(())
}

/// Lines as they are put behind an HTTP/1.1 head.
fn write_lines(headers: &mut HeaderMap, lines: &[u8]) -> Result<(), StreamError> {
    let mut rest = lines;
    while let Some(end) = memchr::memchr(b'\n', rest) {
        let (line, after) = (rest[..end].trim_ascii_end(), &rest[end + 1..]);
        rest = after;
        let Some(colon) = memchr::memchr(b':', line) else {
            continue;
        };
        append(headers, &line[..colon], line[colon + 1..].trim_ascii())?;
    }
    Ok(())
}

fn append(headers: &mut HeaderMap, name: &[u8], value: &[u8]) -> Result<(), StreamError> {
    let name = HeaderName::from_bytes(name).map_err(unsayable)?;
    let value = HeaderValue::from_bytes(value).map_err(unsayable)?;
    headers.try_append(name, value).map_err(unsayable)?;
    Ok(())
}

/// An endpoint's response, interim or final → the form inside. `ended`: no body follows; `to_head`:
/// the request was HEAD.
///
/// # Errors
/// `Malformed`.
pub fn read_response(
    status: StatusCode,
    headers: &HeaderMap,
    ended: bool,
    to_head: bool,
    out: &mut ResponseHead,
) -> Result<(), StreamError> {
    out.status = status.as_u16();
    out.version = Version::Http2;
    out.keep_alive = true;
    out.head.clear();
    let phrase = phrase(out.status).as_bytes();
    out.head.bytes.extend_from_slice(phrase);
    out.phrase = Span::new(0, phrase.len());
    for (name, value) in headers {
        if !is_field_name(name) {
            return Err(StreamError::Malformed("a field name is no token"));
        }
        let (name, value) = (name.as_str().as_bytes(), value.as_bytes().trim_ascii());
        out.head.append(name, value);
    }
    // The word is ours to say.
    out.head.drop_all(Name::TidegateReason);
    let mut lengths = out.head.all(Name::ContentLength);
    let said = lengths.next().map(content_length);
    if out.status == 101 || said == Some(None) || lengths.next().is_some() {
        return Err(StreamError::Malformed("response framing is ambiguous"));
    }
    drop(lengths);
    let bodiless = out.status < 200 || out.status == 204;
    out.length = match said.flatten() {
        _ if to_head || bodiless || out.status == 304 => Length::None,
        None if ended => Length::Exactly(0),
        None => Length::Chunked,
        Some(0) => Length::None,
        Some(length) => Length::Exactly(length),
    };
    if bodiless {
        out.head.drop_all(Name::ContentLength);
    }
    Ok(())
}

/// The form inside → a response to a client; `added` are whole lines. A WebSocket that was opened
/// is a success like any other, and has no proof to show (RFC 8441 §5).
///
/// # Errors
/// `Malformed`: HTTP/2 has no way to say it.
pub fn write_response(response: &ResponseHead, added: &[u8]) -> Result<Response<()>, StreamError> {
    let mut out = Response::new(());
    let status = match response.status {
        101 => 200,
        status => status,
    };
    *out.status_mut() = StatusCode::from_u16(status).map_err(unsayable)?;
    let headers = out.headers_mut();
    headers.reserve(response.head.fields().len() + 4);
    write_fields(headers, &response.head)?;
    write_lines(headers, added)?;
    if response.status == 101 {
        headers.remove("sec-websocket-accept");
    }
    Ok(out)
}

/// # Errors
/// `Malformed`: too many, or one whose name is no token.
pub fn read_trailers(trailers: &HeaderMap) -> Result<Trailers, StreamError> {
    if trailers.len() > TRAILERS_MAX {
        return Err(StreamError::Malformed("too many trailers"));
    }
    let mut lines = Vec::new();
    for (name, value) in trailers {
        if !is_field_name(name) {
            return Err(StreamError::Malformed("a field name is no token"));
        }
        let name = name.as_str().as_bytes();
        if may_trail(name) {
            lines.extend_from_slice(name);
            lines.extend_from_slice(b": ");
            lines.extend_from_slice(value.as_bytes().trim_ascii());
            lines.extend_from_slice(b"\r\n");
        }
    }
    Ok(Trailers { lines })
}

/// # Errors
/// `Malformed`: HTTP/2 has no way to say it.
pub fn write_trailers(trailers: &Trailers) -> Result<HeaderMap, StreamError> {
    let mut out = HeaderMap::new();
    write_lines(&mut out, &trailers.lines)?;
    Ok(out)
}
