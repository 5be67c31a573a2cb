//! The PROXY protocol: load balancers that say in front of each connection which client it comes from.
//! <https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>

use std::{
    io,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use ipnet::IpNet;
use proxy_header::{ParseConfig, ProxyHeader};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::socket::canonical;

/// Length of the shortest header, `PROXY UNKNOWN\r\n`.
const SHORTEST: usize = 15;
/// Length of the fixed part of a header of version 2. Its last two bytes are the length of the rest.
const FIXED_V2: usize = 16;
/// Longest header. Addresses take 52 bytes; the rest is for what balancers add, such as a client certificate.
const LONGEST: usize = 4096;

const PARSE: ParseConfig = ParseConfig {
    include_tlvs: false,
    allow_v1: true,
    allow_v2: true,
};

/// The IP addresses of a network, such as `10.0.0.0/8`, or one IP address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AddressRange(IpNet);

impl AddressRange {
    /// Whether the address is in the range. It must be canonical.
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }
}

impl FromStr for AddressRange {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let address = text.parse().map(|ip: IpAddr| ip.to_canonical().into());
        address
            .or_else(|_| text.parse())
            .map(Self)
            .map_err(|_| "expected an IP address or a network such as \"10.0.0.0/8\"")
    }
}

impl TryFrom<String> for AddressRange {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<AddressRange> for String {
    fn from(range: AddressRange) -> Self {
        match range.0 {
            one if one.prefix_len() == one.max_prefix_len() => one.addr().to_string(),
            network => network.to_string(),
        }
    }
}

/// Why a connection from a balancer cannot be served.
#[derive(Debug, thiserror::Error)]
pub(super) enum HeaderError {
    /// The connection ended before the header did.
    #[error("the connection ended before its PROXY header")]
    Ended(#[source] io::Error),
    /// There is something else in place of the header.
    #[error("there is no valid PROXY header")]
    Invalid,
    /// The header is longer than [`LONGEST`].
    #[error("the PROXY header is longer than {LONGEST} bytes")]
    TooLong,
}

/// Reads a header of version 1 or 2, and no byte more. Returns the client's address; `None` when the balancer speaks
/// for itself (`LOCAL`) or does not know (`UNKNOWN`).
pub(super) async fn client_address(
    mut io: impl AsyncRead + Unpin,
) -> Result<Option<SocketAddr>, HeaderError> {
    let mut header = vec![0; SHORTEST];
    let mut read = 0;
    loop {
        let unread = header.get_mut(read..).unwrap_or_default();
        io.read_exact(unread).await.map_err(HeaderError::Ended)?;
        match ProxyHeader::parse(&header, PARSE) {
            Ok((parsed, _)) => {
                let client = parsed.proxied_address();
                return Ok(client.map(|client| canonical(client.source)));
            }
            Err(proxy_header::Error::BufferTooShort) => {}
            Err(_) => return Err(HeaderError::Invalid),
        }
        read = header.len();
        header.resize(next_length(&header)?, 0);
    }
}

/// The length up to which the header has to be read next: the whole of version 2, a byte more of version 1, which
/// ends with its first line.
fn next_length(header: &[u8]) -> Result<usize, HeaderError> {
    let length = match header {
        [b'\r', ..] if header.len() == FIXED_V2 => match header.last_chunk() {
            Some(rest) => FIXED_V2 + usize::from(u16::from_be_bytes(*rest)),
            None => header.len(),
        },
        // All of it is here, and does not parse.
        [b'\r', ..] if header.len() > FIXED_V2 => header.len(),
        _ => header.len() + 1,
    };
    match length {
        length if length == header.len() => Err(HeaderError::Invalid),
        length if length > LONGEST => Err(HeaderError::TooLong),
        length => Ok(length),
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection, prelude::*, sample::select};
    use proxy_header::ProxiedAddress;

    use super::*;

    /// A header of version 2 with this command and family, and what follows.
    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        let fixed = [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[command, family], &length];
        [&fixed.concat(), rest].concat()
    }

    fn v2_of(source: &str, destination: &str) -> Vec<u8> {
        let parsed = |address: &str| address.parse().unwrap();
        let address = ProxiedAddress::stream(parsed(source), parsed(destination));
        let mut header = Vec::new();
        ProxyHeader::with_address(address)
            .encode_v2(&mut header)
            .unwrap();
        header
    }

    /// The client's address, and what is left behind the header.
    async fn read(bytes: &[u8]) -> (Result<Option<String>, HeaderError>, Vec<u8>) {
        let mut rest = bytes;
        let client = client_address(&mut rest).await;
        let client = client.map(|client| client.map(|address| address.to_string()));
        (client, rest.to_vec())
    }

