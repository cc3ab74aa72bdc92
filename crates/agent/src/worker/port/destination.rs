//! Connecting a stream: names are resolved, all addresses tried in order, none that is forbidden, and
//! nothing takes for ever. What cannot be connected says why in words for the person at the client.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use sortie_channel::streams::{Refusal, RefusalCode};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf},
    net::{
        TcpStream, lookup_host,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::{Instant, timeout, timeout_at},
};

use super::{
    forbidden::is_forbidden,
    plan::{LOCALHOST, PortRefusal, Target},
};
use crate::os;

/// How long a name may take to be resolved.
const RESOLVE_LIMIT: Duration = Duration::from_secs(5);
/// How long one address may take.
const ADDRESS_LIMIT: Duration = Duration::from_secs(5);
/// How long all of them together may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(12);

/// What a connection is read from.
pub(super) trait Source: AsyncRead + Send + Unpin {
    /// Has the other side see, once both halves are closed, that the connection was broken off, as far
    /// as that can be shown.
    fn abort(&self) {}
}

/// What a connection is written to.
pub(super) trait Sink: AsyncWrite + Send + Unpin {
    /// Closes this half without saying that it has ended.
    fn abort(self: Box<Self>) {}
}

impl<T: AsyncRead + Send> Source for ReadHalf<T> {}

impl<T: AsyncWrite + Send> Sink for WriteHalf<T> {}

impl Source for OwnedReadHalf {
    fn abort(&self) {
        if let Err(error) = os::reset_on_close(self.as_ref()) {
            tracing::debug!(%error, "a broken connection will look closed");
        }
    }
}

impl Sink for OwnedWriteHalf {
    fn abort(self: Box<Self>) {
        self.forget();
    }
}

/// Two directions of bytes: a socket, or a service within this process.
pub(super) struct Connection {
    pub(super) reader: Box<dyn Source>,
    pub(super) writer: Box<dyn Sink>,
}

impl Connection {
    /// Anything that bytes can be read from and written to. Shutting it down ends one direction.
    pub(super) fn over(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        Self {
            reader: Box::new(reader),
            writer: Box::new(writer),
        }
    }

    /// A TCP connection. What is written leaves at once.
    pub(super) fn tcp(stream: TcpStream) -> Self {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot turn off Nagle's algorithm");
        }
        let (reader, writer) = stream.into_split();
        Self {
            reader: Box::new(reader),
            writer: Box::new(writer),
        }
    }

    /// Breaks it off: what has arrived at the other side does not pass for everything.
    pub(super) fn abort(self) {
        self.reader.abort();
        self.writer.abort();
    }
}

/// Refuses what would be refused to every connection, as far as that is known now: a name that does not
/// resolve may do so later.
pub(super) async fn check(target: &Target) -> Result<(), Refusal> {
    let Target::Tcp { host, port } = target else {
        return Ok(());
    };
    match resolve(host, *port).await {
        Err(refusal) if refusal.code == RefusalCode::Forbidden => Err(refusal),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Connects to a destination, which may be a service within this process.
pub(super) async fn connect(target: &Target) -> Result<Connection, Refusal> {
    match target {
        Target::Tcp { host, port } => connect_tcp(target, host, *port).await,
        Target::Copy(plan) => plan.connect().map_err(|error| failed(target, &error)),
        Target::Socket(path) => match timeout(ADDRESS_LIMIT, os::connect_socket(path)).await {
            Ok(Ok(stream)) => Ok(Connection::over(stream)),
            Ok(Err(error)) => Err(failed(target, &error)),
            Err(_) => Err(failed(target, &io::ErrorKind::TimedOut.into())),
        },
    }
}

async fn connect_tcp(target: &Target, host: &str, port: u16) -> Result<Connection, Refusal> {
    let give_up = Instant::now() + CONNECT_LIMIT;
    let mut last = io::Error::from(io::ErrorKind::HostUnreachable);
    for address in resolve(host, port).await? {
        let until = give_up.min(Instant::now() + ADDRESS_LIMIT);
        match timeout_at(until, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(Connection::tcp(stream)),
            Ok(Err(error)) => last = worse(last, error),
            Err(_) => last = worse(last, io::ErrorKind::TimedOut.into()),
        }
        if Instant::now() >= give_up {
            break;
        }
    }
    Err(failed(target, &last))
}

/// Of two failures the one that says more: that somebody is there and refuses.
fn worse(before: io::Error, now: io::Error) -> io::Error {
    if before.kind() == io::ErrorKind::ConnectionRefused {
        before
    } else {
        now
    }
}

/// All addresses of a host. Those of this machine need no resolver.
async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, Refusal> {
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let addresses = if host.eq_ignore_ascii_case(LOCALHOST) {
        vec![
            SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port),
            SocketAddr::new(Ipv6Addr::LOCALHOST.into(), port),
        ]
    } else if let Ok(address) = bare.unwrap_or(host).parse::<IpAddr>() {
        vec![SocketAddr::new(address, port)]
    } else {
        look_up(host, port).await?
    };
    if addresses.iter().any(|address| is_forbidden(address.ip())) {
        return Err(refusal(
            RefusalCode::Forbidden,
            PortRefusal::Forbidden(host.to_owned()).to_string(),
        ));
    }
    Ok(addresses)
}

async fn look_up(host: &str, port: u16) -> Result<Vec<SocketAddr>, Refusal> {
    let unknown = |why: String| refusal(RefusalCode::UnknownHost, why);
    match timeout(RESOLVE_LIMIT, lookup_host((host, port))).await {
        Ok(Ok(addresses)) => Ok(addresses.collect()),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a name does not resolve");
            Err(unknown(format!("cannot resolve {host}")))
        }
        Err(_) => Err(unknown(format!("resolving {host} took too long"))),
    }
}

