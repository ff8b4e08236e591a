//! gRPC by tonic, as a client and as an endpoint, and by Python's grpcio (`python/grpc_peer.py`).
//!
//! The service is `tidegate.test.Peer`, whose messages are all [`Piece`]s. Code for it is usually
//! generated; written by hand it needs no protoc. What a call does is asked for in its metadata:
//!
//! | metadata | effect |
//! |---|---|
//! | `x-fail: N` | fails with code `N`, before any message: an answer of trailers only |
//! | `x-late: N` | `Count` fails with code `N` after its messages |
//! | `x-hold` | is never answered |
//! | `x-echo`, `x-echo-bin` | comes back as metadata of the answer |

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::codegen::{BoxFuture, BoxStream, Service};
use tonic::metadata::MetadataMap;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::backend::listen;
use crate::body::{self, Body};

/// One message in, the same out.
pub const UNARY: &str = "/tidegate.test.Peer/Unary";
/// Many in; out comes how many they were, and how long together.
pub const COLLECT: &str = "/tidegate.test.Peer/Collect";
/// One in; out come as many as its number says.
pub const COUNT: &str = "/tidegate.test.Peer/Count";
/// Every message in comes out before the next is read.
pub const CHAT: &str = "/tidegate.test.Peer/Chat";

/// The details of every error that was asked for.
pub const DETAILS: &[u8] = b"\x00details\xff";

/// gRPC's own limit is 4 MiB, of the encoded message.
const LARGEST: usize = 64 << 20;

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Piece {
    #[prost(bytes = "bytes", tag = "1")]
    pub data: Bytes,
    #[prost(uint32, tag = "2")]
    pub number: u32,
}

impl Piece {
    #[must_use]
    pub fn new(data: impl Into<Bytes>, number: u32) -> Piece {
        let data = data.into();
        Piece { data, number }
    }

    /// A message on the wire: not compressed, its length, its bytes.
    #[must_use]
    pub fn framed(&self) -> Bytes {
        let message = prost::Message::encode_to_vec(self);
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        [&[0][..], &length, &message].concat().into()
    }
}

type Codec = ProstCodec<Piece, Piece>;

/// A client on one connection. Clones share it.
#[derive(Clone, Debug)]
pub struct Caller(tonic::client::Grpc<Channel>);

impl Caller {
    /// Connects when the first call is made; `host` is what calls say as `:authority`.
    #[must_use]
    pub fn new(address: SocketAddr, host: &str) -> Caller {
        let origin = format!("http://{host}").parse().unwrap();
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        let channel = endpoint.origin(origin).connect_lazy();
        let client = tonic::client::Grpc::new(channel);
        Caller(
            client
                .max_decoding_message_size(LARGEST)
                .max_encoding_message_size(LARGEST),
        )
    }

    async fn ready(&mut self) -> Result<(), Status> {
        let ready = self.0.ready().await;
        ready.map_err(|error| Status::unknown(error.to_string()))
    }

    /// # Errors
    /// The call's status.
    pub async fn unary(&mut self, request: Request<Piece>) -> Result<Response<Piece>, Status> {
        self.ready().await?;
        self.0
            .unary(request, UNARY.parse().unwrap(), Codec::new())
            .await
    }

    /// # Errors
    /// The call's status.
    pub async fn collect<S>(&mut self, request: Request<S>) -> Result<Response<Piece>, Status>
    where
        S: Stream<Item = Piece> + Send + 'static,
    {
        self.ready().await?;
        let path = COLLECT.parse().unwrap();
        self.0.client_streaming(request, path, Codec::new()).await
    }

    /// # Errors
    /// The call's status, where it comes before any message.
    pub async fn count(
        &mut self,
        request: Request<Piece>,
    ) -> Result<Response<Streaming<Piece>>, Status> {
        self.ready().await?;
        let path = COUNT.parse().unwrap();
        self.0.server_streaming(request, path, Codec::new()).await
    }

    /// # Errors
    /// The call's status, where it comes before any message.
    pub async fn chat<S>(
        &mut self,
        request: Request<S>,
    ) -> Result<Response<Streaming<Piece>>, Status>
    where
        S: Stream<Item = Piece> + Send + 'static,
    {
        self.ready().await?;
        self.0
            .streaming(request, CHAT.parse().unwrap(), Codec::new())
            .await
    }
}

/// A request with one more metadatum.
#[must_use]
pub fn asking<M>(message: M, name: &'static str, value: &str) -> Request<M> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(name, value.parse().unwrap());
    request
}

