//! Whole copies between two ends over a socket pair, with real files: what arrives, what a later copy
//! goes on from, and what is told of what fails.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test says what is wrong by failing"
)]

use std::{
    collections::BTreeMap,
    fs,
    io::{Cursor, Write},
    os::unix::{
        fs::{MetadataExt, PermissionsExt, symlink},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use sortie_copy::{
    CopyError, Download, Settled, Source, Stop, Target, Told, Upload, Watch, Wishes, receive, send,
};

const UMASK: u32 = 0o022;
const RECURSIVE: Wishes = Wishes {
    recursive: true,
    preserve: false,
    into_directory: false,
    totals: false,
};

/// Remembers what was told.
#[derive(Default)]
struct Log(Mutex<Vec<Told>>);

impl Watch for Log {
    fn tell(&self, told: Told) {
        self.0.lock().unwrap().push(told);
    }
}

impl Log {
    fn settled(&self) -> BTreeMap<PathBuf, Settled> {
        let told = self.0.lock().unwrap();
        told.iter()
            .filter_map(|told| match told {
                Told::Settled { path, what } => Some((path.clone(), *what)),
                _ => None,
            })
            .collect()
    }

    fn failed(&self) -> BTreeMap<PathBuf, String> {
        let told = self.0.lock().unwrap();
        told.iter()
            .filter_map(|told| match told {
                Told::Failed { path, why } => Some((path.clone(), why.clone())),
                _ => None,
            })
            .collect()
    }

    fn moved(&self) -> u64 {
        let told = self.0.lock().unwrap();
        told.iter()
            .map(|told| match told {
                Told::Moved(bytes) => *bytes,
                _ => 0,
            })
            .sum()
    }
}

fn upload(source: Source, to: &Path, wishes: Wishes, log: &Log) -> Result<(), CopyError> {
    let (here, there) = UnixStream::pair().unwrap();
    let node = Upload {
        path: to.to_owned(),
        umask: UMASK,
    };
    let node = std::thread::spawn(move || node.serve(&there, &Stop::default()));
    let sent = send(&here, source, wishes, log, &Stop::default());
    drop(here);
    let served = node.join().unwrap();
    assert_eq!(served.is_ok(), sent.is_ok(), "{served:?} {sent:?}");
    sent
}

fn download(from: &Path, target: Target, wishes: Wishes, log: &Log) -> Result<(), CopyError> {
    let (here, there) = UnixStream::pair().unwrap();
    let node = Download {
        path: from.to_owned(),
    };
    let node = std::thread::spawn(move || node.serve(&there, &Stop::default()));
    let received = receive(&here, target, wishes, UMASK, log, &Stop::default());
    drop(here);
    let served = node.join().unwrap();
    assert_eq!(served.is_ok(), received.is_ok(), "{served:?} {received:?}");
    received
}

fn paths<const N: usize>(paths: [&Path; N]) -> Source {
    Source::Paths(paths.map(Path::to_owned).to_vec())
}

fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// What there is below a folder: contents of files and targets of links.
fn tree(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            let about = fs::symlink_metadata(&path).unwrap();
            let name = path.strip_prefix(folder).unwrap().to_owned();
            if about.is_dir() {
                folders.push(path);
                found.insert(name, b"directory".to_vec());
            } else if about.is_symlink() {
                let target = fs::read_link(&path).unwrap();
                found.insert(name, target.into_os_string().into_encoded_bytes());
            } else {
                found.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    found
}

fn make_tree(folder: &Path) {
    fs::create_dir_all(folder.join("a/b/empty")).unwrap();
    fs::write(folder.join("nothing"), "").unwrap();
    fs::write(folder.join("a/large"), noise(3_000_001, 1)).unwrap();
    fs::write(folder.join("a/b/block"), noise(256 << 10, 2)).unwrap();
    for number in 0..700_u64 {
        let length = usize::try_from(number * 7).unwrap();
        fs::write(folder.join(format!("a/b/{number}")), noise(length, number)).unwrap();
    }
    symlink("../nothing", folder.join("a/link")).unwrap();
    symlink("/nowhere/at/all", folder.join("dangling")).unwrap();
}

#[test]
fn a_tree_arrives_as_it_is_in_both_directions() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    make_tree(&source);
    let expected = tree(&source);
    let (up, down) = (folder.path().join("up"), folder.path().join("down"));

    let log = Log::default();
    upload(paths([&source]), &up, RECURSIVE, &log).unwrap();
    assert_eq!(tree(&up), expected);
    assert_eq!(log.failed(), BTreeMap::new());
    assert_eq!(log.settled().len(), expected.len() + 1);

    let log = Log::default();
    download(&up, Target::Path(down.clone()), RECURSIVE, &log).unwrap();
    assert_eq!(tree(&down), expected);
    assert_eq!(log.settled().len(), expected.len() + 1);
    assert!(log.settled().contains_key(Path::new("up/a/b/7")));
}

#[test]
fn a_directory_that_is_there_takes_the_source_under_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("one"), "1").unwrap();
    let to = folder.path().join("to");
    fs::create_dir(&to).unwrap();
    let log = Log::default();
    let lone = folder.path().join("lone");
    fs::write(&lone, "alone").unwrap();
    upload(paths([&source, &lone]), &to, RECURSIVE, &log).unwrap();
    upload(paths([&source.join(".")]), &to, RECURSIVE, &log).unwrap();
    let found: Vec<PathBuf> = tree(&to).into_keys().collect();
    let expected = ["lone", "one", "source", "source/one"].map(PathBuf::from);
    assert_eq!(found, expected);

    let error = upload(
        paths([&lone]),
        &folder.path().join("no/where"),
        RECURSIVE,
        &log,
    );
    let why = error.unwrap_err().to_string();
    assert!(why.contains("no such file or directory"), "{why}");
    let into = Wishes {
        into_directory: true,
        ..RECURSIVE
    };
    let error = upload(
        paths([&lone, &source]),
        &folder.path().join("new"),
        into,
        &log,
    );
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("is not a directory")
    );
}

