//! nginx.

use std::net::SocketAddr;
use std::path::Path;

use super::{POOL, Peer, Setup, Site, fields};
use crate::compare::process::CommandLine;
use crate::compare::speech::Speech;

pub(super) const PEER: Peer = Peer {
    name: "nginx",
    package: "nginx-light (Debian)",
    program: Some("nginx"),
    version: &["-v"],
    fields: fields::ALL,
    only_in: &[],
    lacks,
    setup: |program, site| setup(program, site, fields::NGINX_MORE),
};

/// The same, but passing bodies on as they come: what everybody switches on for large ones.
pub(super) const UNBUFFERED: Peer = Peer {
    name: "nginx-unbuffered",
    only_in: &["large-down", "large-up"],
    setup: |program, site| {
        let off = "      proxy_buffering off;\n      proxy_request_buffering off;\n";
        setup(program, site, &(fields::NGINX_MORE.to_owned() + off))
    },
    ..PEER
};

/// The same, adding the client's address and nothing else: the least anybody runs.
pub(super) const BARE: Peer = Peer {
    name: "nginx-bare",
    fields: fields::BARE,
    only_in: &["keepalive"],
    setup: |program, site| setup(program, site, ""),
    ..PEER
};

fn setup(program: &Path, site: &Site, more: &str) -> Setup {
    let directory = site.directory.display().to_string();
    let (listen_as, server) = listening(site);
    let text = Config {
        directory: &directory,
        workers: site.workers,
        listen: site.listen,
        listen_as,
        upstream: site.upstreams[0],
        http: "",
        server: &server,
        target: "backend",
        more,
    }
    .text();
    let config = format!("{directory}/nginx.conf");
    let args = ["-p", &directory, "-e", "stderr", "-c", &config];
    Setup {
        command: CommandLine::new(program, args),
        files: vec![("nginx.conf", text)],
    }
}

fn lacks(speech: Speech) -> Option<&'static str> {
    let upstream = speech.upstream_http2;
    upstream.then_some("it speaks HTTP/1.1 with upstreams, and HTTP/2 only for gRPC")
}

/// The parameters of `listen`, and what else a `server` needs for them. `http2` there is what
/// versions before 1.25 know; those after warn and still take it.
fn listening(site: &Site) -> (&'static str, String) {
    let clients = site.speech.clients;
    if clients.tls {
        let (cert, key) = (site.certificate.cert(), site.certificate.key());
        let server = format!(
            "    ssl_certificate {cert};
    ssl_certificate_key {key};
    ssl_protocols TLSv1.2 TLSv1.3;
"
        );
        return (" ssl http2", server);
    }
    let listen_as = if clients.http2 { " http2" } else { "" };
    (listen_as, String::new())
}

/// What differs between configurations; what they add comes as lines of nginx's own.
pub(crate) struct Config<'a> {
    pub(crate) directory: &'a str,
    pub(crate) workers: usize,
    pub(crate) listen: SocketAddr,
    /// What is spoken there, as parameters of `listen`.
    pub(crate) listen_as: &'a str,
    /// The upstream `backend`.
    pub(crate) upstream: SocketAddr,
    /// Added to the block `http`.
    pub(crate) http: &'a str,
    /// Added to the block `server`.
    pub(crate) server: &'a str,
    /// The name of an upstream, or a variable that holds one.
    pub(crate) target: &'a str,
    /// Added to the block `location`.
    pub(crate) more: &'a str,
}

impl Config<'_> {
    pub(crate) fn text(&self) -> String {
        let Config {
            directory,
            workers,
            listen,
            listen_as,
            upstream,
            http,
            server,
            target,
            more,
        } = self;
        let bare = fields::NGINX_BARE;
        format!(
            "daemon off;
worker_processes {workers};
pid {directory}/nginx.pid;
error_log stderr warn;
events {{
  worker_connections 16384;
}}
http {{
  access_log off;
  keepalive_requests 1000000000;
  client_max_body_size 16m;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  upstream backend {{
    server {upstream};
    keepalive {POOL};
    keepalive_requests 1000000000;
  }}
{http}  server {{
    listen {listen}{listen_as} reuseport;
{server}    location / {{
      proxy_pass http://{target};
      proxy_http_version 1.1;
      proxy_set_header Connection \"\";
      proxy_set_header Host $host;
{bare}{more}    }}
  }}
}}
"
        )
    }
}
