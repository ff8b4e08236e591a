//! Processes: their output, their limits, and what is left of them.

use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, Once};
use std::thread::JoinHandle;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, setrlimit};

use crate::wait::{PATIENCE, eventually};

/// Lets this process, and what it starts, have as many descriptors as the machine allows.
pub fn raise_descriptor_limit() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let maximum = getrlimit(Resource::Nofile).maximum;
        let limit = Rlimit {
            current: maximum,
            maximum,
        };
        setrlimit(Resource::Nofile, limit).unwrap();
    });
}

/// How many descriptors a process may have here.
#[must_use]
pub fn descriptors() -> usize {
    let maximum = getrlimit(Resource::Nofile).maximum;
    maximum.map_or(usize::MAX, |maximum| usize::try_from(maximum).unwrap())
}

/// What a child says, read by threads as it comes.
#[derive(Debug)]
pub struct Output {
    stdout: Arc<Mutex<String>>,
    stderr: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Output {
    /// # Panics
    /// Unless both streams are pipes that nobody else reads.
    pub fn of(child: &mut Child) -> Output {
        let mut readers = Vec::new();
        let stdout = collect(child.stdout.take().unwrap(), &mut readers);
        let stderr = collect(child.stderr.take().unwrap(), &mut readers);
        Output {
            stdout,
            stderr,
            readers,
        }
    }

    #[must_use]
    pub fn stdout(&self) -> String {
        self.stdout.lock().unwrap().clone()
    }

    #[must_use]
    pub fn stderr(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    /// Both, to their ends: until the child, and all it lent them to, have gone.
    pub async fn all(&self) -> (String, String) {
        eventually(
            PATIENCE,
            "nobody has its output open any more",
            async || {
                self.readers
                    .iter()
                    .all(JoinHandle::is_finished)
                    .then_some(())
            },
        )
        .await;
        (self.stdout(), self.stderr())
    }
}

fn collect(
    pipe: impl Read + Send + 'static,
    readers: &mut Vec<JoinHandle<()>>,
) -> Arc<Mutex<String>> {
    let text = Arc::new(Mutex::new(String::new()));
    let copy = text.clone();
    readers.push(std::thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while pipe
            .read_until(b'\n', &mut line)
            .is_ok_and(|length| length > 0)
        {
            copy.lock()
                .unwrap()
                .push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    }));
    text
}

/// The `service` program on a free port, started by the test. Prints as its address.
pub struct Program {
    pub address: SocketAddr,
    child: Child,
}

impl Program {
    #[must_use]
    pub fn start(service: &str, target: &str) -> Program {
        raise_descriptor_limit();
        let mut child = Command::new(service)
            .env("PORT", "0")
            .env("TARGET", target)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line
            .trim()
            .strip_prefix("listening ")
            .expect("the service says where");
        Program {
            address: address.parse().unwrap(),
            child,
        }
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Program({})", self.address)
    }
}

/// Those processes of `service` that live, of all that wrote their number into a directory.
#[must_use]
pub fn living(directory: &Path) -> Vec<i32> {
    let entries = std::fs::read_dir(directory).unwrap();
    let pids = entries.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    pids.filter(|pid| lives(*pid)).collect()
}

/// Whether that process runs; one that only waits to be reaped does not.
#[must_use]
pub fn lives(pid: i32) -> bool {
    // `PID (name) STATE …`
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    let state = stat
        .rsplit(") ")
        .next()
        .and_then(|rest| rest.chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

/// Bytes of memory that are a process's own, as the kernel counts them.
#[must_use]
pub fn resident(pid: Pid) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// How many descriptors a process has open.
#[must_use]
pub fn open_descriptors(pid: Pid) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero()))
        .unwrap()
        .count()
}
