//! The properties of a session document: which command runs on which system, or which tunnel is
//! opened. Checked when a document is saved, as far as its placeholders allow, and again when they are
//! filled; then brought into the one form that nodes and policies see. Pure.

use serde_json::{Map, Value, json};

use super::{
    SessionType,
    destination::{self, InvalidDestination, LOCALHOST},
    parameters::placeholders,
};

/// The systems that commands are for.
const SYSTEMS: [&str; 3] = ["linux", "macos", "windows"];
/// What may stand for the loopback addresses where a node listens.
const LOOPBACKS: [&str; 3] = [LOCALHOST, "127.0.0.1", "::1"];
/// The longest path of a file that is copied.
const LONGEST_PATH: usize = 4096;

/// Checks the properties of a session of this type, and gives them in their one form. What has
/// placeholders is left as it is.
///
/// # Errors
/// What is wrong, for the document's author, or for who gave the values.
pub(crate) fn read(session_type: SessionType, properties: &Value) -> Result<Value, String> {
    read_in(session_type, properties, Stage::Written)
}

/// The same when the placeholders are filled: what looks like one is part of a value.
///
/// # Errors
/// As [`read`].
pub(crate) fn read_filled(session_type: SessionType, properties: &Value) -> Result<Value, String> {
    read_in(session_type, properties, Stage::Filled)
}

/// Whether placeholders may stand where checks are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Written,
    Filled,
}

impl Stage {
    /// Whether a text is not known before its placeholders are filled.
    fn is_open(self, text: &str) -> bool {
        self == Self::Written && placeholders(text).next().is_some()
    }
}

fn read_in(session_type: SessionType, properties: &Value, stage: Stage) -> Result<Value, String> {
    let members = match properties {
        Value::Null if session_type == SessionType::StandardStream => return Ok(Value::Null),
        Value::Null => return Err("properties is missing".to_owned()),
        Value::Object(members) => members,
        _ => return Err("properties must be an object".to_owned()),
    };
    match session_type {
        SessionType::StandardStream => shell(members, stage),
        SessionType::InteractiveCommands => commands(members, false, stage),
        SessionType::NonInteractiveCommands => commands(members, true, stage),
        SessionType::Port => port(members, stage),
    }
}

/// Shells take no commands: official agents refuse them.
fn shell(members: &Map<String, Value>, stage: Stage) -> Result<Value, String> {
    if members.is_empty() {
        return Ok(Value::Null);
    }
    let read = commands(members, false, stage)?;
    let no_command = |system: &Value| system.get("commands").is_none_or(|c| c == "");
    let plain = read.as_object().into_iter().flatten();
    match plain.into_iter().all(|(_, system)| no_command(system)) {
        true => Ok(read),
        false => Err("commands must be empty in a Standard_Stream document".to_owned()),
    }
}

fn commands(members: &Map<String, Value>, separable: bool, stage: Stage) -> Result<Value, String> {
    if let Some(unknown) = members.keys().find(|key| !SYSTEMS.contains(&key.as_str())) {
        return Err(format!("properties has no element {unknown}"));
    }
    if members.is_empty() {
        return Err("properties names no system: give linux, macos or windows".to_owned());
    }
    let system = |(name, system): (&String, &Value)| {
        let read =
            command(system, separable, stage).map_err(|why| format!("properties.{name}.{why}"))?;
        Ok((name.clone(), read))
    };
    let systems: Result<Map<String, Value>, String> = members.iter().map(system).collect();
    Ok(Value::Object(systems?))
}

fn command(system: &Value, separable: bool, stage: Stage) -> Result<Value, String> {
    let members = system.as_object().ok_or("commands is missing")?;
    let mut read = Map::new();
    for (name, member) in members {
        let value = match (name.as_str(), separable) {
            ("commands", _) => Value::from(text(member).ok_or("commands must be text")?),
            ("runAsElevated", _) | ("separateOutputStream", true) => flag(name, member, stage)?,
            ("stdOutSeparatorPrefix" | "stdErrSeparatorPrefix", true) => {
                let prefix =
                    text(member).filter(|prefix| stage.is_open(prefix) || is_prefix(prefix));
                Value::from(prefix.ok_or_else(|| format!("{name} is no prefix"))?)
            }
            _ => return Err(format!("{name} is not known")),
        };
        read.insert(name.clone(), value);
    }
    if !read.contains_key("commands") {
        return Err("commands is missing".to_owned());
    }
    Ok(Value::Object(read))
}

/// A text. Lines of commands may also come as a list.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(lines) => {
            let lines: Option<Vec<&str>> = lines.iter().map(Value::as_str).collect();
            lines.map(|lines| lines.join("\n"))
        }
        _ => None,
    }
}

