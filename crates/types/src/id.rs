//! Typed identifiers, in the forms that AWS gives them. Each is checked once, when parsed.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A text that does not have the form of the identifier it was read as.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a valid {what}")]
pub struct ParseIdError {
    /// What was wanted.
    pub what: &'static str,
    /// What was given.
    pub text: String,
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text of the identifier.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(ParseIdError { what: $what, text: text.to_owned() })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = ParseIdError;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id! {
    /// Twelve decimal digits: one account per installation.
    AccountId, "account id", |text| text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())
}

text_id! {
    /// Letters, digits and inner hyphens: what every AWS client accepts as a region.
    Region, "region", |text| {
        (1..=32).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !text.starts_with('-')
            && !text.ends_with('-')
    }
}

text_id! {
    /// A managed node of the hybrid kind: `mi-` and 17 lower-case hex digits.
    NodeId, "managed node id", |text| {
        text.strip_prefix("mi-").is_some_and(|rest| rest.len() == 17 && rest.bytes().all(is_lower_hex))
    }
}

text_id! {
    /// A session: the caller's name, `-`, and 17 lower-case hex digits; at most 96 characters of
    /// `[A-Za-z0-9_.@-]`, because nodes use it as a file name.
    SessionId, "session id", |text| {
        text.len() <= 96
            && text.rsplit_once('-').is_some_and(|(name, suffix)| {
                !name.is_empty()
                    && name.bytes().all(is_session_name_byte)
                    && suffix.len() == 17
                    && suffix.bytes().all(is_lower_hex)
            })
    }
}

text_id! {
    /// An access key: `AKIA` for a user's own, `ASIA` for temporary ones, then 16 characters of
    /// `A-Z2-7`.
    AccessKeyId, "access key id", |text| {
        text.len() == 20
            && (text.starts_with("AKIA") || text.starts_with("ASIA"))
            && text.bytes().skip(4).all(is_base32)
    }
}

text_id! {
    /// IAM's unique id of a principal: a kind of four letters and 17 characters of `A-Z2-7`.
    UniqueId, "unique id", |text| {
        text.len() == 21 && UniqueIdKind::of(text).is_some() && text.bytes().skip(4).all(is_base32)
    }
}

text_id! {
    /// An IAM user's name: 1 to 64 characters of `[A-Za-z0-9_+=,.@-]`.
    UserName, "user name", |text| {
        (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+=,.@-".contains(&b))
    }
}

fn is_lower_hex(b: u8) -> bool {
    matches!(b, b'0'..=b'9' | b'a'..=b'f')
}

fn is_base32(b: u8) -> bool {
    matches!(b, b'A'..=b'Z' | b'2'..=b'7')
}

fn is_session_name_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"_.@-".contains(&b)
}

fn lower_hex_17(random: [u8; 9]) -> String {
    let mut text: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    text.truncate(17);
    text
}

fn base32(random: impl IntoIterator<Item = u8>) -> String {
    const ALPHABET: [char; 32] = [
        'A', 'B', 'C', 'D', 'E', 'F', 'G', 'H', 'I', 'J', 'K', 'L', 'M', 'N', 'O', 'P', 'Q', 'R',
        'S', 'T', 'U', 'V', 'W', 'X', 'Y', 'Z', '2', '3', '4', '5', '6', '7',
    ];
    random
        .into_iter()
        .filter_map(|byte| ALPHABET.get(usize::from(byte & 31)))
        .collect()
}

impl AccountId {
    /// An account id made of random bytes. The first digit is never zero, so that no tool that
    /// reads it as a number loses a digit.
    #[must_use]
    pub fn from_random(random: [u8; 12]) -> Self {
        let digit = |(index, byte): (usize, u8)| {
            let digit = if index == 0 { 1 + byte % 9 } else { byte % 10 };
            char::from(b'0' + digit)
        };
        Self(random.into_iter().enumerate().map(digit).collect())
    }
}

impl NodeId {
    /// A node id made of random bytes.
    #[must_use]
    pub fn from_random(random: [u8; 9]) -> Self {
        Self(format!("mi-{}", lower_hex_17(random)))
    }
}

impl SessionId {
    /// A session id for `name`, with characters outside `[A-Za-z0-9_.@-]` replaced by `_` and the
    /// name cut so that the whole stays within 96 characters.
    #[must_use]
    pub fn from_random(name: &str, random: [u8; 9]) -> Self {
        let name = Self::name_part(name);
        Self(format!("{name}-{}", lower_hex_17(random)))
    }

