//! HTTP/2, on the `h2` crate.

use std::io;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{Method, Request, Response, StatusCode};
use tokio::task::spawn_local;

use super::serve::{Site, Verdict};
use super::stats::count;
use super::transport::{Rewound, Transport};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";

/// Bytes that may be under way in each direction, per stream and per connection.
const WINDOW: u32 = 4 * 1024 * 1024;

/// Streams a client may have open.
const STREAMS_MAX: u32 = 1000;

/// Whether these first bytes of a connection are those of HTTP/2 with prior knowledge.
pub(super) fn begins(bytes: &[u8]) -> bool {
    bytes.starts_with(PREFACE)
}

/// Serves one connection, whose first bytes have been read, to its end.
pub(super) async fn serve<S: Transport>(stream: S, first: BytesMut, site: &Site) -> io::Result<()> {
    let stream = Rewound::new(first.freeze(), stream);
    let mut connection = h2::server::Builder::new()
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_concurrent_streams(STREAMS_MAX)
        .handshake::<_, Bytes>(stream)
        .await
        .map_err(io::Error::other)?;
    let site = site.clone();
    while let Some(request) = connection.accept().await {
        let (request, respond) = request.map_err(io::Error::other)?;
        let whole = request.body().is_end_stream();
        if whole && !site.waits() {
            // Nothing to wait for: no task is worth it.
            let _gone = answer(&site, request, respond).await;
        } else {
            let site = Rc::new(site.clone());
            spawn_local(async move { drop(answer(&site, request, respond).await) });
        }
    }
    Ok(())
}

async fn answer(
    site: &Site,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) -> Result<(), h2::Error> {
    let _running = site.counts.begin();
    let verdict = site.judge();
    let head_only = *request.method() == Method::HEAD;
    let keep = site.echo && verdict == Verdict::Usual;
    let body = read_body(request.into_body(), keep, site).await?;
    let (status, body) = match verdict {
        Verdict::Usual => {
            site.pause().await;
            let usual = site.answers.body.clone();
            (
                StatusCode::OK,
                if site.echo { body.freeze() } else { usual },
            )
        }
        Verdict::Refuse => (StatusCode::SERVICE_UNAVAILABLE, Bytes::new()),
        Verdict::Reset => {
            count(&site.counts.resets);
            respond.send_reset(Reason::INTERNAL_ERROR);
            return Ok(());
        }
    };
    let mut head = Response::new(());
    *head.status_mut() = status;
    head.headers_mut()
        .insert("content-length", body.len().into());
    let empty = head_only || body.is_empty();
    let mut stream = respond.send_response(head, empty)?;
    if !empty {
        // What the window does not take waits inside `h2`; it is a view of the one body there is.
        stream.send_data(body, true)?;
    }
    count(if verdict == Verdict::Refuse {
        &site.counts.refused
    } else {
        &site.counts.answers
    });
    Ok(())
}

async fn read_body(mut body: RecvStream, keep: bool, site: &Site) -> Result<BytesMut, h2::Error> {
    let mut kept = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data?;
        let bytes_up = &site.counts.bytes_up;
        bytes_up.set(bytes_up.get() + data.len() as u64);
        if keep {
            kept.extend_from_slice(&data);
        }
        if kept.len() <= super::http1::ECHO_BYTES_MAX {
            // Beyond the bound the window stays shut.
            body.flow_control().release_capacity(data.len())?;
        }
    }
    Ok(kept)
}
