//! Where a request comes from when proxies stand in front: what they say in `X-Forwarded-For` and
//! `X-Forwarded-Proto` counts for those that the operator named, and for nobody else. Policies and the
//! trail go by this address, so a stranger must not be able to choose it.

use std::{fmt, net::IpAddr, str::FromStr};

use http::HeaderMap;

/// Each proxy adds the address of whom it talked to at the end.
const FORWARDED_FOR: &str = "x-forwarded-for";
/// `https` or `http`, as the first proxy was reached.
const FORWARDED_PROTO: &str = "x-forwarded-proto";

/// Addresses that share their first bits, such as `10.0.0.0/8` or `fd00::/8`, or one alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    /// How many bits are shared.
    length: u8,
}

/// A text that is not a network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an address or a network such as 10.0.0.0/8")]
pub struct ParseNetworkError(pub String);

impl FromStr for Network {
    type Err = ParseNetworkError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || ParseNetworkError(text.to_owned());
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| refused())?;
        let whole = if address.is_ipv4() { 32 } else { 128 };
        let length = match length {
            Some(length) => length.parse().map_err(|_| refused())?,
            None => whole,
        };
        if length > whole {
            return Err(refused());
        }
        Ok(Self { address, length })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl Network {
    /// Whether an address belongs to it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => same(
                u128::from(own.to_bits()),
                u128::from(other.to_bits()),
                32 - self.length,
            ),
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                same(own.to_bits(), other.to_bits(), 128 - self.length)
            }
            _ => false,
        }
    }
}

/// Whether two numbers are the same but for the last bits.
fn same(one: u128, other: u128, rest: u8) -> bool {
    (one ^ other).checked_shr(u32::from(rest)).unwrap_or(0) == 0
}

/// Where a request comes from, and whether it came encrypted all the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) source: IpAddr,
    pub(crate) encrypted: bool,
}

/// The origin of a request that `peer` sent over a connection that is encrypted or not.
pub(crate) fn origin(
    peer: IpAddr,
    encrypted: bool,
    headers: &HeaderMap,
    trusted: &[Network],
) -> Origin {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    if !is_trusted(peer) {
        return Origin {
            source: peer,
            encrypted,
        };
    }
    // Backwards from the proxy next to us: the first that is not a trusted one is the client. What
    // stands before it is hearsay.
    let mut source = peer;
    for hop in hops(headers).into_iter().rev() {
        let Some(address) = hop else { break };
        source = address;
        if !is_trusted(address) {
            break;
        }
    }
    Origin {
        source,
        encrypted: forwarded_proto(headers).unwrap_or(encrypted),
    }
}

/// Whether `X-Forwarded-Proto` says that the request came encrypted; `None` where it is not there. The
/// last value is that of the proxy next to us. Those before it can be a stranger's, who can only take
/// away: one hop in the clear is enough.
fn forwarded_proto(headers: &HeaderMap) -> Option<bool> {
    let mut last = None;
    for value in headers.get_all(FORWARDED_PROTO) {
        for word in value.to_str().unwrap_or_default().split(',') {
            let word = word.trim();
            if word.eq_ignore_ascii_case("http") {
                return Some(false);
            }
            last = Some(word.eq_ignore_ascii_case("https"));
        }
    }
    last
}

/// The addresses of all `X-Forwarded-For` headers in order; `None` for what is not one.
fn hops(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let values = headers.get_all(FORWARDED_FOR).iter();
    values
        .flat_map(|value| match value.to_str() {
            Ok(text) => text.split(',').map(|hop| address(hop.trim())).collect(),
            Err(_) => vec![None],
        })
        .collect()
}

