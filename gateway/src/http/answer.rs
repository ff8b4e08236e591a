//! Responses we make ourselves, in the one form every protocol edge can send.

use std::borrow::Cow;

use super::field::Name;
use super::h1::encode::decimal;
use super::message::{Length, RequestHead, ResponseHead};
use crate::refusal::Reason;

/// How a gRPC client is told when to retry.
const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// A whole response: status, header lines, body.
#[derive(Debug)]
pub struct Answer {
    pub head: ResponseHead,
    /// Whole lines: everything but status and framing of the connection.
    pub lines: Vec<u8>,
    pub body: Vec<u8>,
}

impl Answer {
    /// An answer with a body of this content type.
    #[must_use]
    pub fn new(status: u16, content_type: &str, body: Vec<u8>, date: &[u8]) -> Answer {
        let mut answer = Answer {
            head: ResponseHead::default(),
            lines: Vec::new(),
            body,
        };
        answer.head.status = status;
        answer.head.length = match answer.body.len() {
            0 => Length::None,
            length => Length::Exactly(length as u64),
        };
        if !content_type.is_empty() {
            answer.line("content-type", content_type.as_bytes());
        }
        // RFC 9110 §8.6: never in 204; in 304 it would speak of another answer.
        if !matches!(status, 204 | 304) {
            answer.lines.extend_from_slice(b"content-length: ");
            decimal(&mut answer.lines, answer.body.len() as u64);
            answer.lines.extend_from_slice(b"\r\n");
        }
        answer.line("date", date);
        answer
    }

    /// What the client reads of a refusal. A gRPC client gets a trailers-only response: status 200
    /// and the code in the head, since there is no body to put trailers behind. `cause`: what clients
    /// may know of it beyond the word.
    #[must_use]
    pub fn refusal(
        reason: Reason,
        cause: Option<&str>,
        request: Option<&RequestHead>,
        date: &[u8],
    ) -> Answer {
        let sentence = match cause {
            None => Cow::Borrowed(reason.sentence()),
            Some(cause) => {
                let sentence = reason.sentence().trim_end_matches('.');
                Cow::Owned(format!("{sentence}: {cause}"))
            }
        };
        if request.is_some_and(RequestHead::is_grpc) {
            let mut answer = Answer::new(200, "application/grpc", Vec::new(), date);
            answer.line("grpc-status", reason.grpc_code().to_string().as_bytes());
            answer.line("grpc-message", grpc_message(&sentence).as_bytes());
            answer.line("tidegate-reason", reason.word().as_bytes());
            if let Some(seconds) = reason.retry_after() {
                answer.retry_after(seconds.into(), true);
            }
            return answer;
        }
        let mut answer = if request.is_some_and(wants_problem_json) {
            let mut body = serde_json::json!({
                "type": "about:blank",
                "title": reason.sentence(),
                "status": reason.status(),
                "reason": reason.word(),
            });
            if let Some(cause) = cause {
                body["detail"] = cause.into();
            }
            let body = format!("{body}\n").into_bytes();
            Answer::new(reason.status(), "application/problem+json", body, date)
        } else {
            let body = format!("{sentence}\n").into_bytes();
            Answer::new(reason.status(), "text/plain; charset=utf-8", body, date)
        };
        answer.line("tidegate-reason", reason.word().as_bytes());
        if let Some(seconds) = reason.retry_after() {
            answer.retry_after(seconds.into(), false);
        }
        if reason == Reason::MethodNotAllowed {
            // RFC 9110 §15.5.6 demands it; CONNECT is the one method never allowed.
            answer.line(
                "allow",
                b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE",
            );
        }
        answer
    }

    /// A refusal in other words than ours.
    #[must_use]
    pub fn saying(reason: Reason, text: String, date: &[u8]) -> Answer {
        let body = text.into_bytes();
        let mut answer = Answer::new(reason.status(), "text/plain; charset=utf-8", body, date);
        answer.line("x-content-type-options", b"nosniff");
        answer.line("tidegate-reason", reason.word().as_bytes());
        if let Some(seconds) = reason.retry_after() {
            answer.retry_after(seconds.into(), false);
        }
        answer
    }

    /// Says after how many seconds the same request may be sent again, in place of what was said
    /// before. `grpc`: as gRPC has it, in milliseconds, which clients heed where their service has
    /// them retry (gRFC A6, <https://github.com/grpc/proposal/blob/master/A6-client-retries.md>).
    pub fn retry_after(&mut self, seconds: u64, grpc: bool) {
        match grpc {
            true => {
                let milliseconds = seconds.saturating_mul(1000);
                self.set(PUSHBACK, milliseconds.to_string().as_bytes());
            }
            false => self.set("retry-after", seconds.to_string().as_bytes()),
        }
    }

    /// Adds a header line. The value must hold no CR or LF.
    pub fn line(&mut self, name: &str, value: &[u8]) {
        line(&mut self.lines, name, value);
    }

    /// Sets a header line, in place of any with this name.
    pub fn set(&mut self, name: &str, value: &[u8]) {
        self.remove(name);
        self.line(name, value);
    }

    /// Takes away any header line with this name.
    pub fn remove(&mut self, name: &str) {
        let mut kept = Vec::with_capacity(self.lines.len());
        for line in self.lines.split_inclusive(|byte| *byte == b'\n') {
            let of = line.split(|byte| *byte == b':').next().unwrap_or(line);
            if !of.eq_ignore_ascii_case(name.as_bytes()) {
                kept.extend_from_slice(line);
            }
        }
        self.lines = kept;
    }

