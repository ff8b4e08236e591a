use std::time::{Duration, Instant, SystemTime};

use crate::http::field::Head;
use crate::observe::facts::{Facts, Names, example};
use crate::refusal::Reason;

use super::*;

/// As the log's thread would write it, having arrived at the epoch.
fn line(facts: &Facts<'_>, weight: u32, format: Format) -> String {
    String::from_utf8(super::line(facts, weight, format, SystemTime::UNIX_EPOCH)).unwrap()
}

fn parsed(facts: &Facts<'_>) -> serde_json::Value {
    serde_json::from_str(&line(facts, 1, Format::Json)).unwrap()
}

#[test]
fn text_is_one_line_with_timers_and_the_reason_word() {
    assert_eq!(
        line(&example::facts(), 100, Format::Text),
        "1970-01-01T00:00:00.000Z 192.0.2.7 \
         \"GET coffee.default.example.com /brew?sleep=100 HTTP/1.1\" 200 - \
         route=default/coffee revision=coffee-00001 endpoint=127.0.0.1:9001 \
         q=12.000 e=45.000 o=0.250 t=57.250 i=5.000 held=1 wait=cold attempts=1 in=120 out=3400 \
         id=2f1c agent=\"curl/8.5.0\" weight=100\n"
    );
    let refused = Facts {
        names: Names::default(),
        code: 404,
        reason: Some(Reason::NoRoute),
        endpoint_address: None,
        client: "::ffff:192.0.2.7".parse().unwrap(),
        request_id: b"",
        user_agent: b"",
        held: false,
        ..example::facts()
    };
    let text = line(&refused, 1, Format::Text);
    assert!(text.contains(" 192.0.2.7 \"GET "), "{text}");
    assert!(
        text.contains("\" 404 no_route route=-/- revision=- endpoint=- q="),
        "{text}"
    );
    assert!(text.ends_with(" id=- agent=\"\" weight=1\n"), "{text}");
}

#[test]
fn json_has_the_same_facts() {
    assert_eq!(
        parsed(&Facts {
            reason: Some(Reason::EndpointGone),
            ..example::facts()
        }),
        serde_json::json!({
            "time": "1970-01-01T00:00:00.000Z", "client": "192.0.2.7", "method": "GET",
            "host": "coffee.default.example.com", "target": "/brew?sleep=100",
            "protocol": "HTTP/1.1", "code": 200, "reason": "endpoint_gone",
            "namespace": "default", "route": "coffee", "revision": "coffee-00001",
            "endpoint": "127.0.0.1:9001", "queueSeconds": 0.012, "endpointSeconds": 0.045,
            "overheadSeconds": 0.00025, "totalSeconds": 0.05725, "idleSeconds": 0.005, "held": true, "waitReason": "cold", "attempts": 1,
            "requestBytes": 120, "responseBytes": 3400, "requestId": "2f1c",
            "userAgent": "curl/8.5.0", "weight": 1,
        })
    );
}

/// Line breaks, terminal escapes (7 and 8 bit), quotes, a reversal mark, and no UTF-8 at all.
const HOSTILE: &[u8] = b"a\r\nb\x1b[2Jc\xc2\x9bd\"e\\f\xff g\0\x7f\xe2\x80\xae";

#[test]
fn hostile_bytes_neither_break_the_line_nor_steer_a_terminal() {
    let hostile = Facts {
        method: HOSTILE,
        host: HOSTILE,
        target: HOSTILE,
        user_agent: HOSTILE,
        request_id: HOSTILE,
        ..example::facts()
    };
    for format in [Format::Text, Format::Json] {
        let line = line(&hostile, 1, format);
        let body = line.strip_suffix('\n').unwrap();
        assert!(body.bytes().all(|b| matches!(b, b' '..=b'~')), "{line:?}");
    }
    let text = line(&hostile, 1, Format::Text);
    let token = "a\\x0d\\x0ab\\x1b[2Jc\\xc2\\x9bd\\x22e\\x5cf\\xff\\x20g\\x00\\x7f\\xe2\\x80\\xae";
    assert!(text.contains(&format!(" id={token} ")), "{text}");
    assert_eq!(text.matches('"').count(), 4, "{text}");
    assert_eq!(
        parsed(&hostile)["userAgent"],
        "a\r\nb\x1b[2Jc\u{9b}d\"e\\f\u{fffd} g\0\x7f\u{202e}"
    );
}

