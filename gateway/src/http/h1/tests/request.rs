use super::{HeadLimits, Heard, READS, cuts, hear, now, pace, pipe, say};
use crate::http::h1::Parsed;
use crate::http::h1::request::{FIELDS_MAX, parse};
use crate::http::message::{Length, RequestHead, StreamError, Version};
use crate::refusal::Reason;

/// What a head means, in one line.
pub(super) fn meaning(request: &RequestHead) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut out = format!(
        "{} {} @{}",
        text(request.method()),
        text(request.target()),
        text(request.host())
    );
    if request.version == Version::Http10 {
        out += " 1.0";
    }
    match request.length {
        Length::None => {}
        Length::Exactly(length) => out += &format!(" exactly {length}"),
        Length::Chunked => out += " chunked",
        Length::UntilClose => out += " until close",
    }
    for (holds, word) in [
        (!request.keep_alive, " close"),
        (request.expects_continue, " expects"),
        (request.wants_websocket, " websocket"),
        (request.takes_trailers, " trailers"),
    ] {
        if holds {
            out += word;
        }
    }
    let dropped = request.head.fields().iter().filter(|field| field.dropped);
    for field in dropped {
        out += " -";
        out += &text(field.name.of(&request.head.bytes));
    }
    out
}

/// Heads and what they mean; `...` behind a head stands for what follows it.
const ACCEPTED: &[(&str, &str)] = &[
    ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / @a"),
    (
        "\r\n\r\nGET /x HTTP/1.1\r\nhOsT:a.example:80\r\n\r\n",
        "GET /x @a.example:80",
    ),
    ("get / HTTP/1.1\r\nHost: a\r\n\r\n", "get / @a"),
    (
        "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345 / HTTP/1.1\r\nHost: a\r\n\r\n",
        "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345 / @a",
    ),
    (
        "GET /a//b?c={d|e}^`\"<>\\%zz HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /a//b?c={d|e}^`\"<>\\%zz @a",
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nx: \r\ny:\t \r\nz:\r\n\r\n",
        "GET / @a",
    ),
    (
        "GET / HTTP/1.1\r\nHost: \t A_b-c.Example. \t\r\n\r\n",
        "GET / @A_b-c.Example.",
    ),
    ("GET / HTTP/1.1\r\nHost: [::1]\r\n\r\n", "GET / @[::1]"),
    (
        "GET / HTTP/1.1\r\nHost: [2001:DB8::7]:8080\r\n\r\n",
        "GET / @[2001:DB8::7]:8080",
    ),
    ("GET / HTTP/1.1\r\nHost: a:\r\n\r\n", "GET / @a:"),
    // What HTTP/1.0 may do.
    ("GET / HTTP/1.0\r\n\r\n", "GET / @ 1.0 close"),
    (
        "POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
        "POST / @a 1.0 exactly 3 close",
    ),
    (
        "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n",
        "GET / @ 1.0 -Connection",
    ),
    (
        "GET / HTTP/1.0\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n",
        "GET / @ 1.0 close -Connection -Connection",
    ),
    (
        "GET / HTTP/1.0\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        "GET / @a 1.0 close -Connection -Upgrade",
    ),
    // Where the body ends.
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        "POST / @a exactly 5",
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\ncontent-length:\t 005 \t\r\n\r\nhello",
        "POST / @a exactly 5",
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\nGET ",
        "POST / @a",
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775807\r\n\r\nx",
        "POST / @a exactly 9223372036854775807",
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \tcHuNkEd \r\n\r\n0\r\n\r\n",
        "POST / @a chunked -Transfer-Encoding",
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / @a chunked -Transfer-Encoding",
    ),
    // Forms of the target.
    (
        "GET http://A.example/x?y HTTP/1.1\r\nHost: a.EXAMPLE:80\r\n\r\n",
        "GET /x?y @A.example",
    ),
    (
        "GET HTTPS://a:443/x HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /x @a:443",
    ),
    ("GET http://a HTTP/1.1\r\nHost: a\r\n\r\n", "GET / @a"),
    ("GET http://a?q HTTP/1.1\r\nHost: a\r\n\r\n", "GET /?q @a"),
    ("GET http://a/ HTTP/1.0\r\n\r\n", "GET / @a 1.0 close"),
    ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS * @a"),
    (
        "OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n",
        "OPTIONS * @a",
    ),
    (
        "OPTIONS http://a? HTTP/1.1\r\nHost: a\r\n\r\n",
        "OPTIONS /? @a",
    ),
    // What is meant for us alone.
    (
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "GET / @a close -Connection",
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, keep-alive\r\n\r\n",
        "GET / @a close -Connection",
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: ,x-One,\t X-two,, x-absent\r\nX-one: 1\r\nx-TWO: 2\r\nx-three: 3\r\nx-one: 4\r\n\r\n",
        "GET / @a -Connection -X-one -x-TWO -x-one",
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\n\r\n",
        "GET / @a -Keep-Alive -Proxy-Connection",
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nTE: trailers, deflate;q=0.5\r\nConnection: TE\r\n\r\n",
        "GET / @a trailers -TE -Connection",
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nTE: deflate\r\n\r\n",
        "GET / @a -TE",
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\n",
        "POST / @a exactly 1 expects -Expect",
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n",
        "GET / @a -Expect",
    ),
    (
        "POST / HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n",
        "POST / @a 1.0 exactly 1 close -Expect",
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nExpect: ,\r\nContent-Length: 1\r\n\r\n",
        "POST / @a exactly 1 -Expect",
    ),
    // Upgrades: a WebSocket and nothing else.
    (
        "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nsec-websocket-key: x\r\n\r\nearly",
        "GET /chat @a websocket -Connection -Upgrade",
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
        "GET / @a -Connection -Upgrade -HTTP2-Settings",
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
        "GET / @a -Upgrade",
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        "POST / @a -Connection -Upgrade",
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\nx",
        "GET / @a exactly 1 -Connection -Upgrade",
    ),
];