    /// The answer to a HEAD request: the same head, nothing behind it.
    pub fn without_body(&mut self) {
        self.body.clear();
        self.head.length = Length::None;
    }
}

/// As a `grpc-message` has it: what is not printable ASCII, and `%`, is percent-encoded.
fn grpc_message(text: &str) -> String {
    let mut message = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => message.push(char::from(byte)),
            _ => message.push_str(&format!("%{byte:02X}")),
        }
    }
    message
}

/// Appends one header line. The value must hold no CR or LF.
pub fn line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn wants_problem_json(request: &RequestHead) -> bool {
    let wanted = |range: &[u8]| {
        let media = range
            .split(|byte| *byte == b';')
            .next()
            .unwrap_or(range)
            .trim_ascii();
        media.eq_ignore_ascii_case(b"application/problem+json")
    };
    request.head.list(Name::Accept).any(wanted)
}

/// The standard phrase of a status (RFC 9110 §15).
#[must_use]
pub fn phrase(status: u16) -> &'static str {
    hyper::StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::h1::request::parse;
    use crate::http::h1::{HeadLimits, Parsed};

    fn request(fields: &str) -> RequestHead {
        let limits = HeadLimits {
            bytes: 1024,
            fields: 10,
            target: 100,
        };
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let mut out = RequestHead::default();
        let parsed = parse(head.as_bytes(), &limits, &mut out);
        assert_eq!(parsed, Ok(Parsed::Head(head.len())));
        out
    }

    fn text(bytes: &[u8]) -> &str {
        std::str::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_refusal_is_plain_text_unless_problem_json_is_accepted() {
        let plain = Answer::refusal(Reason::QueueFull, None, Some(&request("")), b"now");
        assert_eq!(plain.head.status, 503);
        assert_eq!(
            text(&plain.lines),
            format!(
                "content-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\ndate: now\r\ntidegate-reason: queue_full\r\nretry-after: 1\r\n",
                plain.body.len()
            )
        );
        assert!(text(&plain.body).ends_with("\n"));
        let accept = "Accept: text/html;q=0.1\r\nAccept: x/y, Application/Problem+JSON;q=1\r\n";
        let json = Answer::refusal(Reason::NoRoute, None, Some(&request(accept)), b"now");
        assert!(text(&json.lines).starts_with("content-type: application/problem+json\r\n"));
        let body: serde_json::Value = serde_json::from_slice(&json.body).unwrap();
        assert_eq!(
            (&body["reason"], &body["status"]),
            (&"no_route".into(), &404.into())
        );
    }

    #[test]
    fn a_grpc_client_reads_its_code_in_the_head() {
        let head = request("Content-Type: application/grpc+proto\r\n");
        let answer = Answer::refusal(Reason::NoRoute, None, Some(&head), b"now");
        assert_eq!((answer.head.status, answer.body.len()), (200, 0));
        let code = format!("grpc-status: {}\r\n", Reason::NoRoute.grpc_code());
        let lines = text(&answer.lines);
        for line in [
            &code,
            "content-type: application/grpc\r\n",
            "tidegate-reason: no_route\r\n",
        ] {
            assert!(lines.contains(line), "{line:?} in {lines:?}");
        }
    }

    #[test]
    fn whoever_may_send_it_again_is_told_when_in_words_of_its_own() {
        let fields = "Content-Type: application/grpc\r\n";
        let (plain, grpc) = (request(""), request(fields));
        for reason in Reason::ALL {
            let told = |head, name: &str| {
                let answer = Answer::refusal(*reason, None, Some(head), b"now");
                let lines = text(&answer.lines).lines();
                let mut values =
                    lines.filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
                values.next().map(str::to_owned)
            };
            let seconds = reason.retry_after().map(|seconds| seconds.to_string());
            let pushback = seconds.as_ref().map(|seconds| format!("{seconds}000"));
            assert_eq!(told(&plain, "retry-after"), seconds, "{reason:?}");
            assert_eq!(told(&grpc, PUSHBACK), pushback, "{reason:?}");
            assert_eq!(told(&plain, PUSHBACK), None);
            assert_eq!(told(&grpc, "retry-after"), None);
        }
    }

    #[test]
    fn a_cause_is_told_in_every_form() {
        let cause = Some("exited with status 3: 100 % é");
        let plain = Answer::refusal(Reason::StartFailed, cause, Some(&request("")), b"now");
        let sentence = "The service could not be started: exited with status 3: 100 % é\n";
        assert_eq!(text(&plain.body), sentence);
        let accept = request("Accept: application/problem+json\r\n");
        let json = Answer::refusal(Reason::StartFailed, cause, Some(&accept), b"now");
        let body: serde_json::Value = serde_json::from_slice(&json.body).unwrap();
        assert_eq!(body["title"], Reason::StartFailed.sentence());
        assert_eq!(body["detail"].as_str(), cause);
        let grpc = request("Content-Type: application/grpc\r\n");
        let grpc = Answer::refusal(Reason::StartFailed, cause, Some(&grpc), b"now");
        let line = "grpc-message: The service could not be started: \
                    exited with status 3: 100 %25 %C3%A9\r\n";
        assert!(text(&grpc.lines).contains(line), "{}", text(&grpc.lines));
    }

    #[test]
    fn statuses_without_a_body_have_no_length() {
        for (status, has_length) in [(200, true), (205, true), (204, false), (304, false)] {
            let answer = Answer::new(status, "", Vec::new(), b"now");
            assert_eq!(text(&answer.lines).contains("content-length"), has_length);
        }
    }
}