#[test]
fn secrets_in_the_target_are_hidden_in_both_formats() {
    let secret = Facts {
        target: b"/a?x=1&token=hunter2",
        ..example::facts()
    };
    for format in [Format::Text, Format::Json] {
        let line = line(&secret, 1, format);
        assert!(line.contains("/a?x=1&token=***"), "{line}");
        assert!(!line.contains("hunter2"), "{line}");
    }
}

#[test]
fn fields_are_cut_so_that_they_stay_below_4_kib() {
    for byte in [b"a", b"\x1b", b"\xff", b"\""] {
        let long = byte.repeat(70_000);
        let names = "r".repeat(70_000);
        let facts = Facts {
            names: Names {
                namespace: &names,
                route: &names,
                revision: &names,
            },
            method: &long,
            host: &long,
            target: &long,
            user_agent: &long,
            request_id: &long,
            ..example::facts()
        };
        let text = line(&facts, 1, Format::Text);
        assert!(text.len() < 4096 + 256, "{}", text.len());
        assert!(
            text.contains("... HTTP/1.1\""),
            "the cut is visible: {text}"
        );
        let json = line(&facts, 1, Format::Json);
        assert!(json.len() < 4096 + 512, "{}", json.len());
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert!(json["target"].as_str().unwrap().ends_with("..."));
    }
}

#[test]
fn a_torn_record_is_not_read() {
    let mut bytes = Vec::new();
    let facts = example::facts();
    record::encode(&mut bytes, &facts, 1, facts.arrived, None);
    for length in 0..bytes.len() {
        assert_eq!(record::decode(&mut &bytes[..length]), None);
    }
}

#[test]
fn limited_writes_up_to_the_rate_and_then_one_in_a_hundred_with_its_weight() {
    let mut sampler = Sampler::new(Mode::Limited, 10);
    let start = Instant::now();
    let at = |millis| Facts {
        arrived: start + Duration::from_millis(millis),
        total: Duration::ZERO,
        ..example::facts()
    };
    let weights: Vec<_> = (0..1_010).map(|_| sampler.weight(&at(0))).collect();
    assert_eq!(weights[..10], [1; 10]);
    assert_eq!(weights.iter().sum::<u32>(), 1_010, "weights add up");
    assert_eq!(weights.iter().filter(|w| **w == 100).count(), 10);

    assert_eq!(
        sampler.weight(&at(100)),
        1,
        "a tenth of a second is one more"
    );
    assert_eq!(sampler.weight(&at(100)), 0);
    let later: Vec<_> = (0..11).map(|_| sampler.weight(&at(60_000))).collect();
    assert_eq!(
        later.iter().sum::<u32>(),
        10,
        "a pause saves one second's worth"
    );
}

#[test]
fn limited_always_writes_refusals_and_server_errors() {
    let mut sampler = Sampler::new(Mode::Limited, 0);
    let plain = example::facts();
    assert_eq!(sampler.weight(&plain), 0);
    for (code, reason) in [(404, Some(Reason::NoRoute)), (500, None), (503, None)] {
        let facts = Facts {
            code,
            reason,
            ..plain
        };
        assert_eq!(sampler.weight(&facts), 1, "{code}");
    }
    let client = Facts { code: 404, ..plain };
    assert_eq!(sampler.weight(&client), 0, "an endpoint's own 404");
    assert_eq!(Sampler::new(Mode::All, 0).weight(&plain), 1);
}

fn config(path: &std::path::Path) -> Config {
    Config {
        mode: Mode::All,
        per_second: 0,
        format: Format::Text,
        file: Target::Path(path.to_owned()),
        requests: None,
    }
}

/// Ends the test instead of hanging it.
#[track_caller]
fn wait_until(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "it did not happen within 10 s");
        std::thread::yield_now();
    }
}

