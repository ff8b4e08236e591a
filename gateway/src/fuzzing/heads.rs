//! Heads of requests and responses: read alike in all pieces, in one way only, and passed on as what
//! they were read as.

use crate::http::field::{Head, Name};
use crate::http::h1::encode::{self, ResponseFraming};
use crate::http::h1::{HeadLimits, Parsed, request, response};
use crate::http::message::{Length, RequestEdits, RequestHead, ResponseHead, Version};
use crate::refusal::Reason;

/// Small enough to be reached.
pub(super) const LIMITS: HeadLimits = HeadLimits {
    bytes: 3072,
    fields: 24,
    target: 512,
};

/// So many prefixes of an input are looked at.
const PREFIXES: usize = 24;

/// Prefixes, spread over the input and crowded at its end.
fn prefixes(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let stride = bytes.len() / PREFIXES + 1;
    let spread = (0..bytes.len()).step_by(stride);
    let last = bytes.len().saturating_sub(5)..bytes.len();
    spread.chain(last).map(|end| &bytes[..end])
}

pub(super) fn parse_request(bytes: &[u8]) -> (Result<Parsed, Reason>, RequestHead) {
    let mut head = RequestHead::default();
    (request::parse(bytes, &LIMITS, &mut head), head)
}

pub(super) fn request(bytes: &[u8]) {
    let (whole, head) = parse_request(bytes);
    for prefix in prefixes(bytes) {
        let (part, _) = parse_request(prefix);
        assert!(
            part == whole || part == Ok(Parsed::More),
            "{part:?} of a part, {whole:?} of the whole"
        );
    }
    let Ok(Parsed::Head(length)) = whole else {
        return;
    };
    let said = Said::read(&bytes[..length], b"");
    let [method, target, version] = &said.start[..] else {
        panic!("a request line of {} words", said.start.len());
    };
    assert_eq!(head.method(), *method);
    assert_eq!(
        *version,
        match head.version {
            Version::Http10 => b"HTTP/1.0",
            Version::Http11 => b"HTTP/1.1",
            Version::Http2 => panic!("not from HTTP/1"),
        }
    );
    let hosts = said.all("host");
    assert!(hosts.len() <= 1 && (hosts.len() == 1 || head.version == Version::Http10));
    if target.starts_with(b"/") || *target == b"*" {
        assert_eq!(head.target(), *target);
        assert_eq!(head.host(), hosts.first().copied().unwrap_or_default());
    } else {
        assert!(head.target().starts_with(b"/") || head.target() == b"*");
    }
    assert_eq!(
        head.length,
        match said.length() {
            Some(Length::Exactly(0)) | None => Length::None,
            Some(length) => length,
        }
    );
    assert!(head.version == Version::Http11 || head.length != Length::Chunked);
    passed_on(&head);
}

/// What an endpoint reads of it is what we read.
pub(super) fn passed_on(head: &RequestHead) {
    if head.host.is_empty() {
        // HTTP/1.0 knew no hosts: the endpoint is told so by an empty one.
        return;
    }
    let encoded = encoded(head);
    let (parsed, again) = parse_request(&encoded);
    if parsed == Err(Reason::HeadTooLarge) || parsed == Err(Reason::UriTooLong) {
        return;
    }
    let shown = encoded.escape_ascii().to_string();
    assert_eq!(parsed, Ok(Parsed::Head(encoded.len())), "{shown}");
    assert_eq!(again.method(), head.method(), "{shown}");
    assert_eq!(again.target(), head.target(), "{shown}");
    assert_eq!(again.host(), head.host(), "{shown}");
    let of = |length| match length {
        Length::Exactly(0) => Length::None,
        length => length,
    };
    assert_eq!(of(again.length), of(head.length), "{shown}");
    assert!(again.keep_alive && !again.expects_continue, "{shown}");
    assert_eq!(again.wants_websocket, head.wants_websocket, "{shown}");
    let framing =
        [Name::ContentLength, Name::TransferEncoding].map(|id| again.head.all(id).count());
    assert!(framing.iter().sum::<usize>() <= 1, "{shown}");
    let once_more = self::encoded(&again);
    assert_eq!(once_more.escape_ascii().to_string(), shown);
}

fn encoded(head: &RequestHead) -> Vec<u8> {
    let mut out = Vec::new();
    encode::request(&mut out, head, &RequestEdits::default());
    out
}

fn parse_response(bytes: &[u8], to_head: bool) -> (Result<Parsed, String>, ResponseHead) {
    let mut head = ResponseHead::default();
    let parsed = response::parse(bytes, &LIMITS, to_head, &mut head);
    (parsed.map_err(|error| error.to_string()), head)
}

