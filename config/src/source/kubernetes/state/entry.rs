//! One ingress, as we keep it.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::revision::Key;
use crate::source::kubernetes::conflict::Arrival;
use crate::source::kubernetes::hash::{go_json, hash};
use crate::source::kubernetes::ingress::{Ingress, Spec};
use crate::source::kubernetes::status::{Balancers, Standing, Status};
use crate::source::kubernetes::translate::{self, Probe};

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) arrival: Arrival,
    pub(super) generation: i64,
    pub(super) wish: Wish,
    /// The object's, not ours.
    pub(super) status: Status,
    pub(super) standing: Standing,
    /// What is in the table for it.
    pub(super) live: Option<Live>,
    /// The hosts that are its own: of what is live, and of what it asks for unless another has one.
    pub(super) owned: Arc<BTreeSet<Box<str>>>,
    /// The object's, for writing its status.
    pub(super) version: Box<str>,
}

/// What an object asks for; all that its translation depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    /// The specification with its defaults, packed; or why there is none that means something.
    packed: Result<Box<str>, Arc<str>>,
    /// Empty without a specification.
    pub(super) hash: Box<str>,
    pub(super) hosts: Arc<BTreeSet<Box<str>>>,
    /// Services and Secrets of the same namespace that it names.
    pub(super) services: BTreeSet<Key>,
    pub(super) secrets: BTreeSet<Key>,
    /// It wants no HTTP/2 to its endpoints.
    pub(super) http1: bool,
}

/// What the running table has for an ingress.
#[derive(Clone, Debug, Default)]
pub(super) struct Live {
    pub(super) hash: Box<str>,
    pub(super) hosts: Arc<BTreeSet<Box<str>>>,
    pub(super) revisions: BTreeSet<Key>,
    pub(super) probes: Arc<[Probe]>,
}

/// What is left of an ingress that is not in the cluster any more.
#[derive(Debug, Default)]
pub(super) struct Removed {
    /// `None`: it has only been offered.
    pub(super) live: Option<Live>,
    /// Nobody else may have them until it is gone.
    pub(super) hosts: Arc<BTreeSet<Box<str>>>,
}

impl Wish {
    pub(super) fn of(object: &Ingress, key: &Key) -> Wish {
        let mut wish = Wish {
            packed: Err("".into()),
            hash: Box::default(),
            hosts: Arc::default(),
            services: BTreeSet::new(),
            secrets: BTreeSet::new(),
            http1: object.disables_http2(),
        };
        let spec = object
            .spec
            .0
            .as_ref()
            .map_err(|error| format!("spec: {error}"));
        let spec = spec.and_then(|spec| {
            let mut spec = spec.clone();
            spec.set_defaults();
            spec.validate(&key.namespace)?;
            Ok(spec)
        });
        let spec = match spec {
            Ok(spec) => spec,
            Err(error) => {
                wish.packed = Err(error.into());
                return wish;
            }
        };
        wish.hosts = Arc::new(translate::hosts(&spec));
        let paths = spec.rules.iter().flat_map(|rule| rule.paths());
        let splits = paths.flat_map(|path| path.splits());
        wish.services = splits.map(translate::service_key).collect();
        wish.secrets = spec.tls.iter().map(translate::secret_key).collect();
        let json = go_json(&spec);
        wish.hash = hash(&json, &key.namespace, &key.name);
        wish.packed = Ok(json.into());
        wish
    }

    pub(super) fn spec(&self) -> Result<Spec, Arc<str>> {
        let packed = self.packed.as_ref().map_err(Arc::clone)?;
        serde_json::from_str(packed).map_err(|error| error.to_string().into())
    }
}

impl Entry {
    /// Whether what is in the table for it stays as it is. A conflict is over only with another wish,
    /// or another's.
    pub(super) fn is_to_stay(&self) -> bool {
        matches!(self.standing, Standing::Conflict | Standing::HandedOver)
    }

    /// What its status ought to say, where that is not what it says; `now` in RFC 3339.
    pub(super) fn unsaid(&self, balancers: &Balancers, now: &str) -> Option<Status> {
        let said = self.status.is_ready(self.generation, balancers);
        match &self.standing {
            // Once it has been ready, only another generation takes that back.
            Standing::Asking | Standing::NotYet(_) | Standing::Ready if said => return None,
            Standing::HandedOver => return None,
            _ => {}
        }
        let status = self
            .status
            .after(self.generation, &self.standing, balancers, now);
        (status != self.status).then_some(status)
    }

    /// Whether what it asks for is in the table.
    pub(super) fn is_live(&self) -> bool {
        self.live
            .as_ref()
            .is_some_and(|live| live.hash == self.wish.hash)
    }
}