fn flag(name: &str, value: &Value, stage: Stage) -> Result<Value, String> {
    match value {
        Value::Bool(_) => Ok(value.clone()),
        Value::String(text) if stage.is_open(text) => Ok(value.clone()),
        Value::String(text) if text.eq_ignore_ascii_case("true") => Ok(json!(true)),
        Value::String(text) if text.is_empty() || text.eq_ignore_ascii_case("false") => {
            Ok(json!(false))
        }
        _ => Err(format!("{name} must be true or false")),
    }
}

/// What may stand before a line of output.
fn is_prefix(prefix: &str) -> bool {
    prefix.len() <= 30
        && prefix
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"\r\n_:-".contains(&byte))
}

/// The kinds of tunnels, by their member `type`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tunnel {
    CopyFile,
    Forward,
    Reverse,
    Socks,
    Stream,
}

impl Tunnel {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "" => Self::Stream,
            "CopyFile" => Self::CopyFile,
            "LocalPortForwarding" => Self::Forward,
            "ReverseForwarding" => Self::Reverse,
            "SocksForwarding" => Self::Socks,
            _ => return None,
        })
    }

    fn members(self) -> &'static [&'static str] {
        match self {
            Self::CopyFile => &["type", "path", "direction"],
            Self::Forward => &[
                "type",
                "portNumber",
                "localPortNumber",
                "host",
                "socket",
                "localConnectionType",
                "localUnixSocket",
            ],
            Self::Reverse => &["type", "bindAddress", "portNumber", "socket"],
            Self::Socks => &["type", "localPortNumber"],
            Self::Stream => &["type", "portNumber", "host"],
        }
    }
}

/// The members of a tunnel, all text. An empty one is as good as none.
struct Members {
    texts: Map<String, Value>,
    stage: Stage,
}

impl Members {
    fn of(members: &Map<String, Value>, stage: Stage) -> Result<Self, String> {
        let member = |(name, value): (&String, &Value)| match value {
            Value::Null => Ok((name.clone(), Value::from(""))),
            Value::String(_) => Ok((name.clone(), value.clone())),
            Value::Number(number) => Ok((name.clone(), Value::from(number.to_string()))),
            _ => Err(format!("properties.{name} must be text")),
        };
        Ok(Self {
            texts: members.iter().map(member).collect::<Result<_, _>>()?,
            stage,
        })
    }

    fn get(&self, name: &str) -> &str {
        let value = self.texts.get(name).and_then(Value::as_str);
        value.unwrap_or_default()
    }

    fn is_open(&self, name: &str) -> bool {
        self.stage.is_open(self.get(name))
    }

    /// Puts a member into its one form, unless it is open.
    fn settle(
        &mut self,
        name: &str,
        form: impl FnOnce(&str) -> Result<String, InvalidDestination>,
    ) -> Result<(), String> {
        if !self.is_open(name) {
            let settled = form(self.get(name)).map_err(|why| format!("{name} {why}"))?;
            self.texts.insert(name.to_owned(), Value::from(settled));
        }
        Ok(())
    }
}

fn port(members: &Map<String, Value>, stage: Stage) -> Result<Value, String> {
    let mut members = Members::of(members, stage)?;
    if members.is_open("type") {
        return Err("properties.type must not be a parameter".to_owned());
    }
    let kind = members.get("type");
    let tunnel =
        Tunnel::named(kind).ok_or_else(|| format!("there is no type {kind} of properties"))?;
    let known = tunnel.members();
    if let Some(unknown) = members
        .texts
        .keys()
        .find(|key| !known.contains(&key.as_str()))
    {
        return Err(format!("properties has no element {unknown}"));
    }
    match tunnel {
        Tunnel::CopyFile => copy(&members)?,
        Tunnel::Forward => {
            one_destination(&mut members)?;
            local_port(&mut members)?;
        }
        Tunnel::Reverse => {
            members.settle("bindAddress", |address| Ok(bind_address(address)))?;
            let address = members.get("bindAddress");
            if !members.is_open("bindAddress") && !LOOPBACKS.contains(&address) {
                return Err("bindAddress must be a loopback address".to_owned());
            }
            one_destination(&mut members)?;
        }
        Tunnel::Socks => local_port(&mut members)?,
        Tunnel::Stream => one_destination(&mut members)?,
    }
    Ok(Value::Object(members.texts))
}

fn bind_address(address: &str) -> String {
    match address {
        "" => LOCALHOST.to_owned(),
        address => address.to_ascii_lowercase(),
    }
}