    /// What stands for `name` in its sessions' ids: names that differ only in what is replaced have the
    /// same.
    #[must_use]
    pub fn name_part(name: &str) -> String {
        let mapped = name.chars().take(96 - 18);
        let mut part: String = mapped
            .map(|c| {
                if c.is_ascii() && is_session_name_byte(c as u8) {
                    c
                } else {
                    '_'
                }
            })
            .collect();
        if part.is_empty() {
            part.push('_');
        }
        part
    }
}

impl AccessKeyId {
    /// A long-lived key's id made of random bytes.
    #[must_use]
    pub fn long_lived(random: [u8; 16]) -> Self {
        Self(format!("AKIA{}", base32(random)))
    }

    /// A temporary key's id made of random bytes.
    #[must_use]
    pub fn temporary(random: [u8; 16]) -> Self {
        Self(format!("ASIA{}", base32(random)))
    }

    /// Whether requests under this key must carry a session token.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        self.0.starts_with("ASIA")
    }
}

/// What a unique id names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UniqueIdKind {
    /// `AGPA`.
    Group,
    /// `ANPA`.
    ManagedPolicy,
    /// `AROA`.
    Role,
    /// `AIDA`.
    User,
}

impl UniqueIdKind {
    fn prefix(self) -> &'static str {
        match self {
            Self::Group => "AGPA",
            Self::ManagedPolicy => "ANPA",
            Self::Role => "AROA",
            Self::User => "AIDA",
        }
    }

    fn of(text: &str) -> Option<Self> {
        [Self::Group, Self::ManagedPolicy, Self::Role, Self::User]
            .into_iter()
            .find(|kind| text.starts_with(kind.prefix()))
    }
}

impl UniqueId {
    /// A unique id of `kind` made of random bytes.
    #[must_use]
    pub fn from_random(kind: UniqueIdKind, random: [u8; 17]) -> Self {
        Self(format!("{}{}", kind.prefix(), base32(random)))
    }
}

/// An activation: a UUID in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ActivationId(Uuid);

impl ActivationId {
    /// An activation id that is this UUID.
    #[must_use]
    pub fn new(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl FromStr for ActivationId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || ParseIdError {
            what: "activation id",
            text: text.to_owned(),
        };
        // Only the hyphenated lower-case form: the others would be second names for one thing.
        let uuid = Uuid::try_parse(text).map_err(|_| refused())?;
        if uuid.to_string() == text {
            Ok(Self(uuid))
        } else {
            Err(refused())
        }
    }
}

impl fmt::Display for ActivationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minted_identifiers_parse_back() {
        for byte in [0, 7, 200, 255] {
            let account = AccountId::from_random([byte; 12]);
            assert_eq!(account.as_str().parse(), Ok(account));
            let node_id = NodeId::from_random([byte; 9]);
            assert_eq!(node_id.as_str().parse(), Ok(node_id));
            let key = AccessKeyId::temporary([byte; 16]);
            assert!(key.is_temporary());
            assert_eq!(key.as_str().parse(), Ok(key));
            let unique = UniqueId::from_random(UniqueIdKind::User, [byte; 17]);
            assert_eq!(unique.as_str().parse(), Ok(unique));
        }
    }

    #[test]
    fn session_ids_map_what_a_file_name_cannot_hold() {
        let session_id = SessionId::from_random("a/b c@example.org", [0xab; 9]);
        assert_eq!(session_id.as_str(), "a_b_c@example.org-ababababababababa");
        assert_eq!(session_id.as_str().parse(), Ok(session_id));
        let long = SessionId::from_random(&"x".repeat(200), [0; 9]);
        assert_eq!(long.as_str().len(), 96);
        assert_eq!(long.as_str().parse(), Ok(long));
        assert!(
            SessionId::from_random("", [0; 9])
                .as_str()
                .parse::<SessionId>()
                .is_ok()
        );
    }

    #[test]
    fn other_forms_are_refused() {
        assert!("mi-0123456789abcdef".parse::<NodeId>().is_err());
        assert!("mi-0123456789ABCDEF0".parse::<NodeId>().is_err());
        assert!("../../etc-0123456789abcdef0".parse::<SessionId>().is_err());
        assert!("-0123456789abcdef0".parse::<SessionId>().is_err());
        assert!("us.east".parse::<Region>().is_err());
        assert!("AKIAabc".parse::<AccessKeyId>().is_err());
        assert!(
            "3F2504E0-4F89-11D3-9A0C-0305E82C3301"
                .parse::<ActivationId>()
                .is_err()
        );
    }
}
