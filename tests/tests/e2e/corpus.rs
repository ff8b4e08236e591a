//! Every hostile request of `tests/corpus` is answered as the corpus says, and an endpoint sees what
//! the corpus says, if anything.

use std::path::Path;
use std::sync::{Arc, Mutex};

use tests::corpus::{self, By, Case, Expected};
use tests::raw::field;
use tests::{Gateway, PATIENCE, Raw, RawBackend, eventually};

/// What endpoints got.
#[derive(Default)]
struct Seen {
    /// Requests that came whole: head and decoded body without what the gateway adds, and trailers.
    whole: Vec<(Vec<u8>, Vec<u8>)>,
    /// Beginnings of requests that never came whole.
    begun: Vec<Vec<u8>>,
}

type Shared = Arc<Mutex<Seen>>;

/// Sent behind every request: whether it is understood as what it is shows where we take the one
/// before to end.
const AFTER: &[u8] = b"GET /after HTTP/1.1\r\nHost: after\r\n\r\n";

/// Lines that the gateway adds to a head.
const ADDED: [&str; 5] = [
    "x-forwarded-for: 127.0.0.1",
    "x-forwarded-proto: ",
    "x-forwarded-host: ",
    "x-request-id: ",
    "via: 1.",
];

fn without_added(head: &[u8]) -> Vec<u8> {
    let mut kept = Vec::new();
    for line in head.split_inclusive(|byte| *byte == b'\n') {
        if !ADDED.iter().any(|added| line.starts_with(added.as_bytes())) {
            kept.extend_from_slice(line);
        }
    }
    kept
}

/// Reads one request with nothing but the rules an endpoint must have; `None` once it breaks off.
async fn whole(connection: &mut Raw, head: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let text = String::from_utf8_lossy(head);
    assert!(head.ends_with(b"\r\n\r\n"), "{text}");
    let mut body = Vec::new();
    let mut trailers = Vec::new();
    match (
        field(&text, "content-length"),
        field(&text, "transfer-encoding"),
    ) {
        (None, None) => {}
        (Some(length), None) => {
            let length = length.parse().unwrap();
            body = connection.exactly(length).await;
            if body.len() < length {
                return None;
            }
        }
        (None, Some("chunked")) => loop {
            let line = connection.until(b"\r\n").await;
            let size = std::str::from_utf8(line.strip_suffix(b"\r\n")?).unwrap();
            let size = usize::from_str_radix(size, 16).unwrap();
            if size == 0 {
                break;
            }
            let data = connection.exactly(size + 2).await;
            body.extend_from_slice(data.strip_suffix(b"\r\n").filter(|it| it.len() == size)?);
        },
        other => panic!("two framings: {other:?}"),
    }
    if field(&text, "transfer-encoding").is_some() {
        loop {
            let line = connection.until(b"\r\n").await;
            match &line[..] {
                b"\r\n" => break,
                line => trailers.extend_from_slice(line),
            }
            if !line.ends_with(b"\r\n") {
                return None;
            }
        }
    }
    Some(([without_added(head), body].concat(), trailers))
}

async fn serve(mut connection: Raw, seen: Shared) {
    while connection.begins().await {
        let head = connection.until(b"\r\n\r\n").await;
        let request = match head.ends_with(b"\r\n\r\n") {
            true => whole(&mut connection, &head).await,
            false => None,
        };
        let Some(request) = request else {
            seen.lock().unwrap().begun.push(without_added(&head));
            return;
        };
        seen.lock().unwrap().whole.push(request);
        let body = if head.starts_with(b"HEAD ") { "" } else { "ok" };
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{body}");
        if connection.try_send(answer).await.is_err() {
            return;
        }
    }
}

fn recorder() -> (RawBackend, Shared) {
    let seen = Shared::default();
    let record = seen.clone();
    let backend = RawBackend::scripted(move |_, connection| serve(connection, record.clone()));
    (backend, seen)
}

/// Answers, of which interim ones are passed over.
async fn answered(client: &mut Raw, to_head: bool) -> Result<(), String> {
    let mut head = client.head().await;
    while head.starts_with("HTTP/1.1 100 ") {
        head = client.head().await;
    }
    if !head.starts_with("HTTP/1.1 200 ") {
        return Err(format!("got {head:?}, not the endpoint's answer"));
    }
    match (to_head, client.exactly(if to_head { 0 } else { 2 }).await) {
        (true, _) => Ok(()),
        (false, body) if body == b"ok" => Ok(()),
        (false, body) => Err(format!("got {body:?}, not the endpoint's body")),
    }
}

