//! Where a body's data stands in the bytes on the wire, and when it is over (RFC 9112 §6, §7).

use crate::http::message::{Length, StreamError, Trailers, may_trail};

/// Longest chunk-size line, extensions and CRLF included.
const LINE_MAX: usize = 4 * 1024;
/// Most bytes of chunk extensions in one message; they are dropped.
const EXTENSIONS_MAX: usize = 16 * 1024;
/// Most trailer fields.
pub(in crate::http) const TRAILERS_MAX: usize = 64;

/// Cuts a body out of the bytes of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Decoder {
    state: State,
    extensions: usize,
    trailer_bytes: usize,
    untouched: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Fixed(u64),
    UntilClose,
    ChunkLine,
    Chunk(u64),
    ChunkEnd,
    Trailers,
    Over,
}

/// What stands at the front of the bytes.
#[derive(Debug)]
pub enum Step {
    /// This many bytes of the body.
    Data(usize),
    /// This many bytes of framing, to be skipped.
    Skip(usize),
    /// The body is over, after this many bytes of framing.
    End(usize, Option<Trailers>),
    /// More bytes are needed to know.
    More,
}

impl Decoder {
    /// `trailer_bytes`: most bytes of a trailer section.
    #[must_use]
    pub fn new(length: Length, trailer_bytes: usize) -> Decoder {
        let state = match length {
            Length::None => State::Over,
            Length::Exactly(bytes) => State::Fixed(bytes),
            Length::Chunked => State::ChunkLine,
            Length::UntilClose => State::UntilClose,
        };
        Decoder {
            state,
            extensions: 0,
            trailer_bytes,
            untouched: true,
        }
    }

    #[must_use]
    pub fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// None of the body's bytes were used.
    #[must_use]
    pub fn is_untouched(&self) -> bool {
        self.untouched
    }

