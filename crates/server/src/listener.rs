//! The accept loops: TCP, TLS, HTTP/1.1, with bounds on what strangers can hold or delay, and a
//! drain with a deadline. Serves whatever router it is given; knows no routes.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::Router;
use hyper::{
    Request,
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use sortie_doors::{Connection, TlsDetails};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{burst::Burst, config::Limits};

/// How long to leave an accept loop alone when the system is out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What TLS takes at once to be encrypted and written: a whole frame of bulk in one system call.
const TLS_BUFFER: usize = 256 << 10;

/// The largest head of a request. Session tokens have some hundred bytes.
const LARGEST_HEAD: usize = 64 << 10;

/// What every connection of one listener shares.
#[derive(Clone)]
pub(crate) struct Serving {
    /// Answers requests.
    pub(crate) router: Router,
    /// Present on a TLS listener.
    pub(crate) tls: Option<TlsAcceptor>,
    /// Bounds.
    pub(crate) limits: Limits,
    /// One permit a connection, over all listeners.
    pub(crate) permits: Arc<Semaphore>,
    /// What each source has of them.
    pub(crate) shares: Arc<Shares>,
    /// Owns every connection's task.
    pub(crate) tasks: TaskTracker,
    /// Tells to accept no more and to finish what is under way.
    pub(crate) stop: CancellationToken,
    /// Tells to drop what is still under way.
    pub(crate) abandon: CancellationToken,
}

/// How many connections each source has, so that one alone cannot take them all. A source is an
/// address, or the network of which a machine may choose its addresses. Loopback is no source: who
/// is on this machine has other means, and a proxy here speaks for everybody.
pub(crate) struct Shares {
    most: usize,
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// One connection of a source.
pub(crate) struct Share {
    shares: Arc<Shares>,
    source: Option<IpAddr>,
}

impl Shares {
    /// Half of `connections` for each.
    pub(crate) fn of(connections: usize) -> Arc<Self> {
        Arc::new(Self {
            most: connections.div_ceil(2),
            open: Mutex::default(),
        })
    }

    fn open(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more connection of `peer`; `None` when it has enough.
    fn take(self: &Arc<Self>, peer: IpAddr) -> Option<Share> {
        let source = match peer.to_canonical() {
            local if local.is_loopback() => None,
            IpAddr::V6(address) => Some(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into()),
            v4 => Some(v4),
        };
        if let Some(source) = source {
            let mut open = self.open();
            let count = open.entry(source).or_default();
            if *count >= self.most {
                return None;
            }
            *count += 1;
        }
        let shares = Arc::clone(self);
        Some(Share { shares, source })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let Some(source) = self.source else { return };
        let mut open = self.shares.open();
        if let Some(count) = open.get_mut(&source) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                open.remove(&source);
            }
        }
    }
}

/// Opens a listening socket.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // A restarted server takes its port back at once.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    TcpListener::from_std(socket.into())
}

impl Serving {
    /// Accepts until told to stop. Ends at once then; connections go on in `tasks`.
    pub(crate) async fn accept(self, listener: TcpListener) {
        loop {
            let accepted = tokio::select! {
                () = self.stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // Over the cap one connection waits here and the others in the kernel's queue.
            let permit = tokio::select! {
                () = self.stop.cancelled() => return,
                permit = Arc::clone(&self.permits).acquire_owned() => permit,
            };
            let Ok(permit) = permit else { return };
            let Some(share) = self.shares.take(peer.ip()) else {
                tracing::debug!(%peer, "too many connections from one source");
                continue;
            };
            self.tasks
                .spawn(self.clone().connection(stream, peer, (permit, share)));
        }
    }

    async fn connection(
        self,
        stream: TcpStream,
        peer: SocketAddr,
        permit: (OwnedSemaphorePermit, Share),
    ) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%peer, %error, "cannot set TCP_NODELAY");
        }
        let permit = Arc::new(permit);
        let Some(acceptor) = self.tls.clone() else {
            let connection = Connection::new(peer, None, permit);
            return self.serve(stream, connection).await;
        };
        // A stop does not wait for strangers that do not even finish their handshake.
        let handshake = timeout(self.limits.handshake, acceptor.accept(Burst::new(stream)));
        let accepted = tokio::select! {
            () = self.stop.cancelled() => return,
            accepted = handshake => accepted,
        };
        match accepted {
            Ok(Ok(mut stream)) => {
                stream.get_mut().1.set_buffer_limit(Some(TLS_BUFFER));
                let details = tls_details(stream.get_ref().1);
                let connection = Connection::new(peer, Some(details), permit);
                self.serve(stream, connection).await;
            }
            Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
            Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
        }
    }

    async fn serve<S>(self, stream: S, connection: Connection)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let peer = connection.peer();
        let router = TowerToHyperService::new(self.router);
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(connection.clone());
            router.call(request)
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.header)
            .max_buf_size(LARGEST_HEAD)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let mut served = pin!(served);
        let ended = tokio::select! {
            ended = served.as_mut() => ended,
            () = self.stop.cancelled() => {
                served.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = served => ended,
                    () = self.abandon.cancelled() => return,
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%peer, %error, "connection ended");
        }
    }
}

fn tls_details(connection: &rustls::ServerConnection) -> TlsDetails {
    let version = connection.protocol_version();
    let suite = connection.negotiated_cipher_suite();
    TlsDetails {
        version: version.map(|version| format!("{version:?}").replace("TLSv1_", "TLSv1.")),
        cipher_suite: suite.map(|suite| format!("{:?}", suite.suite()).replace("TLS13_", "TLS_")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_source_gets_half_of_the_connections_and_loopback_all() {
        let shares = Shares::of(6);
        let take = |address: &str| shares.take(address.parse().unwrap());
        let mut held: Vec<Share> = (0..3).map(|_| take("192.0.2.1").unwrap()).collect();
        assert!(take("192.0.2.1").is_none());
        assert!(take("::ffff:192.0.2.1").is_none());
        assert!(take("192.0.2.2").is_some());
        held.pop();
        assert!(take("192.0.2.1").is_some(), "one was closed");

        let own = ["2001:db8::1", "2001:db8::2", "2001:db8::3"];
        held.extend(own.map(|address| take(address).unwrap()));
        assert!(take("2001:db8:0:0:ffff::").is_none());
        assert!(take("2001:db8:0:1::").is_some());
        held.extend((0..10).map(|_| take("127.0.0.1").unwrap()));
        held.clear();
        assert!(shares.open().is_empty());
    }
}
