//! The ConfigMaps that Knative's gateways read: what they say to us, pure and typed.
//!
//! Keys for others (controllers, autoscaler, webhook, queue-proxy) are passed over, and so is `_example`. What is ours but has
//! no effect here is named by [`Settings::unheeded`], so that nobody believes that it has.

mod kourier;
mod leader_election;
mod logging;
mod network;
mod observability;
mod read;

use std::collections::BTreeMap;
use std::fmt;

pub use self::kourier::Kourier;
pub use self::leader_election::LeaderElection;
pub use self::logging::{Level, Logging};
pub use self::network::{Mesh, Network};
pub use self::observability::{DEFAULT_TEMPLATE, Observability};

/// What a ConfigMap holds.
pub type Data = BTreeMap<String, String>;

/// The maps that [`Settings::take`] knows, all in Knative's own namespace.
pub const NAMES: [&str; 5] = [
    kourier::NAME,
    leader_election::NAME,
    logging::NAME,
    network::NAME,
    observability::NAME,
];

/// What all maps say, each as it was when it was last good. At first, and once a map is gone, what
/// holds without it.
#[derive(Clone, Debug)]
pub struct Settings {
    pub kourier: Kourier,
    pub leader_election: LeaderElection,
    pub logging: Logging,
    pub network: Network,
    pub observability: Observability,
    check_template: CheckTemplate,
}

/// Whether a request log can be written by this template; if not, why.
pub type CheckTemplate = fn(&str) -> Result<(), String>;

/// A map says what it must not. Whatever it said before still holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadValue {
    pub map: &'static str,
    pub key: &'static str,
    pub value: String,
    /// What is wrong with the value, and what to write.
    pub problem: String,
}

/// Most bytes of a value that an error repeats.
const SHOWN_MAX: usize = 200;

impl fmt::Display for BadValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.value[..self.value.floor_char_boundary(SHOWN_MAX)];
        let cut = if shown.len() < self.value.len() {
            "..."
        } else {
            ""
        };
        let BadValue {
            map, key, problem, ..
        } = self;
        write!(
            f,
            "ConfigMap {map}, key {key}, value {shown:?}{cut}: {problem}"
        )
    }
}

impl std::error::Error for BadValue {}

/// A key that is set to something that has no effect here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unheeded {
    pub map: &'static str,
    pub key: &'static str,
    /// What holds, or what to do instead.
    pub instead: &'static str,
}

impl fmt::Display for Unheeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Unheeded { map, key, instead } = self;
        write!(
            f,
            "ConfigMap {map}, key {key} has no effect here: {instead}"
        )
    }
}

impl Settings {
    /// As without any map. `check_template` has the last word on the request log's template.
    #[must_use]
    pub fn new(check_template: CheckTemplate) -> Settings {
        Settings {
            kourier: Kourier::default(),
            leader_election: LeaderElection::default(),
            logging: Logging::default(),
            network: Network::default(),
            observability: Observability::default(),
            check_template,
        }
    }

    /// Takes in what a map holds now; `None` = it is gone. Whether anything is different because of
    /// it; never for a map that is not among [`NAMES`].
    ///
    /// # Errors
    /// The first value that is no good; then nothing has changed.
    pub fn take(&mut self, name: &str, data: Option<&Data>) -> Result<bool, BadValue> {
        let nothing = Data::new();
        let data = data.unwrap_or(&nothing);
        Ok(match name {
            kourier::NAME => replace(&mut self.kourier, Kourier::of(data)?),
            leader_election::NAME => replace(&mut self.leader_election, LeaderElection::of(data)?),
            logging::NAME => replace(&mut self.logging, Logging::of(data)?),
            network::NAME => replace(&mut self.network, Network::of(data)?),
            observability::NAME => {
                let now = Observability::of(data, self.check_template)?;
                replace(&mut self.observability, now)
            }
            _ => false,
        })
    }

    /// What is set and has no effect, for the log, in order.
    #[must_use]
    pub fn unheeded(&self) -> Vec<Unheeded> {
        let of_kourier = self.kourier.unheeded.iter();
        let of_observability = self.observability.unheeded.iter();
        let mut all: Vec<_> = of_kourier.chain(of_observability).copied().collect();
        all.extend(self.network.unheeded());
        all.extend(self.logging.unheeded());
        all.sort_unstable();
        all
    }
}

impl Default for Settings {
    /// Any template is taken for a good one.
    fn default() -> Settings {
        Settings::new(|_| Ok(()))
    }
}

/// Whether that makes a difference.
fn replace<T: PartialEq>(old: &mut T, new: T) -> bool {
    let changed = *old != new;
    *old = new;
    changed
}

#[cfg(test)]
mod tests;
