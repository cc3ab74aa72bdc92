//! The root key, and sealing: authenticated encryption under keys derived from it, one a purpose.
//! HKDF-SHA256 derives, AES-256-GCM seals. What is sealed, and what it means, is the callers'
//! matter.
//!
//! Sealed bytes are `nonce (12) ‖ ciphertext ‖ tag (16)`; the nonce is random. Associated data is
//! authenticated but not stored, so a sealed value opens only in the place it was made for.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    hkdf::{HKDF_SHA256, Salt},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sortie_types::Secret;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::mint::{self, RandomError};

/// The one key that an installation must not lose: 32 random bytes.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct RootKey {
    bytes: [u8; 32],
    previous: Option<[u8; 32]>,
}

impl std::fmt::Debug for RootKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RootKey(…)")
    }
}

impl RootKey {
    /// A root key that was kept.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self {
            bytes,
            previous: None,
        }
    }

    /// A new root key.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn generate() -> Result<Self, RandomError> {
        Ok(Self::from_bytes(mint::random()?))
    }

    /// The bytes, to be written where only the server reads them.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// This key seals, and what `previous` sealed still opens: how a root key is rotated.
    #[must_use]
    pub fn accepting(mut self, previous: &RootKey) -> Self {
        self.previous = Some(previous.bytes);
        self
    }

    /// The sealer for one purpose.
    pub(crate) fn derive(&self, purpose: Purpose) -> Result<Sealer, RandomError> {
        Ok(Sealer {
            current: derive_key(&self.bytes, purpose)?,
            previous: self
                .previous
                .as_ref()
                .map(|bytes| derive_key(bytes, purpose))
                .transpose()?,
        })
    }
}

/// What a derived key is for. Each has its own key, so nothing sealed for one opens as another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Secrets of long-lived access keys at rest.
    AccessKeySecret,
    /// Tokens that open channels.
    ChannelToken,
    /// Session tokens of temporary credentials.
    Credentials,
    /// Seeds of MFA devices at rest.
    MfaSeed,
    /// `NextToken` of listings.
    Page,
}

impl Purpose {
    /// The label that enters the derivation. Changing one makes everything sealed under it void.
    fn label(self) -> &'static [u8] {
        match self {
            Self::AccessKeySecret => b"sortie access-key-secret v1",
            Self::ChannelToken => b"sortie channel-token v1",
            Self::Credentials => b"sortie session-credentials v1",
            Self::MfaSeed => b"sortie mfa-seed v1",
            Self::Page => b"sortie page v1",
        }
    }
}

/// Bytes that were not sealed by us for this place, or were changed since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not sealed by this installation for this place")]
pub(crate) struct NotSealed;

/// Seals and opens for one purpose.
pub(crate) struct Sealer {
    current: RandomizedNonceKey,
    previous: Option<RandomizedNonceKey>,
}

fn derive_key(root: &[u8; 32], purpose: Purpose) -> Result<RandomizedNonceKey, RandomError> {
    let mut key = Zeroizing::new([0; 32]);
    Salt::new(HKDF_SHA256, b"sortie root key")
        .extract(root)
        .expand(&[purpose.label()], HKDF_SHA256)
        .and_then(|material| material.fill(key.as_mut()))
        .and_then(|()| RandomizedNonceKey::new(&AES_256_GCM, key.as_ref()))
        .map_err(|_| RandomError)
}

impl Sealer {
    /// Seals `plain` for the place that `place` names.
    pub(crate) fn seal(&self, place: &[u8], plain: &[u8]) -> Result<Vec<u8>, RandomError> {
        let mut text = plain.to_vec();
        let nonce = self
            .current
            .seal_in_place_append_tag(Aad::from(place), &mut text)
            .map_err(|_| RandomError)?;
        let mut sealed = nonce.as_ref().to_vec();
        sealed.append(&mut text);
        Ok(sealed)
    }

