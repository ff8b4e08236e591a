//! The access log tells what happened, in its mode, and no client writes into it.

use tests::client::with;
use tests::{Backend, Gateway, PATIENCE, eventually, request};

use crate::{HELLO, hello};

/// A gateway that logs as said, into a file of its own.
async fn logging(log: &str, backend: &Backend) -> Gateway {
    let keys = format!("gateway: {{ workers: 1, accessLog: {{ {log}, file: access.log }} }}\n");
    Gateway::start(&(keys + &hello(backend))).await
}

/// Those that are whole: of the last, half may have been written.
fn lines(gateway: &Gateway) -> Vec<String> {
    let log = std::fs::read_to_string(gateway.directory().join("access.log")).unwrap_or_default();
    let whole = log.rfind('\n').map_or("", |end| &log[..end]);
    whole.lines().map(str::to_owned).collect()
}

/// Waits until there is a line with that text, which came after all lines before.
async fn until_line(gateway: &Gateway, text: &str) -> Vec<String> {
    let what = format!("the access log says {text:?}");
    eventually(PATIENCE, &what, async || {
        let lines = lines(gateway);
        lines
            .iter()
            .any(|line| line.contains(text))
            .then_some(lines)
    })
    .await
}

#[tokio::test]
async fn all_tells_every_request() {
    let backend = Backend::start("one");
    let gateway = logging("mode: all", &backend).await;
    let mut client = gateway.connect().await;
    for number in 0..300 {
        client
            .get(HELLO, &format!("/number-{number}-?size=0"))
            .await
            .expect(200);
    }
    client
        .get("nobody.example.com", "/the-last")
        .await
        .refused(404, "no_route");
    let lines = until_line(&gateway, "no_route").await;
    for number in 0..300 {
        let told = lines
            .iter()
            .filter(|line| line.contains(&format!("/number-{number}-")))
            .count();
        assert_eq!(told, 1, "request {number}");
    }
    let line = lines
        .iter()
        .find(|line| line.contains("/number-7-"))
        .unwrap();
    for part in ["GET", "200", HELLO, "hello-1"] {
        assert!(line.contains(part), "{part} is missing: {line}");
    }
    let last = lines.iter().find(|line| line.contains("no_route")).unwrap();
    assert!(last.contains("404") && last.contains("/the-last"), "{last}");
}

#[tokio::test]
async fn json_lines_are_objects() {
    let backend = Backend::start("one");
    let gateway = logging("mode: all, format: json", &backend).await;
    gateway.get(HELLO, "/a\"b").await;
    gateway.get(HELLO, "/ok").await.expect(200);
    gateway
        .get("nobody.example.com", "/")
        .await
        .refused(404, "no_route");
    for line in until_line(&gateway, "no_route").await {
        let value: serde_json::Value = serde_json::from_str(&line).expect(&line);
        assert!(value.is_object(), "{line}");
    }
}

#[tokio::test]
async fn limited_samples_the_many_and_tells_every_refusal() {
    let backend = Backend::start("one");
    let gateway = logging("mode: limited, perSecond: 10", &backend).await;
    let mut client = gateway.connect().await;
    let begun = std::time::Instant::now();
    for number in 0..1000 {
        client
            .get(HELLO, &format!("/plain-{number}"))
            .await
            .expect(200);
    }
    let seconds = begun.elapsed().as_secs() + 2;
    for number in 0..100 {
        client
            .get("nobody.example.com", &format!("/refused-{number}"))
            .await
            .refused(404, "no_route");
    }
    for number in 0..20 {
        client
            .get(HELLO, &format!("/broken-{number}?status=500"))
            .await
            .expect(500);
    }
    let lines = until_line(&gateway, "/broken-19").await;
    let count = |text: &str| lines.iter().filter(|line| line.contains(text)).count();
    assert_eq!(count("/refused-"), 100);
    assert_eq!(count("/broken-"), 20);
    let most = usize::try_from(seconds).unwrap() * 10 + 1000 / 100 + 1;
    assert!(
        (10..=most).contains(&count("/plain-")),
        "{} of at most {most}",
        count("/plain-")
    );
}

#[tokio::test]
async fn off_tells_nothing() {
    let backend = Backend::start("one");
    let gateway = logging("mode: off", &backend).await;
    for _ in 0..50 {
        gateway.get(HELLO, "/quiet").await.expect(200);
        gateway
            .get("nobody.example.com", "/quiet")
            .await
            .refused(404, "no_route");
    }
    // The program's own log goes on.
    gateway.replace("routes: [");
    gateway
        .until_metric("tidegate_config_rejected_total", &[], |n| n >= 1.0)
        .await;
    assert!(lines(&gateway).is_empty());
    assert!(!gateway.stderr().contains("/quiet"));
}

#[tokio::test]
async fn without_a_word_about_it_requests_are_told_on_standard_error() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&hello(&backend)).await;
    gateway.get(HELLO, "/somewhere").await.expect(200);
    gateway.until_logged("/somewhere").await;
}

#[tokio::test]
async fn clients_cannot_write_lines_or_escapes() {
    for format in ["text", "json"] {
        let backend = Backend::start("one");
        let gateway = logging(&format!("mode: all, format: {format}"), &backend).await;
        let mut asked = request("GET", "nobody.example.com", "/%0d%0aforged%1b[31m");
        for name in ["user-agent", "referer", "x-forwarded-for", "x-request-id"] {
            asked = with(asked, name, "a\" 200 forged\tb");
        }
        gateway.send(asked).await.refused(404, "no_route");
        // Bytes that no client library would send.
        let mut raw = gateway.raw().await;
        raw.send(b"GET /\xff\xfe\"' HTTP/1.1\r\nHost: nobody.example.com\r\nUser-Agent: \xff\x9b31m\r\n\r\n")
            .await;
        let _whatever = raw.answer().await;
        gateway
            .get("nobody.example.com", "/the-last")
            .await
            .refused(404, "no_route");
        let lines = until_line(&gateway, "/the-last").await;
        assert_eq!(lines.len(), 3, "{lines:#?}");
        for line in &lines {
            assert!(
                !line.contains(|c: char| c.is_control() && c != '\t'),
                "{line:?}"
            );
            assert!(!line.starts_with("forged"), "{line:?}");
        }
    }
}

#[tokio::test]
async fn secrets_of_clients_are_not_told() {
    let backend = Backend::start("one");
    let gateway = logging("mode: all, format: json", &backend).await;
    let asked = with(
        request("GET", HELLO, "/who"),
        "authorization",
        "Bearer hush-hush",
    );
    gateway
        .send(with(asked, "cookie", "session=hush-hush"))
        .await
        .expect(200);
    let lines = until_line(&gateway, "/who").await;
    assert!(!lines.concat().contains("hush-hush"), "{lines:?}");
}
