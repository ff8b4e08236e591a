//! What changes in heads on their way: fields we set, fields that must not come from outside,
//! rewrites.

use std::io::Write as _;
use std::net::SocketAddr;

use config::settings::Underscores;
use config::snapshot::{Action, PathMatch, Redirect, Sticky};

use super::{Client, Exchange, knative};
use crate::http::answer::line;
use crate::http::field::{Head, Name};
use crate::http::h1::encode;
use crate::http::message::{RequestEdits, RequestHead, ResponseHead, Version};
use crate::live::{Routed, cookie_value};
use crate::refusal::Reason;

/// Edits of one exchange.
#[derive(Debug, Default)]
pub(super) struct Edits {
    /// Whole lines put behind the request's fields.
    lines: Vec<u8>,
    /// The target that takes the place of the one received; empty = none.
    target: Vec<u8>,
    /// The host likewise.
    host: Vec<u8>,
    /// Where the id that we gave the request stands in `lines`.
    id: Option<(usize, usize)>,
    /// Whole lines put behind the response's fields.
    pub(super) response: Vec<u8>,
}

impl Edits {
    /// Makes it empty and keeps its memory.
    pub(super) fn clear(&mut self) {
        self.lines.clear();
        self.target.clear();
        self.host.clear();
        self.id = None;
        self.response.clear();
    }

    /// Bytes of memory it keeps.
    pub(super) fn capacity(&self) -> usize {
        let ours = self.lines.capacity() + self.target.capacity() + self.host.capacity();
        ours + self.response.capacity()
    }

    /// Gives back the memory it has for more than what is there.
    pub(super) fn fit(&mut self) {
        self.lines.shrink_to_fit();
        self.target.shrink_to_fit();
        self.host.shrink_to_fit();
        self.response.shrink_to_fit();
    }

    pub(super) fn request(&self) -> RequestEdits<'_> {
        RequestEdits {
            target: (!self.target.is_empty()).then_some(&self.target),
            host: self.host(),
            lines: &self.lines,
        }
    }

    /// The host that takes the place of the one received.
    pub(super) fn host(&self) -> Option<&[u8]> {
        (!self.host.is_empty()).then_some(&self.host)
    }

    pub(super) fn set_host(&mut self, host: impl std::fmt::Display) {
        self.host.clear();
        // Writing to a vector cannot fail.
        let _infallible = write!(self.host, "{host}");
    }

    /// Whether a line of this name is there.
    pub(super) fn has(&self, name: &str) -> bool {
        let mut lines = self.lines.split_inclusive(|byte| *byte == b'\n');
        lines.any(|line| is_named(line, name))
    }

    /// Sets a line, in place of any with this name.
    pub(super) fn set(&mut self, name: &str, value: &[u8]) {
        self.unset(name);
        if name.eq_ignore_ascii_case(Name::XRequestId.text()) {
            let start = self.lines.len() + name.len() + ": ".len();
            self.id = Some((start, start + value.len()));
        }
        line(&mut self.lines, name, value);
    }

    pub(super) fn unset(&mut self, name: &str) {
        let mut at = 0;
        while let Some(length) = memchr::memchr(b'\n', &self.lines[at..]) {
            let end = at + length + 1;
            if !is_named(&self.lines[at..end], name) {
                at = end;
                continue;
            }
            self.lines.drain(at..end);
            self.id = match self.id {
                Some((start, stop)) if start >= end => {
                    Some((start - (end - at), stop - (end - at)))
                }
                Some((start, _)) if start > at => None,
                id => id,
            };
        }
    }

    /// The id the endpoint sees: ours, or the one that was kept.
    pub(super) fn request_id<'a>(&'a self, head: &'a Head) -> &'a [u8] {
        match self.id {
            Some((start, end)) => &self.lines[start..end],
            None => head.first(Name::XRequestId).unwrap_or_default(),
        }
    }
}

