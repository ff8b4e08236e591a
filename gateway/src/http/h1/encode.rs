//! Heads → bytes. What is passed on unchanged is copied in runs of whole lines, so field order and
//! case survive.

use crate::http::field::{Field, Head, Name};
use crate::http::message::{Length, RequestEdits, RequestHead, ResponseHead};

/// How a response ends for this client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseFraming {
    pub length: Length,
    /// The connection is not used again.
    pub close: bool,
    /// The client is HTTP/1.0 and asked to keep the connection.
    pub announce_keep_alive: bool,
}

/// Appends the head as an HTTP/1.1 request.
pub fn request(out: &mut Vec<u8>, request: &RequestHead, edits: &RequestEdits<'_>) {
    out.extend_from_slice(request.method());
    out.push(b' ');
    out.extend_from_slice(edits.target.unwrap_or_else(|| request.target()));
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let host = edits.host.unwrap_or_else(|| request.host());
    let mut hosts = request.head.fields().iter();
    match hosts.find(|field| field.id == Name::Host) {
        Some(field) if edits.host.is_none() && field.value == request.host => {
            lines(out, &request.head, None);
        }
        // Rewritten, or an absolute form whose authority is spelt otherwise (RFC 9112 §3.2.2).
        Some(_) => lines(out, &request.head, Some(host)),
        None => {
            host_line(out, host);
            lines(out, &request.head, None);
        }
    }
    out.extend_from_slice(edits.lines);
    match (request.wants_websocket, request.takes_trailers) {
        (true, _) => out.extend_from_slice(b"connection: Upgrade\r\nupgrade: websocket\r\n"),
        (false, true) => out.extend_from_slice(b"connection: TE\r\nte: trailers\r\n"),
        (false, false) => {}
    }
    framing_line(out, request.length);
    out.extend_from_slice(b"\r\n");
}

/// What the fields do not say of the length: chunks are of this connection, and HTTP/2 knows an
/// empty body by its end (then `Exactly(0)`; where a field says 0, the length is `None`).
fn framing_line(out: &mut Vec<u8>, length: Length) {
    match length {
        Length::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        Length::Exactly(0) => out.extend_from_slice(b"content-length: 0\r\n"),
        Length::None | Length::Exactly(_) | Length::UntilClose => {}
    }
}

fn host_line(out: &mut Vec<u8>, host: &[u8]) {
    out.extend_from_slice(b"host: ");
    out.extend_from_slice(host);
    out.extend_from_slice(b"\r\n");
}

/// Appends the lines of all fields that were not dropped, one copy per run of them.
fn lines(out: &mut Vec<u8>, head: &Head, host: Option<&[u8]>) {
    let replaced = |field: &Field| host.is_some() && field.id == Name::Host;
    let mut run: Option<(usize, usize)> = None;
    for field in head.fields() {
        let (start, end) = (field.line.start as usize, field.line.end as usize);
        if !field.dropped && !replaced(field) {
            run = Some((run.map_or(start, |(from, _)| from), end));
            continue;
        }
        if let Some((from, to)) = run.take() {
            out.extend_from_slice(&head.bytes[from..to]);
        }
        if let Some(host) = host.filter(|_| field.id == Name::Host) {
            host_line(out, host);
        }
    }
    if let Some((from, to)) = run {
        out.extend_from_slice(&head.bytes[from..to]);
    }
}

/// Appends the head as an HTTP/1.1 response. `added` are whole lines put behind the fields.
pub fn response(
    out: &mut Vec<u8>,
    response: &ResponseHead,
    framing: ResponseFraming,
    added: &[u8],
) {
    status_line(
        out,
        response.status,
        response.phrase.of(&response.head.bytes),
    );
    lines(out, &response.head, None);
    out.extend_from_slice(added);
    framing_line(out, framing.length);
    connection_line(out, framing);
    out.extend_from_slice(b"\r\n");
}

/// Appends an interim response (RFC 9110 §15.2); 101 carries the one upgrade there is.
pub fn interim(out: &mut Vec<u8>, response: &ResponseHead, added: &[u8]) {
    status_line(
        out,
        response.status,
        response.phrase.of(&response.head.bytes),
    );
    lines(out, &response.head, None);
    out.extend_from_slice(added);
    if response.status == 101 {
        out.extend_from_slice(b"connection: Upgrade\r\nupgrade: websocket\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends what `framing` says about the connection.
pub fn connection_line(out: &mut Vec<u8>, framing: ResponseFraming) {
    if framing.close {
        out.extend_from_slice(b"connection: close\r\n");
    } else if framing.announce_keep_alive {
        out.extend_from_slice(b"connection: keep-alive\r\n");
    }
}

/// Appends a status line; the phrase may be empty.
pub fn status_line(out: &mut Vec<u8>, status: u16, phrase: &[u8]) {
    out.extend_from_slice(b"HTTP/1.1 ");
    decimal(out, u64::from(status));
    out.push(b' ');
    out.extend_from_slice(phrase);
    out.extend_from_slice(b"\r\n");
}

/// Appends a number in decimal.
pub fn decimal(out: &mut Vec<u8>, mut number: u64) {
    if number < 1000 {
        // Nearly every number there is in a head.
        let digit = |unit: u64| b'0' + (number / unit % 10) as u8;
        if number >= 100 {
            out.push(digit(100));
        }
        if number >= 10 {
            out.push(digit(10));
        }
        out.push(digit(1));
        return;
    }
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends the line that opens a chunk of `size` bytes.
pub fn chunk_line(out: &mut Vec<u8>, size: usize) {
    let mut digits = [0u8; 16];
    let mut at = digits.len();
    let mut rest = size;
    loop {
        at -= 1;
        digits[at] = b"0123456789abcdef"[rest & 15];
        rest >>= 4;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b"\r\n");
}
