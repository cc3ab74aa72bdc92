//! Output on disk, of an official agent that would fail if it were paused: it sends a command's separated
//! output as fast as it comes, whether or not the client takes it.
//!
//! [`SpoolGate`] is pure: it says which frames go to disk, in which order they come back, and when it is
//! too much. [`Spool`] is the disk: files without a name, so that nothing is left when the server dies,
//! each given up when everything in it was read.

use std::{
    collections::VecDeque,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use sortie_channel::frame::Frame;
use uuid::Uuid;

use crate::numbers::Numbers;

/// What is written at once, about.
const BATCH: usize = 256 << 10;
/// After this much a file is followed by another.
const SEGMENT: u64 = 64 << 20;
/// Bytes that may wait for the disk.
const UNWRITTEN: usize = 32 << 20;

/// When output goes to disk, and how much of it may be there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SpoolLimits {
    /// Above this many bytes that wait for the client.
    pub(crate) above: usize,
    /// Below this many, it comes back.
    pub(crate) below: usize,
    /// Bytes on disk.
    pub(crate) most: u64,
}

/// What is to be done with the disk.
#[derive(Debug)]
pub(crate) enum SpoolWork {
    /// Put this behind everything that is there.
    Write(Bytes),
    /// Take out the oldest piece.
    Read,
}

/// What of a session's output is on disk, or on its way there or back.
#[derive(Debug)]
pub(crate) struct SpoolGate {
    limits: SpoolLimits,
    fresh: BytesMut,
    /// Lengths of the pieces on disk.
    pieces: VecDeque<usize>,
    stored: u64,
    /// Numbers of the frames that are here.
    numbers: Numbers,
    is_working: bool,
    has_failed: bool,
}

impl SpoolGate {
    pub(crate) fn new(limits: SpoolLimits) -> Self {
        Self {
            limits,
            fresh: BytesMut::new(),
            pieces: VecDeque::new(),
            stored: 0,
            numbers: Numbers::default(),
            is_working: false,
            has_failed: false,
        }
    }

    /// Bytes that are here.
    pub(crate) fn held(&self) -> usize {
        let stored = usize::try_from(self.stored).unwrap_or(usize::MAX);
        stored.saturating_add(self.fresh.len())
    }

    /// Whether there is too much, or the disk does not take it.
    pub(crate) fn overflows(&self) -> bool {
        self.has_failed || self.fresh.len() > UNWRITTEN || self.stored > self.limits.most
    }

    /// A frame of the node, with this many bytes waiting for the client. It comes back where it does not
    /// go to disk; `None` also for a repeat of one that is there.
    pub(crate) fn take(&mut self, frame: Frame, is_new: bool, waiting: usize) -> Option<Frame> {
        let number = frame.sequence_number();
        if self.numbers.contains(number) {
            return None;
        }
        let is_needed = self.held() > 0 || self.is_working || waiting > self.limits.above;
        // A repeat of what went before all that is here would come too late behind it.
        if !is_new || !is_needed {
            return Some(frame);
        }
        self.numbers.insert(number);
        let bytes = frame.into_bytes();
        // Frames are shorter than a mebibyte or so.
        self.fresh.put_u32(u32::try_from(bytes.len()).unwrap_or(0));
        self.fresh.extend_from_slice(&bytes);
        None
    }

    /// What is to be done with the disk now, one thing at a time.
    pub(crate) fn work(&mut self, waiting: usize) -> Option<SpoolWork> {
        if self.is_working || self.has_failed {
            return None;
        }
        let work = if waiting < self.limits.below && !self.pieces.is_empty() {
            SpoolWork::Read
        } else if self.fresh.len() >= BATCH {
            let piece = self.fresh.split().freeze();
            self.pieces.push_back(piece.len());
            self.stored += piece.len() as u64;
            SpoolWork::Write(piece)
        } else {
            return None;
        };
        self.is_working = true;
        Some(work)
    }

    /// That is done. What was read comes back as frames; so does what never had to go to disk.
    pub(crate) fn worked(&mut self, outcome: io::Result<Option<Bytes>>) -> Vec<Frame> {
        self.is_working = false;
        let Ok(read) = outcome else {
            self.has_failed = true;
            return Vec::new();
        };
        let Some(read) = read else { return Vec::new() };
        self.pieces.pop_front();
        self.stored = self.stored.saturating_sub(read.len() as u64);
        self.returned(read)
    }

    /// What is left and need not go to disk any more, with this many bytes waiting for the client.
    pub(crate) fn rest(&mut self, waiting: usize) -> Vec<Frame> {
        let is_last = self.pieces.is_empty() && !self.is_working && !self.fresh.is_empty();
        if !is_last || waiting >= self.limits.below {
            return Vec::new();
        }
        let rest = self.fresh.split().freeze();
        self.returned(rest)
    }

    fn returned(&mut self, mut bytes: Bytes) -> Vec<Frame> {
        if self.held() == 0 {
            self.numbers = Numbers::default();
        }
        let mut frames = Vec::new();
        while bytes.remaining() >= 4 {
            let length = usize::try_from(bytes.get_u32()).unwrap_or(usize::MAX);
            if length > bytes.remaining() {
                break;
            }
            frames.extend(Frame::parse(bytes.split_to(length)));
        }
        frames
    }
}

/// The files of one session's output, oldest first.
#[derive(Debug)]
pub(crate) struct Spool {
    directory: PathBuf,
    pieces: VecDeque<Piece>,
    segment: Option<(Arc<File>, u64)>,
}

#[derive(Debug)]
struct Piece {
    file: Arc<File>,
    offset: u64,
    length: usize,
}

