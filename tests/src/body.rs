//! Message bodies: whole, streamed from a test, with trailers; and contents that can be checked.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, BodyStream, Full, StreamBody};
use hyper::HeaderMap;
use hyper::body::Frame;
use tokio::sync::mpsc;

/// The one body type of the harness.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A body of known length.
pub fn full(content: impl Into<Bytes>) -> Body {
    Full::new(content.into()).boxed_unsync()
}

#[must_use]
pub fn empty() -> Body {
    full(Bytes::new())
}

/// A body of unknown length, so chunked on the wire, that ends with `trailers` where there are any.
#[must_use]
pub fn chunks(chunks: Vec<Bytes>, trailers: Option<HeaderMap>) -> Body {
    let frames = chunks.into_iter().map(Frame::data);
    let frames = frames.chain(trailers.map(Frame::trailers)).map(Ok);
    StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync()
}

/// A body that the test sends piece by piece; dropping the sender ends it.
#[must_use]
pub fn channel() -> (mpsc::Sender<Frame<Bytes>>, Body) {
    let (sender, mut receiver) = mpsc::channel(1);
    let frames = futures_util::stream::poll_fn(move |context| receiver.poll_recv(context));
    (sender, StreamBody::new(frames.map(Ok)).boxed_unsync())
}

/// What another body says, as far as it comes.
pub fn passing<B>(body: B) -> Body
where
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Send,
{
    let frames = BodyStream::new(body)
        .take_while(|frame| std::future::ready(frame.is_ok()))
        .filter_map(|frame| std::future::ready(frame.ok().map(Ok)));
    StreamBody::new(frames).boxed_unsync()
}

/// `length` bytes that depend on their position and on `seed`, so that lost, doubled, moved or
/// foreign bytes show.
#[must_use]
pub fn pattern(length: usize, seed: u64) -> Bytes {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut content = vec![0; length];
    random.fill(&mut content);
    content.into()
}

/// A fingerprint (FNV-1a) of bytes that arrive in pieces, whatever the pieces.
#[derive(Debug)]
pub struct Fingerprint {
    state: u64,
    pub length: usize,
}

impl Default for Fingerprint {
    fn default() -> Fingerprint {
        Fingerprint {
            state: 0xcbf2_9ce4_8422_2325,
            length: 0,
        }
    }
}

impl Fingerprint {
    pub fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.state = (self.state ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.length += bytes.len();
    }

    /// Sixteen hexadecimal digits.
    #[must_use]
    pub fn finish(&self) -> String {
        format!("{:016x}", self.state)
    }
}

/// The fingerprint of bytes that are all here.
#[must_use]
pub fn fingerprint(bytes: &[u8]) -> String {
    let mut fingerprint = Fingerprint::default();
    fingerprint.add(bytes);
    fingerprint.finish()
}
