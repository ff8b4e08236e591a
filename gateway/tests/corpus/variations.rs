//! Requests of the corpus with bytes put in, taken out and moved about.

use std::fmt;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, TestRng, TestRunner};

use crate::requests;

/// Larger cases are about limits, which their variations would only repeat.
const BYTES_MAX: usize = 2048;

/// What means something to some parser.
const WORDS: &[&[u8]] = &[
    b"\r",
    b"\n",
    b"\r\n",
    b"\r\n\r\n",
    b"\n\n",
    b" ",
    b"\t",
    b"\0",
    b"\x0b",
    b"\x7f",
    b"\xa0",
    b":",
    b",",
    b";",
    b"0",
    b"5",
    b"a",
    b"+",
    b"_",
    b"\"",
    b"X: y\r\n",
    b"X: y\n",
    b" X: y\r\n",
    b"Host: h\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: 0\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: gzip\r\n",
    b"Connection: close\r\n",
    b"Connection: Upgrade\r\nUpgrade: websocket\r\n",
    b"Expect: 100-continue\r\n",
    b"0\r\n\r\n",
    b"5\r\nhello\r\n",
    b"GET /inner HTTP/1.1\r\nHost: h\r\n\r\n",
    b" HTTP/1.0\r\n",
];

/// One change of a message; places are parts of its length.
#[derive(Clone, Debug)]
enum Change {
    Insert(Index, Vec<u8>),
    Remove(Index),
    Replace(Index, u8),
    FlipCase(Index),
    Truncate(Index),
    /// A line once more, at another place.
    Repeat(Index, Index),
    SwapLines(Index, Index),
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<Index>;
    prop_oneof![
        6 => (at(), select(WORDS)).prop_map(|(at, word)| Change::Insert(at, word.to_vec())),
        2 => at().prop_map(Change::Remove),
        2 => (at(), any::<u8>()).prop_map(|(at, byte)| Change::Replace(at, byte)),
        1 => at().prop_map(Change::FlipCase),
        1 => at().prop_map(Change::Truncate),
        2 => (at(), at()).prop_map(|(from, to)| Change::Repeat(from, to)),
        2 => (at(), at()).prop_map(|(one, other)| Change::SwapLines(one, other)),
    ]
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    let lines = |bytes: &[u8]| -> Vec<Vec<u8>> {
        let lines = bytes.split_inclusive(|byte| *byte == b'\n');
        lines.map(<[u8]>::to_vec).collect()
    };
    let size = bytes.len();
    match change {
        _ if size == 0 => {}
        Change::Insert(at, word) => {
            let at = at.index(size + 1);
            bytes.splice(at..at, word.iter().copied());
        }
        Change::Remove(at) => {
            bytes.remove(at.index(size));
        }
        Change::Replace(at, byte) => bytes[at.index(size)] = *byte,
        Change::FlipCase(at) => bytes[at.index(size)] ^= 0x20,
        Change::Truncate(at) => bytes.truncate(at.index(size)),
        Change::Repeat(from, to) => {
            let mut all = lines(bytes);
            let line = all[from.index(all.len())].clone();
            all.insert(to.index(all.len() + 1), line);
            *bytes = all.concat();
        }
        Change::SwapLines(one, other) => {
            let mut all = lines(bytes);
            let (one, other) = (one.index(all.len()), other.index(all.len()));
            all.swap(one, other);
            *bytes = all.concat();
        }
    }
}

/// Shown as text.
#[derive(Clone)]
struct Bytes(Vec<u8>);

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

/// Calls `test` with as many variations, always the same ones unless `TIDEGATE_LONG` is set. A
/// failing one is made as simple as it can be before it is shown.
pub(crate) fn run(count: u32, test: impl Fn(&[u8]) -> Result<(), String>) {
    let cases = requests().into_iter().map(|case| case.sent);
    let cases: Vec<Vec<u8>> = cases.filter(|sent| sent.len() <= BYTES_MAX).collect();
    let changes = proptest::collection::vec(change(), 1..4);
    let variations = (select(cases), changes).prop_map(|(mut bytes, changes)| {
        for change in &changes {
            apply(&mut bytes, change);
        }
        Bytes(bytes)
    });
    let config = Config {
        cases: count,
        failure_persistence: None,
        ..Config::default()
    };
    let random = TestRng::deterministic_rng(config.rng_algorithm);
    let mut runner = match crate::sized(true, false) {
        true => TestRunner::new_with_rng(config, random),
        false => TestRunner::new(config),
    };
    let result = runner.run(&variations, |Bytes(bytes)| {
        test(&bytes).map_err(TestCaseError::fail)
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}
