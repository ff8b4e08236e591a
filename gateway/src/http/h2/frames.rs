//! Where frames begin and end in one side's bytes, and which they are (RFC 9113 §4.1): the h2 crate
//! has no time limit for a head and counts few frames, so what lies under it looks at them as they
//! pass.

/// Bytes of a frame's header.
const HEADER: usize = 9;

/// The same with the code of an `RST_STREAM`.
const WITH_CODE: usize = HEADER + 4;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

/// On SETTINGS and PING.
pub const ACK: u8 = 1;
/// On DATA and HEADERS.
pub const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A frame that has begun: its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    /// Bytes of the payload.
    pub length: usize,
    /// Of `RST_STREAM`; 0 of all others.
    pub code: u32,
}

impl Frame {
    #[must_use]
    pub fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// How far one side has come in its frames.
#[derive(Debug)]
pub struct Frames {
    /// Bytes before the first frame.
    before: usize,
    header: [u8; WITH_CODE],
    /// Bytes of the header that are here.
    have: usize,
    /// Bytes of it that are looked at.
    wanted: usize,
    /// Bytes of the payload still to come.
    left: usize,
    /// The payload is a body's.
    data: bool,
    /// A header block goes on in the next frame.
    block: bool,
}

impl Frames {
    /// `before`: bytes of the preface.
    #[must_use]
    pub fn new(before: usize) -> Frames {
        Frames {
            before,
            header: [0; WITH_CODE],
            have: 0,
            wanted: HEADER,
            left: 0,
            data: false,
            block: false,
        }
    }

    /// Whether something other than a body has begun and not ended.
    #[must_use]
    pub fn is_amid(&self) -> bool {
        self.have > 0 || self.block || (self.left > 0 && !self.data)
    }

    /// Goes on over what came next and tells each frame that begins in it; whether nothing was amid
    /// at some point of it.
    pub fn walk(&mut self, bytes: &[u8], mut seen: impl FnMut(Frame)) -> bool {
        let mut rest = bytes;
        let mut apart = !self.is_amid();
        while !rest.is_empty() {
            let count = match (self.before, self.left) {
                (0, 0) => self.take_header(rest, &mut seen),
                (0, _) => take(&mut self.left, rest),
                _ => take(&mut self.before, rest),
            };
            rest = &rest[count..];
            apart |= !self.is_amid();
        }
        apart
    }

    fn take_header(&mut self, bytes: &[u8], seen: &mut impl FnMut(Frame)) -> usize {
        let count = bytes.len().min(self.wanted - self.have);
        self.header[self.have..self.have + count].copy_from_slice(&bytes[..count]);
        self.have += count;
        if self.have == self.wanted {
            self.begin(seen);
        }
        count
    }

    /// What was looked for of a header is here.
    fn begin(&mut self, seen: &mut impl FnMut(Frame)) {
        let [high, middle, low, kind, flags, a, b, c, d, code @ ..] = self.header;
        let length = u32::from_be_bytes([0, high, middle, low]) as usize;
        let coded = kind == RST_STREAM && length == WITH_CODE - HEADER;
        if coded && self.wanted == HEADER {
            self.wanted = WITH_CODE;
            return;
        }
        self.left = length - (self.wanted - HEADER);
        self.have = 0;
        self.wanted = HEADER;
        self.data = kind == DATA;
        if matches!(kind, HEADERS | CONTINUATION) {
            self.block = flags & END_HEADERS == 0;
        }
        seen(Frame {
            kind,
            flags,
            // The first bit means nothing.
            stream: u32::from_be_bytes([a & 0x7f, b, c, d]),
            length,
            code: if coded { u32::from_be_bytes(code) } else { 0 },
        });
    }
}

/// Takes from `left` what there is of it; how much that was.
fn take(left: &mut usize, bytes: &[u8]) -> usize {
    let count = bytes.len().min(*left);
    *left -= count;
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        let header = [0, 0, length, kind, flags, 0, 0, 0, 1];
        [&header[..], payload].concat()
    }

    /// After how many bytes something is amid.
    fn amid(bytes: &[u8], before: usize) -> Vec<usize> {
        let mut frames = Frames::new(before);
        let after = |at: usize| {
            frames.walk(&bytes[at..=at], |_| {});
            frames.is_amid().then_some(at + 1)
        };
        (0..bytes.len()).filter_map(after).collect()
    }

    #[test]
    fn a_head_is_amid_until_its_last_byte_and_a_body_never() {
        assert_eq!(
            amid(&frame(HEADERS, END_HEADERS, b"abc"), 0),
            (1..12).collect::<Vec<_>>()
        );
        let body = frame(DATA, 0, b"abc");
        assert_eq!(amid(&body, 0), (1..9).collect::<Vec<_>>());
        assert_eq!(
            amid(&[b"PRI", &body[..]].concat(), 3),
            (4..12).collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_block_ends_with_its_last_frame() {
        let block = [
            frame(HEADERS, 0, b"a"),
            frame(CONTINUATION, 0, b"b"),
            frame(CONTINUATION, END_HEADERS, b"c"),
        ];
        let whole = block.concat();
        assert_eq!(amid(&whole, 0).len(), whole.len() - 1);
        let mut frames = Frames::new(0);
        assert!(frames.walk(&whole, |_| {}) && !frames.is_amid());
    }

    #[test]
    fn it_is_told_that_something_ended_though_the_next_has_begun() {
        let mut frames = Frames::new(0);
        let ping = frame(6, 0, &[0; 8]);
        let mut walk = |bytes: &[u8]| frames.walk(bytes, |_| {});
        assert!(walk(&ping[..4]));
        assert!(!walk(&ping[4..10]));
        assert!(walk(&[&ping[10..], &ping[..1]].concat()));
        assert!(frames.is_amid());
    }
    #[test]
    fn every_frame_is_told_once_however_its_bytes_come() {
        let all = [
            frame(RST_STREAM, 0, &[0, 0, 0, 8]),
            frame(SETTINGS, ACK, b""),
            frame(DATA, END_STREAM, b"abc"),
            frame(RST_STREAM, 0, b"no code"),
        ]
        .concat();
        let told = |kind, flags, length, code| Frame {
            kind,
            flags,
            stream: 1,
            length,
            code,
        };
        let expected = [
            told(RST_STREAM, 0, 4, 8),
            told(SETTINGS, ACK, 0, 0),
            told(DATA, END_STREAM, 3, 0),
            told(RST_STREAM, 0, 7, 0),
        ];
        for size in [1, 2, 5, 11, all.len()] {
            let mut frames = Frames::new(0);
            let mut seen = Vec::new();
            for part in all.chunks(size) {
                frames.walk(part, |frame| seen.push(frame));
            }
            assert_eq!(seen, expected, "in pieces of {size}");
            assert!(!frames.is_amid());
        }
    }
}
