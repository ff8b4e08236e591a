//! Programs a comparison starts: each in a process group of its own, none outliving the comparison.

use std::fmt;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

/// How long a program may take until it accepts connections.
const START_MAX: Duration = Duration::from_secs(30);

/// How long a killed program may take to end.
const END_MAX: Duration = Duration::from_secs(2);

/// Between two looks at something that is awaited.
const LOOK: Duration = Duration::from_millis(10);

/// Lines of a program's output that an error quotes.
const QUOTED_LINES: usize = 12;

/// What one would type to start a program.
#[derive(Clone, Debug)]
pub(crate) struct CommandLine {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(&'static str, String)>,
}

impl CommandLine {
    pub(crate) fn new<A: Into<String>>(
        program: &Path,
        args: impl IntoIterator<Item = A>,
    ) -> CommandLine {
        CommandLine {
            program: program.to_owned(),
            args: args.into_iter().map(Into::into).collect(),
            env: Vec::new(),
        }
    }

    /// The same with one more variable of the environment.
    pub(crate) fn with_env(mut self, name: &'static str, value: impl Into<String>) -> CommandLine {
        self.env.push((name, value.into()));
        self
    }
}

/// As for a shell, without the directory of the program.
impl fmt::Display for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.env {
            write!(f, "{name}={value} ")?;
        }
        let program = self.program.file_name().unwrap_or_default();
        write!(f, "{}", program.display())?;
        for arg in &self.args {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@".contains(c);
            if arg.chars().all(plain) {
                write!(f, " {arg}")?;
            } else {
                write!(f, " '{}'", arg.replace('\'', r"'\''"))?;
            }
        }
        Ok(())
    }
}

/// A program that runs. Dropped, it and all of its process group are killed.
#[derive(Debug)]
pub(crate) struct Running {
    name: String,
    child: Child,
    pid: Pid,
    log: PathBuf,
}

impl Running {
    /// Starts a program on these processors (any, if none are named); its output goes to a file in
    /// `directory`.
    ///
    /// # Errors
    ///
    /// It cannot be started.
    pub(crate) fn start(
        name: &str,
        line: &CommandLine,
        cpus: &[usize],
        directory: &Path,
    ) -> anyhow::Result<Running> {
        let log = directory.join(format!("{name}.log"));
        let output =
            File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let own = std::env::current_exe().context("cannot find this program")?;
        let mut command = Command::new(own);
        command.arg("launch");
        command.args(["--parent", &std::process::id().to_string()]);
        if !cpus.is_empty() {
            let cpus: Vec<String> = cpus.iter().map(usize::to_string).collect();
            command.args(["--cpus", &cpus.join(",")]);
        }
        command.arg("--").arg(&line.program).args(&line.args);
        for (name, _) in std::env::vars_os() {
            // Settings of whoever runs this are not those of the comparison.
            if name.to_string_lossy().starts_with("TIDEGATE_") {
                command.env_remove(name);
            }
        }
        command
            .envs(line.env.iter().map(|(name, value)| (name, value)))
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0)
            .kill_on_drop(true);
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        Ok(Running {
            name: name.to_owned(),
            pid: pid.context("it ended at once")?,
            child,
            log,
        })
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Everything it has said so far.
    pub(crate) fn output(&self) -> String {
        fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// # Errors
    ///
    /// It has ended, which it should not have; the message quotes its last words.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} has ended ({status}):\n{}", self.name, self.last_words()),
        }
    }

    fn last_words(&self) -> String {
        let output = self.output();
        let lines: Vec<&str> = output.lines().collect();
        lines[lines.len().saturating_sub(QUOTED_LINES)..].join("\n")
    }

    /// Waits until it accepts connections at this address.
    ///
    /// # Errors
    ///
    /// It ends instead, or takes more than 30 s.
    pub(crate) async fn accepts(&mut self, address: SocketAddr) -> anyhow::Result<()> {
        let patience = Instant::now() + START_MAX;
        while TcpStream::connect(address).await.is_err() {
            self.check()?;
            if Instant::now() > patience {
                bail!(
                    "{} does not listen on {address}:\n{}",
                    self.name,
                    self.last_words()
                );
            }
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    ///
    /// It does not within `bound`.
    pub(crate) async fn ended(&mut self, bound: Duration) -> anyhow::Result<ExitStatus> {
        let ended = timeout(bound, self.child.wait()).await;
        let ended = ended.with_context(|| format!("{} does not end", self.name))?;
        Ok(ended?)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A group that has gone is what is wanted.
        let _gone = kill_process_group(self.pid, Signal::KILL);
        // It is dying; taking note of that frees its number and its ports.
        let patience = std::time::Instant::now() + END_MAX;
        while matches!(self.child.try_wait(), Ok(None)) && std::time::Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
