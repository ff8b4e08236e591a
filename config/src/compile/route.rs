//! One route: what was written → what it means.

use std::sync::Arc;
use std::time::Duration;

use super::check::{self, HeaderUse};
use super::report::{MAPPING, Path, Report};
use crate::at::{At, Mark};
use crate::document::{self, DurationText};
use crate::fragment::Origin;
use crate::nearest::suggest;
use crate::revision::Key;
use crate::route::{PathIndex, precedence, same_rules};
use crate::snapshot::{
    Action, CLUSTER_LOCAL_FORMS, Forward, HeaderMatch, Known, PathMatch, Redirect, Respond, Route,
    RouteId, Rule, Split, Sticky, Target, Visibility,
};

const RULES_MAX: usize = 1024;
const HOSTS_MAX: usize = 1024;
const TARGETS_MAX: usize = 256;
const METHODS_MAX: usize = 64;
const BODY_BYTES_MAX: usize = 64 * 1024;
const COOKIE_TTL: Duration = Duration::from_secs(24 * 3600);
const REDIRECTS: [i64; 5] = [301, 302, 303, 307, 308];
const REDIRECT_STATUS: u16 = 301;
const CONTENT_TYPE: &str = "text/plain; charset=utf-8";

/// What a route is compiled against.
pub(super) struct Context<'a> {
    pub(super) domain: &'a str,
    pub(super) origin: &'a Origin,
    /// Finds a revision that exists after this batch.
    pub(super) known: &'a dyn Fn(&Key) -> Option<Known>,
    /// Names of the revisions in a namespace, for hints.
    pub(super) names: &'a dyn Fn(&str) -> Vec<Arc<str>>,
    /// Some fragment could not be read: what seems unknown may stand there.
    pub(super) incomplete: bool,
}

pub(super) fn compile(
    report: &mut Report<'_>,
    path: &Path<'_>,
    written: &document::Route,
    context: &Context<'_>,
    key: Key,
    id: RouteId,
) -> Route {
    check::label(report, &path.key("name"), &written.name, "name");
    if let Some(namespace) = &written.namespace {
        check::label(report, &path.key("namespace"), namespace, "namespace");
    }
    let visibility = match written.visibility {
        None | Some(document::Visibility::Public) => Visibility::Public,
        Some(document::Visibility::ClusterLocal) => Visibility::ClusterLocal,
    };
    let mut work = Work {
        report,
        context,
        key: &key,
    };
    let hosts = work.hosts(path, written, visibility);
    let split = match &written.traffic {
        Some(traffic) => work.split(&path.key("traffic"), traffic),
        None => Split::default(),
    };
    let sticky = written.sticky.as_deref();
    let sticky = sticky.and_then(|at| work.sticky(&path.key("sticky"), at));
    let rules = work.rules(path, written, &split);
    let index = PathIndex::build(rules.len(), |rank| rules[rank].path.text()).map(Box::new);
    let route = Route {
        id,
        default_host: hosts[0].clone(),
        hosts,
        visibility,
        origin: context.origin.clone(),
        sticky,
        rules,
        split,
        index,
        key,
    };
    check_tag_hosts(report, path, written, &route);
    route
}

/// `TAG-NAME` must still be a DNS label.
fn check_tag_hosts(
    report: &mut Report<'_>,
    path: &Path<'_>,
    written: &document::Route,
    route: &Route,
) {
    each_target(path, written, &mut |path, target| {
        let Some(tag) = &target.tag else { return };
        let bytes = tag.value.len() + 1 + route.key.name.len();
        if bytes > check::LABEL_BYTES_MAX && check::is_label(&tag.value) {
            let hint = format!(
                "shorten it by {} characters",
                bytes - check::LABEL_BYTES_MAX
            );
            let problem = "the tag host's first label, TAG-NAME, is longer than 63 characters";
            report.add(&path.key("tag"), tag.mark, &tag.value, problem, hint);
        }
    });
}

/// Calls back with every target as written: those of the route, then those of its rules.
pub(super) fn each_target(
    path: &Path<'_>,
    written: &document::Route,
    visit: &mut dyn FnMut(&Path<'_>, &document::Target),
) {
    let mut split = |path: &Path<'_>, traffic: &At<Vec<At<document::Target>>>| {
        for (index, target) in traffic.value.iter().enumerate() {
            visit(&path.item(index), &target.value);
        }
    };
    if let Some(traffic) = &written.traffic {
        split(&path.key("traffic"), traffic);
    }
    for (index, rule) in written.rules.iter().flatten().enumerate() {
        if let Some(traffic) = &rule.value.traffic {
            split(&path.key("rules").item(index).key("traffic"), traffic);
        }
    }
}

