//! Which scheme the client used, and the way from `http` to `https`.

use super::Exchange;
use super::edits::without_port;
use crate::http::answer::Answer;
use crate::http::field::Name;
use crate::http::h1::encode::decimal;
use crate::refusal::Reason;

const HTTPS_PORT: u16 = 443;

impl Exchange<'_> {
    /// What the client's request came by, as far as we know or a trusted proxy says.
    pub(super) fn scheme(&self) -> &'static str {
        let head = &self.request.head;
        let said = || head.list(Name::XForwardedProto).next();
        let is_https = |said: &[u8]| said.eq_ignore_ascii_case(b"https");
        if self.client.trusted && said().is_some_and(is_https) {
            "https"
        } else {
            self.client.scheme()
        }
    }

    /// The answer to a plain request where the listener wants none.
    ///
    /// # Errors
    /// It names no host to be sent to.
    pub(super) fn to_https(&self) -> Result<Option<Answer>, Reason> {
        let listener = self
            .worker
            .shared
            .settings
            .listeners
            .get(self.client.listener);
        let Some(port) = listener.and_then(|listener| listener.https_redirect) else {
            return Ok(None);
        };
        if self.scheme() == "https" {
            return Ok(None);
        }
        let host = without_port(self.request.host());
        if host.is_empty() {
            return Err(Reason::NoRoute);
        }
        let mut location = b"https://".to_vec();
        location.extend_from_slice(host);
        if port != HTTPS_PORT {
            location.push(b':');
            decimal(&mut location, u64::from(port));
        }
        // `*` of OPTIONS is no path.
        let target = self.request.target();
        location.extend_from_slice(if target == b"*" { b"/" } else { target });
        // Others must be repeated as they are (RFC 9110 §15.4.9).
        let status = match self.request.method() {
            b"GET" | b"HEAD" => 301,
            _ => 308,
        };
        let answer = |date: &[u8]| Answer::new(status, "", Vec::new(), date);
        let mut answer = self.worker.date(answer);
        answer.line("location", &location);
        Ok(Some(answer))
    }
}
