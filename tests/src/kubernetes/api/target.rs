//! What a request is about, as its path and query say.

use std::collections::HashMap;

use super::failure::Failure;
use super::rules::Part;
use crate::kubernetes::Kind;

/// The objects or the object of a path.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) kind: Kind,
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
    pub(super) part: Part,
}

impl Target {
    /// `find` knows kinds by group, version and plural.
    pub(super) fn parse(
        path: &str,
        find: impl Fn(&str, &str, &str) -> Option<Kind>,
    ) -> Result<Target, Failure> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (group, version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return Err(Failure::no_such_path()),
        };
        // `namespaces/NAME` alone is an object, `namespaces/NAME/…` is what is in it.
        let (namespace, rest) = match rest {
            ["namespaces", namespace, plural, rest @ ..] if *plural != "status" => {
                let rest: Vec<&str> = [plural].into_iter().chain(rest).copied().collect();
                (Some((*namespace).to_owned()), rest)
            }
            rest => (None, rest.to_vec()),
        };
        let (plural, name, part) = match rest.as_slice() {
            [plural] => (plural, None, Part::Main),
            [plural, name] => (plural, Some((*name).to_owned()), Part::Main),
            [plural, name, "status"] => (plural, Some((*name).to_owned()), Part::Status),
            _ => return Err(Failure::no_such_path()),
        };
        let kind = find(group, version, plural).ok_or_else(Failure::no_such_path)?;
        let misplaced =
            kind.namespaced != namespace.is_some() && (name.is_some() || !kind.namespaced);
        if misplaced || (part == Part::Status && !kind.status) {
            return Err(Failure::no_such_path());
        }
        Ok(Target {
            kind,
            namespace,
            name,
            part,
        })
    }

    pub(super) fn resource(&self) -> String {
        match self.part {
            Part::Main => self.kind.plural.to_owned(),
            Part::Status => format!("{}/status", self.kind.plural),
        }
    }

    pub(super) fn verb(&self, method: &str, query: &str) -> &'static str {
        match (method, &self.name) {
            ("GET", _) if Query::parse(query).is_set("watch") => "watch",
            ("GET", Some(_)) => "get",
            ("GET", None) => "list",
            ("POST", _) => "create",
            ("PUT", _) => "update",
            ("PATCH", _) => "patch",
            ("DELETE", _) => "delete",
            _ => "",
        }
    }
}

/// A request's query.
#[derive(Debug)]
pub(super) struct Query(HashMap<String, String>);

impl Query {
    pub(super) fn parse(text: &str) -> Query {
        let pairs = form_urlencoded::parse(text.as_bytes());
        Query(pairs.into_owned().collect())
    }

    /// `""` where it is not there.
    pub(super) fn text(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    pub(super) fn is_set(&self, name: &str) -> bool {
        matches!(self.text(name), "true" | "1")
    }

    /// 0 where it is not there.
    pub(super) fn number(&self, name: &str) -> Result<u64, Failure> {
        match self.text(name) {
            "" => Ok(0),
            text => text
                .parse()
                .map_err(|error| Failure::new(400, format!("invalid {name} {text:?}: {error}"))),
        }
    }
}
