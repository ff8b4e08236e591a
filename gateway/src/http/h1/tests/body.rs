use std::pin::pin;
use std::task::Poll;

use proptest::prelude::*;
use tokio::io::DuplexStream;

use super::{READS, cuts, now, pace, pipe, poll, say};
use crate::http::h1::connection::{Connection, ReadLimits};
use crate::http::h1::server::Client;
use crate::http::message::{
    Downstream, Filled, Length, RequestHead, Source, StreamError, Trailers,
};

/// A request with a body of this length, and nothing else of interest.
fn request(length: Length) -> RequestHead {
    RequestHead {
        length,
        ..RequestHead::default()
    }
}

/// What was read of one body.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Body {
    data: Vec<u8>,
    trailers: Option<Vec<u8>>,
}

/// Reads until the body is over or would be waited for; whether it is over. Takes at most `bite`
/// bytes at a time.
fn read<S: Source>(source: &mut S, bite: usize, body: &mut Body) -> Result<bool, StreamError> {
    loop {
        let filled = poll(pin!(source.fill()));
        match filled {
            Poll::Pending => return Ok(false),
            Poll::Ready(filled) => match filled? {
                Filled::Data => {
                    let count = source.data().len().min(bite);
                    body.data.extend_from_slice(&source.data()[..count]);
                    source.consume(count);
                }
                Filled::End => {
                    let lines = |trailers: &Trailers| trailers.lines.clone();
                    body.trailers = source.trailers().map(lines);
                    return Ok(true);
                }
            },
        }
    }
}

/// Reads one body that arrives in these pieces; `None`: more would be needed. Also what stands
/// behind it.
pub(super) fn receive(
    pieces: &[&[u8]],
    length: Length,
    limits: ReadLimits,
    bite: usize,
) -> Result<Option<(Body, Vec<u8>)>, StreamError> {
    let (mut connection, mut theirs) = pipe();
    let request = request(length);
    let mut client = Client::new(&mut connection, limits, &request);
    let pace = pace();
    let mut body = Body::default();
    let mut over = false;
    {
        let (mut source, _sink) = client.split(&pace);
        for piece in pieces {
            say(&mut theirs, piece);
            over = over || read(&mut source, bite, &mut body)?;
        }
        // What stands behind a body is looked at by nobody else here.
        let _waits = poll(pin!(source.departed(1 << 16)));
    }
    assert_eq!(over, client.received_all());
    Ok(over.then(|| (body, connection.unread().to_vec())))
}

/// How a body is sent in chunks.
#[derive(Clone, Debug)]
struct Chunking {
    /// Sizes of the chunks; the last takes what is left.
    sizes: Vec<usize>,
    extension: String,
    upper: bool,
    zeros: usize,
    trailers: String,
}

impl Chunking {
    fn encode(&self, body: &[u8]) -> Vec<u8> {
        let mut wire = Vec::new();
        let mut rest = body;
        let mut sizes = self.sizes.iter();
        while !rest.is_empty() {
            let size = sizes
                .next()
                .map_or(rest.len(), |size| *size.min(&rest.len()));
            let (chunk, tail) = rest.split_at(size);
            rest = tail;
            let hex = match self.upper {
                true => format!("{size:X}"),
                false => format!("{size:x}"),
            };
            let zeros = "0".repeat(self.zeros);
            wire.extend_from_slice(format!("{zeros}{hex}{}\r\n", self.extension).as_bytes());
            wire.extend_from_slice(chunk);
            wire.extend_from_slice(b"\r\n");
        }
        wire.extend_from_slice(format!("0{}\r\n{}\r\n", self.extension, self.trailers).as_bytes());
        wire
    }
}

fn chunking() -> impl Strategy<Value = Chunking> {
    let extension = prop_oneof![
        3 => Just(String::new()),
        1 => "(;[a-z]{1,5}(=([a-z]{0,5}|\"[a-z; \t]{0,9}\"))?){1,2}",
    ];
    let trailers = prop_oneof![
        2 => Just(String::new()),
        1 => "(x-[a-z]{1,5}: [a-z]{1,9}\r\n){1,4}",
    ];
    let sizes = proptest::collection::vec(1..600usize, 0..12);
    (sizes, extension, any::<bool>(), 0..8usize, trailers).prop_map(
        |(sizes, extension, upper, zeros, trailers)| Chunking {
            sizes,
            extension,
            upper,
            zeros,
            trailers,
        },
    )
}

