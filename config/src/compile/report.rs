//! Collecting problems: where one is, what stands there, what to write instead.

use std::fmt::Display;

use crate::at::Mark;
use crate::fragment::Origin;
use crate::problem::{Place, Problem};

/// The way to a value within its document; only written out when there is a problem.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Path<'a> {
    Root,
    Key(&'a Path<'a>, &'a str),
    Item(&'a Path<'a>, usize),
}

impl<'a> Path<'a> {
    pub(crate) fn key(&'a self, name: &'a str) -> Path<'a> {
        Path::Key(self, name)
    }

    pub(crate) fn item(&'a self, index: usize) -> Path<'a> {
        Path::Item(self, index)
    }
}

impl Display for Path<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Key(Path::Root, name) => f.write_str(name),
            Path::Key(parent, name) => write!(f, "{parent}.{name}"),
            Path::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// Problems of one origin. Checks that find one report it and go on with any value: nothing of it
/// will be used.
#[derive(Debug)]
pub(crate) struct Report<'a> {
    pub(crate) origin: &'a Origin,
    pub(crate) problems: &'a mut Vec<Problem>,
}

/// What a problem of a whole mapping shows as its value.
pub(crate) const MAPPING: &str = "{…}";
pub(crate) const LIST: &str = "[…]";

/// Beyond any real limit of requests; keeps sums within 32 bits.
pub(crate) const REQUESTS_MAX: i64 = 1_000_000;
/// Beyond any real number of bytes.
pub(crate) const BYTES_MAX: i64 = 1 << 50;

/// What `queue.fairBy` may be.
pub(crate) const FAIR_BY: &str = "write address, header:NAME, claim:NAME or none";
/// What `queue.wait` may be.
pub(crate) const WAIT: &str = "write auto, or a number and a unit: 500ms, 10s, 5m, 1h";

impl Report<'_> {
    /// What problems call the file, or whatever else it is.
    pub(crate) fn file(&self) -> &str {
        self.origin.name()
    }

    pub(crate) fn add(
        &mut self,
        path: &Path<'_>,
        mark: Mark,
        value: impl Display,
        problem: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let place = self.place(path, mark, value);
        self.problems.push(place.problem(problem, hint));
    }

    /// Where a value stands, for whoever finds something wrong with it later.
    pub(crate) fn place(&self, path: &Path<'_>, mark: Mark, value: impl Display) -> Place {
        Place::of(Problem {
            file: self.file().to_owned(),
            line: mark.line,
            column: mark.column,
            path: path.to_string(),
            value: Problem::shorten(&value.to_string()),
            problem: String::new(),
            hint: String::new(),
        })
    }
}
