//! h2spec, a suite of others, finds nothing wrong with how clients are served, in clear and over TLS
//!

use std::ffi::OsString;
use std::net::SocketAddr;
use std::process::Command;

use tests::tls::Authority;
use tests::{Backend, Launch};

use crate::{HELLO, hello};

const LISTENERS: &str = "gateway: { listeners: [ { address: '127.0.0.1:0' }, { address: '127.0.0.1:0', \
                         tls: { certificates: [ { cert: own.pem, key: own.key } ] } } ] }\n";

/// `$TIDEGATE_TEST_H2SPEC`, else what is in the path by that name.
fn h2spec() -> OsString {
    std::env::var_os("TIDEGATE_TEST_H2SPEC").unwrap_or_else(|| "h2spec".into())
}

/// What it says of everything there is at that address; `None` without it.
async fn report(address: SocketAddr, more: &[&str]) -> Option<String> {
    let mut command = Command::new(h2spec());
    command
        .args(["--host", &address.ip().to_string()])
        .args(["--port", &address.port().to_string()])
        .args(["--path", "/?size=1000", "--timeout", "5"])
        .args(more);
    let run = tokio::task::spawn_blocking(move || command.output());
    match run.await.unwrap() {
        Ok(output) => Some(String::from_utf8_lossy(&output.stdout).into_owned()),
        Err(why) => {
            eprintln!("SKIPPED: h2spec, which does not run: {why}");
            None
        }
    }
}

#[tokio::test]
async fn suite_of_others_finds_no_fault() {
    let backend = Backend::start("one");
    let authority = Authority::new();
    let routed = hello(&backend).replace("    traffic:", "    hosts: ['127.0.0.1']\n    traffic:");
    let launch = Launch::new(&(LISTENERS.to_owned() + &routed)).own_listeners();
    let launch = launch.certificate("own", &authority.issue(&[HELLO]));
    let gateway = launch.start().await;
    // In clear, what is no preface is HTTP/1.1, and answered so.
    let no_preface = "Sends invalid connection preface";
    for (listener, more, faults) in [
        (0, &[][..], &[no_preface][..]),
        (1, &["--tls", "--insecure"], &[]),
    ] {
        let Some(report) = report(gateway.listeners[listener].0, more).await else {
            return;
        };
        let summary = report.lines().rev().find(|line| line.contains(" tests, "));
        let words: Vec<_> = summary.unwrap_or_default().split(' ').collect();
        let count = |at: usize| words.get(at).and_then(|word| word.parse::<usize>().ok());
        assert!(count(0).is_some_and(|tests| tests > 100), "{report}");
        assert_eq!(count(6), Some(faults.len()), "{report}");
        for fault in faults {
            let told = |line: &str| line.contains('×') && line.ends_with(fault);
            assert!(report.lines().any(told), "{report}");
        }
    }
}
