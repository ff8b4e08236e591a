use config::settings::ClientCa;
use rcgen::CertificateParams;
use rustls::client::{ClientSessionMemoryCache, Resumption};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, HandshakeKind};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::super::testing::{Authority, Files, certified, refer, sockets};
use super::*;

fn read(tls: &Tls, before: Option<&Arc<Acceptor>>) -> Result<Arc<Acceptor>, Vec<Problem>> {
    Acceptor::read(tls, before, FromRoutes::default())
}

fn tls(certificates: Vec<Certificate>) -> Tls {
    Tls {
        certificates,
        from_routes: false,
        client_ca: None,
        ticket_keys: Vec::new(),
        unknown_name: UnknownName::Default,
    }
}

/// What is wrong, in words.
fn wrong(tls: &Tls) -> Vec<String> {
    let problems = read(tls, None).unwrap_err();
    let words = problems.iter().map(|problem| {
        assert_eq!((problem.file.as_str(), problem.line), ("gate.yaml", 7));
        assert!(!problem.hint.is_empty());
        format!("{}: {}", problem.value, problem.problem)
    });
    words.collect()
}

/// How a client called `name` fares: how its handshake was made, and the hosts in the certificate it
/// was shown.
async fn shake(
    acceptor: &Acceptor,
    client: &Arc<ClientConfig>,
    name: &'static str,
) -> Result<(HandshakeKind, Vec<String>), String> {
    let (ours, theirs) = sockets().await;
    let accepting = TlsAcceptor::from(acceptor.config.clone()).accept(ours);
    let name = ServerName::try_from(name).unwrap();
    let connecting = TlsConnector::from(client.clone()).connect(name, theirs);
    let (accepted, connected) = tokio::join!(accepting, connecting);
    let mut connected = connected.map_err(|error| error.to_string())?;
    let mut accepted = accepted.map_err(|error| error.to_string())?;
    // Tickets come before it.
    accepted.write_all(b"x").await.unwrap();
    accepted.flush().await.unwrap();
    let read = connected.read_u8().await;
    read.map_err(|error| error.to_string())?;
    let (_, session) = connected.get_ref();
    let shown = &session.peer_certificates().unwrap()[0];
    let hosts = x509::hosts(&x509::parse(shown).unwrap());
    Ok((session.handshake_kind().unwrap(), hosts))
}

fn client(authority: &Authority) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(provider());
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let mut config = builder
        .with_root_certificates(authority.roots())
        .with_no_client_auth();
    config.resumption = Resumption::store(Arc::new(ClientSessionMemoryCache::new(8)));
    config
}

#[test]
fn each_file_is_said_to_be_wrong_in_its_own_way() {
    let (files, authority) = (Files::new(), Authority::new());
    let pem = authority.issue(&["a.test"]);
    let good = files.put("good", &pem);
    let other = files.put("other", &authority.issue(&["a.test"]));
    files.write("empty.pem", "");
    files.write("broken.pem", &pem.cert[..200]);
    files.write(
        "odd.pem",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    );
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    files.write("encrypted.key", encrypted);
    let encrypted = "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\
                     DEK-Info: AES-128-CBC,00\n\nAAAA\n-----END EC PRIVATE KEY-----\n";
    files.write("old.key", encrypted);
    files.write("huge.pem", &"-".repeat(2_000_000));
    let with = |cert: &str, key: &str| {
        let certificate = Certificate {
            cert: files.refer(cert),
            key: files.refer(key),
            hosts: Vec::new(),
        };
        wrong(&tls(vec![certificate])).join("; ")
    };
    let cases = [
        (with("none.pem", "good.key"), "none.pem: there is no file"),
        (with("good.pem", "none.key"), "none.key: there is no file"),
        (
            with("empty.pem", "good.key"),
            "empty.pem: there is no certificate in",
        ),
        (
            with("good.key", "good.key"),
            "good.key: there is no certificate in",
        ),
        (
            with("broken.pem", "good.key"),
            "is not PEM: `-----END CERTIFICATE-----` is missing",
        ),
        (with("good.pem", "old.key"), "old.key: there is no key"),
        (with("huge.pem", "good.key"), "is larger than 1 MiB"),
        (with("good.pem", "good.pem"), "good.pem: there is no key"),
        (
            with("good.pem", "encrypted.key"),
            "encrypted.key: there is no key",
        ),
        (
            with("good.pem", "other.key"),
            "other.key: the key does not belong",
        ),
        (with("odd.pem", "good.key"), "odd.pem: the certificate in"),
    ];
    for (said, expected) in cases {
        assert!(said.contains(expected), "{said:?} is not {expected:?}");
    }
    let directory = refer(files.path());
    let mut bad = good.clone();
    bad.cert = directory;
    assert!(wrong(&tls(vec![bad]))[0].contains("cannot be read"));
    // All of them at once.
    let mut both = good.clone();
    both.cert = files.refer("none.pem");
    both.key = files.refer("none.key");
    let mut all = tls(vec![both, other]);
    all.client_ca = Some(ClientCa {
        file: files.refer("good.key"),
        required: true,
    });
    assert_eq!(wrong(&all).len(), 3);
    assert!(read(&tls(vec![good]), None).is_ok());
}

