//! Bytes that nobody would send but an attacker: never a panic, and never a different reading for
//! different pieces.

use proptest::prelude::*;
use proptest::sample::select;

use super::{Heard, READS, body, hear, request, response};
use crate::http::message::Length;

/// Bytes out of these words, most of the time in an order that makes some sense.
fn soup(words: &'static [&'static [u8]]) -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        9 => select(words).prop_map(<[u8]>::to_vec),
        1 => proptest::collection::vec(any::<u8>(), 1..3),
    ];
    proptest::collection::vec(word, 1..30).prop_map(|words| words.concat())
}

const HEAD_WORDS: &[&[u8]] = &[
    b"GET / HTTP/1.1\r\n",
    b"POST http://a/x HTTP/1.0\r\n",
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 101 Up\r\n",
    b"Host: a\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: 5\r\n",
    b"Connection: close, x\r\n",
    b"Connection:",
    b"Upgrade: websocket\r\n",
    b"Expect: 100-continue\r\n",
    b"TE: trailers\r\n",
    b"x: y\r\n",
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"\r",
    b":",
    b" ",
    b"\t",
    b",",
    b"\0",
    b"a",
    b"GET ",
    b"/",
];

/// Heads that begin well, so that not all of them fail at once.
fn head(start: &'static str) -> impl Strategy<Value = Vec<u8>> {
    (any::<bool>(), soup(HEAD_WORDS)).prop_map(move |(whole, mut soup)| {
        if whole {
            soup.splice(..0, start.bytes());
            soup.extend_from_slice(b"\r\n\r\n");
        }
        soup
    })
}

const CHUNK_WORDS: &[&[u8]] = &[
    b"5\r\nhello\r\n",
    b"1\r\nx\r\n",
    b"0\r\n\r\n",
    b"0\r\n",
    b"x: y\r\n",
    b"\r\n",
    b"\n",
    b"\r",
    b"5",
    b"0",
    b"fF",
    b";",
    b";a=b",
    b"hello",
    b" ",
];

/// What was read, in words; `None`: more is waited for.
type Reading = Option<String>;

fn request_read(pieces: &[&[u8]]) -> Reading {
    match hear(pieces) {
        Heard::Head(head) => Some(request::meaning(&head)),
        Heard::Refused(reason) => Some(format!("refused: {}", reason.word())),
        Heard::Waits => None,
    }
}

fn response_read(pieces: &[&[u8]]) -> Reading {
    response::hear(pieces, false).map(|heard| match heard {
        Ok(head) => response::meaning(&head),
        Err(_) => "refused".to_owned(),
    })
}

fn body_read(pieces: &[&[u8]]) -> Reading {
    match body::receive(pieces, Length::Chunked, READS, usize::MAX) {
        Ok(whole) => whole.map(|(body, behind)| format!("{body:?} {behind:?}")),
        Err(_) => Some("refused".to_owned()),
    }
}

/// Reads the bytes whole, in two pieces and byte by byte. Crumbs may be looked at later than a
/// whole, so what is refused in one may still be waited for in the other; nothing else differs.
fn assert_read_alike(bytes: &[u8], cut: usize, read: fn(&[&[u8]]) -> Reading) {
    let whole = read(&[bytes]);
    let (one, two) = bytes.split_at(cut % bytes.len());
    let crumbs: Vec<&[u8]> = bytes.chunks(1).collect();
    for pieces in [&[one, two][..], &crumbs] {
        let cut = read(pieces);
        let later = cut.is_none() && whole.as_ref().is_some_and(|w| w.starts_with("refused"));
        assert!(
            cut == whole || later,
            "{cut:?} instead of {whole:?}: {}",
            bytes.escape_ascii()
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn requests_are_read_alike_in_all_pieces(
        bytes in head("GET / HTTP/1.1\r\nHost: a\r\n"),
        cut in any::<usize>(),
    ) {
        assert_read_alike(&bytes, cut, request_read);
    }

    #[test]
    fn responses_are_read_alike_in_all_pieces(
        bytes in head("HTTP/1.1 200 OK\r\n"),
        cut in any::<usize>(),
    ) {
        assert_read_alike(&bytes, cut, response_read);
    }

    #[test]
    fn chunks_are_read_alike_in_all_pieces(bytes in soup(CHUNK_WORDS), cut in any::<usize>()) {
        assert_read_alike(&bytes, cut, body_read);
    }
}
