//! Becoming another program, with its processors chosen and its end tied to that of who asked.
//!
//! Between fork and exec one may do little, and nothing without unsafe code; a program that changes
//! itself and then becomes the other needs neither.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::Context as _;
use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::system;

/// The options of this command.
#[derive(Debug, clap::Args)]
pub struct LaunchArgs {
    /// Run on these processors only.
    #[arg(long, value_name = "N,N", value_delimiter = ',')]
    cpus: Vec<usize>,
    /// The process that asked; when it ends, so does this one.
    #[arg(long, value_name = "PID")]
    parent: i32,
    /// What to become.
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Becomes the program; returns only if it cannot.
///
/// # Errors
///
/// The processors are not there, or the program is not.
pub fn main(args: LaunchArgs) -> anyhow::Result<()> {
    system::raise_descriptor_limit();
    if !args.cpus.is_empty() {
        let mut cpus = CpuSet::new();
        for cpu in &args.cpus {
            anyhow::ensure!(*cpu < CpuSet::MAX_CPU, "there is no processor {cpu}");
            cpus.set(*cpu);
        }
        sched_setaffinity(None, &cpus)
            .with_context(|| format!("cannot run on processors {:?}", args.cpus))?;
    }
    // Not SIGKILL: what has children of its own shall have the time to end them.
    set_parent_process_death_signal(Some(Signal::TERM))?;
    // Whoever asked may have ended before the line above.
    let parent = getppid().map(|parent| parent.as_raw_nonzero().get());
    anyhow::ensure!(parent == Some(args.parent), "its parent has gone");
    let mut command = args.command.into_iter();
    let program = command.next().context("no program was named")?;
    let failed = Command::new(&program).args(command).exec();
    Err(failed).with_context(|| format!("cannot run {}", program.display()))
}
