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
    let looks = if len <= FEW { len } else { 2 };
    let mut best: Option<(u32, usize)> = None;
    let mut at = first;
    for _ in 0..looks {
        if let Some(load) = load(at)
            && best.is_none_or(|(least, _)| load < least)
        {
            best = Some((load, at));
        }
        at = match len <= FEW {
            true if at + 1 == len => 0,
            true => at + 1,
            false => second,
        };
    }
    if let Some((_, at)) = best
        && let Some(taken) = take(at)
    {
        return Some(taken);
    }
    (first..len).chain(0..first).find_map(take)
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
