//! Paths: what is matched is what is forwarded, and no dot segment is left where none may be.

use config::settings::DotSegments;

use super::heads::{parse_request, passed_on};
use crate::exchange::path;
use crate::http::h1::Parsed;
use crate::http::message::RequestHead;

/// A request for this target, if there can be one.
fn asked(target: &[u8]) -> Option<RequestHead> {
    let method: &[u8] = if target.starts_with(b"*") {
        b"OPTIONS"
    } else {
        b"GET"
    };
    let bytes = [method, b" ", target, b" HTTP/1.1\r\nhost: a\r\n\r\n"].concat();
    let (parsed, head) = parse_request(&bytes);
    (parsed == Ok(Parsed::Head(bytes.len()))).then_some(head)
}

pub(super) fn path(target: &[u8]) {
    let Some(before) = asked(target) else {
        return;
    };
    for policy in [
        DotSegments::Keep,
        DotSegments::Reject,
        DotSegments::Normalise,
    ] {
        let Some(mut head) = asked(target) else {
            return;
        };
        if path::check(&mut head, policy).is_err() {
            continue;
        }
        assert!(!head.path().windows(3).any(|part| part == b"%00"));
        assert_eq!(
            head.target()[head.path().len()..],
            before.target()[before.path().len()..]
        );
        if policy != DotSegments::Normalise {
            assert_eq!(head.target(), before.target());
        } else if before.path() != b"*" {
            assert_eq!(
                head.path(),
                removed(before.path()),
                "{}",
                target.escape_ascii()
            );
        }
        if policy != DotSegments::Keep {
            let decoded = decoded(head.path());
            let mut segments = decoded.split(|byte| *byte == b'/');
            assert!(
                !segments.any(|it| it == b"." || it == b".."),
                "{}",
                target.escape_ascii()
            );
        }
        let again = head.target().to_vec();
        assert_eq!(path::check(&mut head, policy), Ok(()));
        assert_eq!(head.target(), again, "twice is not once");
        passed_on(&head);
    }
}

/// With every encoded dot as itself.
fn decoded(path: &[u8]) -> Vec<u8> {
    let text = path.escape_ascii().to_string();
    text.replace("%2e", ".").replace("%2E", ".").into_bytes()
}

/// RFC 3986 §5.2.4 as it is written, on segments whose dots were decoded first.
fn removed(path: &[u8]) -> Vec<u8> {
    let plain = |segment: &[u8]| match &decoded(segment)[..] {
        b"." => b".".to_vec(),
        b".." => b"..".to_vec(),
        _ => segment.to_vec(),
    };
    let segments: Vec<Vec<u8>> = path.split(|byte| *byte == b'/').map(plain).collect();
    let mut input = segments.join(&b"/"[..]);
    let mut output = Vec::new();
    while !input.is_empty() {
        let cut = |input: &[u8], count: usize| [b"/", &input[count..]].concat();
        if input.starts_with(b"/./") {
            input = cut(&input, 3);
        } else if input == b"/." {
            input = b"/".to_vec();
        } else if input.starts_with(b"/../") || input == b"/.." {
            input = cut(&input, input.len().min(4));
            let end = output.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
            output.truncate(end);
        } else {
            let next = input[1..].iter().position(|byte| *byte == b'/');
            let end = next.map_or(input.len(), |at| at + 1);
            output.extend(input.drain(..end));
        }
    }
    output
}
