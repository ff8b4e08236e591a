//! A line is written: no step takes longer than the template and the record are long.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::LINE_MAX;
use super::compile::{Expr, Function, Node};
use super::fields::{Field, Value, Values};

/// Bytes of a line as it grows, within its bound.
pub(super) struct Line<'o> {
    out: &'o mut Vec<u8>,
    left: usize,
}

/// A template asks for a value of a list that is too short.
struct OutOfRange;

/// Appends the line of one request, with a line feed behind it.
pub(super) fn line(nodes: &[Node], values: &Values<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    if write_all(nodes, values, &mut Line::over(out)).is_err() {
        out.truncate(start);
        failed(values, &mut Line::over(out));
    }
    if out.last() != Some(&b'\n') || out.len() == start {
        out.push(b'\n');
    }
}

/// What is known of the request all the same.
fn failed(values: &Values<'_>, line: &mut Line<'_>) {
    let parts: [(&[u8], Value<'_>); 4] = [
        (
            b"Invalid request log template: method: ",
            Field::Method.of(values),
        ),
        (b", response code: ", Field::Code.of(values)),
        (b", latency: ", Field::Latency.of(values)),
        (b", url: ", Field::RequestUri.of(values)),
    ];
    for (text, value) in parts {
        line.push(text);
        line.value(&value);
    }
}

fn write_all(nodes: &[Node], values: &Values<'_>, line: &mut Line<'_>) -> Result<(), OutOfRange> {
    for node in nodes {
        match node {
            Node::Text(text) => line.push(text.as_bytes()),
            Node::Write(expr) => line.value(&evaluate(expr, values)?),
            Node::If {
                branches,
                otherwise,
            } => {
                let mut chosen = otherwise;
                for (condition, nodes) in branches {
                    if evaluate(condition, values)?.holds() {
                        chosen = nodes;
                        break;
                    }
                }
                write_all(chosen, values, line)?;
            }
        }
    }
    Ok(())
}

fn evaluate<'a>(expr: &'a Expr, values: &Values<'a>) -> Result<Value<'a>, OutOfRange> {
    Ok(match expr {
        Expr::Text(text) => Value::Text(Cow::Borrowed(text.as_bytes())),
        Expr::Int(int) => Value::Int(*int),
        Expr::Float(float) => Value::Float(*float),
        Expr::Bool(bool) => Value::Bool(*bool),
        Expr::Field(field) => field.of(values),
        Expr::Headers(name) => Value::List(values.all(name).collect()),
        Expr::Header(name) => Value::Text(values.header(name).into()),
        Expr::At(list, place) => match evaluate(list, values)? {
            Value::List(list) => Value::Text((*list.get(*place).ok_or(OutOfRange)?).into()),
            other => other,
        },
        Expr::Printf(format, arguments) => {
            let arguments = all(arguments, values)?;
            let mut text = Vec::new();
            format.write(&arguments, &mut Line::over(&mut text));
            Value::Text(text.into())
        }
        Expr::Call(function @ (Function::And | Function::Or), arguments) => {
            let stops_at = *function == Function::Or;
            let mut value = Value::Bool(!stops_at);
            // Those behind the one that decides are not looked at.
            for argument in arguments {
                value = evaluate(argument, values)?;
                if value.holds() == stops_at {
                    break;
                }
            }
            value
        }
        Expr::Call(function, arguments) => call(*function, &all(arguments, values)?),
    })
}

fn all<'a>(exprs: &'a [Expr], values: &Values<'a>) -> Result<Vec<Value<'a>>, OutOfRange> {
    exprs.iter().map(|expr| evaluate(expr, values)).collect()
}

fn call(function: Function, arguments: &[Value<'_>]) -> Value<'static> {
    let order = || match arguments {
        [one, other, ..] => one.compare(other),
        _ => None,
    };
    let escaped = |escape: fn(&[u8], &mut Line<'_>)| {
        let (mut plain, mut text) = (Vec::new(), Vec::new());
        for argument in arguments {
            Line::over(&mut plain).value(argument);
        }
        escape(&plain, &mut Line::over(&mut text));
        Value::Text(text.into())
    };
    Value::Bool(match function {
        Function::Js => return escaped(js),
        Function::Html => return escaped(html),
        Function::UrlQuery => return escaped(url_query),
        Function::Len => {
            let length = match arguments {
                [Value::Text(text)] => text.len(),
                [Value::List(list)] => list.len(),
                _ => 0,
            };
            return Value::Int(i64::try_from(length).unwrap_or(i64::MAX));
        }
        Function::Not => !arguments.first().is_some_and(Value::holds),
        Function::Eq => match arguments.split_first() {
            Some((first, others)) => others.contains(first),
            None => false,
        },
        Function::Ne => order() != Some(Ordering::Equal),
        Function::Lt => order() == Some(Ordering::Less),
        Function::Le => matches!(order(), Some(Ordering::Less | Ordering::Equal)),
        Function::Gt => order() == Some(Ordering::Greater),
        Function::Ge => matches!(order(), Some(Ordering::Greater | Ordering::Equal)),
        // They do not look at all of theirs.
        Function::And | Function::Or => arguments.last().is_some_and(Value::holds),
    })
}

impl Value<'_> {
    /// Not empty and not zero.
    fn holds(&self) -> bool {
        match self {
            Value::Text(text) => !text.is_empty(),
            Value::Int(int) => *int != 0,
            Value::Float(float) => *float != 0.0,
            Value::Bool(bool) => *bool,
            Value::List(list) => !list.is_empty(),
        }
    }

    fn compare(&self, other: &Value<'_>) -> Option<Ordering> {
        match (self, other) {
            (Value::Text(one), Value::Text(other)) => Some(one.cmp(other)),
            (Value::Int(one), Value::Int(other)) => Some(one.cmp(other)),
            (Value::Float(one), Value::Float(other)) => one.partial_cmp(other),
            (Value::Bool(one), Value::Bool(other)) => Some(one.cmp(other)),
            _ => None,
        }
    }
}

impl<'o> Line<'o> {
    /// Appends to `out`, within the bound of a line.
    pub(super) fn over(out: &'o mut Vec<u8>) -> Line<'o> {
        Line {
            out,
            left: LINE_MAX,
        }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        let bytes = &bytes[..bytes.len().min(self.left)];
        self.left -= bytes.len();
        self.out.extend_from_slice(bytes);
    }

    /// As Go prints it.
    pub(super) fn value(&mut self, value: &Value<'_>) {
        match value {
            Value::Text(text) => self.push(text),
            Value::Int(int) => self.push(int.to_string().as_bytes()),
            Value::Float(value) => self.push(float(*value).as_bytes()),
            Value::Bool(bool) => self.push(bool.to_string().as_bytes()),
            Value::List(list) => {
                self.push(b"[");
                for (place, text) in list.iter().enumerate() {
                    self.push(if place == 0 { b"" } else { b" " });
                    self.push(text);
                }
                self.push(b"]");
            }
        }
    }
}

/// The shortest text that reads as this number, with an exponent where it is below -4 or above 5.
pub(super) fn float(value: f64) -> String {
    let text = format!("{value:e}");
    let parts = text.split_once('e');
    let exponent = parts.and_then(|(_, exponent)| exponent.parse::<i32>().ok());
    match (parts, exponent) {
        (Some((digits, _)), Some(exponent)) if !(-4..6).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }
        _ => value.to_string(),
    }
}

/// Within quotes of JavaScript, and of JSON too: an apostrophe is `\u0027` rather than `\'`. All
/// beyond ASCII is escaped, and what is no UTF-8 becomes U+FFFD.
fn js(text: &[u8], line: &mut Line<'_>) {
    for letter in String::from_utf8_lossy(text).chars() {
        match letter {
            '\\' => line.push(br"\\"),
            '"' => line.push(br#"\""#),
            '\'' | '<' | '>' | '&' | '=' | '\0'..=' ' | '\u{7f}'.. if letter != ' ' => {
                for unit in letter.encode_utf16(&mut [0; 2]) {
                    line.push(format!("\\u{unit:04X}").as_bytes());
                }
            }
            plain => line.push(plain.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

fn html(text: &[u8], line: &mut Line<'_>) {
    for &byte in text {
        match byte {
            b'"' => line.push(b"&#34;"),
            b'\'' => line.push(b"&#39;"),
            b'&' => line.push(b"&amp;"),
            b'<' => line.push(b"&lt;"),
            b'>' => line.push(b"&gt;"),
            0 => line.push("\u{fffd}".as_bytes()),
            plain => line.push(&[plain]),
        }
    }
}

fn url_query(text: &[u8], line: &mut Line<'_>) {
    for &byte in text {
        match byte {
            b' ' => line.push(b"+"),
            b'-' | b'_' | b'.' | b'~' => line.push(&[byte]),
            plain if plain.is_ascii_alphanumeric() => line.push(&[plain]),
            other => line.push(format!("%{other:02X}").as_bytes()),
        }
    }
}
