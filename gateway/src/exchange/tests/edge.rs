//! What endpoints hear of the client, and what nobody outside may say to them.

use super::*;

/// The head an endpoint sees of a request with these fields from this client.
async fn seen(world: &World, fields: &str, change: impl FnOnce(&mut Client)) -> String {
    let (mut client, mut endpoint) = (world.client_as(change), world.endpoint());
    say(
        &mut client,
        format!("GET / HTTP/1.1\r\nhost: a.default.example.com:80\r\n{fields}\r\n"),
    )
    .await;
    let head = read_head(&mut endpoint).await;
    // Not kept for the next one.
    let answer = "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
    say(&mut endpoint, answer).await;
    read_head(&mut client).await;
    head
}

/// The lines of a head with this name, without it.
fn values<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    let of = |line: &'a str| {
        let (field, value) = line.split_once(": ")?;
        field.eq_ignore_ascii_case(name).then_some(value)
    };
    head.lines().filter_map(of).collect()
}

#[test]
fn endpoints_hear_that_the_client_came_by_https() {
    run(async {
        let world = World::new("", "");
        let said = "x-forwarded-proto: ftp\r\n";
        let head = seen(&world, said, |client| client.secure = true).await;
        assert_eq!(values(&head, "x-forwarded-proto"), ["https"]);
        let head = seen(&world, said, |_| {}).await;
        assert_eq!(values(&head, "x-forwarded-proto"), ["http"]);
        let head = seen(&world, said, |client| client.trusted = true).await;
        assert_eq!(values(&head, "x-forwarded-proto"), ["ftp"]);
    });
}

#[test]
fn forwarded_is_gone_on_with_only_where_a_trusted_proxy_began_it() {
    run(async {
        let world = World::new("", "");
        let said = "Forwarded: for=203.0.113.9;proto=https, for=unknown\r\n";
        let head = seen(&world, said, |_| {}).await;
        assert!(values(&head, "forwarded").is_empty(), "{head}");
        let head = seen(&world, "", |client| client.trusted = true).await;
        assert!(values(&head, "forwarded").is_empty(), "{head}");
        let head = seen(&world, said, |client| client.trusted = true).await;
        let ours = "for=192.0.2.7;host=\"a.default.example.com:80\";proto=http";
        let theirs = "for=203.0.113.9;proto=https, for=unknown";
        assert_eq!(values(&head, "forwarded"), [theirs, ours]);
        let head = seen(&world, said, |client| {
            client.trusted = true;
            client.secure = true;
            client.address = "[2001:db8::1]:7".parse().unwrap();
            client.address_text = "2001:db8::1".into();
        })
        .await;
        let ours = "for=\"[2001:db8::1]\";host=\"a.default.example.com:80\";proto=https";
        assert_eq!(values(&head, "forwarded"), [theirs, ours]);
    });
}

const CONTROL: [&str; 9] = [
    "K-Kubelet-Probe",
    "K-Network-Hash",
    "K-Network-Probe",
    "K-Original-Host",
    "K-Passthrough-Lb",
    "K-Proxy-Request",
    "Knative-Serving-Default-Route",
    "Knative-Serving-Namespace",
    "KNATIVE-SERVING-REVISION",
];

#[test]
fn control_headers_do_not_come_in_from_outside() {
    run(async {
        let world = World::new("", "");
        let fields: String = CONTROL.map(|name| format!("{name}: x\r\n")).concat();
        let fields = fields + "Knative-Serving-Tag: none\r\nKnative-Other: x\r\n";
        for trusted in [false, true] {
            let head = seen(&world, &fields, |client| client.trusted = trusted).await;
            for name in CONTROL {
                assert!(values(&head, name).is_empty(), "{name}: {head}");
            }
            assert_eq!(values(&head, "knative-serving-tag"), ["none"]);
            assert_eq!(values(&head, "knative-other"), ["x"]);
        }
        let head = seen(&world, &fields, |client| {
            client.audience = Audience::Internal
        })
        .await;
        for name in CONTROL {
            assert_eq!(values(&head, name), ["x"], "{head}");
        }
    });
}

