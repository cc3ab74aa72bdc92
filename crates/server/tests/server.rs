//! A whole server, started as the program starts it: its TLS, its bounds, its end, and what must
//! keep it from starting.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what is wrong by failing"
)]

use std::{
    fs, net::SocketAddr, os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration,
};

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use sortie_server::{
    Administrator, FileError, RootKeyError, Running, StartError,
    config::{Config, Settings},
    install_crypto_provider, start,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

const PATIENCE: Duration = Duration::from_secs(20);

fn config(directory: &Path) -> Config {
    let settings = Settings {
        data_dir: Some(directory.to_owned()),
        listen_tls: Some("127.0.0.1:0".parse().unwrap()),
        tls_names: Some(vec!["sortie.test".to_owned()]),
        ..Settings::default()
    };
    Config::judge(settings, None).unwrap()
}

/// A server with plain HTTP besides.
async fn both(directory: &Path) -> Running {
    let mut config = config(directory);
    config.listen_http = Some("127.0.0.1:0".parse().unwrap());
    start(config).await.unwrap()
}

fn client(ca_file: &Path, alpn: &[&str]) -> TlsConnector {
    install_crypto_provider();
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(ca_file).unwrap();
    roots.add(ca).unwrap();
    let mut config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

/// The answer to a request for `/health`, until the server closes.
async fn health<S: AsyncReadExt + AsyncWriteExt + Unpin>(mut stream: S) -> String {
    let request = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    answer
}

async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.unwrap()
}

#[tokio::test]
async fn tls_is_good_for_every_name_under_the_own_authority_and_http_1_alone() {
    let directory = TempDir::new().unwrap();
    let running = both(directory.path()).await;
    let ca_file = running.ca_file.clone().unwrap();
    for name in ["sortie.test", "localhost", "127.0.0.1"] {
        let connector = client(&ca_file, &["h2", "http/1.1"]);
        let name = ServerName::try_from(name).unwrap();
        let stream = connector
            .connect(name, connect(running.https).await)
            .await
            .unwrap();
        assert_eq!(
            stream.get_ref().1.alpn_protocol(),
            Some(b"http/1.1".as_slice())
        );
        assert!(health(stream).await.starts_with("HTTP/1.1 200 OK"));
    }
    let connector = client(&ca_file, &[]);
    let other = ServerName::try_from("other.test").unwrap();
    assert!(
        connector
            .connect(other, connect(running.https).await)
            .await
            .is_err()
    );
    running.stop().await;
}

#[tokio::test]
async fn a_restart_keeps_account_administrator_and_authority() {
    let directory = TempDir::new().unwrap();
    let first = start(config(directory.path())).await.unwrap();
    let account = first.control.account_id().clone();
    let authority = fs::read(first.ca_file.as_ref().unwrap()).unwrap();
    let administrator = first.administrator.clone().unwrap();
    assert_eq!(administrator.user_name, "admin");
    first.stop().await;

    let second = start(config(directory.path())).await.unwrap();
    assert!(second.administrator.is_none(), "the key is shown once");
    assert_eq!(second.control.account_id(), &account);
    assert_eq!(
        fs::read(second.ca_file.as_ref().unwrap()).unwrap(),
        authority
    );
    second.stop().await;
}

#[tokio::test]
async fn the_administrators_key_goes_to_its_file_and_nowhere_else() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("administrator.json");
    let mut config = config(&directory.path().join("data"));
    config.administrator_file = Some(file.clone());
    let running = start(config).await.unwrap();
    assert!(running.administrator.is_none());
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let administrator = Administrator::read(&file).unwrap().unwrap();
    assert!(administrator.access_key_id.starts_with("AKIA"));
    running.stop().await;
}

#[tokio::test]
async fn two_servers_do_not_share_a_directory() {
    let directory = TempDir::new().unwrap();
    let first = start(config(directory.path())).await.unwrap();
    let second = start(config(directory.path())).await;
    assert!(matches!(second, Err(StartError::File(FileError::InUse(_)))));
    first.stop().await;
    start(config(directory.path())).await.unwrap().stop().await;
}

