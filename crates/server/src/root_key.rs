//! Where the root key comes from: a private file made at the first start, or the environment. What
//! it is used for is `control`'s matter.

use std::path::Path;

use aws_lc_rs::rand;
use base64::{Engine, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

use crate::{
    config::RootKeySource,
    files::{FileError, read_private, write_private},
};

/// The key's 32 bytes, wiped when dropped.
pub(crate) type KeyBytes = Zeroizing<[u8; 32]>;

/// Why there is no root key.
#[derive(Debug, thiserror::Error)]
pub enum RootKeyError {
    /// Its file cannot be used.
    #[error("cannot use the root key's file")]
    File(#[from] FileError),
    /// The text is not 32 bytes in base64 or hex.
    #[error("the root key must be 32 bytes in base64 or hex")]
    Form,
    /// The installation exists but its key's file does not; a new key could open nothing.
    #[error("the root key `{0}` is missing; without it nothing that is sealed can be opened")]
    Missing(String),
    /// The system gave no random bytes.
    #[error("the system gave no random bytes")]
    Random,
}

/// Reads the root key, or makes it when the installation is `new`.
pub(crate) fn load(source: &RootKeySource, new: bool) -> Result<KeyBytes, RootKeyError> {
    match source {
        RootKeySource::Given(text) => parse(text.expose()),
        RootKeySource::File(path) => match read_private(path)?.map(Zeroizing::new) {
            Some(bytes) => parse(std::str::from_utf8(&bytes).map_err(|_| RootKeyError::Form)?),
            None if new => make(path),
            None => Err(RootKeyError::Missing(path.display().to_string())),
        },
    }
}

fn make(path: &Path) -> Result<KeyBytes, RootKeyError> {
    let mut bytes = KeyBytes::default();
    rand::fill(bytes.as_mut()).map_err(|_| RootKeyError::Random)?;
    let text = Zeroizing::new(STANDARD.encode(bytes.as_ref()) + "\n");
    write_private(path, text.as_bytes())?;
    Ok(bytes)
}

fn parse(text: &str) -> Result<KeyBytes, RootKeyError> {
    let text = text.trim();
    let bytes = match text.len() {
        64 => Zeroizing::new(from_hex(text).ok_or(RootKeyError::Form)?),
        _ => Zeroizing::new(STANDARD.decode(text).map_err(|_| RootKeyError::Form)?),
    };
    let array: [u8; 32] = bytes
        .as_slice()
        .try_into()
        .map_err(|_| RootKeyError::Form)?;
    Ok(Zeroizing::new(array))
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| {
        char::from(*byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    text.as_bytes()
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => Some(digit(high)? << 4 | digit(low)?),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use sortie_types::Secret;

    use super::*;

    #[test]
    fn a_new_installation_makes_its_key_and_keeps_it() {
        let directory = tempfile::tempdir().unwrap();
        let source = RootKeySource::File(directory.path().join("root.key"));
        let made = load(&source, true).unwrap();
        assert_ne!(*made, [0; 32]);
        assert_eq!(*load(&source, false).unwrap(), *made);
    }

    #[test]
    fn a_lost_key_is_never_replaced_silently() {
        let directory = tempfile::tempdir().unwrap();
        let source = RootKeySource::File(directory.path().join("root.key"));
        assert!(matches!(
            load(&source, false),
            Err(RootKeyError::Missing(_))
        ));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("root.key");
        let source = RootKeySource::File(path.clone());
        load(&source, true).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o604)).unwrap();
        assert!(matches!(
            load(&source, false),
            Err(RootKeyError::File(FileError::Exposed { .. }))
        ));
    }

    #[test]
    fn base64_and_hex_of_32_bytes_are_keys_and_nothing_else_is() {
        let hex = "07".repeat(32);
        let base64 = STANDARD.encode([7; 32]);
        for text in [hex.as_str(), base64.as_str()] {
            let key = load(&RootKeySource::Given(Secret::new(text)), true).unwrap();
            assert_eq!(*key, [7; 32]);
        }
        for text in ["", "abc", &"zz".repeat(32), &STANDARD.encode([7; 31])] {
            let source = RootKeySource::Given(Secret::new(text));
            assert!(
                matches!(load(&source, true), Err(RootKeyError::Form)),
                "{text}"
            );
        }
    }
}
