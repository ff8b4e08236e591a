//! The fields proxies add to what they forward, so that they are compared at the same work.
//!
//! Tidegate sets four on every request and has no way not to (beside `Via`, which it needs to
//! recognise loops). nginx and HAProxy add what they are told to, so they are told the same, and
//! once more the least that anybody tells them. The others are as their makers ship them; what they
//! send is on record with each and checked by a test.

use super::Peer;

const FOR: &str = "X-Forwarded-For";
const PROTO: &str = "X-Forwarded-Proto";
const HOST: &str = "X-Forwarded-Host";
const ID: &str = "X-Request-Id";

/// All that is looked at: who the client is, how and for which host it asked, and the request's
/// name in everybody's logs.
pub(super) const ALL: &[&str] = &[FOR, PROTO, HOST, ID];

/// Without a name for the request.
pub(super) const FORWARDED: &[&str] = &[FOR, PROTO, HOST];

/// Without the host.
pub(super) const BUT_HOST: &[&str] = &[FOR, PROTO, ID];

/// The client's address only.
pub(super) const BARE: &[&str] = &[FOR];

/// Nothing: it does not read requests.
pub(super) const NONE: &[&str] = &[];

/// What makes nginx add the client's address, in a `location`.
pub(crate) const NGINX_BARE: &str =
    "      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n";

/// What makes nginx add the others too. The host is what the client sent, as with Tidegate;
/// the name is 16 random bytes in hexadecimal digits, as with Tidegate.
pub(crate) const NGINX_MORE: &str = "      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Forwarded-Host $http_host;
      proxy_set_header X-Request-Id $request_id;
";

/// What makes HAProxy add the client's address, in `defaults`.
pub(crate) const HAPROXY_BARE: &str = "  option forwardfor\n";

/// What makes HAProxy set the others, in a `frontend` of this scheme. `unique-id-header` is no cheaper and would
/// leave a name that the client sent beside its own.
pub(crate) fn haproxy_more(scheme: &str) -> String {
    format!(
        "  http-request set-header X-Forwarded-Proto {scheme}
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  http-request set-header X-Request-Id %[uuid()]
"
    )
}

/// Which of these proxies add what, in a sentence.
pub(crate) fn note<'a>(peers: impl Iterator<Item = &'a Peer>) -> String {
    let mut groups: Vec<(&[&str], Vec<&str>)> = Vec::new();
    for peer in peers {
        match groups.iter_mut().find(|group| group.0 == peer.fields) {
            Some((_, names)) => names.push(peer.name),
            None => groups.push((peer.fields, vec![peer.name])),
        }
    }
    let said = groups.iter().map(|(fields, names)| {
        let fields = match *fields {
            [] => "nothing".to_owned(),
            fields => fields.join(", "),
        };
        format!("{fields} by {}", names.join(", "))
    });
    let said: Vec<String> = said.collect();
    format!("Added to each forwarded request: {}.", said.join("; "))
}

#[cfg(test)]
mod tests {
    use super::super::{copier, haproxy, nginx};
    use super::*;

    #[test]
    fn proxies_that_add_the_same_are_named_together() {
        let peers = [
            &nginx::PEER,
            &nginx::BARE,
            &copier::PEER,
            &haproxy::PEER,
            &haproxy::BARE,
        ];
        assert_eq!(
            note(peers.into_iter()),
            "Added to each forwarded request: X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host, \
             X-Request-Id by nginx, haproxy; X-Forwarded-For by nginx-bare, haproxy-bare; nothing by \
             copier."
        );
    }
}
