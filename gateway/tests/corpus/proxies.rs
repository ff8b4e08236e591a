//! What nginx and HAProxy read in the bytes of a connection, seen from an endpoint behind them.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::differences::{End, Message, Reading};
use crate::recorder::{MARK, Recorder};

/// How long one may take to start, or to say nothing.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct Proxy {
    pub(crate) name: &'static str,
    address: SocketAddr,
    recorder: Recorder,
    child: Child,
    _directory: TempDir,
}

fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    let mut places = std::env::split_paths(&path).chain(more);
    places.find_map(|place| Some(place.join(name)).filter(|path| path.is_file()))
}

/// Where one runs, and for whom.
struct Site {
    program: PathBuf,
    directory: PathBuf,
    listen: SocketAddr,
    upstream: SocketAddr,
}

fn nginx(site: &Site) -> Command {
    let Site {
        directory,
        listen,
        upstream,
        ..
    } = site;
    let directory = directory.display();
    let text = format!(
        "daemon off; master_process off; pid {directory}/pid; error_log /dev/null crit;
events {{ }}
http {{
  access_log off;
  client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi; uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
  large_client_header_buffers 4 64k; client_max_body_size 0;
  server {{
    listen {listen};
    location / {{
      proxy_pass http://{upstream};
      proxy_http_version 1.1;
      proxy_set_header Connection '';
      proxy_set_header Host $http_host;
      proxy_ignore_client_abort on;
    }}
  }}
}}
"
    );
    let config = site.directory.join("nginx.conf");
    fs::write(&config, text).unwrap();
    let mut command = Command::new(&site.program);
    command
        .arg("-p")
        .arg(&site.directory)
        .args(["-e", "/dev/null", "-c"])
        .arg(config);
    command
}

fn haproxy(site: &Site) -> Command {
    let Site {
        listen, upstream, ..
    } = site;
    let text = format!(
        "global
  nbthread 1
  tune.bufsize 131072
defaults
  mode http
  timeout connect 5s
  timeout client 10s
  timeout server 10s
frontend public
  bind {listen}
  default_backend upstream
backend upstream
  server one {upstream}
"
    );
    let config = site.directory.join("haproxy.cfg");
    fs::write(&config, text).unwrap();
    let mut command = Command::new(&site.program);
    command.arg("-db").arg("-f").arg(config);
    command
}

impl Proxy {
    /// `None`, and a printed line, where it is not installed.
    pub(crate) fn nginx() -> Option<Proxy> {
        Proxy::installed("nginx", nginx)
    }

    /// `None`, and a printed line, where it is not installed.
    pub(crate) fn haproxy() -> Option<Proxy> {
        Proxy::installed("haproxy", haproxy)
    }

    fn installed(name: &'static str, command: fn(&Site) -> Command) -> Option<Proxy> {
        let program = program(name);
        if program.is_none() {
            println!("{name} is not installed: not compared with");
        }
        program.map(|program| Proxy::start(name, program, command))
    }

    fn start(name: &'static str, program: PathBuf, command: fn(&Site) -> Command) -> Proxy {
        let recorder = Recorder::start();
        let directory = TempDir::new().unwrap();
        let listen = TcpListener::bind("127.0.0.1:0").unwrap();
        let site = Site {
            program,
            directory: directory.path().to_owned(),
            listen: listen.local_addr().unwrap(),
            upstream: recorder.address,
        };
        drop(listen);
        let mut command = command(&site);
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = quiet.stderr(Stdio::null()).spawn().unwrap();
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(site.listen).is_err() {
            assert!(Instant::now() < deadline, "{name} does not start");
            thread::sleep(Duration::from_millis(5));
        }
        Proxy {
            name,
            address: site.listen,
            recorder,
            child,
            _directory: directory,
        }
    }

    /// `silence`: after that long without a byte it is taken to wait for more.
    pub(crate) fn read(&self, bytes: &[u8], silence: Duration) -> Reading {
        let mut stream = TcpStream::connect(self.address).unwrap();
        // It may refuse before it has taken all, and close before it has answered.
        let _refused = stream.write_all(bytes);
        let mut answers = Vec::new();
        // Who waits for more is told that nothing comes; others might take that for a departure.
        stream.set_read_timeout(Some(silence)).unwrap();
        if stream.read_to_end(&mut answers).is_err() {
            let _gone = stream.shutdown(Shutdown::Write);
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let _reset = stream.read_to_end(&mut answers);
        }
        let answers = String::from_utf8_lossy(&answers);
        let heads = answers.split("HTTP/1.").skip(1);
        let own = heads.filter(|head| !head.contains(MARK) && !head[2..].starts_with('1'));
        let mut messages = self.recorder.take();
        messages.iter_mut().for_each(in_origin_form);
        let refused = own.count() > 0;
        let end = if refused {
            End::Refused
        } else {
            End::Unrefused
        };
        Reading { messages, end }
    }
}

/// A target in absolute form says what its path says; whether `Host` goes with it is not seen here.
fn in_origin_form(message: &mut Message) {
    let Some(at) = message.target.windows(3).position(|part| part == b"://") else {
        return;
    };
    if !message.target.starts_with(b"/") {
        let rest = &message.target[at + 3..];
        let path = rest.iter().position(|byte| matches!(byte, b'/' | b'?'));
        message.target = path.map_or(b"/".to_vec(), |path| rest[path..].to_vec());
        message.host = None;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}
