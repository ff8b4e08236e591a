use std::io::Write as _;
use std::net::SocketAddr;

use proptest::prelude::*;
use tokio::io::AsyncReadExt as _;

use super::*;

/// A header of version 2 with these addresses and extensions.
fn v2_header(command: u8, family: u8, said: &[u8]) -> Vec<u8> {
    let mut header = V2_BEGIN.to_vec();
    header.extend([command, family]);
    header.extend(u16::try_from(said.len()).unwrap().to_be_bytes());
    header.extend(said);
    header
}

/// What a proxy writes for a TCP connection between these.
fn v2_of(source: SocketAddr, destination: SocketAddr, extensions: &[u8]) -> Vec<u8> {
    let mut said = Vec::new();
    let family = match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            said.extend(from.octets());
            said.extend(to.octets());
            0x11
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            said.extend(from.octets());
            said.extend(to.octets());
            0x21
        }
        _ => unreachable!("one family"),
    };
    said.extend(source.port().to_be_bytes());
    said.extend(destination.port().to_be_bytes());
    said.extend(extensions);
    v2_header(0x21, family, &said)
}

fn v1_of(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from, to) = (source.ip(), destination.ip());
    let (port, other) = (source.port(), destination.port());
    format!("PROXY {family} {from} {to} {port} {other}\r\n").into_bytes()
}

fn whole(header: &[u8], source: Option<&str>) {
    let source = source.map(|source| source.parse().unwrap());
    let length = header.len();
    let shown = String::from_utf8_lossy(header);
    assert_eq!(parse(header), Parsed::Header { length, source }, "{shown}");
    for cut in 0..length {
        assert_eq!(parse(&header[..cut]), Parsed::More, "{shown}: {cut}");
    }
    let mut more = header.to_vec();
    more.extend(b"GET / HTTP/1.1\r\n\n");
    assert_eq!(parse(&more), Parsed::Header { length, source }, "{shown}");
}

#[test]
fn lines_of_version_1_name_the_source() {
    whole(
        b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n",
        Some("192.0.2.1:56324"),
    );
    whole(b"PROXY TCP4 1.1.1.1 1.1.1.1 0 0\r\n", Some("1.1.1.1:0"));
    whole(
        b"PROXY TCP6 2001:db8::1 ::1 65535 1\r\n",
        Some("[2001:db8::1]:65535"),
    );
    whole(b"PROXY UNKNOWN\r\n", None);
    let longest = b"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff \
        ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
    assert_eq!(longest.len(), V1_BYTES_MAX);
    whole(longest, None);
}

#[test]
fn lines_that_are_not_of_version_1_are_malformed() {
    let lines = [
        "PROXY TCP4 192.0.2.1 192.0.2.2 56324\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 56324 443 1\r\n",
        "PROXY TCP4 192.0.2.1  192.0.2.2 56324 443\r\n",
        "PROXY TCP4 192.0.2.01 192.0.2.2 56324 443\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 056324 443\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 +56324 443\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 65536 443\r\n",
        "PROXY TCP4 ::1 192.0.2.2 1 443\r\n",
        "PROXY TCP6 192.0.2.1 ::1 1 443\r\n",
        "PROXY TCP5 192.0.2.1 192.0.2.2 1 443\r\n",
        "PROXY UNKNOWNS\r\n",
        "PROXY  UNKNOWN\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\n",
        "PROXY \u{fe}\r\n",
        "PROXY\tTCP4",
        "proxy TCP4",
        "GET / HTTP/1.1\r\n",
        "\r\nPROXY ",
    ];
    for line in lines {
        assert_eq!(parse(line.as_bytes()), Parsed::Malformed, "{line}");
    }
    let long = format!("PROXY UNKNOWN {}", "x".repeat(200));
    assert_eq!(parse(&long.as_bytes()[..106]), Parsed::More);
    assert_eq!(parse(&long.as_bytes()[..107]), Parsed::Malformed);
}

