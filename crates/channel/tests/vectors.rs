//! The codec against frames and verdicts of the official programs: every frame both ways, the
//! serialisers' refusals, every malformed input, the version gates, and the bodies as they are written.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test says what is wrong by failing"
)]

use bytes::Bytes;
use serde_json::Value;
use sortie_channel::{
    body::{
        Acknowledge, AgentSessionState, AgentTaskAcknowledge, AgentTaskComplete, Body,
        ChannelClosed, HandshakeComplete, HandshakeRequest, HandshakeResponse, InteractiveShell,
        Size, StartContent,
    },
    frame::{EncodeError, Frame, FrameError, MessageType, NewFrame, PayloadType},
    version::{agent_gates, client_gates},
};
use sortie_types::Timestamp;
use uuid::Uuid;

fn vectors() -> Value {
    serde_json::from_str(include_str!("vectors/agent-message.json")).unwrap()
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sha256(bytes: &[u8]) -> String {
    to_hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref())
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name]
        .as_str()
        .unwrap_or_else(|| panic!("{name} in {value}"))
}

fn number<T: std::str::FromStr>(value: &Value, name: &str) -> T
where
    T::Err: std::fmt::Debug,
{
    text(value, name).parse().unwrap()
}

fn payload(fields: &Value) -> Vec<u8> {
    match fields["payload_hex"].as_str() {
        Some(payload) => hex(payload),
        None => {
            let length = fields["payload_length"].as_u64().unwrap();
            (0..length)
                .map(|index| u8::try_from(index % 251).unwrap())
                .collect()
        }
    }
}

#[test]
fn every_frame_is_encoded_and_parsed_as_the_official_programs_do() {
    let vectors = vectors();
    let frames = vectors["frames"].as_array().unwrap();
    assert_eq!(frames.len(), 63);
    for vector in frames {
        let (name, fields) = (text(vector, "name"), &vector["fields"]);
        let payload = payload(fields);
        let created: u64 = number(fields, "created_date_ms");
        let new = NewFrame {
            message_type: MessageType::from(text(fields, "message_type")),
            sequence_number: number(fields, "sequence_number"),
            flags: number(fields, "flags"),
            message_id: text(fields, "message_id").parse().unwrap(),
            payload_type: PayloadType(fields["payload_type"].as_u64().unwrap().try_into().unwrap()),
            payload: &payload,
            created: Timestamp::from_millis(created.cast_signed()),
            digest: true,
        };
        if name == "message_type_empty" {
            // Official validation refuses it, so we neither write nor read it.
            assert_eq!(new.encode(), Err(EncodeError::MessageType(0)));
            let bytes = Bytes::from(hex(text(vector, "hex")));
            assert_eq!(Frame::parse(bytes), Err(FrameError::MessageType));
            continue;
        }
        let schema_version = u32::try_from(fields["schema_version"].as_u64().unwrap()).unwrap();
        let mut bytes = new.encode().unwrap().to_vec();
        bytes[36..40].copy_from_slice(&schema_version.to_be_bytes());
        assert_eq!(
            bytes.len() as u64,
            vector["frame_length"].as_u64().unwrap(),
            "{name}"
        );
        assert_eq!(sha256(&bytes), text(vector, "frame_sha256"), "{name}");
        if let Some(expected) = vector["hex"].as_str() {
            assert_eq!(to_hex(&bytes), expected, "{name}");
        }

        let frame = Frame::parse(Bytes::from(bytes.clone())).unwrap();
        assert_eq!(frame.message_type(), &new.message_type, "{name}");
        assert_eq!(frame.schema_version(), schema_version, "{name}");
        assert_eq!(frame.created_date_ms(), created, "{name}");
        assert_eq!(frame.sequence_number(), new.sequence_number, "{name}");
        assert_eq!(frame.flags(), new.flags, "{name}");
        assert_eq!(frame.message_id(), new.message_id, "{name}");
        assert_eq!(frame.payload_type(), new.payload_type, "{name}");
        assert_eq!(frame.payload(), payload, "{name}");
        assert!(
            frame.digest_matches() && frame.digest_passes_client(),
            "{name}"
        );
        assert_eq!(frame.into_bytes(), bytes, "{name}");
    }
}

