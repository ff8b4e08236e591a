//! Others read what we read, and what we forward.

use std::time::Duration;

use crate::differences::{Allowed, End, Kind, Message, Reading, compare};
use crate::hyper_peer::Hyper;
use crate::proxies::Proxy;
use crate::{ours, requests, sized, variations};

/// Sent behind everything: whether it is understood shows where the one before is taken to end.
const AFTER: &[u8] = b"GET /after HTTP/1.1\r\nHost: after\r\nConnection: close\r\n\r\n";

/// Who says nothing for so long waits for more.
const SILENCE: Duration = Duration::from_millis(200);

/// What we read, in the words of a comparison.
fn our_reading(bytes: &[u8]) -> Reading {
    let reading = ours::read(bytes);
    let messages = reading.messages.iter().map(|message| {
        let mut fields = message.fields.clone();
        fields.sort_by(|one, other| one.0.cmp(&other.0));
        Message {
            method: message.method.clone(),
            target: message.target.clone(),
            host: Some(message.host.clone()),
            fields: Some(fields),
            body: message.body.clone(),
            // Some are dropped by rule, and all of them by others.
            trailers: None,
        }
    });
    Reading {
        messages: messages.collect(),
        end: match reading.end {
            ours::End::Nothing => End::Nothing,
            ours::End::Refused(_) | ours::End::RefusedInBody => End::Refused,
            ours::End::Incomplete | ours::End::IncompleteBody => End::Incomplete,
        },
    }
}

/// Fields as they stand in lines.
fn in_lines(lines: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let lines = lines.split(|byte| *byte == b'\n');
    let mut fields: Vec<(Vec<u8>, Vec<u8>)> = lines
        .filter_map(|line| {
            let colon = line.iter().position(|byte| *byte == b':')?;
            let name = line[..colon].to_ascii_lowercase();
            Some((name, line[colon + 1..].trim_ascii().to_vec()))
        })
        .collect();
    fields.sort_by(|one, other| one.0.cmp(&other.0));
    fields
}

/// The bytes an endpoint would get of a request, and what they are to mean to it.
fn forwarded(message: &ours::Message) -> (Vec<u8>, Message) {
    let mut bytes = message.head.clone();
    let line_end = bytes.iter().position(|byte| *byte == b'\n').unwrap();
    let fields = in_lines(&bytes[line_end + 1..]);
    let chunked = fields.iter().any(|(name, _)| name == b"transfer-encoding");
    if chunked {
        if !message.body.is_empty() {
            bytes.extend(format!("{:x}\r\n", message.body.len()).bytes());
            bytes.extend_from_slice(&message.body);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"0\r\n");
        bytes.extend_from_slice(&message.trailers);
        bytes.extend_from_slice(b"\r\n");
    } else {
        bytes.extend_from_slice(&message.body);
    }
    let meaning = Message {
        method: message.method.clone(),
        target: message.target.clone(),
        host: Some(message.host.clone()),
        fields: Some(fields),
        body: message.body.clone(),
        trailers: Some(in_lines(&message.trailers)),
    };
    (bytes, meaning)
}

/// A reader beside us.
struct Peer<'a> {
    name: &'static str,
    read: &'a dyn Fn(&[u8], Duration) -> Reading,
}

