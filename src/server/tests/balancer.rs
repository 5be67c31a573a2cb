//! Connections of balancers, which begin with a PROXY header.

use super::*;

fn behind(balancer: &str, config: Config) -> Config {
    Config {
        proxy_protocol: vec![balancer.parse().unwrap()],
        ..config
    }
}

const V1: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.1 7 443\r\n";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\
    \x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x02\0\x07\x01\xbb";
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
const UNKNOWN: &[u8] = b"PROXY UNKNOWN\r\n";

#[tokio::test]
async fn a_balancers_header_names_the_client() {
    for (config, alpn) in [
        (plaintext(), None),
        (self_signed(), Some(&b"http/1.1"[..])),
        (self_signed(), Some(b"h2")),
    ] {
        let server = Running::start(behind("127.0.0.0/8", config), &Limits::default());
        for (header, client) in [
            (V1, "192.0.2.1:7"),
            (V2, "[2001:db8::1]:7"),
            (LOCAL, "127.0.0.1:"),
            (UNKNOWN, "127.0.0.1:"),
        ] {
            let mut tcp = server.tcp().await;
            // In two pieces: a header may come bit by bit.
            let (one, other) = header.split_at(9);
            tcp.write_all(one).await.unwrap();
            sleep(Duration::from_millis(5)).await;
            tcp.write_all(other).await.unwrap();
            match alpn {
                None => within(over_http1(tcp, "/")).await.unwrap(),
                Some(b"h2") => within(over_http2(server.tls_over(b"h2", tcp).await, "/"))
                    .await
                    .unwrap(),
                Some(alpn) => within(over_http1(server.tls_over(alpn, tcp).await, "/"))
                    .await
                    .unwrap(),
            };
            let peer = server.handler.peers.lock().unwrap().pop().unwrap();
            let shown = peer.address.to_string();
            assert!(shown.starts_with(client), "{shown}");
        }
    }
}

#[tokio::test]
async fn a_balancer_without_a_header_is_not_served() {
    let server = Running::start(behind("127.0.0.1", plaintext()), &Limits::default());
    within(over_http1(server.tcp().await, "/"))
        .await
        .unwrap_err();
    let server = Running::start(behind("127.0.0.1", self_signed()), &Limits::default());
    for garbage in [
        &b"PROXY TCP4 x y 1 2\r\n"[..],
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\0",
        &[0; 64],
    ] {
        let mut tcp = server.tcp().await;
        tcp.write_all(garbage).await.unwrap();
        is_cut(tcp).await;
    }
    assert!(server.handler.peers.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_slow_header_is_cut_in_time() {
    let limits = Limits {
        handshake_timeout: Duration::from_millis(50),
        ..Limits::default()
    };
    for config in [plaintext(), self_signed()] {
        let server = Running::start(behind("127.0.0.1", config), &limits);
        for begun in [&b""[..], b"P", &V1[..V1.len() - 1], &V2[..14], &V2[..20]] {
            let mut tcp = server.tcp().await;
            tcp.write_all(begun).await.unwrap();
            is_cut(tcp).await;
        }
    }
}

#[tokio::test]
async fn a_header_from_another_address_is_refused() {
    for config in [plaintext(), self_signed()] {
        for balancers in [behind("192.0.2.7", config.clone()), config] {
            let server = Running::start(balancers, &Limits::default());
            for header in [V1, V2, LOCAL, UNKNOWN] {
                let mut tcp = server.tcp().await;
                let request = b"GET / HTTP/1.1\r\nhost: h\r\n\r\n";
                tcp.write_all(&[header, request].concat()).await.unwrap();
                let mut answer = Vec::new();
                let _reset = within(tcp.read_to_end(&mut answer)).await;
                let answer = String::from_utf8_lossy(&answer);
                assert!(!answer.contains("200 OK"), "{answer}");
            }
            assert!(server.handler.peers.lock().unwrap().is_empty());
        }
    }
}

#[tokio::test]
async fn an_ipv4_client_is_shown_as_one_on_a_listener_for_ipv6() {
    let config = Config {
        plaintext_anywhere: true,
        ..plaintext()
    };
    let server = Running::start_at("[::]:0".parse().unwrap(), config, &Limits::default());
    let address = SocketAddr::from(([127, 0, 0, 1], server.address.port()));
    let tcp = TcpStream::connect(address).await.unwrap();
    let client = tcp.local_addr().unwrap();
    within(over_http1(tcp, "/")).await.unwrap();
    let peer = server.handler.peers.lock().unwrap().pop().unwrap();
    assert_eq!(peer.address, client);
    assert!(peer.address.is_ipv4());
}
