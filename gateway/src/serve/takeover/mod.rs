//! Takeover: a new process gets every listening socket of the one that runs, so that no connection
//! is refused and none is lost.
//!
//! Both processes then hold the same sockets, with the same connections waiting in them. The new one
//! accepts nothing until the old one has said that it will accept no more; who fails before costs
//! nobody a connection.
//!
//! | the new process | the one that runs |
//! | --- | --- |
//! | `Hello` | |
//! | | `Offer`, the sockets, and the one of takeovers |
//! | starts everything, then `Ready` | serves |
//! | | `Done`: closes its copies and drains |
//! | accepts | |

mod give;
mod hatch;
mod take;
mod wire;

use std::io;
use std::time::Duration;

use tokio::net::unix::UCred;

pub use self::give::{Farewell, HandedOver, Stock, serve};
pub use self::hatch::Hatch;
pub use self::take::Takeover;
pub use self::wire::Kind;

/// Most time for a step that waits for nothing but the other process's attention.
const STEP: Duration = Duration::from_secs(5);

/// Why nothing was taken over. The process that runs goes on.
#[derive(Debug, thiserror::Error)]
pub enum TakeoverError {
    #[error("the process that runs does not hand over: {0}")]
    Refused(String),
    #[error("the process that runs belongs to user {0}")]
    Foreign(u32),
    #[error("the takeover broke off: {0}")]
    Broken(io::Error),
}

fn is_our_user(peer: &UCred) -> bool {
    peer.uid() == rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests;
