//! Connections to endpoints, one pool per worker, no lock. HTTP/1.1: the idle ones, last used first,
//! no task each. HTTP/2: those that streams share.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use activator::admission::EndpointId;
use hashbrown::HashMap;
use tokio::sync::Notify;

use super::h1::connection::Connection;
use super::h2::link::{Lease, Link};
use super::h2::quota::Quota;
use crate::serve::tls::endpoint::Dialer;

/// Most exchanges one connection to an endpoint carries.
const EXCHANGES_MAX: u32 = 10_000;

/// Most idle connections to one endpoint between two sweeps. A sweep brings what stayed unused
/// down to the configured number: a burst's connections survive the burst, not the lull after it.
const BURST_MAX: usize = 1024;

type ByEndpoint<T> = RefCell<HashMap<EndpointId, T, foldhash::fast::RandomState>>;

/// One worker's connections.
#[derive(Debug)]
pub struct Pool {
    idle: ByEndpoint<Shelf>,
    links: ByEndpoint<Links>,
    /// HTTP/2 connections that are being opened.
    opening: ByEndpoint<Rc<Opening>>,
    /// An idle connection older than this is closed.
    age_max: Duration,
    /// Unused connections kept per endpoint.
    spare_max: usize,
}

#[derive(Debug, Default)]
struct Shelf {
    connections: Vec<Idle>,
    /// Fewest that lay here since the last sweep: these were not needed.
    unused: usize,
}

/// The HTTP/2 connections to an endpoint.
#[derive(Debug, Default)]
struct Links {
    /// Oldest first, which are filled first, so that what a burst needed is let go after it.
    open: Vec<Rc<Link>>,
    /// Of each of them, and of those that still end.
    quota: Rc<Quota>,
}

impl Links {
    /// Whether nothing is lost with it.
    fn is_over(&self) -> bool {
        self.open.is_empty() && Rc::strong_count(&self.quota) == 1
    }
}

#[derive(Debug)]
struct Idle {
    connection: Box<Connection>,
    since: Instant,
}

impl Pool {
    #[must_use]
    pub fn new(age_max: Duration, spare_max: usize) -> Pool {
        Pool {
            idle: RefCell::default(),
            links: RefCell::default(),
            opening: RefCell::default(),
            age_max,
            spare_max,
        }
    }

    /// The connection to this endpoint that was used last. One that the endpoint has ended, on which
    /// it said something unasked, or that was not opened by `dialer`, is closed instead.
    #[must_use]
    pub fn take(
        &self,
        endpoint: EndpointId,
        dialer: Option<&Arc<Dialer>>,
    ) -> Option<Box<Connection>> {
        let mut idle = self.idle.borrow_mut();
        let shelf = idle.get_mut(&endpoint)?;
        while let Some(candidate) = shelf.connections.pop() {
            shelf.unused = shelf.unused.min(shelf.connections.len());
            let io = candidate.connection.io();
            if io.is_of(dialer) && !io.is_stirred() {
                return Some(candidate.connection);
            }
        }
        None
    }

