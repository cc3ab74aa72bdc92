//! TLS: the installation's own certificate authority, the server's certificate, and the rustls
//! configuration made of them. Both are ECDSA P-256. The server's certificate is issued again at a
//! start when names changed or its end is near; the authority lives for ten years.
//!
//! Only `http/1.1` is offered by ALPN: nodes would otherwise speak HTTP/2, over which a websocket
//! upgrade and the signed `Host` look different.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use rustls::{
    RootCertStore, ServerConfig,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::aws_lc_rs,
};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer, ServerName, UnixTime,
    pem::{self, PemObject},
};

use crate::{
    config::TlsSource,
    files::{FileError, private_dir, read_private, read_public, write_private, write_public},
};

const AUTHORITY_LIFE: Duration = Duration::from_secs(10 * 365 * 86_400);
/// Below the 398 days that some clients accept at most.
const SERVER_LIFE: Duration = Duration::from_secs(390 * 86_400);
/// A certificate with less time left is issued again.
const RENEW_BEFORE: Duration = Duration::from_secs(60 * 86_400);
/// Clocks of clients may be behind by this much.
const BACKDATE: Duration = Duration::from_secs(3_600);

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be used.
    #[error("cannot use a TLS file")]
    File(#[from] FileError),
    /// A PEM file holds no certificate or key.
    #[error("`{path}` holds no usable PEM")]
    Pem {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: pem::Error,
    },
    /// A file of the pair is missing.
    #[error("`{0}` does not exist")]
    Missing(PathBuf),
    /// A certificate could not be made.
    #[error("cannot issue the certificate")]
    Issue(#[from] rcgen::Error),
    /// rustls refuses certificate or key.
    #[error("certificate and key cannot be used")]
    Unusable(#[from] rustls::Error),
}

/// What the listener and those who start the server need to know.
pub(crate) struct Tls {
    /// For the acceptor.
    pub(crate) config: Arc<ServerConfig>,
    /// The own authority's certificate, when it is in use.
    pub(crate) ca_file: Option<PathBuf>,
}

/// Makes rustls use aws-lc-rs in this process. Must come before any TLS; later calls do nothing.
pub fn install_crypto_provider() {
    // An error says that one is installed already; only one is compiled in.
    let _ = aws_lc_rs::default_provider().install_default();
}

/// Loads or makes what `source` says. `directory` is the installation's `tls` directory.
pub(crate) fn load(source: &TlsSource, directory: &Path, now: SystemTime) -> Result<Tls, TlsError> {
    install_crypto_provider();
    let (chain, key, ca_file) = match source {
        TlsSource::Files { certificate, key } => {
            let (chain, key) = pair(certificate, key)?;
            (chain, key, None)
        }
        TlsSource::Own { names } => {
            let (chain, key) = own(names, directory, now)?;
            (chain, key, Some(directory.join("ca.pem")))
        }
    };
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Tls {
        config: Arc::new(config),
        ca_file,
    })
}

type Pair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn pair(certificate: &Path, key: &Path) -> Result<Pair, TlsError> {
    let missing = |path: &Path| TlsError::Missing(path.to_owned());
    let chain_pem = read_public(certificate)?.ok_or_else(|| missing(certificate))?;
    let key_pem = read_private(key)?.ok_or_else(|| missing(key))?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&chain_pem).collect();
    let bad = |path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::Pem { path, source }
    };
    let chain = chain.map_err(bad(certificate))?;
    if chain.is_empty() {
        return Err(bad(certificate)(pem::Error::NoItemsFound));
    }
    let key = PrivateKeyDer::from_pem_slice(&key_pem).map_err(bad(key))?;
    Ok((chain, key))
}

