//! Standard input and output beside an event loop: a thread each, because terminals, pipes and files
//! have no non-blocking reads in common and a terminal's settings are shared with the shell we came
//! from. What is read and written is not known here.

use std::{
    io::{self, Write},
    os::fd::{AsFd, OwnedFd},
    thread::JoinHandle,
};

use bytes::Bytes;
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::{Errno, read},
};
use sortie_client::data_channel::MAX_INPUT;
use tokio::sync::{mpsc, oneshot};

/// Pieces between a thread and the loop.
const QUEUE: usize = 4;

/// Standard input or a terminal, read from when this is made until it is dropped.
pub(crate) struct Input {
    pieces: mpsc::Receiver<Bytes>,
    peeked: Option<Bytes>,
    wake: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Input {
    /// Reads standard input.
    pub(crate) fn start() -> io::Result<Self> {
        Self::of(io::stdin())
    }

    /// Reads what is open here.
    pub(crate) fn of(source: impl AsFd + Send + 'static) -> io::Result<Self> {
        let (woken, wake) = rustix::pipe::pipe()?;
        let (sender, pieces) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("stdin".to_owned())
            .spawn(move || read_all(&source, &woken, &sender))?;
        Ok(Self {
            pieces,
            peeked: None,
            wake: Some(wake),
            thread: Some(thread),
        })
    }

    /// The next piece, at most [`MAX_INPUT`] bytes; `None` at the end of the input, or when it
    /// cannot be read any more.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        if let Some(piece) = self.peeked.take() {
            return Some(piece);
        }
        self.pieces.recv().await
    }

    /// What is known of the input now. Takes nothing away.
    pub(crate) fn peek(&mut self) -> Peeked {
        if self.peeked.is_none() {
            match self.pieces.try_recv() {
                Ok(piece) => self.peeked = Some(piece),
                Err(mpsc::error::TryRecvError::Empty) => return Peeked::Nothing,
                Err(mpsc::error::TryRecvError::Disconnected) => return Peeked::Ended,
            }
        }
        Peeked::Piece
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

impl Drop for Input {
    fn drop(&mut self) {
        self.pieces.close();
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was reported by the hook.
            let _ = thread.join();
        }
    }
}

fn read_all(source: &impl AsFd, woken: &OwnedFd, pieces: &mpsc::Sender<Bytes>) {
    let mut buffer = vec![0; MAX_INPUT];
    loop {
        let mut ready = [
            PollFd::new(source, PollFlags::IN),
            PollFd::new(woken, PollFlags::IN),
        ];
        match poll(&mut ready, None) {
            Err(Errno::INTR) => continue,
            Err(_) => return,
            Ok(_) => {}
        }
        let [_, wake] = &ready;
        if !wake.revents().is_empty() {
            return;
        }
        match read(source, &mut *buffer) {
            Err(Errno::INTR | Errno::AGAIN) => {}
            Ok(0) | Err(_) => return,
            Ok(length) => {
                let piece = Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default());
                if pieces.blocking_send(piece).is_err() {
                    return;
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
}

/// Standard output is closed at the other end, or cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Closed;

impl Output {
    /// The thread ends when all that was given is written. It is not joined but waited for with
    /// [`Self::finish`]: a terminal that was stopped with Ctrl-S would hold it for ever.
    pub(crate) fn start() -> io::Result<Self> {
        let (pieces, receiver) = mpsc::channel(QUEUE);
        let (tell_done, done) = oneshot::channel();
        std::thread::Builder::new()
            .name("stdout".to_owned())
            .spawn(move || {
                let written = write_all(receiver);
                // Nobody waits when the program is left in a hurry.
                let _ = tell_done.send(written);
            })?;
        Ok(Self { pieces, done })
    }

    /// Waits until there is room for a piece.
    pub(crate) async fn ready(&self) -> Result<(), Closed> {
        self.pieces.reserve().await.map(drop).map_err(|_| Closed)
    }

    /// Takes a piece if there is room, else gives it back.
    pub(crate) fn offer(&self, piece: (Stream, Bytes)) -> Option<(Stream, Bytes)> {
        self.pieces
            .try_send(piece)
            .err()
            .map(mpsc::error::TrySendError::into_inner)
    }

    /// Waits for room and takes the piece.
    pub(crate) async fn put(&self, piece: (Stream, Bytes)) -> Result<(), Closed> {
        self.pieces.send(piece).await.map_err(|_| Closed)
    }

    /// Gives up the piece when there is no room: for remarks that are not worth waiting for.
    pub(crate) fn remark(&self, text: &str) {
        let _ = self
            .pieces
            .try_send((Stream::Stderr, Bytes::copy_from_slice(text.as_bytes())));
    }

    /// Waits until everything is written.
    pub(crate) async fn finish(self) {
        // Whoever wants to know why it could not be asks for the result.
        let _ = self.result().await;
    }

    /// Waits until everything is written. An error is standard output's: nothing after it was written.
    pub(crate) async fn result(self) -> io::Result<()> {
        drop(self.pieces);
        self.done
            .await
            .unwrap_or_else(|_| Err(io::Error::other("the writing thread is gone")))
    }
}

fn write_all(mut pieces: mpsc::Receiver<(Stream, Bytes)>) -> io::Result<()> {
    while let Some((stream, piece)) = pieces.blocking_recv() {
        let written = match stream {
            // Unbuffered: std's line buffer would hold back what has no newline.
            Stream::Stdout => write_raw(io::stdout(), &piece),
            Stream::Stderr => io::stderr().write_all(&piece),
        };
        // Nobody can be told that standard error is gone.
        if matches!(stream, Stream::Stdout) {
            written?;
        }
    }
    Ok(())
}

fn write_raw(out: impl std::os::fd::AsFd, mut piece: &[u8]) -> io::Result<()> {
    while !piece.is_empty() {
        match rustix::io::write(&out, piece) {
            Ok(length) => piece = piece.get(length..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            // Someone else made the shared terminal non-blocking.
            Err(Errno::AGAIN) => {
                let mut ready = [PollFd::new(&out, PollFlags::OUT)];
                poll(&mut ready, None)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
