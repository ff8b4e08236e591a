//! Response heads: bytes → [`ResponseHead`], or why not.

use std::mem::MaybeUninit;

use super::{FIELDS_MAX, Framing, HeadLimits, Parsed, framing, has_bare_lf, index, span_in};
use crate::http::field::{Name, Span};
use crate::http::message::{Length, ResponseHead, StreamError, Version};

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
    if has_bare_lf(head) {
        return Err(StreamError::Malformed("bare LF in the response head"));
    }
    let (Some(status), Some(minor)) = (response.code, response.version) else {
        return Err(StreamError::Malformed("response head malformed"));
    };
    if !(100..=999).contains(&status) {
        return Err(StreamError::Malformed("status out of range"));
    }
    index(&mut out.head, head, response.headers);
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
    out.length = length_of(out, to_head)?;
    connection(out);
    Ok(Parsed::Head(length))
}

/// RFC 9112 §6.3.
fn length_of(out: &ResponseHead, to_head: bool) -> Result<Length, StreamError> {
    let framing = framing(&out.head)
        .map_err(|_ambiguous| StreamError::Malformed("response framing is ambiguous"))?;
    if framing == Framing::Chunked && out.version == Version::Http10 {
        return Err(StreamError::Malformed(
            "transfer coding in an HTTP/1.0 response",
        ));
    }
    if to_head || out.status < 200 || out.status == 204 || out.status == 304 {
        return Ok(Length::None);
    }
    Ok(match framing {
        Framing::Unsaid => Length::UntilClose,
        Framing::Length(0) => Length::None,
        Framing::Length(length) => Length::Exactly(length),
        Framing::Chunked => Length::Chunked,
    })
}

fn connection(out: &mut ResponseHead) {
    let mut options = false;
    for field in &mut out.head.fields {
        match field.id {
            Name::Connection => {
                field.dropped = true;
                options = true;
            }
            Name::KeepAlive
            | Name::ProxyConnection
            | Name::TransferEncoding
            | Name::Te
            | Name::Upgrade
            // The word is ours to say.
            | Name::TidegateReason => field.dropped = true,
            // RFC 9110 §8.6: none in 1xx and 204.
            Name::ContentLength => field.dropped = out.status < 200 || out.status == 204,
            _ => {}
        }
    }
    out.keep_alive = out.version == Version::Http11 && out.length != Length::UntilClose;
    if !options {
        return;
    }
    let mut named = smallvec::SmallVec::<[Span; 4]>::new();
    let mut close = false;
    let mut keep = false;
    for option in out.head.list(Name::Connection) {
        match option {
            _ if option.eq_ignore_ascii_case(b"close") => close = true,
            _ if option.eq_ignore_ascii_case(b"keep-alive") => keep = true,
            _ if Name::of(option) == Name::ContentLength => {}
            _ => named.push(span_in(&out.head.bytes, option)),
        }
    }
    for name in named {
        let name = name.of(&out.head.bytes).to_ascii_lowercase();
        out.head.drop_named(&name);
    }
    out.keep_alive =
        !close && out.length != Length::UntilClose && (keep || out.version == Version::Http11);
}
