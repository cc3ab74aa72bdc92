//! JSON as policies need it: keys keep their order, a key that occurs twice is an error, and nesting
//! is bounded. What the values mean is not known here.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Deeper than any policy: document, statements, statement, condition, operator, key, values.
const MAX_DEPTH: u8 = 8;

/// A JSON value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    /// In canonical form: no exponent, no fraction that is zero.
    Number(String),
    String(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Reads one value and nothing after it. The error is a sentence for people.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let value = Seed { depth: 0 }.deserialize(&mut deserializer);
        let value = value.map_err(|error| error.to_string())?;
        deserializer.end().map_err(|error| error.to_string())?;
        Ok(value)
    }
}

#[derive(Clone, Copy)]
struct Seed {
    depth: u8,
}

impl Seed {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        if self.depth >= MAX_DEPTH {
            return Err(E::custom("nested too deeply"));
        }
        Ok(Self {
            depth: self.depth + 1,
        })
    }
}

impl<'de> DeserializeSeed<'de> for Seed {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Number(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Number(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Number(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Json, E> {
        Ok(Json::String(value))
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json, A::Error> {
        let seed = self.deeper()?;
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(seed)? {
            items.push(item);
        }
        Ok(Json::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let seed = self.deeper()?;
        let mut members: Vec<(String, Json)> = Vec::new();
        // A set beside the list, so that an object of thousands of keys is not searched each time.
        let mut seen = std::collections::HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if !seen.insert(key.clone()) {
                return Err(A::Error::custom(format!("the key `{key}` occurs twice")));
            }
            let value = map.next_value_seed(seed)?;
            members.push((key, value));
        }
        Ok(Json::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_occurs_twice_is_refused_however_deep() {
        assert!(Json::parse(r#"{"a": 1, "b": 2}"#).is_ok());
        for text in [r#"{"a": 1, "a": 1}"#, r#"[{"x": {"a": 1, "\u0061": 2}}]"#] {
            let error = Json::parse(text).expect_err(text);
            assert!(error.contains("`a` occurs twice"), "{error}");
        }
    }

    #[test]
    fn nesting_is_bounded_and_nothing_may_follow() {
        assert!(Json::parse("[[[[[[[[1]]]]]]]]").is_ok());
        assert!(Json::parse("[[[[[[[[[1]]]]]]]]]").is_err());
        assert!(Json::parse(&"[".repeat(100_000)).is_err());
        assert!(Json::parse("{} {}").is_err());
        assert!(Json::parse("").is_err());
    }

    #[test]
    fn numbers_take_one_form() {
        for (text, canonical) in [
            ("10", "10"),
            ("10.0", "10"),
            ("-1.50", "-1.5"),
            ("1e3", "1000"),
        ] {
            assert_eq!(Json::parse(text), Ok(Json::Number(canonical.to_owned())));
        }
    }
}