fn lines(path: &std::path::Path) -> usize {
    std::fs::read_to_string(path).map_or(0, |text| text.lines().count())
}

#[test]
fn all_workers_write_into_one_file_and_shutdown_flushes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let registry = Registry::new(3, Vec::new());
    let (log, writers) = AccessLog::start(&config(&path), &registry).unwrap();
    let threads: Vec<_> = writers
        .into_iter()
        .map(|mut writer| {
            std::thread::spawn(move || {
                for _ in 0..1_000 {
                    writer.write(&example::facts());
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    log.shutdown();
    assert_eq!(lines(&path), 3_000);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.lines().all(|l| l.ends_with(" weight=1")));
}

#[test]
fn a_record_is_written_without_being_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let registry = Registry::new(1, Vec::new());
    let (_log, mut writers) = AccessLog::start(&config(&path), &registry).unwrap();
    writers[0].write(&example::facts());
    wait_until(|| lines(&path) == 1);
}

#[test]
fn reopening_follows_a_rotation() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let rotated = directory.path().join("access.log.1");
    let registry = Registry::new(1, Vec::new());
    let (log, mut writers) = AccessLog::start(&config(&path), &registry).unwrap();
    writers[0].write(&example::facts());
    wait_until(|| lines(&path) == 1);
    std::fs::rename(&path, &rotated).unwrap();
    log.reopen();
    wait_until(|| path.exists());
    writers[0].write(&example::facts());
    log.shutdown();
    assert_eq!((lines(&rotated), lines(&path)), (1, 1));
}

#[test]
fn a_full_ring_drops_and_counts_and_never_waits() {
    let registry = Registry::new(1, Vec::new());
    let (producer, consumer) = RingBuffer::new(1_000);
    let mut ring = Ring {
        producer,
        scratch: Vec::with_capacity(record::LONGEST),
        base: Instant::now(),
        since_nudge: 0,
        thread: std::thread::current(),
        registry: Arc::clone(&registry),
        worker: 0,
    };
    for _ in 0..10 {
        ring.push(&example::facts(), 1, None);
    }
    let kept = consumer.slots() / ring.scratch.len();
    assert!((1..10).contains(&kept));
    let dropped = format!("tidegate_access_log_dropped_total {}\n", 10 - kept);
    assert!(registry.scrape(&[]).contains(&dropped));
}

#[test]
fn records_that_cannot_be_written_are_counted() {
    let registry = Registry::new(1, Vec::new());
    let full = std::path::Path::new("/dev/full");
    let (log, mut writers) = AccessLog::start(&config(full), &registry).unwrap();
    for _ in 0..3 {
        writers[0].write(&example::facts());
    }
    log.shutdown();
    let lost = "tidegate_access_log_dropped_total 3\n";
    assert!(registry.scrape(&[]).contains(lost));
}

#[test]
fn a_file_that_cannot_be_opened_is_an_error_at_start() {
    let registry = Registry::new(1, Vec::new());
    let nowhere = std::path::Path::new("/nonexistent/access.log");
    assert!(AccessLog::start(&config(nowhere), &registry).is_err());
}

#[test]
fn off_opens_nothing_and_writes_nothing() {
    let registry = Registry::new(2, Vec::new());
    let off = Config {
        mode: Mode::Off,
        ..config(std::path::Path::new("/nonexistent/access.log"))
    };
    let (log, mut writers) = AccessLog::start(&off, &registry).unwrap();
    assert_eq!(writers.len(), 2);
    writers[1].write(&example::facts());
    log.reopen();
    log.shutdown();
}

fn head(fields: &[(&str, &str)]) -> Head {
    let mut head = Head::default();
    for (name, value) in fields {
        head.append(name.as_bytes(), value.as_bytes());
    }
    head
}

fn asked(head: &Head) -> Asked<'_> {
    Asked {
        service: "coffee",
        configuration: "coffee-config",
        port: 40_000,
        content_length: None,
        answer_bytes: 3_000,
        head,
    }
}

fn template(text: &str) -> Option<Template> {
    Some(Template::parse(text).unwrap())
}

