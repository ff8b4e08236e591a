//! Dot segments and other things in a path that mean one thing to us and another behind us.

use config::settings::DotSegments;

use crate::http::field::Span;
use crate::http::message::RequestHead;
use crate::refusal::Reason;

/// Refuses, or rewrites for matching and forwarding alike, what `limits.dotSegments` says.
/// `%00` is always refused.
pub(crate) fn check(request: &mut RequestHead, policy: DotSegments) -> Result<(), Reason> {
    let path = request.path();
    if path.windows(3).any(|window| window == b"%00") {
        return Err(Reason::BadRequest);
    }
    let found = match policy {
        DotSegments::Keep => Found::None,
        DotSegments::Reject | DotSegments::Normalise => find(path),
    };
    match (found, policy) {
        (Found::None, _) => return Ok(()),
        (Found::Plain, DotSegments::Normalise) => {}
        // A hidden one has no form that all readers would take for the same.
        _ => return Err(Reason::BadRequest),
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

/// Dot segments of a path.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    None,
    /// Between slashes.
    Plain,
    /// Beside a slash that is encoded or turned round, or in front of parameters: a segment to whoever
    /// decodes the path, takes `\` for `/`, or cuts off what follows a `;`.
    Hidden,
}

fn find(path: &[u8]) -> Found {
    // Most paths hold no dot and no encoded byte at all.
    if memchr::memchr2(b'.', b'%', path).is_none() {
        return Found::None;
    }
    let mut found = Found::None;
    for segment in path.split(|byte| *byte == b'/') {
        if dots(segment) != Dots::None {
            found = Found::Plain;
        } else if parts(segment).any(|part| dots(part) != Dots::None) {
            return Found::Hidden;
        }
    }
    found
}

/// What a segment falls into for whoever sees more slashes in it than we do, without parameters.
fn parts(segment: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(segment);
    std::iter::from_fn(move || {
        let all = rest?;
        let cut = memchr::memchr2_iter(b'\\', b'%', all).find_map(|at| match &all[at..] {
            [b'\\', ..] => Some((at, 1)),
            [b'%', b'2', b'f' | b'F', ..] | [b'%', b'5', b'c' | b'C', ..] => Some((at, 3)),
            _ => None,
        });
        rest = cut.map(|(at, length)| &all[at + length..]);
        let part = cut.map_or(all, |(at, _)| &all[..at]);
        let end = memchr::memchr(b';', part).unwrap_or(part.len());
        Some(&part[..end])
    })
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
            assert_eq!(find(path.as_bytes()), Found::Plain, "{path}");
        }
        for path in [
            "/a%2f..%2Fb",
            "/a/..%2fb",
            "/%2F%2e%2e",
            "/a\\..\\b",
            "/..%5cb",
            "/a%5C.",
            "/..;/b",
            "/a/%2e%2e;x=1/b",
            "/a/../b%2f..",
        ] {
            assert_eq!(find(path.as_bytes()), Found::Hidden, "{path}");
        }
        for path in [
            "/",
            "/a.b/c",
            "/...",
            "/..a",
            "/%2f..x",
            "/a%2fb.c",
            "/a/b..",
            "/a;..",
            "/%252e%252e/",
            "/%2",
            "/.well-known/x",
        ] {
            assert_eq!(find(path.as_bytes()), Found::None, "{path}");
        }
    }

    #[test]
    fn a_hidden_dot_segment_is_resolved_by_nobody() {
        let checked = |path: &str, policy| {
            let mut request = RequestHead::default();
            request.head.bytes = path.as_bytes().to_vec();
            request.target = Span::new(0, path.len());
            check(&mut request, policy).map(|()| request.target().to_vec())
        };
        let hidden = "/a/..%2fb";
        for policy in [DotSegments::Reject, DotSegments::Normalise] {
            assert_eq!(checked(hidden, policy), Err(Reason::BadRequest));
        }
        assert_eq!(
            checked(hidden, DotSegments::Keep).unwrap(),
            hidden.as_bytes()
        );
        let plain = checked("/a/../b?c=/../d", DotSegments::Normalise);
        assert_eq!(plain.unwrap(), b"/b?c=/../d");
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
