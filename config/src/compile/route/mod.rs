//! One route: what was written → what it means.

mod rule;
mod split;

use std::sync::Arc;

use super::report::{Path, Report};
use super::{check, queue};
use crate::at::At;
use crate::document;
use crate::fragment::Origin;
use crate::revision::Key;
use crate::route::PathIndex;
use crate::snapshot::{CLUSTER_LOCAL_FORMS, Known, Route, RouteId, Split, Urgency, Visibility};

pub(super) use rule::rule_place;

const HOSTS_MAX: usize = 1024;

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
    check::names(report, path, &written.name, written.namespace.as_ref());
    let visibility = match written.visibility {
        None | Some(document::Visibility::Public) => Visibility::Public,
        Some(document::Visibility::ClusterLocal) => Visibility::ClusterLocal,
    };
    let mut work = Work {
        report,
        context,
        key: &key,
    };
    let (hosts, own_hosts) = work.hosts(path, written, visibility);
    let split = match &written.traffic {
        Some(traffic) => work.split(&path.key("traffic"), traffic),
        None => Split::default(),
    };
    let sticky = written.sticky.as_deref();
    let sticky = sticky.and_then(|at| work.sticky(&path.key("sticky"), at));
    let urgency = work.urgency(
        path,
        written.priority.as_deref(),
        written.deadline.as_deref(),
    );
    let rules = work.rules(path, written, &urgency);
    let index = PathIndex::build(rules.len(), |rank| rules[rank].path.text()).map(Box::new);
    let network_hash = written.network_hash.as_ref();
    let network_hash =
        network_hash.map(|at| check::field_value(report, &path.key("networkHash"), at));
    let route = Route {
        id,
        hosts,
        own_hosts,
        visibility,
        origin: context.origin.clone(),
        sticky,
        rules,
        split,
        index,
        urgency: said(urgency),
        warm_before_shift: written
            .warm_before_shift
            .as_ref()
            .is_some_and(|at| at.value),
        network_hash,
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

/// Most routes and rules say nothing.
fn said(urgency: Urgency) -> Option<Box<Urgency>> {
    (urgency != Urgency::default()).then(|| Box::new(urgency))
}

struct Work<'w, 'r> {
    report: &'w mut Report<'r>,
    context: &'w Context<'w>,
    key: &'w Key,
}

impl Work<'_, '_> {
    fn urgency(
        &mut self,
        path: &Path<'_>,
        priority: Option<&At<document::Priority>>,
        deadline: Option<&At<document::Deadline>>,
    ) -> Urgency {
        queue::urgency(self.report, path, priority, deadline)
    }

    /// Own hosts first, then those listed; how many are own.
    fn hosts(
        &mut self,
        path: &Path<'_>,
        written: &document::Route,
        visibility: Visibility,
    ) -> (Box<[Box<str>]>, u8) {
        let listed = written.hosts.as_deref().unwrap_or_default();
        let mut hosts = match &written.default_host {
            Some(at) if !at.value => {
                if listed.is_empty() {
                    let hint = "list `hosts`, or remove `defaultHost: false`";
                    let (path, mark) = (&path.key("defaultHost"), at.mark);
                    self.report
                        .add(path, mark, false, "the route has no host", hint);
                }
                Vec::new()
            }
            Some(_) | None => self.default_hosts(path, written, visibility),
        };
        let own = hosts.len();
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
        (hosts.into(), u8::try_from(own).unwrap_or(u8::MAX))
    }

    /// The default host in all its forms.
    fn default_hosts(
        &mut self,
        path: &Path<'_>,
        written: &document::Route,
        visibility: Visibility,
    ) -> Vec<Box<str>> {
        let Key { namespace, name } = self.key;
        let hosts: Vec<Box<str>> = match visibility {
            Visibility::Public => {
                vec![format!("{name}.{namespace}.{}", self.context.domain).into()]
            }
            Visibility::ClusterLocal => CLUSTER_LOCAL_FORMS
                .iter()
                .map(|form| format!("{name}.{namespace}{form}").into())
                .collect(),
        };
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
        hosts
    }
}
