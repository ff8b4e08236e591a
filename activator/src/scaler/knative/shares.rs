//! How the slots of pods are divided among the replicas of the gateway: docs/decisions/0020.
//!
//! Every replica gets requests of every revision, and none knows what the others have in flight. So
//! each slot of a pod belongs to one replica, found by rendezvous hashing: all replicas come to the
//! same division by themselves, and as one comes or goes no more than its part moves.

use std::net::{IpAddr, SocketAddr};

use crate::admission::Share;

/// Of so many replicas the first are told apart; more are as if they were not there.
const REPLICAS_MAX: usize = 256;
/// All replicas together may have so many times a pod's slots in flight there, lent ones included.
/// A queue-proxy keeps ten times its slots waiting, so it has room for all of them.
const CROWD: u32 = 6;

/// The replicas of the gateway that get requests.
#[derive(Debug)]
pub(super) struct Replicas {
    own: IpAddr,
    /// In order, with this one.
    all: Vec<IpAddr>,
}

impl Replicas {
    /// This one alone.
    pub(super) fn new(own: IpAddr) -> Replicas {
        let own = own.to_canonical();
        Replicas {
            own,
            all: vec![own],
        }
    }

    /// The replicas there are now; this one is among them whether it is named or not. True when
    /// they changed.
    pub(super) fn set(&mut self, replicas: &[IpAddr]) -> bool {
        let mut all: Vec<_> = replicas.iter().map(IpAddr::to_canonical).collect();
        all.sort_unstable();
        all.dedup();
        all.truncate(REPLICAS_MAX);
        if let Err(place) = all.binary_search(&self.own) {
            all.insert(place, self.own);
        }
        let changed = all != self.all;
        self.all = all;
        changed
    }

    /// What this replica may have in flight at each pod of a revision of which each takes
    /// `concurrency` requests at a time, at least 1.
    pub(super) fn shares(&self, pods: &[SocketAddr], concurrency: u32) -> Vec<(SocketAddr, Share)> {
        let count = u32::try_from(self.all.len()).unwrap_or(u32::MAX);
        let crowd = concurrency.saturating_mul(CROWD);
        let ranks: Vec<u32> = pods.iter().map(|&pod| self.rank(pod)).collect();
        let share = |&rank: &u32| Share {
            own: part(concurrency, count, rank),
            most: part(crowd, count, rank).min(concurrency),
        };
        let mut shares: Vec<Share> = ranks.iter().map(share).collect();
        // With fewer slots than replicas some have none, but requests all the same.
        let none = shares.iter().all(|share| share.own == 0);
        let best = (0..ranks.len()).min_by_key(|&at| ranks[at]);
        if let Some(best) = best.filter(|_| none) {
            shares[best].own = 1;
            shares[best].most = shares[best].most.max(1);
        }
        pods.iter().copied().zip(shares).collect()
    }

    /// How many replicas come before this one at that pod.
    fn rank(&self, pod: SocketAddr) -> u32 {
        let pod = mix(of(pod.ip()) ^ mix(pod.port().into()));
        let weight = |replica: &IpAddr| (mix(pod.wrapping_add(of(*replica))), *replica);
        let own = weight(&self.own);
        let before = self.all.iter().filter(|replica| weight(replica) > own);
        u32::try_from(before.count()).unwrap_or(u32::MAX)
    }
}

/// What the one with this rank gets of `whole` when it is dealt out to `count` in turn.
fn part(whole: u32, count: u32, rank: u32) -> u32 {
    whole / count + u32::from(rank < whole % count)
}

fn of(address: IpAddr) -> u64 {
    let bits = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    let low = u64::try_from(bits & u128::from(u64::MAX)).unwrap_or_default();
    let high = u64::try_from(bits >> 64).unwrap_or_default();
    mix(low.wrapping_add(mix(high)))
}

/// The finisher of SplitMix64. The standard library's hashes may differ between versions, and so
/// between replicas.
fn mix(bits: u64) -> u64 {
    let bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests;
