//! With `clientCa`, endpoints hear who a client has proved to be, and from nobody else.

use std::sync::Arc;

use rcgen::{CertificateParams, DnType, SanType};
use tests::client::with;
use tests::tls::{Authority, Pem, connect};
use tests::{Answer, Backend, Client, Gateway, Launch, Wire, request};

use crate::tls::listener;
use crate::{HELLO, hello};

/// A certificate of this client.
fn issue(authority: &Authority, name: &str) -> Pem {
    let mut params = CertificateParams::new(vec!["client.test".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    let uri = "spiffe://tide/ns/default/sa/one".try_into().unwrap();
    params.subject_alt_names.push(SanType::URI(uri));
    authority.sign(&params)
}

async fn start(backend: &Backend, authority: &Authority, auth: &str) -> Gateway {
    let config = listener(&["own"], &format!(", clientCa: ca.pem{auth}")) + &hello(backend);
    let launch = Launch::new(&config).own_listeners();
    let launch = launch.certificate("own", &authority.issue(&[HELLO]));
    launch.file("ca.pem", &authority.pem()).start().await
}

/// The answer to a request that claims to be somebody, of a client with that certificate.
async fn ask(
    gateway: &Gateway,
    authority: &Authority,
    certificate: Option<&Pem>,
) -> anyhow::Result<Answer> {
    let client = match certificate {
        Some(pem) => authority.client_with(&[], pem),
        None => authority.client(&[]),
    };
    let stream = connect(&Arc::new(client), gateway.public(), HELLO).await?;
    let mut client = Client::over(Wire::Http1, stream).await?;
    let claim = "Hash=00;Subject=\"CN=root\"";
    let asked = with(request("GET", HELLO, "/"), "x-forwarded-client-cert", claim);
    client.try_send(asked).await
}

#[tokio::test]
async fn verified_client_is_named_and_a_claim_is_not_passed_on() {
    let backend = Backend::start("one");
    let authority = Authority::new();
    for auth in ["", ", clientAuth: required", ", clientAuth: optional"] {
        let gateway = start(&backend, &authority, auth).await;
        let known = issue(&authority, "a, \"b\";Subject=c");
        let answer = ask(&gateway, &authority, Some(&known)).await.unwrap();
        let said = answer.expect(200).seen("x-forwarded-client-cert");
        let (hash, rest) = said.split_once(';').unwrap();
        let hash = hash.strip_prefix("Hash=").unwrap();
        assert!(hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let expected = "Subject=\"CN=a\\, \\\"b\\\"\\;Subject\\=c\";\
                        URI=spiffe://tide/ns/default/sa/one;DNS=client.test";
        assert_eq!(rest, expected, "{auth}");
    }
}

#[tokio::test]
async fn who_must_show_a_certificate_and_does_not_is_not_served() {
    let backend = Backend::start("one");
    let (authority, strangers) = (Authority::new(), Authority::new());
    for (auth, must) in [("", true), (", clientAuth: optional", false)] {
        let gateway = start(&backend, &authority, auth).await;
        let before = backend.total();
        match ask(&gateway, &authority, None).await {
            Ok(answer) if !must => {
                assert_eq!(answer.expect(200).seen("x-forwarded-client-cert"), "");
            }
            Err(_) if must => {}
            other => panic!("{auth}: {other:?}"),
        }
        // One that nobody vouches for is worse than none.
        let strange = issue(&strangers, "a");
        ask(&gateway, &authority, Some(&strange)).await.unwrap_err();
        assert_eq!(backend.total() - before, u64::from(!must));
    }
}

#[tokio::test]
async fn new_authorities_count_from_the_next_connection_on() {
    let backend = Backend::start("one");
    let (old, new) = (Authority::new(), Authority::new());
    let gateway = start(&backend, &old, "").await;
    let of_old = Arc::new(old.client_with(&[], &issue(&old, "a")));
    let of_new = Arc::new(old.client_with(&[], &issue(&new, "b")));
    let stream = connect(&of_old, gateway.public(), HELLO).await.unwrap();
    let mut before = Client::over(Wire::Http1, stream).await.unwrap();
    before.get(HELLO, "/").await.expect(200);
    let version = gateway.version().await;
    std::fs::write(gateway.directory().join("ca.pem"), new.pem()).unwrap();
    gateway
        .until_metric("tidegate_config_version", &[], |now| now > version)
        .await;
    before.get(HELLO, "/").await.expect(200);
    // Neither its certificate nor the ticket it was given lets it in again.
    for (client, served) in [(&of_old, false), (&of_new, true), (&of_old, false)] {
        let answer = async {
            let stream = connect(client, gateway.public(), HELLO).await?;
            let mut client = Client::over(Wire::Http1, stream).await?;
            client.try_send(request("GET", HELLO, "/")).await
        };
        assert_eq!(answer.await.is_ok(), served);
    }
}
