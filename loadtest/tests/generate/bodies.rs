//! Where an answer ends.

use super::support::{HELLO, Server, run, write};

#[test]
fn every_framing_is_read_to_its_end() {
    let server = Server::start(|number, _, stream| match number % 4 {
        0 => write(stream, HELLO),
        1 => write(
            stream,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        ),
        2 => {
            write(stream, "HTTP/1.1 103 Early Hints\r\nLink: </>\r\n\r\n");
            write(stream, HELLO)
        }
        _ => {
            write(stream, "HTTP/1.1 200 OK\r\n\r\nhello");
            false
        }
    });
    let report = run(&server.url(), "-n 40 -c 1").report;
    assert_eq!((report.answers, report.bytes_down), (40, 200));
    assert_eq!(server.connections(), 10);
}

#[test]
fn answers_to_head_have_no_body() {
    let server = Server::start(|_, _, stream| {
        write(stream, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    });
    let report = run(&server.url(), "-n 10 -c 1 -X HEAD").report;
    assert_eq!((report.answers, report.bytes_down), (10, 0));
    assert_eq!(server.connections(), 1);
}

#[test]
fn a_large_answer_is_read_to_its_end() {
    let size = 3 << 20;
    let server = Server::start(move |_, _, stream| {
        write(
            stream,
            &format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n"),
        ) && write(stream, &"x".repeat(size))
    });
    let report = run(&server.url(), "-n 3 -c 1").report;
    assert_eq!((report.answers, report.bytes_down), (3, 3 * size as u64));
}

#[test]
fn a_connection_the_answer_ends_is_made_anew() {
    let server = Server::start(|_, _, stream| {
        write(
            stream,
            "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n",
        );
        false
    });
    let report = run(&server.url(), "-n 10 -c 1").report;
    assert_eq!((report.answers, server.connections()), (10, 10));
}
