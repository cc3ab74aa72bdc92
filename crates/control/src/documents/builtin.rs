//! The documents that every installation has: AWS's by their names, and ours for what AWS has none.
//! They cannot be changed, and their ARNs have no account.

use std::sync::LazyLock;

use serde_json::{Value, json};
use sortie_types::Timestamp;

use super::{
    parse::{Format, write},
    schema::SessionDocument,
};

/// A port, 0 too: where it is dialled, 0 is refused later, and where it is listened on it means any.
const PORT: &str = "^([0-9]|[1-9][0-9]{1,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])$";
/// A host name or an address: nothing that a shell would take for more than a word.
const HOST: &str = r"^[A-Za-z0-9_:\[][A-Za-z0-9_.:\]-]{0,252}$";
/// An absolute path of a socket.
const SOCKET: &str = r"^/[A-Za-z0-9_./@:+,=-]{1,106}$";

/// A document that every installation has.
#[derive(Clone, Debug)]
pub(crate) struct BuiltIn {
    pub(crate) name: &'static str,
    /// As its owner is named.
    pub(crate) owner: &'static str,
    /// JSON.
    pub(crate) content: String,
    pub(crate) document: SessionDocument,
}

/// All of them, in order of names.
pub(crate) static BUILT_IN: LazyLock<Vec<BuiltIn>> = LazyLock::new(|| {
    contents()
        .into_iter()
        .filter_map(|(name, content)| {
            Some(BuiltIn {
                name,
                owner: owner(name)?,
                content: write(&content, Format::Json).ok()?,
                document: SessionDocument::read(&content).ok()?,
            })
        })
        .collect()
});

/// The prefixes of their names, in lower case, which nobody else may use, and those of AWS's others.
pub(crate) const RESERVED_PREFIXES: [&str; 4] = ["amazon", "amzn", "aws", "sortie-"];

/// When they were made, as listings show it.
pub(crate) const CREATED: Timestamp = Timestamp::from_millis(1_767_225_600_000);

/// The built-in document of this name.
pub(crate) fn built_in(name: &str) -> Option<&'static BuiltIn> {
    BUILT_IN.iter().find(|document| document.name == name)
}

/// The owner of the documents with a name like this, where it is not the account.
pub(crate) fn owner(name: &str) -> Option<&'static str> {
    if name.starts_with("AWS") || name.starts_with("Amazon") {
        Some("Amazon")
    } else if name.starts_with("Sortie-") {
        Some("Sortie")
    } else {
        None
    }
}