/// Cuts `bytes` where `at` (fractions of the length in 65536ths) says.
fn pieces<'b>(bytes: &'b [u8], at: &[u16]) -> Vec<&'b [u8]> {
    let mut ends: Vec<usize> = at
        .iter()
        .map(|at| bytes.len() * usize::from(*at) / 65_536)
        .collect();
    ends.push(bytes.len());
    ends.sort_unstable();
    let mut start = 0;
    ends.into_iter()
        .map(|end| &bytes[std::mem::replace(&mut start, end)..end])
        .filter(|piece| !piece.is_empty())
        .collect()
}

const BEHIND: &[u8] = b"GET / HTTP/1.1\r\n";

/// A connection on which `wire` lies unread in front of a body of this length.
fn arrived(wire: &[u8]) -> (Connection, DuplexStream) {
    let (mut connection, mut theirs) = pipe();
    say(&mut theirs, wire);
    let pace = pace();
    let (mut reader, _writer) = connection.split(&pace, READS);
    assert!(poll(pin!(reader.departed(1 << 16))).is_pending());
    drop(reader);
    assert_eq!(connection.unread(), wire);
    (connection, theirs)
}

proptest! {
    #[test]
    fn a_body_is_the_same_however_it_is_chunked_and_cut(
        data in proptest::collection::vec(any::<u8>(), 0..4000),
        chunking in chunking(),
        at in proptest::collection::vec(any::<u16>(), 0..12),
        bite in prop_oneof![1..64usize, Just(usize::MAX)],
    ) {
        let trailers = (!chunking.trailers.is_empty()).then(|| chunking.trailers.clone().into());
        for (length, mut wire, trailers) in [
            (Length::Exactly(data.len() as u64), data.clone(), None),
            (Length::Chunked, chunking.encode(&data), trailers),
        ] {
            wire.extend_from_slice(BEHIND);
            let (body, behind) = receive(&pieces(&wire, &at), length, READS, bite)
                .unwrap()
                .unwrap();
            prop_assert_eq!(&body.data, &data);
            prop_assert_eq!(body.trailers, trailers);
            prop_assert_eq!(behind, BEHIND);
        }
    }

    #[test]
    fn a_body_is_whole_when_its_last_byte_is_here(
        data in proptest::collection::vec(any::<u8>(), 0..100),
        chunking in chunking(),
    ) {
        for (length, wire) in [
            (Length::Exactly(data.len() as u64), data.clone()),
            (Length::Chunked, chunking.encode(&data)),
        ] {
            let request = request(length);
            for end in 0..=wire.len() {
                let (mut connection, _theirs) = arrived(&wire[..end]);
                connection.begin_body(request.length, READS);
                prop_assert_eq!(connection.whole_body().is_some(), end == wire.len(), "{}", end);
            }
        }
    }

    #[test]
    fn a_kept_body_is_read_again_from_its_beginning(
        data in proptest::collection::vec(any::<u8>(), 0..3000),
        chunking in chunking(),
        // How many bites of how many bytes the first attempt takes.
        bites in 0..100usize,
        bite in 1..100usize,
        behind in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        for (length, mut wire) in [
            (Length::Exactly(data.len() as u64), data.clone()),
            (Length::Chunked, chunking.encode(&data)),
        ] {
            wire.extend_from_slice(&behind);
            let (mut connection, _theirs) = arrived(&wire);
            let request = request(length);
            let mut client = Client::new(&mut connection, READS, &request);
            let pace = pace();
            let mut bodies = Vec::new();
            for _ in 0..2 {
                prop_assert!(client.keep_body(&pace));
                let (mut source, _sink) = client.split(&pace);
                for _ in 0..bites {
                    if now(source.fill()).unwrap() == Filled::End {
                        break;
                    }
                    let count = source.data().len().min(bite);
                    source.consume(count);
                }
                drop(source);
                prop_assert!(client.rewind_body());
                let (mut source, _sink) = client.split(&pace);
                let mut body = Body::default();
                prop_assert!(read(&mut source, usize::MAX, &mut body).unwrap());
                drop(source);
                prop_assert!(client.rewind_body());
                prop_assert_eq!(&body.data, &data);
                bodies.push(body);
            }
            prop_assert_eq!(&bodies[0], &bodies[1]);
            let (mut source, _sink) = client.split(&pace);
            prop_assert!(read(&mut source, usize::MAX, &mut Body::default()).unwrap());
            drop(source);
            client.forget_body();
            prop_assert_eq!(connection.unread(), &behind);
        }
    }
}

