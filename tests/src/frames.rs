//! HTTP/2 frames by hand (RFC 9113 §4), for what no proper client or server would send, and for
//! what libraries do not tell.
//!
//! Heads are sent as literals without indexing (RFC 7541 §6.2.2). Of the heads that arrive only
//! the status is read.

use std::net::SocketAddr;

use crate::raw::Raw;

/// What every client begins with.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

/// On DATA and HEADERS.
pub const END_STREAM: u8 = 1;
/// On SETTINGS and PING.
pub const ACK: u8 = 1;
/// On HEADERS and CONTINUATION.
pub const END_HEADERS: u8 = 4;

pub const MAX_FRAME_SIZE: u16 = 5;
pub const MAX_HEADER_LIST_SIZE: u16 = 6;
pub const MAX_CONCURRENT_STREAMS: u16 = 3;
pub const ENABLE_CONNECT_PROTOCOL: u16 = 8;
pub const HEADER_TABLE_SIZE: u16 = 1;
pub const INITIAL_WINDOW_SIZE: u16 = 4;

/// Codes of RST_STREAM and GOAWAY (RFC 9113 §7).
pub const NO_ERROR: u32 = 0;
pub const PROTOCOL_ERROR: u32 = 1;
pub const FLOW_CONTROL_ERROR: u32 = 3;
pub const STREAM_CLOSED: u32 = 5;
pub const FRAME_SIZE_ERROR: u32 = 6;
pub const REFUSED_STREAM: u32 = 7;
pub const CANCEL: u32 = 8;
pub const COMPRESSION_ERROR: u32 = 9;
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// Larger parts of a head go into CONTINUATION.
const FRAME: usize = 16_384;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    #[must_use]
    pub fn ends(&self) -> bool {
        matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0
    }

    /// The number at a place of the payload: the code of RST_STREAM is at 0, of GOAWAY at 4.
    #[must_use]
    pub fn number(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

/// How a request ended that was sent on a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered with that status, to the end.
    Status(u16),
    /// RST_STREAM with that code.
    Reset(u32),
    /// GOAWAY with that code, and the stream will never be answered.
    GoAway(u32),
    /// The connection was closed without a word.
    Closed,
}

/// One connection.
#[derive(Debug)]
pub struct Frames {
    raw: Raw,
    /// What the peer said in SETTINGS, in the order it did.
    pub settings: Vec<(u16, u32)>,
}

impl Frames {
    /// A client that has sent its preface and SETTINGS, and has windows for a mebibyte.
    pub async fn connect(address: SocketAddr) -> Frames {
        let mut raw = Raw::connect(address).await;
        raw.send(PREFACE).await;
        Frames::begun(raw).await
    }

    /// The server's side of a connection, its client's preface read and answered.
    ///
    /// # Panics
    /// On anything but a preface.
    pub async fn accept(mut raw: Raw) -> Frames {
        assert_eq!(raw.exactly(PREFACE.len()).await, PREFACE);
        Frames::begun(raw).await
    }

    /// Either side, once the preface has passed.
    pub async fn begun(raw: Raw) -> Frames {
        let settings = Vec::new();
        let mut frames = Frames { raw, settings };
        // Without a table the peer's heads need no memory to be read.
        frames
            .setting(&[(HEADER_TABLE_SIZE, 0), (INITIAL_WINDOW_SIZE, 1 << 20)])
            .await;
        frames
            .send(WINDOW_UPDATE, 0, 0, &(1_u32 << 20).to_be_bytes())
            .await;
        frames
    }

    pub async fn setting(&mut self, settings: &[(u16, u32)]) {
        let payload: Vec<u8> = settings
            .iter()
            .flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        self.send(SETTINGS, 0, 0, &payload).await;
    }

