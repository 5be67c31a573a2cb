//! Endpoints as configured, and the hosts they lead to.

use std::fmt;

use http::uri::{Authority, PathAndQuery, Scheme, Uri};

use super::Error;
use crate::stream::BasinName;

/// What stands for the basin's name in an endpoint's host.
const BASIN_PLACEHOLDER: &str = "{basin}";
/// A valid basin name to check an endpoint with.
const SAMPLE_BASIN: &str = "sample-basin";

/// One configured endpoint.
#[derive(Debug)]
pub(super) struct Endpoint {
    tls: bool,
    /// `host[:port]`, with [`BASIN_PLACEHOLDER`] still in it.
    authority: String,
}

/// One host to connect to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Destination {
    pub(super) tls: bool,
    pub(super) authority: Authority,
}

impl Endpoint {
    /// Reads an endpoint.
    ///
    /// # Errors
    ///
    /// What is wrong with it, as the end of a sentence that starts with its key.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.matches(BASIN_PLACEHOLDER).count() > 1 {
            return Err(format!("{text:?} names {BASIN_PLACEHOLDER} more than once"));
        }
        let sample = text.replace(BASIN_PLACEHOLDER, SAMPLE_BASIN);
        let uri: Uri = sample
            .parse()
            .map_err(|error| format!("{text:?} is not a URL: {error}"))?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => {
                return Err(format!(
                    "{text:?} must start with \"http://\" or \"https://\""
                ));
            }
        };
        check_authority(text, &uri)?;
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() || text.contains('#') {
            return Err(format!("{text:?} must end after the host and port"));
        }
        let after_scheme = text.split_once("://").map_or("", |(_, rest)| rest);
        let authority = after_scheme.trim_end_matches('/').to_owned();
        Ok(Self { tls, authority })
    }

    /// Whether the basin goes into the host name.
    pub(super) fn names_basin(&self) -> bool {
        self.authority.contains(BASIN_PLACEHOLDER)
    }

    /// Whether connections to it use TLS.
    pub(super) fn is_tls(&self) -> bool {
        self.tls
    }

    /// Whether both lead to the same place.
    pub(super) fn is_same_as(&self, other: &Self) -> bool {
        (self.tls, &self.authority) == (other.tls, &other.authority)
    }

    /// The endpoint as a URL.
    pub(super) fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}", self.authority)
    }

    /// The host to connect to, for `basin` where the endpoint names one.
    pub(super) fn destination(&self, basin: Option<&BasinName>) -> Result<Destination, Error> {
        let name = basin.map_or("", BasinName::as_str);
        let authority = self.authority.replace(BASIN_PLACEHOLDER, name);
        match authority.parse() {
            Ok(authority) => Ok(Destination {
                tls: self.tls,
                authority,
            }),
            Err(_) => Err(Error::Target { authority }),
        }
    }
}

impl Destination {
    /// The host name or address, without the brackets of an IPv6 address.
    pub(super) fn host(&self) -> &str {
        self.authority.host().trim_matches(['[', ']'])
    }

    /// The port, the scheme's own where none is written.
    pub(super) fn port(&self) -> u16 {
        let default = if self.tls { 443 } else { 80 };
        self.authority.port_u16().unwrap_or(default)
    }

    /// The absolute URI of `path` on this host, as HTTP/2 spells its pseudo-headers.
    pub(super) fn uri(&self, path: PathAndQuery) -> Result<Uri, Error> {
        let scheme = if self.tls {
            Scheme::HTTPS
        } else {
            Scheme::HTTP
        };
        Uri::builder()
            .scheme(scheme)
            .authority(self.authority.clone())
            .path_and_query(path)
            .build()
            .map_err(|_| Error::Request("its target is not a path"))
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.authority.fmt(f)
    }
}

fn check_authority(text: &str, uri: &Uri) -> Result<(), String> {
    let authority = uri
        .authority()
        .filter(|authority| !authority.host().is_empty())
        .ok_or_else(|| format!("{text:?} names no host"))?;
    // The text is not quoted here: it may hold a password.
    if authority.as_str().contains('@') {
        return Err("must not hold a user name or password".to_owned());
    }
    if authority.as_str() != authority.host() && authority.port_u16().is_none() {
        return Err(format!(
            "{text:?} has a port that is not a number up to 65535"
        ));
    }
    Ok(())
}