impl Spool {
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            pieces: VecDeque::new(),
            segment: None,
        }
    }

    /// Does what is to be done. Blocks.
    pub(crate) fn work(&mut self, work: SpoolWork) -> io::Result<Option<Bytes>> {
        match work {
            SpoolWork::Write(bytes) => self.write(&bytes).map(|()| None),
            SpoolWork::Read => self.read().map(Some),
        }
    }

    fn write(&mut self, bytes: &Bytes) -> io::Result<()> {
        let (file, offset) = match self.segment.take() {
            Some((file, offset)) if offset < SEGMENT => (file, offset),
            _ => (Arc::new(nameless(&self.directory)?), 0),
        };
        file.write_all_at(bytes, offset)?;
        let length = bytes.len();
        self.pieces.push_back(Piece {
            file: Arc::clone(&file),
            offset,
            length,
        });
        self.segment = Some((file, offset + length as u64));
        Ok(())
    }

    fn read(&mut self) -> io::Result<Bytes> {
        let piece = self.pieces.pop_front();
        let piece = piece.ok_or_else(|| io::Error::other("nothing is there"))?;
        let mut bytes = vec![0; piece.length];
        piece.file.read_exact_at(&mut bytes, piece.offset)?;
        if self.pieces.is_empty() {
            self.segment = None;
        }
        Ok(bytes.into())
    }
}

/// A file that nobody else can open, and that is gone when it is closed.
fn nameless(directory: &Path) -> io::Result<File> {
    let path = directory.join(format!("spool-{}", Uuid::new_v4()));
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use sortie_channel::frame::{MessageType, PayloadType};

    use super::*;
    use crate::pairing::testing::frame;

    const LIMITS: SpoolLimits = SpoolLimits {
        above: 1000,
        below: 100,
        most: 4 << 20,
    };

    fn output(number: i64) -> Frame {
        let payload = vec![u8::try_from(number % 251).unwrap(); 1024];
        frame(
            MessageType::OutputStreamData,
            number,
            PayloadType::OUTPUT,
            &payload,
        )
    }

    fn step(gate: &mut SpoolGate, spool: &mut Spool, waiting: usize) -> Vec<Frame> {
        match gate.work(waiting) {
            Some(work) => gate.worked(spool.work(work)),
            None => gate.rest(waiting),
        }
    }

    #[test]
    fn output_goes_to_disk_above_the_limit_and_comes_back_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(directory.path().to_owned());
        let mut gate = SpoolGate::new(LIMITS);
        let first = output(0);
        assert_eq!(gate.take(first.clone(), true, 1000), Some(first));
        for number in 1..2001 {
            assert_eq!(gate.take(output(number), true, 1001), None);
            assert!(step(&mut gate, &mut spool, 1001).is_empty());
        }
        assert!(gate.stored > 1 << 20, "{} bytes on disk", gate.stored);
        assert!(gate.fresh.len() < BATCH + 2000, "memory stays flat");
        // The client takes more, and the agent goes on.
        assert_eq!(gate.take(output(2001), true, 0), None, "behind the others");
        let mut back = Vec::new();
        while gate.held() > 0 {
            back.extend(step(&mut gate, &mut spool, 0));
        }
        let said = |frame: &Frame| (frame.sequence_number(), frame.payload());
        let expected: Vec<_> = (1..2002).map(|number| said(&output(number))).collect();
        assert!(back.iter().map(said).eq(expected), "in order and unchanged");
        let next = output(2002);
        assert_eq!(gate.take(next.clone(), true, 0), Some(next));
    }

    #[test]
    fn repeats_are_not_kept_twice_and_do_not_come_too_late() {
        let mut gate = SpoolGate::new(LIMITS);
        assert_eq!(gate.take(output(5), true, 2000), None);
        let held = gate.held();
        assert_eq!(gate.take(output(5), false, 2000), None);
        assert_eq!(gate.held(), held);
        let head = output(4);
        assert_eq!(gate.take(head.clone(), false, 2000), Some(head));
    }

    #[test]
    fn too_much_and_a_disk_that_fails_overflow() {
        let mut gate = SpoolGate::new(LIMITS);
        for number in 0..4500 {
            gate.take(output(number), true, 2000);
            if let Some(SpoolWork::Write(_)) = gate.work(2000) {
                gate.worked(Ok(None));
            }
            assert_eq!(gate.overflows(), gate.stored > LIMITS.most);
        }
        assert!(gate.overflows());

        let mut gate = SpoolGate::new(LIMITS);
        for number in 0..300 {
            gate.take(output(number), true, 2000);
        }
        assert!(gate.work(2000).is_some());
        assert!(!gate.overflows());
        gate.worked(Err(io::Error::other("full")));
        assert!(gate.overflows());
    }

    #[test]
    fn files_have_no_name_and_belong_to_the_server_alone() {
        let directory = tempfile::tempdir().unwrap();
        let file = nameless(directory.path()).unwrap();
        let metadata = file.metadata().unwrap();
        assert_eq!(metadata.mode() & 0o777, 0o600);
        assert_eq!(metadata.nlink(), 0);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_that_was_read_is_given_up() {
        let directory = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(directory.path().to_owned());
        let piece = Bytes::from(vec![7; 1000]);
        for _ in 0..3 {
            spool.work(SpoolWork::Write(piece.clone())).unwrap();
            spool.work(SpoolWork::Write(piece.clone())).unwrap();
            assert_eq!(spool.segment.as_ref().unwrap().1, 2000);
            assert_eq!(spool.work(SpoolWork::Read).unwrap(), Some(piece.clone()));
            assert_eq!(spool.work(SpoolWork::Read).unwrap(), Some(piece.clone()));
            assert!(spool.segment.is_none());
        }
        assert!(spool.work(SpoolWork::Read).is_err());
    }
}
