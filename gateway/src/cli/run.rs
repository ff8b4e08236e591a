//! `run`: serve what configuration files say.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use config::problem::render_for_people;
use config::settings::{Audience, Overrides};

use super::load::counted;
use super::{LogArgs, address, count, print, tell};
use crate::run::{self, Addresses, Cluster, Options, RunError, SocketOptions};

const EXAMPLES: &str = "\
Examples:
  tidegate run                                 takes ./tidegate.yaml
  tidegate run -f routes.yaml -f revisions/    files and directories merge
  tidegate run -f routes.yaml --listen 127.0.0.1:8080 --listen '[::1]:8080'
  TIDEGATE_FILE=a.yaml,b.yaml TIDEGATE_WORKERS=2 tidegate run
  tidegate run --kubernetes                    in a pod, for Knative; more with -f
  tidegate run -f routes.yaml --takeover /run/tidegate/takeover.sock
                                               once more, to replace what runs without a loss

Signals: SIGTERM and SIGINT drain, a second one ends at once; SIGHUP rereads the files.";

/// What `run` takes when no file is named.
const DEFAULT_FILE: &str = "tidegate.yaml";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct RunArgs {
    /// A configuration file, or a directory of them; may repeat [default: ./tidegate.yaml].
    #[arg(
        short = 'f',
        long = "file",
        value_name = "FILE|DIR",
        num_args = 1..,
        env = "TIDEGATE_FILE"
    )]
    pub(super) files: Vec<PathBuf>,
    /// Serve plain HTTP to the public here instead of at the files' listeners; may repeat. Port 0
    /// picks a free one.
    #[arg(
        long,
        value_name = "ADDR",
        num_args = 1..,
        value_delimiter = ',',
        value_parser = address,
        env = "TIDEGATE_LISTEN"
    )]
    pub(super) listen: Vec<SocketAddr>,
    /// Address of health, metrics and the JSON API, instead of the files'. Written so, the variable
    /// suits `explain` and `prewarm`, too.
    #[arg(long, value_name = "IP:PORT", value_parser = address, env = "TIDEGATE_ADMIN")]
    pub(super) admin: Option<SocketAddr>,
    /// Worker threads, instead of the files'; 0 = one per core.
    #[arg(long, value_name = "N", value_parser = count, env = "TIDEGATE_WORKERS")]
    pub(super) workers: Option<usize>,
    /// Take over from the process that serves at this unix socket, and serve the next takeover
    /// there.
    #[arg(long, value_name = "SOCKET", env = "TIDEGATE_TAKEOVER")]
    pub(super) takeover: Option<PathBuf>,
    /// Take routes and endpoints from a Kubernetes cluster as well, in place of Knative's gateway and
    /// activator. The cluster is the one this pod runs in, or that of KUBECONFIG.
    #[arg(long, env = "TIDEGATE_KUBERNETES")]
    pub(super) kubernetes: bool,
    /// Where Knative's autoscaler takes statistics, like `ws://HOST:8080` [default: that of its
    /// Service].
    #[arg(
        long,
        value_name = "URL",
        requires = "kubernetes",
        env = "TIDEGATE_AUTOSCALER"
    )]
    pub(super) autoscaler: Option<String>,
    #[command(flatten)]
    pub(super) log: LogArgs,
}

pub(super) fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    let given = crate::systemd::sockets().context("cannot use the sockets of LISTEN_FDS")?;
    args.log.init("info")?;
    let cluster = match args.kubernetes {
        true => Some(cluster(args.autoscaler)?),
        false => None,
    };
    let files = match cluster {
        // All it needs may be in the cluster.
        Some(_) => args.files,
        None => files_or(args.files, Path::new(DEFAULT_FILE))?,
    };
    let result = run::run(Options {
        files,
        overrides: Overrides {
            listen: args.listen,
            admin: args.admin,
            workers: args.workers,
        },
        sockets: SocketOptions {
            given,
            takeover: args.takeover,
        },
        cluster,
        announce: Box::new(|addresses| {
            // Whoever closed our standard output does not want to know; serving goes on.
            drop(print(&announcement(addresses)));
        }),
        ready: Box::new(|| drop(print("ready\n"))),
    });
    match result {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => report(error),
    }
}

fn cluster(autoscaler: Option<String>) -> anyhow::Result<Cluster> {
    // Where there is none, no name is searched for.
    let resolv_conf = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let variable = |name: &str| std::env::var_os(name)?.into_string().ok();
    Ok(Cluster::of(variable, autoscaler, &resolv_conf)?)
}

/// One line per listener, one for admin.
pub(super) fn announcement(addresses: &Addresses) -> String {
    let mut lines = String::new();
    for listening in &addresses.listeners {
        let audience = match listening.audience {
            Audience::Public => "public",
            Audience::Internal => "internal",
            Audience::Activator => "activator",
        };
        let scheme = if listening.secure { "https" } else { "http" };
        let address = listening.address;
        lines += &format!("listening {scheme}://{address} {audience}\n");
    }
    lines += &format!("admin http://{}\n", addresses.admin);
    lines
}

/// Tells people why there is nothing to run.
pub(super) fn report(error: RunError) -> anyhow::Result<ExitCode> {
    let RunError::Invalid { problems, sources } = error else {
        return Err(error.into());
    };
    tell(&render_for_people(&problems, &sources));
    let count = counted(problems.len(), "problem");
    tell(&format!("tidegate: not started: {count}\n"));
    Ok(ExitCode::FAILURE)
}

fn files_or(files: Vec<PathBuf>, default: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !files.is_empty() {
        return Ok(files);
    }
    if !default.try_exists()? {
        let name = default.display();
        anyhow::bail!(
            "there is no {name} here: name a file with `-f FILE`, or try `tidegate demo`, \
             which needs none"
        );
    }
    Ok(vec![default.to_owned()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Listening;

    #[test]
    fn the_announcement_is_a_line_per_address() {
        let listening = |address: &str, audience, secure| Listening {
            address: address.parse().unwrap(),
            audience,
            secure,
        };
        let addresses = Addresses {
            listeners: vec![
                listening("127.0.0.1:8080", Audience::Public, false),
                listening("127.0.0.1:8443", Audience::Public, true),
                listening("[::1]:8081", Audience::Internal, false),
            ],
            admin: "127.0.0.1:9901".parse().unwrap(),
        };
        let expected = "listening http://127.0.0.1:8080 public\n\
                        listening https://127.0.0.1:8443 public\n\
                        listening http://[::1]:8081 internal\n\
                        admin http://127.0.0.1:9901\n";
        assert_eq!(announcement(&addresses), expected);
    }

    #[test]
    fn named_files_are_taken_as_they_are() {
        let named = vec![PathBuf::from("nowhere.yaml")];
        let taken = files_or(named.clone(), Path::new("/nowhere/default.yaml"));
        assert_eq!(taken.unwrap(), named);
    }

    #[test]
    fn a_missing_default_file_is_named_and_the_demo_hinted_at() {
        let directory = tempfile::tempdir().unwrap();
        let default = directory.path().join("tidegate.yaml");
        let error = files_or(Vec::new(), &default).unwrap_err().to_string();
        for part in ["tidegate.yaml", "-f FILE", "tidegate demo"] {
            assert!(error.contains(part), "{error}");
        }
        std::fs::write(&default, "").unwrap();
        assert_eq!(files_or(Vec::new(), &default).unwrap(), [default]);
    }
}
