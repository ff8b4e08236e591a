//! The HTTP/1.1 codec, both sides (RFC 9112). Strict: what can be read two ways is refused, so
//! that nothing behind us can read it the other way.

pub mod body;
pub mod client;
pub mod connection;
pub mod encode;
pub mod reader;
pub mod request;
pub mod response;
pub mod server;
pub mod writer;

#[cfg(test)]
mod tests;

use super::field::{Field, Head, Name, Span};

/// Most fields that `Connection` may name: each is looked for among all fields.
const OPTIONS_MAX: usize = 64;

/// What a head may cost.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// Bytes from the first of the head to its empty line.
    pub bytes: usize,
    /// Of a request; at most [`request::FIELDS_MAX`].
    pub fields: usize,
    /// Bytes of a request target.
    pub target: usize,
}

impl HeadLimits {
    /// As configured.
    #[must_use]
    pub fn of(limits: &config::settings::Limits) -> HeadLimits {
        HeadLimits {
            bytes: limits.head_bytes,
            fields: limits.head_fields,
            target: limits.target_bytes,
        }
    }
}

/// What a parser made of the bytes so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A whole head of this many bytes.
    Head(usize),
    More,
}

/// Where a part of `whole` stands in it.
fn span_in(whole: &[u8], part: &[u8]) -> Span {
    let start = part.as_ptr() as usize - whole.as_ptr() as usize;
    Span::new(start, start + part.len())
}

/// Copies the head and indexes its fields. `false`: some line ends in an LF that no CR precedes,
/// which httparse takes for a line end; so each line it found is looked at.
#[must_use]
fn index(head: &mut Head, bytes: &[u8], headers: &[httparse::Header<'_>]) -> bool {
    head.clear();
    head.bytes.extend_from_slice(bytes);
    let crlf = |end: usize| bytes[..end].ends_with(b"\r\n");
    let mut strict = crlf(bytes.len()) && !bytes.starts_with(b"\n");
    for header in headers {
        let name = span_in(bytes, header.name.as_bytes());
        let value = match header.value {
            [] => Span {
                start: name.end + 1,
                end: name.end + 1,
            },
            value => span_in(bytes, value),
        };
        // A line ends where the next begins.
        strict &= crlf(name.start as usize);
        head.end_line(name.start);
        head.push(Field {
            id: Name::of(header.name.as_bytes()),
            dropped: false,
            settled: false,
            name,
            value,
            line: Span {
                start: name.start,
                end: name.end,
            },
        });
    }
    let end = bytes.len().saturating_sub(2);
    head.end_line(Span::new(end, end).start);
    strict && crlf(end)
}

/// What the fields say about the body's length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Unsaid,
    Length(u64),
    Chunked,
}

/// Why the framing cannot be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FramingError {
    /// Could be read two ways (RFC 9112 §6.3, §11.2).
    Ambiguous,
    /// A transfer coding that is known and not supported.
    UnsupportedCoding,
}

fn framing(head: &Head) -> Result<Framing, FramingError> {
    let mut lengths = head.all(Name::ContentLength);
    let length = lengths.next();
    if lengths.next().is_some() {
        return Err(FramingError::Ambiguous);
    }
    let mut codings = head.all(Name::TransferEncoding);
    let coding = codings.next();
    if codings.next().is_some() || (coding.is_some() && length.is_some()) {
        return Err(FramingError::Ambiguous);
    }
    match (length, coding) {
        (None, None) => Ok(Framing::Unsaid),
        (Some(length), _) => content_length(length)
            .map(Framing::Length)
            .ok_or(FramingError::Ambiguous),
        (None, Some(coding)) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Framing::Chunked),
        (None, Some(coding)) if is_known_coding(coding) => Err(FramingError::UnsupportedCoding),
        (None, Some(_)) => Err(FramingError::Ambiguous),
    }
}

/// Every member is a registered coding, at least one another than `chunked`, which comes once and
/// last if it is there.
fn is_known_coding(value: &[u8]) -> bool {
    const KNOWN: [&[u8]; 5] = [b"gzip", b"x-gzip", b"deflate", b"compress", b"x-compress"];
    let mut members = super::field::members(value).peekable();
    let mut any = false;
    while let Some(member) = members.next() {
        let last = members.peek().is_none();
        let known = KNOWN
            .iter()
            .any(|coding| member.eq_ignore_ascii_case(coding));
        if !(known || last && member.eq_ignore_ascii_case(b"chunked")) {
            return false;
        }
        any |= known;
    }
    any
}

/// Digits only, at most 2^63 - 1.
pub(super) fn content_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = value
        .iter()
        .fold(0u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    i64::try_from(number).is_ok().then_some(number)
}
