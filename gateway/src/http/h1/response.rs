//! Response heads: bytes → [`ResponseHead`], or why not.

use std::mem::MaybeUninit;

use smallvec::SmallVec;

use super::{Framing, HeadLimits, OPTIONS_MAX, Parsed, framing, index, span_in};
use crate::http::field::{Name, Span};
use crate::http::message::{Length, ResponseHead, StreamError, Version};

/// Most fields.
const FIELDS_MAX: usize = 256;

/// Reads a head from the front of `bytes` into `out`. `to_head` says that the request was HEAD.
///
/// # Errors
/// `Malformed`: the endpoint said something that could be read two ways, or no HTTP.
pub fn parse(
    bytes: &[u8],
    limits: &HeadLimits,
    to_head: bool,
    out: &mut ResponseHead,
) -> Result<Parsed, StreamError> {
    if matches!(bytes, [b'\r' | b'\n', ..]) {
        // Only servers may skip empty lines (RFC 9112 §2.2): this belongs to the answer before.
        return Err(StreamError::Malformed("bytes between responses"));
    }
    let mut storage = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut response = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let parsed = config.parse_response_with_uninit_headers(&mut response, bytes, &mut storage);
    let length = match parsed {
        Ok(httparse::Status::Complete(length)) if length <= limits.bytes => length,
        Ok(httparse::Status::Partial) if bytes.len() < limits.bytes => return Ok(Parsed::More),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => {
            return Err(StreamError::Malformed("response head too large"));
        }
        Err(_) => return Err(StreamError::Malformed("response head malformed")),
    };
    let head = &bytes[..length];
    let (Some(status), Some(minor)) = (response.code, response.version) else {
        return Err(StreamError::Malformed("response head malformed"));
    };
    if !(100..=999).contains(&status) {
        return Err(StreamError::Malformed("status out of range"));
    }
    if !index(&mut out.head, head, response.headers) {
        return Err(StreamError::Malformed("bare LF in the response head"));
    }
    out.status = status;
    out.phrase = match response.reason {
        Some(phrase) if !phrase.is_empty() => span_in(head, phrase.as_bytes()),
        _ => Span::default(),
    };
    out.version = if minor == 0 {
        Version::Http10
    } else {
        Version::Http11
    };
    let framing = framing(&out.head)
        .map_err(|_ambiguous| StreamError::Malformed("response framing is ambiguous"))?;
    if framing == Framing::Chunked && out.version == Version::Http10 {
        return Err(StreamError::Malformed(
            "transfer coding in an HTTP/1.0 response",
        ));
    }
    out.length = length_of(out.status, framing, to_head);
    connection(out, framing)?;
    Ok(Parsed::Head(length))
}

/// RFC 9112 §6.3.
fn length_of(status: u16, framing: Framing, to_head: bool) -> Length {
    if to_head || is_bodiless(status) || status == 304 {
        return Length::None;
    }
    match framing {
        Framing::Unsaid => Length::UntilClose,
        Framing::Length(0) => Length::None,
        Framing::Length(length) => Length::Exactly(length),
        Framing::Chunked => Length::Chunked,
    }
}

/// These never have a body, nor a field that announces one (RFC 9110 §8.6, RFC 9112 §6.1).
fn is_bodiless(status: u16) -> bool {
    status < 200 || status == 204
}

/// Hop-by-hop fields (RFC 9110 §7.6.1): what they say to us, and that they go no further.
fn connection(out: &mut ResponseHead, framing: Framing) -> Result<(), StreamError> {
    let upgrade = |token: &[u8]| token.eq_ignore_ascii_case(b"websocket");
    if out.status == 101 && !out.head.list(Name::Upgrade).any(upgrade) {
        return Err(StreamError::Malformed("upgrade to something else"));
    }
    let bodiless = is_bodiless(out.status);
    for id in [
        Name::Connection,
        Name::KeepAlive,
        Name::ProxyConnection,
        Name::TransferEncoding,
        Name::Te,
        Name::Upgrade,
        // The word is ours to say.
        Name::TidegateReason,
    ] {
        out.head.drop_all(id);
    }
    if bodiless {
        out.head.drop_all(Name::ContentLength);
    }
    let mut named = SmallVec::<[Span; 4]>::new();
    let (mut close, mut keep) = (false, false);
    for option in out.head.list(Name::Connection) {
        match option {
            _ if option.eq_ignore_ascii_case(b"close") => close = true,
            _ if option.eq_ignore_ascii_case(b"keep-alive") => keep = true,
            // It says where the body ends, so it is no option.
            _ if Name::of(option) == Name::ContentLength => {}
            _ if named.len() == OPTIONS_MAX => {
                return Err(StreamError::Malformed("too many connection options"));
            }
            _ => named.push(span_in(&out.head.bytes, option)),
        }
    }
    for name in named {
        out.head.drop_named_at(name);
    }
    // A body that must not be there may come all the same.
    let ends = match framing {
        Framing::Unsaid => out.length != Length::UntilClose,
        Framing::Length(0) => true,
        Framing::Length(_) | Framing::Chunked => !bodiless,
    };
    out.keep_alive = ends && !close && (keep || out.version == Version::Http11);
    Ok(())
}
