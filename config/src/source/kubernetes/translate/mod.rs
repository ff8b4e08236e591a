//! One ingress and what is known of the cluster → the routes and revisions it asks for, or what is
//! still missing. Pure.

mod backend;
mod rules;
mod tls;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use self::rules::Found;
use super::cluster::Cluster;
use super::ingress::{Rule, Spec};
use crate::document::{self, At, Text, Visibility};
use crate::revision::Key;

pub(super) use backend::{Backend, service_key};
pub(super) use tls::{certificates, secret_key};

/// How the cluster calls us, and what its names end in.
#[derive(Clone, Debug)]
pub(super) struct Names {
    /// `tidegate-internal.NAMESPACE.svc.CLUSTER_DOMAIN`, in lower case.
    pub(super) internal: Box<str>,
}

/// What an ingress comes to.
#[derive(Clone, Debug, Default)]
pub(super) struct Translation {
    pub(super) routes: Vec<document::Route>,
    /// The revisions that the routes name.
    pub(super) backends: BTreeMap<Key, Backend>,
    /// How to see whether a gateway serves it: one for each route.
    pub(super) probes: Vec<Probe>,
}

/// A request that a route answers with its hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Probe {
    pub(super) host: Box<str>,
    pub(super) path: Box<str>,
    pub(super) headers: Vec<(Box<str>, Box<str>)>,
}

/// Why there is no translation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Untranslated {
    /// Something that it names is missing and may come.
    NotYet(Arc<str>),
    /// It means nothing that can be served.
    Failed(Arc<str>),
}

/// An ingress, its defaults set and checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    pub(super) key: &'a Key,
    pub(super) spec: &'a Spec,
    pub(super) hash: &'a str,
}

pub(super) fn translate(
    wanted: Wanted<'_>,
    cluster: &Cluster,
    names: &Names,
) -> Result<Translation, Untranslated> {
    let mut work = Work {
        wanted,
        cluster,
        names,
        done: Translation::default(),
    };
    for (numbers, hosts) in groups(&wanted.spec.rules) {
        let rules: Vec<&Rule> = numbers
            .iter()
            .map(|number| &wanted.spec.rules[*number])
            .collect();
        work.group(&rules, &hosts)?;
    }
    Ok(work.done)
}

/// All hosts an ingress names; `*` is every host that nobody else names.
pub(super) fn hosts(spec: &Spec) -> BTreeSet<Box<str>> {
    spec.rules.iter().flat_map(hosts_of).collect()
}

/// The hosts of a rule as they are compared.
fn hosts_of(rule: &Rule) -> Vec<Box<str>> {
    let normal = |host: &String| -> Box<str> {
        let lower = host.to_ascii_lowercase();
        lower.strip_suffix('.').unwrap_or(&lower).into()
    };
    match rule.hosts.is_empty() {
        true => vec!["*".into()],
        false => rule.hosts.iter().map(normal).collect(),
    }
}

/// Hosts that the same rules name, with those rules: a host has the paths of all rules that name
/// it, in their order. In the order in which hosts are named.
fn groups(rules: &[Rule]) -> Vec<(Vec<usize>, Vec<Box<str>>)> {
    let mut order: Vec<Box<str>> = Vec::new();
    let mut named = HashMap::<Box<str>, Vec<usize>>::new();
    for (number, rule) in rules.iter().enumerate() {
        for host in hosts_of(rule) {
            let numbers = named.entry(host.clone()).or_default();
            if numbers.is_empty() {
                order.push(host);
            }
            if numbers.last() != Some(&number) {
                numbers.push(number);
            }
        }
    }
    let mut groups: Vec<(Vec<usize>, Vec<Box<str>>)> = Vec::new();
    let mut places = HashMap::<Vec<usize>, usize>::new();
    for host in order {
        let numbers = named.remove(&host).unwrap_or_default();
        let place = *places.entry(numbers.clone()).or_insert(groups.len());
        match groups.get_mut(place) {
            Some((_, hosts)) => hosts.push(host),
            None => groups.push((numbers, vec![host])),
        }
    }
    groups
}

struct Work<'a> {
    wanted: Wanted<'a>,
    cluster: &'a Cluster,
    names: &'a Names,
    done: Translation,
}

impl Work<'_> {
    /// The routes of hosts that all these rules name. Internal listeners serve every rule, others
    /// only some: where both kinds name a host, it has a route for each, and the order of all of
    /// them holds.
    fn group(&mut self, rules: &[&Rule], hosts: &[Box<str>]) -> Result<(), Untranslated> {
        let found = (1..).zip(self.rules(rules)?);
        let (public, local): (Vec<(u32, Found)>, Vec<_>) =
            found.partition(|(_, rule)| rule.external);
        for (rules, visibility) in [
            (public, Visibility::Public),
            (local, Visibility::ClusterLocal),
        ] {
            if let Some((_, first)) = rules.first() {
                self.done.probes.push(first.probe(&hosts[0]));
                let (order, rules): (Vec<u32>, Vec<_>) = rules
                    .into_iter()
                    .map(|(place, rule)| (place, At::nowhere(rule.rule)))
                    .unzip();
                let mut route = self.route(hosts, visibility, rules);
                route.order = Some(order.into());
                self.done.routes.push(route);
            }
        }
        Ok(())
    }

    fn route(
        &self,
        hosts: &[Box<str>],
        visibility: Visibility,
        rules: Vec<At<document::Rule>>,
    ) -> document::Route {
        let Key { namespace, name } = self.wanted.key;
        let name = match self.done.routes.len() {
            0 => name.to_string(),
            before => format!("{name}#{}", before + 1),
        };
        document::Route {
            name: text(&name),
            namespace: Some(text(namespace)),
            hosts: Some(hosts.iter().map(|host| text(host)).collect()),
            default_host: Some(At::nowhere(false)),
            visibility: Some(visibility),
            traffic: None,
            sticky: None,
            rules: Some(rules),
            priority: None,
            deadline: None,
            warm_before_shift: None,
            network_hash: Some(text(self.wanted.hash)),
            order: None,
        }
    }
}

fn text(text: &str) -> At<Text> {
    At::nowhere(text.into())
}

fn not_yet<T>(missing: impl Into<Arc<str>>) -> Result<T, Untranslated> {
    Err(Untranslated::NotYet(missing.into()))
}
