//! Messages over the two directions of a stream.

use std::{
    io::{self, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::BytesMut;
use sortie_channel::copy::{Decoder, Hello, Message, Rule, VERSION};

use crate::{CopyError, Wishes};

/// What one read brings at most.
const READ: usize = 256 << 10;
/// With so much waiting it is sent.
const FULL: usize = 128 << 10;

/// The direction to the other end. Used by several threads.
pub(crate) struct Output<'a> {
    stream: &'a UnixStream,
    waiting: Mutex<Vec<u8>>,
}

impl<'a> Output<'a> {
    pub(crate) fn new(stream: &'a UnixStream) -> Self {
        Self {
            stream,
            waiting: Mutex::new(Vec::new()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a message behind the others; it goes when there is enough, or at [`Self::flush`].
    pub(crate) fn write(&self, message: &Message) -> Result<(), CopyError> {
        let mut waiting = self.lock();
        message.write(&mut waiting);
        if waiting.len() >= FULL {
            self.send(&mut waiting)?;
        }
        Ok(())
    }

    pub(crate) fn flush(&self) -> Result<(), CopyError> {
        self.send(&mut self.lock())
    }

    /// A message that goes at once.
    pub(crate) fn tell(&self, message: &Message) -> Result<(), CopyError> {
        self.write(message)?;
        self.flush()
    }

    fn send(&self, waiting: &mut Vec<u8>) -> Result<(), CopyError> {
        let mut stream = self.stream;
        let sent = stream.write_all(waiting);
        waiting.clear();
        sent.map_err(CopyError::Line)
    }
}

/// The direction from the other end.
pub(crate) struct Input<'a> {
    stream: &'a UnixStream,
    decoder: Decoder,
}

impl<'a> Input<'a> {
    pub(crate) fn new(stream: &'a UnixStream) -> Self {
        Self {
            stream,
            decoder: Decoder::default(),
        }
    }

    /// A message that is here already.
    pub(crate) fn next_here(&mut self) -> Result<Option<Message>, CopyError> {
        Ok(self.decoder.next_message()?)
    }

    /// Waits for the next message.
    pub(crate) fn next(&mut self) -> Result<Message, CopyError> {
        loop {
            if let Some(message) = self.next_here()? {
                return Ok(message);
            }
            if self.read().map_err(CopyError::Line)? == 0 {
                self.decoder.finish()?;
                return Err(CopyError::Left);
            }
        }
    }

    fn read(&mut self) -> io::Result<usize> {
        let buffer: &mut BytesMut = self.decoder.buffer();
        let end = buffer.len();
        buffer.resize(end + READ, 0);
        let mut stream = self.stream;
        let place = buffer.get_mut(end..).unwrap_or_default();
        let read = loop {
            match stream.read(place) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        buffer.truncate(end + read.as_ref().copied().unwrap_or(0));
        read
    }
}

/// The first message of the other end.
pub(crate) fn greeting(input: &mut Input<'_>) -> Result<Hello, CopyError> {
    match input.next()? {
        Message::Hello(hello) if hello.version >= VERSION => Ok(hello),
        Message::Hello(hello) => Err(Rule::Version(hello.version).into()),
        Message::Fatal(why) => Err(CopyError::Told(why)),
        _ => Err(Rule::Hello.into()),
    }
}

/// What the client says first.
pub(crate) fn clients_hello(wishes: Wishes) -> Message {
    Message::Hello(Hello {
        version: VERSION,
        recursive: wishes.recursive,
        preserve: wishes.preserve,
        into_directory: wishes.into_directory,
        totals: wishes.totals,
    })
}

/// What the node says first.
pub(crate) fn nodes_hello() -> Message {
    Message::Hello(Hello {
        version: VERSION,
        ..Hello::default()
    })
}

/// Tells the other end why nothing more comes, and waits until it has gone: a stream that is closed
/// with bytes unread would lose what was said.
pub(crate) fn say_goodbye(stream: &UnixStream, output: &Output<'_>, error: &CopyError) {
    if !matches!(
        error,
        CopyError::Told(_) | CopyError::Line(_) | CopyError::Left
    ) {
        // Who cannot be told has gone.
        let _ = output.tell(&Message::Fatal(error.to_string()));
    }
    let _ = stream.shutdown(Shutdown::Write);
    if !matches!(
        error,
        CopyError::Stopped | CopyError::Line(_) | CopyError::Left
    ) {
        let mut rest = stream;
        let _ = io::copy(&mut rest, &mut io::sink());
    }
}
