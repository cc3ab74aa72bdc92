//! `docs/wire/data-channel.md` against the code: its examples are what the crate writes, and the numbers
//! it names are those of the code.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test says what is wrong by failing"
)]

use sortie_channel::{
    body::{
        Acknowledge, Body, Features, OpenClient, OpenControl, OpenNode, RunningSessions,
        SortieOpen, SortieStart, TOKEN_PREFIX,
    },
    features,
    frame::{MessageType, PayloadType},
    handshake::{AGENT_VERSION, CLIENT_VERSION},
    link::{Options, Role},
    stdin,
    streams::{
        Destination, INITIAL_CREDIT, LARGEST_DATA, LARGEST_WINDOW, Limits, Message, Refusal,
        RefusalCode, payload,
    },
};
use uuid::Uuid;

const DOCUMENT: &str = include_str!("../../../docs/wire/data-channel.md");
const REQUEST_ID: &str = "5b1ad74a-7d2f-4b0e-a3f5-6d2a0f9b7c11";

/// The block that begins with "```json name".
fn example(name: &str) -> &'static str {
    let start = format!("```json {name}\n");
    let (_, behind) = DOCUMENT
        .split_once(&start)
        .unwrap_or_else(|| panic!("no example `{name}`"));
    behind.split_once("\n```").unwrap().0
}

fn assert_example<B: Body>(name: &str, written: &B) {
    assert_eq!(example(name), written.to_text(), "{name}");
    let read = B::parse(example(name).as_bytes()).unwrap();
    assert_eq!(read.to_text(), example(name), "{name} read back");
}

fn sortie() -> Option<SortieOpen> {
    Some(SortieOpen::announcing("0.1.0"))
}

#[test]
fn the_examples_are_what_our_ends_write() {
    assert_example(
        "open-client",
        &OpenClient {
            message_schema_version: "1.0".into(),
            request_id: REQUEST_ID.into(),
            token: "SRT1.…".into(),
            client_id: "0b0ff1a3-4c38-4be1-9d3e-55a3a9a4f0d2".into(),
            client_version: Some(CLIENT_VERSION.into()),
            sortie: sortie(),
        },
    );
    assert_example(
        "open-node",
        &OpenNode {
            message_schema_version: "1.0".into(),
            request_id: REQUEST_ID.into(),
            token: "SRT1.…".into(),
            client_instance_id: "mi-0123456789abcdef0".into(),
            client_id: String::new(),
            sortie: sortie(),
        },
    );
    assert_example(
        "open-control",
        &OpenControl {
            message_schema_version: "1.0".into(),
            request_id: REQUEST_ID.into(),
            token: "SRT1.…".into(),
            agent_version: AGENT_VERSION.into(),
            platform_type: "linux".into(),
            sortie: sortie(),
            sessions: Some(vec!["alice-0123456789abcdef0".into()]),
            ..OpenControl::default()
        },
    );
    assert_example(
        "features",
        &Features {
            version: "0.1.0".into(),
            features: features::ALL.iter().map(ToString::to_string).collect(),
            ticket: Some("SRT1.…".into()),
        },
    );
    assert_example(
        "acknowledge",
        &Acknowledge {
            message_type: MessageType::OutputStreamData,
            message_id: Uuid::from_u128(0x5e55_0014_0000_4000_8000_0000_0000_0014).to_string(),
            sequence_number: 41,
            is_sequential: true,
            cumulative: Some(true),
            room_again: None,
        },
    );
    assert_example(
        "start",
        &SortieStart {
            token: "SRT1.…".into(),
            features: vec![features::EXIT_STATUS.into(), features::NO_DIGEST.into()],
        },
    );
    let sessions = vec!["alice-0123456789abcdef0".into()];
    assert_example("sessions", &RunningSessions { sessions });
}

