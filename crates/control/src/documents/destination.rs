//! Destinations of tunnels in the one form in which policies see them and nodes dial them. Two
//! spellings of one host must not be two hosts to a policy. Pure.

use std::net::{IpAddr, Ipv6Addr};

/// The name of the node itself.
pub(crate) const LOCALHOST: &str = "localhost";
/// The longest path of a unix socket that Linux takes.
const LONGEST_SOCKET: usize = 107;

/// Why a text is no destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidDestination {
    #[error("is neither a host name nor an IP address")]
    Host,
    #[error("is no port: ports are 1 to 65535")]
    Port,
    #[error(
        "is no path of a socket: give an absolute path of at most {LONGEST_SOCKET} bytes without \
         empty parts, . and .."
    )]
    Socket,
}

/// A host: a name in lower case without a dot at the end, or an address as it is usually written.
/// Nothing means the node.
pub(crate) fn host(text: &str) -> Result<String, InvalidDestination> {
    if text.is_empty() {
        return Ok(LOCALHOST.to_owned());
    }
    let inside = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    if let Some(inside) = inside {
        let address: Ipv6Addr = inside.parse().map_err(|_| InvalidDestination::Host)?;
        return Ok(IpAddr::V6(address).to_canonical().to_string());
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.to_canonical().to_string());
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let is_name = name.len() <= 253 && name.split('.').all(label) && !is_numeric(name);
    is_name
        .then(|| name.to_ascii_lowercase())
        .ok_or(InvalidDestination::Host)
}

/// Whether resolvers could take a name for an address in one of the old spellings, such as `127.1`,
/// `2130706433` or `0x7f000001`: then its last part is a number.
fn is_numeric(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    let hex = last
        .strip_prefix("0x")
        .or_else(|| last.strip_prefix("0X"))
        .is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    hex || last.bytes().all(|byte| byte.is_ascii_digit())
}

/// A port that can be dialled.
pub(crate) fn port(text: &str) -> Result<u16, InvalidDestination> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|number| digits && *number > 0);
    number.ok_or(InvalidDestination::Port)
}

/// The path of a unix socket on a node.
pub(crate) fn socket(text: &str) -> Result<&str, InvalidDestination> {
    let path = text.strip_prefix('/').ok_or(InvalidDestination::Socket)?;
    let part = |part: &str| !matches!(part, "" | "." | "..");
    let fits = text.len() <= LONGEST_SOCKET
        && path.split('/').all(part)
        && !text.chars().any(char::is_control);
    fits.then_some(text).ok_or(InvalidDestination::Socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_one_spelling() {
        for (text, told) in [
            ("", "localhost"),
            ("LocalHost", "localhost"),
            ("DB.Internal.", "db.internal"),
            ("a_b-c.d1", "a_b-c.d1"),
            ("127.0.0.1", "127.0.0.1"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("[::ffff:a00:1]", "10.0.0.1"),
            ("0:0:0:0:0:0:0:1", "::1"),
            ("[FD00::ABCD]", "fd00::abcd"),
            ("1e100.net", "1e100.net"),
            ("0x.example", "0x.example"),
        ] {
            assert_eq!(host(text).as_deref(), Ok(told), "{text}");
        }
        let long = format!("{}.x", "a".repeat(64));
        for text in [
            "127.1",
            "2130706433",
            "0x7f000001",
            "0x7f.0x1",
            "010.0.0.1",
            "256.0.0.1",
            "fe80::1%eth0",
            "[127.0.0.1]",
            "[::1",
            "a..b",
            ".a",
            ".",
            "a b",
            " a",
            "a\n",
            "-a",
            "a-.b",
            "a/b",
            "a:80",
            "user@host",
            "$(id)",
            "ä.example",
            &long,
        ] {
            assert_eq!(host(text), Err(InvalidDestination::Host), "{text}");
        }
    }

    #[test]
    fn ports_are_decimal() {
        assert_eq!(port("1"), Ok(1));
        assert_eq!(port("080"), Ok(80));
        assert_eq!(port("65535"), Ok(65535));
        for text in ["", "0", "65536", "+80", "-1", "8 0", " 80", "80\n", "0x50"] {
            assert_eq!(port(text), Err(InvalidDestination::Port), "{text}");
        }
    }

    #[test]
    fn a_socket_has_one_path() {
        assert_eq!(socket("/run/x.sock"), Ok("/run/x.sock"));
        let long = format!("/{}", "a".repeat(107));
        for text in [
            "",
            "/",
            "x",
            "./x",
            "/run//x",
            "/run/",
            "/run/./x",
            "/run/../x",
            "/a\0",
            "/a\n",
            &long,
        ] {
            assert_eq!(socket(text), Err(InvalidDestination::Socket), "{text}");
        }
    }
}
