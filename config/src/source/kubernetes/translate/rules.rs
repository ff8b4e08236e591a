//! The paths of an ingress → rules.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use super::{Probe, Untranslated, Work, text};
use crate::document::{self, At, Pairs, Reroute, Target};
use crate::source::kubernetes::ingress::{self, Path, Rule, Split};

/// Where certificate authorities look for what proves that a host is ours.
const ACME: &str = "/.well-known/acme-challenge/";

/// Visible, and in no URL (RFC 3986 §3.3): clients that keep to that encode them, and ours sends none.
const UNASKABLE: [char; 3] = ['<', '>', '`'];

/// A rule, and whose requests it is for.
pub(super) struct Found {
    pub(super) rule: document::Rule,
    /// Listeners outside the cluster serve it too.
    pub(super) external: bool,
    path: String,
    /// By name in lower case.
    headers: BTreeMap<String, String>,
}

impl Found {
    /// A request that it matches, on one of its hosts.
    pub(super) fn probe(&self, host: &str) -> Probe {
        let host = match host.strip_prefix("*.") {
            Some(domain) => format!("probe.{domain}").into(),
            None if host == "*" => "probe.invalid".into(),
            None => host.into(),
        };
        let value = |value: &String| if value.is_empty() { "probe" } else { value }.into();
        let headers = self.headers.iter();
        let headers = headers.map(|(name, exact)| (name.as_str().into(), value(exact)));
        Probe {
            host,
            path: self.path.as_str().into(),
            headers: headers.collect(),
        }
    }

    /// Whether it takes all requests that a later rule on the same path would match.
    fn comes_before(&self, headers: &BTreeMap<String, String>, external: bool) -> bool {
        // Internal listeners serve both, others only the external ones.
        let everywhere = self.external || !external;
        everywhere
            && self.headers.iter().all(|(name, exact)| {
                let other = headers.get(name);
                other.is_some_and(|other| exact.is_empty() || other == exact)
            })
    }
}

impl Work<'_> {
    /// The rules of a host, in order. Left out is what no request can match.
    pub(super) fn rules(&mut self, rules: &[&Rule]) -> Result<Vec<Found>, Untranslated> {
        let mut found: Vec<Found> = Vec::new();
        let mut by_path = HashMap::<String, Vec<usize>>::new();
        let redirects = self.wanted.spec.redirects();
        for rule in rules {
            let external = rule.is_external();
            for path in rule.paths() {
                let headers = matches(&path.headers);
                for prefix in prefixes(&path.path) {
                    let same = by_path.entry(prefix.clone().into_owned()).or_default();
                    let behind = |at: &usize| found[*at].comes_before(&headers, external);
                    if same.iter().any(behind) {
                        continue;
                    }
                    same.push(found.len());
                    let mut rule = self.rule(path, &prefix)?;
                    // An authority asks for its proof by plain HTTP.
                    let https_only = redirects && external && !prefix.starts_with(ACME);
                    rule.https_only = https_only.then_some(true);
                    found.push(Found {
                        rule,
                        external,
                        path: prefix.into_owned(),
                        headers: headers.clone(),
                    });
                }
            }
        }
        Ok(found)
    }

    fn rule(&mut self, path: &Path, prefix: &str) -> Result<document::Rule, Untranslated> {
        let mut rule = document::Rule {
            path: (prefix != "/").then(|| text(prefix)),
            path_exact: None,
            methods: None,
            headers: pairs(matches(&path.headers)),
            traffic: None,
            set_headers: pairs(set_headers(&path.append_headers)),
            set_response_headers: None,
            rewrite_host: None,
            rewrite_path: None,
            redirect: None,
            respond: None,
            reroute: None,
            timeout: None,
            priority: None,
            deadline: None,
            https_only: None,
        };
        let host = path.rewrite_host.as_str();
        if let ([split], false) = (path.splits(), host.is_empty())
            && self.is_ourselves(split)
        {
            // What a domain mapping does: another of our routes, without the way through the
            // network.
            let mut headers = set_headers(&split.append_headers);
            headers.extend(set_headers(&path.append_headers));
            rule.set_headers = pairs(headers);
            rule.reroute = Some(Box::new(At::nowhere(Reroute { host: text(host) })));
            return Ok(rule);
        }
        rule.rewrite_host = (!host.is_empty()).then(|| text(host));
        let mut targets = Vec::new();
        for split in path.splits() {
            // What gets no requests has to be there as well.
            let revision = self.backend(split)?;
            if split.percent > 0 {
                targets.push(At::nowhere(target(path, split, &revision)));
            }
        }
        rule.traffic = Some(At::nowhere(targets));
        Ok(rule)
    }
}

/// The beginnings of raw paths that a path stands for; none, if no request has it: a raw path begins
/// with a slash and is visible ASCII. What no URL may hold comes percent-encoded from those who keep
/// to that, and as it is from others; the former first, for that is how a replica can be asked.
fn prefixes(path: &str) -> impl Iterator<Item = Cow<'_, str>> {
    let path = if path.is_empty() { "/" } else { path };
    let visible = |byte: u8| byte.is_ascii_graphic() && !b"?#".contains(&byte);
    let is_path = path.starts_with('/') && path.bytes().all(visible);
    let mut encoded = String::new();
    if path.contains(UNASKABLE) {
        for part in path.chars() {
            match UNASKABLE.contains(&part) {
                true => encoded.push_str(&format!("%{:02X}", u32::from(part))),
                false => encoded.push(part),
            }
        }
    }
    let encoded = (!encoded.is_empty()).then_some(Cow::Owned(encoded));
    let all = encoded.into_iter().chain([Cow::Borrowed(path)]);
    all.filter(move |_| is_path)
}

fn target(path: &Path, split: &Split, revision: &str) -> Target {
    // Those of the path win, so none of the split's may stand against them.
    let of_path = set_headers(&path.append_headers);
    let mut headers = set_headers(&split.append_headers);
    headers.retain(|name, _| {
        let same = |other: &String| other.eq_ignore_ascii_case(name);
        !of_path.keys().any(same)
    });
    Target {
        revision: text(revision),
        percent: Some(At::nowhere(split.percent)),
        tag: None,
        set_headers: pairs(headers),
    }
}

/// Conditions by name in lower case.
fn matches(headers: &BTreeMap<String, ingress::HeaderMatch>) -> BTreeMap<String, String> {
    let lower = |(name, value): (&String, &ingress::HeaderMatch)| {
        (name.to_ascii_lowercase(), value.exact.clone())
    };
    headers.iter().map(lower).collect()
}

/// Each name once, whatever its case: the last of those that differ in case alone.
fn set_headers(headers: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let by_lower: BTreeMap<String, (&String, &String)> = headers
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), (name, value)))
        .collect();
    let chosen = by_lower.into_values();
    chosen
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

fn pairs(headers: BTreeMap<String, String>) -> Option<Box<Pairs>> {
    let pairs = headers
        .into_iter()
        .map(|(name, value)| (text(&name), text(&value)));
    let pairs: Vec<_> = pairs.collect();
    (!pairs.is_empty()).then(|| Box::new(Pairs(pairs)))
}
