//! SOCKS version 5 (RFC 1928) as its server reads and answers it: CONNECT without authentication.
//! Where streams go is the caller's.

use std::net::{Ipv4Addr, Ipv6Addr};

use sortie_channel::streams::{Destination, RefusalCode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const NO_ACCEPTABLE_METHOD: u8 = 0xff;
const CONNECT: u8 = 1;
/// The longest request: a name of 255 bytes.
const LONGEST: usize = 4 + 1 + 255 + 2;

/// Why a client is not served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SocksError {
    #[error("the client does not speak SOCKS version 5")]
    Version,
    #[error("the client wants a way of authentication that there is not")]
    Methods,
    #[error("only the command CONNECT is known")]
    Command,
    #[error("the address is of a kind that there is not")]
    AddressType,
    #[error("the host name cannot be one")]
    Name,
    #[error("the connection ended in the middle of the request")]
    Ended,
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

impl SocksError {
    /// What the client is told, where it waits for an answer.
    fn reply(&self) -> Option<Reply> {
        match self {
            Self::Command => Some(Reply::CommandNotSupported),
            Self::AddressType => Some(Reply::AddressTypeNotSupported),
            Self::Name => Some(Reply::GeneralFailure),
            Self::Version | Self::Methods | Self::Ended | Self::Io(_) => None,
        }
    }
}

/// The answer to a request, RFC 1928 section 6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Succeeded = 0,
    GeneralFailure = 1,
    NotAllowed = 2,
    HostUnreachable = 4,
    ConnectionRefused = 5,
    CommandNotSupported = 7,
    AddressTypeNotSupported = 8,
}

impl From<RefusalCode> for Reply {
    fn from(code: RefusalCode) -> Self {
        match code {
            RefusalCode::Forbidden => Self::NotAllowed,
            RefusalCode::Refused => Self::ConnectionRefused,
            RefusalCode::Unreachable | RefusalCode::UnknownHost => Self::HostUnreachable,
            RefusalCode::Limit | RefusalCode::Other => Self::GeneralFailure,
        }
    }
}

/// What a client asked for, and what it sent behind it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) destination: Destination,
    pub(crate) early: Vec<u8>,
}

/// Reads the greeting, agrees on no authentication, and reads the request. A client that is not served
/// has been told so.
pub(crate) async fn negotiate<L>(local: &mut L) -> Result<Request, SocksError>
where
    L: AsyncRead + AsyncWrite + Unpin,
{
    let mut bytes = Vec::with_capacity(LONGEST);
    let asked = ask(local, &mut bytes).await;
    if let Err(error) = &asked
        && let Some(told) = error.reply()
    {
        reply(local, told).await?;
    }
    let destination = asked?;
    Ok(Request {
        destination,
        early: bytes,
    })
}

async fn ask<L>(local: &mut L, bytes: &mut Vec<u8>) -> Result<Destination, SocksError>
where
    L: AsyncRead + AsyncWrite + Unpin,
{
    let accepts = read(local, bytes, greeting).await?;
    let method = if accepts {
        NO_AUTHENTICATION
    } else {
        NO_ACCEPTABLE_METHOD
    };
    local.write_all(&[VERSION, method]).await?;
    if !accepts {
        return Err(SocksError::Methods);
    }
    read(local, bytes, request).await
}

/// Answers a request. The address that the protocol wants is not known here.
pub(crate) async fn reply(
    local: &mut (impl AsyncWrite + Unpin),
    reply: Reply,
) -> std::io::Result<()> {
    let answer = [VERSION, reply as u8, 0, 1, 0, 0, 0, 0, 0, 0];
    local.write_all(&answer).await?;
    local.flush().await
}

/// What was read and how long it is; `None` while it is not complete.
type Parsed<T> = Result<Option<(T, usize)>, SocksError>;

/// Reads until `parse` is content, and takes what it used off the front.
async fn read<T>(
    local: &mut (impl AsyncRead + Unpin),
    bytes: &mut Vec<u8>,
    parse: fn(&[u8]) -> Parsed<T>,
) -> Result<T, SocksError> {
    loop {
        if let Some((parsed, used)) = parse(bytes)? {
            bytes.drain(..used.min(bytes.len()));
            return Ok(parsed);
        }
        if local.read_buf(bytes).await? == 0 {
            return Err(SocksError::Ended);
        }
    }
}

/// Whether the client can do without authentication.
fn greeting(bytes: &[u8]) -> Parsed<bool> {
    match bytes {
        [] | [VERSION] => Ok(None),
        [VERSION, count, rest @ ..] => {
            let count = usize::from(*count);
            let methods = rest.get(..count);
            Ok(methods.map(|methods| (methods.contains(&NO_AUTHENTICATION), 2 + count)))
        }
        _ => Err(SocksError::Version),
    }
}

/// Where the client wants to go.
fn request(bytes: &[u8]) -> Parsed<Destination> {
    let (kind, rest) = match bytes {
        [VERSION, command, _, kind, rest @ ..] => {
            if *command != CONNECT {
                return Err(SocksError::Command);
            }
            (*kind, rest)
        }
        [] | [VERSION, ..] => return Ok(None),
        _ => return Err(SocksError::Version),
    };
    let Some((host, length)) = host(kind, rest)? else {
        return Ok(None);
    };
    let Some(&[high, low]) = rest.get(length..length + 2) else {
        return Ok(None);
    };
    let destination = Destination {
        host: Some(host),
        port: Some(u16::from_be_bytes([high, low])),
        socket: None,
    };
    Ok(Some((destination, 4 + length + 2)))
}

