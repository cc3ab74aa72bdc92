//! The standard input of a command on its way from the client into the pipe.

use std::{collections::VecDeque, io};

use bytes::{Buf, Bytes};
use sortie_channel::stdin;

use crate::os::PipeWriter;

/// What a held message counts on top of its bytes, so that many small ones are bounded too.
const OVERHEAD: usize = 256;
/// What is held of many small messages, on top of the window.
const OVERHEAD_LIMIT: usize = stdin::WINDOW;

/// Bytes that the command has not read yet, and the pipe that takes them.
pub(super) struct Input {
    /// Absent when there is no standard input, or no more.
    pipe: Option<PipeWriter>,
    pending: VecDeque<Bytes>,
    pending_bytes: usize,
    /// No more comes after what is pending.
    is_ending: bool,
    /// Bytes that left for the pipe, or were thrown away because nobody reads.
    taken: u64,
    told: u64,
}

impl Input {
    pub(super) fn new(pipe: Option<PipeWriter>) -> Self {
        Self {
            pipe,
            pending: VecDeque::new(),
            pending_bytes: 0,
            is_ending: false,
            taken: 0,
            told: 0,
        }
    }

    /// Whether the next message may be taken from the client. One that keeps to the window always finds
    /// room.
    pub(super) fn has_room(&self) -> bool {
        self.pending_bytes < stdin::WINDOW && self.pending.len() * OVERHEAD < OVERHEAD_LIMIT
    }

    pub(super) fn push(&mut self, bytes: Bytes) {
        if self.pipe.is_none() || self.is_ending {
            self.taken += bytes.len() as u64;
        } else {
            self.pending_bytes += bytes.len();
            self.pending.push_back(bytes);
        }
    }

    /// The pipe is closed when all that came before is in it.
    pub(super) fn end(&mut self) {
        self.is_ending = true;
        self.close_when_done();
    }

    /// Nobody reads any more.
    pub(super) fn close(&mut self) {
        self.pipe = None;
        self.taken += self.pending_bytes as u64;
        self.pending_bytes = 0;
        self.pending.clear();
    }

    /// Waits until [`Self::write`] can do something. For ever when there is nothing to do.
    pub(super) async fn writable(&self) {
        match &self.pipe {
            // A pipe that cannot be waited for fails at the write.
            Some(pipe) if !self.pending.is_empty() => drop(pipe.writable().await),
            _ => std::future::pending().await,
        }
    }

    /// Moves into the pipe what has room there.
    pub(super) fn write(&mut self) {
        while let (Some(pipe), Some(first)) = (&self.pipe, self.pending.front_mut()) {
            match pipe.try_write(first) {
                Ok(written) => {
                    first.advance(written.min(first.len()));
                    self.pending_bytes = self.pending_bytes.saturating_sub(written);
                    self.taken += written as u64;
                    if first.is_empty() {
                        self.pending.pop_front();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::debug!(%error, "the command does not take its standard input");
                    return self.close();
                }
            }
        }
        self.close_when_done();
    }

    fn close_when_done(&mut self) {
        if self.is_ending && self.pending.is_empty() {
            self.pipe = None;
        }
    }

    /// What was taken so far, when the client should hear of it.
    pub(super) fn news(&self) -> Option<u64> {
        (self.taken - self.told >= stdin::TAKEN_STEP).then_some(self.taken)
    }

    /// The client hears of it.
    pub(super) fn told(&mut self, taken: u64) {
        self.told = taken;
    }
}
