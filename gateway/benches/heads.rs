//! What reading and writing heads costs: `cargo bench -p tidegate --bench heads`.

#![allow(clippy::unwrap_used, reason = "a benchmark of a broken codec may fail")]

use divan::{Bencher, black_box};
use tidegate::http::h1::encode::{self, ResponseFraming};
use tidegate::http::h1::{HeadLimits, request, response};
use tidegate::http::message::{Length, RequestEdits, RequestHead, ResponseHead};

/// What a load generator sends.
const SMALL: &[u8] = b"GET /hello?x=1 HTTP/1.1\r\nHost: coffee.default.example.com\r\n\
User-Agent: test\r\nAccept: */*\r\n\r\n";

/// What a browser sends.
const BROWSER: &[u8] = b"GET /menu/today?lang=en&page=2 HTTP/1.1\r\n\
Host: coffee.default.example.com\r\n\
User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
Accept-Language: en-US,en;q=0.5\r\n\
Accept-Encoding: gzip, deflate, br, zstd\r\n\
Referer: https://coffee.default.example.com/menu\r\n\
Connection: keep-alive\r\n\
Cookie: session=5f2b8c1d0e9a4b7c8d6e5f4a3b2c1d0e; theme=dark; visits=17\r\n\
Upgrade-Insecure-Requests: 1\r\n\
Sec-Fetch-Dest: document\r\n\
Sec-Fetch-Mode: navigate\r\n\
Sec-Fetch-Site: same-origin\r\n\
Priority: u=0, i\r\n\r\n";

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\
date: Thu, 01 Jan 2026 00:00:00 GMT\r\n\r\n";

/// As many as an exchange adds.
const ADDED: &[u8] = b"x-forwarded-for: 192.0.2.7\r\nx-forwarded-proto: http\r\n\
x-forwarded-host: coffee.default.example.com\r\nvia: 1.1 tidegate-5f2b8c1d\r\n";

const HEADS: [(&str, &[u8]); 2] = [("small", SMALL), ("browser", BROWSER)];

fn main() {
    divan::main();
}

fn bytes_of(name: &str) -> &'static [u8] {
    HEADS.iter().find(|(known, _)| *known == name).unwrap().1
}

fn limits() -> HeadLimits {
    HeadLimits::of(&config::Settings::default().limits)
}

#[divan::bench(args = ["small", "browser"])]
fn parse_request(bencher: Bencher<'_, '_>, name: &str) {
    let (bytes, limits) = (bytes_of(name), limits());
    let mut head = RequestHead::default();
    bencher.bench_local(|| request::parse(black_box(bytes), &limits, &mut head));
}

#[divan::bench(args = ["small", "browser"])]
fn encode_request(bencher: Bencher<'_, '_>, name: &str) {
    let mut head = RequestHead::default();
    request::parse(bytes_of(name), &limits(), &mut head).unwrap();
    let edits = RequestEdits {
        target: None,
        host: None,
        lines: ADDED,
    };
    let mut out = Vec::with_capacity(4096);
    bencher.bench_local(|| {
        out.clear();
        encode::request(&mut out, black_box(&head), &edits);
        out.len()
    });
}

#[divan::bench]
fn parse_response(bencher: Bencher<'_, '_>) {
    let mut head = ResponseHead::default();
    bencher.bench_local(|| response_into(&mut head));
}

#[divan::bench]
fn encode_response(bencher: Bencher<'_, '_>) {
    let mut head = ResponseHead::default();
    response_into(&mut head);
    let framing = ResponseFraming {
        length: Length::Exactly(5),
        close: false,
        announce_keep_alive: false,
    };
    let mut out = Vec::with_capacity(4096);
    bencher.bench_local(|| {
        out.clear();
        encode::response(&mut out, black_box(&head), framing, b"");
        out.len()
    });
}

fn response_into(head: &mut ResponseHead) {
    response::parse(black_box(ANSWER), &limits(), false, head).unwrap();
}