const BAD: Reason = Reason::BadRequest;

/// Heads that are refused, and why.
const REFUSED: &[(&[u8], Reason)] = &[
    // a length said twice.
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", BAD),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", BAD),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\nContent-Length: 5\r\n\r\n", BAD),
    // lengths that are none.
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", BAD),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\ncontent-LENGTH: 5\r\n\r\n", BAD),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n", BAD),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n", BAD),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n", BAD),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\n", BAD),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5 5\r\n\r\n", BAD),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n", BAD),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5.0\r\n\r\n", BAD),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775808\r\n\r\n", BAD),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551621\r\n\r\n", BAD),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 00000000000000000005\r\n\r\n", BAD),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \xef\xbc\x95\r\n\r\n", BAD),
    // codings that are not exactly one `chunked`.
    (b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", BAD),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", BAD),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n", BAD),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n", BAD),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", BAD),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", BAD),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n", BAD),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n", BAD),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", BAD),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n", BAD),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: ,\r\n\r\n", BAD),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n", BAD),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\xa0\r\n\r\n", BAD),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n", BAD),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding\t: chunked\r\n\r\n", BAD),
    (b"POST / HTTP/1.1\r\nHost: a\r\n Transfer-Encoding: chunked\r\n\r\n", BAD),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n", BAD),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", Reason::NotImplemented),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", Reason::NotImplemented),
    (b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", BAD),
    (b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", BAD),
    // whose request it is.
    (b"GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", BAD),
    (b"GET / HTTP/1.1\r\nHost: a%2eb\r\n\r\n", BAD),
    (b"GET / HTTP/1.1\r\nHost: a%00\r\n\r\n", BAD),
    (b"GET / HTTP/1.1\r\n\r\n", BAD),
    (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", BAD),
    (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", BAD),
    (b"GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n", BAD),
    (b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", BAD),
    (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", BAD),
    (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", BAD),
    (b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", BAD),
    (b"GET / HTTP/1.1\r\nHost: a?b\r\n\r\n", BAD),
    (b"GET / HTTP/1.1\r\nHost: a:80x\r\n\r\n", BAD),
    (b"GET / HTTP/1.1\r\nHost: a:-1\r\n\r\n", BAD),
    (b"GET / HTTP/1.1\r\nHost: a:1:2\r\n\r\n", BAD),
    (b"GET / HTTP/1.1\r\nHost: :80\r\n\r\n", BAD),
    (b"GET / HTTP/1.1\r\nHost: ::1\r\n\r\n", BAD),
    (b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", BAD),
    (b"GET / HTTP/1.1\r\nHost: [::1]a\r\n\r\n", BAD),
    (b"GET / HTTP/1.1\r\nHost: [a.example]\r\n\r\n", BAD),
    (b"GET / HTTP/1.1\r\nHost: a[::1]\r\n\r\n", BAD),
    (b"GET / HTTP/1.1\r\nHost: a\xc3\xa4\r\n\r\n", BAD),
    (b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    (b"GET http://a:8080/ HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    (b"GET https://a:80/ HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    (b"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    (b"GET http:/// HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    (b"GET http:// HTTP/1.0\r\n\r\n", BAD),
    (b"GET http:a HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    (b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    (b"GET //a\x80/ HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    (b"GET a HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    (b"GET a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", BAD),
    (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    (b"GET ?q HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    // lines that are none.
    (b"GET / HTTP/1.1\nHost: a\r\n\r\n", BAD),
    (b"GET / HTTP/1.1\r\nHost: a\n\r\n", BAD),
    (b"GET / HTTP/1.1\r\nHost: a\r\n\n", BAD),
    (b"GET / HTTP/1.1\r\nHost: a\nx: y\r\n\r\n", BAD),
    (b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    (b"\r\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    (b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    (b"GET / HTTP/1.1\rHost: a\r\n\r\n", BAD),
    (b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", BAD),
    (b"GET / HTTP/1.1\r\nHost: a\r\nx: y\rz: w\r\n\r\n", BAD),
    (b"GET / HTTP/1.1\r\nHost: a\r\nx: y\0\r\n\r\n", BAD),
    (b"GET / HTTP/1.1\r\nHost: a\r\nx: \x01\r\n\r\n", BAD),
    (b"GET / HTTP/1.1\r\nHost: a\r\nx: \x7f\r\n\r\n", BAD),
    (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", BAD),
    (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", BAD),
    (b"GET / HTTP/1.1\r\n\tHost: a\r\nHost: b\r\n\r\n", BAD),
    (b"GET / HTTP/1.1\r\nHost: a\r\nx: y\r\n folded\r\n\r\n", BAD),
    (b"GET / HTTP/1.1\r\nHost: a\r\nx: y\r\n\tfolded\r\n\r\n", BAD),
    (b"GET / HTTP/1.1\r\nHost: a\r\n: y\r\n\r\n", BAD),
    (b"GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n", BAD),
    (b"GET / HTTP/1.1\r\nHost: a\r\nx\r\n\r\n", BAD),
    (b"GET / HTTP/1.1\r\nHost: a\r\nx(y: z\r\n\r\n", BAD),
    (b"GET / HTTP/1.1\r\nHost: a\r\n\xe4: z\r\n\r\n", BAD),
    (b"GET / HTTP/1.1\r\nHost: a\r\nx\0: z\r\n\r\n", BAD),
    (b"\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    // the request line.
    (b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    (b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    (b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    (b"GET / x HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    (b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", BAD),
    (b"GET / http/1.1\r\nHost: a\r\n\r\n", BAD),
    (b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", BAD),
    (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", BAD),
    (b"GET / HTTP/01.1\r\nHost: a\r\n\r\n", BAD),
    (b"GET /\r\n\r\n", BAD),
    (b"GET /\r\nHost: a\r\n\r\n", BAD),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", BAD),
    (b"G(T / HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    (b"GET /#f HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    (b"GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    (b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    (b"GET /\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    (b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456 / HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    (b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", Reason::MethodNotAllowed),
    (b"CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", Reason::MethodNotAllowed),
    // what `Connection` must not take away.
    (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Host\r\n\r\n", BAD),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nConnection: close, content-length\r\n\r\n", BAD),
    (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: X-Forwarded-For\r\n\r\n", BAD),
    (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: authorization\r\n\r\n", BAD),
    (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: x, cookie\r\n\r\n", BAD),
    (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: TraceParent\r\n\r\n", BAD),
    (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: tracestate\r\n\r\n", BAD),
    (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: proxy-authorization\r\n\r\n", BAD),
    (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: x-forwarded-client-cert\r\n\r\n", BAD),
    (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: x_forwarded_for\r\n\r\n", BAD),
    (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: k-network-probe\r\n\r\n", BAD),
    // what cannot be expected.
    (b"POST / HTTP/1.1\r\nHost: a\r\nExpect: coffee\r\nContent-Length: 1\r\n\r\n", Reason::ExpectationFailed),
    (b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue, x\r\nContent-Length: 1\r\n\r\n", Reason::ExpectationFailed),
];

#[test]
fn heads_mean_the_same_in_whatever_pieces_they_come() {
    for (head, wanted) in ACCEPTED {
        let mut ways = cuts(head.as_bytes());
        ways.push(vec![head.as_bytes()]);
        for pieces in ways {
            match hear(&pieces) {
                Heard::Head(request) => assert_eq!(meaning(&request), *wanted, "{head:?}"),
                other => panic!("{other:?}: {head:?} in pieces of {:?}", sizes(&pieces)),
            }
        }
    }
}

#[test]
fn ambiguous_heads_are_refused_in_whatever_pieces_they_come() {
    for (head, wanted) in REFUSED {
        let mut ways = cuts(head);
        ways.push(vec![head]);
        for pieces in ways {
            let shown = head.escape_ascii();
            match hear(&pieces) {
                Heard::Refused(reason) => {
                    assert_eq!(reason, *wanted, "{shown} in {:?}", sizes(&pieces));
                }
                other => panic!("{other:?}: {shown} in pieces of {:?}", sizes(&pieces)),
            }
        }
    }
}

fn sizes(pieces: &[&[u8]]) -> Vec<usize> {
    pieces.iter().map(|piece| piece.len()).collect()
}

/// Refused for the same reason whole, cut in two, and byte by byte.
fn assert_refused(head: &[u8], wanted: Reason) {
    let mut ways = cuts(head);
    ways.push(vec![head]);
    for pieces in ways {
        let heard = hear(&pieces);
        let is_wanted = matches!(heard, Heard::Refused(reason) if reason == wanted);
        let (shown, sizes) = (head.escape_ascii(), sizes(&pieces));
        assert!(is_wanted, "{heard:?} for {shown} in {sizes:?}");
    }
}

#[test]
fn heads_beyond_a_bound_are_refused_by_the_bound_they_break() {
    let target = |length: usize| format!("/{}", "x".repeat(length - 1));
    let fits = format!("GET {} HTTP/1.1\r\nHost: a\r\n\r\n", target(100));
    assert!(matches!(hear(&[fits.as_bytes()]), Heard::Head(_)));
    let long = format!("GET {} HTTP/1.1\r\nHost: a\r\n\r\n", target(101));
    assert_refused(long.as_bytes(), Reason::UriTooLong);
    let longer = format!("GET {} HTTP/1.1\r\nHost: a\r\n\r\n", target(900));
    assert_refused(longer.as_bytes(), Reason::UriTooLong);
    let endless = format!("GET {}", target(2000));
    assert_refused(endless.as_bytes(), Reason::UriTooLong);
    let broken = format!("GET {}\x7f HTTP/1.1\r\nHost: a\r\n\r\n", target(101));
    assert_refused(broken.as_bytes(), Reason::UriTooLong);
    // What is wrong before the bound is found before it, however many bytes come at once.
    let broken = format!("GET {}\x7f{} HTTP/1.1\r\n\r\n", target(50), target(50));
    assert_refused(broken.as_bytes(), Reason::BadRequest);
    let fragment = format!("GET {}#{} HTTP/1.1\r\n\r\n", target(50), target(51));
    assert_refused(fragment.as_bytes(), Reason::BadRequest);
    let field = format!("GET {} HTTP/1.1\r\na\x7f: b\r\n\r\n", target(101));
    assert_refused(field.as_bytes(), Reason::UriTooLong);
    let folded = format!("GET {} HTTP/1.1\r\na: b\r\n c\r\n\r\n", target(101));
    assert_refused(folded.as_bytes(), Reason::UriTooLong);
    for method in ["", "G\x7fT", "G(T"] {
        let broken = format!("{method} {} HTTP/1.1\r\n\r\n", target(101));
        assert_refused(broken.as_bytes(), Reason::BadRequest);
    }
    assert_refused("X".repeat(2000).as_bytes(), Reason::BadRequest);

    let fields = |count: usize| "x: y\r\n".repeat(count - 1);
    let fits = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", fields(8));
    assert!(matches!(hear(&[fits.as_bytes()]), Heard::Head(_)));
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", fields(9));
    assert_refused(many.as_bytes(), Reason::HeadTooLarge);

    let start = "GET / HTTP/1.1\r\nHost: a\r\nx: ";
    let sized = |length: usize| {
        let filling = "y".repeat(length - start.len() - 4);
        format!("{start}{filling}\r\n\r\n")
    };
    assert!(matches!(hear(&[sized(1024).as_bytes()]), Heard::Head(_)));
    assert_refused(sized(1025).as_bytes(), Reason::HeadTooLarge);
    assert_refused(sized(3000).as_bytes(), Reason::HeadTooLarge);
    let large_and_broken = sized(3000).replace("y\r\n\r\n", "y\x00\r\n\r\n");
    assert_refused(large_and_broken.as_bytes(), Reason::HeadTooLarge);
    let long_and_large = format!("GET {} HTTP/1.1\r\n{}", target(101), &sized(1025)[16..]);
    assert_refused(long_and_large.as_bytes(), Reason::UriTooLong);
}

#[test]
fn a_thousand_fields_are_understood_if_they_are_allowed() {
    let limits = HeadLimits {
        bytes: 1 << 20,
        fields: FIELDS_MAX,
        target: 8192,
    };
    let mut out = RequestHead::default();
    for (count, wanted) in [(999, true), (1000, false)] {
        let fields = "x: y\r\n".repeat(count);
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let parsed = parse(head.as_bytes(), &limits, &mut out);
        let whole = parsed == Ok(Parsed::Head(head.len()));
        assert_eq!(whole, wanted, "{parsed:?} of {count}");
    }
    let large = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nx: {}\r\n\r\n",
        "y".repeat(900_000)
    );
    let (mut connection, mut theirs) = pipe();
    let pace = pace();
    let (mut reader, _writer) = connection.split(&pace, READS);
    say(&mut theirs, large.as_bytes());
    let parse = |bytes: &[u8]| {
        let refused = |_| StreamError::Malformed("refused");
        parse(bytes, &limits, &mut out).map_err(refused)
    };
    now(reader.head(limits.bytes, parse)).unwrap();
    assert_eq!(out.head.bytes.len(), large.len());
}

#[test]
fn half_a_head_is_waited_for() {
    let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    for end in 0..head.len() {
        assert!(matches!(hear(&[&head[..end]]), Heard::Waits), "{end}");
    }
}

#[test]
fn a_head_whose_last_piece_brings_more_than_its_end_is_whole() {
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nx-filling: 0123456789012345678901234567890123456789\r\n\r\nhello";
    for at in 1..head.len() {
        let heard = hear(&[&head[..at], &head[at..]]);
        assert!(matches!(heard, Heard::Head(_)), "{heard:?} cut at {at}");
    }
}

#[test]
fn a_list_of_thousands_of_options_is_refused_before_it_costs_anything() {
    let options = "a,".repeat(65);
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: {options}\r\n\r\n");
    assert!(matches!(
        hear(&[head.as_bytes()]),
        Heard::Refused(Reason::BadRequest)
    ));
}

#[test]
fn a_line_that_ends_without_its_cr_is_refused_wherever_it_stands() {
    let head = "GET / HTTP/1.1\r\nHost: a\r\nx:\r\ny: b \r\n\r\n";
    let limits = HeadLimits {
        bytes: 1000,
        fields: 10,
        target: 100,
    };
    let meaning_of = |head: &str| {
        let mut out = RequestHead::default();
        parse(head.as_bytes(), &limits, &mut out).map(|_| meaning(&out))
    };
    assert_eq!(meaning_of(head).as_deref(), Ok("GET / @a"));
    for (at, _) in head.match_indices("\r\n") {
        let mut loose = head.to_owned();
        loose.remove(at);
        assert_eq!(meaning_of(&loose), Err(Reason::BadRequest), "{loose:?}");
    }
    assert_eq!(meaning_of(&format!("\n{head}")), Err(Reason::BadRequest));
}