pub(super) fn refusal(code: RefusalCode, message: String) -> Refusal {
    Refusal { code, message }
}

fn failed(target: &Target, error: &io::Error) -> Refusal {
    use io::ErrorKind as Kind;
    let (code, message) = match error.kind() {
        Kind::ConnectionRefused => (
            RefusalCode::Refused,
            format!("connection refused by {target}"),
        ),
        Kind::TimedOut => (RefusalCode::Unreachable, format!("no answer from {target}")),
        Kind::HostUnreachable | Kind::NetworkUnreachable | Kind::AddrNotAvailable => {
            (RefusalCode::Unreachable, format!("no route to {target}"))
        }
        Kind::NotFound => (
            RefusalCode::Unreachable,
            format!("there is no socket at {target}"),
        ),
        Kind::PermissionDenied => (
            RefusalCode::Forbidden,
            format!("the session's account may not connect to {target}"),
        ),
        _ if os::is_out_of_files(error) => (
            RefusalCode::Limit,
            format!("cannot connect to {target}: too many connections are open"),
        ),
        _ => (
            RefusalCode::Other,
            format!("cannot connect to {target}: {error}"),
        ),
    };
    refusal(code, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Target {
        Target::Tcp {
            host: host.to_owned(),
            port,
        }
    }

    async fn refused(target: &Target) -> Refusal {
        match connect(target).await {
            Ok(_) => panic!("connected to {target}"),
            Err(refusal) => refusal,
        }
    }

    #[tokio::test]
    async fn every_address_is_tried() {
        // Listens on the second of the two addresses of localhost where there is one.
        let listener = match tokio::net::TcpListener::bind("[::1]:0").await {
            Ok(listener) => listener,
            Err(_) => tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap(),
        };
        let port = listener.local_addr().unwrap().port();
        assert!(connect(&tcp("localhost", port)).await.is_ok());
    }

    #[tokio::test]
    async fn what_cannot_be_connected_says_why() {
        let port = {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().port()
        };
        let nobody = refused(&tcp("127.0.0.1", port)).await;
        assert_eq!(nobody.code, RefusalCode::Refused);
        assert_eq!(
            nobody.message,
            format!("connection refused by 127.0.0.1:{port}")
        );
        let unknown = refused(&tcp("no-such-host.invalid", 80)).await;
        assert_eq!(unknown.code, RefusalCode::UnknownHost);
        for host in [
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "[fd00:ec2::254]",
        ] {
            let forbidden = refused(&tcp(host, 80)).await;
            assert_eq!(forbidden.code, RefusalCode::Forbidden);
            assert_eq!(
                forbidden.message,
                format!("Forwarding to IP address {host} is forbidden.")
            );
            assert!(check(&tcp(host, 80)).await.is_err());
        }
        let socket = refused(&Target::Socket("/no/such/socket".into())).await;
        assert_eq!(socket.message, "there is no socket at /no/such/socket");
        assert!(check(&tcp("no-such-host.invalid", 80)).await.is_ok());
    }
}
