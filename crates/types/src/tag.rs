//! Resource tags, with AWS's limits.

use serde::{Deserialize, Serialize};

/// One tag of a resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Tag {
    /// 1 to 128 characters, not starting with `aws:`.
    pub key: String,
    /// 0 to 256 characters.
    pub value: String,
}

/// Why a tag is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTag {
    /// The key is empty, longer than 128 characters, or has characters that AWS does not allow.
    #[error("tag key `{0}` is not valid")]
    Key(String),
    /// Keys that start with `aws:` belong to AWS.
    #[error("tag keys that start with `aws:` are reserved")]
    Reserved,
    /// The value is longer than 256 characters, or has characters that AWS does not allow.
    #[error("the value of tag `{0}` is not valid")]
    Value(String),
}

impl Tag {
    /// A tag within AWS's limits (letters, digits, white space and `_.:/=+-@`).
    ///
    /// # Errors
    /// Says which part breaks which rule.
    pub fn new(key: impl Into<String>, value: impl Into<String>) -> Result<Self, InvalidTag> {
        let (key, value) = (key.into(), value.into());
        if !(1..=128).contains(&key.chars().count()) || !key.chars().all(allowed) {
            return Err(InvalidTag::Key(key));
        }
        if key
            .get(..4)
            .is_some_and(|prefix| prefix.eq_ignore_ascii_case("aws:"))
        {
            return Err(InvalidTag::Reserved);
        }
        if value.chars().count() > 256 || !value.chars().all(allowed) {
            return Err(InvalidTag::Value(key));
        }
        Ok(Self { key, value })
    }
}

fn allowed(c: char) -> bool {
    c.is_alphanumeric() || c.is_whitespace() || "_.:/=+-@".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_those_of_aws() {
        assert!(Tag::new("Env", "").is_ok());
        assert!(Tag::new("환경", "운영 1").is_ok());
        assert_eq!(Tag::new("", "x"), Err(InvalidTag::Key(String::new())));
        assert!(Tag::new("k".repeat(129), "x").is_err());
        assert_eq!(Tag::new("AWS:x", "x"), Err(InvalidTag::Reserved));
        assert_eq!(Tag::new("k", "<b>"), Err(InvalidTag::Value("k".into())));
        assert!(Tag::new("k", "v".repeat(257)).is_err());
    }
}