fn is_named(line: &[u8], name: &str) -> bool {
    match line.get(..=name.len()) {
        Some([start @ .., b':']) => start.eq_ignore_ascii_case(name.as_bytes()),
        _ => false,
    }
}

impl Exchange<'_> {
    /// Decides everything that changes in the request's head.
    pub(super) fn edit(&mut self, routed: &Routed) {
        self.request.head.settle();
        self.forwarded();
        self.strip(routed);
        let received: &[u8] = match self.request.version {
            Version::Http10 => b"via: 1.0 ",
            Version::Http11 => b"via: 1.1 ",
            Version::Http2 => b"via: 2.0 ",
        };
        let pseudonym = &self.worker.shared.pseudonym;
        self.edits.lines.extend_from_slice(received);
        self.edits.lines.extend_from_slice(pseudonym.as_bytes());
        self.edits.lines.extend_from_slice(b"\r\n");
        self.edit_for(routed);
    }

    /// Undoes it all, and forgets where the request was to go.
    pub(super) fn unedit(&mut self) {
        self.request.head.restore();
        self.edits.clear();
        (self.routed, self.revision, self.passed_hash) = (None, None, None);
    }

    /// What rules and target want changed, those that came first first.
    fn edit_for(&mut self, routed: &Routed) {
        for before in self.rerouted.clone() {
            if let Action::Reroute(reroute) = &before.rule().action {
                for (name, value) in &reroute.set_headers {
                    self.set_header(name, value);
                }
                self.edits.set_host(&reroute.host);
            }
        }
        let Action::Forward(forward) = &routed.rule().action else {
            return;
        };
        let of_target = routed
            .target()
            .map_or(&[][..], |target| &target.set_headers);
        for (name, value) in &forward.set_headers {
            // A target's own value wins over its rule's.
            if !of_target
                .iter()
                .any(|(other, _)| other.eq_ignore_ascii_case(name))
            {
                self.set_header(name, value);
            }
        }
        for (name, value) in of_target {
            self.set_header(name, value);
        }
        if let Some(hash) = self.passed_hash.take() {
            self.set_header(knative::HASH, &hash);
        }
        if let Some(host) = &forward.rewrite_host {
            self.edits.set_host(host);
        }
        if let Some(path) = &forward.rewrite_path {
            let (target, matched) = (self.request.target(), &routed.rule().path);
            self.edits.target = rewritten(target, self.request.path().len(), matched, path);
        }
    }

    fn set_header(&mut self, name: &str, value: &str) {
        self.request.head.drop_named(name.as_bytes());
        self.edits.set(name, value.as_bytes());
    }

    /// What nobody but us may say of the client, and what nobody outside may say at all.
    fn strip(&mut self, routed: &Routed) {
        let head = &mut self.request.head;
        head.drop_all(Name::XForwardedClientCert);
        head.drop_all(Name::Lookalike);
        if let Some(identity) = &self.client.identity {
            let name = Name::XForwardedClientCert.text();
            line(&mut self.edits.lines, name, identity);
        }
        if !self.client.is_internal() {
            let first = self.rerouted.first().unwrap_or(routed);
            match first.route().network_hash {
                Some(_) => head.drop_all_but(Name::Control, knative::is_for_everybody),
                None => head.drop_all(Name::Control),
            }
        }
    }

    /// `X-Forwarded-*`, `Forwarded` and `X-Request-Id`: ours, unless a trusted proxy speaks for the
    /// client.
    fn forwarded(&mut self) {
        let RequestHead { head, host, .. } = &mut self.request;
        let lines = &mut self.edits.lines;
        let trusted = self.client.trusted;
        lines.extend_from_slice(b"x-forwarded-for: ");
        if trusted {
            for address in head.list(Name::XForwardedFor) {
                lines.extend_from_slice(address);
                lines.extend_from_slice(b", ");
            }
        }
        lines.extend_from_slice(self.client.address_text.as_bytes());
        lines.extend_from_slice(b"\r\n");
        head.drop_all(Name::XForwardedFor);
        if !trusted || head.first(Name::XForwardedProto).is_none() {
            head.drop_all(Name::XForwardedProto);
            let scheme = self.client.scheme().as_bytes();
            line(lines, "x-forwarded-proto", scheme);
        }
        if !trusted || head.first(Name::XForwardedHost).is_none() {
            head.drop_all(Name::XForwardedHost);
            let host = host.of(&head.bytes);
            if !host.is_empty() {
                line(lines, "x-forwarded-host", host);
            }
        }
        if !trusted {
            head.drop_all(Name::Forwarded);
        } else if head.has(Name::Forwarded) {
            element(lines, self.client, host.of(&head.bytes));
        }
        if !trusted || head.first(Name::XRequestId).is_none_or(<[u8]>::is_empty) {
            head.drop_all(Name::XRequestId);
            lines.extend_from_slice(b"x-request-id: ");
            let start = lines.len();
            lines.extend_from_slice(&cookie_value(self.worker.random()));
            lines.extend_from_slice(&cookie_value(self.worker.random()));
            self.edits.id = Some((start, lines.len()));
            lines.extend_from_slice(b"\r\n");
        }
    }
}

