//! HTTP/1.1: one read, one write.

use std::io;
use std::mem::MaybeUninit;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::answer::Answer;
use super::body::Framing;
use super::serve::{Site, Verdict};
use super::stats::count;
use super::transport::Transport;
use super::{http2, websocket};
use crate::field::{has, number};

/// Most fields of a head.
const FIELDS_MAX: usize = 128;

/// Most bytes of a head.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// What a connection reads at once while its requests are small.
const READ_BYTES: usize = 16 * 1024;

/// What it reads at once within a large body.
const BODY_READ_BYTES: usize = 256 * 1024;

/// Most bytes of a body that is sent back.
pub(super) const ECHO_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What a head says that matters here.
#[derive(Debug)]
struct Head {
    length: usize,
    framing: Framing,
    close: bool,
    head_only: bool,
    expects: bool,
    websocket: Option<String>,
}

/// Serves one connection to its end.
pub(super) async fn serve<S: Transport>(mut stream: S, site: &Site) -> io::Result<()> {
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    loop {
        let head = match parse(&buffer) {
            Ok(Some(head)) => head,
            Ok(None) if buffer.len() < HEAD_BYTES_MAX => {
                buffer.reserve(READ_BYTES / 2);
                if stream.read_buf(&mut buffer).await? == 0 {
                    return Ok(());
                }
                if http2::begins(&buffer) {
                    return http2::serve(stream, buffer, site).await;
                }
                continue;
            }
            Ok(None) | Err(_) => {
                let answer = site.answers.malformed().bytes(false);
                return stream.write_all(answer).await;
            }
        };
        buffer.advance(head.length);
        if let Some(key) = &head.websocket {
            return websocket::serve(stream, buffer, key, site).await;
        }
        if !exchange(&mut stream, &mut buffer, &head, site).await? {
            return stream.shutdown().await;
        }
    }
}

/// Answers one request; whether another one may follow.
async fn exchange<S: Transport>(
    stream: &mut S,
    buffer: &mut BytesMut,
    head: &Head,
    site: &Site,
) -> io::Result<bool> {
    let _running = site.counts.begin();
    let close = head.close || site.close;
    let verdict = site.judge();
    let mut echo = Vec::new();
    if !head.framing.ended() {
        if head.expects && buffer.is_empty() {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        let kept = (site.echo && verdict == Verdict::Usual).then_some(&mut echo);
        if !read_body(stream, buffer, head.framing, kept, site).await? {
            return Ok(false);
        }
    }
    match verdict {
        Verdict::Usual => site.pause().await,
        Verdict::Refuse => {
            let answer = site.answers.refused(close).bytes(head.head_only);
            stream.write_all(answer).await?;
            count(&site.counts.refused);
            return Ok(!close);
        }
        Verdict::Reset => {
            count(&site.counts.resets);
            stream.reset_on_drop();
            return Err(io::ErrorKind::ConnectionReset.into());
        }
    }
    if site.echo {
        let answer = Answer::new("200 OK", &echo, None, close);
        stream.write_all(answer.bytes(head.head_only)).await?;
    } else {
        let answer = site.answers.usual(close).bytes(head.head_only);
        stream.write_all(answer).await?;
    }
    count(&site.counts.answers);
    Ok(!close)
}

/// Reads a body to its end and keeps it where asked to; whether the connection can go on.
async fn read_body<S: Transport>(
    stream: &mut S,
    buffer: &mut BytesMut,
    mut framing: Framing,
    mut kept: Option<&mut Vec<u8>>,
    site: &Site,
) -> io::Result<bool> {
    let mut large = false;
    loop {
        let mut received = 0;
        let taken = framing.take(buffer, |data| {
            received += data.len();
            if let Some(kept) = &mut kept {
                kept.extend_from_slice(data);
            }
        });
        let bytes_up = &site.counts.bytes_up;
        bytes_up.set(bytes_up.get() + received as u64);
        let Ok(taken) = taken else {
            let answer = site.answers.malformed().bytes(false);
            stream.write_all(answer).await?;
            return Ok(false);
        };
        buffer.advance(taken);
        if kept
            .as_ref()
            .is_some_and(|kept| kept.len() > ECHO_BYTES_MAX)
        {
            let answer = site.answers.too_large().bytes(false);
            stream.write_all(answer).await?;
            return Ok(false);
        }
        if framing.ended() {
            return Ok(true);
        }
        // A body that did not come with its head is large until shown otherwise.
        let room = if large { BODY_READ_BYTES } else { READ_BYTES };
        large = true;
        buffer.reserve(room);
        if stream.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// The head at the beginning of `bytes`, once it is whole.
fn parse(bytes: &[u8]) -> Result<Option<Head>, httparse::Error> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let mut fields = [MaybeUninit::uninit(); FIELDS_MAX];
    let mut request = httparse::Request::new(&mut []);
    let length = match request.parse_with_uninit_headers(bytes, &mut fields)? {
        httparse::Status::Complete(length) => length,
        httparse::Status::Partial => return Ok(None),
    };
    let mut head = Head {
        length,
        framing: Framing::EMPTY,
        close: request.version == Some(0),
        head_only: request.method == Some("HEAD"),
        expects: false,
        websocket: None,
    };
    let mut upgrades = false;
    for field in request.headers.iter() {
        let value = field.value;
        // Most fields are told apart by their length alone.
        match field.name.len() {
            14 if is(field.name, "content-length") => {
                let length = number(value).ok_or(httparse::Error::HeaderValue)?;
                head.framing = Framing::Length(length);
            }
            17 if is(field.name, "transfer-encoding") => head.framing = Framing::CHUNKED,
            10 if is(field.name, "connection") && has(value, "close") => head.close = true,
            10 if is(field.name, "connection") && has(value, "keep-alive") => head.close = false,
            6 if is(field.name, "expect") => head.expects = has(value, "100-continue"),
            7 if is(field.name, "upgrade") => upgrades = has(value, "websocket"),
            17 if is(field.name, "sec-websocket-key") => {
                head.websocket = Some(String::from_utf8_lossy(value).into_owned());
            }
            _ => {}
        }
    }
    if !upgrades {
        head.websocket = None;
    }
    Ok(Some(head))
}

fn is(name: &str, wanted: &str) -> bool {
    name.eq_ignore_ascii_case(wanted)
}
