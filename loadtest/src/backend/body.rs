//! Where the body of a request ends.

/// How the end of a request's body is found, and how much of it is still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Length(u64),
    Chunked(Chunks),
}

/// Where in a chunked body one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chunks {
    /// Before the digits of a size.
    Start,
    /// Behind the first of them.
    Size(u64),
    /// Behind the digits, before the end of their line.
    Extension(u64),
    /// Data of a chunk, and the line end behind it.
    Data(u64),
    LineEnd,
    /// At the beginning of a line of the trailers.
    TrailerStart,
    Trailer,
    End,
}

/// The body is not framed as RFC 9112 §7.1 says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl Framing {
    pub(super) const EMPTY: Framing = Framing::Length(0);
    pub(super) const CHUNKED: Framing = Framing::Chunked(Chunks::Start);

    /// Whether the body has ended.
    pub(super) fn ended(self) -> bool {
        matches!(self, Framing::Length(0) | Framing::Chunked(Chunks::End))
    }

    /// Takes what of `bytes` is the body's, hands `data` its content, and says how many bytes of
    /// framing and content those were.
    pub(super) fn take(
        &mut self,
        bytes: &[u8],
        mut data: impl FnMut(&[u8]),
    ) -> Result<usize, Malformed> {
        match self {
            Framing::Length(left) => {
                let taken = at_most(bytes.len(), *left);
                data(&bytes[..taken]);
                *left -= taken as u64;
                Ok(taken)
            }
            Framing::Chunked(chunks) => {
                let mut at = 0;
                while at < bytes.len() && *chunks != Chunks::End {
                    at += chunks.step(&bytes[at..], &mut data)?;
                }
                Ok(at)
            }
        }
    }
}

impl Chunks {
    fn step(&mut self, bytes: &[u8], data: &mut impl FnMut(&[u8])) -> Result<usize, Malformed> {
        let byte = bytes[0];
        let (next, taken) = match *self {
            Chunks::Start => (Chunks::Size(digit(byte).ok_or(Malformed)?), 1),
            Chunks::Size(size) => match digit(byte) {
                Some(digit) => {
                    let size = size.checked_mul(16).ok_or(Malformed)?;
                    (Chunks::Size(size + digit), 1)
                }
                None if matches!(byte, b'\r' | b'\n' | b';' | b' ' | b'\t') => {
                    (Chunks::Extension(size), 0)
                }
                None => return Err(Malformed),
            },
            Chunks::Extension(0) if byte == b'\n' => (Chunks::TrailerStart, 1),
            Chunks::Extension(size) if byte == b'\n' => (Chunks::Data(size), 1),
            Chunks::Extension(_) if !matches!(byte, b'\r' | b';' | b' ' | b'\t' | b'!'..=b'~') => {
                return Err(Malformed);
            }
            same @ Chunks::Extension(_) => (same, 1),
            Chunks::Data(0) => (Chunks::LineEnd, 0),
            Chunks::Data(left) => {
                let taken = at_most(bytes.len(), left);
                data(&bytes[..taken]);
                (Chunks::Data(left - taken as u64), taken)
            }
            Chunks::LineEnd if byte == b'\r' => (Chunks::LineEnd, 1),
            Chunks::LineEnd if byte == b'\n' => (Chunks::Start, 1),
            Chunks::LineEnd => return Err(Malformed),
            Chunks::TrailerStart if byte == b'\r' => (Chunks::TrailerStart, 1),
            Chunks::TrailerStart if byte == b'\n' => (Chunks::End, 1),
            Chunks::Trailer if byte == b'\n' => (Chunks::TrailerStart, 1),
            Chunks::TrailerStart | Chunks::Trailer => (Chunks::Trailer, 1),
            Chunks::End => (Chunks::End, 0),
        };
        *self = next;
        Ok(taken)
    }
}

fn digit(byte: u8) -> Option<u64> {
    char::from(byte).to_digit(16).map(u64::from)
}

fn at_most(length: usize, left: u64) -> usize {
    usize::try_from(left).map_or(length, |left| left.min(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(mut framing: Framing, pieces: &[&[u8]]) -> Result<(Vec<u8>, usize), Malformed> {
        let (mut content, mut taken) = (Vec::new(), 0);
        for piece in pieces {
            taken += framing.take(piece, |data| content.extend_from_slice(data))?;
        }
        assert!(framing.ended());
        Ok((content, taken))
    }

    #[test]
    fn a_chunked_body_is_read_wherever_it_is_cut() {
        let wire = b"3;name=value\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\nTrailer: x\r\n\r\nGET";
        for cut in 0..wire.len() {
            let (content, taken) = read(Framing::CHUNKED, &[&wire[..cut], &wire[cut..]]).unwrap();
            assert_eq!(content, b"abc0123456789abcdef");
            assert_eq!(taken, wire.len() - 3);
        }
    }

    #[test]
    fn a_body_with_a_length_leaves_what_follows() {
        let read = read(Framing::Length(5), &[b"ab", b"cdeGET"]);
        assert_eq!(read, Ok((b"abcde".to_vec(), 5)));
    }

    #[test]
    fn a_chunk_longer_than_it_says_is_malformed() {
        let mut framing = Framing::CHUNKED;
        assert_eq!(framing.take(b"1\r\nabc\r\n", |_| ()), Err(Malformed));
    }

    #[test]
    fn a_size_is_hexadecimal_digits() {
        for wire in [&b"\r\n"[..], b"g\r\n", b"1g\r\n", b";a=b\r\n"] {
            let mut framing = Framing::CHUNKED;
            assert_eq!(framing.take(wire, |_| ()), Err(Malformed), "{wire:?}");
        }
    }

    #[test]
    fn a_size_beyond_all_bounds_is_malformed() {
        let mut framing = Framing::CHUNKED;
        let wire = b"fffffffffffffffff\r\n";
        assert_eq!(framing.take(wire, |_| ()), Err(Malformed));
    }
}