#[test]
fn malformed_chunks_are_refused_in_whatever_pieces_they_come() {
    for wire in [
        &b"\r\n\r\n"[..],
        b"g\r\nx\r\n0\r\n\r\n",
        b";x\r\n0\r\n\r\n",
        b"5\nhello\r\n0\r\n\r\n",
        b"5\rhello\r\n0\r\n\r\n",
        b"5 \r\nhello\r\n0\r\n\r\n",
        b" 5\r\nhello\r\n0\r\n\r\n",
        b"5\t;x\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"+5\r\nhello\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"5,5\r\nhello\r\n0\r\n\r\n",
        b"5.0\r\nhello\r\n0\r\n\r\n",
        b"00000000000000005\r\nhello\r\n0\r\n\r\n",
        b"10000000000000005\r\nhello\r\n0\r\n\r\n",
        b"8000000000000000\r\nhello\r\n0\r\n\r\n",
        b"ffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        b"5;x\x01\r\nhello\r\n0\r\n\r\n",
        b"5;x\0\r\nhello\r\n0\r\n\r\n",
        b"5;x\ny\r\nhello\r\n0\r\n\r\n",
        b"5;x\ry\r\nhello\r\n0\r\n\r\n",
        b"5;x\x7f\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhellox\r\n0\r\n\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5\r\nhello\r0\r\n\r\n",
        b"5\r\nhello\r\n\r\n0\r\n\r\n",
        b"0\r\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"0\r\n\rGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"0\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"0\r\nx\r\n\r\n",
        b"0\r\n: y\r\n\r\n",
        b"0\r\nx : y\r\n\r\n",
        b"0\r\n x: y\r\n\r\n",
        b"0\r\nx: y\r\n folded\r\n\r\n",
        b"0\r\nx: y\nz: w\r\n\r\n",
        b"0\r\nx: y\rz: w\r\n\r\n",
        b"0\r\nx: y\0\r\n\r\n",
    ] {
        let mut ways = cuts(wire);
        ways.push(vec![wire]);
        for pieces in ways {
            let result = receive(&pieces, Length::Chunked, READS, usize::MAX);
            let malformed = matches!(result, Err(StreamError::Malformed(_)));
            assert!(malformed, "{result:?}: {}", wire.escape_ascii());
        }
    }
}

/// Whether this chunked body is taken; the same whole and byte by byte.
fn is_taken(wire: &str) -> bool {
    let whole = receive(&[wire.as_bytes()], Length::Chunked, READS, usize::MAX);
    let bytes: Vec<&[u8]> = wire.as_bytes().chunks(1).collect();
    let crumbs = receive(&bytes, Length::Chunked, READS, usize::MAX);
    let taken = |result: Result<Option<_>, StreamError>| match result {
        Ok(Some(_)) => true,
        Err(StreamError::Malformed(_)) => false,
        other => panic!("{other:?}"),
    };
    let (whole, crumbs) = (taken(whole), taken(crumbs));
    assert_eq!(whole, crumbs, "{} bytes", wire.len());
    whole
}

#[test]
fn framing_is_bounded() {
    let chunk = |extension: usize| format!("1;{}\r\nx\r\n", "y".repeat(extension - 1));
    let end = "0\r\n\r\n";
    // A line of 4 KiB, and 16 KiB of extensions in all.
    assert!(is_taken(&format!("{}{end}", chunk(4093))));
    assert!(!is_taken(&format!("{}{end}", chunk(4094))));
    assert!(!is_taken(&format!("{}{end}", chunk(9000))));
    assert!(is_taken(&format!("{}{end}", chunk(4000).repeat(4))));
    assert!(!is_taken(&format!("{}{end}", chunk(4000).repeat(5))));
    // Trailers of as many bytes as the limit says, and 64 of them.
    let trailers = |bytes: usize| format!("0\r\nx: {}\r\n\r\n", "y".repeat(bytes - 7));
    assert!(is_taken(&trailers(READS.trailer_bytes)));
    assert!(!is_taken(&trailers(READS.trailer_bytes + 1)));
    assert!(!is_taken(&trailers(3 * READS.trailer_bytes)));
    assert!(is_taken(&format!("0\r\n{}\r\n", "x: y\r\n".repeat(64))));
    assert!(!is_taken(&format!("0\r\n{}\r\n", "x: y\r\n".repeat(65))));
}

#[test]
fn trailers_pass_but_for_those_that_frame_route_or_authenticate() {
    let wire = b"0\r\nGrpc-Status: 0\r\nContent-Length: 5\r\nX-Sum: \t a b \r\ntransfer-encoding: chunked\r\nHost: b\r\nTE: x\r\nTrailer: y\r\nconnection: close\r\nAuthorization: z\r\nCookie: a=b\r\nset-cookie: a=b\r\nContent-Encoding: gzip\r\nX-Forwarded-For: 1.2.3.4\r\nExpect: 100-continue\r\nKnative-Serving-Tag: x\r\nCache-Control: no-store\r\ntidegate-reason: internal\r\ndate: now\r\nempty:\r\n\r\n";
    let (body, _behind) = receive(&[wire], Length::Chunked, READS, usize::MAX)
        .unwrap()
        .unwrap();
    let lines = String::from_utf8(body.trailers.unwrap()).unwrap();
    assert_eq!(
        lines,
        "Grpc-Status: 0\r\nX-Sum: a b\r\ndate: now\r\nempty: \r\n"
    );
}

