//! Standard input and output beside an event loop: a thread each, because terminals, pipes and files
//! have no non-blocking reads in common and a terminal's settings are shared with the shell we came
//! from. What is read and written is not known here.
//!
//! Where it is a terminal and little is typed or shown, the loop reads and writes itself: waking a
//! thread takes longer than all else that is done here with a key.

use std::{
    io::{self, IsTerminal, Write},
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread::JoinHandle,
};

use bytes::{Buf, Bytes};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{Errno, read},
    pipe::{PipeFlags, pipe_with},
};
use sortie_client::data_channel::MAX_INPUT;
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::{mpsc, oneshot},
};

/// Pieces between a thread and the loop.
const QUEUE: usize = 4;

/// Output of at most this size is written to a terminal by the loop itself: so much has room where the
/// terminal says that there is room.
const SMALL: usize = 64;

/// Standard input or a terminal, read from when this is made until it is dropped.
pub(crate) enum Input {
    /// A terminal: the loop reads it.
    Watched {
        source: AsyncFd<OwnedFd>,
        buffer: Box<[u8]>,
    },
    /// Anything else: a thread reads it.
    Threaded(Threaded),
}

impl Input {
    /// Reads standard input.
    pub(crate) fn start() -> io::Result<Self> {
        Self::of(io::stdin())
    }

    /// Reads what is open here.
    pub(crate) fn of(source: impl AsFd + Send + 'static) -> io::Result<Self> {
        if source.as_fd().is_terminal()
            && let Ok(copy) = source.as_fd().try_clone_to_owned()
            && let Ok(watched) = watched(copy)
        {
            return Ok(Self::Watched {
                source: watched,
                buffer: vec![0; MAX_INPUT].into(),
            });
        }
        Threaded::of(source).map(Self::Threaded)
    }

    /// The next piece, at most [`MAX_INPUT`] bytes; `None` at the end of the input, or when it
    /// cannot be read any more. Nothing is lost when the future is dropped.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        match self {
            Self::Watched { source, buffer } => read_watched(source, buffer).await,
            Self::Threaded(threaded) => threaded.next().await,
        }
    }

    /// Why the input could not be read to its end, once [`Self::next`] has given `None`.
    pub(crate) fn failure(&self) -> Option<String> {
        match self {
            // A terminal that cannot be read has gone, and with it the person.
            Self::Watched { .. } => None,
            Self::Threaded(threaded) => threaded.failure.get().map(ToString::to_string),
        }
    }

    /// What is known of the input now. Takes nothing away, and waits for nothing but what was there
    /// when this was made.
    pub(crate) async fn peek(&mut self) -> Peeked {
        match self {
            Self::Watched { .. } => Peeked::Nothing,
            Self::Threaded(threaded) => threaded.peek().await,
        }
    }
}

fn watched(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is the same open descriptor for as long as it lives, and the `AsyncFd` owns it.
    #[expect(unsafe_code, reason = "tokio has no other way to wait for a terminal")]
    let watched = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) };
    Ok(watched?)
}

async fn read_watched(source: &AsyncFd<OwnedFd>, buffer: &mut [u8]) -> Option<Bytes> {
    loop {
        let mut ready = source.readable().await.ok()?;
        // The terminal is a blocking one, and stays so for those who share it.
        if !is_ready(source.get_ref(), PollFlags::IN) {
            ready.clear_ready();
            continue;
        }
        match read(source.get_ref(), &mut *buffer) {
            Err(Errno::INTR | Errno::AGAIN) => {}
            Ok(0) | Err(_) => return None,
            Ok(length) => {
                return Some(Bytes::copy_from_slice(
                    buffer.get(..length).unwrap_or_default(),
                ));
            }
        }
    }
}

/// Whether there is something to read, or room to write, now.
fn is_ready(file: impl AsFd, what: PollFlags) -> bool {
    let mut ready = [PollFd::new(&file, what)];
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // An end or an error is to be read or written, too.
    poll(&mut ready, Some(&at_once)).is_ok_and(|count| count > 0)
}

