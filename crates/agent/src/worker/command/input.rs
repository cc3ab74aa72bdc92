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
        self.pending_bytes <= stdin::WINDOW && self.pending.len() * OVERHEAD <= OVERHEAD_LIMIT
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

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn input() -> (Input, io::PipeReader) {
        let (reader, writer) = io::pipe().unwrap();
        let writer = PipeWriter::from_owned_fd(writer.into()).unwrap();
        (Input::new(Some(writer)), reader)
    }

    #[tokio::test]
    async fn a_whole_window_has_room_and_nothing_beyond_it() {
        let (mut input, _command) = input();
        for _ in 0..16 {
            assert!(input.has_room());
            input.push(vec![0; stdin::WINDOW / 16].into());
        }
        // For the signal behind it.
        assert!(input.has_room());
        input.push(Bytes::from_static(b"x"));
        assert!(!input.has_room());
    }

    #[tokio::test]
    async fn many_small_messages_are_bounded_too() {
        let (mut input, _command) = input();
        let mut messages = 0;
        while input.has_room() {
            input.push(Bytes::from_static(b"x"));
            messages += 1;
        }
        assert!(messages <= 5000, "{messages}");
    }

    #[tokio::test]
    async fn what_was_taken_is_told_in_steps_and_the_end_comes_last() {
        let (mut input, mut command) = input();
        input.push(vec![7; 100_000].into());
        input.push(vec![8; 200_000].into());
        input.end();
        let read = tokio::task::spawn_blocking(move || {
            let mut bytes = Vec::new();
            command.read_to_end(&mut bytes).unwrap();
            bytes
        });
        assert_eq!(input.news(), None);
        while input.pipe.is_some() {
            input.writable().await;
            input.write();
        }
        assert_eq!(input.news(), Some(300_000));
        input.told(300_000);
        assert_eq!(input.news(), None);
        let bytes = read.await.unwrap();
        assert_eq!(bytes.len(), 300_000);
        assert!(bytes[..100_000].iter().all(|&byte| byte == 7));
    }

    #[tokio::test]
    async fn what_nobody_reads_is_thrown_away_and_counts_as_taken() {
        let (mut input, command) = input();
        drop(command);
        input.push(vec![0; stdin::WINDOW].into());
        input.writable().await;
        input.write();
        assert_eq!(input.news(), Some(stdin::WINDOW as u64));
        input.push(Bytes::from_static(b"more"));
        assert!(input.has_room());
    }
}