#[test]
fn a_body_beyond_its_bound_is_too_large() {
    let limits = ReadLimits {
        body_bytes: 10,
        ..READS
    };
    for (wire, fits) in [
        (&b"4\r\nabcd\r\n6\r\nefghij\r\n0\r\n\r\n"[..], true),
        (b"4\r\nabcd\r\n7\r\nefghijk\r\n0\r\n\r\n", false),
    ] {
        let result = receive(&[wire], Length::Chunked, limits, usize::MAX);
        match result {
            Ok(Some(_)) => assert!(fits),
            Err(StreamError::TooLarge) => assert!(!fits),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_connection_that_ends_within_a_body_has_closed_unless_the_end_is_the_bodys() {
    for (length, sent, whole) in [
        (Length::Exactly(6), &b"hello"[..], false),
        (Length::Exactly(5), b"hello", true),
        (Length::Chunked, b"5\r\nhello", false),
        (Length::Chunked, b"5\r\nhello\r\n", false),
        (Length::Chunked, b"5\r\nhello\r\n0\r\n", false),
        (Length::Chunked, b"5\r\nhello\r\n0\r\n\r\n", true),
        (Length::UntilClose, b"hello", true),
    ] {
        let (mut connection, mut theirs) = pipe();
        say(&mut theirs, sent);
        drop(theirs);
        let request = request(length);
        let mut client = Client::new(&mut connection, READS, &request);
        let pace = pace();
        let (mut source, _sink) = client.split(&pace);
        let mut body = Body::default();
        let result = read(&mut source, usize::MAX, &mut body);
        assert_eq!(body.data, b"hello");
        match result {
            Ok(over) => assert!(over && whole, "{length:?}"),
            Err(StreamError::Closed) => assert!(!whole, "{length:?}"),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_body_that_is_not_kept_begins_again_only_if_nothing_of_it_was_used() {
    for (length, wire) in [
        (Length::Exactly(10), &b"hello"[..]),
        (Length::Chunked, b"a\r\nhello"),
    ] {
        let (mut connection, _theirs) = arrived(wire);
        let request = request(length);
        let mut client = Client::new(&mut connection, READS, &request);
        let pace = pace();
        assert!(!client.keep_body(&pace));
        for (count, again) in [(0, true), (1, false)] {
            let (mut source, _sink) = client.split(&pace);
            assert_eq!(now(source.fill()).unwrap(), Filled::Data);
            assert_eq!(source.data(), b"hello");
            source.consume(count);
            drop(source);
            assert_eq!(client.rewind_body(), again);
        }
    }
}

#[test]
fn what_comes_behind_a_kept_body_is_still_read() {
    let mut wire = vec![b'x'; 60_000];
    wire.extend_from_slice(BEHIND);
    let (mut connection, _theirs) = arrived(&wire);
    let request = request(Length::Exactly(60_000));
    let mut client = Client::new(&mut connection, READS, &request);
    let pace = pace();
    assert!(client.keep_body(&pace));
    let (mut source, _sink) = client.split(&pace);
    assert!(read(&mut source, usize::MAX, &mut Body::default()).unwrap());
    drop(source);
    // Nobody said that the body may be forgotten: the next request does.
    let next = RequestHead {
        length: Length::Exactly(200_000),
        ..RequestHead::default()
    };
    let mut client = Client::new(&mut connection, READS, &next);
    let (mut source, _sink) = client.split(&pace);
    let mut body = Body::default();
    read(&mut source, usize::MAX, &mut body).unwrap();
    drop(source);
    assert_eq!(body.data, BEHIND);
    connection.rest();
    assert!(connection.is_at_rest());
}

#[test]
fn a_tunnel_takes_any_number_of_bytes_after_a_kept_request() {
    let (mut connection, mut theirs) = pipe();
    let request = request(Length::None);
    let mut client = Client::new(&mut connection, READS, &request);
    let pace = pace();
    assert!(client.keep_body(&pace));
    let (mut source, _sink) = client.split(&pace);
    source.begin_tunnel();
    let mut body = Body::default();
    for _ in 0..10 {
        say(&mut theirs, &[b'x'; 30_000]);
        assert!(!read(&mut source, usize::MAX, &mut body).unwrap());
    }
    assert_eq!(body.data.len(), 300_000);
    drop(source);
    assert!(connection.unread().is_empty());
    connection.rest();
    assert!(connection.is_at_rest());
}
