//! Where a reverse session accepts connections: loopback addresses, or a unix socket that only the
//! session's account may use.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use futures_util::future::select_all;
use tokio::net::TcpListener;

use super::{destination::Connection, plan::Listen};
use crate::os::SessionSocket;

/// Accepts connections until it is dropped.
pub(super) enum Listener {
    Tcp(Vec<TcpListener>),
    Socket(SessionSocket),
}

impl Listener {
    /// Why it could not be bound is said in words for the person at the client.
    pub(super) async fn bind(listen: &Listen) -> Result<Self, String> {
        match listen {
            Listen::Socket(path) => SessionSocket::bind(path)
                .map(Self::Socket)
                .map_err(|error| match error.kind() {
                    io::ErrorKind::AddrInUse => {
                        format!("cannot listen at {}: it exists", path.display())
                    }
                    _ => format!("cannot listen at {}: {error}", path.display()),
                }),
            Listen::Tcp { addresses, port } => bind_tcp(addresses, *port).await.map(Self::Tcp),
        }
    }

    /// The port that it has, where it has one.
    pub(super) fn port(&self) -> Option<u16> {
        match self {
            Self::Tcp(listeners) => Some(listeners.first()?.local_addr().ok()?.port()),
            Self::Socket(_) => None,
        }
    }

    /// Waits for a connection. Nothing is lost when the future is dropped.
    pub(super) async fn accept(&self) -> io::Result<Connection> {
        match self {
            Self::Tcp(listeners) => {
                let accepts = listeners.iter().map(|listener| Box::pin(listener.accept()));
                let (accepted, ..) = select_all(accepts).await;
                Ok(Connection::tcp(accepted?.0))
            }
            Self::Socket(socket) => Ok(Connection::over(socket.accept().await?)),
        }
    }
}

async fn bind_tcp(addresses: &[IpAddr], port: u16) -> Result<Vec<TcpListener>, String> {
    let mut listeners: Vec<TcpListener> = Vec::new();
    let mut port = port;
    for address in addresses {
        let address = SocketAddr::new(*address, port);
        match TcpListener::bind(address).await {
            Ok(listener) => {
                port = listener.local_addr().map_or(port, |bound| bound.port());
                listeners.push(listener);
            }
            Err(error) if listeners.is_empty() => {
                return Err(format!("cannot listen on {address}: {error}"));
            }
            // A machine need not have the other family.
            Err(error) => tracing::debug!(%address, %error, "not listening there"),
        }
    }
    Ok(listeners)
}
