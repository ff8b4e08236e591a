//! The one thread that reads all rings, formats, and writes.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{self, Thread};
use std::time::{Duration, Instant, SystemTime};

use rtrb::Consumer;

use crate::observe::metrics::Registry;

use super::{Config, Format, Mode, Signals, Switches, Target, format, record, request};

/// The longest a record stays in a ring, while the log's reader keeps up.
const WAKE: Duration = Duration::from_millis(50);

/// Bytes gathered before they are written.
const BATCH: usize = 64 << 10;

/// A log that cannot be written is complained about this often.
const COMPLAIN: Duration = Duration::from_secs(60);

/// What the thread owns.
#[derive(Debug)]
pub(super) struct Log {
    rings: Vec<Consumer<u8>>,
    base: Instant,
    sinks: Sinks,
    signals: Arc<Signals>,
    switches: Arc<Switches>,
    registry: Arc<Registry>,
    /// Records as they left a ring.
    records: Vec<u8>,
    lines: Vec<u8>,
    /// How many records `lines` holds.
    gathered: u64,
    /// One line of the request log.
    request: Vec<u8>,
    complained: Option<Instant>,
}

/// Where the lines of both logs go, and how those of the access log look.
#[derive(Debug)]
pub(super) struct Sinks {
    format: Format,
    /// `None` when there is no access log.
    access: Option<Sink>,
    requests: Option<Sink>,
}

impl Sinks {
    pub(super) fn open(config: &Config) -> io::Result<Sinks> {
        let access = (config.mode != Mode::Off).then_some(&config.file);
        Ok(Sinks {
            format: config.format,
            access: access.map(Sink::open).transpose()?,
            requests: config.requests.as_ref().map(Sink::open).transpose()?,
        })
    }
}

/// Where lines go.
#[derive(Debug)]
enum Sink {
    Stderr,
    Stdout,
    File { path: PathBuf, file: File },
}

impl Sink {
    fn open(target: &Target) -> io::Result<Sink> {
        match target {
            Target::Stderr => Ok(Sink::Stderr),
            Target::Stdout => Ok(Sink::Stdout),
            Target::Path(path) => Ok(Sink::File {
                file: append(path)?,
                path: path.clone(),
            }),
        }
    }

    fn reopen(&mut self) {
        if let Sink::File { path, file } = self {
            match append(path) {
                Ok(new) => *file = new,
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "the access log cannot be opened again");
                }
            }
        }
    }

    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Sink::Stderr => io::stderr().lock().write_all(lines),
            // Whole lines are written at once and not kept.
            Sink::Stdout => io::stdout().lock().write_all(lines),
            Sink::File { file, .. } => file.write_all(lines),
        }
    }
}

/// Readable by its group, for log shippers, and by nobody else.
fn append(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)
}

/// Starts the thread. The receiver is disconnected when it has ended.
pub(super) fn spawn(log: Log) -> io::Result<(Thread, Receiver<()>)> {
    let (ends, ended) = sync_channel(0);
    let handle = thread::Builder::new()
        .name("access-log".to_owned())
        .spawn(move || {
            log.run();
            drop(ends);
        })?;
    Ok((handle.thread().clone(), ended))
}

impl Log {
    pub(super) fn new(
        rings: Vec<Consumer<u8>>,
        base: Instant,
        sinks: Sinks,
        signals: Arc<Signals>,
        switches: Arc<Switches>,
        registry: Arc<Registry>,
    ) -> Log {
        Log {
            rings,
            base,
            sinks,
            signals,
            switches,
            registry,
            records: Vec::new(),
            lines: Vec::with_capacity(BATCH),
            gathered: 0,
            request: Vec::new(),
            complained: None,
        }
    }

    fn run(mut self) {
        loop {
            // Read before the rings are: what was written before the signal is still written.
            let stop = self.signals.stop.load(Acquire);
            if self.signals.reopen.swap(false, Relaxed) {
                self.sinks.access.iter_mut().for_each(Sink::reopen);
                self.sinks.requests.iter_mut().for_each(Sink::reopen);
            }
            for ring in 0..self.rings.len() {
                self.drain(ring);
            }
            self.flush();
            if stop {
                return;
            }
            thread::park_timeout(WAKE);
        }
    }

    fn drain(&mut self, ring: usize) {
        let ring = &mut self.rings[ring];
        let available = ring.slots();
        let Ok(chunk) = ring.read_chunk(available) else {
            return;
        };
        // Workers publish whole records, so this ends with one.
        let (head, tail) = chunk.as_slices();
        self.records.clear();
        self.records.extend_from_slice(head);
        self.records.extend_from_slice(tail);
        chunk.commit_all();

        let records = std::mem::take(&mut self.records);
        let mut rest = records.as_slice();
        let (now, wall) = (Instant::now(), SystemTime::now());
        let template = self.switches.template.load_full();
        while let Some(record) = record::decode(&mut rest) {
            if let (Some(template), Some(asked)) = (&template, &record.asked) {
                request::line(template, &record, asked, &mut self.request);
                self.write_request();
            }
            if record.weight == 0 {
                continue;
            }
            let ago = now.saturating_duration_since(self.base + record.arrived);
            let arrived = wall.checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH);
            match self.sinks.format {
                Format::Text => format::text(&mut self.lines, &record, arrived),
                Format::Json => format::json(&mut self.lines, &record, arrived),
            }
            self.gathered += 1;
            if self.lines.len() >= BATCH {
                self.flush();
            }
        }
        self.records = records;
    }

    fn flush(&mut self) {
        let written = match &mut self.sinks.access {
            Some(sink) if !self.lines.is_empty() => sink.write(&self.lines),
            _ => Ok(()),
        };
        if let Err(error) = written {
            self.lost(self.gathered, &error);
        }
        self.lines.clear();
        self.gathered = 0;
    }

    /// Each line by itself: others may write to the same place.
    fn write_request(&mut self) {
        let written = match &mut self.sinks.requests {
            Some(sink) => sink.write(&self.request),
            None => Ok(()),
        };
        if let Err(error) = written {
            self.lost(1, &error);
        }
    }

    fn lost(&mut self, records: u64, error: &io::Error) {
        self.registry.add_unwritten(records);
        let now = Instant::now();
        let due = self
            .complained
            .is_none_or(|last| now.duration_since(last) >= COMPLAIN);
        if due {
            self.complained = Some(now);
            tracing::error!(%error, "a log of requests cannot be written");
        }
    }
}
