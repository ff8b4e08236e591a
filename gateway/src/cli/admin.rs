//! A client of the admin address.

use std::str::FromStr;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::header::{AUTHORIZATION, HOST};
use hyper::http::request::Builder;
use hyper::http::uri::Authority;
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// From connecting to the last byte.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of the largest answer: 100 000 revisions with an endpoint each.
const ANSWER_MAX: usize = 64 << 20;

/// Where an admin address is: `http://127.0.0.1:9901`, or without the scheme.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Admin {
    authority: Authority,
    /// What stands before the path when the address is behind a proxy; no slash at its end.
    base: String,
}

impl FromStr for Admin {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Admin, &'static str> {
        const USAGE: &str = "write http://HOST:PORT or IP:PORT, like 127.0.0.1:9901";
        let whole = if text.contains("://") {
            text.to_owned()
        } else {
            format!("http://{text}")
        };
        let uri: Uri = whole.parse().map_err(|_malformed| USAGE)?;
        if uri.scheme_str() != Some("http") || uri.query().is_some() {
            return Err(USAGE);
        }
        Ok(Admin {
            authority: uri.authority().ok_or(USAGE)?.clone(),
            base: uri.path().trim_end_matches('/').to_owned(),
        })
    }
}

impl Admin {
    /// Gets `path_and_query`, which begins with a slash, on a connection of its own.
    ///
    /// Cancel safe: dropped, it closes the connection.
    pub(super) async fn get(&self, path_and_query: &str) -> anyhow::Result<(StatusCode, Bytes)> {
        let request = self.request(Method::GET, path_and_query);
        self.ask(request, TIMEOUT).await
    }

    /// Posts nothing there, with a token, on a connection of its own. `within`: from connecting to the
    /// last byte.
    ///
    /// Cancel safe: dropped, it closes the connection; what was asked for may be under way.
    pub(super) async fn post(
        &self,
        path_and_query: &str,
        token: &str,
        within: Duration,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let request = self.request(Method::POST, path_and_query);
        let request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        self.ask(request, within).await
    }

    fn request(&self, method: Method, path_and_query: &str) -> Builder {
        let uri = format!("{}{path_and_query}", self.base);
        let request = Request::builder().method(method).uri(uri);
        request.header(HOST, self.authority.as_str())
    }

    async fn ask(&self, request: Builder, within: Duration) -> anyhow::Result<(StatusCode, Bytes)> {
        let asked = tokio::time::timeout(within, self.exchange(request)).await;
        let answer = asked.unwrap_or_else(|_| anyhow::bail!("no answer within {within:?}"));
        answer.with_context(|| format!("cannot ask http://{}{}", self.authority, self.base))
    }

    async fn exchange(&self, request: Builder) -> anyhow::Result<(StatusCode, Bytes)> {
        let port = self.authority.port_u16().unwrap_or(80);
        let stream = TcpStream::connect(format!("{}:{port}", self.authority.host())).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let request = request.body(Empty::<Bytes>::new())?;
        let exchange = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_MAX);
            let body = body.collect().await.map_err(anyhow::Error::from_boxed)?;
            Ok((status, body.to_bytes()))
        };
        tokio::pin!(exchange);
        // The connection moves the exchange along; whichever ends first, the answer decides.
        tokio::select! {
            answer = &mut exchange => answer,
            _ = connection => exchange.await,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn addresses_may_lack_scheme_and_path() {
        for (text, authority, base) in [
            ("http://127.0.0.1:9901", "127.0.0.1:9901", ""),
            ("127.0.0.1:9901", "127.0.0.1:9901", ""),
            ("http://[::1]:9901/", "[::1]:9901", ""),
            ("http://ops.internal/gate/", "ops.internal", "/gate"),
        ] {
            let expected = Admin {
                authority: authority.parse().unwrap(),
                base: base.to_owned(),
            };
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_admin_address_is_refused() {
        for text in ["", "https://127.0.0.1:9901", "http://", "/x", "http://a?b"] {
            assert!(text.parse::<Admin>().is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn an_answer_is_read_to_its_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                assert_ne!(stream.read_buf(&mut head).await.unwrap(), 0);
            }
            let answer = "HTTP/1.1 404 Not Found\r\n\r\nnot found";
            stream.write_all(answer.as_bytes()).await.unwrap();
            drop(stream);
            String::from_utf8(head).unwrap()
        };
        let admin: Admin = format!("{address}/gate").parse().unwrap();
        let (head, got) = tokio::join!(server, admin.get("/api/x?y=z"));
        assert!(
            head.starts_with("GET /gate/api/x?y=z HTTP/1.1\r\n"),
            "{head}"
        );
        assert!(head.contains(&format!("host: {address}\r\n")), "{head}");
        let (status, body) = got.unwrap();
        assert_eq!(
            (status, &body[..]),
            (StatusCode::NOT_FOUND, &b"not found"[..])
        );
    }

    #[tokio::test]
    async fn an_address_where_nobody_listens_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let admin: Admin = address.parse().unwrap();
        let error = format!("{:#}", admin.get("/livez").await.unwrap_err());
        assert!(error.contains(&address), "{error}");
    }
}
