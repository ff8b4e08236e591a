//! What buffers of TCP connections take in the kernel, and how much of that is ours.
//!
//! The kernel says how much all connections of the network namespace take. That is cheap to read, and
//! in a container it is ours. Elsewhere our share of it is told by the queues of each connection,
//! which is dear, so it is asked for only where it would make a difference.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::time::Duration;

/// The share is asked for again after this time.
const SHARE_AGE: Duration = Duration::from_millis(300);

/// Longest line of the kernel's tables that is looked at.
const LINE_BYTES_MAX: usize = 1024;

/// Queued bytes of our connections, and of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Share {
    ours: u64,
    all: u64,
}

/// Knows what connections take.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    share: Option<(Duration, Share)>,
}

impl Sockets {
    /// Bytes that our connections take, or all, if that is `enough` to know.
    pub(super) fn read(&mut self, now: Duration, enough: impl Fn(u64) -> bool) -> u64 {
        let text = std::fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
        let page = u64::try_from(rustix::param::page_size()).unwrap_or(0);
        let all = pages(&text).unwrap_or(0).saturating_mul(page);
        if enough(all) {
            return all;
        }
        let known = self
            .share
            .filter(|(at, _)| now.saturating_sub(*at) < SHARE_AGE);
        let share = match known {
            Some((_, share)) => share,
            None => {
                let share = share();
                self.share = Some((now, share));
                share
            }
        };
        of(all, share)
    }
}

/// The part of `all` that a share of the queues stands for.
fn of(all: u64, share: Share) -> u64 {
    if share.all == 0 || share.ours >= share.all {
        return all;
    }
    let part = u128::from(all) * u128::from(share.ours) / u128::from(share.all);
    u64::try_from(part).unwrap_or(all)
}

/// `TCP: inuse 1 orphan 0 tw 0 alloc 1 mem 246`
fn pages(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("TCP:"))?;
    let mut words = line.split_whitespace();
    words.find(|word| *word == "mem")?;
    words.next()?.parse().ok()
}

/// Asks the kernel about every connection.
fn share() -> Share {
    let ours = own();
    let mut sum = Share { ours: 0, all: 0 };
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let Ok(file) = File::open(table) else {
            continue;
        };
        let mut reader = BufReader::new(file);
        let mut line = String::new();
        while read_line(&mut reader, &mut line) {
            let Some((inode, queued)) = queues(&line) else {
                continue;
            };
            sum.all = sum.all.saturating_add(queued);
            if ours.contains(&inode) {
                sum.ours = sum.ours.saturating_add(queued);
            }
        }
    }
    sum
}

fn read_line(reader: &mut impl BufRead, line: &mut String) -> bool {
    line.clear();
    let mut bounded = std::io::Read::take(reader, LINE_BYTES_MAX as u64);
    bounded.read_line(line).is_ok_and(|count| count > 0)
}

/// The numbers of our sockets.
fn own() -> HashSet<u64> {
    let Ok(descriptors) = std::fs::read_dir("/proc/self/fd") else {
        return HashSet::new();
    };
    let links = descriptors.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    links.filter_map(|link| inode(link.to_str()?)).collect()
}

/// `socket:[4026531840]`
fn inode(link: &str) -> Option<u64> {
    let number = link.strip_prefix("socket:[")?.strip_suffix(']')?;
    number.parse().ok()
}

/// The socket's number and what is queued in both directions, of a line like `0: 0100007F:1F90
/// 00000000:0000 01 00000000:00000000 00:00000000 00000000 0 0 12345 …`.
fn queues(line: &str) -> Option<(u64, u64)> {
    let mut words = line.split_ascii_whitespace().skip(4);
    let (sent, received) = words.next()?.split_once(':')?;
    let hex = |text| u64::from_str_radix(text, 16).ok();
    let queued = hex(sent)?.saturating_add(hex(received)?);
    let inode = words.nth(4)?.parse().ok()?;
    Some((inode, queued))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_tables_of_the_kernel_are_understood() {
        let sockstat = "sockets: used 15\nTCP: inuse 1 orphan 0 tw 0 alloc 1 mem 246\nUDP: mem 9\n";
        assert_eq!(pages(sockstat), Some(246));
        assert_eq!(pages("TCP: inuse 1\n"), None);
        assert_eq!(pages("TCP: inuse 1 mem\n"), None);
        let head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt";
        assert_eq!(queues(head), None);
        let line = "   0: 0100007F:8A1F 0100007F:1F90 01 00000010:0000000F 01:00000014 00000000 \
                    0        0 123456 2 0000000000000000 20 4 30 10 -1";
        assert_eq!(queues(line), Some((123_456, 31)));
        assert_eq!(inode("socket:[77]"), Some(77));
        assert_eq!(inode("anon_inode:[eventpoll]"), None);
    }

    #[test]
    fn our_share_is_told_by_the_queues() {
        assert_eq!(of(1000, Share { ours: 1, all: 4 }), 250);
        assert_eq!(of(1000, Share { ours: 0, all: 4 }), 0);
        assert_eq!(of(1000, Share { ours: 0, all: 0 }), 1000);
        let most = u64::MAX;
        assert_eq!(
            of(
                most,
                Share {
                    ours: most - 1,
                    all: most
                }
            ),
            most - 1
        );
    }

    #[test]
    fn bytes_that_nobody_reads_are_found_as_ours() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(&[1; 20_000]).unwrap();
        let queued = || share().ours;
        while queued() < 20_000 {
            std::thread::yield_now();
        }
        server.read_exact(&mut [0; 20_000]).unwrap();
        let mut sockets = Sockets::default();
        let now = Duration::from_secs(5);
        sockets.read(now, |_| true);
        assert_eq!(sockets.share, None, "nobody needed to know");
        let ours = sockets.read(now, |_| false);
        let (at, _) = sockets.share.unwrap();
        assert_eq!(at, now);
        assert!(ours <= sockets.read(now, |_| true).max(ours));
    }

    proptest! {
        #[test]
        fn whatever_is_read_is_borne(text in ".{0,300}") {
            let _any = (pages(&text), queues(&text), inode(&text));
        }
    }
}
