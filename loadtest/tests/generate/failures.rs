//! What does not end in an answer.

use std::net::TcpListener;
use std::thread::sleep;
use std::time::Duration;

use super::support::{HELLO, Server, refused, run, write};

#[test]
fn a_connection_that_ends_early_is_counted_as_closed() {
    let server = Server::start(|number, _, stream| match number % 3 {
        0 => write(stream, HELLO),
        1 => {
            write(stream, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel");
            false
        }
        _ => false,
    });
    let ran = run(&server.url(), "-n 30 -c 3");
    assert!(ran.success);
    let report = ran.report;
    assert_eq!((report.sent, report.answers, server.count()), (30, 10, 30));
    assert_eq!(report.errors.closed, 20);
    assert!(report.first_error.is_some());
}

#[test]
fn what_is_no_answer_is_counted_as_invalid() {
    let server = Server::start(|number, _, stream| match number % 2 {
        0 => write(stream, HELLO),
        _ => write(stream, "220 smtp.example ESMTP\r\n"),
    });
    let report = run(&server.url(), "-n 10 -c 1").report;
    assert_eq!((report.answers, report.errors.invalid), (5, 5));
}

#[test]
fn more_than_an_answer_is_counted_as_invalid() {
    let server = Server::start(|_, _, stream| write(stream, &HELLO.repeat(2)));
    let report = run(&server.url(), "-n 4 -c 1").report;
    assert_eq!(report.errors.invalid, 4);
}

#[test]
fn an_answer_that_does_not_come_in_time_is_counted_as_timeout() {
    let server = Server::start(|number, _, stream| {
        if number % 2 == 1 {
            sleep(Duration::from_secs(60));
        }
        write(stream, HELLO)
    });
    let report = run(&server.url(), "-n 4 -c 1 --timeout 100ms").report;
    assert_eq!((report.answers, report.errors.timeout), (2, 2));
}

#[test]
fn a_dead_target_is_told_and_not_hammered() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let ran = run(&url, "-d 300ms -c 1");
    assert!(!ran.success);
    assert!(ran.stderr.contains("Connection refused"), "{}", ran.stderr);
    let report = ran.report;
    assert_eq!((report.answers, report.sent), (0, report.errors.connect));
    // Waiting 5 ms, then twice as long each time: seven fit.
    assert!((1..=7).contains(&report.sent), "{}", report.sent);
}

#[test]
fn a_target_that_closes_at_once_is_not_hammered_either() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    std::thread::spawn(move || listener.incoming().for_each(drop));
    for options in [
        "-d 300ms -c 1",
        "-d 300ms -c 1 --rate 1000 --timeout 300ms",
        "-d 300ms -c 1 --http2",
    ] {
        let report = run(&url, options).report;
        let errors = report.errors;
        assert_eq!(
            report.sent,
            errors.closed + errors.connect,
            "{options}: {errors:?}"
        );
        // With a rate, what is due at the end is still tried.
        assert!((1..=20).contains(&report.sent), "{options}: {errors:?}");
    }
}

#[test]
fn options_without_a_meaning_are_refused() {
    for (options, words) in [
        (&["--streams", "2"][..], "--http2"),
        (&["-c", "0"], "--connections"),
        (&["--insecure"], "--insecure"),
        (&["--ca", "/dev/null"], "--ca"),
        (&["--rate", "0"], "--rate"),
        (&["--rate", "nan"], "--rate"),
        (&["--rate", "1e30"], "--rate"),
        (&["--rate", "1e-30", "-n", "3"], "--rate"),
        (&["-d", "0s"], "above zero"),
        (&["-d", "500000000000y"], "--duration"),
        (&["--timeout", "0s"], "--timeout"),
        (&["--warmup", "500000000000y"], "--warmup"),
        (&["--body", "2GiB"], "--body"),
        (&["--backlog", "1"], "--rate"),
        (&["-H", "Content-Length: 3"], "content-length"),
        (&["-H", "Host: a"], "--host"),
        (&["-H", "nothing"], "Name: value"),
        (&["--host", "a b"], "no host"),
        (&["--host-pattern", "h"], "{0..999}"),
        (&["--hosts", "/nonexistent"], "/nonexistent"),
        (&["--hold", "--rate", "1"], "--rate"),
        (&["-X", "G T"], "no method"),
        (&["--json", "/nonexistent/a.json"], "/nonexistent/a.json"),
        (&["--plot", "/nonexistent/a.svg"], "/nonexistent/a.svg"),
    ] {
        let said = refused("http://127.0.0.1:1/", options);
        assert!(said.contains(words), "{options:?}: {said}");
    }
    assert!(refused("ftp://a/", &[]).contains("ftp"));
    assert!(refused("localhost:80", &[]).contains("URL"));
    assert!(refused("http://127.0.0.1:99999/", &[]).contains("99999"));
    assert!(refused("http://nothing.invalid/", &[]).contains("cannot resolve nothing.invalid"));
    assert!(refused("ws://127.0.0.1:1/", &["--http2"]).contains("WebSocket"));
}
