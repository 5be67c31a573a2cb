//! TCP connections to a host with several addresses (RFC 8305): attempts are staggered, the first that succeeds
//! wins, and the address that worked last is tried first.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpStream, lookup_host},
    time::sleep,
};

/// Time after which the next address is tried while the last attempt still waits (RFC 8305 section 8).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// Time that sent bytes may stay unacknowledged before the system closes a connection (TCP_USER_TIMEOUT).
const USER_TIMEOUT: Duration = Duration::from_secs(10);
/// Time without traffic after which the system asks whether the peer is still there, for HTTP/1.1.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// The address of a host that served last. A host without one is tried in the resolver's order.
#[derive(Debug, Default)]
pub(super) struct Preferred(Mutex<Option<IpAddr>>);

impl Preferred {
    fn get(&self) -> Option<IpAddr> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the address of a connection that is ready for requests, or `None` after one that accepted a
    /// connection and failed then.
    pub(super) fn set(&self, address: Option<IpAddr>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = address;
    }
}

/// Opens a TCP connection.
///
/// # Errors
/// The failure of the name lookup, or of the last attempt.
pub(super) async fn connect(
    (host, port): (&str, u16),
    preferred: &Preferred,
) -> io::Result<TcpStream> {
    let resolved = lookup_host((host, port)).await?.collect();
    let mut waiting = in_order(resolved, preferred.get()).into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    loop {
        if let Some(address) = waiting.next() {
            attempts.push(TcpStream::connect(address));
        }
        let has_more = waiting.len() > 0;
        tokio::select! {
            biased;
            done = attempts.next() => match done {
                Some(Ok(tcp)) => return prepared(tcp),
                Some(Err(error)) => failure = error,
                None => return Err(failure),
            },
            () = sleep(ATTEMPT_DELAY), if has_more => {}
        }
    }
}

/// The addresses in the order of attempts: the preferred one, then the families in turn, beginning with that of the
/// resolver's first address.
fn in_order(resolved: Vec<SocketAddr>, preferred: Option<IpAddr>) -> Vec<SocketAddr> {
    let starts_with_v6 = resolved.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = resolved
        .into_iter()
        .partition(|address| address.is_ipv6() == starts_with_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut order = Vec::new();
    while first.len() + second.len() > 0 {
        order.extend(first.next());
        order.extend(second.next());
    }
    // Stable: the others keep their order.
    order.sort_by_key(|address| preferred != Some(address.ip()));
    order
}

fn prepared(tcp: TcpStream) -> io::Result<TcpStream> {
    tcp.set_nodelay(true)?;
    let socket = SockRef::from(&tcp);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    Ok(tcp)
}

#[cfg(test)]
mod tests {
    use tokio::{net::TcpListener, time::Instant};

    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn families_take_turns_after_the_preferred_address() {
        let resolved = addresses(&["[::1]:1", "[::2]:1", "[::3]:1", "10.0.0.1:1", "10.0.0.2:1"]);
        let order = in_order(resolved.clone(), None);
        let turns = ["[::1]:1", "10.0.0.1:1", "[::2]:1", "10.0.0.2:1", "[::3]:1"];
        assert_eq!(order, addresses(&turns));
        let order = in_order(resolved, Some("10.0.0.2".parse().unwrap()));
        let turns = ["10.0.0.2:1", "[::1]:1", "10.0.0.1:1", "[::2]:1", "[::3]:1"];
        assert_eq!(order, addresses(&turns));
    }

    #[tokio::test]
    async fn address_that_refuses_is_passed_over_at_once() {
        // Resolves to 127.0.0.1 and, where the system has it, ::1. Only one listens.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let began = Instant::now();
        connect(("localhost", port), &Preferred::default())
            .await
            .unwrap();
        assert!(began.elapsed() < Duration::from_secs(1));
    }
}
