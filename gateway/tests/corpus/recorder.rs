//! An endpoint behind other proxies: notes what they send it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::differences::Message;

/// What an answer of the endpoint says, and no proxy's own.
pub(crate) const MARK: &str = "x-recorded: yes";

type Shared = Arc<Mutex<Vec<Message>>>;

#[derive(Clone)]
pub(crate) struct Recorder {
    pub(crate) address: SocketAddr,
    seen: Shared,
}

impl Recorder {
    /// Listens until the process ends.
    pub(crate) fn start() -> Recorder {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Shared::default();
        let record = seen.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let record = record.clone();
                thread::spawn(move || serve(stream, &record));
            }
        });
        Recorder { address, seen }
    }

    /// Whole requests since the last call.
    pub(crate) fn take(&self) -> Vec<Message> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

fn serve(stream: TcpStream, record: &Shared) {
    let Ok(mut out) = stream.try_clone() else {
        return;
    };
    let mut reader = BufReader::new(stream);
    while let Some(message) = whole(&mut reader) {
        let to_head = message.method == b"HEAD";
        record.lock().unwrap().push(message);
        let body = if to_head { "" } else { "ok" };
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n{MARK}\r\n\r\n{body}");
        if out.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// A line without its CRLF; `None` at the end, or where the CRLF is missing.
fn line(reader: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line).ok()?;
    line.ends_with(b"\r\n")
        .then(|| line[..line.len() - 2].to_vec())
}

fn bytes(reader: &mut impl Read, count: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    // What is announced may never come.
    reader.take(count as u64).read_to_end(&mut bytes).ok()?;
    (bytes.len() == count).then_some(bytes)
}

fn whole(reader: &mut impl BufRead) -> Option<Message> {
    let first = line(reader)?;
    let mut words = first.splitn(2, |byte| *byte == b' ');
    let method = words.next()?.to_vec();
    let rest = words.next()?;
    let end = rest.iter().rposition(|byte| *byte == b' ')?;
    let mut message = Message {
        method,
        target: rest[..end].to_vec(),
        ..Message::default()
    };
    let (mut length, mut chunked) = (0, false);
    loop {
        let line = line(reader)?;
        if line.is_empty() {
            break;
        }
        let colon = line.iter().position(|byte| *byte == b':')?;
        let value = line[colon + 1..].trim_ascii();
        match &line[..colon].to_ascii_lowercase()[..] {
            b"host" => message.host = Some(value.to_vec()),
            b"content-length" => length = std::str::from_utf8(value).ok()?.parse().ok()?,
            b"transfer-encoding" => chunked = true,
            _ => {}
        }
    }
    if !chunked {
        message.body = bytes(reader, length)?;
        return Some(message);
    }
    loop {
        let size = line(reader)?;
        let size = std::str::from_utf8(&size).ok()?.split(';').next()?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        if size == 0 {
            break;
        }
        message.body.extend(bytes(reader, size)?);
        line(reader)?;
    }
    while !line(reader)?.is_empty() {}
    Some(message)
}
