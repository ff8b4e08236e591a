//! The command line: what people type, and what they read back.
//!
//! Every flag exists as a `TIDEGATE_*` variable; a flag wins. Answers go to standard output, what
//! went wrong to standard error. Exit codes: 0 done, 1 it did not work, 2 wrong usage.

mod admin;
mod demo;
mod demo_service;
mod explain;
mod load;
mod prewarm;
mod run;
mod validate;

use std::ffi::OsString;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use tracing_subscriber::filter::LevelFilter;

use crate::observe;

const EXAMPLES: &str = "\
Examples:
  tidegate demo                               from zero and back, on this machine
  tidegate run -f routes.yaml                 serve what the file says
  tidegate validate -f routes.yaml            is the file right, and if not, what to write instead
  tidegate explain -f routes.yaml http://hello.default.example.com/
                                              where a request would go, and why

Every flag exists as a variable of the environment, too; its name stands beside it.";

/// A reverse-proxy gateway that holds requests while it wakes what answers them.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, after_help = EXAMPLES, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve what configuration files say, until SIGTERM or Ctrl-C.
    Run(run::RunArgs),
    /// Check configuration files: exit 0 when they are valid, 1 when not.
    Validate(validate::ValidateArgs),
    /// Say where a request would go, and why.
    Explain(explain::ExplainArgs),
    /// Ask a running gateway for endpoints before requests come.
    Prewarm(prewarm::PrewarmArgs),
    /// Show scaling from zero and back with two revisions of a tiny service.
    Demo(demo::DemoArgs),
    /// Print the JSON Schema of the configuration file.
    Schema,
    /// What owns the processes of revisions; started by the gateway.
    #[command(hide = true)]
    Supervise,
    /// The tiny service of `demo` and the examples; started by the gateway.
    #[command(hide = true)]
    DemoService(demo_service::ServiceArgs),
}

/// How the process's own log looks, and how much there is of it.
#[derive(Debug, Args)]
struct LogArgs {
    /// How the process's own log looks; the access log has a format of its own.
    #[arg(
        long,
        value_enum,
        value_name = "FORMAT",
        default_value = "text",
        env = "TIDEGATE_LOG_FORMAT"
    )]
    log_format: Format,
    /// What is logged: error, warn, info, debug or off, also by module like `info,tidegate=debug`.
    #[arg(long = "log", value_name = "FILTER", value_parser = filter, env = "TIDEGATE_LOG")]
    filter: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// For tools.
    Json,
}

impl LogArgs {
    fn init(&self, filter: &str) -> Result<(), observe::log::InitError> {
        let format = match self.log_format {
            Format::Text => observe::log::Format::Text,
            Format::Json => observe::log::Format::Json,
        };
        observe::log::init(format, self.filter.as_deref().unwrap_or(filter))?;
        observe::panics::watch();
        Ok(())
    }
}

/// Does what the arguments of this process ask for.
#[must_use]
pub fn main() -> ExitCode {
    let result = match Cli::parse_from_arguments(std::env::args_os()) {
        Ok(cli) => cli.command.execute(),
        Err(error) => {
            // Help and version are such errors, too; they print to standard output.
            let code = u8::try_from(error.exit_code()).unwrap_or(2);
            error
                .print()
                .map(|()| ExitCode::from(code))
                .map_err(anyhow::Error::from)
        }
    };
    result.unwrap_or_else(|error| {
        if !is_broken_pipe(&error) {
            tell(&format!("tidegate: {error:#}\n"));
        }
        ExitCode::FAILURE
    })
}

impl Command {
    fn execute(self) -> anyhow::Result<ExitCode> {
        match self {
            Command::Run(args) => run::run(args),
            Command::Validate(args) => validate::validate(args),
            Command::Explain(args) => explain::explain(args),
            Command::Prewarm(args) => prewarm::prewarm(&args),
            Command::Demo(args) => demo::demo(&args),
            Command::Schema => {
                print(&format!("{:#}\n", config::schema()))?;
                Ok(ExitCode::SUCCESS)
            }
            Command::Supervise => Ok(activator::scaler::local::supervise()),
            Command::DemoService(args) => demo_service::serve(args),
        }
    }
}

