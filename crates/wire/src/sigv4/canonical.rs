//! The canonical request and the string to sign: one text for every spelling of a request.

use aws_lc_rs::{digest, hmac};
use sortie_types::{Secret, Timestamp};

use super::{ALGORITHM, RequestParts, TERMINATION};
use crate::percent;

/// How a service treats paths.
#[derive(Clone, Copy, Debug)]
pub(super) struct PathStyle {
    /// Whether `.`, `..` and empty segments are taken out.
    pub(super) normalize: bool,
    /// Whether the encoded path is encoded once more.
    pub(super) encode_again: bool,
}

impl PathStyle {
    /// S3's objects may be named anything; all other services do both.
    pub(super) fn of(service: &str) -> Self {
        let everyone = service != "s3";
        Self {
            normalize: everyone,
            encode_again: everyone,
        }
    }
}

/// What the signature is for, in the text that is signed.
#[derive(Clone, Copy, Debug)]
pub(super) struct SignedScope<'a> {
    pub(super) time: Timestamp,
    pub(super) region: &'a str,
    pub(super) service: &'a str,
}

impl SignedScope<'_> {
    /// `20150830`.
    pub(super) fn date(&self) -> String {
        let mut time = self.time.iso_basic();
        time.truncate(8);
        time
    }

    /// `20150830/us-east-1/iam/aws4_request`.
    pub(super) fn text(&self) -> String {
        format!(
            "{}/{}/{}/{TERMINATION}",
            self.date(),
            self.region,
            self.service
        )
    }

    /// The text that is signed for a canonical request.
    pub(super) fn string_to_sign(&self, canonical_request: &[u8]) -> Vec<u8> {
        let hash = sha256_hex(canonical_request);
        format!(
            "{ALGORITHM}\n{}\n{}\n{hash}",
            self.time.iso_basic(),
            self.text()
        )
        .into_bytes()
    }

    /// The key that is derived from a secret for this day, region and service.
    pub(super) fn key(&self, secret: &Secret) -> hmac::Key {
        let start = Secret::new(format!("AWS4{}", secret.expose()));
        let mut key = hmac::Key::new(hmac::HMAC_SHA256, start.expose().as_bytes());
        for part in [&self.date(), self.region, self.service, TERMINATION] {
            key = hmac::Key::new(
                hmac::HMAC_SHA256,
                hmac::sign(&key, part.as_bytes()).as_ref(),
            );
        }
        key
    }
}

/// The canonical request. `signed_headers` in lower case and sorted.
pub(super) fn request(
    parts: &RequestParts<'_>,
    signed_headers: &[String],
    style: PathStyle,
    payload_hash: &str,
) -> Vec<u8> {
    let mut text = Vec::new();
    for line in [parts.method, &path(parts.path, style), &query(parts.query)] {
        text.extend_from_slice(line.as_bytes());
        text.push(b'\n');
    }
    for name in signed_headers {
        text.extend_from_slice(name.as_bytes());
        text.push(b':');
        append_header_value(parts, name, &mut text);
        text.push(b'\n');
    }
    text.push(b'\n');
    text.extend_from_slice(signed_headers.join(";").as_bytes());
    text.push(b'\n');
    text.extend_from_slice(payload_hash.as_bytes());
    text
}

/// All values in order with commas between; white space at the ends dropped, inside made one.
fn append_header_value(parts: &RequestParts<'_>, name: &str, text: &mut Vec<u8>) {
    let values = parts
        .headers
        .iter()
        .filter(|(header, _)| header.eq_ignore_ascii_case(name));
    for (index, (_, value)) in values.enumerate() {
        if index > 0 {
            text.push(b',');
        }
        let words = value
            .split(u8::is_ascii_whitespace)
            .filter(|word| !word.is_empty());
        for (index, word) in words.enumerate() {
            if index > 0 {
                text.push(b' ');
            }
            text.extend_from_slice(word);
        }
    }
}

fn path(raw: &str, style: PathStyle) -> String {
    let normal = if style.normalize {
        normalized(raw)
    } else {
        raw.to_owned()
    };
    let normal = if normal.is_empty() {
        "/".to_owned()
    } else {
        normal
    };
    // As it was sent where once is enough: clients differ in what they encode, and each signs what
    // it sends. Only bytes that no path can hold are encoded.
    let kept: &[u8] = if style.encode_again {
        b"/"
    } else {
        b"/%!$&'()*+,;=:@"
    };
    percent::encode(normal.as_bytes(), kept)
}

/// RFC 3986's removal of dot segments, and of empty ones.
fn normalized(raw: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for segment in raw.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                kept.pop();
            }
            _ => kept.push(segment),
        }
    }
    let is_folder = ["/", "/.", "/.."].iter().any(|end| raw.ends_with(end));
    let end = if is_folder && !kept.is_empty() {
        "/"
    } else {
        ""
    };
    format!("/{}{end}", kept.join("/"))
}

/// The parameters encoded anew and sorted, without the signature itself.
fn query(raw: &str) -> String {
    let mut pairs: Vec<(String, String)> = raw
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (encoded_anew(name), encoded_anew(value)))
        .filter(|(name, _)| name != "X-Amz-Signature")
        .collect();
    pairs.sort();
    let pairs: Vec<String> = pairs
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    pairs.join("&")
}

fn encoded_anew(text: &str) -> String {
    // A plus sign is a space, as everything that reads the parameters takes it.
    percent::encode(&percent::decode(text.as_bytes(), true), b"")
}

/// Lower-case hex of the SHA-256 of some bytes.
pub(super) fn sha256_hex(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// Lower-case hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of lower-case hex; `None` for any other text.
pub(super) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    text.as_bytes()
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect()
}
