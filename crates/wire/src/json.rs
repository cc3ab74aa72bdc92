//! The JSON form of shapes. What is not in the schema is passed over; `null` is absence.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Map, Number, Value};
use sortie_types::{Secret, Timestamp};

use crate::{
    InvalidInput,
    schema::{Kind, Structure},
    tree::Tree,
};

/// Reads a request body: a JSON object, or nothing at all, which is an empty one.
///
/// # Errors
/// Malformed when it is no JSON object, or nested deeper than 128.
pub fn parse(body: &[u8]) -> Result<Value, InvalidInput> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Value::Object(Map::new()));
    }
    match serde_json::from_slice(body) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err(malformed("Start of structure or map expected")),
        Err(_) => Err(malformed("The request body is not well-formed JSON")),
    }
}

fn malformed(text: impl Into<String>) -> InvalidInput {
    InvalidInput::Malformed(text.into())
}

/// Reads a structure.
pub(crate) fn decode(value: &Value, schema: &'static Structure) -> Result<Tree, InvalidInput> {
    let Value::Object(object) = value else {
        return Err(malformed(format!(
            "{} cannot be converted to a structure",
            type_of(value)
        )));
    };
    let slot = |name: &str, kind: &Kind| match object.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => decode_kind(value, kind).map(Some),
    };
    let slots: Result<_, _> = schema
        .members
        .iter()
        .map(|member| slot(member.name, member.kind))
        .collect();
    Ok(Tree::Structure(schema, slots?))
}

// Recursion is bounded twice: a schema names the depth, and serde_json refuses texts nested
// deeper than 128.
fn decode_kind(value: &Value, kind: &Kind) -> Result<Tree, InvalidInput> {
    let refused = |wanted: &str| {
        malformed(format!(
            "{} cannot be converted to {wanted}",
            type_of(value)
        ))
    };
    match (kind, value) {
        (Kind::Structure(schema), _) => decode(value, schema()),
        (Kind::Text(text), Value::String(value)) => Ok(if text.secret {
            Tree::Secret(Secret::new(value.as_str()))
        } else {
            Tree::Text(value.clone())
        }),
        (Kind::Text(_), _) => Err(refused("a String")),
        (Kind::Boolean, Value::Bool(value)) => Ok(Tree::Boolean(*value)),
        (Kind::Boolean, _) => Err(refused("a Boolean")),
        (Kind::Integer { limit, .. }, Value::Number(number)) => whole(number, *limit)
            .map(Tree::Integer)
            .ok_or_else(|| refused("an Integer")),
        (Kind::Integer { .. }, _) => Err(refused("an Integer")),
        (Kind::Double, Value::Number(number)) => number
            .as_f64()
            .map(Tree::Double)
            .ok_or_else(|| refused("a Double")),
        (Kind::Double, _) => Err(refused("a Double")),
        (Kind::Timestamp, _) => timestamp(value)
            .map(Tree::Timestamp)
            .ok_or_else(|| refused("a Timestamp")),
        (Kind::Blob(_), Value::String(text)) => BASE64_STANDARD
            .decode(text)
            .map(|bytes| Tree::Blob(bytes.into()))
            .map_err(|_| refused("a Blob")),
        (Kind::Blob(_), _) => Err(refused("a Blob")),
        (Kind::List { element, .. }, Value::Array(values)) => values
            .iter()
            .map(|value| decode_kind(value, element))
            .collect::<Result<_, _>>()
            .map(Tree::List),
        (Kind::List { .. }, _) => Err(refused("a List")),
        (Kind::Map { value: inner, .. }, Value::Object(object)) => object
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| Ok((key.clone(), decode_kind(value, inner)?)))
            .collect::<Result<_, _>>()
            .map(Tree::Map),
        (Kind::Map { .. }, _) => Err(refused("a Map")),
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "NULL_VALUE",
        Value::Bool(true) => "TRUE_VALUE",
        Value::Bool(false) => "FALSE_VALUE",
        Value::Number(_) => "NUMBER_VALUE",
        Value::String(_) => "STRING_VALUE",
        Value::Array(_) => "START_LIST",
        Value::Object(_) => "START_MAP",
    }
}

/// A whole number, also when written as `5.0`, that a type with this limit can carry.
#[expect(clippy::cast_possible_truncation, reason = "whole and within 2^53")]
fn whole(number: &Number, limit: i64) -> Option<i64> {
    let value = number.as_i64().or_else(|| {
        let value = number.as_f64()?;
        (value.fract() == 0.0 && value.abs() < 9_007_199_254_740_992.0).then_some(value as i64)
    })?;
    (-limit - 1..=limit).contains(&value).then_some(value)
}

fn timestamp(value: &Value) -> Option<Timestamp> {
    match value {
        Value::Number(number) => Timestamp::from_epoch_seconds(number.as_f64()?),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

/// Writes a tree.
pub(crate) fn encode(tree: &Tree) -> Value {
    match tree {
        Tree::Blob(bytes) => Value::String(BASE64_STANDARD.encode(bytes)),
        Tree::Boolean(value) => Value::Bool(*value),
        Tree::Double(value) => Number::from_f64(*value).map_or(Value::Null, Value::Number),
        Tree::Integer(value) => Value::from(*value),
        Tree::List(values) => Value::Array(values.iter().map(encode).collect()),
        Tree::Map(map) => map
            .iter()
            .map(|(key, value)| (key.clone(), encode(value)))
            .collect(),
        Tree::Secret(secret) => Value::from(secret.expose()),
        Tree::Structure(schema, slots) => schema
            .members
            .iter()
            .zip(slots)
            .filter_map(|(member, slot)| Some((member.name.to_owned(), encode(slot.as_ref()?))))
            .collect(),
        Tree::Text(text) => Value::from(text.as_str()),
        Tree::Timestamp(time) => epoch_seconds(*time),
    }
}

/// Epoch seconds, without a fraction where there is none.
fn epoch_seconds(time: Timestamp) -> Value {
    if time.millis() % 1000 == 0 {
        Value::from(time.millis() / 1000)
    } else {
        Value::from(time.epoch_seconds())
    }
}
