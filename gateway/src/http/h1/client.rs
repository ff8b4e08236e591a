//! A connection to an HTTP/1.1 endpoint, as the exchange sees it.

use std::task::{Context, Poll};

use super::HeadLimits;
use super::connection::{Connection, ReadLimits};
use super::encode;
use super::reader::Reader;
use super::response;
use super::writer::{Encoder, Writer};
use crate::http::message::{
    Departure, Filled, RequestEdits, RequestHead, Requester, ResponseHead, Responses, Sink, Source,
    StreamError, Trailers, Upstream,
};
use crate::http::pace::Pace;

/// The endpoint's side of one exchange.
#[derive(Debug)]
pub struct Endpoint {
    pub connection: Box<Connection>,
    pub heads: HeadLimits,
    pub limits: ReadLimits,
}

impl Endpoint {
    /// Whether both messages are over and nothing was said beyond them, so that the connection can
    /// carry another exchange.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.connection.received_all()
            && self.connection.sent_all()
            && self.connection.unread().is_empty()
    }
}

impl Upstream for Endpoint {
    type Source<'a> = EndpointReader<'a>;
    type Sink<'a> = EndpointWriter<'a>;

    fn split<'a>(&'a mut self, pace: &'a Pace) -> (EndpointReader<'a>, EndpointWriter<'a>) {
        let (reader, writer) = self.connection.split(pace, self.limits);
        (
            EndpointReader {
                reader,
                heads: self.heads,
            },
            EndpointWriter(writer),
        )
    }
}

/// Reads responses.
#[derive(Debug)]
pub struct EndpointReader<'a> {
    reader: Reader<'a>,
    heads: HeadLimits,
}

impl EndpointReader<'_> {
    /// Reads and drops at most `budget` bytes, as [`Reader::discard`] does.
    pub async fn discard(&mut self, budget: usize) {
        self.reader.discard(budget).await;
    }
}

impl Source for EndpointReader<'_> {
    async fn fill(&mut self) -> Result<Filled, StreamError> {
        self.reader.fill().await
    }

    fn limit(&mut self, bytes: usize) {
        self.reader.limit(bytes);
    }

    fn rest(&mut self) {
        self.reader.rest();
    }

    fn data(&self) -> &[u8] {
        self.reader.data()
    }

    fn consume(&mut self, count: usize) {
        self.reader.consume(count);
    }

    fn is_ready(&mut self) -> bool {
        self.reader.is_ready()
    }

    fn trailers(&self) -> Option<&Trailers> {
        self.reader.trailers()
    }

    async fn departed(&mut self, max: usize) -> Departure {
        self.reader.departed(max).await
    }

    fn poll_gone(&self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }

    fn begin_tunnel(&mut self) {
        self.reader.begin_tunnel();
    }
}

impl Responses for EndpointReader<'_> {
    async fn response(&mut self, to_head: bool, out: &mut ResponseHead) -> Result<(), StreamError> {
        let heads = self.heads;
        let result = self
            .reader
            .head(heads.bytes, |bytes| {
                response::parse(bytes, &heads, to_head, out)
            })
            .await;
        match result {
            Ok(()) => {
                self.reader.begin_body(out.length);
                Ok(())
            }
            Err(StreamError::Closed | StreamError::Io(_)) if self.reader.has_begun() => Err(
                StreamError::Malformed("connection closed within the response head"),
            ),
            Err(error) => Err(error),
        }
    }
}

/// Writes requests.
#[derive(Debug)]
pub struct EndpointWriter<'a>(Writer<'a>);

impl EndpointWriter<'_> {
    /// Ends our side of the connection.
    pub async fn shutdown(&mut self) {
        self.0.shutdown().await;
    }
}

impl Sink for EndpointWriter<'_> {
    async fn write(&mut self, data: &[u8]) -> Result<(), StreamError> {
        self.0.write(data).await
    }

    async fn flush(&mut self) -> Result<(), StreamError> {
        self.0.flush().await
    }

    async fn finish(&mut self, trailers: Option<&Trailers>) -> Result<(), StreamError> {
        self.0.finish(trailers).await
    }

    fn begin_tunnel(&mut self) {
        self.0.begin_tunnel();
    }
}

impl Requester for EndpointWriter<'_> {
    fn request(
        &mut self,
        request: &RequestHead,
        edits: &RequestEdits<'_>,
    ) -> Result<(), StreamError> {
        encode::request(self.0.out, request, edits);
        *self.0.encoder = Encoder::new(request.length);
        Ok(())
    }
}
