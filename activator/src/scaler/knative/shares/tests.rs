use std::collections::BTreeMap;

use proptest::collection::btree_set;
use proptest::prelude::*;

use super::*;

fn replica(number: u8) -> IpAddr {
    IpAddr::from([10, 1, 0, number])
}

fn pods(count: u16) -> Vec<SocketAddr> {
    let pod = |number: u16| {
        let [high, low] = number.to_be_bytes();
        SocketAddr::from(([10, 2, high, low], 8012))
    };
    (0..count).map(pod).collect()
}

fn replicas(own: IpAddr, all: &[IpAddr]) -> Replicas {
    let mut replicas = Replicas::new(own);
    replicas.set(all);
    replicas
}

/// Each replica's shares of these pods.
fn all_shares(all: &[IpAddr], pods: &[SocketAddr], concurrency: u32) -> Vec<Vec<Share>> {
    let of = |own: &IpAddr| {
        let shares = replicas(*own, all).shares(pods, concurrency);
        let (addresses, shares): (Vec<_>, Vec<_>) = shares.into_iter().unzip();
        assert_eq!(addresses, pods);
        shares
    };
    all.iter().map(of).collect()
}

/// Slots of a pod that all replicas count as theirs.
fn owned(shares: &[Vec<Share>], pod: usize) -> u32 {
    shares.iter().map(|of| of[pod].own).sum()
}

proptest! {
    #[test]
    fn a_pods_slots_are_divided_without_rest(
        numbers in btree_set(0..=255_u8, 1..12),
        count in 1..40_u16,
        concurrency in 1..30_u32,
    ) {
        let all: Vec<_> = numbers.into_iter().map(replica).collect();
        let pods = pods(count);
        let shares = all_shares(&all, &pods, concurrency);
        let replicas = u32::try_from(all.len()).unwrap();
        // A replica that had nothing otherwise was given one slot more.
        let given = |of: &[Share]| of.iter().map(|share| share.own).sum::<u32>() == 1;
        let beyond = shares.iter().filter(|of| given(of)).count();
        for pod in 0..pods.len() {
            let owned = owned(&shares, pod);
            prop_assert!(owned >= concurrency);
            prop_assert!(owned <= concurrency + u32::try_from(beyond).unwrap());
            let own = |of: &Vec<Share>| of[pod].own;
            let owners = shares.iter().filter(|of| own(of) > 0).count();
            prop_assert!(owners >= usize::min(concurrency as usize, all.len()));
            let (least, most) = (shares.iter().map(own).min(), shares.iter().map(own).max());
            prop_assert!(most.unwrap() - least.unwrap() <= 1, "nobody has two more than another");
            prop_assert!(shares.iter().all(|of| of[pod].own <= of[pod].most));
            prop_assert!(shares.iter().all(|of| of[pod].most <= concurrency));
            let crowd: u32 = shares.iter().map(|of| of[pod].most).sum();
            let room = concurrency * CROWD + u32::try_from(beyond).unwrap();
            prop_assert!(crowd <= room, "the queue-proxy has no room for {crowd}");
        }
        for of in &shares {
            prop_assert!(of.iter().any(|share| share.own > 0), "everybody can serve");
        }
        if replicas <= CROWD {
            let lends = |share: &Share| share.most == concurrency;
            prop_assert!(shares.iter().flatten().all(lends), "one alone can use all there is");
        }
    }

    #[test]
    fn a_replica_that_comes_or_goes_moves_its_own_part_only(
        numbers in btree_set(0..=254_u8, 2..10),
        concurrency in 1..4_u32,
    ) {
        let mut all: Vec<_> = numbers.into_iter().map(replica).collect();
        prop_assume!(all.len() > concurrency as usize);
        let pods = pods(200);
        let owners = |all: &[IpAddr]| -> BTreeMap<(IpAddr, usize), u32> {
            let shares = all_shares(all, &pods, concurrency);
            let owned = all.iter().zip(&shares).flat_map(|(replica, of)| {
                let own = of.iter().enumerate().filter(|(_, share)| share.own > 0);
                own.map(|(pod, share)| ((*replica, pod), share.own))
            });
            owned.collect()
        };
        let before = owners(&all);
        let newcomer = replica(255);
        all.push(newcomer);
        let after = owners(&all);
        for (owner, slots) in &after {
            if owner.0 != newcomer {
                prop_assert_eq!(before.get(owner), Some(slots), "nobody else got anything");
            }
        }
        let moved = before.keys().filter(|owner| !after.contains_key(*owner)).count();
        let new = after.keys().filter(|(of, _)| *of == newcomer).count();
        prop_assert_eq!(moved, new);
    }
}

#[test]
fn one_alone_has_everything() {
    let alone = Replicas::new(replica(1));
    let share = Share { own: 3, most: 3 };
    let expected: Vec<_> = pods(2).into_iter().map(|pod| (pod, share)).collect();
    assert_eq!(alone.shares(&pods(2), 3), expected);
    assert_eq!(alone.shares(&[], 3), []);
}

#[test]
fn parts_are_about_equal() {
    let all: Vec<_> = (0..4).map(replica).collect();
    for of in all_shares(&all, &pods(1_000), 1) {
        let own: u32 = of.iter().map(|share| share.own).sum();
        assert!((200..300).contains(&own), "{own}");
    }
}

#[test]
fn the_division_is_the_same_in_every_version() {
    let all: Vec<_> = (0..3).map(replica).collect();
    let first = |pod| {
        all.iter()
            .position(|own| replicas(*own, &all).rank(pod) == 0)
    };
    let firsts: Vec<_> = pods(8).into_iter().filter_map(first).collect();
    assert_eq!(firsts, [1, 0, 0, 0, 1, 1, 0, 1]);
}

#[test]
fn replicas_are_told_apart_by_address_whatever_their_form() {
    let mut known = Replicas::new("::ffff:10.1.0.1".parse().unwrap());
    assert!(!known.set(&[replica(1)]));
    assert!(!known.set(&[]), "this one is there anyway");
    assert!(known.set(&[replica(2), replica(2)]));
    assert_eq!(known.all, [replica(1), replica(2)]);
    assert!(!known.set(&[replica(2), replica(1)]));
    let many: Vec<_> = (0..1_000_u32)
        .map(|n| IpAddr::from(n.to_be_bytes()))
        .collect();
    assert!(known.set(&many));
    assert_eq!(known.all.len(), REPLICAS_MAX + 1);
}
