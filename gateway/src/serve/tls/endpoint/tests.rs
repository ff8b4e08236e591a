use config::settings::ClientCa;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::super::server::Acceptor;
use super::super::testing::{Authority, Files, certified};
use super::*;

/// An endpoint that is shown as `host`, and whom it lets in, if it asks.
struct Endpoint {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Endpoint {
    async fn new(files: &Files, host: &str, authority: &Authority, asks: bool) -> Endpoint {
        files.write("clients.pem", &authority.pem());
        let tls = config::settings::Tls {
            from_routes: false,
            certificates: vec![files.put(host, &authority.issue(&[host]))],
            client_ca: asks.then(|| ClientCa {
                file: files.refer("clients.pem"),
                required: true,
            }),
            ticket_keys: Vec::new(),
            unknown_name: config::settings::UnknownName::Default,
        };
        let config = &Acceptor::read(&tls, None, Default::default())
            .unwrap()
            .config;
        Endpoint {
            listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            acceptor: config.clone().into(),
        }
    }

    fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// Connects and says a byte each way; what came of it, and what the endpoint was asked for.
    async fn meet(&self, dialer: &Arc<Dialer>) -> Result<Option<String>, String> {
        use tokio::io::AsyncWriteExt as _;
        let serving = async {
            let (stream, _peer) = self.listener.accept().await?;
            let mut stream = self.acceptor.accept(stream).await?;
            stream.write_all(b"x").await?;
            stream.flush().await?;
            let name = stream.get_ref().1.server_name().map(str::to_owned);
            Ok::<_, io::Error>((name, stream))
        };
        let calling = async {
            let stream = TcpStream::connect(self.address()).await?;
            let mut stream = dialer.connect(stream, self.address()).await?;
            let mut target = [0; 1];
            let (mut read, _write) = stream.split();
            std::future::poll_fn(|cx| read.poll_read(cx, &mut target)).await
        };
        let (served, called) = tokio::join!(serving, calling);
        called.map_err(|error| error.to_string())?;
        let (name, _open) = served.map_err(|error| error.to_string())?;
        Ok(name)
    }
}

fn key() -> Key {
    Key {
        namespace: "default".into(),
        name: "a".into(),
    }
}

fn read(tls: &EndpointTls) -> Arc<Dialer> {
    Dialer::read(&key(), Protocol::Http1, tls, None).unwrap()
}

fn trusting(files: &Files, authority: &Authority) -> EndpointTls {
    files.write("ca.pem", &authority.pem());
    EndpointTls {
        ca: Some(Authorities::File(files.refer("ca.pem"))),
        ..EndpointTls::default()
    }
}

/// To the pods of namespace `a`.
fn inside(pem: &str) -> EndpointTls {
    EndpointTls {
        server_name: Some("data-plane.knative.dev".into()),
        ca: Some(Authorities::Pem(pem.as_bytes().into())),
        client_cert: None,
        inside: Some(Box::new(Inside {
            identity: "kn-user-a".into(),
            port: 8112,
        })),
    }
}

#[tokio::test]
async fn inside_a_cluster_endpoints_are_known_by_identity_and_not_by_what_is_asked_for() {
    let (files, authority) = (Files::new(), Authority::new());
    let pod = |names: &'static [&'static str]| async {
        let mut endpoint = Endpoint::new(&files, "any", &authority, false).await;
        let shown = certified(&authority.issue(names));
        let mut config = rustls::ServerConfig::clone(endpoint.acceptor.config());
        config.cert_resolver = Arc::new(SingleCertAndKey::from(shown));
        endpoint.acceptor = Arc::new(config).into();
        endpoint
    };
    let dialer = read(&inside(&authority.pem()));
    let ours = pod(&["kn-user-a", "data-plane.knative.dev"]).await;
    let asked = Some("data-plane.knative.dev".to_owned());
    assert_eq!(ours.meet(&dialer).await, Ok(asked.clone()));
    assert_eq!(pod(&["kn-user-a"]).await.meet(&dialer).await, Ok(asked));
    for names in [
        &["kn-user-b", "data-plane.knative.dev"][..],
        &["data-plane.knative.dev"],
        &["kn-user-ab"],
    ] {
        let error = pod(names).await.meet(&dialer).await.unwrap_err();
        assert!(error.contains("NotValidForName"), "{names:?}: {error}");
    }
    let other = read(&inside(&Authority::new().pem()));
    assert!(ours.meet(&other).await.is_err());
    // Any of several is enough, and what is none does not matter.
    let broken = "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
    let both = format!("{}{broken}{}", Authority::new().pem(), authority.pem());
    assert!(ours.meet(&read(&inside(&both))).await.is_ok());
}

