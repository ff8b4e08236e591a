//! The rules of a route.

use std::sync::Arc;
use std::time::Duration;

use thin_vec::ThinVec;

use super::super::check::{self, HeaderUse};
use super::super::report::{MAPPING, Path};
use super::{Work, said};
use crate::at::{At, Mark};
use crate::document::{self, DurationText};
use crate::route::{precedence, same_rules};
use crate::snapshot::{
    Action, Forward, HeaderMatch, PathMatch, Redirect, Reroute, Respond, Rule, SetHeaders, Urgency,
};

const RULES_MAX: usize = 1024;
const METHODS_MAX: usize = 64;
const BODY_BYTES_MAX: usize = 64 * 1024;
const REDIRECTS: [i64; 5] = [301, 302, 303, 307, 308];
const REDIRECT_STATUS: u16 = 301;
const CONTENT_TYPE: &str = "text/plain; charset=utf-8";

impl Work<'_, '_> {
    /// In order of precedence.
    pub(super) fn rules(
        &mut self,
        path: &Path<'_>,
        written: &document::Route,
        of_route: &Urgency,
    ) -> Arc<[Rule]> {
        let rules = match &written.rules {
            Some(rules) if !rules.is_empty() => rules,
            _ => {
                if written.traffic.is_none() {
                    let hint = "add `traffic: [{revision: NAME}]`, or `rules`";
                    let (mark, name) = (written.name.mark, &written.name.value);
                    self.report
                        .add(path, mark, name, "neither `traffic` nor `rules`", hint);
                }
                return Rule::implicit();
            }
        };
        let path = &path.key("rules");
        check::at_most(self.report, path, rules[0].mark, rules.len(), RULES_MAX);
        let compiled = rules.iter().enumerate();
        let order = written.order.as_deref();
        let mut compiled: Vec<Rule> = compiled
            .map(|(index, rule)| {
                let place = order.and_then(|order| order.get(index).copied());
                let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
                Rule {
                    number: place.unwrap_or(number),
                    in_order: place.is_some(),
                    ..self.rule(&path.item(index), rule, of_route)
                }
            })
            .collect();
        for (first, again) in same_rules(compiled.iter()) {
            for (one, other) in [(first, again), (again, first)] {
                let problem = "two rules match the same requests";
                let place = rule_place(&rules[other]);
                let hint = format!("merge it with rule {} at line {}", other + 1, place.0.line);
                let (mark, key, value) = rule_place(&rules[one]);
                let path = path.item(one);
                match key {
                    Some(key) => self.report.add(&path.key(key), mark, value, problem, hint),
                    None => self.report.add(&path, mark, value, problem, hint),
                }
            }
        }
        compiled.sort_by(precedence);
        compiled.into()
    }

    fn rule(&mut self, path: &Path<'_>, at: &At<document::Rule>, of_route: &Urgency) -> Rule {
        let written = &at.value;
        let set = written.set_response_headers.as_deref();
        let set_path = &path.key("setResponseHeaders");
        Rule {
            number: 0,
            in_order: false,
            https_only: written.https_only.unwrap_or_default(),
            path: self.path_match(path, written),
            methods: self.methods(&path.key("methods"), written),
            headers: self.header_matches(&path.key("headers"), written),
            action: self.action(path, at, of_route),
            set_response_headers: check::headers(self.report, set_path, set, HeaderUse::Set).into(),
        }
    }

    fn path_match(&mut self, path: &Path<'_>, written: &document::Rule) -> PathMatch {
        if let (Some(_), Some(exact)) = (&written.path, &written.path_exact) {
            let hint = "keep one of them";
            let (path, mark) = (&path.key("pathExact"), exact.mark);
            self.report.add(
                path,
                mark,
                &exact.value,
                "both `path` and `pathExact`",
                hint,
            );
        }
        match (&written.path, &written.path_exact) {
            (_, Some(exact)) => {
                PathMatch::Exact(check::raw_path(self.report, &path.key("pathExact"), exact))
            }
            (Some(prefix), None) => {
                PathMatch::Prefix(check::raw_path(self.report, &path.key("path"), prefix))
            }
            (None, None) => PathMatch::Prefix("".into()),
        }
    }

    fn methods(&mut self, path: &Path<'_>, written: &document::Rule) -> ThinVec<Box<str>> {
        let written = written.methods.as_deref().unwrap_or_default();
        for (index, at) in written.iter().enumerate() {
            let path = &path.item(index);
            if !check::is_token(&at.value) {
                let hint = "write a method like GET";
                self.report
                    .add(path, at.mark, &at.value, "bad method", hint);
            } else if at.value.bytes().any(|b| b.is_ascii_lowercase()) {
                let hint = format!(
                    "methods know case: write `{}`",
                    at.value.to_ascii_uppercase()
                );
                self.report
                    .add(path, at.mark, &at.value, "bad method", hint);
            }
        }
        if let Some(at) = written.get(METHODS_MAX) {
            check::at_most(self.report, path, at.mark, written.len(), METHODS_MAX);
        }
        let mut methods: ThinVec<Box<str>> = written.iter().map(|at| at.value.clone()).collect();
        methods.sort_unstable();
        methods.dedup();
        methods
    }

