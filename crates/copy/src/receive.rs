//! The receiving end: one thread takes messages and writes, a few others bring finished files to stable
//! storage and to their names while the next ones come.

mod directory;
mod finish;

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Write},
    os::unix::{ffi::OsStrExt, net::UnixStream},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{SyncSender, sync_channel},
    },
};

use bytes::Bytes;
use rustix::fs::FileType;
use sortie_channel::copy::{Digest, Hello, Incoming, Message, Meta, Name, ProblemKind};

use self::{
    directory::{OpenDirectory, make_directory, release},
    finish::{Finished, Job, finish},
};
use crate::{
    CopyError, Settled, Stop, Told, Watch, Wishes,
    files::{self, ReadError, Sum, spoken},
    line::{Input, Output, clients_hello, greeting, say_goodbye},
    partial::{Partial, put_link},
    place::Place,
};

/// Threads that bring files to their names: one can gather while the other waits for the storage.
const FINISHERS: usize = 2;
/// Files that wait for them.
const FINISHED: usize = 128;

/// Where what comes is put.
pub enum Target {
    /// Into a directory that is there, or to this name.
    Path(PathBuf),
    /// One file's bytes, as they come. Whether they were the right ones is known at the end.
    Writer(Box<dyn Write + Send>),
}

/// Receives what the other end, a node, sends. Blocks until that is over.
///
/// # Errors
/// When the copy did not come to its end; single files that failed are told to `watch`.
pub fn receive(
    stream: &UnixStream,
    target: Target,
    wishes: Wishes,
    umask: u32,
    watch: &dyn Watch,
    stop: &Stop,
) -> Result<(), CopyError> {
    let output = Output::new(stream);
    let mut input = Input::new(stream);
    let received = (|| {
        output.tell(&clients_hello(wishes))?;
        let hello = greeting(&mut input)?;
        let manner = Manner {
            preserve: wishes.preserve,
            must_be_directory: wishes.into_directory,
            umask,
        };
        receive_all(&mut input, &output, &hello, target, manner, watch, stop)
    })();
    if let Err(error) = &received {
        say_goodbye(stream, &output, error);
    }
    received
}

/// How things are put.
#[derive(Clone, Copy)]
pub(crate) struct Manner {
    pub(crate) preserve: bool,
    pub(crate) must_be_directory: bool,
    pub(crate) umask: u32,
}

/// Receives everything behind the hello.
pub(crate) fn receive_all(
    input: &mut Input<'_>,
    output: &Output<'_>,
    hello: &Hello,
    target: Target,
    manner: Manner,
    watch: &dyn Watch,
    stop: &Stop,
) -> Result<(), CopyError> {
    let mut incoming = Incoming::default();
    incoming.take(&Message::Hello(hello.clone()))?;
    let shared = Shared {
        output,
        watch,
        incoming: Mutex::new(incoming),
        manner,
    };
    let destination = match target {
        Target::Writer(writer) => Destination::Writer(writer),
        Target::Path(path) => {
            let place = Place::find(&path, manner.must_be_directory).map_err(CopyError::Here)?;
            Destination::Place(Top::new(place).map_err(|error| CopyError::Here(spoken(&error)))?)
        }
    };
    let (jobs, waiting) = sync_channel(FINISHED);
    let waiting = Mutex::new(waiting);
    std::thread::scope(|scope| {
        for _ in 0..FINISHERS {
            scope.spawn(|| finish(&shared, &waiting));
        }
        let mut receiver = Receiver {
            shared: &shared,
            destination,
            levels: Vec::new(),
            pending: VecDeque::new(),
            current: None,
            jobs,
            stop,
        };
        receiver.run(input)?;
        receiver.leave();
        // And the threads do what they still have.
        Ok::<_, CopyError>(())
    })?;
    output.tell(&Message::Finished)
}

/// What all threads use.
struct Shared<'a> {
    output: &'a Output<'a>,
    watch: &'a dyn Watch,
    incoming: Mutex<Incoming>,
    manner: Manner,
}

impl Shared<'_> {
    fn incoming(&self) -> MutexGuard<'_, Incoming> {
        self.incoming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that an entry is in place. That a stream is broken is found by the thread that reads it.
    fn settle(&self, entry: u64, path: PathBuf, what: Settled) {
        self.incoming().settled(entry);
        let _ = self.output.tell(&Message::Done(entry));
        self.watch.tell(Told::Settled { path, what });
    }

    fn fail(&self, entry: u64, path: PathBuf, why: String) {
        self.incoming().settled(entry);
        let _ = self.output.tell(&Message::Failed(entry, why.clone()));
        self.watch.tell(Told::Failed { path, why });
    }
}

