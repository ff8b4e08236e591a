//! The addresses behind a Service, from its EndpointSlices or, where there are none, its Endpoints.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;

use crate::source::feed::Addresses;

/// Says which Service a slice belongs to.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

pub(super) fn service_of(object: &discovery::EndpointSlice) -> Option<&str> {
    let labels = object.metadata.labels.as_ref()?;
    labels.get(SERVICE_NAME).map(String::as_str)
}

/// Everything that is known of the addresses behind one Service.
#[derive(Debug, Default)]
pub(super) struct Endpoints {
    /// By name, of which the Service's own is left out.
    slices: Vec<(Box<str>, Slice)>,
    /// The object `Endpoints`, which counts while there are no slices.
    whole: Option<Box<[Slice]>>,
}

/// Addresses that share their ports.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Slice {
    ports: Box<[(Box<str>, u16)]>,
    addresses: Box<[Address]>,
}

#[derive(Debug, PartialEq, Eq)]
struct Address {
    ip: IpAddr,
    state: State,
    /// What makes the addresses of a pod known as the same pod's; `None` where nobody says whose it
    /// is.
    pod: Option<Box<str>>,
}

/// Which address of a pod is used that has one of either family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) enum Family {
    #[default]
    V4,
    V6,
}

impl Family {
    pub(super) fn of(ip: IpAddr) -> Family {
        match ip {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    /// On its way out; it still serves.
    Leaving,
    Unready,
    Ready,
}

impl Slice {
    pub(super) fn of(object: &discovery::EndpointSlice) -> Slice {
        let ports = object.ports.iter().flatten();
        let ports = ports.filter_map(|port| port_of(port.name.as_deref(), port.port?));
        let endpoints = object.endpoints.iter().flatten();
        let addresses = endpoints.filter_map(|endpoint| {
            let state = state_of(endpoint.conditions.as_ref())?;
            // All addresses of an endpoint are the same pod: the first is enough.
            let ip = endpoint.addresses.first()?.parse().ok()?;
            let pod = endpoint.target_ref.as_ref().and_then(pod_of);
            Some(Address { ip, state, pod })
        });
        Slice {
            ports: ports.collect(),
            addresses: addresses.collect(),
        }
    }

    pub(super) fn all_of(object: &core::Endpoints) -> Box<[Slice]> {
        let subsets = object.subsets.iter().flatten();
        let slices = subsets.map(|subset| {
            let ports = subset.ports.iter().flatten();
            let ports = ports.filter_map(|port| port_of(port.name.as_deref(), port.port));
            let ready = subset
                .addresses
                .iter()
                .flatten()
                .map(|at| (at, State::Ready));
            let unready = subset.not_ready_addresses.iter().flatten();
            let addresses = ready.chain(unready.map(|at| (at, State::Unready)));
            let addresses = addresses.filter_map(|(at, state)| {
                let ip = at.ip.parse().ok()?;
                let pod = at.target_ref.as_ref().and_then(pod_of);
                Some(Address { ip, state, pod })
            });
            Slice {
                ports: ports.collect(),
                addresses: addresses.collect(),
            }
        });
        slices.collect()
    }
}

/// Unique among what a Service may lead to; the name where there is no better.
fn pod_of(target: &core::ObjectReference) -> Option<Box<str>> {
    let id = target.uid.as_deref().filter(|uid| !uid.is_empty());
    Some(id.or(target.name.as_deref())?.into())
}

fn port_of(name: Option<&str>, number: i32) -> Option<(Box<str>, u16)> {
    let number = u16::try_from(number).ok().filter(|number| *number > 0)?;
    Some((name.unwrap_or_default().into(), number))
}

/// `None`: of no use any more. A condition that is not given counts as Kubernetes says.
fn state_of(conditions: Option<&discovery::EndpointConditions>) -> Option<State> {
    let given = |get: fn(&discovery::EndpointConditions) -> Option<bool>| conditions.and_then(get);
    let ready = given(|conditions| conditions.ready).unwrap_or(true);
    let serving = given(|conditions| conditions.serving).unwrap_or(ready);
    match (
        given(|conditions| conditions.terminating).unwrap_or(false),
        ready,
    ) {
        (true, _) => serving.then_some(State::Leaving),
        (false, true) => Some(State::Ready),
        (false, false) => Some(State::Unready),
    }
}

impl Endpoints {
    /// Whether it is another one than before.
    pub(super) fn put_slice(&mut self, name: &str, slice: Slice) -> bool {
        match self.slices.iter_mut().find(|(known, _)| **known == *name) {
            Some((_, known)) if *known == slice => false,
            Some((_, known)) => {
                *known = slice;
                true
            }
            None => {
                self.slices.push((name.into(), slice));
                true
            }
        }
    }

    pub(super) fn remove_slice(&mut self, name: &str) -> bool {
        let before = self.slices.len();
        self.slices.retain(|(known, _)| **known != *name);
        self.slices.len() < before
    }

    /// Whether it makes a difference.
    pub(super) fn put_whole(&mut self, slices: Box<[Slice]>) -> bool {
        let same = self.whole.as_ref() == Some(&slices);
        self.whole = Some(slices);
        !same && self.slices.is_empty()
    }

    pub(super) fn remove_whole(&mut self) -> bool {
        self.whole.take().is_some() && self.slices.is_empty()
    }

    pub(super) fn has_whole(&self) -> bool {
        self.whole.is_some()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slices.is_empty() && self.whole.is_none()
    }

    fn slices(&self) -> impl Iterator<Item = &Slice> {
        let whole = self.whole.iter().filter(|_| self.slices.is_empty());
        let slices = self.slices.iter().map(|(_, slice)| slice);
        slices.chain(whole.flat_map(|slices| slices.iter()))
    }

    /// Every address, whatever its port, that is not on its way out.
    pub(super) fn ips(&self) -> impl Iterator<Item = IpAddr> {
        let all = self.slices().flat_map(|slice| &slice.addresses);
        all.filter(|address| address.state != State::Leaving)
            .map(|address| address.ip)
    }

    pub(super) fn has(&self, ip: IpAddr) -> bool {
        self.slices()
            .any(|slice| slice.addresses.iter().any(|known| known.ip == ip))
    }

    /// The addresses on the ports that `wanted` takes, sorted. One that is in several slices is
    /// what the best of them says; `leaving` ones are taken for ready while there are no ready
    /// ones. Of a pod with several addresses only one counts: the best, and of equals that of the
    /// `preferred` family.
    pub(super) fn addresses(
        &self,
        wanted: impl Fn(&str) -> bool,
        leaving: bool,
        preferred: Family,
    ) -> Addresses {
        let mut all = BTreeMap::<SocketAddr, (State, Option<&str>)>::new();
        for slice in self.slices() {
            let Some((_, port)) = slice.ports.iter().find(|(name, _)| wanted(name)) else {
                continue;
            };
            for address in &slice.addresses {
                let pod = address.pod.as_deref();
                let known = all
                    .entry(SocketAddr::new(address.ip, *port))
                    .or_insert((address.state, pod));
                known.0 = known.0.max(address.state);
            }
        }
        keep_one_of_each_pod(&mut all, preferred);
        let of = |wanted: State| -> Vec<SocketAddr> {
            let all = all.iter().filter(|(_, (state, _))| *state == wanted);
            all.map(|(address, _)| *address).collect()
        };
        let mut ready = of(State::Ready);
        if ready.is_empty() && leaving {
            ready = of(State::Leaving);
        }
        Addresses {
            ready,
            unready: of(State::Unready),
            ..Addresses::default()
        }
    }
}

fn keep_one_of_each_pod(all: &mut BTreeMap<SocketAddr, (State, Option<&str>)>, preferred: Family) {
    let family = |address: &SocketAddr| Family::of(address.ip());
    let Some(first) = all.keys().next().map(family) else {
        return;
    };
    // IPv4 sorts first: where the last is of its family, there is but one.
    if all.keys().next_back().map(family) == Some(first) {
        return;
    }
    let rank = |address: &SocketAddr, state: State| (state, family(address) == preferred);
    let mut best = HashMap::<(&str, u16), SocketAddr>::new();
    for (address, (state, pod)) in all.iter() {
        let Some(pod) = pod else { continue };
        let best = best.entry((*pod, address.port())).or_insert(*address);
        if rank(address, *state) > rank(best, all[best].0) {
            *best = *address;
        }
    }
    all.retain(|address, (_, pod)| {
        pod.is_none_or(|pod| best.get(&(pod, address.port())) == Some(address))
    });
}
