//! Which ingress has which host: the first to come keeps it, and those that came later wait.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::revision::Key;

/// Order of arrival; compared when several wait for the same host, or all are new.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Arrival {
    /// Refused before we started: whoever was served then goes first.
    pub(super) refused: bool,
    /// Seconds since 1970.
    pub(super) created: i64,
    pub(super) ingress: Key,
}

/// Hosts, their owners, and who waits for them.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    owners: HashMap<Box<str>, Key>,
    waiting: BTreeMap<Box<str>, BTreeSet<Arrival>>,
}

impl Hosts {
    /// Claims hosts for an ingress, all or none. It keeps those it has beside them until
    /// [`Hosts::keep_only`]. If another one has any, the ingress waits for all of those.
    pub(super) fn claim(&mut self, arrival: &Arrival, hosts: &BTreeSet<Box<str>>) -> bool {
        let taken = |host: &str| {
            let owner = self.owners.get(host);
            owner.is_some_and(|owner| *owner != arrival.ingress)
        };
        let taken: Vec<_> = hosts.iter().filter(|host| taken(host)).cloned().collect();
        if taken.is_empty() {
            let claimed = hosts
                .iter()
                .map(|host| (host.clone(), arrival.ingress.clone()));
            self.owners.extend(claimed);
            return true;
        }
        for host in taken {
            self.waiting
                .entry(host)
                .or_default()
                .insert(arrival.clone());
        }
        false
    }

    /// Lets go of those of `had` that are not in `hosts` any more; hands back who waits for one of
    /// them, in the order of arrival.
    pub(super) fn keep_only<'a>(
        &mut self,
        ingress: &Key,
        had: impl Iterator<Item = &'a Box<str>>,
        hosts: &BTreeSet<Box<str>>,
    ) -> BTreeSet<Arrival> {
        let mut next = BTreeSet::new();
        for host in had.filter(|host| !hosts.contains(*host)) {
            if self.owners.get(host).is_some_and(|owner| owner == ingress) {
                self.owners.remove(host);
                next.extend(self.waiting.get(host).into_iter().flatten().cloned());
            }
        }
        next
    }

    /// The ingress waits for nothing any more.
    pub(super) fn stop_waiting<'a>(
        &mut self,
        arrival: &Arrival,
        hosts: impl Iterator<Item = &'a Box<str>>,
    ) {
        for host in hosts {
            let Some(waiting) = self.waiting.get_mut(host) else {
                continue;
            };
            waiting.remove(arrival);
            if waiting.is_empty() {
                self.waiting.remove(host);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrival(created: i64, name: &str) -> Arrival {
        let ingress = Key {
            namespace: "ns".into(),
            name: name.into(),
        };
        Arrival {
            refused: false,
            created,
            ingress,
        }
    }

    fn set(hosts: &[&str]) -> BTreeSet<Box<str>> {
        hosts.iter().map(|host| (*host).into()).collect()
    }

    #[test]
    fn the_first_keeps_a_host_and_the_next_in_line_gets_it_afterwards() {
        let mut hosts = Hosts::default();
        let (first, late, later) = (arrival(1, "z"), arrival(2, "y"), arrival(3, "x"));
        assert!(hosts.claim(&first, &set(&["a", "b"])));
        assert!(!hosts.claim(&later, &set(&["b", "c"])));
        assert!(!hosts.claim(&late, &set(&["b"])));
        assert!(
            hosts.claim(&first, &set(&["b", "d"])),
            "its own hosts never stand in its way"
        );
        assert!(
            hosts.claim(&arrival(4, "w"), &set(&["c"])),
            "a refused ingress has claimed nothing"
        );
        let had = set(&["a", "b", "d"]);
        let next = hosts.keep_only(&first.ingress, had.iter(), &set(&["a"]));
        assert_eq!(next.into_iter().collect::<Vec<_>>(), [late.clone(), later]);
        assert!(hosts.claim(&late, &set(&["b"])));
    }

    #[test]
    fn who_stopped_waiting_is_not_called() {
        let mut hosts = Hosts::default();
        let (first, late) = (arrival(1, "a"), arrival(2, "b"));
        let wanted = set(&["h"]);
        assert!(hosts.claim(&first, &wanted) && !hosts.claim(&late, &wanted));
        hosts.stop_waiting(&late, wanted.iter());
        assert!(
            hosts
                .keep_only(&first.ingress, wanted.iter(), &set(&[]))
                .is_empty()
        );
        assert!(hosts.waiting.is_empty() && hosts.owners.is_empty());
    }
}