fn own(names: &[String], directory: &Path, now: SystemTime) -> Result<Pair, TlsError> {
    private_dir(directory)?;
    let authority = Authority::load_or_make(directory, now)?;
    let names = with_loopback(names);
    let certificate = directory.join("server.pem");
    let key = directory.join("server.key");
    let listed = directory.join("server.names");
    if read_public(&certificate)?.is_some() && key.exists() {
        let (chain, key) = pair(&certificate, &key)?;
        let same_names = read_public(&listed)?.is_some_and(|text| text == lines(&names));
        if same_names && authority.vouches_for(&chain, &names, now + RENEW_BEFORE) {
            return Ok((chain, key));
        }
    }
    let (certificate_pem, key_pem) = authority.issue(&names, now)?;
    write_private(&key, key_pem.as_bytes())?;
    write_public(&certificate, certificate_pem.as_bytes())?;
    write_public(&listed, &lines(&names))?;
    tracing::info!(names = names.join(" "), "issued the server's certificate");
    pair(&certificate, &key)
}

fn with_loopback(names: &[String]) -> Vec<String> {
    let loopback = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let all: BTreeSet<String> = names.iter().cloned().chain(loopback).collect();
    all.into_iter().collect()
}

fn lines(names: &[String]) -> Vec<u8> {
    (names.join("\n") + "\n").into_bytes()
}

/// The installation's certificate authority.
struct Authority {
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn load_or_make(directory: &Path, now: SystemTime) -> Result<Self, TlsError> {
        let certificate = directory.join("ca.pem");
        let key = directory.join("ca.key");
        let Some(key_pem) = read_private(&key)? else {
            return Self::make(&certificate, &key, now);
        };
        let pem = read_public(&certificate)?.ok_or(TlsError::Missing(certificate))?;
        let key_pem = String::from_utf8_lossy(&key_pem).into_owned();
        let certificate_pem = String::from_utf8_lossy(&pem).into_owned();
        let issuer = Issuer::from_ca_cert_pem(&certificate_pem, KeyPair::from_pem(&key_pem)?)?;
        Ok(Self {
            certificate_pem,
            issuer,
        })
    }

    fn make(certificate: &Path, key: &Path, now: SystemTime) -> Result<Self, TlsError> {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, "Sortie installation authority");
        params.not_before = (now - BACKDATE).into();
        params.not_after = (now + AUTHORITY_LIFE).into();
        let certificate_pem = params.self_signed(&pair)?.pem();
        // The certificate first: a key without one would look like a damaged installation.
        write_public(certificate, certificate_pem.as_bytes())?;
        write_private(key, pair.serialize_pem().as_bytes())?;
        Ok(Self {
            certificate_pem,
            issuer: Issuer::new(params, pair),
        })
    }

    fn issue(&self, names: &[String], now: SystemTime) -> Result<(String, String), TlsError> {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::new(names.to_vec())?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, "Sortie server");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        params.not_before = (now - BACKDATE).into();
        params.not_after = (now + SERVER_LIFE).into();
        let certificate = params.signed_by(&pair, &self.issuer)?;
        Ok((certificate.pem(), pair.serialize_pem()))
    }

    /// Whether a client that trusts this authority accepts `chain` for every name at `time`.
    fn vouches_for(
        &self,
        chain: &[CertificateDer<'static>],
        names: &[String],
        time: SystemTime,
    ) -> bool {
        let verified = || -> Option<()> {
            let mut roots = RootCertStore::empty();
            let root = CertificateDer::from_pem_slice(self.certificate_pem.as_bytes()).ok()?;
            roots.add(root).ok()?;
            let verifier = WebPkiServerVerifier::builder(Arc::new(roots))
                .build()
                .ok()?;
            let (server, intermediates) = chain.split_first()?;
            let time =
                UnixTime::since_unix_epoch(time.duration_since(SystemTime::UNIX_EPOCH).ok()?);
            for name in names.iter().filter(|name| !name.starts_with('*')) {
                let name = server_name(name)?;
                verifier
                    .verify_server_cert(server, intermediates, &name, &[], time)
                    .ok()?;
            }
            Some(())
        };
        verified().is_some()
    }
}

fn server_name(name: &str) -> Option<ServerName<'static>> {
    match name.parse::<IpAddr>() {
        Ok(address) => Some(ServerName::IpAddress(address.into())),
        Err(_) => ServerName::try_from(name.to_owned()).ok(),
    }
}

