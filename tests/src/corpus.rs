//! The corpus of hostile messages in `tests/corpus`, whose README says what a file looks like.
//!
//! Also a module of the gateway's own tests, by its path: it needs nothing but the standard library.

use std::fs;
use std::path::Path;

/// One case: what comes in, and what is to come of it.
#[derive(Clone, Debug)]
pub struct Case {
    /// The file's name without its ending.
    pub family: String,
    pub name: String,
    /// What the case is about, where its name does not say it all.
    pub note: String,
    /// What the peer under suspicion sends.
    pub sent: Vec<u8>,
    /// One for each message in it.
    pub outcomes: Vec<Outcome>,
}

/// What is to come of one message.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The words behind the `=`.
    pub said: String,
    /// What is to leave on the other side.
    pub passed: Vec<u8>,
    /// Trailers behind it.
    pub trailers: Vec<u8>,
}

/// What is to come of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// An answer of the gateway's own, and the end of the connection.
    Refused { status: u16, reason: String, by: By },
    /// More bytes are waited for.
    Incomplete {
        /// The head is whole.
        in_body: bool,
    },
    /// An endpoint gets it.
    Forwarded {
        /// Head and decoded body, without what the gateway adds.
        message: Vec<u8>,
        /// Lines of passed trailers.
        trailers: Vec<u8>,
        /// It is the exchange that takes some fields away, not the codec.
        by_exchange: bool,
        /// The client has said that it is the last.
        closes: bool,
    },
}

/// Who refuses a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The codec: nothing reaches an endpoint.
    Head,
    /// The codec, once the head may have been forwarded: no endpoint sees the end of the body.
    Body,
    /// The exchange, before it routes: nothing reaches an endpoint.
    Exchange,
}

impl Case {
    /// What is to come of each request.
    ///
    /// # Panics
    /// When the file says it in other words.
    #[must_use]
    pub fn expected(&self) -> Vec<Expected> {
        let read = |outcome: &Outcome| {
            let said = &outcome.said;
            outcome
                .expected(&self.sent)
                .unwrap_or_else(|| panic!("{}: {said:?} is no outcome of a request", self.name))
        };
        self.outcomes.iter().map(read).collect()
    }
}

impl Outcome {
    fn expected(&self, sent: &[u8]) -> Option<Expected> {
        let words: Vec<&str> = self.said.split(' ').collect();
        let refused = |status: &str, reason: &str, by| {
            Some(Expected::Refused {
                status: status.parse().ok()?,
                reason: reason.to_owned(),
                by,
            })
        };
        match words[..] {
            ["incomplete", "head"] => Some(Expected::Incomplete { in_body: false }),
            ["incomplete", "body"] => Some(Expected::Incomplete { in_body: true }),
            ["refused", "in", "body", status, reason] => refused(status, reason, By::Body),
            ["refused", "by", "exchange", status, reason] => refused(status, reason, By::Exchange),
            [first, ..] if first.starts_with("forwarded") => self.forwarded(sent),
            [status, reason] => refused(status, reason, By::Head),
            _ => None,
        }
    }

    fn forwarded(&self, sent: &[u8]) -> Option<Expected> {
        let (said, closes) = match self.said.strip_suffix(", closes") {
            Some(said) => (said, true),
            None => (&self.said[..], false),
        };
        let message = match said {
            "forwarded as sent" => sent.to_vec(),
            "forwarded" | "forwarded by exchange" => self.passed.clone(),
            _ => return None,
        };
        Some(Expected::Forwarded {
            message,
            trailers: self.trailers.clone(),
            by_exchange: said.ends_with("by exchange"),
            closes,
        })
    }
}

/// Every case of the `.txt` files in that directory, in the order of their names.
///
/// # Panics
/// When a file is not as the README says.
#[must_use]
pub fn read(directory: &Path) -> Vec<Case> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{directory:?}: {error}"));
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|ending| ending == "txt"))
        .collect();
    paths.sort();
    let mut cases = Vec::new();
    for path in paths {
        let family = path.file_stem().unwrap().to_str().unwrap().to_owned();
        cases.extend(parse(&family, &fs::read_to_string(&path).unwrap()));
    }
    cases
}

fn parse(family: &str, text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if let Some(name) = line.strip_prefix("== ") {
            cases.push(Case {
                family: family.to_owned(),
                name: name.to_owned(),
                note: String::new(),
                sent: Vec::new(),
                outcomes: Vec::new(),
            });
        } else if !line.is_empty() && !line.starts_with('#') {
            let added = cases.last_mut().and_then(|case| add(case, line));
            assert!(added.is_some(), "{family}.txt, {}: {line:?}", number + 1);
        }
    }
    cases
}

/// Takes up a line of a case; `None`: it is none.
fn add(case: &mut Case, line: &str) -> Option<()> {
    let (kind, rest) = line.split_at_checked(1)?;
    match kind {
        ";" => case.note = rest.trim().to_owned(),
        "<" => case.sent.extend(unescape(rest)?),
        "=" => case.outcomes.push(Outcome {
            said: rest.trim().to_owned(),
            ..Outcome::default()
        }),
        ">" => case.outcomes.last_mut()?.passed.extend(unescape(rest)?),
        "+" => case.outcomes.last_mut()?.trailers.extend(unescape(rest)?),
        _ => return None,
    }
    Some(())
}

/// The bytes that a line stands for, with the CRLF behind them unless a backslash ends it.
fn unescape(line: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut rest = line;
    loop {
        let Some(at) = rest.find('\\') else {
            out.extend_from_slice(rest.as_bytes());
            out.extend_from_slice(b"\r\n");
            return Some(out);
        };
        out.extend_from_slice(&rest.as_bytes()[..at]);
        rest = &rest[at + 1..];
        let Some(kind) = rest.chars().next() else {
            // The line ends here, without its CRLF.
            return Some(out);
        };
        rest = &rest[kind.len_utf8()..];
        match kind {
            'r' => out.push(b'\r'),
            'n' => out.push(b'\n'),
            't' => out.push(b'\t'),
            '0' => out.push(0),
            '\\' => out.push(b'\\'),
            'x' => {
                out.push(u8::from_str_radix(rest.get(..2)?, 16).ok()?);
                rest = &rest[2..];
            }
            // `\{COUNT:BYTES}`
            '{' => {
                let (count, more) = rest.split_once(':')?;
                let (repeated, behind) = more.split_once('}')?;
                let repeated = unescape(&format!("{repeated}\\"))?;
                out.extend(repeated.repeat(count.parse().ok()?));
                rest = behind;
            }
            _ => return None,
        }
    }
}
