//! The gateway under test: started with a file, asked through its admin address, ended by signals.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use hyper::Request;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::binary;
use crate::body::Body;
use crate::client::{Answer, Client, request};
use crate::metrics::Metrics;
use crate::process::{Output, raise_descriptor_limit};
use crate::raw::Raw;
use crate::wait::{PATIENCE, eventually};

/// A gateway about to be started.
#[derive(Debug)]
pub struct Launch {
    directory: TempDir,
    arguments: Vec<OsString>,
    environment: Vec<(String, OsString)>,
    listen: bool,
    shell: Option<String>,
    stdin: Option<OwnedFd>,
}

impl Launch {
    /// With that configuration in `tidegate.yaml` of a directory of its own, which is also the
    /// working directory; listening on free ports.
    #[must_use]
    pub fn new(yaml: &str) -> Launch {
        let launch = Launch::without_file();
        std::fs::write(launch.directory.path().join("tidegate.yaml"), yaml).unwrap();
        launch.arguments(["-f", "tidegate.yaml"])
    }

    #[must_use]
    pub fn without_file() -> Launch {
        Launch {
            directory: TempDir::new().unwrap(),
            arguments: vec!["run".into()],
            environment: Vec::new(),
            listen: true,
            shell: None,
            stdin: None,
        }
    }

    /// In place of `run` and everything that was said after it.
    #[must_use]
    pub fn command<S: Into<OsString>>(mut self, command: impl IntoIterator<Item = S>) -> Launch {
        self.arguments = command.into_iter().map(Into::into).collect();
        self.listen = false;
        self
    }

    #[must_use]
    pub fn arguments<S: Into<OsString>>(mut self, more: impl IntoIterator<Item = S>) -> Launch {
        self.arguments.extend(more.into_iter().map(Into::into));
        self
    }