/// Writes the system's roots and the authority at `ca_file` into one file, for tools that take one
/// bundle in place of the system's.
pub(crate) fn write_bundle(ca_file: &Path, bundle: &Path) -> Result<(), TlsError> {
    let system = rustls_native_certs::load_native_certs();
    for error in &system.errors {
        tracing::debug!(%error, "a system root cannot be read");
    }
    let mut text = Vec::new();
    for certificate in &system.certs {
        text.extend_from_slice(pem_of(certificate).as_bytes());
    }
    let own = read_public(ca_file)?.ok_or_else(|| TlsError::Missing(ca_file.to_owned()))?;
    text.extend_from_slice(&own);
    Ok(write_public(bundle, &text)?)
}

fn pem_of(certificate: &CertificateDer<'_>) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let body = STANDARD.encode(certificate);
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for (index, character) in body.chars().enumerate() {
        if index > 0 && index % 64 == 0 {
            text.push('\n');
        }
        text.push(character);
    }
    text + "\n-----END CERTIFICATE-----\n"
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn named(names: &[&str]) -> TlsSource {
        TlsSource::Own {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    fn vouched(directory: &Path, name: &str, time: SystemTime) -> bool {
        let authority = Authority::load_or_make(directory, time).unwrap();
        let chain = fs::read(directory.join("server.pem")).unwrap();
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&chain)
            .collect::<Result<_, _>>()
            .unwrap();
        authority.vouches_for(&chain, &[name.to_owned()], time)
    }

    #[test]
    fn the_certificate_holds_its_names_and_loopback_and_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let source = named(&["sortie.example.org", "192.0.2.7"]);
        load(&source, directory.path(), now).unwrap();
        for name in [
            "sortie.example.org",
            "192.0.2.7",
            "localhost",
            "127.0.0.1",
            "::1",
        ] {
            assert!(vouched(directory.path(), name, now), "{name}");
        }
        assert!(!vouched(directory.path(), "other.example.org", now));
        let mode = |file: &str| {
            let metadata = fs::metadata(directory.path().join(file)).unwrap();
            metadata.permissions().mode() & 0o777
        };
        assert_eq!((mode("ca.key"), mode("server.key")), (0o600, 0o600));
    }

    #[test]
    fn a_start_keeps_the_certificate_until_names_change_or_its_end_is_near() {
        let directory = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let file = |name: &str| fs::read(directory.path().join(name)).unwrap();
        load(&named(&["a.example"]), directory.path(), now).unwrap();
        let (authority, first) = (file("ca.pem"), file("server.pem"));

        load(&named(&["a.example"]), directory.path(), now + 30 * DAY).unwrap();
        assert_eq!(file("server.pem"), first);

        load(&named(&[]), directory.path(), now).unwrap();
        let second = file("server.pem");
        assert_ne!(second, first, "a name was taken away");
        assert!(!vouched(directory.path(), "a.example", now));

        load(&named(&[]), directory.path(), now + 340 * DAY).unwrap();
        assert_ne!(file("server.pem"), second, "its end was near");
        assert_eq!(file("ca.pem"), authority);
    }

    #[test]
    fn own_files_are_used_and_a_lax_key_is_refused() {
        let made = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        load(&named(&[]), made.path(), now).unwrap();
        let source = TlsSource::Files {
            certificate: made.path().join("server.pem"),
            key: made.path().join("server.key"),
        };
        let unused = made.path().join("unused");
        assert!(load(&source, &unused, now).unwrap().ca_file.is_none());
        assert!(!unused.exists());
        let key = made.path().join("server.key");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(
            load(&source, &unused, now),
            Err(TlsError::File(FileError::Exposed { .. }))
        ));
    }

    #[test]
    fn the_bundle_holds_the_own_authority_besides_the_systems_roots() {
        let directory = tempfile::tempdir().unwrap();
        let tls = load(&named(&[]), directory.path(), SystemTime::now()).unwrap();
        let bundle = directory.path().join("bundle.pem");
        write_bundle(&tls.ca_file.unwrap(), &bundle).unwrap();
        let system = rustls_native_certs::load_native_certs().certs.len();
        let text = fs::read(&bundle).unwrap();
        assert_eq!(CertificateDer::pem_slice_iter(&text).count(), system + 1);
    }
}
