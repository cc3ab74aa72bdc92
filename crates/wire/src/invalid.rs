//! Why an input is refused before anything acts on it, in AWS's words.

use std::fmt;

use crate::{error::AwsError, service::Protocol};

/// An input that is not of its shape.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidInput {
    /// It cannot be read at all: no JSON, or a member of another JSON type.
    #[error("{0}")]
    Malformed(String),
    /// It can be read and breaks these constraints. Never empty.
    #[error("{}", violations_message(.0))]
    Violations(Vec<Violation>),
}

/// One broken constraint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What was given, shortened; `None` when it was absent.
    pub value: Option<String>,
    /// Whether what was given must not be shown.
    pub secret: bool,
    /// Where, as AWS writes it: `filters.1.member.key`.
    pub path: String,
    /// The broken rule: `Member must not be null`.
    pub constraint: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            _ if self.secret => f.write_str("Value at ")?,
            Some(value) => write!(f, "Value '{value}' at ")?,
            None => f.write_str("Value null at ")?,
        }
        write!(
            f,
            "'{}' failed to satisfy constraint: {}",
            self.path, self.constraint
        )
    }
}

fn violations_message(violations: &[Violation]) -> String {
    let count = violations.len();
    let plural = if count == 1 { "" } else { "s" };
    let texts: Vec<String> = violations.iter().map(ToString::to_string).collect();
    format!(
        "{count} validation error{plural} detected: {}",
        texts.join("; ")
    )
}

impl InvalidInput {
    /// AWS's text for it.
    #[must_use]
    pub fn message(&self) -> String {
        self.to_string()
    }

    /// The error that a caller of a service of this protocol gets.
    #[must_use]
    pub fn to_error(&self, protocol: Protocol) -> AwsError {
        let code = match (self, protocol) {
            (Self::Malformed(_), Protocol::Json11 | Protocol::Channel) => "SerializationException",
            (Self::Violations(_), Protocol::Json11 | Protocol::Channel) => "ValidationException",
            (Self::Malformed(_), Protocol::Query) => "MalformedInput",
            (Self::Violations(_), Protocol::Query) => "ValidationError",
            (Self::Malformed(_), Protocol::Rest) => "MalformedXML",
            (Self::Violations(_), Protocol::Rest) => "InvalidRequest",
        };
        AwsError::new(code, 400, self.message())
    }
}
