//! Which HTTP a client speaks: HTTP/2 begins with a preface that is no HTTP/1.1 (RFC 9113 §3.4).

use std::future::poll_fn;

use crate::http::h1::connection::Connection;

/// What an HTTP/2 client says first.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Whether these first bytes of a connection may be the preface, or part of it.
pub(super) fn is_likely(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().zip(PREFACE).all(|(one, other)| one == other)
}

/// Reads until the bytes are the preface or differ from it; whether they are it.
///
/// # Cancel safety
/// Nothing is lost.
pub(super) async fn sniff(connection: &mut Connection) -> bool {
    loop {
        let seen = connection.unread().len();
        if seen >= PREFACE.len() || !is_likely(connection.unread()) {
            return is_likely(connection.unread());
        }
        poll_fn(|cx| connection.poll_begun(cx)).await;
        if connection.unread().len() == seen {
            // The client's end: whoever reads a head sees it again.
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::serve::buffers::Buffers;
    use crate::serve::io::Io;

    /// What a client is taken for that says this, so many bytes at a time, and leaves.
    async fn told(bytes: &[u8], step: usize) -> bool {
        let (io, mut theirs) = Io::memory(1);
        let mut connection = Connection::new(io, &Buffers::new());
        let say = async move {
            for piece in bytes.chunks(step) {
                // Nobody reads on once it is known.
                let _unread = theirs.write_all(piece).await;
            }
        };
        let tell = async move {
            poll_fn(|cx| connection.poll_begun(cx)).await;
            sniff(&mut connection).await
        };
        tokio::join!(say, tell).1
    }

    #[tokio::test]
    async fn only_the_whole_preface_is_http2() {
        for (bytes, wanted) in [
            (PREFACE.to_vec(), true),
            ([PREFACE, b"\0\0\0\x04\0"].concat(), true),
            (PREFACE[..23].to_vec(), false),
            (b"PRI".to_vec(), false),
            (b"PRI * HTTP/1.1\r\n\r\nSM\r\n\r\n".to_vec(), false),
            (b"GET / HTTP/1.0\r\n\r\n".to_vec(), false),
        ] {
            for step in [1, bytes.len()] {
                assert_eq!(told(&bytes, step).await, wanted, "{bytes:?}");
            }
        }
    }
}
