//! The binary, and servers that do as they are told.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use loadtest::report::Report;

pub(crate) const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

/// What `loadtest run` did.
pub(crate) struct Ran {
    pub(crate) report: Report,
    pub(crate) success: bool,
    pub(crate) stderr: String,
}

pub(crate) fn command(url: &str, options: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
    command.arg("run").arg(url).args(options.split_whitespace());
    command
}

/// Runs to the end and reads the report.
pub(crate) fn run(url: &str, options: &str) -> Ran {
    let output = command(url, options).args(["--json", "-"]).output();
    ran(&output.unwrap())
}

/// Reads the report a run has written as JSON, which must add up.
pub(crate) fn ran(output: &Output) -> Ran {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let report: Report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("no report: {error}: {stderr}"));
    assert_eq!(report.sent, report.answers + report.errors.total());
    Ran {
        report,
        success: output.status.success(),
        stderr,
    }
}

/// Runs what is to be refused; what it says.
pub(crate) fn refused(url: &str, options: &[&str]) -> String {
    let output = command(url, "").args(options).output().unwrap();
    assert!(!output.status.success(), "{options:?} was not refused");
    assert!(output.stdout.is_empty(), "{options:?} sent something");
    String::from_utf8(output.stderr).unwrap()
}

pub(crate) fn status(code: u16, count: u64) -> BTreeMap<u16, u64> {
    BTreeMap::from([(code, count)])
}

/// A request as a server sees it.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// With its line ends, lines and all.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// The next on a connection; none at its end.
    pub(crate) fn read(stream: &mut impl BufRead) -> Option<Self> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).ok()? == 0 {
                return None;
            }
        }
        let mut request = Self {
            head,
            body: Vec::new(),
        };
        let length = request.field("content-length").unwrap_or("0").parse();
        request.body.resize(length.unwrap(), 0);
        stream.read_exact(&mut request.body).ok()?;
        Some(request)
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
}

/// A server of HTTP/1.1 that counts.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) connections: Arc<AtomicU64>,
    pub(crate) requests: Arc<AtomicU64>,
    pub(crate) seen: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Answers the n-th request of all with what `answer` writes; a connection it returns false
    /// for is closed.
    pub(crate) fn start(
        answer: impl Fn(u64, &Request, &mut TcpStream) -> bool + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            connections: Arc::default(),
            requests: Arc::default(),
            seen: Arc::default(),
        };
        let (own, answer) = (server.clone(), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (own, answer) = (own.clone(), answer.clone());
                own.connections.fetch_add(1, Ordering::SeqCst);
                thread::spawn(move || own.serve(stream.unwrap(), &*answer));
            }
        });
        server
    }

    /// Answers every request at once.
    pub(crate) fn hello() -> Self {
        Self::start(|_, _, stream| write(stream, HELLO))
    }

    fn serve(
        &self,
        mut stream: TcpStream,
        answer: &(impl Fn(u64, &Request, &mut TcpStream) -> bool + ?Sized),
    ) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        while let Some(request) = Request::read(&mut reader) {
            let number = self.requests.fetch_add(1, Ordering::SeqCst);
            self.seen.lock().unwrap().push(request.clone());
            if !answer(number, &request, &mut stream) {
                return;
            }
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/path?query=1", self.address)
    }

    pub(crate) fn count(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }

    pub(crate) fn connections(&self) -> u64 {
        self.connections.load(Ordering::SeqCst)
    }
}

/// Writes; whether the client was there to take it.
pub(crate) fn write(stream: &mut TcpStream, text: &str) -> bool {
    stream.write_all(text.as_bytes()).is_ok()
}
