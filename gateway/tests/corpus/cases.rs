//! Our codec does with every case what the corpus says.

use std::collections::BTreeSet;

use tidegate::refusal::Reason;

use crate::corpus::{By, Expected};
use crate::ours::{self, End, Message};
use crate::requests;

/// What is said of each request, in the words of the corpus; the exchange is not asked here.
fn expected_end(expected: Option<&Expected>) -> End {
    match expected {
        Some(Expected::Refused { reason, by, status }) => {
            let known = Reason::ALL.iter().find(|known| known.word() == reason);
            let known = *known.unwrap_or_else(|| panic!("{reason} is no reason"));
            assert_eq!(known.status(), *status, "{reason}");
            match by {
                By::Head => End::Refused(known),
                By::Body => End::RefusedInBody,
                By::Exchange => End::Nothing,
            }
        }
        Some(Expected::Incomplete { in_body: false }) => End::Incomplete,
        Some(Expected::Incomplete { in_body: true }) => End::IncompleteBody,
        Some(Expected::Forwarded { .. }) | None => End::Nothing,
    }
}

/// What is wrong with how one was read, if anything is.
fn wrong(message: &Message, expected: &Expected) -> Option<String> {
    let Expected::Forwarded {
        message: wanted,
        trailers,
        by_exchange,
        closes,
    } = expected
    else {
        return None;
    };
    let whole = [&message.head[..], &message.body].concat();
    let same = *by_exchange || whole == *wanted;
    if same && message.trailers == *trailers && message.closes == *closes {
        return None;
    }
    Some(format!(
        "{} + {} closes: {}\n",
        whole.escape_ascii(),
        message.trailers.escape_ascii(),
        message.closes
    ))
}

///
#[test]
fn every_request_of_the_corpus_is_read_as_it_says() {
    let mut failures = Vec::new();
    for case in requests() {
        let expected = case.expected();
        assert!(!expected.is_empty(), "{} has no outcome", case.name);
        let reading = ours::read(&case.sent);
        let whole = |one: &&Expected| {
            let exchange = matches!(
                one,
                Expected::Refused {
                    by: By::Exchange,
                    ..
                }
            );
            exchange || matches!(one, Expected::Forwarded { .. })
        };
        let forwarded = expected.iter().take_while(whole).count();
        let end = expected_end(expected.get(forwarded));
        let mut told = Vec::new();
        for (message, wanted) in reading.messages.iter().zip(&expected) {
            told.extend(wrong(message, wanted));
        }
        let ended = reading.end == end && reading.messages.len() == forwarded;
        if !ended || !told.is_empty() {
            let read = reading.messages.len();
            failures.push(format!(
                "{}: {read} read, {:?} {told:?}",
                case.name, reading.end
            ));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn the_corpus_is_large_and_every_case_has_its_own_bytes() {
    let cases = requests();
    assert!(cases.len() >= 500, "{}", cases.len());
    let names: BTreeSet<_> = cases.iter().map(|case| &case.name).collect();
    let bytes: BTreeSet<_> = cases.iter().map(|case| &case.sent).collect();
    assert_eq!((names.len(), bytes.len()), (cases.len(), cases.len()));
}
