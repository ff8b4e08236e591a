//! Bodies: cut alike out of all pieces, and as the simplest of decoders cuts them.

use crate::http::h1::body::{Decoder, Step};
use crate::http::message::Length;

const TRAILER_BYTES: usize = 512;

/// Data, trailers, and how many bytes of the input they took.
type Body = (Vec<u8>, Option<Vec<u8>>, usize);

/// `Ok(None)`: more is waited for.
fn decode(bytes: &[u8], length: Length, pieces: usize) -> Result<Option<Body>, ()> {
    let mut decoder = Decoder::new(length, TRAILER_BYTES);
    let (mut here, mut at, mut data) = (pieces.min(bytes.len()), 0, Vec::new());
    loop {
        match decoder.step(&bytes[at..here]).map_err(|_malformed| ())? {
            Step::Data(count) => {
                assert!(count > 0 && at + count <= here);
                // Not all at once: whoever reads may have room for less.
                let count = count.min(pieces);
                data.extend_from_slice(&bytes[at..at + count]);
                decoder.took(count);
                at += count;
            }
            Step::Skip(count) => {
                assert!(count > 0 && at + count <= here);
                at += count;
            }
            Step::End(count, trailers) => {
                assert!(at + count <= here && decoder.is_over());
                return Ok(Some((data, trailers.map(|it| it.lines), at + count)));
            }
            Step::More if here == bytes.len() => return Ok(None),
            Step::More => here = bytes.len().min(here + pieces),
        }
    }
}

pub(super) fn body(bytes: &[u8]) {
    let [kind, size, bytes @ ..] = bytes else {
        return;
    };
    let length = match kind {
        b'n' => Length::None,
        b'e' => Length::UntilClose,
        b'0'..=b'9' => Length::Exactly(u64::from(kind - b'0') * 7),
        _ => Length::Chunked,
    };
    let whole = decode(bytes, length, usize::MAX);
    for pieces in [1, usize::from(*size) + 1, 2] {
        let cut = decode(bytes, length, pieces);
        // What waits for more may be refused later.
        let later = cut == Ok(None) && whole.is_err();
        assert!(
            cut == whole || later,
            "{cut:?} in pieces, {whole:?} as a whole"
        );
    }
    if length == Length::Chunked
        && let Ok(Some((data, trailers, end))) = whole
    {
        let (wanted, rest) = simply(bytes).expect("the simplest decoder can read it");
        assert_eq!(data, wanted);
        let section = &rest[..rest.len() - (bytes.len() - end)];
        assert!(section.ends_with(b"\r\n"));
        for line in trailers
            .iter()
            .flat_map(|lines| lines.split(|byte| *byte == b'\n'))
        {
            let name = line.split(|byte| *byte == b':').next().unwrap();
            let name = name.to_ascii_lowercase();
            assert!(!name.starts_with(b"content-") && name != b"transfer-encoding");
            assert!(name != b"host" && name != b"authorization" && name != b"connection");
        }
    }
}

/// The data of all chunks, and what follows the last of them.
fn simply(mut bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut data = Vec::new();
    loop {
        let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
        let line = std::str::from_utf8(&bytes[..end]);
        let digits = match &line {
            Ok(line) => line.split(';').next()?,
            Err(_) => std::str::from_utf8(bytes.split(|byte| *byte == b';').next()?).ok()?,
        };
        let size = usize::from_str_radix(digits, 16).ok()?;
        bytes = &bytes[end + 2..];
        if size == 0 {
            return Some((data, bytes));
        }
        data.extend_from_slice(bytes.get(..size)?);
        bytes = bytes[size..].strip_prefix(b"\r\n")?;
    }
}