/// An address as proxies write it: some add a port, and brackets round IPv6.
fn address(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    if let Ok(with_port) = text.parse::<std::net::SocketAddr>() {
        return Some(with_port.ip());
    }
    let bare = text.strip_prefix('[')?.strip_suffix(']')?;
    bare.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(texts: &[&str]) -> Vec<Network> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn from(peer: &str, forwarded: &[&str], trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(FORWARDED_FOR, value.parse().unwrap());
        }
        let peer = peer.parse().unwrap();
        let origin = origin(peer, true, &headers, &networks(trusted));
        origin.source.to_string()
    }

    #[test]
    fn networks_are_read_and_hold_what_they_should() {
        let cases = [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "2001:db8::1", true),
            ("fd00::/8", "fdab::1", true),
            ("fd00::/8", "fe80::1", false),
            ("2001:db8::1", "2001:db8::1", true),
        ];
        for (network, address, holds) in cases {
            let network: Network = network.parse().unwrap();
            assert_eq!(
                network.contains(address.parse().unwrap()),
                holds,
                "{network} {address}"
            );
        }
        for text in [
            "",
            "10.0.0.0/33",
            "::/129",
            "10.0.0/8",
            "a/8",
            "10.0.0.0/",
            "10.0.0.0/-1",
        ] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }

    #[test]
    fn only_trusted_proxies_say_where_a_request_comes_from() {
        let proxy = &["10.0.0.0/8"];
        assert_eq!(from("192.0.2.1", &["203.0.113.9"], &[]), "192.0.2.1");
        assert_eq!(from("192.0.2.1", &["203.0.113.9"], proxy), "192.0.2.1");
        assert_eq!(from("10.0.0.1", &[], proxy), "10.0.0.1");
        assert_eq!(from("10.0.0.1", &["203.0.113.9"], proxy), "203.0.113.9");
        // What the client itself sent stands in front of what the proxy saw.
        let forged = "127.0.0.1, 203.0.113.9";
        assert_eq!(from("10.0.0.1", &[forged], proxy), "203.0.113.9");
        assert_eq!(
            from("10.0.0.1", &["127.0.0.1", "203.0.113.9"], proxy),
            "203.0.113.9"
        );
        // Through two proxies.
        let two = "198.51.100.7, 203.0.113.9, 10.0.0.2";
        assert_eq!(from("10.0.0.1", &[two], proxy), "203.0.113.9");
        // Nothing behind what cannot be read is believed.
        assert_eq!(
            from("10.0.0.1", &["203.0.113.9, unknown"], proxy),
            "10.0.0.1"
        );
        assert_eq!(
            from("10.0.0.1", &["203.0.113.9:4711"], proxy),
            "203.0.113.9"
        );
        assert_eq!(
            from("10.0.0.1", &["[2001:db8::1]:443"], proxy),
            "2001:db8::1"
        );
        assert_eq!(from("10.0.0.1", &["[2001:db8::1]"], proxy), "2001:db8::1");
    }

    #[test]
    fn a_trusted_proxy_says_whether_it_was_reached_encrypted() {
        let mut headers = HeaderMap::new();
        headers.insert(FORWARDED_PROTO, "http".parse().unwrap());
        let trusted = networks(&["10.0.0.0/8"]);
        let encrypted = |peer: &str, headers: &HeaderMap| {
            origin(peer.parse().unwrap(), true, headers, &trusted).encrypted
        };
        assert!(!encrypted("10.0.0.1", &headers));
        assert!(encrypted("192.0.2.1", &headers));
        assert!(encrypted("10.0.0.1", &HeaderMap::new()));
    }

    #[test]
    fn one_hop_in_the_clear_is_enough() {
        let encrypted = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(FORWARDED_PROTO, value.parse().unwrap());
            }
            let trusted = networks(&["10.0.0.0/8"]);
            origin("10.0.0.1".parse().unwrap(), true, &headers, &trusted).encrypted
        };
        for values in [
            &["https"][..],
            &["https", "HTTPS"],
            &["https, https"],
            &["what, https"],
        ] {
            assert!(encrypted(values), "{values:?}");
        }
        for values in [
            &["http"][..],
            &["https", "http"],
            &["http", "https"],
            &["https, http"],
            &["HTTP , https"],
            &["https", "what"],
            &["https,"],
        ] {
            assert!(!encrypted(values), "{values:?}");
        }
    }
}
