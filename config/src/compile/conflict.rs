//! What two items say against each other, told at both places.

use super::batch::Batch;
use super::report::Path;
use super::route::{each_target, rule_place};
use crate::at::Mark;
use crate::merge::{Item, report_for};
use crate::revision::Key;
use crate::route::{Claimant, Conflict, Kind};
use crate::snapshot::Route;

/// Where something is written.
struct Written {
    path: String,
    mark: Mark,
    value: String,
}

impl Batch<'_> {
    pub(super) fn report_conflict(&mut self, host: &str, conflict: &Conflict) {
        match conflict {
            Conflict::Taken(claimants) => self.report_taken(host, claimants),
            Conflict::SameRule(sides) => {
                let [one, other] = &**sides;
                self.report_same_rule(host, one, other);
                self.report_same_rule(host, other, one);
            }
        }
    }

    fn report_taken(&mut self, host: &str, claimants: &[Claimant]) {
        for (position, claimant) in claimants.iter().enumerate() {
            let other = &claimants[usize::from(position == 0)];
            let (Some(item), Some(there)) = (
                self.state.merged.route(&claimant.route.key).cloned(),
                self.state.merged.route(&other.route.key),
            ) else {
                continue;
            };
            let how = match other.kind {
                Kind::Own => "is the default host of",
                Kind::Listed => "is listed by",
                Kind::Tag { .. } => "is a tag host of",
            };
            let elsewhere = claim_place(there, other, host).map(|written| written.mark);
            let problem = format!("host `{host}` {how} route {}", other.route.key);
            let place = there.said.at(elsewhere);
            let hint = match claimant.kind {
                Kind::Own => format!("rename the route, or change the claim at {place}"),
                Kind::Listed => format!("remove this host, or change the claim at {place}"),
                Kind::Tag { .. } => format!("rename the tag, or change the claim at {place}"),
            };
            if let Some(written) = claim_place(&item, claimant, host) {
                self.report_at(&item, written, problem, hint);
            }
        }
    }

    fn report_same_rule(
        &mut self,
        host: &str,
        (route, rule): &(std::sync::Arc<Route>, usize),
        (other, _): &(std::sync::Arc<Route>, usize),
    ) {
        let merged = &self.state.merged;
        let (Some(item), Some(there)) =
            (merged.route(&route.key).cloned(), merged.route(&other.key))
        else {
            return;
        };
        let written = rule_written(&item, &route.rules[*rule], host);
        let name = there.route().map(|at| at.value.name.mark);
        let problem = format!(
            "route {} has a rule for the same requests on `{host}`",
            other.key
        );
        let hint = format!(
            "change or remove one; the other route is at {}",
            there.said.at(name)
        );
        if let Some(written) = written {
            self.report_at(&item, written, problem, hint);
        }
    }

    /// Routes that name a revision which is gone.
    pub(super) fn report_users(&mut self, key: &Key) {
        let routes: Vec<_> = self.state.snapshot.routes().cloned().collect();
        let names = |route: &Route| route.targets().any(|target| target.revision_key == *key);
        for route in routes.iter().filter(|route| names(route)) {
            let Some(item) = self.state.merged.route(&route.key).cloned() else {
                continue;
            };
            let Some(written) = item.route() else {
                continue;
            };
            let list = Path::Root.key("routes");
            let path = list.item(item.index());
            let mut report = report_for(&item.said.origin, &mut self.problems);
            each_target(&path, &written.value, &mut |path, target| {
                let at = &target.revision;
                if *at.value == *key.name {
                    let hint =
                        format!("the revision {key} was removed: add it again or name another");
                    let path = &path.key("revision");
                    report.add(path, at.mark, &at.value, "unknown revision", hint);
                }
            });
        }
    }

    fn report_at(&mut self, item: &Item, written: Written, problem: String, hint: String) {
        let path = Path::Root;
        let path = path.key(&written.path);
        let mut report = report_for(&item.said.origin, &mut self.problems);
        report.add(&path, written.mark, written.value, problem, hint);
    }
}

/// Where a claim comes from.
fn claim_place(item: &Item, claimant: &Claimant, host: &str) -> Option<Written> {
    let route = item.route()?.value;
    let list = Path::Root.key("routes");
    let path = list.item(item.index());
    let name = Written {
        path: path.key("name").to_string(),
        mark: route.name.mark,
        value: route.name.value.to_string(),
    };
    match claimant.kind {
        Kind::Own => Some(name),
        Kind::Listed => host_place(item, host).or(Some(name)),
        Kind::Tag { bytes } => {
            let tag = host.get(..usize::from(bytes))?;
            let mut found = None;
            each_target(&path, &route, &mut |path, target| {
                let Some(at) = target.tag.as_ref().filter(|at| *at.value == *tag) else {
                    return;
                };
                found.get_or_insert_with(|| Written {
                    path: path.key("tag").to_string(),
                    mark: at.mark,
                    value: at.value.to_string(),
                });
            });
            found
        }
    }
}

/// Where a route lists a host.
fn host_place(item: &Item, host: &str) -> Option<Written> {
    let route = item.route()?.value;
    let same = |written: &str| {
        let lower = written.to_ascii_lowercase();
        lower.strip_suffix('.').unwrap_or(&lower) == host
    };
    let hosts = route.hosts.as_deref()?;
    let position = hosts.iter().position(|at| same(&at.value))?;
    Some(Written {
        path: format!("routes[{}].hosts[{position}]", item.index()),
        mark: hosts[position].mark,
        value: hosts[position].value.to_string(),
    })
}

/// Where a compiled rule is written: at its path, or else at the host it is on.
fn rule_written(item: &Item, rule: &crate::snapshot::Rule, host: &str) -> Option<Written> {
    let rules = item.route()?.value.rules.unwrap_or_default();
    let index = (rule.number as usize).checked_sub(1)?;
    if let Some((mark, Some(key), value)) = rules.get(index).map(rule_place) {
        return Some(Written {
            path: format!("routes[{}].rules[{index}].{key}", item.index()),
            mark,
            value: value.to_owned(),
        });
    }
    host_place(item, host)
}
