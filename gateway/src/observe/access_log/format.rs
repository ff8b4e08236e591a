//! One record as a line of text or JSON, of printable ASCII whatever the client sent.

use std::fmt;
use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::observe::facts::WaitReason;
use crate::refusal::Reason;

use super::record::{LIMITS, Record, string};
use super::redact::redact;

/// Ends a string that was cut.
const CUT: &[u8] = b"...";

/// Appends one line:
/// `TIME CLIENT "METHOD HOST TARGET PROTOCOL" CODE REASON route=.. revision=.. endpoint=.. q=.. e=..
/// o=.. t=.. i=.. held=.. wait=.. attempts=.. in=.. out=.. id=.. agent=".." weight=..`
///
/// Timers are milliseconds: `q` in the queue, `e` at the endpoint, `o` our own share, `t` in total, `i` of
/// `e` at rest.
/// What is missing is `-`.
pub(super) fn text(out: &mut Vec<u8>, record: &Record<'_>, arrived: SystemTime) {
    let token = |index| Token(record.strings[index], LIMITS[index]);
    let reason = record.reason.map_or("-", Reason::word);
    let target = visible_target(record);
    let (namespace, route) = (token(string::NAMESPACE), token(string::ROUTE));
    let method = token(string::METHOD);
    let host = token(string::HOST);
    let protocol = record.protocol.word();
    let written = writeln!(
        out,
        "{time} {client} \"{method} {host} {target} {protocol}\" {code:03} {reason} \
         route={namespace}/{route} revision={revision} endpoint={endpoint} \
         q={q} e={e} o={o} t={t} i={i} held={held} wait={wait} attempts={attempts} in={bytes_in} out={bytes_out} \
         id={id} agent=\"{agent}\" weight={weight}",
        time = Time(arrived),
        client = record.client,
        target = Token(&target, LIMITS[string::TARGET]),
        code = record.code,
        revision = token(string::REVISION),
        endpoint = Dash(record.endpoint_address),
        q = Millis(record.waited),
        e = Millis(record.endpoint),
        o = Millis(overhead(record)),
        t = Millis(record.total),
        i = Millis(record.rested),
        held = u8::from(record.held),
        wait = record.wait_reason.map_or("-", WaitReason::word),
        attempts = record.attempts,
        bytes_in = record.request_bytes,
        bytes_out = record.response_bytes,
        id = token(string::REQUEST_ID),
        agent = Quoted(
            record.strings[string::USER_AGENT],
            LIMITS[string::USER_AGENT]
        ),
        weight = record.weight,
    );
    debug_assert!(written.is_ok(), "writing to memory cannot fail");
}

/// Appends one JSON object and a line feed. Times are seconds.
pub(super) fn json(out: &mut Vec<u8>, record: &Record<'_>, arrived: SystemTime) {
    let value = |index| Json(record.strings[index], LIMITS[index]);
    let target = visible_target(record);
    let endpoint = record.endpoint_address.map(|address| address.to_string());
    let endpoint = endpoint.unwrap_or_default();
    let written = writeln!(
        out,
        "{{\"time\":\"{time}\",\"client\":\"{client}\",\"method\":{method},\"host\":{host},\
         \"target\":{target},\"protocol\":\"{protocol}\",\"code\":{code},\"reason\":\"{reason}\",\
         \"namespace\":{namespace},\"route\":{route},\"revision\":{revision},\
         \"endpoint\":\"{endpoint}\",\"queueSeconds\":{q},\"endpointSeconds\":{e},\
         \"overheadSeconds\":{o},\"totalSeconds\":{t},\"idleSeconds\":{i},\"held\":{held},\"waitReason\":\"{wait}\",\"attempts\":{attempts},\
         \"requestBytes\":{bytes_in},\"responseBytes\":{bytes_out},\"requestId\":{id},\
         \"userAgent\":{agent},\"weight\":{weight}}}",
        time = Time(arrived),
        client = record.client,
        method = value(string::METHOD),
        host = value(string::HOST),
        target = Json(&target, LIMITS[string::TARGET]),
        protocol = record.protocol.word(),
        code = record.code,
        reason = record.reason.map_or("", Reason::word),
        namespace = value(string::NAMESPACE),
        route = value(string::ROUTE),
        revision = value(string::REVISION),
        q = Seconds(record.waited),
        e = Seconds(record.endpoint),
        o = Seconds(overhead(record)),
        t = Seconds(record.total),
        i = Seconds(record.rested),
        held = record.held,
        wait = record.wait_reason.map_or("", WaitReason::word),
        attempts = record.attempts,
        bytes_in = record.request_bytes,
        bytes_out = record.response_bytes,
        id = value(string::REQUEST_ID),
        agent = value(string::USER_AGENT),
        weight = record.weight,
    );
    debug_assert!(written.is_ok(), "writing to memory cannot fail");
}

