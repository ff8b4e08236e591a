//! What is read of heads and what is said in them.

use h2::ext::Protocol;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use proptest::prelude::*;

use super::super::heads::{
    read_request, read_response, read_trailers, write_request, write_response, write_trailers,
};
use crate::http::field::Name;
use crate::http::h1::{HeadLimits, Parsed, encode, request::parse};
use crate::http::message::{
    Length, RequestEdits, RequestHead, ResponseHead, StreamError, Trailers, Version,
};
use crate::refusal::Reason;

const LIMITS: HeadLimits = HeadLimits {
    bytes: 64 * 1024,
    fields: 10,
    target: 100,
};

fn read(request: Request<()>, ended: bool) -> Result<RequestHead, Reason> {
    let (parts, ()) = request.into_parts();
    let mut head = RequestHead::default();
    read_request(&parts, ended, &LIMITS, || 7, &mut head)?;
    Ok(head)
}

fn get() -> http::request::Builder {
    Request::get("http://a.test/x?y=1")
}

fn refused(request: http::request::Builder) -> Reason {
    read(request.body(()).unwrap(), true).unwrap_err()
}

/// The head as an HTTP/1.1 endpoint would get it.
fn http1(head: &RequestHead) -> String {
    let mut out = Vec::new();
    encode::request(&mut out, head, &RequestEdits::default());
    String::from_utf8(out).unwrap()
}

#[test]
fn a_request_reads_as_its_http1_form_does() {
    let request = get()
        .header("te", "trailers")
        .header("x-one", "1")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .header("cookie", "c=3");
    let head = read(request.body(()).unwrap(), true).unwrap();
    assert_eq!((head.version, head.length), (Version::Http2, Length::None));
    assert_eq!(
        (head.method(), head.target(), head.host()),
        (&b"GET"[..], &b"/x?y=1"[..], &b"a.test"[..])
    );
    assert_eq!(
        http1(&head),
        "GET /x?y=1 HTTP/1.1\r\nhost: a.test\r\nx-one: 1\r\ncookie: a=1; b=2; c=3\r\n\
         connection: TE\r\nte: trailers\r\n\r\n"
    );
    let mut again = RequestHead::default();
    let parsed = parse(http1(&head).as_bytes(), &LIMITS, &mut again);
    assert_eq!(parsed, Ok(Parsed::Head(http1(&head).len())));
    assert!(again.takes_trailers);
    assert_eq!(again.head.first(Name::Cookie), Some(&b"a=1; b=2; c=3"[..]));
}

#[test]
fn a_length_is_what_the_head_and_its_end_say() {
    let post = |length: Option<&str>| {
        let mut request = Request::post("http://a.test/");
        if let Some(length) = length {
            request = request.header("content-length", length);
        }
        request.body(()).unwrap()
    };
    for (length, ended, wanted) in [
        (None, true, Length::Exactly(0)),
        (None, false, Length::Chunked),
        (Some("0"), false, Length::None),
        (Some("5"), false, Length::Exactly(5)),
    ] {
        assert_eq!(read(post(length), ended).unwrap().length, wanted);
    }
    assert_eq!(
        read(get().body(()).unwrap(), false).unwrap().length,
        Length::Chunked
    );
    for length in ["+5", "5, 5", "x", "9223372036854775808"] {
        assert_eq!(
            read(post(Some(length)), false).unwrap_err(),
            Reason::BadRequest
        );
    }
    // A body that is not there is announced where HTTP/1.1 endpoints expect one.
    let none = http1(&read(post(None), true).unwrap());
    assert!(none.ends_with("\r\ncontent-length: 0\r\n\r\n"), "{none}");
    let said = http1(&read(post(Some("0")), true).unwrap());
    assert_eq!(said.matches("content-length").count(), 1);
}

#[test]
fn what_means_two_things_is_refused() {
    assert_eq!(refused(get().header("host", "b.test")), Reason::BadRequest);
    assert_eq!(
        refused(get().header("host", "a.test").header("host", "a.test")),
        Reason::BadRequest
    );
    assert_eq!(refused(Request::get("/x")), Reason::BadRequest);
    assert_eq!(
        refused(Request::get("http://user@a.test/")),
        Reason::BadRequest
    );
    assert_eq!(
        refused(Request::get("http://a.test/").header("x", " y")),
        Reason::BadRequest
    );
    let twice = get()
        .header("content-length", "1")
        .header("content-length", "1");
    assert_eq!(refused(twice), Reason::BadRequest);
    assert_eq!(refused(get().method("CONNECT")), Reason::MethodNotAllowed);
    assert_eq!(
        refused(get().method("X".repeat(33).as_str())),
        Reason::BadRequest
    );
    assert_eq!(
        refused(get().header("expect", "wonders")),
        Reason::ExpectationFailed
    );
    let long = format!("http://a.test/{}", "x".repeat(100));
    assert_eq!(refused(Request::get(long)), Reason::UriTooLong);
    let many = (0..11).fold(get(), |request, at| request.header(format!("x-{at}"), "1"));
    assert_eq!(refused(many), Reason::HeadTooLarge);
    let crumbs = (0..11).fold(get(), |request, _| request.header("cookie", "a=1"));
    assert_eq!(refused(crumbs), Reason::HeadTooLarge);
}