    /// Opens what was sealed for `place`.
    pub(crate) fn open(
        &self,
        place: &[u8],
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, NotSealed> {
        open_with(&self.current, place, sealed).or_else(|refused| match &self.previous {
            Some(previous) => open_with(previous, place, sealed),
            None => Err(refused),
        })
    }

    /// Seals into text of the URL-safe base64 alphabet, without padding.
    pub(crate) fn seal_text(&self, place: &[u8], plain: &[u8]) -> Result<String, RandomError> {
        Ok(URL_SAFE_NO_PAD.encode(self.seal(place, plain)?))
    }

    /// Opens what [`Self::seal_text`] made.
    pub(crate) fn open_text(
        &self,
        place: &[u8],
        text: &str,
    ) -> Result<Zeroizing<Vec<u8>>, NotSealed> {
        let sealed = URL_SAFE_NO_PAD.decode(text).map_err(|_| NotSealed)?;
        self.open(place, &sealed)
    }
}

fn open_with(
    key: &RandomizedNonceKey,
    place: &[u8],
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, NotSealed> {
    let (nonce, text) = sealed.split_at_checked(NONCE_LEN).ok_or(NotSealed)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| NotSealed)?;
    let mut text = Zeroizing::new(text.to_vec());
    let length = key
        .open_in_place(nonce, Aad::from(place), text.as_mut_slice())
        .map_err(|_| NotSealed)?
        .len();
    text.truncate(length);
    Ok(text)
}

/// Secrets of long-lived access keys, as they lie in the state: bound to their key's id.
pub(crate) fn seal_access_key(
    sealer: &Sealer,
    access_key_id: &str,
    secret: &Secret,
) -> Result<Vec<u8>, RandomError> {
    sealer.seal(access_key_id.as_bytes(), secret.expose().as_bytes())
}

/// The other direction of [`seal_access_key`].
pub(crate) fn open_access_key(
    sealer: &Sealer,
    access_key_id: &str,
    sealed: &[u8],
) -> Result<Secret, NotSealed> {
    let plain = sealer.open(access_key_id.as_bytes(), sealed)?;
    std::str::from_utf8(&plain)
        .map(Secret::new)
        .map_err(|_| NotSealed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer(byte: u8, purpose: Purpose) -> Sealer {
        RootKey::from_bytes([byte; 32]).derive(purpose).unwrap()
    }

    #[test]
    fn what_is_sealed_opens_in_its_place_only() {
        let page = sealer(1, Purpose::Page);
        let text = page.seal_text(b"DescribeSessions", b"cursor").unwrap();
        assert_eq!(
            page.open_text(b"DescribeSessions", &text)
                .unwrap()
                .as_slice(),
            b"cursor"
        );
        assert!(page.open_text(b"LookupEvents", &text).is_err());
        assert!(
            sealer(1, Purpose::ChannelToken)
                .open_text(b"DescribeSessions", &text)
                .is_err()
        );
        assert!(
            sealer(2, Purpose::Page)
                .open_text(b"DescribeSessions", &text)
                .is_err()
        );
    }

    #[test]
    fn no_changed_bit_and_no_cut_opens() {
        let page = sealer(1, Purpose::Page);
        let sealed = page.seal(b"", b"cursor").unwrap();
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(page.open(b"", &changed).is_err(), "bit {bit}");
        }
        for length in 0..sealed.len() {
            assert!(
                page.open(b"", &sealed[..length]).is_err(),
                "length {length}"
            );
        }
    }

    #[test]
    fn a_rotated_root_key_opens_what_the_one_before_sealed() {
        let old = RootKey::from_bytes([1; 32]);
        let sealed = old.derive(Purpose::Page).unwrap().seal(b"", b"x").unwrap();
        let both = RootKey::from_bytes([2; 32]).accepting(&old);
        let rotated = both.derive(Purpose::Page).unwrap();
        assert_eq!(rotated.open(b"", &sealed).unwrap().as_slice(), b"x");
        let fresh = rotated.seal(b"", b"y").unwrap();
        assert!(
            old.derive(Purpose::Page)
                .unwrap()
                .open(b"", &fresh)
                .is_err()
        );
    }

    #[test]
    fn debug_shows_nothing_of_the_key() {
        assert_eq!(format!("{:?}", RootKey::from_bytes([7; 32])), "RootKey(…)");
    }
}