struct Work<'w, 'r> {
    report: &'w mut Report<'r>,
    context: &'w Context<'w>,
    key: &'w Key,
}

impl Work<'_, '_> {
    /// Own hosts first, then those listed.
    fn hosts(
        &mut self,
        path: &Path<'_>,
        written: &document::Route,
        visibility: Visibility,
    ) -> Vec<Box<str>> {
        let Key { namespace, name } = self.key;
        let mut hosts: Vec<Box<str>> = match visibility {
            Visibility::Public => {
                vec![format!("{name}.{namespace}.{}", self.context.domain).into()]
            }
            Visibility::ClusterLocal => CLUSTER_LOCAL_FORMS
                .iter()
                .map(|form| format!("{name}.{namespace}{form}").into())
                .collect(),
        };
        let own = hosts.len();
        if hosts[0].len() > check::HOST_NAME_BYTES_MAX {
            let hint = "shorten the name, the namespace or the domain";
            let problem = "the default host is longer than 253 characters";
            self.report.add(
                &path.key("name"),
                written.name.mark,
                &hosts[0],
                problem,
                hint,
            );
        }
        let listed = written.hosts.as_deref().unwrap_or_default();
        let path = &path.key("hosts");
        for (index, at) in listed.iter().enumerate() {
            let path = &path.item(index);
            let host = check::host_pattern(self.report, path, at);
            if hosts[own..].contains(&host) {
                let hint = "keep one of them";
                self.report
                    .add(path, at.mark, &at.value, "host given twice", hint);
            } else if !hosts.contains(&host) {
                hosts.push(host);
            }
        }
        if let Some(at) = listed.get(HOSTS_MAX) {
            check::at_most(self.report, path, at.mark, listed.len(), HOSTS_MAX);
        }
        hosts
    }

    fn split(&mut self, path: &Path<'_>, written: &At<Vec<At<document::Target>>>) -> Split {
        let targets = &written.value;
        if targets.is_empty() {
            let hint = "write at least one target: [{revision: NAME}]";
            self.report
                .add(path, written.mark, "[]", "there is no target", hint);
        }
        check::at_most(self.report, path, written.mark, targets.len(), TARGETS_MAX);
        let lone = targets.len() == 1;
        let mut split = Split::default();
        let mut sum = 0;
        let mut summable = true;
        for (index, at) in targets.iter().enumerate() {
            let path = &path.item(index);
            let percent = self.percent(path, at, lone);
            summable &= percent.is_some();
            sum += i64::from(percent.unwrap_or_default());
            let target = self.target(path, &at.value, percent.unwrap_or_default());
            if let Some(tag) = target
                .tag
                .as_deref()
                .filter(|tag| split.tagged(tag.as_bytes()).is_some())
            {
                let mark = at.value.tag.as_ref().map_or(at.mark, |tag| tag.mark);
                let hint = "give every target of a split a tag of its own";
                self.report.add(
                    &path.key("tag"),
                    mark,
                    tag,
                    "tag used twice in a split",
                    hint,
                );
            }
            split.targets.push(target);
        }
        if summable && sum != 100 && !targets.is_empty() {
            let problem = format!("the percents sum to {sum}, not 100");
            let hint = match sum {
                0..100 => format!("add {} to one of them", 100 - sum),
                _ => format!("take {} from them", sum - 100),
            };
            let shown = split
                .targets
                .iter()
                .map(|target| target.percent.to_string());
            let shown = shown.collect::<Vec<_>>().join(" + ");
            self.report.add(path, written.mark, shown, problem, hint);
        }
        split
    }

    /// `None` when it has been complained about.
    fn percent(&mut self, path: &Path<'_>, at: &At<document::Target>, lone: bool) -> Option<u8> {
        match &at.value.percent {
            Some(percent) => match u8::try_from(percent.value) {
                Ok(valid @ 0..=100) => Some(valid),
                _ => {
                    let (problem, hint) = (
                        "the percent is out of range",
                        "write an integer of 0 to 100",
                    );
                    let path = &path.key("percent");
                    self.report
                        .add(path, percent.mark, percent.value, problem, hint);
                    None
                }
            },
            None if lone => Some(100),
            None => {
                let hint = "add `percent: ...`; 0 lets only requests with its tag through";
                self.report.add(
                    path,
                    at.mark,
                    &at.value.revision.value,
                    "the percent is missing",
                    hint,
                );
                None
            }
        }
    }