#[test]
fn what_official_serialisers_refuse_is_refused() {
    let vectors = vectors();
    let refusals: Vec<_> = vectors["serializer_refusals"]["agent"]
        .as_array()
        .unwrap()
        .iter()
        .map(|refusal| text(refusal, "name").to_owned())
        .collect();
    // A missing UUID cannot be expressed here.
    assert_eq!(
        refusals,
        ["empty_payload", "message_type_33_chars", "nil_uuid"]
    );
    let new = NewFrame {
        message_type: MessageType::OutputStreamData,
        sequence_number: 0,
        flags: 0,
        message_id: Uuid::nil(),
        payload_type: PayloadType::OUTPUT,
        payload: b"x",
        created: Timestamp::from_millis(1),
        digest: true,
    };
    assert_eq!(
        NewFrame {
            payload: b"",
            ..new.clone()
        }
        .encode(),
        Err(EncodeError::EmptyPayload)
    );
    let message_type = MessageType::from("a".repeat(33).as_str());
    assert_eq!(
        NewFrame {
            message_type,
            ..new
        }
        .encode(),
        Err(EncodeError::MessageType(33))
    );
}

/// Accepted by one official parser or both, and yet refused here: no peer emits these, and a payload
/// that starts elsewhere than behind the header would be judged differently by each side.
const STRICTER: [&str; 5] = [
    "header_length_115",
    "header_length_120",
    "header_length_exact_end",
    "header_length_max",
    "header_length_wraps_to_116_plus",
];

#[test]
fn every_malformed_input_is_refused_or_understood_as_the_official_programs_do() {
    let vectors = vectors();
    let malformed = vectors["malformed"].as_array().unwrap();
    assert_eq!(malformed.len(), 52);
    let mut stricter = Vec::new();
    for vector in malformed {
        let name = text(vector, "name");
        let parsed = Frame::parse(Bytes::from(hex(text(vector, "hex"))));
        let (client, agent) = (&vector["client"], &vector["agent"]);
        let verdict = |side: &Value| {
            let step = |step: &str| side[step].as_str().map(str::to_owned);
            match step("deserialize").as_deref() {
                Some("ok") => step("validate").unwrap(),
                other => other.unwrap().to_owned(),
            }
        };
        let (by_client, by_agent) = (verdict(client), verdict(agent));
        if by_client == "panic" || by_agent == "panic" {
            assert!(parsed.is_err(), "{name}");
            continue;
        }
        if by_client != "ok" && by_agent != "ok" {
            assert!(parsed.is_err(), "{name}");
            continue;
        }
        let Ok(frame) = parsed else {
            stricter.push(name);
            continue;
        };
        assert_is(&frame, &client["parsed"], name);
        assert_eq!(by_client == "ok", client_accepts(&frame), "{name}");
    }
    stricter.sort_unstable();
    assert_eq!(stricter, STRICTER);
}

fn client_accepts(frame: &Frame) -> bool {
    frame.message_type().is_publication() || frame.digest_passes_client()
}

fn assert_is(frame: &Frame, parsed: &Value, name: &str) {
    assert_eq!(
        frame.message_type().as_str(),
        text(parsed, "message_type"),
        "{name}"
    );
    assert_eq!(
        frame.created_date_ms(),
        number::<u64>(parsed, "created_date_ms"),
        "{name}"
    );
    assert_eq!(
        frame.sequence_number(),
        number::<i64>(parsed, "sequence_number"),
        "{name}"
    );
    assert_eq!(frame.flags(), number::<u64>(parsed, "flags"), "{name}");
    assert_eq!(
        frame.message_id().to_string(),
        text(parsed, "message_id"),
        "{name}"
    );
    assert_eq!(
        frame.payload_type().0,
        number::<u32>(parsed, "payload_type"),
        "{name}"
    );
    assert_eq!(
        frame.schema_version(),
        number::<u32>(parsed, "schema_version"),
        "{name}"
    );
    assert_eq!(
        frame.payload_length_field(),
        number::<u32>(parsed, "payload_length_field"),
        "{name}"
    );
    if text(parsed, "header_length") == "116" {
        assert_eq!(
            sha256(&frame.payload()),
            text(parsed, "payload_sha256"),
            "{name}"
        );
    }
}

/// An npm client pads the type with NULs on the left and puts half of a hex digest, as text, into the
/// digest field. A node has to serve it.
#[test]
fn a_type_padded_on_the_left_and_a_textual_digest_are_no_obstacle() {
    let new = NewFrame {
        message_type: MessageType::InputStreamData,
        sequence_number: 0,
        flags: 0,
        message_id: Uuid::from_u128(1),
        payload_type: PayloadType::SIZE,
        payload: br#"{"cols":80,"rows":24}"#,
        created: Timestamp::from_millis(1),
        digest: true,
    };
    let mut bytes = new.encode().unwrap().to_vec();
    bytes[4..36].fill(0);
    bytes[36 - "input_stream_data".len()..36].copy_from_slice(b"input_stream_data");
    bytes[80..112].copy_from_slice(b"5f78c33274e43fa9de5659265c1d917e");
    let frame = Frame::parse(Bytes::from(bytes)).unwrap();
    assert_eq!(frame.message_type(), &MessageType::InputStreamData);
    assert!(!frame.digest_matches());
    assert_eq!(Size::parse(&frame.payload()).unwrap().cols, 80);
}

