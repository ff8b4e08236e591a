//! What operators read: lines of the access log, and the questions they ask.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use crate::admin::explain;
use crate::observe::access_log::Format;
use crate::observe::access_log::line;
use crate::observe::access_log::template::{LINE_MAX, Template, Values};
use crate::observe::facts::{Facts, Protocol, WaitReason, example};

const SECRET: &[u8] = b"hunter2hunter2";

/// Parts, a line each: method, host, target, user agent, request id.
pub(super) fn access_log(bytes: &[u8]) {
    let mut parts = bytes.split(|byte| *byte == 0x1e);
    let mut part = || parts.next().unwrap_or_default();
    let (method, host, target, user_agent, request_id) = (part(), part(), part(), part(), part());
    let facts = Facts {
        method,
        host,
        target,
        user_agent,
        request_id,
        ..example::facts()
    };
    is_one_line(&facts);
    // Whatever stands around it.
    let secret = [target, b"?access_token=", SECRET, b"&", host].concat();
    let told = is_one_line(&Facts {
        target: &secret,
        method: b"GET",
        host: b"a",
        user_agent: b"",
        request_id: b"",
        ..facts
    });
    let secret = std::str::from_utf8(SECRET).unwrap();
    assert!(told.iter().all(|line| !line.contains(secret)), "{told:?}");
}

/// A template, and a line for each part of what it may write of a request.
pub(super) fn request_log(bytes: &[u8]) {
    let mut parts = bytes.split(|byte| *byte == 0x1e);
    let template = parts.next().unwrap_or_default();
    let Ok(template) = std::str::from_utf8(template) else {
        return;
    };
    let Ok(template) = Template::parse(template) else {
        return;
    };
    let mut part = || parts.next().unwrap_or_default();
    let (method, host, target, user_agent, value) = (part(), part(), part(), part(), part());
    let names = template.names().iter();
    let headers: Vec<_> = names.map(|name| (name.as_bytes(), value)).collect();
    let values = Values {
        method,
        target,
        host,
        user_agent,
        protocol: Protocol::Http11,
        content_length: i64::from(value.first().copied().unwrap_or_default()) - 1,
        client: SocketAddr::from(([192, 0, 2, 7], 40_000)),
        code: 200,
        size: target.len() as u64,
        latency: Duration::from_nanos(host.len() as u64),
        waited: Duration::from_nanos(method.len() as u64),
        wait_reason: Some(WaitReason::Paced),
        namespace: b"default",
        revision: b"coffee-00001",
        service: b"coffee",
        configuration: b"coffee",
        endpoint: None,
        headers: &headers,
    };
    let mut line = b"before".to_vec();
    template.render(&values, &mut line);
    let line = line.strip_prefix(b"before").unwrap();
    assert!(line.len() <= LINE_MAX + 1, "{} bytes", line.len());
    assert!(line.ends_with(b"\n"), "no line");
}

/// Both forms of it.
fn is_one_line(facts: &Facts<'_>) -> [String; 2] {
    [Format::Text, Format::Json].map(|format| {
        let line = line(facts, 1, format, SystemTime::UNIX_EPOCH);
        let line = String::from_utf8(line).expect("ASCII");
        let whole = line.strip_suffix('\n').expect("one line");
        assert!(
            whole.bytes().all(|byte| matches!(byte, b' '..=b'~')),
            "{whole}"
        );
        assert!(whole.len() < 2 * 4096, "{} bytes", whole.len());
        match format {
            Format::Text => assert_eq!(whole.matches('"').count(), 4, "{whole}"),
            Format::Json => {
                let parsed: serde_json::Value = serde_json::from_str(whole).expect("JSON");
                assert_eq!(parsed.as_object().map(serde_json::Map::len), Some(25));
            }
        }
        line
    })
}

/// A query of `/api/explain`.
pub(super) fn admin_question(bytes: &[u8]) {
    let Ok(query) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(question) = explain::parse(query) {
        assert!(
            !question.host.contains(['/', '?', '#', '@']),
            "{question:?}"
        );
        assert!(!question.path.contains(['?', '#']), "{question:?}");
    }
}