/// The host of a request.
fn host(kind: u8, rest: &[u8]) -> Parsed<String> {
    match kind {
        1 => Ok(rest
            .first_chunk::<4>()
            .map(|address| (Ipv4Addr::from(*address).to_string(), 4))),
        4 => Ok(rest
            .first_chunk::<16>()
            .map(|address| (Ipv6Addr::from(*address).to_string(), 16))),
        3 => {
            let Some((length, name)) = rest.split_first() else {
                return Ok(None);
            };
            let Some(name) = name.get(..usize::from(*length)) else {
                return Ok(None);
            };
            let is_printable = name.iter().all(u8::is_ascii_graphic);
            match std::str::from_utf8(name) {
                Ok(text) if is_printable && !text.is_empty() => {
                    Ok(Some((text.to_owned(), 1 + name.len())))
                }
                _ => Err(SocksError::Name),
            }
        }
        _ => Err(SocksError::AddressType),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str, port: u16) -> Vec<u8> {
        let mut bytes = vec![5, 1, 0, 3, text.len() as u8];
        bytes.extend_from_slice(text.as_bytes());
        bytes.extend_from_slice(&port.to_be_bytes());
        bytes
    }

    /// What comes of a client that sends these bytes in pieces of this size, and what it is told.
    async fn talk(bytes: &[u8], piece: usize) -> (Result<Request, SocksError>, Vec<u8>) {
        let (mut here, mut there) = tokio::io::duplex(1024);
        let bytes = bytes.to_vec();
        let client = tokio::spawn(async move {
            for piece in bytes.chunks(piece) {
                // It is left as soon as there is an answer.
                if here.write_all(piece).await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            let _ = here.shutdown().await;
            let mut told = Vec::new();
            here.read_to_end(&mut told).await.unwrap();
            told
        });
        let result = negotiate(&mut there).await;
        drop(there);
        (result, client.await.unwrap())
    }

    #[tokio::test]
    async fn names_and_addresses_are_read_however_they_are_cut() {
        let v4 = [5, 1, 0, 1, 10, 0, 0, 7, 0x1f, 0x90];
        let mut v6 = vec![5, 1, 0, 4];
        v6.extend_from_slice(&Ipv6Addr::LOCALHOST.octets());
        v6.extend_from_slice(&[0, 22]);
        for (request, host, port) in [
            (name("db.internal", 5432), "db.internal", 5432),
            (v4.to_vec(), "10.0.0.7", 8080),
            (v6, "::1", 22),
        ] {
            for piece in [1, 3, 1000] {
                let mut bytes = vec![5, 2, 2, 0];
                bytes.extend_from_slice(&request);
                bytes.extend_from_slice(b"early");
                let (result, told) = talk(&bytes, piece).await;
                let asked = result.unwrap();
                let destination = &asked.destination;
                assert_eq!(destination.host.as_deref(), Some(host));
                assert_eq!((destination.port, &destination.socket), (Some(port), &None));
                assert!(b"early".starts_with(&asked.early));
                assert_eq!(told, [5, 0]);
            }
        }
    }

    #[tokio::test]
    async fn what_is_not_served_is_told_so() {
        let behind = |request: &[u8]| [&[5, 1, 0][..], request].concat();
        let told = |reply: Reply| vec![5, 0, 5, reply as u8, 0, 1, 0, 0, 0, 0, 0, 0];
        for (bytes, expected) in [
            (vec![4, 1, 0, 80], vec![]),
            (b"GET / HTTP/1.1".to_vec(), vec![]),
            (vec![5, 1, 2], vec![5, 0xff]),
            (vec![5, 0], vec![5, 0xff]),
            (behind(&[5, 2, 0, 1]), told(Reply::CommandNotSupported)),
            (behind(&[5, 3, 0, 1]), told(Reply::CommandNotSupported)),
            (behind(&[5, 1, 0, 9]), told(Reply::AddressTypeNotSupported)),
            (behind(&[5, 1, 0, 3, 0, 0, 80]), told(Reply::GeneralFailure)),
            (behind(&name("a\nb", 1)), told(Reply::GeneralFailure)),
            (behind(&[5, 1, 0, 1, 10]), vec![5, 0]),
            (behind(&[4, 1, 0, 1]), vec![5, 0]),
        ] {
            let (result, answered) = talk(&bytes, 1000).await;
            assert!(result.is_err(), "{bytes:?}");
            assert_eq!(answered, expected, "{bytes:?}");
        }
    }

    #[test]
    fn refusals_have_the_codes_of_the_protocol() {
        for (code, reply) in [
            (RefusalCode::Forbidden, 2),
            (RefusalCode::UnknownHost, 4),
            (RefusalCode::Unreachable, 4),
            (RefusalCode::Refused, 5),
            (RefusalCode::Limit, 1),
        ] {
            assert_eq!(Reply::from(code) as u8, reply);
        }
    }
}
