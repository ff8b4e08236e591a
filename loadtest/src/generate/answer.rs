//! Reading HTTP/1.1 answers: bytes go in as they come, in pieces of any size.

use std::mem::MaybeUninit;

use super::tally::Answer;
use crate::field::{has, number};

/// Bytes of a head beyond which it is no answer.
const HEAD_MAX: usize = 64 * 1024;

/// Fields of a head.
const FIELDS_MAX: usize = 96;

/// Interim answers before the final one.
const INTERIM_MAX: u8 = 16;

/// Bytes of a chunk's size line, and of all trailers.
const LINE_MAX: usize = 16 * 1024;

/// What is wrong with what came.
pub(super) type Wrong = &'static str;

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Head,
    /// Bytes of a body of known length.
    Length(u64),
    /// The digits of a chunk's size.
    Size {
        size: u64,
        digits: u8,
    },
    /// The rest of that line.
    Extension(u64),
    Chunk(u64),
    /// The line end behind a chunk.
    ChunkEnd,
    /// A line of trailers, of which so many bytes have come.
    Trailer(usize),
    UntilClose,
    Done,
}

/// The answer that is being read.
#[derive(Debug)]
pub(super) struct Decoder {
    part: Part,
    /// The beginning of a head whose end has not come; empty nearly always.
    held: Vec<u8>,
    head_request: bool,
    answer: Answer,
    keeps: bool,
    interim: u8,
    /// Bytes of the size line or of the trailers so far.
    line: usize,
}

impl Decoder {
    pub(super) fn new(head_request: bool) -> Self {
        Self {
            part: Part::Head,
            held: Vec::new(),
            head_request,
            answer: Answer::default(),
            keeps: true,
            interim: 0,
            line: 0,
        }
    }

    /// Forgets the last answer.
    pub(super) fn reset(&mut self) {
        self.part = Part::Head;
        self.held.clear();
        self.answer = Answer::default();
        self.keeps = true;
        self.interim = 0;
        self.line = 0;
    }

    /// Takes bytes; the answer once it is whole.
    ///
    /// # Errors
    /// This is no answer, or something follows it.
    pub(super) fn feed(&mut self, mut input: &[u8]) -> Result<Option<Answer>, Wrong> {
        while !input.is_empty() && self.part != Part::Done {
            let used = match self.part {
                Part::Head => self.head(input)?,
                _ => self.body(input)?,
            };
            input = &input[used..];
        }
        match self.part {
            Part::Done if !input.is_empty() => Err("more bytes than the answer announced"),
            Part::Done => Ok(Some(self.answer)),
            _ => Ok(None),
        }
    }

    /// The other side has closed: the answer, if that is how it ends.
    pub(super) fn close(&self) -> Option<Answer> {
        (self.part == Part::UntilClose).then_some(self.answer)
    }

    /// Whether another request may follow on this connection.
    pub(super) fn keeps(&self) -> bool {
        self.keeps && self.part == Part::Done
    }

    fn head(&mut self, input: &[u8]) -> Result<usize, Wrong> {
        if self.held.is_empty() {
            return match self.parse(input)? {
                Some(used) => Ok(used),
                None => self.hold(input),
            };
        }
        let mut held = std::mem::take(&mut self.held);
        let before = held.len();
        held.extend_from_slice(input);
        match self.parse(&held)? {
            Some(used) => Ok(used - before),
            None => self.hold(&held).map(|_| input.len()),
        }
    }

    fn hold(&mut self, bytes: &[u8]) -> Result<usize, Wrong> {
        if bytes.len() > HEAD_MAX {
            return Err("the head is above 64 KiB");
        }
        self.held = bytes.to_vec();
        Ok(bytes.len())
    }

    /// Parses one head; its length if it is whole.
    fn parse(&mut self, bytes: &[u8]) -> Result<Option<usize>, Wrong> {
        let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
        let mut head = httparse::Response::new(&mut []);
        let parsed = httparse::ParserConfig::default()
            .parse_response_with_uninit_headers(&mut head, bytes, &mut fields)
            .map_err(|_not| "not an HTTP/1.1 answer")?;
        let (httparse::Status::Complete(length), Some(status)) = (parsed, head.code) else {
            return Ok(None);
        };
        match status {
            101 => return Err("switched protocols unasked"),
            100..200 => {
                self.interim += 1;
                if self.interim > INTERIM_MAX {
                    return Err("too many interim answers");
                }
                return Ok(Some(length));
            }
            200..1000 => {}
            _ => return Err("not a status code"),
        }
        self.answer.status = status;
        let framing = Framing::read(head.headers, head.version == Some(1))?;
        self.keeps = framing.keeps;
        self.part = self.first_part(status, &framing);
        Ok(Some(length))
    }

