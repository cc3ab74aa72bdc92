//! The rules of the order of messages, as the receiver holds the sender to them. No message is acted on
//! that was not taken here.

use std::collections::{BTreeMap, VecDeque};

use super::{DEEPEST, LARGEST_DATA, Message, VERSION, WINDOW};

/// What a sender may not do. The copy cannot go on after that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rule {
    /// The first message is the hello, and only that.
    #[error("the first message has to be a hello, and no other")]
    Hello,
    /// No version that both know.
    #[error("the other end speaks version {0} of the copy protocol, this one {VERSION}")]
    Version(u32),
    /// More than [`WINDOW`] entries.
    #[error("too many entries were announced at once")]
    Window,
    /// More than [`DEEPEST`] directories, or one left that was not entered.
    #[error("directories do not fit together")]
    Depth,
    /// Only the first entry is the destination itself.
    #[error("an entry within a directory has no name")]
    Nameless,
    /// A file's bytes without its turn, or another message within them.
    #[error("a file's bytes came out of turn")]
    Turn,
    /// More or fewer bytes than announced.
    #[error("a file has another size than announced")]
    Size,
    /// A message of the other direction.
    #[error("a message of the receiver came from the sender")]
    Direction,
    /// Something behind the end.
    #[error("a message came behind the last one")]
    Over,
}

/// Of a file that is being sent.
#[derive(Clone, Copy, Debug)]
struct Current {
    /// Bytes to come; `None` when nobody knows.
    left: Option<u64>,
}

/// What was announced and wanted.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    size: Option<u64>,
    /// What this end has of it.
    held: u64,
}

/// The course of a copy, as its receiver sees it.
#[derive(Debug, Default)]
pub struct Incoming {
    greeted: bool,
    finished: bool,
    depth: usize,
    /// Entries announced; the next one's number.
    announced: u64,
    /// Entries that are not settled; with the size of files.
    unsettled: BTreeMap<u64, Option<u64>>,
    /// Files that this end wants, in the order in which they come.
    wanted: VecDeque<(u64, Wanted)>,
    current: Option<Current>,
}

impl Incoming {
    /// Takes the next message, or says which rule it breaks.
    ///
    /// # Errors
    /// The rule.
    pub fn take(&mut self, message: &Message) -> Result<(), Rule> {
        if self.finished {
            return Err(Rule::Over);
        }
        if let Message::Fatal(_) = message {
            self.finished = true;
            return Ok(());
        }
        if let Message::Hello(hello) = message {
            if std::mem::replace(&mut self.greeted, true) {
                return Err(Rule::Hello);
            }
            return match hello.version {
                VERSION.. => Ok(()),
                older => Err(Rule::Version(older)),
            };
        }
        if !self.greeted {
            return Err(Rule::Hello);
        }
        match self.current {
            Some(current) => self.take_of_file(message, current),
            None => self.take_between(message),
        }
    }

    fn take_between(&mut self, message: &Message) -> Result<(), Rule> {
        match message {
            Message::Enter(_, name) => {
                self.announce(None, name.is_some())?;
                self.depth += 1;
                if self.depth > DEEPEST {
                    return Err(Rule::Depth);
                }
                Ok(())
            }
            Message::Leave => {
                self.depth = self.depth.checked_sub(1).ok_or(Rule::Depth)?;
                Ok(())
            }
            Message::File { size, name, .. } => self.announce(*size, name.is_some()),
            Message::Link { .. } => self.announce(None, true),
            Message::Problem(..) | Message::Total(..) => Ok(()),
            Message::Start(entry, offset) => self.start(*entry, *offset),
            Message::Abort(entry, _) => self.turn(*entry).map(drop),
            Message::Finish if self.depth == 0 && self.wanted.is_empty() => {
                self.finished = true;
                Ok(())
            }
            Message::Finish | Message::Data(_) | Message::End(_) => Err(Rule::Turn),
            _ => Err(Rule::Direction),
        }
    }

    /// Announcements may go on between a file's bytes.
    fn take_of_file(&mut self, message: &Message, current: Current) -> Result<(), Rule> {
        match message {
            Message::Data(data) => {
                let came = u64::try_from(data.len().min(LARGEST_DATA)).unwrap_or(u64::MAX);
                let left = match current.left {
                    Some(left) => Some(left.checked_sub(came).ok_or(Rule::Size)?),
                    None => None,
                };
                self.current = Some(Current { left });
                Ok(())
            }
            Message::End(_) => {
                if current.left.is_some_and(|left| left > 0) {
                    return Err(Rule::Size);
                }
                self.current = None;
                Ok(())
            }
            Message::Abort(..) => {
                self.current = None;
                Ok(())
            }
            Message::Start(..) | Message::Finish => Err(Rule::Turn),
            other => self.take_between(other),
        }
    }

    fn announce(&mut self, size: Option<u64>, is_named: bool) -> Result<(), Rule> {
        if !is_named && (self.announced > 0 || self.depth > 0) {
            return Err(Rule::Nameless);
        }
        if self.unsettled.len() >= WINDOW {
            return Err(Rule::Window);
        }
        self.unsettled.insert(self.announced, size);
        self.announced += 1;
        Ok(())
    }

