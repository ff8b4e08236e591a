//! "Did you mean".

/// Edits per letter beyond which two names are not taken for one another.
const SIMILAR_ENOUGH: f64 = 0.6;

/// The known name nearest to what was written, if any is near.
pub(crate) fn nearest<'a>(
    written: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let lower = written.to_lowercase();
    let score = |name: &'a str| {
        let similarity = strsim::normalized_damerau_levenshtein(&lower, &name.to_lowercase());
        (similarity, name)
    };
    known
        .into_iter()
        .map(score)
        .filter(|(similarity, _)| *similarity >= SIMILAR_ENOUGH)
        .max_by(|a, b| a.0.total_cmp(&b.0).then_with(|| b.1.cmp(a.1)))
        .map(|(_, name)| name)
}

/// `did you mean `x`?`, or else the list of what is known.
pub(crate) fn suggest(written: &str, known: &[&str]) -> String {
    match nearest(written, known.iter().copied()) {
        Some(name) => format!("did you mean `{name}`?"),
        None if known.is_empty() => String::new(),
        None => format!("one of: {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_pen_is_recognised_and_a_different_word_is_not() {
        let known = ["traffic", "rules", "hosts"];
        assert_eq!(nearest("trafic", known), Some("traffic"));
        assert_eq!(nearest("Rules", known), Some("rules"));
        assert_eq!(nearest("banana", known), None);
    }

    #[test]
    fn without_a_near_name_all_are_listed() {
        assert_eq!(suggest("banana", &["a", "b"]), "one of: a, b");
    }
}
