//! Addresses to listen on, of which no two comparisons at once choose the same.
//!
//! Between choosing a port and a program's listening on it anyone may take it. So each comparison
//! has a block of ports for itself, marked as taken by listening on the first of them.

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::{Context as _, bail};

/// Where blocks lie: below the ports the kernel gives to outgoing connections, which a scenario may
/// use up.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// Ports of a block. No scenario needs as many at once; what is free again is used again.
const BLOCK: u16 = 200;

/// A block of ports.
#[derive(Debug)]
pub(crate) struct Ports {
    /// Keeps others away.
    mark: TcpListener,
    first: u16,
    next: Cell<u16>,
}

impl Ports {
    /// Takes a block that no other comparison has.
    ///
    /// # Errors
    ///
    /// All are taken.
    pub(crate) fn take() -> anyhow::Result<Ports> {
        let blocks = (PORTS.end - PORTS.start) / BLOCK;
        let begin = fastrand::u16(0..blocks);
        for at in 0..blocks {
            let first = PORTS.start + (begin + at) % blocks * BLOCK;
            if let Ok(mark) = TcpListener::bind((Ipv4Addr::LOCALHOST, first)) {
                return Ok(Ports {
                    mark,
                    first,
                    next: Cell::new(1),
                });
            }
        }
        bail!("no free ports between {} and {}", PORTS.start, PORTS.end)
    }

    /// An address of this machine that nobody listens on.
    ///
    /// # Errors
    ///
    /// There is none in the block.
    pub(crate) fn free_address(&self) -> anyhow::Result<SocketAddr> {
        for _ in 1..BLOCK {
            let offset = self.next.get();
            self.next
                .set(if offset + 1 == BLOCK { 1 } else { offset + 1 });
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.first + offset));
            if TcpListener::bind(address).is_ok() {
                return Ok(address);
            }
        }
        let mark = self.mark.local_addr().context("the mark is gone")?;
        bail!("no free port among the {BLOCK} from {mark} on")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_have_an_address_in_common() {
        let all = [Ports::take(), Ports::take(), Ports::take()].map(Result::unwrap);
        let mut seen = HashSet::new();
        for ports in &all {
            for _ in 0..50 {
                assert!(seen.insert(ports.free_address().unwrap()));
            }
        }
    }

    #[test]
    fn what_is_listened_on_is_passed_over_until_it_is_free() {
        let ports = Ports::take().unwrap();
        let address = ports.free_address().unwrap();
        let taken = TcpListener::bind(address).unwrap();
        let around = || (1..BLOCK).any(|_| ports.free_address().unwrap() == address);
        assert!(!around());
        drop(taken);
        assert!(around());
    }
}
