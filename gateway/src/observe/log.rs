//! The process's own log: tracing events as lines on standard error.

use std::io::{self, IsTerminal, Write};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

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
/// `tracing_subscriber::EnvFilter`: `info`, or `info,tidegate=debug`.
///
/// # Errors
/// When the filter is malformed, or the process has a log already.
pub fn init(format: Format, filter: &str) -> Result<(), InitError> {
    let parsed = EnvFilter::builder()
        .parse(filter)
        .map_err(|source| InitError::Filter {
            filter: filter.to_owned(),
            source,
        })?;
    let builder = tracing_subscriber::fmt().with_env_filter(parsed);
    let result = match format {
        Format::Text => builder
            .with_ansi(io::stderr().is_terminal())
            .with_target(false)
            .with_writer(OneLine(io::stderr))
            .try_init(),
        Format::Json => builder
            .json()
            .flatten_event(true)
            .with_writer(io::stderr)
            .try_init(),
    };
    result.map_err(|_taken| InitError::Taken)
}

/// Makes every event one line that cannot steer a terminal: events may carry what clients and
/// services said.
#[derive(Debug)]
struct OneLine<M>(M);

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for OneLine<M> {
    type Writer = Escaping<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        Escaping(self.0.make_writer())
    }
}

/// The formatter writes each event with one call, and escapes ESC in values itself; its own colour
/// codes pass.
#[derive(Debug)]
struct Escaping<W>(W);

impl<W: Write> Write for Escaping<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let line = event.strip_suffix(b"\n").unwrap_or(event);
        let harmless = |byte: &u8| !byte.is_ascii_control() || matches!(byte, b'\x1b' | b'\t');
        if line.iter().all(harmless) {
            self.0.write_all(event)?;
            return Ok(event.len());
        }
        let mut escaped = Vec::with_capacity(event.len() + 16);
        for byte in line {
            if harmless(byte) {
                escaped.push(*byte);
            } else {
                escaped.extend(std::ascii::escape_default(*byte));
            }
        }
        escaped.extend_from_slice(&event[line.len()..]);
        self.0.write_all(&escaped)?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
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
        for ansi in [false, true] {
            let shared = Shared::default();
            let sink = shared.clone();
            let subscriber = tracing_subscriber::fmt()
                .with_ansi(ansi)
                .with_writer(OneLine(move || sink.clone()))
                .finish();
            tracing::subscriber::with_default(subscriber, || {
                let said = "a\r\nfake line\x1b[2J\x07";
                tracing::warn!(%said, "the service says: {said}");
            });
            let text = String::from_utf8(shared.0.lock().unwrap().clone()).unwrap();
            assert_eq!(text.lines().count(), 1, "{text:?}");
            assert!(text.ends_with('\n'));
            assert!(
                !text.contains("\x1b[2J") && !text.contains(['\r', '\x07']),
                "{text:?}"
            );
        }
    }

    #[test]
    fn a_malformed_filter_is_an_error_that_names_it() {
        let error = init(Format::Text, "tidegate=loud").unwrap_err();
        assert!(error.to_string().contains("tidegate=loud"), "{error}");
    }
}
