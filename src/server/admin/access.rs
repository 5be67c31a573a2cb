//! Who may use the admin API: whoever has the token, or, where there is none, this host alone.
//!
//! A browser on this host counts as this host, so that other sites' pages must be kept out as well: those
//! that make it send requests here, and those that make their own host name lead here.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderValue, Method, Request, Uri, header, uri::Authority};

use super::config::Token;
use crate::server::Peer;

/// Headers of a request that something in front of the listener passed on: its sender is elsewhere.
const FORWARDED: [&str; 4] = [
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-real-ip",
];

/// Who may use the admin API.
pub(super) struct Access {
    pub(super) token: Option<Token>,
    /// Where the listener is.
    pub(super) listener: SocketAddr,
}

/// Why a request may not use the admin API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Denied {
    #[error("the admin API needs the token of `admin.token_file` in `Authorization: Bearer …`")]
    NoToken,
    #[error(
        "without `admin.token_file` the admin API answers only requests from this host to a listener on \
         loopback"
    )]
    NotLocal,
    #[error(
        "without `admin.token_file` the admin API is reached as localhost or by a loopback address only"
    )]
    ForeignHost,
    #[error(
        "API keys are taken and given out only on this host, reached as localhost or by a loopback address: the \
         admin listener speaks plain HTTP, and an API key holds the project's master key"
    )]
    KeyFromElsewhere,
    #[error("the admin API takes no requests that another site's page makes")]
    CrossSite,
    #[error("what changes something must come with `content-type: application/json`")]
    NotJson,
}

impl Access {
    /// How the API is guarded, in a word.
    pub(super) fn kind(&self) -> &'static str {
        match (&self.token, self.is_on_loopback()) {
            (Some(_), _) => "token",
            (None, true) => "loopback",
            (None, false) => "off",
        }
    }

    /// Whether this request may use the API.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn check<B>(&self, request: &Request<B>, peer: &Peer) -> Result<(), Denied> {
        let headers = request.headers();
        let host = host(request.uri(), headers);
        match &self.token {
            Some(token) if token.is_in(headers) => {}
            Some(_) => return Err(Denied::NoToken),
            None => {
                let is_forwarded = FORWARDED.iter().any(|name| headers.contains_key(*name));
                if is_forwarded || !self.is_on_loopback() || !is_loopback(peer.address.ip()) {
                    return Err(Denied::NotLocal);
                }
                if !host.as_ref().is_some_and(|host| self.is_own(host)) {
                    return Err(Denied::ForeignHost);
                }
            }
        }
        no_other_site(request, host.as_ref())
    }

    /// Whether a request may bring an API key in place of the token, or be answered with one: only from this
    /// host, wherever the listener is.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn check_keyed<B>(&self, request: &Request<B>, peer: &Peer) -> Result<(), Denied> {
        let headers = request.headers();
        let host = host(request.uri(), headers);
        let is_forwarded = FORWARDED.iter().any(|name| headers.contains_key(*name));
        let is_own = host.as_ref().is_some_and(|host| self.is_own(host));
        if is_forwarded || !is_own || !is_loopback(peer.address.ip()) {
            return Err(Denied::KeyFromElsewhere);
        }
        no_other_site(request, host.as_ref())
    }

    fn is_on_loopback(&self) -> bool {
        is_loopback(self.listener.ip())
    }

    fn is_own(&self, host: &Authority) -> bool {
        let name = host.host().trim_matches(['[', ']']);
        match name.parse::<IpAddr>() {
            Ok(address) => is_loopback(address) || address == self.listener.ip(),
            Err(_) => name.trim_end_matches('.').eq_ignore_ascii_case("localhost"),
        }
    }
}

/// Whether it is a loopback address, also one of IPv4 in the clothes of IPv6.
fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// The host that a request names: one, or none.
fn host(uri: &Uri, headers: &HeaderMap) -> Option<Authority> {
    if let Some(authority) = uri.authority() {
        return Some(authority.clone());
    }
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => Authority::try_from(host.as_bytes()).ok(),
        _ => None,
    }
}

/// Keeps out what a page of another site can make a browser send.
fn no_other_site<B>(request: &Request<B>, host: Option<&Authority>) -> Result<(), Denied> {
    if !is_same_site(request.headers(), host) {
        return Err(Denied::CrossSite);
    }
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD);
    if changes && !is_json(request.headers()) {
        return Err(Denied::NotJson);
    }
    Ok(())
}

/// Whether nothing says that a page of another site is behind the request. Browsers say so in either of
/// two headers; programs send neither.
fn is_same_site(headers: &HeaderMap, host: Option<&Authority>) -> bool {
    let is_fetched_here =
        |value: &HeaderValue| matches!(value.as_bytes(), b"same-origin" | b"none");
    let is_own_origin = |origin: &HeaderValue| {
        let own = host.map(|host| format!("http://{host}"));
        own.is_some_and(|own| own.as_bytes().eq_ignore_ascii_case(origin.as_bytes()))
    };
    headers
        .get_all("sec-fetch-site")
        .iter()
        .all(is_fetched_here)
        && headers.get_all(header::ORIGIN).iter().all(is_own_origin)
}

