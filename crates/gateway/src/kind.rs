//! What of a session's document matters to the gateway. Pure.

use serde_json::Value;
use sortie_channel::frame::{Frame, PayloadType};
use sortie_control::Side;

/// A multiplexer's bare keep-alive: version 1, command 3, no data, stream 0.
const MUX_KEEP_ALIVE: [u8; 8] = [1, 3, 0, 0, 0, 0, 0, 0];

/// The traits of a kind of session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SessionKind {
    /// A person types: only input and terminal size keep the session alive. Otherwise all data does.
    pub(crate) interactive: bool,
    /// A forwarded port: an official client takes no data before its first local connection.
    pub(crate) port: bool,
    /// A forwarded port, multiplexed by official clients.
    pub(crate) mux: bool,
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
        Self {
            interactive: matches!(session_type, "Standard_Stream" | "InteractiveCommands"),
            port: session_type == "Port",
            mux: session_type == "Port" && port_type == Some("LocalPortForwarding"),
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
            !(frame.payload_type() == PayloadType::OUTPUT && frame.payload()[..] == MUX_KEEP_ALIVE)
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
}
