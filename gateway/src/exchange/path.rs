//! Dot segments and other things in a path that mean one thing to us and another behind us.

use config::settings::DotSegments;

use crate::http::field::Span;
use crate::http::message::RequestHead;
use crate::refusal::Reason;

/// Refuses, or rewrites for matching and forwarding alike, what `limits.dotSegments` says.
/// `%00` is always refused.
pub(super) fn check(request: &mut RequestHead, policy: DotSegments) -> Result<(), Reason> {
    let path = request.path();
    if path.windows(3).any(|window| window == b"%00") {
        return Err(Reason::BadRequest);
    }
    if policy == DotSegments::Keep || !has_dot_segment(path) {
        return Ok(());
    }
    if policy == DotSegments::Reject {
        return Err(Reason::BadRequest);
    }
    let mut target = normalised(path);
    target.extend_from_slice(&request.target()[path.len()..]);
    let start = request.head.bytes.len();
    request.head.bytes.extend_from_slice(&target);
    request.target = Span::new(start, start + target.len());
    Ok(())
}

/// What a segment is once its dots are decoded.
#[derive(PartialEq, Eq)]
enum Dots {
    None,
    One,
    Two,
}

fn dots(segment: &[u8]) -> Dots {
    let mut rest = segment;
    let mut count = 0;
    while !rest.is_empty() {
        rest = match rest {
            [b'.', rest @ ..] | [b'%', b'2', b'e' | b'E', rest @ ..] => rest,
            _ => return Dots::None,
        };
        count += 1;
    }
    match count {
        1 => Dots::One,
        2 => Dots::Two,
        _ => Dots::None,
    }
}

fn has_dot_segment(path: &[u8]) -> bool {
    // Most paths hold no dot and no encoded byte at all.
    memchr::memchr2(b'.', b'%', path).is_some()
        && path
            .split(|byte| *byte == b'/')
            .any(|segment| dots(segment) != Dots::None)
}

/// RFC 3986 §5.2.4.
fn normalised(path: &[u8]) -> Vec<u8> {
    let mut kept: Vec<&[u8]> = Vec::new();
    let mut segments = path.split(|byte| *byte == b'/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match dots(segment) {
            Dots::None => kept.push(segment),
            Dots::One => {}
            Dots::Two => {
                kept.pop();
            }
        }
        if last && dots(segment) != Dots::None {
            kept.push(b"");
        }
    }
    let mut out = Vec::with_capacity(path.len());
    for segment in kept {
        out.push(b'/');
        out.extend_from_slice(segment);
    }
    if out.is_empty() {
        out.push(b'/');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dot_segments_are_seen_however_they_are_spelt() {
        for path in ["/a/../b", "/..", "/.", "/a/%2e%2E/b", "/%2e./x", "/a/."] {
            assert!(has_dot_segment(path.as_bytes()), "{path}");
        }
        for path in [
            "/",
            "/a.b/c",
            "/...",
            "/..a",
            "/%2f..x",
            "/a/b..",
            "/.well-known/x",
        ] {
            assert!(!has_dot_segment(path.as_bytes()), "{path}");
        }
    }

    #[test]
    fn normalising_follows_the_rfc() {
        for (path, wanted) in [
            ("/a/b/../c", "/a/c"),
            ("/../../a", "/a"),
            ("/a/./b", "/a/b"),
            ("/a/..", "/"),
            ("/a/b/.", "/a/b/"),
            ("/a/%2e%2e/b", "/b"),
            ("/a//../b", "/a/b"),
        ] {
            assert_eq!(normalised(path.as_bytes()), wanted.as_bytes(), "{path}");
        }
    }
}