/// A port, of the node or of the host that is named, or a socket on the node.
fn one_destination(members: &mut Members) -> Result<(), String> {
    let (port, socket) = (members.get("portNumber"), members.get("socket"));
    match (port.is_empty(), socket.is_empty()) {
        (true, true) => return Err("portNumber is missing".to_owned()),
        (false, false) if !members.is_open("portNumber") && !members.is_open("socket") => {
            return Err("portNumber and socket do not go together".to_owned());
        }
        _ => {}
    }
    if !socket.is_empty() {
        if !members.get("host").is_empty() && !members.is_open("host") {
            return Err("host and socket do not go together".to_owned());
        }
        members.settle("socket", |path| {
            destination::socket(path).map(ToOwned::to_owned)
        })?;
    }
    if !members.get("portNumber").is_empty() {
        members.settle("portNumber", |port| {
            destination::port(port).map(|port| port.to_string())
        })?;
    }
    if !members.get("host").is_empty() {
        members.settle("host", destination::host)?;
    }
    Ok(())
}

/// Where the client listens; 0 for any free port.
fn local_port(members: &mut Members) -> Result<(), String> {
    match members.get("localPortNumber") {
        "" | "0" => Ok(()),
        _ => members.settle("localPortNumber", |port| {
            destination::port(port).map(|port| port.to_string())
        }),
    }
}

fn copy(members: &Members) -> Result<(), String> {
    let path = members.get("path");
    let fits = !path.is_empty() && path.len() <= LONGEST_PATH && !path.contains('\0');
    if !fits {
        return Err(format!("path must have 1 to {LONGEST_PATH} bytes"));
    }
    let direction = members.get("direction");
    match members.is_open("direction") || ["download", "upload"].contains(&direction) {
        true => Ok(()),
        false => Err("direction must be download or upload".to_owned()),
    }
}