#[test]
fn a_certificate_must_be_for_the_hosts_it_is_given() {
    let (files, authority) = (Files::new(), Authority::new());
    let mut certificate = files.put("a", &authority.issue(&["a.test", "*.b.test"]));
    let mut try_hosts = |hosts: &[&str]| {
        certificate.hosts = hosts.iter().map(|host| (*host).into()).collect();
        read(&tls(vec![certificate.clone()]), None)
    };
    for good in [&["a.test"][..], &["*.b.test", "x.b.test"], &[]] {
        assert!(try_hosts(good).is_ok(), "{good:?}");
    }
    for bad in ["b.test", "x.a.test", "*.test", "*.x.b.test", "y.x.b.test"] {
        let problem = try_hosts(&["a.test", bad]).unwrap_err().remove(0);
        assert!(problem.problem.ends_with(&format!("is not for `{bad}`")));
        assert_eq!(problem.hint, "it is for a.test, *.b.test");
    }
    // Without a name of its own it can only be the default.
    let nameless = files.put("n", &authority.issue(&[]));
    let named = files.put("b", &authority.issue(&["b.test"]));
    let first = tls(vec![nameless.clone(), named.clone()]);
    assert!(read(&first, None).is_ok());
    assert!(wrong(&tls(vec![named, nameless]))[0].contains("would never be used"));
}

#[tokio::test]
async fn clients_get_the_certificate_for_the_name_they_ask_for() {
    let (files, authority) = (Files::new(), Authority::new());
    let default = files.put("d", &authority.issue(&["default.test", "x.wild.test"]));
    let exact = files.put("e", &authority.issue(&["exact.test", "other.test"]));
    let mut wild = files.put("w", &authority.issue(&["*.wild.test", "other.test"]));
    wild.hosts = vec!["*.wild.test".into(), "other.test".into()];
    let acceptor = read(&tls(vec![default, exact, wild]), None).unwrap();
    let client = Arc::new(client(&authority));
    let cases = [
        ("exact.test", "exact.test"),
        ("y.wild.test", "*.wild.test"),
        ("x.wild.test", "default.test"),
        ("default.test", "default.test"),
        // What was written goes before what a certificate brings along.
        ("other.test", "*.wild.test"),
    ];
    for (name, expected) in cases {
        let (_, hosts) = shake(&acceptor, &client, name).await.unwrap();
        assert_eq!(hosts[0], expected, "{name}");
    }
    let error = shake(&acceptor, &client, "elsewhere.test").await;
    assert!(
        error.unwrap_err().contains("not valid for name"),
        "the default was shown"
    );
}

#[tokio::test]
async fn an_expired_certificate_is_used_all_the_same() {
    let (files, authority) = (Files::new(), Authority::new());
    let mut params = CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    params.not_before = rcgen::date_time_ymd(2019, 1, 1);
    let expired = files.put("a", &authority.sign(&params));
    let acceptor = read(&tls(vec![expired]), None).unwrap();
    let error = shake(&acceptor, &Arc::new(client(&authority)), "a.test").await;
    assert!(error.unwrap_err().contains("expired"));
}

/// A client of this version only, without a certificate.
fn speaking(
    version: &'static rustls::SupportedProtocolVersion,
    authority: &Authority,
) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider());
    let builder = builder.with_protocol_versions(&[version]).unwrap();
    let client = builder
        .with_root_certificates(authority.roots())
        .with_no_client_auth();
    Arc::new(client)
}

