//! Which key or value stands at a place. Asked about errors of shape only: what could be read
//! knows its own path.

use serde_saphyr::granit_parser::{Event, Parser};

use crate::at::Mark;
use crate::compile::report::{LIST, MAPPING};

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Located {
    /// Like `routes[0].traffic[1].percent`.
    pub(super) path: String,
    /// The scalar there; `{…}` for a mapping and `[…]` for a list.
    pub(super) value: String,
    /// Whether it is a scalar.
    pub(super) scalar: bool,
}

/// An open mapping or list.
enum Open {
    Mapping { key: Option<String> },
    List { index: usize },
}

/// What an error at a place is about. A list, a mapping and its first key may begin at one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sought {
    /// The key there.
    Key,
    /// The value there.
    Value,
    /// The mapping that has a key there.
    Mapping,
}

/// Reads the text again up to `mark`.
pub(super) fn locate(text: &str, mark: Mark, sought: Sought) -> Option<Located> {
    let mut open: Vec<Open> = Vec::new();
    let mut outermost = None;
    for next in Parser::new_from_str(text) {
        let (event, span) = next.ok()?;
        let here = Mark {
            line: u32::try_from(span.start.line()).ok()?,
            column: u32::try_from(span.start.col()).ok()?.checked_add(1)?,
        };
        if here > mark && outermost.is_some() {
            return outermost;
        }
        match event {
            Event::DocumentStart(..) => open.clear(),
            Event::Scalar(value, ..) => {
                let found = here == mark;
                if matches!(open.last(), Some(Open::Mapping { key: None })) {
                    if found && sought == Sought::Mapping {
                        return Some(located(&open, MAPPING.to_owned(), false));
                    }
                    begin_value(&mut open, value.into_owned());
                    if found && sought == Sought::Key {
                        return Some(located(&open, String::new(), true));
                    }
                    continue;
                }
                if found && sought != Sought::Key {
                    return outermost.or(Some(located(&open, value.into_owned(), true)));
                }
                value_ended(&mut open);
            }
            Event::Alias(_) => value_ended(&mut open),
            Event::SequenceStart(..) | Event::MappingStart(..) => {
                let shown = match event {
                    Event::MappingStart(..) => MAPPING,
                    _ => LIST,
                };
                let fits = match sought {
                    Sought::Key => false,
                    Sought::Value => true,
                    Sought::Mapping => shown == MAPPING,
                };
                if here == mark && fits && outermost.is_none() {
                    outermost = Some(located(&open, shown.to_owned(), false));
                }
                open.push(match event {
                    Event::MappingStart(..) => Open::Mapping { key: None },
                    _ => Open::List { index: 0 },
                });
            }
            Event::SequenceEnd | Event::MappingEnd => {
                open.pop();
                value_ended(&mut open);
            }
            _ => {}
        }
    }
    outermost
}

fn begin_value(open: &mut [Open], of: String) {
    if let Some(Open::Mapping { key }) = open.last_mut() {
        *key = Some(of);
    }
}

fn value_ended(open: &mut [Open]) {
    match open.last_mut() {
        Some(Open::Mapping { key }) => *key = None,
        Some(Open::List { index }) => *index += 1,
        None => {}
    }
}

fn located(open: &[Open], value: String, scalar: bool) -> Located {
    let mut path = String::new();
    for step in open {
        match step {
            Open::Mapping { key: Some(key) } => {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(key);
            }
            Open::Mapping { key: None } => {}
            Open::List { index } => path.push_str(&format!("[{index}]")),
        }
    }
    Located {
        path,
        value,
        scalar,
    }
}
