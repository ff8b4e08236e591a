//! What a request says of itself when it has to wait: how important it is, and whose it is. Nothing here
//! is looked at while requests find a slot.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::sync::LazyLock;

use activator::admission::{Claim, Flow, Priority};
use config::revision::{FairBy, Revision};
use config::route::Fields;
use config::snapshot::PriorityFrom;

use super::Exchange;
use super::token;
use crate::http::field::{Head, Name};
use crate::serve::census::network;

/// So many hops are looked at from the end of `X-Forwarded-For`. Chains of proxies of one's own are
/// shorter.
const HOPS_MAX: usize = 16;

/// Nobody outside can know which clients hash alike.
static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// What a client is known by; no kind can be taken for another.
#[derive(Hash)]
enum Key<'a> {
    Namespace(&'a str),
    Address(u64),
    Header(&'a [u8]),
    Claim(&'a str),
}

impl Key<'_> {
    fn hash(&self) -> u64 {
        SEED.hash_one(self)
    }
}

impl Exchange<'_> {
    pub(super) fn claim(&self, revision: &Revision, bytes: u64) -> Claim {
        let flow = Flow {
            namespace: self.namespace(),
            client: self.flow_of_client(revision),
        };
        Claim {
            arrived: self.arrived,
            again: self.seen.attempts > 0,
            priority: self.priority(revision),
            flow,
            // Whoever stands in front is many clients.
            address: self.client_address().map(network),
            bytes,
        }
    }

    /// What its rule says, else its route, else its revision.
    pub(super) fn priority(&self, revision: &Revision) -> Priority {
        let routed = self.routed.as_ref();
        let urgency = routed.and_then(|routed| routed.route().urgency_of(routed.rule()));
        let said = match urgency.and_then(|urgency| urgency.priority.as_ref()) {
            Some(PriorityFrom::Class(class)) => Some(*class),
            Some(PriorityFrom::Header(name)) => {
                Fields::first(&self.request.head, name).and_then(class)
            }
            None => None,
        };
        said.unwrap_or(revision.queue.priority)
    }

    /// Of the route that the request came by: others may lead to the same revision.
    fn namespace(&self) -> u64 {
        let first = self.rerouted.first().or(self.routed.as_ref());
        first.map_or(0, |routed| {
            Key::Namespace(&routed.route().key.namespace).hash()
        })
    }

    fn flow_of_client(&self, revision: &Revision) -> u64 {
        let head = &self.request.head;
        let said = match &revision.queue.fair_by {
            FairBy::Nothing => return 0,
            FairBy::Address => None,
            FairBy::Header(name) => {
                // Nobody's name is empty: whoever says nothing is told apart by address.
                let value = Fields::first(head, name).filter(|value| !value.is_empty());
                value.map(|value| Key::Header(value).hash())
            }
            FairBy::Claim(name) => {
                let credentials = Fields::first(head, "authorization");
                let claim = credentials.and_then(|credentials| token::claim(credentials, name));
                claim.map(|claim| Key::Claim(&claim).hash())
            }
        };
        said.unwrap_or_else(|| {
            let peer = self.client.address.ip();
            Key::Address(network(self.client_address().unwrap_or(peer))).hash()
        })
    }

    /// The client's own address; `None` where only a proxy of ours is known.
    fn client_address(&self) -> Option<IpAddr> {
        if !self.client.trusted {
            return self.client.one_client.then_some(self.client.address.ip());
        }
        let proxies = &self.worker.shared.settings.trusted_proxies;
        last_untrusted(&self.request.head, |address| {
            proxies.iter().any(|network| network.contains(&address))
        })
    }
}

/// The last address of `X-Forwarded-For` that is none of our proxies'; what comes before it, anybody
/// could have written. `None` if there is none, or something that is no address comes after it.
fn last_untrusted(head: &Head, is_trusted: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
    // The edits have taken the field over, so that it does not go out as it came.
    let fields = head.fields().iter().rev();
    let fields = fields.filter(|field| field.id == Name::XForwardedFor);
    let hops = fields.flat_map(|field| head.value(field).rsplit(|byte| *byte == b','));
    for hop in hops.take(HOPS_MAX) {
        let address = hop_address(hop)?;
        if !is_trusted(address) {
            return Some(address);
        }
    }
    None
}

