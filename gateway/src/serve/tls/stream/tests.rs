use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;

use super::super::testing::{configurations, connected, shake};
use super::*;
use crate::http::h1::connection::{Connection, ReadLimits};
use crate::http::message::{Filled, Length, Sink as _, Source as _, StreamError};
use crate::http::pace::Pace;
use crate::serve::buffers::Buffers;
use crate::serve::io::{Io, IoRead, IoWrite};

/// More than sockets on loopback hold.
const LARGE: usize = 16 * 1024 * 1024;

const NO_LIMITS: ReadLimits = ReadLimits {
    trailer_bytes: 1024,
    body_bytes: u64::MAX,
};

async fn pair() -> (Io, Io) {
    let (server, client) = connected().await;
    (Io::Tls(Box::new(server)), Io::Tls(Box::new(client)))
}

fn socket(io: &Io) -> &TcpStream {
    match io {
        Io::Tls(stream) => stream.socket(),
        Io::Plain(_) | Io::Memory { .. } => panic!("not TLS"),
    }
}

async fn take(io: &mut IoRead<'_>, target: &mut [u8]) -> io::Result<usize> {
    poll_fn(|cx| io.poll_read(cx, target)).await
}

/// What comes until the end, in reads of at most `size`.
async fn read_all(io: &mut IoRead<'_>, size: usize) -> io::Result<Vec<u8>> {
    let (mut all, mut target) = (Vec::new(), vec![0; size]);
    loop {
        match take(io, &mut target).await? {
            0 => return Ok(all),
            count => all.extend_from_slice(&target[..count]),
        }
    }
}

async fn flush(io: &mut IoWrite<'_>) {
    poll_fn(|cx| io.poll_flush(cx)).await.unwrap();
}

async fn write_all(io: &mut IoWrite<'_>, mut data: &[u8]) {
    while !data.is_empty() {
        // Two parts, as a head and a body are.
        let (one, other) = data.split_at(data.len() / 2);
        let parts = [io::IoSlice::new(one), io::IoSlice::new(other)];
        let count = poll_fn(|cx| io.poll_write(cx, &parts)).await.unwrap();
        data = &data[count..];
    }
    flush(io).await;
}

async fn shutdown(io: &mut IoWrite<'_>) {
    poll_fn(|cx| io.poll_shutdown(cx)).await.unwrap();
}

async fn say(io: &mut Io, data: &[u8]) {
    write_all(&mut io.split().1, data).await;
}

fn random_bytes(count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    fastrand::Rng::with_seed(7).fill(&mut bytes);
    bytes
}

#[tokio::test]
async fn to_write_nothing_is_an_error_and_no_endless_loop() {
    let (mut server, _client) = pair().await;
    let (_read, mut write) = server.split();
    for parts in [&[][..], &[io::IoSlice::new(b"")]] {
        let written = poll_fn(|cx| write.poll_write(cx, parts)).await;
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::WriteZero);
    }
}

#[tokio::test]
async fn bytes_move_both_ways_at_the_same_time_whatever_the_buffers() {
    let data = random_bytes(LARGE);
    for size in [1000, 4096, 64 * 1024] {
        let (mut one, mut other) = pair().await;
        let ends = [&mut one, &mut other].map(|io| {
            let (mut read, mut write) = io.split();
            let data = &data;
            async move {
                let sends = async {
                    write_all(&mut write, data).await;
                    shutdown(&mut write).await;
                };
                let (received, ()) = tokio::join!(read_all(&mut read, size), sends);
                assert!(received.unwrap() == *data, "{size}");
            }
        });
        let [one, other] = ends;
        tokio::join!(one, other);
    }
}

#[tokio::test]
async fn what_a_full_socket_did_not_take_is_sent_by_a_flush() {
    let (mut ours, mut theirs) = pair().await;
    let data = random_bytes(LARGE);
    let (mut taken, mut last) = (0, 0);
    {
        let (_read, mut write) = ours.split();
        while let Some(Ok(count)) = poll_fn(|cx| {
            let parts = [io::IoSlice::new(&data[taken..])];
            match write.poll_write(cx, &parts) {
                Poll::Ready(result) => Poll::Ready(Some(result)),
                Poll::Pending => Poll::Ready(None),
            }
        })
        .await
        {
            (taken, last) = (taken + count, count);
        }
    }
    assert!(last > 0 && taken < LARGE);
    assert!(!ours.sent_all(), "some is kept back");
    let (_read, mut write) = ours.split();
    let mut flushing = Box::pin(flush(&mut write));
    let waits = poll_fn(|cx| Poll::Ready(flushing.as_mut().poll(cx).is_pending())).await;
    assert!(waits, "nobody has read");
    let (mut read, _write) = theirs.split();
    let arrives = async {
        let (mut seen, mut target) = (0, vec![0; 64 * 1024]);
        while seen < taken {
            seen += take(&mut read, &mut target).await.unwrap();
        }
        assert_eq!(seen, taken);
    };
    tokio::join!(&mut flushing, arrives);
    drop(flushing);
    assert!(ours.sent_all());
}

