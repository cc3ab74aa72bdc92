//! Whom the agent takes for the server: the system's certificate authorities and the one given at
//! registration.

use std::sync::Arc;

use rustls::{
    CipherSuite, ClientConfig, RootCertStore,
    crypto::{CryptoProvider, aws_lc_rs},
};
use rustls_pki_types::{CertificateDer, pem::PemObject};

/// Why no TLS configuration could be made.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The CA file holds something else.
    #[error("the CA file holds no certificate in PEM form")]
    NoCertificate,
    /// A certificate that cannot be an authority.
    #[error("a certificate of the CA file cannot be used")]
    Certificate(#[source] rustls::Error),
    /// Neither the system nor the CA file names an authority.
    #[error("there is no certificate authority to trust: give one with --ca-file")]
    Nobody,
    /// The cryptography library refuses its own versions.
    #[error("cannot set up TLS")]
    Tls(#[source] rustls::Error),
}

/// A TLS configuration that trusts the system's authorities and those in `ca_pem`.
pub(crate) fn client_config(ca_pem: Option<&str>) -> Result<Arc<ClientConfig>, TrustError> {
    let mut roots = RootCertStore::empty();
    // Some systems carry certificates that cannot be parsed; the others still count.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(pem) = ca_pem {
        for certificate in certificates(pem)? {
            roots.add(certificate).map_err(TrustError::Certificate)?;
        }
    }
    if roots.is_empty() {
        return Err(TrustError::Nobody);
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()
        .map_err(TrustError::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    // Websockets need HTTP/1.1, and REST calls gain nothing from another connection kind.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The usual suites, with the fastest that is as good as the others first: it carries tunnels.
fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    let suites = &mut provider.cipher_suites;
    suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|_| TrustError::NoCertificate)?;
    if found.is_empty() {
        Err(TrustError::NoCertificate)
    } else {
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ca_file_without_a_certificate_is_refused() {
        assert!(matches!(
            client_config(Some("hello")),
            Err(TrustError::NoCertificate)
        ));
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(
            client_config(Some(broken)),
            Err(TrustError::Certificate(_))
        ));
    }
}