#[test]
fn a_directory_needs_to_be_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let log = Log::default();
    let to = Target::Path(folder.path().join("to"));
    download(folder.path(), to, Wishes::default(), &log).unwrap();
    let why = log.failed().into_values().next().unwrap();
    assert!(why.contains("-r"), "{why}");
    assert!(!folder.path().join("to").exists());
}

#[test]
fn modes_follow_the_umask_and_times_the_clock_unless_they_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    fs::create_dir(&source).unwrap();
    let file = source.join("file");
    fs::write(&file, "x").unwrap();
    let then = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 5_000);
    fs::File::open(&file).unwrap().set_modified(then).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o4777)).unwrap();
    fs::File::open(&source).unwrap().set_modified(then).unwrap();
    fs::set_permissions(&source, fs::Permissions::from_mode(0o500)).unwrap();
    let log = Log::default();
    let about = |path: PathBuf| {
        let about = fs::metadata(path).unwrap();
        (about.mode() & 0o7777, about.modified().unwrap() == then)
    };
    let plain = folder.path().join("plain");
    upload(paths([&source]), &plain, RECURSIVE, &log).unwrap();
    assert_eq!(about(plain.join("file")), (0o755, false));
    assert_eq!(about(plain.clone()), (0o500, false));
    let kept = folder.path().join("kept");
    let preserve = Wishes {
        preserve: true,
        ..RECURSIVE
    };
    upload(paths([&source]), &kept, preserve, &log).unwrap();
    assert_eq!(about(kept.join("file")), (0o777, true));
    assert_eq!(about(kept.clone()), (0o500, true));
    assert_eq!(log.failed(), BTreeMap::new());

    // A file that is replaced keeps its own mode.
    let own = folder.path().join("own");
    fs::write(&own, "old").unwrap();
    fs::set_permissions(&own, fs::Permissions::from_mode(0o600)).unwrap();
    upload(paths([&file]), &own, Wishes::default(), &log).unwrap();
    assert_eq!(about(own.clone()).0, 0o600);
    assert_eq!(fs::read(&own).unwrap(), b"x");
    for path in [source, plain, kept] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
    }
}

