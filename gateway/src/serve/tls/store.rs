//! Certificates that sources bring with routes, by the name they are for. Read once a handshake,
//! changed one origin at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use config::settings::Audience;
use config::source::Origin;
use config::source::feed::Certificate;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::provider;

/// Of all listeners.
#[derive(Debug, Default)]
pub struct Store {
    public: Names,
    internal: Names,
    activator: Names,
    /// What is in use, by who brought it.
    brought: Mutex<HashMap<Origin, Vec<Brought>>>,
}

#[derive(Debug)]
struct Brought {
    said: Certificate,
    certified: Arc<CertifiedKey>,
}

/// Certificates of one audience. The first that was brought for a name is used.
#[derive(Debug, Default)]
struct Names(RwLock<HashMap<Box<str>, Vec<Arc<CertifiedKey>>>>);

impl Store {
    /// Uses these in place of what this origin brought before.
    ///
    /// # Errors
    /// What is wrong with one of them; then nothing has changed.
    pub fn replace(&self, origin: &Origin, now: &[Certificate]) -> Result<(), String> {
        let mut all = self.brought.lock().unwrap_or_else(PoisonError::into_inner);
        let before = all.get(origin).map_or(&[][..], Vec::as_slice);
        if before.iter().map(|brought| &brought.said).eq(now) {
            return Ok(());
        }
        let mut next = Vec::with_capacity(now.len());
        for said in now {
            let known = before
                .iter()
                .find(|brought| is_same_pair(&brought.said, said));
            next.push(Brought {
                certified: match known {
                    Some(known) => known.certified.clone(),
                    None => certified(said)?,
                },
                said: said.clone(),
            });
        }
        // New ones first: no name is without a certificate in between.
        for brought in &next {
            self.names(brought.said.audience)
                .add(&brought.said.hosts, &brought.certified);
        }
        let before = match next.is_empty() {
            true => all.remove(origin),
            false => all.insert(origin.clone(), next),
        };
        for brought in before.iter().flatten() {
            self.names(brought.said.audience)
                .remove(&brought.said.hosts, &brought.certified);
        }
        Ok(())
    }

    /// The certificate for a name in lower case, exact or by the longest wildcard; for `*`, the one
    /// for whoever has no other.
    pub(super) fn find(&self, name: &str, audience: Audience) -> Option<Arc<CertifiedKey>> {
        self.names(audience).find(name)
    }

    fn names(&self, of: Audience) -> &Names {
        match of {
            Audience::Public => &self.public,
            Audience::Internal => &self.internal,
            Audience::Activator => &self.activator,
        }
    }
}

impl Names {
    fn add(&self, hosts: &[Box<str>], certified: &Arc<CertifiedKey>) {
        let mut names = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for host in hosts {
            names
                .entry(host.clone())
                .or_default()
                .push(certified.clone());
        }
    }

    /// Takes away one use of it for each of these names.
    fn remove(&self, hosts: &[Box<str>], certified: &Arc<CertifiedKey>) {
        let mut names = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for host in hosts {
            let Some(known) = names.get_mut(host) else {
                continue;
            };
            if let Some(place) = known.iter().position(|one| Arc::ptr_eq(one, certified)) {
                known.remove(place);
            }
            if known.is_empty() {
                names.remove(host);
            }
        }
    }

    fn find(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let names = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let first = |name: &str| names.get(name).and_then(|known| known.first()).cloned();
        let wildcard = || {
            let mut dots = name.match_indices('.').map(|(at, _)| at);
            dots.find_map(|dot| first(&format!("*{}", &name[dot..])))
        };
        first(name).or_else(wildcard)
    }
}

fn is_same_pair(one: &Certificate, other: &Certificate) -> bool {
    one.chain == other.chain && one.key == other.key
}