#[test]
fn the_same_authority_may_be_said_twice() {
    let head = read(get().header("host", "A.test:80").body(()).unwrap(), true).unwrap();
    assert_eq!(head.host(), b"a.test");
    let head = read(
        Request::get("/").header("host", "a.test").body(()).unwrap(),
        true,
    )
    .unwrap();
    assert_eq!(http1(&head), "GET / HTTP/1.1\r\nhost: a.test\r\n\r\n");
}

#[test]
fn a_websocket_asks_as_it_does_over_http1() {
    let connect = |protocol: &'static str| {
        let request =
            Request::connect("http://a.test/chat").extension(Protocol::from_static(protocol));
        request
            .header("sec-websocket-version", "13")
            .body(())
            .unwrap()
    };
    let head = read(connect("websocket"), false).unwrap();
    assert!(head.wants_websocket);
    assert_eq!((head.method(), head.length), (&b"GET"[..], Length::None));
    assert_eq!(
        http1(&head),
        "GET /chat HTTP/1.1\r\nhost: a.test\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: AAAAAAAAAAAAAAAAAAAABw==\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n"
    );
    assert_eq!(
        read(connect("connect-udp"), false).unwrap_err(),
        Reason::NotImplemented
    );
}

#[test]
fn a_request_is_said_without_what_concerns_one_connection() {
    let text = "POST /x?y HTTP/1.1\r\nHost: a.test\r\nConnection: te, x-hop\r\nX-Hop: 1\r\n\
                TE: trailers, deflate\r\nTransfer-Encoding: chunked\r\nX-Kept: Yes\r\n\r\n";
    let mut head = RequestHead::default();
    assert_eq!(
        parse(text.as_bytes(), &LIMITS, &mut head),
        Ok(Parsed::Head(text.len()))
    );
    let edits = RequestEdits {
        lines: b"via: 1.1 me\r\nx-a: b:c\r\n",
        ..RequestEdits::default()
    };
    let request = write_request(&head, &edits, false).unwrap();
    assert_eq!(request.method(), Method::POST);
    assert_eq!(request.uri(), "http://a.test/x?y");
    let names: Vec<_> = request
        .headers()
        .iter()
        .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
        .collect();
    assert_eq!(
        names,
        [
            ("x-kept", "Yes"),
            ("via", "1.1 me"),
            ("x-a", "b:c"),
            ("te", "trailers")
        ]
    );
    let rewritten = RequestEdits {
        target: Some(b"/other"),
        host: Some(b"inner.test:81"),
        lines: b"",
    };
    let request = write_request(&head, &rewritten, true).unwrap();
    assert_eq!(request.uri(), "https://inner.test:81/other");
}

#[test]
fn a_request_of_http10_need_name_no_host() {
    let text = "GET / HTTP/1.0\r\n\r\n";
    let mut head = RequestHead::default();
    assert_eq!(
        parse(text.as_bytes(), &LIMITS, &mut head),
        Ok(Parsed::Head(text.len()))
    );
    let request = write_request(&head, &RequestEdits::default(), false).unwrap();
    assert_eq!(
        (request.uri().to_string(), request.version()),
        ("/".to_owned(), http::Version::HTTP_11)
    );
}

fn response(
    status: u16,
    fields: &[(&'static str, &'static str)],
    ended: bool,
    to_head: bool,
) -> Result<ResponseHead, StreamError> {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, HeaderValue::from_static(value));
    }
    let mut out = ResponseHead::default();
    read_response(
        StatusCode::from_u16(status).unwrap(),
        &headers,
        ended,
        to_head,
        &mut out,
    )?;
    Ok(out)
}