#[test]
fn what_is_there_is_not_sent_again() {
    let folder = tempfile::tempdir().unwrap();
    let whole = noise(2_000_000, 3);
    let source = folder.path().join("source");
    fs::write(&source, &whole).unwrap();
    let to = folder.path().join("to");
    fs::create_dir(&to).unwrap();
    let part = to.join(".source.sortie-part");

    // What an interrupted copy has left.
    fs::write(&part, &whole[..1_500_000]).unwrap();
    let log = Log::default();
    upload(paths([&source]), &to, Wishes::default(), &log).unwrap();
    assert_eq!(log.moved(), 500_000);
    assert_eq!(fs::read(to.join("source")).unwrap(), whole);
    assert!(!part.exists());
    let Some(Settled::File { bytes, held, .. }) = log.settled().into_values().next() else {
        panic!("no file");
    };
    assert_eq!((bytes, held), (2_000_000, 1_500_000));

    // All of it is there.
    let log = Log::default();
    upload(paths([&source]), &to, Wishes::default(), &log).unwrap();
    assert_eq!(log.moved(), 0);

    // What is left is of another file, or too long.
    for other in [noise(1_500_000, 4), noise(2_000_001, 5)] {
        fs::remove_file(to.join("source")).unwrap();
        fs::write(&part, other).unwrap();
        let log = Log::default();
        download(&source, Target::Path(to.clone()), Wishes::default(), &log).unwrap();
        assert_eq!(log.moved(), 2_000_000);
        assert_eq!(fs::read(to.join("source")).unwrap(), whole);
        assert!(!part.exists());
    }

    // Another file of the same size is replaced.
    fs::write(&source, noise(2_000_000, 6)).unwrap();
    upload(paths([&source]), &to, Wishes::default(), &Log::default()).unwrap();
    assert_eq!(fs::read(to.join("source")).unwrap(), noise(2_000_000, 6));
}

/// A client that is gone in the middle of a tree.
#[test]
fn the_same_command_goes_on_where_an_interrupted_one_was() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    make_tree(&source);
    fs::write(source.join("huge"), noise(20_000_000, 9)).unwrap();
    let to = folder.path().join("to");

    struct Leaver(Stop, Mutex<u64>);
    impl Watch for Leaver {
        fn tell(&self, told: Told) {
            if let Told::Moved(bytes) = told {
                let mut moved = self.1.lock().unwrap();
                *moved += bytes;
                if *moved > 4_000_000 {
                    self.0.set();
                }
            }
        }
    }
    let (here, there) = UnixStream::pair().unwrap();
    let node = Upload {
        path: to.clone(),
        umask: UMASK,
    };
    let node = std::thread::spawn(move || node.serve(&there, &Stop::default()));
    let stop = Stop::default();
    let leaver = Leaver(stop.clone(), Mutex::default());
    let sent = send(&here, paths([&source]), RECURSIVE, &leaver, &stop);
    assert!(matches!(sent, Err(CopyError::Stopped)), "{sent:?}");
    drop(here);
    assert!(node.join().unwrap().is_err());
    assert!(to.join(".sortie-cp-unfinished").exists());

    let log = Log::default();
    upload(paths([&source]), &to, RECURSIVE, &log).unwrap();
    assert_eq!(tree(&to), tree(&source));
    let moved = *leaver.1.lock().unwrap();
    let all: u64 = tree(&source).values().map(|file| file.len() as u64).sum();
    assert!(log.moved() < all - moved / 2, "{} of {all}", log.moved());
    // And after that the directory is one that is there.
    upload(paths([&source]), &to, RECURSIVE, &log).unwrap();
    assert_eq!(tree(&to.join("source")), tree(&source));
}