impl Cli {
    /// Reads arguments, the program's name first, and variables for what they leave out.
    fn parse_from_arguments<I, T>(arguments: I) -> Result<Cli, clap::Error>
    where
        I: IntoIterator<Item = T>,
        T: Into<OsString> + Clone,
    {
        let matches = Cli::command().try_get_matches_from(arguments)?;
        let mut cli = Cli::from_arg_matches(&matches)?;
        let Some((_, given)) = matches.subcommand() else {
            return Ok(cli);
        };
        match &mut cli.command {
            Command::Run(args) => split_variable(&mut args.files, given),
            Command::Validate(args) => split_variable(&mut args.files, given),
            Command::Explain(args) => {
                split_variable(&mut args.files, given);
                args.settle(is_flag(given, "files"), is_flag(given, "admin"))
                    .map_err(|problem| usage("explain", problem))?;
            }
            Command::Prewarm(_)
            | Command::Demo(_)
            | Command::Schema
            | Command::Supervise
            | Command::DemoService(_) => {}
        }
        Ok(cli)
    }
}

fn is_flag(given: &ArgMatches, id: &str) -> bool {
    given.value_source(id) == Some(ValueSource::CommandLine)
}

/// A variable is one text: several files are parted by commas there. On the command line a comma
/// is part of a name.
fn split_variable(files: &mut Vec<PathBuf>, given: &ArgMatches) {
    if given.value_source("files") == Some(ValueSource::EnvVariable) {
        *files = split_at_commas(files);
    }
}

fn split_at_commas(files: &[PathBuf]) -> Vec<PathBuf> {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let parts = files
        .iter()
        .flat_map(|text| text.as_os_str().as_bytes().split(|byte| *byte == b','));
    parts
        .filter(|part| !part.is_empty())
        .map(|part| PathBuf::from(OsStr::from_bytes(part)))
        .collect()
}

fn usage(subcommand: &str, problem: &'static str) -> clap::Error {
    let mut command = Cli::command();
    // Gives subcommands their whole names.
    command.build();
    let command = match command.find_subcommand_mut(subcommand) {
        Some(found) => found,
        None => &mut command,
    };
    command.error(ErrorKind::MissingRequiredArgument, problem)
}

/// Reads a number of something.
fn count(text: &str) -> Result<usize, &'static str> {
    text.parse()
        .map_err(|_malformed| "write a whole number, like 4")
}

/// Reads what is logged. A word that is no level would be taken for a module, and nothing else be
/// logged; what is finer than `debug` is not built in.
fn filter(text: &str) -> Result<String, &'static str> {
    let level = |directive: &str| {
        let level = directive.rsplit('=').next().unwrap_or_default().trim();
        level
            .parse()
            .is_ok_and(|level: LevelFilter| level != LevelFilter::TRACE)
    };
    // Spans have commas and equals signs of their own.
    if text.contains('[')
        || text
            .split(',')
            .all(|one| one.trim().is_empty() || level(one))
    {
        return Ok(text.to_owned());
    }
    Err("write error, warn, info, debug or off, or MODULE=LEVEL, parted by commas")
}

/// Reads an address of ours.
fn address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse()
        .map_err(|_malformed| "write IP:PORT, like 127.0.0.1:8080 or [::1]:8080")
}

/// An answer, to standard output at once: it may be a pipe that somebody waits at.
fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Words about an answer, to standard error.
fn tell(text: &str) {
    // Nobody is left to be told that nobody can be told.
    drop(io::stderr().lock().write_all(text.as_bytes()));
}

/// Whoever read our answer has seen enough (`| head`).
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}

#[cfg(test)]
mod tests;
