use std::pin::pin;
use std::task::Poll;

use super::{cuts, endpoint, now, pace, poll, say};
use crate::http::message::{
    Filled, Length, ResponseHead, Responses, Source, StreamError, Upstream, Version,
};

/// What a head means, in one line.
pub(super) fn meaning(response: &ResponseHead) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let phrase = text(response.phrase.of(&response.head.bytes));
    let mut out = format!("{} {phrase:?}", response.status);
    if response.version == Version::Http10 {
        out += " 1.0";
    }
    match response.length {
        Length::None => {}
        Length::Exactly(length) => out += &format!(" exactly {length}"),
        Length::Chunked => out += " chunked",
        Length::UntilClose => out += " until close",
    }
    if !response.keep_alive {
        out += " close";
    }
    let dropped = response.head.fields().iter().filter(|field| field.dropped);
    for field in dropped {
        out += " -";
        out += &text(field.name.of(&response.head.bytes));
    }
    out
}

/// What came of reading a response head; `None`: it would wait for more.
pub(super) fn hear(pieces: &[&[u8]], to_head: bool) -> Option<Result<ResponseHead, StreamError>> {
    let (mut endpoint, mut theirs) = endpoint();
    let pace = pace();
    let (mut source, _sink) = endpoint.split(&pace);
    let mut head = ResponseHead::default();
    let result = {
        let mut reading = pin!(source.response(to_head, &mut head));
        pieces.iter().find_map(|piece| {
            say(&mut theirs, piece);
            match poll(reading.as_mut()) {
                Poll::Ready(result) => Some(result),
                Poll::Pending => None,
            }
        })
    };
    result.map(|result| result.map(|()| head))
}

/// Heads and what they mean in answer to GET.
const ACCEPTED: &[(&[u8], &str)] = &[
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "200 \"OK\" exactly 5"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "200 \"OK\""),
    (b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", "200 \"\""),
    (b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", "200 \"\""),
    (b"HTTP/1.1 200 F\xfcr dich\r\nContent-Length: 0\r\n\r\n", "200 \"\""),
    (b"HTTP/1.1 999 So there\r\nContent-Length: 0\r\n\r\n", "999 \"So there\""),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n", "200 \"OK\" chunked -Transfer-Encoding"),
    (b"HTTP/1.1 200 OK\r\n\r\nhello", "200 \"OK\" until close close"),
    (b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\r\nhello", "200 \"OK\" until close close -Connection"),
    (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", "200 \"OK\" 1.0 exactly 5 close"),
    (b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 5\r\n\r\nhello", "200 \"OK\" 1.0 exactly 5 -Connection"),
    (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello", "200 \"OK\" exactly 5 close -Connection"),
    (b"HTTP/1.1 200 OK\r\nConnection: keep-alive, close\r\nContent-Length: 5\r\n\r\nhello", "200 \"OK\" exactly 5 close -Connection"),
    // Statuses without a body, whatever their heads say. One that announces a body all the same
    // may send it: nothing is read after it.
    (b"HTTP/1.1 204 No Content\r\n\r\nx", "204 \"No Content\""),
    (b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", "204 \"No Content\" -Content-Length"),
    (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello", "204 \"No Content\" close -Content-Length"),
    (b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "204 \"No Content\" close -Transfer-Encoding"),
    (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", "304 \"Not Modified\""),
    (b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", "304 \"Not Modified\" -Transfer-Encoding"),
    (b"HTTP/1.1 100 Continue\r\n\r\n", "100 \"Continue\""),
    (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nContent-Length: 0\r\n\r\n", "103 \"Early Hints\" -Content-Length"),
    (b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: WebSocket\r\n\r\nhi", "101 \"Switching Protocols\" -Connection -Upgrade"),
    // What is meant for us alone, and what is ours to say.
    (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nKeep-Alive: timeout=5\r\nProxy-Connection: x\r\nTE: x\r\nUpgrade: h2c\r\ntidegate-reason: no_route\r\n\r\n", "200 \"OK\" -Keep-Alive -Proxy-Connection -TE -Upgrade -tidegate-reason"),
    (b"HTTP/1.1 200 OK\r\nConnection: x-one, X-TWO\r\nx-two: 2\r\nX-One: 1\r\nx-three: 3\r\nContent-Length: 0\r\n\r\n", "200 \"OK\" -Connection -x-two -X-One"),
    (b"HTTP/1.1 200 OK\r\nConnection: content-length\r\nContent-Length: 5\r\n\r\nhello", "200 \"OK\" exactly 5 -Connection"),
    (b"HTTP/1.1 200 OK\r\nConnection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "200 \"OK\" chunked -Connection -Transfer-Encoding"),
];