#[test]
fn control_headers_do_not_come_in_behind_a_body() {
    run(async {
        let world = World::new("", "");
        let (mut client, mut endpoint) = (world.client(), world.endpoint());
        say(
            &mut client,
            "POST / HTTP/1.1\r\nhost: a.default.example.com\r\ntransfer-encoding: chunked\r\n\r\n\
             0\r\nk-original-host: x\r\nx-forwarded-client-cert: x\r\nx-end: 1\r\n\r\n",
        )
        .await;
        read_head(&mut endpoint).await;
        let rest = read_head(&mut endpoint).await;
        assert!(rest.ends_with("0\r\nx-end: 1\r\n\r\n"), "{rest}");
    });
}

#[test]
fn who_a_client_is_stands_in_its_certificate_and_nowhere_else() {
    run(async {
        let world = World::new("", "");
        let said = "X-Forwarded-Client-Cert: Subject=\"CN=root\"\r\n";
        let name = "x-forwarded-client-cert";
        for trusted in [false, true] {
            for audience in [Audience::Public, Audience::Internal] {
                let head = seen(&world, said, |client| {
                    client.trusted = trusted;
                    client.audience = audience;
                })
                .await;
                assert!(values(&head, name).is_empty(), "{head}");
            }
        }
        let identity: Rc<[u8]> = Rc::from(&b"Hash=abc;Subject=\"CN=me\""[..]);
        let head = seen(&world, said, |client| client.identity = Some(identity)).await;
        assert_eq!(values(&head, name), ["Hash=abc;Subject=\"CN=me\""]);
    });
}

fn plain(port: u16) -> World {
    let gateway = format!("listeners: [{{ address: '127.0.0.1:1', httpsRedirect: {port} }}]");
    World::of(&gateway, NOWHERE.parse().unwrap(), "")
}

/// Status and location of what a request is answered with.
async fn redirected(client: &mut DuplexStream, request: &str) -> (String, Option<String>) {
    say(client, request).await;
    let head = read_head(client).await;
    let location = values(&head, "location").first().map(ToString::to_string);
    (head[9..12].to_owned(), location)
}

#[test]
fn plain_requests_are_sent_to_https_before_any_route() {
    run(async {
        let world = plain(443);
        let mut client = world.client();
        for (request, status, location) in [
            (
                "GET /a%20b?c=d HTTP/1.1\r\nhost: Nowhere.test",
                "301",
                "https://Nowhere.test/a%20b?c=d",
            ),
            (
                "HEAD / HTTP/1.1\r\nhost: x.test:8080",
                "301",
                "https://x.test/",
            ),
            (
                "POST /x HTTP/1.1\r\ncontent-length: 2\r\nhost: [::1]:80",
                "308",
                "https://[::1]/x",
            ),
            (
                "OPTIONS * HTTP/1.1\r\nhost: x.test",
                "308",
                "https://x.test/",
            ),
            (
                "GET http://y.test HTTP/1.1\r\nhost: y.test",
                "301",
                "https://y.test/",
            ),
            (
                "GET / HTTP/1.1\r\nx-forwarded-proto: https\r\nhost: x.test",
                "301",
                "https://x.test/",
            ),
        ] {
            let body = if status == "308" && request.starts_with("POST") {
                "hi"
            } else {
                ""
            };
            let request = format!("{request}\r\n\r\n{body}");
            let told = redirected(&mut client, &request).await;
            assert_eq!(
                told,
                (status.to_owned(), Some(location.to_owned())),
                "{request}"
            );
        }
        let mut client = plain(8443).client();
        let told = redirected(&mut client, "GET / HTTP/1.1\r\nhost: x.test:80\r\n\r\n").await;
        assert_eq!(
            told,
            ("301".to_owned(), Some("https://x.test:8443/".to_owned()))
        );
        let told = redirected(&mut client, "GET / HTTP/1.0\r\n\r\n").await;
        assert_eq!(told, ("404".to_owned(), None));
    });
}

#[test]
fn who_came_to_the_proxy_by_https_is_not_sent_there_again() {
    run(async {
        let world = plain(443);
        let head = seen(&world, "x-forwarded-proto: https\r\n", |client| {
            client.trusted = true
        })
        .await;
        assert_eq!(values(&head, "x-forwarded-proto"), ["https"]);
        let mut client = world.client_as(|client| client.trusted = true);
        let request = "GET / HTTP/1.1\r\nhost: x.test\r\nx-forwarded-proto: http\r\n\r\n";
        assert_eq!(redirected(&mut client, request).await.0, "301");
    });
}
