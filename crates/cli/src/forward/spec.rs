//! What is forwarded where, as a person writes it. Pure.
//!
//! Parts are separated by colons; a part is a port, a host (an IPv6 address in brackets) or, when it
//! begins with `/` or `./`, the path of a unix socket.

use std::{fmt, net::Ipv6Addr, path::PathBuf, str::FromStr};

/// Where connections come from or go to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Place {
    /// A TCP port. Without a host that of whoever is meant: loopback, or the node itself.
    Tcp { host: Option<String>, port: u16 },
    /// The path of a unix socket.
    Unix(PathBuf),
}

/// Connections that are accepted at one place go to the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spec {
    pub(crate) listen: Place,
    pub(crate) target: Place,
}

/// Why a text is no [`Spec`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SpecError {
    #[error(
        "is given like 5432, 8080:80, 5432:db.internal:5432, 127.0.0.2:8080:localhost:80 or \
         8080:/run/app.sock"
    )]
    Form,
    #[error("a part is empty")]
    EmptyPart,
    #[error("`{0}` is not a port")]
    Port(String),
    #[error("`{0}` is not an IPv6 address")]
    Address(String),
    #[error("`{0}` is not a host name or address")]
    Host(String),
    #[error("port 0 is where something listens, not where it goes")]
    TargetPort,
}

/// One part between colons.
#[derive(Debug)]
enum Part {
    Port(u16),
    Host(String),
    Path(PathBuf),
}

impl Place {
    pub(crate) fn port(port: u16) -> Self {
        Self::Tcp { host: None, port }
    }

    fn host_and_port(host: String, port: u16) -> Self {
        Self::Tcp {
            host: Some(host),
            port,
        }
    }
}

/// As it is written in a [`Spec`].
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host: None, port } => write!(f, "port {port}"),
            Self::Tcp {
                host: Some(host),
                port,
            } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp {
                host: Some(host),
                port,
            } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

impl FromStr for Spec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        use Part::{Host, Path, Port};
        let mut parts = parts(text)?.into_iter();
        let four = (parts.next(), parts.next(), parts.next(), parts.next());
        if parts.next().is_some() {
            return Err(SpecError::Form);
        }
        let to = Place::host_and_port;
        let (listen, target) = match four {
            (Some(Port(port)), None, ..) => (Place::port(port), Place::port(port)),
            (Some(Host(host)), Some(Port(port)), None, _) => (Place::port(port), to(host, port)),
            (Some(listen), Some(target), None, _) => (bare(listen)?, bare(target)?),
            (Some(Host(bind)), Some(Port(local)), Some(target), None) => {
                (to(bind, local), bare(target)?)
            }
            (Some(listen), Some(Host(host)), Some(Port(port)), None) => {
                (bare(listen)?, to(host, port))
            }
            (Some(Host(bind)), Some(Port(local)), Some(Host(host)), Some(Port(port))) => {
                (to(bind, local), to(host, port))
            }
            (Some(Path(_)), ..) | (Some(_), ..) | (None, ..) => return Err(SpecError::Form),
        };
        if matches!(target, Place::Tcp { port: 0, .. }) {
            return Err(SpecError::TargetPort);
        }
        Ok(Self { listen, target })
    }
}

/// `[bind:]port`, or the path of a unix socket.
impl FromStr for Place {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let mut parts = parts(text)?.into_iter();
        match (parts.next(), parts.next(), parts.next()) {
            (Some(only), None, _) => bare(only),
            (Some(Part::Host(host)), Some(Part::Port(port)), None) => {
                Ok(Self::host_and_port(host, port))
            }
            _ => Err(SpecError::Form),
        }
    }
}

fn bare(part: Part) -> Result<Place, SpecError> {
    match part {
        Part::Port(port) => Ok(Place::port(port)),
        Part::Path(path) => Ok(Place::Unix(path)),
        Part::Host(_) => Err(SpecError::Form),
    }
}

