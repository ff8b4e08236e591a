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
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    loop {
        let room = (HEAD_MAX - head.len()) as u64;
        if (&mut stream).take(room).read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // Informational responses (RFC 9110 §15.2) come before the final one.
        while let Some((status, length)) = parse(&head)? {
            if status >= 200 {
                return Ok(status);
            }
            head.drain(..length);
        }
    }
}

/// Status and length of the first response head, once it is complete.
fn parse(bytes: &[u8]) -> io::Result<Option<(u16, usize)>> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => Ok(response.code.map(|status| (status, length))),
        Ok(httparse::Status::Partial) => Ok(None),
        Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
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
