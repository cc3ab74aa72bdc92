//! What a port session's properties ask for, judged before anything is started. Pure.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{copy::CopyPlan, forbidden::is_forbidden};

/// The host of a document that names none.
pub(super) const LOCALHOST: &str = "localhost";

/// What a port session does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PortPlan {
    /// The document's properties. The client is told of them as they are.
    pub(super) properties: Value,
    pub(super) kind: PortKind,
}

/// The kinds of port sessions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum PortKind {
    /// One connection, which the client has on its standard input and output.
    Stdio(Target),
    /// Connections to one destination, as the client accepts them.
    Local(Target),
    /// Connections to where each asks to go.
    Socks,
    /// Connections that are accepted here.
    Reverse(Listen),
}

/// Where a connection goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Target {
    /// A name or an address.
    Tcp { host: String, port: u16 },
    /// A unix socket of this machine.
    Socket(PathBuf),
    /// The files of this machine.
    Copy(CopyPlan),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Socket(path) => write!(f, "{}", path.display()),
            Self::Copy(plan) => write!(f, "{plan}"),
        }
    }
}

/// Where connections are accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Listen {
    /// The first of the addresses has to be there, the others are taken where they are. Port 0: any.
    Tcp { addresses: Vec<IpAddr>, port: u16 },
    /// A unix socket to be made.
    Socket(PathBuf),
}

/// Why no such session is run here. The text is shown to the person who started it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PortRefusal {
    #[error("Port number is empty in session properties.")]
    NoPort,
    #[error("the session document cannot be understood: {0}")]
    Property(&'static str),
    #[error("{0} is no port number")]
    Port(String),
    #[error("Forwarding to IP address {0} is forbidden.")]
    Forbidden(String),
    #[error("the path of a socket must be absolute")]
    RelativeSocket,
    #[error("this node listens on its loopback addresses only, not on {0}")]
    BindAddress(String),
}

impl PortPlan {
    /// Reads the resolved properties of a document.
    pub(crate) fn of(properties: &Value) -> Result<Self, PortRefusal> {
        let kind = match text(properties, "type")?.as_str() {
            "LocalPortForwarding" => PortKind::Local(target(properties)?),
            "SocksForwarding" => PortKind::Socks,
            "ReverseForwarding" => PortKind::Reverse(listen(properties)?),
            "CopyFile" => PortKind::Stdio(Target::Copy(CopyPlan::of(properties)?)),
            // As official agents do with any other word.
            _ => PortKind::Stdio(target(properties)?),
        };
        Ok(Self {
            properties: properties.clone(),
            kind,
        })
    }

    /// The same for an account with this home directory.
    pub(super) fn at_home(&self, home: &Path) -> Self {
        let mut plan = self.clone();
        if let PortKind::Stdio(Target::Copy(copy)) = &mut plan.kind {
            *copy = copy.at_home(home);
        }
        plan
    }

    /// Whether official clients know this kind.
    pub(super) fn is_official(&self) -> bool {
        let target = match &self.kind {
            PortKind::Stdio(target) | PortKind::Local(target) => target,
            PortKind::Socks | PortKind::Reverse(_) => return false,
        };
        matches!(target, Target::Tcp { .. })
    }
}

fn target(properties: &Value) -> Result<Target, PortRefusal> {
    if let Some(path) = socket(properties)? {
        return Ok(Target::Socket(path));
    }
    let port = port(properties)?;
    if port == 0 {
        return Err(PortRefusal::Port("0".to_owned()));
    }
    let host = text(properties, "host")?;
    let host = host.trim();
    let host = if host.is_empty() { LOCALHOST } else { host };
    if host.parse().is_ok_and(is_forbidden) {
        return Err(PortRefusal::Forbidden(host.to_owned()));
    }
    Ok(Target::Tcp {
        host: host.to_owned(),
        port,
    })
}

fn listen(properties: &Value) -> Result<Listen, PortRefusal> {
    if let Some(path) = socket(properties)? {
        return Ok(Listen::Socket(path));
    }
    let port = port(properties)?;
    let bind = text(properties, "bindAddress")?;
    let addresses = match bind.trim() {
        "" | LOCALHOST => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        other => match other.parse::<IpAddr>() {
            Ok(address) if address.is_loopback() => vec![address],
            _ => return Err(PortRefusal::BindAddress(shown(other))),
        },
    };
    Ok(Listen::Tcp { addresses, port })
}

