//! Random bytes, and the identifiers, codes and secrets made of them.

use aws_lc_rs::rand;
use sortie_types::{AccessKeyId, AccountId, NodeId, Secret, SessionId, UniqueId, UniqueIdKind};
use uuid::Uuid;

/// The operating system gave no random bytes, or could not encrypt with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no random bytes to be had")]
pub struct RandomError;

/// Characters of an activation code. 20 of them are 119 bits.
const CODE_LENGTH: usize = 20;

pub(crate) fn random<const N: usize>() -> Result<[u8; N], RandomError> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| RandomError)?;
    Ok(bytes)
}

pub(crate) fn uuid() -> Result<Uuid, RandomError> {
    Ok(uuid::Builder::from_random_bytes(random()?).into_uuid())
}

pub(crate) fn account_id() -> Result<AccountId, RandomError> {
    Ok(AccountId::from_random(random()?))
}

pub(crate) fn user_unique_id() -> Result<UniqueId, RandomError> {
    Ok(UniqueId::from_random(UniqueIdKind::User, random()?))
}

pub(crate) fn long_lived_key() -> Result<AccessKeyId, RandomError> {
    Ok(AccessKeyId::long_lived(random()?))
}

pub(crate) fn temporary_key() -> Result<AccessKeyId, RandomError> {
    Ok(AccessKeyId::temporary(random()?))
}

pub(crate) fn node_id() -> Result<NodeId, RandomError> {
    Ok(NodeId::from_random(random()?))
}

pub(crate) fn session_id(name: &str) -> Result<SessionId, RandomError> {
    Ok(SessionId::from_random(name, random()?))
}

/// A secret access key: 40 characters of base64, 240 bits.
pub(crate) fn secret_access_key() -> Result<Secret, RandomError> {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    Ok(Secret::new(STANDARD.encode(random::<30>()?)))
}

/// An activation code: letters and digits, so that it survives being pasted into any shell.
pub(crate) fn activation_code() -> Result<Secret, RandomError> {
    const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut code = String::with_capacity(CODE_LENGTH);
    while code.len() < CODE_LENGTH {
        // Values that do not divide evenly are thrown away, so every character is equally likely.
        let drawn = random::<32>()?;
        let characters = drawn
            .iter()
            .filter_map(|byte| ALPHABET.get(usize::from(byte & 63)));
        code.extend(
            characters
                .take(CODE_LENGTH - code.len())
                .map(|byte| char::from(*byte)),
        );
    }
    Ok(Secret::new(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_secrets_have_their_lengths_and_differ() {
        let (one, two) = (activation_code().unwrap(), activation_code().unwrap());
        assert_eq!(one.expose().len(), CODE_LENGTH);
        assert!(one.expose().bytes().all(|b| b.is_ascii_alphanumeric()));
        assert_ne!(one.expose(), two.expose());
        assert_eq!(secret_access_key().unwrap().expose().len(), 40);
    }
}
