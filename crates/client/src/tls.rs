//! Whom a client trusts: the system's certificate authorities and, when configured, those of a
//! bundle. `SSL_CERT_FILE` and `SSL_CERT_DIR` take the place of the system's, as with OpenSSL.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    CipherSuite, ClientConfig, RootCertStore,
    crypto::{CryptoProvider, aws_lc_rs},
};
use rustls_pki_types::{CertificateDer, pem::PemObject};

/// A TLS configuration shared by API calls and data channels. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tls(Arc<ClientConfig>);

/// Why there is no TLS configuration.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The bundle cannot be read or holds something that is no certificate.
    #[error("cannot read the certificate authorities in {}", path.display())]
    Bundle {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// The bundle holds no certificate that can be trusted.
    #[error("{} holds no certificate authority", .0.display())]
    EmptyBundle(PathBuf),
    /// The cryptographic library does not offer what TLS needs.
    #[error("cannot set up tls")]
    Setup(#[source] rustls::Error),
}

impl Tls {
    /// Reads the system's authorities and those of `bundle`, a PEM file.
    ///
    /// # Errors
    /// When the bundle cannot be used. A system without authorities is no error here: a server
    /// that needs one of them is refused when it is dialled.
    pub fn new(bundle: Option<&Path>) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        let native = rustls_native_certs::load_native_certs();
        for error in &native.errors {
            tracing::debug!(%error, "a system certificate authority was left out");
        }
        roots.add_parsable_certificates(native.certs);
        if let Some(path) = bundle {
            add_bundle(&mut roots, path)?;
        }
        let config = ClientConfig::builder_with_provider(Arc::new(provider()))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Setup)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(Arc::new(config)))
    }

    pub(crate) fn config(&self) -> &Arc<ClientConfig> {
        &self.0
    }
}

/// The usual suites, with the fastest that is as good as the others first: it carries tunnels.
fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    let suites = &mut provider.cipher_suites;
    suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider
}

fn add_bundle(roots: &mut RootCertStore, path: &Path) -> Result<(), TlsError> {
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|source| TlsError::Bundle {
            path: path.to_owned(),
            source,
        })?;
    let (added, _) = roots.add_parsable_certificates(certificates);
    if added == 0 {
        return Err(TlsError::EmptyBundle(path.to_owned()));
    }
    Ok(())
}
