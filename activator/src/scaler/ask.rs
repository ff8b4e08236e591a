//! Asks an endpoint over HTTP whether it is well, in the protocol that its requests come by.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;

use config::revision::Protocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The longest response head that is understood, and the most fields in it.
const HEAD_MAX: usize = 16 * 1024;
const FIELDS_MAX: usize = 128;
/// The same in HTTP/2, where a field counts 32 bytes more than its text.
const FIELDS_BYTES_MAX: u32 = 16 * 1024;
/// The longest body that is read whole, and what it may take with its coding.
pub const BODY_MAX: usize = 1024;
const CODED_MAX: usize = 4 * BODY_MAX;

/// The final status of `GET path`; the body is not read. The caller bounds the time.
///
/// # Errors
/// The connection failed or ended, or the answer is none.
///
/// # Cancel safety
/// The connection is closed.
pub async fn get(
    stream: TcpStream,
    address: SocketAddr,
    path: &str,
    agent: &str,
    protocol: Protocol,
) -> io::Result<u16> {
    match protocol {
        Protocol::Http1 => http1(stream, address, path, agent).await,
        Protocol::H2c => http2(stream, address, path, agent).await,
    }
}

async fn http1(
    mut stream: TcpStream,
    address: SocketAddr,
    path: &str,
    agent: &str,
) -> io::Result<u16> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: {agent}\r\n\
         Connection: close\r\n\r\n"
    );
    let (head, _body) = final_head(&mut stream, &request).await?;
    Ok(head.status)
}

/// An answer with its body.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

/// The answer to `GET path` with these fields, each a line that ends in CR LF, in HTTP/1.1. The
/// caller bounds the time.
///
/// # Errors
/// The connection failed or ended early, the answer is none, or its body is longer than
/// [`BODY_MAX`].
///
/// # Cancel safety
/// The connection is closed.
pub async fn whole(mut stream: TcpStream, path: &str, fields: &str) -> io::Result<Answer> {
    let request = format!("GET {path} HTTP/1.1\r\n{fields}Connection: close\r\n\r\n");
    let (head, mut body) = final_head(&mut stream, &request).await?;
    loop {
        if let Some(body) = head.framing.whole(&body)? {
            let status = head.status;
            return Ok(Answer { status, body });
        }
        let room = (CODED_MAX - body.len().min(CODED_MAX)) as u64;
        if (&mut stream).take(room).read_buf(&mut body).await? == 0 {
            return match head.framing {
                Framing::ToTheEnd if body.len() <= BODY_MAX => Ok(Answer {
                    status: head.status,
                    body,
                }),
                _ => Err(io::ErrorKind::UnexpectedEof.into()),
            };
        }
    }
}

/// Sends a request and reads up to the end of the final response's head; what came after it too.
async fn final_head(stream: &mut TcpStream, request: &str) -> io::Result<(Head, Vec<u8>)> {
    stream.write_all(request.as_bytes()).await?;
    let mut bytes = Vec::new();
    loop {
        let room = (HEAD_MAX - bytes.len()) as u64;
        if (&mut *stream).take(room).read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // Informational responses (RFC 9110 §15.2) come before the final one.
        while let Some((head, length)) = parse(&bytes)? {
            bytes.drain(..length);
            if head.status >= 200 {
                return Ok((head, bytes));
            }
        }
    }
}

#[derive(Debug)]
struct Head {
    status: u16,
    framing: Framing,
}

/// Where a body ends (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length(usize),
    Chunked,
    ToTheEnd,
}

impl Framing {
    fn of(fields: &[httparse::Header<'_>]) -> io::Result<Framing> {
        let mut framing = Framing::ToTheEnd;
        for field in fields {
            if field.name.eq_ignore_ascii_case("transfer-encoding") {
                return Ok(Framing::Chunked);
            }
            if field.name.eq_ignore_ascii_case("content-length") {
                let text = std::str::from_utf8(field.value).map_err(invalid)?;
                framing = Framing::Length(text.trim().parse().map_err(invalid)?);
            }
        }
        Ok(framing)
    }

    /// The whole body, once it is there.
    fn whole(self, bytes: &[u8]) -> io::Result<Option<Vec<u8>>> {
        match self {
            Framing::Length(length) if length > BODY_MAX => Err(invalid("too long")),
            Framing::Length(length) => Ok(bytes.get(..length).map(<[u8]>::to_vec)),
            Framing::Chunked => chunks(bytes),
            Framing::ToTheEnd if bytes.len() > BODY_MAX => Err(invalid("too long")),
            Framing::ToTheEnd => Ok(None),
        }
    }
}

/// What the chunks hold (RFC 9112 §7.1), once the last has come.
fn chunks(mut bytes: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let mut body = Vec::new();
    // Each turn takes a chunk of at least one byte.
    loop {
        let (line, length) = match httparse::parse_chunk_size(bytes) {
            Ok(httparse::Status::Complete(chunk)) => chunk,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_invalid) => return Err(invalid("no chunk size")),
        };
        let length = usize::try_from(length).map_err(invalid)?;
        if length > BODY_MAX - body.len() {
            return Err(invalid("too long"));
        }
        if length == 0 {
            return Ok(Some(body));
        }
        let Some(chunk) = bytes.get(line..line + length) else {
            return Ok(None);
        };
        body.extend_from_slice(chunk);
        // A line end follows the chunk.
        match bytes.get(line + length + 2..) {
            Some(rest) => bytes = rest,
            None => return Ok(None),
        }
    }
}