impl Peer<'_> {
    /// The same bytes, read by both.
    fn reads(&self, bytes: &[u8], allowed: &Allowed, silence: Duration) -> Result<(), String> {
        let all = [bytes, AFTER].concat();
        let (ours, theirs) = (our_reading(&all), (self.read)(&all, silence));
        let Some((kind, at)) = compare(&ours, &theirs) else {
            return Ok(());
        };
        // The request itself, or the one before: it may be about whether that one was the last.
        let starts = ours::read(&all).starts;
        let mut suspects = [Some(at), at.checked_sub(1)].into_iter().flatten();
        let explained = suspects.any(|suspect| {
            let start = starts.get(suspect);
            start.is_some_and(|start| allowed.explain(self.name, kind, &all[*start..]))
        });
        if explained {
            return Ok(());
        }
        let name = self.name;
        Err(format!("{kind:?}: we read {ours}\n{name} reads {theirs}"))
    }

    /// What we would send to an endpoint for these bytes means the same to this one, or nothing.
    fn understands(
        &self,
        bytes: &[u8],
        allowed: &Allowed,
        silence: Duration,
    ) -> Result<(), String> {
        for message in ours::read(bytes).messages {
            let (sent, meaning) = forwarded(&message);
            let after = our_reading(AFTER).messages.remove(0);
            let wanted = Reading {
                messages: vec![meaning, after],
                end: End::Nothing,
            };
            let theirs = (self.read)(&[&sent[..], AFTER].concat(), silence);
            let refused = theirs.messages.is_empty() && theirs.end == End::Refused;
            // Refused as a whole it does no harm; anything else would.
            let harmless = refused && allowed.explain(self.name, Kind::Laxer, &sent);
            if compare(&wanted, &theirs).is_some() && !harmless {
                let (name, sent) = (self.name, sent.escape_ascii());
                return Err(format!("of {sent}\n{name} reads {theirs}"));
            }
        }
        Ok(())
    }

    /// Both; what differs is looked at again with more patience, in case it was only slow.
    fn both(&self, bytes: &[u8], allowed: &Allowed) -> Result<(), String> {
        let look = |silence| {
            self.reads(bytes, allowed, silence)?;
            self.understands(bytes, allowed, silence)
        };
        look(SILENCE).or_else(|_| look(10 * SILENCE))
    }

    /// Every case, then that every entry for this peer has explained one.
    fn reads_the_corpus(&self) {
        let allowed = Allowed::read();
        let failures: Vec<String> = requests()
            .iter()
            .filter_map(|case| {
                let problem = self.both(&case.sent, &allowed).err()?;
                Some(format!("{}: {problem}", case.name))
            })
            .collect();
        let idle = allowed.idle(self.name);
        assert!(
            failures.is_empty(),
            "{} unexplained:\n{}",
            failures.len(),
            failures.join("\n")
        );
        assert!(idle.is_empty(), "nothing needs {idle:?} with {}", self.name);
    }

    fn reads_variations(&self, count: u32) {
        let allowed = Allowed::read();
        variations::run(count, |bytes| self.both(bytes, &allowed));
    }
}

///
#[test]
fn hyper_reads_every_request_of_the_corpus_as_we_do_or_the_file_says_why_not() {
    let hyper = Hyper::new();
    let read = |bytes: &[u8], _| hyper.read(bytes);
    let name = "hyper";
    Peer { name, read: &read }.reads_the_corpus();
}

///
#[test]
fn hyper_reads_variations_of_the_corpus_as_we_do_or_the_file_says_why_not() {
    let hyper = Hyper::new();
    let read = |bytes: &[u8], _| hyper.read(bytes);
    let name = "hyper";
    Peer { name, read: &read }.reads_variations(sized(3000, 300_000));
}

/// Nothing where it is not installed.
fn proxy_reads_alike(proxy: Option<Proxy>) {
    let Some(proxy) = proxy else { return };
    let read = |bytes: &[u8], silence| proxy.read(bytes, silence);
    let peer = Peer {
        name: proxy.name,
        read: &read,
    };
    peer.reads_the_corpus();
    peer.reads_variations(sized(400, 20_000));
}

///
#[test]
fn nginx_reads_the_corpus_and_its_variations_as_we_do_or_the_file_says_why_not() {
    proxy_reads_alike(Proxy::nginx());
}

///
#[test]
fn haproxy_reads_the_corpus_and_its_variations_as_we_do_or_the_file_says_why_not() {
    proxy_reads_alike(Proxy::haproxy());
}