#[tokio::test]
async fn an_orderly_end_is_an_end_and_a_cut_is_an_error_however_often_asked() {
    let (mut ours, mut theirs) = pair().await;
    say(&mut theirs, b"all").await;
    shutdown(&mut theirs.split().1).await;
    let (mut read, _write) = ours.split();
    assert_eq!(read_all(&mut read, 100).await.unwrap(), b"all");
    assert_eq!(read_all(&mut read, 100).await.unwrap(), b"");

    let (mut ours, mut theirs) = pair().await;
    say(&mut theirs, b"half").await;
    poll_fn(|cx| theirs.split().1.poll_cut(cx)).await.unwrap();
    let mut target = [0; 100];
    let (mut read, _write) = ours.split();
    assert_eq!(take(&mut read, &mut target).await.unwrap(), 4);
    for _ in 0..2 {
        let error = take(&mut read, &mut target).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}

#[tokio::test]
async fn we_can_end_our_side_and_read_on() {
    let (mut ours, mut theirs) = pair().await;
    shutdown(&mut ours.split().1).await;
    {
        let (mut read, mut write) = theirs.split();
        assert_eq!(read_all(&mut read, 100).await.unwrap(), b"");
        write_all(&mut write, b"more").await;
        shutdown(&mut write).await;
    }
    assert_eq!(read_all(&mut ours.split().0, 100).await.unwrap(), b"more");
}

#[tokio::test]
async fn what_is_no_tls_is_an_error_each_time_and_the_peer_is_told() {
    let (mut ours, mut theirs) = pair().await;
    let mut raw = match theirs {
        Io::Tls(ref mut stream) => stream,
        Io::Plain(_) | Io::Memory { .. } => panic!("not TLS"),
    };
    raw.socket
        .write_all(b"GET / HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    let mut target = [0; 100];
    let (mut read, mut write) = ours.split();
    for _ in 0..2 {
        let error = take(&mut read, &mut target).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
    let parts = [io::IoSlice::new(b"answer")];
    let refused = poll_fn(|cx| write.poll_write(cx, &parts)).await;
    assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::InvalidData);
    assert!(ours.is_stirred());
    raw = match theirs {
        Io::Tls(ref mut stream) => stream,
        Io::Plain(_) | Io::Memory { .. } => panic!("not TLS"),
    };
    let error = poll_fn(|cx| raw.split().0.poll_read(cx, &mut target)).await;
    assert!(error.unwrap_err().to_string().contains("alert"));
}

#[tokio::test]
async fn plaintext_that_lies_here_is_readable_though_the_socket_is_silent() {
    let (mut ours, mut theirs) = pair().await;
    say(&mut theirs, &[b'x'; 1000]).await;
    let mut target = [0; 100];
    // The whole record has come in long before its plaintext is read.
    let (mut left, mut silent) = (1000, 0);
    while left > 0 {
        poll_fn(|cx| ours.poll_readable(cx)).await;
        left -= take(&mut ours.split().0, &mut target[..10]).await.unwrap();
        let nothing_came = socket(&ours).try_io(Interest::READABLE, || Ok(())).is_err();
        if left > 0 && nothing_came {
            silent += 1;
            assert!(ours.is_stirred());
        }
    }
    assert!(silent > 0);
    let waits = poll_fn(|cx| Poll::Ready(ours.poll_readable(cx).is_pending())).await;
    assert!(waits);
}

#[tokio::test]
async fn tickets_are_no_stir_and_anything_else_is() {
    let (server, client) = configurations();
    let says = async |io: &mut Io| say(io, b"HTTP/1.1 408 Slow\r\n\r\n").await;
    for case in 0..4 {
        let (mut server, client) = {
            let (server, client) = shake(server.clone(), client.clone()).await;
            (Io::Tls(Box::new(server)), Io::Tls(Box::new(client)))
        };
        // The server's tickets came behind its handshake.
        poll_fn(|cx| client.poll_readable(cx)).await;
        assert!(!client.is_stirred());
        assert!(!client.is_stirred());
        match case {
            0 => says(&mut server).await,
            1 => shutdown(&mut server.split().1).await,
            2 => drop(server),
            _ => {
                let at_once = Some(Duration::ZERO);
                let socket = socket2::SockRef::from(socket(&server));
                socket.set_linger(at_once).unwrap();
                drop(server);
            }
        }
        poll_fn(|cx| client.poll_readable(cx)).await;
        assert!(client.is_stirred(), "{case}");
        assert!(client.is_stirred(), "{case}");
    }
}

#[tokio::test]
async fn a_connection_that_was_read_from_is_quiet_again() {
    let (mut ours, mut theirs) = pair().await;
    say(&mut theirs, b"hello").await;
    let mut target = [0; 100];
    let count = take(&mut ours.split().0, &mut target).await.unwrap();
    assert_eq!(&target[..count], b"hello");
    assert!(!ours.is_stirred());
}

#[tokio::test]
async fn who_asks_for_new_keys_without_end_is_taken_to_speak() {
    let (ours, mut theirs) = connected().await;
    for _ in 0..2000 {
        let shared = theirs.shared.get_mut();
        shared.session.refresh_traffic_keys().unwrap();
        flush(&mut IoWrite::Tls(theirs.split().1)).await;
    }
    poll_fn(|cx| ours.poll_readable(cx)).await;
    assert!(ours.is_stirred());
}

#[tokio::test]
async fn a_peer_that_leaves_is_seen_behind_what_it_said() {
    let (mut ours, mut theirs) = pair().await;
    say(&mut theirs, &[b'x'; 1000]).await;
    poll_fn(|cx| ours.poll_readable(cx)).await;
    let (mut read, _write) = ours.split();
    let mut closed = pin!(read.closed());
    let waits = poll_fn(|cx| Poll::Ready(closed.as_mut().poll(cx).is_pending())).await;
    assert!(waits, "unread bytes are no departure");
    drop(theirs);
    closed.await;
}

#[tokio::test]
async fn a_farewell_is_an_orderly_end_and_is_said_once() {
    let (mut ours, mut theirs) = pair().await;
    theirs.part();
    shutdown(&mut theirs.split().1).await;
    assert_eq!(read_all(&mut ours.split().0, 100).await.unwrap(), b"");
}

#[tokio::test]
async fn a_session_goes_on_behind_a_rest() {
    let (mut ours, mut theirs) = connected().await;
    let data = random_bytes(100_000);
    write_all(&mut IoWrite::Tls(theirs.split().1), &data[..99_000]).await;
    let mut seen = 0;
    let mut target = vec![0; 64 * 1024];
    while seen < 99_000 {
        let mut read = IoRead::Tls(ours.split().0);
        seen += take(&mut read, &mut target).await.unwrap();
    }
    // Whatever it kept, it goes on behind a rest.
    ours.rest();
    write_all(&mut IoWrite::Tls(theirs.split().1), &data[99_000..]).await;
    let count = take(&mut IoRead::Tls(ours.split().0), &mut target).await;
    assert_eq!(target[..count.unwrap()], data[99_000..]);
}

/// Reads a body of this length from a peer that sends four bytes and then ends as `end` says.
async fn body_from(
    length: Length,
    end: fn(&mut IoWrite<'_>, &mut Context<'_>) -> Poll<io::Result<()>>,
) -> Result<(), StreamError> {
    let (ours, mut theirs) = pair().await;
    say(&mut theirs, b"body").await;
    poll_fn(|cx| end(&mut theirs.split().1, cx)).await.unwrap();
    let buffers = Buffers::new();
    let clock = activator::admission::Clock::new(std::time::Instant::now());
    let pace = Pace::new(&clock);
    let mut connection = Connection::new(ours, &buffers);
    connection.begin_body(length, NO_LIMITS);
    let (mut reader, _writer) = connection.split(&pace, NO_LIMITS);
    while reader.fill().await? == Filled::Data {
        let count = reader.data().len();
        reader.consume(count);
    }
    Ok(())
}

#[tokio::test]
async fn only_an_orderly_end_ends_a_body_without_a_length() {
    let orderly = |io: &mut IoWrite<'_>, cx: &mut Context<'_>| io.poll_shutdown(cx);
    let cut = |io: &mut IoWrite<'_>, cx: &mut Context<'_>| io.poll_cut(cx);
    assert!(body_from(Length::UntilClose, orderly).await.is_ok());
    assert!(body_from(Length::UntilClose, cut).await.is_err());
    assert!(body_from(Length::Exactly(4), cut).await.is_ok());
    assert!(body_from(Length::Exactly(5), orderly).await.is_err());
}

/// Sends a body that ends with the connection, or half of it; what the peer makes of it.
async fn body_to(whole: bool) -> io::Result<Vec<u8>> {
    let (ours, mut theirs) = pair().await;
    let buffers = Buffers::new();
    let clock: Rc<_> = activator::admission::Clock::new(std::time::Instant::now());
    let pace = Pace::new(&clock);
    let mut connection = Connection::new(ours, &buffers);
    let (_reader, mut writer) = connection.split(&pace, NO_LIMITS);
    *writer.encoder = crate::http::h1::writer::Encoder::UntilClose;
    writer.write(b"body").await.unwrap();
    writer.flush().await.unwrap();
    if whole {
        writer.finish(None).await.unwrap();
    }
    writer.shutdown().await;
    drop(connection);
    read_all(&mut theirs.split().0, 100).await
}

#[tokio::test]
async fn a_body_that_broke_off_does_not_look_whole_to_the_client() {
    assert_eq!(body_to(true).await.unwrap(), b"body");
    let error = body_to(false).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}