/// An input that a thread reads.
pub(crate) struct Threaded {
    pieces: mpsc::Receiver<Bytes>,
    peeked: Option<Bytes>,
    /// There was something to read, or the end, before the thread began.
    is_owed: bool,
    failure: Arc<OnceLock<io::Error>>,
    wake: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Threaded {
    fn of(source: impl AsFd + Send + 'static) -> io::Result<Self> {
        let (woken, wake) = pipe_with(PipeFlags::CLOEXEC)?;
        let (sender, pieces) = mpsc::channel(QUEUE);
        let failure = Arc::new(OnceLock::new());
        let tell = Arc::clone(&failure);
        let is_owed = is_ready(&source, PollFlags::IN);
        let thread = std::thread::Builder::new()
            .name("stdin".to_owned())
            .spawn(move || {
                if let Err(error) = read_all(&source, &woken, &sender) {
                    // There is one reader, so nothing was told before.
                    let _ = tell.set(error);
                }
            })?;
        Ok(Self {
            pieces,
            peeked: None,
            is_owed,
            failure,
            wake: Some(wake),
            thread: Some(thread),
        })
    }

    async fn next(&mut self) -> Option<Bytes> {
        self.is_owed = false;
        if let Some(piece) = self.peeked.take() {
            return Some(piece);
        }
        self.pieces.recv().await
    }

    async fn peek(&mut self) -> Peeked {
        if self.peeked.is_some() {
            return Peeked::Piece;
        }
        if std::mem::take(&mut self.is_owed) {
            self.peeked = self.pieces.recv().await;
            return match self.peeked {
                Some(_) => Peeked::Piece,
                None => Peeked::Ended,
            };
        }
        match self.pieces.try_recv() {
            Ok(piece) => {
                self.peeked = Some(piece);
                Peeked::Piece
            }
            Err(mpsc::error::TryRecvError::Empty) => Peeked::Nothing,
            Err(mpsc::error::TryRecvError::Disconnected) => Peeked::Ended,
        }
    }
}

/// What [`Input::peek`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peeked {
    /// There is input.
    Piece,
    /// The input is over.
    Ended,
    /// Neither yet.
    Nothing,
}

impl Drop for Threaded {
    fn drop(&mut self) {
        self.pieces.close();
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was reported by the hook.
            let _ = thread.join();
        }
    }
}

fn read_all(source: &impl AsFd, woken: &OwnedFd, pieces: &mpsc::Sender<Bytes>) -> io::Result<()> {
    let mut buffer = vec![0; MAX_INPUT];
    loop {
        let mut ready = [
            PollFd::new(source, PollFlags::IN),
            PollFd::new(woken, PollFlags::IN),
        ];
        match poll(&mut ready, None) {
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
            Ok(_) => {}
        }
        let [_, wake] = &ready;
        if !wake.revents().is_empty() {
            return Ok(());
        }
        match read(source, &mut *buffer) {
            Err(Errno::INTR | Errno::AGAIN) => {}
            Ok(0) => return Ok(()),
            Err(error) => return Err(error.into()),
            Ok(length) => {
                let piece = Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default());
                if pieces.blocking_send(piece).is_err() {
                    return Ok(());
                }
            }
        }
    }
}

/// Where output goes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// Standard output and standard error, written in the order given.
pub(crate) struct Output {
    pieces: mpsc::Sender<(Stream, Bytes)>,
    done: oneshot::Receiver<io::Result<()>>,
    thread: Option<JoinHandle<()>>,
    /// Pieces that were given to the thread and are not written.
    waiting: Arc<AtomicUsize>,
    is_terminal: bool,
}

/// Standard output is closed at the other end, or cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Closed;

impl Output {
    /// The thread ends when all that was given is written. It is not joined but waited for with
    /// [`Self::finish`]: a terminal that was stopped with Ctrl-S would hold it for ever.
    pub(crate) fn start() -> io::Result<Self> {
        Self::behind(None)
    }

    /// Another output, whose pieces are written behind all that this one was given: for what is left to
    /// say on standard error when standard output is closed.
    pub(crate) fn successor(&mut self) -> io::Result<Self> {
        Self::behind(self.thread.take())
    }

    fn behind(former: Option<JoinHandle<()>>) -> io::Result<Self> {
        let (pieces, receiver) = mpsc::channel(QUEUE);
        let (tell_done, done) = oneshot::channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let unwritten = Arc::clone(&waiting);
        let thread = std::thread::Builder::new()
            .name("stdout".to_owned())
            .spawn(move || {
                if let Some(former) = former {
                    // A panic there was reported by the hook.
                    let _ = former.join();
                }
                let written = write_all(receiver, &unwritten, &io::stdout(), &mut io::stderr());
                // Nobody waits when the program is left in a hurry.
                let _ = tell_done.send(written);
            })?;
        Ok(Self {
            pieces,
            done,
            thread: Some(thread),
            waiting,
            is_terminal: io::stdout().is_terminal(),
        })
    }

