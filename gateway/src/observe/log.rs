//! The process's own log: tracing events as lines on standard error.

use std::fmt::{self, Write};
use std::io::{self, IsTerminal};

use tracing::field::Field;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{Writer, debug_fn};

pub use super::access_log::Format;

/// Most bytes of one field of an event.
const FIELD_BYTES_MAX: usize = 4096;

/// Ends what was cut.
const CUT: &str = "...";

/// Why the log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    #[error("log filter {filter:?}: {source}")]
    Filter {
        filter: String,
        source: tracing_subscriber::filter::ParseError,
    },
    #[error("the process already has a log")]
    Taken,
}

/// Sends events to standard error from now on, one line each. `filter` is in the syntax of
/// `tracing_subscriber::EnvFilter`: `info`, or `info,tidegate=debug`. The h2 crate may only speak of
/// errors unless the filter names it.
///
/// # Errors
/// When the filter is malformed, or the process has a log already.
pub fn init(format: Format, filter: &str) -> Result<(), InitError> {
    // It warns of what clients do, once for each time they do it.
    let parsed = EnvFilter::builder()
        .parse(format!("h2=error,{filter}"))
        .map_err(|source| InitError::Filter {
            filter: filter.to_owned(),
            source,
        })?;
    let builder = tracing_subscriber::fmt().with_env_filter(parsed);
    let result = match format {
        Format::Text => builder
            .with_writer(io::stderr)
            .with_ansi(io::stderr().is_terminal())
            .with_target(false)
            .fmt_fields(harmless_fields())
            .try_init(),
        Format::Json => builder
            .json()
            .flatten_event(true)
            .with_writer(|| HarmlessJson(io::stderr()))
            .try_init(),
    };
    result.map_err(|_taken| InitError::Taken)
}

/// Writes the message, then `name=value` of the other fields, so that an event stays one line and
/// cannot steer a terminal: values may carry what clients and services said, and the library
/// escapes only some of them.
fn harmless_fields() -> impl for<'w> FormatFields<'w> + Send + Sync + 'static {
    let field = |writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug| {
        let mut escaping = Escaping {
            out: writer,
            left: FIELD_BYTES_MAX,
        };
        match field.name() {
            "message" => write!(escaping, "{value:?}"),
            name => write!(escaping, "{name}={value:?}"),
        }
    };
    debug_fn(field).delimited(" ")
}

/// Escapes what could break a line or steer a terminal, and cuts what is too long.
struct Escaping<'a, W> {
    out: &'a mut W,
    /// Bytes that may still be taken in.
    left: usize,
}

impl<W: Write> Write for Escaping<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.left == 0 {
            return Ok(());
        }
        let whole = text.len() <= self.left;
        let mut rest = &text[..text.floor_char_boundary(self.left)];
        self.left = if whole { self.left - text.len() } else { 0 };
        while let Some(place) = rest.find(steers) {
            let (harmless, from) = rest.split_at(place);
            self.out.write_str(harmless)?;
            let mut characters = from.chars();
            if let Some(control) = characters.next() {
                write!(self.out, "{}", control.escape_default())?;
            }
            rest = characters.as_str();
        }
        self.out.write_str(rest)?;
        if whole {
            Ok(())
        } else {
            self.out.write_str(CUT)
        }
    }
}

/// Controls (C0, DEL, C1), and what else ends a line or turns the direction of text for some readers.
fn steers(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}'
        )
}

/// Takes whole lines of JSON and escapes in them what the library lets pass.
struct HarmlessJson<W>(W);

