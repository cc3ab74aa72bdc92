//! Addresses that nothing is forwarded to: where clouds give instances their credentials, and the other
//! services of the hypervisor. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether nothing may be forwarded to this address, in whatever form it is written.
pub(super) fn is_forbidden(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_forbidden_v4(address),
        IpAddr::V6(address) => match embedded(address) {
            Some(address) => is_forbidden_v4(address),
            None => is_forbidden_v6(address),
        },
    }
}

/// All of link-local, of which AWS names five addresses and uses more for containers; and the metadata
/// services of clouds that have them elsewhere.
fn is_forbidden_v4(address: Ipv4Addr) -> bool {
    const AZURE: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);
    const ALIBABA: Ipv4Addr = Ipv4Addr::new(100, 100, 100, 200);
    const ORACLE: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 192);
    address.is_link_local() || [AZURE, ALIBABA, ORACLE].contains(&address)
}

/// Link-local, `fd00:ec2::/32`, which is AWS's, and `fd20:ce::254`, Google's.
fn is_forbidden_v6(address: Ipv6Addr) -> bool {
    const GOOGLE: Ipv6Addr = Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254);
    let [first, second, ..] = address.segments();
    address.is_unicast_link_local() || (first, second) == (0xfd00, 0x0ec2) || address == GOOGLE
}

/// The IPv4 address that an IPv6 address leads to.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match (a, b, c, d, e, f) {
        // Mapped; and the old form, in which the loopback and unspecified addresses lie.
        (0, 0, 0, 0, 0, 0xffff) => Some(v4(g, h)),
        (0, 0, 0, 0, 0, 0) if g != 0 => Some(v4(g, h)),
        // Translated for networks without IPv4.
        (0x64, 0xff9b, 0 | 1, _, _, _) => Some(v4(g, h)),
        // 6to4.
        (0x2002, high, low, ..) => Some(v4(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_services_are_found_in_every_form_and_others_left_alone() {
        for forbidden in [
            "169.254.169.254",
            "169.254.169.123",
            "169.254.170.2",
            "168.63.129.16",
            "100.100.100.200",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd20:ce::254",
            "fe80::1",
            "::ffff:169.254.169.254",
            "::ffff:a9fe:a9fe",
            "::169.254.169.254",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::169.254.169.254",
            "2002:a9fe:a9fe::1",
        ] {
            assert!(is_forbidden(forbidden.parse().unwrap()), "{forbidden}");
        }
        for allowed in [
            "127.0.0.1",
            "::1",
            "::",
            "10.0.0.1",
            "169.253.169.254",
            "::ffff:10.0.0.1",
            "2001:db8::1",
            "fd00::254",
            "64:ff9b::10.0.0.1",
        ] {
            assert!(!is_forbidden(allowed.parse().unwrap()), "{allowed}");
        }
    }
}
