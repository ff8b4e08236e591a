//! Each connection sends its next request when it has its answer.

use std::thread::sleep;
use std::time::Duration;

use super::support::{HELLO, Server, run, status, write};

#[test]
fn every_request_is_sent_once_and_counted_once() {
    let server = Server::hello();
    let ran = run(&server.url(), "-n 500 -c 8");
    assert!(ran.success);
    let report = ran.report;
    assert_eq!(
        (report.sent, report.answers, server.count()),
        (500, 500, 500)
    );
    assert_eq!(report.statuses, status(200, 500));
    assert_eq!((report.bytes_up, report.bytes_down), (0, 2500));
    assert_eq!(report.protocol, "http1");
    assert!(server.connections() <= 8, "{}", server.connections());
}

#[test]
fn threads_share_requests_and_connections() {
    let server = Server::hello();
    let report = run(&server.url(), "-n 100 -c 5 --threads 3").report;
    assert_eq!((report.answers, server.count()), (100, 100));
    assert!(server.connections() <= 5);
}

#[test]
fn a_run_of_some_time_waits_for_its_last_answers() {
    let server = Server::hello();
    let report = run(&server.url(), "-d 200ms -c 4").report;
    assert!(report.answers > 0);
    assert_eq!((report.errors.total(), report.sent), (0, server.count()));
    assert!((report.seconds - 0.2).abs() < 1e-9, "{}", report.seconds);
}

#[test]
fn warming_up_is_not_counted() {
    let server = Server::hello();
    let report = run(&server.url(), "-n 20 -c 2 --warmup 100ms").report;
    assert_eq!(report.answers, 20);
    assert!(server.count() > 20);
}

#[test]
fn a_known_delay_shows_in_every_percentile() {
    let server = Server::start(|_, _, stream| {
        sleep(Duration::from_millis(20));
        write(stream, HELLO)
    });
    let latency = run(&server.url(), "-n 40 -c 8").report.latency;
    for value in [latency.min, latency.p50, latency.p99, latency.max] {
        assert!(value >= 20_000, "{latency:?}");
    }
    assert!(latency.mean >= 20_000.0, "{latency:?}");
}