    #[must_use]
    pub fn environment(mut self, name: &str, value: impl Into<OsString>) -> Launch {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Leaves the listeners to the file; the admin address is still a free port.
    #[must_use]
    pub fn own_listeners(mut self) -> Launch {
        self.listen = false;
        self.arguments(["--admin", "127.0.0.1:0"])
    }

    /// Runs it from a shell, after that command.
    #[must_use]
    pub fn after(mut self, shell: &str) -> Launch {
        self.shell = Some(format!("{shell} && exec \"$0\" \"$@\""));
        self
    }

    /// Gives it a listening socket, as systemd does (`sd_listen_fds(3)`).
    #[must_use]
    pub fn activated_by(mut self, socket: impl Into<OwnedFd>) -> Launch {
        self.stdin = Some(socket.into());
        self.after("exec 3<&0 </dev/null && export LISTEN_FDS=1 LISTEN_PID=$$")
    }

    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// One more file in the working directory, whose directories are made.
    #[must_use]
    pub fn file(self, name: &str, content: &str) -> Launch {
        let path = self.directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
        self
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Panics
    /// When it ends before.
    pub async fn start(self) -> Gateway {
        self.spawn().ready().await
    }

    /// Runs it to its end.
    pub async fn run(self) -> Exit {
        let mut gateway = self.spawn();
        gateway.exit(2 * PATIENCE).await
    }

    /// Starts it and waits for nothing.
    pub fn spawn(mut self) -> Gateway {
        raise_descriptor_limit();
        if self.listen {
            self = self.arguments(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        }
        let mut command = binary::command(self.shell.as_deref());
        let mut child = command
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(self.directory.path())
            .stdin(self.stdin.map_or_else(Stdio::null, Stdio::from))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let output = Output::of(&mut child);
        let config = self.directory.path().join("tidegate.yaml");
        Gateway {
            child,
            output,
            directory: self.directory,
            config,
            listeners: Vec::new(),
            admin: None,
            over: false,
        }
    }
}

/// How a run ended, and all it said.
#[derive(Debug)]
pub struct Exit {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Exit {
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    #[must_use]
    pub fn signal(&self) -> Option<i32> {
        self.status.signal()
    }

    /// # Panics
    /// Unless it ended with that code.
    #[track_caller]
    pub fn expect(self, code: i32) -> Exit {
        assert_eq!(self.code(), Some(code), "{self:#?}");
        self
    }
}

/// A running gateway, killed when dropped. A test that does not wait for its end fails when it
/// ended nevertheless, or when something in it panicked.
#[derive(Debug)]
pub struct Gateway {
    child: Child,
    output: Output,
    directory: TempDir,
    config: PathBuf,
    /// Addresses and audiences, in the order they were printed.
    pub listeners: Vec<(SocketAddr, String)>,
    admin: Option<SocketAddr>,
    over: bool,
}

impl Gateway {
    /// With that configuration, ready, on free ports.
    pub async fn start(yaml: &str) -> Gateway {
        Launch::new(yaml).start().await
    }

    /// The first listener.
    #[must_use]
    pub fn public(&self) -> SocketAddr {
        self.listeners.first().expect("a listening gateway").0
    }

    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.admin.expect("a gateway with an admin address")
    }

    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub async fn connect(&self) -> Client {
        Client::connect(self.public()).await
    }

    pub async fn raw(&self) -> Raw {
        Raw::connect(self.public()).await
    }

    /// The answer to a request on a connection of its own.
    pub async fn send(&self, request: Request<Body>) -> Answer {
        self.connect().await.send(request).await
    }

    pub async fn get(&self, host: &str, path: &str) -> Answer {
        self.send(request("GET", host, path)).await
    }

    // --- the admin address ---

    pub async fn ask(&self, path: &str) -> Answer {
        let mut client = Client::connect(self.admin()).await;
        client.get("admin", path).await
    }

    pub async fn metrics(&self) -> Metrics {
        Metrics::parse(&self.ask("/metrics").await.expect(200).text())
    }

    /// The sum of the samples with that name and these labels; 0 without any.
    pub async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.metrics().await.sum(name, labels).unwrap_or_default()
    }

    /// Waits until that sum is as asked.
    pub async fn until_metric(
        &self,
        name: &str,
        labels: &[(&str, &str)],
        wanted: impl Fn(f64) -> bool,
    ) -> f64 {
        let what = format!("{name}{labels:?} is as wanted");
        eventually(PATIENCE, &what, async || {
            Some(self.metric(name, labels).await).filter(|value| wanted(*value))
        })
        .await
    }

    pub async fn until_waiting(&self, revision: &str, count: usize) {
        let count = f64::from(u32::try_from(count).unwrap());
        self.until_metric("tidegate_waiting", &[("revision", revision)], |n| {
            n == count
        })
        .await;
    }

    /// Waits until nothing is in flight and nothing waits.
    pub async fn until_idle(&self) {
        eventually(PATIENCE, "all counters are zero", async || {
            let metrics = self.metrics().await;
            let sum = |name| metrics.sum(name, &[]).unwrap_or_default();
            (sum("tidegate_inflight") == 0.0 && sum("tidegate_waiting") == 0.0).then_some(())
        })
        .await;
    }

    /// What `/api/revisions` says about one; `Null` when it is not there.
    pub async fn revision(&self, name: &str) -> Value {
        let mut revisions = self.ask("/api/revisions").await.expect(200).json();
        let revisions = revisions.as_array_mut().expect("an array of revisions");
        let found = revisions
            .iter_mut()
            .find(|revision| revision["name"] == name);
        found.map(Value::take).unwrap_or_default()
    }

    /// How many endpoints of a revision are in that state.
    pub async fn endpoints(&self, revision: &str, state: &str) -> usize {
        let revision = self.revision(revision).await;
        let endpoints = revision["endpoints"]
            .as_array()
            .map_or(&[][..], Vec::as_slice);
        endpoints
            .iter()
            .filter(|endpoint| endpoint["state"] == state)
            .count()
    }

    /// Waits until `/readyz` has as many problems of the last change, and gives them.
    pub async fn until_problems(&self, count: usize) -> Vec<Value> {
        let what = format!("{count} problems are told");
        eventually(PATIENCE, &what, async || {
            let mut ready = self.ask("/readyz").await.expect(200).json();
            let problems = ready["problems"].take();
            let problems = problems.as_array().expect("an array of problems").clone();
            (problems.len() == count).then_some(problems)
        })
        .await
    }

    // --- the file ---

    #[must_use]
    pub fn config(&self) -> &Path {
        &self.config
    }

    pub async fn version(&self) -> f64 {
        self.metric("tidegate_config_version", &[]).await
    }

    /// Puts another file in the place of the first, as editors do.
    pub fn replace(&self, yaml: &str) {
        let fresh = self.directory.path().join(".tidegate.yaml.new");
        std::fs::write(&fresh, yaml).unwrap();
        std::fs::rename(fresh, &self.config).unwrap();
    }

    /// Replaces the file and waits until the gateway serves what it says.
    pub async fn apply(&self, yaml: &str) {
        let before = self.version().await;
        self.replace(yaml);
        self.until_metric("tidegate_config_version", &[], |version| version > before)
            .await;
    }

    // --- the process ---

    /// Waits until it says that it is ready, and reads where it can be reached.
    ///
    /// # Panics
    /// When it ends before.
    pub async fn ready(mut self) -> Gateway {
        eventually(2 * PATIENCE, "the gateway is ready", async || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the gateway ended at start with {status}");
            }
            self.is_ready().then_some(())
        })
        .await;
        for line in self.output.stdout().lines() {
            if let Some(rest) = line.strip_prefix("listening ") {
                let (_, rest) = rest.split_once("://").expect("a listener has a scheme");
                let (address, audience) = rest.split_once(' ').expect("a listener has an audience");
                self.listeners
                    .push((address.parse().unwrap(), audience.to_owned()));
            } else if let Some(address) = line.strip_prefix("admin http://") {
                self.admin = Some(address.trim_end_matches('/').parse().unwrap());
            }
        }
        self
    }