    fn target(&mut self, path: &Path<'_>, written: &document::Target, percent: u8) -> Target {
        let name = &written.revision;
        let key = Key {
            namespace: Arc::clone(&self.key.namespace),
            name: Arc::from(&*name.value),
        };
        let known = (self.context.known)(&key);
        if known.is_none() && !self.context.incomplete {
            let names = (self.context.names)(&key.namespace);
            let names: Vec<&str> = names.iter().map(|name| &**name).collect();
            let hint = match names.len() {
                0 => format!("there is no revision in namespace `{}`", key.namespace),
                1..=10 => suggest(&name.value, &names),
                _ => match crate::nearest::nearest(&name.value, names) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!(
                        "add a revision of this name to namespace `{}`",
                        key.namespace
                    ),
                },
            };
            let path = &path.key("revision");
            self.report
                .add(path, name.mark, &name.value, "unknown revision", hint);
        }
        if let Some(tag) = &written.tag {
            check::label(self.report, &path.key("tag"), tag, "tag");
        }
        let set_headers = written.set_headers.as_deref();
        let path = &path.key("setHeaders");
        Target {
            revision: known
                .as_ref()
                .map_or(crate::revision::RevisionId(0), |k| k.revision.id),
            revision_key: known.map_or(key, |known| known.revision.key.clone()),
            percent,
            tag: written.tag.as_ref().map(|tag| tag.value.clone()),
            set_headers: check::headers(self.report, path, set_headers, HeaderUse::Set),
        }
    }

    fn sticky(&mut self, path: &Path<'_>, at: &At<document::Sticky>) -> Option<Sticky> {
        let document::Sticky {
            header,
            cookie,
            ttl,
        } = &at.value;
        if let (Some(_), Some(ttl)) = (header, ttl) {
            let hint = "remove it: only cookies have a lifetime";
            self.report.add(
                &path.key("ttl"),
                ttl.mark,
                &ttl.value.0,
                "`ttl` without `cookie`",
                hint,
            );
        }
        let second = Duration::from_secs(1);
        let lifetime = check::duration(
            self.report,
            &path.key("ttl"),
            ttl.as_ref(),
            second,
            COOKIE_TTL,
        );
        match (header, cookie) {
            (Some(header), None) => {
                if !check::is_token(&header.value) {
                    let hint = "use letters, digits and `-`";
                    let path = &path.key("header");
                    self.report
                        .add(path, header.mark, &header.value, "bad header name", hint);
                }
                Some(Sticky::Header(header.value.to_ascii_lowercase().into()))
            }
            (None, Some(cookie)) => {
                if !check::is_token(&cookie.value) {
                    let hint = "use letters, digits, `-` and `_`";
                    let path = &path.key("cookie");
                    self.report
                        .add(path, cookie.mark, &cookie.value, "bad cookie name", hint);
                }
                let name = cookie.value.clone();
                Some(Sticky::Cookie {
                    name,
                    ttl: lifetime,
                })
            }
            (header, _) => {
                let problem = match header {
                    Some(_) => "both `header` and `cookie`",
                    None => "neither `header` nor `cookie`",
                };
                let hint = "write one of them: {header: x-user} or {cookie: NAME, ttl: 24h}";
                self.report.add(path, at.mark, MAPPING, problem, hint);
                None
            }
        }
    }

    /// In order of precedence.
    fn rules(&mut self, path: &Path<'_>, written: &document::Route, split: &Split) -> Vec<Rule> {
        let rules = match &written.rules {
            Some(rules) if !rules.is_empty() => rules,
            _ => {
                if written.traffic.is_none() {
                    let hint = "add `traffic: [{revision: NAME}]`, or `rules`";
                    let (mark, name) = (written.name.mark, &written.name.value);
                    self.report
                        .add(path, mark, name, "neither `traffic` nor `rules`", hint);
                }
                return vec![Rule::of_traffic(split.clone())];
            }
        };
        let path = &path.key("rules");
        check::at_most(self.report, path, rules[0].mark, rules.len(), RULES_MAX);
        let compiled = rules.iter().enumerate();
        let mut compiled: Vec<Rule> = compiled
            .map(|(index, rule)| self.rule(&path.item(index), rule, index))
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
        compiled
    }

    fn rule(&mut self, path: &Path<'_>, at: &At<document::Rule>, index: usize) -> Rule {
        let written = &at.value;
        let set = written.set_response_headers.as_deref();
        let set_path = &path.key("setResponseHeaders");
        Rule {
            number: u32::try_from(index + 1).unwrap_or(u32::MAX),
            path: self.path_match(path, written),
            methods: self.methods(&path.key("methods"), written),
            headers: self.header_matches(&path.key("headers"), written),
            action: self.action(path, at),
            set_response_headers: check::headers(self.report, set_path, set, HeaderUse::Set),
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

    fn methods(&mut self, path: &Path<'_>, written: &document::Rule) -> Vec<Box<str>> {
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
        let mut methods: Vec<Box<str>> = written.iter().map(|at| at.value.clone()).collect();
        methods.sort_unstable();
        methods.dedup();
        methods
    }

    fn header_matches(&mut self, path: &Path<'_>, written: &document::Rule) -> Vec<HeaderMatch> {
        let pairs = written.headers.as_deref();
        let headers = check::headers(self.report, path, pairs, HeaderUse::Match);
        let header = |(name, value): (Box<str>, Box<str>)| HeaderMatch {
            name,
            value: (!value.is_empty()).then_some(value),
        };
        let mut headers: Vec<HeaderMatch> = headers.into_iter().map(header).collect();
        headers.sort_unstable();
        headers
    }

    fn action(&mut self, path: &Path<'_>, at: &At<document::Rule>) -> Action {
        let rule = &at.value;
        let actions = [
            rule.traffic.as_ref().map(|at| ("traffic", at.mark)),
            rule.redirect.as_ref().map(|at| ("redirect", at.mark)),
            rule.respond.as_ref().map(|at| ("respond", at.mark)),
        ];
        let mut given = actions.into_iter().flatten();
        let Some((first, _)) = given.next() else {
            let hint = "add one of `traffic`, `redirect` and `respond`";
            self.report
                .add(path, at.mark, MAPPING, "the rule does nothing", hint);
            return Action::Forward(Forward::to(Split::default()));
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
        self.forward(path, rule)
    }

    fn forward(&mut self, path: &Path<'_>, rule: &document::Rule) -> Action {
        let traffic = rule.traffic.as_ref();
        let split = traffic.map(|traffic| self.split(&path.key("traffic"), traffic));
        let set_headers = rule.set_headers.as_deref();
        let set_headers = check::headers(
            self.report,
            &path.key("setHeaders"),
            set_headers,
            HeaderUse::Set,
        );
        let (host, rewrite) = (rule.rewrite_host.as_ref(), rule.rewrite_path.as_ref());
        let host = host.map(|at| check::authority(self.report, &path.key("rewriteHost"), at));
        let rewrite = rewrite.map(|at| check::raw_path(self.report, &path.key("rewritePath"), at));
        let timeout = rule.timeout.as_ref().map(|at| {
            let (least, default) = (Duration::from_millis(1), Duration::from_secs(30));
            check::duration(self.report, &path.key("timeout"), Some(at), least, default)
        });
        Action::Forward(Forward {
            split: split.unwrap_or_default(),
            set_headers,
            rewrite_host: host,
            rewrite_path: rewrite,
            timeout,
        })
    }

    fn only_with_traffic(&mut self, path: &Path<'_>, rule: &document::Rule) {
        let first = |pairs: &document::Pairs| {
            let (name, _) = pairs.0.first()?;
            Some((name.mark, name.value.clone()))
        };
        let text = |at: &At<Box<str>>| (at.mark, at.value.clone());
        let timeout = |at: &At<DurationText>| (at.mark, at.value.0.clone());
        let keys = [
            ("setHeaders", rule.set_headers.as_deref().and_then(first)),
            ("rewriteHost", rule.rewrite_host.as_ref().map(text)),
            ("rewritePath", rule.rewrite_path.as_ref().map(text)),
            ("timeout", rule.timeout.as_ref().map(timeout)),
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
pub(super) fn rule_place(at: &At<document::Rule>) -> (Mark, Option<&'static str>, &str) {
    let rule = &at.value;
    match (&rule.path, &rule.path_exact) {
        (_, Some(exact)) => (exact.mark, Some("pathExact"), &exact.value),
        (Some(path), None) => (path.mark, Some("path"), &path.value),
        (None, None) => (at.mark, None, MAPPING),
    }
}

impl Rule {
    /// The one rule of a route without rules.
    fn of_traffic(split: Split) -> Rule {
        Rule {
            number: 1,
            path: PathMatch::Prefix("".into()),
            methods: Vec::new(),
            headers: Vec::new(),
            action: Action::Forward(Forward::to(split)),
            set_response_headers: Vec::new(),
        }
    }
}

impl Forward {
    fn to(split: Split) -> Forward {
        Forward {
            split,
            set_headers: Vec::new(),
            rewrite_host: None,
            rewrite_path: None,
            timeout: None,
        }
    }
}
