//! How two readings of the same bytes differ, and `differences.txt`, which says why they may.

use std::cell::Cell;
use std::fmt;
use std::fs;

use regex::bytes::{Regex, RegexBuilder};

use crate::corpus_directory;

/// What somebody read in the bytes of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) messages: Vec<Message>,
    pub(crate) end: End,
}

/// A whole request, as somebody understood it. What is `None` cannot be known of this reader.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) method: Vec<u8>,
    pub(crate) target: Vec<u8>,
    pub(crate) host: Option<Vec<u8>>,
    /// Names in lower case, sorted; those of one name in their order.
    pub(crate) fields: Option<Vec<(Vec<u8>, Vec<u8>)>>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Option<Vec<(Vec<u8>, Vec<u8>)>>,
}

/// What comes behind the last whole request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum End {
    #[default]
    Nothing,
    Refused,
    /// More bytes are waited for.
    Incomplete,
    /// Not refused: more cannot be seen from where we stand.
    Unrefused,
}

/// How they differ, from our side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// We refuse what the other one takes or waits for more of.
    Stricter,
    /// The other one refuses what we take or wait for more of.
    Laxer,
    /// One of us waits for more, the other has a whole request or is done.
    Longer,
    /// Both take it, for different requests: what must not be.
    Other,
}

/// The first difference between two readings, and the number of the request it is about.
pub(crate) fn compare(ours: &Reading, theirs: &Reading) -> Option<(Kind, usize)> {
    let messages = ours.messages.iter().zip(&theirs.messages);
    let at = messages.take_while(|(one, other)| same(one, other)).count();
    differ(ours, theirs, at).map(|kind| (kind, at))
}

/// How they differ at a request; all before it are the same.
fn differ(ours: &Reading, theirs: &Reading, at: usize) -> Option<Kind> {
    match (ours.messages.get(at), theirs.messages.get(at)) {
        (Some(_), Some(_)) => return Some(Kind::Other),
        (Some(_), None) if theirs.end == End::Refused => return Some(Kind::Laxer),
        (None, Some(_)) if ours.end == End::Refused => return Some(Kind::Stricter),
        (Some(_), None) | (None, Some(_)) => return Some(Kind::Longer),
        (None, None) => {}
    }
    match (ours.end, theirs.end) {
        (one, other) if one == other => None,
        (End::Nothing | End::Incomplete, End::Unrefused) => None,
        (End::Refused, _) => Some(Kind::Stricter),
        (_, End::Refused) => Some(Kind::Laxer),
        _ => Some(Kind::Longer),
    }
}

/// The same request, as far as both tell.
fn same(one: &Message, other: &Message) -> bool {
    fn agree<T: PartialEq>(one: Option<&T>, other: Option<&T>) -> bool {
        one.is_none() || other.is_none() || one == other
    }
    one.method == other.method
        && one.target == other.target
        && one.body == other.body
        && agree(one.host.as_ref(), other.host.as_ref())
        && agree(one.fields.as_ref(), other.fields.as_ref())
        && agree(one.trailers.as_ref(), other.trailers.as_ref())
}

/// The beginning of a request.
const START: &str = r"\A(?:\r\n)*";

/// The beginning of any of its fields.
const HEAD: &str = r"\A(?:\r\n)*[^\r\n]*(?:\r\n[^\r\n]+)*?\r\n";

/// A difference that may be.
struct Entry {
    name: String,
    peers: Vec<String>,
    kinds: Vec<Kind>,
    /// How the bytes of the request look.
    when: Regex,
    /// How they do not look.
    unless: Option<Regex>,
    /// How many they are at least.
    least: usize,
    used: Cell<bool>,
}

/// Those that may be.
pub(crate) struct Allowed {
    entries: Vec<Entry>,
}

impl Allowed {
    /// What the file says.
    pub(crate) fn read() -> Allowed {
        let path = corpus_directory().join("differences.txt");
        let text = fs::read_to_string(&path).unwrap();
        let blocks = text.split("\n== ").skip(1);
        Allowed {
            entries: blocks.map(entry).collect(),
        }
    }

    /// Whether the file explains that these bytes are read differently.
    pub(crate) fn explain(&self, peer: &str, kind: Kind, bytes: &[u8]) -> bool {
        let fits = |entry: &&Entry| {
            entry.kinds.contains(&kind)
                && entry.peers.iter().any(|it| it == peer)
                && bytes.len() >= entry.least
                && entry.when.is_match(bytes)
                && !entry.unless.as_ref().is_some_and(|it| it.is_match(bytes))
        };
        let found: Vec<_> = self.entries.iter().filter(fits).collect();
        for entry in &found {
            entry.used.set(true);
        }
        !found.is_empty()
    }

    /// Entries for this peer that have explained nothing.
    pub(crate) fn idle(&self, peer: &str) -> Vec<&str> {
        let idle = |entry: &&Entry| !entry.used.get() && entry.peers.iter().any(|it| it == peer);
        let entries = self.entries.iter().filter(idle);
        entries.map(|entry| &entry.name[..]).collect()
    }
}

/// A name, then `peers`, `kind`, `when`, perhaps `unless` and `least`, and `why`, a line each.
fn entry(block: &str) -> Entry {
    let (name, rest) = block.split_once('\n').unwrap();
    let perhaps = |key: &str| {
        let mut lines = rest.lines();
        lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(": "))
    };
    let said = |key: &str| perhaps(key).unwrap_or_else(|| panic!("{name} has no {key}"));
    let regex = |text: &str| {
        let text = text.replace("{start}", START).replace("{head}", HEAD);
        let mut builder = RegexBuilder::new(&text);
        let built = builder.unicode(false).case_insensitive(true).build();
        built.unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    assert!(said("why").len() > 10, "{name} has no reason");
    Entry {
        name: name.to_owned(),
        peers: said("peers").split(' ').map(str::to_owned).collect(),
        kinds: said("kind").split(' ').map(|it| kind(name, it)).collect(),
        when: regex(said("when")),
        unless: perhaps("unless").map(regex),
        least: perhaps("least").map_or(0, |count| count.parse().unwrap()),
        used: Cell::new(false),
    }
}

fn kind(entry: &str, word: &str) -> Kind {
    match word {
        "stricter" => Kind::Stricter,
        "laxer" => Kind::Laxer,
        "longer" => Kind::Longer,
        "other" => Kind::Other,
        word => panic!("{entry}: {word} is no kind of difference"),
    }
}

/// For a failure: what was read.
impl fmt::Display for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for message in &self.messages {
            write!(
                f,
                "[{} {} @{} +{:?}] ",
                message.method.escape_ascii(),
                message.target.escape_ascii(),
                message.host.as_deref().unwrap_or_default().escape_ascii(),
                message.body.escape_ascii().to_string(),
            )?;
        }
        write!(f, "{:?}", self.end)
    }
}
