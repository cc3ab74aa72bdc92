//! The text of a session document as data, and back: JSON and YAML, within bounds. Pure.
//!
//! YAML is read without anchors, aliases, merges and tags: documents need none of them, and a few
//! bytes of them can stand for gigabytes.

use std::fmt::Write as _;

use serde_json::Value;

/// The largest document, in bytes of its text.
pub(crate) const LARGEST: usize = 64 * 1024;
/// How deep a document may be nested.
const DEEPEST: usize = 16;
/// More than 64 KB of text can hold.
const MOST_NODES: usize = LARGEST;

/// How a document is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Yaml,
}

impl Format {
    /// AWS's word for it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Json => "JSON",
            Self::Yaml => "YAML",
        }
    }

    /// The format of that name; `None` for `TEXT`, in which no session document is written.
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "JSON" => Some(Self::Json),
            "YAML" => Some(Self::Yaml),
            _ => None,
        }
    }
}

/// Why a text is no document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error("the document is larger than {LARGEST} bytes")]
    TooLarge,
    #[error("the document cannot be read: {0}")]
    Syntax(String),
    #[error("the document is nested deeper than {DEEPEST} levels")]
    TooDeep,
}

/// Reads a document.
pub(crate) fn read(text: &str, format: Format) -> Result<Value, Unreadable> {
    if text.len() > LARGEST {
        return Err(Unreadable::TooLarge);
    }
    let value = match format {
        Format::Json => serde_json::from_str(text).map_err(syntax)?,
        Format::Yaml => serde_saphyr::from_str_with_options(text, yaml()).map_err(syntax)?,
    };
    if is_deeper(&value, DEEPEST) {
        return Err(Unreadable::TooDeep);
    }
    Ok(value)
}

/// Writes a document.
pub(crate) fn write(value: &Value, format: Format) -> Result<String, Unreadable> {
    match format {
        Format::Json => serde_json::to_string_pretty(value).map_err(syntax),
        Format::Yaml => serde_saphyr::to_string(value).map_err(syntax),
    }
}

fn yaml() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_reader_input_bytes: Some(LARGEST),
            max_events: 4 * MOST_NODES,
            max_aliases: 0,
            max_anchors: 0,
            max_depth: 2 * DEEPEST,
            max_documents: 1,
            max_nodes: MOST_NODES,
            max_total_scalar_bytes: LARGEST,
            max_merge_keys: 0,
        },
        strict_booleans: true,
        reject_unsupported_tags: true,
        with_snippet: false,
    }
}

/// What a reader says about a text, on one line and no longer than people read.
fn syntax(error: impl std::fmt::Display) -> Unreadable {
    let mut told = String::new();
    let _ = write!(told, "{error}");
    let one_line = told.chars().map(|c| if c.is_control() { ' ' } else { c });
    Unreadable::Syntax(one_line.take(300).collect())
}

fn is_deeper(value: &Value, levels: usize) -> bool {
    let Some(below) = levels.checked_sub(1) else {
        return true;
    };
    match value {
        Value::Array(items) => items.iter().any(|item| is_deeper(item, below)),
        Value::Object(members) => members.values().any(|member| is_deeper(member, below)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".*".prop_map(Value::from),
            // What YAML takes for something else where it is not quoted.
            "[-?:,\\[\\]{}#&*!|>'\"%@` \t\r\n0-9.eEx_~a-z\u{85}\u{2028}]{0,12}"
                .prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec(("[a-zA-Z0-9 :#~-]{0,8}", inner), 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn whatever_a_document_says_comes_back(value in any_value()) {
            for format in [Format::Json, Format::Yaml] {
                let text = write(&value, format).unwrap();
                let back = read(&text, format);
                prop_assert_eq!(back, Ok(value.clone()), "{}", text);
            }
        }

        #[test]
        fn no_text_makes_reading_fail_in_another_way(text in "[-?:,\\[\\]{}#&*!|>'\"%@` \n0-9a-z<]{0,64}") {
            for format in [Format::Json, Format::Yaml] {
                if let Ok(value) = read(&text, format) {
                    prop_assert!(!is_deeper(&value, DEEPEST));
                }
            }
        }
    }

    #[test]
    fn both_formats_say_the_same() {
        let json = r#"{"schemaVersion": "1.0", "a": {"b": [1, true, "x\ny"]}}"#;
        let yaml = "---\nschemaVersion: '1.0'\na:\n  b:\n  - 1\n  - true\n  - |-\n    x\n    y\n";
        let expected = json!({"schemaVersion": "1.0", "a": {"b": [1, true, "x\ny"]}});
        assert_eq!(read(json, Format::Json).unwrap(), expected);
        assert_eq!(read(yaml, Format::Yaml).unwrap(), expected);
    }

    #[test]
    fn what_is_written_reads_the_same_in_the_same_order() {
        let tricky = json!({
            "z": "1.0", "a": "true", "m": "null", "colon": "a: b", "hash": "a # b", "dash": "- x",
            "lines": "one\ntwo\n", "quotes": "'\"", "empty": "", "braces": "{{ x }}", "no": "no",
            "tab": "\t", "star": "*a", "at": "@x", "number": 12, "yes": true, "none": null,
            "list": ["a", {"b": []}], "spaces": "  x  ", "date": "2020-01-01", "octal": "0777",
        });
        for format in [Format::Json, Format::Yaml] {
            let text = write(&tricky, format).unwrap();
            let back = read(&text, format).unwrap();
            assert_eq!(back, tricky, "{text}");
            let keys = |value: &Value| -> Vec<String> {
                value.as_object().unwrap().keys().cloned().collect()
            };
            assert_eq!(keys(&back), keys(&tricky), "{text}");
        }
    }

    #[test]
    fn bombs_are_refused_at_once() {
        let mut laughs = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x]\n");
        for level in 1..10 {
            let of_before = format!("*a{},", level - 1).repeat(9);
            laughs += &format!(
                "a{level}: &a{level} [{}]\n",
                of_before.trim_end_matches(',')
            );
        }
        let cases = [
            laughs,
            "a: &x 1\nb: *x\n".to_owned(),
            "a: &a [*a]\n".to_owned(),
            "base: &b {x: 1}\nc: {<<: *b}\n".to_owned(),
            "a: 1\n---\nb: 2\n".to_owned(),
            "a: 1\na: 2\n".to_owned(),
            "[".repeat(20_000),
            "{a: ".repeat(10_000),
            "- ".repeat(30_000),
            format!("a: {}", "[".repeat(17) + &"]".repeat(17)),
            "a: !!python/object:os.system x\n".to_owned(),
        ];
        for text in cases {
            let start = text.chars().take(40).collect::<String>();
            assert!(read(&text, Format::Yaml).is_err(), "{start}");
        }
        for text in ["[".repeat(60_000), "[".repeat(17) + &"]".repeat(17)] {
            assert!(read(&text, Format::Json).is_err());
        }
    }

    #[test]
    fn the_size_is_bounded() {
        let text = |length: usize| format!("\"{}\"", "x".repeat(length - 2));
        assert!(read(&text(LARGEST), Format::Json).is_ok());
        for format in [Format::Json, Format::Yaml] {
            let error = read(&text(LARGEST + 1), format).unwrap_err();
            assert_eq!(error, Unreadable::TooLarge);
        }
    }
}
