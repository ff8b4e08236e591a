//! config-kourier: what was set for the gateway whose place we take.

use super::read::Map;
use super::{BadValue, Data, Unheeded};

pub(super) const NAME: &str = "config-kourier";

/// What config-kourier says to us. Its listeners, certificates and peers are `gateway` options here,
/// which are read before there is a cluster to ask. `enable-cryptomb` and
/// `disable-envoy-server-header` have nothing to change here: the one is about Envoy's way with keys,
/// the other leaves an endpoint's `Server` field as it is, which we always do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kourier {
    /// `enable-service-access-logging`: false turns the access log off, unless a file says how
    /// it is to be.
    pub access_log: bool,
    /// Of the keys that name what is set elsewhere here, or what we do not do.
    pub(super) unheeded: Vec<Unheeded>,
}

impl Default for Kourier {
    fn default() -> Kourier {
        Kourier {
            access_log: true,
            unheeded: Vec::new(),
        }
    }
}

/// Keys with a text, and what to do instead.
const TEXTS: [(&str, &str); 8] = [
    (
        "service-access-log-template",
        "the access log has its own form: docs/operations.md",
    ),
    (
        "cluster-cert-secret",
        "write `tls.certificates` at the internal listener",
    ),
    (
        "certs-secret-name",
        "write `tls.certificates` at the public listener",
    ),
    ("cipher-suites", "the suites are fixed"),
    ("listen-ip-addresses", "write `gateway.listeners`"),
    (
        "tracing-endpoint",
        "trace headers are passed on, and no spans are sent",
    ),
    (
        "tracing-collector-full-endpoint",
        "trace headers are passed on, and no spans are sent",
    ),
    ("extauthz-host", "nobody else is asked about requests"),
];

impl Kourier {
    pub(super) fn of(data: &Data) -> Result<Kourier, BadValue> {
        let map = Map { name: NAME, data };
        let count = "write a whole number from 0 on";
        let numbers = [(
            map.number("trusted-hops-count", 0_u32, count)? > 0,
            "trusted-hops-count",
            "write `gateway.trustedProxies`",
        )];
        let idle = map.duration(&["stream-idle-timeout"], std::time::Duration::ZERO)?;
        let durations = [(
            !idle.is_zero(),
            "stream-idle-timeout",
            "a Revision's idleTimeoutSeconds holds",
        )];
        // The peer's address is always the client's, whether that is said or not.
        map.flag("use-remote-address", false)?;
        let flags = [(
            map.flag("enable-proxy-protocol", false)?,
            "enable-proxy-protocol",
            "write `proxyProtocol` at the public listener",
        )];
        let texts = TEXTS.map(|(key, instead)| (map.text(key).is_some(), key, instead));
        let said = numbers
            .into_iter()
            .chain(durations)
            .chain(flags)
            .chain(texts);
        let said = said.filter(|(is_set, ..)| *is_set);
        Ok(Kourier {
            access_log: map.flag("enable-service-access-logging", true)?,
            unheeded: said
                .map(|(_, key, instead)| map.unheeded(key, instead))
                .collect(),
        })
    }
}