#[test]
fn parsing_does_not_copy_the_payload() {
    let bytes = Bytes::from(hex(text(&vectors()["frames"][0], "hex")));
    let payload = Frame::parse(bytes.clone()).unwrap().payload();
    assert_eq!(payload.as_ptr(), bytes[120..].as_ptr());
}

#[test]
fn versions_are_judged_as_each_official_side_does() {
    let vectors = vectors();
    let gates = &vectors["version_gates"];
    let flag = |case: &Value, name: &str| case[name].as_bool().unwrap();
    for case in gates["client_decides_from_agent_version"]
        .as_array()
        .unwrap()
    {
        let gates = client_gates(text(case, "agent_version"));
        assert_eq!(gates.terminate_flag, flag(case, "terminate_flag"), "{case}");
        assert_eq!(gates.mux, flag(case, "mux"), "{case}");
        assert_eq!(
            gates.smux_keepalive_disabled,
            flag(case, "smux_keepalive_disabled"),
            "{case}"
        );
    }
    for case in gates["agent_decides_from_client_version"]
        .as_array()
        .unwrap()
    {
        let gates = agent_gates(text(case, "client_version"));
        assert_eq!(gates.mux, flag(case, "mux"), "{case}");
        assert_eq!(
            gates.smux_keepalive_disabled,
            flag(case, "smux_keepalive_disabled"),
            "{case}"
        );
        assert_eq!(
            gates.separate_output_upgrade_message,
            flag(case, "separate_output_upgrade_message"),
            "{case}"
        );
    }
}

#[test]
fn the_versions_we_show_are_above_every_gate() {
    use sortie_channel::handshake::{AGENT_VERSION, CLIENT_VERSION};
    let client = client_gates(AGENT_VERSION);
    assert!(client.terminate_flag && client.mux && client.smux_keepalive_disabled);
    let agent = agent_gates(CLIENT_VERSION);
    assert!(agent.mux && agent.smux_keepalive_disabled && !agent.separate_output_upgrade_message);
}

/// Reads the vector's payload as `B` and expects it to be written back byte for byte.
fn assert_body_round_trips<B: Body>(payload: &[u8], name: &str) {
    let body = B::parse(payload).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(
        body.to_text(),
        std::str::from_utf8(payload).unwrap(),
        "{name}"
    );
}

#[test]
fn every_body_is_written_back_as_the_official_programs_wrote_it() {
    let mut count = 0;
    for vector in vectors()["frames"].as_array().unwrap() {
        let (name, fields) = (text(vector, "name"), &vector["fields"]);
        if text(vector, "direction") == "synthetic" {
            continue;
        }
        let payload = payload(fields);
        let check: fn(&[u8], &str) = match (
            text(fields, "message_type"),
            fields["payload_type"].as_u64().unwrap(),
        ) {
            ("acknowledge", _) => assert_body_round_trips::<Acknowledge>,
            ("agent_session_state", _) => assert_body_round_trips::<AgentSessionState>,
            ("agent_task_complete", _) => assert_body_round_trips::<AgentTaskComplete>,
            ("agent_task_acknowledge", _) => assert_body_round_trips::<AgentTaskAcknowledge>,
            ("interactive_shell", _) => |payload, name| {
                assert_body_round_trips::<InteractiveShell>(payload, name);
                let shell = InteractiveShell::parse(payload).unwrap();
                assert_body_round_trips::<StartContent>(shell.content.as_bytes(), name);
            },
            // On the control channel the members come in another order and one is missing.
            ("channel_closed", _) if text(vector, "channel") == "data" => {
                assert_body_round_trips::<ChannelClosed>
            }
            (_, 3) => assert_body_round_trips::<Size>,
            (_, 5) => assert_body_round_trips::<HandshakeRequest>,
            (_, 6) => assert_body_round_trips::<HandshakeResponse>,
            (_, 7) => assert_body_round_trips::<HandshakeComplete>,
            _ => continue,
        };
        check(&payload, name);
        count += 1;
    }
    assert!(count >= 17, "only {count} bodies were checked");
}
