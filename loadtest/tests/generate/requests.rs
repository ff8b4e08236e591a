//! What is sent.

use std::collections::BTreeMap;
use std::io::Write;

use super::support::{HELLO, Server, run, write};

#[test]
fn a_request_says_what_the_options_say() {
    let server = Server::hello();
    let options = "-n 1 -c 1 -X PUT --host a.example:81 --body 1KiB -H X-One:1 -H x-Two:2";
    let report = run(&server.url(), options).report;
    assert_eq!((report.answers, report.bytes_up), (1, 1024));
    let seen = server.seen.lock().unwrap();
    let head = "PUT /path?query=1 HTTP/1.1\r\nHost: a.example:81\r\nx-one: 1\r\nx-two: 2\r\n\
        Content-Length: 1024\r\n\r\n";
    assert_eq!(seen[0].head, head);
    assert!(seen[0].body.starts_with(b"abcdef"));
}

#[test]
fn a_file_is_sent_as_the_body() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&b"large ".repeat(100_000)).unwrap();
    let server = Server::hello();
    let options = format!("-n 3 -c 1 --body-file {}", file.path().display());
    let report = run(&server.url(), &options).report;
    assert_eq!((report.answers, report.bytes_up), (3, 1_800_000));
    let seen = server.seen.lock().unwrap();
    assert!(seen.iter().all(|request| request.head.starts_with("POST ")));
    assert!(
        seen.iter()
            .all(|request| request.body == b"large ".repeat(100_000))
    );
}

/// How often each host was asked for.
fn hosts(server: &Server) -> BTreeMap<String, u64> {
    let mut hosts = BTreeMap::new();
    for request in &*server.seen.lock().unwrap() {
        let host = request.field("host").unwrap().to_owned();
        *hosts.entry(host).or_default() += 1;
    }
    hosts
}

#[test]
fn hosts_take_turns() {
    let server = Server::hello();
    run(&server.url(), "-n 10 -c 2 --host-pattern h{0..4}.example");
    let expected = (0..5).map(|number| (format!("h{number}.example"), 2));
    assert_eq!(hosts(&server), expected.collect());

    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"# two of them\none.example\n\ntwo.example\n")
        .unwrap();
    let server = Server::hello();
    let options = format!("-n 10 -c 2 --body 10B --hosts {}", file.path().display());
    run(&server.url(), &options);
    let expected = ["one.example", "two.example"].map(|host| (host.to_owned(), 5));
    assert_eq!(hosts(&server), expected.into());
}

#[test]
fn each_request_has_a_connection_of_its_own_if_asked_for() {
    let server = Server::start(|_, request, stream| {
        assert_eq!(request.field("connection"), Some("close"));
        write(stream, HELLO);
        false
    });
    let report = run(&server.url(), "-n 20 -c 4 --new-connection").report;
    assert_eq!((report.answers, server.connections()), (20, 20));
}

#[test]
fn connections_come_from_the_addresses_given() {
    let server = Server::hello();
    let options = "-n 4 -c 4 --bind 127.0.0.2 --bind 127.0.0.3";
    let report = run(&server.url(), options).report;
    assert_eq!(report.answers, 4);
    let ran = run(&server.url(), "-n 1 -c 1 --bind 192.0.2.1");
    assert_eq!(ran.report.errors.connect, 1);
}