/// Whether the body is declared as JSON, which no form of another site's page can do.
fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE);
    let essence = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let essence = essence.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: (&str, &str) = ("host", "localhost:9090");

    fn access(listener: &str) -> Access {
        Access {
            token: None,
            listener: listener.parse().unwrap(),
        }
    }

    fn check(
        listener: &str,
        peer: &str,
        method: &str,
        headers: &[(&str, &str)],
    ) -> Result<(), Denied> {
        let (request, peer) = asked(peer, method, headers);
        access(listener).check(&request, &peer)
    }

    fn check_keyed(
        listener: &str,
        peer: &str,
        method: &str,
        headers: &[(&str, &str)],
    ) -> Result<(), Denied> {
        let (request, peer) = asked(peer, method, headers);
        access(listener).check_keyed(&request, &peer)
    }

    fn asked(peer: &str, method: &str, headers: &[(&str, &str)]) -> (Request<()>, Peer) {
        let mut request = Request::builder().method(method).uri("/api/status");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let address = peer.parse().unwrap();
        let certificate = None;
        (
            request.body(()).unwrap(),
            Peer {
                address,
                certificate,
            },
        )
    }

    #[test]
    fn an_api_key_comes_from_this_host_wherever_the_listener_is() {
        for (listener, peer, host, may) in [
            ("127.0.0.1:9090", "127.0.0.1:5", "localhost:9090", true),
            ("[::]:9090", "[::1]:5", "[::1]:9090", true),
            ("0.0.0.0:9090", "[::ffff:127.0.0.1]:5", "127.0.0.1", true),
            ("127.0.0.1:9090", "10.0.0.1:5", "localhost:9090", false),
            ("0.0.0.0:9090", "10.0.0.1:5", "localhost:9090", false),
            ("10.0.0.1:9090", "10.0.0.1:5", "10.0.0.1:9090", false),
            ("127.0.0.1:9090", "127.0.0.1:5", "evil.example", false),
        ] {
            let got = check_keyed(listener, peer, "GET", &[("host", host)]);
            let wanted = if may {
                Ok(())
            } else {
                Err(Denied::KeyFromElsewhere)
            };
            assert_eq!(got, wanted, "{listener} {peer} {host}");
        }
        let here = |method: &str, header: (&str, &str)| {
            check_keyed("127.0.0.1:9090", "127.0.0.1:5", method, &[HOST, header])
        };
        for name in FORWARDED {
            assert_eq!(
                here("GET", (name, "1.2.3.4")),
                Err(Denied::KeyFromElsewhere)
            );
        }
        let evil = ("origin", "http://evil.example");
        assert_eq!(here("GET", evil), Err(Denied::CrossSite));
        let text = ("content-type", "text/plain");
        assert_eq!(here("POST", text), Err(Denied::NotJson));
        assert_eq!(here("POST", ("content-type", "application/json")), Ok(()));
    }

    #[test]
    fn without_a_token_only_this_host_comes_in() {
        for (listener, peer, may) in [
            ("127.0.0.1:9090", "127.0.0.1:5", true),
            ("127.0.0.1:9090", "127.9.9.9:5", true),
            ("[::1]:9090", "[::1]:5", true),
            ("[::1]:9090", "[::ffff:127.0.0.1]:5", true),
            ("127.0.0.1:9090", "10.0.0.1:5", false),
            ("127.0.0.1:9090", "[::ffff:10.0.0.1]:5", false),
            ("0.0.0.0:9090", "127.0.0.1:5", false),
            ("[::]:9090", "[::1]:5", false),
            ("10.0.0.1:9090", "10.0.0.1:5", false),
        ] {
            let got = check(listener, peer, "GET", &[HOST]);
            let wanted = if may { Ok(()) } else { Err(Denied::NotLocal) };
            assert_eq!(got, wanted, "{listener} {peer}");
        }
        for name in FORWARDED {
            let got = check(
                "127.0.0.1:9090",
                "127.0.0.1:5",
                "GET",
                &[HOST, (name, "1.2.3.4")],
            );
            assert_eq!(got, Err(Denied::NotLocal), "{name}");
        }
    }

    #[test]
    fn a_foreign_name_that_leads_here_is_no_way_in() {
        let with =
            |headers: &[(&str, &str)]| check("127.0.0.1:9090", "127.0.0.1:5", "GET", headers);
        for host in [
            "localhost",
            "LOCALHOST:80",
            "localhost.:9090",
            "127.0.0.1:9090",
            "[::1]:9090",
        ] {
            assert_eq!(with(&[("host", host)]), Ok(()), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example:9090",
            "10.0.0.1",
            "",
            "a b",
        ] {
            assert_eq!(with(&[("host", host)]), Err(Denied::ForeignHost), "{host}");
        }
        assert_eq!(with(&[]), Err(Denied::ForeignHost));
        assert_eq!(with(&[HOST, HOST]), Err(Denied::ForeignHost));
    }

    #[test]
    fn other_sites_pages_are_no_way_in() {
        let with = |method: &str, header: (&str, &str)| {
            let json = ("content-type", "application/json; charset=utf-8");
            check(
                "127.0.0.1:9090",
                "127.0.0.1:5",
                method,
                &[HOST, json, header],
            )
        };
        for method in ["GET", "POST"] {
            for header in [
                ("origin", "http://localhost:9090"),
                ("sec-fetch-site", "same-origin"),
                ("sec-fetch-site", "none"),
            ] {
                assert_eq!(with(method, header), Ok(()), "{header:?}");
            }
            for header in [
                ("origin", "http://evil.example"),
                ("origin", "http://localhost:8000"),
                ("origin", "null"),
                ("sec-fetch-site", "cross-site"),
                ("sec-fetch-site", "same-site"),
            ] {
                assert_eq!(with(method, header), Err(Denied::CrossSite), "{header:?}");
            }
        }
        for kind in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "",
            "application/jsonx",
        ] {
            let headers = [HOST, ("content-type", kind)];
            let got = check("127.0.0.1:9090", "127.0.0.1:5", "POST", &headers);
            assert_eq!(got, Err(Denied::NotJson), "{kind}");
        }
        let got = check("127.0.0.1:9090", "127.0.0.1:5", "POST", &[HOST]);
        assert_eq!(got, Err(Denied::NotJson));
    }
}
