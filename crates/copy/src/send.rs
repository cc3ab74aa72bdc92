//! The sending end: announces ahead, sends the files that are wanted in their order, and hears what
//! came of each entry.

use std::{
    collections::{HashMap, VecDeque},
    fs::File,
    io::{self, Read},
    net::Shutdown,
    os::unix::{ffi::OsStrExt, net::UnixStream},
    path::PathBuf,
    sync::mpsc::{self, Receiver, TryRecvError, sync_channel},
};

use bytes::Bytes;
use sortie_channel::copy::{Digest, Message, ProblemKind, WINDOW};

use crate::{
    CopyError, Settled, Stop, Told, Watch, Wishes,
    files::{self, BLOCK, ReadError, Sum, spoken},
    line::{Input, Output, clients_hello, greeting, say_goodbye},
    scan::{Content, Root, Scan, Step},
};

/// Answers that wait to be looked at: two for each entry that is not settled.
const ANSWERS: usize = 2 * WINDOW + 2;

/// What is to be sent.
pub enum Source {
    /// Files and directories, as a person named them.
    Paths(Vec<PathBuf>),
    /// The bytes of one file.
    Reader(Box<dyn Read + Send>),
}

impl Source {
    fn into_roots(self) -> Vec<Root> {
        match self {
            Self::Paths(paths) => paths.into_iter().map(Root::Path).collect(),
            Self::Reader(reader) => vec![Root::Reader(reader)],
        }
    }
}

/// Sends to the other end, a node. Blocks until that is over.
///
/// # Errors
/// When the copy did not come to its end; single files that failed are told to `watch`.
pub fn send(
    stream: &UnixStream,
    source: Source,
    wishes: Wishes,
    watch: &dyn Watch,
    stop: &Stop,
) -> Result<(), CopyError> {
    let output = Output::new(stream);
    let mut input = Input::new(stream);
    let sent = (|| {
        output.tell(&clients_hello(wishes))?;
        greeting(&mut input)?;
        send_all(stream, &mut input, &output, source, wishes, watch, stop)
    })();
    if let Err(error) = &sent {
        say_goodbye(stream, &output, error);
    }
    sent
}

/// Sends everything behind the hello.
pub(crate) fn send_all(
    stream: &UnixStream,
    input: &mut Input<'_>,
    output: &Output<'_>,
    source: Source,
    wishes: Wishes,
    watch: &dyn Watch,
    stop: &Stop,
) -> Result<(), CopyError> {
    let counted = match &source {
        Source::Paths(paths) if wishes.totals => Some(paths.clone()),
        _ => None,
    };
    let (answering, answers) = sync_channel(ANSWERS);
    let (totalling, total) = mpsc::channel();
    let enough = Stop::default();
    std::thread::scope(|scope| {
        scope.spawn(move || hear(input, &answering));
        if let Some(paths) = counted {
            let enough = &enough;
            scope.spawn(move || {
                // Nobody waits for it any more.
                let _ = count(paths, wishes.recursive, enough).map(|total| totalling.send(total));
            });
        }
        let mut sender = Sender {
            output,
            watch,
            stop,
            scan: Some(Scan::new(source.into_roots(), wishes.recursive)),
            answers,
            total,
            announced: 0,
            unsettled: HashMap::new(),
            files: VecDeque::new(),
            is_finished: false,
        };
        let sent = sender.run();
        enough.set();
        if sent.is_err() {
            let error = sent.as_ref().err();
            if let Some(error) = error.filter(|error| is_ours(error)) {
                let _ = output.tell(&Message::Fatal(error.to_string()));
            }
            // Ends the thread that listens.
            let _ = stream.shutdown(Shutdown::Both);
        }
        drop(sender);
        sent
    })
}

fn is_ours(error: &CopyError) -> bool {
    !matches!(
        error,
        CopyError::Told(_) | CopyError::Line(_) | CopyError::Left
    )
}

/// Listens until the last answer, an error, or nobody wants to hear.
fn hear(input: &mut Input<'_>, answering: &mpsc::SyncSender<Result<Message, CopyError>>) {
    loop {
        let answer = input.next();
        let is_last = matches!(answer, Err(_) | Ok(Message::Finished | Message::Fatal(_)));
        if answering.send(answer).is_err() || is_last {
            return;
        }
    }
}

/// How many files there are, and their sizes together.
fn count(paths: Vec<PathBuf>, recursive: bool, enough: &Stop) -> Option<(u64, u64)> {
    let mut scan = Scan::new(paths.into_iter().map(Root::Path).collect(), recursive);
    let (mut files, mut bytes) = (0_u64, 0_u64);
    while let Some(step) = scan.next_step() {
        if enough.is_set() {
            return None;
        }
        if let Step::File { size, .. } = step {
            files += 1;
            bytes = bytes.saturating_add(size.unwrap_or(0));
        }
    }
    Some((files, bytes))
}