/// Two files, and a log that writes to them.
fn both_logs(mode: Mode) -> (tempfile::TempDir, [PathBuf; 2], AccessLog, AccessWriter) {
    let directory = tempfile::tempdir().unwrap();
    let paths = ["access.log", "requests.log"].map(|name| directory.path().join(name));
    let config = Config {
        mode,
        requests: Some(Target::Path(paths[1].clone())),
        ..config(&paths[0])
    };
    let registry = Registry::new(1, Vec::new());
    let (log, mut writers) = AccessLog::start(&config, &registry).unwrap();
    (directory, paths, log, writers.remove(0))
}

#[test]
fn requests_are_logged_by_the_template_while_there_is_one() {
    let (_directory, [access, requests], log, mut writer) = both_logs(Mode::All);
    let head = head(&[("X-A", "1"), ("Authorization", "secret"), ("x-a", "2")]);
    assert!(!writer.logs_requests());
    writer.write_request(&example::facts(), &asked(&head));
    log.switches().set_request_log(template(
        "{{.Request.RequestURI}} {{.Revision.Service}} {{.Request.RemoteAddr}} \
         {{.Request.ContentLength}} {{.Response.Size}} {{index .Request.Header \"X-A\"}}",
    ));
    assert!(writer.logs_requests());
    let secret = Facts {
        target: b"/?token=abc",
        ..example::facts()
    };
    writer.write_request(&secret, &asked(&head));
    writer.write(&example::facts());
    wait_until(|| lines(&access) == 3 && lines(&requests) == 1);
    log.switches().set_request_log(None);
    assert!(!writer.logs_requests());
    writer.write(&example::facts());
    log.shutdown();
    let text = std::fs::read_to_string(&requests).unwrap();
    assert_eq!(text, "/?token=*** coffee 192.0.2.7:40000 -1 3000 [1 2]\n");
    assert_eq!(lines(&access), 4);
}

#[test]
fn either_log_can_be_on_without_the_other() {
    let (_directory, [access, requests], log, mut writer) = both_logs(Mode::All);
    let head = Head::default();
    log.switches()
        .set_request_log(template("{{.Response.Code}}"));
    log.switches().set_access_log(false);
    writer.write(&example::facts());
    writer.write_request(&example::facts(), &asked(&head));
    wait_until(|| lines(&requests) == 1);
    log.switches().set_access_log(true);
    log.switches().set_request_log(None);
    writer.write(&example::facts());
    log.shutdown();
    assert_eq!((lines(&access), lines(&requests)), (1, 1));

    let (_directory, [access, requests], log, mut writer) = both_logs(Mode::Off);
    log.switches()
        .set_request_log(template("{{.Response.Code}}"));
    writer.write_request(&example::facts(), &asked(&head));
    writer.write(&example::facts());
    log.shutdown();
    assert!(!access.exists(), "no access log was asked for");
    assert_eq!(lines(&requests), 1);
}

#[test]
fn whatever_fields_come_a_record_has_a_bound_and_is_read_whole() {
    let long = "v".repeat(5_000);
    let many: Vec<_> = (0..200).map(|_| ("X-A", long.as_str())).collect();
    let head = head(&many);
    let names: Vec<Box<str>> = vec!["x-a".into()];
    let mut bytes = Vec::new();
    let facts = example::facts();
    let asked = asked(&head);
    record::encode(&mut bytes, &facts, 0, facts.arrived, Some((&asked, &names)));
    assert!(bytes.len() < 32 * 1024, "{} bytes", bytes.len());
    let mut rest = bytes.as_slice();
    let record = record::decode(&mut rest).unwrap();
    assert!(rest.is_empty() && record.weight == 0);
    let fields: Vec<_> = record.asked.unwrap().fields().collect();
    assert!((10..=32).contains(&fields.len()), "{}", fields.len());
    assert!(
        fields
            .iter()
            .all(|(name, value)| *name == b"X-A" && value.len() == 1024)
    );
    // Torn in the middle, it is no record or one with fewer fields, and never anything else.
    for length in 0..bytes.len() {
        assert_eq!(record::decode(&mut &bytes[..length]), None);
    }
}