#[tokio::test]
async fn a_lax_or_lost_root_key_stops_the_start_and_changes_nothing() {
    let directory = TempDir::new().unwrap();
    start(config(directory.path())).await.unwrap().stop().await;
    let key = directory.path().join("root.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    let lax = start(config(directory.path())).await;
    assert!(matches!(
        lax,
        Err(StartError::RootKey(RootKeyError::File(
            FileError::Exposed { .. }
        )))
    ));

    let kept = directory.path().join("kept");
    fs::rename(&key, &kept).unwrap();
    let lost = start(config(directory.path())).await;
    assert!(matches!(
        lost,
        Err(StartError::RootKey(RootKeyError::Missing(_)))
    ));
    assert!(!key.exists(), "a new key would open nothing");

    fs::set_permissions(&kept, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(&kept, &key).unwrap();
    start(config(directory.path())).await.unwrap().stop().await;
}

#[tokio::test]
async fn plain_http_is_never_served_beyond_loopback() {
    let directory = TempDir::new().unwrap();
    let mut config = config(directory.path());
    config.listen_http = Some("0.0.0.0:0".parse().unwrap());
    assert!(matches!(start(config).await, Err(StartError::PlainHttp(_))));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let directory = TempDir::new().unwrap();
    let other = TempDir::new().unwrap();
    let first = start(config(directory.path())).await.unwrap();
    let mut second = config(other.path());
    second.listen_tls = first.https;
    let error = start(second).await.err().unwrap();
    assert!(
        error.to_string().contains(&first.https.to_string()),
        "{error}"
    );
    first.stop().await;
}

#[tokio::test]
async fn a_stop_answers_what_is_under_way_and_takes_no_more() {
    let directory = TempDir::new().unwrap();
    let running = both(directory.path()).await;
    let address = running.http.unwrap();
    // A kept connection, idle, and one in the middle of a request's head.
    let mut idle = connect(address).await;
    idle.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut answer = [0; 12];
    idle.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    let mut half = connect(running.https).await;
    half.write_all(&[0x16, 0x03]).await.unwrap();

    timeout(PATIENCE, running.stop())
        .await
        .expect("the stop does not wait for strangers");
    let mut rest = Vec::new();
    timeout(PATIENCE, idle.read_to_end(&mut rest))
        .await
        .unwrap()
        .unwrap();
    assert!(
        TcpStream::connect(address).await.is_err(),
        "nobody listens any more"
    );
}

#[tokio::test]
async fn connections_over_the_cap_wait_and_silent_ones_are_closed() {
    let directory = TempDir::new().unwrap();
    let mut config = config(directory.path());
    config.listen_http = Some("127.0.0.1:0".parse().unwrap());
    config.limits.connections = 2;
    config.limits.header = Duration::from_millis(300);
    config.limits.handshake = Duration::from_millis(300);
    let running = start(config).await.unwrap();
    let mut silent_http = connect(running.http.unwrap()).await;
    let mut silent_tls = connect(running.https).await;
    let answer = tokio::spawn(health(connect(running.http.unwrap()).await));
    for silent in [&mut silent_http, &mut silent_tls] {
        let mut nothing = Vec::new();
        timeout(PATIENCE, silent.read_to_end(&mut nothing))
            .await
            .unwrap()
            .unwrap();
    }
    assert!(
        answer.await.unwrap().starts_with("HTTP/1.1 200 OK"),
        "its turn came"
    );
    running.stop().await;
}

#[tokio::test]
async fn a_stop_drops_who_does_not_finish_in_time() {
    let directory = TempDir::new().unwrap();
    let mut config = config(directory.path());
    config.listen_http = Some("127.0.0.1:0".parse().unwrap());
    config.limits.drain = Duration::from_millis(200);
    let running = start(config).await.unwrap();
    let mut slow = connect(running.http.unwrap()).await;
    let head = b"POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: AmazonSSM.StartSession\r\n";
    slow.write_all(head).await.unwrap();
    slow.write_all(b"Content-Length: 100\r\n\r\n{")
        .await
        .unwrap();
    // An answer on another connection says that the server reads.
    health(connect(running.http.unwrap()).await).await;
    timeout(PATIENCE, running.stop())
        .await
        .expect("the stop has its limit");
    let mut rest = Vec::new();
    timeout(PATIENCE, slow.read_to_end(&mut rest))
        .await
        .unwrap()
        .unwrap();
}
