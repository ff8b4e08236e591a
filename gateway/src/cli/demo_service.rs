//! The hidden `demo-service`: a tiny HTTP/1.1 service for the demo, the examples and trying out.
//!
//! | request | answer |
//! | --- | --- |
//! | `/healthz` | 200 `ok` |
//! | anything else | a line: who answers, and the how manieth request of this process it is |
//! | `?sleep=MS` | the same, so much later |
//! | `?size=BYTES` | so many bytes instead |

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Connections that wait to be accepted: a gateway that lets go of held requests opens many.
const BACKLOG: u32 = 4096;
/// Open connections; further ones wait to be accepted.
const CONNECTIONS_MAX: usize = 16_384;
const SLEEP_MAX: Duration = Duration::from_secs(600);
const SIZE_MAX: u64 = 1 << 30;

#[derive(Debug, Args)]
pub(super) struct ServiceArgs {
    /// Port on 127.0.0.1.
    #[arg(long, env = "PORT")]
    pub(super) port: u16,
    /// Whom to greet.
    #[arg(long, env = "TARGET", default_value = "World")]
    pub(super) target: String,
}

struct Service {
    target: String,
    port: u16,
    requests: AtomicU64,
}

type Reply = Response<Either<Full<Bytes>, Filler>>;

/// Serves until SIGTERM, then ends with the last request.
pub(super) fn serve(args: ServiceArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = listen(args.port)?;
        let service = Service {
            target: args.target,
            port: listener.local_addr()?.port(),
            requests: AtomicU64::new(0),
        };
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let told = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        accept(listener, Arc::new(service), told).await
    })?;
    Ok(ExitCode::SUCCESS)
}

fn listen(port: u16) -> anyhow::Result<TcpListener> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let listen = || {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().with_context(|| format!("cannot listen on {address}"))
}

async fn accept(
    listener: TcpListener,
    service: Arc<Service>,
    told: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let (ending, end) = watch::channel(false);
    let mut connections = JoinSet::new();
    tokio::pin!(told);
    loop {
        tokio::select! {
            () = &mut told => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => {
                let (stream, _) = accepted?;
                connections.spawn(connection(stream, service.clone(), end.clone()));
            }
        }
    }
    drop(listener);
    ending.send_replace(true);
    while connections.join_next().await.is_some() {}
    Ok(())
}

async fn connection(stream: TcpStream, service: Arc<Service>, mut end: watch::Receiver<bool>) {
    let answer = service_fn(move |request| {
        let service = service.clone();
        async move { service.answer(request).await }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), answer);
    tokio::pin!(connection);
    // How a client's connection ends concerns nobody here.
    tokio::select! {
        _ = &mut connection => return,
        _ = end.wait_for(|end| *end) => {}
    }
    connection.as_mut().graceful_shutdown();
    drop(connection.await);
}

impl Service {
    async fn answer(&self, mut request: Request<Incoming>) -> hyper::Result<Reply> {
        // A body is read to its end, so that the connection can be used again.
        while let Some(frame) = request.body_mut().frame().await {
            frame?;
        }
        if request.uri().path() == "/healthz" {
            return Ok(text(StatusCode::OK, "ok\n".to_owned()));
        }
        let wish = match wish(request.uri().query().unwrap_or_default()) {
            Ok(wish) => wish,
            Err(problem) => return Ok(text(StatusCode::BAD_REQUEST, format!("{problem}\n"))),
        };
        let count = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        if !wish.sleep.is_zero() {
            tokio::time::sleep(wish.sleep).await;
        }
        let line = || {
            let (target, process, port) = (&self.target, std::process::id(), self.port);
            format!("Hello {target}! (process {process}, port {port}, request {count})\n")
        };
        Ok(match wish.size {
            None => text(StatusCode::OK, line()),
            Some(left) => Response::new(Either::Right(Filler { left })),
        })
    }
}

fn text(status: StatusCode, text: String) -> Reply {
    let mut reply = Response::new(Either::Left(Full::from(text)));
    *reply.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    reply.headers_mut().insert(CONTENT_TYPE, plain);
    reply
}

/// What the query string asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wish {
    sleep: Duration,
    size: Option<u64>,
}

fn wish(query: &str) -> Result<Wish, String> {
    let mut wish = Wish::default();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "sleep" => {
                let most = u64::try_from(SLEEP_MAX.as_millis()).unwrap_or(u64::MAX);
                wish.sleep = Duration::from_millis(number("sleep", &value, most)?);
            }
            "size" => wish.size = Some(number("size", &value, SIZE_MAX)?),
            _ => {}
        }
    }
    Ok(wish)
}

