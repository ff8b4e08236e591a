//! Why a request goes where it goes, for people.

use std::sync::Arc;

use serde::Serialize;

use super::hosts::{Claim, Host, Pattern};
use super::rank::{Mismatch, check};
use super::{Query, Tagged, find_host};
use crate::snapshot::{Action, Route, Rule, Snapshot, Sticky, Target};

/// Rules passed over that are told one by one.
const PASSED_OVER_SHOWN: usize = 20;

/// What would become of a request. `Display` is what `tidegate explain` prints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// `NAMESPACE/NAME`; `None` is `no_route`.
    pub route: Option<String>,
    /// Counted from 1.
    pub rule: Option<u32>,
    /// Those the request may go to: one when a tag selected it, none when the rule answers itself.
    pub targets: Vec<ExplainedTarget>,
    /// The host or host pattern that matched.
    pub host: Option<String>,
    /// What matched, and what was passed over and why.
    pub why: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExplainedTarget {
    pub revision: String,
    /// What it gets.
    pub percent: u8,
    /// What is written: another number while a target waits until it is warm.
    pub asked: u8,
    pub tag: Option<String>,
}

impl std::fmt::Display for Explanation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.route {
            Some(route) => writeln!(f, "route {route}")?,
            None => writeln!(f, "no_route")?,
        }
        if let Some(rule) = self.rule {
            writeln!(f, "rule {rule}")?;
        }
        for target in &self.targets {
            write!(f, "target {} {}%", target.revision, target.percent)?;
            if let Some(tag) = &target.tag {
                write!(f, " {tag}")?;
            }
            if target.asked != target.percent {
                write!(f, " ({}% once all are warm)", target.asked)?;
            }
            writeln!(f)?;
        }
        if let Some(host) = &self.host {
            writeln!(f, "host {host}")?;
        }
        for why in &self.why {
            writeln!(f, "why {why}")?;
        }
        Ok(())
    }
}

/// Looks a request up as [`find`](super::find) does and says why.
#[must_use]
pub fn explain(snapshot: &Snapshot, query: &Query<'_>) -> Explanation {
    let mut explanation = Explanation::default();
    let asked = String::from_utf8_lossy(query.host);
    let Some((host, pattern)) = find_host(snapshot, query) else {
        let audience = match query.internal {
            true => "an internal",
            false => "a public",
        };
        let why = format!("no route answers on host `{asked}` on {audience} listener");
        explanation.why.push(why);
        return explanation;
    };
    explanation.host = Some(host.pattern(pattern));
    explanation.why.push(match pattern {
        Pattern::Exact => host.exact_why(),
        Pattern::Wildcard => "the longest wildcard that covers the host".to_owned(),
        Pattern::Any => "no other host matches, and `*` does".to_owned(),
    });
    let Some((route, rule)) = explain_rules(host, query, &mut explanation.why) else {
        let why = "no rule of this host matches, and other hosts are not tried";
        explanation.why.push(why.to_owned());
        return explanation;
    };
    explain_targets(&mut explanation, host, route, rule, query);
    explanation
}

/// Goes through the rules in order of precedence up to the one that matches.
fn explain_rules<'h>(
    host: &'h Host,
    query: &Query<'_>,
    why: &mut Vec<String>,
) -> Option<(&'h Arc<Route>, &'h Rule)> {
    let mut passed = 0;
    for (route, rule) in host.candidates() {
        let Err(reason) = explain_rule(route, rule, query) else {
            if passed > PASSED_OVER_SHOWN {
                why.push(format!(
                    "{} more rules were passed over",
                    passed - PASSED_OVER_SHOWN
                ));
            }
            why.push(format!(
                "rule {} of {} matches: {}",
                rule.number,
                route.key,
                conditions(rule)
            ));
            return Some((route, rule));
        };
        passed += 1;
        if passed <= PASSED_OVER_SHOWN {
            why.push(format!(
                "rule {} of {} was passed over: {reason}",
                rule.number, route.key
            ));
        }
    }
    None
}

