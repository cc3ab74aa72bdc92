//! Signature Version 4: reading what a caller presents, verifying it, and signing.
//!
//! `parse` needs no key and says who the caller claims to be; whoever knows the secret or the
//! public key of that name then calls `verify` or `verify_rsa`. Looking keys up, and whether a
//! session token fits its key, are not decided here. Time is an argument.
//!
//! What is trusted: nothing but bytes under the signature. The body's hash is always computed
//! (S3 alone knows unsigned bodies), and an `X-Amz-…` header that is not signed is refused, because a header added on the way could
//! turn a request into another operation. Two are excepted, see `UNSIGNED_ALLOWED`.

mod canonical;
mod error;
mod parse;
mod sign;
#[cfg(test)]
mod tests;
mod verify;

pub use error::SigError;
pub use parse::{Authorization, Presented, parse};
pub use sign::{Credentials, presign, sign, sign_rsa};
pub use verify::is_public_key;

use std::time::Duration;

/// The only algorithm.
const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// The last part of every scope.
const TERMINATION: &str = "aws4_request";
/// How far a request's time may be from ours.
const SKEW: Duration = Duration::from_mins(5);
/// The same for S3.
const SKEW_S3: Duration = Duration::from_mins(15);
/// The longest life of a presigned request.
const LONGEST_PRESIGNED: Duration = Duration::from_hours(7 * 24);
/// Headers of the `x-amz-` family that need not be signed. Official nodes leave the first
/// unsigned, and it is computed here anyway; some clients add the second after signing, and a
/// changed token means a changed secret, so the signature covers it all the same.
const UNSIGNED_ALLOWED: [&str; 2] = ["x-amz-content-sha256", "x-amz-security-token"];

/// A request as far as signatures look at it.
#[derive(Clone, Copy, Debug)]
pub struct RequestParts<'a> {
    /// The method in upper case.
    pub method: &'a str,
    /// The path as received, percent-encoded, without query; empty counts as `/`.
    pub path: &'a str,
    /// The query as received, without question mark.
    pub query: &'a str,
    /// The headers in order, names in any case, including `host`.
    pub headers: &'a [(&'a str, &'a [u8])],
}

impl<'a> RequestParts<'a> {
    /// Every value of a header, in order; `name` in lower case.
    fn values(&self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        let found = self
            .headers
            .iter()
            .filter(move |(header, _)| header.eq_ignore_ascii_case(name));
        found.map(|(_, value)| *value)
    }

    /// The value of a header that may come once only.
    fn single(&self, name: &'a str) -> Result<Option<&'a [u8]>, SigError> {
        let mut values = self.values(name);
        let first = values.next();
        if values.next().is_some() {
            return Err(SigError::Incomplete(format!(
                "Header '{name}' is present more than once."
            )));
        }
        Ok(first)
    }
}

/// What a request must be signed for.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// The service's signing name.
    pub service: &'a str,
    /// The regions taken: the installation's own, and `us-east-1` for global services.
    pub regions: &'a [&'a str],
}
