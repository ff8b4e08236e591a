//! Load, and what came back.
//!
//! [`RunArgs`] become a `Plan`; each thread (`thread.rs`) runs one task per connection, which asks
//! its `Pace` when to send the next request and tells its `Tally` how it ended. The tallies of all
//! threads make the [`Report`].

mod alarm;
mod answer;
mod args;
mod drive;
mod hosts;
mod http1;
mod http2;
mod io;
mod job;
mod lead;
mod pace;
mod plan;
mod plot;
mod progress;
mod tally;
mod target;
mod thread;
mod tls;
mod watch;
mod websocket;

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, bail};

pub use args::RunArgs;

use crate::report::Report;

/// Runs the command: sends the load, writes the report.
///
/// # Errors
///
/// An option has no meaning, the host has no address, a file cannot be written, or there was not
/// one answer.
pub fn main(args: &RunArgs) -> anyhow::Result<()> {
    let quiet = args.json.as_deref() == Some(Path::new("-"));
    let files = [
        args.json.as_deref().filter(|_| !quiet),
        args.plot.as_deref(),
    ];
    for file in files.into_iter().flatten() {
        writable(file)?;
    }
    let outcome = lead::run(args)?;
    let report = outcome.report;
    if !quiet {
        write_out(&report.to_string())?;
    }
    if let Some(file) = &args.json {
        write_json(file, &report)?;
    }
    if let Some(file) = &args.plot
        && report.answers > 0
    {
        plot::draw(file, &report, &outcome.latency)?;
    }
    if report.answers == 0 {
        let why = report.first_error.as_deref().unwrap_or("nothing was sent");
        bail!("not one answer from {}: {why}", report.url);
    }
    Ok(())
}

/// Sees to it before the load that the report can be written after it.
fn writable(file: &Path) -> anyhow::Result<()> {
    if fs::metadata(file).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
        // Who reads from a pipe would take the closing for the end.
        return Ok(());
    }
    let mut options = fs::OpenOptions::new();
    let opened = options.append(true).create(true).open(file);
    opened.with_context(|| format!("cannot write {}", file.display()))?;
    Ok(())
}

fn write_json(file: &Path, report: &Report) -> anyhow::Result<()> {
    let json = serde_json::to_string_pretty(report)? + "\n";
    if file == Path::new("-") {
        return write_out(&json);
    }
    fs::write(file, json).with_context(|| format!("cannot write {}", file.display()))
}

fn write_out(text: &str) -> anyhow::Result<()> {
    let written = std::io::stdout().lock().write_all(text.as_bytes());
    written.context("cannot write to standard output")
}
