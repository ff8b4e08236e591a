//! The index over a head against one that is made line by line and byte by byte.

use proptest::prelude::*;
use proptest::sample::select;

use super::super::index;
use crate::http::field::{Head, Name};

/// Name and value of each line, if the head has nothing in it that could be read two ways.
fn naive(head: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    for at in 0..head.len() {
        let sound = match head[at] {
            b'\r' => head.get(at + 1) == Some(&b'\n'),
            b'\n' => at > 0 && head[at - 1] == b'\r',
            b'\t' => true,
            byte => !byte.is_ascii_control(),
        };
        if !sound {
            return None;
        }
    }
    let text = head.strip_suffix(b"\r\n\r\n")?;
    let lines = text.split(|byte| *byte == b'\n').skip(1);
    lines
        .map(|line| {
            let colon = line.iter().position(|byte| *byte == b':')?;
            let is_white = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r');
            let value = &line[colon + 1..];
            let start = value.iter().position(|byte| !is_white(byte));
            let end = value.iter().rposition(|byte| !is_white(byte));
            let value = match (start, end) {
                (Some(start), Some(end)) => &value[start..=end],
                _ => b"",
            };
            Some((&line[..colon], value))
        })
        .collect()
}

const LOOSE_ENDS: &[&[u8]] = &[b"\n", b"\r", b"\r\r\n", b"\n\r", b"\r\n ", b"\r\n\t", b""];

const STARTS: &[&[u8]] = &[
    b"GET / HTTP/1.1",
    b"OPTIONS * HTTP/1.0",
    b"HTTP/1.1 200 OK",
    b"HTTP/1.0 404",
    b"HTTP/1.1 500 ",
    b"\nGET / HTTP/1.1",
    b"\n\r\nGET / HTTP/1.1",
];

fn name() -> impl Strategy<Value = Vec<u8>> {
    let known = select(Name::ALL).prop_map(|name| name.text().as_bytes().to_vec());
    let cased = (known, any::<u32>()).prop_map(|(mut name, upper)| {
        for (at, byte) in name.iter_mut().enumerate() {
            if upper >> (at % 32) & 1 == 1 {
                byte.make_ascii_uppercase();
            }
        }
        name
    });
    prop_oneof![
        6 => cased.clone(),
        2 => "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,20}".prop_map(String::into_bytes),
        1 => (cased, any::<usize>(), any::<u8>()).prop_map(|(mut name, at, bits)| {
            let at = at % name.len();
            name[at] ^= bits;
            name
        }),
    ]
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => "[ \t]{0,3}([!-~][ -~\t]{0,40})?[ \t]{0,3}".prop_map(String::into_bytes),
        1 => proptest::collection::vec(0x80u8.., 0..20),
        1 => proptest::collection::vec(any::<u8>(), 0..4),
    ]
}

fn line_end() -> impl Strategy<Value = &'static [u8]> {
    prop_oneof![
        60 => Just(&b"\r\n"[..]),
        1 => select(LOOSE_ENDS),
    ]
}

/// Most are sound.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let start = select(STARTS);
    let line = (name(), value(), line_end())
        .prop_map(|(name, value, end)| [&name[..], b":", &value, end].concat());
    let lines = proptest::collection::vec(line, 0..12);
    (start, line_end(), lines, line_end()).prop_map(|(start, first, lines, last)| {
        let behind = &b"GET /behind HTTP/1.1\r\n\r\n"[..];
        [start, first, &lines.concat(), last, behind].concat()
    })
}

/// Indexes the head at the front of `bytes`: how long it is, and whether it is sound.
fn indexed(bytes: &[u8], out: &mut Head) -> Option<(usize, bool)> {
    let mut storage = [httparse::EMPTY_HEADER; 16];
    if bytes.starts_with(b"HTTP/") {
        let mut response = httparse::Response::new(&mut storage);
        let httparse::Status::Complete(length) = response.parse(bytes).ok()? else {
            return None;
        };
        return Some((length, index(out, &bytes[..length], response.headers)));
    }
    let mut request = httparse::Request::new(&mut storage);
    let httparse::Status::Complete(length) = request.parse(bytes).ok()? else {
        return None;
    };
    Some((length, index(out, &bytes[..length], request.headers)))
}

fn assert_index_of(head: &Head, bytes: &[u8], fields: &[(&[u8], &[u8])]) {
    assert_eq!(head.bytes, bytes);
    assert_eq!(head.fields().len(), fields.len());
    let mut line_start = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    for (field, (name, value)) in head.fields().iter().zip(fields) {
        assert_eq!(field.name.of(bytes), *name);
        assert_eq!(field.value.of(bytes), *value);
        assert_eq!(field.line.start as usize, line_start);
        assert!(field.line.of(bytes).ends_with(b"\r\n"));
        assert!(!field.dropped);
        line_start = field.line.end as usize;
    }
    assert_eq!(line_start, bytes.len() - 2);
    for known in Name::ALL {
        let is_known = |name: &[u8]| name.eq_ignore_ascii_case(known.text().as_bytes());
        let named = fields.iter().filter(|(name, _)| is_known(name));
        let values: Vec<&[u8]> = named.map(|(_, value)| *value).collect();
        assert_eq!(head.has(*known), !values.is_empty());
        assert_eq!(head.all(*known).collect::<Vec<_>>(), values);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Both with the same memory: nothing stays of the one before.
    #[test]
    fn heads_are_indexed_as_line_by_line(one in bytes(), other in bytes()) {
        let mut head = Head::default();
        for bytes in [&one, &other] {
            let Some((length, sound)) = indexed(bytes, &mut head) else {
                continue;
            };
            let bytes = &bytes[..length];
            let fields = naive(bytes);
            prop_assert_eq!(sound, fields.is_some(), "{}", bytes.escape_ascii());
            if let Some(fields) = fields {
                assert_index_of(&head, bytes, &fields);
            }
            for field in head.fields().to_vec() {
                head.drop_all(field.id);
            }
        }
    }
}
