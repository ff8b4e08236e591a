//! The program under test: `$TIDEGATE_BIN`, else built once.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The gateway's binary, of the same profile and target directory as the tests.
///
/// # Panics
/// When it cannot be built.
pub fn tidegate() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("TIDEGATE_BIN") {
        Some(path) => std::path::absolute(path).unwrap(),
        None => build(),
    })
}

/// A command that runs it, through a shell script where there is one, without the settings of
/// whoever runs the tests.
#[must_use]
pub fn command(script: Option<&str>) -> Command {
    let mut command = match script {
        None => Command::new(tidegate()),
        Some(script) => {
            let mut shell = Command::new("sh");
            shell.args(["-c", script]).arg(tidegate());
            shell
        }
    };
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TIDEGATE_") {
            command.env_remove(name);
        }
    }
    command
}

/// Of the profile of the tests that run: `…/target[/TRIPLE]/PROFILE`, of `…/deps/e2e-HASH` in it.
fn profile_directory() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    own.parent().and_then(Path::parent).unwrap().to_owned()
}

/// Cargo's target directory.
///
/// # Panics
/// When the tests do not run inside one.
#[must_use]
pub fn target_directory() -> PathBuf {
    let profile = profile_directory();
    let target = profile
        .ancestors()
        .find(|path| path.join("CACHEDIR.TAG").exists());
    target
        .expect("tests run inside a target directory")
        .to_owned()
}

fn build() -> PathBuf {
    let (profile, target) = (profile_directory(), target_directory());
    let triple = profile.parent().filter(|parent| *parent != target);
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args([
            "build",
            "--package",
            "tidegate",
            "--bin",
            "tidegate",
            "--profile",
        ])
        .arg(match profile.file_name().and_then(OsStr::to_str).unwrap() {
            "debug" => "dev",
            other => other,
        })
        .arg("--target-dir")
        .arg(&target)
        .args(["--message-format", "json-render-diagnostics"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap())
        .stderr(Stdio::inherit());
    if let Some(triple) = triple {
        command.arg("--target").arg(triple.file_name().unwrap());
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "cargo could not build tidegate");
    let messages = String::from_utf8(output.stdout).unwrap();
    let mut paths = messages.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(PathBuf::from(message["executable"].as_str()?))
    });
    paths.next_back().expect("cargo names the binary it built")
}