    fn header_matches(
        &mut self,
        path: &Path<'_>,
        written: &document::Rule,
    ) -> ThinVec<HeaderMatch> {
        let pairs = written.headers.as_deref();
        let headers = check::headers(self.report, path, pairs, HeaderUse::Match);
        let header = |(name, value): (Box<str>, Box<str>)| HeaderMatch {
            name,
            value: (!value.is_empty()).then_some(value),
        };
        let mut headers: ThinVec<HeaderMatch> = headers.into_iter().map(header).collect();
        headers.sort_unstable();
        headers
    }

    fn action(&mut self, path: &Path<'_>, at: &At<document::Rule>, of_route: &Urgency) -> Action {
        let rule = &at.value;
        let actions = [
            rule.traffic.as_ref().map(|at| ("traffic", at.mark)),
            rule.redirect.as_ref().map(|at| ("redirect", at.mark)),
            rule.respond.as_ref().map(|at| ("respond", at.mark)),
            rule.reroute.as_ref().map(|at| ("reroute", at.mark)),
        ];
        let mut given = actions.into_iter().flatten();
        let Some((first, _)) = given.next() else {
            let hint = "add one of `traffic`, `redirect`, `respond` and `reroute`";
            self.report
                .add(path, at.mark, MAPPING, "the rule does nothing", hint);
            return Action::Forward(Forward::default());
        };
        for (second, mark) in given {
            let problem = format!("both `{first}` and `{second}`");
            self.report.add(
                &path.key(second),
                mark,
                MAPPING,
                problem,
                "keep one of them",
            );
        }
        if let Some(redirect) = &rule.redirect {
            self.only_with_traffic(path, rule);
            return Action::Redirect(self.redirect(&path.key("redirect"), redirect));
        }
        if let Some(respond) = &rule.respond {
            self.only_with_traffic(path, rule);
            return Action::Respond(self.respond(&path.key("respond"), respond));
        }
        if let Some(reroute) = &rule.reroute {
            let set_headers = self.set_headers(path, rule);
            let others = document::Rule {
                set_headers: None,
                ..rule.clone()
            };
            self.only_with_traffic(path, &others);
            let path = path.key("reroute");
            let host = &reroute.value.host;
            return Action::Reroute(Reroute {
                host: check::authority(self.report, &path.key("host"), host),
                set_headers,
            });
        }
        self.forward(path, rule, of_route)
    }

    fn forward(&mut self, path: &Path<'_>, rule: &document::Rule, of_route: &Urgency) -> Action {
        let traffic = rule.traffic.as_ref();
        let split = traffic.map(|traffic| self.split(&path.key("traffic"), traffic));
        let set_headers = self.set_headers(path, rule);
        let (host, rewrite) = (rule.rewrite_host.as_ref(), rule.rewrite_path.as_ref());
        let host = host.map(|at| check::authority(self.report, &path.key("rewriteHost"), at));
        let rewrite = rewrite.map(|at| check::raw_path(self.report, &path.key("rewritePath"), at));
        let timeout = rule.timeout.as_ref().map(|at| {
            let (least, default) = (Duration::from_millis(1), Duration::from_secs(30));
            check::duration(self.report, &path.key("timeout"), Some(at), least, default)
        });
        let own = self.urgency(path, rule.priority.as_deref(), rule.deadline.as_deref());
        let urgency = said(own).map(|mut own| {
            own.priority = own.priority.or_else(|| of_route.priority.clone());
            own.deadline = own.deadline.or_else(|| of_route.deadline.clone());
            own
        });
        Action::Forward(Forward {
            split: split.unwrap_or_default(),
            set_headers,
            rewrite_host: host,
            rewrite_path: rewrite,
            timeout,
            urgency,
        })
    }

    fn set_headers(&mut self, path: &Path<'_>, rule: &document::Rule) -> SetHeaders {
        let path = &path.key("setHeaders");
        let written = rule.set_headers.as_deref();
        check::headers(self.report, path, written, HeaderUse::Set).into()
    }