/// An address, perhaps in brackets and with a port.
fn hop_address(hop: &[u8]) -> Option<IpAddr> {
    let hop = std::str::from_utf8(hop.trim_ascii()).ok()?;
    let bracketed = || hop.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let address = hop.parse::<IpAddr>().ok();
    let address = address.or_else(|| Some(hop.parse::<SocketAddr>().ok()?.ip()));
    let address = address.or_else(|| Some(IpAddr::V6(bracketed()?)));
    address.map(|address| address.to_canonical())
}

/// A class as a header says it.
fn class(value: &[u8]) -> Option<Priority> {
    match value {
        [digit @ b'0'..=b'9'] => Priority::new(i64::from(digit - b'0')),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::h1::request::parse;
    use crate::http::h1::{HeadLimits, Parsed};
    use crate::http::message::RequestHead;

    fn head(fields: &str) -> Head {
        let limits = HeadLimits {
            bytes: 4096,
            fields: 100,
            target: 100,
        };
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let mut out = RequestHead::default();
        let parsed = parse(head.as_bytes(), &limits, &mut out);
        assert_eq!(parsed, Ok(Parsed::Head(head.len())));
        out.head
    }

    #[test]
    fn the_client_is_who_the_first_proxy_of_ours_saw() {
        let ours = |address: IpAddr| matches!(address, IpAddr::V4(v4) if v4.octets()[0] == 10);
        let many = "6.6.6.6, ".repeat(3) + &"10.0.0.1, ".repeat(HOPS_MAX);
        for (fields, wanted) in [
            ("", None),
            ("X-Forwarded-For: 192.0.2.1\r\n", Some("192.0.2.1")),
            (
                "X-Forwarded-For: 6.6.6.6, 192.0.2.1, 10.0.0.1\r\n",
                Some("192.0.2.1"),
            ),
            (
                "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 192.0.2.1\r\n",
                Some("192.0.2.1"),
            ),
            ("X-Forwarded-For: [2001:db8::1]:80\r\n", Some("2001:db8::1")),
            ("X-Forwarded-For: [2001:db8::1]\r\n", Some("2001:db8::1")),
            (
                "X-Forwarded-For: 192.0.2.1:80, 10.0.0.1:80\r\n",
                Some("192.0.2.1"),
            ),
            ("X-Forwarded-For: ::ffff:192.0.2.1\r\n", Some("192.0.2.1")),
            ("X-Forwarded-For: 192.0.2.1, unknown\r\n", None),
            ("X-Forwarded-For: unknown, 192.0.2.1\r\n", Some("192.0.2.1")),
            ("X-Forwarded-For: 10.0.0.1, 10.0.0.2\r\n", None),
            ("X-Forwarded-For: ,\r\n", None),
            (&format!("X-Forwarded-For: {many}10.0.0.1\r\n"), None),
        ] {
            let mut head = head(fields);
            let wanted = wanted.map(|wanted| wanted.parse::<IpAddr>().unwrap());
            assert_eq!(last_untrusted(&head, ours), wanted, "{fields}");
            head.drop_all(Name::XForwardedFor);
            assert_eq!(last_untrusted(&head, ours), wanted, "dropped: {fields}");
        }
    }

    #[test]
    fn a_class_is_one_digit() {
        for number in 0..8 {
            let read = class(number.to_string().as_bytes());
            assert_eq!(read.map(Priority::class), Some(number));
        }
        for value in ["", "8", "9", "-1", "07", "7 ", " 7", "high", "\u{0667}"] {
            assert_eq!(class(value.as_bytes()), None, "{value:?}");
        }
    }

    #[test]
    fn no_kind_of_key_can_be_taken_for_another() {
        let address = Key::Address(network([192, 0, 2, 1].into())).hash();
        let keys = [
            address,
            Key::Header(b"192.0.2.1").hash(),
            Key::Claim("192.0.2.1").hash(),
            Key::Namespace("192.0.2.1").hash(),
        ];
        for (at, key) in keys.iter().enumerate() {
            assert!(!keys[..at].contains(key));
        }
        assert_eq!(address, Key::Address(network([192, 0, 2, 1].into())).hash());
    }
}
