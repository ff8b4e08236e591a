//! nginx.

use std::path::Path;

use super::{POOL, Peer, Setup, Site, fields};
use crate::compare::process::CommandLine;

pub(super) const PEER: Peer = Peer {
    name: "nginx",
    package: "nginx-light (Debian)",
    program: Some("nginx"),
    version: &["-v"],
    fields: fields::ALL,
    only_in: &[],
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
    let directory = site.directory.display();
    let (listen, upstream) = (site.listen, site.upstreams[0]);
    let workers = site.workers;
    let bare = fields::NGINX_BARE;
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
{bare}{more}    }}
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