/// Heads an endpoint must not send.
const MALFORMED: &[&[u8]] = &[
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775808\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 099 What\r\n\r\n",
    b"HTTP/1.1 20 OK\r\n\r\n",
    b"HTTP/1.1 2000 OK\r\n\r\n",
    b"HTTP/1.1  200 OK\r\n\r\n",
    b"HTTP/1.2 200 OK\r\n\r\n",
    b"HTTP/2.0 200 OK\r\n\r\n",
    b"ICY 200 OK\r\n\r\n",
    b"hello, world\r\n\r\n",
    b"HTTP/1.1 200 O\0K\r\n\r\n",
    b"HTTP/1.1 200 O\rK\r\n\r\n",
    b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\n",
    b"HTTP/1.1 200 OK\r\nx: y\r\n folded\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n x: y\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nx: a\rSet-Cookie: b\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nx: a\0\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n: a\r\nContent-Length: 0\r\n\r\n",
    // What is left of the answer before this one.
    b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    // The one upgrade that is passed on is to a WebSocket.
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
];

#[test]
fn heads_mean_the_same_in_whatever_pieces_they_come() {
    for (head, wanted) in ACCEPTED {
        let mut ways = cuts(head);
        ways.push(vec![head]);
        for pieces in ways {
            let shown = head.escape_ascii();
            match hear(&pieces, false) {
                Some(Ok(response)) => assert_eq!(meaning(&response), *wanted, "{shown}"),
                other => panic!("{other:?}: {shown}"),
            }
        }
    }
}

#[test]
fn malformed_heads_are_refused_in_whatever_pieces_they_come() {
    for head in MALFORMED {
        let mut ways = cuts(head);
        ways.push(vec![head]);
        for pieces in ways {
            let heard = hear(&pieces, false);
            let malformed = matches!(heard, Some(Err(StreamError::Malformed(_))));
            assert!(malformed, "{heard:?}: {}", head.escape_ascii());
        }
    }
}

#[test]
fn answers_to_head_requests_have_no_body() {
    for head in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"[..],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
    ] {
        let response = hear(&[head], true).unwrap().unwrap();
        assert_eq!(response.length, Length::None);
        assert!(response.keep_alive);
    }
}

#[test]
fn heads_beyond_a_bound_are_refused() {
    let sized = |length: usize| {
        let start = "HTTP/1.1 204 No Content\r\nx: ";
        let filling = "y".repeat(length - start.len() - 4);
        format!("{start}{filling}\r\n\r\n")
    };
    assert!(matches!(
        hear(&[sized(1024).as_bytes()], false),
        Some(Ok(_))
    ));
    let options = "a,".repeat(65);
    let listed = format!("HTTP/1.1 204 No Content\r\nConnection: {options}\r\n\r\n");
    for head in [sized(1025), sized(3000), listed] {
        let heard = hear(&[head.as_bytes()], false);
        let malformed = matches!(heard, Some(Err(StreamError::Malformed(_))));
        assert!(malformed, "{heard:?}");
    }
}

#[test]
fn a_connection_that_ends_before_a_head_is_closed_and_within_one_is_malformed() {
    for (sent, malformed) in [(&b""[..], false), (b"HTTP/1.1 200 OK\r\nx: ", true)] {
        let (mut endpoint, mut theirs) = endpoint();
        say(&mut theirs, sent);
        drop(theirs);
        let pace = pace();
        let (mut source, _sink) = endpoint.split(&pace);
        let mut head = ResponseHead::default();
        let result = poll(pin!(source.response(false, &mut head)));
        let Poll::Ready(Err(error)) = result else {
            panic!("{result:?}");
        };
        assert_eq!(matches!(error, StreamError::Malformed(_)), malformed);
        assert_eq!(matches!(error, StreamError::Closed), !malformed);
    }
}

#[test]
fn interim_answers_come_before_the_final_one() {
    let (mut endpoint, mut theirs) = endpoint();
    say(
        &mut theirs,
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    );
    let pace = pace();
    let (mut source, _sink) = endpoint.split(&pace);
    let mut head = ResponseHead::default();
    for (status, length) in [
        (100, Length::None),
        (103, Length::None),
        (200, Length::Exactly(2)),
    ] {
        now(source.response(false, &mut head)).unwrap();
        assert_eq!((head.status, head.length), (status, length));
    }
    assert_eq!(now(source.fill()).unwrap(), Filled::Data);
    assert_eq!(source.data(), b"hi");
}