#[tokio::test]
async fn tls_1_2_and_1_3_are_spoken_and_http_2_is_offered_first() {
    let (files, authority) = (Files::new(), Authority::new());
    let certificate = files.put("a", &authority.issue(&["a.test"]));
    let acceptor = read(&tls(vec![certificate]), None).unwrap();
    assert_eq!(
        acceptor.config.alpn_protocols,
        PROTOCOLS.map(<[u8]>::to_vec)
    );
    assert_eq!(acceptor.config.max_early_data_size, 0);
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let client = speaking(version, &authority);
        let first = shake(&acceptor, &client, "a.test").await.unwrap();
        assert_ne!(first.0, HandshakeKind::Resumed);
        let again = shake(&acceptor, &client, "a.test").await.unwrap();
        assert_eq!(again.0, HandshakeKind::Resumed, "{version:?}");
    }
}

#[tokio::test]
async fn sessions_outlive_new_certificates_but_not_other_authorities_or_listeners() {
    let (files, authority) = (Files::new(), Authority::new());
    files.write("ca.pem", &authority.pem());
    let one = files.put("a", &authority.issue(&["a.test"]));
    let mut written = tls(vec![one]);
    written.client_ca = Some(ClientCa {
        file: files.refer("ca.pem"),
        required: false,
    });
    let first = read(&written, None).unwrap();
    let same = read(&written, Some(&first)).unwrap();
    assert!(Arc::ptr_eq(&first, &same), "nothing has changed");

    let client = Arc::new(client(&authority));
    shake(&first, &client, "a.test").await.unwrap();
    files.put("a", &authority.issue(&["a.test"]));
    let renewed = read(&written, Some(&first)).unwrap();
    let (kind, _) = shake(&renewed, &client, "a.test").await.unwrap();
    assert_eq!(kind, HandshakeKind::Resumed);

    // A client that has shown nothing must not come in with a ticket where one must be shown.
    let mut stricter = written.clone();
    stricter.client_ca.as_mut().unwrap().required = true;
    let stricter = read(&stricter, Some(&renewed)).unwrap();
    files.write("ca.pem", &Authority::new().pem());
    let other_authority = read(&written, Some(&renewed)).unwrap();
    let other_listener = read(&tls(written.certificates.clone()), None).unwrap();
    for (acceptor, lets_in) in [
        (&stricter, false),
        (&other_authority, true),
        (&other_listener, true),
    ] {
        match shake(acceptor, &client, "a.test").await {
            Ok((kind, _)) if lets_in => assert_ne!(kind, HandshakeKind::Resumed),
            Err(error) if !lets_in => assert!(error.contains("certificate"), "{error}"),
            other => panic!("{other:?}"),
        }
        // What it was given now it may use there, and it is sent back to the start elsewhere.
        shake(&renewed, &client, "a.test").await.unwrap();
    }
}

#[tokio::test]
async fn client_certificates_are_checked_where_they_are_asked_for() {
    let (files, authority) = (Files::new(), Authority::new());
    files.write("ca.pem", &authority.pem());
    let mut written = tls(vec![files.put("a", &authority.issue(&["a.test"]))]);
    let with = |by: Option<&Authority>| {
        let mut config = client(&authority);
        if let Some(by) = by {
            let ours = certified(&by.issue(&["client.test"]));
            let ours = rustls::sign::SingleCertAndKey::from(ours);
            config.client_auth_cert_resolver = Arc::new(ours);
        }
        Arc::new(config)
    };
    for required in [true, false] {
        written.client_ca = Some(ClientCa {
            file: files.refer("ca.pem"),
            required,
        });
        let acceptor = read(&written, None).unwrap();
        let known = shake(&acceptor, &with(Some(&authority)), "a.test").await;
        assert!(known.is_ok());
        let nobody = shake(&acceptor, &with(None), "a.test").await;
        assert_eq!(nobody.is_ok(), !required);
        let stranger = shake(&acceptor, &with(Some(&Authority::new())), "a.test").await;
        assert!(stranger.is_err());
    }
}

/// A listener as each replica has it, with these ticket keys.
fn replica(files: &Files, certificates: &[Certificate], keys: &[&str]) -> Arc<Acceptor> {
    let mut written = tls(certificates.to_vec());
    written.ticket_keys = keys.iter().map(|key| files.refer(key)).collect();
    read(&written, None).unwrap()
}