fn invalid(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// The first response head and its length, once it is complete.
fn parse(bytes: &[u8]) -> io::Result<Option<(Head, usize)>> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    match response.parse(bytes).map_err(invalid)? {
        httparse::Status::Complete(length) => {
            let framing = Framing::of(response.headers)?;
            Ok(response
                .code
                .map(|status| (Head { status, framing }, length)))
        }
        httparse::Status::Partial => Ok(None),
    }
}

async fn http2(stream: TcpStream, address: SocketAddr, path: &str, agent: &str) -> io::Result<u16> {
    let request = http::Request::get(format!("http://{address}{path}"))
        .header(http::header::USER_AGENT, agent)
        .body(())
        .map_err(io::Error::other)?;
    let mut builder = h2::client::Builder::new();
    builder
        .enable_push(false)
        .max_header_list_size(FIELDS_BYTES_MAX);
    let handshake = builder.handshake::<_, &[u8]>(stream).await;
    let (client, connection) = handshake.map_err(io::Error::other)?;
    let asking = async {
        let mut client = client.ready().await?;
        let (response, _no_body) = client.send_request(request, true)?;
        Ok::<_, h2::Error>(response.await?.status().as_u16())
    };
    let mut asking = pin!(asking);
    let asked = tokio::select! {
        biased;
        asked = &mut asking => asked,
        // What came before the end counts.
        _ended = connection => asking.await,
    };
    asked.map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    async fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    async fn asked(address: SocketAddr, protocol: Protocol) -> io::Result<u16> {
        let stream = TcpStream::connect(address).await.unwrap();
        get(stream, address, "/healthz?a", "tidegate-test", protocol).await
    }

    #[tokio::test]
    async fn an_endless_head_is_refused_and_not_kept() {
        let (listener, address) = listener().await;
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\n").await.unwrap();
            while stream.write_all(b"A: bbbbbbbbbbbbbbbb\r\n").await.is_ok() {}
        });
        asked(address, Protocol::Http1).await.unwrap_err();
        server.await.unwrap();
    }

    async fn whole_answer(said: &'static [u8]) -> io::Result<Answer> {
        let (listener, address) = listener().await;
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = [0; 64];
            let count = stream.read(&mut asked).await.unwrap();
            let expected = b"GET /a HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n";
            assert_eq!(&asked[..count], expected);
            for part in said.chunks(3) {
                stream.write_all(part).await.unwrap_or(());
                tokio::task::yield_now().await;
            }
        });
        let stream = TcpStream::connect(address).await.unwrap();
        let answer = whole(stream, "/a", "Host: b\r\n").await;
        server.await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_body_is_read_however_it_ends() {
        for said in [
            &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nqueue"[..],
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nqu\r\n3\r\neue\r\n0\r\n\r\n",
            b"HTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 200 OK\r\n\r\nqueue",
        ] {
            let answer = whole_answer(said).await.unwrap();
            assert_eq!((answer.status, &answer.body[..]), (200, &b"queue"[..]));
        }
        let answer = whole_answer(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n").await;
        assert_eq!(answer.unwrap().status, 503);
    }

    #[tokio::test]
    async fn a_body_that_is_cut_or_too_long_is_none() {
        for said in [
            &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nque"[..],
            b"HTTP/1.1 200 OK\r\nContent-Length: 1025\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nqu\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n401\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        ] {
            whole_answer(said).await.unwrap_err();
        }
    }

    #[tokio::test]
    async fn an_http2_endpoint_is_asked_in_http2() {
        let (listener, address) = listener().await;
        let server = tokio::spawn(async move {
            for status in [204, 503] {
                let (stream, _) = listener.accept().await.unwrap();
                let mut connection = h2::server::handshake(stream).await.unwrap();
                let (request, mut respond) = connection.accept().await.unwrap().unwrap();
                assert_eq!(request.method(), http::Method::GET);
                let uri = format!("http://{address}/healthz?a");
                assert_eq!(request.uri().to_string(), uri);
                assert_eq!(request.headers()["user-agent"], "tidegate-test");
                let response = http::Response::builder().status(status).body(()).unwrap();
                respond.send_response(response, true).unwrap();
                connection.graceful_shutdown();
                while connection.accept().await.is_some() {}
            }
        });
        assert_eq!(asked(address, Protocol::H2c).await.unwrap(), 204);
        assert_eq!(asked(address, Protocol::H2c).await.unwrap(), 503);
        server.await.unwrap();
    }

    #[tokio::test]
    async fn who_does_not_speak_http2_does_not_answer() {
        for said in [&b""[..], b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"] {
            let (listener, address) = listener().await;
            let server = tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.write_all(said).await.unwrap();
            });
            asked(address, Protocol::H2c).await.unwrap_err();
            server.await.unwrap();
        }
    }
}
