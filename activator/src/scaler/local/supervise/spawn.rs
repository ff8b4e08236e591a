//! Executes a revision's program.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::scaler::local::protocol::{Refusal, Start};

/// What the gateway calls itself; as a command it means this very binary when it is not on `PATH`.
const OWN_NAME: &str = "tidegate";
/// What is not passed on of our own environment: all that begins with this,
const OWN_VARIABLES: &[u8] = b"TIDEGATE_";
/// and what a service manager says to us alone.
const MANAGER_VARIABLES: [&str; 4] = [
    "NOTIFY_SOCKET",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
];

/// Starts the process in a group of its own, its output in pipes.
///
/// # Errors
/// Why not.
pub(super) fn spawn(start: &Start) -> Result<Child, Refusal> {
    let (program, arguments) = start.command.split_first().ok_or_else(|| Refusal {
        cause: "there is no command".to_owned(),
        detail: "`command` is empty".to_owned(),
    })?;
    let path = start
        .env
        .iter()
        .rfind(|(name, _)| name == "PATH")
        .map(|(_, value)| OsString::from(value))
        .or_else(|| env::var_os("PATH"));
    let own = (program == OWN_NAME && !is_on_path(program, path.as_deref()))
        .then(env::current_exe)
        .and_then(Result::ok);
    let port = start.port.to_string();
    let mut command = Command::new(own.as_deref().unwrap_or(Path::new(program)));
    for (name, _) in env::vars_os() {
        let for_us = MANAGER_VARIABLES.iter().any(|variable| name == *variable);
        if for_us || name.as_bytes().starts_with(OWN_VARIABLES) {
            command.env_remove(name);
        }
    }
    command
        .args(arguments.iter().map(|text| text.replace("$PORT", &port)))
        .envs(start.env.iter().map(|(name, value)| (name, value)))
        .env("PORT", &port)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    if let Some(directory) = &start.directory {
        if !directory.is_dir() {
            return Err(Refusal {
                cause: "the directory of its command does not exist".to_owned(),
                detail: format!("{} is not a directory", directory.display()),
            });
        }
        command.current_dir(directory);
    }
    command.spawn().map_err(|error| refusal(program, &error))
}

fn refusal(program: &str, error: &io::Error) -> Refusal {
    let cause = match error.kind() {
        ErrorKind::NotFound => "its command was not found",
        ErrorKind::PermissionDenied => "its command may not be executed",
        _ => "its command cannot be executed",
    };
    Refusal {
        cause: cause.to_owned(),
        detail: format!("cannot execute {program:?}: {error}"),
    }
}

fn is_on_path(program: &str, path: Option<&OsStr>) -> bool {
    path.is_some_and(|path| {
        env::split_paths(path).any(|directory| {
            directory
                .join(program)
                .metadata()
                .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
        })
    })
}
