//! Finds a port for a new process to listen on.
//!
//! Outside the range that the kernel takes the source ports of outgoing connections from, where
//! there is room: a port of that range may become somebody's source port between our choice and
//! the process's bind, and with thousands of clients on this machine that happens.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU32, Ordering};

/// Ports below are where well-known services live.
const LOWEST: u16 = 16384;
/// A stretch of fewer ports is not worth using.
const ENOUGH: usize = 1024;
/// Ports tried one after the other, until the kernel is asked for any.
const TRIES: u32 = 64;
/// Two gateways on one machine begin at different places.
const STRIDE: u32 = 7919;

/// Ports are handed out one after the other, so that one is not given again while the process it
/// was given to has not bound it yet. One counter for the whole program, for the same reason.
static NEXT: AtomicU32 = AtomicU32::new(0);

#[derive(Debug)]
pub(super) struct Ports {
    stretch: Option<RangeInclusive<u16>>,
    first: u32,
}

impl Ports {
    pub(super) fn new() -> Ports {
        let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
        let range = range.ok().and_then(|text| parse_range(&text));
        Ports {
            stretch: range.and_then(|range| largest_outside(&range)),
            first: std::process::id().wrapping_mul(STRIDE),
        }
    }

    /// An address on this machine that nobody listens on.
    ///
    /// # Errors
    /// When the kernel has no port, or this process no file descriptor left.
    pub(super) fn free_address(&self) -> io::Result<SocketAddr> {
        if let Some(stretch) = &self.stretch {
            let count = u32::try_from(stretch.len()).unwrap_or(1);
            for _ in 0..TRIES {
                let next = NEXT.fetch_add(1, Ordering::Relaxed);
                let place = self.first.wrapping_add(next) % count;
                let port = stretch.start() + u16::try_from(place).unwrap_or(0);
                if let Ok(address) = bind(port) {
                    return Ok(address);
                }
            }
        }
        bind(0)
    }
}

fn bind(port: u16) -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))?.local_addr()
}

fn parse_range(text: &str) -> Option<RangeInclusive<u16>> {
    let mut numbers = text.split_whitespace().map(str::parse);
    Some(numbers.next()?.ok()?..=numbers.next()?.ok()?)
}

/// The larger part of the ports above [`LOWEST`] that `taken` leaves.
fn largest_outside(taken: &RangeInclusive<u16>) -> Option<RangeInclusive<u16>> {
    let below = LOWEST..=taken.start().saturating_sub(1);
    let above = taken.end().saturating_add(1).max(LOWEST)..=u16::MAX;
    let largest = if below.len() >= above.len() {
        below
    } else {
        above
    };
    (largest.len() >= ENOUGH).then_some(largest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_lie_outside_the_range_of_source_ports_where_there_is_room() {
        let outside = |text| largest_outside(&parse_range(text).unwrap());
        assert_eq!(outside("32768\t60999\n"), Some(16384..=32767));
        assert_eq!(outside("10000 50000"), Some(50001..=65535));
        assert_eq!(outside("1024 65535"), None);
        assert_eq!(outside("0 65535"), None);
        assert_eq!(parse_range("many"), None);
    }

    #[test]
    fn addresses_can_be_bound_and_differ() {
        let ports = Ports::new();
        let addresses: Vec<_> = (0..20).map(|_| ports.free_address().unwrap()).collect();
        for (at, address) in addresses.iter().enumerate() {
            assert!(!addresses[..at].contains(address));
        }
        let listener = TcpListener::bind(addresses[0]).unwrap();
        let port = addresses[0].port();
        let busy = Ports {
            stretch: Some(port..=port),
            first: 0,
        };
        assert_ne!(busy.free_address().unwrap(), addresses[0]);
        drop(listener);
    }
}
