//! `printf`: how values are written, checked beforehand against what they are.

use super::BadTemplate;
use super::fields::{Kind, Value};
use super::render::{Line, float};

/// The widest a value may be asked to be, and the most digits behind its point.
const WIDTH_MAX: usize = 64;

/// A format of Go's `printf`: texts, and verbs that take one value each, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Format(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    Verb(Verb),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Verb {
    letter: char,
    left: bool,
    zeros: bool,
    width: usize,
    precision: Option<usize>,
}

impl Format {
    /// Reads a format for values of these kinds.
    pub(super) fn parse(text: &str, kinds: &[Kind]) -> Result<Format, BadTemplate> {
        let mut pieces = Vec::new();
        let mut kinds = kinds.iter();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once('%') {
            if !before.is_empty() {
                pieces.push(Piece::Text(before.into()));
            }
            if let Some(after) = behind.strip_prefix('%') {
                pieces.push(Piece::Text("%".into()));
                rest = after;
                continue;
            }
            let wrong = || BadTemplate::near("printf cannot do that", behind);
            let (verb, after) = Verb::parse(behind).ok_or_else(wrong)?;
            let kind = kinds.next().ok_or_else(wrong)?;
            if !verb.takes(*kind) {
                return Err(BadTemplate::near(
                    "printf is given another type here",
                    behind,
                ));
            }
            pieces.push(Piece::Verb(verb));
            rest = after;
        }
        if kinds.next().is_some() {
            return Err(BadTemplate::near(
                "printf has no place for so many values",
                text,
            ));
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.into()));
        }
        Ok(Format(pieces))
    }

    pub(super) fn write(&self, values: &[Value<'_>], line: &mut Line<'_>) {
        let mut values = values.iter();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => line.push(text.as_bytes()),
                Piece::Verb(verb) => {
                    if let Some(value) = values.next() {
                        verb.write(value, line);
                    }
                }
            }
        }
    }
}

impl Verb {
    /// A verb behind its `%`, and what follows it.
    fn parse(text: &str) -> Option<(Verb, &str)> {
        let flags = text.find(|c| !matches!(c, '-' | '0' | '+' | ' ' | '#'))?;
        let (flags, rest) = text.split_at(flags);
        // Those that are not offered.
        if flags.contains(['+', ' ', '#']) {
            return None;
        }
        let (width, rest) = number(rest)?;
        let (precision, rest) = match rest.strip_prefix('.') {
            Some(rest) => {
                let (precision, rest) = number(rest)?;
                (Some(precision.unwrap_or(0)), rest)
            }
            None => (None, rest),
        };
        let letter = rest.chars().next()?;
        let verb = Verb {
            letter,
            left: flags.contains('-'),
            zeros: flags.contains('0') && !flags.contains('-'),
            width: width.unwrap_or(0),
            precision,
        };
        Some((verb, &rest[letter.len_utf8()..]))
    }

    fn takes(self, kind: Kind) -> bool {
        let fits = match self.letter {
            'v' => true,
            's' => matches!(kind, Kind::Text | Kind::List),
            'q' => kind == Kind::Text,
            'd' | 'x' => kind == Kind::Int,
            't' => kind == Kind::Bool,
            'f' => kind == Kind::Float,
            _ => return false,
        };
        let cuts = match self.letter {
            'f' => true,
            's' => kind == Kind::Text,
            _ => self.precision.is_none(),
        };
        let pads = !self.zeros || matches!(kind, Kind::Int | Kind::Float);
        fits && cuts && pads
    }

    fn write(self, value: &Value<'_>, line: &mut Line<'_>) {
        let mut text = Vec::new();
        match (self.letter, value) {
            ('q', Value::Text(value)) => {
                text.extend_from_slice(format!("{:?}", String::from_utf8_lossy(value)).as_bytes());
            }
            ('x', Value::Int(value)) => {
                let sign = if *value < 0 { "-" } else { "" };
                text.extend_from_slice(format!("{sign}{:x}", value.unsigned_abs()).as_bytes());
            }
            ('f', Value::Float(value)) => {
                let precision = self.precision.unwrap_or(6);
                text.extend_from_slice(format!("{value:.precision$}").as_bytes());
            }
            (_, Value::Float(value)) => text.extend_from_slice(float(*value).as_bytes()),
            (_, value) => Line::over(&mut text).value(value),
        }
        if let (Some(most), 's') = (self.precision, self.letter) {
            let end = String::from_utf8_lossy(&text)
                .chars()
                .take(most)
                .collect::<String>();
            text = end.into_bytes();
        }
        let letters = String::from_utf8_lossy(&text).chars().count();
        let missing = self.width.saturating_sub(letters);
        let signed = self.zeros && text.first() == Some(&b'-');
        match (self.left, self.zeros) {
            (true, _) => {
                line.push(&text);
                line.push(&b" ".repeat(missing));
            }
            (false, true) => {
                let (sign, digits) = text.split_at(usize::from(signed));
                line.push(sign);
                line.push(&b"0".repeat(missing));
                line.push(digits);
            }
            (false, false) => {
                line.push(&b" ".repeat(missing));
                line.push(&text);
            }
        }
    }
}

/// A number at the start, if there is one, and what follows; `None` if it is too large.
fn number(text: &str) -> Option<(Option<usize>, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (digits, rest) = text.split_at(digits);
    if digits.is_empty() {
        return Some((None, rest));
    }
    let number = digits.parse().ok().filter(|number| *number <= WIDTH_MAX)?;
    Some((Some(number), rest))
}
