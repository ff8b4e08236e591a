//! Where frames begin and end in a peer's bytes (RFC 9113 §4.1): the h2 crate has no time limit for a
//! head, so what lies under it looks for heads that do not end.

/// Bytes of a frame's header.
const HEADER: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// How far a peer has come in its frames.
#[derive(Debug)]
pub struct Frames {
    /// Bytes before the first frame.
    before: usize,
    header: [u8; HEADER],
    /// Bytes of the header that are here.
    have: usize,
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
            header: [0; HEADER],
            have: 0,
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

    /// Goes on over what came next; whether nothing was amid at some point of it.
    pub fn walk(&mut self, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        let mut apart = !self.is_amid();
        while !rest.is_empty() {
            let count = match (self.before, self.left) {
                (0, 0) => self.take_header(rest),
                (0, _) => take(&mut self.left, rest),
                _ => take(&mut self.before, rest),
            };
            rest = &rest[count..];
            apart |= !self.is_amid();
        }
        apart
    }

    fn take_header(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(HEADER - self.have);
        self.header[self.have..self.have + count].copy_from_slice(&bytes[..count]);
        self.have += count;
        if let [high, middle, low, kind, flags, ..] = self.header
            && self.have == HEADER
        {
            self.have = 0;
            self.left = u32::from_be_bytes([0, high, middle, low]) as usize;
            self.data = kind == DATA;
            if matches!(kind, HEADERS | CONTINUATION) {
                self.block = flags & END_HEADERS == 0;
            }
        }
        count
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
            frames.walk(&bytes[at..=at]);
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
        assert!(frames.walk(&whole) && !frames.is_amid());
    }

    #[test]
    fn it_is_told_that_something_ended_though_the_next_has_begun() {
        let mut frames = Frames::new(0);
        let ping = frame(6, 0, &[0; 8]);
        assert!(frames.walk(&ping[..4]));
        assert!(!frames.walk(&ping[4..10]));
        assert!(frames.walk(&[&ping[10..], &ping[..1]].concat()));
        assert!(frames.is_amid());
    }
}
