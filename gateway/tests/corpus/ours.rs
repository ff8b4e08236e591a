//! What our codec reads in the bytes of a connection.

use tidegate::http::h1::body::{Decoder, Step};
use tidegate::http::h1::{HeadLimits, Parsed, encode, request};
use tidegate::http::message::{RequestEdits, RequestHead};
use tidegate::refusal::Reason;

/// The default limits.
const LIMITS: HeadLimits = HeadLimits {
    bytes: 65_536,
    fields: 100,
    target: 8192,
};

const TRAILER_BYTES: usize = 16_384;

/// What a connection carries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    /// Whole requests.
    pub(crate) messages: Vec<Message>,
    /// Where each of them begins, and then what comes behind them.
    pub(crate) starts: Vec<usize>,
    pub(crate) end: End,
}

/// One request, whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) method: Vec<u8>,
    pub(crate) target: Vec<u8>,
    pub(crate) host: Vec<u8>,
    /// All that came, names in lower case.
    pub(crate) fields: Vec<(Vec<u8>, Vec<u8>)>,
    /// The head as an endpoint gets it, but for what the exchange adds.
    pub(crate) head: Vec<u8>,
    /// Without its framing.
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<u8>,
    /// The client has said that it is the last.
    pub(crate) closes: bool,
}

/// What comes behind the last whole request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum End {
    /// Nothing, or nothing that would be read.
    #[default]
    Nothing,
    Refused(Reason),
    RefusedInBody,
    Incomplete,
    IncompleteBody,
}

/// Reads requests until they end.
pub(crate) fn read(bytes: &[u8]) -> Reading {
    let mut reading = Reading::default();
    let mut rest = bytes;
    while !rest.is_empty() {
        reading.starts.push(bytes.len() - rest.len());
        let mut head = RequestHead::default();
        let length = match request::parse(rest, &LIMITS, &mut head) {
            Ok(Parsed::Head(length)) => length,
            Ok(Parsed::More) => {
                // Empty lines before a request are no beginning of one.
                let begun = rest.iter().any(|byte| !matches!(byte, b'\r' | b'\n'));
                reading.end = if begun { End::Incomplete } else { End::Nothing };
                return reading;
            }
            Err(reason) => {
                reading.end = End::Refused(reason);
                return reading;
            }
        };
        rest = &rest[length..];
        let mut message = message(&head);
        match body(&head, rest, &mut message) {
            Ok(used) => rest = &rest[used..],
            Err(end) => {
                reading.end = end;
                return reading;
            }
        }
        let closes = message.closes;
        reading.messages.push(message);
        if closes {
            return reading;
        }
    }
    reading
}

fn message(request: &RequestHead) -> Message {
    let mut head = Vec::new();
    encode::request(&mut head, request, &RequestEdits::default());
    let fields = request.head.fields().iter().map(|field| {
        let name = field.name.of(&request.head.bytes).to_ascii_lowercase();
        (name, request.head.value(field).to_vec())
    });
    Message {
        method: request.method().to_vec(),
        target: request.target().to_vec(),
        host: request.host().to_vec(),
        fields: fields.collect(),
        head,
        closes: !request.keep_alive,
        ..Message::default()
    }
}

/// Takes the body off the front of `bytes`; how many of them it was.
fn body(request: &RequestHead, bytes: &[u8], message: &mut Message) -> Result<usize, End> {
    let mut decoder = Decoder::new(request.length, TRAILER_BYTES);
    let mut at = 0;
    loop {
        match decoder.step(&bytes[at..]) {
            Ok(Step::Data(count)) => {
                message.body.extend_from_slice(&bytes[at..at + count]);
                decoder.took(count);
                at += count;
            }
            Ok(Step::Skip(count)) => at += count,
            Ok(Step::End(count, trailers)) => {
                message.trailers = trailers.map(|passed| passed.lines).unwrap_or_default();
                return Ok(at + count);
            }
            Ok(Step::More) => return Err(End::IncompleteBody),
            Err(_) => return Err(End::RefusedInBody),
        }
    }
}