    /// Body bytes still to come, where the head said so.
    #[must_use]
    pub fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Fixed(left) => Some(left),
            State::Over => Some(0),
            State::UntilClose
            | State::ChunkLine
            | State::Chunk(_)
            | State::ChunkEnd
            | State::Trailers => None,
        }
    }

    /// Whether the end of the connection ends the body in good order.
    #[must_use]
    pub fn ends_with_connection(&self) -> bool {
        matches!(self.state, State::UntilClose | State::Over)
    }

    /// Looks at the front of `bytes`. `Skip` and `End` change the state at once; `Data` does so by
    /// [`took`](Decoder::took).
    ///
    /// # Errors
    /// `Malformed` or `TooLarge`: the connection cannot be read on.
    pub fn step(&mut self, bytes: &[u8]) -> Result<Step, StreamError> {
        let at_most = |left: u64| usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        match self.state {
            State::Over => Ok(Step::End(0, None)),
            State::Fixed(0) => {
                self.state = State::Over;
                Ok(Step::End(0, None))
            }
            _ if bytes.is_empty() => Ok(Step::More),
            State::Fixed(left) | State::Chunk(left) => Ok(Step::Data(at_most(left))),
            State::UntilClose => Ok(Step::Data(bytes.len())),
            State::ChunkLine => self.chunk_line(bytes),
            State::ChunkEnd => self.chunk_end(bytes),
            State::Trailers => self.trailers(bytes),
        }
    }

    /// `count` bytes of data were used.
    pub fn took(&mut self, count: usize) {
        self.untouched &= count == 0;
        match &mut self.state {
            State::Fixed(left) => *left -= count as u64,
            State::Chunk(left) => {
                *left -= count as u64;
                if *left == 0 {
                    self.state = State::ChunkEnd;
                }
            }
            State::UntilClose
            | State::ChunkLine
            | State::ChunkEnd
            | State::Trailers
            | State::Over => {}
        }
    }

    fn chunk_line(&mut self, bytes: &[u8]) -> Result<Step, StreamError> {
        let Some(end) = memchr::memchr(b'\n', &bytes[..bytes.len().min(LINE_MAX)]) else {
            return if bytes.len() >= LINE_MAX {
                Err(StreamError::Malformed("chunk line too long"))
            } else {
                Ok(Step::More)
            };
        };
        let Some(line) = bytes[..end].strip_suffix(b"\r") else {
            return Err(StreamError::Malformed("bare LF after a chunk size"));
        };
        let digits = line
            .iter()
            .take_while(|byte| byte.is_ascii_hexdigit())
            .count();
        let (size, extension) = line.split_at(digits);
        if !(1..=16).contains(&digits) || !is_extension(extension) {
            return Err(StreamError::Malformed("chunk size malformed"));
        }
        self.extensions += extension.len();
        if self.extensions > EXTENSIONS_MAX {
            return Err(StreamError::Malformed("too many chunk extensions"));
        }
        let size = std::str::from_utf8(size)
            .ok()
            .and_then(|hex| u64::from_str_radix(hex, 16).ok())
            .filter(|size| i64::try_from(*size).is_ok())
            .ok_or(StreamError::Malformed("chunk size malformed"))?;
        self.state = if size == 0 {
            State::Trailers
        } else {
            State::Chunk(size)
        };
        Ok(Step::Skip(end + 1))
    }

    fn chunk_end(&mut self, bytes: &[u8]) -> Result<Step, StreamError> {
        match bytes {
            [b'\r', b'\n', ..] => {
                self.state = State::ChunkLine;
                Ok(Step::Skip(2))
            }
            [b'\r'] => Ok(Step::More),
            _ => Err(StreamError::Malformed("chunk is longer than its size")),
        }
    }

    fn trailers(&mut self, bytes: &[u8]) -> Result<Step, StreamError> {
        match bytes {
            [b'\r', b'\n', ..] => {
                self.state = State::Over;
                return Ok(Step::End(2, None));
            }
            [b'\r'] => return Ok(Step::More),
            _ => {}
        }
        let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else {
            return if bytes.len() > self.trailer_bytes {
                Err(StreamError::Malformed("trailers too large"))
            } else if has_bare_lf(bytes) {
                Err(StreamError::Malformed("trailers malformed"))
            } else {
                Ok(Step::More)
            };
        };
        let section = &bytes[..end + 4];
        if section.len() > self.trailer_bytes || has_bare_lf(section) {
            return Err(StreamError::Malformed("trailers malformed"));
        }
        let trailers = passable(section)?;
        self.state = State::Over;
        Ok(Step::End(section.len(), Some(trailers)))
    }
}

/// Nothing, or `;` and no control characters.
fn is_extension(extension: &[u8]) -> bool {
    match extension {
        [] => true,
        [b';', rest @ ..] => rest
            .iter()
            .all(|byte| *byte == b'\t' || !byte.is_ascii_control()),
        _ => false,
    }
}

/// The trailer fields that may be passed on (RFC 9110 §6.5.1: none that frame, route or
/// authenticate).
fn passable(section: &[u8]) -> Result<Trailers, StreamError> {
    let mut storage = [httparse::EMPTY_HEADER; TRAILERS_MAX];
    let Ok(httparse::Status::Complete((_, fields))) =
        httparse::parse_headers(section, &mut storage)
    else {
        return Err(StreamError::Malformed("trailers malformed"));
    };
    let mut lines = Vec::with_capacity(section.len());
    for field in fields
        .iter()
        .filter(|field| may_trail(field.name.as_bytes()))
    {
        lines.extend_from_slice(field.name.as_bytes());
        lines.extend_from_slice(b": ");
        lines.extend_from_slice(field.value);
        lines.extend_from_slice(b"\r\n");
    }
    Ok(Trailers { lines })
}

/// The section has an LF that no CR precedes (httparse would take it for a line end).
fn has_bare_lf(section: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', section).any(|at| at == 0 || section[at - 1] != b'\r')
}