    /// Keeps a clean connection for the next exchange.
    pub fn put(&self, endpoint: EndpointId, connection: Box<Connection>, now: Instant) {
        if connection.exchanges >= EXCHANGES_MAX || self.spare_max == 0 {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        let shelf = idle.entry(endpoint).or_default();
        if shelf.connections.len() < BURST_MAX {
            shelf.connections.push(Idle {
                connection,
                since: now,
            });
        }
    }

    /// Closes what is too old, ended by its endpoint, or more than needed. Call each few seconds.
    pub fn sweep(&self, now: Instant) {
        self.idle.borrow_mut().retain(|_, shelf| {
            let surplus = shelf.unused.saturating_sub(self.spare_max);
            // The front was used longest ago.
            shelf
                .connections
                .drain(..surplus.min(shelf.connections.len()));
            shelf.connections.retain(|idle| {
                now.saturating_duration_since(idle.since) < self.age_max
                    && !idle.connection.io().is_stirred()
            });
            shelf.unused = shelf.connections.len();
            !shelf.connections.is_empty()
        });
        self.links.borrow_mut().retain(|_, links| {
            let is_kept = |link: &Rc<Link>| !link.is_gone() && !self.is_too_old(link, now);
            links.open.retain(is_kept);
            !links.is_over()
        });
    }

    fn is_too_old(&self, link: &Link, now: Instant) -> bool {
        let unused = link.unused_since();
        unused.is_some_and(|since| now.saturating_duration_since(since) >= self.age_max)
    }

    /// Closes every idle connection.
    pub fn shrink(&self) {
        drop(self.idle.take());
        self.links.borrow_mut().retain(|_, links| {
            links.open.retain(|link| link.unused_since().is_none());
            !links.is_over()
        });
    }

    /// Closes every idle connection to an endpoint that failed: they share its fate.
    pub fn forget(&self, endpoint: EndpointId) {
        self.idle.borrow_mut().remove(&endpoint);
    }

    /// A stream on a shared connection to this endpoint, if one has room. None that was not opened
    /// by `dialer` gets another stream.
    #[must_use]
    pub fn lease(&self, endpoint: EndpointId, dialer: Option<&Arc<Dialer>>) -> Option<Lease> {
        let mut all = self.links.borrow_mut();
        let links = &mut all.get_mut(&endpoint)?.open;
        links.retain(|link| !link.is_gone() && link.is_of(dialer));
        links.iter().find_map(Link::lease)
    }

    /// How many streams a connection to this endpoint gets.
    #[must_use]
    pub fn quota(&self, endpoint: EndpointId) -> Rc<Quota> {
        let mut all = self.links.borrow_mut();
        all.entry(endpoint).or_default().quota.clone()
    }

    /// Adds a connection for streams to share.
    pub fn share(&self, endpoint: EndpointId, link: Rc<Link>) {
        self.links
            .borrow_mut()
            .entry(endpoint)
            .or_default()
            .open
            .push(link);
    }

    /// Whoever comes first opens a connection; who comes while it does so waits for it.
    #[must_use]
    pub fn open_or_wait(&self, endpoint: EndpointId) -> Turn<'_> {
        let mut opening = self.opening.borrow_mut();
        if let Some(opening) = opening.get(&endpoint) {
            return Turn::Wait(opening.clone());
        }
        let mine = Rc::new(Opening::default());
        opening.insert(endpoint, mine.clone());
        Turn::Open(Opener {
            pool: self,
            endpoint,
            opening: mine,
        })
    }
}

/// What to do where no shared connection has room.
#[derive(Debug)]
pub enum Turn<'a> {
    Open(Opener<'a>),
    Wait(Rc<Opening>),
}

/// A connection that is being opened.
#[derive(Debug, Default)]
pub struct Opening {
    ended: Notify,
    failed: Cell<bool>,
}

impl Opening {
    /// Waits until it is open, has failed, or whoever opened it has given up; whether it failed.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn ended(&self) -> bool {
        self.ended.notified().await;
        self.failed.get()
    }
}

/// Opens a connection for all who wait for one. Dropping it tells them.
#[derive(Debug)]
pub struct Opener<'a> {
    pool: &'a Pool,
    endpoint: EndpointId,
    opening: Rc<Opening>,
}

impl Opener<'_> {
    /// The endpoint cannot be reached: the others need not try.
    pub fn failed(&self) {
        self.opening.failed.set(true);
    }
}