fn explain_rule(route: &Route, rule: &Rule, query: &Query<'_>) -> Result<(), String> {
    if !route.serves(query.internal) {
        return Err("the route is cluster-local, the listener public".to_owned());
    }
    check(rule, query).map_err(|mismatch| match mismatch {
        Mismatch::Path => format!("the path is not {}", path_words(rule)),
        Mismatch::Method => format!("the method is none of {}", rule.methods.join(", ")),
        Mismatch::Header(name) => match rule.headers.iter().find(|header| *header.name == *name) {
            Some(header) if header.value.is_some() => {
                format!(
                    "header {name} is not `{}`",
                    header.value.as_deref().unwrap_or_default()
                )
            }
            _ => format!("there is no header {name}"),
        },
    })
}

fn path_words(rule: &Rule) -> String {
    match &rule.path {
        crate::snapshot::PathMatch::Prefix(prefix) => format!("below `{prefix}`"),
        crate::snapshot::PathMatch::Exact(exact) => format!("exactly `{exact}`"),
    }
}

fn conditions(rule: &Rule) -> String {
    let mut words = Vec::new();
    if !rule.path.text().is_empty() {
        words.push(format!("the path is {}", path_words(rule)));
    }
    if !rule.methods.is_empty() {
        words.push(format!("the method is one of {}", rule.methods.join(", ")));
    }
    for header in &rule.headers {
        words.push(match &header.value {
            Some(value) => format!("header {} is `{value}`", header.name),
            None => format!("header {} is present", header.name),
        });
    }
    match words.is_empty() {
        true => "it matches everything".to_owned(),
        false => words.join(", "),
    }
}

fn explain_targets(
    explanation: &mut Explanation,
    host: &Host,
    route: &Route,
    rule: &Rule,
    query: &Query<'_>,
) {
    let why = &mut explanation.why;
    let shown = |target: &Target| ExplainedTarget {
        revision: target.revision_key.name.to_string(),
        percent: target.percent,
        asked: target.asked,
        tag: target.tag.as_deref().map(str::to_owned),
    };
    match &rule.action {
        Action::Redirect(redirect) => why.push(format!("the rule redirects ({})", redirect.status)),
        Action::Respond(respond) => why.push(format!("the rule answers ({})", respond.status)),
        Action::Reroute(reroute) => why.push(format!(
            "the rule looks the request up once more, as for host {} at an internal listener",
            reroute.host
        )),
        Action::Forward(_) => match host.tag_for(|| rule, route, query) {
            Tagged::Target(target) => {
                let tag = target.tag.as_deref().unwrap_or_default();
                why.push(format!("tag `{tag}` selects its target"));
                explanation.targets.push(shown(target));
            }
            Tagged::Missing => {
                let problem = "the host's tag names no target of this rule or its route";
                why.push(problem.to_owned());
                return;
            }
            Tagged::No => {
                why.push(match &route.sticky {
                    Some(Sticky::Header(name)) => format!("sticky by header {name}"),
                    Some(Sticky::Cookie { name, .. }) => format!("sticky by cookie {name}"),
                    None => "drawn per request".to_owned(),
                });
                let split = route.split_of(rule).unwrap_or(&route.split);
                explanation.targets.extend(split.targets.iter().map(shown));
            }
        },
    }
    explanation.route = Some(route.key.to_string());
    explanation.rule = Some(rule.number);
}

impl Host {
    fn pattern(&self, pattern: Pattern) -> String {
        let name = String::from_utf8_lossy(&self.name);
        match pattern {
            Pattern::Exact => name.into_owned(),
            Pattern::Wildcard => format!("*.{name}"),
            Pattern::Any => "*".to_owned(),
        }
    }

    fn exact_why(&self) -> String {
        match &self.claim {
            Claim::One { route, .. } => format!("the host is one of route {}", route.key),
            Claim::Tag { route, .. } => format!("the host is a tag host of route {}", route.key),
            Claim::Shared(shared) => {
                let keys: Vec<_> = shared
                    .members
                    .iter()
                    .map(|route| route.key.to_string())
                    .collect();
                format!("the host is one of routes {}", keys.join(", "))
            }
        }
    }

    /// Every rule behind this host in order of precedence.
    fn candidates(&self) -> Vec<(&Arc<Route>, &Rule)> {
        match &self.claim {
            Claim::One { route, .. } | Claim::Tag { route, .. } => {
                route.rules.iter().map(|rule| (route, rule)).collect()
            }
            Claim::Shared(shared) => {
                let members = &shared.members;
                let pair = |ranked: &super::hosts::Ranked| {
                    (&members[ranked.member as usize], ranked.rule_in(members))
                };
                shared.ranked.iter().map(pair).collect()
            }
        }
    }
}