#[test]
fn headers_of_version_2_name_the_source() {
    let of = |source: &str, destination: &str, extensions: &[u8]| {
        v2_of(
            source.parse().unwrap(),
            destination.parse().unwrap(),
            extensions,
        )
    };
    let source = Some("192.0.2.1:56324");
    whole(&of("192.0.2.1:56324", "192.0.2.2:443", &[]), source);
    // An ALPN of two bytes, then one without a value.
    let extensions = [1, 0, 2, b'h', b'2', 4, 0, 0];
    whole(&of("192.0.2.1:56324", "192.0.2.2:443", &extensions), source);
    whole(
        &of("[2001:db8::1]:1", "[::1]:2", &[]),
        Some("[2001:db8::1]:1"),
    );
}

#[test]
fn what_is_no_tcp_connection_names_no_source() {
    // The proxy's own checks, with addresses and without.
    whole(&v2_header(0x20, 0, &[]), None);
    whole(&v2_header(0x20, 0x11, &[1; 12]), None);
    whole(&v2_header(0x20, 0x21, &[]), None);
    // Unspecified, datagrams, and sockets of a file system.
    whole(&v2_header(0x21, 0, &[]), None);
    // Of what is unspecified, nobody knows where addresses end and extensions begin.
    for odd in [&[0][..], &[1, 0, 9], &[0xff; 13], &[7; V2_UNIX + 4096]] {
        whole(&v2_header(0x21, 0, odd), None);
        whole(&v2_header(0x21, 0x01, odd), None);
    }
    whole(&v2_header(0x21, 0x12, &[1; 12]), None);
    whole(&v2_header(0x21, 0x31, &[1; V2_UNIX]), None);
}

#[test]
fn headers_that_are_not_of_version_2_are_malformed() {
    for (command, family) in [
        (0x11, 0x11),
        (0x22, 0x11),
        (0x31, 0x11),
        (0x21, 0x41),
        (0x21, 0x13),
        (0x21, 0x03),
        (0x21, 0x0f),
    ] {
        let header = v2_header(command, family, &[0; 40]);
        assert_eq!(parse(&header), Parsed::Malformed, "{command:x} {family:x}");
    }
    // Too short for their addresses.
    for (family, short) in [(0x11, 11), (0x21, 35), (0x31, 215)] {
        let header = v2_header(0x21, family, &vec![0; short]);
        assert_eq!(parse(&header), Parsed::Malformed, "{family:x}");
    }
    // Extensions that are cut off.
    for extensions in [&[1][..], &[1, 0], &[1, 0, 1], &[1, 0, 2, 0]] {
        let said = [&[0; 12], extensions].concat();
        let header = v2_header(0x21, 0x11, &said);
        assert_eq!(parse(&header), Parsed::Malformed, "{extensions:?}");
    }
}

#[test]
fn extensions_are_bounded_before_they_are_waited_for() {
    let extensions = |bytes: usize| {
        let length = u16::try_from(bytes - 3).unwrap().to_be_bytes();
        let mut extensions = vec![4, length[0], length[1]];
        extensions.resize(bytes, 0);
        extensions
    };
    let header = |bytes| {
        let address = "192.0.2.1:1".parse().unwrap();
        v2_of(address, address, &extensions(bytes))
    };
    assert!(matches!(parse(&header(4096)), Parsed::Header { .. }));
    assert_eq!(parse(&header(4097)[..V2_FIXED]), Parsed::Malformed);
    for command in [0x20, 0x21] {
        let unsaid = v2_header(command, 0, &[0; V2_UNIX + 4097]);
        assert_eq!(parse(&unsaid[..V2_FIXED]), Parsed::Malformed);
    }
}

fn pair() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
    let four = || any::<(Ipv4Addr, u16)>().prop_map(SocketAddr::from);
    let six = || any::<(Ipv6Addr, u16)>().prop_map(SocketAddr::from);
    prop_oneof![(four(), four()), (six(), six())]
}