    fn start(&mut self, entry: u64, offset: u64) -> Result<(), Rule> {
        let wanted = self.turn(entry)?;
        if offset != 0 && offset != wanted.held {
            return Err(Rule::Turn);
        }
        self.current = Some(Current {
            left: wanted.size.map(|size| size.saturating_sub(offset)),
        });
        Ok(())
    }

    /// Takes the file whose turn it is.
    fn turn(&mut self, entry: u64) -> Result<Wanted, Rule> {
        match self.wanted.front() {
            Some((next, _)) if *next == entry => {}
            _ => return Err(Rule::Turn),
        }
        let (_, wanted) = self.wanted.pop_front().ok_or(Rule::Turn)?;
        Ok(wanted)
    }

    /// The number of the entry that was announced last.
    #[must_use]
    pub fn last_entry(&self) -> u64 {
        self.announced.saturating_sub(1)
    }

    /// This end has said that it wants the file that was announced last, and that it has its first
    /// `held` bytes.
    pub fn wanted(&mut self, entry: u64, held: u64) {
        if let Some(size) = self.unsettled.get(&entry) {
            let size = *size;
            self.wanted.push_back((entry, Wanted { size, held }));
        }
    }

    /// This end has said what came of an entry.
    pub fn settled(&mut self, entry: u64) {
        self.unsettled.remove(&entry);
    }

    /// Whether everything came, or nothing more will.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.finished
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::copy::{Digest, Hello, Meta, Name};

    const META: Meta = Meta {
        mode: 0o644,
        seconds: 0,
        nanoseconds: 0,
    };

    fn hello() -> Message {
        Message::Hello(Hello {
            version: VERSION,
            ..Hello::default()
        })
    }

    fn name() -> Option<Name> {
        Some(Name::new("a").unwrap())
    }

    fn file(size: u64) -> Message {
        Message::File {
            meta: META,
            size: Some(size),
            name: name(),
        }
    }

    fn greeted() -> Incoming {
        let mut incoming = Incoming::default();
        incoming.take(&hello()).unwrap();
        incoming
    }

    /// A file of ten bytes of which four are here.
    fn asked() -> Incoming {
        let mut incoming = greeted();
        incoming.take(&file(10)).unwrap();
        incoming.wanted(0, 4);
        incoming
    }

    fn data(length: usize) -> Message {
        Message::Data(vec![0; length].into())
    }

    fn end() -> Message {
        Message::End(Digest([0; 32]))
    }

    #[test]
    fn a_file_comes_whole_or_from_where_it_was_wanted() {
        for (offset, length) in [(4, 6), (0, 10)] {
            let mut incoming = asked();
            for message in [
                Message::Start(0, offset),
                data(length),
                end(),
                Message::Finish,
            ] {
                assert_eq!(incoming.take(&message), Ok(()), "{message:?}");
            }
            assert!(incoming.is_finished());
            assert_eq!(incoming.take(&Message::Leave), Err(Rule::Over));
        }
    }

    #[test]
    fn a_lie_about_a_size_is_found() {
        let mut longer = asked();
        longer.take(&Message::Start(0, 4)).unwrap();
        assert_eq!(longer.take(&data(7)), Err(Rule::Size));
        let mut shorter = asked();
        shorter.take(&Message::Start(0, 4)).unwrap();
        shorter.take(&data(5)).unwrap();
        assert_eq!(shorter.take(&end()), Err(Rule::Size));
    }

    #[test]
    fn every_message_has_its_turn() {
        type Situation = fn() -> Incoming;
        let table: [(Situation, Message, Rule); 12] = [
            (Incoming::default, file(1), Rule::Hello),
            (greeted, hello(), Rule::Hello),
            (greeted, Message::Start(0, 0), Rule::Turn),
            (greeted, data(1), Rule::Turn),
            (greeted, end(), Rule::Turn),
            (greeted, Message::Leave, Rule::Depth),
            (greeted, Message::Done(0), Rule::Direction),
            (asked, Message::Start(0, 5), Rule::Turn),
            (asked, Message::Start(1, 0), Rule::Turn),
            (asked, Message::Abort(1, String::new()), Rule::Turn),
            (asked, Message::Finish, Rule::Turn),
            (asked, Message::Enter(META, None), Rule::Nameless),
        ];
        for (incoming, message, rule) in table {
            assert_eq!(incoming().take(&message), Err(rule), "{message:?}");
        }
        let old = Message::Hello(Hello::default());
        assert_eq!(Incoming::default().take(&old), Err(Rule::Version(0)));
    }

    #[test]
    fn announcements_are_bounded_until_they_are_settled() {
        let mut incoming = greeted();
        for _ in 0..WINDOW {
            incoming.take(&file(1)).unwrap();
        }
        incoming.settled(3);
        assert_eq!(incoming.take(&file(1)), Ok(()));
        assert_eq!(incoming.take(&file(1)), Err(Rule::Window));

        let mut deep = greeted();
        for entry in 0..DEEPEST {
            deep.take(&Message::Enter(META, name())).unwrap();
            deep.settled(entry as u64);
        }
        assert_eq!(deep.take(&Message::Enter(META, name())), Err(Rule::Depth));
    }

    #[test]
    fn announcements_go_on_between_a_files_bytes() {
        let mut incoming = asked();
        for message in [Message::Start(0, 4), data(3), file(1), data(3), end()] {
            assert_eq!(incoming.take(&message), Ok(()), "{message:?}");
        }
    }
}
