//! Why a signature is refused, and the error that each protocol has for it.

use sortie_types::Timestamp;

use crate::{AwsError, Protocol};

/// Why a request is not authenticated.
///
/// The messages are AWS's. `UnknownKey`, `InvalidToken` and `ExpiredToken` are for those who look
/// keys up; nothing in this module returns them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SigError {
    /// The session token's time is over.
    #[error("The security token included in the request is expired")]
    ExpiredToken,
    /// The request's time is too long ago.
    #[error(
        "Signature expired: {} is now earlier than {} ({} - {minutes} min.)",
        signed.iso_basic(), limit.iso_basic(), now.iso_basic()
    )]
    Expired {
        /// When it says it was signed.
        signed: Timestamp,
        /// The earliest time taken.
        limit: Timestamp,
        /// Our time.
        now: Timestamp,
        /// The tolerance.
        minutes: u64,
    },
    /// What is presented cannot be read, or lacks a part.
    #[error("{0}")]
    Incomplete(String),
    /// The session token is not one of ours, or not this key's.
    #[error("The security token included in the request is invalid.")]
    InvalidToken,
    /// The signature, or what it should cover, is not what it must be.
    #[error("{0}")]
    Invalid(String),
    /// Nothing is presented.
    #[error("Request is missing Authentication Token")]
    Missing,
    /// The request's time is too far ahead.
    #[error(
        "Signature not yet current: {} is still later than {} ({} + {minutes} min.)",
        signed.iso_basic(), limit.iso_basic(), now.iso_basic()
    )]
    NotYetCurrent {
        /// When it says it was signed.
        signed: Timestamp,
        /// The latest time taken.
        limit: Timestamp,
        /// Our time.
        now: Timestamp,
        /// The tolerance.
        minutes: u64,
    },
    /// A presigned request's life is over.
    #[error("Request has expired.")]
    PresignedOver,
    /// The signature differs.
    #[error(
        "The request signature we calculated does not match the signature you provided. Check your AWS \
         Secret Access Key and signing method. Consult the service documentation for details."
    )]
    SignatureDoesNotMatch,
    /// The access key is unknown or inactive.
    #[error("The security token included in the request is invalid.")]
    UnknownKey,
}

impl SigError {
    /// The error that a caller of this protocol gets.
    #[must_use]
    pub fn code_for(&self, protocol: Protocol) -> AwsError {
        let (code, status) = match protocol {
            Protocol::Json11 => (self.json_code(), 400),
            Protocol::Channel => (self.json_code(), 403),
            Protocol::Query => self.query_code(),
            Protocol::Rest => self.rest_code(),
        };
        AwsError::new(code, status, self.to_string())
    }

    fn json_code(&self) -> &'static str {
        match self {
            Self::Missing => "MissingAuthenticationTokenException",
            Self::Incomplete(_) => "IncompleteSignatureException",
            Self::UnknownKey | Self::InvalidToken => "UnrecognizedClientException",
            Self::ExpiredToken => "ExpiredTokenException",
            Self::Expired { .. }
            | Self::Invalid(_)
            | Self::NotYetCurrent { .. }
            | Self::PresignedOver
            | Self::SignatureDoesNotMatch => "InvalidSignatureException",
        }
    }

    fn query_code(&self) -> (&'static str, u16) {
        match self {
            Self::Missing => ("MissingAuthenticationToken", 403),
            Self::Incomplete(_) => ("IncompleteSignature", 400),
            Self::UnknownKey | Self::InvalidToken => ("InvalidClientTokenId", 403),
            Self::ExpiredToken => ("ExpiredToken", 403),
            Self::PresignedOver => ("RequestExpired", 400),
            Self::Expired { .. }
            | Self::Invalid(_)
            | Self::NotYetCurrent { .. }
            | Self::SignatureDoesNotMatch => ("SignatureDoesNotMatch", 403),
        }
    }

    fn rest_code(&self) -> (&'static str, u16) {
        match self {
            Self::Missing | Self::PresignedOver => ("AccessDenied", 403),
            Self::Incomplete(_) => ("AuthorizationHeaderMalformed", 400),
            Self::UnknownKey => ("InvalidAccessKeyId", 403),
            Self::InvalidToken => ("InvalidToken", 400),
            Self::ExpiredToken => ("ExpiredToken", 400),
            Self::Expired { .. } | Self::NotYetCurrent { .. } => ("RequestTimeTooSkewed", 403),
            Self::Invalid(_) | Self::SignatureDoesNotMatch => ("SignatureDoesNotMatch", 403),
        }
    }
}