    /// Waits until there is room for a piece.
    pub(crate) async fn ready(&self) -> Result<(), Closed> {
        self.pieces.reserve().await.map(drop).map_err(|_| Closed)
    }

    /// Takes a piece if there is room, else gives it back.
    pub(crate) fn offer(&self, piece: (Stream, Bytes)) -> Option<(Stream, Bytes)> {
        let (stream, bytes) = piece;
        let rest = self.write_small(stream, bytes);
        if rest.is_empty() {
            return None;
        }
        let Ok(permit) = self.pieces.try_reserve() else {
            return Some((stream, rest));
        };
        self.waiting.fetch_add(1, Ordering::SeqCst);
        permit.send((stream, rest));
        None
    }

    /// Writes at once what little there is to be seen, behind nothing else. What is not written comes
    /// back.
    fn write_small(&self, stream: Stream, mut bytes: Bytes) -> Bytes {
        let may_write = self.is_terminal
            && matches!(stream, Stream::Stdout)
            && bytes.len() <= SMALL
            && self.waiting.load(Ordering::SeqCst) == 0;
        if may_write
            && is_ready(io::stdout(), PollFlags::OUT)
            && let Ok(written) = rustix::io::write(io::stdout(), &bytes)
        {
            bytes.advance(written.min(bytes.len()));
        }
        bytes
    }

    /// Waits for room and takes the piece.
    pub(crate) async fn put(&self, piece: (Stream, Bytes)) -> Result<(), Closed> {
        let permit = self.pieces.reserve().await.map_err(|_| Closed)?;
        self.waiting.fetch_add(1, Ordering::SeqCst);
        permit.send(piece);
        Ok(())
    }

    /// Gives up the piece when there is no room: for remarks that are not worth waiting for.
    pub(crate) fn remark(&self, text: &str) {
        if let Ok(permit) = self.pieces.try_reserve() {
            self.waiting.fetch_add(1, Ordering::SeqCst);
            permit.send((Stream::Stderr, Bytes::copy_from_slice(text.as_bytes())));
        }
    }

    /// Waits until everything is written.
    pub(crate) async fn finish(self) {
        // Whoever wants to know why it could not be asks for the result.
        let _ = self.result().await;
    }

    /// Waits until everything is written. An error is standard output's: nothing after it was written
    /// there.
    pub(crate) async fn result(self) -> io::Result<()> {
        drop(self.pieces);
        self.done
            .await
            .unwrap_or_else(|_| Err(io::Error::other("the writing thread is gone")))
    }
}

fn write_all(
    mut pieces: mpsc::Receiver<(Stream, Bytes)>,
    unwritten: &AtomicUsize,
    stdout: &impl AsFd,
    stderr: &mut impl Write,
) -> io::Result<()> {
    let mut result = Ok(());
    while let Some((stream, piece)) = pieces.blocking_recv() {
        match stream {
            Stream::Stdout if result.is_err() => {}
            // Unbuffered: std's line buffer would hold back what has no newline.
            Stream::Stdout => result = write_raw(stdout, &piece),
            // Nobody can be told that standard error is gone.
            Stream::Stderr => _ = stderr.write_all(&piece),
        }
        // Not before: what the loop writes itself must come behind it.
        unwritten.fetch_sub(1, Ordering::SeqCst);
        if result.is_err() {
            // The loop hears of it. What it has given for standard error is still written.
            pieces.close();
        }
    }
    result
}

fn write_raw(out: &impl AsFd, mut piece: &[u8]) -> io::Result<()> {
    while !piece.is_empty() {
        match rustix::io::write(out, piece) {
            Ok(length) => piece = piece.get(length..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            // Someone else made the shared terminal non-blocking.
            Err(Errno::AGAIN) => {
                let mut ready = [PollFd::new(out, PollFlags::OUT)];
                poll(&mut ready, None)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_for_standard_error_is_written_when_standard_output_breaks() {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        drop(reader);
        let (given, pieces) = mpsc::channel(QUEUE);
        let unwritten = AtomicUsize::new(4);
        for piece in [
            (Stream::Stderr, "before "),
            (Stream::Stdout, "lost"),
            (Stream::Stderr, "kept"),
            (Stream::Stdout, "lost"),
        ] {
            given
                .try_send((piece.0, Bytes::from_static(piece.1.as_bytes())))
                .unwrap();
        }
        let mut stderr = Vec::new();
        let error = write_all(pieces, &unwritten, &writer, &mut stderr).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(stderr, b"before kept");
        assert!(given.is_closed());
        assert_eq!(unwritten.into_inner(), 0);
    }
}
