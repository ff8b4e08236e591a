//! Targets that are warmed before they get traffic.
//!
//! A revision that had no share of a rule's requests and is given one has to wait for it until it is
//! warm: whoever loses what it is to get keeps that meanwhile, in proportion. So what is in force is a
//! split like any other, and choosing a target of it knows nothing of this.

use std::sync::Arc;

use crate::revision::Key;
use crate::snapshot::{Action, PathMatch, Route, Rule, Split, Target};

/// What decides who must wait.
pub(super) struct Terms<'a> {
    /// Whether the revision can take requests now.
    pub(super) warm: &'a dyn Fn(&Key) -> bool,
    /// Whether the revision can serve after this batch: what cannot keeps no share.
    pub(super) there: &'a dyn Fn(&Key) -> bool,
}

/// Holds shares of `new` back, going by what `old`, the version in force, gives whom. Rules that mean
/// the same requests are compared; a rule that is new waits for nothing.
pub(super) fn hold(new: &mut Route, old: &Route, terms: &Terms<'_>) {
    if let Some(before) = before_route(old, new) {
        hold_split(&mut new.split, before, terms);
    }
    // The one that is shared with other routes has no split of its own.
    let Some(rules) = Arc::get_mut(&mut new.rules) else {
        return;
    };
    for rule in rules {
        let before = before_rule(old, rule);
        let Action::Forward(forward) = &mut rule.action else {
            continue;
        };
        if let Some(before) = before
            && !forward.split.targets.is_empty()
        {
            hold_split(&mut forward.split, before, terms);
        }
    }
}

/// What had the requests before that the route's own split is for; `None` if nothing can be said, or
/// if all its rules have splits of their own: then only tags lead to it.
fn before_route<'a>(old: &'a Route, new: &Route) -> Option<&'a Split> {
    if new.split.targets.is_empty() {
        return None;
    }
    users(new).next()?;
    let by_rule = users(new).find_map(|rule| before_rule(old, rule));
    let whole = || users(old).next().map(|_| &old.split);
    let before = by_rule.or_else(whole)?;
    (!before.targets.is_empty()).then_some(before)
}

/// What had the requests of this rule before.
fn before_rule<'a>(old: &'a Route, rule: &Rule) -> Option<&'a Split> {
    let counterpart = old.rules.iter().find(|other| is_same(rule, other))?;
    let split = old.split_of(counterpart)?;
    (!split.targets.is_empty()).then_some(split)
}

/// Rules that the route's own split is for.
fn users(route: &Route) -> impl Iterator<Item = &Rule> {
    let own = &route.split;
    let uses = move |rule: &&Rule| route.split_of(rule).is_some_and(|it| std::ptr::eq(it, own));
    route.rules.iter().filter(uses)
}

fn is_same(one: &Rule, other: &Rule) -> bool {
    let everything = |rule: &Rule| match &rule.path {
        PathMatch::Prefix(prefix) => matches!(&**prefix, "" | "/"),
        PathMatch::Exact(_) => false,
    };
    let same_path = one.path == other.path || everything(one) && everything(other);
    same_path && one.methods == other.methods && one.headers == other.headers
}

fn hold_split(new: &mut Split, old: &Split, terms: &Terms<'_>) {
    let must_wait = |target: &Target| {
        let key = &target.revision_key;
        target.asked > 0 && share(old, key) == 0 && !(terms.warm)(key)
    };
    let held: u32 = new
        .targets
        .iter()
        .filter(|one| must_wait(one))
        .map(asked)
        .sum();
    let losers = losers(new, old, terms);
    if held == 0 || losers.is_empty() {
        return;
    }
    for target in &mut new.targets {
        if must_wait(target) {
            target.percent = 0;
        }
    }
    let losses: Vec<u32> = losers.iter().map(|(_, loss)| *loss).collect();
    let mut targets = std::mem::take(&mut new.targets).into_vec();
    for ((loser, _), kept) in losers.into_iter().zip(divide(held, &losses)) {
        let key = &loser.revision_key;
        match targets.iter_mut().find(|one| one.revision_key == *key) {
            // Percents that do not sum to 100 have been complained about.
            Some(target) => target.percent = target.percent.saturating_add(kept),
            None if kept > 0 => targets.push(Target {
                percent: kept,
                asked: 0,
                tag: None,
                ..loser.clone()
            }),
            None => {}
        }
    }
    new.targets = targets.into();
}

/// Who has less than before and is still there, each revision once, and how much less.
fn losers<'a>(new: &Split, old: &'a Split, terms: &Terms<'_>) -> Vec<(&'a Target, u32)> {
    let mut losers: Vec<(&Target, u32)> = Vec::new();
    for target in &old.targets {
        let key = &target.revision_key;
        let asked_now = new.targets.iter().filter(|one| one.revision_key == *key);
        let asked_now: u32 = asked_now.map(asked).sum();
        let loss = share(old, key).saturating_sub(asked_now);
        let known = losers.iter().any(|(one, _)| one.revision_key == *key);
        if loss > 0 && !known && (terms.there)(key) {
            losers.push((target, loss));
        }
    }
    losers
}

fn asked(target: &Target) -> u32 {
    target.asked.into()
}

/// What a revision has now, all its targets together.
fn share(split: &Split, key: &Key) -> u32 {
    let targets = split.targets.iter();
    let targets = targets.filter(|target| target.revision_key == *key);
    targets.map(|target| u32::from(target.percent)).sum()
}

/// Parts of `whole` in proportion to `weights`, which are not all zero: whole numbers that add up to
/// it, by largest remainders. `whole` is at most 100.
fn divide(whole: u32, weights: &[u32]) -> Vec<u8> {
    let sum: u32 = weights.iter().sum();
    let mut parts: Vec<u32> = weights.iter().map(|weight| whole * weight / sum).collect();
    let missing = whole - parts.iter().sum::<u32>();
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by_key(|at| std::cmp::Reverse(whole * weights[*at] % sum));
    // Fewer than there are parts: each was rounded down by less than one.
    for at in order.into_iter().take(missing as usize) {
        parts[at] += 1;
    }
    let narrow = |part| u8::try_from(part).unwrap_or(u8::MAX);
    parts.into_iter().map(narrow).collect()
}

#[cfg(test)]
mod tests;
