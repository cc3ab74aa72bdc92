//! Signs requests: with a secret, in headers or in the query, and with a node's RSA key.

use std::{convert::Infallible, time::Duration};

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_STANDARD};
use sortie_types::{Secret, Timestamp};

use super::{
    ALGORITHM, RequestParts,
    canonical::{self, PathStyle, SignedScope, hex, sha256_hex},
};
use crate::percent;

/// Headers that proxies and HTTP libraries change or add, and that are never signed.
const NEVER_SIGNED: [&str; 7] = [
    "authorization",
    "connection",
    "expect",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "x-amzn-trace-id",
];

/// What a caller signs with.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// `AKIA…` or `ASIA…`.
    pub access_key_id: String,
    /// The key itself.
    pub secret_access_key: Secret,
    /// Of temporary credentials.
    pub session_token: Option<Secret>,
}

/// Signs a request and returns the headers to add. Signed are all headers of `parts`, which must
/// hold `host`, except those that change on the way.
#[must_use]
pub fn sign(
    parts: &RequestParts<'_>,
    body: &[u8],
    credentials: &Credentials,
    service: &str,
    region: &str,
    now: Timestamp,
) -> Vec<(String, String)> {
    let scope = SignedScope {
        time: now,
        region,
        service,
    };
    let mut added = vec![("x-amz-date".to_owned(), now.iso_basic())];
    if let Some(token) = &credentials.session_token {
        added.push(("x-amz-security-token".to_owned(), token.expose().to_owned()));
    }
    if service == "s3" {
        added.push(("x-amz-content-sha256".to_owned(), sha256_hex(body)));
    }
    let key = scope.key(&credentials.secret_access_key);
    let signature = |text: &[u8]| Ok::<_, Infallible>(hex(hmac::sign(&key, text).as_ref()));
    match signed(
        parts,
        body,
        &scope,
        &credentials.access_key_id,
        added,
        signature,
    ) {
        Ok(headers) => headers,
    }
}

/// Signs a node's request with its RSA key and returns the headers to add. `sign` gets the text
/// and gives the RSASSA-PSS signature (SHA-256, salt of 32 bytes).
///
/// # Errors
/// The error of `sign`.
pub fn sign_rsa<E>(
    parts: &RequestParts<'_>,
    body: &[u8],
    node_id: &str,
    region: &str,
    now: Timestamp,
    sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>,
) -> Result<Vec<(String, String)>, E> {
    let scope = SignedScope {
        time: now,
        region,
        service: "ssm",
    };
    let added = vec![("x-amz-date".to_owned(), now.iso_basic())];
    signed(parts, body, &scope, node_id, added, |text| {
        Ok(BASE64_STANDARD.encode(sign(text)?))
    })
}

/// Adds `Authorization` to `added`, which is signed too.
fn signed<E>(
    parts: &RequestParts<'_>,
    body: &[u8],
    scope: &SignedScope<'_>,
    access_key: &str,
    mut added: Vec<(String, String)>,
    signature: impl FnOnce(&[u8]) -> Result<String, E>,
) -> Result<Vec<(String, String)>, E> {
    // A header that is added replaces one of the same name.
    let is_added = |name: &str| {
        added
            .iter()
            .any(|(other, _)| other.eq_ignore_ascii_case(name))
    };
    let mut headers: Vec<(&str, &[u8])> = parts
        .headers
        .iter()
        .filter(|(name, _)| !is_added(name))
        .copied()
        .collect();
    headers.extend(
        added
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_bytes())),
    );
    let all = RequestParts {
        headers: &headers,
        ..*parts
    };
    let names = signed_names(&all);
    let canonical = canonical::request(
        &all,
        &names,
        PathStyle::of(scope.service),
        &sha256_hex(body),
    );
    let signature = signature(&scope.string_to_sign(&canonical))?;
    let authorization = format!(
        "{ALGORITHM} Credential={access_key}/{}, SignedHeaders={}, Signature={signature}",
        scope.text(),
        names.join(";"),
    );
    added.push(("authorization".to_owned(), authorization));
    Ok(added)
}

fn signed_names(parts: &RequestParts<'_>) -> Vec<String> {
    let mut names: Vec<String> = parts
        .headers
        .iter()
        .map(|(name, _)| name.to_ascii_lowercase())
        .collect();
    names.retain(|name| !NEVER_SIGNED.contains(&name.as_str()));
    names.sort();
    names.dedup();
    names
}

/// Presigns a request and returns its whole query, `parts.query` included. Signed are the headers
/// of `parts`, normally `host` alone; whoever uses the URL must send the same. `expires` is cut to
/// whole seconds; servers refuse more than a week.
#[must_use]
pub fn presign(
    parts: &RequestParts<'_>,
    body: &[u8],
    credentials: &Credentials,
    service: &str,
    region: &str,
    now: Timestamp,
    expires: Duration,
) -> String {
    let scope = SignedScope {
        time: now,
        region,
        service,
    };
    let names = signed_names(parts);
    let mut query = parts.query.to_owned();
    let mut add = |name: &str, value: &str| {
        if !query.is_empty() {
            query.push('&');
        }
        query.push_str(&format!(
            "{name}={}",
            percent::encode(value.as_bytes(), b"")
        ));
    };
    add("X-Amz-Algorithm", ALGORITHM);
    add(
        "X-Amz-Credential",
        &format!("{}/{}", credentials.access_key_id, scope.text()),
    );
    add("X-Amz-Date", &now.iso_basic());
    add("X-Amz-Expires", &expires.as_secs().to_string());
    add("X-Amz-SignedHeaders", &names.join(";"));
    if let Some(token) = &credentials.session_token {
        add("X-Amz-Security-Token", token.expose());
    }
    let all = RequestParts {
        query: &query,
        ..*parts
    };
    let payload_hash = if service == "s3" {
        "UNSIGNED-PAYLOAD".to_owned()
    } else {
        sha256_hex(body)
    };
    let canonical = canonical::request(&all, &names, PathStyle::of(service), &payload_hash);
    let key = scope.key(&credentials.secret_access_key);
    let signature = hex(hmac::sign(&key, &scope.string_to_sign(&canonical)).as_ref());
    format!("{query}&X-Amz-Signature={signature}")
}