proptest! {
    #[test]
    fn what_a_proxy_writes_is_what_we_read((source, destination) in pair(), behind in any::<Vec<u8>>()) {
        for mut bytes in [v1_of(source, destination), v2_of(source, destination, &[4, 0, 1, 9])] {
            let length = bytes.len();
            bytes.extend(&behind);
            let source = Some(source);
            prop_assert_eq!(parse(&bytes), Parsed::Header { length, source });
        }
    }

    #[test]
    fn any_bytes_are_read_without_a_panic_and_more_of_them_change_no_verdict(
        begin in prop_oneof![Just(&b""[..]), Just(V1_BEGIN), Just(&V2_BEGIN[..])],
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        cut in any::<proptest::sample::Index>(),
    ) {
        let all = [begin, &bytes].concat();
        let cut = cut.index(all.len() + 1);
        match (parse(&all[..cut]), parse(&all)) {
            (Parsed::More, _) => {}
            (Parsed::Header { length, .. }, _) if length > cut => prop_assert!(false),
            (early, late) => prop_assert_eq!(early, late),
        }
    }
}

/// Our end of a connection, and theirs.
async fn connected() -> (TcpStream, std::net::TcpStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = TcpStream::connect(listener.local_addr().unwrap());
    let ours = ours.await.unwrap();
    let theirs = listener.accept().unwrap().0;
    theirs.set_nodelay(true).unwrap();
    (ours, theirs)
}

#[tokio::test]
async fn nothing_behind_a_header_is_taken() {
    let address = "192.0.2.1:7".parse().unwrap();
    for header in [v1_of(address, address), v2_of(address, address, &[])] {
        let (mut ours, mut theirs) = connected().await;
        theirs.write_all(&header).unwrap();
        theirs.write_all(b"hello").unwrap();
        assert_eq!(take(&mut ours).await.unwrap(), Some(address));
        let mut rest = [0; 5];
        ours.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b"hello");
    }
    let (mut ours, mut theirs) = connected().await;
    theirs.write_all(b"PROXY UNKNOWN\r\n\r\n").unwrap();
    assert_eq!(take(&mut ours).await.unwrap(), None);
    let mut rest = [0; 2];
    ours.read_exact(&mut rest).await.unwrap();
    assert_eq!(&rest, b"\r\n");
}

#[tokio::test]
async fn a_header_may_come_byte_by_byte() {
    let address: SocketAddr = "[2001:db8::1]:7".parse().unwrap();
    for header in [
        v1_of(address, address),
        v2_of(address, address, &[4, 0, 1, 9]),
    ] {
        let (mut ours, mut theirs) = connected().await;
        let mut bytes = header.clone();
        bytes.extend(b"hello");
        let mut taking = Box::pin(take(&mut ours));
        for byte in &header[..header.len() - 1] {
            theirs.write_all(&[*byte]).unwrap();
            // Taken before the next one comes, and the future sleeps then.
            let waits = tokio::select! {
                biased;
                _ = taking.as_mut() => false,
                () = tokio::task::yield_now() => true,
            };
            assert!(waits);
        }
        theirs.write_all(&bytes[header.len() - 1..]).unwrap();
        assert_eq!(taking.await.unwrap(), Some(address));
        let mut rest = [0; 5];
        ours.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b"hello");
    }
}

#[tokio::test]
async fn what_is_no_header_or_ends_early_is_an_error() {
    let cases: [(&[u8], io::ErrorKind); 3] = [
        (b"GET / HTTP/1.1\r\n\r\n", io::ErrorKind::InvalidData),
        (b"PROXY TCP4 ", io::ErrorKind::UnexpectedEof),
        (b"", io::ErrorKind::UnexpectedEof),
    ];
    for (said, kind) in cases {
        let (mut ours, mut theirs) = connected().await;
        theirs.write_all(said).unwrap();
        drop(theirs);
        assert_eq!(take(&mut ours).await.unwrap_err().kind(), kind);
    }
}
