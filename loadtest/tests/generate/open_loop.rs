//! Requests are due at fixed times, and latency counts from then.

use std::thread::sleep;
use std::time::Duration;

use super::support::{HELLO, Server, run, write};

/// Stalls once, at its first request.
fn stalling() -> Server {
    Server::start(|number, _, stream| {
        if number == 0 {
            sleep(Duration::from_millis(300));
        }
        write(stream, HELLO)
    })
}

#[test]
fn requests_are_sent_at_the_rate_asked_for() {
    let server = Server::hello();
    let report = run(&server.url(), "--rate 200 -d 250ms -c 4").report;
    assert_eq!((report.answers, report.missed, server.count()), (50, 0, 50));
    assert_eq!(report.target_rate, Some(200.0));
}

#[test]
fn threads_share_the_rate() {
    let server = Server::hello();
    let report = run(&server.url(), "--rate 200 -d 250ms -c 4 --threads 3").report;
    assert_eq!((report.answers, server.count()), (50, 50));
}

#[test]
fn what_waited_behind_a_stall_counts_from_when_it_was_due() {
    let server = stalling();
    let report = run(&server.url(), "--rate 100 -n 40 -c 1").report;
    assert_eq!((report.answers, report.missed), (40, 0));
    // Thirty of the forty were due while nothing moved: a closed loop would have seen one slow.
    assert!(report.latency.max >= 300_000, "{:?}", report.latency);
    assert!(report.latency.p75 >= 150_000, "{:?}", report.latency);
}

#[test]
fn what_the_backlog_has_no_room_for_is_reported() {
    let server = stalling();
    let report = run(&server.url(), "--rate 100 -n 40 -c 1 --backlog 5").report;
    assert_eq!(report.sent + report.missed, 40);
    assert_eq!(report.sent, server.count());
    assert!(report.missed >= 20, "{}", report.missed);
}

#[test]
fn what_waited_for_longer_than_the_timeout_is_given_up() {
    let server = stalling();
    let report = run(&server.url(), "--rate 100 -n 40 -c 1 --timeout 100ms").report;
    assert_eq!(report.sent + report.missed, 40);
    assert!(report.errors.timeout >= 1, "{:?}", report.errors);
}

#[test]
fn a_connection_closed_while_idle_is_no_error() {
    let server = Server::start(|_, _, stream| {
        write(stream, HELLO);
        false
    });
    let report = run(&server.url(), "--rate 10 -n 4 -c 1").report;
    assert_eq!((report.answers, server.connections()), (4, 4));
}
