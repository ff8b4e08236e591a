//! The command line.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::system::tell;
use crate::{backend, compare, copy, generate, launch};

const EXAMPLES: &str = "\
Examples:
  loadtest backend --listen 127.0.0.1:9000             an upstream that answers at once
  loadtest run http://127.0.0.1:9000/ -c 64 -d 10s     as fast as 64 connections can
  loadtest run http://127.0.0.1:9000/ --rate 5000      5 000 requests a second, come what may
  loadtest compare --scenario keepalive --rounds 5     beside nginx, haproxy and the others";

/// What a request costs: load, an upstream, and a comparison of proxies.
#[derive(Debug, Parser)]
#[command(name = "loadtest", version, after_help = EXAMPLES, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Send requests and say what came back, and how fast.
    Run(Box<generate::RunArgs>),
    /// Answer requests: the upstream behind every proxy.
    Backend(backend::BackendArgs),
    /// Send the same work through each proxy in turn and compare what it cost.
    Compare(compare::CompareArgs),
    /// Copy bytes between a client and an upstream: the floor of `compare`.
    #[command(hide = true)]
    Copy(copy::CopyArgs),
    /// Proxy on pingora, as little as that takes: a peer of `compare`.
    #[cfg(feature = "peer-pingora")]
    #[command(hide = true)]
    Pingora(crate::pingora::PingoraArgs),
    /// Become another program, on chosen processors and not outliving who asked: for `compare`.
    #[command(hide = true)]
    Launch(launch::LaunchArgs),
}

/// Reads the command line and does what it says: 0 done, 1 it did not work, 2 wrong usage.
#[must_use]
pub fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(args) => generate::main(&args),
        Command::Backend(args) => backend::main(args),
        Command::Compare(args) => compare::main(args),
        Command::Copy(args) => copy::main(args),
        #[cfg(feature = "peer-pingora")]
        Command::Pingora(args) => crate::pingora::main(args),
        Command::Launch(args) => launch::main(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&format!("loadtest: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
