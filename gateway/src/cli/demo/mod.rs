//! `demo`: a tour from zero and back that needs nothing but this binary.
//!
//! The gateway runs on a thread of its own, on files of a temporary directory; this thread watches
//! it through its admin address, as anybody could.

mod show;
mod stage;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use config::settings::Overrides;
use hyper::StatusCode;
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval};

use self::show::{View, lines};
use self::stage::Stage;
use super::admin::Admin;
use super::run::{announcement, report};
use super::{LogArgs, address, print};
use crate::run::{self, Addresses, Options, RunError, SocketOptions};

/// How often it is looked at what has changed.
const LOOK: Duration = Duration::from_millis(50);

const EXAMPLES: &str = "\
Examples:
  tidegate demo
  tidegate demo --listen 127.0.0.1:0           on a free port";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct DemoArgs {
    /// Where to serve; port 0 picks a free one.
    #[arg(
        long,
        value_name = "ADDR",
        value_parser = address,
        default_value = "127.0.0.1:8080",
        env = "TIDEGATE_LISTEN"
    )]
    pub(super) listen: SocketAddr,
    #[command(flatten)]
    pub(super) log: LogArgs,
}

pub(super) fn demo(args: &DemoArgs) -> anyhow::Result<ExitCode> {
    args.log.init("warn")?;
    let stage = Stage::set().context("cannot set the demo up")?;
    let (announce, announced) = oneshot::channel();
    let (ending, ended) = oneshot::channel::<()>();
    let options = Options {
        files: vec![stage.file().to_owned()],
        overrides: Overrides {
            listen: vec![args.listen],
            admin: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
            workers: None,
        },
        sockets: SocketOptions::default(),
        cluster: None,
        announce: Box::new(move |addresses: &Addresses| {
            // Nobody listens any more when watching has failed.
            drop(announce.send(addresses.clone()));
        }),
        ready: Box::new(|| ()),
    };
    let gateway = std::thread::Builder::new()
        .name("gateway".to_owned())
        .spawn(move || {
            // Dropped however the thread ends.
            let _ending = ending;
            run::run(options)
        })?;
    let watched = watch(&stage, announced, ended);
    if watched.is_err() {
        // A demo that nobody can see is over.
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM)?;
    }
    let result = gateway
        .join()
        .map_err(|_panic| anyhow::anyhow!("the gateway panicked"))?;
    drop(stage);
    match result {
        Ok(()) => watched.map(|()| ExitCode::SUCCESS),
        Err(error @ RunError::Bind { .. }) => {
            anyhow::bail!("{error}; `tidegate demo --listen 127.0.0.1:0` takes a free port")
        }
        Err(error) => report(error),
    }
}

/// Tells what happens until the gateway has ended.
fn watch(
    stage: &Stage,
    announced: oneshot::Receiver<Addresses>,
    ended: oneshot::Receiver<()>,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        // Without addresses the gateway has ended, and says itself why.
        let Ok(addresses) = announced.await else {
            return Ok(());
        };
        print(&(announcement(&addresses) + "ready\n"))?;
        let public = addresses.listeners.first().map(|one| one.address);
        let public = reachable(public.context("the demo has no listener")?);
        print(&stage.tour(public, addresses.admin))?;
        let admin = addresses.admin.to_string();
        let admin = admin.parse().map_err(anyhow::Error::msg)?;
        tokio::select! {
            told = tell_changes(&admin) => told,
            _ = ended => Ok(()),
        }
    })?;
    Ok(())
}

async fn tell_changes(admin: &Admin) -> anyhow::Result<()> {
    let began = Instant::now();
    let mut before = Vec::new();
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        // It does not answer while it ends: the next look may tell more.
        let Ok((StatusCode::OK, body)) = admin.get("/api/revisions").await else {
            continue;
        };
        let after: Vec<View> = serde_json::from_slice(&body)?;
        let seconds = began.elapsed().as_secs_f64();
        for line in lines(&before, &after) {
            print(&format!("{seconds:7.1} s  {line}\n"))?;
        }
        before = after;
    }
}

/// An address that a client on this machine can use.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curl_is_never_sent_to_an_address_that_means_all() {
        for (bound, shown) in [
            ("0.0.0.0:8080", "127.0.0.1:8080"),
            ("[::]:8080", "[::1]:8080"),
            ("192.0.2.1:80", "192.0.2.1:80"),
        ] {
            assert_eq!(reachable(bound.parse().unwrap()).to_string(), shown);
        }
    }
}