/// The directory that a copy goes into.
struct Top {
    place: Place,
    directory: Arc<OpenDirectory>,
    /// The name that was asked for is taken by an entry.
    is_taken: bool,
}

impl Top {
    fn new(place: Place) -> io::Result<Self> {
        let directory = Arc::new(OpenDirectory::top(place.directory.try_clone()?));
        Ok(Self {
            place,
            directory,
            is_taken: false,
        })
    }
}

enum Destination {
    Place(Top),
    Writer(Box<dyn Write + Send>),
}

enum Level {
    Open(Arc<OpenDirectory>),
    /// What is in it fails, too.
    Failed(PathBuf),
}

/// Where an entry goes.
struct Spot {
    directory: Arc<OpenDirectory>,
    /// `None`: the directory itself.
    name: Option<Name>,
    path: PathBuf,
}

/// A file that is wanted.
struct Pending {
    entry: u64,
    path: PathBuf,
    size: Option<u64>,
    meta: Meta,
    /// Where it goes, unless that is a writer.
    place: Option<FilePlace>,
}

struct FilePlace {
    directory: Arc<OpenDirectory>,
    name: Name,
    /// The mode and owner of the file that is replaced.
    replaced: Option<Replaced>,
    held: Held,
}

/// Of a file that is there already.
#[derive(Clone, Copy)]
struct Replaced {
    mode: u32,
    uid: u32,
    gid: u32,
}

/// What is here of a file, and its sum.
enum Held {
    Nothing,
    Part(Partial, u64, Sum),
    Whole(File, u64, Sum),
}

impl Held {
    fn length(&self) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::Part(_, length, _) | Self::Whole(_, length, _) => *length,
        }
    }
}

/// The file whose bytes come.
struct Current {
    entry: u64,
    path: PathBuf,
    meta: Meta,
    bytes: u64,
    held: u64,
    sum: Sum,
    sink: Sink,
}

enum Sink {
    Part(Partial, Arc<OpenDirectory>, Name, Option<Replaced>),
    /// It is there already.
    Same(File, Arc<OpenDirectory>),
    Writer,
    /// It has failed, and what comes is thrown away.
    Failed,
}

struct Receiver<'a> {
    shared: &'a Shared<'a>,
    destination: Destination,
    levels: Vec<Level>,
    pending: VecDeque<Pending>,
    current: Option<Current>,
    jobs: SyncSender<Job>,
    stop: &'a Stop,
}