#[tokio::test]
async fn inside_a_cluster_nothing_below_1_3_is_spoken() {
    let (files, authority) = (Files::new(), Authority::new());
    let mut endpoint = Endpoint::new(&files, "kn-user-a", &authority, false).await;
    let dialer = read(&inside(&authority.pem()));
    assert!(endpoint.meet(&dialer).await.is_ok());
    let shown = certified(&authority.issue(&["kn-user-a", "127.0.0.1"]));
    let old = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(shown)));
    endpoint.acceptor = Arc::new(old).into();
    assert!(endpoint.meet(&dialer).await.is_err());
    assert!(
        endpoint
            .meet(&read(&trusting(&files, &authority)))
            .await
            .is_ok()
    );
}

#[test]
fn inside_a_cluster_authorities_are_read_once_and_tls_has_a_port_of_its_own() {
    let pem = Authority::new().pem();
    let (one, other) = (read(&inside(&pem)), read(&inside(&pem)));
    let roots = |dialer: &Dialer| match &dialer.material.authorities {
        Trusted::Text(authorities) => Arc::clone(&authorities.roots),
        _ => panic!("not from a text"),
    };
    assert!(Arc::ptr_eq(&roots(&one), &roots(&other)));
    let at = |text: &str| text.parse::<SocketAddr>().unwrap();
    assert_eq!(one.target(at("10.0.0.1:8012")), at("10.0.0.1:8112"));
    // Nobody to trust is said of the revision that it is about.
    let none = inside("-----BEGIN CERTIFICATE-----\n");
    let problems = Dialer::read(&key(), Protocol::Http1, &none, Some(&one)).unwrap_err();
    assert_eq!(problems[0].file, "revision default/a");
    // Another authority is another dialer: no connection of the old one is used again.
    let rotated = inside(&Authority::new().pem());
    let rotated = Dialer::read(&key(), Protocol::Http1, &rotated, Some(&one)).unwrap();
    assert!(!Arc::ptr_eq(&one, &rotated));
    let same = Dialer::read(&key(), Protocol::Http1, &inside(&pem), Some(&one)).unwrap();
    assert!(Arc::ptr_eq(&one, &same));
}

#[tokio::test]
async fn an_endpoint_must_be_called_what_was_written_else_its_host_else_its_address() {
    let (files, authority) = (Files::new(), Authority::new());
    let tls = trusting(&files, &authority);
    let named = Endpoint::new(&files, "a.test", &authority, false).await;
    let by_address = Endpoint::new(&files, "127.0.0.1", &authority, false).await;

    let dialer = read(&tls);
    assert_eq!(by_address.meet(&dialer).await, Ok(None));
    assert!(
        named
            .meet(&dialer)
            .await
            .unwrap_err()
            .contains("not valid for name")
    );

    let host = |host: &str| [(named.address(), Arc::from(host))].into();
    dialer.hosts().set(host("a.test"));
    assert_eq!(named.meet(&dialer).await, Ok(Some("a.test".to_owned())));
    assert_eq!(by_address.meet(&dialer).await, Ok(None));
    dialer.hosts().set(host("b.test"));
    assert!(named.meet(&dialer).await.is_err());

    let written = EndpointTls {
        server_name: Some("a.test".into()),
        ..tls
    };
    let dialer = read(&written);
    dialer.hosts().set(host("b.test"));
    assert_eq!(named.meet(&dialer).await, Ok(Some("a.test".to_owned())));
    assert!(by_address.meet(&dialer).await.is_err());
}