fn certified(said: &Certificate) -> Result<Arc<CertifiedKey>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&said.chain).collect();
    let chain = chain.map_err(|error| format!("the certificate is not PEM: {error}"))?;
    if chain.is_empty() {
        return Err("there is no certificate in PEM".to_owned());
    }
    let key = PrivateKeyDer::from_pem_slice(&said.key)
        .map_err(|error| format!("there is no key to be used: {error}"))?;
    let made = CertifiedKey::from_der(chain, key, &provider());
    let certified = made.map_err(|error| format!("certificate and key are no pair: {error}"))?;
    Ok(Arc::new(certified))
}

#[cfg(test)]
mod tests {
    use super::super::testing::Authority;
    use super::*;

    fn certificate(hosts: &[&str], internal: bool) -> Certificate {
        let audience = audience(internal);
        let pair = Authority::new().issue(hosts);
        Certificate {
            hosts: hosts.iter().map(|host| (*host).into()).collect(),
            audience,
            chain: pair.cert.as_bytes().into(),
            key: pair.key.as_bytes().into(),
        }
    }

    fn audience(internal: bool) -> Audience {
        match internal {
            true => Audience::Internal,
            false => Audience::Public,
        }
    }

    fn origin(name: &str) -> Origin {
        Origin::Kubernetes(name.into())
    }

    #[test]
    fn each_audience_finds_its_own_by_name_and_by_the_longest_wildcard() {
        let store = Store::default();
        let all = [
            certificate(&["a.test"], false),
            certificate(&["*.test"], false),
            certificate(&["*.b.test"], false),
            certificate(&["a.test"], true),
        ];
        store.replace(&origin("one"), &all).unwrap();
        let found = |name: &str, internal| store.find(name, audience(internal));
        let exact = found("a.test", false).unwrap();
        let other = found("x.test", false).unwrap();
        let longest = found("x.b.test", false).unwrap();
        let inner = found("a.test", true).unwrap();
        for pair in [(&exact, &other), (&other, &longest), (&exact, &inner)] {
            assert!(!Arc::ptr_eq(pair.0, pair.1));
        }
        assert!(found("test", false).is_none() && found("x.test", true).is_none());
    }

    #[test]
    fn what_an_origin_no_longer_brings_is_no_longer_used() {
        let store = Store::default();
        let (old, new) = (
            certificate(&["a.test"], false),
            certificate(&["a.test"], false),
        );
        store
            .replace(&origin("one"), std::slice::from_ref(&old))
            .unwrap();
        let first = store.find("a.test", Audience::Public).unwrap();
        store
            .replace(&origin("two"), std::slice::from_ref(&new))
            .unwrap();
        assert!(Arc::ptr_eq(
            &first,
            &store.find("a.test", Audience::Public).unwrap()
        ));
        store.replace(&origin("one"), &[]).unwrap();
        let second = store.find("a.test", Audience::Public).unwrap();
        assert!(!Arc::ptr_eq(&first, &second));
        // The same pair for another name stays as it is.
        let wider = Certificate {
            hosts: vec!["a.test".into(), "b.test".into()],
            ..new
        };
        store.replace(&origin("two"), &[wider]).unwrap();
        assert!(Arc::ptr_eq(
            &second,
            &store.find("b.test", Audience::Public).unwrap()
        ));
        store.replace(&origin("two"), &[]).unwrap();
        assert!(store.find("a.test", Audience::Public).is_none());
    }

    #[test]
    fn a_pair_that_is_none_changes_nothing() {
        let store = Store::default();
        let good = certificate(&["a.test"], false);
        store
            .replace(&origin("one"), std::slice::from_ref(&good))
            .unwrap();
        let other = certificate(&["b.test"], false);
        for (chain, key, said) in [
            (
                b"x".as_slice().into(),
                good.key.clone(),
                "there is no certificate",
            ),
            (
                good.chain.clone(),
                b"x".as_slice().into(),
                "there is no key",
            ),
            (good.chain.clone(), other.key.clone(), "are no pair"),
        ] {
            let bad = Certificate {
                chain,
                key,
                ..other.clone()
            };
            let error = store.replace(&origin("one"), &[bad]).unwrap_err();
            assert!(error.contains(said), "{error}");
            assert!(store.find("a.test", Audience::Public).is_some());
            assert!(store.find("b.test", Audience::Public).is_none());
        }
    }
}
