//! The families that have Knative's names: those of its activator up to 1.18, which all revisions
//! have, and those since, which only revisions of Knative have.

use std::collections::BTreeMap;

use prometheus::proto;

use super::{Place, Scrape, histogram, number, three_digits};
use crate::observe::facts::Method;
use crate::observe::families::{self, Family};
use crate::observe::histogram::{KNATIVE, LATENCY, OTEL, Totals, Unit};
use crate::observe::metrics::{Labels, Series};
use crate::observe::world::RevisionView;

/// What all workers have counted for these families.
#[derive(Default)]
pub(super) struct Merged {
    activator: BTreeMap<(Activator, u16), Totals>,
    by_method: BTreeMap<(Activator, Method, u16), Totals>,
}

/// What an activator calls a revision.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Activator {
    namespace: String,
    service: String,
    configuration: String,
    revision: String,
}

impl Merged {
    /// Requests that reached no revision have no place here.
    pub(super) fn add_series(&mut self, series: &Series) {
        let names = series.names();
        if names.revision.is_empty() {
            return;
        }
        // What is none of Knative's is called as Knative would: its service is the route.
        let named = Labels {
            service: names.route,
            configuration: configuration_of(names.revision),
        };
        let labels = series.labels().unwrap_or(named);
        let activator = Activator {
            namespace: names.namespace.to_owned(),
            service: labels.service.to_owned(),
            configuration: labels.configuration.to_owned(),
            revision: names.revision.to_owned(),
        };
        for outcome in series.outcomes() {
            let new = || Totals::new(&LATENCY);
            let place = (activator.clone(), outcome.code);
            let totals = self.activator.entry(place).or_insert_with(new);
            totals.add(&outcome.latency);
            if let Some(method) = outcome.method {
                let place = (activator.clone(), method, outcome.code);
                let totals = self.by_method.entry(place).or_insert_with(new);
                totals.add(&outcome.latency);
            }
        }
    }
}

impl Scrape<'_> {
    /// Counts and latencies by an activator's labels.
    pub(super) fn activator(&self, family: &Family) -> Vec<proto::Metric> {
        let sample = |((names, code), totals): (&(Activator, u16), &Totals)| {
            let code = three_digits(*code);
            let class = format!("{}xx", &code[..1]);
            let labels = [
                &*names.namespace,
                &names.service,
                &names.configuration,
                &names.revision,
                &code,
                &class,
            ];
            if *family == families::ACTIVATOR_COUNT {
                number(family, &labels, totals.count() as f64)
            } else {
                let message = totals.message(&KNATIVE, Unit::Milliseconds);
                histogram(family, &labels, message)
            }
        };
        self.merged.knative.activator.iter().map(sample).collect()
    }

    /// Elsewhere than with Knative a revision's concurrency belongs to no single route: its service is
    /// the first route (by name) that has sent it requests, else named like its configuration, as
    /// Knative does.
    pub(super) fn activator_concurrency(&self) -> Vec<proto::Metric> {
        let mut services: BTreeMap<Place<'_>, &str> = BTreeMap::new();
        for ending in self.merged.outcomes.keys() {
            let place = (ending.namespace.as_str(), ending.revision.as_str());
            services.entry(place).or_insert(&ending.route);
        }
        let sample = |view: &RevisionView| {
            let (namespace, revision) = (view.namespace.as_str(), view.name.as_str());
            let (service, configuration) = match &view.knative {
                Some(knative) => (&*knative.service, &*knative.configuration),
                None => {
                    let configuration = configuration_of(revision);
                    let service = services.get(&(namespace, revision));
                    (service.copied().unwrap_or(configuration), configuration)
                }
            };
            let labels = [namespace, service, configuration, revision];
            let family = &families::ACTIVATOR_CONCURRENCY;
            number(family, &labels, view.average.one)
        };
        self.revisions.iter().map(sample).collect()
    }

    /// What is true now of revisions of Knative.
    pub(super) fn knative_gauges(&self, family: &Family) -> Vec<proto::Metric> {
        let sample = |view: &RevisionView| {
            let knative = view.knative.as_ref()?;
            let (namespace, revision) = (view.namespace.as_str(), view.name.as_str());
            Some(match *family {
                families::KN_QUEUED => number(family, &[revision, namespace], view.waiting as f64),
                families::KN_ACTIVE => {
                    number(family, &[revision, namespace], view.in_flight as f64)
                }
                _ => {
                    let (service, configuration) = (&knative.service, &knative.configuration);
                    let labels = [service, configuration, revision, namespace];
                    number(family, &labels, view.average.one)
                }
            })
        };
        self.revisions.iter().filter_map(sample).collect()
    }

    pub(super) fn knative_durations(&self) -> Vec<proto::Metric> {
        let family = &families::KN_DURATION;
        let sample = |((names, method, code), totals): (&(Activator, Method, u16), &Totals)| {
            let code = three_digits(*code);
            let labels = [
                method.word(),
                &code,
                &names.service,
                &names.configuration,
                &names.revision,
                &names.namespace,
            ];
            histogram(family, &labels, totals.message(&OTEL, Unit::Seconds))
        };
        self.merged.knative.by_method.iter().map(sample).collect()
    }

    pub(super) fn autoscaler(&self, family: &Family) -> Vec<proto::Metric> {
        let Some(autoscaler) = self.registry.autoscaler() else {
            return Vec::new();
        };
        let value = match *family {
            families::KN_REACHABLE => f64::from(u8::from(autoscaler.reachable)),
            _ => autoscaler.errors as f64,
        };
        vec![number(family, &["autoscaler"], value)]
    }
}

/// Knative names revisions after their configuration and a generation of five digits or more;
/// other revisions are a configuration of their own.
fn configuration_of(revision: &str) -> &str {
    match revision.rsplit_once('-') {
        Some((configuration, generation))
            if !configuration.is_empty()
                && generation.len() >= 5
                && generation.bytes().all(|b| b.is_ascii_digit()) =>
        {
            configuration
        }
        _ => revision,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_is_cut_off_and_nothing_else() {
        for (revision, configuration) in [
            ("coffee-00001", "coffee"),
            ("my-app-123456", "my-app"),
            ("coffee-1", "coffee-1"),
            ("coffee-v0001", "coffee-v0001"),
            ("-00001", "-00001"),
            ("coffee", "coffee"),
        ] {
            assert_eq!(configuration_of(revision), configuration);
        }
    }
}