#[tokio::test]
async fn replicas_that_share_keys_take_each_others_tickets() {
    let (files, authority) = (Files::new(), Authority::new());
    files.write("old", "an old key of forty-eight bytes, all of them random");
    files.write(
        "new",
        "a new key, which has even more bytes than the old one",
    );
    let certificates = [files.put("a", &authority.issue(&["a.test"]))];
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let client = speaking(version, &authority);
        let visit = async |keys: &[&str]| {
            let replica = replica(&files, &certificates, keys);
            shake(&replica, &client, "a.test").await.unwrap().0
        };
        assert_ne!(visit(&["old"]).await, HandshakeKind::Resumed);
        assert_eq!(visit(&["old"]).await, HandshakeKind::Resumed);
        assert_eq!(visit(&["new", "old"]).await, HandshakeKind::Resumed);
        // That one gave out a ticket under the first of its keys.
        assert_eq!(visit(&["new"]).await, HandshakeKind::Resumed);
        assert_ne!(visit(&["old"]).await, HandshakeKind::Resumed, "{version:?}");
    }
}

#[tokio::test]
async fn a_shared_key_brings_nobody_in_where_other_clients_are_trusted() {
    let (files, authority) = (Files::new(), Authority::new());
    files.write(
        "key",
        "a key that two listeners share, of forty-eight bytes.",
    );
    files.write("ca.pem", &authority.pem());
    let mut written = tls(vec![files.put("a", &authority.issue(&["a.test"]))]);
    written.ticket_keys = vec![files.refer("key")];
    let open = read(&written, None).unwrap();
    written.client_ca = Some(ClientCa {
        file: files.refer("ca.pem"),
        required: false,
    });
    let asking = read(&written, None).unwrap();
    let client = Arc::new(client(&authority));
    shake(&open, &client, "a.test").await.unwrap();
    let (kind, _) = shake(&asking, &client, "a.test").await.unwrap();
    assert_ne!(kind, HandshakeKind::Resumed);
}

#[tokio::test]
async fn changed_ticket_keys_are_taken_up() {
    let (files, authority) = (Files::new(), Authority::new());
    files.write("key", "a key of at least thirty-two bytes");
    let mut written = tls(vec![files.put("a", &authority.issue(&["a.test"]))]);
    written.ticket_keys = vec![files.refer("key")];
    let first = read(&written, None).unwrap();
    let same = read(&written, Some(&first)).unwrap();
    assert!(Arc::ptr_eq(&first, &same), "nothing has changed");
    let client = Arc::new(client(&authority));
    shake(&first, &client, "a.test").await.unwrap();
    files.write("key", "another key of at least thirty-two bytes");
    let second = read(&written, Some(&first)).unwrap();
    let (kind, _) = shake(&second, &client, "a.test").await.unwrap();
    assert_ne!(kind, HandshakeKind::Resumed);
    files.write("key", "too short");
    assert!(wrong(&written)[0].contains("is no ticket key"));
}

#[test]
fn names_that_nobody_knows_are_turned_away_where_that_is_asked_for() {
    let (files, authority) = (Files::new(), Authority::new());
    let certificate = files.put("a", &authority.issue(&["a.test", "*.b.test"]));
    let mut written = tls(vec![certificate]);
    let lenient = read(&written, None).unwrap();
    written.unknown_name = UnknownName::Reject;
    let strict = read(&written, Some(&lenient)).unwrap();
    for (name, known) in [
        (Some("a.test"), true),
        (Some("A.Test"), true),
        (Some("x.b.test"), true),
        (None, true),
        (Some("c.test"), false),
        (Some("b.test"), false),
    ] {
        assert!(!lenient.rejects(name));
        assert_eq!(strict.rejects(name), !known, "{name:?}");
    }
}

#[test]
fn every_suite_is_an_aead_with_forward_secrecy() {
    let (files, authority) = (Files::new(), Authority::new());
    let certificate = files.put("a", &authority.issue(&["a.test"]));
    let acceptor = read(&tls(vec![certificate]), None).unwrap();
    let suites = &acceptor.config.crypto_provider().cipher_suites;
    assert!(!suites.is_empty());
    for suite in suites {
        let name = format!("{:?}", suite.suite());
        let aead = ["GCM", "CHACHA20_POLY1305"]
            .iter()
            .any(|it| name.contains(it));
        let secret = ["TLS13_", "TLS_ECDHE_"]
            .iter()
            .any(|it| name.starts_with(it));
        assert!(aead && secret, "{name}");
    }
}
