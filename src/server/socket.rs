//! TCP sockets: those that listen, and those of clients.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd,
    time::Duration,
};

use rustix::net::sockopt;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    runtime::Handle,
};
use tracing::debug;

/// Connections that the system completes before they are accepted. Linux lowers it to `net.core.somaxconn`, whose
/// default is the same.
const BACKLOG: u32 = 4096;

/// Idle time before the first keep-alive probe, time between two probes, and probes without an answer that end a
/// connection. A client that is gone silently is found after a minute.
const PROBE_AFTER: Duration = Duration::from_secs(30);
const PROBE_INTERVAL: Duration = Duration::from_secs(10);
const PROBES: u32 = 3;

/// Binds an address and listens on it. Returns the address with the port that the system chose where 0 was asked for.
pub(super) fn listen(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    // Tokio panics without a runtime.
    Handle::try_current().map_err(io::Error::other)?;
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let listener = socket.listen(BACKLOG)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Sets the options of a client's socket. A client is served without them, too.
pub(super) fn prepare(tcp: &TcpStream, peer: SocketAddr) {
    if let Err(error) = tcp.set_nodelay(true) {
        debug!(%peer, %error, "cannot turn on TCP_NODELAY");
    }
    if let Err(error) = keep_alive(tcp) {
        debug!(%peer, %error, "cannot turn on TCP keep-alive");
    }
}

fn keep_alive(socket: impl AsFd) -> rustix::io::Result<()> {
    sockopt::set_tcp_keepidle(&socket, PROBE_AFTER)?;
    sockopt::set_tcp_keepintvl(&socket, PROBE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(&socket, PROBES)?;
    sockopt::set_socket_keepalive(&socket, true)
}

/// The address with an IPv4 address as such, also where a listener for IPv6 shows it as `::ffff:192.0.2.1`.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::from((ip, address.port())),
        IpAddr::V6(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_clients_socket_is_probed_when_it_is_silent() {
        let (listener, address) = listen(([127, 0, 0, 1], 0).into()).unwrap();
        let (_client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (tcp, peer) = accepted.unwrap();
        prepare(&tcp, peer);
        assert!(sockopt::socket_keepalive(&tcp).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&tcp).unwrap(), PROBE_AFTER);
        assert_eq!(sockopt::tcp_keepintvl(&tcp).unwrap(), PROBE_INTERVAL);
        assert_eq!(sockopt::tcp_keepcnt(&tcp).unwrap(), PROBES);
        assert!(tcp.nodelay().unwrap());
    }

    #[tokio::test]
    async fn many_connections_wait_to_be_accepted() {
        let (_listener, address) = listen(([127, 0, 0, 1], 0).into()).unwrap();
        let mut waiting = Vec::new();
        for _ in 0..300 {
            let connecting = TcpStream::connect(address);
            let connected = tokio::time::timeout(Duration::from_secs(1), connecting).await;
            waiting.push(connected.unwrap().unwrap());
        }
    }

    #[test]
    fn only_mapped_addresses_change() {
        for (given, shown) in [
            ("[::ffff:192.0.2.1]:7", "192.0.2.1:7"),
            ("192.0.2.1:7", "192.0.2.1:7"),
            ("[::1]:7", "[::1]:7"),
            ("[fe80::1%3]:7", "[fe80::1%3]:7"),
            ("[::192.0.2.1]:7", "[::c000:201]:7"),
        ] {
            assert_eq!(canonical(given.parse().unwrap()).to_string(), shown);
        }
    }
}