/// Fields with `_` in their name, which some endpoints cannot tell from those with `-`: what
/// `limits.underscores` says, before anything asks for a field.
pub(super) fn underscores(head: &mut Head, policy: Underscores) -> Result<(), Reason> {
    match policy {
        Underscores::Allow => Ok(()),
        Underscores::Drop => {
            head.hide_with(b'_');
            Ok(())
        }
        Underscores::Reject if head.hide_with(b'_') => Err(Reason::BadRequest),
        Underscores::Reject => Ok(()),
    }
}

/// Appends our element of `Forwarded` (RFC 7239 §4), as a line of its own behind those that came.
fn element(lines: &mut Vec<u8>, client: &Client, host: &[u8]) {
    lines.extend_from_slice(b"forwarded: for=");
    // A colon stands in quoted strings only (§6).
    let from = client.address_text.as_bytes();
    match client.address {
        SocketAddr::V4(_) => lines.extend_from_slice(from),
        SocketAddr::V6(_) => {
            lines.extend_from_slice(b"\"[");
            lines.extend_from_slice(from);
            lines.extend_from_slice(b"]\"");
        }
    }
    if !host.is_empty() {
        // No host that was let in holds a quote or a backslash.
        lines.extend_from_slice(b";host=\"");
        lines.extend_from_slice(host);
        lines.push(b'"');
    }
    lines.extend_from_slice(b";proto=");
    lines.extend_from_slice(client.scheme().as_bytes());
    lines.extend_from_slice(b"\r\n");
}

/// Decides everything that changes in the response's head.
pub(super) fn response(lines: &mut Vec<u8>, response: &mut ResponseHead, routed: &Routed) {
    lines.clear();
    for (name, value) in &routed.rule().set_response_headers {
        response.head.drop_named(name.as_bytes());
        line(lines, name, value.as_bytes());
    }
    if let (Some(random), Some(Sticky::Cookie { name, ttl })) =
        (routed.new_cookie, &routed.route().sticky)
    {
        lines.extend_from_slice(b"set-cookie: ");
        lines.extend_from_slice(name.as_bytes());
        lines.push(b'=');
        lines.extend_from_slice(&cookie_value(random));
        lines.extend_from_slice(b"; Path=/; HttpOnly; SameSite=Lax; Max-Age=");
        encode::decimal(lines, ttl.as_secs());
        lines.extend_from_slice(b"\r\n");
    }
}

