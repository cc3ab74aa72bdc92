//! Shapes as CloudTrail shows them: member names in lower camel case, map keys as they are,
//! times in ISO 8601, secrets replaced by a fixed text.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::Value;

use crate::{json, tree::Tree};

/// What stands in a record where a secret was.
const HIDDEN: &str = "Value hidden due to security reasons.";

pub(crate) fn encode(tree: &Tree) -> Value {
    match tree {
        Tree::Blob(bytes) => Value::String(BASE64_STANDARD.encode(bytes)),
        Tree::List(values) => Value::Array(values.iter().map(encode).collect()),
        Tree::Map(map) => map
            .iter()
            .map(|(key, value)| (key.clone(), encode(value)))
            .collect(),
        Tree::Secret(_) => Value::from(HIDDEN),
        Tree::Structure(schema, slots) => schema
            .members
            .iter()
            .zip(slots)
            .filter_map(|(member, slot)| Some((lower_first(member.name), encode(slot.as_ref()?))))
            .collect(),
        Tree::Timestamp(time) => Value::String(time.iso_seconds()),
        Tree::Boolean(_) | Tree::Double(_) | Tree::Integer(_) | Tree::Text(_) => json::encode(tree),
    }
}

/// A member's name as CloudTrail and validation messages write it.
pub(crate) fn lower_first(name: &str) -> String {
    let mut letters = name.chars();
    letters
        .next()
        .map(|first| first.to_ascii_lowercase())
        .into_iter()
        .chain(letters)
        .collect()
}
