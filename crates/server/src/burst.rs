//! Reading in large pieces while much comes. rustls asks a socket for 4 KiB at a time, which is a system
//! call for each quarter of a record; a connection that carries bulk reads 128 KiB at once instead
//! and gives it on in pieces. One that is quiet has no buffer: most connections are.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is read at once.
const PIECE: usize = 128 << 10;
/// After so many reads in a row that were filled, more is probably there.
const FULL_READS: u8 = 3;
/// A read that brought less than this was not worth a buffer.
const SMALL: usize = 16 << 10;
/// After so many of these in a row the buffer is given up.
const SMALL_READS: u8 = 8;

/// A socket that is read in large pieces while much comes.
#[derive(Debug)]
pub(crate) struct Burst<S> {
    socket: S,
    /// Empty while little comes.
    buffer: Box<[u8]>,
    /// What of it was read and is not given on.
    given: usize,
    read: usize,
    full_reads: u8,
    small_reads: u8,
}

impl<S> Burst<S> {
    pub(crate) fn new(socket: S) -> Self {
        Self {
            socket,
            buffer: Box::default(),
            given: 0,
            read: 0,
            full_reads: 0,
            small_reads: 0,
        }
    }

    fn give(&mut self, to: &mut ReadBuf<'_>) {
        let length = to.remaining().min(self.read - self.given);
        let now = self.buffer.get(self.given..self.given + length);
        to.put_slice(now.unwrap_or_default());
        self.given += length;
        if self.given == self.read && self.small_reads >= SMALL_READS {
            self.buffer = Box::default();
            (self.full_reads, self.small_reads) = (0, 0);
        }
    }
}

impl<S: AsyncRead + Unpin> Burst<S> {
    fn poll_direct(&mut self, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.socket).poll_read(cx, to))?;
        self.full_reads = match to.remaining() {
            0 => self.full_reads + 1,
            _ => 0,
        };
        if self.full_reads >= FULL_READS {
            self.buffer = vec![0; PIECE].into_boxed_slice();
            (self.given, self.read) = (0, 0);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut buffer = ReadBuf::new(&mut self.buffer);
        ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buffer))?;
        (self.given, self.read) = (0, buffer.filled().len());
        self.small_reads = match self.read {
            0..SMALL => self.small_reads + 1,
            _ => 0,
        };
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Burst<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.buffer.is_empty() {
            return this.poll_direct(cx, to);
        }
        if this.given == this.read {
            ready!(this.poll_fill(cx))?;
        }
        this.give(to);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Burst<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    /// Counts the reads that brought something.
    struct Counted {
        socket: DuplexStream,
        reads: Arc<AtomicUsize>,
    }

    impl AsyncRead for Counted {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            to: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            ready!(Pin::new(&mut self.socket).poll_read(cx, to))?;
            self.reads.fetch_add(1, Ordering::Relaxed);
            Poll::Ready(Ok(()))
        }
    }

    fn counted() -> (DuplexStream, Burst<Counted>, Arc<AtomicUsize>) {
        let (sender, socket) = duplex(1 << 20);
        let reads = Arc::new(AtomicUsize::new(0));
        let counted = Counted {
            socket,
            reads: Arc::clone(&reads),
        };
        (sender, Burst::new(counted), reads)
    }

    /// Reads as rustls does. What came.
    async fn read_4k(burst: &mut Burst<Counted>, length: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while all.len() < length {
            let mut piece = [0; 4096];
            let read = burst.read(&mut piece).await.unwrap();
            assert!(read > 0);
            all.extend_from_slice(&piece[..read]);
        }
        all
    }

    #[tokio::test]
    async fn bulk_comes_unchanged_in_few_reads() {
        let (mut sender, mut burst, reads) = counted();
        let sent: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
        sender.write_all(&sent).await.unwrap();
        assert_eq!(read_4k(&mut burst, sent.len()).await, sent);
        let reads = reads.load(Ordering::Relaxed);
        assert!(reads < 15, "{reads} reads for a megabyte");
    }

    #[tokio::test]
    async fn who_is_quiet_has_no_buffer() {
        let (mut sender, mut burst, _) = counted();
        for _ in 0..50 {
            sender.write_all(&[7; 100]).await.unwrap();
            read_4k(&mut burst, 100).await;
        }
        assert!(burst.buffer.is_empty());
        sender.write_all(&[7; 100_000]).await.unwrap();
        read_4k(&mut burst, 100_000).await;
        assert_eq!(burst.buffer.len(), PIECE);
        for _ in 0..SMALL_READS {
            sender.write_all(&[7; 100]).await.unwrap();
            assert_eq!(read_4k(&mut burst, 100).await, [7; 100]);
        }
        assert!(burst.buffer.is_empty(), "given up");
    }

    #[tokio::test]
    async fn the_end_is_seen() {
        let (mut sender, mut burst, _) = counted();
        sender.write_all(&[7; 40_000]).await.unwrap();
        drop(sender);
        read_4k(&mut burst, 40_000).await;
        assert_eq!(burst.read(&mut [0; 10]).await.unwrap(), 0);
        assert_eq!(burst.read(&mut [0; 10]).await.unwrap(), 0);
    }
}
