//! Text → documents, or the problems of their shape.

mod locate;
mod wanted;

use std::sync::Arc;

use serde_saphyr::Error;

use self::locate::{Located, Sought, locate};
use crate::at::Mark;
use crate::document::Document;
use crate::fragment::Content;
use crate::problem::Problem;

/// Largest configuration file.
pub(crate) const FILE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Parser events and nodes of one document: a file of the largest size with one-letter values.
const EVENTS_MAX: usize = FILE_BYTES_MAX;
/// Nested mappings and lists; the format itself needs nine.
const DEPTH_MAX: usize = 32;
/// Events that aliases may repeat, over all of a document: what stops an alias bomb.
const REPLAYED_EVENTS_MAX: usize = 1_000_000;
/// Aliases within anchors within aliases.
const REPLAY_DEPTH_MAX: usize = 8;

/// Reads a YAML stream. Each document is read for itself: the first error of shape of every one is
/// told, and the readable ones are kept. After an error of YAML itself, nothing more is read.
///
/// `file` is what problems call it, and what relative directories are relative to.
#[must_use]
pub fn parse(file: &str, text: &str) -> Content {
    if text.len() > FILE_BYTES_MAX {
        return broken(too_large(file));
    }
    let mut documents = Vec::new();
    let mut problems = Vec::new();
    let mut bytes = text.as_bytes();
    for result in serde_saphyr::read_with_options::<_, Document>(&mut bytes, options()) {
        match result {
            Ok(document) => documents.push(document),
            Err(error) => problems.push(describe(file, text, &error)),
        }
    }
    let text = Arc::from(text);
    if problems.is_empty() {
        Content::Documents { documents, text }
    } else {
        Content::Broken {
            problems,
            readable: documents,
            text,
        }
    }
}

/// Content that could not be read at all.
pub(crate) fn broken(problem: Problem) -> Content {
    Content::Broken {
        problems: vec![problem],
        readable: Vec::new(),
        text: Arc::from(""),
    }
}

pub(crate) fn too_large(file: &str) -> Problem {
    let limit = FILE_BYTES_MAX / (1024 * 1024);
    Problem::of_file(
        file,
        format!("the file is larger than {limit} MiB"),
        "split it into several files".to_owned(),
    )
}

fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: EVENTS_MAX,
            max_nodes: EVENTS_MAX,
            max_depth: DEPTH_MAX,
            flow_nesting_limit: DEPTH_MAX,
            // One anchor used by every route is fine: replayed events are what is bounded.
            enforce_alias_anchor_ratio: false,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: REPLAYED_EVENTS_MAX,
            max_replay_stack_depth: REPLAY_DEPTH_MAX,
        },
        // They mean nothing, and only so many would be taken in a row. Another crate switches the
        // feature on, so that it has to be said.
        emit_comments: false,
        with_snippet: false,
        reject_unsupported_tags: true,
    }
}

fn describe(file: &str, text: &str, error: &Error) -> Problem {
    let mark = error.location().map_or(Mark::default(), Mark::from);
    let mut inner = error.without_snippet();
    while let Error::AliasError { error, .. } = inner {
        inner = error.without_snippet();
    }
    let sought = match inner {
        Error::SerdeUnknownField { .. } | Error::DuplicateMappingKey { .. } => Sought::Key,
        Error::SerdeMissingField { .. } => Sought::Mapping,
        _ => Sought::Value,
    };
    let found = locate(text, mark, sought).unwrap_or_default();
    let (problem, hint) = words(inner, &found);
    let value = match inner {
        Error::SerdeUnknownField { field, .. } => field.clone(),
        Error::DuplicateMappingKey { key: Some(key), .. } => key.clone(),
        _ => found.value,
    };
    Problem {
        file: file.to_owned(),
        line: mark.line,
        column: mark.column,
        path: found.path,
        value: Problem::shorten(&value),
        problem,
        hint,
    }
}

/// Problem and hint.
fn words(error: &Error, found: &Located) -> (String, String) {
    match error {
        Error::SerdeUnknownField {
            field, expected, ..
        } => (
            "unknown key".to_owned(),
            wanted::key(&found.path, field, expected),
        ),
        Error::SerdeUnknownVariant {
            variant, expected, ..
        } => {
            let mut hint = format!("one of: {}", expected.join(", "));
            if let Some(near) = crate::nearest::nearest(variant, expected.iter().copied()) {
                hint = format!("did you mean `{near}`? {hint}");
            }
            ("unknown value".to_owned(), hint)
        }
        Error::SerdeMissingField { field, .. } => (
            format!("the key `{field}` is missing"),
            format!("add `{field}: ...`"),
        ),
        Error::DuplicateMappingKey { .. } => (
            "the key is given twice".to_owned(),
            "keep one of them".to_owned(),
        ),
        Error::InvalidScalar { .. }
        | Error::Unexpected { .. }
        | Error::ExternallyTaggedEnumExpectedScalarOrMapping { .. } => wanted::other(found)
            // A text of a mapping whose names we do not choose.
            .unwrap_or_else(|| ("expected a text".to_owned(), String::new())),
        Error::NullIntoString { .. } => (
            "a value is missing".to_owned(),
            "write a text after the colon, or remove the key".to_owned(),
        ),
        Error::UnsupportedTag { .. } => (
            "YAML tags are not supported".to_owned(),
            "remove the tag".to_owned(),
        ),
        Error::Budget { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => (
            without_place(error),
            "write the repeated parts out, or split the file".to_owned(),
        ),
        other => {
            let problem = without_place(other);
            let hint = match problem.contains("mapping values are not allowed") {
                true => {
                    "put a text with a `:` before a space or at its end into quotes, or indent as \
                         the lines before"
                }
                false => "",
            };
            (problem, hint.to_owned())
        }
    }
}

/// The error's own words; its place stands beside them already.
fn without_place(error: &Error) -> String {
    let words = error.to_string();
    match words.rfind(" at line ") {
        Some(end) => words[..end].to_owned(),
        None => words,
    }
}

#[cfg(test)]
mod tests;
