//! What is wrong with a configuration, where, and what to write instead.

use std::collections::BTreeMap;
use std::sync::Arc;

use miette::{Diagnostic, GraphicalReportHandler, LabeledSpan, NamedSource, SourceCode};
use serde::Serialize;

/// One thing that is wrong. Serialised exactly like this by `tidegate validate --format json`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Problem {
    pub file: String,
    /// Counted from 1; 0 when there is no place to point at.
    pub line: u32,
    /// In characters, counted from 1; 0 when there is no place to point at.
    pub column: u32,
    /// Like `routes[0].traffic[1].percent`; indices count from 0 within the YAML document.
    pub path: String,
    /// The offending value as written, shortened; `{…}` for a mapping, `[…]` for a list.
    pub value: String,
    pub problem: String,
    /// What to write instead.
    pub hint: String,
}

/// Where a value stands, for problems that show only later: with what a file holds that the value
/// names, for instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place(Arc<Problem>);

impl Place {
    /// Where `problem` is, whatever it says.
    #[must_use]
    pub fn of(problem: Problem) -> Place {
        Place(Arc::new(problem))
    }

    /// What is wrong with what stands there, and what to write instead.
    #[must_use]
    pub fn problem(&self, problem: impl Into<String>, hint: impl Into<String>) -> Problem {
        Problem {
            problem: problem.into(),
            hint: hint.into(),
            ..Problem::clone(&self.0)
        }
    }
}

/// `file:line:col: path: problem (value); hint`, leaving out what is empty.
impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        f.write_str(": ")?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.problem)?;
        if !self.value.is_empty() {
            write!(f, " ({})", self.value)?;
        }
        if !self.hint.is_empty() {
            write!(f, "; {}", self.hint)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}

/// Longest `value` of a problem, in characters; the rest becomes an ellipsis.
const VALUE_SHOWN: usize = 80;

impl Problem {
    /// A problem of a whole file: it cannot be read, for instance.
    #[must_use]
    pub fn of_file(file: &str, problem: String, hint: String) -> Problem {
        Problem {
            file: file.to_owned(),
            line: 0,
            column: 0,
            path: String::new(),
            value: String::new(),
            problem,
            hint,
        }
    }

    pub(crate) fn shorten(value: &str) -> String {
        let mut shown: String = value.chars().take(VALUE_SHOWN).collect();
        if shown.len() < value.len() {
            shown.push('…');
        }
        shown
    }
}

/// Texts by the file name that problems carry.
pub type Sources = BTreeMap<String, Arc<str>>;

/// Shows problems with the lines they are about; coloured only on a terminal.
#[must_use]
pub fn render_for_people(problems: &[Problem], sources: &Sources) -> String {
    let handler = GraphicalReportHandler::new().with_links(false);
    let mut shown = String::new();
    for problem in problems {
        let source = sources.get(&problem.file);
        let view = View {
            problem,
            span: source.and_then(|text| span_of(problem, text)),
            source: source.map(|text| NamedSource::new(&problem.file, Arc::clone(text))),
        };
        let rendered = view.source.is_some() && view.span.is_some();
        if !rendered || handler.render_report(&mut shown, &view).is_err() {
            shown.push_str(&problem.to_string());
        }
        while !shown.ends_with("\n\n") {
            shown.push('\n');
        }
    }
    shown
}

/// Bytes of the text that a problem is about.
fn span_of(problem: &Problem, text: &str) -> Option<(usize, usize)> {
    let line_number = usize::try_from(problem.line).ok()?.checked_sub(1)?;
    let line = text.split_inclusive('\n').nth(line_number)?;
    let line_start = line.as_ptr() as usize - text.as_ptr() as usize;
    let column = usize::try_from(problem.column).ok()?.checked_sub(1)?;
    let within = line
        .char_indices()
        .nth(column)
        .map_or(line.trim_end().len(), |(at, _)| at);
    let rest = &line[within..];
    let length = if rest.starts_with(&problem.value) {
        problem.value.len()
    } else {
        // A quoted or structured value: up to the end of the word.
        rest.find(|c: char| c.is_whitespace() || c == ',')
            .unwrap_or(rest.len())
    };
    Some((line_start + within, length.max(1)))
}

/// A problem as miette wants to see it.
#[derive(Debug)]
struct View<'a> {
    problem: &'a Problem,
    span: Option<(usize, usize)>,
    source: Option<NamedSource<Arc<str>>>,
}

impl std::fmt::Display for View<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.problem.path.is_empty() {
            write!(f, "{}: ", self.problem.path)?;
        }
        f.write_str(&self.problem.problem)
    }
}

impl std::error::Error for View<'_> {}

impl Diagnostic for View<'_> {
    fn help<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        let hint = &self.problem.hint;
        (!hint.is_empty()).then(|| Box::new(hint) as Box<dyn std::fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.as_ref().map(|source| source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let (start, length) = self.span?;
        let label = LabeledSpan::new(None, start, length);
        Some(Box::new(std::iter::once(label)))
    }
}