impl Receiver<'_> {
    fn run(&mut self, input: &mut Input<'_>) -> Result<(), CopyError> {
        loop {
            let message = match input.next_here()? {
                Some(message) => message,
                None => {
                    self.shared.output.flush()?;
                    input.next()?
                }
            };
            self.stop.check()?;
            self.shared.incoming().take(&message)?;
            if matches!(message, Message::Finish) {
                return Ok(());
            }
            self.take(message)?;
        }
    }

    fn take(&mut self, message: Message) -> Result<(), CopyError> {
        match message {
            Message::Enter(meta, name) => self.enter(&meta, name),
            Message::Leave => {
                if let Some(Level::Open(directory)) = self.levels.pop() {
                    release(self.shared, directory);
                }
            }
            Message::File { meta, size, name } => self.announce(meta, size, name)?,
            Message::Link { meta, name, target } => self.link(&meta, name, &target),
            Message::Problem(kind, path, why) => self.problem(kind, &path, why),
            Message::Total(files, bytes) => {
                self.shared.watch.tell(Told::Total { files, bytes });
            }
            Message::Start(_, offset) => self.start(offset),
            Message::Data(data) => self.data(&data),
            Message::End(digest) => self.end(digest)?,
            Message::Abort(_, why) => self.abort(why),
            Message::Fatal(why) => return Err(CopyError::Told(why)),
            // Others were refused by the rules.
            _ => {}
        }
        Ok(())
    }

    /// Lets go of the directory that everything went into, unless others still hold it.
    fn leave(self) {
        if let Destination::Place(top) = self.destination {
            release(self.shared, top.directory);
        }
    }

    fn problem(&self, kind: ProblemKind, path: &[u8], why: String) {
        let path = PathBuf::from(std::ffi::OsStr::from_bytes(path));
        self.shared.watch.tell(match kind {
            ProblemKind::Failed => Told::Failed { path, why },
            ProblemKind::Skipped => Told::Skipped { path, why },
        });
    }

    /// Where the next entry goes; or its path and why it goes nowhere.
    fn spot(&mut self, name: Option<Name>) -> Result<Spot, (PathBuf, String)> {
        let path_of =
            |parent: &Path, name: &Name| parent.join(std::ffi::OsStr::from_bytes(name.as_bytes()));
        match (self.levels.last(), name) {
            (Some(Level::Open(directory)), Some(name)) => Ok(Spot {
                directory: Arc::clone(directory),
                path: path_of(&directory.path, &name),
                name: Some(name),
            }),
            (Some(Level::Failed(parent)), name) => {
                let path = name.map_or_else(|| parent.clone(), |name| path_of(parent, &name));
                Err((path, "its directory could not be made".to_owned()))
            }
            (_, name) => self.top_spot(name),
        }
    }

    fn top_spot(&mut self, name: Option<Name>) -> Result<Spot, (PathBuf, String)> {
        let Destination::Place(top) = &mut self.destination else {
            let why = "only one file can be written to standard output".to_owned();
            let name = name.as_ref().map(Name::as_bytes).unwrap_or_default();
            return Err((std::ffi::OsStr::from_bytes(name).into(), why));
        };
        let asked = top.place.name.clone();
        let shown = name.as_ref().or(asked.as_ref());
        let shown = shown.map(Name::as_bytes).unwrap_or(b".");
        let path = PathBuf::from(std::ffi::OsStr::from_bytes(shown));
        if asked.is_some() && std::mem::replace(&mut top.is_taken, true) {
            return Err((path, "the destination is not a directory".to_owned()));
        }
        let goes_on = name
            .as_ref()
            .is_some_and(|name| top.place.is_unfinished(name));
        Ok(Spot {
            directory: Arc::clone(&top.directory),
            name: asked.or(name).filter(|_| !goes_on),
            path,
        })
    }

    fn enter(&mut self, meta: &Meta, name: Option<Name>) {
        let entry = self.shared.incoming().last_entry();
        let source = name.clone();
        let made = self.spot(name).and_then(|spot| {
            let is_top = self.levels.is_empty() && self.is_named();
            let mark = if is_top { source.as_ref() } else { None };
            let path = spot.path.clone();
            make_directory(self.shared, entry, spot, *meta, mark)
                .map_err(|error| (path, spoken(&error)))
        });
        self.levels.push(match made {
            Ok(directory) => Level::Open(directory),
            Err((path, why)) => {
                self.shared.fail(entry, path.clone(), why);
                Level::Failed(path)
            }
        });
    }

    /// Whether the person gave a name that is not there yet.
    fn is_named(&self) -> bool {
        matches!(&self.destination, Destination::Place(top) if top.place.name.is_some())
    }

    fn link(&mut self, meta: &Meta, name: Name, target: &Bytes) {
        let entry = self.shared.incoming().last_entry();
        let spot = match self.spot(Some(name)) {
            Ok(spot) => spot,
            Err((path, why)) => return self.shared.fail(entry, path, why),
        };
        let Spot {
            directory,
            name,
            path,
        } = spot;
        let put = match &name {
            Some(name) => self.put_link(&directory, name, meta, target),
            None => Err(io::ErrorKind::IsADirectory.into()),
        };
        match put {
            Ok(()) => self.shared.settle(entry, path, Settled::Link),
            Err(error) => self.shared.fail(entry, path, spoken(&error)),
        }
        release(self.shared, directory);
    }

    fn put_link(
        &self,
        directory: &OpenDirectory,
        name: &Name,
        meta: &Meta,
        target: &[u8],
    ) -> io::Result<()> {
        put_link(&directory.file, name.as_bytes(), target)?;
        if self.shared.manner.preserve {
            files::set_link_times(&directory.file, name.as_bytes(), meta)?;
        }
        Ok(())
    }

    /// Says from where a file is wanted.
    fn announce(
        &mut self,
        meta: Meta,
        size: Option<u64>,
        name: Option<Name>,
    ) -> Result<(), CopyError> {
        let entry = self.shared.incoming().last_entry();
        let pending = if let Destination::Writer(_) = &self.destination {
            self.announce_to_writer(entry, meta, size, name.as_ref())
        } else {
            match self.spot(name) {
                Err(refused) => Err(refused),
                Ok(spot) => self.inspect(entry, spot, meta, size)?,
            }
        };
        let pending = match pending {
            Ok(pending) => pending,
            Err((path, why)) => {
                self.shared.fail(entry, path, why);
                return Ok(());
            }
        };
        let held = pending.place.as_ref().and_then(|place| match &place.held {
            Held::Nothing => None,
            Held::Part(_, length, sum) | Held::Whole(_, length, sum) => {
                Some((*length, sum.digest()))
            }
        });
        let length = held.map_or(0, |(length, _)| length);
        self.shared.incoming().wanted(entry, length);
        self.pending.push_back(pending);
        self.shared.output.write(&Message::Want(entry, held))
    }

    fn announce_to_writer(
        &mut self,
        entry: u64,
        meta: Meta,
        size: Option<u64>,
        name: Option<&Name>,
    ) -> Result<Pending, (PathBuf, String)> {
        let name = name.map(Name::as_bytes).unwrap_or(b"-");
        let path = PathBuf::from(std::ffi::OsStr::from_bytes(name));
        if entry > 0 || !self.levels.is_empty() {
            let why = "only one file can be written to standard output";
            return Err((path, why.to_owned()));
        }
        Ok(Pending {
            entry,
            path,
            size,
            meta,
            place: None,
        })
    }

    /// What is there of a file. The outer error ends the copy, the inner one the file.
    fn inspect(
        &self,
        entry: u64,
        spot: Spot,
        meta: Meta,
        size: Option<u64>,
    ) -> Result<Result<Pending, (PathBuf, String)>, CopyError> {
        let Spot {
            directory,
            name,
            path,
        } = spot;
        let Some(name) = name else {
            release(self.shared, directory);
            let why = "the destination is a directory; give the file a name".to_owned();
            return Ok(Err((path, why)));
        };
        match inspect(&directory, &name, size, self.stop) {
            Ok((replaced, held)) => Ok(Ok(Pending {
                entry,
                path,
                size,
                meta,
                place: Some(FilePlace {
                    directory,
                    name,
                    replaced,
                    held,
                }),
            })),
            Err(ReadError::Stopped(error)) => Err(error),
            Err(ReadError::Io(error)) => {
                release(self.shared, directory);
                Ok(Err((path, spoken(&error))))
            }
        }
    }

    fn start(&mut self, offset: u64) {
        let Some(pending) = self.pending.pop_front() else {
            return;
        };
        let Pending {
            entry,
            path,
            size,
            meta,
            place,
        } = pending;
        self.shared.watch.tell(Told::Begin {
            path: path.clone(),
            size,
            held: offset,
        });
        let (sink, sum) = match place.map(|place| sink(place, offset)) {
            None => (Sink::Writer, Sum::new()),
            Some(Ok((sink, sum))) => (sink, sum),
            Some(Err((directory, error))) => {
                self.shared.fail(entry, path.clone(), spoken(&error));
                release(self.shared, directory);
                (Sink::Failed, Sum::new())
            }
        };
        self.current = Some(Current {
            entry,
            path,
            meta,
            bytes: offset,
            held: offset,
            sum,
            sink,
        });
    }

    fn data(&mut self, data: &[u8]) {
        let Some(current) = &mut self.current else {
            return;
        };
        current.bytes += data.len() as u64;
        let written = match (&mut current.sink, &mut self.destination) {
            (Sink::Part(partial, ..), _) => partial.file.write_all(data),
            (Sink::Writer, Destination::Writer(writer)) => writer.write_all(data),
            _ => return,
        };
        match written {
            Ok(()) => {
                current.sum.add(data);
                self.shared.watch.tell(Told::Moved(data.len() as u64));
            }
            Err(error) => {
                let why = spoken(&error);
                // What was written is good for a later copy.
                let failed = std::mem::replace(&mut current.sink, Sink::Failed);
                self.shared.fail(current.entry, current.path.clone(), why);
                if let Sink::Part(_, directory, ..) = failed {
                    release(self.shared, directory);
                }
            }
        }
    }

    fn end(&mut self, digest: Digest) -> Result<(), CopyError> {
        let Some(current) = self.current.take() else {
            return Ok(());
        };
        let Current {
            entry,
            path,
            meta,
            bytes,
            held,
            sum,
            sink,
        } = current;
        if matches!(sink, Sink::Failed) {
            return Ok(());
        }
        if sum.digest() != digest {
            let why = "its SHA-256 is not the one that the sender found".to_owned();
            self.shared.fail(entry, path, why);
            self.drop_sink(sink);
            return Ok(());
        }
        let settled = Settled::File {
            bytes,
            held,
            digest,
        };
        let done = |file, directory| Job {
            entry,
            path: path.clone(),
            meta,
            settled,
            file,
            directory,
        };
        let job = match sink {
            Sink::Part(partial, directory, name, replaced) => {
                let file = Finished::New {
                    partial,
                    name,
                    replaced,
                };
                done(file, directory)
            }
            Sink::Same(file, directory) => done(Finished::Same(file), directory),
            Sink::Writer | Sink::Failed => {
                self.end_writer(entry, path, settled);
                return Ok(());
            }
        };
        // The threads end only after this end of their queue.
        self.jobs.send(job).map_err(|_| CopyError::Stopped)
    }

    fn end_writer(&mut self, entry: u64, path: PathBuf, settled: Settled) {
        let Destination::Writer(writer) = &mut self.destination else {
            return;
        };
        match writer.flush() {
            Ok(()) => self.shared.settle(entry, path, settled),
            Err(error) => self.shared.fail(entry, path, spoken(&error)),
        }
    }

    /// The sender cannot go on with a file.
    fn abort(&mut self, why: String) {
        if let Some(current) = self.current.take() {
            if !matches!(current.sink, Sink::Failed) {
                self.shared.fail(current.entry, current.path, why);
            }
            self.drop_sink(current.sink);
        } else if let Some(pending) = self.pending.pop_front() {
            self.shared.fail(pending.entry, pending.path, why);
            if let Some(place) = pending.place {
                release(self.shared, place.directory);
            }
        }
    }

    fn drop_sink(&self, sink: Sink) {
        match sink {
            Sink::Part(partial, directory, ..) => {
                partial.discard(&directory.file);
                release(self.shared, directory);
            }
            Sink::Same(_, directory) => release(self.shared, directory),
            Sink::Writer | Sink::Failed => {}
        }
    }
}

