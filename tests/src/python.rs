//! A Python with grpcio, for a gRPC peer that shares no line with tonic.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::{fmt, fs};

use crate::binary::target_directory;

/// The interpreter: `$TIDEGATE_TEST_PYTHON`, else one made once below `target/`, which takes a
/// `python3` and the package registry. `None` where there is neither, which is said on standard
/// error.
///
/// # Panics
/// Instead of giving `None`, where `TIDEGATE_TEST_REQUIRE_GRPCIO` is set.
pub fn interpreter() -> Option<&'static Path> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match FOUND.get_or_init(find) {
        Ok(path) => Some(path),
        Err(why) if std::env::var_os("TIDEGATE_TEST_REQUIRE_GRPCIO").is_some() => {
            panic!("no Python with grpcio: {why}")
        }
        Err(why) => {
            eprintln!("SKIPPED: the tests with Python's grpcio, since there is none: {why}");
            None
        }
    }
}

fn find() -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os("TIDEGATE_TEST_PYTHON") {
        // Relative to the workspace, where cargo is started, not to this crate.
        let path = workspace().join(path);
        return run(Command::new(&path).args(["-c", "import grpc"])).map(|()| path);
    }
    let directory = target_directory().join("grpcio");
    let python = directory.join("bin/python");
    let pinned = workspace().join("tests/python/requirements.txt");
    let installed = directory.join("installed");
    let wanted = fs::read(&pinned).map_err(|error| error.to_string())?;
    if fs::read(&installed).is_ok_and(|found| found == wanted) {
        return Ok(python);
    }
    run(Command::new("python3").args(["-m", "venv"]).arg(&directory))?;
    run(Command::new(&python)
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ])
        .args(["--only-binary", ":all:", "--requirement"])
        .arg(&pinned))?;
    fs::write(installed, wanted).map_err(|error| error.to_string())?;
    Ok(python)
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?}: {}: {stderr}", output.status))
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn peer(python: &Path) -> Command {
    let mut command = Command::new(python);
    command.arg(workspace().join("tests/python/grpc_peer.py"));
    command
}

/// `grpc_peer.py serve`. Prints as its address.
pub struct GrpcioBackend {
    pub address: SocketAddr,
    child: Child,
}

impl GrpcioBackend {
    #[must_use]
    pub fn start(python: &Path) -> GrpcioBackend {
        let mut command = peer(python);
        // It ends when its standard input does: with this test, however that ends.
        let command = command.arg("serve").stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line.trim().strip_prefix("listening ");
        let address = address.expect("the peer says where it listens");
        GrpcioBackend {
            address: address.parse().unwrap(),
            child,
        }
    }
}

impl Drop for GrpcioBackend {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl fmt::Display for GrpcioBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

impl fmt::Debug for GrpcioBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GrpcioBackend({})", self.address)
    }
}

/// `grpc_peer.py call`: every kind of call, through `address` to `host`; over TLS with the
/// certificate of an authority to believe in, in a file.
///
/// # Panics
/// When one fails, with what it said.
pub async fn call_everything(
    python: &Path,
    address: SocketAddr,
    host: &str,
    authority: Option<&Path>,
) {
    let mut command = peer(python);
    command.arg("call").arg(address.to_string()).arg(host);
    command.args(authority);
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = output.await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{errors}");
    assert!(said.starts_with("ok "), "it tried nothing: {said}{errors}");
}
