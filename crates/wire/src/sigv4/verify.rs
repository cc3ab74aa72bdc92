//! Judges a claim against the request it came with, a secret or a public key, and a time.

use std::time::Duration;

use aws_lc_rs::{
    hmac,
    signature::{ParsedPublicKey, RSA_PSS_2048_8192_SHA256},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use sortie_types::{Secret, Timestamp};

use super::{
    Authorization, RequestParts, SKEW, SKEW_S3, Scope, SigError, UNSIGNED_ALLOWED,
    canonical::{self, PathStyle, SignedScope, from_hex, sha256_hex},
};

/// Where a node's endpoint is written with the default port of its scheme, the official node signs
/// the port and then sends `Host` without it.
const DEFAULT_PORTS: [&[u8]; 2] = [b":443", b":80"];

/// Judges the request as if its `Host` had ended in `port`; `None` where it names a port already.
fn with_port<T>(
    parts: &RequestParts<'_>,
    port: &[u8],
    judge: impl FnOnce(&RequestParts<'_>) -> Result<T, SigError>,
) -> Result<Option<T>, SigError> {
    let Some(host) = parts.single("host")?.filter(|host| !names_port(host)) else {
        return Ok(None);
    };
    let host = [host, port].concat();
    let headers: Vec<(&str, &[u8])> = parts
        .headers
        .iter()
        .map(|(name, value)| {
            let is_host = name.eq_ignore_ascii_case("host");
            (*name, if is_host { host.as_slice() } else { *value })
        })
        .collect();
    judge(&RequestParts {
        headers: &headers,
        ..*parts
    })
    .map(Some)
}

/// Whether a port follows the name, or the address in brackets.
fn names_port(host: &[u8]) -> bool {
    let name_ends = host.iter().rposition(|byte| *byte == b']').unwrap_or(0);
    host.iter().skip(name_ends).any(|byte| *byte == b':')
}

/// Whether these bytes are an RSA public key that `verify_rsa` can use: 2048 to 8192 bits, the DER
/// of a `SubjectPublicKeyInfo` (or of the bare key inside one).
#[must_use]
pub fn is_public_key(spki_der: &[u8]) -> bool {
    ParsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, spki_der).is_ok()
}

impl Authorization {
    /// Judges a request signed with a shared secret. `body` is the whole body as received.
    ///
    /// # Errors
    /// Why the request is refused.
    pub fn verify(
        &self,
        parts: &RequestParts<'_>,
        body: &[u8],
        secret: &Secret,
        now: Timestamp,
        expect: &Scope<'_>,
    ) -> Result<(), SigError> {
        self.check(parts, now, expect)?;
        self.check_hmac(parts, body, secret, PathStyle::of(&self.service))
    }

    /// Judges a request signed by a node's RSA key (RSASSA-PSS with SHA-256 and a salt of 32
    /// bytes, base64 in place of hex; everything else as usual).
    ///
    /// # Errors
    /// Why the request is refused.
    pub fn verify_rsa(
        &self,
        parts: &RequestParts<'_>,
        body: &[u8],
        public_key_spki_der: &[u8],
        now: Timestamp,
        expect: &Scope<'_>,
    ) -> Result<(), SigError> {
        self.check(parts, now, expect)?;
        let refused = || SigError::SignatureDoesNotMatch;
        let signature = BASE64_STANDARD
            .decode(&self.signature)
            .map_err(|_| refused())?;
        let key = ParsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, public_key_spki_der)
            .map_err(|_| refused())?;
        let signs = |parts: &RequestParts<'_>| -> Result<bool, SigError> {
            let text = self.string_to_sign(parts, body)?;
            Ok(key.verify_sig(&text, &signature).is_ok())
        };
        if signs(parts)? {
            return Ok(());
        }
        for port in DEFAULT_PORTS {
            if with_port(parts, port, |parts| signs(parts))?.unwrap_or(false) {
                return Ok(());
            }
        }
        Err(refused())
    }

    /// The text that was signed if the claim is true.
    ///
    /// # Errors
    /// When a header is signed that the request does not have.
    pub fn string_to_sign(
        &self,
        parts: &RequestParts<'_>,
        body: &[u8],
    ) -> Result<Vec<u8>, SigError> {
        self.string_to_sign_as(parts, body, PathStyle::of(&self.service))
    }

    pub(super) fn string_to_sign_as(
        &self,
        parts: &RequestParts<'_>,
        body: &[u8],
        style: PathStyle,
    ) -> Result<Vec<u8>, SigError> {
        if self
            .signed_headers
            .iter()
            .any(|name| parts.values(name).next().is_none())
        {
            return Err(SigError::SignatureDoesNotMatch);
        }
        let payload_hash = self.payload_hash(parts, body)?;
        let canonical = canonical::request(parts, &self.signed_headers, style, &payload_hash);
        Ok(self.scope().string_to_sign(&canonical))
    }

    /// The last line of the canonical request. For S3 a caller may leave the body unsigned and
    /// says so there; for all others it is what the body hashes to, whatever a header says.
    fn payload_hash(&self, parts: &RequestParts<'_>, body: &[u8]) -> Result<String, SigError> {
        const UNSIGNED: &str = "UNSIGNED-PAYLOAD";
        let computed = sha256_hex(body);
        if self.service != "s3" {
            return Ok(computed);
        }
        match parts.single("x-amz-content-sha256")? {
            Some(declared) if declared == computed.as_bytes() => Ok(computed),
            Some(declared) if declared == UNSIGNED.as_bytes() => Ok(UNSIGNED.to_owned()),
            None if self.expires.is_some() => Ok(UNSIGNED.to_owned()),
            _ => Err(SigError::Invalid(
                "The provided 'x-amz-content-sha256' header does not match what was computed."
                    .to_owned(),
            )),
        }
    }

    /// The signature alone, in constant time.
    pub(super) fn check_hmac(
        &self,
        parts: &RequestParts<'_>,
        body: &[u8],
        secret: &Secret,
        style: PathStyle,
    ) -> Result<(), SigError> {
        let signature = from_hex(&self.signature).ok_or(SigError::SignatureDoesNotMatch)?;
        let text = self.string_to_sign_as(parts, body, style)?;
        let key = self.scope().key(secret);
        hmac::verify(&key, &text, &signature).map_err(|_| SigError::SignatureDoesNotMatch)
    }

    fn scope(&self) -> SignedScope<'_> {
        SignedScope {
            time: self.time,
            region: &self.region,
            service: &self.service,
        }
    }

    /// Everything but the signature.
    pub(super) fn check(
        &self,
        parts: &RequestParts<'_>,
        now: Timestamp,
        expect: &Scope<'_>,
    ) -> Result<(), SigError> {
        self.check_scope(expect)?;
        self.check_headers(parts)?;
        self.check_time(now)
    }

    fn check_scope(&self, expect: &Scope<'_>) -> Result<(), SigError> {
        if self.service != expect.service {
            return Err(SigError::Invalid(format!(
                "Credential should be scoped to correct service: '{}'.",
                expect.service
            )));
        }
        if !expect.regions.contains(&self.region.as_str()) {
            return Err(SigError::Invalid(
                "Credential should be scoped to a valid region.".to_owned(),
            ));
        }
        Ok(())
    }

    fn check_headers(&self, parts: &RequestParts<'_>) -> Result<(), SigError> {
        // Joined with commas a second host, date or target could mean another thing to whoever
        // reads the first or the last only.
        for name in [
            "host",
            "x-amz-date",
            "x-amz-target",
            "x-amz-content-sha256",
            "x-amz-security-token",
        ] {
            parts.single(name)?;
        }
        let is_signed = |name: &str| self.signed_headers.iter().any(|signed| signed == name);
        for (name, _) in parts.headers {
            let name = name.to_ascii_lowercase();
            let exempt = UNSIGNED_ALLOWED.contains(&name.as_str());
            if name.starts_with("x-amz-") && !exempt && !is_signed(&name) {
                return Err(must_be_signed(&name));
            }
        }
        // The time of a header claim comes from `Date` where there is no `X-Amz-Date`.
        let dated = self.expires.is_some() || parts.values("x-amz-date").next().is_some();
        if !dated && !is_signed("date") {
            return Err(must_be_signed("date"));
        }
        Ok(())
    }

    fn check_time(&self, now: Timestamp) -> Result<(), SigError> {
        let skew = if self.service == "s3" { SKEW_S3 } else { SKEW };
        let minutes = skew.as_secs() / 60;
        let latest = now.plus(skew);
        if self.time > latest {
            return Err(SigError::NotYetCurrent {
                signed: self.time,
                limit: latest,
                now,
                minutes,
            });
        }
        if let Some(expires) = self.expires {
            let over = now > self.time.plus(expires);
            return if over {
                Err(SigError::PresignedOver)
            } else {
                Ok(())
            };
        }
        let earliest = now.minus(skew);
        // The claim has whole seconds: within its second it counts as in time.
        if self.time.plus(Duration::from_millis(999)) < earliest {
            return Err(SigError::Expired {
                signed: self.time,
                limit: earliest,
                now,
                minutes,
            });
        }
        Ok(())
    }
}

fn must_be_signed(name: &str) -> SigError {
    let name: String = name.chars().take(64).collect();
    SigError::Invalid(format!(
        "'{name}' must be a 'SignedHeader' in the AWS Authorization."
    ))
}