    fn first_part(&self, status: u16, framing: &Framing) -> Part {
        if self.head_request || status == 204 || status == 304 {
            return Part::Done;
        }
        match framing {
            Framing { chunked: true, .. } => Part::Size { size: 0, digits: 0 },
            Framing {
                length: Some(0), ..
            } => Part::Done,
            Framing {
                length: Some(length),
                ..
            } => Part::Length(*length),
            _ => Part::UntilClose,
        }
    }

    /// Takes some of `input`, which is not empty; how much.
    fn body(&mut self, input: &[u8]) -> Result<usize, Wrong> {
        match self.part {
            Part::Length(left) => {
                let used = self.data(input, left);
                let left = left - used as u64;
                self.part = if left == 0 {
                    Part::Done
                } else {
                    Part::Length(left)
                };
                Ok(used)
            }
            Part::Chunk(left) => {
                let used = self.data(input, left);
                let left = left - used as u64;
                self.part = if left == 0 {
                    Part::ChunkEnd
                } else {
                    Part::Chunk(left)
                };
                Ok(used)
            }
            Part::UntilClose => Ok(self.data(input, u64::MAX)),
            Part::Size { size, digits } => self.size(input[0], size, digits).map(|()| 1),
            Part::Extension(size) => self.extension(input[0], size).map(|()| 1),
            Part::ChunkEnd => self.chunk_end(input[0]).map(|()| 1),
            Part::Trailer(length) => self.trailer(input[0], length).map(|()| 1),
            Part::Head | Part::Done => Ok(0),
        }
    }

    fn data(&mut self, input: &[u8], left: u64) -> usize {
        let used = usize::try_from(left).map_or(input.len(), |left| left.min(input.len()));
        self.answer.bytes += used as u64;
        used
    }

    fn size(&mut self, byte: u8, size: u64, digits: u8) -> Result<(), Wrong> {
        let digit = char::from(byte).to_digit(16);
        self.part = match (digit, byte) {
            (Some(_), _) if digits == 16 => return Err("a chunk above 2^64 bytes"),
            (Some(digit), _) => Part::Size {
                size: size << 4 | u64::from(digit),
                digits: digits + 1,
            },
            (None, b'\r' | b';' | b' ' | b'\t') if digits > 0 => Part::Extension(size),
            _ => return Err("not a chunk size"),
        };
        Ok(())
    }

    fn extension(&mut self, byte: u8, size: u64) -> Result<(), Wrong> {
        self.count_line()?;
        if byte == b'\n' {
            self.line = 0;
            self.part = if size == 0 {
                Part::Trailer(0)
            } else {
                Part::Chunk(size)
            };
        }
        Ok(())
    }

    fn chunk_end(&mut self, byte: u8) -> Result<(), Wrong> {
        self.count_line()?;
        match (byte, self.line) {
            (b'\r', 1) => Ok(()),
            (b'\n', 2) => {
                self.line = 0;
                self.part = Part::Size { size: 0, digits: 0 };
                Ok(())
            }
            _ => Err("no line end behind a chunk"),
        }
    }

    fn trailer(&mut self, byte: u8, length: usize) -> Result<(), Wrong> {
        self.count_line()?;
        self.part = match byte {
            b'\n' if length == 0 => Part::Done,
            b'\n' => Part::Trailer(0),
            b'\r' => Part::Trailer(length),
            _ => Part::Trailer(length + 1),
        };
        Ok(())
    }

    fn count_line(&mut self) -> Result<(), Wrong> {
        self.line += 1;
        if self.line > LINE_MAX {
            return Err("a chunk's head or the trailers are above 16 KiB");
        }
        Ok(())
    }
}

