//! Endpoints that come apart from fragments: they change far more often than routes, and touch one
//! revision and no table.

use std::fmt::Debug;
use std::net::SocketAddr;

use crate::revision::Key;

/// The addresses of a revision, as its source knows them now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// Said to be ready, and not on their way out.
    pub ready: Vec<SocketAddr>,
    /// Neither ready nor on their way out.
    pub unready: Vec<SocketAddr>,
    /// Of Knative's revisions: an activator is in the path of requests, and that is us.
    pub proxied: bool,
}

/// Where a source says which addresses revisions have. Calls return at once.
pub trait Feed: Send + Sync + Debug {
    /// The whole set, in place of the one before. It may come before the revision does.
    fn addresses(&self, revision: &Key, now: Addresses);
    /// The source says nothing more about this revision.
    fn forget(&self, revision: &Key);
}
