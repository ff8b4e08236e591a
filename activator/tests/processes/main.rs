//! The local scaler with real processes: `supervise` by its protocol, and [`Local`] as a whole.
//!
//! [`Local`]: activator::scaler::local::Local

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "all of it is test code"
)]

mod gateway;
mod supervise;
mod world;

use std::panic::catch_unwind;
use std::process::ExitCode;

type Test = (&'static str, fn());

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("supervise") => activator::scaler::local::supervise(),
        Some("serve") => world::serve(),
        Some("gateway") => gateway::main(),
        _ => run(&arguments),
    }
}

/// As much of the usual test harness as `cargo test` needs: names to filter by, and `--list`.
fn run(arguments: &[String]) -> ExitCode {
    let tests = supervise::TESTS.iter().chain(gateway::TESTS);
    let filters: Vec<&String> = arguments.iter().filter(|it| !it.starts_with('-')).collect();
    let list = arguments.iter().any(|it| it == "--list");
    let mut failed = vec![];
    for (name, test) in tests {
        if !filters.is_empty() && !filters.iter().any(|it| name.contains(it.as_str())) {
            continue;
        }
        if list {
            println!("{name}: test");
            continue;
        }
        let passed = catch_unwind(test).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        if !passed {
            failed.push(name);
        }
    }
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("failed: {failed:?}");
    ExitCode::FAILURE
}