#[test]
fn one_file_goes_from_a_reader_and_to_a_writer() {
    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);
    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let bytes = noise(1_000_001, 7);
    let to = folder.path().join("to");
    let log = Log::default();
    let reader = Source::Reader(Box::new(Cursor::new(bytes.clone())));
    upload(reader, &to, Wishes::default(), &log).unwrap();
    assert_eq!(fs::read(&to).unwrap(), bytes);

    let written = Shared::default();
    let writer = Target::Writer(Box::new(written.clone()));
    download(&to, writer, Wishes::default(), &log).unwrap();
    assert_eq!(*written.0.lock().unwrap(), bytes);
    assert_eq!(log.failed(), BTreeMap::new());

    // Neither a directory to a writer nor bytes without a name into a directory.
    let log = Log::default();
    let writer = Target::Writer(Box::new(written));
    download(folder.path(), writer, RECURSIVE, &log).unwrap();
    let reader = Source::Reader(Box::new(Cursor::new(bytes)));
    upload(reader, folder.path(), Wishes::default(), &log).unwrap();
    assert!(!log.failed().is_empty());
    assert!(log.settled().is_empty());
}

#[test]
fn what_cannot_be_copied_is_told_and_the_rest_arrives() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "good").unwrap();
    fs::write(source.join("taken"), "no").unwrap();
    fs::create_dir(source.join("way")).unwrap();
    fs::write(source.join("way/in"), "no").unwrap();
    let socket = std::os::unix::net::UnixListener::bind(source.join("socket")).unwrap();
    let to = folder.path().join("to");
    fs::create_dir_all(to.join("source/taken")).unwrap();
    fs::write(to.join("source/way"), "file").unwrap();
    let log = Log::default();
    upload(
        paths([&source, &folder.path().join("no")]),
        &to,
        RECURSIVE,
        &log,
    )
    .unwrap();
    drop(socket);
    assert_eq!(fs::read(to.join("source/file")).unwrap(), b"good");
    let failed: Vec<PathBuf> = log.failed().into_keys().collect();
    let missing = folder.path().join("no");
    let expected = [
        missing.as_path(),
        Path::new("source/taken"),
        Path::new("source/way"),
        Path::new("source/way/in"),
    ];
    assert_eq!(failed, expected);
    let skipped = log.0.lock().unwrap().iter().any(
        |told| matches!(told, Told::Skipped { path, .. } if path == Path::new("source/socket")),
    );
    assert!(skipped);
}

#[test]
fn nothing_is_written_or_read_through_a_link_below_what_was_named() {
    let folder = tempfile::tempdir().unwrap();
    let outside = folder.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "precious").unwrap();
    let source = folder.path().join("source");
    fs::create_dir_all(source.join("sub")).unwrap();
    fs::write(source.join("sub/file"), "new").unwrap();
    fs::write(source.join("file"), "new").unwrap();
    let to = folder.path().join("to");
    fs::create_dir_all(to.join("source")).unwrap();
    symlink(&outside, to.join("source/sub")).unwrap();
    symlink(outside.join("file"), to.join("source/file")).unwrap();
    let log = Log::default();
    upload(paths([&source]), &to, RECURSIVE, &log).unwrap();
    assert_eq!(fs::read(outside.join("file")).unwrap(), b"precious");
    assert_eq!(fs::read(to.join("source/file")).unwrap(), b"new");
    assert!(
        !fs::symlink_metadata(to.join("source/file"))
            .unwrap()
            .is_symlink()
    );
    assert!(log.failed()[Path::new("source/sub")].contains("symbolic link"));

    // A link in the source is copied as a link.
    let linked = folder.path().join("linked");
    fs::create_dir(&linked).unwrap();
    symlink(&outside, linked.join("out")).unwrap();
    let down = folder.path().join("down");
    download(&linked, Target::Path(down.clone()), RECURSIVE, &log).unwrap();
    assert_eq!(fs::read_link(down.join("out")).unwrap(), outside);
}
