//! nginx and HAProxy with many hosts, as their manuals do it: a map from host to upstream.

use std::fmt::Write as _;
use std::fs;

use anyhow::Context as _;
use rustix::process::{Signal, kill_process};

use crate::compare::directory::{CHANGING, Directory, Staged};
use crate::compare::lab::Lab;
use crate::compare::peers::nginx::Config;
use crate::compare::peers::{Found, TIDEGATE, fields, haproxy};
use crate::compare::solo::{Place, Solo};
use crate::compare::stage::Stage;

/// Which of the proxies can do this.
pub(super) const NAMES: [&str; 3] = [TIDEGATE, "nginx", "haproxy"];

/// A proxy with its hosts.
#[derive(Debug)]
pub(super) enum Kind {
    Tidegate(Directory),
    Nginx(Solo, usize),
    Haproxy(Solo),
}

impl Kind {
    /// Starts it.
    ///
    /// # Errors
    ///
    /// It does not start.
    pub(super) async fn open(
        lab: &Lab,
        found: &Found,
        stage: &Stage,
        hosts: usize,
    ) -> anyhow::Result<Kind> {
        match found.peer.name {
            "nginx" => Ok(Kind::Nginx(
                nginx_with_hosts(lab, found, stage, hosts).await?,
                hosts,
            )),
            "haproxy" => Ok(Kind::Haproxy(
                haproxy_with_hosts(lab, found, stage, hosts).await?,
            )),
            _ => Directory::open(lab, found, stage, hosts)
                .await
                .map(Kind::Tidegate),
        }
    }

    pub(super) fn solo(&mut self) -> &mut Solo {
        match self {
            Kind::Tidegate(directory) => &mut directory.solo,
            Kind::Nginx(solo, _) | Kind::Haproxy(solo) => solo,
        }
    }

    /// Makes ready that the changing host answers with `change`; none where that is not done with a
    /// file.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub(super) fn stage(&self, change: u64) -> anyhow::Result<Option<Staged>> {
        match self {
            Kind::Tidegate(directory) => directory.changes.stage(change).map(Some),
            Kind::Nginx(solo, hosts) => {
                solo.place.write("new.map", &nginx_map(*hosts, change))?;
                let file = |name: &str| solo.place.directory.join(name);
                let (from, to) = (file("new.map"), file("hosts.map"));
                Ok(Some(Staged { from, to }))
            }
            Kind::Haproxy(_) => Ok(None),
        }
    }

    /// The oldest change that may still show once the one before `change` has shown.
    pub(super) fn oldest(&self, change: u64) -> u64 {
        match self {
            // Its workers of earlier configurations go on accepting for a moment.
            Kind::Nginx(..) => 0,
            Kind::Tidegate(_) | Kind::Haproxy(_) => change - 1,
        }
    }

    /// Says that there is something new, to whom it has to be said.
    ///
    /// # Errors
    ///
    /// It has gone.
    pub(super) fn tell(&self) -> anyhow::Result<()> {
        if let Kind::Nginx(solo, _) = self {
            kill_process(solo.pid(), Signal::HUP).context("nginx has gone")?;
        }
        Ok(())
    }
}

fn nginx_map(hosts: usize, change: u64) -> String {
    let mut text = format!("{CHANGING} {change};\n");
    for host in 0..hosts {
        // Writing to a text does not fail.
        let _written = writeln!(text, "route-{host}.default.example.com backend;");
    }
    text
}

async fn nginx_with_hosts(
    lab: &Lab,
    found: &Found,
    stage: &Stage,
    hosts: usize,
) -> anyhow::Result<Solo> {
    let place = Place::new(lab, &format!("nginx-{hosts}"))?;
    let directory = place.directory.display().to_string();
    // Twice as many as hosts is what nginx itself proposes when they do not fit.
    let buckets = (hosts * 2).next_power_of_two().max(2048);
    let map = format!(
        "  map_hash_max_size {buckets};
  map_hash_bucket_size 128;
  map $host $target {{
    default none;
    include {directory}/hosts.map;
  }}
"
    );
    let text = Config {
        directory: &directory,
        workers: usize::from(lab.workers),
        listen: place.listen,
        listen_as: "",
        upstream: stage.upstreams[0],
        http: &map,
        server: "    if ($target = none) { return 404; }
    if ($target ~ ^[0-9]) { return 200 $target; }
",
        target: "$target",
        more: fields::NGINX_MORE,
    }
    .text();
    place.write("nginx.conf", &text)?;
    place.write("hosts.map", &nginx_map(hosts, 0))?;
    let config = place.path("nginx.conf");
    let args = ["-p", &directory, "-e", "stderr", "-c", &config].map(str::to_owned);
    let map = nginx_map(hosts.min(2), 0) + "# and so on\n";
    let shown = [("nginx.conf", &*text), ("hosts.map", &*map)];
    let cpus = lab.proxy_on(lab.workers);
    Solo::start(lab, found, place.clone(), args.to_vec(), cpus, &shown).await
}

async fn haproxy_with_hosts(
    lab: &Lab,
    found: &Found,
    stage: &Stage,
    hosts: usize,
) -> anyhow::Result<Solo> {
    let place = Place::new(lab, &format!("haproxy-{hosts}"))?;
    let map = place.path("hosts.map");
    let more = fields::haproxy_more("http");
    let frontend = format!("{more}  use_backend %[req.hdr(host),lower,map({map},none)]\n");
    let workers = usize::from(lab.workers);
    let none = "\nbackend none\n  http-request deny deny_status 404\n";
    let text = haproxy::text(
        workers,
        &place.listen.to_string(),
        &stage.upstreams[0].to_string(),
        &frontend,
    ) + none;
    let mut lines = String::new();
    for host in 0..hosts {
        // Writing to a text does not fail.
        let _written = writeln!(lines, "route-{host}.default.example.com upstream");
    }
    place.write("haproxy.cfg", &text)?;
    fs::write(&map, &lines).with_context(|| format!("cannot write {map}"))?;
    let args = ["-db", "-f", &place.path("haproxy.cfg")].map(str::to_owned);
    let first: String = lines
        .lines()
        .take(2)
        .map(|line| format!("{line}\n"))
        .collect();
    let first = first + "# and so on\n";
    let shown = [("haproxy.cfg", &*text), ("hosts.map", &*first)];
    let cpus = lab.proxy_on(lab.workers);
    Solo::start(lab, found, place, args.to_vec(), cpus, &shown).await
}
