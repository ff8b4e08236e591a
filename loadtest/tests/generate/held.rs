//! Connections held open and idle.

use super::support::{HELLO, Server, run, write};

#[test]
fn every_connection_sends_one_request_and_stays() {
    let server = Server::hello();
    let ran = run(&server.url(), "-c 200 --hold -d 100ms --threads 2");
    assert_eq!((ran.report.answers, ran.report.held), (200, Some(200)));
    assert_eq!((server.count(), server.connections()), (200, 200));
    assert!(
        ran.stderr.contains("holding 200 connections"),
        "{}",
        ran.stderr
    );
}

#[test]
fn connections_that_end_meanwhile_are_not_held() {
    let server = Server::start(|number, _, stream| write(stream, HELLO) && number % 2 == 0);
    let report = run(&server.url(), "-c 20 --hold -d 200ms").report;
    assert_eq!((report.answers, report.held), (20, Some(10)));
}
