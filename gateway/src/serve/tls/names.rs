//! Which certificate a client gets: by the name it asks for.

use std::collections::HashMap;
use std::sync::Arc;

use config::settings::Audience;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::store::Store;

/// The certificates of a listener by name: those that came with routes, then those that were
/// written; of each an exact one, else the longest wildcard; else the default, which is also for
/// clients that name nothing. Routes may bring a default of their own.
#[derive(Debug)]
pub(super) struct ByName {
    from_routes: Option<FromRoutes>,
    default: Option<Arc<CertifiedKey>>,
    exact: HashMap<Box<str>, Arc<CertifiedKey>>,
    /// Under what stands behind `*.`.
    wildcards: HashMap<Box<str>, Arc<CertifiedKey>>,
}

/// Where those are that come with routes, and for which audience.
#[derive(Clone, Debug)]
pub struct FromRoutes {
    pub store: Arc<Store>,
    pub audience: Audience,
}

impl Default for FromRoutes {
    /// None.
    fn default() -> FromRoutes {
        FromRoutes {
            store: Arc::default(),
            audience: Audience::Public,
        }
    }
}

impl ByName {
    pub(super) fn new(
        from_routes: Option<FromRoutes>,
        default: Option<Arc<CertifiedKey>>,
    ) -> ByName {
        ByName {
            from_routes,
            default,
            exact: HashMap::new(),
            wildcards: HashMap::new(),
        }
    }

    /// Uses a certificate for a name in lower case, or one like `*.suffix`, unless that has one.
    pub(super) fn add(&mut self, name: &str, certificate: &Arc<CertifiedKey>) {
        let (map, name) = match name.strip_prefix("*.") {
            Some(suffix) => (&mut self.wildcards, suffix),
            None => (&mut self.exact, name),
        };
        if !map.contains_key(name) {
            map.insert(name.into(), certificate.clone());
        }
    }

    /// Whether there is a certificate for a name in any case, apart from the default.
    pub(super) fn knows(&self, name: &str) -> bool {
        self.named(name).is_some()
    }

    /// Whether clients that name nothing, or a name that is not known, get a certificate.
    pub(super) fn has_default(&self) -> bool {
        self.default.is_some()
    }

    /// The certificate for a name in any case.
    fn find(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        self.named(name).or_else(|| self.default.clone())
    }

    /// The certificate for who asks for no name.
    fn nameless(&self) -> Option<Arc<CertifiedKey>> {
        self.brought("*").or_else(|| self.default.clone())
    }

    fn named(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let from_routes = self.brought(&name);
        if from_routes.is_some() {
            return from_routes;
        }
        if let Some(exact) = self.exact.get(&*name) {
            return Some(exact.clone());
        }
        let suffixes = name.match_indices('.').map(|(at, _)| &name[at + 1..]);
        let mut wildcards = suffixes.filter_map(|suffix| self.wildcards.get(suffix));
        let wildcard = wildcards.next().cloned();
        wildcard.or_else(|| self.brought("*"))
    }

    fn brought(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let from = self.from_routes.as_ref()?;
        from.store.find(name, from.audience)
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        match hello.server_name() {
            Some(name) => self.find(name),
            None => self.nameless(),
        }
    }
}

#[cfg(test)]
mod tests {
    use config::source::Origin;
    use config::source::feed::Certificate;

    use super::super::testing::{Authority, certified};
    use super::*;

    #[test]
    fn whoever_asks_an_activator_for_whatever_gets_what_is_for_everybody() {
        let store = Arc::new(Store::default());
        let authority = Authority::new();
        let pair = authority.issue(&["kn-routing"]);
        let brought = Certificate {
            hosts: vec!["*".into()],
            audience: Audience::Activator,
            chain: pair.cert.as_bytes().into(),
            key: pair.key.as_bytes().into(),
        };
        let origin = Origin::Kubernetes("secret a/b".into());
        store.replace(&origin, &[brought]).unwrap();
        let names = |audience, default| {
            let store = store.clone();
            ByName::new(Some(FromRoutes { store, audience }), default)
        };
        let activator = names(Audience::Activator, None);
        assert!(activator.knows("data-plane.knative.dev") && activator.knows("a"));
        assert!(activator.nameless().is_some());
        for audience in [Audience::Public, Audience::Internal] {
            let others = names(audience, None);
            assert!(!others.knows("data-plane.knative.dev") && others.nameless().is_none());
        }
        // What was written by name goes before it, the default after it.
        let (own, default) = (certified(&pair), certified(&pair));
        let mut both = names(Audience::Activator, Some(default.clone()));
        both.add("own.test", &own);
        assert!(Arc::ptr_eq(&both.find("own.test").unwrap(), &own));
        assert!(!Arc::ptr_eq(&both.find("b.test").unwrap(), &default));
        store.replace(&origin, &[]).unwrap();
        assert!(Arc::ptr_eq(&both.nameless().unwrap(), &default));
    }

    #[test]
    fn exact_goes_before_the_longest_wildcard_and_that_before_the_default() {
        let authority = Authority::new();
        let certificate = |name: &str| certified(&authority.issue(&[name]));
        let mut names = ByName::new(None, Some(certificate("default")));
        let mut known = Vec::new();
        for name in ["a.b.test", "*.b.test", "*.test", "*.c.b.test"] {
            let certificate = certificate(name);
            names.add(name, &certificate);
            known.push((name, certificate));
        }
        names.add("a.b.test", &certificate("late"));
        let cases = [
            ("a.b.test", "a.b.test"),
            ("A.B.Test", "a.b.test"),
            ("a.b.test.", "a.b.test"),
            ("x.b.test", "*.b.test"),
            ("x.y.b.test", "*.b.test"),
            ("x.c.b.test", "*.c.b.test"),
            ("c.b.test", "*.b.test"),
            ("b.test", "*.test"),
            ("test", "default"),
            ("elsewhere", "default"),
            ("xtest", "default"),
        ];
        for (asked, expected) in cases {
            let found = names.find(asked).unwrap();
            let named = known.iter().find(|(_, one)| Arc::ptr_eq(one, &found));
            let named = named.map_or("default", |(name, _)| *name);
            assert_eq!(named, expected, "{asked}");
            assert_eq!(names.knows(asked), expected != "default", "{asked}");
        }
    }
}
