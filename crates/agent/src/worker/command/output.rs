//! One output of a command on its way from the pipe to the client.

use std::io;

use crate::os::{self, PipeReader};

/// The end of a pipe that a command writes to.
pub(super) struct Output {
    /// Absent when there is no such output, or no more.
    pipe: Option<PipeReader>,
    /// What a chunk begins with, unless the one before it ended in the middle of a line.
    prefix: String,
    is_line_begun: bool,
    /// Bytes that the command had written when it ended.
    owed: u64,
}

impl Output {
    pub(super) fn new(pipe: Option<PipeReader>, prefix: String) -> Self {
        Self {
            pipe,
            prefix,
            is_line_begun: false,
            owed: 0,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.pipe.is_some()
    }

    pub(super) fn close(&mut self) {
        self.pipe = None;
    }

    /// Whether a message of so many bytes could carry some of it.
    pub(super) fn fits(&self, room: usize) -> bool {
        room > self.prefix.len()
    }

    /// Waits until [`Self::read`] can do something. For ever when there is nothing to do.
    pub(super) async fn readable(&self) {
        match &self.pipe {
            // A pipe that cannot be waited for fails at the read.
            Some(pipe) => drop(pipe.readable().await),
            None => std::future::pending().await,
        }
    }

    /// Reads what is there into `buffer`, behind the prefix where one is due, and returns what is to be
    /// sent. Closes itself at the end.
    pub(super) fn read<'b>(&mut self, buffer: &'b mut [u8]) -> &'b [u8] {
        let prefix_len = if self.is_line_begun {
            0
        } else {
            self.prefix.len()
        };
        let Some((begin, rest)) = buffer.split_at_mut_checked(prefix_len) else {
            return &[];
        };
        let read = self.fill(rest);
        if read == 0 {
            return &[];
        }
        begin.copy_from_slice(self.prefix.as_bytes().get(..prefix_len).unwrap_or_default());
        let chunk = buffer.get(..prefix_len + read).unwrap_or_default();
        self.is_line_begun = chunk.last() != Some(&b'\n');
        self.owed = self.owed.saturating_sub(read as u64);
        chunk
    }

    fn fill(&mut self, buffer: &mut [u8]) -> usize {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty())
            && let Some(pipe) = &self.pipe
        {
            match pipe.try_read(rest) {
                Ok(read) if read > 0 => filled += read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                ended => {
                    if let Err(error) = ended {
                        tracing::warn!(%error, "cannot read the command's output");
                    }
                    self.close();
                }
            }
        }
        filled
    }

    /// The command has ended: what waits in the pipe now holds the last that it wrote.
    pub(super) fn note_what_waits(&mut self) {
        self.owed = self.pipe.as_ref().map_or(0, os::waiting_in);
    }

    /// Whether some of that was not read yet.
    pub(super) fn is_owed(&self) -> bool {
        self.is_open() && self.owed > 0
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// An output, and where its command writes.
    fn output(prefix: &str) -> (Output, io::PipeWriter) {
        let (reader, writer) = io::pipe().unwrap();
        let reader = PipeReader::from_owned_fd(reader.into()).unwrap();
        (Output::new(Some(reader), prefix.to_owned()), writer)
    }

    async fn chunk(output: &mut Output, room: usize) -> String {
        let mut buffer = vec![0; room];
        output.readable().await;
        String::from_utf8(output.read(&mut buffer).to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_chunk_begins_with_the_prefix_unless_a_line_goes_on() {
        let (mut output, mut command) = output("E:");
        for (written, sent) in [("a\nb", "E:a\nb"), ("c", "c"), ("d\n", "d\n"), ("e", "E:e")] {
            command.write_all(written.as_bytes()).unwrap();
            assert_eq!(chunk(&mut output, 100).await, sent);
        }
    }

    #[tokio::test]
    async fn no_chunk_is_larger_than_its_room_and_none_is_a_prefix_alone() {
        let (mut output, mut command) = output("E:");
        command.write_all(b"abc\n").unwrap();
        assert!(!output.fits(2));
        assert_eq!(chunk(&mut output, 2).await, "");
        assert!(output.fits(3));
        for sent in ["E:a", "bc\n"] {
            assert_eq!(chunk(&mut output, 3).await, sent);
        }
        drop(command);
        assert_eq!(chunk(&mut output, 3).await, "");
        assert!(!output.is_open());
    }

    #[tokio::test]
    async fn what_waited_at_the_commands_end_is_owed_until_it_is_read() {
        let (mut output, mut command) = output("");
        command.write_all(b"abcdef").unwrap();
        output.note_what_waits();
        assert_eq!(chunk(&mut output, 4).await, "abcd");
        assert!(output.is_owed());
        // Somebody else's.
        command.write_all(b"ghi").unwrap();
        assert_eq!(chunk(&mut output, 4).await, "efgh");
        assert!(!output.is_owed() && output.is_open());
    }
}
