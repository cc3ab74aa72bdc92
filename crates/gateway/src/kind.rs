//! What of a session's document matters to the gateway. Pure.

use serde_json::Value;
use sortie_channel::{
    frame::{Frame, PayloadType},
    streams::payload,
};
use sortie_control::Side;

/// A multiplexer's bare keep-alive: version 1, command 3, no data, stream 0.
const MUX_KEEP_ALIVE: [u8; 8] = [1, 3, 0, 0, 0, 0, 0, 0];

/// The kind of port session whose client chooses the destination of each stream.
const SOCKS: &str = "SocksForwarding";
/// The kinds of port session that official ends do not know.
const OURS: [&str; 3] = [SOCKS, "ReverseForwarding", "CopyFile"];

/// The traits of a kind of session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SessionKind {
    /// A person types: only input and terminal size keep the session alive. Otherwise all data does.
    pub(crate) interactive: bool,
    /// A forwarded port: an official client takes no data before its first local connection.
    pub(crate) port: bool,
    /// A forwarded port, multiplexed by official clients.
    pub(crate) mux: bool,
    /// The client chooses the destination of each stream.
    pub(crate) chooses: bool,
    /// Only two ends of ours can do it.
    pub(crate) needs_streams: bool,
    /// An official agent survives being paused. It does not while it sends separated output.
    pub(crate) pausable: bool,
}

impl SessionKind {
    /// Reads the resolved document.
    pub(crate) fn of(document: &Value) -> Self {
        let session_type = document
            .get("sessionType")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let properties = document.get("properties").unwrap_or(&Value::Null);
        let port_type = properties.get("type").and_then(Value::as_str);
        let port = session_type == "Port";
        let to_socket = properties.get("socket").and_then(Value::as_str);
        let is_ours = port_type.is_some_and(|name| OURS.contains(&name))
            || to_socket.is_some_and(|path| !path.is_empty());
        Self {
            interactive: matches!(session_type, "Standard_Stream" | "InteractiveCommands"),
            port,
            mux: port && port_type == Some("LocalPortForwarding"),
            chooses: port && port_type == Some(SOCKS),
            needs_streams: port && is_ours,
            pausable: session_type != "NonInteractiveCommands" || !separates_output(properties),
        }
    }

    /// Whether a new stream frame shows that the session is in use.
    pub(crate) fn is_activity(self, from: Side, frame: &Frame) -> bool {
        if self.interactive {
            from == Side::Client
                && matches!(
                    frame.payload_type(),
                    PayloadType::OUTPUT | PayloadType::SIZE
                )
        } else {
            match frame.payload_type() {
                PayloadType::OUTPUT => frame.payload()[..] != MUX_KEEP_ALIVE,
                // It answers data, and could be sent without any.
                payload::CREDIT => false,
                // A stream id without a byte behind it.
                payload::DATA => frame.payload().len() > 4,
                _ => true,
            }
        }
    }
}

