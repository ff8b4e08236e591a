//! One request of an HTTP/1.1 client, as the exchange sees it.

use super::connection::{Connection, ReadLimits};
use super::encode::{self, ResponseFraming};
use super::reader::Reader;
use super::writer::{Encoder, Writer};
use crate::http::message::{
    Downstream, Length, RequestHead, Responder, ResponseHead, Sink, StreamError, Trailers, Version,
};
use crate::http::pace::Pace;

/// The client's side of one exchange.
#[derive(Debug)]
pub struct Client<'a> {
    connection: &'a mut Connection,
    limits: ReadLimits,
    version: Version,
    /// It asked to use the connection again, and nothing since has said no.
    keep_alive: bool,
}

impl<'a> Client<'a> {
    #[must_use]
    pub fn new(connection: &'a mut Connection, limits: ReadLimits, request: &RequestHead) -> Self {
        connection.begin_body(request.length, limits);
        Client {
            connection,
            limits,
            version: request.version,
            keep_alive: request.keep_alive,
        }
    }

    /// Whether the connection may carry another request once this one's body is read: the answer
    /// said so and went out whole.
    #[must_use]
    pub fn wants_more(&self) -> bool {
        self.keep_alive && self.connection.sent_all()
    }

    /// Whether both messages are over, read and written whole.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.connection.received_all() && self.connection.sent_all()
    }

    /// Requests that came on the connection, this one included.
    #[must_use]
    pub fn exchanges(&self) -> u32 {
        self.connection.exchanges
    }
}

impl Downstream for Client<'_> {
    type Source<'b>
        = Reader<'b>
    where
        Self: 'b;
    type Sink<'b>
        = ClientWriter<'b>
    where
        Self: 'b;

    fn split<'b>(&'b mut self, pace: &'b Pace) -> (Reader<'b>, ClientWriter<'b>) {
        let (reader, writer) = self.connection.split(pace, self.limits);
        let writer = ClientWriter {
            writer,
            version: self.version,
            keep_alive: &mut self.keep_alive,
        };
        (reader, writer)
    }

    fn rest(&mut self) {
        self.connection.fit();
        self.connection.rest();
    }

    fn wake(&mut self) {
        self.connection.wake();
    }

    fn body_here(&mut self, _pace: &Pace) -> Option<u64> {
        self.connection.whole_body()
    }

    fn keep_body(&mut self, _pace: &Pace) -> bool {
        let whole = self.connection.whole_body().is_some();
        if whole {
            self.connection.keep();
        }
        whole
    }

    fn rewind_body(&mut self) -> bool {
        self.connection.rewind()
    }

    fn forget_body(&mut self) {
        self.connection.forget();
    }

    fn received_all(&self) -> bool {
        self.connection.received_all()
    }

    fn may_answer(&self) -> bool {
        self.connection.sent_all()
    }

    fn closes(&mut self) {
        self.keep_alive = false;
    }
}

/// Writes responses the way this client's version and wishes ask for.
#[derive(Debug)]
pub struct ClientWriter<'a> {
    writer: Writer<'a>,
    version: Version,
    keep_alive: &'a mut bool,
}

impl Sink for ClientWriter<'_> {
    async fn write(&mut self, data: &[u8]) -> Result<(), StreamError> {
        self.writer.write(data).await
    }

    async fn flush(&mut self) -> Result<(), StreamError> {
        self.writer.flush().await
    }

    async fn finish(&mut self, trailers: Option<&Trailers>) -> Result<(), StreamError> {
        self.writer.finish(trailers).await
    }

    fn begin_tunnel(&mut self) {
        *self.keep_alive = false;
        self.writer.begin_tunnel();
    }
}

impl Responder for ClientWriter<'_> {
    fn interim(&mut self, response: &ResponseHead, added: &[u8]) {
        // RFC 9110 §15.2: a 1.0 client knows no interim responses.
        if self.version != Version::Http10 {
            encode::interim(self.writer.out, response, added);
        }
    }

    fn respond(&mut self, response: &ResponseHead, added: &[u8], last: bool) {
        if *self.writer.encoder != Encoder::Over {
            // A fault of ours ended an answer before any of it was written: this one stands for it.
            self.writer.out.clear();
        }
        let length = match (response.length, self.version) {
            // A 1.0 client knows no chunks: the end of the connection ends the body.
            (Length::Chunked | Length::UntilClose, Version::Http10) => Length::UntilClose,
            (Length::Chunked | Length::UntilClose, _) => Length::Chunked,
            (known, _) => known,
        };
        *self.keep_alive &= !last && length != Length::UntilClose;
        let framing = ResponseFraming {
            length,
            close: !*self.keep_alive,
            announce_keep_alive: self.version == Version::Http10 && *self.keep_alive,
        };
        encode::response(self.writer.out, response, framing, added);
        *self.writer.encoder = Encoder::new(length);
    }
}
