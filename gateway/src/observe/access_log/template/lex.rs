//! A template's text taken apart: what is written as it stands, and the words of actions.

use std::borrow::Cow;

use super::BadTemplate;

/// A part of a template.
#[derive(Debug, PartialEq)]
pub(super) enum Part<'a> {
    Text(&'a str),
    Action(Vec<Token<'a>>),
}

/// A word of an action.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token<'a> {
    /// `.A.B`, without the first dot; `.` alone is empty.
    Field(&'a str),
    /// `$.A.B`, likewise, and `$`.
    Root(&'a str),
    Word(&'a str),
    Text(Cow<'a, str>),
    Number(&'a str),
    Pipe,
    Open,
    /// With fields of what stands before it, as `.A` in `(…).A`: empty mostly.
    Close(&'a str),
}

/// Splits a template. Text beside `{{-` and `-}}` loses its white space, as Go has it.
pub(super) fn split(template: &str) -> Result<Vec<Part<'_>>, BadTemplate> {
    let mut parts = Vec::new();
    let mut rest = template;
    let mut trims = false;
    while let Some(place) = rest.find("{{") {
        let (text, from) = rest.split_at(place);
        let mut inside = &from[2..];
        let trims_before = inside
            .strip_prefix('-')
            .filter(|rest| rest.starts_with(is_space));
        if let Some(behind) = trims_before {
            inside = behind;
        }
        push_text(&mut parts, text, trims, trims_before.is_some());
        let (tokens, after) = action(inside)?;
        trims = after.trims;
        rest = after.rest;
        if let Some(tokens) = tokens {
            parts.push(Part::Action(tokens));
        }
    }
    push_text(&mut parts, rest, trims, false);
    Ok(parts)
}

fn push_text<'a>(parts: &mut Vec<Part<'a>>, text: &'a str, start: bool, end: bool) {
    let text = if start {
        text.trim_start_matches(is_space)
    } else {
        text
    };
    let text = if end {
        text.trim_end_matches(is_space)
    } else {
        text
    };
    if !text.is_empty() {
        parts.push(Part::Text(text));
    }
}

fn is_space(letter: char) -> bool {
    matches!(letter, ' ' | '\t' | '\r' | '\n')
}

/// What follows an action.
struct After<'a> {
    rest: &'a str,
    trims: bool,
}

/// Where an action ends, if it does here.
fn end(rest: &str) -> Option<After<'_>> {
    if let Some(rest) = rest.strip_prefix("}}") {
        return Some(After { rest, trims: false });
    }
    let trimmed = rest.trim_start_matches(is_space);
    let spaced = trimmed.len() < rest.len();
    if let Some(rest) = trimmed.strip_prefix("-}}").filter(|_| spaced) {
        return Some(After { rest, trims: true });
    }
    let rest = trimmed.strip_prefix("}}")?;
    Some(After { rest, trims: false })
}

/// The words of one action and what follows; no words for a comment.
fn action(inside: &str) -> Result<(Option<Vec<Token<'_>>>, After<'_>), BadTemplate> {
    let unclosed = || BadTemplate::new("an action has no end: write }}");
    if let Some(comment) = inside.trim_start_matches(is_space).strip_prefix("/*") {
        let (_, behind) = comment.split_once("*/").ok_or_else(unclosed)?;
        let after = end(behind).ok_or_else(unclosed)?;
        return Ok((None, after));
    }
    let mut tokens = Vec::new();
    let mut rest = inside;
    // Every turn takes a byte or more.
    loop {
        if let Some(after) = end(rest) {
            return Ok((Some(tokens), after));
        }
        rest = rest.trim_start_matches(is_space);
        if rest.is_empty() {
            return Err(unclosed());
        }
        let (token, after) = token(rest)?;
        let apart = after.is_empty()
            || after.starts_with(|c: char| is_space(c) || matches!(c, '|' | '(' | ')'))
            || end(after).is_some()
            || matches!(token, Token::Pipe | Token::Open);
        if !apart {
            return Err(BadTemplate::near(
                "two words without a space between them",
                rest,
            ));
        }
        tokens.push(token);
        rest = after;
    }
}

fn token(rest: &str) -> Result<(Token<'_>, &str), BadTemplate> {
    let first = rest.chars().next().unwrap_or_default();
    let behind = &rest[first.len_utf8()..];
    Ok(match first {
        '|' => (Token::Pipe, behind),
        '(' => (Token::Open, behind),
        ')' => {
            let (fields, after) = fields(behind)?;
            (Token::Close(fields), after)
        }
        '.' if behind.starts_with(|c: char| c.is_ascii_digit()) => number(rest),
        '.' => {
            let (_, after) = fields(rest)?;
            (Token::Field(&rest[1..rest.len() - after.len()]), after)
        }
        '$' => {
            let (names, after) = fields(behind)?;
            (Token::Root(names), after)
        }
        '"' => quoted(behind)?,
        '`' => {
            let raw = behind.split_once('`');
            let (text, after) = raw.ok_or_else(|| BadTemplate::near("a text has no end", rest))?;
            (Token::Text(Cow::Borrowed(text)), after)
        }
        '0'..='9' | '+' | '-' => number(rest),
        letter if letter.is_ascii_alphabetic() || letter == '_' => {
            let length = rest.find(|c: char| !is_name(c)).unwrap_or(rest.len());
            let (word, after) = rest.split_at(length);
            (Token::Word(word), after)
        }
        _ => return Err(BadTemplate::near("nothing begins like this", rest)),
    })
}

fn is_name(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_'
}

/// `.A.B` at the start of `rest`, without its first dot.
fn fields(rest: &str) -> Result<(&str, &str), BadTemplate> {
    if !rest.starts_with('.') {
        return Ok(("", rest));
    }
    let length = rest.find(|c: char| c != '.' && !is_name(c));
    let (names, after) = rest.split_at(length.unwrap_or(rest.len()));
    let names = &names[1..];
    if !names.is_empty() && names.split('.').any(str::is_empty) {
        return Err(BadTemplate::near("a dot without a name", rest));
    }
    Ok((names, after))
}

fn number(rest: &str) -> (Token<'_>, &str) {
    let length = rest.find(|c: char| !(is_name(c) || matches!(c, '.' | '+' | '-')));
    let (number, after) = rest.split_at(length.unwrap_or(rest.len()));
    (Token::Number(number), after)
}

/// A text of Go in double quotes, behind the first of them.
fn quoted(rest: &str) -> Result<(Token<'_>, &str), BadTemplate> {
    let no_end = || BadTemplate::near("a text has no end", rest);
    let mut text = String::new();
    let mut letters = rest.char_indices();
    loop {
        match letters.next().ok_or_else(no_end)? {
            (place, '"') => return Ok((Token::Text(text.into()), &rest[place + 1..])),
            (_, '\n') => return Err(no_end()),
            (_, '\\') => {
                let (_, escape) = letters.next().ok_or_else(no_end)?;
                text.push(match escape {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    '"' | '\\' => escape,
                    _ => return Err(BadTemplate::near("this escape is not understood", rest)),
                });
            }
            (_, letter) => text.push(letter),
        }
    }
}
