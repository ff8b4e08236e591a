//! What hostile endpoints say harms one exchange at most: the client is told, the connection is not
//! used again, and the next request gets its own answer.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tests::corpus::{self, Case};
use tests::raw::{field, length};
use tests::{Gateway, Launch, Raw, RawBackend, sized};

use crate::{HELLO, hello};

/// What is to come of one answer.
#[derive(Debug)]
struct Expected {
    ending: Ending,
    to_head: bool,
    /// The endpoint closes behind what it says.
    closes: bool,
}

#[derive(Debug)]
enum Ending {
    /// An answer of the gateway's own.
    Refused(u16, String),
    /// The endpoint's answer, whole; whether its connection is used again.
    Passed(u16, bool),
    /// The endpoint's head, and a body that visibly breaks off.
    Cut(u16),
}

fn expected(case: &Case) -> Expected {
    let said = &case.outcomes[0].said;
    let (said, closes) = match said.strip_suffix(", the endpoint closes") {
        Some(said) => (said.to_owned(), true),
        None => (said.clone(), false),
    };
    let to_head = said.contains(" to HEAD");
    let said = said.replace(" to HEAD", "").replace(',', "");
    let ending = match said.split(' ').collect::<Vec<_>>()[..] {
        ["passed", status, after] => Ending::Passed(status.parse().unwrap(), after == "kept"),
        ["cut", status] => Ending::Cut(status.parse().unwrap()),
        [status, reason] => Ending::Refused(status.parse().unwrap(), reason.to_owned()),
        _ => panic!("{}: {said:?} is no outcome of an answer", case.name),
    };
    Expected {
        ending,
        to_head,
        closes,
    }
}

/// What the endpoint is to say to `/case`, and where what came last.
#[derive(Default)]
struct Stage {
    says: Vec<u8>,
    closes: bool,
    /// Numbers of the connections that requests came on.
    connections: Vec<usize>,
}

async fn play(number: usize, mut connection: Raw, stage: Arc<Mutex<Stage>>) {
    while let Some(head) = connection.next_head().await {
        let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let (says, closes) = {
            let mut stage = stage.lock().unwrap();
            stage.connections.push(number);
            match &target[..] {
                "/case" => (stage.says.clone(), stage.closes),
                own => {
                    let answer = format!(
                        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{own}",
                        own.len()
                    );
                    (answer.into_bytes(), false)
                }
            }
        };
        if connection.try_send(says).await.is_err() || closes {
            return;
        }
    }
}

/// The head and body of the final answer; what stands in front of it is passed over.
async fn answer(client: &mut Raw, to_head: bool) -> (String, String) {
    let mut head = client.head().await;
    while head.starts_with("HTTP/1.1 1") {
        head = client.head().await;
    }
    let body = match to_head {
        true => String::new(),
        false => body(client, &head).await,
    };
    (head, body)
}

/// Sends the request that a case answers; what went wrong.
async fn check(gateway: &Gateway, case: &Case, expected: &Expected) -> Result<(), String> {
    let mut client = gateway.raw().await;
    let method = if expected.to_head { "HEAD" } else { "GET" };
    let asked = format!("{method} /case HTTP/1.1\r\nHost: {HELLO}\r\n\r\n");
    client.send(asked).await;
    match &expected.ending {
        Ending::Refused(status, reason) => {
            let (head, _) = answer(&mut client, false).await;
            let started = head.starts_with(&format!("HTTP/1.1 {status} "));
            if !started || field(&head, "tidegate-reason") != Some(reason) {
                return Err(format!("got {head}"));
            }
        }
        Ending::Passed(status, _) => {
            let (head, body) = answer(&mut client, expected.to_head).await;
            let started = head.starts_with(&format!("HTTP/1.1 {status} "));
            let own = field(&head, "tidegate-reason").is_some();
            if !started || own || body.as_bytes() != case.outcomes[0].passed {
                return Err(format!("got {head}{body}"));
            }
        }
        Ending::Cut(status) => {
            let said = String::from_utf8_lossy(&client.rest().await).into_owned();
            let begun = said.starts_with(&format!("HTTP/1.1 {status} "));
            let whole = said.ends_with("0\r\n\r\n") || said.matches("HTTP/1.1 ").count() > 1;
            let announced = said.split("\r\n\r\n").next().map_or(0, length);
            let body = said.split_once("\r\n\r\n").map_or("", |(_, body)| body);
            let framed = field(&said, "transfer-encoding").is_some() || announced > body.len();
            if !begun || whole || !framed {
                return Err(format!("got {said:?}"));
            }
        }
    }
    Ok(())
}