    /// # Panics
    /// When the peer has gone, as everything here that sends.
    pub async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.raw.send(encode(kind, flags, stream, payload)).await;
    }

    /// A head of these fields, pseudo fields included.
    pub async fn head(&mut self, stream: u32, fields: &[(&str, &str)], end: bool) {
        let block = block(fields);
        let mut parts: Vec<_> = block.chunks(FRAME).collect();
        let last = parts.pop().unwrap_or_default();
        let end = if end { END_STREAM } else { 0 };
        let (mut kind, mut flags) = (HEADERS, end);
        for part in parts {
            self.send(kind, flags, stream, part).await;
            (kind, flags) = (CONTINUATION, 0);
        }
        self.send(kind, flags | END_HEADERS, stream, last).await;
    }

    /// A whole answer of these fields, if the peer still wants it.
    pub async fn respond(&mut self, stream: u32, fields: &[(&str, &str)]) {
        let flags = END_HEADERS | END_STREAM;
        self.flood(&encode(HEADERS, flags, stream, &block(fields)))
            .await;
    }

    /// The next head's stream; `None` when the peer has closed.
    pub async fn asked(&mut self) -> Option<u32> {
        loop {
            let frame = self.next().await?;
            if frame.kind == HEADERS {
                return Some(frame.stream);
            }
        }
    }

    /// A GET without further fields.
    pub async fn get(&mut self, stream: u32, host: &str, path: &str) {
        self.head(stream, &get(host, path), true).await;
    }

    pub async fn data(&mut self, stream: u32, data: &[u8], end: bool) {
        self.send(DATA, u8::from(end), stream, data).await;
    }

    pub async fn reset(&mut self, stream: u32, code: u32) {
        self.send(RST_STREAM, 0, stream, &code.to_be_bytes()).await;
    }

    /// The next frame of a stream, or GOAWAY; `None` when the peer has closed. Answers SETTINGS
    /// and PING, and gives back the window of DATA.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            let frame = self.any().await?;
            match (frame.kind, frame.flags & ACK) {
                (SETTINGS, 0) => {
                    let pairs = frame.payload.chunks_exact(6).map(setting);
                    self.settings.extend(pairs);
                    drop(self.raw.try_send(encode(SETTINGS, ACK, 0, &[])).await);
                }
                (PING, 0) => {
                    drop(
                        self.raw
                            .try_send(encode(PING, ACK, 0, &frame.payload))
                            .await,
                    );
                }
                (DATA, _) if !frame.payload.is_empty() => {
                    self.give_back(&frame).await;
                    return Some(frame);
                }
                (SETTINGS | PING | WINDOW_UPDATE, _) => {}
                _ => return Some(frame),
            }
        }
    }

    async fn give_back(&mut self, data: &Frame) {
        let length = u32::try_from(data.payload.len()).unwrap().to_be_bytes();
        for stream in [0, data.stream] {
            // The peer may have closed by now.
            drop(
                self.raw
                    .try_send(encode(WINDOW_UPDATE, 0, stream, &length))
                    .await,
            );
        }
    }

    /// The next frame, whatever it is.
    pub async fn any(&mut self) -> Option<Frame> {
        let head = self.raw.exactly(9).await;
        let [a, b, c, kind, flags, stream @ ..] = <[u8; 9]>::try_from(head).ok()?;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        let payload = self.raw.exactly(length).await;
        (payload.len() == length).then(|| Frame {
            kind,
            flags,
            stream: u32::from_be_bytes(stream),
            payload,
        })
    }

    /// Waits until the peer's first SETTINGS are read.
    pub async fn settled(&mut self) {
        while self.settings.is_empty() {
            let frame = self.any().await.expect("SETTINGS come first");
            assert_eq!((frame.kind, frame.flags), (SETTINGS, 0), "{frame:?}");
            self.settings
                .extend(frame.payload.chunks_exact(6).map(setting));
            self.send(SETTINGS, ACK, 0, &[]).await;
        }
    }

    /// The last value the peer gave a setting.
    #[must_use]
    pub fn set(&self, name: u16) -> Option<u32> {
        let mut settings = self.settings.iter().rev();
        settings
            .find(|(found, _)| *found == name)
            .map(|(_, value)| *value)
    }

    /// How the request on that stream ends. What comes on other streams meanwhile is dropped.
    pub async fn outcome(&mut self, stream: u32) -> Outcome {
        let mut status = 0;
        let mut gone = None;
        while let Some(frame) = self.next().await {
            if frame.kind == GOAWAY && frame.number(0) < stream {
                gone = Some(Outcome::GoAway(frame.number(4)));
            }
            if frame.stream != stream || frame.kind == GOAWAY {
                continue;
            }
            if frame.kind == RST_STREAM {
                return Outcome::Reset(frame.number(0));
            }
            if frame.kind == HEADERS && (status == 0 || status < 200) {
                status = self::status(&frame.payload);
            }
            if frame.ends() {
                return Outcome::Status(status);
            }
        }
        gone.unwrap_or(Outcome::Closed)
    }

    /// Waits for GOAWAY: the last stream it allows and its code.
    ///
    /// # Panics
    /// When the connection closes without one.
    pub async fn goaway(&mut self) -> (u32, u32) {
        loop {
            let frame = self.next().await.expect("GOAWAY comes before the end");
            if frame.kind == GOAWAY {
                return (frame.number(0), frame.number(4));
            }
        }
    }

    /// Waits until the peer closes.
    pub async fn end(mut self) {
        while self.next().await.is_some() {}
    }

    /// Sends many frames at once, as far as the peer takes them: it may close meanwhile.
    pub async fn flood(&mut self, frames: &[u8]) {
        drop(self.raw.try_send(frames).await);
    }
}

