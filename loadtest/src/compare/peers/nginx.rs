//! nginx.

use std::path::Path;

use super::{POOL, Peer, Setup, Site};
use crate::compare::process::CommandLine;

pub(super) const PEER: Peer = Peer {
    name: "nginx",
    package: "nginx-light (Debian)",
    program: Some("nginx"),
    version: &["-v"],
    for_large: false,
    setup: |program, site| setup(program, site, ""),
};

/// The same, but passing bodies on as they come: what everybody switches on for large ones.
pub(super) const UNBUFFERED: Peer = Peer {
    name: "nginx-unbuffered",
    for_large: true,
    setup: |program, site| {
        setup(
            program,
            site,
            "      proxy_buffering off;\n      proxy_request_buffering off;\n",
        )
    },
    ..PEER
};

fn setup(program: &Path, site: &Site, extra: &str) -> Setup {
    let directory = site.directory.display();
    let (listen, upstream) = (site.listen, site.upstreams[0]);
    let workers = site.workers;
    let text = format!(
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
  server {{
    listen {listen} reuseport;
    location / {{
      proxy_pass http://backend;
      proxy_http_version 1.1;
      proxy_set_header Connection \"\";
      proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
{extra}    }}
  }}
}}
"
    );
    let config = format!("{directory}/nginx.conf");
    let prefix = directory.to_string();
    let args = ["-p", &prefix, "-e", "stderr", "-c", &config];
    Setup {
        command: CommandLine::new(program, args),
        files: vec![("nginx.conf", text)],
    }
}
