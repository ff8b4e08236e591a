//! Splits and the stickiness of a route.

use std::sync::Arc;
use std::time::Duration;

use super::super::check::{self, HeaderUse};
use super::super::report::{MAPPING, Path};
use super::Work;
use crate::at::At;
use crate::document;
use crate::nearest::{nearest, suggest};
use crate::revision::{Key, RevisionId};
use crate::snapshot::{Split, Sticky, Target};

const TARGETS_MAX: usize = 256;
const COOKIE_TTL: Duration = Duration::from_secs(24 * 3600);

impl Work<'_, '_> {
    pub(super) fn split(
        &mut self,
        path: &Path<'_>,
        written: &At<Vec<At<document::Target>>>,
    ) -> Split {
        let targets = &written.value;
        if targets.is_empty() {
            let hint = "write at least one target: [{revision: NAME}]";
            self.report
                .add(path, written.mark, "[]", "there is no target", hint);
        }
        check::at_most(self.report, path, written.mark, targets.len(), TARGETS_MAX);
        let lone = targets.len() == 1;
        let mut compiled: Vec<Target> = Vec::with_capacity(targets.len());
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
                .filter(|tag| compiled.iter().any(|one| one.tag.as_deref() == Some(tag)))
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
            compiled.push(target);
        }
        if summable && sum != 100 && !targets.is_empty() {
            let problem = format!("the percents sum to {sum}, not 100");
            let hint = match sum {
                0..100 => format!("add {} to one of them", 100 - sum),
                _ => format!("take {} from them", sum - 100),
            };
            let shown = compiled.iter().map(|target| target.percent.to_string());
            let shown = shown.collect::<Vec<_>>().join(" + ");
            self.report.add(path, written.mark, shown, problem, hint);
        }
        Split {
            targets: compiled.into(),
        }
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
                _ => match nearest(&name.value, names) {
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
            revision: known.as_ref().map_or(RevisionId(0), |k| k.revision.id),
            revision_key: known.map_or(key, |known| known.revision.key.clone()),
            percent,
            asked: percent,
            tag: written.tag.as_ref().map(|tag| tag.value.clone()),
            set_headers: check::headers(self.report, path, set_headers, HeaderUse::Set).into(),
        }
    }

    pub(super) fn sticky(&mut self, path: &Path<'_>, at: &At<document::Sticky>) -> Option<Sticky> {
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
}
