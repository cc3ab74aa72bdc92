//! Joins a stream with a local connection, each direction by itself.

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{PortReader, PortStream, PortWriter};

/// What one read of the local connection may bring.
const READ: usize = 128 << 10;
/// What is taken from the stream at a time: what is taken the node may send anew.
const WRITE: usize = 256 << 10;
/// Less room than this and the next read gets a new buffer.
const LEAST_READ: usize = 32 << 10;

/// Why a connection ended before both directions had.
#[derive(Debug, thiserror::Error)]
pub enum SpliceError {
    /// The local connection broke.
    #[error("the local connection broke: {0}")]
    Local(#[source] io::Error),
    /// The stream was refused, broke, or its session is over.
    #[error("{0}")]
    Stream(#[source] io::Error),
}

/// Moves bytes both ways until both directions have ended. After an error the stream is reset, and the
/// caller ends the local connection.
///
/// # Errors
/// When either side breaks.
pub async fn splice<L: AsyncRead + AsyncWrite>(
    stream: PortStream,
    local: L,
) -> Result<(), SpliceError> {
    let (reader, writer) = tokio::io::split(local);
    splice_halves(stream, reader, writer).await
}

/// The same for a local connection in two halves, such as standard input and output.
///
/// # Errors
/// When either side breaks.
pub async fn splice_halves(
    stream: PortStream,
    local_reader: impl AsyncRead,
    local_writer: impl AsyncWrite,
) -> Result<(), SpliceError> {
    let (reader, writer) = stream.into_split();
    tokio::try_join!(upload(local_reader, writer), download(reader, local_writer))?;
    Ok(())
}

async fn upload(local: impl AsyncRead, mut writer: PortWriter) -> Result<(), SpliceError> {
    let mut local = std::pin::pin!(local);
    let mut buffer = BytesMut::with_capacity(READ);
    loop {
        // Nothing is read that could not be sent: the local sender waits in its own socket.
        if let Err(error) = writer.room().await {
            return is_closed(error);
        }
        if buffer.capacity() - buffer.len() < LEAST_READ {
            buffer.reserve(READ);
        }
        let read = tokio::select! {
            read = local.read_buf(&mut buffer) => read,
            () = writer.closed() => return Ok(()),
        };
        match read {
            Ok(0) => {
                writer.finish();
                return Ok(());
            }
            Ok(_) => {
                if let Err(error) = writer.send(buffer.split().freeze()).await {
                    return is_closed(error);
                }
            }
            Err(error) => {
                writer.reset();
                return Err(SpliceError::Local(error));
            }
        }
    }
}

/// An other end that takes nothing more may still send.
fn is_closed(error: io::Error) -> Result<(), SpliceError> {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Ok(());
    }
    Err(SpliceError::Stream(error))
}

async fn download(mut reader: PortReader, local: impl AsyncWrite) -> Result<(), SpliceError> {
    let mut local = std::pin::pin!(local);
    while let Some(mut pieces) = reader.pieces(WRITE).await.map_err(SpliceError::Stream)? {
        local
            .write_all_buf(&mut pieces)
            .await
            .map_err(SpliceError::Local)?;
    }
    match local.shutdown().await {
        // The program has closed meanwhile: it cannot be told, and need not be.
        Err(error) if error.kind() != io::ErrorKind::NotConnected => Err(SpliceError::Local(error)),
        _ => Ok(()),
    }
}