impl Drop for Opener<'_> {
    fn drop(&mut self) {
        self.pool.opening.borrow_mut().remove(&self.endpoint);
        self.opening.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::Write as _;
    use std::net::{SocketAddr, TcpListener, TcpStream};

    use super::*;
    use crate::serve::buffers::Buffers;
    use crate::serve::io::Io;

    const AGE_MAX: Duration = Duration::from_secs(55);
    const HERE: EndpointId = EndpointId(1);
    const ELSEWHERE: EndpointId = EndpointId(2);

    fn listener() -> TcpListener {
        TcpListener::bind("127.0.0.1:0").unwrap()
    }

    /// A connection, and the endpoint's end of it.
    async fn connection(listener: &TcpListener) -> (Box<Connection>, TcpStream) {
        let address = listener.local_addr().unwrap();
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let (theirs, _address) = listener.accept().unwrap();
        let connection = Connection::new(Io::Plain(stream), &Buffers::new());
        (Box::new(connection), theirs)
    }

    /// Which connection it is.
    fn name(connection: &Connection) -> SocketAddr {
        match connection.io() {
            Io::Plain(stream) => stream.local_addr().unwrap(),
            Io::Tls(_) | Io::Memory { .. } => panic!("not a plain socket"),
        }
    }

    /// A pool with this many connections, the first put there first; their names, and the
    /// endpoint's ends.
    async fn filled(spare_max: usize, count: usize) -> (Pool, Vec<SocketAddr>, Vec<TcpStream>) {
        let pool = Pool::new(AGE_MAX, spare_max);
        let listener = listener();
        let (mut names, mut ends) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let (connection, theirs) = connection(&listener).await;
            names.push(name(&connection));
            ends.push(theirs);
            pool.put(HERE, connection, Instant::now());
        }
        (pool, names, ends)
    }

    /// What is taken until there is no more.
    fn drained(pool: &Pool) -> Vec<SocketAddr> {
        std::iter::from_fn(|| pool.take(HERE, None))
            .map(|connection| name(&connection))
            .collect()
    }

    #[tokio::test]
    async fn the_connection_used_last_is_used_next_and_only_for_its_endpoint() {
        let (pool, mut names, _ends) = filled(8, 3).await;
        assert!(pool.take(ELSEWHERE, None).is_none());
        names.reverse();
        assert_eq!(drained(&pool), names);
    }

    #[tokio::test]
    async fn a_connection_that_ended_or_spoke_unasked_is_not_used() {
        let spoke = |mut end: TcpStream| {
            end.write_all(b"HTTP/1.1 408 Slow\r\n\r\n").unwrap();
            Some(end)
        };
        let half_closed = |end: TcpStream| {
            end.shutdown(std::net::Shutdown::Write).unwrap();
            Some(end)
        };
        let reset = |end: TcpStream| {
            let at_once = Some(Duration::ZERO);
            socket2::SockRef::from(&end).set_linger(at_once).unwrap();
            None
        };
        let ways: [fn(TcpStream) -> Option<TcpStream>; 3] = [spoke, half_closed, reset];
        for (stir, swept) in ways.iter().flat_map(|stir| [(stir, false), (stir, true)]) {
            let (pool, names, mut ends) = filled(8, 2).await;
            let _open = ends.pop().and_then(stir);
            poll_fn(|cx| {
                let idle = pool.idle.borrow();
                idle[&HERE].connections[1].connection.io().poll_readable(cx)
            })
            .await;
            if swept {
                pool.sweep(Instant::now());
                assert_eq!(pool.idle.borrow()[&HERE].connections.len(), 1);
            }
            assert_eq!(drained(&pool), names[..1]);
        }
    }

    #[tokio::test]
    async fn what_two_sweeps_found_unused_is_trimmed_from_the_oldest() {
        let (pool, mut names, _ends) = filled(2, 5).await;
        pool.sweep(Instant::now());
        assert_eq!(pool.idle.borrow()[&HERE].connections.len(), 5);
        // Four are in use at once: only one was not needed.
        let used: Vec<_> = std::iter::from_fn(|| pool.take(HERE, None))
            .take(4)
            .collect();
        for connection in used.into_iter().rev() {
            pool.put(HERE, connection, Instant::now());
        }
        pool.sweep(Instant::now());
        assert_eq!(pool.idle.borrow()[&HERE].connections.len(), 5);
        pool.sweep(Instant::now());
        names.reverse();
        assert_eq!(drained(&pool), names[..2]);
    }

    #[tokio::test]
    async fn the_old_the_spent_and_the_forgotten_are_closed() {
        let (pool, names, _ends) = filled(8, 2).await;
        let listener = listener();
        let later = Instant::now() + AGE_MAX;
        let (fresh, _end) = connection(&listener).await;
        let fresh_name = name(&fresh);
        pool.put(HERE, fresh, later);
        pool.sweep(later + Duration::from_secs(1));
        assert_eq!(drained(&pool), [fresh_name], "{names:?} were too old");

        let (mut spent, _end) = connection(&listener).await;
        spent.exchanges = EXCHANGES_MAX;
        pool.put(HERE, spent, later);
        assert!(pool.take(HERE, None).is_none());

        let (idle, _end) = connection(&listener).await;
        pool.put(HERE, idle, later);
        pool.shrink();
        assert!(pool.take(HERE, None).is_none());

        let (forgotten, _end) = connection(&listener).await;
        pool.put(HERE, forgotten, later);
        pool.forget(HERE);
        assert!(pool.take(HERE, None).is_none());

        let (pool, _names, _ends) = filled(0, 1).await;
        assert!(pool.take(HERE, None).is_none());
    }
}