/// An announced entry.
struct Announced {
    path: PathBuf,
    what: What,
}

enum What {
    Directory,
    Link,
    File,
    /// Sent to its end: bytes, how many were there, and the digest.
    Sent(u64, u64, Digest),
}

/// A file whose turn comes.
struct Waiting {
    entry: u64,
    size: Option<u64>,
    content: Content,
    path: PathBuf,
    /// The receiver's answer: what it has.
    wanted: Option<Option<(u64, Digest)>>,
}

struct Sender<'a> {
    output: &'a Output<'a>,
    watch: &'a dyn Watch,
    stop: &'a Stop,
    scan: Option<Scan>,
    answers: Receiver<Result<Message, CopyError>>,
    total: Receiver<(u64, u64)>,
    announced: u64,
    unsettled: HashMap<u64, Announced>,
    files: VecDeque<Waiting>,
    is_finished: bool,
}

impl Sender<'_> {
    fn run(&mut self) -> Result<(), CopyError> {
        loop {
            self.stop.check()?;
            self.look_up()?;
            if self.announce()? {
                continue;
            }
            if let Some(file) = self.files.pop_front_if(|file| file.wanted.is_some()) {
                self.send_file(file)?;
                continue;
            }
            if self.scan.is_none() && self.files.is_empty() && self.unsettled.is_empty() {
                return self.finish();
            }
            self.output.flush()?;
            self.wait()?;
        }
    }

    fn finish(&mut self) -> Result<(), CopyError> {
        self.output.tell(&Message::Finish)?;
        while !self.is_finished {
            self.wait()?;
        }
        Ok(())
    }

    /// Takes what has been answered meanwhile.
    fn look_up(&mut self) -> Result<(), CopyError> {
        loop {
            match self.answers.try_recv() {
                Ok(answer) => self.take(answer?)?,
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return Err(CopyError::Left),
            }
        }
        if let Ok((files, bytes)) = self.total.try_recv() {
            self.output.write(&Message::Total(files, bytes))?;
            self.watch.tell(Told::Total { files, bytes });
        }
        Ok(())
    }

    fn wait(&mut self) -> Result<(), CopyError> {
        let answer = self.answers.recv().map_err(|_| CopyError::Left)?;
        self.take(answer?)
    }

    fn take(&mut self, answer: Message) -> Result<(), CopyError> {
        match answer {
            Message::Want(entry, held) => {
                let file = self.files.iter_mut().find(|file| file.entry == entry);
                let file = file.filter(|file| file.wanted.is_none());
                file.ok_or_else(nonsense)?.wanted = Some(held);
            }
            Message::Done(entry) => {
                let Announced { path, what } =
                    self.unsettled.remove(&entry).ok_or_else(nonsense)?;
                let what = match what {
                    What::Directory => Settled::Directory,
                    What::Link => Settled::Link,
                    What::Sent(bytes, held, digest) => Settled::File {
                        bytes,
                        held,
                        digest,
                    },
                    What::File => return Err(nonsense()),
                };
                self.watch.tell(Told::Settled { path, what });
            }
            Message::Failed(entry, why) => {
                let Announced { path, .. } = self.unsettled.remove(&entry).ok_or_else(nonsense)?;
                self.files.retain(|file| file.entry != entry);
                self.watch.tell(Told::Failed { path, why });
            }
            Message::Finished if self.unsettled.is_empty() => self.is_finished = true,
            Message::Fatal(why) => return Err(CopyError::Told(why)),
            _ => return Err(nonsense()),
        }
        Ok(())
    }

    /// Announces the next entry, if there is one and it may be.
    fn announce(&mut self) -> Result<bool, CopyError> {
        if self.unsettled.len() >= WINDOW {
            return Ok(false);
        }
        let Some(step) = self.scan.as_mut().and_then(Scan::next_step) else {
            self.scan = None;
            return Ok(false);
        };
        let entry = self.announced;
        let (message, path, what) = match step {
            Step::Enter(meta, name, path) => (Message::Enter(meta, name), path, What::Directory),
            Step::Link {
                meta,
                name,
                target,
                path,
            } => (Message::Link { meta, name, target }, path, What::Link),
            Step::File {
                meta,
                size,
                name,
                path,
                content,
            } => {
                self.files.push_back(Waiting {
                    entry,
                    size,
                    content,
                    path: path.clone(),
                    wanted: None,
                });
                (Message::File { meta, size, name }, path, What::File)
            }
            Step::Leave => return self.output.write(&Message::Leave).map(|()| true),
            Step::Problem(kind, path, why) => {
                return self.problem(kind, path, why).map(|()| true);
            }
        };
        self.announced += 1;
        self.unsettled.insert(entry, Announced { path, what });
        self.output.write(&message)?;
        Ok(true)
    }

    fn problem(&self, kind: ProblemKind, path: PathBuf, why: String) -> Result<(), CopyError> {
        let bytes = Bytes::copy_from_slice(path.as_os_str().as_bytes());
        self.output
            .write(&Message::Problem(kind, bytes, why.clone()))?;
        self.watch.tell(match kind {
            ProblemKind::Failed => Told::Failed { path, why },
            ProblemKind::Skipped => Told::Skipped { path, why },
        });
        Ok(())
    }

    fn send_file(&mut self, file: Waiting) -> Result<(), CopyError> {
        let Waiting {
            entry,
            size,
            content,
            path,
            wanted,
        } = file;
        let held = wanted.flatten();
        let opened = match content {
            Content::Entry(directory, name) => {
                files::open_to_read(&*directory, name.as_bytes()).map(Reading::File)
            }
            Content::Named(path) => files::open_named_to_read(&path).map(Reading::File),
            Content::Reader(reader) => Ok(Reading::Reader(reader)),
        };
        let prepared = opened
            .map_err(ReadError::Io)
            .and_then(|reading| self.agree(reading, held, size));
        match prepared {
            Ok((mut reading, offset, sum)) => {
                self.output.write(&Message::Start(entry, offset))?;
                self.watch.tell(Told::Begin {
                    path,
                    size,
                    held: offset,
                });
                self.send_bytes(entry, &mut reading, size, offset, sum)
            }
            Err(ReadError::Stopped(error)) => Err(error),
            Err(ReadError::Io(error)) => self.output.write(&Message::Abort(entry, spoken(&error))),
        }
    }

    /// From where a file is sent: from behind what the receiver has, if that is the same here.
    fn agree(
        &self,
        mut reading: Reading,
        held: Option<(u64, Digest)>,
        size: Option<u64>,
    ) -> Result<(Reading, u64, Sum), ReadError> {
        let held = held.filter(|(length, _)| size.is_some_and(|size| *length <= size));
        let (Some((length, digest)), Reading::File(file)) = (held, &mut reading) else {
            return Ok((reading, 0, Sum::new()));
        };
        match Sum::of(file, length, self.stop)? {
            Some(sum) if sum.digest() == digest => Ok((reading, length, sum)),
            _ => {
                io::Seek::rewind(file).map_err(ReadError::Io)?;
                Ok((reading, 0, Sum::new()))
            }
        }
    }

    fn send_bytes(
        &mut self,
        entry: u64,
        reading: &mut Reading,
        size: Option<u64>,
        offset: u64,
        mut sum: Sum,
    ) -> Result<(), CopyError> {
        let mut sent = offset;
        let mut block = vec![0; block_size(size, offset)];
        loop {
            let left = size.map_or(u64::MAX, |size| size.saturating_sub(sent));
            let most = usize::try_from(left).unwrap_or(BLOCK).min(block.len());
            let place = block.get_mut(..most).unwrap_or_default();
            let read = if most == 0 {
                Ok(0)
            } else {
                reading.read(place)
            };
            let read = match read {
                Ok(0) if size.is_some_and(|size| sent < size) => {
                    Err(io::Error::other("it became shorter while it was copied"))
                }
                other => other,
            };
            match read {
                Ok(0) => break,
                Ok(read) => {
                    let bytes = place.get(..read).unwrap_or_default();
                    sum.add(bytes);
                    sent += read as u64;
                    self.output
                        .write(&Message::Data(Bytes::copy_from_slice(bytes)))?;
                    self.watch.tell(Told::Moved(read as u64));
                }
                Err(error) => return self.output.write(&Message::Abort(entry, spoken(&error))),
            }
            self.between_blocks()?;
            if !self.unsettled.contains_key(&entry) {
                return self.output.write(&Message::Abort(entry, String::new()));
            }
        }
        let digest = sum.digest();
        if let Some(announced) = self.unsettled.get_mut(&entry) {
            announced.what = What::Sent(sent, offset, digest);
        }
        self.output.write(&Message::End(digest))
    }

    /// Keeps the announcements ahead while a large file goes.
    fn between_blocks(&mut self) -> Result<(), CopyError> {
        self.stop.check()?;
        self.look_up()?;
        self.announce().map(drop)
    }
}

/// Small files need no large block.
fn block_size(size: Option<u64>, offset: u64) -> usize {
    let left = size.map_or(u64::MAX, |size| size.saturating_sub(offset));
    usize::try_from(left).unwrap_or(BLOCK).min(BLOCK)
}

fn nonsense() -> CopyError {
    CopyError::Here("the other end answers what it was not asked".to_owned())
}

/// What bytes are read from.
enum Reading {
    File(File),
    Reader(Box<dyn Read + Send>),
}

impl Reading {
    fn read(&mut self, place: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => files::read(file, place),
            Self::Reader(reader) => files::read(reader, place),
        }
    }
}
