use proptest::prelude::*;

use super::{HEADS, READS, heard, now, pace, parsed, pipe};
use crate::http::field::Name;
use crate::http::h1::server::Client;
use crate::http::h1::{Parsed, encode, request, response};
use crate::http::message::{
    Downstream, RequestEdits, RequestHead, Responder, ResponseHead, Sink, Trailers,
};

fn encoded(request: &RequestHead, edits: &RequestEdits<'_>) -> String {
    let mut out = Vec::new();
    encode::request(&mut out, request, edits);
    String::from_utf8(out).unwrap()
}

#[test]
fn a_request_is_passed_on_byte_for_byte_but_for_what_is_ours() {
    for (head, wanted) in [
        // Order, case and white space survive.
        (
            "GET /a?b HTTP/1.1\r\nzeta: 1\r\nHoST: a\r\nALPHA:2\r\nzeta:\t 3 \r\nEmpty:\r\n\r\n",
            "GET /a?b HTTP/1.1\r\nzeta: 1\r\nHoST: a\r\nALPHA:2\r\nzeta:\t 3 \r\nEmpty:\r\n\r\n",
        ),
        // What is left out: first, in the middle, twice in a row, last.
        (
            "GET / HTTP/1.1\r\nConnection: x-a\r\nHost: a\r\nx-a: 1\r\nKeep-Alive: 5\r\nb: 2\r\nc: 3\r\nTE: deflate\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nb: 2\r\nc: 3\r\n\r\n",
        ),
        (
            "GET / HTTP/1.0\r\nConnection: close\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: \r\n\r\n",
        ),
        // Framing.
        (
            "POST / HTTP/1.1\r\nHost: a\r\ncontent-LENGTH:  05\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\ncontent-LENGTH:  05\r\n\r\n",
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\nHost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: chunked\r\n\r\n",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n",
        ),
        // The two connection options that are passed on.
        (
            "GET / HTTP/1.1\r\nHost: a\r\nTE: gzip, trailers\r\nConnection: close, te\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nconnection: TE\r\nte: trailers\r\n\r\n",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: x, WebSocket\r\nConnection: Upgrade\r\nsec-websocket-key: k\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nsec-websocket-key: k\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n",
        ),
        // Forms of the target: the authority takes the place of the host.
        (
            "GET HTTP://A:80/x HTTP/1.1\r\nx: y\r\nHost: a\r\n\r\n",
            "GET /x HTTP/1.1\r\nx: y\r\nhost: A:80\r\n\r\n",
        ),
        (
            "GET http://a?x HTTP/1.1\r\nHost:  a\r\nx: y\r\n\r\n",
            "GET /?x HTTP/1.1\r\nhost: a\r\nx: y\r\n\r\n",
        ),
        (
            "GET http://a HTTP/1.0\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        ),
        (
            "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
    ] {
        let request = parsed(head.as_bytes());
        assert_eq!(encoded(&request, &RequestEdits::default()), wanted);
    }
}

#[test]
fn edits_replace_in_place_and_add_behind() {
    let mut request = parsed(
        b"POST /old?q HTTP/1.1\r\na: 1\r\nHost: a\r\nb: 2\r\nx-drop: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    request.head.drop_named(b"X-Drop");
    let edits = RequestEdits {
        target: Some(b"/new?q"),
        host: Some(b"other:81"),
        lines: b"via: 1.1 us\r\nx-drop: ours\r\n",
    };
    assert_eq!(
        encoded(&request, &edits),
        "POST /new?q HTTP/1.1\r\na: 1\r\nhost: other:81\r\nb: 2\r\nvia: 1.1 us\r\nx-drop: ours\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    let request = parsed(b"GET http://a/old HTTP/1.0\r\nb: 2\r\n\r\n");
    assert_eq!(
        encoded(&request, &edits),
        "GET /new?q HTTP/1.1\r\nhost: other:81\r\nb: 2\r\nvia: 1.1 us\r\nx-drop: ours\r\n\r\n"
    );
}

/// What a client that sent `request` reads of this answer, and whether it may ask again.
fn answered(request: &str, answer: &str, pieces: &[&[u8]]) -> (String, bool) {
    let request = parsed(request.as_bytes());
    let mut head = ResponseHead::default();
    let to_head = request.is_head();
    let length = response::parse(answer.as_bytes(), &HEADS, to_head, &mut head).unwrap();
    assert_eq!(length, Parsed::Head(answer.len()));
    let (mut connection, mut theirs) = pipe();
    let mut client = Client::new(&mut connection, READS, &request);
    let pace = pace();
    let (source, mut sink) = client.split(&pace);
    sink.respond(&head, b"added: 1\r\n", false);
    for piece in pieces {
        now(sink.write(piece)).unwrap();
    }
    let trailers = Trailers {
        lines: b"sum: 7\r\n".to_vec(),
    };
    now(sink.finish(Some(&trailers))).unwrap();
    drop(source);
    let again = client.wants_more();
    (String::from_utf8(heard(&mut theirs)).unwrap(), again)
}

const OLD: &str = "GET / HTTP/1.0\r\nHost: a\r\n\r\n";
const OLD_KEPT: &str = "GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n";
const NEW: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const LAST: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
const HEAD: &str = "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n";

const SIZED: &str =
    "HTTP/1.1 200 Fine by me\r\nB: 2\r\nContent-Length: 5\r\na: 1\r\nKeep-Alive: timeout=1\r\n\r\n";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\na: 1\r\n\r\n";
const UNTIL_CLOSE: &str = "HTTP/1.0 404 Gone fishing\r\na: 1\r\n\r\n";
const BODY: &[&[u8]] = &[b"he", b"", b"llo"];

type Pieces = &'static [&'static [u8]];

/// What is asked, what the endpoint answers in which pieces, what the client reads, and whether it
/// may ask again.
const FRAMED: &[(&str, &str, Pieces, &str, bool)] = &[
    (
        NEW,
        SIZED,
        BODY,
        "HTTP/1.1 200 Fine by me\r\nB: 2\r\nContent-Length: 5\r\na: 1\r\nadded: 1\r\n\r\nhello",
        true,
    ),
    (
        LAST,
        SIZED,
        BODY,
        "HTTP/1.1 200 Fine by me\r\nB: 2\r\nContent-Length: 5\r\na: 1\r\nadded: 1\r\nconnection: close\r\n\r\nhello",
        false,
    ),
    (
        OLD,
        SIZED,
        BODY,
        "HTTP/1.1 200 Fine by me\r\nB: 2\r\nContent-Length: 5\r\na: 1\r\nadded: 1\r\nconnection: close\r\n\r\nhello",
        false,
    ),
    (
        OLD_KEPT,
        SIZED,
        BODY,
        "HTTP/1.1 200 Fine by me\r\nB: 2\r\nContent-Length: 5\r\na: 1\r\nadded: 1\r\nconnection: keep-alive\r\n\r\nhello",
        true,
    ),
    (
        HEAD,
        SIZED,
        &[],
        "HTTP/1.1 200 Fine by me\r\nB: 2\r\nContent-Length: 5\r\na: 1\r\nadded: 1\r\n\r\n",
        true,
    ),
    (
        NEW,
        CHUNKED,
        BODY,
        "HTTP/1.1 200 OK\r\na: 1\r\nadded: 1\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\nsum: 7\r\n\r\n",
        true,
    ),
    (
        LAST,
        CHUNKED,
        BODY,
        "HTTP/1.1 200 OK\r\na: 1\r\nadded: 1\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\nsum: 7\r\n\r\n",
        false,
    ),
    (
        OLD,
        CHUNKED,
        BODY,
        "HTTP/1.1 200 OK\r\na: 1\r\nadded: 1\r\nconnection: close\r\n\r\nhello",
        false,
    ),
    (
        OLD_KEPT,
        CHUNKED,
        BODY,
        "HTTP/1.1 200 OK\r\na: 1\r\nadded: 1\r\nconnection: close\r\n\r\nhello",
        false,
    ),
    (
        HEAD,
        CHUNKED,
        &[],
        "HTTP/1.1 200 OK\r\na: 1\r\nadded: 1\r\n\r\n",
        true,
    ),
    (
        NEW,
        UNTIL_CLOSE,
        BODY,
        "HTTP/1.1 404 Gone fishing\r\na: 1\r\nadded: 1\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\nsum: 7\r\n\r\n",
        true,
    ),
    (
        OLD_KEPT,
        UNTIL_CLOSE,
        BODY,
        "HTTP/1.1 404 Gone fishing\r\na: 1\r\nadded: 1\r\nconnection: close\r\n\r\nhello",
        false,
    ),
    (
        HEAD,
        UNTIL_CLOSE,
        &[],
        "HTTP/1.1 404 Gone fishing\r\na: 1\r\nadded: 1\r\n\r\n",
        true,
    ),
    (
        NEW,
        "HTTP/1.1 204 No\r\nContent-Length: 0\r\n\r\n",
        &[],
        "HTTP/1.1 204 No\r\nadded: 1\r\n\r\n",
        true,
    ),
    (
        NEW,
        "HTTP/1.1 304 Same\r\nContent-Length: 5\r\n\r\n",
        &[],
        "HTTP/1.1 304 Same\r\nContent-Length: 5\r\nadded: 1\r\n\r\n",
        true,
    ),
    (
        OLD_KEPT,
        "HTTP/1.1 204\r\nConnection: close\r\n\r\n",
        &[],
        "HTTP/1.1 204 \r\nadded: 1\r\nconnection: keep-alive\r\n\r\n",
        true,
    ),
    (
        NEW,
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        &[],
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nadded: 1\r\n\r\n",
        true,
    ),
];

#[test]
fn an_answer_is_framed_as_its_client_understands_it() {
    for (request, answer, body, wanted, again) in FRAMED {
        let read = answered(request, answer, body);
        assert_eq!(read, ((*wanted).to_owned(), *again), "{request:?}");
    }
}

#[test]
fn interim_answers_reach_only_clients_that_know_them() {
    for (request, wanted) in [
        (NEW, "HTTP/1.1 103 Early\r\nLink: x\r\nadded: 1\r\n\r\n"),
        (OLD_KEPT, ""),
    ] {
        let request = parsed(request.as_bytes());
        let mut head = ResponseHead::default();
        let early = b"HTTP/1.1 103 Early\r\nLink: x\r\nConnection: close\r\n\r\n";
        response::parse(early, &HEADS, false, &mut head).unwrap();
        let (mut connection, mut theirs) = pipe();
        let mut client = Client::new(&mut connection, READS, &request);
        let pace = pace();
        let (_source, mut sink) = client.split(&pace);
        sink.interim(&head, b"added: 1\r\n");
        now(sink.flush()).unwrap();
        assert_eq!(heard(&mut theirs), wanted.as_bytes());
    }
}

#[test]
fn an_upgrade_is_confirmed_and_ends_with_the_connection() {
    let request =
        parsed(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    let mut head = ResponseHead::default();
    let switch = b"HTTP/1.1 101 Switching\r\nUpgrade: WEBSOCKET\r\nsec-websocket-accept: k\r\nConnection: Upgrade\r\n\r\n";
    response::parse(switch, &HEADS, false, &mut head).unwrap();
    let (mut connection, mut theirs) = pipe();
    let mut client = Client::new(&mut connection, READS, &request);
    let pace = pace();
    let (source, mut sink) = client.split(&pace);
    sink.interim(&head, b"");
    now(sink.flush()).unwrap();
    sink.begin_tunnel();
    now(sink.write(b"frame")).unwrap();
    now(sink.finish(None)).unwrap();
    drop(source);
    assert!(!client.wants_more());
    assert_eq!(
        heard(&mut theirs),
        b"HTTP/1.1 101 Switching\r\nsec-websocket-accept: k\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\nframe"
    );
}

#[test]
fn numbers_are_written_whole() {
    for number in (0..=10_000).chain([65_535, u64::MAX - 1, u64::MAX]) {
        let mut out = Vec::new();
        encode::decimal(&mut out, number);
        assert_eq!(out, number.to_string().as_bytes());
    }
    for size in [1, 15, 16, 0xfff, 65_536, usize::MAX] {
        let mut out = Vec::new();
        encode::chunk_line(&mut out, size);
        assert_eq!(out, format!("{size:x}\r\n").as_bytes());
    }
}

/// A head with these fields between its own ones.
fn head(method: &str, target: &str, fields: &[(String, String)], framing: usize) -> String {
    let framing = [
        "",
        "Content-Length: 7\r\n",
        "Transfer-Encoding: chunked\r\n",
    ][framing];
    let mut head = format!("{method} {target} HTTP/1.1\r\n");
    for (name, value) in fields {
        head += &format!("{name}:{value}\r\n");
    }
    head += &format!("Host: a.example\r\n{framing}\r\n");
    head
}

/// Name and value of every field that is passed on and belongs to the message.
fn passed(request: &RequestHead) -> Vec<(Vec<u8>, Vec<u8>)> {
    let bytes = &request.head.bytes;
    let kept = request.head.fields().iter().filter(|field| !field.dropped);
    kept.map(|field| {
        (
            field.name.of(bytes).to_vec(),
            field.value.of(bytes).to_vec(),
        )
    })
    .collect()
}

proptest! {
    #[test]
    fn an_encoded_request_means_the_same(
        method in "[A-Z]{1,8}",
        target in "/[!\"$-~]{0,40}",
        fields in proptest::collection::vec(
            (
                prop_oneof![
                    4 => "x-[a-zA-Z0-9!#$%&'*+.^_`|~-]{1,8}",
                    1 => "(Connection|TE|Upgrade|keep-alive|Expect)",
                ],
                prop_oneof![
                    4 => "[ \t]{0,2}[!-~]{0,9}([ \t]{1,2}[!-~]{1,5})?[ \t]{0,2}",
                    2 => "(close|x-a|keep-alive|upgrade|websocket|trailers|100-continue|te)",
                ],
            ),
            0..6,
        ),
        framing in 0..3usize,
    ) {
        let text = head(&method, &target, &fields, framing);
        let mut meant = RequestHead::default();
        // What is refused is not passed on: nothing to compare.
        if request::parse(text.as_bytes(), &HEADS, &mut meant).is_err() {
            return Ok(());
        }
        let wire = encoded(&meant, &RequestEdits::default());
        let read = parsed(wire.as_bytes());
        prop_assert_eq!(read.method(), meant.method());
        prop_assert_eq!(read.target(), meant.target());
        prop_assert_eq!(read.host(), meant.host());
        prop_assert_eq!(read.length, meant.length);
        prop_assert_eq!(read.wants_websocket, meant.wants_websocket);
        prop_assert_eq!(read.takes_trailers, meant.takes_trailers && !meant.wants_websocket);
        prop_assert!(read.keep_alive && !read.expects_continue);
        prop_assert_eq!(passed(&read), passed(&meant));
        let hop = [Name::KeepAlive, Name::ProxyConnection, Name::Expect];
        prop_assert!(!read.head.fields().iter().any(|field| hop.contains(&field.id)));
    }
}
