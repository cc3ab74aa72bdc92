//! The local side of forwarded connections: listening, accepting and dialling, over TCP and unix
//! sockets.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use sortie_client::ports::{PortStream, SpliceError, splice_halves};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixSocket, UnixStream},
};

use super::spec::Place;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// Where connections are accepted.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// The file of a unix socket, removed at the end.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            identity: identity(path)?,
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Whoever removed it before did no harm, and may have put something else in its place.
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

/// A local connection.
#[derive(Debug)]
pub(crate) enum Local {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listener {
    /// Listens. A TCP port without a host is that of `bind`.
    pub(crate) async fn open(place: &Place, bind: &str) -> io::Result<Self> {
        match place {
            Place::Tcp { host, port } => {
                let host = match host.as_deref().unwrap_or(bind) {
                    "*" => "0.0.0.0",
                    host => host,
                };
                TcpListener::bind((host, *port)).await.map(Self::Tcp)
            }
            Place::Unix(path) => open_unix(path).await,
        }
    }

    /// Where it listens, with the port that was chosen.
    pub(crate) fn address(&self) -> String {
        match self {
            Self::Tcp(listener) => listener.local_addr().map_or_else(
                |_| "a closed port".to_owned(),
                |address| address.to_string(),
            ),
            Self::Unix(_, file) => file.path.display().to_string(),
        }
    }

    /// The TCP port, if it has one.
    pub(crate) fn port(&self) -> Option<u16> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok().map(|address| address.port()),
            Self::Unix(..) => None,
        }
    }

    /// The next connection. Connections that break before they are accepted are passed over; without
    /// descriptors it waits until there are some again.
    pub(crate) async fn accept(&self) -> Local {
        loop {
            let accepted = match self {
                Self::Tcp(listener) => listener.accept().await.map(|(stream, _)| {
                    // It only costs time when this fails.
                    let _ = stream.set_nodelay(true);
                    Local::Tcp(stream)
                }),
                Self::Unix(listener, _) => listener
                    .accept()
                    .await
                    .map(|(stream, _)| Local::Unix(stream)),
            };
            match accepted {
                Ok(local) => return local,
                Err(error) => {
                    tracing::debug!(%error, "a connection was not accepted");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            }
        }
    }
}

async fn open_unix(path: &Path) -> io::Result<Listener> {
    remove_stale(path).await?;
    let socket = UnixSocket::new_stream()?;
    socket.bind(path)?;
    let file = SocketFile::of(path)?;
    // Nobody connects before it listens.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(Listener::Unix(socket.listen(BACKLOG)?, file))
}

/// Removes a socket that nobody listens at any more.
async fn remove_stale(path: &Path) -> io::Result<()> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if !is_socket {
        return Ok(());
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        _ => Ok(()),
    }
}

impl Local {
    /// Connects to a place of this machine or one that it reaches.
    pub(crate) async fn connect(place: &Place) -> io::Result<Self> {
        match place {
            Place::Tcp { host, port } => {
                let host = host.as_deref().unwrap_or("localhost");
                let stream = TcpStream::connect((host, *port)).await?;
                stream.set_nodelay(true)?;
                Ok(Self::Tcp(stream))
            }
            Place::Unix(path) => UnixStream::connect(path).await.map(Self::Unix),
        }
    }

    /// Moves bytes between the connection and a stream until both directions have ended. After a
    /// failure the other program sees a broken connection, not an orderly end.
    pub(crate) async fn splice(mut self, stream: PortStream) -> Result<(), SpliceError> {
        let spliced = match &mut self {
            Self::Tcp(local) => {
                let (reader, writer) = local.split();
                splice_halves(stream, reader, writer).await
            }
            Self::Unix(local) => {
                let (reader, writer) = local.split();
                splice_halves(stream, reader, writer).await
            }
        };
        if spliced.is_err() {
            self.break_off();
        }
        spliced
    }

    /// Ends the connection so that the other program sees that it broke.
    pub(crate) fn break_off(self) {
        if let Self::Tcp(local) = self {
            // Else it ends in an orderly way, and the program finds out by itself.
            let _ = local.set_zero_linger();
        }
    }
}

impl AsyncRead for Local {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(local) => std::pin::Pin::new(local).poll_read(context, buffer),
            Self::Unix(local) => std::pin::Pin::new(local).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Local {
    fn poll_write(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(local) => std::pin::Pin::new(local).poll_write(context, bytes),
            Self::Unix(local) => std::pin::Pin::new(local).poll_write(context, bytes),
        }
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(local) => std::pin::Pin::new(local).poll_flush(context),
            Self::Unix(local) => std::pin::Pin::new(local).poll_flush(context),
        }
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(local) => std::pin::Pin::new(local).poll_shutdown(context),
            Self::Unix(local) => std::pin::Pin::new(local).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_is_its_owners_alone_and_removed_only_while_it_is_ours() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let place = Place::Unix(path.clone());
        let listener = Listener::open(&place, "localhost").await.unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let taken = Listener::open(&place, "localhost").await.unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        UnixStream::connect(&path).await.unwrap();
        drop(listener);
        assert!(!path.exists());

        let listener = Listener::open(&place, "localhost").await.unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "of somebody else").unwrap();
        drop(listener);
        assert!(path.exists());
        let taken = Listener::open(&place, "localhost").await.unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
    }
}