fn overhead(record: &Record<'_>) -> Duration {
    record
        .total
        .saturating_sub(record.waited)
        .saturating_sub(record.endpoint)
}

fn visible_target(record: &Record<'_>) -> Vec<u8> {
    let target = record.strings[string::TARGET];
    let mut visible = Vec::with_capacity(target.len());
    redact(target, &mut visible);
    visible
}

struct Time(SystemTime);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The formatter panics on times before the epoch, which a broken clock can show.
        humantime::format_rfc3339_millis(self.0.max(UNIX_EPOCH)).fmt(f)
    }
}

struct Millis(Duration);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}.{:03}",
            self.0.as_millis(),
            self.0.subsec_micros() % 1_000
        )
    }
}

struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0.as_secs(), self.0.subsec_micros())
    }
}

struct Dash<T>(Option<T>);

impl<T: fmt::Display> fmt::Display for Dash<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("-"),
        }
    }
}

/// Bytes as one word: no space, `-` when empty. The number is the longest it may become.
struct Token<'a>(&'a [u8], usize);

impl fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("-");
        }
        escaped(f, self.0, self.1, |byte| byte == b' ')
    }
}

/// Bytes inside quotes, which the caller writes.
struct Quoted<'a>(&'a [u8], usize);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        escaped(f, self.0, self.1, |_| false)
    }
}

/// `\xNN` for every byte that is not printable ASCII, that could end a quote or begin an escape,
/// or that `too` names.
fn escaped(
    f: &mut fmt::Formatter<'_>,
    bytes: &[u8],
    limit: usize,
    too: fn(u8) -> bool,
) -> fmt::Result {
    let mut left = limit - CUT.len();
    for &byte in bytes {
        let plain = matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\') && !too(byte);
        let width = if plain { 1 } else { 4 };
        if width > left {
            return f.write_str("...");
        }
        left -= width;
        if plain {
            fmt::Write::write_char(f, char::from(byte))?;
        } else {
            write!(f, "\\x{byte:02x}")?;
        }
    }
    Ok(())
}

/// Bytes as a JSON string with its quotes: text beyond ASCII as `\u` escapes, what is not UTF-8 as
/// U+FFFD. The number is the longest it may become.
struct Json<'a>(&'a [u8], usize);

impl fmt::Display for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        let mut left = self.1 - CUT.len();
        for chunk in self.0.utf8_chunks() {
            let invalid = (!chunk.invalid().is_empty()).then_some(char::REPLACEMENT_CHARACTER);
            for character in chunk.valid().chars().chain(invalid) {
                let width = json_width(character);
                if width > left {
                    return f.write_str("...\"");
                }
                left -= width;
                json_character(f, character)?;
            }
        }
        f.write_str("\"")
    }
}

fn json_width(character: char) -> usize {
    match character {
        '"' | '\\' => 2,
        ' '..='~' => 1,
        _ => 6 * character.len_utf16(),
    }
}

fn json_character(f: &mut fmt::Formatter<'_>, character: char) -> fmt::Result {
    match character {
        '"' | '\\' => write!(f, "\\{character}"),
        ' '..='~' => fmt::Write::write_char(f, character),
        _ => character
            .encode_utf16(&mut [0; 2])
            .iter()
            .try_for_each(|unit| write!(f, "\\u{unit:04x}")),
    }
}