pub(super) fn response(bytes: &[u8]) {
    let Some((first, bytes)) = bytes.split_first() else {
        return;
    };
    let to_head = *first == b'h';
    let (whole, head) = parse_response(bytes, to_head);
    for prefix in prefixes(bytes) {
        let (part, _) = parse_response(prefix, to_head);
        let refused = part.is_err() && whole.is_err();
        assert!(
            part == whole || refused || part == Ok(Parsed::More),
            "{part:?} of a part, {whole:?} of the whole"
        );
    }
    let Ok(Parsed::Head(length)) = whole else {
        return;
    };
    let said = Said::read(&bytes[..length], b"\t");
    let bodiless = to_head || head.status < 200 || matches!(head.status, 204 | 304);
    assert_eq!(
        head.length,
        match said.length() {
            _ if bodiless => Length::None,
            Some(Length::Exactly(0)) => Length::None,
            Some(length) => length,
            None => Length::UntilClose,
        }
    );
    let framing = ResponseFraming {
        length: head.length,
        close: false,
        announce_keep_alive: false,
    };
    let mut encoded = Vec::new();
    if head.status < 200 {
        encode::interim(&mut encoded, &head, b"");
    } else {
        encode::response(&mut encoded, &head, framing, b"");
    }
    let (parsed, again) = parse_response(&encoded, to_head);
    if encoded.len() > LIMITS.bytes {
        return;
    }
    let shown = encoded.escape_ascii().to_string();
    assert_eq!(parsed, Ok(Parsed::Head(encoded.len())), "{shown}");
    assert_eq!(
        (again.status, again.length),
        (head.status, head.length),
        "{shown}"
    );
    assert!(!again.head.has(Name::TidegateReason), "{shown}");
}

/// A head as the simplest of readers takes it: lines that end in CRLF, a colon, and nothing that
/// could end a line elsewhere.
struct Said<'a> {
    start: Vec<&'a [u8]>,
    fields: Vec<(String, &'a [u8])>,
}

impl<'a> Said<'a> {
    fn read(mut bytes: &'a [u8], in_phrase: &[u8]) -> Said<'a> {
        while let Some(rest) = bytes.strip_prefix(b"\r\n") {
            bytes = rest;
        }
        let lines = bytes.strip_suffix(b"\r\n\r\n").expect("a head has an end");
        let mut lines = split_crlf(lines).into_iter();
        let start = lines.next().unwrap();
        let control = |byte: &u8| byte.is_ascii_control() && !in_phrase.contains(byte);
        assert!(!start.iter().any(control), "a control in the first line");
        let field = |line: &'a [u8]| {
            let colon = line.iter().position(|byte| *byte == b':').expect("a colon");
            let (name, value) = (&line[..colon], &line[colon + 1..]);
            assert!(!name.is_empty());
            assert!(
                name.iter().all(|byte| is_token(*byte)),
                "{}",
                line.escape_ascii()
            );
            let blank = |byte: &u8| *byte == b'\t' || !byte.is_ascii_control();
            assert!(value.iter().all(blank), "{}", line.escape_ascii());
            let name = String::from_utf8(name.to_ascii_lowercase()).unwrap();
            (name, value.trim_ascii())
        };
        Said {
            start: start.split(|byte| *byte == b' ').collect(),
            fields: lines.map(field).collect(),
        }
    }

    fn all(&self, name: &str) -> Vec<&'a [u8]> {
        let named = self.fields.iter().filter(|(one, _)| one == name);
        named.map(|(_, value)| *value).collect()
    }

    /// The one length that the fields say.
    fn length(&self) -> Option<Length> {
        let (lengths, codings) = (self.all("content-length"), self.all("transfer-encoding"));
        match (&lengths[..], &codings[..]) {
            ([], []) => None,
            ([], [coding]) => {
                assert!(coding.eq_ignore_ascii_case(b"chunked"));
                Some(Length::Chunked)
            }
            ([length], []) => {
                assert!(length.iter().all(u8::is_ascii_digit));
                let length: u64 = std::str::from_utf8(length).unwrap().parse().unwrap();
                Some(Length::Exactly(length))
            }
            both => panic!("two framings: {both:?}"),
        }
    }
}

/// Lines, each without the CRLF behind it; no CR or LF elsewhere.
fn split_crlf(bytes: &[u8]) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        lines.push(line.strip_suffix(b"\r").unwrap_or(line));
    }
    let breaks = bytes
        .iter()
        .filter(|byte| matches!(byte, b'\r' | b'\n'))
        .count();
    assert_eq!(
        breaks,
        (lines.len() - 1) * 2,
        "a line ends in something else"
    );
    lines
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// No field of a head says where it ends but through a whole line of its own.
pub(super) fn is_harmless(head: &Head) -> bool {
    let kept = head.fields().iter().filter(|field| !field.dropped);
    kept.into_iter().all(|field| {
        let value = head.value(field);
        !value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0))
    })
}