/// What is under a name, and what there is of the file that is to be there.
fn inspect(
    directory: &OpenDirectory,
    name: &Name,
    size: Option<u64>,
    stop: &Stop,
) -> Result<(Option<Replaced>, Held), ReadError> {
    let directory = &directory.file;
    let name = name.as_bytes();
    let there = files::look(directory, name).map_err(ReadError::Io)?;
    let mut replaced = None;
    if let Some(stat) = &there {
        match files::file_type(stat) {
            FileType::RegularFile => {
                replaced = Some(Replaced {
                    mode: stat.st_mode & 0o1777,
                    uid: stat.st_uid,
                    gid: stat.st_gid,
                });
            }
            FileType::Symlink => {}
            FileType::Directory => {
                return Err(ReadError::Io(io::ErrorKind::IsADirectory.into()));
            }
            _ => {
                let why = "what is there is not a regular file, and stays";
                return Err(ReadError::Io(io::Error::other(why)));
            }
        }
    }
    let Some(size) = size.filter(|size| *size > 0) else {
        return Ok((replaced, Held::Nothing));
    };
    if let Some((mut partial, length)) = Partial::left(directory, name, size).ok().flatten()
        && let Some(sum) = Sum::of(&mut partial.file, length, stop)?
    {
        return Ok((replaced, Held::Part(partial, length, sum)));
    }
    let is_same_size = replaced.is_some() && there.as_ref().map(files::size) == Some(size);
    if is_same_size
        && let Ok(mut file) = files::open_to_read(directory, name)
        && let Some(sum) = Sum::of(&mut file, size, stop)?
    {
        return Ok((replaced, Held::Whole(file, size, sum)));
    }
    Ok((replaced, Held::Nothing))
}

type NoSink = (Arc<OpenDirectory>, io::Error);

/// Where the bytes of a file go that comes from `offset` on.
fn sink(place: FilePlace, offset: u64) -> Result<(Sink, Sum), NoSink> {
    let FilePlace {
        directory,
        name,
        replaced,
        held,
    } = place;
    let goes_on = offset > 0 && offset == held.length();
    let partial = match held {
        Held::Whole(file, _, sum) if goes_on => return Ok((Sink::Same(file, directory), sum)),
        Held::Part(partial, _, sum) if goes_on => {
            return Ok((Sink::Part(partial, directory, name, replaced), sum));
        }
        Held::Part(mut partial, ..) => partial.restart().map(|()| partial),
        Held::Nothing | Held::Whole(..) => Partial::create(&directory.file, name.as_bytes()),
    };
    match partial {
        Ok(partial) => Ok((Sink::Part(partial, directory, name, replaced), Sum::new())),
        Err(error) => Err((directory, error)),
    }
}
