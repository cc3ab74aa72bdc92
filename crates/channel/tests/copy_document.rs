//! `docs/wire/copy.md` against the code: kinds, lengths and examples are those that the crate writes
//! and takes.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test says what is wrong by failing"
)]

use bytes::Bytes;
use sortie_channel::copy::{
    DEEPEST, Decoder, Digest, Hello, LARGEST_DATA, Message, MessageError, Meta, Name, ProblemKind,
    VERSION, WINDOW,
};

const DOCUMENT: &str = include_str!("../../../docs/wire/copy.md");
const META: Meta = Meta {
    mode: 0o644,
    seconds: 1_000_000_000,
    nanoseconds: 5000,
};

fn block(kind: &str, name: &str) -> &'static str {
    let start = format!("```{kind} {name}\n");
    let (_, behind) = DOCUMENT
        .split_once(&start)
        .unwrap_or_else(|| panic!("no example `{name}`"));
    behind.split_once("\n```").unwrap().0
}

fn bytes_of(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.write(&mut bytes);
    bytes
}

fn hello() -> Hello {
    Hello {
        version: VERSION,
        recursive: true,
        ..Hello::default()
    }
}

#[test]
fn the_examples_are_what_our_ends_write() {
    let name = Some(Name::new("a.txt").unwrap());
    let file = Message::File {
        meta: META,
        size: Some(5),
        name,
    };
    for (example, message) in [
        ("hello-client", Message::Hello(hello())),
        ("file", file),
        ("want-nothing-here", Message::Want(1, None)),
        ("start", Message::Start(2, 4 << 20)),
    ] {
        let written: Vec<String> = bytes_of(&message)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(block("hex", example), written.join(" "), "{example}");
    }
    assert_eq!(
        block("json", "hello-client"),
        serde_json::to_string(&hello()).unwrap()
    );
}

/// The rows of the table: kind, name, and the shortest and longest payload.
fn rows() -> Vec<(u8, &'static str, usize, usize)> {
    DOCUMENT
        .lines()
        .filter_map(|line| line.strip_prefix("| `0x"))
        .map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let kind = u8::from_str_radix(cells[0].trim_end_matches('`'), 16).unwrap();
            let lengths: Vec<usize> = cells[4]
                .split([' ', 'o', 't', 'r'])
                .filter_map(|word| word.parse().ok())
                .collect();
            (kind, cells[1], lengths[0], *lengths.last().unwrap())
        })
        .collect()
}

#[test]
fn the_table_has_every_kind_and_its_bounds() {
    let digest = Digest([7; 32]);
    let name = Name::new("x").unwrap();
    let path = Bytes::from_static(b"x");
    let messages = [
        ("HELLO", Message::Hello(hello())),
        ("FATAL", Message::Fatal("x".into())),
        ("ENTER", Message::Enter(META, None)),
        ("LEAVE", Message::Leave),
        (
            "FILE",
            Message::File {
                meta: META,
                size: None,
                name: None,
            },
        ),
        (
            "LINK",
            Message::Link {
                meta: META,
                name,
                target: path.clone(),
            },
        ),
        (
            "PROBLEM",
            Message::Problem(ProblemKind::Skipped, path, "x".into()),
        ),
        ("TOTAL", Message::Total(1, 2)),
        ("START", Message::Start(1, 2)),
        ("DATA", Message::Data("x".into())),
        ("END", Message::End(digest)),
        ("ABORT", Message::Abort(1, "x".into())),
        ("FINISH", Message::Finish),
        ("WANT", Message::Want(1, Some((2, digest)))),
        ("DONE", Message::Done(1)),
        ("FAILED", Message::Failed(1, "x".into())),
        ("FINISHED", Message::Finished),
    ];
    let rows = rows();
    let named: Vec<(u8, &str)> = rows.iter().map(|(kind, name, ..)| (*kind, *name)).collect();
    let written: Vec<(u8, &str)> = messages
        .iter()
        .map(|(name, message)| (bytes_of(message)[0], *name))
        .collect();
    assert_eq!(named, written);
    for (kind, name, shortest, longest) in rows {
        let is_length = |length: usize| {
            let mut decoder = Decoder::default();
            decoder.buffer().extend_from_slice(&[kind]);
            let length = u32::try_from(length).unwrap();
            decoder.buffer().extend_from_slice(&length.to_be_bytes());
            !matches!(decoder.next_message(), Err(MessageError::Length(..)))
        };
        assert!(is_length(shortest) && is_length(longest), "{name}");
        assert!(shortest == 0 || !is_length(shortest - 1), "{name}");
        assert!(!is_length(longest + 1), "{name}");
    }
}

#[test]
fn the_numbers_are_the_codes() {
    for sentence in [
        format!("At most {WINDOW} entries"),
        format!("at most {DEEPEST} directories"),
        format!("1 to {LARGEST_DATA} "),
        format!("this page is version {VERSION}"),
    ] {
        assert!(DOCUMENT.contains(&sentence), "{sentence}");
    }
}
