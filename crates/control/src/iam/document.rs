//! Policy documents as operations take them: what is no policy is refused in AWS's words, and what
//! stands in one can be found in its text.

use std::ops::Range;

use serde::Deserialize;
use serde_json::value::RawValue;
use sortie_iam::{Policy, PolicyError, PolicyKind};

use super::error::IamError;

/// Refuses what is no policy of this kind.
pub(crate) fn check_policy(text: &str, kind: PolicyKind) -> Result<(), IamError> {
    Policy::parse(text, kind).map(|_| ()).map_err(refusal)
}

/// A policy's error as the operation's.
pub(crate) fn refusal(error: PolicyError) -> IamError {
    match error {
        PolicyError::LimitExceeded { .. } => IamError::LimitExceeded(error.to_string()),
        PolicyError::Malformed { .. } => IamError::MalformedPolicyDocument(error.to_string()),
    }
}

#[derive(Deserialize)]
struct DocumentPart<'a> {
    #[serde(borrow, rename = "Statement")]
    statement: &'a RawValue,
}

/// The statements of a document that is known to be a policy, as they stand there.
pub(crate) fn statements(text: &str) -> Vec<&RawValue> {
    serde_json::from_str::<DocumentPart<'_>>(text)
        .map(|document| one_or_more(document.statement))
        .unwrap_or_default()
}

/// A value, or the values of a list: policies may leave out the brackets around one.
pub(crate) fn one_or_more(raw: &RawValue) -> Vec<&RawValue> {
    serde_json::from_str(raw.get()).unwrap_or_else(|_| vec![raw])
}

/// Where a value that was read out of a text stands in it.
pub(crate) fn place(text: &str, raw: &RawValue) -> Option<Range<usize>> {
    // The value is a piece of the text, so its place is the distance between the two.
    let start = raw
        .get()
        .as_ptr()
        .addr()
        .checked_sub(text.as_ptr().addr())?;
    let span = start..start.checked_add(raw.get().len())?;
    text.get(span.clone()).map(|_| span)
}