async fn refused(client: &mut Raw, status: u16, reason: &str) -> Result<(), String> {
    let said = String::from_utf8_lossy(&client.rest().await).into_owned();
    let got = (
        said.starts_with(&format!("HTTP/1.1 {status} ")),
        field(&said, "tidegate-reason"),
        field(&said, "connection"),
        said.matches("HTTP/1.1 ").count(),
    );
    match got {
        (true, Some(word), Some("close"), 1) if word == reason => Ok(()),
        _ => Err(format!("got {said:?}, not {status} {reason} and the end")),
    }
}

/// Sends a case; what went wrong with its answers.
async fn play(gateway: &Gateway, case: &Case, expected: &[Expected]) -> Result<(), String> {
    let mut client = gateway.raw().await;
    let last = expected.last();
    let ends = matches!(last, Some(Expected::Incomplete { .. }));
    let after: &[u8] = if ends { b"" } else { AFTER };
    // It may be refused before all of it is taken.
    let _refused = client.try_send([&case.sent, after].concat()).await;
    for outcome in expected {
        match outcome {
            Expected::Forwarded { message, .. } => {
                answered(&mut client, message.starts_with(b"HEAD ")).await?;
            }
            Expected::Refused { status, reason, .. } => {
                return refused(&mut client, *status, reason).await;
            }
            Expected::Incomplete { .. } => {
                client.finish().await;
            }
        }
    }
    if let Some(Expected::Forwarded { closes: false, .. }) = last {
        answered(&mut client, false).await?;
        client.finish().await;
    }
    match &client.rest().await[..] {
        b"" => Ok(()),
        more => Err(format!("got {:?} too", more.escape_ascii().to_string())),
    }
}

/// What endpoints are to see of a case.
fn to_be_seen(expected: &[Expected]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut wanted: Vec<_> = expected
        .iter()
        .filter_map(|outcome| match outcome {
            Expected::Forwarded {
                message, trailers, ..
            } => Some((message.clone(), trailers.clone())),
            Expected::Refused { .. } | Expected::Incomplete { .. } => None,
        })
        .collect();
    if let Some(Expected::Forwarded { closes: false, .. }) = expected.last() {
        wanted.push((AFTER.to_vec(), Vec::new()));
    }
    wanted
}

fn shown(messages: &[(Vec<u8>, Vec<u8>)]) -> Vec<String> {
    let shown = |(message, trailers): &(Vec<u8>, Vec<u8>)| {
        format!("{} + {}", message.escape_ascii(), trailers.escape_ascii())
    };
    messages.iter().map(shown).collect()
}

///
#[tokio::test]
async fn every_request_of_the_corpus_is_answered_as_it_says_and_reaches_nobody_else() {
    let (backend, seen) = recorder();
    let gateway = Gateway::start(&format!(
        "routes:\n  - {{ name: all, hosts: ['*'], traffic: [ {{ revision: all }} ] }}\n\
         revisions:\n  - {{ name: all, endpoints: ['{backend}'] }}\n"
    ))
    .await;
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/requests");
    let cases = corpus::read(&directory);
    assert!(cases.len() >= 500, "{}", cases.len());
    let mut failures = Vec::new();
    let mut in_bodies = 0;
    for case in &cases {
        let expected = case.expected();
        let begins = expected.iter().any(|outcome| {
            let body = matches!(outcome, Expected::Refused { by: By::Body, .. });
            body || *outcome == Expected::Incomplete { in_body: true }
        });
        in_bodies += usize::from(begins);
        if let Err(problem) = play(&gateway, case, &expected).await {
            failures.push(format!("{}: {problem}", case.name));
        }
        let got = std::mem::take(&mut seen.lock().unwrap().whole);
        let wanted = to_be_seen(&expected);
        if got != wanted {
            let (got, wanted) = (shown(&got), shown(&wanted));
            failures.push(format!(
                "{}: the endpoint got {got:#?}, not {wanted:#?}",
                case.name
            ));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    gateway.until_idle().await;
    // Nothing whole came late, and no more began than had a good head in front of a bad body.
    let ended = async || {
        let seen = seen.lock().unwrap();
        assert!(seen.whole.is_empty(), "{:?}", shown(&seen.whole));
        (seen.begun.len() <= in_bodies).then_some(())
    };
    eventually(PATIENCE, "endpoints know what broke off", ended).await;
}