fn number(name: &str, text: &str, most: u64) -> Result<u64, String> {
    let number = text.parse().ok().filter(|number| *number <= most);
    number.ok_or_else(|| format!("{name} is a number up to {most}"))
}

/// A body of so many bytes, made as it is sent.
#[derive(Debug)]
struct Filler {
    left: u64,
}

static BLOCK: [u8; 16 * 1024] = [b'.'; 16 * 1024];

impl Body for Filler {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let size = usize::try_from(self.left).map_or(BLOCK.len(), |left| left.min(BLOCK.len()));
        if size == 0 {
            return Poll::Ready(None);
        }
        self.left -= size as u64;
        let block = Bytes::from_static(&BLOCK[..size]);
        Poll::Ready(Some(Ok(Frame::data(block))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::oneshot;

    use super::*;

    struct Served {
        address: SocketAddr,
        stop: oneshot::Sender<()>,
        ended: tokio::task::JoinHandle<anyhow::Result<()>>,
    }

    fn served() -> Served {
        let listener = listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let service = Arc::new(Service {
            target: "v1".to_owned(),
            port: address.port(),
            requests: AtomicU64::new(0),
        });
        let (stop, told) = oneshot::channel();
        let told = async {
            told.await.unwrap();
        };
        Served {
            address,
            stop,
            ended: tokio::spawn(accept(listener, service, told)),
        }
    }

    async fn get(stream: &mut TcpStream, target: &str) -> String {
        let request = format!("GET {target} HTTP/1.1\r\nhost: a\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        loop {
            assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0, "cut short");
            let text = String::from_utf8_lossy(&answer);
            let Some((head, body)) = text.split_once("\r\n\r\n") else {
                continue;
            };
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            if body.len() == length.unwrap().parse::<usize>().unwrap() {
                return text.into_owned();
            }
        }
    }

    #[tokio::test]
    async fn it_says_who_answers_and_counts() {
        let served = served();
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        let port = served.address.port();
        for count in 1..=2 {
            let answer = get(&mut stream, "/any?sleep=1").await;
            let process = std::process::id();
            let line =
                format!("\r\n\r\nHello v1! (process {process}, port {port}, request {count})\n");
            assert!(answer.ends_with(&line), "{answer}");
        }
    }

    #[tokio::test]
    async fn sizes_are_exact_and_health_is_told() {
        let served = served();
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        assert!(get(&mut stream, "/healthz").await.ends_with("\r\n\r\nok\n"));
        for size in [0, 1, BLOCK.len(), 3 * BLOCK.len() + 7] {
            let answer = get(&mut stream, &format!("/?size={size}")).await;
            let (_, body) = answer.split_once("\r\n\r\n").unwrap();
            assert_eq!(body.len(), size);
        }
        let answer = get(&mut stream, "/?size=many").await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }

    #[tokio::test]
    async fn told_to_end_it_finishes_what_runs_and_closes_what_is_idle() {
        let served = served();
        let mut idle = TcpStream::connect(served.address).await.unwrap();
        get(&mut idle, "/").await;
        let mut busy = TcpStream::connect(served.address).await.unwrap();
        let half =
            b"POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n";
        busy.write_all(half).await.unwrap();
        // Its answer to the expectation shows that the request runs.
        let mut interim = [0; 25];
        busy.read_exact(&mut interim).await.unwrap();
        assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");

        served.stop.send(()).unwrap();
        assert_eq!(idle.read(&mut [0]).await.unwrap(), 0);
        assert!(!served.ended.is_finished());
        busy.write_all(b"hi").await.unwrap();
        let mut answer = String::new();
        busy.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("Hello v1!"), "{answer}");
        served.ended.await.unwrap().unwrap();
    }

    #[test]
    fn wishes_are_bounded() {
        let wished = wish("a=b&sleep=100&size=7").unwrap();
        let expected = Wish {
            sleep: Duration::from_millis(100),
            size: Some(7),
        };
        assert_eq!(wished, expected);
        for query in [
            "sleep=600001",
            "sleep=-1",
            "sleep=1s",
            "size=1073741825",
            "size=",
        ] {
            assert!(wish(query).is_err(), "{query}");
        }
    }
}
