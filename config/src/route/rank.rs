//! Which of several rules goes first, and which matches.
//!
//! Order of precedence: the longest path; at equal length an exact path, then more headers, then
//! named methods, then the order of the file. Among rules that a source has put in order, that is
//! what decides at equal length. Up to [`SCAN_MAX`] rules are tried one by one in that
//! order. Beyond it a [`PathIndex`] goes by path: a binary search for the last path that is not
//! beyond the request's, then up the chain of its prefixes, so that the cost grows with the
//! logarithm of the paths and with how deeply prefixes nest, not with the number of rules. Rules
//! with the same path are tried one by one.

use std::cmp::{Ordering, Reverse};

use super::Query;
use crate::snapshot::{PathMatch, Rule};

/// Up to so many rules, trying them all beats any index.
const SCAN_MAX: usize = 16;
const NO_PARENT: u32 = u32::MAX;

/// `Less` goes first. Rules that are `Equal` go in the order of the file.
pub(crate) fn precedence(a: &Rule, b: &Rule) -> Ordering {
    let by_path = |rule: &Rule| {
        (
            Reverse(rule.path.text().len()),
            matches!(rule.path, PathMatch::Prefix(_)),
            // Rules of a file, and only then those of a cluster.
            rule.in_order,
        )
    };
    let by_conditions = |rule: &Rule| (Reverse(rule.headers.len()), rule.methods.is_empty());
    by_path(a).cmp(&by_path(b)).then_with(|| match a.in_order {
        true => a.number.cmp(&b.number),
        false => by_conditions(a).cmp(&by_conditions(b)),
    })
}

/// Why a rule does not match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mismatch<'a> {
    Path,
    Method,
    Header(&'a str),
}

pub(crate) fn check<'r>(rule: &'r Rule, query: &Query<'_>) -> Result<(), Mismatch<'r>> {
    if !path_matches(&rule.path, query.path) {
        return Err(Mismatch::Path);
    }
    let methods = &rule.methods;
    if !methods.is_empty() && !methods.iter().any(|m| m.as_bytes() == query.method) {
        return Err(Mismatch::Method);
    }
    for header in &rule.headers {
        let holds = match &header.value {
            Some(value) => query.fields.any_equals(&header.name, value.as_bytes()),
            None => query.fields.first(&header.name).is_some(),
        };
        if !holds {
            return Err(Mismatch::Header(&header.name));
        }
    }
    Ok(())
}

/// Whether no request fails to match.
pub(super) fn matches_everything(rule: &Rule) -> bool {
    let every_path =
        matches!(&rule.path, PathMatch::Prefix(prefix) if matches!(&**prefix, "" | "/"));
    every_path && rule.methods.is_empty() && rule.headers.is_empty()
}

fn path_matches(pattern: &PathMatch, path: &[u8]) -> bool {
    match pattern {
        // Every path begins with "/", but for `OPTIONS *` and `CONNECT`.
        PathMatch::Prefix(prefix) => &**prefix == "/" || path.starts_with(prefix.as_bytes()),
        PathMatch::Exact(exact) => path == exact.as_bytes(),
    }
}

/// The first of `count` rules in order of precedence that matches. `rule` answers for a rank,
/// `None` for one that this query may not see.
pub(crate) fn first_match<'r>(
    count: usize,
    index: Option<&PathIndex>,
    query: &Query<'_>,
    rule: impl Fn(usize) -> Option<&'r Rule>,
) -> Option<usize> {
    let matches = |rank: &usize| rule(*rank).is_some_and(|rule| check(rule, query).is_ok());
    match index {
        Some(index) if query.path.first() == Some(&b'/') => {
            index.candidates(query.path).find(matches)
        }
        _ => (0..count).find(matches),
    }
}

/// Rules by path.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PathIndex {
    /// Sorted by path.
    groups: Box<[Group]>,
    /// Ranks, group after group, in order of precedence within each.
    ranks: Box<[u32]>,
}

#[derive(Clone, Debug, PartialEq)]
struct Group {
    path: Box<str>,
    /// The group of the longest other path that this one begins with.
    parent: u32,
    /// Its part of `ranks`.
    first: u32,
    end: u32,
}

fn narrow(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(NO_PARENT)
}

impl PathIndex {
    /// `None` when there are so few rules that trying them all is quicker. `path` answers for a
    /// rank.
    pub(crate) fn build<'r>(count: usize, path: impl Fn(usize) -> &'r str) -> Option<PathIndex> {
        if count <= SCAN_MAX {
            return None;
        }
        let mut ranks: Vec<u32> = (0..count).map(narrow).collect();
        // Stable, so that precedence stays within a path.
        ranks.sort_by_key(|rank| path(*rank as usize));
        let mut groups: Vec<Group> = Vec::new();
        let mut chain: Vec<u32> = Vec::new();
        for (position, rank) in ranks.iter().enumerate() {
            let path = path(*rank as usize);
            if let Some(last) = groups.last_mut().filter(|last| &*last.path == path) {
                last.end = narrow(position + 1);
                continue;
            }
            let begins_with = |group: &u32| path.starts_with(&*groups[*group as usize].path);
            while chain.last().is_some_and(|group| !begins_with(group)) {
                chain.pop();
            }
            groups.push(Group {
                path: path.into(),
                parent: chain.last().copied().unwrap_or(NO_PARENT),
                first: narrow(position),
                end: narrow(position + 1),
            });
            chain.push(narrow(groups.len() - 1));
        }
        Some(PathIndex {
            groups: groups.into(),
            ranks: ranks.into(),
        })
    }

    /// Ranks of rules whose path the given one begins with, in order of precedence.
    fn candidates(&self, path: &[u8]) -> impl Iterator<Item = usize> {
        // Every path that `path` begins with sorts at or before it, and all between the longest of
        // those and `path` begin with it too: it is the last one not beyond, or a parent of that.
        let beyond = self
            .groups
            .partition_point(|group| group.path.as_bytes() <= path);
        let last = beyond.checked_sub(1).map(|last| &self.groups[last]);
        let parents = |group: &&'_ Group| self.groups.get(group.parent as usize);
        std::iter::successors(last, parents)
            .filter(move |group| path.starts_with(group.path.as_bytes()))
            .flat_map(|group| &self.ranks[group.first as usize..group.end as usize])
            .map(|rank| *rank as usize)
    }
}
