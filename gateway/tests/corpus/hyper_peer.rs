//! What hyper's HTTP/1.1 server reads in the bytes of a connection.

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{HOST, HeaderMap};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};

use crate::differences::{End, Message, Reading};

/// Bytes a pipe holds: more than any case sends or is answered with.
const PLENTY: usize = 1 << 20;

pub(crate) struct Hyper {
    runtime: Runtime,
}

impl Hyper {
    pub(crate) fn new() -> Hyper {
        Hyper {
            runtime: Builder::new_current_thread().build().unwrap(),
        }
    }

    pub(crate) fn read(&self, bytes: &[u8]) -> Reading {
        self.runtime.block_on(read(bytes))
    }
}

async fn read(bytes: &[u8]) -> Reading {
    let (mut client, server) = tokio::io::duplex(PLENTY);
    client.write_all(bytes).await.unwrap();
    client.shutdown().await.unwrap();
    let seen = Arc::new(Mutex::new(Reading::default()));
    let record = seen.clone();
    let service = service_fn(move |request| serve(request, record.clone()));
    let mut builder = hyper::server::conn::http1::Builder::new();
    let served = builder
        .half_close(true)
        .serve_connection(TokioIo::new(server), service)
        .await;
    let mut answers = Vec::new();
    client.read_to_end(&mut answers).await.unwrap();
    let mut reading = std::mem::take(&mut *seen.lock().unwrap());
    if reading.end == End::Nothing {
        let said = String::from_utf8_lossy(&answers);
        let refused = said
            .split("HTTP/1.1 ")
            .any(|answer| answer.starts_with('4'));
        reading.end = match served {
            _ if refused => End::Refused,
            Ok(()) => End::Nothing,
            Err(error) if ended_early(&error) => End::Incomplete,
            Err(_) => End::Refused,
        };
    }
    reading
}

async fn serve(
    request: Request<Incoming>,
    record: Arc<Mutex<Reading>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let collected = body.collect().await;
    let mut record = record.lock().unwrap();
    match collected {
        Ok(collected) => {
            let trailers = collected.trailers().cloned().unwrap_or_default();
            let target = parts.uri.path_and_query().map(|it| it.as_str());
            let mut target = target.unwrap_or_default().as_bytes().to_vec();
            if target.starts_with(b"?") {
                // RFC 9112 §3.2.1: an empty path is "/".
                target.insert(0, b'/');
            }
            let field = parts.headers.get(HOST).map(|it| it.as_bytes());
            let authority = parts.uri.authority().map(|it| it.as_str().as_bytes());
            let host = authority.or(field);
            record.messages.push(Message {
                method: parts.method.as_str().as_bytes().to_vec(),
                target,
                host: Some(host.unwrap_or_default().to_vec()),
                fields: Some(fields(&parts.headers)),
                body: collected.to_bytes().to_vec(),
                trailers: Some(fields(&trailers)),
            });
        }
        Err(error) if ended_early(&error) => record.end = End::Incomplete,
        Err(_) => record.end = End::Refused,
    }
    Ok(Response::new(Full::new(Bytes::from_static(b"ok"))))
}

fn ended_early(error: &hyper::Error) -> bool {
    let source = error
        .source()
        .and_then(|source| source.downcast_ref::<io::Error>());
    let early = source.is_some_and(|it| it.kind() == io::ErrorKind::UnexpectedEof);
    early || error.is_incomplete_message()
}

fn fields(headers: &HeaderMap) -> Vec<(Vec<u8>, Vec<u8>)> {
    let all = headers.iter();
    let mut fields: Vec<(Vec<u8>, Vec<u8>)> = all
        .map(|(name, value)| (name.as_str().as_bytes().to_vec(), value.as_bytes().to_vec()))
        .collect();
    fields.sort_by(|one, other| one.0.cmp(&other.0));
    fields
}
