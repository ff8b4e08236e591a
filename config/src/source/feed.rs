//! What sources bring apart from fragments: endpoints, which change far more often than routes and
//! touch one revision and no table, and certificates, which are no text.

use std::collections::BTreeSet;
use std::fmt::{self, Debug};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::fragment::Origin;
use crate::revision::Key;
use crate::settings::Audience;

/// The addresses of a revision, as its source knows them now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// Said to be ready, and not on their way out.
    pub ready: Vec<SocketAddr>,
    /// Neither ready nor on their way out.
    pub unready: Vec<SocketAddr>,
    /// Of Knative's revisions: an activator is in the path of requests, and that is us.
    pub proxied: bool,
    /// Of Knative's revisions: why it cannot start, in words that clients may read, if that is known
    /// and no pod is ready.
    pub failure: Option<Arc<str>>,
}

/// A certificate for names that routes answer on.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Names it is used for, like `example.com` and `*.example.com`, in lower case; `*` is for
    /// clients that ask for a name nobody else has, or for none.
    pub hosts: Vec<Box<str>>,
    /// Whose listeners use it.
    pub audience: Audience,
    /// PEM: the server's own certificate first, then those that lead to an authority.
    pub chain: Arc<[u8]>,
    /// PEM.
    pub key: Arc<[u8]>,
}

impl Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Keys do not belong into logs.
        f.debug_struct("Certificate")
            .field("hosts", &self.hosts)
            .field("audience", &self.audience)
            .finish_non_exhaustive()
    }
}

/// Where a source says which addresses revisions have, and which certificates routes. Calls return
/// at once.
pub trait Feed: Send + Sync + Debug {
    /// The whole set, in place of the one before. It may come before the revision does.
    fn addresses(&self, revision: &Key, now: Addresses);

    /// The source says nothing more about this revision.
    fn forget(&self, revision: &Key);

    /// The addresses of the gateway's replicas that get requests, ours perhaps among them.
    fn replicas(&self, now: &[IpAddr]);

    /// All certificates that come with what `origin` says, in place of those before.
    ///
    /// # Errors
    /// What is wrong with one of them, for people; then nothing has changed.
    fn certificates(&self, origin: &Origin, now: &[Certificate]) -> Result<(), String>;

    /// Origins that were accepted before, and whose fragments have had to give way to a file since
    /// this was asked last.
    fn take_overruled(&self) -> BTreeSet<Origin>;
}