#[test]
fn a_response_is_as_long_as_its_head_and_its_end_say() {
    let length = [("content-length", "5")];
    for (status, fields, ended, to_head, wanted) in [
        (200, &[][..], true, false, Length::Exactly(0)),
        (200, &[], false, false, Length::Chunked),
        (200, &length, false, false, Length::Exactly(5)),
        (200, &[("content-length", "0")], true, false, Length::None),
        (200, &length, true, true, Length::None),
        (304, &length, true, false, Length::None),
        (204, &length, true, false, Length::None),
    ] {
        assert_eq!(
            response(status, fields, ended, to_head).unwrap().length,
            wanted,
            "{status}"
        );
    }
    for fields in [
        &[("content-length", "x")][..],
        &[("content-length", "5"), ("content-length", "5")],
    ] {
        assert!(matches!(
            response(200, fields, false, false),
            Err(StreamError::Malformed(_))
        ));
    }
    assert!(matches!(
        response(101, &[], false, false),
        Err(StreamError::Malformed(_))
    ));
}

#[test]
fn a_response_says_only_what_is_its_own() {
    let head = response(
        200,
        &[("tidegate-reason", "no_route"), ("x-a", "1")],
        false,
        false,
    )
    .unwrap();
    let said = write_response(&head, b"x-added: 2\r\n").unwrap();
    let names: Vec<_> = said.headers().keys().map(|name| name.as_str()).collect();
    assert_eq!(names, ["x-a", "x-added"]);
    assert_eq!(head.phrase.of(&head.head.bytes), b"OK");
}

#[test]
fn an_open_websocket_is_a_success_without_proof() {
    let mut head = ResponseHead {
        status: 101,
        ..ResponseHead::default()
    };
    head.head.append(b"sec-websocket-accept", b"x");
    head.head.append(b"sec-websocket-protocol", b"chat");
    let said: Response<()> = write_response(&head, b"").unwrap();
    assert_eq!(said.status(), 200);
    let names: Vec<_> = said.headers().keys().map(|name| name.as_str()).collect();
    assert_eq!(names, ["sec-websocket-protocol"]);
}

#[test]
fn a_name_that_is_no_token_goes_no_further() {
    let mut fields = HeaderMap::new();
    // What the h2 crate reads names with.
    let name = HeaderName::from_lowercase(b"x\"y").unwrap();
    fields.append(name, HeaderValue::from_static("1"));
    let mut request = get().body(()).unwrap();
    *request.headers_mut() = fields.clone();
    assert_eq!(read(request, true).unwrap_err(), Reason::BadRequest);
    let mut head = ResponseHead::default();
    assert!(read_response(StatusCode::OK, &fields, true, false, &mut head).is_err());
    assert!(read_trailers(&fields).is_err());
}

#[test]
fn trailers_that_frame_or_route_go_no_further() {
    let mut trailers = HeaderMap::new();
    for name in ["grpc-status", "content-length", "host", "set-cookie"] {
        trailers.insert(name, HeaderValue::from_static("0"));
    }
    let read = read_trailers(&trailers).unwrap();
    assert_eq!(read.lines, b"grpc-status: 0\r\n");
    let written = write_trailers(&read).unwrap();
    assert_eq!(written.len(), 1);
    let many = (0..65)
        .map(|at| format!("x-{at}: 1\r\n"))
        .collect::<String>();
    let many = write_trailers(&Trailers {
        lines: many.into_bytes(),
    })
    .unwrap();
    assert!(read_trailers(&many).is_err());
}

proptest! {
    /// Whatever HTTP/2 may carry, an HTTP/1.1 endpoint reads it as one request with the same fields,
    /// or it is refused.
    #[test]
    fn what_is_let_through_is_one_http1_request(
        path in "(/[!-~]{0,20}|[!-~]{0,8})",
        fields in proptest::collection::vec(("[a-z-]{1,12}", "[\\t -~\u{80}-\u{ff}]{0,20}"), 0..8),
        ended in any::<bool>(),
    ) {
        let mut request = Request::builder().method("POST").uri(format!("http://a.test{path}"));
        for (name, value) in &fields {
            let connection = ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "te", "host", "expect"];
            if !connection.contains(&name.as_str()) {
                request = request.header(name, value.as_bytes());
            }
        }
        let Ok(request) = request.body(()) else { return Ok(()); };
        let sent: Vec<_> = request.headers().clone().into_iter().collect();
        let Ok(head) = read(request, ended) else { return Ok(()); };
        let mut out = Vec::new();
        encode::request(&mut out, &head, &RequestEdits::default());
        let mut again = RequestHead::default();
        prop_assert_eq!(parse(&out, &HeadLimits { fields: 100, ..LIMITS }, &mut again), Ok(Parsed::Head(out.len())));
        prop_assert_eq!(again.target(), head.target());
        let values = again.head.fields().iter().map(|field| again.head.value(field));
        prop_assert!(values.count() >= sent.len());
    }
}
