//! The PROXY protocol, versions 1 and 2: what a proxy of the fourth layer says of the client before
//! anything else is sent (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// Longest line of version 1, its end included (§2.1).
const V1_BYTES_MAX: usize = 107;
const V1_BEGIN: &[u8] = b"PROXY ";

const V2_BEGIN: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family and transport, length of the rest (§2.2).
const V2_FIXED: usize = 16;
/// Most bytes of extensions (TLVs) in version 2.
const V2_EXTENSIONS_MAX: usize = 4096;
/// Two socket paths: the longest addresses of version 2.
const V2_UNIX: usize = 216;
const V2_BYTES_MAX: usize = V2_FIXED + V2_UNIX + V2_EXTENSIONS_MAX;

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The beginning of a header.
    More,
    /// A whole header, and perhaps bytes behind it.
    Header {
        length: usize,
        /// `None`: the proxy speaks for itself, or knows no address that could be ours to use.
        source: Option<SocketAddr>,
    },
    Malformed,
}

/// Looks for a header at the beginning of `bytes`. Decides as early as it can.
#[must_use]
pub fn parse(bytes: &[u8]) -> Parsed {
    let begins_with = |begin: &[u8]| {
        let common = bytes.len().min(begin.len());
        bytes[..common] == begin[..common]
    };
    if begins_with(&V2_BEGIN) {
        v2(bytes).unwrap_or(Parsed::More)
    } else if begins_with(V1_BEGIN) {
        v1(bytes)
    } else {
        Parsed::Malformed
    }
}

fn v1(bytes: &[u8]) -> Parsed {
    let seen = &bytes[..bytes.len().min(V1_BYTES_MAX)];
    let Some(end) = seen.iter().position(|byte| *byte == b'\n') else {
        return match seen.len() {
            V1_BYTES_MAX => Parsed::Malformed,
            _ => Parsed::More,
        };
    };
    let line = seen[..end].strip_suffix(b"\r");
    let line = line.and_then(|line| std::str::from_utf8(line).ok());
    let words = line.and_then(|line| line.strip_prefix("PROXY "));
    match words.and_then(v1_source) {
        Some(source) => Parsed::Header {
            length: end + 1,
            source,
        },
        None => Parsed::Malformed,
    }
}

/// The source of `TCP4 SOURCE DESTINATION PORT PORT`; `Some(None)` for what is `UNKNOWN`.
fn v1_source(words: &str) -> Option<Option<SocketAddr>> {
    if words == "UNKNOWN" || words.starts_with("UNKNOWN ") {
        return Some(None);
    }
    let mut words = words.split(' ');
    let family = words.next()?;
    let (source, destination) = (words.next()?, words.next()?);
    let address = |text: &str| match family {
        "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => None,
    };
    let (source, _) = (address(source)?, address(destination)?);
    let (port, _) = (v1_port(words.next()?)?, v1_port(words.next()?)?);
    let whole = words.next().is_none();
    whole.then_some(Some(SocketAddr::new(source, port)))
}

/// Digits without a sign and without zeros in front.
fn v1_port(text: &str) -> Option<u16> {
    let plain = text == "0" || text.starts_with(|first: char| ('1'..='9').contains(&first));
    text.parse().ok().filter(|_| plain)
}

/// `None` while it is not whole.
fn v2(bytes: &[u8]) -> Option<Parsed> {
    let command = *bytes.get(V2_BEGIN.len())?;
    let is_local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Some(Parsed::Malformed),
    };
    let family = *bytes.get(V2_BEGIN.len() + 1)?;
    // What a proxy says beside `LOCAL`, or of a family that it does not name, means nothing, its length
    // apart (§2.2).
    let is_empty = is_local || family <= 0x02;
    let addresses = match (family >> 4, family & 0xf) {
        _ if is_empty => 0,
        (_, 3..) => return Some(Parsed::Malformed),
        (1, _) => 12,
        (2, _) => 36,
        (3, _) => V2_UNIX,
        _ => return Some(Parsed::Malformed),
    };
    let rest = u16::from_be_bytes(bytes.get(14..V2_FIXED)?.try_into().ok()?);
    let rest = usize::from(rest);
    let extensions = match is_empty {
        true => rest.saturating_sub(V2_UNIX),
        false => match rest.checked_sub(addresses) {
            Some(extensions) => extensions,
            None => return Some(Parsed::Malformed),
        },
    };
    if extensions > V2_EXTENSIONS_MAX {
        return Some(Parsed::Malformed);
    }
    let length = V2_FIXED + rest;
    let said = bytes.get(V2_FIXED..length)?;
    if is_empty {
        let source = None;
        return Some(Parsed::Header { length, source });
    }
    let (addresses, extensions) = said.split_at_checked(addresses)?;
    if !are_extensions(extensions) {
        return Some(Parsed::Malformed);
    }
    let source = v2_source(family, addresses);
    Some(Parsed::Header { length, source })
}

/// The source of a TCP connection; others have no meaning here.
fn v2_source(family: u8, addresses: &[u8]) -> Option<SocketAddr> {
    let port = |at: usize| {
        let bytes = addresses.get(at..at + 2)?;
        Some(u16::from_be_bytes(bytes.try_into().ok()?))
    };
    match family {
        0x11 => {
            let source: [u8; 4] = addresses.get(..4)?.try_into().ok()?;
            Some(SocketAddr::new(IpAddr::from(source), port(8)?))
        }
        0x21 => {
            let source: [u8; 16] = addresses.get(..16)?.try_into().ok()?;
            Some(SocketAddr::new(IpAddr::from(source), port(32)?))
        }
        _ => None,
    }
}

/// Whether these are whole triples of type, length and value.
fn are_extensions(mut bytes: &[u8]) -> bool {
    while let [_type, high, low, rest @ ..] = bytes {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let Some(next) = rest.get(length..) else {
            return false;
        };
        bytes = next;
    }
    bytes.is_empty()
}

/// Takes the header off a connection and nothing of what follows it; the source it names.
///
/// # Errors
/// What came is no header, or the connection failed or ended.
///
/// # Cancel safety
/// Part of the header may be lost: the connection is of no use any more.
pub async fn take(stream: &mut TcpStream) -> io::Result<Option<SocketAddr>> {
    let mut header = Vec::with_capacity(V1_BYTES_MAX);
    let mut window = vec![0; V2_BYTES_MAX];
    loop {
        // Peeked at first: a client's bytes may stand behind the header. What is only the beginning
        // of a header is taken at once, so that the next peek waits for more.
        let room = V2_BYTES_MAX - header.len();
        let seen = stream.peek(&mut window[..room]).await?;
        if seen == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let before = header.len();
        header.extend_from_slice(&window[..seen]);
        let (taken, source) = match parse(&header) {
            Parsed::More => (seen, None),
            Parsed::Header { length, source } => (length - before, Some(source)),
            Parsed::Malformed => return Err(io::ErrorKind::InvalidData.into()),
        };
        stream.read_exact(&mut window[..taken]).await?;
        if let Some(source) = source {
            return Ok(source);
        }
    }
}

#[cfg(test)]
mod tests;