fn socket(properties: &Value) -> Result<Option<PathBuf>, PortRefusal> {
    let path = text(properties, "socket")?;
    if path.is_empty() {
        return Ok(None);
    }
    absolute(Path::new(&path)).map(Some)
}

/// The path, if it does not depend on where this process happens to be.
pub(super) fn absolute(path: &Path) -> Result<PathBuf, PortRefusal> {
    if path.is_absolute() && !path.as_os_str().as_encoded_bytes().contains(&0) {
        Ok(path.to_owned())
    } else {
        Err(PortRefusal::RelativeSocket)
    }
}

fn port(properties: &Value) -> Result<u16, PortRefusal> {
    let port = text(properties, "portNumber")?;
    match port.trim() {
        "" => Err(PortRefusal::NoPort),
        port => port.parse().map_err(|_| PortRefusal::Port(shown(port))),
    }
}

/// A text, or a number as text; absent or null is empty.
pub(super) fn text(properties: &Value, name: &'static str) -> Result<String, PortRefusal> {
    match properties.get(name) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Number(number)) => Ok(number.to_string()),
        Some(_) => Err(PortRefusal::Property(name)),
    }
}

/// A stranger's text as it may be shown: short and without control characters.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(64).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn kind(properties: Value) -> Result<PortKind, String> {
        PortPlan::of(&properties)
            .map(|plan| plan.kind)
            .map_err(|refusal| refusal.to_string())
    }

    fn tcp(host: &str, port: u16) -> Target {
        Target::Tcp {
            host: host.to_owned(),
            port,
        }
    }

    #[test]
    fn the_kind_follows_from_type_and_destination() {
        let socket = Target::Socket("/run/db.sock".into());
        let table = [
            (
                json!({"portNumber": "22"}),
                PortKind::Stdio(tcp("localhost", 22)),
            ),
            (
                json!({"portNumber": "22", "type": "Else", "host": " "}),
                PortKind::Stdio(tcp("localhost", 22)),
            ),
            (
                json!({"portNumber": 5432, "type": "LocalPortForwarding", "host": "db", "localPortNumber": "0"}),
                PortKind::Local(tcp("db", 5432)),
            ),
            (
                json!({"socket": "/run/db.sock", "type": "LocalPortForwarding"}),
                PortKind::Local(socket),
            ),
            (json!({"type": "SocksForwarding"}), PortKind::Socks),
            (
                json!({"type": "ReverseForwarding", "portNumber": "0", "bindAddress": "localhost"}),
                PortKind::Reverse(Listen::Tcp {
                    addresses: vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
                    port: 0,
                }),
            ),
            (
                json!({"type": "ReverseForwarding", "portNumber": "80", "bindAddress": "::1"}),
                PortKind::Reverse(Listen::Tcp {
                    addresses: vec![Ipv6Addr::LOCALHOST.into()],
                    port: 80,
                }),
            ),
        ];
        for (properties, expected) in table {
            assert_eq!(kind(properties), Ok(expected));
        }
    }

    #[test]
    fn what_cannot_be_run_says_why() {
        let table = [
            (json!({}), "Port number is empty"),
            (json!({"portNumber": "70000"}), "70000 is no port number"),
            (json!({"portNumber": "0"}), "0 is no port number"),
            (json!({"portNumber": []}), "portNumber"),
            (
                json!({"portNumber": "80", "host": "169.254.169.254"}),
                "Forwarding to IP address 169.254.169.254 is forbidden.",
            ),
            (
                json!({"portNumber": "80", "host": "::ffff:169.254.169.254"}),
                "Forwarding to IP address ::ffff:169.254.169.254 is forbidden.",
            ),
            (
                json!({"type": "LocalPortForwarding", "socket": "db.sock"}),
                "absolute",
            ),
            (
                json!({"type": "ReverseForwarding", "portNumber": "80", "bindAddress": "0.0.0.0"}),
                "not on 0.0.0.0",
            ),
            (json!({"type": "CopyFile"}), "direction"),
        ];
        for (properties, reason) in table {
            let refused = kind(properties).unwrap_err();
            assert!(refused.contains(reason), "{refused}");
        }
    }
}
