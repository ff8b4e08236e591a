//! Which scheme the client used, and the way from `http` to `https`.

use config::snapshot::Rule;

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
        let listeners = &self.worker.shared.settings.listeners;
        let listener = listeners.get(self.client.listener);
        match listener.and_then(|listener| listener.https_redirect) {
            Some(port) if self.scheme() != "https" => self.sent_to_https(port).map(Some),
            _ => Ok(None),
        }
    }

    /// The answer to a plain request from the public where the rule wants none.
    ///
    /// # Errors
    /// It names no host to be sent to.
    pub(super) fn rule_to_https(&self, rule: &Rule) -> Result<Option<Answer>, Reason> {
        let plain = rule.https_only && !self.client.is_internal() && self.scheme() != "https";
        let answer = plain.then(|| self.sent_to_https(HTTPS_PORT));
        answer.transpose()
    }

    fn sent_to_https(&self, port: u16) -> Result<Answer, Reason> {
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
        Ok(answer)
    }
}
