//! Which target of a split a request goes to.
//!
//! Without a key, a target is drawn by its weight. With one, weighted rendezvous hashing decides:
//! a target of `percent` p holds p tickets, every ticket has a score that depends on the key and
//! the name of the revision alone, and the highest score wins. Raising a share from 10 to 20 adds
//! ten tickets that can only win keys for that revision, and lowering one only takes tickets away,
//! so exactly the keys that have to move do. Integers only: equal on every replica and version.

use crate::snapshot::{Split, Target};

/// Sum of the percents of a split.
const WHOLE: u64 = 100;

impl Split {
    /// Picks a target; `None` when the split is empty. `random` is uniform over all of `u64` and
    /// decides where `sticky` is `None`. A target of 0 % is never picked.
    #[must_use]
    pub fn pick(&self, sticky: Option<&[u8]>, random: u64) -> Option<&Target> {
        match sticky {
            Some(key) => self.pick_sticky(key),
            None => self.pick_drawn(random),
        }
    }

    /// The target with this tag.
    #[must_use]
    pub fn tagged(&self, tag: &[u8]) -> Option<&Target> {
        let has = |target: &&Target| target.tag.as_ref().is_some_and(|t| t.as_bytes() == tag);
        self.targets.iter().find(has)
    }

    fn pick_drawn(&self, random: u64) -> Option<&Target> {
        // The high half of the product is uniform over 0..100 up to one part in 2^57.
        let mut drawn = (u128::from(random) * u128::from(WHOLE)) >> 64;
        for target in &self.targets {
            let share = u128::from(target.percent);
            if drawn < share {
                return Some(target);
            }
            drawn -= share;
        }
        None
    }

    fn pick_sticky(&self, key: &[u8]) -> Option<&Target> {
        let key = fnv1a(key);
        let mut best: Option<(u64, &str, &Target)> = None;
        for (position, target) in self.targets.iter().enumerate() {
            let name = &*target.revision_key.name;
            // A revision that stands in the split twice holds the tickets of both.
            let held: u64 = self.targets[..position]
                .iter()
                .filter(|before| before.revision == target.revision)
                .map(|before| u64::from(before.percent))
                .sum();
            let seed = finalise(key ^ finalise(fnv1a(name.as_bytes())));
            let tickets = held + 1..=held + u64::from(target.percent);
            let score = |ticket: u64| finalise(seed.wrapping_add(ticket.wrapping_mul(GOLDEN)));
            let Some(score) = tickets.map(score).max() else {
                continue;
            };
            // The name decides between equal scores, whatever the order of the targets.
            if best.is_none_or(|(top, top_name, _)| (score, name) > (top, top_name)) {
                best = Some((score, name, target));
            }
        }
        best.map(|(_, _, target)| target)
    }
}

/// Increment of SplitMix64: the tickets of a target are that generator's outputs.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// FNV-1a, 64 bits (draft-eastlake-fnv): fixed for all time, unlike the hashes of hash tables.
fn fnv1a(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// SplitMix64's output function (Steele, Lea, Flood 2014): spreads every bit over all of them.
fn finalise(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
