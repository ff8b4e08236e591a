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
    /// Who has a host in the table: its owner, or somebody who is to leave it to the owner.
    served: HashMap<Box<str>, Key>,
}

impl Hosts {
    /// Claims hosts for an ingress, all or none. It keeps those it has beside them until
    /// [`Hosts::keep_only`]. If another one has any, the ingress waits for all of those. `Ok`: who has
    /// lost what it had been handed, as the one who was to leave wants it back; that is too late once
    /// it is `offered`.
    pub(super) fn claim(
        &mut self,
        arrival: &Arrival,
        hosts: &BTreeSet<Box<str>>,
        offered: impl Fn(&Key) -> bool,
    ) -> Result<BTreeSet<Key>, ()> {
        let taken = |host: &str| {
            let owner = self.owners.get(host);
            let owner = owner.filter(|owner| **owner != arrival.ingress);
            let is_ours = self.served.get(host) == Some(&arrival.ingress);
            owner.is_some_and(|owner| !is_ours || offered(owner))
        };
        let taken: Vec<_> = hosts.iter().filter(|host| taken(host)).cloned().collect();
        if taken.is_empty() {
            let mut lost = BTreeSet::new();
            for host in hosts {
                let ingress = arrival.ingress.clone();
                let before = self.owners.insert(host.clone(), ingress);
                lost.extend(before.filter(|before| *before != arrival.ingress));
            }
            return Ok(lost);
        }
        for host in taken {
            self.waiting
                .entry(host)
                .or_default()
                .insert(arrival.clone());
        }
        Err(())
    }

    pub(super) fn owner(&self, host: &str) -> Option<&Key> {
        self.owners.get(host)
    }

    /// Makes all hosts those of an ingress, which does not wait any more. Where somebody else has one
    /// in the table, it has to leave before.
    pub(super) fn hand_over(&mut self, arrival: &Arrival, hosts: &BTreeSet<Box<str>>) {
        for host in hosts {
            self.owners.insert(host.clone(), arrival.ingress.clone());
        }
        self.stop_waiting(arrival, hosts.iter());
    }

    /// Who has to leave a host before its owner can have it.
    pub(super) fn leaving(&self, host: &str) -> Option<&Key> {
        let served = self.served.get(host)?;
        (self.owners.get(host) != Some(served)).then_some(served)
    }

    /// The table has these hosts for an ingress, and not those that it `had`; hands back who had to
    /// wait for that.
    pub(super) fn serve(
        &mut self,
        ingress: &Key,
        had: &BTreeSet<Box<str>>,
        hosts: &BTreeSet<Box<str>>,
    ) -> BTreeSet<Key> {
        let mut next = BTreeSet::new();
        for host in had.difference(hosts) {
            if self.served.get(host) == Some(ingress) {
                self.served.remove(host);
                let owner = self.owners.get(host).filter(|owner| *owner != ingress);
                next.extend(owner.cloned());
            }
        }
        let served = hosts.iter().map(|host| (host.clone(), ingress.clone()));
        self.served.extend(served);
        next
    }

    /// Lets go of those of `had` that are not in `hosts` any more; hands back who waits for one of
    /// them, in the order of arrival. What somebody else still has in the table is that one's again.
    pub(super) fn keep_only<'a>(
        &mut self,
        ingress: &Key,
        had: impl Iterator<Item = &'a Box<str>>,
        hosts: &BTreeSet<Box<str>>,
    ) -> BTreeSet<Arrival> {
        let mut next = BTreeSet::new();
        for host in had.filter(|host| !hosts.contains(*host)) {
            if self.owners.get(host) != Some(ingress) {
                continue;
            }
            match self.served.get(host) {
                Some(served) => drop(self.owners.insert(host.clone(), served.clone())),
                None => drop(self.owners.remove(host)),
            }
            next.extend(self.waiting.get(host).into_iter().flatten().cloned());
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

    fn claim(
        hosts: &mut Hosts,
        arrival: &Arrival,
        wanted: &BTreeSet<Box<str>>,
    ) -> Result<BTreeSet<Key>, ()> {
        hosts.claim(arrival, wanted, |_| false)
    }

    fn set(hosts: &[&str]) -> BTreeSet<Box<str>> {
        hosts.iter().map(|host| (*host).into()).collect()
    }

    #[test]
    fn the_first_keeps_a_host_and_the_next_in_line_gets_it_afterwards() {
        let mut hosts = Hosts::default();
        let (first, late, later) = (arrival(1, "z"), arrival(2, "y"), arrival(3, "x"));
        assert!(claim(&mut hosts, &first, &set(&["a", "b"])).is_ok());
        assert!(claim(&mut hosts, &later, &set(&["b", "c"])).is_err());
        assert!(claim(&mut hosts, &late, &set(&["b"])).is_err());
        assert!(
            claim(&mut hosts, &first, &set(&["b", "d"])).is_ok(),
            "its own hosts never stand in its way"
        );
        assert!(
            claim(&mut hosts, &arrival(4, "w"), &set(&["c"])).is_ok(),
            "a refused ingress has claimed nothing"
        );
        let had = set(&["a", "b", "d"]);
        let next = hosts.keep_only(&first.ingress, had.iter(), &set(&["a"]));
        assert_eq!(next.into_iter().collect::<Vec<_>>(), [late.clone(), later]);
        assert!(claim(&mut hosts, &late, &set(&["b"])).is_ok());
    }

    #[test]
    fn who_stopped_waiting_is_not_called() {
        let mut hosts = Hosts::default();
        let (first, late) = (arrival(1, "a"), arrival(2, "b"));
        let wanted = set(&["h"]);
        assert!(
            claim(&mut hosts, &first, &wanted).is_ok()
                && claim(&mut hosts, &late, &wanted).is_err()
        );
        hosts.stop_waiting(&late, wanted.iter());
        let next = hosts.keep_only(&first.ingress, wanted.iter(), &set(&[]));
        assert!(next.is_empty());
        assert!(hosts.waiting.is_empty() && hosts.owners.is_empty());
    }

    #[test]
    fn what_is_handed_over_goes_back_to_who_has_not_left_it() {
        let mut hosts = Hosts::default();
        let (old, new) = (arrival(1, "old"), arrival(2, "new"));
        let (wanted, none) = (set(&["h"]), set(&[]));
        assert!(claim(&mut hosts, &old, &wanted).is_ok());
        hosts.serve(&old.ingress, &none, &wanted);
        assert_eq!(hosts.leaving("h"), None);
        hosts.hand_over(&new, &wanted);
        assert_eq!(hosts.leaving("h"), Some(&old.ingress));
        // Who was to have it wants it no more.
        hosts.keep_only(&new.ingress, wanted.iter(), &none);
        assert_eq!(hosts.owner("h"), Some(&old.ingress));
        // Who was to leave wants to stay.
        hosts.hand_over(&new, &wanted);
        let lost = claim(&mut hosts, &old, &wanted).expect("it is its own");
        assert_eq!(lost, BTreeSet::from([new.ingress.clone()]));
        // Who leaves makes way.
        hosts.hand_over(&new, &wanted);
        let next = hosts.serve(&old.ingress, &wanted, &none);
        assert_eq!(next, BTreeSet::from([new.ingress.clone()]));
        assert_eq!(hosts.leaving("h"), None);
        assert_eq!(hosts.owner("h"), Some(&new.ingress));
    }
}
