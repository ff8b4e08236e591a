//! Text → documents, or the problems of their shape.

use std::sync::Arc;

use crate::document::Document;
use crate::fragment::Content;
use crate::problem::Problem;

/// Reads a YAML stream. Each document is read for itself: the first error of shape of every one is
/// told, and the readable ones are kept.
#[must_use]
pub fn parse(file: &str, text: &str) -> Content {
    let mut documents = Vec::new();
    let mut problems = Vec::new();
    let mut bytes = text.as_bytes();
    let results = serde_saphyr::read_with_options::<_, Document>(&mut bytes, options());
    for result in results {
        match result {
            Ok(document) => documents.push(document),
            Err(error) => problems.push(describe(file, &error)),
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

fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        with_snippet: false,
        reject_unsupported_tags: true,
    }
}

fn describe(file: &str, error: &serde_saphyr::Error) -> Problem {
    Problem::of_file(file, error.to_string(), String::new())
}
