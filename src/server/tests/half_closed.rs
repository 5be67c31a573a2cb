//! Clients that close their half of an HTTP/1.1 connection.

use super::*;

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<I: AsyncRead + AsyncWrite + Unpin + Send> Io for I {}

/// Connections of both kinds, each with its server.
async fn both() -> [(Running, Box<dyn Io>); 2] {
    let plain = Running::start(plaintext(), &Limits::default());
    let tls = Running::start(self_signed(), &Limits::default());
    let (tcp, io) = (plain.tcp().await, tls.tls(b"http/1.1").await);
    [(plain, Box::new(tcp)), (tls, Box::new(io))]
}

async fn send(io: &mut Box<dyn Io>, request: &str) {
    io.write_all(request.as_bytes()).await.unwrap();
    io.flush().await.unwrap();
}

async fn answer(io: &mut Box<dyn Io>) -> String {
    let mut answer = Vec::new();
    within(io.read_to_end(&mut answer)).await.unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_half_closed_request_gets_its_answer() {
    for (server, mut io) in both().await {
        send(&mut io, "GET /wait HTTP/1.1\r\nhost: h\r\n\r\n").await;
        io.shutdown().await.unwrap();
        within(server.handler.arrived.notified()).await;
        sleep(Duration::from_millis(100)).await;
        server.handler.release.notify_one();
        let answer = answer(&mut io).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\nHTTP/1.1"), "{answer}");
    }
    for (_server, mut io) in both().await {
        send(
            &mut io,
            "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 4\r\n\r\nbody",
        )
        .await;
        io.shutdown().await.unwrap();
        let answer = answer(&mut io).await;
        assert!(answer.ends_with("\r\n\r\nHTTP/1.1"), "{answer}");
    }
}

#[tokio::test]
async fn a_half_closed_read_session_may_end_soon() {
    for (server, mut io) in both().await {
        send(&mut io, "GET /events HTTP/1.1\r\nhost: h\r\n\r\n").await;
        io.shutdown().await.unwrap();
        within(server.handler.arrived.notified()).await;
        sleep(Duration::from_millis(100)).await;
        server.handler.release.notify_one();
        let answer = answer(&mut io).await;
        assert!(answer.ends_with("\r\n0\r\n\r\n"), "{answer}");
    }
}

#[tokio::test]
async fn a_read_session_whose_client_left_ends() {
    for (server, mut io) in both().await {
        send(&mut io, "GET /events HTTP/1.1\r\nhost: h\r\n\r\n").await;
        within(server.handler.arrived.notified()).await;
        drop(io);
        within(server.handler.dropped.notified()).await;
    }
    // A client that only closes its half.
    for (server, mut io) in both().await {
        send(&mut io, "GET /events HTTP/1.1\r\nhost: h\r\n\r\n").await;
        io.shutdown().await.unwrap();
        within(server.handler.dropped.notified()).await;
    }
}

#[tokio::test]
async fn a_reset_ends_any_request_at_once() {
    for path in ["/events", "/wait"] {
        let server = Running::start(plaintext(), &Limits::default());
        let mut tcp = server.tcp().await;
        let request = format!("GET {path} HTTP/1.1\r\nhost: h\r\n\r\n");
        tcp.write_all(request.as_bytes()).await.unwrap();
        within(server.handler.arrived.notified()).await;
        // A socket that is closed so sends a reset.
        tcp.set_zero_linger().unwrap();
        drop(tcp);
        let dropped = server.handler.dropped.notified();
        timeout(Duration::from_secs(2), dropped).await.unwrap();
    }
}

#[tokio::test]
async fn a_quiet_read_session_goes_on() {
    for (server, mut io) in both().await {
        send(&mut io, "GET /events HTTP/1.1\r\nhost: h\r\n\r\n").await;
        within(server.handler.arrived.notified()).await;
        let dropped = server.handler.dropped.notified();
        timeout(Duration::from_secs(7), dropped).await.unwrap_err();
    }
}

#[tokio::test]
async fn a_half_sent_request_is_not_waited_for() {
    for (_server, mut io) in both().await {
        send(&mut io, "GET /wait HTTP/1.1\r\nhost:").await;
        io.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _broken_off = within(io.read_to_end(&mut answer)).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(!answer.contains("200 OK"), "{answer}");
    }
}
