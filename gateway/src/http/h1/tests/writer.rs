use std::pin::pin;
use std::task::Poll;

use super::{READS, endpoint, heard, narrow_pipe, now, pace, parsed, pipe, poll, say};
use crate::http::h1::server::Client;
use crate::http::message::{
    Downstream, Filled, Length, RequestEdits, RequestHead, Requester, Responder, ResponseHead,
    Responses, Sink, Source, StreamError, Trailers, Upstream,
};

fn response(status: u16, length: Length) -> ResponseHead {
    ResponseHead {
        status,
        length,
        ..ResponseHead::default()
    }
}

#[test]
fn a_body_must_be_as_long_as_its_head_said() {
    let (mut connection, mut theirs) = pipe();
    let request = RequestHead::default();
    for (written, fits) in [(&b"hell"[..], true), (b"hello", true), (b"hello!", false)] {
        let mut client = Client::new(&mut connection, READS, &request);
        let pace = pace();
        let (source, mut sink) = client.split(&pace);
        sink.respond(&response(200, Length::Exactly(5)), b"", false);
        assert_eq!(now(sink.write(written)).is_ok(), fits);
        let whole = now(sink.finish(None)).is_ok();
        assert_eq!(whole, written.len() == 5);
        drop(source);
        assert_eq!(client.wants_more(), whole);
        heard(&mut theirs);
    }
}

#[test]
fn nothing_is_written_behind_a_body() {
    let (mut connection, _theirs) = pipe();
    let request = RequestHead::default();
    for length in [Length::None, Length::Exactly(0), Length::Chunked] {
        let mut client = Client::new(&mut connection, READS, &request);
        let pace = pace();
        let (_source, mut sink) = client.split(&pace);
        sink.respond(&response(200, length), b"", false);
        now(sink.finish(None)).unwrap();
        assert!(now(sink.write(b"x")).is_err(), "{length:?}");
        now(sink.write(b"")).unwrap();
    }
}

#[test]
fn large_pieces_go_out_whole_and_small_ones_together() {
    let (mut connection, mut theirs) = pipe();
    let request = RequestHead::default();
    let mut client = Client::new(&mut connection, READS, &request);
    let pace = pace();
    let (_source, mut sink) = client.split(&pace);
    sink.respond(&response(200, Length::Chunked), b"", false);
    now(sink.write(b"small")).unwrap();
    assert!(heard(&mut theirs).is_empty());
    let large = vec![b'x'; 20_000];
    now(sink.write(&large)).unwrap();
    let mut wanted =
        b"HTTP/1.1 200 \r\ntransfer-encoding: chunked\r\n\r\n5\r\nsmall\r\n4e20\r\n".to_vec();
    wanted.extend_from_slice(&large);
    wanted.extend_from_slice(b"\r\n");
    assert_eq!(heard(&mut theirs), wanted);
    let trailers = Trailers {
        lines: b"a: b\r\n".to_vec(),
    };
    now(sink.finish(Some(&trailers))).unwrap();
    assert_eq!(heard(&mut theirs), b"0\r\na: b\r\n\r\n");
}

#[test]
fn a_flush_that_is_given_up_halfway_is_taken_up_where_it_stopped() {
    let (mut connection, mut theirs) = narrow_pipe(10);
    let request = RequestHead::default();
    let mut client = Client::new(&mut connection, READS, &request);
    let pace = pace();
    let mut all = Vec::new();
    {
        let (_source, mut sink) = client.split(&pace);
        sink.interim(&response(103, Length::None), b"link: x\r\n");
        assert!(poll(pin!(sink.flush())).is_pending());
        all.extend(heard(&mut theirs));
        assert_eq!(all, b"HTTP/1.1 1");
    }
    let (source, mut sink) = client.split(&pace);
    sink.respond(
        &response(504, Length::None),
        b"content-length: 0\r\n",
        false,
    );
    let mut finish = Box::pin(sink.finish(None));
    while poll(finish.as_mut()).is_pending() {
        all.extend(heard(&mut theirs));
    }
    all.extend(heard(&mut theirs));
    drop((finish, source));
    assert_eq!(
        all,
        b"HTTP/1.1 103 \r\nlink: x\r\n\r\nHTTP/1.1 504 \r\ncontent-length: 0\r\n\r\n"
    );
    assert!(client.wants_more());
}

#[test]
fn a_head_that_was_never_written_is_taken_back_by_the_next() {
    let (mut connection, mut theirs) = pipe();
    let request = RequestHead::default();
    let mut client = Client::new(&mut connection, READS, &request);
    let pace = pace();
    let (_source, mut sink) = client.split(&pace);
    sink.respond(&response(200, Length::Exactly(100)), b"", false);
    now(sink.write(b"half")).unwrap();
    sink.respond(&response(500, Length::None), b"content-length: 0\r\n", true);
    now(sink.finish(None)).unwrap();
    assert_eq!(
        heard(&mut theirs),
        b"HTTP/1.1 500 \r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
}

#[test]
fn a_message_that_could_not_be_written_was_not_sent() {
    let (mut endpoint, theirs) = endpoint();
    drop(theirs);
    let request = parsed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let pace = pace();
    let (source, mut sink) = endpoint.split(&pace);
    sink.request(&request, &RequestEdits::default()).unwrap();
    assert!(matches!(now(sink.finish(None)), Err(StreamError::Io(_))));
    drop((source, sink));
    assert_eq!(pace.bytes_written(), 0);
    assert!(!endpoint.connection.sent_all());
    assert!(!endpoint.is_clean());
}

#[test]
fn an_endpoint_is_clean_only_when_both_messages_are_over_and_nothing_is_left() {
    for (answer, finishes, clean) in [
        (
            &b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"[..],
            true,
            true,
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
            false,
            false,
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi!",
            true,
            false,
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nh",
            true,
            false,
        ),
        (b"HTTP/1.1 204 No Content\r\n\r\n", true, true),
        (b"HTTP/1.1 204 No Content\r\n\r\n0\r\n\r\n", true, false),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            true,
            true,
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
            true,
            false,
        ),
    ] {
        let (mut endpoint, mut theirs) = endpoint();
        let request = parsed(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n");
        let pace = pace();
        let (mut source, mut sink) = endpoint.split(&pace);
        sink.request(&request, &RequestEdits::default()).unwrap();
        now(sink.write(b"h")).unwrap();
        if finishes {
            now(sink.write(b"i")).unwrap();
            now(sink.finish(None)).unwrap();
        } else {
            now(sink.flush()).unwrap();
        }
        say(&mut theirs, answer);
        let mut head = ResponseHead::default();
        now(source.response(false, &mut head)).unwrap();
        loop {
            let filled = poll(pin!(source.fill()));
            if !matches!(filled, Poll::Ready(Ok(Filled::Data))) {
                break;
            }
            let count = source.data().len();
            source.consume(count);
        }
        drop((source, sink));
        assert_eq!(endpoint.is_clean(), clean, "{}", answer.escape_ascii());
    }
}
