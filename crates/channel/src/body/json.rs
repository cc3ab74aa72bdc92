//! JSON read as the official ends read it: names in any case, unknown names ignored, `null` and
//! absence meaning the zero value, the last of repeated names winning. A wrong type is an error.

use serde_json::{Map, Value};
use sortie_types::Secret;

use crate::frame::MessageType;

/// Why bytes are no message body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Not JSON at all.
    #[error("body is not json")]
    NotJson,
    /// JSON, but no object.
    #[error("body is not a json object")]
    NotAnObject,
    /// A known member holds another type than it should.
    #[error("member `{0}` has the wrong json type")]
    WrongType(&'static str),
}

/// A message body that is a JSON object.
pub trait Body: Sized {
    /// Reads the body from a JSON value.
    fn from_value(value: &Value) -> Result<Self, BodyError>;

    /// The body as a JSON value, members in the order in which official ends write them.
    fn to_value(&self) -> Value;

    /// Reads the body from a payload or a text frame.
    fn parse(bytes: &[u8]) -> Result<Self, BodyError> {
        Self::from_value(&serde_json::from_slice(bytes).map_err(|_| BodyError::NotJson)?)
    }

    /// The body as JSON text.
    fn to_text(&self) -> String {
        self.to_value().to_string()
    }
}

/// The type of one member.
pub(crate) trait Member: Sized {
    /// The zero value, for `null` and absent members.
    fn missing() -> Self;
    /// `None`: wrong type. Never called with `null`.
    fn read(value: &Value) -> Option<Self>;
    /// `None`: the member is left out.
    fn write(&self) -> Option<Value>;
}

pub(crate) fn object(value: &Value) -> Result<&Map<String, Value>, BodyError> {
    value.as_object().ok_or(BodyError::NotAnObject)
}

pub(crate) fn read<M: Member>(name: &'static str, value: &Value) -> Result<M, BodyError> {
    if value.is_null() {
        return Ok(M::missing());
    }
    M::read(value).ok_or(BodyError::WrongType(name))
}

macro_rules! plain_member {
    ($type:ty, $read:expr) => {
        impl Member for $type {
            fn missing() -> Self {
                Self::default()
            }

            fn read(value: &Value) -> Option<Self> {
                let read: fn(&Value) -> Option<Self> = $read;
                read(value)
            }

            fn write(&self) -> Option<Value> {
                Some(Value::from(self.clone()))
            }
        }
    };
}

plain_member!(String, |value| value.as_str().map(str::to_owned));
plain_member!(bool, Value::as_bool);
plain_member!(i64, Value::as_i64);
plain_member!(u32, |value| value
    .as_u64()
    .and_then(|number| u32::try_from(number).ok()));
plain_member!(Value, |value| Some(value.clone()));

impl Member for Secret {
    fn missing() -> Self {
        Self::new("")
    }

    fn read(value: &Value) -> Option<Self> {
        value.as_str().map(Self::from)
    }

    fn write(&self) -> Option<Value> {
        Some(Value::from(self.expose()))
    }
}

impl Member for MessageType {
    fn missing() -> Self {
        Self::from("")
    }

    fn read(value: &Value) -> Option<Self> {
        value.as_str().map(Self::from)
    }

    fn write(&self) -> Option<Value> {
        Some(Value::from(self.as_str()))
    }
}

/// A member that is left out when there is nothing to say.
impl<M: Member> Member for Option<M> {
    fn missing() -> Self {
        None
    }

    fn read(value: &Value) -> Option<Self> {
        M::read(value).map(Some)
    }

    fn write(&self) -> Option<Value> {
        self.as_ref().and_then(M::write)
    }
}

impl<M: Member> Member for Vec<M> {
    fn missing() -> Self {
        Self::new()
    }

    fn read(value: &Value) -> Option<Self> {
        let item = |value: &Value| {
            if value.is_null() {
                Some(M::missing())
            } else {
                M::read(value)
            }
        };
        value.as_array()?.iter().map(item).collect()
    }

    fn write(&self) -> Option<Value> {
        Some(
            self.iter()
                .map(|item| item.write().unwrap_or(Value::Null))
                .collect(),
        )
    }
}

/// Declares body structs: the Rust name of a member, its type and its name on the wire.
macro_rules! bodies {
    ($(
        $(#[$meta:meta])*
        $name:ident { $( $(#[$member_meta:meta])* $member:ident: $type:ty = $wire:literal, )* }
    )*) => { $(
        $(#[$meta])*
        #[derive(Clone, Debug)]
        pub struct $name { $( $(#[$member_meta])* pub $member: $type, )* }

        impl $crate::body::json::Body for $name {
            fn from_value(value: &Value) -> Result<Self, BodyError> {
                let mut body = Self::default();
                for (name, value) in json::object(value)? {
                    $(if name.eq_ignore_ascii_case($wire) {
                        body.$member = json::read($wire, value)?;
                        continue;
                    })*
                }
                Ok(body)
            }

            fn to_value(&self) -> Value {
                let mut object = serde_json::Map::new();
                $(if let Some(value) = Member::write(&self.$member) {
                    object.insert($wire.to_owned(), value);
                })*
                Value::Object(object)
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $member: Member::missing(), )* }
            }
        }

        impl Member for $name {
            fn missing() -> Self {
                Self::default()
            }

            fn read(value: &Value) -> Option<Self> {
                Self::from_value(value).ok()
            }

            fn write(&self) -> Option<Value> {
                Some(self.to_value())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.to_value().serialize(serializer)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let value = Value::deserialize(deserializer)?;
                Self::from_value(&value).map_err(serde::de::Error::custom)
            }
        }
    )* };
}

pub(crate) use bodies;