///
#[tokio::test]
async fn every_answer_of_the_corpus_ends_as_it_says_and_the_next_request_gets_its_own() {
    let stage = Arc::new(Mutex::new(Stage::default()));
    let shared = stage.clone();
    let backend =
        RawBackend::scripted(move |number, connection| play(number, connection, shared.clone()));
    let one = ["--workers", "1"];
    let gateway = Launch::new(&hello(&backend)).arguments(one).start().await;
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/responses");
    let cases = corpus::read(&directory);
    assert!(cases.len() > 100, "{}", cases.len());
    let mut failures = Vec::new();
    for case in &cases {
        let expected = expected(case);
        {
            let mut stage = stage.lock().unwrap();
            stage.says = case.sent.clone();
            stage.closes = expected.closes;
            stage.connections.clear();
        }
        if let Err(problem) = check(&gateway, case, &expected).await {
            failures.push(format!("{}: {problem}", case.name));
        }
        let next = format!("/behind/{}", case.name);
        let answer = gateway.get(HELLO, &next).await;
        if (answer.status, answer.text()) != (200, next) {
            failures.push(format!("{}: the next request got {answer:?}", case.name));
        }
        let mut connections = stage.lock().unwrap().connections.clone();
        let (last, before) = (connections.pop(), connections.pop());
        let kept = matches!(expected.ending, Ending::Passed(_, true));
        if (last == before) != kept {
            failures.push(format!(
                "{}: came on {before:?}, then on {last:?}",
                case.name
            ));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    gateway.until_idle().await;
}

/// What an endpoint makes of a request with that number, chosen by lot: its own answer in some form,
/// something that is none, or more than one.
fn lot(random: &mut fastrand::Rng, id: &str, to_head: bool) -> (Vec<String>, bool) {
    let own = |body: &str| {
        format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let poison = own("poison");
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", id.len());
    let chunked = format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{id}\r\n0\r\n\r\n",
        id.len()
    );
    let whole = if to_head { head.clone() } else { own(id) };
    match random.u8(..24) {
        0 => (vec![whole + &poison], false),
        1 => (vec![chunked + &poison], false),
        2 => (
            vec![format!("HTTP/1.1 204 No Content\r\n\r\n{poison}")],
            false,
        ),
        3 => (
            vec![format!(
                "HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\npoison"
            )],
            false,
        ),
        4 => (
            vec![format!("HTTP/1.1 103 Early Hints\r\n\r\n{whole}")],
            false,
        ),
        5 => (vec![head, id[..1].to_owned()], true),
        6 => (
            vec!["HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n".to_owned()],
            false,
        ),
        7 => (
            vec![format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{poison}"
            )],
            false,
        ),
        8 => (vec![String::new()], true),
        9 => (vec!["HTTP/1.1 20".to_owned()], true),
        10 => (vec![format!("HTTP/1.1 200 OK\r\n\r\n{id}")], true),
        11 => (
            vec![whole.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")],
            random.bool(),
        ),
        12 => (
            whole
                .bytes()
                .map(|byte| char::from(byte).to_string())
                .collect(),
            false,
        ),
        13 => (vec![whole], true),
        14 => (vec![chunked], false),
        _ => (vec![whole], false),
    }
}

async fn answer_by_lot(mut connection: Raw, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    while let Some(head) = connection.next_head().await {
        let Some(id) = field(&head, "x-id").map(str::to_owned) else {
            return;
        };
        // Sometimes the answer comes before the request has ended.
        if random.u8(..8) > 0 {
            connection.exactly(length(&head)).await;
        }
        let (pieces, closes) = lot(&mut random, &id, head.starts_with("HEAD "));
        for piece in pieces {
            if connection.try_send(piece).await.is_err() {
                return;
            }
        }
        if closes {
            return;
        }
    }
}

/// What has come of a body that may have broken off.
async fn body(client: &mut Raw, head: &str) -> String {
    let bodiless = ["204", "304"].contains(&head.get(9..12).unwrap_or_default());
    if bodiless {
        return String::new();
    }
    if field(head, "transfer-encoding").is_none() {
        let body = client.exactly(length(head)).await;
        return String::from_utf8(body).unwrap();
    }
    let mut body = Vec::new();
    loop {
        let line = String::from_utf8(client.until(b"\r\n").await).unwrap();
        match usize::from_str_radix(line.trim_end(), 16) {
            Ok(size) if size > 0 => body.extend(client.exactly(size).await),
            _ => break,
        }
        client.exactly(2).await;
    }
    client.exactly(2).await;
    String::from_utf8(body).unwrap()
}

/// Asks that often, each time something else, and counts answers of its own.
async fn ask(gateway: Arc<Gateway>, number: usize, count: usize, own: Arc<AtomicUsize>) {
    let mut random = fastrand::Rng::with_seed(number as u64);
    let mut client = gateway.raw().await;
    for turn in 0..count {
        let id = format!("{number}-{turn}-end");
        let (method, upload) = match random.u8(..4) {
            0 => ("HEAD", String::new()),
            1 => ("POST", "x".repeat(random.usize(..3000))),
            _ => ("GET", String::new()),
        };
        let request = format!(
            "{method} / HTTP/1.1\r\nHost: {HELLO}\r\nX-Id: {id}\r\nContent-Length: {}\r\n\r\n{upload}",
            upload.len()
        );
        // It may have been closed behind the answer before.
        let _closed = client.try_send(request).await;
        let (head, body) = answer(&mut client, method == "HEAD").await;
        let refused = field(&head, "tidegate-reason").is_some();
        let foreign = !refused && !id.starts_with(&body);
        assert!(!foreign && !head.contains("poison"), "{id}: {head}{body}");
        own.fetch_add(usize::from(body == id), Ordering::Relaxed);
        let broken = !refused && body != id;
        if head.is_empty() || broken || field(&head, "connection") == Some("close") {
            client = gateway.raw().await;
        }
    }
}

/// five thousand exchanges with endpoints that answer by lot, a million with `TIDEGATE_LONG`.
#[tokio::test]
async fn no_answer_reaches_another_request_whatever_endpoints_say() {
    let backend =
        RawBackend::scripted(|number, connection| answer_by_lot(connection, number as u64));
    let gateway = Arc::new(Gateway::start(&hello(&backend)).await);
    let own = Arc::new(AtomicUsize::new(0));
    let (clients, turns) = (8, sized(625, 125_000));
    let asking: Vec<_> = (0..clients)
        .map(|number| tokio::spawn(ask(gateway.clone(), number, turns, own.clone())))
        .collect();
    for asked in asking {
        asked.await.unwrap();
    }
    let answered = own.load(Ordering::Relaxed);
    assert!(
        answered > clients * turns / 3,
        "only {answered} got their answer"
    );
    gateway.until_idle().await;
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// what an endpoint says on an idle connection is nobody's answer.
#[tokio::test]
async fn answer_that_nobody_asked_for_is_not_the_next_ones() {
    let idle = Arc::new(tokio::sync::Notify::new());
    let said = Arc::new(tokio::sync::Notify::new());
    let (is_idle, has_said) = (idle.clone(), said.clone());
    let backend = RawBackend::scripted(move |_, mut connection| {
        let (idle, said) = (is_idle.clone(), has_said.clone());
        async move {
            while let Some(head) = connection.next_head().await {
                connection.send(OK).await;
                if head.contains("/first") {
                    idle.notified().await;
                    let poison = OK.replace("ok", "no");
                    connection.send(poison).await;
                    said.notify_one();
                }
            }
        }
    });
    let one = ["--workers", "1"];
    let gateway = Launch::new(&hello(&backend)).arguments(one).start().await;
    let mut client = gateway.connect().await;
    for _ in 0..sized(50, 1000) {
        let answer = client.get(HELLO, "/first").await;
        assert_eq!((answer.status, answer.text()), (200, "ok".to_owned()));
        idle.notify_one();
        said.notified().await;
        let answer = client.get(HELLO, "/next").await;
        assert_eq!((answer.status, answer.text()), (200, "ok".to_owned()));
    }
}

/// crumbs do not extend the time there is for a head, nor is one ever passed on in part.
#[tokio::test]
async fn head_that_comes_in_crumbs_is_waited_for_no_longer_than_any() {
    let backend = RawBackend::scripted(|_, mut connection| async move {
        connection.head().await;
        for byte in b"HTTP/1.1 200 OK\r\nX: "
            .iter()
            .chain(std::iter::repeat(&b'y'))
        {
            let pause = std::time::Duration::from_millis(5);
            let gone = !connection.silent_for(pause).await;
            if gone || connection.try_send([*byte]).await.is_err() {
                return;
            }
        }
    });
    let gateway = Gateway::start(&(hello(&backend) + "    timeout: 300ms\n")).await;
    let answer = gateway.get(HELLO, "/").await;
    answer.refused(504, "response_timeout");
    gateway.until_idle().await;
}