impl<W: io::Write> io::Write for HarmlessJson<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let line = String::from_utf8_lossy(bytes);
        let line = line.trim_end_matches('\n');
        let short = (line.len() > FIELD_BYTES_MAX).then(|| shortened(line));
        let line = short.as_deref().unwrap_or(line);
        let mut out = String::with_capacity(line.len() + 1);
        for character in line.chars() {
            if steers(character) {
                // Such characters stand inside of strings only.
                for unit in character.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            } else {
                out.push(character);
            }
        }
        out.push('\n');
        self.0.write_all(out.as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// The same object with every text cut that is too long.
fn shortened(line: &str) -> String {
    let Ok(mut event) = serde_json::from_str::<serde_json::Map<_, _>>(line) else {
        return line.to_owned();
    };
    for (_, value) in &mut event {
        if let serde_json::Value::String(text) = value
            && text.len() > FIELD_BYTES_MAX
        {
            text.truncate(text.floor_char_boundary(FIELD_BYTES_MAX));
            text.push_str(CUT);
        }
    }
    serde_json::Value::Object(event).to_string()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_event_is_one_line_whatever_it_carries() {
        let shared = Shared::default();
        let sink = shared.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_target(false)
            .without_time()
            .fmt_fields(harmless_fields())
            .with_writer(move || sink.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let said = "a\r\nfake line\x1b[2J\x07\u{9b}1m";
            tracing::warn!(%said, code = 7, quoted = said, "the service says: {said}");
        });
        let text = String::from_utf8(shared.0.lock().unwrap().clone()).unwrap();
        let escaped = "a\\r\\nfake line\\u{1b}[2J\\u{7}\\u{9b}1m";
        let quoted = format!("{escaped:?}").replace("\\\\", "\\");
        assert_eq!(
            text,
            format!(" WARN the service says: {escaped} said={escaped} code=7 quoted={quoted}\n")
        );
    }

    /// What an event that carries a text is written as, in each format.
    fn written(said: &str) -> [String; 2] {
        let builder = || {
            tracing_subscriber::fmt()
                .with_ansi(false)
                .with_target(false)
                .without_time()
        };
        let (text, json) = (Shared::default(), Shared::default());
        let event = || tracing::warn!(%said, "heard {said}");
        let sink = text.clone();
        let subscriber = builder()
            .fmt_fields(harmless_fields())
            .with_writer(move || sink.clone());
        tracing::subscriber::with_default(subscriber.finish(), event);
        let sink = json.clone();
        let subscriber = builder()
            .json()
            .flatten_event(true)
            .with_writer(move || HarmlessJson(sink.clone()));
        tracing::subscriber::with_default(subscriber.finish(), event);
        [text, json].map(|sink| String::from_utf8(sink.0.lock().unwrap().clone()).unwrap())
    }

    /// Text out of what is likely to be taken for something else.
    fn hostile() -> impl Strategy<Value = String> {
        let odd = "[\\PC\\n\\r\\x1b\\x00\\x7f\u{85}\u{9b}\u{2028}\u{2029}\u{202e}\u{2066}\u{feff}\"\\\\{}]{0,40}";
        proptest::string::string_regex(odd).unwrap()
    }

    proptest! {
        #[test]
        fn a_log_line_is_one_line_and_steers_nothing(said in hostile()) {
            for line in written(&said) {
                let inside = line.strip_suffix('\n').unwrap();
                prop_assert!(!inside.contains(steers), "{inside:?}");
            }
            let [_, json] = written(&said);
            let event: serde_json::Value = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(event["said"].as_str(), Some(&*said));
        }
    }

    #[test]
    fn what_is_long_is_cut() {
        for long in ["x".repeat(100_000), "\u{e9}".repeat(50_000)] {
            let [text, json] = written(&long);
            assert!(text.len() < 3 * FIELD_BYTES_MAX, "{} bytes", text.len());
            assert!(text.matches(CUT).count() == 2 && text.ends_with("...\n"));
            let event: serde_json::Value = serde_json::from_str(&json).unwrap();
            for field in ["said", "message"] {
                let field = event[field].as_str().unwrap();
                assert!(field.len() <= FIELD_BYTES_MAX + CUT.len() && field.ends_with(CUT));
            }
        }
    }

    #[test]
    fn a_malformed_filter_is_an_error_that_names_it() {
        let error = init(Format::Text, "tidegate=loud").unwrap_err();
        assert!(error.to_string().contains("tidegate=loud"), "{error}");
    }
}
