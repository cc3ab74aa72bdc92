//! Percent-encoding as RFC 3986 and Signature Version 4 have it: everything but
//! `A-Z a-z 0-9 - . _ ~` is encoded, in upper-case hex. Bytes in, bytes out; nothing is refused.

use std::borrow::Cow;

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// Encodes all but unreserved characters, as iam does with policy documents.
#[must_use]
pub fn encode_component(text: &str) -> String {
    encode(text.as_bytes(), &[])
}

/// Encodes all but unreserved bytes and those in `kept`.
pub(crate) fn encode(bytes: &[u8], kept: &[u8]) -> String {
    const HEX: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F',
    ];
    let digit = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or('0');
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        if is_unreserved(byte) || kept.contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
    text
}

/// Decodes `%xx`; a percent sign that starts no such triple stands for itself.
pub(crate) fn decode(text: &[u8], plus_is_space: bool) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        match (first, after) {
            (b'%', [high, low, tail @ ..]) => match (nibble(*high), nibble(*low)) {
                (Some(high), Some(low)) => {
                    bytes.push(high << 4 | low);
                    rest = tail;
                }
                _ => bytes.push(b'%'),
            },
            (b'+', _) if plus_is_space => bytes.push(b' '),
            _ => bytes.push(first),
        }
    }
    bytes
}

/// As `decode`, where the result must be text.
pub(crate) fn decode_text(text: &str, plus_is_space: bool) -> Option<Cow<'_, str>> {
    if !text.bytes().any(|byte| byte == b'%' || byte == b'+') {
        return Some(Cow::Borrowed(text));
    }
    String::from_utf8(decode(text.as_bytes(), plus_is_space))
        .ok()
        .map(Cow::Owned)
}

fn nibble(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn broken_triples_stand_for_themselves() {
        assert_eq!(decode(b"%", false), b"%");
        assert_eq!(decode(b"%4", false), b"%4");
        assert_eq!(decode(b"%zz%41", false), b"%zzA");
        assert_eq!(decode(b"a+b", true), b"a b");
        assert_eq!(decode(b"a+b", false), b"a+b");
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes(bytes: Vec<u8>) {
            prop_assert_eq!(decode(encode(&bytes, b"").as_bytes(), true), bytes);
        }
    }
}