    fn only_with_traffic(&mut self, path: &Path<'_>, rule: &document::Rule) {
        let first = |pairs: &document::Pairs| {
            let (name, _) = pairs.0.first()?;
            Some((name.mark, name.value.clone()))
        };
        let text = |at: &At<Box<str>>| (at.mark, at.value.clone());
        let timeout = |at: &At<DurationText>| (at.mark, at.value.0.clone());
        let priority = |at: &At<document::Priority>| match &at.value {
            document::Priority::Class(class) => (at.mark, class.to_string().into()),
            document::Priority::Header(_) => (at.mark, MAPPING.into()),
            document::Priority::Neither(text) => (at.mark, (**text).into()),
        };
        let deadline = |at: &At<document::Deadline>| (at.mark, MAPPING.into());
        let keys = [
            ("setHeaders", rule.set_headers.as_deref().and_then(first)),
            ("rewriteHost", rule.rewrite_host.as_ref().map(text)),
            ("rewritePath", rule.rewrite_path.as_ref().map(text)),
            ("timeout", rule.timeout.as_ref().map(timeout)),
            ("priority", rule.priority.as_deref().map(priority)),
            ("deadline", rule.deadline.as_deref().map(deadline)),
        ];
        for (key, written) in keys {
            if let Some((mark, value)) = written {
                let problem = format!("`{key}` without `traffic`");
                let hint = "remove it: nothing is forwarded";
                self.report.add(&path.key(key), mark, value, problem, hint);
            }
        }
    }

    fn redirect(&mut self, path: &Path<'_>, at: &At<document::Redirect>) -> Redirect {
        let document::Redirect {
            scheme,
            host,
            path: to,
            status,
        } = &at.value;
        if scheme.is_none() && host.is_none() && to.is_none() {
            let hint = "add one of `scheme`, `host` and `path`";
            let problem = "the redirect leads to where it comes from";
            self.report.add(path, at.mark, MAPPING, problem, hint);
        }
        if let Some(at) = scheme
            .as_ref()
            .filter(|at| !matches!(&*at.value, "http" | "https"))
        {
            let hint = "write http or https";
            self.report
                .add(&path.key("scheme"), at.mark, &at.value, "bad scheme", hint);
        }
        if let Some(at) = status.as_ref().filter(|at| !REDIRECTS.contains(&at.value)) {
            let hint = "write 301, 302, 303, 307 or 308";
            let problem = "this status does not redirect";
            self.report
                .add(&path.key("status"), at.mark, at.value, problem, hint);
        }
        let status = status.as_ref().and_then(|at| u16::try_from(at.value).ok());
        Redirect {
            scheme: scheme.as_ref().map(|at| at.value.clone()),
            host: host
                .as_ref()
                .map(|at| check::authority(self.report, &path.key("host"), at)),
            path: to
                .as_ref()
                .map(|at| check::raw_path(self.report, &path.key("path"), at)),
            status: status.unwrap_or(REDIRECT_STATUS),
        }
    }

    fn respond(&mut self, path: &Path<'_>, at: &At<document::Respond>) -> Respond {
        let document::Respond {
            status,
            body,
            content_type,
        } = &at.value;
        let status = status.as_ref();
        let status = check::integer(self.report, &path.key("status"), status, 200..=599, 200);
        if let Some(at) = body {
            let path = &path.key("body");
            if at.value.len() > BODY_BYTES_MAX {
                let hint = "serve it from a revision";
                self.report.add(
                    path,
                    at.mark,
                    at.value.len(),
                    "the body is larger than 64 KiB",
                    hint,
                );
            }
            // RFC 9110 §15.3.5, §15.3.6, §15.4.5.
            if matches!(status, 204 | 205 | 304) && !at.value.is_empty() {
                let problem = format!("an answer with status {status} has no body");
                self.report
                    .add(path, at.mark, &at.value, problem, "remove the body");
            }
        }
        if let Some(at) = content_type {
            let pairs = document::Pairs(vec![(
                At {
                    value: "contentType".into(),
                    mark: at.mark,
                },
                at.clone(),
            )]);
            check::headers(self.report, path, Some(&pairs), HeaderUse::Match);
        }
        let text = |at: &At<Box<str>>| at.value.clone();
        Respond {
            status,
            body: body.as_ref().map(text).unwrap_or_default(),
            content_type: content_type
                .as_ref()
                .map_or_else(|| CONTENT_TYPE.into(), text),
        }
    }
}

/// Where to point at when a whole rule is meant.
pub(in crate::compile) fn rule_place(
    at: &At<document::Rule>,
) -> (Mark, Option<&'static str>, &str) {
    let rule = &at.value;
    match (&rule.path, &rule.path_exact) {
        (_, Some(exact)) => (exact.mark, Some("pathExact"), &exact.value),
        (Some(path), None) => (path.mark, Some("path"), &path.value),
        (None, None) => (at.mark, None, MAPPING),
    }
}
