//! The process's own log: tracing events as lines on standard error.

use std::fmt::{self, Write};
use std::io::{self, IsTerminal};

use tracing::field::Field;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{Writer, debug_fn};

pub use super::access_log::Format;

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
    let builder = tracing_subscriber::fmt()
        .with_env_filter(parsed)
        .with_writer(io::stderr);
    let result = match format {
        Format::Text => builder
            .with_ansi(io::stderr().is_terminal())
            .with_target(false)
            .fmt_fields(harmless_fields())
            .try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    };
    result.map_err(|_taken| InitError::Taken)
}

/// Writes the message, then `name=value` of the other fields, so that an event stays one line and
/// cannot steer a terminal: values may carry what clients and services said, and the library
/// escapes only some of them.
fn harmless_fields() -> impl for<'w> FormatFields<'w> + Send + Sync + 'static {
    let field = |writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug| {
        let mut escaping = Escaping(writer);
        match field.name() {
            "message" => write!(escaping, "{value:?}"),
            name => write!(escaping, "{name}={value:?}"),
        }
    };
    debug_fn(field).delimited(" ")
}

struct Escaping<'a, W>(&'a mut W);

impl<W: Write> Write for Escaping<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(place) = rest.find(char::is_control) {
            let (harmless, from) = rest.split_at(place);
            self.0.write_str(harmless)?;
            let mut characters = from.chars();
            if let Some(control) = characters.next() {
                write!(self.0, "{}", control.escape_default())?;
            }
            rest = characters.as_str();
        }
        self.0.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

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

    #[test]
    fn a_malformed_filter_is_an_error_that_names_it() {
        let error = init(Format::Text, "tidegate=loud").unwrap_err();
        assert!(error.to_string().contains("tidegate=loud"), "{error}");
    }
}
