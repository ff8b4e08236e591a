//! Sticky splits: one key, one revision.

use std::collections::BTreeSet;

use tests::client::with;
use tests::load::distribution;
use tests::{Backend, Gateway, request};

use crate::HELLO;

/// `one` gets what `two` does not.
fn config(sticky: &str, two_percent: u32, one: &Backend, two: &Backend) -> String {
    format!(
        "
routes:
  - name: hello
    sticky: {sticky}
    traffic:
      - {{ revision: r-1, percent: {} }}
      - {{ revision: r-2, percent: {two_percent} }}
revisions:
  - {{ name: r-1, endpoints: ['{one}'] }}
  - {{ name: r-2, endpoints: ['{two}'] }}
",
        100 - two_percent
    )
}

/// Those of `count` users whom `two` answers.
async fn at_two(gateway: &Gateway, count: usize) -> BTreeSet<usize> {
    let mut client = gateway.connect().await;
    let mut found = BTreeSet::new();
    for user in 0..count {
        let asked = with(
            request("GET", HELLO, "/?size=0"),
            "x-user",
            &format!("user-{user}"),
        );
        if client.send(asked).await.expect(200).backend() == "two" {
            found.insert(user);
        }
    }
    found
}

#[tokio::test]
async fn same_key_reaches_the_same_revision_whatever_the_gateway() {
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let config = config("{ header: x-user }", 50, &one, &two);
    let gateway = Gateway::start(&config).await;
    let first = at_two(&gateway, 300).await;
    assert!((100..=200).contains(&first.len()), "{}", first.len());
    assert_eq!(at_two(&gateway, 300).await, first);
    // Another replica, and the same one started anew, agree.
    assert_eq!(at_two(&Gateway::start(&config).await, 300).await, first);
}

#[tokio::test]
async fn from_10_to_20_percent_only_a_tenth_of_the_keys_moves() {
    const USERS: usize = 4000;
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let gateway = Gateway::start(&config("{ header: x-user }", 10, &one, &two)).await;
    let before = at_two(&gateway, USERS).await;
    gateway
        .apply(&config("{ header: x-user }", 20, &one, &two))
        .await;
    let after = at_two(&gateway, USERS).await;
    assert!((300..=500).contains(&before.len()), "{}", before.len());
    assert!((680..=920).contains(&after.len()), "{}", after.len());
    // Whom the growing revision had, it keeps.
    assert!(before.is_subset(&after));
}

#[tokio::test]
async fn order_of_targets_moves_nobody() {
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let config = config("{ header: x-user }", 50, &one, &two);
    let gateway = Gateway::start(&config).await;
    let before = at_two(&gateway, 300).await;
    let (r1, r2) = (
        "{ revision: r-1, percent: 50 }",
        "{ revision: r-2, percent: 50 }",
    );
    let turned = config.replace(r1, "X").replace(r2, r1).replace('X', r2);
    assert_ne!(turned, config);
    gateway.apply(&turned).await;
    assert_eq!(at_two(&gateway, 300).await, before);
}

#[tokio::test]
async fn without_the_header_every_request_is_drawn() {
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let gateway = Gateway::start(&config("{ header: x-user }", 50, &one, &two)).await;
    let counts = distribution(gateway.public(), 400, |_| request("GET", HELLO, "/")).await;
    assert!((130..=270).contains(&counts["one"]), "{counts:?}");
}

#[tokio::test]
async fn cookie_is_given_with_its_attributes_and_then_decides() {
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let gateway = Gateway::start(&config("{ cookie: seat, ttl: 24h }", 50, &one, &two)).await;
    let mut seen = BTreeSet::new();
    for _ in 0..20 {
        let first = gateway.get(HELLO, "/").await.expect(200);
        let cookie = first.header("set-cookie");
        let (pair, attributes) = cookie
            .split_once("; ")
            .unwrap_or_else(|| panic!("{cookie:?}"));
        let value = pair
            .strip_prefix("seat=")
            .unwrap_or_else(|| panic!("{cookie:?}"));
        assert!(
            value.len() >= 8 && seen.insert(value.to_owned()),
            "not random: {cookie}"
        );
        assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Lax; Max-Age=86400");
        for _ in 0..5 {
            let asked = with(
                request("GET", HELLO, "/"),
                "cookie",
                &format!("other=1; {pair}; x=y"),
            );
            let again = gateway.send(asked).await.expect(200);
            assert_eq!(again.backend(), first.backend());
            assert!(again.seen("cookie").contains("other=1"));
        }
    }
    assert!(one.total() > 0 && two.total() > 0);
}
