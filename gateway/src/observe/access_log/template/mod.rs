//! Templates of request logs: a part of Go's text/template, as much as lines of a log need.
//!
//! All there can be to write has one type that is known beforehand, so that what cannot work is
//! refused when the template is read, and hardly anything can go wrong when a line is written.
//! Fields and functions: docs/operations.md.

mod compile;
mod fields;
mod format;
mod lex;
mod render;

pub(crate) use self::fields::Values;

/// Bytes of a template.
const TEMPLATE_MAX: usize = 16 * 1024;
/// Actions, words and texts in it.
const NODES_MAX: usize = 2_000;
/// Actions and parentheses within each other.
const DEPTH_MAX: usize = 16;
/// Different header fields that are looked at.
pub(super) const FIELDS_MAX: usize = 16;
/// Bytes of the name of one.
pub(super) const NAME_MAX: usize = 64;
/// Bytes of a line; more are cut off.
pub(crate) const LINE_MAX: usize = 64 * 1024;

/// How lines of a request log look.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    nodes: Vec<compile::Node>,
    /// Header fields it looks at, in lower case.
    names: Vec<Box<str>>,
}

/// A template that is none, or that asks for what is not offered here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadTemplate(String);

impl BadTemplate {
    fn new(problem: impl Into<String>) -> BadTemplate {
        BadTemplate(problem.into())
    }

    /// With what stands there.
    fn near(problem: &str, rest: &str) -> BadTemplate {
        let shown = rest.floor_char_boundary(40);
        BadTemplate(format!("{problem}: {:?}", &rest[..shown]))
    }
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Template, BadTemplate> {
        if text.len() > TEMPLATE_MAX {
            return Err(BadTemplate(format!(
                "it is longer than {TEMPLATE_MAX} bytes"
            )));
        }
        compile::template(text)
    }

    /// Header fields whose values it needs, in lower case.
    pub(crate) fn names(&self) -> &[Box<str>] {
        &self.names
    }

    /// Appends one line.
    pub(crate) fn render(&self, values: &Values<'_>, out: &mut Vec<u8>) {
        render::line(&self.nodes, values, out);
    }
}

#[cfg(test)]
mod tests;