    #[tokio::test]
    async fn headers_of_both_versions_name_the_client() {
        let with_extras = {
            let extras = [
                &[192, 0, 2, 1, 198, 51, 100, 1, 0, 7, 1, 187][..],
                &[4; 3000],
            ]
            .concat();
            v2(0x21, 0x11, &extras)
        };
        for (header, client) in [
            (
                b"PROXY TCP4 192.0.2.1 198.51.100.1 7 443\r\n".to_vec(),
                Some("192.0.2.1:7"),
            ),
            (
                b"PROXY TCP6 2001:db8::1 2001:db8::2 65535 443\r\n".to_vec(),
                Some("[2001:db8::1]:65535"),
            ),
            (
                b"PROXY TCP6 ::ffff:192.0.2.1 ::1 7 443\r\n".to_vec(),
                Some("192.0.2.1:7"),
            ),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (
                b"PROXY UNKNOWN 2001:db8::1 2001:db8::2 1 2\r\n".to_vec(),
                None,
            ),
            (
                v2_of("192.0.2.1:7", "198.51.100.1:443"),
                Some("192.0.2.1:7"),
            ),
            (
                v2_of("[2001:db8::1]:7", "[2001:db8::2]:443"),
                Some("[2001:db8::1]:7"),
            ),
            (with_extras, Some("192.0.2.1:7")),
            (v2(0x20, 0, &[]), None),
            (
                v2(0x20, 0x11, &[192, 0, 2, 1, 198, 51, 100, 1, 0, 7, 1, 187]),
                None,
            ),
            (v2(0x21, 0, &[]), None),
            (v2(0x21, 0x31, &[0; 216]), None),
        ] {
            let (found, rest) = read(&[&header, &b"\x16\x03\x01"[..]].concat()).await;
            assert_eq!(found.unwrap().as_deref(), client, "{header:?}");
            assert_eq!(rest, b"\x16\x03\x01", "{header:?}");
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused() {
        for bytes in [
            &b"GET /v1/streams HTTP/1.1\r\nhost: x\r\n\r\n"[..],
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\0\0\0\0\0\0\0",
            b"PROXY TCP4 192.0.2.1 198.51.100.1 7 x\r\n",
            b"PROXY TCP4 2001:db8::1 2001:db8::2 7 443\r\n",
            b"PROXY TCP4 192.0.2.256 198.51.100.1 7 443\r\n",
            b"PROXY UDP4 192.0.2.1 198.51.100.1 7 443\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.1 7 443\rx",
            &[&b"PROXY UNKNOWN "[..], &[b'x'; 200]].concat(),
            &v2(0x22, 0x11, &[0; 12]),
            &v2(0x11, 0x11, &[0; 12]),
            &v2(0x21, 0x41, &[0; 12]),
            &v2(0x21, 0x11, &[]),
            &v2(0x21, 0x11, &[0; 11]),
            &v2(0x21, 0x21, &[0; 12]),
        ] {
            let (found, _) = read(bytes).await;
            assert!(
                matches!(found, Err(HeaderError::Invalid)),
                "{bytes:?}: {found:?}"
            );
        }
        let (found, rest) = read(&v2(0x21, 0x11, &[0; LONGEST])).await;
        assert!(matches!(found, Err(HeaderError::TooLong)), "{found:?}");
        assert_eq!(rest.len(), LONGEST, "read more than it needed");
        for cut in 0..v2_of("192.0.2.1:7", "198.51.100.1:443").len() {
            let (found, _) = read(&v2_of("192.0.2.1:7", "198.51.100.1:443")[..cut]).await;
            assert!(
                matches!(found, Err(HeaderError::Ended(_))),
                "{cut}: {found:?}"
            );
        }
    }

    #[test]
    fn ranges_are_networks_or_addresses() {
        let range = |text: &str| text.parse::<AddressRange>();
        for (text, address, is_in) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.7", "10.0.0.7", true),
            ("10.0.0.7", "10.0.0.8", false),
            ("::ffff:10.0.0.7", "10.0.0.7", true),
            ("2001:db8::/32", "2001:db8::1", true),
            ("::/0", "10.0.0.7", false),
            ("0.0.0.0/0", "10.0.0.7", true),
        ] {
            let contains = range(text).unwrap().contains(address.parse().unwrap());
            assert_eq!(contains, is_in, "{address} in {text}");
        }
        for text in [
            "",
            "10.0.0.0/33",
            "balancer",
            "10.0.0",
            "10.0.0.1:80",
            "10.0.0.0/8 ",
        ] {
            range(text).unwrap_err();
        }
        for text in ["10.0.0.0/8", "10.0.0.7", "2001:db8::/32", "::1"] {
            assert_eq!(String::from(range(text).unwrap()), text);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_end_well(
            start in select(vec![
                &b""[..], b"PROXY TCP4 ", b"PROXY TCP6 ::1 ", b"PROXY UNKNOWN", b"\r\n\r\n",
                b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0", b"\r\n\r\n\0\r\nQUIT\n\x20\x31",
            ]),
            rest in collection::vec(any::<u8>(), 0..300),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let _any = runtime.block_on(read(&[start, &rest].concat()));
        }
    }
}