/// The parts between colons; those in brackets are none.
fn parts(text: &str) -> Result<Vec<Part>, SpecError> {
    let mut parts = Vec::new();
    let mut rest = text;
    loop {
        let (raw, next) = match rest.strip_prefix('[') {
            Some(inside) => {
                let (address, behind) = inside.split_once(']').ok_or(SpecError::Form)?;
                let address: Ipv6Addr = address
                    .parse()
                    .map_err(|_| SpecError::Address(address.to_owned()))?;
                parts.push(Part::Host(address.to_string()));
                let next = match behind.strip_prefix(':') {
                    Some(next) => Some(next),
                    None if behind.is_empty() => None,
                    None => return Err(SpecError::Form),
                };
                (None, next)
            }
            None => match rest.split_once(':') {
                Some((raw, next)) => (Some(raw), Some(next)),
                None => (Some(rest), None),
            },
        };
        if let Some(raw) = raw {
            parts.push(part(raw)?);
        }
        match next {
            Some(next) => rest = next,
            None => return Ok(parts),
        }
    }
}

fn part(raw: &str) -> Result<Part, SpecError> {
    if raw.is_empty() {
        return Err(SpecError::EmptyPart);
    }
    if raw.starts_with('/') || raw.starts_with("./") {
        return Ok(Part::Path(PathBuf::from(raw)));
    }
    if raw.bytes().all(|byte| byte.is_ascii_digit()) {
        let port = raw.parse().map_err(|_| SpecError::Port(raw.to_owned()))?;
        return Ok(Part::Port(port));
    }
    let is_name = raw == "*"
        || raw
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
    if !is_name {
        return Err(SpecError::Host(raw.to_owned()));
    }
    Ok(Part::Host(raw.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> Result<(String, String), SpecError> {
        let spec: Spec = text.parse()?;
        Ok((spec.listen.to_string(), spec.target.to_string()))
    }

    #[test]
    fn every_form_is_read() {
        for (text, listen, target) in [
            ("5432", "port 5432", "port 5432"),
            ("8080:80", "port 8080", "port 80"),
            ("0:80", "port 0", "port 80"),
            ("db.internal:5432", "port 5432", "db.internal:5432"),
            ("5432:db.internal:5433", "port 5432", "db.internal:5433"),
            ("127.0.0.2:8080:80", "127.0.0.2:8080", "port 80"),
            ("*:8080:web:80", "*:8080", "web:80"),
            (
                "[::1]:8080:[2001:db8::1]:80",
                "[::1]:8080",
                "[2001:db8::1]:80",
            ),
            ("8080:[::1]:80", "port 8080", "[::1]:80"),
            ("8080:/run/app.sock", "port 8080", "/run/app.sock"),
            ("./a.sock:/run/app.sock", "./a.sock", "/run/app.sock"),
            ("/tmp/a.sock:80", "/tmp/a.sock", "port 80"),
            ("/tmp/a.sock:db:5432", "/tmp/a.sock", "db:5432"),
            (
                "127.0.0.1:8080:/run/app.sock",
                "127.0.0.1:8080",
                "/run/app.sock",
            ),
        ] {
            assert_eq!(
                spec(text),
                Ok((listen.to_owned(), target.to_owned())),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_form_is_refused() {
        for text in [
            "",
            ":",
            "80:",
            ":80",
            "web",
            "/run/app.sock",
            "1:2:3",
            "1:2:3:4",
            "a:1:b:2:c",
            "99999",
            "80:0",
            "80:db:0",
            "[::1",
            "[::1]80:80",
            "[zz]:1:2",
            "8080:a b:80",
            "-x:80:y",
            "a:b",
            "1:web:x",
            "web:1:web",
        ] {
            assert!(spec(text).is_err(), "{text}: {:?}", spec(text));
        }
    }

    #[test]
    fn places_are_read_alone() {
        for (text, place) in [
            ("1080", Some("port 1080")),
            ("127.0.0.1:1080", Some("127.0.0.1:1080")),
            ("[::1]:1080", Some("[::1]:1080")),
            ("./s", Some("./s")),
            ("web", None),
            ("1:2", None),
            ("", None),
        ] {
            let read = text.parse::<Place>().ok().map(|place| place.to_string());
            assert_eq!(read.as_deref(), place, "{text}");
        }
    }
}
