//! Answers, laid ready as the bytes that go on the wire.

use bytes::{BufMut as _, Bytes, BytesMut};

/// What fills bodies.
const FILL: u8 = b'x';

/// One answer of HTTP/1.1, whole.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    bytes: Bytes,
    head: usize,
}

impl Answer {
    /// `chunk` is the size of chunks, where the body is to be chunked.
    pub(super) fn new(status: &str, body: &[u8], chunk: Option<usize>, close: bool) -> Answer {
        let mut bytes = BytesMut::with_capacity(body.len() + 256);
        bytes.put_slice(b"HTTP/1.1 ");
        bytes.put_slice(status.as_bytes());
        bytes.put_slice(b"\r\nServer: loadtest\r\nContent-Type: text/plain\r\n");
        if close {
            bytes.put_slice(b"Connection: close\r\n");
        }
        match chunk {
            None => bytes.put_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes()),
            Some(_) => bytes.put_slice(b"Transfer-Encoding: chunked\r\n\r\n"),
        }
        let head = bytes.len();
        match chunk {
            None => bytes.put_slice(body),
            Some(size) => put_chunks(&mut bytes, body, size.max(1)),
        }
        Answer {
            bytes: bytes.freeze(),
            head,
        }
    }

    /// The head alone for requests with HEAD.
    pub(super) fn bytes(&self, head_only: bool) -> &[u8] {
        if head_only {
            &self.bytes[..self.head]
        } else {
            &self.bytes
        }
    }
}

fn put_chunks(bytes: &mut BytesMut, body: &[u8], size: usize) {
    for chunk in body.chunks(size) {
        bytes.put_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        bytes.put_slice(chunk);
        bytes.put_slice(b"\r\n");
    }
    bytes.put_slice(b"0\r\n\r\n");
}

/// All answers there are, for connections that stay and for those that close.
#[derive(Debug)]
pub(super) struct Answers {
    /// The body alone, for HTTP/2.
    pub(super) body: Bytes,
    usual: [Answer; 2],
    refused: [Answer; 2],
    malformed: Answer,
    too_large: Answer,
}

impl Answers {
    pub(super) fn new(body: usize, chunk: Option<usize>) -> Answers {
        let body = Bytes::from(vec![FILL; body]);
        let both = |status: &str, body: &[u8], chunk| {
            [false, true].map(|close| Answer::new(status, body, chunk, close))
        };
        Answers {
            usual: both("200 OK", &body, chunk),
            refused: both("503 Service Unavailable", b"over the limit\n", None),
            malformed: Answer::new("400 Bad Request", b"", None, true),
            too_large: Answer::new("413 Content Too Large", b"", None, true),
            body,
        }
    }

    pub(super) fn usual(&self, close: bool) -> &Answer {
        &self.usual[usize::from(close)]
    }

    pub(super) fn refused(&self, close: bool) -> &Answer {
        &self.refused[usize::from(close)]
    }

    pub(super) fn malformed(&self) -> &Answer {
        &self.malformed
    }

    pub(super) fn too_large(&self) -> &Answer {
        &self.too_large
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_have_the_size_asked_for_and_an_end() {
        let answer = Answer::new("200 OK", b"abcdefg", Some(3), false);
        assert_eq!(
            &answer.bytes(false)[answer.head..],
            b"3\r\nabc\r\n3\r\ndef\r\n1\r\ng\r\n0\r\n\r\n"
        );
        assert!(answer.bytes(true).ends_with(b"chunked\r\n\r\n"));
    }
}
