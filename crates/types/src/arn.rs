//! Amazon Resource Names: `arn:partition:service:region:account:resource`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A well-formed ARN. The resource part is free text and may itself contain colons.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Arn {
    text: String,
}

/// A text that is not an ARN.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an ARN")]
pub struct ParseArnError(pub String);

impl Arn {
    /// An ARN of partition `aws`. Region and account may be empty, as IAM's and AWS-owned
    /// documents' are.
    #[must_use]
    pub fn new(service: &str, region: &str, account: &str, resource: &str) -> Self {
        Self {
            text: format!("arn:aws:{service}:{region}:{account}:{resource}"),
        }
    }

    /// The whole text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The service part, such as `ssm`.
    #[must_use]
    pub fn service(&self) -> &str {
        self.part(2)
    }

    /// The resource part: all after the fifth colon.
    #[must_use]
    pub fn resource(&self) -> &str {
        self.part(5)
    }

    fn part(&self, index: usize) -> &str {
        self.text.splitn(6, ':').nth(index).unwrap_or_default()
    }
}

impl FromStr for Arn {
    type Err = ParseArnError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<&str> = text.splitn(6, ':').collect();
        match parts.as_slice() {
            ["arn", partition, service, _, _, resource]
                if !partition.is_empty() && !service.is_empty() && !resource.is_empty() =>
            {
                Ok(Self {
                    text: text.to_owned(),
                })
            }
            _ => Err(ParseArnError(text.to_owned())),
        }
    }
}

impl TryFrom<String> for Arn {
    type Error = ParseArnError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Arn> for String {
    fn from(arn: Arn) -> Self {
        arn.text
    }
}

impl fmt::Display for Arn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_read_back() {
        let arn = Arn::new("ssm", "local-1", "111122223333", "session/alice-0123");
        assert_eq!(
            arn.as_str(),
            "arn:aws:ssm:local-1:111122223333:session/alice-0123"
        );
        assert_eq!(arn.service(), "ssm");
        assert_eq!(arn.resource(), "session/alice-0123");
        assert_eq!(arn.to_string().parse(), Ok(arn));
    }

    #[test]
    fn texts_that_are_no_arns_are_refused() {
        for text in [
            "",
            "arn",
            "arn:aws:ssm:r:a",
            "arn:aws:ssm:r:a:",
            "urn:aws:ssm:r:a:x",
        ] {
            assert!(text.parse::<Arn>().is_err(), "{text}");
        }
    }
}