/// The fields of a GET.
#[must_use]
pub fn get<'a>(host: &'a str, path: &'a str) -> [(&'a str, &'a str); 4] {
    [
        (":method", "GET"),
        (":scheme", "http"),
        (":path", path),
        (":authority", host),
    ]
}

/// One frame's bytes.
///
/// # Panics
/// When it is longer than a frame can say.
#[must_use]
pub fn encode(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A head's block: every field a literal.
#[must_use]
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            length(&mut block, text.len());
            block.extend(text.as_bytes());
        }
    }
    block
}

/// A number with a prefix of seven bits (RFC 7541 §5.1).
fn length(block: &mut Vec<u8>, length: usize) {
    let Some(mut rest) = length.checked_sub(127) else {
        return block.push(u8::try_from(length).unwrap());
    };
    block.push(127);
    while rest >= 128 {
        block.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    block.push(u8::try_from(rest).unwrap());
}

fn setting(pair: &[u8]) -> (u16, u32) {
    let (name, value) = pair.split_at(2);
    (
        u16::from_be_bytes(name.try_into().unwrap()),
        u32::from_be_bytes(value.try_into().unwrap()),
    )
}

/// The status of a block without a dynamic table, where it is the first field.
///
/// # Panics
/// On a block that begins with anything else.
#[must_use]
pub fn status(block: &[u8]) -> u16 {
    // Changes of the table's size may come before.
    let start = block.iter().position(|byte| byte >> 5 != 1);
    let block = &block[start.unwrap_or_default()..];
    if let 0x88..=0x8e = block[0] {
        return [200, 204, 206, 304, 400, 404, 500][usize::from(block[0] - 0x88)];
    }
    let name = block[0] & if block[0] >> 6 == 1 { 0x3f } else { 0x0f };
    assert!((8..=14).contains(&name), "no status first: {block:02x?}");
    let (huffman, length) = (block[1] >> 7 == 1, usize::from(block[1] & 0x7f));
    let value = &block[2..2 + length];
    if !huffman {
        return std::str::from_utf8(value).unwrap().parse().unwrap();
    }
    digits(value)
}

/// Three digits in Huffman's code (RFC 7541, appendix B): 0, 1, 2 have five bits, the others six.
fn digits(bytes: &[u8]) -> u16 {
    let bits = bytes
        .iter()
        .fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
    let mut left = bytes.len() * 8;
    let mut number = 0;
    for _ in 0..3 {
        let five = bits >> (left - 5) & 0x1f;
        let digit = if five <= 2 {
            left -= 5;
            five
        } else {
            left -= 6;
            (bits >> left & 0x3f) - 0x19 + 3
        };
        number = number * 10 + u16::try_from(digit).unwrap();
    }
    number
}