#[tokio::test]
async fn only_the_written_authorities_are_trusted() {
    let (files, authority) = (Files::new(), Authority::new());
    let endpoint = Endpoint::new(&files, "127.0.0.1", &authority, false).await;
    let other = trusting(&files, &Authority::new());
    assert!(
        endpoint
            .meet(&read(&other))
            .await
            .unwrap_err()
            .contains("invalid peer certificate")
    );
    let of_system = EndpointTls { ca: None, ..other };
    assert!(endpoint.meet(&read(&of_system)).await.is_err());
}

#[tokio::test]
async fn our_certificate_is_shown_where_it_is_asked_for() {
    let (files, authority) = (Files::new(), Authority::new());
    let endpoint = Endpoint::new(&files, "127.0.0.1", &authority, true).await;
    let mut tls = trusting(&files, &authority);
    assert!(endpoint.meet(&read(&tls)).await.is_err());
    let ours = files.put("ours", &authority.issue(&["client.test"]));
    tls.client_cert = Some(Box::new((ours.cert, ours.key)));
    assert!(endpoint.meet(&read(&tls)).await.is_ok());
    let strange = files.put("ours", &Authority::new().issue(&["client.test"]));
    assert!(endpoint.meet(&read(&tls)).await.is_err());
    drop(strange);
}

#[tokio::test]
async fn an_endpoint_for_http_2_must_speak_it() {
    let (files, authority) = (Files::new(), Authority::new());
    let mut endpoint = Endpoint::new(&files, "127.0.0.1", &authority, false).await;
    let tls = trusting(&files, &authority);
    let dialer = Dialer::read(&key(), Protocol::H2c, &tls, None).unwrap();
    assert!(endpoint.meet(&dialer).await.is_ok());
    let mut silent = rustls::ServerConfig::clone(endpoint.acceptor.config());
    silent.alpn_protocols.clear();
    endpoint.acceptor = Arc::new(silent).into();
    let error = endpoint.meet(&dialer).await.unwrap_err();
    assert_eq!(error, "the endpoint does not speak HTTP/2");
    assert!(endpoint.meet(&read(&tls)).await.is_ok());
}

#[test]
fn what_has_not_changed_stays_and_what_has_keeps_the_hosts() {
    let (files, authority) = (Files::new(), Authority::new());
    let tls = trusting(&files, &authority);
    let first = read(&tls);
    let read = |tls: &EndpointTls, protocol| Dialer::read(&key(), protocol, tls, Some(&first));
    assert!(Arc::ptr_eq(&first, &read(&tls, Protocol::Http1).unwrap()));
    let other = read(&tls, Protocol::H2c).unwrap();
    assert!(!Arc::ptr_eq(&first, &other));
    assert!(Arc::ptr_eq(first.hosts(), other.hosts()));
    files.write("ca.pem", &Authority::new().pem());
    assert!(!Arc::ptr_eq(&first, &read(&tls, Protocol::Http1).unwrap()));
}

#[test]
fn all_that_is_wrong_is_said_where_it_is_named() {
    let (files, authority) = (Files::new(), Authority::new());
    let mut tls = trusting(&files, &authority);
    tls.ca = Some(Authorities::File(files.refer("none.pem")));
    let (cert, key_file) = (files.refer("no.pem"), files.refer("no.key"));
    tls.client_cert = Some(Box::new((cert, key_file)));
    let problems = Dialer::read(&key(), Protocol::Http1, &tls, None).unwrap_err();
    let named: Vec<_> = problems
        .iter()
        .map(|problem| problem.value.as_str())
        .collect();
    assert_eq!(named, ["none.pem", "no.pem", "no.key"]);
}
