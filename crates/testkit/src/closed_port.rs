//! A port at which nobody listens, for as long as a test needs it.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::{Result, bail};
use rustix::{
    fd::OwnedFd,
    net::{AddressFamily, SocketType, bind, getsockname, socket},
};

/// A TCP port of 127.0.0.1 that refuses connections. It is taken until this is dropped: one that was
/// only free a moment ago may be the next one's that another test listens at.
#[derive(Debug)]
pub struct ClosedPort {
    port: u16,
    _taken: OwnedFd,
}

impl ClosedPort {
    /// Takes one that is free.
    ///
    /// # Errors
    /// When there is none.
    pub fn take() -> Result<Self> {
        let taken = socket(AddressFamily::INET, SocketType::STREAM, None)?;
        bind(&taken, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0))?;
        let address = SocketAddrV4::try_from(getsockname(&taken)?);
        let Ok(address) = address else {
            bail!("a socket of another kind");
        };
        Ok(Self {
            port: address.port(),
            _taken: taken,
        })
    }

    /// Its number.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::ErrorKind,
        net::{TcpListener, TcpStream},
    };

    use super::*;

    #[test]
    fn nobody_answers_and_nobody_else_may_listen() {
        let closed = ClosedPort::take().unwrap();
        let address = ("127.0.0.1", closed.port());
        let refused = TcpStream::connect(address).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        let taken = TcpListener::bind(address).unwrap_err();
        assert_eq!(taken.kind(), ErrorKind::AddrInUse);
    }
}
