//! HTTP/2: where frames begin and end, and heads that change their form on the way.

use http::{HeaderName, HeaderValue, Request};

use super::heads::{LIMITS, is_harmless, parse_request, passed_on};
use crate::http::h1::{Parsed, response};
use crate::http::h2::frames::{Frame, Frames, RST_STREAM};
use crate::http::h2::heads;
use crate::http::message::{Length, RequestEdits, RequestHead, ResponseHead, StreamError};

/// Bytes of frames, walked over whole and in pieces of the size the first byte says.
pub(super) fn frames(bytes: &[u8]) {
    let [before, size, bytes @ ..] = bytes else {
        return;
    };
    let before = usize::from(*before) % 32;
    let (mut of_whole, mut of_pieces) = (Vec::new(), Vec::new());
    let mut whole = Frames::new(before);
    whole.walk(bytes, |frame| of_whole.push(frame));
    let mut pieces = Frames::new(before);
    let mut seen = 0;
    for piece in bytes.chunks(usize::from(*size) % 16 + 1) {
        pieces.walk(piece, |frame| of_pieces.push(frame));
        seen += piece.len();
        let wanted = bytes[..seen].get(before..).is_some_and(is_amid);
        assert_eq!(pieces.is_amid(), wanted, "after {seen} bytes");
    }
    assert_eq!(whole.is_amid(), pieces.is_amid());
    assert_eq!(of_whole, of_pieces);
    assert_eq!(of_whole, all(bytes.get(before..).unwrap_or_default()));
}

/// The frames that have begun, as the simplest of readers finds them.
fn all(mut bytes: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let [a, b, c, kind, flags, stream @ ..] = bytes {
        let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        let Some((stream, rest)) = stream.split_first_chunk::<4>() else {
            break;
        };
        let code = match (*kind, length, rest) {
            (RST_STREAM, 4, [a, b, c, d, ..]) => u32::from_be_bytes([*a, *b, *c, *d]),
            (RST_STREAM, 4, _) => break,
            _ => 0,
        };
        frames.push(Frame {
            kind: *kind,
            flags: *flags,
            stream: u32::from_be_bytes(*stream) & 0x7fff_ffff,
            length,
            code,
        });
        bytes = rest.get(length..).unwrap_or_default();
    }
    frames
}

/// Whether these frames end amid something that is no body.
fn is_amid(mut bytes: &[u8]) -> bool {
    let mut block = false;
    loop {
        match bytes {
            [] => return block,
            [a, b, c, kind, flags, _, _, _, _, rest @ ..] => {
                let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
                if matches!(kind, 1 | 9) {
                    block = flags & 4 == 0;
                }
                let Some(next) = rest.get(length..) else {
                    return block || *kind != 0;
                };
                bytes = next;
            }
            _ => return true,
        }
    }
}

/// A head of either protocol, a line for each part: what endpoints of both read of it.
pub(super) fn heads(bytes: &[u8]) {
    if let Some(head) = from_http2(bytes) {
        assert!(is_harmless(&head.head));
        passed_on(&head);
        to_http2(&head);
    }
    let (parsed, head) = parse_request(bytes);
    if let Ok(Parsed::Head(_)) = parsed {
        to_http2(&head);
    }
    let mut head = ResponseHead::default();
    if let Ok(Parsed::Head(_)) = response::parse(bytes, &LIMITS, false, &mut head) {
        let written = heads::write_response(&head, b"");
        if let Ok(written) = written {
            let mut again = ResponseHead::default();
            let ended = head.length == Length::None;
            let read = heads::read_response(
                written.status(),
                written.headers(),
                ended,
                false,
                &mut again,
            );
            assert!(read.is_ok(), "{read:?}");
        }
    }
}

/// `METHOD`, `target`, `authority`, then fields; a first line of `.` says that no body follows.
fn from_http2(bytes: &[u8]) -> Option<RequestHead> {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let mut method = lines.next()?;
    let ended = method == b".";
    if ended {
        method = lines.next()?;
    }
    let target = std::str::from_utf8(lines.next()?).ok()?;
    let authority = std::str::from_utf8(lines.next()?).ok()?;
    let mut uri = http::uri::Uri::builder();
    uri = uri.path_and_query(target);
    if !authority.is_empty() {
        uri = uri.scheme("https").authority(authority);
    }
    let mut request = Request::new(());
    *request.method_mut() = http::Method::from_bytes(method).ok()?;
    *request.uri_mut() = uri.build().ok()?;
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_lowercase(&line[..colon]).ok()?;
        // What the h2 crate refuses does not come here (RFC 9113 §8.2.2).
        let of_connection = [
            "connection",
            "transfer-encoding",
            "upgrade",
            "keep-alive",
            "proxy-connection",
        ];
        let value = HeaderValue::from_bytes(line.get(colon + 1..)?).ok()?;
        if of_connection.contains(&name.as_str()) || name == "te" && value != "trailers" {
            return None;
        }
        request.headers_mut().append(name, value);
    }
    let (parts, ()) = request.into_parts();
    let mut out = RequestHead::default();
    heads::read_request(&parts, ended, &LIMITS, || 7, &mut out).ok()?;
    Some(out)
}

/// What was let in is said to an endpoint of HTTP/2, or refused.
fn to_http2(head: &RequestHead) {
    let written = heads::write_request(head, &RequestEdits::default(), false);
    let shown = head.head.bytes.escape_ascii();
    match written {
        Ok(request) => {
            let names = request.headers().keys();
            for name in names {
                let of_connection = matches!(
                    name.as_str(),
                    "connection" | "transfer-encoding" | "upgrade" | "keep-alive" | "host"
                );
                assert!(!of_connection, "{shown}");
            }
        }
        // Refused with 400.
        Err(StreamError::Malformed(_)) => {}
        Err(other) => panic!("{other}: {shown}"),
    }
}
