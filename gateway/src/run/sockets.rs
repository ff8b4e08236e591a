//! The listening sockets of this run: inherited where somebody has them, bound where nobody does.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use config::settings::Settings;

use super::{Addresses, Listening, RunError};
use crate::serve::listeners::Group;
use crate::serve::takeover::{Kind, Takeover};

/// How often an address that is in use is tried again.
const LOOK: Duration = Duration::from_millis(50);

/// Sockets with which we were started, or that another process hands over.
#[derive(Debug)]
pub(super) struct Inherited {
    pub(super) takeover: Option<Takeover>,
    /// Each its own group: whoever made it may have made it for itself, so nothing can be bound
    /// beside it.
    given: Vec<Group>,
    /// Until when addresses that are in use are waited for.
    until: Instant,
}

impl Inherited {
    /// # Errors
    /// One of them is no listening socket.
    pub(super) fn new(
        takeover: Option<Takeover>,
        given: Vec<TcpListener>,
        patience: Duration,
    ) -> Result<Inherited, RunError> {
        let adopt = |socket: TcpListener| {
            let address = socket.local_addr()?;
            Group::adopt(address, vec![socket], true)
        };
        let given = given.into_iter().map(adopt).collect::<Result<_, _>>();
        let given = given.map_err(RunError::Given)?;
        Ok(Inherited {
            takeover,
            given,
            until: Instant::now() + patience,
        })
    }

    /// The sockets of an address, bound unless somebody has them.
    fn group(&mut self, kind: Kind, asked: SocketAddr) -> Result<Group, RunError> {
        let given = self.given.iter().position(|group| group.address() == asked);
        let given = given.map(|place| self.given.swap_remove(place));
        let handed = self.takeover.as_mut();
        // Both can only be the same socket, of which the one that runs may have more copies.
        if let Some(group) = handed.and_then(|handed| handed.find(kind, asked)).or(given) {
            return Ok(group);
        }
        let address = asked;
        self.bind(kind, asked)
            .map_err(|error| RunError::Bind { address, error })
    }

    fn bind(&self, kind: Kind, asked: SocketAddr) -> io::Result<Group> {
        let mut told = false;
        loop {
            let bound = match kind {
                Kind::Listener => Group::bind(asked),
                Kind::Admin => Group::bind_single(asked),
            };
            let in_use = |error: &io::Error| error.kind() == io::ErrorKind::AddrInUse;
            if !bound.as_ref().is_err_and(in_use) || Instant::now() >= self.until {
                return bound;
            }
            if !told {
                tracing::warn!(address = %asked, "waiting for whoever uses this address to leave it");
                told = true;
            }
            std::thread::sleep(LOOK);
        }
    }

    /// # Errors
    /// We were given sockets that no listener is configured for.
    fn expect_none(&self) -> Result<(), RunError> {
        match self.given.as_slice() {
            [] => Ok(()),
            left => Err(RunError::Unmatched(
                left.iter().map(Group::address).collect(),
            )),
        }
    }
}

/// Sockets for every worker, each with the place of its listener among the settings'.
#[derive(Debug)]
pub(super) struct Sockets {
    pub(super) workers: Vec<Vec<(usize, TcpListener)>>,
    pub(super) admin: TcpListener,
    pub(super) addresses: Addresses,
    /// What the workers' are copies of; the admin's last.
    pub(super) groups: Vec<(Kind, Group)>,
}

impl Sockets {
    /// What metrics call the listeners.
    pub(super) fn labels(&self) -> Vec<String> {
        self.addresses
            .listeners
            .iter()
            .map(|listening| listening.address.to_string())
            .collect()
    }

    /// Claims every address before anything runs.
    ///
    /// # Errors
    /// An address cannot be had, or we were given one that is not asked for.
    pub(super) fn claim(
        settings: &Settings,
        workers: usize,
        inherited: &mut Inherited,
    ) -> Result<Sockets, RunError> {
        let mut of_workers: Vec<Vec<_>> = (0..workers).map(|_| Vec::new()).collect();
        let (mut listeners, mut groups) = (Vec::new(), Vec::new());
        // First what cannot be shared with a process that still runs: nobody is to wait in our sockets
        // while we wait for it.
        let admin = inherited.group(Kind::Admin, settings.admin)?;
        for (index, listener) in settings.listeners.iter().enumerate() {
            let mut group = inherited.group(Kind::Listener, listener.address)?;
            let address = group.address();
            let seats = group.seat(workers);
            let seats = seats.map_err(|error| RunError::Bind { address, error })?;
            for (sockets, seat) in of_workers.iter_mut().zip(seats) {
                sockets.extend(seat.into_iter().map(|socket| (index, socket)));
            }
            listeners.push(Listening {
                address,
                audience: listener.audience,
                secure: listener.tls.is_some(),
            });
            groups.push((Kind::Listener, group));
        }
        inherited.expect_none()?;
        let addresses = Addresses {
            listeners,
            admin: admin.address(),
        };
        let socket = admin.sockets()[0].try_clone()?;
        groups.push((Kind::Admin, admin));
        Ok(Sockets {
            workers: of_workers,
            admin: socket,
            addresses,
            groups,
        })
    }
}