#[test]
fn every_feature_and_constant_of_the_code_is_on_the_page() {
    for name in features::ALL {
        assert!(DOCUMENT.contains(&format!("| `{name}` |")), "{name}");
    }
    for text in [AGENT_VERSION, CLIENT_VERSION, TOKEN_PREFIX] {
        assert!(DOCUMENT.contains(&format!("`{text}`")), "{text}");
    }
    for message_type in [MessageType::SortieFeatures, MessageType::SortieSessions] {
        assert!(
            DOCUMENT.contains(&format!("## `{message_type}`")),
            "{message_type}"
        );
    }
    assert_eq!(Options::new(Role::Node, [0; 16]).receive_limit, 4 << 20);
    assert_eq!(Options::new(Role::Client, [0; 16]).receive_limit, 8 << 20);
    assert!(DOCUMENT.contains("(4 MiB unless told otherwise, a client 8 MiB)"));
}

#[test]
fn standard_input_is_as_the_page_says() {
    for (payload_type, name) in [
        (PayloadType::STDIN_EOF, "STDIN_EOF"),
        (PayloadType::SIGNAL, "SIGNAL"),
        (PayloadType::STDIN_TAKEN, "STDIN_TAKEN"),
    ] {
        let row = format!("| 0x{:x} | {name} |", payload_type.0);
        assert!(DOCUMENT.contains(&row), "{row}");
    }
    assert_eq!((stdin::WINDOW, stdin::TAKEN_STEP), (1 << 20, 256 << 10));
    assert!(DOCUMENT.contains("takes 1 MiB of standard input"));
    assert!(DOCUMENT.contains("whenever 256 KiB more"));
}

/// What a stream message says behind the id.
fn behind_id(message: &Message) -> String {
    let (payload_type, payload) = message.encode();
    assert_eq!(
        &Message::parse(payload_type, payload.clone()).unwrap(),
        message
    );
    String::from_utf8(payload[4..].to_vec()).unwrap()
}

#[test]
fn the_messages_of_streams_are_those_of_the_code() {
    let elsewhere = Destination {
        host: Some("db.internal".into()),
        port: Some(5432),
        socket: None,
    };
    let socket = Destination {
        socket: Some("/run/postgresql/.s.PGSQL.5432".into()),
        ..Destination::default()
    };
    for (name, destination) in [
        ("stream-open", Destination::default()),
        ("stream-open-elsewhere", elsewhere),
        ("stream-open-socket", socket),
    ] {
        assert_eq!(example(name), behind_id(&Message::Open(1, destination)));
    }
    let refusal = Refusal {
        code: RefusalCode::Refused,
        message: "connection refused by db.internal:5432".into(),
    };
    assert_eq!(
        example("stream-refused"),
        behind_id(&Message::Refused(1, refusal))
    );
    for code in [
        RefusalCode::Forbidden,
        RefusalCode::Limit,
        RefusalCode::Refused,
        RefusalCode::Unreachable,
        RefusalCode::UnknownHost,
        RefusalCode::Other,
    ] {
        let word = serde_json::to_value(code).unwrap();
        assert!(
            DOCUMENT.contains(&format!("| `{}` |", word.as_str().unwrap())),
            "{word}"
        );
    }
    for (payload_type, name) in [
        (payload::OPEN, "OPEN"),
        (payload::OPENED, "OPENED"),
        (payload::REFUSED, "REFUSED"),
        (payload::DATA, "DATA"),
        (payload::FIN, "FIN"),
        (payload::RESET, "RESET"),
        (payload::CREDIT, "CREDIT"),
    ] {
        let row = format!("| {:#x} | {name} |", payload_type.0);
        assert!(DOCUMENT.contains(&row), "{row}");
    }
}

#[test]
fn the_bounds_of_streams_are_those_of_the_code() {
    let limits = Limits::default();
    for text in [
        format!("starts with credit for {INITIAL_CREDIT} bytes"),
        format!(
            "at most {LARGEST_WINDOW} bytes, and at most {} bytes beyond",
            limits.growth
        ),
        format!("A DATA message has at most {LARGEST_DATA} bytes of data."),
        format!("An end holds at most {} streams", limits.streams),
    ] {
        assert!(DOCUMENT.contains(&text), "{text}");
    }
}