/// What a head says about where its answer ends.
#[derive(Debug)]
struct Framing {
    length: Option<u64>,
    chunked: bool,
    keeps: bool,
}

impl Framing {
    fn read(fields: &[httparse::Header<'_>], keeps: bool) -> Result<Self, Wrong> {
        let mut framing = Self {
            length: None,
            chunked: false,
            keeps,
        };
        for field in fields {
            // Lengths first: most fields are told apart by them.
            match field.name.len() {
                14 if field.name.eq_ignore_ascii_case("content-length") => {
                    let length = number(field.value).ok_or("not a Content-Length")?;
                    if framing.length.is_some_and(|known| known != length) {
                        return Err("two different Content-Length");
                    }
                    framing.length = Some(length);
                }
                17 if field.name.eq_ignore_ascii_case("transfer-encoding") => {
                    if framing.chunked || !field.value.eq_ignore_ascii_case(b"chunked") {
                        return Err("a Transfer-Encoding other than chunked");
                    }
                    framing.chunked = true;
                }
                10 if field.name.eq_ignore_ascii_case("connection") => {
                    if has(field.value, "close") {
                        framing.keeps = false;
                    } else if has(field.value, "keep-alive") {
                        framing.keeps = true;
                    }
                }
                _ => {}
            }
        }
        match framing {
            Self {
                length: Some(_),
                chunked: true,
                ..
            } => Err("both Content-Length and Transfer-Encoding"),
            framing => Ok(framing),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `bytes` in pieces of every size; what came of it, which must not depend on the size.
    fn read(bytes: &[u8], head_request: bool) -> Result<Option<(u16, u64, bool)>, Wrong> {
        let mut outcomes: Vec<_> = (1..=bytes.len())
            .map(|size| {
                let mut decoder = Decoder::new(head_request);
                let mut last = None;
                for piece in bytes.chunks(size) {
                    last = decoder.feed(piece)?;
                }
                let answer = last.or_else(|| decoder.close());
                Ok(answer.map(|answer| (answer.status, answer.bytes, decoder.keeps())))
            })
            .collect();
        outcomes.dedup();
        assert_eq!(outcomes.len(), 1, "{outcomes:?}");
        outcomes.remove(0)
    }

    #[test]
    fn a_length_says_where_an_answer_ends() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(read(answer, false), Ok(Some((200, 5, true))));
        let answer = b"HTTP/1.1 503 No\r\ncontent-length:0\r\nConnection: x, Close\r\n\r\n";
        assert_eq!(read(answer, false), Ok(Some((503, 0, false))));
    }

    #[test]
    fn chunks_are_counted_without_their_frames() {
        let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
            5;a=b\r\nhello\r\nA\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n";
        assert_eq!(read(answer, false), Ok(Some((200, 15, true))));
    }

    #[test]
    fn without_a_length_the_close_ends_an_answer() {
        let answer = b"HTTP/1.1 200 OK\r\n\r\nhello";
        assert_eq!(read(answer, false), Ok(Some((200, 5, false))));
    }

    #[test]
    fn interim_answers_are_passed_over() {
        let answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n\
            HTTP/1.1 204 No Content\r\n\r\n";
        assert_eq!(read(answer, false), Ok(Some((204, 0, true))));
    }

    #[test]
    fn answers_to_head_and_not_modified_have_no_body() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(read(answer, true), Ok(Some((200, 0, true))));
        let answer = b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(read(answer, false), Ok(Some((304, 0, true))));
    }

    #[test]
    fn an_answer_of_http_1_0_ends_its_connection() {
        let answer = b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx";
        assert_eq!(read(answer, false), Ok(Some((200, 1, false))));
    }

    #[test]
    fn what_is_no_answer_is_told() {
        for bytes in [
            &b"SSH-2.0-OpenSSH\r\n"[..],
            b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
        ] {
            assert!(read(bytes, false).is_err(), "{}", bytes.escape_ascii());
        }
        let mut decoder = Decoder::new(false);
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxy";
        assert!(decoder.feed(answer).is_err());
    }

    #[test]
    fn an_unfinished_answer_is_none() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell";
        assert_eq!(read(answer, false), Ok(None));
        let answer = b"HTTP/1.1 200 OK\r\nContent-Le";
        assert_eq!(read(answer, false), Ok(None));
    }
}