/// The target with the matched part of its path replaced, query kept.
fn rewritten(target: &[u8], path: usize, matched: &PathMatch, replacement: &str) -> Vec<u8> {
    let cut = match matched {
        PathMatch::Prefix(prefix) => prefix.len().min(path),
        PathMatch::Exact(_) => path,
    };
    let mut out = replacement.as_bytes().to_vec();
    let rest = &target[cut..];
    // "/" as a prefix takes the slash with it: the rest needs one again, and only one.
    let needs_slash = !out.ends_with(b"/") && !matches!(rest.first(), None | Some(b'/' | b'?'));
    if needs_slash && matches!(matched, PathMatch::Prefix(prefix) if prefix.ends_with('/')) {
        out.push(b'/');
    }
    let rest = match rest {
        [b'/', tail @ ..] if out.ends_with(b"/") => tail,
        rest => rest,
    };
    out.extend_from_slice(rest);
    out
}

/// Where a redirect leads: what the rule leaves open stays as it was asked.
pub(super) fn location(redirect: &Redirect, request: &RequestHead, scheme: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let host = redirect
        .host
        .as_deref()
        .map_or(request.host(), str::as_bytes);
    if redirect.scheme.is_some() || redirect.host.is_some() {
        out.extend_from_slice(redirect.scheme.as_deref().unwrap_or(scheme).as_bytes());
        out.extend_from_slice(b"://");
        // Another scheme has another port: ours means nothing there.
        let host = match redirect.scheme {
            Some(_) if redirect.host.is_none() => without_port(host),
            _ => host,
        };
        out.extend_from_slice(host);
    }
    match &redirect.path {
        Some(path) => {
            out.extend_from_slice(path.as_bytes());
            out.extend_from_slice(&request.target()[request.path().len()..]);
        }
        None => out.extend_from_slice(request.target()),
    }
    out
}

pub(super) fn without_port(host: &[u8]) -> &[u8] {
    match host.iter().rposition(|byte| *byte == b':') {
        Some(colon) if !host[colon..].contains(&b']') => &host[..colon],
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::field::Span;

    #[test]
    fn rewriting_replaces_the_matched_part_and_keeps_the_query() {
        let prefix = |p: &str| PathMatch::Prefix(p.into());
        for (target, path, matched, with, wanted) in [
            ("/api/x?y=1", 6, prefix("/api"), "/v2", "/v2/x?y=1"),
            ("/api", 4, prefix("/api"), "/v2", "/v2"),
            ("/api?q", 4, prefix("/api"), "/", "/?q"),
            ("/api/x", 6, prefix("/api/"), "/v2", "/v2/x"),
            ("/api/x", 6, prefix("/api"), "/", "/x"),
            ("/x", 2, prefix("/"), "/v2", "/v2/x"),
            ("/x", 2, prefix(""), "/v2", "/v2/x"),
            (
                "/one?q",
                4,
                PathMatch::Exact("/one".into()),
                "/two",
                "/two?q",
            ),
        ] {
            let out = rewritten(target.as_bytes(), path, &matched, with);
            assert_eq!(
                String::from_utf8_lossy(&out),
                wanted,
                "{target} {matched:?}"
            );
        }
    }
    #[test]
    fn a_redirect_keeps_the_scheme_unless_it_names_one() {
        let to = |scheme: Option<&str>, host: Option<&str>| Redirect {
            scheme: scheme.map(Into::into),
            host: host.map(Into::into),
            path: None,
            status: 301,
        };
        let mut request = RequestHead::default();
        request.head.bytes = b"/a?bx.test:1".to_vec();
        request.target = Span::new(0, 4);
        request.host = Span::new(4, 12);
        for (redirect, wanted) in [
            (to(None, Some("y.test")), "https://y.test/a?b"),
            (to(Some("http"), Some("y.test:8")), "http://y.test:8/a?b"),
            (to(Some("http"), None), "http://x.test/a?b"),
            (to(None, None), "/a?b"),
        ] {
            let told = location(&redirect, &request, "https");
            assert_eq!(String::from_utf8_lossy(&told), wanted);
        }
    }
}