/// The condition keys of a start of this document: where the tunnel leads. `properties` are in their
/// one form.
pub(crate) fn condition_keys(session_type: SessionType, properties: &Value) -> Vec<(&str, String)> {
    let member = |name: &str| {
        let text = properties.get(name).and_then(Value::as_str);
        text.filter(|text| !text.is_empty()).map(ToOwned::to_owned)
    };
    let kind = member("type").unwrap_or_default();
    let tunnel = match (session_type, Tunnel::named(&kind)) {
        (SessionType::Port, Some(tunnel)) => tunnel,
        _ => return Vec::new(),
    };
    let port = member("portNumber").map(|port| ("sortie:DestinationPort", port));
    let socket = member("socket").map(|socket| ("sortie:DestinationSocket", socket));
    let first = match tunnel {
        Tunnel::CopyFile | Tunnel::Socks => return Vec::new(),
        Tunnel::Forward | Tunnel::Stream if socket.is_some() => None,
        Tunnel::Forward | Tunnel::Stream => {
            let host = member("host").unwrap_or_else(|| LOCALHOST.to_owned());
            Some(("sortie:DestinationHost", host))
        }
        Tunnel::Reverse => member("bindAddress").map(|address| ("sortie:BindAddress", address)),
    };
    first.into_iter().chain(port).chain(socket).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    use SessionType::{InteractiveCommands, NonInteractiveCommands, Port, StandardStream};

    #[test]
    fn commands_are_text_and_flags_are_flags() {
        let read = |properties| read(NonInteractiveCommands, &properties);
        let settled = read(json!({
            "linux": {"commands": ["a", "b"], "runAsElevated": "True",
                      "separateOutputStream": "{{ x }}", "stdErrSeparatorPrefix": "ERR:"},
            "windows": {"commands": "dir", "runAsElevated": ""},
        }));
        assert_eq!(
            settled.unwrap(),
            json!({
                "linux": {"commands": "a\nb", "runAsElevated": true,
                          "separateOutputStream": "{{ x }}", "stdErrSeparatorPrefix": "ERR:"},
                "windows": {"commands": "dir", "runAsElevated": false},
            })
        );
        for wrong in [
            json!(null),
            json!([]),
            json!({}),
            json!({"linux": "ls"}),
            json!({"linux": {}}),
            json!({"linux": {"commands": 1}}),
            json!({"linux": {"commands": [1]}}),
            json!({"linux": {"commands": "a", "runAsElevated": "yes"}}),
            json!({"linux": {"commands": "a", "user": "x"}}),
            json!({"linux": {"commands": "a", "stdOutSeparatorPrefix": "a b"}}),
            json!({"linux": {"commands": "a", "stdOutSeparatorPrefix": "a".repeat(31)}}),
            json!({"solaris": {"commands": "a"}}),
        ] {
            assert!(read(wrong.clone()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_what_a_type_knows_is_in_it() {
        let separate = json!({"linux": {"commands": "a", "separateOutputStream": true}});
        assert!(read(NonInteractiveCommands, &separate).is_ok());
        assert!(read(InteractiveCommands, &separate).is_err());
        assert_eq!(read(StandardStream, &json!(null)), Ok(Value::Null));
        assert_eq!(read(StandardStream, &json!({})), Ok(Value::Null));
        let empty = json!({"linux": {"commands": "", "runAsElevated": true}});
        assert_eq!(read(StandardStream, &empty), Ok(empty.clone()));
        let command = json!({"linux": {"commands": "id"}});
        assert!(read(StandardStream, &command).is_err());
        assert!(read(Port, &command).is_err());
    }

    fn keys(properties: &Value) -> Vec<(String, String)> {
        let read = read(Port, properties).unwrap();
        let keys = condition_keys(Port, &read).into_iter();
        keys.map(|(key, value)| (key.replace("sortie:", ""), value))
            .collect()
    }

    #[test]
    fn conditions_see_where_a_tunnel_leads() {
        let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            let pair = |(key, value): &(&str, &str)| ((*key).into(), (*value).into());
            pairs.iter().map(pair).collect()
        };
        for (properties, expected) in [
            (
                json!({"portNumber": "022"}),
                pairs(&[("DestinationHost", "localhost"), ("DestinationPort", "22")]),
            ),
            (
                json!({"type": "LocalPortForwarding", "portNumber": 80, "localPortNumber": "0"}),
                pairs(&[("DestinationHost", "localhost"), ("DestinationPort", "80")]),
            ),
            (
                json!({"type": "LocalPortForwarding", "portNumber": "80", "host": "DB.x."}),
                pairs(&[("DestinationHost", "db.x"), ("DestinationPort", "80")]),
            ),
            (
                json!({"type": "LocalPortForwarding", "socket": "/run/x", "portNumber": ""}),
                pairs(&[("DestinationSocket", "/run/x")]),
            ),
            (
                json!({"type": "ReverseForwarding", "portNumber": "80"}),
                pairs(&[("BindAddress", "localhost"), ("DestinationPort", "80")]),
            ),
            (
                json!({"type": "ReverseForwarding", "bindAddress": "::1", "socket": "/run/x"}),
                pairs(&[("BindAddress", "::1"), ("DestinationSocket", "/run/x")]),
            ),
            (json!({"type": "SocksForwarding"}), pairs(&[])),
            (
                json!({"type": "CopyFile", "path": "a b", "direction": "upload"}),
                pairs(&[]),
            ),
        ] {
            assert_eq!(keys(&properties), expected, "{properties}");
        }
    }

    #[test]
    fn tunnels_that_lead_nowhere_are_refused() {
        for wrong in [
            json!({}),
            json!({"portNumber": ""}),
            json!({"portNumber": "0"}),
            json!({"portNumber": "ssh"}),
            json!({"portNumber": true}),
            json!({"portNumber": "22", "host": "127.1"}),
            json!({"portNumber": "22", "path": "x"}),
            json!({"portNumber": "22", "type": "RemotePortForwarding"}),
            json!({"portNumber": "22", "type": "{{ type }}"}),
            json!({"portNumber": "22", "socket": "/x", "type": "LocalPortForwarding"}),
            json!({"host": "a", "socket": "/x", "type": "LocalPortForwarding"}),
            json!({"socket": "x", "type": "LocalPortForwarding"}),
            json!({"portNumber": "22", "localPortNumber": "70000", "type": "LocalPortForwarding"}),
            json!({"portNumber": "22", "bindAddress": "0.0.0.0", "type": "ReverseForwarding"}),
            json!({"bindAddress": "localhost", "type": "ReverseForwarding"}),
            json!({"portNumber": "22", "type": "SocksForwarding"}),
            json!({"type": "CopyFile", "direction": "upload"}),
            json!({"type": "CopyFile", "path": "x", "direction": "sideways"}),
            json!({"type": "CopyFile", "path": "x\u{0}", "direction": "upload"}),
        ] {
            assert!(read(Port, &wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn open_members_wait_for_their_values_and_no_longer() {
        let open = json!({
            "type": "LocalPortForwarding", "portNumber": "{{ p }}", "host": "{{ h }}.internal",
            "localPortNumber": "{{ l }}", "socket": "{{ s }}",
        });
        assert_eq!(read(Port, &open), Ok(open.clone()));
        assert!(read_filled(Port, &open).is_err());
    }
}
