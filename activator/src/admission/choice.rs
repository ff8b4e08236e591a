//! Choosing among endpoints: the less loaded of two, or of all when there are few.

/// Up to so many endpoints all are looked at; among more, two. One cache line per look.
const FEW: usize = 4;

/// Takes a slot at one of `len` places. `load` says how busy a place is, `None` when it has no
/// room; `take` may still fail where another was quicker, and is then tried everywhere. `random`
/// decides where to begin, and so between equals.
pub(super) fn choose<T>(
    len: usize,
    random: u32,
    load: impl Fn(usize) -> Option<u32>,
    mut take: impl FnMut(usize) -> Option<T>,
) -> Option<T> {
    let (first, second) = two_of(len, random)?;
    let all = || (first..len).chain(0..first);
    let loaded = |at| Some((load(at)?, at));
    let best = match len <= FEW {
        true => all().filter_map(loaded).min_by_key(|(load, _)| *load),
        false => [first, second]
            .into_iter()
            .filter_map(loaded)
            .min_by_key(|(load, _)| *load),
    };
    if let Some(taken) = best.and_then(|(_, at)| take(at)) {
        return Some(taken);
    }
    all().find_map(take)
}

/// Two different places below `len`, the same twice when there is only one.
fn two_of(len: usize, random: u32) -> Option<(usize, usize)> {
    match len {
        0 => None,
        1 => Some((0, 0)),
        _ => {
            let first = below(len, random);
            let second = first + 1 + below(len - 1, random.rotate_left(16));
            let wrapped = if second < len { second } else { second - len };
            Some((first, wrapped))
        }
    }
}

fn below(bound: usize, random: u32) -> usize {
    let scaled = (u64::from(random) * bound as u64) >> 32;
    usize::try_from(scaled).expect("below a usize")
}
