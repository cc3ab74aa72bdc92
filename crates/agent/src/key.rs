//! The node's RSA key pair: made, kept as PEM, used to sign. Rotating it is `identity`'s.

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der},
    rand::SystemRandom,
    rsa::{KeyPair, KeySize},
    signature::{KeyPair as _, RSA_PSS_SHA256},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use rustls_pki_types::{PrivatePkcs8KeyDer, pem::PemObject};
use zeroize::Zeroizing;

/// A node's key pair, RSA of 2048 bits.
pub(crate) struct NodeKey {
    pair: KeyPair,
}

/// Why a key could not be made, read or used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The library gives no reason.
    #[error("the cryptography library failed")]
    Cryptography,
    /// Not a key file.
    #[error("the key file is not an RSA private key in PKCS#8 PEM form")]
    File,
}

impl NodeKey {
    /// A new key pair. Takes some tenths of a second.
    pub(crate) fn generate() -> Result<Self, KeyError> {
        let pair = KeyPair::generate(KeySize::Rsa2048).map_err(|_| KeyError::Cryptography)?;
        Ok(Self { pair })
    }

    /// Reads what [`Self::to_pem`] wrote.
    pub(crate) fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(|_| KeyError::File)?;
        let pair = KeyPair::from_pkcs8(der.secret_pkcs8_der()).map_err(|_| KeyError::File)?;
        Ok(Self { pair })
    }

    /// The private key as PKCS#8 in PEM.
    pub(crate) fn to_pem(&self) -> Result<Zeroizing<String>, KeyError> {
        let der: Pkcs8V1Der<'_> = self.pair.as_der().map_err(|_| KeyError::Cryptography)?;
        let base64 = Zeroizing::new(STANDARD.encode(der.as_ref()));
        let mut pem = Zeroizing::new(String::with_capacity(2048));
        pem.push_str("-----BEGIN PRIVATE KEY-----\n");
        let mut rest = base64.as_str();
        while !rest.is_empty() {
            let (line, after) = rest.split_at(rest.len().min(64));
            pem.push_str(line);
            pem.push('\n');
            rest = after;
        }
        pem.push_str("-----END PRIVATE KEY-----\n");
        Ok(pem)
    }

    /// The public key as it goes over the wire: base64 of the DER SubjectPublicKeyInfo.
    pub(crate) fn public_key(&self) -> Result<String, KeyError> {
        let der: PublicKeyX509Der<'_> = self
            .pair
            .public_key()
            .as_der()
            .map_err(|_| KeyError::Cryptography)?;
        Ok(STANDARD.encode(der.as_ref()))
    }

    /// RSASSA-PSS with SHA-256 and a salt of 32 bytes over `message`.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair
            .sign(
                &RSA_PSS_SHA256,
                &SystemRandom::new(),
                message,
                &mut signature,
            )
            .map_err(|_| KeyError::Cryptography)?;
        Ok(signature)
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{RSA_PSS_2048_8192_SHA256, UnparsedPublicKey};

    use super::*;

    #[test]
    fn a_key_survives_its_file_and_its_signatures_are_accepted() {
        let made = NodeKey::generate().unwrap();
        let key = NodeKey::from_pem(made.to_pem().unwrap().as_bytes()).unwrap();
        let public = key.public_key().unwrap();
        // The length that official nodes send and demand.
        assert_eq!(public.len(), 392);
        assert_eq!(public, made.public_key().unwrap());
        let spki = STANDARD.decode(public).unwrap();
        let signature = key.sign(b"hello").unwrap();
        let verifier = UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, spki);
        assert!(verifier.verify(b"hello", &signature).is_ok());
        assert!(verifier.verify(b"hullo", &signature).is_err());
    }

    #[test]
    fn other_files_are_no_keys() {
        assert!(matches!(NodeKey::from_pem(b"hello"), Err(KeyError::File)));
    }
}