fn contents() -> [(&'static str, Value); 9] {
    [
        ("AWS-StartInteractiveCommand", interactive_command()),
        ("AWS-StartNonInteractiveCommand", non_interactive_command()),
        ("AWS-StartPortForwardingSession", port_forwarding()),
        (
            "AWS-StartPortForwardingSessionToRemoteHost",
            port_forwarding_to_remote_host(),
        ),
        (
            "AWS-StartPortForwardingSessionToSocket",
            port_forwarding_to_socket(),
        ),
        ("AWS-StartSSHSession", ssh()),
        ("Sortie-CopyFile", copy_file()),
        ("Sortie-StartReverseForwardingSession", reverse_forwarding()),
        ("Sortie-StartSocksSession", socks()),
    ]
}

fn document(session_type: &str, about: &str, parameters: Value, properties: Value) -> Value {
    json!({
        "schemaVersion": "1.0",
        "description": about,
        "sessionType": session_type,
        "parameters": parameters,
        "properties": properties,
    })
}

fn parameter(about: &str, pattern: &str) -> Value {
    json!({"type": "String", "description": about, "allowedPattern": pattern})
}

fn with_default(mut parameter: Value, default: &str) -> Value {
    if let Some(members) = parameter.as_object_mut() {
        members.insert("default".to_owned(), Value::from(default));
    }
    parameter
}

fn local_port() -> Value {
    let about = "The port to listen on where the client runs; 0 for any free port";
    with_default(parameter(about, PORT), "0")
}

/// The same command on every system.
fn on_every_system(command: &Value) -> Value {
    json!({"windows": command, "linux": command, "macos": command})
}

fn interactive_command() -> Value {
    document(
        "InteractiveCommands",
        "Runs one command with a terminal",
        json!({"command": {"type": "String", "description": "The command to run on the node"}}),
        on_every_system(&json!({"commands": "{{ command }}", "runAsElevated": false})),
    )
}

fn non_interactive_command() -> Value {
    let separate = json!({
        "type": "String",
        "description": "Whether standard error comes apart from standard output",
        "default": "false",
        "allowedValues": ["true", "false", "True", "False"],
    });
    document(
        "NonInteractiveCommands",
        "Runs one command without a terminal",
        json!({
            "command": {"type": "String", "description": "The command to run on the node"},
            "separateOutputStream": separate,
        }),
        on_every_system(&json!({
            "commands": "{{ command }}",
            "runAsElevated": false,
            "separateOutputStream": "{{ separateOutputStream }}",
        })),
    )
}

fn port_forwarding() -> Value {
    document(
        "Port",
        "Forwards a local port to a port of the node",
        json!({
            "portNumber": with_default(parameter("The port on the node", PORT), "80"),
            "localPortNumber": local_port(),
        }),
        json!({
            "portNumber": "{{ portNumber }}",
            "type": "LocalPortForwarding",
            "localPortNumber": "{{ localPortNumber }}",
        }),
    )
}

fn port_forwarding_to_remote_host() -> Value {
    document(
        "Port",
        "Forwards a local port to a port of a host that the node reaches",
        json!({
            "portNumber": with_default(parameter("The port of the host", PORT), "80"),
            "localPortNumber": local_port(),
            "host": parameter("The host, by name or address", HOST),
        }),
        json!({
            "portNumber": "{{ portNumber }}",
            "type": "LocalPortForwarding",
            "localPortNumber": "{{ localPortNumber }}",
            "host": "{{ host }}",
        }),
    )
}

fn port_forwarding_to_socket() -> Value {
    document(
        "Port",
        "Forwards a local port to a unix socket on the node",
        json!({
            "socket": parameter("The path of the socket on the node", SOCKET),
            "localPortNumber": local_port(),
        }),
        json!({
            "socket": "{{ socket }}",
            "type": "LocalPortForwarding",
            "localPortNumber": "{{ localPortNumber }}",
        }),
    )
}

fn ssh() -> Value {
    document(
        "Port",
        "Carries one connection to the SSH server of the node",
        json!({
            "portNumber": with_default(parameter("The port of the SSH server", PORT), "22"),
        }),
        json!({"portNumber": "{{ portNumber }}"}),
    )
}

fn copy_file() -> Value {
    document(
        "Port",
        "Copies files to or from the node",
        json!({
            "path": {"type": "String", "description": "The path on the node", "minChars": 1},
            "direction": {
                "type": "String",
                "description": "upload to the node, download from it",
                "allowedValues": ["upload", "download"],
            },
        }),
        json!({"type": "CopyFile", "path": "{{ path }}", "direction": "{{ direction }}"}),
    )
}

fn reverse_forwarding() -> Value {
    let or_nothing = |pattern: &str| format!("^$|{pattern}");
    let bind = parameter(
        "The loopback address to listen on",
        r"^(localhost|127\.0\.0\.1|::1)$",
    );
    let port = parameter("The port to listen on", &or_nothing(PORT));
    let socket = parameter("The socket to listen on", &or_nothing(SOCKET));
    document(
        "Port",
        "Listens on the node and carries connections to the client",
        json!({
            "bindAddress": with_default(bind, "localhost"),
            "portNumber": with_default(port, ""),
            "socket": with_default(socket, ""),
        }),
        json!({
            "type": "ReverseForwarding",
            "bindAddress": "{{ bindAddress }}",
            "portNumber": "{{ portNumber }}",
            "socket": "{{ socket }}",
        }),
    )
}

fn socks() -> Value {
    document(
        "Port",
        "Carries connections to destinations that the client chooses, each of which is authorised",
        json!({}),
        json!({"type": "SocksForwarding"}),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_them_are_valid_and_in_order() {
        let names: Vec<&str> = BUILT_IN.iter().map(|document| document.name).collect();
        assert_eq!(names, contents().map(|(name, _)| name));
        assert!(names.is_sorted());
        for name in names {
            let lower = name.to_ascii_lowercase();
            let mut reserved = RESERVED_PREFIXES.iter();
            assert!(reserved.any(|prefix| lower.starts_with(prefix)), "{name}");
        }
    }
}
