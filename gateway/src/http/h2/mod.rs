//! HTTP/2, both sides (RFC 9113), on the h2 crate: this is where its messages take and leave the
//! form they have inside.

pub mod budget;
pub mod client;
pub mod frames;
pub mod heads;
pub mod inbound;
pub mod link;
pub mod outbound;
pub mod outbox;
pub mod pings;
pub mod quota;
pub mod server;
pub mod wire;

#[cfg(test)]
mod tests;

use crate::http::message::StreamError;

/// Most unread bytes a peer may have sent on one stream.
pub const STREAM_WINDOW: u32 = 64 * 1024;

/// Most bytes that wait to be written on one stream.
pub const SEND_BUFFER: usize = 64 * 1024;

/// What small DATA frames that nobody has read yet may cost a connection, as the h2 crate counts: 256
/// each, less their bytes. Eight thousand of them: a stream's window in messages of eight bytes.
pub const SMALL_DATA: usize = 2 * 1024 * 1024;

/// Bodies up to this size are looked for whole before they are sent on, so that they can be sent
/// twice.
pub const KEEP_MAX: usize = 16 * 1024;

/// Most bytes of a header list, its names, values and 32 bytes for each field (RFC 9113 §6.5.2).
pub const HEADER_LIST: usize = 32 * 1024;

/// What went wrong, by what may be done about it.
pub(super) fn failure(error: h2::Error) -> StreamError {
    let reason = error.reason();
    match reason {
        Some(h2::Reason::REFUSED_STREAM) if error.is_reset() => StreamError::Refused,
        Some(_) if error.is_reset() && error.is_remote() => StreamError::Reset,
        // Those below the last stream it names are not told: only what was not processed fails so.
        Some(h2::Reason::NO_ERROR) if error.is_go_away() && error.is_remote() => {
            StreamError::GoingAway
        }
        _ if error.is_library() => StreamError::Malformed("HTTP/2 was broken by the peer"),
        Some(_) => StreamError::Closed,
        None => match error.into_io() {
            Some(error) => StreamError::Io(error),
            // A call of ours that came after the stream's end.
            None => StreamError::Closed,
        },
    }
}