/// Whether the command's output is separated on any platform: which one the node has is not known
/// here, and pausing where one must not ends the session. So is a value that only the node can
/// resolve taken for yes.
fn separates_output(properties: &Value) -> bool {
    let platforms = properties
        .as_object()
        .into_iter()
        .flat_map(|members| members.values());
    let mut values = platforms.filter_map(|platform| platform.get("separateOutputStream"));
    values.any(|value| match value {
        Value::Bool(separate) => *separate,
        Value::String(text) => {
            !matches!(text.to_ascii_lowercase().as_str(), "" | "false" | "f" | "0")
        }
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use sortie_channel::frame::MessageType;

    use super::*;
    use crate::pairing::testing::frame;

    #[test]
    fn documents_tell_the_kind() {
        let kind = |document: Value| {
            let kind = SessionKind::of(&document);
            (kind.interactive, kind.mux, kind.pausable)
        };
        let command = |separate: Value| {
            json!({"sessionType": "NonInteractiveCommands",
                "properties": {"linux": {"commands": "ls", "separateOutputStream": separate}}})
        };
        let port = |kind: &str| json!({"sessionType": "Port", "properties": {"type": kind}});
        assert_eq!(
            kind(json!({"sessionType": "Standard_Stream"})),
            (true, false, true)
        );
        assert_eq!(
            kind(json!({"sessionType": "InteractiveCommands"})),
            (true, false, true)
        );
        assert_eq!(kind(port("LocalPortForwarding")), (false, true, true));
        assert_eq!(kind(port("")), (false, false, true));
        assert_eq!(kind(command(json!(false))), (false, false, true));
        assert_eq!(kind(command(json!("False"))), (false, false, true));
        assert_eq!(kind(command(json!(true))), (false, false, false));
        assert_eq!(
            kind(command(json!("{{ separate }}"))),
            (false, false, false)
        );
        assert_eq!(kind(Value::Null), (false, false, true));
    }

    #[test]
    fn input_keeps_a_shell_alive_and_any_data_a_port_but_for_keep_alives() {
        let shell = SessionKind::of(&json!({"sessionType": "Standard_Stream"}));
        let port = SessionKind::of(&json!({"sessionType": "Port"}));
        let input = |payload_type, payload: &[u8]| {
            frame(MessageType::InputStreamData, 0, payload_type, payload)
        };
        let output = frame(
            MessageType::OutputStreamData,
            0,
            PayloadType::OUTPUT,
            b"tick",
        );
        assert!(shell.is_activity(Side::Client, &input(PayloadType::OUTPUT, b"l")));
        assert!(shell.is_activity(Side::Client, &input(PayloadType::SIZE, b"{}")));
        assert!(!shell.is_activity(Side::Client, &input(PayloadType::HANDSHAKE_RESPONSE, b"{}")));
        assert!(!shell.is_activity(Side::Node, &output));
        assert!(port.is_activity(Side::Node, &output));
        assert!(!port.is_activity(Side::Client, &input(PayloadType::OUTPUT, &MUX_KEEP_ALIVE)));
    }

    #[test]
    fn credit_and_data_without_data_keep_no_port_alive() {
        let port = SessionKind::of(&json!({"sessionType": "Port"}));
        let is_activity = |payload_type, payload: &[u8]| {
            let frame = frame(MessageType::InputStreamData, 0, payload_type, payload);
            port.is_activity(Side::Client, &frame)
        };
        let id = [0, 0, 0, 1];
        assert!(!is_activity(payload::CREDIT, &[0, 0, 0, 1, 0, 0, 0, 9]));
        assert!(!is_activity(payload::DATA, &id));
        assert!(is_activity(payload::DATA, &[0, 0, 0, 1, b'x']));
        assert!(is_activity(payload::OPEN, &id));
        assert!(is_activity(payload::FIN, &id));
        assert!(is_activity(payload::RESET, &id));
    }

    #[test]
    fn commands_are_kept_alive_by_input_output_and_signals() {
        let command = SessionKind::of(&json!({"sessionType": "NonInteractiveCommands"}));
        let is_activity = |from, payload_type| {
            let frame = frame(MessageType::InputStreamData, 0, payload_type, b"x");
            command.is_activity(from, &frame)
        };
        assert!(is_activity(Side::Node, PayloadType::OUTPUT));
        assert!(is_activity(Side::Node, PayloadType::STDERR));
        assert!(is_activity(Side::Client, PayloadType::OUTPUT));
        assert!(is_activity(Side::Client, PayloadType(0x5312)));
    }

    #[test]
    fn what_official_ends_do_not_know_is_told() {
        let kind = |properties: Value| {
            let kind = SessionKind::of(&json!({"sessionType": "Port", "properties": properties}));
            (kind.needs_streams, kind.chooses)
        };
        let local = "LocalPortForwarding";
        assert_eq!(kind(json!({"portNumber": "22"})), (false, false));
        assert_eq!(
            kind(json!({"type": local, "portNumber": "22"})),
            (false, false)
        );
        assert_eq!(kind(json!({"type": local, "socket": ""})), (false, false));
        assert_eq!(
            kind(json!({"type": local, "socket": "/run/a"})),
            (true, false)
        );
        assert_eq!(kind(json!({"type": "SocksForwarding"})), (true, true));
        assert_eq!(kind(json!({"type": "ReverseForwarding"})), (true, false));
        assert_eq!(kind(json!({"type": "CopyFile"})), (true, false));
    }
}