    /// Whether it has said that it is ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.output.stdout().lines().any(|line| line == "ready")
    }

    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    #[must_use]
    pub fn stdout(&self) -> String {
        self.output.stdout()
    }

    #[must_use]
    pub fn stderr(&self) -> String {
        self.output.stderr()
    }

    /// Waits until its log contains that text.
    pub async fn until_logged(&self, text: &str) {
        let what = format!("the log says {text:?}");
        eventually(PATIENCE, &what, async || {
            self.stderr().contains(text).then_some(())
        })
        .await;
    }

    /// Whether the process still runs.
    pub fn lives(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end.
    pub async fn exit(&mut self, limit: Duration) -> Exit {
        self.over = true;
        let status = eventually(limit, "the gateway ends", async || {
            self.child.try_wait().unwrap()
        })
        .await;
        let (stdout, stderr) = self.output.all().await;
        Exit {
            status,
            stdout,
            stderr,
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let ended = self.child.try_wait().unwrap();
        if ended.is_none() {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
        let stderr = self.output.stderr();
        if std::thread::panicking() {
            let stdout = self.output.stdout();
            let stderr = last_lines(&stderr, 60);
            eprintln!("--- gateway ({ended:?}), stdout:\n{stdout}--- stderr:\n{stderr}---");
            return;
        }
        assert!(
            self.over || ended.is_none(),
            "the gateway ended with {ended:?}:\n{stderr}"
        );
        assert!(
            !stderr.contains("panicked at"),
            "something panicked:\n{stderr}"
        );
    }
}

/// The end of a log that may be long.
fn last_lines(text: &str, count: usize) -> &str {
    let start = text.trim_end().rmatch_indices('\n').nth(count - 1);
    start.map_or(text, |(newline, _)| &text[newline + 1..])
}