/// An endpoint. Prints as its address; dropped, it takes no more connections.
pub struct GrpcBackend {
    pub address: SocketAddr,
    calls: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl GrpcBackend {
    #[must_use]
    pub fn start() -> GrpcBackend {
        let listener = listen();
        let address = listener.local_addr().unwrap();
        let calls = Arc::new(AtomicUsize::new(0));
        let task = tokio::spawn(serve(listener, calls.clone()));
        GrpcBackend {
            address,
            calls,
            task,
        }
    }

    /// Calls that are held as asked.
    #[must_use]
    pub fn held(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

impl Drop for GrpcBackend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Display for GrpcBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

impl fmt::Debug for GrpcBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GrpcBackend({})", self.address)
    }
}

async fn serve(listener: TcpListener, calls: Calls) {
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let serving = Server::builder().serve_with_incoming(Peer(calls), incoming);
    serving.await.unwrap();
}

/// What [`GrpcBackend`] serves; the number is of calls that are held.
#[derive(Clone, Debug, Default)]
pub struct Peer(pub Arc<AtomicUsize>);

impl<B> Service<http::Request<B>> for Peer
where
    B: tonic::codegen::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<tonic::codegen::StdError> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let calls = self.0.clone();
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(Codec::new())
                .max_decoding_message_size(LARGEST)
                .max_encoding_message_size(LARGEST);
            let path = request.uri().path().to_owned();
            Ok(match path.as_str() {
                UNARY => grpc.unary(Does(unary, calls), request).await,
                COLLECT => grpc.client_streaming(Does(collect, calls), request).await,
                COUNT => grpc.server_streaming(Does(count, calls), request).await,
                CHAT => grpc.streaming(Does(chat, calls), request).await,
                _ => Status::unimplemented(path).into_http(),
            })
        })
    }
}

/// Whether a request is for [`Peer`].
#[must_use]
pub fn asked<B>(request: &http::Request<B>) -> bool {
    let kind = request.headers().get("content-type");
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// Serves one request beside others.
pub async fn answer(request: http::Request<Incoming>) -> http::Response<Body> {
    let Ok(response) = Peer::default().call(request).await;
    response.map(body::passing)
}

/// A function as a service.
struct Does<M, R>(Handler<M, R>, Calls);

type Handler<M, R> = fn(Request<M>, Calls) -> BoxFuture<Response<R>, Status>;

/// How many calls are held.
type Calls = Arc<AtomicUsize>;

impl<M, R> Service<Request<M>> for Does<M, R> {
    type Response = Response<R>;
    type Error = Status;
    type Future = BoxFuture<Response<R>, Status>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<M>) -> Self::Future {
        (self.0)(request, self.1.clone())
    }
}

fn unary(request: Request<Piece>, calls: Calls) -> BoxFuture<Response<Piece>, Status> {
    Box::pin(async move {
        refuse(request.metadata(), "x-fail")?;
        hold(request.metadata(), calls).await;
        let (metadata, _, piece) = request.into_parts();
        Ok(echoing(&metadata, piece))
    })
}

fn collect(request: Request<Streaming<Piece>>, _: Calls) -> BoxFuture<Response<Piece>, Status> {
    Box::pin(async move {
        refuse(request.metadata(), "x-fail")?;
        let (metadata, _, mut pieces) = request.into_parts();
        let (mut number, mut data) = (0, Vec::new());
        while let Some(piece) = pieces.message().await? {
            number += 1;
            data.extend_from_slice(&piece.data);
        }
        Ok(echoing(&metadata, Piece::new(data, number)))
    })
}

fn count(request: Request<Piece>, _: Calls) -> BoxFuture<Response<BoxStream<Piece>>, Status> {
    Box::pin(async move {
        refuse(request.metadata(), "x-fail")?;
        let (metadata, _, piece) = request.into_parts();
        let late = refuse(&metadata, "x-late").err().map(Err);
        let pieces =
            (0..piece.number).map(move |number| Ok(Piece::new(piece.data.clone(), number)));
        let pieces: BoxStream<Piece> = Box::pin(stream::iter(pieces.chain(late)));
        Ok(echoing(&metadata, pieces))
    })
}

fn chat(
    request: Request<Streaming<Piece>>,
    calls: Calls,
) -> BoxFuture<Response<BoxStream<Piece>>, Status> {
    Box::pin(async move {
        refuse(request.metadata(), "x-fail")?;
        let (metadata, _, pieces) = request.into_parts();
        // Held for as long as somebody listens.
        let held = Held::one(calls);
        let pieces = pieces.inspect(move |_| {
            let _ = &held;
        });
        let pieces: BoxStream<Piece> = Box::pin(pieces);
        Ok(echoing(&metadata, pieces))
    })
}

fn refuse(metadata: &MetadataMap, name: &str) -> Result<(), Status> {
    match metadata.get(name) {
        None => Ok(()),
        Some(code) => {
            let code = Code::from_bytes(code.as_bytes());
            Err(Status::with_details(
                code,
                "as asked: 100 % \u{e9}",
                DETAILS.into(),
            ))
        }
    }
}

async fn hold(metadata: &MetadataMap, calls: Calls) {
    if metadata.contains_key("x-hold") {
        let _held = Held::one(calls);
        std::future::pending().await
    }
}

fn echoing<M>(asked: &MetadataMap, message: M) -> Response<M> {
    let mut response = Response::new(message);
    if let Some(value) = asked.get("x-echo") {
        response.metadata_mut().insert("x-echo", value.clone());
    }
    if let Some(value) = asked.get_bin("x-echo-bin") {
        response
            .metadata_mut()
            .insert_bin("x-echo-bin", value.clone());
    }
    response
}

/// A call that is held, until dropped.
struct Held(Arc<AtomicUsize>);

impl Held {
    fn one(calls: Arc<AtomicUsize>) -> Held {
        calls.fetch_add(1, Ordering::SeqCst);
        Held(calls)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
